"""Edits read by stock Yjs: the same characters, the same values, while others type."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from convergence.converging import shown_by_yjs
from pycrdt import Doc, Text

from collab.document.document import Document
from collab.document.edits import Draft, Operation, Replacement, Rewrite, Splice
from collab.document.export import to_json
from collab.document.tree import Patch
from collab.errors import AmbiguousText

CHARACTERS = ["a", "b", " ", "\n", "ß", "世", "😀", "👩‍💻", "é", "🏳️‍🌈", "𝒳"]


def words(chance: random.Random, most: int) -> str:
    return "".join(chance.choices(CHARACTERS, k=chance.randint(0, most)))


def operations(chance: random.Random, text: str) -> list[Operation]:
    """Valid ones for this text, and for a map and a list beside it."""
    match chance.randrange(4):
        case 0:
            index = chance.randint(0, len(text))
            delete = chance.randint(0, min(4, len(text) - index))
            return [Splice("text", index, delete, words(chance, 6))]
        case 1:
            return [Rewrite("text", text[:3] + words(chance, 9) + text[5:])]
        case 2 if text:
            at = chance.randrange(len(text))
            found = text[at : at + 3]
            return [Replacement("text", found, words(chance, 4), near=at)]
        case _:
            key = chance.choice(["a", "é", "😀"])
            value = {"text": words(chance, 4), "list": [chance.randint(0, 9), None]}
            return [
                Patch("add", f"/map/{key}", value),
                Patch("add", "/array/-", chance.choice([1.5, True, words(chance, 3)])),
            ]


def test_yjs_reads_what_was_edited_while_others_typed(tmp_path: Path) -> None:
    readers: list[list[bytes]] = []
    expected: list[dict[str, Any]] = []
    for seed in range(60):
        chance = random.Random(seed)
        room = Document()
        log: list[bytes] = []
        for step in range(12):
            before = room.snapshot()
            text = to_json(before).get("text") or ""
            try:
                made = Draft(before, 1000 + seed).edit(operations(chance, text))
            except AmbiguousText:  # two places are as close
                made = None
            typed = typing(before, 2000 + step, chance)
            for update, who in ((typed, "eve"), (made, "bot")):
                if update is not None:
                    room.apply(update, who)
                    log.append(update)
        readers.append(log)
        expected.append(to_json(room.snapshot()))

    shown = shown_by_yjs(readers, tmp_path)

    for one, mine in zip(shown, expected, strict=True):
        pieces = one["content"]["text"]
        assert "".join(piece for piece, _ in pieces) == (mine.get("text") or "")
        assert one["content"]["map"] == (mine.get("map") or {})
        assert one["content"]["array"] == (mine.get("array") or [])
        assert not one["waits"]


def typing(snapshot: bytes, client: int, chance: random.Random) -> bytes | None:
    """What somebody types who does not know of the edit yet."""
    doc: Doc[Any] = Doc(client_id=client)
    doc.apply_update(snapshot)
    text = doc.get("text", type=Text)
    made: list[bytes] = []
    doc.observe(lambda event: made.append(event.update))
    shown = str(text)
    index = chance.randint(0, len(shown))
    text.insert(len(shown[:index].encode()), words(chance, 3) or "x")
    return made[0]
