"""How deep every id lies in shared types."""

from __future__ import annotations

import pytest

from collab.errors import TooLarge
from collab.protocol.nesting import MAX_TYPE_NESTING, Depths, Link

ROOT = (-1, 0, False)


def link(client: int, clock: int, end: int, to: tuple[int, int, bool] = ROOT) -> Link:
    return (client, clock, end, *to)


def depths(lines: Depths, client: int, count: int) -> list[int]:
    return [lines.at(client, clock) for clock in range(count)]


def test_a_neighbour_lies_as_deep_and_a_child_one_deeper() -> None:
    lines = Depths()

    lines.grow(
        [
            link(1, 0, 1),
            link(1, 1, 4, (1, 0, True)),
            link(1, 4, 5, (1, 2, False)),
            link(1, 5, 6, (1, 4, True)),
            link(1, 6, 7, (1, 0, False)),
        ],
        {},
    )

    assert depths(lines, 1, 8) == [0, 1, 1, 1, 1, 2, 0, 0]


def test_what_is_known_keeps_its_depth() -> None:
    lines = Depths()
    lines.grow([link(1, 0, 2), link(1, 2, 4, (1, 0, True))], {})

    lines.grow([link(1, 0, 6)], {1: 4})

    assert depths(lines, 1, 6) == [0, 0, 1, 1, 0, 0]


def test_clients_that_hang_at_each_other_are_followed_in_any_order() -> None:
    links = [
        link(1, 0, 1, (2, 1, True)),
        link(1, 1, 2, (2, 2, True)),
        link(2, 0, 1),
        link(2, 1, 2, (2, 0, True)),
        link(2, 2, 3, (1, 0, True)),
    ]
    for order in (links, links[2:] + links[:2]):
        lines = Depths()

        lines.grow(order, {})

        assert depths(lines, 1, 2) == [2, 4]
        assert depths(lines, 2, 3) == [0, 1, 3]


def test_one_type_more_than_the_limit_is_too_large() -> None:
    chain = [link(1, 0, 1)]
    chain += [
        link(1, clock, clock + 1, (1, clock - 1, True))
        for clock in range(1, MAX_TYPE_NESTING + 2)
    ]
    Depths().grow(chain[:-1], {})

    with pytest.raises(TooLarge):
        Depths().grow(chain, {})


def test_what_is_truncated_leaves_nothing_behind() -> None:
    lines = Depths()
    lines.grow([link(1, 0, 1), link(1, 1, 2, (1, 0, True)), link(2, 0, 1)], {})

    lines.truncate(1, 1)
    lines.truncate(2, 0)

    assert not lines


def test_an_update_that_was_not_applied_does_not_decide_for_the_next() -> None:
    lines = Depths()
    lines.grow([link(1, 0, 1), link(1, 1, 2, (1, 0, True))], {})
    lines.grow([link(1, 2, 9, (1, 1, True))], {1: 2})

    lines.record(1, 2, 0)

    assert depths(lines, 1, 9) == [0, 1, 0, 0, 0, 0, 0, 0, 0]


def test_equal_depths_take_one_place() -> None:
    lines = Depths()
    lines.grow([link(1, 0, 1), link(1, 1, 2, (1, 0, True))], {})

    for clock in range(2, 500):
        lines.record(1, clock, 1)

    assert len(lines[1].starts) == 2


def test_a_long_zigzag_takes_no_recursion() -> None:
    links = [link(1, 0, 1), link(2, 0, 1, (1, 0, False))]
    for clock in range(1, 20_000):
        links += [
            link(1, clock, clock + 1, (2, clock - 1, False)),
            link(2, clock, clock + 1, (1, clock, clock == 5)),
        ]
    lines = Depths()

    lines.grow(links, {})

    assert lines.at(1, 19_999) == 1
