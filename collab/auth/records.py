"""What the registry knows: keys, grants, revocations; what is made of them in memory, and what a change does to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, NamedTuple

from collab.auth.permissions import Grant, Kind, Principal, names_of
from collab.errors import Conflict, InvalidRequest, NothingHere
from collab.names import SEPARATOR, room_name

ANY_TENANT = SEPARATOR  # no tenant can be called that
MAX_KEYS, MAX_GRANTS, MAX_REVOCATIONS = 5_000, 20_000, 20_000
ENDED_SECONDS = 30 * 86400.0  # that a key is still listed after its end
TENANT_SHARE = 4  # one tenant has a quarter of these at most: its administrators use up nobody else's


@dataclass(frozen=True, slots=True)
class Key:
    """An API key without its secret."""

    id: str
    principal: str
    tenant: str = ""
    kind: Kind = "service"
    name: str = ""
    grants: tuple[Grant, ...] = ()
    created: float = 0.0
    expires: float = inf
    revoked: float = inf
    replaced_by: str = ""
    hash: bytes = field(default=b"", repr=False)
    role: str = ""
    on_behalf_of: str = ""  # the principal that its holder acts for, of the same tenant

    @property
    def ends(self) -> float:
        """From when on it is good for nothing."""
        return min(self.expires, self.revoked)

    def shown(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "id": self.id,
            "principal": self.principal,
            "tenant": self.tenant,
            "kind": self.kind,
            "name": self.name,
            "role": self.role,
            "on_behalf_of": self.on_behalf_of,
            "grants": [shown_grant(grant) for grant in self.grants],
            "created": self.created,
            "expires": None if self.expires == inf else self.expires,
            "revoked": None if self.revoked == inf else self.revoked,
            "replaced_by": self.replaced_by or None,
        }


class Granted(NamedTuple):
    """A grant that was made here."""

    tenant: str
    principal: str
    grant: Grant
    created: float
    expires: float

    def shown(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "tenant": self.tenant,
            "principal": self.principal,
            **shown_grant(self.grant),
            "created": self.created,
            "expires": None if self.expires == inf else self.expires,
        }


class Revocation(NamedTuple):
    """All credentials of a principal that were issued until then, or one token, ended before their time."""

    tenant: str
    kind: str
    subject: str
    made: float
    expires: float  # when it is forgotten

    def shown(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "tenant": None if self.tenant == ANY_TENANT else self.tenant,
            self.kind: self.subject,
            "made": self.made,
            "expires": self.expires,
        }


Record = Key | Granted | Revocation
Name = tuple[str | bool, ...]


def name_of(record: Record) -> Name:
    """What a record is called on a shelf; another one of this name takes its place."""
    match record:
        case Key():
            return "key", record.id
        case Granted(tenant, principal, grant):
            return "grant", tenant, principal, grant.room, grant.is_prefix
        case Revocation(tenant, kind, subject):
            return "revocation", tenant, kind, subject


def shown_grant(grant: Grant) -> dict[str, Any]:
    """A grant as JSON: an exact room, or a prefix."""
    return {
        "prefix" if grant.is_prefix else "room": grant.room,
        "operations": names_of(grant.operations),
    }


def checked(grant: Grant) -> Grant:
    """The grant, when it can be meant. Raises InvalidRoomName or InvalidRequest."""
    if grant.is_prefix:
        if grant.room and not grant.room.endswith("/"):
            raise InvalidRequest(
                "a prefix ends in a slash, or is empty and means every room"
            )
        if grant.room:
            room_name(grant.room)
    else:
        room_name(grant.room)
    if not grant.operations:
        raise InvalidRequest("a grant names at least one operation")
    return grant


@dataclass(frozen=True, slots=True)
class State:
    """What the shelf held when it was last read; never changed, only replaced."""

    keys: dict[str, Key] = field(default_factory=dict)
    holders: dict[str, Principal] = field(default_factory=dict)
    ends: dict[str, float] = field(default_factory=dict)  # of keys, by token id
    granted: dict[tuple[str, str], tuple[Grant, ...]] = field(default_factory=dict)
    grants: tuple[Granted, ...] = ()
    revocations: tuple[Revocation, ...] = ()
    principals: dict[tuple[str, str], float] = field(default_factory=dict)
    tokens: frozenset[tuple[str, str]] = frozenset()
    marked: frozenset[str] = frozenset()  # token ids of which there is anything to say
    next_end: float = inf  # when the next key, grant or revocation ends


def state_of(records: Iterable[Record], now: float) -> State:
    """All that holds now."""
    keys: list[Key] = []
    grants: list[Granted] = []
    revocations: list[Revocation] = []
    for record in records:
        match record:
            case Key():
                keys.append(record)
            case Granted() if record.expires > now:
                grants.append(record)
            case Revocation() if record.expires > now:
                revocations.append(record)
    granted: dict[tuple[str, str], list[Grant]] = {}
    for each in grants:
        granted.setdefault((each.tenant, each.principal), []).append(each.grant)
    ends = {key.id: key.ends for key in keys if key.ends != inf}
    moments = (
        *ends.values(),
        *(each.expires for each in grants),
        *(each.expires for each in revocations),
    )
    tokens = frozenset(
        (each.tenant, each.subject) for each in revocations if each.kind == "token"
    )
    return State(
        keys={key.id: key for key in keys},
        holders={key.id: _principal(key) for key in keys},
        ends=ends,
        granted={who: tuple(found) for who, found in granted.items()},
        grants=tuple(grants),
        revocations=tuple(revocations),
        principals={
            (each.tenant, each.subject): each.made
            for each in revocations
            if each.kind == "principal"
        },
        tokens=tokens,
        marked=frozenset((*ends, *(token for _, token in tokens))),
        next_end=min((moment for moment in moments if moment > now), default=inf),
    )


def _principal(key: Key) -> Principal:
    return Principal(
        key.principal,
        key.tenant,
        key.kind,
        key.name,
        key.grants,
        expires=key.expires,
        token=key.id,
        issued=key.created,
        role=key.role,
        on_behalf_of=key.on_behalf_of,
    )


class Draft:
    """A change while it is made: what there was, and what is to be put and dropped."""

    def __init__(self, records: Mapping[Name, Record]) -> None:
        self._before = records
        self.records = dict(records)
        self._changed: dict[Name, Record] = {}

    @property
    def put(self) -> list[Record]:
        return [each for name, each in self._changed.items() if name in self.records]

    @property
    def dropped(self) -> list[Record]:
        return [
            each for name, each in self._changed.items() if name not in self.records
        ]

    def add(self, record: Record) -> None:
        """In place of one of the same name."""
        name = name_of(record)
        self.records[name] = self._changed[name] = record

    def drop(self, record: Record) -> None:
        name = name_of(record)
        self._changed[name] = self.records.pop(name)

    def key(self, id: str, tenant: str | None) -> Key:
        """A key by its id. Raises NothingHere, also for a key of another tenant."""
        found = self.records.get(("key", id))
        if isinstance(found, Key) and tenant in (None, found.tenant):
            return found
        raise NothingHere("there is no such key")

    def keys_of(self, tenant: str, principal: str) -> list[Key]:
        """Those that end with the principal: its own, and those of who acts for it."""
        return [
            each
            for each in self.records.values()
            if isinstance(each, Key)
            and each.tenant == tenant
            and principal in (each.principal, each.on_behalf_of)
        ]

    def revocation(self, tenant: str, kind: str, subject: str) -> Revocation:
        """Raises NothingHere."""
        found = self.records.get(("revocation", tenant, kind, subject))
        if isinstance(found, Revocation):
            return found
        raise NothingHere("there is no such revocation, or it is forgotten")

    def forget(self, now: float) -> None:
        """Drop what is long over."""
        for record in list(self.records.values()):
            kept = ENDED_SECONDS if isinstance(record, Key) else 0.0
            end = record.ends if isinstance(record, Key) else record.expires
            if end + kept <= now:
                self.drop(record)

    def expect_room(self) -> None:
        """Raises Conflict when what is new makes it too many, of all or of a tenant."""
        limits = {Key: MAX_KEYS, Granted: MAX_GRANTS, Revocation: MAX_REVOCATIONS}
        for added in self.put:
            if name_of(added) in self._before:
                continue
            kind = type(added)
            alike = [each for each in self.records.values() if type(each) is kind]
            limit, own = limits[kind], added.tenant
            count = sum(each.tenant == own for each in alike)
            if own not in ("", ANY_TENANT) and count > limit // TENANT_SHARE:
                raise Conflict(
                    f"this tenant has {count - 1} of these already; remove some first"
                )
            if len(alike) > limit:
                raise Conflict(f"there are {limit} of these already; remove some first")
