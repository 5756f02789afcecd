"""The audit log of a server: a bounded queue that says what it lost, and refuses verbs it cannot write."""

from __future__ import annotations

import ast
import errno
import inspect
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import ROOT, eventually
from rooms import Client

from collab.audit import audit as module
from collab.audit.audit import EVENTS, Audit, Awaited, Edits, gathered
from collab.audit.chain import Happening, read_head
from collab.audit.verdict import judge
from collab.auth.permissions import ADMIN
from collab.errors import ConfigurationError, StoreUnavailable
from collab.metrics import Metrics
from collab.replica import Replica
from collab.server.api.dispatch import Route
from collab.server.api.routes import ROUTES
from collab.store.base import Author
from collab.store.memory import MemoryStore


@pytest.fixture
def audit(tmp_path: Path) -> Iterator[Audit]:
    with Audit(tmp_path, tmp_path / "audit.jsonl") as audit:
        yield audit


def read(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line) for line in (folder / "audit.jsonl").read_text().splitlines()
    ]


def ada(number: int) -> list[Author]:
    return [Author("ada", "c1")] * number


def full(file: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_what_was_recorded_is_in_the_file_within_a_second(
    audit: Audit, tmp_path: Path
) -> None:
    audit.record("join", principal="ada", room="acme\x1fnotes", address="192.0.2.1")

    assert eventually(lambda: len(read(tmp_path)) == 2)
    line = read(tmp_path)[1]
    assert (line["event"], line["principal"], line["tenant"], line["room"]) == (
        "join",
        "ada",
        "acme",
        "notes",
    )


@pytest.mark.anyio
async def test_a_verb_goes_on_only_when_its_line_is_on_disk(
    audit: Audit, tmp_path: Path
) -> None:
    audit.record("join")

    await audit.confirmed("room.delete", principal="ada", room="notes")

    assert [line["event"] for line in read(tmp_path)] == [
        "begin",
        "join",
        "room.delete",
    ]
    assert judge([tmp_path / "audit.jsonl"], read_head(tmp_path)).broken is None


@pytest.mark.anyio
async def test_a_verb_is_refused_when_the_disk_is_full_and_the_rest_is_written_later(
    audit: Audit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", full)
        audit.record("join", principal="ada")
        with pytest.raises(StoreUnavailable, match="audit log"):
            await audit.confirmed("room.delete")

    await audit.confirmed("room.create")

    assert [line["event"] for line in read(tmp_path)] == [
        "begin",
        "join",
        "room.create",
    ]


@pytest.mark.anyio
async def test_when_too_much_waits_verbs_are_refused_and_a_line_counts_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    metrics = Metrics()

    with Audit(tmp_path, tmp_path / "audit.jsonl", metrics=metrics) as audit:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", full)
            for _ in range(5):
                audit.record("join")
            with pytest.raises(StoreUnavailable):
                await audit.confirmed("room.delete")

    lines = read(tmp_path)
    assert [line["event"] for line in lines] == ["begin", "join", "join", "join", "gap"]
    assert lines[-1]["details"] == {"events": 3}
    assert metrics.audit_lost == 3


def test_without_a_path_nothing_is_written(tmp_path: Path) -> None:
    with Audit(tmp_path, None) as audit:
        audit.record("join")

        assert not audit.is_on
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_stops_the_start(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigurationError, match="audit log"),
        Audit(tmp_path, tmp_path / "nowhere" / "audit.jsonl"),
    ):
        pass


def test_edits_of_one_room_are_one_line_that_credits_each_position() -> None:
    ben = [Author("ben", "c2")]

    lines = gathered(
        [
            Edits(1.0, "notes", 5, ada(2)),
            Edits(1.1, "plans", 1, ben),
            Edits(1.2, "notes", 7, [*ben, *ada(1)]),
        ]
    )

    assert lines == [
        Happening(
            1.0,
            "update",
            room="notes",
            details={"first": 5, "last": 8, "by": [["ada", 2], ["ben", 1], ["ada", 1]]},
        ),
        Happening(
            1.1,
            "update",
            "ben",
            "",
            "plans",
            {"first": 1, "last": 1, "by": [["ben", 1]]},
        ),
    ]


def test_edits_that_do_not_follow_each_other_get_lines_of_their_own() -> None:
    lines = gathered([Edits(1.0, "notes", 5, ada(2)), Edits(1.1, "notes", 1, ada(1))])

    assert [line.details["first"] for line in lines] == [5, 1]


def test_a_stranger_who_knocks_a_thousand_times_makes_one_line() -> None:
    told = {"code": "unauthenticated", "address": "192.0.2.1"}
    knocks = [
        Happening(1.0, "denied", room=str(room), details=told) for room in range(1000)
    ]

    lines = gathered(knocks)

    assert [line.details["times"] for line in lines] == [1000]


def test_a_thousand_strangers_are_counted_together_beyond_a_bound() -> None:
    knocks = [
        Happening(1.0, "denied", details={"address": str(number)})
        for number in range(1000)
    ]

    lines = gathered(knocks)

    assert len(lines) == module.MAX_DENIALS + 1
    assert sum(line.details["times"] for line in lines) == 1000


def test_a_confirmed_line_stands_among_the_others() -> None:
    lines = gathered(
        [Happening(1.0, "join"), Awaited(Happening(1.1, "grant"), lambda error: None)]
    )

    assert [line.event for line in lines] == ["join", "grant"]


@pytest.mark.anyio
async def test_a_replica_writes_who_came_what_was_logged_and_who_left(
    tmp_path: Path,
) -> None:
    client = Client("ada")

    with Audit(tmp_path, tmp_path / "audit.jsonl") as audit:
        async with Replica(MemoryStore(), Metrics(), audit=audit) as replica:
            room = await replica.open("notes")
            replica.join(room, client.member)
            room.update(client.member, client.write("secret words"))
            await replica.settle()
            replica.leave(room, client.member)
            replica.leave(room, client.member)  # as a socket does that was ended

    lines = read(tmp_path)
    assert [line["event"] for line in lines] == ["begin", "join", "update", "leave"]
    assert lines[2]["details"] == {"first": 1, "last": 1, "by": [["ada", 1]]}
    assert "secret" not in (tmp_path / "audit.jsonl").read_text()


def test_every_event_that_the_code_names_is_described() -> None:
    named = set()
    for path in (ROOT / "collab").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and node.args:
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                index = 1 if name == "note" else 0
                is_ours = name in ("record", "confirmed", "audit", "note")
                if is_ours and len(node.args) > index:
                    event = node.args[index]
                    if isinstance(event, ast.Constant):
                        named.add(event.value)

    assert {"denied", "drain"} <= named
    assert named <= EVENTS.keys()


VERBS = [
    route
    for route in ROUTES
    if route.is_write and isinstance(route.needs, int) and route.needs & ADMIN
    # It only looks; what it finds are lines of their own.
    if route.path != "/v1/recheck"
]


@pytest.mark.parametrize("route", VERBS, ids=str)
def test_every_verb_of_an_administrator_waits_for_its_line(route: Route) -> None:
    assert "await call.audit(" in inspect.getsource(route.handler)
