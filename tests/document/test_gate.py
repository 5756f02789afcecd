"""What may enter a document now, and what waits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText

from collab.document.gate import Gate, LateRun, StashFull
from collab.errors import Refused, TooLarge
from collab.protocol.guard import check
from collab.protocol.statevector import state_vector
from collab.protocol.structs import scan
from collab.protocol.varint import encode_string, encode_varint


def new_gate(
    known: dict[int, int] | None = None,
    *,
    max_bytes: int = 1 << 20,
    max_updates: int = 5000,
) -> Gate:
    return Gate(known, max_bytes=max_bytes, max_updates=max_updates)


def made_by(client: int, edit: Callable[[Doc[object]], None]) -> list[bytes]:
    """The updates of one author, one for each edit."""
    doc: Doc[object] = Doc(client_id=client)
    updates: list[bytes] = []
    subscription = doc.observe(lambda event: updates.append(event.update))
    edit(doc)
    doc.unobserve(subscription)
    return updates


def typed(client: int, text: str) -> list[bytes]:
    def edit(doc: Doc[object]) -> None:
        root = doc.get("t", type=Text)
        for character in text:
            root += character

    return made_by(client, edit)


def text_of(updates: list[bytes]) -> str:
    doc: Doc[object] = Doc()
    for update in updates:
        doc.apply_update(update)
    return str(doc.get("t", type=Text))


def late(client: int, clock: int) -> bytes:
    """One character of a client behind its own last."""
    head = b"\x01\x01" + encode_varint(client) + encode_varint(clock)
    return head + b"\x84" + encode_varint(client) + encode_varint(clock - 1) + b"\x01x\x00"  # fmt: skip


def test_what_is_ready_passes_as_it_came() -> None:
    gate = new_gate()

    passed = [gate.admit(update) for update in typed(7, "abc")]

    assert passed == [[update] for update in typed(7, "abc")]
    assert gate.known == {7: 3}
    assert len(gate) == gate.stashed_bytes == 0


def test_check_and_advance_are_the_quick_way_through() -> None:
    gate = new_gate()

    for update in typed(7, "abc"):
        runs = check(update, gate.known)
        assert runs is not None
        assert gate.advance(runs) == []

    assert gate.known == {7: 3}


def test_what_comes_too_early_waits_for_its_predecessor() -> None:
    first, second, third = typed(7, "abc")
    gate = new_gate()

    passed = [gate.admit(third), gate.admit(second), gate.admit(first)]

    assert passed[:2] == [[], []]
    assert text_of(passed[2]) == "abc"
    assert gate.known == {7: 3}
    assert len(gate) == gate.stashed_bytes == 0


def test_the_quick_way_unblocks_too() -> None:
    first, second = typed(7, "ab")
    gate = new_gate()
    gate.admit(second)

    unblocked = gate.advance(check(first, gate.known) or [])

    assert text_of([first, *unblocked]) == "ab"


def test_a_repeat_takes_no_second_place() -> None:
    _, second, third = typed(7, "abc")
    gate = new_gate()
    gate.admit(second)
    gate.admit(third)
    before = (len(gate), gate.stashed_bytes)

    gate.admit(third)

    assert (len(gate), gate.stashed_bytes) == before == (2, gate.stashed_bytes)


def test_a_repeat_of_what_is_known_passes_again() -> None:
    [update] = typed(7, "a")
    gate = new_gate()

    passed = [gate.admit(update), gate.admit(update)]

    assert passed == [[update], [update]]
    assert gate.known == {7: 1}


def test_the_ready_part_of_an_update_does_not_wait_for_the_rest() -> None:
    def edit(doc: Doc[object]) -> None:
        with doc.transaction():
            root = doc.get("t", type=Text)
            root += "mine"
            root.insert(2, "!")

    [whole] = made_by(7, edit)
    other = b"\x01\x02\x08\x00\x04\x01\x01u\x01a\x84\x09\x05\x01b\x00"
    both = b"\x02" + other[1:-1] + whole[1:]
    gate = new_gate()

    [ready] = gate.admit(both)

    assert text_of([ready]) == "mi!ne"
    assert gate.known == {7: 5, 8: 1}
    assert len(gate) == 1


def test_a_deletion_ahead_is_done_as_far_as_is_known() -> None:
    gate = new_gate({7: 3})

    passed = gate.admit(b"\x00\x01\x07\x01\x00\x05")
    later = gate.admit(late(7, 3)) + gate.admit(late(7, 4))

    assert passed == [b"\x00\x01\x07\x01\x00\x03"]
    assert b"\x00\x01\x07\x01\x03\x01" in later
    assert later[-1] == b"\x00\x01\x07\x01\x04\x01"
    assert len(gate) == 0


def test_clients_that_wait_for_each_other_are_released_together() -> None:
    here: Doc[object] = Doc(client_id=7)
    there: Doc[object] = Doc(client_id=8)
    updates: list[bytes] = []
    for turn in range(6):
        writer, reader = (here, there) if turn % 2 else (there, here)
        before = writer.get_state()
        writer.get("t", type=Text).insert(turn // 2, str(turn))
        updates.append(writer.get_update(before))
        reader.apply_update(updates[-1])
    gate = new_gate()

    passed = [ready for update in reversed(updates) for ready in gate.admit(update)]

    assert text_of(passed) == str(here.get("t", type=Text))
    assert len(gate) == 0


def test_a_full_stash_refuses_and_changes_nothing() -> None:
    gate = new_gate(max_updates=3)
    for client in (7, 8, 9):
        gate.admit(late(client, 5))

    with pytest.raises(StashFull) as caught:
        gate.admit(late(10, 5))

    assert caught.value.rule == "stash"
    assert len(gate) == 3
    assert gate.admit(late(7, 5)) == []


def test_the_stash_is_bounded_in_bytes() -> None:
    gate = new_gate(max_bytes=20)
    gate.admit(late(7, 5))

    gate.admit(late(8, 5))
    gate.admit(late(9, 5))
    gate.admit(late(10, 5))

    with pytest.raises(StashFull):
        gate.admit(late(11, 5))

    assert gate.stashed_bytes == 20


def test_a_rest_without_a_place_holds_its_ready_part_back() -> None:
    both = b"\x02\x01\x07\x00\x04\x01\x01t\x01a\x01\x08\x05\x84\x08\x04\x01b\x00"
    gate = new_gate(max_bytes=1)

    with pytest.raises(StashFull):
        gate.admit(both)

    assert gate.known == {}


def test_a_hostile_update_changes_nothing() -> None:
    gate = new_gate({7: 3})
    gate.admit(late(8, 5))

    with pytest.raises(Refused):
        gate.admit(b"\x01\x01\x07\x03\x84\x07\x09\x01x\x00")

    assert gate.known == {7: 3}
    assert len(gate) == 1


class Counting(dict[int, int]):
    """A vector that counts how often it is asked."""

    asked = 0

    def get(self, client: int, default: int = 0) -> int:  # type: ignore[override]
        self.asked += 1
        return super().get(client, default)


def test_waking_a_large_run_again_and_again_looks_at_each_reference_once() -> None:
    """Each of its structs waits for another character of somebody who types."""
    structs = b"".join(b"\x84\x08" + encode_varint(n) + b"\x01x" for n in range(2000))
    update = b"\x01" + encode_varint(2000) + b"\x07\x00" + structs + b"\x00"
    found = scan(update)
    late_run = LateRun(update, found.runs[0], found.needs)
    known = Counting()

    parts = []
    for clock in range(1, 2001):
        known[8] = clock
        parts.append(late_run.take(known))
        known[7] = clock

    assert [len(scan(part).runs) for part in parts] == [1] * 2000
    assert late_run.waits is None
    assert known.asked < 4 * 2000


def test_the_vector_can_be_set_from_the_document() -> None:
    gate = new_gate({7: 3, 8: 1})
    known = gate.known

    gate.reset({7: 2})

    assert gate.known is known
    assert known == {7: 2}


# Surrogate pairs

EMOJI = b"\x01\x01\x05\x00\x04\x01\x01t" + encode_string("a😀b") + b"\x00"


def room(*updates: bytes) -> tuple[Doc[object], Gate]:
    doc: Doc[object] = Doc()
    gate = new_gate()
    for update in updates:
        for ready in gate.admit(update):
            doc.apply_update(ready)
    return doc, gate


CUTS = {
    "the first half deleted": b"\x00\x01\x05\x01\x01\x01",
    "the second half deleted": b"\x00\x01\x05\x01\x02\x01",
    "half deleted with its neighbour": b"\x00\x01\x05\x01\x00\x02",
    "written behind the first half": b"\x01\x01\x06\x00\x84\x05\x01\x01x\x00",
    "written between": b"\x01\x01\x06\x00\xc4\x05\x01\x05\x02\x01x\x00",
    "written long between": b"\x01\x01\x06\x00\xc4\x05\x01\x05\x02\x05hello\x00",
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS.keys())
def test_a_pair_that_somebody_cuts_is_deleted_whole(cut: bytes) -> None:
    doc, gate = room(EMOJI, cut)

    again: Doc[object] = Doc()
    again.apply_update(doc.get_update())

    text = str(doc.get("t", type=Text))
    assert not set(text) & set("😀\ufffd")
    assert str(again.get("t", type=Text)) == text
    assert (
        state_vector(again.get_state()) == state_vector(doc.get_state()) == gate.known
    )
    assert not gate.known.pairs


def test_native_code_alone_loses_count_when_a_pair_is_cut() -> None:
    """Why pairs are watched; when this fails, yrs can cut them and we may stop."""
    doc: Doc[object] = Doc()
    doc.apply_update(EMOJI)
    doc.apply_update(CUTS["the first half deleted"])

    again: Doc[object] = Doc()
    again.apply_update(doc.get_update())

    assert state_vector(again.get_state()) != state_vector(doc.get_state())


def test_a_pair_cut_by_the_update_that_brings_it_is_deleted_whole() -> None:
    deleting = EMOJI[:-1] + b"\x01\x05\x01\x02\x01"

    doc, gate = room(deleting)

    assert str(doc.get("t", type=Text)) == "ab"
    assert gate.known == state_vector(doc.get_state()) == {5: 4}
    assert scan(doc.get_update()).runs[0].end == 4
    assert not gate.known.pairs


def test_a_pair_that_overlaps_another_does_not_cut_it() -> None:
    """Whoever sends it says that ids we know are something else; the document must keep count all the same."""
    known = b"\x01\x01\x05\x00\x04\x01\x01t" + encode_string("a😀") + b"\x00"
    forged = b"\x01\x02\x05\x01\x04\x01\x01t\x01a\x84\x05\x01" + encode_string("😀") + b"\x00"  # fmt: skip

    doc, gate = room(known, forged)

    again: Doc[object] = Doc()
    again.apply_update(doc.get_update())
    assert gate.known == state_vector(again.get_state()) == {5: 4}


def test_a_cut_that_comes_before_its_pair_waits_and_then_deletes_it() -> None:
    doc, gate = room(CUTS["written between"], EMOJI)

    assert str(doc.get("t", type=Text)) == "axb"
    assert gate.known == state_vector(doc.get_state()) == {5: 4, 6: 1}


def test_pairs_of_a_snapshot_are_watched_too() -> None:
    doc, _ = room(EMOJI)
    gate = new_gate()

    gate.load(doc.get_update(), state_vector(doc.get_state()))

    assert list(gate.known.pairs[5]) == [2]


def test_a_cut_that_is_refused_leaves_its_pair_watched() -> None:
    doc, gate = room(EMOJI, *dug(128))
    gate.admit(dug(129)[-1])

    with pytest.raises(TooLarge):
        gate.admit(b"\x02" + CUTS["written between"][1:-1] + dug(130)[-1][1:])

    assert gate.known.pairs.has_half(5, 2)
    assert gate.known == {**state_vector(doc.get_state()), 7: 129}


# Nested shared types


def dug(levels: int) -> list[bytes]:
    def edit(doc: Doc[object]) -> None:
        hole: Array = doc.get("a", type=Array)
        for _ in range(levels):
            hole.append(Array())
            hole = hole[0]

    return made_by(7, edit)


def test_types_nested_too_deep_stay_out_in_any_order() -> None:
    updates = dug(140)
    gate = new_gate()
    doc: Doc[object] = Doc()

    for update in reversed(updates):
        for ready in gate.admit(update):
            doc.apply_update(ready)

    assert gate.known == state_vector(doc.get_state()) == {7: 129}


def test_a_snapshot_brings_its_depths_along() -> None:
    updates = dug(128)
    doc: Doc[object] = Doc()
    for update in updates:
        doc.apply_update(update)
    gate = new_gate({99: 1})

    gate.load(doc.get_update(), state_vector(doc.get_state()))

    assert gate.known == {7: 128}
    assert [gate.known.depths.at(7, clock) for clock in (0, 1, 127)] == [0, 1, 127]
    gate.admit(dug(129)[-1])
    with pytest.raises(TooLarge):
        gate.admit(dug(130)[-1])


def test_a_flat_snapshot_is_not_read() -> None:
    def edit(doc: Doc[object]) -> None:
        doc.get("t", type=Text).insert(0, "hello" * 50)
        doc.get("m", type=Map)["a"] = Array()

    snapshot = made_by(7, edit)[0]
    gate = new_gate()

    gate.load(snapshot[:-9], {7: 250})  # cut short: it could not be read

    assert gate.known == {7: 250}
    assert not gate.known.depths


def test_depths_from_a_snapshot_equal_those_of_the_edits() -> None:
    def edit(doc: Doc[object]) -> None:
        root = doc.get("x", type=XmlFragment)
        for index in range(20):
            paragraph = XmlElement("p", {}, [XmlText("text")])
            root.children.append(paragraph)
            paragraph.children[0].insert(index % 4, "more")
            doc.get("m", type=Map)[f"k{index % 3}"] = Map({"list": Array([1, Array()])})

    gate, loaded = new_gate(), new_gate()
    doc: Doc[object] = Doc()
    for update in made_by(7, edit):
        for ready in gate.admit(update):
            doc.apply_update(ready)

    loaded.load(doc.get_update(), state_vector(doc.get_state()))

    deep = {loaded.known.depths.at(7, clock) for clock in range(gate.known[7])}
    live = {gate.known.depths.at(7, clock) for clock in range(gate.known[7])}
    assert deep <= live
    assert max(live) == 2
