"""Tickets: good once, for a minute, for no more than what they were made with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import orjson
import pytest

from collab.auth import tickets as module
from collab.auth.authority import Authority
from collab.auth.base import Credential
from collab.auth.permissions import READ, WRITE, Grant, Principal
from collab.auth.registry import Registry
from collab.auth.shelves.memory import MemoryShelf
from collab.auth.tickets import TICKET_SECONDS, Tickets
from collab.bus.memory import Hub, MemoryBus
from collab.errors import (
    BusUnavailable,
    CollabError,
    PermissionDenied,
    RateLimited,
    Unauthenticated,
)

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
    token, _ = await tickets.issue(ADA)

    principal = await tickets.verify(Credential(token), "r")

    assert principal == ADA
    assert len(tickets) == 0
    with pytest.raises(Unauthenticated):
        await tickets.verify(Credential(token), "r")


@pytest.mark.anyio
async def test_a_ticket_is_good_for_a_minute(tickets: Tickets, clock: Clock) -> None:
    token, expires = await tickets.issue(ADA)

    clock.now += TICKET_SECONDS

    assert expires == clock.now
    with pytest.raises(Unauthenticated):
        await tickets.verify(Credential(token), "r")


@pytest.mark.anyio
async def test_a_ticket_ends_with_the_credential_it_was_made_for(
    tickets: Tickets, clock: Clock
) -> None:
    clock.now = ADA.expires - 10

    _, expires = await tickets.issue(ADA)

    assert expires == ADA.expires


@pytest.mark.anyio
async def test_a_ticket_for_one_room_opens_no_other(
    tickets: Tickets, clock: Clock
) -> None:
    authority = Authority([tickets], clock=clock)
    token, _ = await tickets.issue(ADA, "notes")

    principal = await authority.authenticate(Credential(token), "other")

    assert authority.operations(principal, "notes") == READ | WRITE
    assert authority.operations(principal, "other") == 0
    assert authority.operations(principal, "notes/") == 0


@pytest.mark.anyio
async def test_a_ticket_is_no_way_from_one_room_to_another(tickets: Tickets) -> None:
    narrow = Principal("ada", grants=EVERYWHERE, room="notes")

    with pytest.raises(PermissionDenied):
        await tickets.issue(narrow, "other")

    await tickets.issue(narrow)
    await tickets.issue(narrow, "notes")
    assert len(tickets) == 2


@pytest.mark.anyio
async def test_a_ticket_of_a_narrow_credential_stays_narrow(tickets: Tickets) -> None:
    token, _ = await tickets.issue(Principal("ada", grants=EVERYWHERE, room="notes"))

    principal = await tickets.verify(Credential(token), "other")

    assert principal is not None
    assert principal.room == "notes"


@pytest.mark.anyio
async def test_what_revokes_a_credential_reaches_its_tickets(
    tickets: Tickets, clock: Clock
) -> None:
    with Registry(MemoryShelf(), clock=clock) as registry:
        authority = Authority([tickets], registry, clock=clock)
        used, _ = await tickets.issue(ADA)
        unused, _ = await tickets.issue(ADA)
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


@pytest.mark.anyio
async def test_one_principal_cannot_hold_them_all(
    tickets: Tickets, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setattr(module, "MAX_TICKETS_PER_PRINCIPAL", 2)
    await tickets.issue(ADA)
    await tickets.issue(ADA, "notes")

    with pytest.raises(RateLimited):
        await tickets.issue(ADA)

    await tickets.issue(Principal("ada", tenant="acme"))
    clock.now += TICKET_SECONDS
    await tickets.issue(ADA)
    assert len(tickets) == 1


@pytest.mark.anyio
async def test_of_too_many_the_oldest_goes(
    tickets: Tickets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_TICKETS", 3)
    made = [(await tickets.issue(Principal(f"p{n}")))[0] for n in range(5)]

    assert len(tickets) == 3
    with pytest.raises(Unauthenticated):
        await tickets.verify(Credential(made[1]), "")
    assert (await tickets.verify(Credential(made[2]), "")) == Principal("p2")


@pytest.mark.anyio
async def test_a_ticket_is_kept_as_its_hash(tickets: Tickets) -> None:
    token, _ = await tickets.issue(ADA)

    assert token not in repr(vars(tickets))
    assert token[3:] not in repr(vars(tickets))


# Among replicas


class Lends:
    """A backend that is asked about its principals, and knows what they have shown."""

    def __init__(self, *, knows: bool) -> None:
        self.knows = knows
        self.asked: list[tuple[str, str]] = []
        self.may = READ | WRITE

    async def verify(self, credential: Credential, room: str) -> Principal | None:
        self.asked.append((credential.token, room))
        return replace(LENT, grants=(Grant(room, self.may),))

    def credential(self, principal: Principal, room: str) -> Credential | None:
        return Credential("opaque", address="192.0.2.1") if self.knows else None


LENT = Principal("bob", grants=(Grant("notes", READ | WRITE),), token="wh_1", is_lent=True)  # fmt: skip


class Pair:
    """Two replicas on one bus."""

    def __init__(
        self, hub: Hub, here: MemoryBus, there: MemoryBus, clock: Clock
    ) -> None:
        self.hub = hub
        self.here = Tickets(here, key=b"k" * 32, clock=clock)
        self.there = Tickets(there, key=b"k" * 32, clock=clock)


@pytest.fixture
async def pair(clock: Clock) -> AsyncIterator[Pair]:
    hub = Hub(clock=clock)
    async with MemoryBus(hub) as here, MemoryBus(hub) as there:
        yield Pair(hub, here, there, clock)


async def is_good(tickets: Tickets, token: str) -> bool:
    try:
        return await tickets.verify(Credential(token), "") is not None
    except (Unauthenticated, BusUnavailable):
        return False


@pytest.mark.anyio
async def test_a_ticket_is_good_once_at_any_replica(pair: Pair) -> None:
    first, _ = await pair.here.issue(ADA, "notes")
    second, _ = await pair.here.issue(ADA)

    principal = await pair.there.verify(Credential(first), "notes")

    assert principal == replace(ADA, room="notes")
    assert [await is_good(each, first) for each in (pair.here, pair.there)] == [
        False
    ] * 2
    assert await is_good(pair.here, second)
    assert [await is_good(each, second) for each in (pair.there, pair.here)] == [
        False
    ] * 2


@pytest.mark.anyio
async def test_all_that_a_principal_is_goes_with_its_ticket(pair: Pair) -> None:
    full = Principal(
        *("bot", "acme", "agent", "Büro", (Grant("a/", READ, True), Grant("b", WRITE))),
        *(1_000_100.0, "jti", 5.5, "b", READ | WRITE),
        role="executor",
        on_behalf_of="ada",
    )
    token, _ = await pair.here.issue(full)

    assert await pair.there.verify(Credential(token), "b") == full


@pytest.mark.anyio
async def test_many_who_show_one_ticket_at_once_get_in_once(pair: Pair) -> None:
    token, _ = await pair.here.issue(ADA)

    good = await asyncio.gather(
        *(is_good(each, token) for each in (pair.here, pair.there) * 5)
    )

    assert good.count(True) == 1


@pytest.mark.anyio
async def test_a_ticket_is_good_for_a_minute_elsewhere_too(
    pair: Pair, clock: Clock
) -> None:
    token, _ = await pair.here.issue(ADA)

    clock.now += TICKET_SECONDS

    assert not await is_good(pair.there, token)


@pytest.mark.anyio
async def test_a_ticket_made_while_the_bus_is_down_is_good_where_it_was_made(
    pair: Pair,
) -> None:
    pair.hub.is_up = False
    token, _ = await pair.here.issue(ADA)
    pair.hub.is_up = True

    assert not await is_good(pair.there, token)
    assert await is_good(pair.here, token)
    assert not await is_good(pair.here, token)


@pytest.mark.anyio
async def test_a_ticket_used_while_the_bus_is_down_is_used_up_everywhere(
    pair: Pair,
) -> None:
    token, _ = await pair.here.issue(ADA)
    pair.hub.is_up = False

    with pytest.raises(BusUnavailable):
        await pair.there.verify(Credential(token), "")
    assert await is_good(pair.here, token)
    await pair.here.settle()
    pair.hub.is_up = True
    await pair.here.settle()

    assert not await is_good(pair.there, token)
    assert not await is_good(pair.here, token)


@pytest.mark.anyio
async def test_what_is_on_the_bus_tells_nothing_and_is_made_by_no_stranger(
    pair: Pair,
) -> None:
    token, _ = await pair.here.issue(ADA)
    ((place, (until, sealed)),) = pair.hub.values.items()
    stranger = Tickets(MemoryBus(pair.hub), key=b"other key", clock=Clock())

    assert token not in place
    assert b"ada" not in sealed
    assert not await is_good(stranger, token)
    for forged in (b"", b"junk", sealed[:-1], sealed[:-1] + bytes([sealed[-1] ^ 1])):
        pair.hub.values[place] = until, forged
        assert not await is_good(pair.there, token)


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("id", "anonymous"),
        ("id", 5),
        ("kind", "god"),
        ("tenant", "a\x1fb"),
        ("grants", [["notes", 64, False]]),
        ("grants", [["team", 1, True]]),
        ("grants", [[5, 1, False]]),
        ("grants", 7),
        ("at_most", 99),
        ("at_most", None),
        ("is_lent", 1),
        ("role", 1),
        ("on_behalf_of", 1),
        ("on_behalf_of", "anonymous"),
        ("expires", "never"),
        ("issued", None),
        ("token", None),
        ("room", "\n"),
        ("shown", []),
        ("shown", [1, 2]),
    ],
)
def test_what_no_replica_says_of_a_principal_is_not_believed(
    field: str, said: object
) -> None:
    found = orjson.loads(module._encode(ADA, Credential())) | {field: said}

    with pytest.raises((ValueError, TypeError, LookupError, CollabError)):
        module._decode(orjson.dumps(found))


@pytest.mark.anyio
async def test_tickets_used_elsewhere_do_not_count_against_their_principal(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_TICKETS_PER_PRINCIPAL", 2)

    for _ in range(5):
        token, _ = await pair.here.issue(ADA)
        assert await is_good(pair.there, token)

    pair.hub.is_up = False
    await pair.here.issue(ADA)
    await pair.here.issue(ADA)
    with pytest.raises(RateLimited):
        await pair.here.issue(ADA)


@pytest.mark.anyio
async def test_the_backend_is_asked_where_a_lent_ticket_is_used(pair: Pair) -> None:
    pair.here.lender, pair.there.lender = Lends(knows=True), Lends(knows=False)
    pair.there.lender.may = READ
    narrow = replace(LENT, room="notes", at_most=READ)
    token, _ = await pair.here.issue(narrow)

    found = await pair.there.verify(Credential(token), "notes")

    assert pair.there.lender.asked == [("opaque", "notes")]
    assert found == replace(narrow, grants=(Grant("notes", READ),))


@pytest.mark.anyio
async def test_a_lent_ticket_whose_credential_is_forgotten_stays_where_it_was_made(
    pair: Pair,
) -> None:
    pair.here.lender = pair.there.lender = Lends(knows=False)
    token, _ = await pair.here.issue(LENT, "notes")

    assert not await is_good(pair.there, token)
    assert await is_good(pair.here, token)


@pytest.mark.anyio
async def test_where_nobody_can_be_asked_a_lent_ticket_is_good_for_nothing(
    pair: Pair,
) -> None:
    pair.here.lender = Lends(knows=True)
    token, _ = await pair.here.issue(LENT, "notes")

    assert not await is_good(pair.there, token)
