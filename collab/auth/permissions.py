"""Principals, what they may do in which room, and the operations there are.

A grant names one room exactly or, apart from that, a declared prefix that ends in a slash. There is no pattern
language: a room's name that comes from a stranger can never widen a grant.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntFlag
from math import inf
from typing import Literal, NamedTuple

from collab.errors import ConfigurationError
from collab.turns import About

Kind = Literal["human", "agent", "service"]


class Operation(IntFlag):
    """What can be allowed. Each is meant for one room, except that rooms are made, listed and deleted with `ADMIN`."""

    READ = 1  # the document and who is present
    WRITE = 2
    PRESENCE = 4  # to be seen
    HISTORY = 8  # what the log holds: updates by position, and who wrote them
    ADMIN = 16  # create, delete, restore, describe, disconnect, grant
    REWRITE = 32  # replace most of a document in one turn while others are in it


READ, WRITE, PRESENCE, HISTORY, ADMIN, REWRITE = (int(one) for one in Operation)
EVERYTHING = READ | WRITE | PRESENCE | HISTORY | ADMIN | REWRITE

_NAMES = {one.name.lower(): int(one) for one in Operation if one.name}


def operations_of(names: Iterable[str]) -> int:
    """The flags of operations by name; `*` is not one of them. Raises ConfigurationError for an unknown name."""
    found = 0
    for name in names:
        if name not in _NAMES:
            raise ConfigurationError(
                f"there is no operation {name!r}; there are {', '.join(_NAMES)}"
            )
        found |= _NAMES[name]
    return found


def names_of(operations: int) -> list[str]:
    """The names of the flags that are set, in a fixed order."""
    return [name for name, flag in _NAMES.items() if operations & flag]


class Grant(NamedTuple):
    """Operations in one room, or in every room whose name begins with a prefix that ends in a slash (or is empty)."""

    room: str
    operations: int
    is_prefix: bool = False


def allowed(grants: Iterable[Grant], room: str) -> int:
    """All that these grants allow in a room."""
    found = 0
    for name, operations, is_prefix in grants:
        if room.startswith(name) if is_prefix else room == name:
            found |= operations
    return found


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a request or connection speaks for, as its token, key or certificate says.

    `token` is the id of that credential (`jti`, key id, certificate serial): what a revocation can name.
    """

    id: str
    tenant: str = ""
    kind: Kind = "human"
    name: str = ""  # to be shown to others
    grants: tuple[Grant, ...] = ()
    expires: float = inf  # seconds since 1970
    token: str = ""
    issued: float = 0.0  # seconds since 1970: a revocation of the principal ends what is older; 0 is not known
    room: str = ""  # the only room it is good for, when there is one
    at_most: int = EVERYTHING  # of whatever is granted to it
    is_lent: bool = False  # its verifier must be asked again, see `Rechecker`
    role: str = ""  # coordinator, executor, monitor, or what a team calls it
    on_behalf_of: str = ""  # the principal that it acts for

    @property
    def stamp(self) -> dict[str, str] | None:
        """The `user` of its presence, whatever it says itself; None without access control, when nobody is known."""
        if self is ANONYMOUS:
            return None
        stamp = {"id": self.id, "name": self.name or self.id, "kind": self.kind}
        if self.role:
            stamp["role"] = self.role
        if self.on_behalf_of:
            stamp["on_behalf_of"] = self.on_behalf_of
        return stamp

    @property
    def about(self) -> About:
        """What stands beside each of its edits; nothing without access control."""
        if self is ANONYMOUS:
            return About()
        return About(
            name=self.name,
            kind=self.kind,
            on_behalf_of=self.on_behalf_of,
            role=self.role,
        )

    def operations(self, room: str) -> int:
        """What its own grants allow in a room of its tenant."""
        return allowed(self.grants, room)


# Without access control everybody is this, and only this machine can connect. Nobody has given anybody the right to
# replace what others are working on.
ANONYMOUS = Principal(
    "anonymous", grants=(Grant("", EVERYTHING & ~REWRITE, is_prefix=True),)
)
