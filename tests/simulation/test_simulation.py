"""A thousand seeds; a failing one is in the message, and `python tests/simulation/run.py --seed N --verbose` runs it again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from logged import capture_logs
from virtual import run
from world import Broken, World

from collab.awareness import Awareness
from collab.replicas.link import Link
from collab.room import Room
from collab.store.base import Entry

SEEDS = 1000
PORTION = 125
CONTROL_SEEDS = 60  # in which a broken build must be found out


@pytest.fixture(autouse=True)
def _silence() -> Iterator[None]:
    with capture_logs():
        yield


@pytest.mark.parametrize("first", range(0, SEEDS, PORTION))
def test_replicas_agree_and_lose_nothing_acknowledged(first: int) -> None:
    for seed in range(first, first + PORTION):
        run(World(seed).run())


def test_a_seed_gives_the_same_run_again() -> None:
    worlds = [World(17), World(17)]
    for world in worlds:
        run(world.run())

    stories = [[str(person.text) for person in world.people] for world in worlds]
    assert stories[0] == stories[1]
    assert worlds[0].ended_at == worlds[1].ended_at


def found_out() -> bool:
    try:
        for seed in range(CONTROL_SEEDS):
            run(World(seed).run())
    except Broken:
        return True
    return False


def test_a_build_that_does_not_repair_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Link, "_read", lambda self: None)
    monkeypatch.setattr(Link, "_compare", lambda self, *digest: None)

    assert found_out()


def test_a_build_that_acknowledges_early_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    take = Room.take

    def early(room: Room, milliseconds: int) -> Entry | None:
        entry = take(room, milliseconds)
        if entry is not None:
            room.log(entry.last)
        return entry

    monkeypatch.setattr(Room, "take", early)

    assert found_out()


def test_a_build_that_lets_the_dead_be_present_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Link, "forget", lambda self, replica: None)
    monkeypatch.setattr(Awareness, "expire", lambda self, now: None)

    assert found_out()
