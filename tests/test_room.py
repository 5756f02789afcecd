"""A room as its members see it: plain calls, no socket and no clock."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from costly import before_each, plain, slow
from rooms import Client, update_message

from collab.auth.permissions import EVERYTHING, READ, Principal
from collab.awareness import Awareness
from collab.document.document import Document, TooCostly
from collab.errors import PermissionDenied, Refused, StoreUnavailable, TurnCancelled
from collab.protocol import yjs
from collab.room import MAX_CANCELLED, Room, RoomState, Visitor
from collab.store.base import Author
from collab.turns import About


def make(*clients: Client, **options: object) -> Room:
    room = Room("r", Document(), Awareness(), epoch="e", **options)  # type: ignore[arg-type]
    for client in clients:
        room.join(client.member)
    return room


def test_an_update_reaches_the_others_with_the_turn() -> None:
    ada, bob = Client("ada"), Client("bob")
    room = make(ada, bob)
    update = ada.write("x")

    room.update(ada.member, update)
    before = list(bob.messages)
    entry = room.take(5)

    assert before == []
    assert bob.messages == [update_message(update)]
    assert entry.updates == [update]
    assert (
        entry.room,
        entry.epoch,
        entry.position,
        entry.last,
        entry.milliseconds,
    ) == ("r", "e", 1, 1, 5)
    assert entry.authors == [ada.member.author]


def test_the_writer_hears_its_echo_when_it_is_logged() -> None:
    ada = Client()
    room = make(ada)
    update = ada.write("x")
    room.update(ada.member, update)
    entry = room.take(0)
    assert ada.messages == []

    room.log(entry.last)

    assert ada.messages == [update_message(update)]


def test_a_deletion_reaches_the_other_members() -> None:
    ada, bob = Client("ada"), Client("bob")
    room = make(ada, bob)
    room.update(ada.member, ada.write("hello"))
    room.take(0)
    del ada.text[0:4]
    room.update(ada.member, ada.made[-1])
    room.take(0)

    assert bob.read() == "o"


def test_a_turn_is_announced_once() -> None:
    announced: list[Room] = []
    ada = Client()
    room = make(ada, changed=announced.append)

    room.update(ada.member, ada.write("a"))
    room.update(ada.member, ada.write("b"))
    room.take(0)
    room.update(ada.member, ada.write("c"))

    assert announced == [room, room]


def test_a_repeat_costs_nothing_downstream() -> None:
    ada, bob = Client("ada"), Client("bob")
    room = make(ada, bob)
    update = ada.write("x")
    room.update(ada.member, update)
    room.take(0)
    bob.written.clear()

    assert not room.update(ada.member, update)
    assert room.is_clean is False
    assert bob.messages == []
    assert room.position == 1


def test_what_is_owed_is_paid_at_once_when_all_is_logged() -> None:
    ada = Client()
    room = make(ada)

    room.owe(ada.member, b"ok")

    assert ada.messages == [b"ok"]


def test_what_is_owed_waits_for_the_turn_and_keeps_its_order() -> None:
    ada = Client()
    room = make(ada)
    first = ada.write("a")
    room.update(ada.member, first)
    room.owe(ada.member, b"one")
    entry = room.take(0)
    room.owe(ada.member, b"two")
    assert ada.messages == []

    room.log(entry.last)

    assert ada.messages == [update_message(first), b"one", b"two"]


def test_what_is_owed_to_a_bystander_waits_too() -> None:
    ada, bob = Client("ada"), Client("bob")
    room = make(ada, bob)
    room.update(ada.member, ada.write("a"))
    room.owe(bob.member, b"barrier")
    entry = room.take(0)
    assert b"barrier" not in bob.messages

    room.log(entry.last)

    assert bob.messages[-1] == b"barrier"


def test_each_address_gets_its_own_prefix_and_one_encoding() -> None:
    ada, bob, eve = Client("ada"), Client("bob", b"\x01r"), Client("eve", b"\x01r")
    room = make(ada, bob, eve)
    update = ada.write("x")

    room.update(ada.member, update)
    room.take(0)

    assert bob.messages == [b"\x01r" + update_message(update)]
    assert bob.written[0] is eve.written[0]


def test_a_reader_may_not_write() -> None:
    ada = Client(operations=READ)
    room = make(ada)

    with pytest.raises(PermissionDenied):
        room.update(ada.member, b"not even decoded")


def test_a_room_that_cannot_save_takes_nothing() -> None:
    ada = Client()
    room = make(ada)
    room.unwritable = StoreUnavailable("full")

    with pytest.raises(StoreUnavailable):
        room.update(ada.member, ada.write("x"))

    assert room.document.snapshot() == b"\x00\x00"


def test_a_bad_update_leaves_the_room_as_it_was() -> None:
    ada, bob = Client("ada"), Client("bob")
    room = make(ada, bob)

    with pytest.raises(Refused):
        room.update(ada.member, b"\x01\x02\x03")

    assert room.is_clean
    assert bob.messages == []


def test_the_answer_to_a_newcomer_is_encoded_once() -> None:
    ada, bob, eve = Client("ada"), Client("bob"), Client("eve")
    room = make(ada, bob, eve)
    room.update(ada.member, ada.write("x"))
    room.take(0)
    bob.written.clear()

    room.answer(bob.member, b"\x00")
    room.answer(eve.member, b"\x00")

    assert bob.written[-1] is eve.written[-1]
    assert bob.read() == "x"


def test_the_answer_changes_with_the_document() -> None:
    ada, bob = Client("ada"), Client("bob")
    room = make(ada)
    room.update(ada.member, ada.write("x"))
    room.take(0)
    room.answer(ada.member, b"\x00")
    room.update(ada.member, ada.write("y"))
    room.take(0)
    room.join(bob.member)

    room.answer(bob.member, b"\x00")

    assert bob.read() == "xy"


def test_a_member_that_fell_behind_catches_up_with_one_difference() -> None:
    ada, bob = Client("ada"), Client("bob")
    room = make(ada, bob)
    bob.member.is_full = True
    for word in "abcdef":
        room.update(ada.member, ada.write(word))
        room.log(room.take(0).last)
    assert len(bob.messages) == 1

    needed = room.resume(bob.member)

    assert needed
    assert len(bob.messages) == 2
    assert bob.read() == "abcdef"


def test_a_member_that_missed_nothing_gets_no_difference() -> None:
    ada, bob = Client("ada"), Client("bob")
    room = make(ada, bob)
    bob.member.is_full = True

    assert not room.resume(bob.member)
    assert bob.messages == []


def test_an_update_that_waits_is_logged_and_passed_on_later() -> None:
    ada, bob = Client("ada"), Client("bob")
    room = make(ada, bob)
    first, second = ada.write("a"), ada.write("b")

    room.update(ada.member, second)
    early = room.take(0)
    room.update(ada.member, first)
    late = room.take(0)
    room.log(late.last)

    assert early.updates == [second]
    assert late.updates == [first]
    assert bob.read() == "ab"
    assert len([m for m in ada.messages if m[:2] == b"\x00\x02"]) == 2


def test_a_member_is_reminded_of_its_own_edits_once_they_are_logged() -> None:
    ada = Client("ada")
    room = make(ada)
    room.update(ada.member, ada.write("x"))
    entry = room.take(0)
    again = Client("ada again")
    room.join(again.member)

    room.remind(again.member, ada.doc.client_id)
    before = list(again.messages)
    room.log(entry.last)

    assert before == []
    assert again.messages == [update_message(room.document.snapshot())]


def test_leaving_is_idempotent_and_frees_the_audience() -> None:
    ada = Client()
    room = make(ada)
    room.update(ada.member, ada.write("x"))

    room.leave(ada.member)
    room.leave(ada.member)
    entry = room.take(0)
    room.log(entry.last)

    assert len(room) == 0
    assert not room._audiences
    assert room.is_clean


def test_a_room_with_unlogged_changes_is_not_clean() -> None:
    ada = Client()
    room = make(ada)
    room.update(ada.member, ada.write("x"))
    states = [room.is_clean]
    entry = room.take(0)
    states.append(room.is_clean)
    room.log(entry.last)

    assert [*states, room.is_clean] == [False, False, True]


def test_joining_revives_a_draining_room() -> None:
    room = make()
    room.state = RoomState.DRAINING

    room.join(Client().member)

    assert room.state is RoomState.LIVE


def test_a_relayed_message_reaches_the_others_of_its_dialect() -> None:
    ada, bob, eve = Client("ada", b"\x01r"), Client("bob", b"\x01r"), Client("eve")
    room = make(ada, bob, eve)

    room.relay(ada.member, b"\x05\x02hi")

    assert (ada.messages, bob.messages, eve.messages) == ([], [b"\x01r\x05\x02hi"], [])


def test_strict_durability_shows_an_update_to_nobody_before_it_is_logged() -> None:
    ada, bob = Client("ada"), Client("bob")
    room = make(ada, bob, is_strict=True)
    room.update(ada.member, ada.write("x"))
    entry = room.take(0)
    assert bob.messages == []

    room.log(entry.last)

    assert bob.read() == "x"


# From other replicas


def test_what_another_replica_has_logged_reaches_the_members_and_not_the_log() -> None:
    bob = Client("bob")
    room = make(bob)

    room.merge(Client("ada").write("x"), "ada")
    entry = room.take(0)

    assert entry is None
    assert bob.read() == "x"
    assert room.is_clean


def test_a_writer_gets_what_another_replica_sent_behind_its_own() -> None:
    ada = Client("ada")
    room = make(ada)
    room.update(ada.member, ada.write("x"))
    entry = room.take(0)
    assert entry is not None
    room.merge(Client("bob").write("y"), "bob")
    room.take(0)
    assert ada.messages == []

    room.log(entry.last)

    assert len(ada.messages) == 2


def test_what_is_owed_in_a_turn_of_others_is_paid_with_it() -> None:
    ada = Client("ada")
    room = make(ada)
    room.merge(Client("bob").write("y"), "bob")
    room.owe(ada.member, b"\x05\x00")

    room.take(0)

    assert ada.messages[-1] == b"\x05\x00"


def test_strict_durability_holds_nobody_for_what_others_have_logged() -> None:
    bob = Client("bob")
    room = make(bob, is_strict=True)

    room.merge(Client("ada").write("x"), "ada")
    room.take(0)

    assert bob.read() == "x"


def test_a_repeat_from_another_replica_is_nothing() -> None:
    announced: list[Room] = []
    room = make(changed=announced.append)
    update = Client("ada").write("x")
    room.merge(update, "ada")
    room.take(0)

    room.merge(update, "ada")

    assert len(announced) == 1


def test_all_of_a_document_can_be_logged_again() -> None:
    ada, bob = Client("ada"), Client("bob")
    room = make(ada, bob)
    room.update(ada.member, ada.write("x"))
    room.take(0)

    room.restate(Author("", "replica"))
    entry = room.take(0)

    assert entry is not None
    assert entry.updates == [room.document.snapshot()]
    assert len(bob.messages) == 1


def test_what_waits_is_logged_again_too() -> None:
    ada = Client("ada")
    room = make(ada)
    first, second = ada.write("x"), ada.write("y")
    del ada.text[1:2]
    gone = ada.made[-1]
    for update in (second, gone):
        room.update(ada.member, update)
    room.take(0)

    room.restate(Author("", "replica"))
    entry = room.take(0)

    assert entry is not None
    again = Document.load(None, [*entry.updates, first])
    assert len(again.gate) == 0
    reader = Client("reader")
    reader.doc.apply_update(again.snapshot())
    assert str(reader.text) == "x"


def test_entries_name_the_room_as_this_process_holds_it() -> None:
    ada = Client("ada")
    room = make(ada, origin="here", position=7)
    room.update(ada.member, ada.write("x"))

    entry = room.take(0)

    assert entry is not None
    assert (entry.origin, entry.position) == ("here", 8)


# Turns


class Later:
    """Remembers what is to be done, and does it when the test says so."""

    def __init__(self) -> None:
        self.due: list[tuple[float, Callable[[], None]]] = []

    def __call__(self, seconds: float, call: Callable[[], None]) -> None:
        self.due.append((seconds, call))

    def run(self) -> None:
        for _, call in self.due:
            call()


def stopped(id: str) -> bytes:
    return yjs.turn_ended(id, "turn_cancelled", "this turn was stopped")


def test_what_was_on_its_way_to_a_turn_that_is_stopped_is_taken_for_a_moment() -> None:
    bot, later = Client("bot"), Later()
    room = make(bot)
    room.begin_turn(bot.member, "t1", About(reason="r"))

    was_here = room.cancel_turn("t1", "", later)
    room.update(bot.member, bot.write("x"))
    later.run()

    assert was_here
    assert bot.messages == [stopped("t1")]
    assert [seconds for seconds, _ in later.due] == [0.2]
    assert room.take(0).authors[0].turn == "t1"
    with pytest.raises(TurnCancelled):
        room.update(bot.member, bot.write("y"))


def test_what_a_turn_brings_at_a_stretch_is_one_message_and_as_many_rows() -> None:
    ada, bot, bob = Client("ada"), Client("bot"), Client("bob")
    room = make(ada, bot, bob)
    room.begin_turn(bot.member, "t1", About())
    typed = [bot.write("x"), bot.write("y"), ada.write("z"), bot.write("w")]
    for update in typed:
        room.update(ada.member if update is typed[2] else bot.member, update)

    entry = room.take(0)

    assert len(bob.messages) == 3
    assert bob.messages[1:] == [update_message(each) for each in typed[2:]]
    assert sorted(bob.read()) == [*"wxyz"]
    assert entry.updates == typed


def test_what_a_turn_brings_is_told_as_it_came_where_some_of_it_waits() -> None:
    bot, bob = Client("bot"), Client("bob")
    room = make(bot, bob)
    room.begin_turn(bot.member, "t1", About())
    first, early, between = bot.write("x"), bot.write("y"), bot.write("z")
    early, between = between, early

    for update in (first, early, between):
        room.update(bot.member, update)
    entry = room.take(0)

    assert len(bob.messages) == 3
    assert len(bob.read()) == 3
    assert entry.updates == [first, early, between]


def test_the_end_of_a_turn_that_was_stopped_does_not_end_the_next() -> None:
    bot, later = Client("bot"), Later()
    room = make(bot)
    room.begin_turn(bot.member, "t1", About())
    room.cancel_turn("t1", "bot", later)

    room.begin_turn(bot.member, "t2", About())
    later.run()

    assert room.update(bot.member, bot.write("x"))


def test_a_turn_that_nobody_has_here_is_not_begun_once_it_was_stopped() -> None:
    bot, eve = Client("bot"), Client("eve")
    room = make(bot, eve)

    was_here = room.cancel_turn("t1", "bot", Later())
    room.begin_turn(bot.member, "t1", About())
    room.begin_turn(eve.member, "t1", About())

    assert not was_here
    assert bot.messages == [stopped("t1")]
    assert eve.messages == []


def test_turns_that_were_stopped_are_remembered_up_to_a_bound() -> None:
    bot = Client("bot")
    room = make(bot)
    for number in range(MAX_CANCELLED + 1):
        room.cancel_turn(f"t{number}", "", Later())

    room.begin_turn(bot.member, "t0", About())
    room.begin_turn(bot.member, "t1", About())

    assert bot.messages == [stopped("t1")]


def test_a_member_that_leaves_has_no_turn_open() -> None:
    bot, eve = Client("bot"), Client("eve")
    room = make(bot, eve)
    room.begin_turn(bot.member, "t1", About())

    room.leave(bot.member)
    room.begin_turn(eve.member, "t1", About())

    assert eve.messages == []


def test_a_request_in_a_turn_leaves_it_to_the_connection_that_has_it_open() -> None:
    bot = Client("bot")
    room = make(bot)
    room.begin_turn(bot.member, "t1", About())
    request = Visitor(Principal("bot"), EVERYTHING, connection="rest")
    room.join(request)

    room.begin_turn(request, "t1", About())
    room.leave(request)

    assert bot.messages == []
    assert room.update(bot.member, bot.write("x"))


def test_nobody_writes_under_the_name_of_a_turn_that_takes_another_back() -> None:
    bot = Client("bot")
    room = make(bot)

    room.begin_turn(bot.member, "undo-1", About())

    why = "turns called undo-… are the server's own"
    assert bot.messages == [yjs.turn_ended("undo-1", "permission_denied", why)]
    with pytest.raises(PermissionDenied):
        room.update(bot.member, bot.write("x"))


def test_all_updates_of_a_turn_have_one_author() -> None:
    bot = Client("bot")
    room = make(bot)
    room.begin_turn(bot.member, "t1", About(task="x"))

    for word in "abc":
        room.update(bot.member, bot.write(word))

    assert len({id(author) for author in room.take(0).authors}) == 1


def test_what_is_kept_of_a_refused_update_is_logged_and_reaches_the_members() -> None:
    ada, bob = Client("ada"), Client("bob")
    room = Room("r", Document(clock=slow()), Awareness(), epoch="e")
    room.join(ada.member)
    room.join(bob.member)
    room.update(ada.member, plain(1000))

    with pytest.raises(TooCostly) as refusal:
        room.update(ada.member, before_each(1000))

    entry = room.take(0)
    kept = refusal.value.kept.log
    assert entry is not None
    assert entry.updates == [plain(1000), kept]
    assert bob.messages == [update_message(plain(1000)), update_message(kept)]
    assert room.position == 2
