"""Tickets: good once, for a minute, for no more than what they were made with."""

from __future__ import annotations

import pytest

from collab.auth import tickets as module
from collab.auth.authority import Authority
from collab.auth.base import Credential
from collab.auth.permissions import READ, WRITE, Grant, Principal
from collab.auth.registry import Registry
from collab.auth.shelves.memory import MemoryShelf
from collab.auth.tickets import TICKET_SECONDS, Tickets
from collab.errors import PermissionDenied, RateLimited, Unauthenticated

EVERYWHERE = (Grant("", READ | WRITE, is_prefix=True),)
ADA = Principal("ada", grants=EVERYWHERE, token="jti-1", expires=1_000_500.0)


class Clock:
    """Stands still until it is told."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tickets(clock: Clock) -> Tickets:
    return Tickets(clock=clock)


@pytest.mark.anyio
async def test_a_ticket_is_good_once(tickets: Tickets) -> None:
    token, _ = tickets.issue(ADA)

    principal = await tickets.verify(Credential(token), "r")

    assert principal == ADA
    assert len(tickets) == 0
    with pytest.raises(Unauthenticated):
        await tickets.verify(Credential(token), "r")


@pytest.mark.anyio
async def test_a_ticket_is_good_for_a_minute(tickets: Tickets, clock: Clock) -> None:
    token, expires = tickets.issue(ADA)

    clock.now += TICKET_SECONDS

    assert expires == clock.now
    with pytest.raises(Unauthenticated):
        await tickets.verify(Credential(token), "r")


def test_a_ticket_ends_with_the_credential_it_was_made_for(
    tickets: Tickets, clock: Clock
) -> None:
    clock.now = ADA.expires - 10

    _, expires = tickets.issue(ADA)

    assert expires == ADA.expires


@pytest.mark.anyio
async def test_a_ticket_for_one_room_opens_no_other(
    tickets: Tickets, clock: Clock
) -> None:
    authority = Authority([tickets], clock=clock)
    token, _ = tickets.issue(ADA, "notes")

    principal = await authority.authenticate(Credential(token), "other")

    assert authority.operations(principal, "notes") == READ | WRITE
    assert authority.operations(principal, "other") == 0
    assert authority.operations(principal, "notes/") == 0


def test_a_ticket_is_no_way_from_one_room_to_another(tickets: Tickets) -> None:
    narrow = Principal("ada", grants=EVERYWHERE, room="notes")

    with pytest.raises(PermissionDenied):
        tickets.issue(narrow, "other")

    tickets.issue(narrow)
    tickets.issue(narrow, "notes")
    assert len(tickets) == 2


@pytest.mark.anyio
async def test_a_ticket_of_a_narrow_credential_stays_narrow(tickets: Tickets) -> None:
    token, _ = tickets.issue(Principal("ada", grants=EVERYWHERE, room="notes"))

    principal = await tickets.verify(Credential(token), "other")

    assert principal is not None
    assert principal.room == "notes"


@pytest.mark.anyio
async def test_what_revokes_a_credential_reaches_its_tickets(
    tickets: Tickets, clock: Clock
) -> None:
    with Registry(MemoryShelf(), clock=clock) as registry:
        authority = Authority([tickets], registry, clock=clock)
        used, _ = tickets.issue(ADA)
        unused, _ = tickets.issue(ADA)
        principal = await authority.authenticate(Credential(used))

        registry.revoke_token("jti-1")

        assert authority.operations(principal, "r") == 0
        with pytest.raises(Unauthenticated):
            await authority.authenticate(Credential(unused))


@pytest.mark.parametrize("token", ["", "a.b.c", "ck_1.2", "TK_1"])
@pytest.mark.anyio
async def test_what_is_no_ticket_is_left_to_other_verifiers(
    tickets: Tickets, token: str
) -> None:
    assert await tickets.verify(Credential(token), "") is None


@pytest.mark.parametrize("token", ["tk_", "tk_\ud800", "tk_" + "x" * 10_000])
@pytest.mark.anyio
async def test_a_ticket_that_nobody_made_is_refused(
    tickets: Tickets, token: str
) -> None:
    with pytest.raises(Unauthenticated):
        await tickets.verify(Credential(token), "")


def test_one_principal_cannot_hold_them_all(
    tickets: Tickets, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setattr(module, "MAX_TICKETS_PER_PRINCIPAL", 2)
    tickets.issue(ADA)
    tickets.issue(ADA, "notes")

    with pytest.raises(RateLimited):
        tickets.issue(ADA)

    tickets.issue(Principal("ada", tenant="acme"))
    clock.now += TICKET_SECONDS
    tickets.issue(ADA)
    assert len(tickets) == 1


@pytest.mark.anyio
async def test_of_too_many_the_oldest_goes(
    tickets: Tickets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_TICKETS", 3)
    made = [tickets.issue(Principal(f"p{n}"))[0] for n in range(5)]

    assert len(tickets) == 3
    with pytest.raises(Unauthenticated):
        await tickets.verify(Credential(made[1]), "")
    assert (await tickets.verify(Credential(made[2]), "")) == Principal("p2")


def test_a_ticket_is_kept_as_its_hash(tickets: Tickets) -> None:
    token, _ = tickets.issue(ADA)

    assert token not in repr(vars(tickets))
    assert token[3:] not in repr(vars(tickets))
