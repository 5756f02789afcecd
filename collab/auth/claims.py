"""What a token or a backend says of somebody, checked before it becomes a principal.

Whatever has another shape than it must makes the whole credential worthless: a claim that is passed over in silence
would be one that its issuer believes in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NoReturn, get_args

from collab.auth.permissions import Grant, Kind, operations_of
from collab.errors import ConfigurationError, InvalidMessage
from collab.names import principal_id, room_name, tenant_name

MAX_TEXT_BYTES = 256
MAX_SECONDS = 1e12
KINDS = get_args(Kind)

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Unfit(ValueError):
    """Why a credential is worth nothing: a constant phrase that holds nothing of it, fit for a log line."""


def parse(content: bytes) -> dict[str, Any]:
    """A JSON object that means the same to everybody: no name twice, no NaN, no half of a surrogate pair."""
    try:
        found = json.loads(
            content.decode(), object_pairs_hook=_once, parse_constant=_refuse
        )
        json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise Unfit("not JSON") from None
    if type(found) is not dict:
        raise Unfit("not an object")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name twice")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def text(claims: dict[str, Any], name: str) -> str:
    """A short text without control characters; "" when it is not there."""
    value = claims.get(name, "")
    if type(value) is not str:
        raise Unfit(f"{name} is not a text")
    if _CONTROL.search(value) or len(value.encode()) > MAX_TEXT_BYTES:
        raise Unfit(f"{name} is long or holds control characters")
    return value


def seconds(claims: dict[str, Any], name: str) -> float | None:
    """A time in seconds since 1970, None when it is not there."""
    if name not in claims:
        return None
    value = claims[name]
    # Not isinstance: True is an int. What is larger is in milliseconds, or in nothing that can be reckoned with.
    if type(value) in (int, float) and -MAX_SECONDS < value < MAX_SECONDS:
        return float(value)
    raise Unfit(f"{name} is not a time in seconds")


def person(claims: dict[str, Any], id_name: str) -> dict[str, Any]:
    """Who somebody is, as arguments of `Principal`.

    With `act` (RFC 8693) that is whoever acts, on behalf of the one whom the rest speaks of.
    """
    found = _person(claims, id_name, "human")
    tenant = text(claims, "tenant")
    if tenant:
        _named(tenant_name, tenant, "tenant")
    if "act" in claims:
        act = _table(claims, "act")
        found = {**_person(act, "sub", "agent"), "on_behalf_of": found["id"]}
    return {**found, "tenant": tenant, "role": text(claims, "role")}


def _person(claims: dict[str, Any], id_name: str, kind: str) -> dict[str, Any]:
    id, name = text(claims, id_name), text(claims, "name")
    if not id:
        raise Unfit(f"{id_name} is missing")
    _named(principal_id, id, id_name)
    kind = text(claims, "kind") or kind
    if kind not in KINDS:
        raise Unfit("kind is not one of ours")
    return {"id": id, "kind": kind, "name": name}


def operations(names: Any, claim: str) -> int:
    """The flags of a list of operations by name."""
    if type(names) is not list or not all(type(name) is str for name in names):
        raise Unfit(f"{claim} is not a list of operations")
    try:
        return operations_of(names)
    except ConfigurationError:
        raise Unfit(f"{claim} holds an operation that there is not") from None


def grants(claims: dict[str, Any]) -> tuple[Grant, ...]:
    """`rooms` by exact name and `prefixes` that end in a slash, or are empty for all rooms. A star is only a star."""
    found = []
    for name, names in _table(claims, "rooms").items():
        found.append(
            Grant(_named(room_name, name, "rooms"), operations(names, "rooms"))
        )
    for prefix, names in _table(claims, "prefixes").items():
        if prefix:
            if not prefix.endswith("/"):
                raise Unfit("prefixes holds one that does not end in a slash")
            _named(room_name, prefix, "prefixes")
        found.append(Grant(prefix, operations(names, "prefixes"), is_prefix=True))
    return tuple(found)


def _table(claims: dict[str, Any], name: str) -> dict[str, Any]:
    value = claims.get(name, {})
    if type(value) is not dict:
        raise Unfit(f"{name} is not an object")
    return value


def _named(rule: Callable[[str], str], name: str, claim: str) -> str:
    try:
        return rule(name)
    except InvalidMessage:
        raise Unfit(f"{claim} holds a name that is none") from None
