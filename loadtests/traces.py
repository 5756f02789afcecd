"""What the load client types: one author's Yjs updates and the document they end in, kept in the cache folder.

The edits are those of the automerge-paper trace when `../shared/data` beside the repository has it, else of a
generated author who types and deletes much alike. Every update carries the client id AUTHOR, whose varint the load
client finds and replaces, so that each writer plays the same stream under an id of its own.
"""

from __future__ import annotations

import gzip
import json
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pycrdt import Doc, Text, TransactionEvent

HERE = Path(__file__).resolve().parent
CACHE = HERE / ".cache"
PAPER = HERE.parent.parent / "shared" / "data" / "automerge-paper.json.gz"

AUTHOR = (
    0xFFFF_FFFF  # ff ff ff ff 0f as a varint: nothing else in an update looks like it
)
ROOT = "text"
KEYSTROKES = 20_000  # as many as one writer plays in the longest scenario, and more
EDITS = 259_778  # of the paper, and so of the author who stands in

Edit = tuple[int, int, str]  # position, deleted characters, inserted text


class Document(NamedTuple):
    """A whole document as one update, and the clock its author has come to."""

    path: Path
    clock: int
    edits: int


def source() -> str:
    """Which edits these are, for the report."""
    return "automerge-paper" if PAPER.exists() else "generated"


def keystrokes() -> Path:
    """The author's first updates, each behind its length; made once."""
    path = CACHE / f"{source()}-keystrokes.bin"
    if not path.exists():
        _write(path, pack(updates(edits(), KEYSTROKES)))
    return path


def pastes(count: int = 1_000, size: int = 4_096) -> Path:
    """Updates that each append a block of text: what fills a socket that nobody reads."""
    path = CACHE / f"pastes-{count}-{size}.bin"
    if not path.exists():
        block = ("the quick brown fox jumps over the lazy dog " * (size // 44 + 1))[
            :size
        ]
        _write(path, pack(updates(((i * size, 0, block) for i in range(count)), count)))
    return path


def document() -> Document:
    """The document after all edits; made once, in some seconds."""
    path = CACHE / f"{source()}-document.bin"
    facts = path.with_suffix(".json")
    if not facts.exists():
        doc, count = play(edits())
        _write(path, doc.get_update())
        _write(facts, json.dumps({"clock": _clock(doc), "edits": count}).encode())
    known = json.loads(facts.read_text())
    return Document(path, known["clock"], known["edits"])


def edits() -> Iterator[Edit]:
    """One author's edits, in order."""
    if PAPER.exists():
        with gzip.open(PAPER) as file:
            trace = json.load(file)
        for transaction in trace["txns"]:
            yield from transaction["patches"]
    else:
        yield from _generated(random.Random(7))


def _generated(chance: random.Random) -> Iterator[Edit]:
    """Runs of typing with slips taken back, now and then somewhere else in the text."""
    length = place = 0
    for _ in range(EDITS):
        if chance.random() < 0.02:
            place = chance.randint(0, length)
        if place and chance.random() < 0.3:
            place -= 1
            length -= 1
            yield place, 1, ""
        else:
            yield place, 0, chance.choice("etaoin shrdlu,.\n")
            place += 1
            length += 1


def updates(edits: Iterator[Edit], count: int) -> Iterator[bytes]:
    """The update of each keystroke: an insertion or a deletion, never both in one."""
    taken: list[bytes] = []
    doc: Doc[Any] = Doc(client_id=AUTHOR)

    def take(event: TransactionEvent) -> None:
        taken.append(event.update)

    subscription = doc.observe(take)
    for _ in _steps(doc, edits):
        yield from taken[:count]
        count -= len(taken)
        taken.clear()
        if count <= 0:
            break
    doc.unobserve(subscription)


def play(edits: Iterator[Edit]) -> tuple[Doc[Any], int]:
    """The document after these edits, and how many there were."""
    doc: Doc[Any] = Doc(client_id=AUTHOR)
    return doc, sum(1 for _ in _steps(doc, edits))


def _steps(doc: Doc[Any], edits: Iterator[Edit]) -> Iterator[None]:
    """Make each edit; pycrdt counts in UTF-8 bytes where a trace counts characters."""
    text = doc.get(ROOT, type=Text)
    mirror = ""
    for position, deleted, inserted in edits:
        plain = mirror.isascii()
        start = position if plain else len(mirror[:position].encode())
        if deleted:
            gone = (
                deleted
                if plain
                else len(mirror[position : position + deleted].encode())
            )
            del text[start : start + gone]
        if inserted:
            text.insert(start, inserted)
        mirror = mirror[:position] + inserted + mirror[position + deleted :]
        yield


def _clock(doc: Doc[Any]) -> int:
    """The author's clock: the last number of a state vector that names one client."""
    vector = doc.get_state()
    assert vector[0] == 1, "one author wrote this document"
    clock = 0
    for shift, byte in enumerate(vector[6:]):
        clock |= (byte & 127) << (7 * shift)
    return clock


def pack(updates: Iterator[bytes]) -> bytes:
    """As the load client reads them: each behind its length."""
    return b"".join(struct.pack("<I", len(update)) + update for update in updates)


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all: another run may be looking."""
    path.parent.mkdir(exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.replace(path)
