"""Updates that real programs made: none of them may ever be refused."""

from __future__ import annotations

import json
import sys
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pycrdt import Doc, Text, TransactionEvent, merge_updates

HERE = Path(__file__).parent
sys.path += [str(HERE.parent / "traces"), str(HERE.parent / "convergence")]

from converging import record  # noqa: E402
from editing_traces import Trace, ancestry, find, load  # noqa: E402

Stream = list[bytes]  # in the order of their making


class Author:
    """One author's document, edited by character positions, and the updates of the last edit."""

    def __init__(self, client: int) -> None:
        self.doc: Doc[Any] = Doc(client_id=client)
        self.text = self.doc.get("text", type=Text)
        self.made: list[bytes] = []
        self._mirror = ""
        self._subscription = self.doc.observe(self._note)

    def _note(self, event: TransactionEvent) -> None:
        self.made.append(event.update)

    def edit(self, patches: list[tuple[int, int, str]]) -> list[bytes]:
        """Make the edits; returns their updates."""
        self.made.clear()
        for at, removed, inserted in patches:
            text = self._mirror
            start = len(text[:at].encode())  # pycrdt counts bytes of UTF-8
            with self.doc.transaction():
                if removed:
                    stop = start + len(text[at : at + removed].encode())
                    del self.text[start:stop]
                if inserted:
                    self.text.insert(start, inserted)
            self._mirror = text[:at] + inserted + text[at + removed :]
        return list(self.made)

    def hear(self, updates: Iterable[bytes]) -> None:
        for update in updates:
            self.doc.apply_update(update)
        self._mirror = str(self.text)

    def leave(self) -> None:
        self.doc.unobserve(self._subscription)


def keystrokes(trace: Trace, edits: int | None = None) -> Stream:
    """The updates of a trace's edits, one for each keystroke."""
    txns = trace["txns"][:edits]
    authors = [Author(0x9E3779B1 + n) for n in range(trace.get("numAgents", 1))]
    if len(authors) == 1:
        made = [authors[0].edit(txn["patches"]) for txn in txns]
    else:
        made = []
        for txn, news in zip(txns, ancestry(trace), strict=False):
            author = authors[txn["agent"]]
            if news:
                author.hear(update for index in news for update in made[index])
            made.append(author.edit(txn["patches"]))
    for author in authors:
        author.leave()
    return [update for updates in made for update in updates]


def traces(scratch: Path, edits: int | None = None) -> Iterator[tuple[str, Stream]]:
    """Both editing traces; generated ones where the real are not at hand."""
    for name in ("friendsforever", "automerge-paper"):
        yield name, keystrokes(load(find(name, scratch)), edits)


def yjs_streams(scratch: Path, count: int) -> Iterator[tuple[str, Stream]]:
    """Editing sessions of Yjs users."""
    path = scratch / "streams.jsonl"
    if not path.exists():
        record(path, first_seed=1, streams=count)
    for line in path.read_text().splitlines():
        stream = json.loads(line)
        yield f"yjs {stream['seed']}", [b64decode(each) for each in stream["updates"]]


def excerpts(
    name: str, stream: Stream, length: int = 200
) -> Iterator[tuple[str, Stream]]:
    """Short streams out of a long one, each behind the state that it builds on."""
    for start in range(0, min(len(stream), 8000), 1000):
        state = [merge_updates(*stream[:start])] if start else []
        yield f"{name} from {start}", [*state, *stream[start : start + length]]


def write(path: Path, streams: Iterable[tuple[str, Stream]]) -> Path:
    """Keep streams for the child processes."""
    with path.open("w") as file:
        for name, stream in streams:
            updates = [b64encode(update).decode() for update in stream]
            file.write(json.dumps({"name": name, "updates": updates}) + "\n")
    return path


def read(path: Path) -> list[tuple[str, Stream]]:
    lines = map(json.loads, path.read_text().splitlines())
    return [
        (line["name"], [b64decode(update) for update in line["updates"]])
        for line in lines
    ]
