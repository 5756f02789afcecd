"""Who wrote what in nested structures, and what changed, held against what Yjs users remember of it."""

from __future__ import annotations

import json
import random
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from collab.document.attribution import Attribution
from collab.document.blame import blame
from collab.document.export import export, kinds_of, load
from collab.document.order import Order
from collab.document.past import changeset, document_at
from collab.document.shared import kinds_of as kinds_in
from collab.document.values import parse
from collab.store.base import Author, Row

HERE = Path(__file__).parent
PACKAGES = HERE.parents[1] / "client-js" / "node_modules"
STREAMS = 24
# As authors.mjs has them.
LETTERS = [set("abc 日😀"), set("defä🎉本"), set("ghi-🚀語"), set("jklß🐍字")]
EMPTY = {"text": "", "array": [], "map": {}, "xml": []}


@dataclass
class Session:
    """A log of users who each write in letters of their own, and what was shown after each row."""

    rows: list[Row]
    shown: list[dict[str, Any]]

    def snapshot(self, position: int) -> bytes:
        return document_at(None, [row.update for row in self.rows[:position]])


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> list[Session]:
    assert (PACKAGES / "yjs").is_dir(), "Yjs is missing: run npm ci in client-js"
    path = tmp_path_factory.mktemp("authors") / "sessions.jsonl"
    command = ["node", HERE / "authors.mjs", PACKAGES, "1", str(STREAMS), path]
    subprocess.run(command, check=True)
    return [read(json.loads(line)) for line in path.read_text().splitlines()]


def read(session: dict[str, Any]) -> Session:
    rows = [
        Row(at, at * 60_000, Author(str(row["by"]), "c"), b64decode(row["update"]))
        for at, row in enumerate(session["rows"], 1)
    ]
    return Session(rows, [EMPTY, *(row["shown"] for row in session["rows"])])


def by_of(value: Any) -> str | None:
    """Whose a value is, when one can see it."""
    if isinstance(value, dict):
        found = value.get("attributes", value.get("is", value)).get("by")
        return None if found is None else str(found)
    if isinstance(value, str):
        whose = {by_of_character(one) for one in value} - {None}
        return whose.pop() if len(whose) == 1 else None
    return None


def by_of_character(one: str) -> str | None:
    return next((str(by) for by, letters in enumerate(LETTERS) if one in letters), None)


def at_path(value: Any, path: str) -> Any:
    for step in parse(path) if path else ():
        if isinstance(value, dict) and "tag" in value:
            value = value["children"]
        value = value[step if isinstance(value, dict) else int(step)]
    return value


def asked(session: Session, position: int) -> tuple[Order, Attribution]:
    found = Attribution()
    for row in session.rows:
        found.take(row)
    return Order.of(session.snapshot(position)), found


def test_roots_are_what_an_export_takes_them_for(sessions: list[Session]) -> None:
    for session in sessions:
        for position in range(0, len(session.rows) + 1, 7):
            snapshot = session.snapshot(position)

            assert kinds_in(Order.of(snapshot)) == kinds_of(load(snapshot))


def test_each_character_is_credited_to_whoever_typed_it(
    sessions: list[Session],
) -> None:
    chance = random.Random(1)
    characters = 0
    for session in sessions:
        for position in (chance.randrange(len(session.rows)) + 1, len(session.rows)):
            order, found = asked(session, position)
            snapshot, shown = session.snapshot(position), session.shown[position]
            for root in ("text", "xml"):
                if kinds_in(order).get(root, "empty") == "empty":
                    continue
                said = export(snapshot, "text", root).decode()

                told = blame(order, found, {}, root, "", 0, None)

                assert covered(told["spans"]) == len(said)
                for span in told["spans"]:
                    part = said[span["start"] : span["end"]]
                    author = told["authors"][span["author"]]["principal"]
                    if span.get("path") is not None:
                        node = at_path(shown["xml"], span["path"])
                        assert isinstance(node, str) or by_of(node) == author
                    assert {by_of_character(one) for one in part} <= {author, None}
                    characters += len(part)
                start, end = sorted(chance.choices(range(len(said) + 2), k=2))
                some = blame(order, found, {}, root, "", start, end)
                assert cut(told, start, end) == cut(some, start, end)
    assert characters > 1000


