"""Places that survive edits, written as Yjs writes its relative positions.

An anchor holds on to one character from one side. `RIGHT` is the side of the character behind the place, `LEFT` that of
the character before it: where text is inserted right there, the one moves on and the other stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

from collab.errors import InvalidMessage
from collab.protocol.structs import MAX_CLIENT, MAX_CLOCK, MAX_ROOT_BYTES
from collab.protocol.varint import Reader, encode_signed, encode_string, encode_varint

_ITEM, _ROOT, _TYPE = 0, 1, 2
MAX_ASSOCIATION = (1 << 31) - 1  # only the sign of it means something


class Id(NamedTuple):
    """One unit of what a client has inserted."""

    client: int
    clock: int


Root = (
    str | Id
)  # a shared type: a root by its name, one inside another by the id that inserted it


class Side(IntEnum):
    """Which neighbour an anchor holds on to; the values are what Yjs calls `assoc`."""

    LEFT = -1
    RIGHT = 0


@dataclass(frozen=True, slots=True)
class Anchor:
    """A character by its id, seen from one side; without one, the end of a shared type (`RIGHT`) or its beginning."""

    item: Id | None = None
    root: Root | None = None
    association: int = Side.RIGHT

    @property
    def side(self) -> Side:
        """Which neighbour it holds on to."""
        return Side.LEFT if self.association < 0 else Side.RIGHT

    def encode(self) -> bytes:
        """As `encodeRelativePosition` of Yjs writes it."""
        match self.item, self.root:
            case Id() as item, _:
                place = encode_varint(_ITEM) + _encoded(item)
            case None, str(name):
                place = encode_varint(_ROOT) + encode_string(name)
            case None, Id() as inside:
                place = encode_varint(_TYPE) + _encoded(inside)
            case _:
                raise InvalidMessage("the anchor names no place")
        return place + encode_signed(self.association)

    @classmethod
    def decode(cls, encoded: bytes) -> Anchor:
        """From what Yjs wrote, or somebody who says so. Raises InvalidMessage."""
        reader = Reader(encoded)
        item: Id | None = None
        root: Root | None = None
        match reader.read_varint():
            case 0:
                item = _read_id(reader)
            case 1:
                root = reader.read_string(MAX_ROOT_BYTES)
            case 2:
                root = _read_id(reader)
            case _:
                raise InvalidMessage("the anchor names no place")
        # Yjs before 13.5 wrote no side.
        association = Side.RIGHT if reader.at_end else _read_association(reader)
        reader.expect_end()
        return cls(item, root, association)

    def to_json(self) -> dict[str, Any]:
        """As `relativePositionToJSON` of Yjs writes it, which is what cursors in awareness hold."""
        written: dict[str, Any] = {}
        match self.root:
            case Id() as inside:
                written["type"] = inside._asdict()
            case str(name):
                written["tname"] = name
        if self.item is not None:
            written["item"] = self.item._asdict()
        return written | {"assoc": int(self.association)}

    @classmethod
    def from_json(cls, written: Any) -> Anchor:
        """From parsed JSON, of whoever. Raises InvalidMessage."""
        if not isinstance(written, dict):
            raise InvalidMessage("an anchor is a JSON object")
        item, inside, name = map(written.get, ("item", "type", "tname"))
        if name is not None and not _is_name(name):
            raise InvalidMessage("the anchor's root is no name of one")
        found = _id_of(item) if item is not None else None
        root = name if inside is None else _id_of(inside)
        if found is None and root is None:
            raise InvalidMessage("the anchor names no place")
        association = written.get("assoc")
        if association is None:
            association = Side.RIGHT
        if type(association) not in (int, Side) or abs(association) > MAX_ASSOCIATION:
            raise InvalidMessage("the anchor's side is no number")
        return cls(found, root, association)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an anchor is now, in characters from the beginning of a shared type."""

    root: Root
    index: int


@dataclass(frozen=True, slots=True)
class Orphaned:
    """What the anchor held on to is deleted: `index` is where the nearest survivor before it ends."""

    root: Root
    index: int


def _encoded(id_: Id) -> bytes:
    return encode_varint(id_.client) + encode_varint(id_.clock)


def _read_id(reader: Reader) -> Id:
    client, clock = reader.read_varint(), reader.read_varint()
    if client >= MAX_CLIENT or clock >= MAX_CLOCK:
        raise InvalidMessage("the anchor's id is none")
    return Id(client, clock)


def _id_of(written: Any) -> Id:
    if not isinstance(written, dict):
        raise InvalidMessage("the anchor's id is none")
    client, clock = written.get("client"), written.get("clock")
    if (
        type(client) is not int
        or type(clock) is not int
        or not 0 <= client < MAX_CLIENT
        or not 0 <= clock < MAX_CLOCK
    ):
        raise InvalidMessage("the anchor's id is none")
    return Id(client, clock)


def _is_name(root: Any) -> bool:
    """Whether a document could have a root of this name; the other side of `encode_string`."""
    if not isinstance(root, str):
        return False
    try:
        return len(root.encode()) <= MAX_ROOT_BYTES
    except UnicodeEncodeError:
        return False


def _read_association(reader: Reader) -> int:
    association = reader.read_signed()
    if abs(association) > MAX_ASSOCIATION:
        raise InvalidMessage("the anchor's side is no number")
    return association
