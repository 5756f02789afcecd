"""Commands for API keys, grants and revocations. They work beside a running server, which knows within two seconds."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from collab.auth.permissions import Grant, operations_of
from collab.auth.records import checked
from collab.commands.base import AsJson, command, existing, group, show_json
from collab.commands.flags import located
from collab.errors import ConfigurationError
from collab.settings import Settings

if TYPE_CHECKING:
    from collab.auth.records import Key
    from collab.auth.registry import Registry

DAY = 86_400.0
WIDTH = 80  # of a terminal

key = group("key", "API keys: for programs that have no login.")
grant = group("grant", "Rights that were given here, beyond what a token says.")

Tenant = Annotated[str, typer.Option(help="The tenant it is about.")]
AnyTenant = Annotated[
    str | None, typer.Option(help="Only of this tenant; all when it is not said.")
]
Rooms = Annotated[
    list[str] | None,
    typer.Option(
        "--room", help="NAME=OPERATIONS, such as notes=read,write. May be repeated."
    ),
]
Prefixes = Annotated[
    list[str] | None,
    typer.Option(
        "--prefix",
        help="Likewise for all rooms that begin with a prefix: team-a/=read, or =read for every room.",
    ),
]
KeyId = Annotated[str, typer.Argument(metavar="ID", help="As `key list` shows it.")]


def _registry(where: Settings, *, is_new: bool = False) -> Registry:
    from collab.auth.registry import Registry
    from collab.server.shelves import make_shelf

    match where.store_kind:
        case "memory":
            raise ConfigurationError(
                "with store memory only the server itself knows its keys and grants: change them over /v1"
            )
        case "sqlite":
            if is_new:
                _make(where.data)
            existing(where.data)
    return Registry(make_shelf(where))


def _make(data: Path) -> None:
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot make {data}: {error.strerror}") from None


def _audit(where: Settings, event: str, tenant: str = "", **details: Any) -> None:
    """Written before it is done, on the machine where it is said; access control without an audit log begins one."""
    from collab.audit.chain import note

    note(where.data, event, tenant=tenant, is_first=True, **details)


def _grants(rooms: list[str] | None, prefixes: list[str] | None) -> tuple[Grant, ...]:
    found = [
        _grant(said, is_prefix=is_prefix)
        for is_prefix, all_said in ((False, rooms), (True, prefixes))
        for said in all_said or ()
    ]
    if not found:
        raise ConfigurationError(
            "say what it may do, with --room notes=read,write or --prefix team-a/=read"
        )
    return tuple(found)


def _grant(said: str, *, is_prefix: bool) -> Grant:
    name, equals, operations = said.rpartition("=")
    if not equals:
        raise ConfigurationError(
            f"{said} does not say what may be done: write {said}=read,write"
        )
    flags = operations_of(one.strip() for one in operations.split(",") if one.strip())
    return checked(Grant(name, flags, is_prefix))


def _seconds(days: float) -> float:
    if not days >= 0:
        raise ConfigurationError("days are counted from now on, so not below 0")
    return days * DAY if days else inf


@key.command("create")
@located
def create_key(
    principal: Annotated[
        str, typer.Option(help="Who acts with it: its author in logs and documents.")
    ],
    room: Rooms = None,
    prefix: Prefixes = None,
    tenant: Tenant = "",
    kind: Annotated[
        Literal["human", "agent", "service"], typer.Option(help="What it is.")
    ] = "service",
    name: Annotated[str, typer.Option(help="To be shown to others.")] = "",
    role: Annotated[
        str,
        typer.Option(
            help="What it does, to be shown: coordinator, executor, monitor, or your own word."
        ),
    ] = "",
    on_behalf_of: Annotated[
        str,
        typer.Option(
            metavar="PRINCIPAL",
            help="For whom it acts: who may take back what it did, and with whom it ends.",
        ),
    ] = "",
    days: Annotated[
        float, typer.Option(help="How long it is good for; 0 is without end.")
    ] = 365.0,
    json: AsJson = False,
    *,
    where: Settings,
) -> None:
    """Make an API key. It is shown this once: only its hash is kept."""
    grants = _grants(room, prefix)
    seconds = _seconds(days)
    with _registry(where, is_new=True) as registry:
        _audit(
            *(where, "key.create", tenant),
            subject=principal,
            on_behalf_of=on_behalf_of,
            may=list(map(_may, grants)),
        )
        made, token = registry.create_key(
            principal,
            grants,
            tenant=tenant,
            kind=kind,
            name=name,
            role=role,
            on_behalf_of=on_behalf_of,
            seconds=seconds,
        )
    _show_new(made, token, json=json)


@key.command("rotate")
@located
def rotate_key(
    id: KeyId,
    overlap_hours: Annotated[
        float, typer.Option(min=0, help="How long the old key is good beside the new.")
    ] = 24.0,
    json: AsJson = False,
    *,
    where: Settings,
) -> None:
    """Make a key in place of another; for a while both are good."""
    with _registry(where) as registry:
        _audit(where, "key.rotate", key=id)
        made, token = registry.rotate_key(id, overlap_seconds=overlap_hours * 3600)
    _show_new(made, token, json=json)


def _show_new(made: Key, token: str, *, json: bool) -> None:
    if json:
        show_json({**made.shown(), "key": token})
        return
    typer.echo(token)
    typer.echo(f"expires {_moment(made.expires)}; it is not shown again", err=True)


@key.command("list")
@located
def list_keys(
    tenant: AnyTenant = None, json: AsJson = False, *, where: Settings
) -> None:
    """Show all keys, without their secrets; ended ones for a month."""
    with _registry(where) as registry:
        keys = registry.keys(tenant)
    if json:
        show_json([each.shown() for each in keys])
        return
    for each in keys:
        typer.echo(_block(each.id, (_who(each), _may_all(each), _until(each))))


def _block(head: str, lines: Iterable[str]) -> str:
    """What there is to say of one thing, beside its name and no wider than a terminal; a long name is not broken."""
    indent = " " * (len(head) + 2)
    wrapped = [
        fill(
            line,
            WIDTH,
            initial_indent=indent,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in lines
    ]
    return head + "\n".join(wrapped)[len(head) :]


def _who(each: Key) -> str:
    called = f" ({each.name})" if each.name else ""
    tenant = f" of tenant {each.tenant}" if each.tenant else ""
    behalf = f"on behalf of {each.on_behalf_of}" if each.on_behalf_of else ""
    said = each.principal + called + tenant, each.kind, each.role, behalf
    return ", ".join(filter(None, said))


def _may_all(each: Key) -> str:
    return f"may {'; '.join(map(_may, each.grants)) or 'nothing'}"


def _until(each: Key) -> str:
    if each.revoked != inf:
        return f"revoked {_moment(each.revoked)}"
    ends = "without end" if each.expires == inf else f"until {_moment(each.expires)}"
    return ends + (f", replaced by {each.replaced_by}" if each.replaced_by else "")


@key.command("revoke")
@located
def revoke_key(id: KeyId, json: AsJson = False, *, where: Settings) -> None:
    """End a key now, and whoever is connected with it."""
    with _registry(where) as registry:
        _audit(where, "key.revoke", key=id)
        ended = registry.revoke_key(id)
    if json:
        show_json(ended.shown())
    else:
        typer.echo(f"{ended.id} is revoked")


@grant.command("add")
@located
def add_grant(
    principal: str,
    room: Rooms = None,
    prefix: Prefixes = None,
    tenant: Tenant = "",
    days: Annotated[
        float, typer.Option(help="How long it holds; 0 is without end.")
    ] = 0.0,
    json: AsJson = False,
    *,
    where: Settings,
) -> None:
    """Allow a principal more than its token says, in place of an earlier grant for the same room."""
    grants, seconds = _grants(room, prefix), _seconds(days)
    with _registry(where, is_new=True) as registry:
        _audit(where, "grant", tenant, subject=principal, may=list(map(_may, grants)))
        made = [
            registry.grant(principal, each, tenant=tenant, seconds=seconds)
            for each in grants
        ]
    if json:
        show_json([each.shown() for each in made])
        return
    for each in made:
        typer.echo(f"{principal} may: {_may(each.grant)}")


@grant.command("list")
@located
def list_grants(
    principal: Annotated[
        str | None, typer.Option(help="Only of this principal.")
    ] = None,
    tenant: AnyTenant = None,
    json: AsJson = False,
    *,
    where: Settings,
) -> None:
    """Show what was granted here; tokens may allow more."""
    with _registry(where) as registry:
        grants = registry.grants(tenant, principal)
    if json:
        show_json([each.shown() for each in grants])
        return
    _table(
        ("tenant", "principal", "may", "until"),
        (
            (each.tenant, each.principal, _may(each.grant), _moment(each.expires))
            for each in grants
        ),
    )


@grant.command("remove")
@located
def remove_grant(
    principal: str,
    room: Annotated[
        str | None, typer.Option(help="The room it is for, exactly.")
    ] = None,
    prefix: Annotated[str | None, typer.Option(help="Or the prefix.")] = None,
    tenant: Tenant = "",
    *,
    where: Settings,
) -> None:
    """Take a grant back. What a token says itself only `collab revoke` ends."""
    name = prefix if room is None else room
    if name is None or (room is not None and prefix is not None):
        raise ConfigurationError("say which grant, with either --room or --prefix")
    with _registry(where) as registry:
        _audit(
            where, "ungrant", tenant, subject=principal, to=name, is_prefix=room is None
        )
        registry.withdraw(principal, name, is_prefix=room is None, tenant=tenant)
    typer.echo(f"{principal} has it no longer")


@command("revoke")
@located
def revoke(
    principal: Annotated[
        str, typer.Argument(help="All credentials it has until now.")
    ] = "",
    token: Annotated[
        str,
        typer.Option(
            help="Or one credential: a jti, a key's id, a certificate's serial number."
        ),
    ] = "",
    tenant: Annotated[
        str | None,
        typer.Option(
            help="The tenant of the principal; of a token only if it is said."
        ),
    ] = None,
    days: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="How long to remember it: a day is longer than any token lives, a certificate may live longer. "
            "0 is a day and an hour, for clocks that differ.",
        ),
    ] = 0.0,
    undo: Annotated[bool, typer.Option("--undo", help="Take it back.")] = False,
    shown: Annotated[
        bool, typer.Option("--list", help="Show what is revoked now, and until when.")
    ] = False,
    json: AsJson = False,
    *,
    where: Settings,
) -> None:
    """End what somebody may do at once: sockets close within two seconds. What is issued later is valid again."""
    if shown:
        _show_revocations(tenant, where, json=json)
        return
    from collab.auth.registry import REVOCATION_SECONDS

    if bool(principal) == bool(token):
        raise ConfigurationError("say whom: either PRINCIPAL or --token ID")
    seconds = days * DAY if days else REVOCATION_SECONDS
    with _registry(where) as registry:
        event = "unrevoke" if undo else "revoke"
        _audit(where, event, tenant or "", subject=principal, token=token)
        if token:
            keys = _revoke_token(registry, token, tenant, seconds, undo=undo)
        else:
            keys = _revoke_principal(
                registry, principal, tenant or "", seconds, undo=undo
            )
    done = "restored" if undo else "revoked"
    if json:
        subject = {"principal": principal} if principal else {"token": token}
        show_json({**subject, "tenant": tenant, done: True, "keys": keys})
        return
    with_keys = f", with {keys} API keys" if keys else ""
    typer.echo(f"{principal or 'the token'} is {done}{with_keys}")


def _show_revocations(tenant: str | None, where: Settings, *, json: bool) -> None:
    with _registry(where) as registry:
        found = registry.revocations(tenant)
    if json:
        show_json([each.shown() for each in found])
        return
    _table(
        ("tenant", "what", "id", "since", "remembered until"),
        (
            (
                each.shown()["tenant"] or "",
                each.kind,
                each.subject,
                _moment(each.made),
                _moment(each.expires),
            )
            for each in found
        ),
    )


def _revoke_token(
    registry: Registry, token: str, tenant: str | None, seconds: float, *, undo: bool
) -> int:
    from collab.auth.records import ANY_TENANT

    where = ANY_TENANT if tenant is None else tenant
    if undo:
        registry.restore_token(token, tenant=where)
    else:
        registry.revoke_token(token, tenant=where, seconds=seconds)
    return 0


def _revoke_principal(
    registry: Registry, principal: str, tenant: str, seconds: float, *, undo: bool
) -> int:
    if undo:
        return registry.restore(principal, tenant=tenant)
    return registry.revoke(principal, tenant=tenant, seconds=seconds)


def _may(granted: Grant) -> str:
    from collab.auth.permissions import names_of

    where = granted.room
    if granted.is_prefix:
        where = f"{where}…" if where else "every room"
    return f"{where} {','.join(names_of(granted.operations))}"


def _moment(seconds: float) -> str:
    if seconds == inf:
        return "never"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        typer.echo(
            "  ".join(
                text.ljust(width) for text, width in zip(line, widths, strict=True)
            ).rstrip()
        )
