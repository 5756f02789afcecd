"""Records as JSON, for shelves that others can write to as well: what comes back is looked at like a stranger's."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from dataclasses import asdict
from math import inf
from typing import Any

import orjson

from collab.auth.permissions import EVERYTHING, Grant
from collab.auth.records import (
    ANY_TENANT,
    Granted,
    Key,
    Record,
    Revocation,
    checked,
    name_of,
)
from collab.errors import CollabError, StoreCorrupt
from collab.names import principal_id, role_name, tenant_name

_HASH_BYTES = 32
# What a key is called that says a role or for whom its holder acts. Processes of before pass such records over: they let
# nobody in of whom they cannot say it, and take it off no key by writing it anew.
_ACTING = "acting key"
_MAX_TEXT = 256


def next_version(version: str) -> str:
    """A number that grows, and something by which two of the same number differ: a shelf may go back in time."""
    number = int(version.partition("-")[0] or 0) + 1
    return f"{number}-{secrets.token_hex(4)}"


def encode_name(record: Record) -> bytes:
    """What a record is called on the shelf, whatever its names hold."""
    name = name_of(record)
    if isinstance(record, Key) and (record.role or record.on_behalf_of):
        name = (_ACTING, *name[1:])
    return orjson.dumps(name)


def encode(record: Record) -> bytes:
    """Without end is null, as JSON has it."""
    match record:
        case Key():
            fields = {
                **asdict(record),
                "grants": [list(grant) for grant in record.grants],
                "hash": record.hash.hex(),
            }
            return orjson.dumps(fields)
        case Granted(tenant, principal, grant, created, expires):
            return orjson.dumps(
                {
                    "tenant": tenant,
                    "principal": principal,
                    "grant": list(grant),
                    "created": created,
                    "expires": expires,
                }
            )
        case Revocation():
            return orjson.dumps(record._asdict())


class Decoder:
    """Decodes all records again and again, of which few have changed."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[bytes, Record | None]] = {}

    def decode(self, found: Iterable[tuple[bytes, bytes]]) -> list[Record]:
        """All of these. Raises StoreCorrupt."""
        known = self._known
        self._known = {}
        for name, body in found:
            same = known.get(name)
            if same is None or same[0] != body:
                same = body, decode(name, body)
            self._known[name] = same
        return [record for _, record in self._known.values() if record is not None]


def decode(name: bytes, record: bytes) -> Record | None:
    """The record, or None for a kind that only newer versions know. Raises StoreCorrupt."""
    try:
        parts = orjson.loads(name)
        if parts[0] not in ("key", _ACTING, "grant", "revocation"):
            return None
        kind = "key" if parts[0] == _ACTING else parts[0]
        found = _decoded(kind, orjson.loads(record))
        if encode_name(found) != name:
            raise ValueError
    except (ValueError, TypeError, LookupError, AttributeError, CollabError):
        # What stands there is not repeated.
        raise StoreCorrupt(
            "a key, grant or revocation in the store was not written by this program"
        ) from None
    return found


def _decoded(kind: str, said: dict[str, Any]) -> Record:
    match kind:
        case "key":
            return Key(
                id=_text(said["id"]),
                principal=principal_id(_text(said["principal"])),
                tenant=_tenant(said["tenant"]),
                kind=_one_of(said["kind"], "human", "agent", "service"),
                name=_text(said["name"]),
                grants=tuple(_grant(each) for each in said["grants"]),
                created=_moment(said["created"]),
                expires=_moment(said["expires"]),
                revoked=_moment(said["revoked"]),
                replaced_by=_text(said["replaced_by"]),
                hash=_hash(said["hash"]),
                # Neither is in a key of before.
                role=_named(role_name, said.get("role", "")),
                on_behalf_of=_named(principal_id, said.get("on_behalf_of", "")),
            )
        case "grant":
            return Granted(
                _tenant(said["tenant"]),
                principal_id(_text(said["principal"])),
                _grant(said["grant"]),
                _moment(said["created"]),
                _moment(said["expires"]),
            )
        case _:
            tenant = said["tenant"]
            return Revocation(
                ANY_TENANT if tenant == ANY_TENANT else _tenant(tenant),
                _one_of(said["kind"], "principal", "token"),
                _text(said["subject"]),
                _moment(said["made"]),
                _moment(said["expires"]),
            )


def _text(said: Any) -> str:
    if not isinstance(said, str) or len(said) > _MAX_TEXT:
        raise ValueError
    return said


def _named(rule: Callable[[str], str], said: Any) -> str:
    text = _text(said)
    return text and rule(text)


def _tenant(said: Any) -> str:
    return _named(tenant_name, said)


def _one_of(said: Any, *words: str) -> Any:
    if said not in words:
        raise ValueError
    return said


def _moment(said: Any) -> float:
    if said is None:
        return inf
    if type(said) not in (int, float):
        raise ValueError
    return float(said)


def _hash(said: Any) -> bytes:
    found = bytes.fromhex(said)
    if len(found) != _HASH_BYTES:
        raise ValueError
    return found


def _grant(said: Any) -> Grant:
    room, operations, is_prefix = said
    if type(operations) is not int or type(is_prefix) is not bool:
        raise ValueError
    if operations & ~EVERYTHING:
        raise ValueError
    return checked(Grant(_text(room), operations, is_prefix))
