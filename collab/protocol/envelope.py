"""What replicas say to each other: bytes ↔ messages, and the signature around them.

    version 1, flags (1: signed), [16 bytes of HMAC-SHA256 over the room's key and the rest,] kind, then fields:
    each a tag, a length and that many bytes

An unknown tag is passed over and an unknown kind is no message, so that a newer replica may say more. Whoever can write to
Redis can write here: everything is checked as if a client had sent it, and with a key nobody else's bytes are read at all.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from collab.errors import InvalidMessage
from collab.protocol.varint import Reader, encode_bytes, encode_varint
from collab.turns import checked_turn

VERSION = 1
MAC_BYTES = 16
_SIGNED = 1
_MAX_NAME_BYTES = 1024
_MAX_FIELDS = 5000  # four for each state of presence, of which a word has a thousand


class Updates(NamedTuple):
    """What a replica has logged of one room."""

    sender: str
    sequence: int  # of the sender's entries in this room
    epoch: str  # of the room
    last: int  # position of the last update in the shared log; 0 when it is not known
    owners: Sequence[str]  # one per update: who its client ids belong to
    updates: Sequence[bytes]


class Presence(NamedTuple):
    """The latest states of some clients that are the sender's."""

    sender: str
    states: Sequence[tuple[int, int, bytes, str]]  # client, clock, JSON, owner


class WhoIsHere(NamedTuple):
    """A replica has opened the room, or missed something: everybody says who is there."""

    sender: str


class Digest(NamedTuple):
    """What a replica has of a room."""

    sender: str
    epoch: str
    state_vector: bytes
    deletes: bytes  # hash of the delete set


class Difference(NamedTuple):
    """What a replica lacks. None: it is too much for the bus, and in the store."""

    sender: str
    to: str
    epoch: str
    update: bytes | None


class Ended(NamedTuple):
    """A room was deleted, or another history of it begun: look into the store."""

    sender: str


class RightsChanged(NamedTuple):
    """A grant, key or revocation has changed: read them again."""

    sender: str


class Distrusted(NamedTuple):
    """Ask your own backend anew what the principals of a tenant may do, or one of them ("" is all)."""

    sender: str
    tenant: str
    principal: str


class Cancelled(NamedTuple):
    """Stop a turn of a principal, "" being whoever has it open."""

    sender: str
    turn: str
    principal: str


class WhoAttends(NamedTuple):
    """Who is connected to a room? Every replica answers, also for a room that it has not open."""

    sender: str
    number: int  # of the question
    room: str


class Attending(NamedTuple):
    """The answer, to one replica."""

    sender: str
    to: str
    number: int
    members: bytes  # JSON


class Disconnected(NamedTuple):
    """End what a connection does in a room."""

    sender: str
    connection: str


class Alive(NamedTuple):
    """What a replica says of itself in the roster."""

    sender: str
    info: bytes  # JSON


Message = (
    Updates
    | Presence
    | WhoIsHere
    | Digest
    | Difference
    | Ended
    | RightsChanged
    | Distrusted
    | Alive
    | Cancelled
    | WhoAttends
    | Attending
    | Disconnected
)

_KINDS: tuple[type[Message], ...] = (
    Updates,
    Presence,
    WhoIsHere,
    Digest,
    Difference,
    Ended,
    RightsChanged,
    Distrusted,
    Alive,
    Cancelled,
    WhoAttends,
    Attending,
    Disconnected,
)

# Tags of fields; a number once given is never used for something else.
_SENDER, _EPOCH, _SEQUENCE, _LAST, _OWNER, _UPDATE = 1, 2, 3, 4, 5, 6
_CLIENT, _CLOCK, _JSON, _VECTOR, _DELETES, _TO = 7, 8, 9, 10, 11, 12
_TENANT, _PRINCIPAL, _INFO, _TURN = 13, 14, 15, 16
_NUMBER, _ROOM, _MEMBERS, _CONNECTION = 17, 18, 19, 20


def encode(message: Message, channel: str, key: bytes | None) -> bytes:
    """The body of a message for that channel, signed when there is a key."""
    content = encode_varint(_KINDS.index(type(message)) + 1) + b"".join(
        encode_varint(tag) + encode_bytes(value) for tag, value in _fields(message)
    )
    if key is None:
        return bytes((VERSION, 0)) + content
    return bytes((VERSION, _SIGNED)) + _sign(content, channel, key) + content


def decode(body: bytes, channel: str, key: bytes | None) -> Message | None:
    """What a body says; None for a kind that only newer replicas know.

    Raises InvalidMessage for everything that no replica of this cluster has written for this channel.
    """
    if len(body) < 2 or body[0] != VERSION:
        raise InvalidMessage("not a message between replicas")
    at = 2
    if body[1] & _SIGNED:
        at += MAC_BYTES
    if key is not None:
        if not body[1] & _SIGNED or not hmac.compare_digest(
            body[2:at], _sign(body[at:], channel, key)
        ):
            raise InvalidMessage("not signed by a replica of this cluster")
    reader = Reader(body, at)
    kind = reader.read_varint()
    fields: list[tuple[int, bytes]] = []
    while reader.at < len(body):
        if len(fields) == _MAX_FIELDS:
            raise InvalidMessage("a message between replicas has too many fields")
        tag = reader.read_varint()
        fields.append((tag, reader.read_bytes()))
    if not 1 <= kind <= len(_KINDS):
        return None
    return _message(_KINDS[kind - 1], fields)


