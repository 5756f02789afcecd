"""Presence: the latest state of each client, owned by the connection that announced it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from collab.awareness import (
    EXPIRES_AFTER_SECONDS,
    MAX_CLOCK_STEP,
    MAX_GONE,
    MAX_PRESENT,
    Awareness,
    Peer,
)
from collab.errors import InvalidMessage, PermissionDenied, Refused
from collab.protocol.varint import Reader, encode_bytes, encode_varint


class Connection:
    """An owner of presence states."""

    def __init__(
        self, *, is_alive: bool = True, user: dict[str, Any] | None = None
    ) -> None:
        self.clients: set[int] = set()
        self.strikes = 0
        self.owner = "anonymous:1"
        self.user = user
        self._is_alive = is_alive

    def answers(self) -> bool:
        return self._is_alive


def states(*entries: tuple[int, int, Any]) -> bytes:
    parts = [
        encode_varint(client)
        + encode_varint(clock)
        + encode_bytes(state if isinstance(state, bytes) else orjson.dumps(state))
        for client, clock, state in entries
    ]
    return encode_varint(len(parts)) + b"".join(parts)


def read(encoded: bytes | None) -> dict[int, tuple[int, Any]]:
    assert encoded is not None
    reader = Reader(encoded)
    found = {}
    for _ in range(reader.read_varint()):
        client, clock = reader.read_varint(), reader.read_varint()
        found[client] = (clock, orjson.loads(reader.read_bytes()))
    reader.expect_end()
    return found


def taken(room: Awareness) -> dict[int, tuple[int, Any]]:
    """What everybody here is told of the changes since the last time."""
    changed = room.take()
    assert changed is not None
    return read(changed[0])


def test_a_state_is_passed_on_once() -> None:
    room = Awareness()

    room.apply(states((1, 1, {"a": 1})), Connection(), 0)

    assert taken(room) == {1: (1, {"a": 1})}
    assert room.take() is None


def test_only_the_latest_state_leaves() -> None:
    room, ada = Awareness(), Connection()

    for clock in range(1, 6):
        room.apply(states((1, clock, {"at": clock})), ada, 0)

    assert taken(room) == {1: (5, {"at": 5})}


def test_the_snapshot_holds_everybody() -> None:
    room = Awareness()
    room.apply(states((1, 1, {})), Connection(), 0)
    room.apply(states((2, 1, {})), Connection(), 0)

    assert read(room.snapshot()) == {1: (1, {}), 2: (1, {})}


def test_there_is_no_snapshot_of_nobody() -> None:
    assert Awareness().snapshot() is None


def test_an_older_clock_changes_nothing() -> None:
    room, ada = Awareness(), Connection()
    room.apply(states((1, 5, {"new": 1})), ada, 0)
    room.take()

    room.apply(states((1, 4, {"old": 1})), ada, 0)

    assert room.take() is None


def test_whoever_drops_is_gone_at_once_with_all_its_clients() -> None:
    room, ada, bob = Awareness(), Connection(), Connection()
    room.apply(states((1, 1, {}), (2, 1, {})), ada, 0)
    room.apply(states((3, 1, {})), bob, 0)
    room.take()

    room.leave(ada)

    assert taken(room) == {1: (1, None), 2: (1, None)}
    assert read(room.snapshot()) == {3: (1, {})}


def test_an_echo_of_somebody_elses_state_is_ignored() -> None:
    room, ada, bob = Awareness(), Connection(), Connection()
    room.apply(states((1, 1, {})), ada, 0)
    room.take()

    for _ in range(10):
        room.apply(states((1, 1, {})), bob, 0)

    assert bob.strikes == 0
    assert room.take() is None


def test_nobody_removes_another_client() -> None:
    room, ada, bob = Awareness(), Connection(), Connection()
    room.apply(states((1, 1, {})), ada, 0)

    room.apply(states((1, 1, None)), bob, 0)

    assert len(room) == 1
    assert bob.strikes == 0


def test_the_third_forgery_is_denied() -> None:
    room, ada, eve = Awareness(), Connection(), Connection()
    room.apply(states((1, 1, {"name": "ada"})), ada, 0)
    room.apply(states((1, 2, {"name": "eve"})), eve, 0)
    room.apply(states((1, 3, {"name": "eve"})), eve, 0)

    with pytest.raises(PermissionDenied):
        room.apply(states((1, 4, {"name": "eve"})), eve, 0)

    assert read(room.snapshot()) == {1: (1, {"name": "ada"})}


def test_a_tab_that_hears_its_neighbour_first_is_no_forger() -> None:
    room, ada, neighbour = Awareness(), Connection(), Connection()
    room.apply(states((1, 1, {"at": 1})), ada, 0)

    for clock in range(2, 20):
        room.apply(states((1, clock, {"at": clock})), neighbour, 0)
        room.apply(states((1, clock, {"at": clock})), ada, 0)

    assert neighbour.strikes == 0
    assert read(room.snapshot()) == {1: (19, {"at": 19})}
    assert not room._claims


def test_a_client_whose_neighbour_announced_it_first_is_no_forger() -> None:
    room, ada, neighbour = Awareness(), Connection(), Connection()
    room.apply(states((1, 1, {"at": 1})), neighbour, 0)

    for clock in range(2, 20):
        room.apply(states((1, clock, {"at": clock})), ada, 0)
        room.apply(states((1, clock, {"at": clock})), neighbour, 0)

    assert ada.strikes == 0


def test_a_claim_that_the_owner_contradicts_stays_a_strike() -> None:
    room, ada, eve = Awareness(), Connection(), Connection()
    room.apply(states((1, 1, {})), ada, 0)

    room.apply(states((1, 2, {"name": "eve"})), eve, 0)
    room.apply(states((1, 2, {"name": "ada"})), ada, 0)

    assert eve.strikes == 1


def test_a_client_that_comes_back_before_its_old_connection_is_missed_is_no_forger() -> (
    None
):
    room, old, new = Awareness(), Connection(is_alive=False), Connection()
    room.apply(states((1, 1, {})), old, 0)

    for clock in range(2, 9):
        room.apply(states((1, clock, {})), new, 0)

    assert new.strikes == 0


def test_a_client_that_returns_with_its_old_clock_is_told_to_raise_it() -> None:
    room, old, new = Awareness(), Connection(), Connection()
    room.apply(states((1, 7, {})), old, 0)
    room.leave(old)

    reply = room.apply(states((1, 7, {})), new, 0)
    room.apply(states((1, 8, {})), new, 0)

    assert read(reply) == {1: (7, None)}
    assert read(room.snapshot()) == {1: (8, {})}


def test_a_state_that_is_not_renewed_expires() -> None:
    room, ada = Awareness(), Connection()
    room.apply(states((1, 1, {})), ada, 0)
    room.take()

    room.expire(EXPIRES_AFTER_SECONDS + 1)

    assert taken(room) == {1: (1, None)}
    assert ada.clients == set()


def test_a_renewed_state_stays() -> None:
    room, ada = Awareness(), Connection()
    room.apply(states((1, 1, {})), ada, 0)
    room.apply(states((1, 2, {})), ada, 30)

    room.expire(EXPIRES_AFTER_SECONDS + 1)

    assert len(room) == 1


def test_the_user_is_who_the_token_says() -> None:
    room = Awareness()
    ada = Connection(user={"name": "Ada", "id": "u1"})

    room.apply(states((1, 1, {"user": {"name": "Eve", "color": "#f00"}})), ada, 0)

    assert taken(room) == {
        1: (1, {"user": {"name": "Ada", "id": "u1", "color": "#f00"}})
    }


@pytest.mark.parametrize(
    "state",
    [
        b'{"__proto__":{"a":1},"b":2}',
        b'{"b":2,"constructor":{"a":1}}',
        b'{"b":2,"\\u005f_proto__":1}',
    ],
)
def test_keys_that_pollute_are_dropped(state: bytes) -> None:
    room = Awareness()

    room.apply(states((1, 1, state)), Connection(), 0)

    assert taken(room) == {1: (1, {"b": 2})}


def test_a_long_name_is_cut() -> None:
    room = Awareness()

    room.apply(states((1, 1, {"user": {"name": "x" * 1000}})), Connection(), 0)

    assert taken(room) == {1: (1, {"user": {"name": "x" * 256}})}


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x05",
        b"\x01\x01",
        b"\x01\x01\x01",
        b"\x01\x01\x01\x05{",
        states((1, 1, {})) + b"x",
        states((1, 1, b"{")),
        states((1, 1, b"NaN")),
        states((1, 1, b'{"a":Infinity}')),
        states((1, 1, b'{"a":"\xed\xa0\x80"}')),
        states((1, 1, b"[" * 100_000)),
        states((1, 1, b"1")),
        states((1, 1, b"[]")),
        states((1, 1, b'"x"')),
        states((1, 1, {"a": "x" * 5000})),
        states((1 << 53, 1, {})),
        states((1, 1 << 53, {})),
        b"\x01\x01" + b"\xff" * 12,
        states(*((n, 1, {}) for n in range(1, 8))),
        b"\xff\xff\xff\xff\x7f" + b"\x01\x01\x02{}",
    ],
)
def test_a_bad_message_changes_nothing(message: bytes) -> None:
    room = Awareness()

    with pytest.raises(InvalidMessage):
        room.apply(message, Connection(), 0)

    assert len(room) == 0


def test_a_clock_may_not_leap() -> None:
    room, ada = Awareness(), Connection()
    room.apply(states((1, 1, {})), ada, 0)

    with pytest.raises(Refused):
        room.apply(states((1, MAX_CLOCK_STEP + 2, {})), ada, 0)


def test_the_memory_of_those_who_left_is_bounded() -> None:
    room = Awareness()

    for client in range(MAX_GONE * 2):
        ada = Connection()
        room.apply(states((client, 1, {})), ada, 0)
        room.leave(ada)
        room.take()

    assert len(room._gone) == MAX_GONE


def test_those_on_other_replicas_are_shown_up_to_a_bound() -> None:
    room = Awareness()
    crowd = [(client, 1, b"{}", "") for client in range(MAX_PRESENT)]
    room.merge(crowd, Peer(), 0)

    with pytest.raises(Refused):
        room.merge(
            [(client, 1, b"{}", "") for client in range(1 << 20, (1 << 20) + 9)],
            Peer(),
            0,
        )

    assert len(room) == MAX_PRESENT
