"""Verifiers in order, and what a principal may do now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from timeit import repeat

import pytest

from collab.auth.authority import MAX_TOKEN_CHARACTERS, Authority
from collab.auth.base import Credential
from collab.auth.failures import Failures
from collab.auth.permissions import (
    ANONYMOUS,
    EVERYTHING,
    HISTORY,
    READ,
    REWRITE,
    WRITE,
    Grant,
    Principal,
)
from collab.auth.registry import Registry
from collab.auth.shelves.memory import MemoryShelf
from collab.auth.tickets import Tickets
from collab.errors import Busy, RateLimited, Unauthenticated
from collab.metrics import Metrics

NOW = 1_000_000.0
ADA = Principal(
    "ada",
    grants=(Grant("notes", READ | WRITE), Grant("team/", READ, is_prefix=True)),
    expires=NOW + 60,
    token="jti-1",
)


class Knows:
    """A verifier of one token."""

    def __init__(self, token: str, answer: Principal | Exception) -> None:
        self.token, self.answer = token, answer

    async def verify(self, credential: Credential, room: str) -> Principal | None:
        if credential.token != self.token:
            return None
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry(MemoryShelf(), clock=lambda: NOW) as opened:
        yield opened


@pytest.fixture
def authority(registry: Registry) -> Authority:
    return Authority([Knows("ada", ADA)], registry, clock=lambda: NOW)


@pytest.mark.anyio
async def test_without_verifiers_everybody_may_do_all_but_rewrite_what_others_are_in() -> (
    None
):
    authority = Authority()

    principal = await authority.authenticate(Credential("whatever"))

    assert authority.is_open
    assert principal is ANONYMOUS
    assert authority.operations(principal, "r") == EVERYTHING & ~REWRITE


@pytest.mark.anyio
async def test_the_first_verifier_that_knows_the_kind_decides() -> None:
    first, second = Knows("a", Unauthenticated("no")), Knows("a", ADA)
    authority = Authority([first, second], clock=lambda: NOW)

    with pytest.raises(Unauthenticated):
        await authority.authenticate(Credential("a"))


@pytest.mark.anyio
async def test_what_no_verifier_knows_is_worth_nothing(authority: Authority) -> None:
    for token in ("", "bob", "x" * (MAX_TOKEN_CHARACTERS + 1)):
        with pytest.raises(Unauthenticated):
            await authority.authenticate(Credential(token))


@pytest.mark.anyio
async def test_a_backend_that_cannot_be_asked_is_not_a_refusal() -> None:
    authority = Authority([Knows("a", Busy("later"))])

    with pytest.raises(Busy):
        await authority.authenticate(Credential("a"))


@pytest.mark.parametrize("moment", [NOW + 60, NOW + 61])
@pytest.mark.anyio
async def test_a_credential_is_worth_nothing_from_its_end_on(moment: float) -> None:
    authority = Authority([Knows("ada", ADA)], clock=lambda: moment)

    with pytest.raises(Unauthenticated):
        await authority.authenticate(Credential("ada"))
    assert authority.operations(ADA, "notes") == 0


@pytest.mark.parametrize(
    ("room", "operations"),
    [
        ("notes", READ | WRITE),
        ("notes2", 0),
        ("note", 0),
        ("team/", READ),
        ("team/a", READ),
        ("team", 0),
        ("teams/a", 0),
        ("", 0),
    ],
)
def test_a_grant_is_for_a_room_exactly_or_for_a_declared_prefix(
    authority: Authority, room: str, operations: int
) -> None:
    assert authority.operations(ADA, room) == operations


def test_what_is_granted_here_adds_to_the_token(
    authority: Authority, registry: Registry
) -> None:
    registry.grant("ada", Grant("team/", WRITE, is_prefix=True))

    assert authority.operations(ADA, "team/a") == READ | WRITE
    assert authority.operations(replace(ADA, tenant="acme"), "team/a") == READ


def test_a_credential_for_one_room_or_to_read_only_is_widened_by_nothing(
    authority: Authority, registry: Registry
) -> None:
    registry.grant("ada", Grant("", EVERYTHING, is_prefix=True))

    assert authority.operations(replace(ADA, room="notes"), "team/a") == 0
    assert authority.operations(replace(ADA, room="notes"), "notes") == EVERYTHING
    assert authority.operations(replace(ADA, at_most=READ), "notes") == READ


def test_a_revocation_outdoes_every_grant(
    authority: Authority, registry: Registry
) -> None:
    registry.grant("ada", Grant("", EVERYTHING, is_prefix=True))

    registry.revoke_token("jti-1")

    assert authority.has_ended(ADA)
    assert authority.operations(ADA, "notes") == 0


def test_to_ask_costs_no_more_than_a_few_microseconds(
    authority: Authority, registry: Registry
) -> None:
    """A message costs less than that: it looks at flags that are there. `make bench` measures; this holds the kind."""
    for n in range(300):
        registry.grant(f"p{n}", Grant("r", HISTORY))
        registry.revoke_token(f"t{n}")

    best = min(repeat(lambda: authority.operations(ADA, "notes"), number=500)) / 500

    assert best < 20e-6


@pytest.mark.parametrize(
    ("prefix", "error"), [("tk_", Unauthenticated), ("ck_", RateLimited)]
)
@pytest.mark.anyio
async def test_used_tickets_lock_no_address_out_as_bad_tokens_do(
    prefix: str, error: type[Exception]
) -> None:
    failures = Failures(Metrics(), per_minute=3)
    authority = Authority([Knows("ada", ADA)], failures=failures, clock=lambda: NOW)
    shown = [Credential(token=f"{prefix}{n}", address="192.0.2.1") for n in range(4)]

    for credential in shown[:3]:
        with pytest.raises(Unauthenticated):
            await authority.authenticate(credential)

    with pytest.raises(error):
        await authority.authenticate(shown[3])


class Lends(Knows):
    """A backend that is asked again about whom it let in."""

    asked = ""

    def recheck(self, principal: Principal, room: str) -> Principal | None:
        self.asked = room
        return self.answer if isinstance(self.answer, Principal) else None

    def distrust(self, tenant: str, principal: str = "") -> None: ...


@pytest.mark.anyio
async def test_a_ticket_is_worth_what_the_backend_says_when_it_is_used() -> None:
    lent = replace(ADA, is_lent=True)
    tickets, backend = Tickets(clock=lambda: NOW), Lends("ada", lent)
    authority = Authority([tickets, backend], clock=lambda: NOW)
    first, _ = await tickets.issue(lent, "notes")
    second, _ = await tickets.issue(lent, "notes")
    reader = replace(lent, grants=(Grant("notes", READ),), room="notes")

    backend.answer = reader
    found = await authority.authenticate(Credential(first))
    backend.answer = Unauthenticated("no longer")
    with pytest.raises(Unauthenticated):
        await authority.authenticate(Credential(second))

    assert found == reader
    assert backend.asked == "notes"
