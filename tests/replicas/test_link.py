"""One room's side of the bus: order, gaps, exchange, digests, presence. No bus, no clock, no store."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from rooms import Client

from collab.awareness import Awareness
from collab.bus.base import MAX_BODY_BYTES, Published
from collab.document.document import Document
from collab.errors import PermissionDenied, TurnCancelled
from collab.metrics import Metrics
from collab.protocol.envelope import (
    Cancelled,
    Difference,
    Digest,
    Disconnected,
    Ended,
    Message,
    Presence,
    Updates,
    WhoIsHere,
    decode,
    encode,
)
from collab.protocol.statevector import encode_state_vector
from collab.protocol.varint import encode_bytes
from collab.replicas.link import (
    MAX_DIFFERENCE_BYTES,
    MAX_EARLY,
    MAX_EARLY_BYTES,
    MAX_UPDATES,
    PUZZLED,
    WORDS_AT_ONCE,
    Link,
)
from collab.room import Room
from collab.store.base import Author, Entry
from collab.turns import About

EPOCH = "bus-1"


class Wire:
    """Remembers what a link wants; time stands still until it is moved."""

    def __init__(self) -> None:
        self.time = 0.0
        self.published: list[bytes] = []
        self.said: list[Message] = []
        self.reads: list[tuple[str, int]] = []
        self.located = self.reloaded = self.rebuilt = self.presented = 0
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self._sequence = 0

    def now(self) -> float:
        return self.time

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        self.timers.append((self.time + seconds, call))

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.time += seconds
        due = [each for each in self.timers if each[0] <= self.time]
        self.timers = [each for each in self.timers if each[0] > self.time]
        for _, call in due:
            call()

    def sequence(self) -> int:
        self._sequence += 1
        return self._sequence

    def rank(self) -> float:
        return 0.0

    def publish(self, channel: str, body: bytes) -> None:
        self.published.append(body)

    def say(self, channel: str, body: bytes) -> None:
        message = decode(body, channel, None)
        assert message is not None
        self.said.append(message)

    def locate(self, link: Link) -> None:
        self.located += 1

    def read(self, link: Link, epoch: str, after: int) -> None:
        self.reads.append((epoch, after))

    def reload(self, link: Link) -> None:
        self.reloaded += 1

    def rebuild(self, room: Room) -> None:
        self.rebuilt += 1

    def present(self, room: Room) -> None:
        self.presented += 1

    def heard(self, kind: type[Message]) -> list[Any]:
        return [each for each in self.said if isinstance(each, kind)]


def make(number: int = 0) -> tuple[Link, Room, Wire]:
    """A link whose stream stands at that number, and whose room is open."""
    wire = Wire()
    link = Link("r", wire, Metrics(), me="me", key=None, random=Random(1))
    link.interrupted()
    link.located(EPOCH if number else "", number)
    room = Room("r", Document(), Awareness(), epoch="e", origin="here")
    link.begin(room)
    link.created = 1
    wire.run(2.0)
    wire.said.clear()
    wire.reloaded = wire.located = 0
    return link, room, wire


def updates(*words: str, client: Client) -> list[bytes]:
    return [client.write(word) for word in words]


def entry(
    number: int,
    *made: bytes,
    sender: str = "other",
    sequence: int | None = None,
    epoch: str = "e",
    last: int | None = None,
    numbering: str = EPOCH,
) -> Published:
    message = Updates(
        sender,
        number if sequence is None else sequence,
        epoch,
        number if last is None else last,
        ["ada"] * len(made),
        made,
    )
    return Published(numbering, number, encode(message, "r", None))


def text_of(room: Room) -> str:
    reader = Client("reader")
    reader.doc.apply_update(room.document.snapshot())
    return str(reader.text)


def test_the_next_entry_is_taken_in() -> None:
    link, room, wire = make()
    (one,) = updates("one", client=Client())

    link.entry(entry(1, one))

    assert text_of(room) == "one"
    assert (room.log_end, wire.reads, wire.reloaded) == (1, [], 0)


def test_what_comes_twice_is_taken_in_once() -> None:
    link, room, wire = make()
    (one,) = updates("one", client=Client())
    link.entry(entry(1, one))
    version = room.version

    link.entry(entry(1, one))

    assert room.version == version
    assert wire.reloaded == 0


def test_at_a_gap_the_stream_is_read_and_what_came_early_waits() -> None:
    link, room, wire = make()
    one, two, three = updates("1", "2", "3", client=Client())
    link.entry(entry(1, one))

    link.entry(entry(3, three))

    assert wire.reads == [(EPOCH, 1)]
    assert text_of(room) == "1"
    link.found([entry(2, two)])
    assert text_of(room) == "123"


def test_a_gap_is_read_once_however_much_comes_after_it() -> None:
    link, _, wire = make()
    one, *others = updates("1", "2", "3", "4", client=Client())
    link.entry(entry(1, one))

    for number, each in enumerate(others[1:], 3):
        link.entry(entry(number, each))

    assert wire.reads == [(EPOCH, 1)]


def test_what_the_stream_cannot_say_is_asked_of_the_store_and_of_the_others() -> None:
    link, _, wire = make()
    one, _, three = updates("1", "2", "3", client=Client())
    link.entry(entry(1, one))
    link.entry(entry(3, three))

    link.found(None)
    link.located(EPOCH, 3)

    assert wire.reloaded == 1
    assert wire.heard(Digest)


def test_a_new_numbering_is_an_exchange() -> None:
    link, room, wire = make()
    one, two = updates("1", "2", client=Client())
    link.entry(entry(1, one))

    link.entry(entry(1, two, numbering="bus-2", last=2))

    assert text_of(room) == "12"
    assert wire.reloaded == 1


def test_numbers_that_went_back_under_the_same_name_are_noticed() -> None:
    link, room, wire = make()
    one, two, three = updates("1", "2", "3", client=Client())
    link.entry(entry(1, one, sequence=10))
    link.entry(entry(2, two, sequence=11))

    link.entry(entry(2, three, sequence=12, last=3))

    assert text_of(room) == "123"
    assert wire.reloaded == 1


def test_what_came_while_the_room_was_loaded_is_taken_in_then() -> None:
    wire = Wire()
    link = Link("r", wire, Metrics(), me="me", key=None, random=Random(1))
    link.interrupted()
    link.located(EPOCH, 4)
    (one,) = updates("one", client=Client())
    link.entry(entry(5, one))
    room = Room("r", Document(), Awareness(), epoch="e", origin="here", position=4)

    link.begin(room)

    assert text_of(room) == "one"
    assert room.log_end == 5


def test_a_subscription_that_was_interrupted_reads_what_it_missed() -> None:
    link, _, wire = make()
    (one,) = updates("one", client=Client())
    link.entry(entry(1, one))

    link.interrupted()
    link.located(EPOCH, 7)

    assert wire.located == 1
    assert wire.reads == [(EPOCH, 1)]


def test_what_waits_for_a_gap_is_bounded() -> None:
    link, _, _ = make()
    (one,) = updates("one", client=Client())
    link.entry(entry(1, one))

    for number in range(3, MAX_EARLY + 100):
        link.entry(entry(number, one))

    assert len(link._early) == MAX_EARLY


def test_what_waits_for_a_gap_is_bounded_in_bytes() -> None:
    link, _, _ = make()
    junk = b"\1\0\1\1\1x\x7f" + encode_bytes(bytes(MAX_BODY_BYTES - 20))

    for number in range(3, 100):
        link.entry(Published(EPOCH, number, junk))

    assert sum(len(each.body) for each in link._early.values()) <= MAX_EARLY_BYTES


def test_ones_own_entries_are_passed_over() -> None:
    link, room, wire = make()
    (one,) = updates("one", client=Client())

    link.entry(entry(1, one, sender="me"))

    assert text_of(room) == ""
    assert wire.reads == []


def test_an_entry_of_another_history_is_a_matter_for_the_store() -> None:
    link, room, wire = make()
    (one,) = updates("one", client=Client())

    link.entry(entry(1, one, epoch="earlier"))

    assert text_of(room) == ""
    assert wire.reloaded == 1


@pytest.mark.parametrize(
    "body",
    [b"", b"\x01", b"\x01\x00\x01\xff", b"\x09\x00\x01", b"\x01\x00" + b"\xff" * 50],
)
def test_junk_is_counted_and_costs_nothing(body: bytes) -> None:
    link, room, wire = make()
    one, two = updates("1", "2", client=Client())
    link.entry(entry(1, one))

    link.entry(Published(EPOCH, 2, body))
    link.entry(Published("another", 2, body))
    link.word(body)
    link.entry(entry(2, two))

    assert link._metrics.bus_refused == 3
    assert text_of(room) == "12"
    assert wire.reads == []
    assert wire.reloaded == 0


def test_junk_in_the_stream_is_passed_over() -> None:
    link, room, wire = make()
    one, two = updates("1", "2", client=Client())
    link.entry(entry(1, one))

    link.entry(entry(3, two, last=2))
    link.found([Published(EPOCH, 2, b"junk"), entry(3, two, last=2)])

    assert text_of(room) == "12"
    assert wire.reads == [(EPOCH, 1)]


def test_a_number_that_the_stream_does_not_reach_is_given_up() -> None:
    link, room, wire = make()
    one, two = updates("1", "2", client=Client())
    link.entry(entry(1, one))

    link.entry(entry(1000, two))
    link.found([])
    link.entry(entry(2, two))

    assert wire.reads == [(EPOCH, 1)]
    assert wire.reloaded == 1
    assert link._metrics.bus_refused == 1
    assert text_of(room) == "12"


def test_what_comes_while_the_stream_is_read_waits_for_the_next_reading() -> None:
    link, room, wire = make()
    made = updates("1", "2", "3", "4", client=Client())
    link.entry(entry(1, made[0]))

    link.entry(entry(3, made[2]))
    link.entry(entry(5, made[3]))
    link.found([entry(2, made[1]), entry(3, made[2])])
    link.found([entry(4, made[3]), entry(5, made[3])])

    assert wire.reads == [(EPOCH, 1), (EPOCH, 3)]
    assert text_of(room) == "1234"


def test_an_update_that_the_guard_refuses_is_counted() -> None:
    link, room, _ = make()

    link.entry(entry(1, b"\x01\x01\xff\xff\xff\xff\xff\xff\xff\xff"))

    assert link._metrics.bus_refused == 1
    assert text_of(room) == ""


# What was logged here


def logged(*made: bytes, place: int) -> Entry:
    authors = [Author("ada", "c")] * len(made)
    return Entry("r", "e", 1, 0, list(made), authors, "here", place)


def test_what_was_logged_is_published_with_its_place() -> None:
    link, _, wire = make()
    (one,) = updates("one", client=Client())

    link.publish(logged(one, place=1))

    message = decode(wire.published[0], "r", None)
    assert message == Updates("me", 1, "e", 1, ["ada"], [one])


def test_much_at_once_leaves_in_several_entries() -> None:
    link, _, wire = make()
    made = [bytes(1 << 20)] * 3

    link.publish(logged(*made, place=3))

    messages = [decode(body, "r", None) for body in wire.published]
    assert [message.last for message in messages if isinstance(message, Updates)] == [
        2,
        3,
    ]


def test_a_log_that_has_gone_back_is_noticed_by_who_writes() -> None:
    link, _, wire = make()
    one, two = updates("1", "2", client=Client())
    link.publish(logged(one, place=1))

    link.publish(logged(two, place=1))

    assert wire.reloaded == 1


# Digests


def digest_of(room: Room, sender: str = "other", epoch: str = "e") -> bytes:
    document = room.document
    return encode(
        Digest(sender, epoch, document.state_vector(), document.deletes()), "r", None
    )


def test_equal_digests_end_the_matter() -> None:
    link, room, wire = make()

    link.word(digest_of(room))
    wire.run(5.0)

    assert wire.said == []


def test_who_has_more_answers_with_what_is_missing() -> None:
    link, room, wire = make()
    lacking = Room("r", Document(), Awareness(), epoch="e")
    (one,) = updates("one", client=Client())
    link.entry(entry(1, one))
    room.take(0)

    link.word(digest_of(lacking))
    wire.run(1.0)

    (answer,) = wire.heard(Difference)
    lacking.merge(answer.update, "")
    assert text_of(lacking) == "one"


def test_an_answer_waits_until_all_of_it_is_logged() -> None:
    link, room, wire = make()
    lacking = Room("r", Document(), Awareness(), epoch="e")
    client = Client()
    room.join(client.member)
    room.update(client.member, client.write("one"))
    entry_made = room.take(0)

    link.word(digest_of(lacking))
    wire.run(1.0)
    early = wire.heard(Difference)
    assert entry_made is not None
    room.log(entry_made.last, 1)
    wire.run(1.0)

    assert early == []
    assert len(wire.heard(Difference)) == 1


def test_one_answer_is_enough() -> None:
    link, room, wire = make()
    lacking = Room("r", Document(), Awareness(), epoch="e")
    (one,) = updates("one", client=Client())
    link.entry(entry(1, one))
    room.take(0)
    link.word(digest_of(lacking))

    link.word(encode(Difference("third", "other", "e", one), "r", None))
    wire.run(1.0)

    assert wire.heard(Difference) == []


def test_who_lacks_something_says_its_own_digest() -> None:
    link, _, wire = make()
    fuller = Room("r", Document(), Awareness(), epoch="e")
    (one,) = updates("one", client=Client())
    fuller.merge(one, "")

    link.word(digest_of(fuller))
    wire.run(2.0)

    assert len(wire.heard(Digest)) == 1


def test_deletions_alone_are_a_difference() -> None:
    link, room, wire = make()
    client = Client()
    one = client.write("one")
    del client.text[0:1]
    lacking = Room("r", Document(), Awareness(), epoch="e")
    lacking.merge(one, "")
    link.entry(entry(1, one, client.made[-1], last=2))
    room.take(0)

    link.word(digest_of(lacking))
    wire.run(1.0)

    lacking.merge(wire.heard(Difference)[0].update, "")
    assert text_of(lacking) == "ne"


def test_a_difference_for_me_is_taken_in_and_one_for_others_is_not() -> None:
    link, room, _ = make()
    one, two = updates("1", "2", client=Client())

    link.word(encode(Difference("other", "me", "e", one), "r", None))
    link.word(encode(Difference("other", "third", "e", two), "r", None))

    assert text_of(room) == "1"


def test_too_much_is_read_from_the_store() -> None:
    link, room, wire = make()
    lacking = Room("r", Document(), Awareness(), epoch="e")
    client = Client()
    room.merge(client.write("x" * (MAX_DIFFERENCE_BYTES + 1)), "")
    room.take(0)

    link.word(digest_of(lacking))
    wire.run(1.0)

    (answer,) = wire.heard(Difference)
    assert answer.update is None
    link.word(encode(answer._replace(sender="other", to="me"), "r", None))
    assert wire.reloaded == 1


def test_a_difference_that_nothing_helps_against_is_a_divergence() -> None:
    link, _, _ = make()
    fuller = Room("r", Document(), Awareness(), epoch="e")
    fuller.merge(updates("one", client=Client())[0], "")

    for _ in range(PUZZLED + 3):
        link.word(digest_of(fuller))

    assert link._metrics.divergences == 1


# Presence


def test_who_asks_is_told_who_is_here() -> None:
    link, _, wire = make()
    state = (7, 1, b'{"at":1}', "ada")
    link.word(encode(Presence("other", [state]), "r", None))

    link.word(encode(WhoIsHere("third"), "r", None))

    assert wire.heard(Presence) == []  # they are not ours


def test_a_replica_that_is_gone_takes_its_people_with_it() -> None:
    link, room, wire = make()
    link.word(encode(Presence("other", [(7, 1, b'{"at":1}', "ada")]), "r", None))
    before = len(room.awareness)

    link.forget("other")

    assert (before, len(room.awareness)) == (1, 0)
    assert wire.presented == 2


def test_a_room_that_may_have_ended_is_a_matter_for_the_store() -> None:
    link, _, wire = make()

    link.word(encode(Ended("other"), "r", None))

    assert wire.reloaded == 1


# Whoever writes to Redis without being one of us


def test_who_is_here_is_answered_once_a_second() -> None:
    link, room, wire = make()
    client = Client()
    room.awareness.apply(b"\1\7\1\2{}", client.member, 0.0)

    for number in range(1000):
        link.word(encode(WhoIsHere(f"s{number}"), "r", None))
    at_once = len(wire.heard(Presence))
    wire.run(10.0)

    assert (at_once, len(wire.heard(Presence))) == (1, 2)


def test_forged_numberings_are_asked_about_once_a_second() -> None:
    link, _, wire = make()
    (one,) = updates("one", client=Client())

    for number in range(1000):
        link.entry(entry(5, one, numbering=f"forged{number}"))
    wire.run(10.0)

    assert len(wire.heard(WhoIsHere)) == len(wire.heard(Digest)) == 2


def test_a_turn_that_is_stopped_elsewhere_ends_here() -> None:
    link, room, wire = make()
    bot = Client("bot")
    room.join(bot.member)
    room.begin_turn(bot.member, "t1", About())

    link.word(encode(Cancelled("other", "t1", "bot"), "r", None))
    wire.run(0.2)

    with pytest.raises(TurnCancelled):
        room.update(bot.member, bot.write("x"))


def test_a_connection_that_is_ended_elsewhere_ends_here_without_the_others() -> None:
    link, room, _ = make()
    ada, eve = Client("ada"), Client("eve")
    room.join(ada.member)
    room.join(eve.member)

    link.word(encode(Disconnected("other", "connection-eve"), "r", None))
    link.word(encode(Disconnected("other", "nobody"), "r", None))

    assert isinstance(eve.line.closed, PermissionDenied)
    assert ada.line.closed is None


def test_more_words_than_replicas_say_are_dropped_and_counted() -> None:
    link, _, wire = make()

    for _ in range(1000):
        link.word(encode(Ended("other"), "r", None))

    assert wire.reloaded == WORDS_AT_ONCE
    assert link._metrics.bus_refused == 1000 - WORDS_AT_ONCE


def test_a_digest_too_large_to_look_into_is_a_matter_for_the_store() -> None:
    link, _, wire = make()
    vector = encode_state_vector(dict.fromkeys(range(1, 60000), 1))

    link.word(encode(Digest("other", "e", vector, b""), "r", None))
    wire.run(1.0)

    assert wire.reloaded == 1
    assert wire.said == []


def test_answers_leave_one_after_the_other() -> None:
    link, room, wire = make()
    (one,) = updates("one", client=Client())
    link.entry(entry(1, one))
    room.take(0)

    for number in range(50):
        link.word(encode(Digest(f"s{number}", "e", b"\0", b""), "r", None))
    wire.run(0.2)
    at_first = len(wire.heard(Difference))
    for _ in range(100):
        wire.run(0.25)

    assert (at_first, len(wire.heard(Difference))) == (1, 50)


def test_many_small_updates_leave_in_several_entries() -> None:
    link, _, wire = make()
    made = updates(*["x"] * (2 * MAX_UPDATES), client=Client())
    authors = [Author("ada", "c")] * len(made)

    link.publish(Entry("r", "e", 1, 0, made, authors, "here", len(made)))

    found = [decode(body, "r", None) for body in wire.published]
    assert [len(each.updates) for each in found] == [MAX_UPDATES] * 2  # type: ignore[union-attr]
    assert [each.last for each in found] == [MAX_UPDATES, 2 * MAX_UPDATES]  # type: ignore[union-attr]


def test_much_presence_leaves_in_several_words() -> None:
    link, _, wire = make()
    states = [(client, 1, b'"' + b"x" * 4000 + b'"', "") for client in range(3000)]

    link.present(states)

    found = [state for each in wire.heard(Presence) for state in each.states]
    assert found == states
    assert len(wire.said) > 3