def _sign(content: bytes, channel: str, key: bytes) -> bytes:
    name = encode_bytes(channel.encode())
    return hmac.digest(key, name + content, "sha256")[:MAC_BYTES]


def _fields(message: Message) -> Iterator[tuple[int, bytes]]:
    yield _SENDER, message.sender.encode()
    match message:
        case Updates(_, sequence, epoch, last, owners, updates):
            yield _SEQUENCE, encode_varint(sequence)
            yield _EPOCH, epoch.encode()
            yield _LAST, encode_varint(last)
            for owner, update in zip(owners, updates, strict=True):
                yield _OWNER, owner.encode()
                yield _UPDATE, update
        case Presence(_, states):
            for client, clock, json, owner in states:
                yield _CLIENT, encode_varint(client)
                yield _CLOCK, encode_varint(clock)
                yield _JSON, json
                yield _OWNER, owner.encode()
        case Digest(_, epoch, state_vector, deletes):
            yield _EPOCH, epoch.encode()
            yield _VECTOR, state_vector
            yield _DELETES, deletes
        case Difference(_, to, epoch, update):
            yield _TO, to.encode()
            yield _EPOCH, epoch.encode()
            if update is not None:
                yield _UPDATE, update
        case Distrusted(_, tenant, principal):
            yield _TENANT, tenant.encode()
            yield _PRINCIPAL, principal.encode()
        case Alive(_, info):
            yield _INFO, info
        case Cancelled(_, turn, principal):
            yield _TURN, turn.encode()
            yield _PRINCIPAL, principal.encode()
        case WhoAttends(_, number, room):
            yield _NUMBER, encode_varint(number)
            yield _ROOM, room.encode()
        case Attending(_, to, number, members):
            yield _TO, to.encode()
            yield _NUMBER, encode_varint(number)
            yield _MEMBERS, members
        case Disconnected(_, connection):
            yield _CONNECTION, connection.encode()
        case WhoIsHere() | Ended() | RightsChanged():
            pass


class _Found:
    """The fields of a message, by tag, in order."""

    def __init__(self, fields: Iterable[tuple[int, bytes]]) -> None:
        self._values: dict[int, list[bytes]] = {}
        for tag, value in fields:
            self._values.setdefault(tag, []).append(value)

    def all(self, tag: int) -> list[bytes]:
        return self._values.get(tag, [])

    def one(self, tag: int) -> bytes:
        values = self._values.get(tag)
        if not values:
            raise InvalidMessage("a message between replicas lacks a field")
        return values[0]

    def text(self, tag: int) -> str:
        return _text(self.one(tag))

    def number(self, tag: int) -> int:
        return _number(self.one(tag))


def _message(kind: type[Message], fields: Iterable[tuple[int, bytes]]) -> Message:
    found = _Found(fields)
    sender = found.text(_SENDER)
    if kind is Updates:
        owners, updates = found.all(_OWNER), found.all(_UPDATE)
        if len(owners) != len(updates):
            raise InvalidMessage("an update without an owner, or an owner without one")
        return Updates(
            sender,
            found.number(_SEQUENCE),
            found.text(_EPOCH),
            found.number(_LAST),
            [_text(owner) for owner in owners],
            updates,
        )
    if kind is Presence:
        columns = [found.all(tag) for tag in (_CLIENT, _CLOCK, _JSON, _OWNER)]
        if len({len(column) for column in columns}) > 1:
            raise InvalidMessage("a presence state lacks a field")
        return Presence(
            sender,
            [
                (_number(client), _number(clock), json, _text(owner))
                for client, clock, json, owner in zip(*columns, strict=True)
            ],
        )
    if kind is Digest:
        return Digest(
            sender, found.text(_EPOCH), found.one(_VECTOR), found.one(_DELETES)
        )
    if kind is Difference:
        updates = found.all(_UPDATE)
        return Difference(
            sender,
            found.text(_TO),
            found.text(_EPOCH),
            updates[0] if updates else None,
        )
    if kind is Distrusted:
        return Distrusted(sender, found.text(_TENANT), found.text(_PRINCIPAL))
    if kind is Cancelled:
        turn = checked_turn(found.text(_TURN))
        return Cancelled(sender, turn, found.text(_PRINCIPAL))
    if kind is Alive:
        return Alive(sender, found.one(_INFO))
    if kind is WhoAttends:
        return WhoAttends(sender, found.number(_NUMBER), found.text(_ROOM))
    if kind is Attending:
        to, number = found.text(_TO), found.number(_NUMBER)
        return Attending(sender, to, number, found.one(_MEMBERS))
    if kind is Disconnected:
        return Disconnected(sender, found.text(_CONNECTION))
    if kind is WhoIsHere:
        return WhoIsHere(sender)
    return Ended(sender) if kind is Ended else RightsChanged(sender)


def _text(value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise InvalidMessage("a name is not UTF-8") from None
    if len(value) > _MAX_NAME_BYTES:
        raise InvalidMessage("a name is too long")
    return text


def _number(value: bytes) -> int:
    reader = Reader(value)
    number = reader.read_varint()
    reader.expect_end()
    return number
