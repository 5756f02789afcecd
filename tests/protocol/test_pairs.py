"""The ids of surrogate pairs."""

from __future__ import annotations

from collab.protocol.pairs import Pairs, cut_through, second_halves


def test_only_characters_outside_the_basic_plane_have_second_halves() -> None:
    assert list(second_halves("aé語😀b👩😀", 10)) == [14, 17, 19]


def test_a_recorded_half_is_found_and_no_other() -> None:
    pairs = Pairs()

    pairs.record(5, [2, 7])
    pairs.record(5, [9])

    assert [clock for clock in range(12) if pairs.has_half(5, clock)] == [2, 7, 9]
    assert not pairs.has_half(6, 2)


def test_what_is_forgotten_can_be_put_back() -> None:
    pairs = Pairs()
    pairs.record(5, [2, 7])

    pairs.forget(5, 2)
    pairs.forget(5, 7)
    assert not pairs

    pairs.restore(5, 7)
    pairs.restore(5, 2)
    assert list(pairs[5]) == [2, 7]


def test_truncated_is_what_comes_from_a_clock_on() -> None:
    pairs = Pairs()
    pairs.record(5, [2, 7])
    pairs.record(6, [1])

    pairs.truncate(5, 7)
    pairs.truncate(6, 0)
    pairs.truncate(7, 0)

    assert {client: list(halves) for client, halves in pairs.items()} == {5: [2]}


def test_nothing_to_record_leaves_no_trace() -> None:
    pairs = Pairs()

    pairs.record(5, [])

    assert not pairs


def test_a_cut_pair_is_shown_as_two_replacement_characters() -> None:
    assert cut_through("a😀😀b", 10, [14]) == "a😀\ufffd\ufffdb"
    assert cut_through("a😀😀b", 10, [13]) == "a😀😀b"
