"""The load test's client without a socket: what it sends, what it waits for, what it measures."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "loadtests"))

from agreement import content, merged, problems
from provider import AnotherHistory, Provider

from collab.errors import InvalidMessage
from collab.protocol import yjs
from collab.protocol.varint import Reader

EMPTY = b"\x00"  # the state vector of somebody who has nothing
NOTHING = yjs.sync_step_2(yjs.NOTHING)


class Watch:
    """A clock that is moved by hand, and what was reported."""

    def __init__(self) -> None:
        self.now = 100.0
        self.seen: list[tuple[str, float, str]] = []

    def __call__(
        self, event: str, seconds: float, failure: Exception | None = None
    ) -> None:
        self.seen.append((event, round(seconds, 3), str(failure or "")))

    def of(self, event: str) -> list[float]:
        return [seconds for name, seconds, _ in self.seen if name == event]


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def make(watch: Watch) -> Callable[..., Provider]:
    def made(name: str, *, run: str = "run") -> Provider:
        return Provider("room", name, watch, run=run, clock=lambda: watch.now)

    return made


def joined(provider: Provider) -> Provider:
    """Connected and in step with an empty room."""
    provider.open()
    provider.receive(yjs.hello("epoch", is_writable=True, max_update_bytes=1 << 19))
    provider.receive(yjs.sync_step_1(EMPTY))
    provider.receive(NOTHING)
    provider.receive(yjs.ack(1, 0))
    provider.outgoing.clear()
    return provider


def write(provider: Provider, words: str) -> None:
    with provider.editing() as text:
        text.insert(0, words)


def pass_on(sender: Provider, *receivers: Provider) -> None:
    """What one has sent reaches the others, as an honest server would have it."""
    while sender.outgoing:
        frame = sender.outgoing.popleft()
        for receiver in receivers:
            receiver.receive(frame)


def test_it_asks_for_the_document_and_is_seen(make: Callable[..., Provider]) -> None:
    provider = make("a")

    provider.open()

    asked, seen = provider.outgoing
    assert asked == yjs.sync_step_1(EMPTY)
    assert seen[0] == yjs.AWARENESS
    assert b'"name": "a"' in seen


def test_edits_from_before_the_servers_question_are_in_the_answer(
    make: Callable[..., Provider],
) -> None:
    provider, reader = make("a"), joined(make("b"))
    provider.open()
    provider.outgoing.clear()

    write(provider, "early")
    unasked = list(provider.outgoing)
    provider.receive(yjs.sync_step_1(EMPTY))
    pass_on(provider, reader)

    assert unasked == []
    assert str(reader.text) == "early"


def test_a_heartbeat_has_a_higher_clock(make: Callable[..., Provider]) -> None:
    provider = joined(make("a"))

    provider.renew(cursor=7)
    provider.renew()

    first, second = (Reader(frame, 1).read_bytes() for frame in provider.outgoing)
    assert first != second
    assert b'"cursor": 7' in second


def test_nothing_piles_up_while_there_is_no_connection(
    make: Callable[..., Provider],
) -> None:
    provider = joined(make("a"))
    provider.close()

    provider.renew(cursor=1)
    write(provider, "offline")

    assert not provider.outgoing
    assert not provider.unacknowledged


def test_a_server_that_takes_nothing_stops_the_edits(
    make: Callable[..., Provider],
) -> None:
    provider = joined(make("a"))

    while not provider.is_clogged:
        provider.renew()

    assert len(provider.outgoing) == 5000


def test_one_acknowledgement_covers_all_before_it(
    make: Callable[..., Provider], watch: Watch
) -> None:
    provider = joined(make("a"))
    write(provider, "one")
    watch.now += 0.25
    write(provider, "two")

    watch.now += 0.5
    provider.receive(yjs.ack(3, 9))

    assert watch.of("saved") == [0.75, 0.5]
    assert not provider.unacknowledged


def test_an_answer_that_brought_nothing_is_not_counted_as_saved(
    make: Callable[..., Provider], watch: Watch
) -> None:
    joined(make("a"))

    assert watch.of("saved") == []


def test_a_refused_update_is_a_failure_with_its_code(
    make: Callable[..., Provider], watch: Watch
) -> None:
    provider = joined(make("a"))
    write(provider, "one")

    provider.receive(yjs.refused(2, "store_unavailable", "the disk is full"))

    assert watch.seen[-1] == ("saved", 0.0, "refused: store_unavailable")
    assert not provider.unacknowledged


def test_the_first_sync_is_measured_from_the_open_socket(
    make: Callable[..., Provider], watch: Watch
) -> None:
    provider = make("a")
    provider.open()

    watch.now += 0.125
    provider.receive(NOTHING)

    assert watch.seen == [("initial_sync", 0.125, "")]


def test_coming_back_is_measured_from_the_loss(
    make: Callable[..., Provider], watch: Watch
) -> None:
    provider = joined(make("a"))
    provider.close()
    watch.now += 1
    provider.open()
    watch.now += 1

    provider.receive(NOTHING)

    assert watch.of("reconnect") == [2.0]
    assert len(watch.of("initial_sync")) == 1


def test_what_was_not_acknowledged_goes_out_again(
    make: Callable[..., Provider],
) -> None:
    provider, reader = joined(make("a")), joined(make("b"))
    write(provider, "unheard")

    provider.close()
    write(provider, "offline and ")
    provider.open()
    provider.receive(yjs.sync_step_1(EMPTY))
    pass_on(provider, reader)

    assert str(reader.text) == "offline and unheard"
    assert [sent.sequence for sent in provider.unacknowledged] == [1]


def test_an_edit_is_counted_once_by_each_of_the_others(
    make: Callable[..., Provider], watch: Watch
) -> None:
    writer, one, two = (joined(make(name)) for name in "abc")
    write(writer, "word")
    frame = writer.outgoing[0]

    watch.now += 0.02
    pass_on(writer, writer, one, two)
    one.receive(frame)

    assert watch.of("propagation") == [0.02, 0.02]


def test_edits_of_the_same_member_count_one_by_one(
    make: Callable[..., Provider], watch: Watch
) -> None:
    writer, reader = joined(make("a")), joined(make("b"))

    for _ in range(3):
        write(writer, "word ")
        pass_on(writer, reader)

    assert len(watch.of("propagation")) == 3


def test_what_was_there_before_says_nothing_about_speed(
    make: Callable[..., Provider], watch: Watch
) -> None:
    writer, late = joined(make("a")), make("b")
    write(writer, "early")
    watch.now += 60
    late.open()

    late.receive(yjs.sync_step_2(writer.document.get_update()))

    assert str(late.text) == "early"
    assert watch.of("propagation") == []


def test_edits_of_another_run_are_not_counted(
    make: Callable[..., Provider], watch: Watch
) -> None:
    stranger, reader = joined(make("a", run="other")), joined(make("b"))
    write(stranger, "hello")

    pass_on(stranger, reader)

    assert str(reader.text) == "hello"
    assert watch.of("propagation") == []


def test_another_history_of_the_room_is_told(make: Callable[..., Provider]) -> None:
    provider = joined(make("a"))
    provider.close()
    provider.open()

    with pytest.raises(AnotherHistory):
        provider.receive(
            yjs.hello("another", is_writable=True, max_update_bytes=1 << 19)
        )


def test_the_first_write_may_name_the_history(make: Callable[..., Provider]) -> None:
    provider = make("a")

    provider.receive(yjs.hello("", is_writable=True, max_update_bytes=1 << 19))
    provider.receive(yjs.hello("epoch", is_writable=True, max_update_bytes=1 << 19))
    provider.receive(yjs.hello("epoch", is_writable=False, max_update_bytes=1 << 19))


def test_an_unknown_message_is_passed_over(
    make: Callable[..., Provider], watch: Watch
) -> None:
    provider = joined(make("a"))

    provider.receive(b"\x7a\x01")
    provider.receive(yjs.KEEP_ALIVE)

    assert [event for event, _, _ in watch.seen] == ["initial_sync"]


@pytest.mark.parametrize("frame", [b"", b"\x00\x02\x05\x00", b"\x6f", b"\x80"])
def test_half_a_message_is_told(make: Callable[..., Provider], frame: bytes) -> None:
    provider = joined(make("a"))

    with pytest.raises(InvalidMessage):
        provider.receive(frame)


def test_pauses_double_up_to_a_bound_and_are_random(
    make: Callable[..., Provider],
) -> None:
    provider, chance = make("a"), random.Random(1)

    pauses = [
        [provider.pause_seconds(attempt, chance) for _ in range(200)]
        for attempt in (0, 3, 10_000)
    ]

    greatest = [max(some) for some in pauses]
    assert greatest == pytest.approx([0.2, 1.6, 30], rel=0.1)
    assert all(min(some) < max(some) / 10 for some in pauses)


def test_a_server_that_drains_says_when_to_come_back(
    make: Callable[..., Provider],
) -> None:
    provider, chance = joined(make("a")), random.Random(1)

    provider.receive(yjs.notice("drain", 4000))

    assert 4 <= provider.pause_seconds(0, chance) <= 4.2
    assert provider.pause_seconds(0, chance) <= 0.2


def test_documents_with_the_same_edits_are_the_same(
    make: Callable[..., Provider],
) -> None:
    one, two, reader = (joined(make(name)) for name in "abc")
    write(one, "one ")
    write(two, "two ")
    with two.editing() as text:
        del text[0:2]
    updates = [*one.outgoing, *two.outgoing]

    for frame in updates:
        reader.receive(frame)
    for frame in reversed(updates[:1]):
        two.receive(frame)
    pass_on(two, one)

    assert content(one) == content(two) == content(reader)


def test_a_lost_deletion_is_seen_although_vectors_are_equal(
    make: Callable[..., Provider],
) -> None:
    one, two = joined(make("a")), joined(make("b"))
    write(one, "gone")
    pass_on(one, two)
    one.close()
    with one.editing() as text:
        del text[0:4]

    (text_1, vector_1, deleted_1), (text_2, vector_2, deleted_2) = (
        content(one),
        content(two),
    )

    assert vector_1 == vector_2
    assert text_1 != text_2
    assert deleted_1 != deleted_2


def test_a_room_that_differs_is_named_with_its_odd_ones() -> None:
    same, other = ("t", "v", "d"), ("x", "w", "d")

    found = problems(
        {"good": {"a": same, "b": same}, "bad": {"a": same, "b": same, "c": other}}
    )

    assert found == [
        "room bad: 1 of 3 documents differ from the others in text, state vector (c)"
    ]


def test_a_member_that_cannot_be_compared_is_a_problem() -> None:
    rooms = {"room": {"a": ("t", "v", "d"), "b": ("is not connected",)}}

    assert problems(rooms) == ["room room: b is not connected"]


def test_members_of_several_processes_are_compared_room_by_room() -> None:
    one = {"room": {"a": ("t", "v", "d")}}
    two = {"room": {"b": ("t", "v", "e")}, "other": {"c": ("t", "v", "d")}}

    assert problems(merged([one, two])) == [
        "room room: 1 of 2 documents differ from the others in delete set (b)"
    ]
