"""Recorded Yjs streams, their delivery into a document of ours, and what is compared at the end."""

from __future__ import annotations

import json
import random
import subprocess
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText

from collab.document.gate import Gate
from collab.protocol.guard import check
from collab.protocol.statevector import Vector, state_vector
from collab.protocol.structs import scan

HERE = Path(__file__).parent
PACKAGES = HERE.parents[1] / "client-js" / "node_modules"

Deleted = dict[int, list[tuple[int, int]]]  # client → ranges that do not touch


@dataclass(frozen=True, slots=True)
class End:
    """All by which two documents are compared."""

    vector: Vector
    deleted: Deleted
    content: Any


@dataclass(frozen=True, slots=True)
class Stream:
    """One recorded session: its updates, and the document Yjs ends in."""

    seed: int
    updates: list[bytes]
    end: End


def record(path: Path, *, first_seed: int, streams: int, cut: bool = False) -> None:
    """Have Yjs users edit; the file appears only when it is whole. `cut`: also between surrogate halves."""
    assert (PACKAGES / "yjs").is_dir(), "Yjs is missing: run npm ci in client-js"
    fresh = path.with_suffix(".new")
    options = [str(first_seed), str(streams), fresh, *(["cut"] if cut else [])]
    subprocess.run(["node", HERE / "streams.mjs", PACKAGES, *options], check=True)
    fresh.replace(path)


def shown_by_yjs(readers: Iterable[Iterable[bytes]], scratch: Path) -> list[Any]:
    """What Yjs readers see, each after updates of its own."""
    asked = scratch / "readers.jsonl"
    lines = [[b64encode(update).decode() for update in each] for each in readers]
    asked.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = ["node", HERE / "readers.mjs", PACKAGES, asked]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in out.splitlines()]


def load(path: Path) -> list[Stream]:
    return [read(json.loads(line)) for line in path.read_text().splitlines()]


def read(line: dict[str, Any]) -> Stream:
    end = End(
        vector=state_vector(b64decode(line["vector"])),
        deleted=deleted(b64decode(line["state"])),
        content=line["content"],
    )
    return Stream(line["seed"], [b64decode(each) for each in line["updates"]], end)


def shuffled(
    updates: Sequence[bytes], seed: int, *, repeated: bool = False
) -> list[bytes]:
    """The updates in another order, on request a third of them twice."""
    chance = random.Random(seed)
    extra = chance.sample(updates, len(updates) // 3) if repeated else []
    mixed = [*updates, *extra]
    chance.shuffle(mixed)
    return mixed


def deliver(
    updates: Iterable[bytes], forwarded: list[bytes] | None = None
) -> tuple[Doc[Any], Gate]:
    """Take the updates in as a room does: through guard and gate, never otherwise."""
    doc: Doc[Any] = Doc()
    gate = Gate(max_bytes=1 << 22)
    for update in updates:
        runs = check(update, gate.known)
        passed = gate.admit(update) if runs is None else [update]
        for ready in passed:
            doc.apply_update(ready)
        if runs is not None:
            more = gate.advance(runs)
            for ready in more:
                doc.apply_update(ready)
            passed += more
        if forwarded is not None:
            forwarded += passed
    return doc, gate


def deliver_bare(updates: Iterable[bytes]) -> Doc[Any]:
    """Hand the updates to native code as they come."""
    doc: Doc[Any] = Doc()
    for update in updates:
        doc.apply_update(update)
    return doc


def end_of(doc: Doc[Any]) -> End:
    return End(state_vector(doc.get_state()), deleted(doc.get_update()), content(doc))


def deleted(state: bytes) -> Deleted:
    """The delete set of a whole document, each range as long as it can be."""
    ranges: Deleted = {}
    for client, clock, end in sorted(scan(state).deletes):
        mine = ranges.setdefault(client, [])
        if mine and mine[-1][1] >= clock:
            mine[-1] = (mine[-1][0], max(end, mine[-1][1]))
        else:
            mine.append((clock, end))
    return ranges


def content(doc: Doc[Any]) -> Any:
    """What a reader sees in the four roots, as the generator writes it."""
    return {
        "text": delta(doc.get("text", type=Text)),
        "array": doc.get("array", type=Array).to_py(),
        "map": doc.get("map", type=Map).to_py(),
        "xml": [xml(child) for child in doc.get("xml", type=XmlFragment).children],
    }


def delta(text: Text | XmlText) -> list[Any]:
    """What the text shows, neighbours of the same format as one piece."""
    pieces: list[Any] = []
    for insert, attributes in text.diff():
        formats = dict(attributes or {})
        last = pieces[-1] if pieces else None
        is_text = isinstance(insert, str)
        if last and is_text and isinstance(last[0], str) and last[1] == formats:
            last[0] += insert
        else:
            pieces.append([insert, formats])
    return pieces


def xml(node: XmlElement | XmlText) -> Any:
    if isinstance(node, XmlText):
        return {"text": delta(node)}
    return {
        "tag": node.tag,
        "attributes": dict(node.attributes),
        "children": [xml(child) for child in node.children],
    }
