"""Tickets for oneself; keys, grants and revocations by an administrator of the tenant."""

from __future__ import annotations

from math import inf

from collab.auth.permissions import Grant, names_of, operations_of
from collab.auth.registry import KEY_PREFIX, Registry
from collab.errors import Conflict, PermissionDenied
from collab.names import SEPARATOR
from collab.server.api import models
from collab.server.api.dispatch import Call


async def ticket(call: Call) -> models.NewTicket:
    """What a page shows in the address of a socket in place of its token: good once, for a minute at most."""
    wanted: models.Ticket = call.body
    _expect_control(call)
    access, room = call.api.access, wanted.room or ""
    principal = call.principal
    if principal.is_lent and room not in ("", principal.room):
        # Whoever was asked about it answers for one room at a time.
        credential = access.credential(call.request)
        principal = await access.authority.authenticate(credential, room)
    token, expires = await access.tickets.issue(principal, room)
    call.record("ticket", for_room=room)
    operations = access.authority.operations(principal, room) if room else 0
    return models.NewTicket(
        ticket=token,
        expires_milliseconds=int(expires * 1000),
        operations=names_of(operations),
    )


async def list_keys(call: Call) -> models.Keys:
    """Of the tenant, without secrets; ended ones too, for a month."""
    return models.Keys(
        keys=[
            models.KeyInfo(**key.shown())
            for key in _registry(call).keys(call.principal.tenant)
        ]
    )


async def create_key(call: Call) -> models.MadeKey:
    """Its token is in this answer and nowhere else. It can be allowed no more than you are.

    Whoever it is for, and acts for, must have been granted no more either.
    """
    wanted: models.NewKey = call.body
    grants = tuple(_allowed(call, scope) for scope in wanted.grants)
    registry = _registry(call)
    # Who holds the key has the first one's too, and speaks in the name of the other.
    for who in filter(None, (wanted.principal, wanted.on_behalf_of)):
        for each in registry.grants(call.principal.tenant, who):
            _expect_own(call, each.grant)
    await call.audit(
        "key.create", subject=wanted.principal, on_behalf_of=wanted.on_behalf_of
    )
    key, token = await registry.change(
        registry.create_key,
        wanted.principal,
        grants,
        tenant=call.principal.tenant,
        kind=wanted.kind,
        name=wanted.name,
        role=wanted.role,
        on_behalf_of=wanted.on_behalf_of,
        seconds=wanted.seconds or inf,
    )
    return models.MadeKey(key=models.KeyInfo(**key.shown()), token=token)


async def revoke_key(call: Call) -> None:
    """Whoever is connected with it is disconnected within two seconds."""
    id = call.parameters["key"]
    await call.audit("key.revoke", key=id)
    registry = _registry(call)
    await registry.change(registry.revoke_key, id, tenant=call.principal.tenant)


async def list_grants(call: Call) -> models.Grants:
    """Those that were made here, beyond what the credentials themselves say."""
    query: models.GrantsQuery = call.query
    return models.Grants(
        grants=[
            models.GrantInfo(**each.shown())
            for each in _registry(call).grants(call.principal.tenant, query.principal)
        ]
    )


async def grant(call: Call) -> models.GrantInfo:
    """Takes effect at once, for who is connected too. In place of an earlier grant for the same room or prefix."""
    wanted: models.GrantInRoom | models.GrantUnderPrefix = call.body.root
    allowed = _allowed(call, wanted)
    await call.audit(
        "grant",
        subject=wanted.principal,
        to=allowed.room,
        is_prefix=allowed.is_prefix,
        operations=names_of(allowed.operations),
    )
    registry = _registry(call)
    made = await registry.change(
        registry.grant,
        wanted.principal,
        allowed,
        tenant=call.principal.tenant,
        seconds=wanted.seconds or inf,
    )
    return models.GrantInfo(**made.shown())


async def withdraw(call: Call) -> None:
    """Only what was granted here; what a token says ends with the token."""
    query: models.GrantQuery = call.query
    await call.audit(
        "ungrant", subject=query.principal, to=query.room, is_prefix=query.is_prefix
    )
    registry = _registry(call)
    await registry.change(
        registry.withdraw,
        query.principal,
        query.room,
        is_prefix=query.is_prefix,
        tenant=call.principal.tenant,
    )


async def revoke(call: Call) -> models.Revoked:
    """All credentials of a principal that were issued until now, or one; whoever is connected with it is disconnected."""
    wanted: models.OfPrincipal | models.OfToken = call.body.root
    registry, tenant = _registry(call), call.principal.tenant
    match wanted:
        case models.OfPrincipal(principal=principal):
            await call.audit("revoke", subject=principal)
            keys = await registry.change(registry.revoke, principal, tenant=tenant)
            return models.Revoked(keys=keys)
        case models.OfToken(token=token):
            await call.audit("revoke", token=token)
            await registry.change(registry.revoke_token, token, tenant=tenant)
            return models.Revoked(keys=int(token.startswith(KEY_PREFIX)))


async def recheck(call: Call) -> None:
    """Looks at once whether rights have changed: in the registry, and at your own backend for who is connected."""
    wanted: models.Recheck = call.body
    _expect_control(call)
    access = call.api.access
    await access.recheck(call.principal.tenant, wanted.principal or "")


def _registry(call: Call) -> Registry:
    """Raises Conflict where nothing in it would count."""
    _expect_control(call)
    return call.api.access.registry


def _expect_control(call: Call) -> None:
    if call.api.access.authority.is_open:
        raise Conflict(
            "there is no access control on this server: start it with --auth"
        )


def _allowed(call: Call, scope: models.Scope) -> Grant:
    """The grant that is meant. Raises PermissionDenied when it holds more than who makes it has."""
    operations = operations_of(scope.operations)
    if isinstance(scope, models.InRoom):
        return _expect_own(call, Grant(scope.room, operations))
    return _expect_own(call, Grant(scope.prefix, operations, is_prefix=True))


def _expect_own(call: Call, grant: Grant) -> Grant:
    # Of no room's name, so that only grants for all of the prefix count.
    probe = grant.room + SEPARATOR if grant.is_prefix else grant.room
    has = call.api.access.authority.operations(call.principal, probe)
    if has & grant.operations != grant.operations:
        lacking = " and ".join(names_of(grant.operations & ~has))
        raise PermissionDenied(
            f"nobody can grant more than it has: you lack the right to {lacking} there"
        )
    return grant
