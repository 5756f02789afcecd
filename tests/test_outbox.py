"""Who gets which bytes when: held, released, behind, caught up."""

from __future__ import annotations

import pytest

from collab.errors import SlowMember
from collab.outbox import MAX_PENDING, NO_STATE_VECTOR, Audience, Outbox
from collab.protocol.frames import frame


class Reader(Outbox):
    """A member whose socket is a list."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.caught_up = 0
        self.can_catch_up = True
        super().__init__(self.got.append)

    def catch_up(self) -> bool:
        self.caught_up += self.can_catch_up
        return self.can_catch_up


def vector() -> bytes:
    return b"vector"


def audience(*readers: Reader, prefix: bytes = b"", max_bytes: int = 1000) -> Audience:
    made = Audience(prefix, 0, max_bytes=max_bytes)
    for reader in readers:
        made.join(reader)
    return made


def test_a_turn_reaches_everybody_as_the_same_object() -> None:
    ada, bob = Reader(), Reader()

    audience(ada, bob).broadcast([b"x"], 0, vector)

    assert ada.got == [frame(b"x")]
    assert ada.got[0] is bob.got[0]


def test_several_messages_leave_as_one_write_of_several_frames() -> None:
    ada = Reader()

    audience(ada, prefix=b"\x01r").broadcast([b"x", b"y"], 0, vector)

    assert ada.got == [frame(b"\x01rx") + frame(b"\x01ry")]


def test_a_writer_gets_nothing_before_its_own_update_is_logged() -> None:
    ada, bob = Reader(), Reader()
    room = audience(ada, bob)
    room.hold(ada, 0, 0)
    room.broadcast([b"x"], 0, vector)
    room.broadcast([b"y"], 1, vector)
    assert ada.got == []

    room.release(0)

    assert ada.got == [frame(b"x") + frame(b"y")]
    assert bob.got == [frame(b"x"), frame(b"y")]


def test_a_writer_who_wrote_again_gets_only_what_is_certain() -> None:
    ada = Reader()
    room = audience(ada)
    room.hold(ada, 0, 0)
    room.broadcast([b"x"], 0, vector)
    room.hold(ada, 1, 1)
    room.broadcast([b"y"], 1, vector)

    room.release(0)
    before = list(ada.got)
    room.release(1)

    assert before == [frame(b"x")]
    assert ada.got == [frame(b"x"), frame(b"y")]


def test_after_its_release_a_writer_gets_turns_at_once() -> None:
    ada = Reader()
    room = audience(ada)
    room.hold(ada, 0, 0)
    room.broadcast([b"x"], 0, vector)
    room.release(0)

    room.broadcast([b"y"], 1, vector)

    assert ada.got == [frame(b"x"), frame(b"y")]


def test_writers_at_the_same_place_share_one_object() -> None:
    ada, bob = Reader(), Reader()
    room = audience(ada, bob)
    for each in (ada, bob):
        room.hold(each, 0, 0)
    room.broadcast([b"x", b"y"], 0, vector)

    room.release(0)

    assert ada.got[0] is bob.got[0]


def test_acknowledgements_follow_their_turn_in_order() -> None:
    ada = Reader()
    room = audience(ada)
    room.hold(ada, 0, 0)
    ada.owe(0, b"one")
    room.broadcast([b"x"], 0, vector)
    room.hold(ada, 1, 1)
    ada.owe(1, b"two")
    room.broadcast([b"y"], 1, vector)

    room.release(0)
    before = list(ada.got)
    room.release(1)

    assert before == [frame(b"x"), b"one"]
    assert ada.got == [frame(b"x"), b"one", frame(b"y"), b"two"]


def test_a_cumulative_acknowledgement_replaces_the_last_of_its_turn() -> None:
    ada = Reader()

    for number in (b"1", b"2"):
        ada.owe(0, number, is_cumulative=True)
    ada.owe(1, b"3", is_cumulative=True)

    assert ada.pending == [(0, b"2"), (1, b"3")]


def test_acknowledgements_that_nobody_reads_are_bounded() -> None:
    ada = Reader()
    for _ in range(MAX_PENDING):
        ada.owe(0, b"x")

    with pytest.raises(SlowMember):
        ada.owe(0, b"x")


def test_a_full_member_falls_behind_and_the_others_do_not_notice() -> None:
    ada, bob = Reader(), Reader()
    room = audience(ada, bob)
    ada.is_full = True
    room.broadcast([b"x"], 0, vector)

    room.broadcast([b"y"], 1, vector)

    assert room.is_behind(ada)
    assert ada.seen == b"vector"
    assert ada.got == [frame(b"x")]
    assert bob.got == [frame(b"x"), frame(b"y")]
    assert room.overflows == 1


def test_a_member_that_can_take_bytes_again_is_brought_up_to_date_once() -> None:
    ada = Reader()
    room = audience(ada)
    ada.is_full = True
    room.broadcast([b"x"], 0, vector)
    room.broadcast([b"y"], 1, vector)
    ada.is_full = False

    room.catch_up(ada, 1)
    room.broadcast([b"z"], 2, vector)

    assert ada.caught_up == 1
    assert ada.got[-1] == frame(b"z")


def test_a_member_behind_waits_for_its_own_update_too() -> None:
    ada = Reader()
    room = audience(ada)
    ada.is_full = True
    room.broadcast([b"x"], 0, vector)
    room.hold(ada, 1, 1)
    room.broadcast([b"y"], 1, vector)
    ada.is_full = False

    room.catch_up(ada, 0)
    before = ada.caught_up
    room.release(1)

    assert before == 0
    assert ada.caught_up == 1


def test_frames_kept_for_the_held_are_bounded() -> None:
    ada = Reader()
    room = audience(ada, max_bytes=100)
    room.hold(ada, 0, 0)
    for turn in range(20):
        room.broadcast([b"x" * 20], turn, vector)

    assert room.is_behind(ada)
    assert ada.seen == NO_STATE_VECTOR
    assert not room._frames
    room.release(20)
    assert ada.caught_up == 1


def test_nothing_is_kept_when_nobody_is_held() -> None:
    room = audience(Reader())

    for turn in range(5):
        room.broadcast([b"x"], turn, vector)

    assert not room._frames


def test_frames_of_a_writer_who_left_are_no_others_frames() -> None:
    ada, bob = Reader(), Reader()
    room = audience(ada, bob)
    room.hold(ada, 0, 0)
    room.broadcast([b"x"], 0, vector)
    room.leave(ada)
    room.broadcast([b"y"], 1, vector)
    room.hold(bob, 2, 2)
    room.broadcast([b"z"], 2, vector)

    room.release(2)

    assert bob.got == [frame(b"x"), frame(b"y"), frame(b"z")]


def test_a_turn_without_messages_counts_all_the_same() -> None:
    ada, bob = Reader(), Reader()
    room = audience(ada, bob)
    room.hold(ada, 0, 0)
    room.broadcast([], 0, vector)
    room.broadcast([b"y"], 1, vector)

    room.release(0)

    assert bob.got == [frame(b"y")]
    assert ada.got == [frame(b"y")]


def test_whoever_leaves_gets_nothing_more() -> None:
    ada, bob = Reader(), Reader()
    room = audience(ada, bob)
    room.hold(ada, 0, 0)
    room.leave(ada)

    room.broadcast([b"x"], 0, vector)
    room.release(0)

    assert ada.got == []
    assert list(room) == [bob]


def test_strict_durability_holds_everybody() -> None:
    ada, bob = Reader(), Reader()
    room = audience(ada, bob)
    room.hold_all(0)
    room.broadcast([b"x"], 0, vector)
    assert bob.got == []

    room.release(0)

    assert ada.got == bob.got == [frame(b"x")]


def test_a_post_skips_the_full_and_the_one_who_said_it() -> None:
    ada, bob, eve = Reader(), Reader(), Reader()
    room = audience(ada, bob, eve)
    eve.is_full = True

    room.post(b"hi", but=ada)

    assert (ada.got, bob.got, eve.got) == ([], [frame(b"hi")], [])