def test_inside_of_a_root_each_text_item_and_key_has_its_author(
    sessions: list[Session],
) -> None:
    seen = dict.fromkeys(("text", "array", "map", "xml", "value"), 0)
    for session in sessions:
        position = len(session.rows)
        order, found = asked(session, position)
        for root, shown in session.shown[position].items():
            if kinds_in(order).get(root, "empty") == "empty":
                continue
            for path in places_in(shown):
                held = at_path(shown, path)

                told = blame(order, found, {}, root, path, 0, None)

                kind = told["kind"]
                seen[kind] += 1
                if kind != "xml":
                    size = 1 if kind == "value" else len(held)
                    assert covered(told["spans"]) == size
                    for value, author in credited(held, told):
                        assert is_of(value, author)
    assert min(seen.values()) > 20


def credited(held: Any, told: dict[str, Any]) -> Iterator[tuple[Any, str]]:
    """Each character, item or key with its author, where one can see whose it is: a text that was put somewhere may
    hold what others wrote.
    """
    for span in told["spans"]:
        author = told["authors"][span["author"]]["principal"]
        for at in range(span["start"], span["end"]):
            if told["kind"] == "map":
                assert span["key"] == sorted(held)[at]
            value = held if told["kind"] == "value" else held[span.get("key", at)]
            if told["kind"] == "text" or isinstance(value, dict):
                yield value, author


def is_of(value: Any, author: str) -> bool:
    """Whether it can be of an author: some things may be of anybody."""
    return by_of(value) in (author, None)


def places_in(value: Any, path: str = "") -> list[str]:
    """The paths of all shared types and of the values in them."""
    found = [path]
    if isinstance(value, dict) and "tag" in value:
        value = value["children"]
    if isinstance(value, dict) and "by" not in value:
        for key, each in value.items():
            step = key.replace("~", "~0").replace("/", "~1")
            found += places_in(each, f"{path}/{step}")
    elif isinstance(value, list):
        for at, each in enumerate(value):
            found += places_in(each, f"{path}/{at}")
    return found


def covered(spans: list[dict[str, Any]]) -> int:
    """How far spans reach without a gap or an overlap."""
    end = 0
    for span in spans:
        assert span["start"] == end < span["end"]
        end = span["end"]
    return end


def cut(told: dict[str, Any], start: int, end: int) -> list[tuple[Any, ...]]:
    return [
        (at, told["authors"][span["author"]]["principal"], span.get("path"))
        for span in told["spans"]
        for at in range(max(span["start"], start), min(span["end"], end))
    ]


def test_a_changeset_leads_from_what_was_to_what_is(sessions: list[Session]) -> None:
    chance = random.Random(2)
    kinds = {"text": 0, "items": 0, "key": 0}
    for session in sessions:
        last = len(session.rows)
        pairs = [sorted(chance.choices(range(last + 1), k=2)) for _ in range(6)]
        for after, upto in [*pairs, (0, last)]:
            rows = session.rows[:upto]

            told = changeset(None, rows[:after], rows[after:], {}, "")

            value = json.loads(json.dumps(session.shown[after]))
            for change in told["changes"]:
                kinds[change["kind"]] += 1
                author = told["authors"][change["author"]]["principal"]
                place = value[change["root"]]
                value[change["root"]] = applied(
                    place, parse(change["path"]) if change["path"] else (), change
                )
                new = change["new"]
                for each in new:
                    assert is_of(each, author)
                row = session.rows[change["position"] - 1]
                assert after < row.position <= upto
                assert row.author.principal == author
            assert value == session.shown[upto]
    assert min(kinds.values()) > 100


def applied(value: Any, steps: tuple[str, ...], change: dict[str, Any]) -> Any:
    """A value with a change made at a path inside."""
    if steps:
        holder = value
        if isinstance(value, dict) and "tag" in value:
            holder = value["children"]
        key = steps[0] if isinstance(holder, dict) else int(steps[0])
        holder[key] = applied(holder[key], steps[1:], change)
        return value
    old, new, start = change["old"], change["new"], change["start"]
    if change["kind"] == "key":
        held = value["attributes"] if "tag" in value else value
        assert [held[change["key"]]] if change["key"] in held else [] == old
        if new:
            held[change["key"]] = new[0]
        else:
            del held[change["key"]]
        return value
    holder = value["children"] if isinstance(value, dict) else value
    assert holder[start : start + len(old)] == old
    made = holder[:start] + new + holder[start + len(old) :]
    if isinstance(value, dict):
        value["children"] = made
        return value
    return made
