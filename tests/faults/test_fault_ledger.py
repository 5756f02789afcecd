"""Each check of the oracle finds the violation that it is there for, and nothing where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from ledger import (
    ADD,
    REMOVE,
    Footprint,
    Latencies,
    Ledger,
    Operation,
    View,
    Violation,
    complaints,
    disordered,
    doubled,
    grown,
    judge,
    lost,
    misplaced,
    risen,
    slowed,
    unequal,
    waiting,
)

GOOD = View(
    "reader 1",
    text="<w1-0><w1-1>",
    array=["w1-2"],
    map={"w1-3": 1},
    vector={1: 30, 2: 4},
    deleted={1: [(3, 9)]},
    present=frozenset({1, 2}),
)
OTHER = replace(GOOD, source="reader 2")


def checks(found: Sequence[Violation]) -> set[str]:
    return {violation.check for violation in found}


@pytest.fixture
def ledger() -> Ledger:
    """Four tokens are there and saved, a fifth was removed, a sixth was sent only."""
    ledger = Ledger()
    for number in range(6):
        ledger.send(Operation(ADD, f"w1-{number}"))
    for number in range(5):
        ledger.save(Operation(ADD, f"w1-{number}"))
    ledger.send(Operation(REMOVE, "w1-4"))
    ledger.save(Operation(REMOVE, "w1-4"))
    return ledger


def test_nothing_is_found_where_nothing_is_wrong(ledger: Ledger) -> None:
    assert judge(ledger, [GOOD, OTHER], {1, 2}) == []


def test_what_was_sent_and_not_acknowledged_may_be_there_or_not(ledger: Ledger) -> None:
    present = replace(GOOD, map={"w1-3": 1, "w1-5": 1})

    assert judge(ledger, [present, replace(present, source="2")], {1, 2}) == []


@pytest.mark.parametrize(
    "other",
    [
        replace(OTHER, text="<w1-1><w1-0>"),
        replace(OTHER, array=["w1-2", "w1-2"]),
        replace(OTHER, map={}),
        replace(OTHER, vector={1: 30}),
        replace(OTHER, deleted={}),
    ],
    ids=["text", "array", "map", "vector", "deletions"],
)
def test_c1_finds_readers_that_differ(other: View) -> None:
    assert checks(unequal([GOOD, other])) == {"C1"}


def test_c2_finds_a_saved_token_that_is_gone(ledger: Ledger) -> None:
    found = lost(ledger, [GOOD, replace(OTHER, text="<w1-0>")])

    assert found == [Violation("C2", "reader 2: lost: w1-1 (1)")]


def test_c2_lets_a_removal_be_that_was_sent_and_not_acknowledged(
    ledger: Ledger,
) -> None:
    ledger.send(Operation(REMOVE, "w1-1"))

    assert lost(ledger, [replace(OTHER, text="<w1-0>")]) == []


def test_c3_finds_a_token_whose_removal_was_saved(ledger: Ledger) -> None:
    assert checks(risen(ledger, [replace(GOOD, array=["w1-2", "w1-4"])])) == {"C3"}


@pytest.mark.parametrize(
    "view",
    [
        replace(GOOD, array=["w1-2", "w1-2"]),
        replace(GOOD, text="<w1-0><w1-1><w1-2>"),
        replace(GOOD, map={"w9-9": 1}),
        replace(GOOD, text="<w1-0><w1-1>w1-"),
    ],
    ids=["twice in one root", "twice in two", "invented", "torn"],
)
def test_c4_finds_what_is_there_twice_or_was_never_written(
    ledger: Ledger, view: View
) -> None:
    assert checks(doubled(ledger, [view])) == {"C4"}


def test_c5_finds_what_waits(ledger: Ledger) -> None:
    assert checks(waiting([GOOD, replace(OTHER, is_waiting=True)])) == {"C5"}


def test_c5_finds_a_stream_in_which_what_one_replica_said_is_exchanged_or_twice() -> (
    None
):
    assert disordered([("a", 1), ("b", 7), ("a", 2), ("b", 9)]) == []
    assert checks(disordered([("a", 1), ("b", 7), ("a", 3), ("a", 2)])) == {"C5"}
    assert checks(disordered([("a", 1), ("a", 1)])) == {"C5"}


@pytest.mark.parametrize("present", [{1, 2, 3}, {1}], ids=["ghost", "unseen"])
def test_c6_finds_ghosts_and_whoever_is_not_seen(present: set[int]) -> None:
    assert checks(misplaced({1, 2}, [replace(GOOD, present=frozenset(present))])) == {
        "C6"
    }


def test_c6_leaves_readers_alone_that_do_not_look() -> None:
    assert misplaced({1, 2}, [replace(GOOD, present=None)]) == []


@pytest.mark.parametrize(
    "now",
    [
        Footprint(150_000_000, 40, 8, 10),
        Footprint(100_000_000, 60, 8, 10),
        Footprint(100_000_000, 40, 20, 10),
        Footprint(100_000_000, 40, 8, 30),
    ],
    ids=["memory", "files", "threads", "keys"],
)
def test_c7_finds_what_was_not_given_back(now: Footprint) -> None:
    before = Footprint(100_000_000, 40, 8, 10)

    assert grown("replica 1", before, before) == []
    assert checks(grown("replica 1", before, now)) == {"C7"}


def test_c8_finds_a_healthy_room_that_became_slow() -> None:
    before = Latencies([0.3] * 200)

    assert slowed("room", before, Latencies([0.5] * 200)) == []
    assert checks(slowed("room", before, Latencies([0.3] * 190 + [0.7] * 10))) == {"C8"}
    assert checks(slowed("room", before, Latencies())) == {"C8"}
    assert slowed("room", before, Latencies([1.0] * 9), own_lag=0.2) == []


def test_c9_finds_an_exception_in_a_log() -> None:
    expected = '{"event": "store is away", "level": "warning"}\n'
    bug = '{"event": "x", "exception": "Traceback (most recent call last):\\n …"}\n'

    assert complaints("replica 1", expected) == []
    assert checks(complaints("replica 1", expected + bug)) == {"C9"}


def test_a_ledger_is_written_down_as_it_happens(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.send(Operation(ADD, "w1-1"))
    ledger.note("SIGKILL")
    ledger.save(Operation(ADD, "w1-1"))
    ledger.save(Operation(ADD, "w1-1"))
    ledger.close()

    lines = (tmp_path / "ledger.jsonl").read_text().splitlines()

    assert [line.split('"')[1] for line in lines] == ["sent", "SIGKILL", "saved"]
    assert ledger.worst_seconds_to_saved >= 0
