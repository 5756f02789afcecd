"""The ledger of local changes, without a room."""

from __future__ import annotations

import traceback

import pytest

from collab.sdk.errors import Cancelled, Forbidden
from collab.sdk.ledger import MAX_MARKS, WINDOW, WINDOW_BYTES, Ledger


def changed(count: int) -> Ledger:
    ledger = Ledger(has_content=False)
    for _ in range(count):
        ledger.change()
    return ledger


def test_what_a_document_holds_already_is_a_change() -> None:
    ledger = Ledger(has_content=True)

    assert not ledger.is_saved
    assert ledger.unsaved_since is not None


def test_an_acknowledgement_covers_all_messages_before_it() -> None:
    ledger = changed(3)
    for number in (1, 2, 3):
        ledger.send(number, 1)

    assert ledger.acknowledge(2, 7)

    assert (ledger.saved, ledger.position) == (2, 7)
    assert not ledger.acknowledge(2, 7)
    assert ledger.acknowledge(3, 8)
    assert ledger.unsaved_since is None


def test_something_is_unsaved_until_all_is_however_many_changes_wait() -> None:
    ledger = changed(2 * MAX_MARKS)
    ledger.send(MAX_MARKS + 1, 1)
    ledger.send(2 * MAX_MARKS, 1)
    since = ledger.unsaved_since
    assert since is not None

    ledger.acknowledge(1, 1)

    assert not ledger.is_saved
    assert ledger.unsaved_since is not None
    assert ledger.unsaved_since >= since
    ledger.acknowledge(2, 2)
    assert ledger.unsaved_since is None


def test_what_was_refused_is_saved_by_no_later_acknowledgement() -> None:
    ledger = changed(2)
    ledger.send(1, 1)
    ledger.send(2, 1)

    ledger.refuse(2)
    ledger.acknowledge(2, 1)

    assert ledger.saved == 1


def test_a_new_connection_counts_from_one_and_knows_of_nothing_on_its_way() -> None:
    ledger = changed(WINDOW)
    for number in range(WINDOW):
        ledger.send(number + 1, 1)
    assert ledger.is_window_full

    ledger.forget_connection()
    ledger.send(WINDOW, 1)

    assert ledger.acknowledge(1, 1)
    assert ledger.is_saved


def test_no_more_bytes_are_on_their_way_than_the_window_holds() -> None:
    ledger = changed(2)
    ledger.send(0, WINDOW_BYTES // 2)
    assert not ledger.is_window_full

    ledger.send(2, WINDOW_BYTES // 2)

    assert ledger.is_window_full
    assert not ledger.acknowledge(1, 1)  # a part saves no change
    assert not ledger.is_window_full
    ledger.refuse(2)
    ledger.send(2, WINDOW_BYTES - 1)
    assert not ledger.is_window_full


def test_what_several_turns_have_written_belongs_to_the_last_that_wrote() -> None:
    ledger = changed(1)
    ledger.begin_turn("t1", "{}")
    ledger.change()
    ledger.begin_turn("t2", "{}")
    ledger.begin_turn("", "{}")

    assert ledger.turn.id == ""
    assert ledger.unsaved_turn.id == "t1"


def test_more_turns_than_are_remembered_belong_to_the_last() -> None:
    ledger = changed(0)

    for number in range(MAX_MARKS + 10):
        ledger.begin_turn(f"t{number}", "{}")
        ledger.change()

    assert ledger.unsaved_turn.id == f"t{MAX_MARKS + 9}"


def test_who_waits_for_a_document_that_was_replaced_is_told_why() -> None:
    ledger = changed(1)
    point = ledger.point

    ledger.begin_anew(Cancelled("stopped"))

    with pytest.raises(Cancelled):
        ledger.has_saved(point)
    assert ledger.has_saved(ledger.point)


def test_who_waits_for_what_is_rejected_is_told_why() -> None:
    ledger = changed(1)

    ledger.rejection = Forbidden("no")

    with pytest.raises(Forbidden) as raised:
        ledger.has_saved(ledger.point)
    assert ledger.told is raised.value


def test_who_asks_again_and_again_what_was_rejected_keeps_nothing_of_it() -> None:
    ledger = changed(1)
    ledger.rejection = Forbidden("you only read")

    def depth() -> int:
        with pytest.raises(Forbidden) as caught:
            ledger.has_saved(ledger.point)
        return len(list(traceback.walk_tb(caught.value.__traceback__)))

    depths = {depth() for _ in range(5)}

    assert len(depths) == 1
