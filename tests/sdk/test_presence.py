"""Who is here, from a member's side."""

from __future__ import annotations

import orjson
import pytest

from collab.errors import InvalidMessage
from collab.protocol.varint import Reader, encode_bytes, encode_varint
from collab.sdk import presence
from collab.sdk.errors import Invalid
from collab.sdk.presence import AgentStatus, Presence, User

ME = 1


def states(*entries: tuple[int, int, object]) -> bytes:
    """Client, clock and state; None is gone."""
    parts = [
        encode_varint(client) + encode_varint(clock) + encode_bytes(orjson.dumps(state))
        for client, clock, state in entries
    ]
    return encode_varint(len(parts)) + b"".join(parts)


def clock_of(encoded: bytes) -> int:
    reader = Reader(encoded)
    reader.read_varint()
    reader.read_varint()
    return reader.read_varint()


def test_others_come_change_and_go() -> None:
    here = Presence(ME, None)

    assert here.receive(states((2, 1, {"user": {"name": "Ada"}}))) == (True, False)
    assert here.peers[2].user == User(name="Ada")
    assert here.receive(states((2, 2, {"cursor": {"anchor": 1}}))) == (True, False)
    assert here.peers[2].cursor == {"anchor": 1}
    assert here.receive(states((2, 2, None))) == (True, False)
    assert here.peers == {}


def test_what_is_old_or_says_nothing_new_changes_nothing() -> None:
    here = Presence(ME, None)
    here.receive(states((2, 5, {"a": 1})))

    assert here.receive(states((2, 4, {"a": 2}), (2, 5, {"a": 3}))) == (False, False)
    assert here.receive(states((2, 6, {"a": 1}))) == (False, False)
    assert here.receive(states((2, 5, None))) == (False, False)
    assert here.receive(states((3, 5, None))) == (False, False)


def test_all_together_show_no_more_than_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(presence, "MAX_SEEN_BYTES", 100)
    here = Presence(ME, None)
    here.receive(states((2, 1, {"a": "x" * 40}), (3, 1, {"a": "x" * 30})))

    assert here.receive(states((4, 1, {"a": "x" * 40}))) == (False, False)
    assert here.receive(states((2, 2, {"a": "x" * 80}))) == (True, False)

    assert list(here.peers) == [3]
    assert here.unseen == 2
    assert here.receive(states((4, 2, {"a": "x" * 40}))) == (True, False)
    here.receive(states((4, 3, None), (3, 2, None)))
    here.receive(states((2, 3, {"a": "x" * 80})))
    assert list(here.peers) == [2]
    here.forget()
    assert here.unseen == 0


def test_who_stays_is_seen_again_after_a_connection_was_lost() -> None:
    here = Presence(ME, None)
    here.receive(states((2, 5, {"a": 1})))

    assert here.forget()
    assert here.receive(states((2, 5, {"a": 1}))) == (True, False)


def test_an_agent_is_known_by_its_words() -> None:
    here = Presence(ME, None)

    here.receive(
        states(
            (
                2,
                1,
                {
                    "user": {"name": "Bot", "kind": "agent", "on_behalf_of": "ada"},
                    "agent": {"status": "writing", "turn": "t1", "tail": "and th"},
                },
            )
        )
    )

    peer = here.peers[2]
    assert peer.is_agent
    assert peer.user.on_behalf_of == "ada"
    assert peer.agent == AgentStatus("writing", turn="t1", tail="and th")


@pytest.mark.parametrize(
    "state",
    [
        [],
        "text",
        7,
        {"user": 7, "agent": [], "cursor": "x"},
        {"user": {"name": [1], "id": None}, "agent": {"status": "flying", "task": {}}},
    ],
)
def test_a_state_of_an_odd_shape_is_read_as_far_as_it_goes(state: object) -> None:
    here = Presence(ME, None)

    here.receive(states((2, 1, state)))

    peer = here.peers[2]
    assert peer.user == User()
    assert peer.cursor is None
    assert peer.agent in (None, AgentStatus())


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"\x01",
        b"\x01\x02\x01\x05{",
        b"\x01\x02\x01\x01{",
        b"\xff" * 12,
        b"\x00\x00",
    ],
)
def test_hostile_bytes_are_refused(encoded: bytes) -> None:
    with pytest.raises(InvalidMessage):
        Presence(ME, None).receive(encoded)


def test_one_state_is_not_larger_than_it_may_be() -> None:
    large = {"a": "x" * presence.MAX_HEARD_BYTES}

    with pytest.raises(InvalidMessage):
        Presence(ME, None).receive(states((2, 1, large)))


def test_more_than_a_room_can_hold_are_not_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(presence, "MAX_PEERS", 2)
    here = Presence(ME, None)

    here.receive(states(*((client, 1, {}) for client in range(2, 10))))

    assert list(here.peers) == [2, 3]


def test_each_time_we_say_who_we_are_the_clock_is_higher() -> None:
    here = Presence(ME, {"user": {"name": "Me"}})

    assert clock_of(here.encode()) < clock_of(here.encode())


def test_who_is_taken_for_gone_announces_itself_anew() -> None:
    here = Presence(ME, {"user": {"name": "Me"}})
    here.encode()

    assert here.receive(states((ME, 40, None))) == (False, True)
    assert clock_of(here.encode()) == 41


def test_who_went_with_an_earlier_connection_announces_itself_anew() -> None:
    here = Presence(ME, {"user": {"name": "Me"}})
    here.encode()
    here.encode()

    assert here.receive(states((ME, 1, None))) == (False, True)
    assert clock_of(here.encode()) == 3


def test_who_shows_nothing_does_not_announce_itself() -> None:
    assert Presence(ME, None).receive(states((ME, 40, None))) == (False, False)


def test_our_own_state_comes_back_with_what_the_server_knows() -> None:
    here = Presence(ME, {"user": {"name": "Me"}})

    here.receive(states((ME, 1, {"user": {"id": "ada", "name": "Ada"}})))

    assert here.user == User(id="ada", name="Ada")
    assert here.peers == {}


def test_more_than_a_server_takes_is_not_shown() -> None:
    here = Presence(ME, {})

    with pytest.raises(Invalid, match="4096 bytes"):
        here.show({"a": "x" * 5000})

    assert here.state == {}
