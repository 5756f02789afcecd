"""How much of a document a turn has deleted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Doc, Text

from collab.document.document import Document
from collab.document.erasure import Erasure

ranges = st.lists(
    st.tuples(st.integers(1, 2), st.integers(0, 40), st.integers(0, 12)).map(
        lambda each: (each[0], each[1], each[1] + each[2])
    ),
    max_size=20,
)


@given(before=ranges, during=ranges)
def test_what_was_there_counts_once_however_it_is_cut(
    before: list[tuple[int, int, int]], during: list[tuple[int, int, int]]
) -> None:
    known = {1: 30, 2: 20}
    there = {(client, clock) for client, end in known.items() for clock in range(end)}
    gone = {(client, at) for client, clock, end in before for at in range(clock, end)}
    taken = {(client, at) for client, clock, end in during for at in range(clock, end)}
    earlier = Erasure(known, {})
    earlier.add(before)
    deleted = {client: list(each) for client, each in earlier._deleted.items()}

    erasure = Erasure(known, deleted)
    for each in during:
        erasure.add([each])

    assert earlier.gone == len(gone & there)
    assert erasure.live == len(there - gone)
    assert erasure.gone == len((taken & there) - gone)


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
