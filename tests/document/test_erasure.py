"""How much of a document a turn has deleted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Doc, Text

from collab.document.deletions import Ranges
from collab.document.document import Document
from collab.document.erasure import MAX_RANGES, Erasure
from collab.protocol.varint import encode_varint

ranges = st.lists(
    st.tuples(st.integers(1, 2), st.integers(0, 40), st.integers(0, 12)).map(
        lambda each: (each[0], each[1], each[1] + each[2])
    ),
    max_size=40,
)


def update_of(deleted: Ranges) -> bytes:
    """As native code writes it."""
    numbers = [0, len(deleted)]
    for client, ranges in deleted.items():
        numbers += [client, len(ranges)]
        numbers += [each for start, end in ranges for each in (start, end - start)]
    return b"".join(map(encode_varint, numbers))


NOTHING = update_of({})


@given(before=ranges, during=ranges)
def test_what_was_there_counts_once_however_it_is_cut(
    before: list[tuple[int, int, int]], during: list[tuple[int, int, int]]
) -> None:
    known = {1: 30, 2: 20}
    there = {(client, clock) for client, end in known.items() for clock in range(end)}
    gone = {(client, at) for client, clock, end in before for at in range(clock, end)}
    taken = {(client, at) for client, clock, end in during for at in range(clock, end)}
    earlier = Erasure(known, NOTHING)
    earlier.add(before)
    deleted = update_of(earlier._deleted)

    erasure, at_once = Erasure(known, deleted), Erasure(known, deleted)
    for each in during:
        erasure.add([each])
    at_once.add(during)

    assert earlier.gone == len(gone & there)
    assert erasure.live == len(there - gone)
    assert erasure.gone == at_once.gone == len((taken & there) - gone)


def test_no_more_is_remembered_than_a_bound() -> None:
    erasure = Erasure({1: 10 * MAX_RANGES}, NOTHING)

    for at in range(2):
        every_other = range(at * 3 * MAX_RANGES, (at * 3 + 2) * MAX_RANGES, 3)
        erasure.add([(1, clock, clock + 1) for clock in every_other])

    assert erasure._ranges == 0
    assert erasure.gone == 2 * len(every_other)


def test_what_was_deleted_in_very_many_places_is_counted_and_not_remembered() -> None:
    places = [(1 << 20 | 3 * at, 1 << 20 | 3 * at + 2) for at in range(MAX_RANGES + 1)]
    known = {1: 1 << 22, 2: 100}

    erasure = Erasure(known, update_of({1: places, 2: [(5, 95)]}))
    erasure.add([(2, 0, 50)])

    assert erasure.live == (1 << 22) + 10 - 2 * len(places)
    assert erasure.gone == 50
    assert erasure.work == len(places) + 1


def test_a_document_begins_to_count_where_it_stands() -> None:
    doc: Doc[dict[str, object]] = Doc(client_id=1)
    text = doc.get("text", type=Text)
    text += "x" * 100
    del text[:30]
    document = Document()
    document.apply(doc.get_update(), "ada")

    erasure = document.erasure()
    before = doc.get_state()
    text += "later"
    del text[:10]
    new, deletes = document.measure(doc.get_update(before))
    erasure.add(deletes)

    assert (erasure.live, erasure.gone, new) == (70, 10, 5)


def test_a_document_is_fuller_than_a_share_until_it_shrinks() -> None:
    doc: Doc[dict[str, object]] = Doc(client_id=1)
    text = doc.get("text", type=Text)
    document = Document(max_document_bytes=2000)
    text += "x" * 1100
    document.apply(doc.get_update(), "ada")

    before = document.is_fuller(0.5), document.is_fuller(0.8)
    state = doc.get_state()
    text.clear()
    document.apply(doc.get_update(state), "ada")
    document.snapshot()

    assert before == (True, False)
    assert not document.is_fuller(0.5)
