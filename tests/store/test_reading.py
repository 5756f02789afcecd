"""What reading costs, and what it leaves alone."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from collab.store import reading
from collab.store.schema import migrate


def _steps(rooms: list[str], prefix: str) -> tuple[list[str], int]:
    """The rooms that are found under a prefix, and how many steps SQLite took."""
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1

    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        migrate(db, Path("memory"))
        db.executemany(
            "INSERT INTO room (name, epoch, created, crc, fence) VALUES (?, 'e', 0, 0, 0)",
            [(name,) for name in rooms],
        )
        db.set_progress_handler(step, 1)
        found = reading.rooms(db, prefix, "", 10, now=0, deleted=False)
    return [info.name for info in found], steps


@pytest.mark.parametrize("prefix", ["a", "m", "z"])
def test_rooms_outside_a_prefix_are_not_gone_over(prefix: str) -> None:
    many = [f"m{n}" for n in range(1000)] if prefix != "m" else []
    many += [f"n{n}" for n in range(1000)]

    found, steps = _steps(many, prefix)

    assert found == []
    assert steps < 2000


def test_a_prefix_holds_the_last_name_that_there_can_be() -> None:
    last = "a" + "\U0010ffff" * 63

    found, _ = _steps(["a", last, "b"], "a")

    assert found == ["a", last]
