"""What may be the name of a room, a tenant or a principal. Names are opaque: never a path, a pattern or a prefix."""

from __future__ import annotations

import re
import unicodedata

from collab.errors import InvalidRequest, InvalidRoomName

MAX_NAME_BYTES = 256
SEPARATOR = "\x1f"  # between tenant and room; neither can hold it
ANONYMOUS = (
    "anonymous"  # everybody without access control; with a colon and more, a connection
)

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def room_name(name: str) -> str:
    """The name, unchanged, or `InvalidRoomName` saying what is wrong with it.

    Nothing is folded silently: a name that is not in Unicode normal form C is refused rather than
    normalised, so two spellings can never mean one room to one client and two rooms to another.
    """
    # Clients leave both out of an address, in whatever way they are spelt, and would come with no name at all.
    unnamed = name in ("", ".", "..")
    fault = (
        "not be empty, . or .., which addresses cannot hold"
        if unnamed
        else _fault(name)
    )
    if fault:
        raise InvalidRoomName(f"a room name must {fault}")
    return name


def tenant_name(name: str) -> str:
    """The name of a tenant, which follows the same rules, or InvalidRequest."""
    fault = _fault(name)
    if fault:
        raise InvalidRequest(f"the name of a tenant must {fault}")
    return name


def principal_id(id: str) -> str:
    """The id of a principal, or InvalidRequest. Those of connections that nobody has authenticated are not free."""
    fault = _fault(id)
    if fault:
        raise InvalidRequest(f"the id of a principal must {fault}")
    if id.partition(":")[0] == ANONYMOUS:
        raise InvalidRequest(f"{ANONYMOUS} is nobody's id")
    return id


def shown_name(name: str) -> str:
    """What somebody is called before others, or InvalidRequest."""
    fault = _fault(name)
    if fault:
        raise InvalidRequest(f"a name must {fault}")
    return name


def role_name(role: str) -> str:
    """What somebody does here, to be shown to others, or InvalidRequest."""
    fault = _fault(role)
    if fault:
        raise InvalidRequest(f"a role must {fault}")
    return role


def _fault(name: str) -> str:
    if not name or name.isspace():
        return "not be empty or blank"
    if _CONTROL.search(name):
        return "not hold control characters"
    if len(name.encode()) > MAX_NAME_BYTES:
        return f"not be longer than {MAX_NAME_BYTES} bytes"
    if not unicodedata.is_normalized("NFC", name):
        return "be in Unicode normal form C"
    return ""


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


def spoken(key: str) -> str:
    """A room's key as a person reads it."""
    tenant, name = split_key(key)
    return f"{name} of tenant {tenant}" if tenant else name


def room_tag(key: str) -> str:
    """What the names of a room's keys in Redis have in common: its hash tag, which keeps them on one node of a Cluster.

    Tenant first, each part with its length before it: no two rooms share one. In hexadecimal, since a brace in a name
    would end the tag early.
    """
    tenant, name = (part.encode().hex() for part in split_key(key))
    return f"{{{len(tenant)}:{tenant}{len(name)}:{name}}}"


def key_of(cluster: str, key: str, what: str) -> str:
    """A key of a room in Redis, such as its log: `<cluster>:{<tag>}:<what>`."""
    return f"{cluster}:{room_tag(key)}:{what}"


def key_in_tag(tag: str) -> str | None:
    """Which room a hash tag was made for; None when it is not one of `room_tag`."""
    try:
        length, _, rest = tag.strip("{}").partition(":")
        tenant, name = rest[: int(length)], rest[int(length) :].partition(":")[2]
        parts = [bytes.fromhex(part).decode() for part in (tenant, name)]
    except ValueError:
        return None
    key = SEPARATOR.join(parts) if parts[0] else parts[1]
    return key if room_tag(key) == tag else None
