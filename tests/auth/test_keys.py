"""API keys as credentials."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from collab.auth.authority import Authority
from collab.auth.base import Credential
from collab.auth.keys import Keys
from collab.auth.permissions import READ, WRITE, Grant
from collab.auth.registry import Registry
from collab.auth.shelves.memory import MemoryShelf
from collab.errors import Busy, StoreUnavailable, Unauthenticated

NOTES = Grant("notes", READ | WRITE)


class Clock:
    """Stands still until it is told."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry(clock: Clock) -> Iterator[Registry]:
    with Registry(MemoryShelf(), clock=clock) as opened:
        yield opened


@pytest.fixture
def authority(registry: Registry, clock: Clock) -> Authority:
    return Authority([Keys(registry)], registry, clock=clock)


@pytest.mark.anyio
async def test_a_key_lets_its_principal_in_where_it_is_for(
    registry: Registry, authority: Authority
) -> None:
    _, token = registry.create_key("ci", (NOTES,), tenant="acme", name="Build")

    principal = await authority.authenticate(Credential(token))

    assert (principal.id, principal.tenant) == ("ci", "acme")
    assert principal.stamp == {"id": "ci", "name": "Build", "kind": "service"}
    assert authority.operations(principal, "notes") == READ | WRITE
    assert authority.operations(principal, "other") == 0


@pytest.mark.parametrize("token", ["", "a.b.c", "tk_secret", "CK_1.2", "Bearer"])
@pytest.mark.anyio
async def test_what_is_no_key_is_left_to_other_verifiers(
    registry: Registry, token: str
) -> None:
    assert await Keys(registry).verify(Credential(token), "") is None


@pytest.mark.parametrize(
    "token",
    [
        "ck_",
        "ck_.",
        "ck_0000000000000000." + "x" * 43,
        "ck_\x00.\x00",
        "ck_..",
        "ck_é.é",
    ],
)
@pytest.mark.anyio
async def test_a_key_that_nobody_made_is_refused(
    registry: Registry, token: str
) -> None:
    with pytest.raises(Unauthenticated) as refused:
        await Keys(registry).verify(Credential(token), "")

    assert token not in str(refused.value)


@pytest.mark.anyio
async def test_a_wrong_secret_is_answered_as_an_unknown_id_is(
    registry: Registry,
) -> None:
    key, _ = registry.create_key("ci", (NOTES,))

    with pytest.raises(Unauthenticated) as wrong:
        await Keys(registry).verify(Credential(f"{key.id}.{'x' * 43}"), "")
    with pytest.raises(Unauthenticated) as unknown:
        await Keys(registry).verify(Credential(f"ck_{'0' * 16}.{'x' * 43}"), "")

    assert str(wrong.value) == str(unknown.value)


@pytest.mark.anyio
async def test_an_expired_or_revoked_key_lets_nobody_in(
    registry: Registry, authority: Authority, clock: Clock
) -> None:
    _, expired = registry.create_key("ci", (NOTES,), seconds=10)
    key, revoked = registry.create_key("ci", (NOTES,))
    registry.revoke_key(key.id)
    clock.now += 11

    for token in (expired, revoked):
        with pytest.raises(Unauthenticated):
            await authority.authenticate(Credential(token))


@pytest.mark.anyio
async def test_what_was_let_in_ends_with_its_key(
    registry: Registry, authority: Authority, clock: Clock
) -> None:
    key, token = registry.create_key("ci", (NOTES,))
    principal = await authority.authenticate(Credential(token))

    registry.rotate_key(key.id, overlap_seconds=60)
    during = authority.operations(principal, "notes")
    clock.now += 61

    assert during == READ | WRITE
    assert authority.operations(principal, "notes") == 0
    assert authority.has_ended(principal)


@pytest.mark.anyio
async def test_who_comes_while_keys_cannot_be_looked_up_is_not_told_where_they_are() -> (
    None
):
    class Away(MemoryShelf):
        is_away = False

        def version(self) -> str:
            if self.is_away:
                raise StoreUnavailable("Postgres: no answer from db.internal")
            return super().version()

    shelf = Away()
    async with Registry(shelf) as registry:
        _, known = await registry.change(registry.create_key, "ci", (NOTES,))
        authority = Authority([Keys(registry)], registry)
        shelf.is_away = True

        principal = await authority.authenticate(Credential(known))
        with pytest.raises(Busy) as caught:
            await authority.authenticate(Credential("ck_0123456789abcdef.x"))

    assert principal.id == "ci"
    assert "internal" not in str(caught.value)
