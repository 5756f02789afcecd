"""What has been deleted, as native code writes it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collab.document.deletions import Ranges, counted, deletions
from collab.errors import InvalidMessage
from collab.protocol.varint import encode_varint

numbers = st.one_of(st.integers(1, 300), st.integers(1, 1 << 40))
apart = st.lists(st.tuples(numbers, numbers), max_size=20).map(
    lambda gaps: placed(gaps)
)


def placed(gaps: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges of these sizes with such gaps before them."""
    found, at = [], -1
    for gap, size in gaps:
        found.append((at + gap, at + gap + size))
        at += gap + size
    return found


def written(deleted: Ranges) -> bytes:
    parts = [0, len(deleted)]
    for client, ranges in deleted.items():
        parts += [client, len(ranges)]
        parts += [each for start, end in ranges for each in (start, end - start)]
    return b"".join(map(encode_varint, parts))


@given(st.dictionaries(st.integers(0, (1 << 53) - 1), apart, max_size=4))
def test_ranges_are_read_as_they_were_written(deleted: Ranges) -> None:
    update = written(deleted)

    found = {client: [*ranges] for client, ranges in deletions(update).items()}

    assert {client: _joined(ranges) for client, ranges in deleted.items()} == found
    everything = [each for ranges in deleted.values() for each in ranges]
    assert counted(update) == (
        len(everything),
        sum(end - start for start, end in everything),
    )


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Those that touch are one."""
    found: list[tuple[int, int]] = []
    for start, end in ranges:
        if found and found[-1][1] == start:
            start = found.pop()[0]
        found.append((start, end))
    return found


def test_ranges_that_come_in_another_order_are_put_in_order() -> None:
    update = written({7: [(50, 60), (0, 10), (5, 20), (20, 30)]})

    assert deletions(update) == {7: [(0, 30), (50, 60)]}


@pytest.mark.parametrize("read", [deletions, counted])
def test_an_update_with_structs_is_refused(read: object) -> None:
    assert callable(read)
    with pytest.raises(InvalidMessage):
        read(b"\x01\x01\x01\x00")


def test_ranges_that_are_cut_short_are_refused() -> None:
    update = written({7: [(1 << 30, 1 << 31)]})

    for end in range(2, len(update)):
        with pytest.raises(InvalidMessage):
            deletions(update[:end])
