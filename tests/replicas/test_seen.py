"""Which positions were taken in."""

from __future__ import annotations

from random import Random

from collab.replicas.seen import MAX_ISLANDS, Seen


def test_what_follows_moves_the_end() -> None:
    seen = Seen(3)

    seen.add(4, 6)

    assert seen.end == 6


def test_what_comes_too_early_waits_for_what_is_between() -> None:
    seen = Seen(0)
    seen.add(4, 5)
    before = seen.end

    seen.add(1, 3)

    assert (before, seen.end) == (0, 5)


def test_what_is_known_changes_nothing() -> None:
    seen = Seen(9)

    seen.add(2, 4)

    assert seen.end == 9


def test_ranges_in_any_order_and_twice_end_where_the_last_does() -> None:
    random = Random(1)
    for _ in range(50):
        ranges, at = [], 1
        while at < 200:
            length = random.randint(1, 9)
            ranges.append((at, at + length - 1))
            at += length
        given = ranges + random.sample(ranges, 10)
        random.shuffle(given)
        seen = Seen(0)

        for first, last in given:
            seen.add(first, last)

        assert seen.end == at - 1


def test_what_waits_is_bounded() -> None:
    seen = Seen(0)

    for at in range(3, 4 * MAX_ISLANDS, 2):
        seen.add(at, at)

    assert len(seen._islands) == MAX_ISLANDS
