"""Checksums of what the Postgres store keeps, and how an author is written there."""

from __future__ import annotations

from struct import Struct
from zlib import crc32

import orjson

from collab.store.base import Author
from collab.store.records import text_checksum

_MOMENT = Struct("<q").pack


def room_checksum(name: str, epoch: str, created: int) -> int:
    """Of a room's row."""
    return text_checksum(created, name, epoch)


def room_key(name: str, epoch: str) -> int:
    """What begins the checksums of a room's records, so that none counts in another room."""
    return text_checksum(0, name, epoch)


def row_checksum(key: int, milliseconds: int, author: bytes, update: bytes) -> int:
    """Of an update in the log."""
    return crc32(update, crc32(author, crc32(_MOMENT(milliseconds), key)))


def checkpoint_checksum(
    key: int, position: int, milliseconds: int, snapshot: bytes
) -> int:
    """Of a checkpoint."""
    moment = crc32(_MOMENT(milliseconds), crc32(_MOMENT(position), key))
    return crc32(snapshot, moment)


def attribution_checksum(key: int, position: int, encoded: bytes) -> int:
    """Of an attribution."""
    return crc32(encoded, crc32(_MOMENT(position), key))


def owner_checksum(room: str, client: int, principal: str) -> int:
    """Of the row that says whose a client id is."""
    return text_checksum(client, room, principal)


def about_checksum(key: int, said: str) -> int:
    """Of what is said about a room: its metadata, its retention."""
    return crc32(said.encode(), key)


def encode_author(author: Author) -> bytes:
    """As JSON, where even a NUL is text that Postgres keeps. Raises ValueError for half a character.

    Without what is known about the author where that is nothing: so the version before reads it too.
    """
    try:
        return orjson.dumps([*author] if author.about else [*author[:3]])
    except TypeError as error:
        raise ValueError(str(error)) from None


def decode_author(encoded: str) -> Author:
    return Author(*orjson.loads(encoded))
