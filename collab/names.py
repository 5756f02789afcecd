"""What may be the name of a room. Names are opaque: never a path, a pattern or a prefix of anything."""

from __future__ import annotations

import re
import unicodedata

from collab.errors import InvalidRoomName

MAX_NAME_BYTES = 256
SEPARATOR = "\x1f"  # between tenant and room; neither can hold it

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def room_name(name: str) -> str:
    """The name, unchanged, or `InvalidRoomName` saying what is wrong with it.

    Nothing is folded silently: a name that is not in Unicode normal form C is refused rather than
    normalised, so two spellings can never mean one room to one client and two rooms to another.
    """
    if not name or name.isspace():
        raise InvalidRoomName("a room name must not be empty or blank")
    if _CONTROL.search(name):
        raise InvalidRoomName("a room name must not hold control characters")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise InvalidRoomName(
            f"a room name must not be longer than {MAX_NAME_BYTES} bytes"
        )
    if not unicodedata.is_normalized("NFC", name):
        raise InvalidRoomName("a room name must be in Unicode normal form C")
    return name


def room_key(tenant: str, name: str) -> str:
    """What a room is called inside the server: its name, behind its tenant when there is one.

    The tenant comes from a credential and never from an address, so no name leads into another tenant. Raises
    InvalidRoomName for either.
    """
    return (
        f"{room_name(tenant)}{SEPARATOR}{room_name(name)}"
        if tenant
        else room_name(name)
    )


def split_key(key: str) -> tuple[str, str]:
    """Tenant and name of a room's key."""
    tenant, _, name = key.rpartition(SEPARATOR)
    return tenant, name
