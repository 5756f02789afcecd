"""What every bus must do, run on each; on Redis alone, behind Sentinel and as a Cluster."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack

import pytest
from hearing import Ear, eventually
from services import Cluster, Redis, Sentinels

from collab.bus.base import EVERYBODY, MAX_BODY_BYTES, Bus
from collab.bus.memory import Hub, MemoryBus
from collab.bus.redis import RedisBus
from collab.connection import endpoint
from collab.metrics import Metrics

pytestmark = pytest.mark.anyio

SERVERS = {"redis": Redis, "sentinel": Sentinels, "cluster": Cluster}
ODD_NAMES = ["{", "a}b", "{}", "1:a", "é/ü", "acme\x1fnotes", "notes", "*", "x" * 256]

_counter = itertools.count()


@pytest.fixture(scope="module")
def addresses() -> Iterator[Callable[[str], str]]:
    """Each server is started when a first test needs it."""
    started: dict[str, str] = {}
    with ExitStack() as stack:

        def address(kind: str) -> str:
            if kind not in started:
                started[kind] = stack.enter_context(SERVERS[kind]()).url
            return started[kind]

        yield address


Make = Callable[[], Bus]


@pytest.fixture(params=["memory", *SERVERS])
def make(
    request: pytest.FixtureRequest, addresses: Callable[[str], str]
) -> Callable[[], Bus]:
    """Makes buses that hear each other and nobody else."""
    if request.param == "memory":
        hub = Hub()
        return lambda: MemoryBus(hub)
    place, cluster = endpoint(addresses(request.param)), f"test-{next(_counter)}"
    return lambda: RedisBus(place, cluster=cluster, metrics=Metrics())


@pytest.fixture
async def buses(make: Make) -> AsyncIterator[tuple[Bus, Bus]]:
    """Of two replicas."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(make())
        second = await stack.enter_async_context(make())
        yield first, second


async def listen(bus: Bus, channel: str) -> Ear:
    ear = Ear()
    bus.subscribe(channel, ear)
    await ear.until(lambda: ear.interruptions > 0)
    return ear


async def test_a_subscription_says_when_it_stands(buses: tuple[Bus, Bus]) -> None:
    ear = await listen(buses[0], "notes")

    await eventually(lambda: buses[0].is_up)
    assert ear.interruptions == 1
    assert ear.entries == ear.words == []


async def test_everybody_hears_entries_in_order_and_numbered_without_a_hole(
    buses: tuple[Bus, Bus],
) -> None:
    ears = [await listen(bus, "notes") for bus in buses]
    sent = [[b"%d-%d" % (who, n) for n in range(200)] for who in range(2)]

    for n in range(200):
        for bus, bodies in zip(buses, sent, strict=True):
            bus.publish("notes", bodies[n])
        await asyncio.sleep(0)
    for ear in ears:
        await ear.until(lambda ear=ear: len(ear.entries) == 400)

    assert ears[0].entries == ears[1].entries
    assert ears[0].numbers == list(range(1, 401))
    assert len({published.epoch for published in ears[0].entries}) == 1
    for bodies in sent:
        assert [body for body in ears[0].bodies if body in set(bodies)] == bodies


async def test_words_are_heard_by_all_and_not_kept(buses: tuple[Bus, Bus]) -> None:
    ears = [await listen(bus, "notes") for bus in buses]

    buses[0].say("notes", b"here I am")
    for ear in ears:
        await ear.until(lambda ear=ear: bool(ear.words))

    assert [ear.words for ear in ears] == [[b"here I am"]] * 2
    assert ears[0].entries == []
    assert await buses[1].position("notes") == ("", 0)


async def test_there_is_a_channel_of_all_replicas(buses: tuple[Bus, Bus]) -> None:
    ears = [await listen(bus, EVERYBODY) for bus in buses]

    buses[1].say(EVERYBODY, b"attention")
    for ear in ears:
        await ear.until(lambda ear=ear: bool(ear.words))

    assert [ear.words for ear in ears] == [[b"attention"]] * 2


async def test_rooms_do_not_hear_each_other_whatever_they_are_called(
    buses: tuple[Bus, Bus],
) -> None:
    ears = {name: await listen(buses[0], name) for name in ODD_NAMES}

    for name in ODD_NAMES:
        buses[1].publish(name, name.encode())
        buses[1].say(name, name.encode())
    for ear in ears.values():
        await ear.until(lambda ear=ear: bool(ear.entries and ear.words))

    assert {name: ear.bodies for name, ear in ears.items()} == {
        name: [name.encode()] for name in ODD_NAMES
    }
    assert {name: ear.words for name, ear in ears.items()} == {
        name: [name.encode()] for name in ODD_NAMES
    }


async def test_who_unsubscribes_hears_no_more_and_may_come_back(
    buses: tuple[Bus, Bus],
) -> None:
    gone, other = await listen(buses[0], "notes"), await listen(buses[1], "notes")

    buses[0].unsubscribe("notes")
    buses[0].unsubscribe("never")
    buses[1].publish("notes", b"1")
    await other.until(lambda: len(other.entries) == 1)
    back = await listen(buses[0], "notes")
    buses[1].publish("notes", b"2")
    await back.until(lambda: len(back.entries) == 1)

    assert gone.entries == []
    assert [(one.number, one.body) for one in back.entries] == [(2, b"2")]


async def test_any_bytes_are_carried_up_to_the_limit(buses: tuple[Bus, Bus]) -> None:
    ear = await listen(buses[0], "notes")
    bodies = [b"", b"\r\n:e:\x00", bytes(range(256)), bytes(MAX_BODY_BYTES)]

    for body in bodies:
        buses[1].publish("notes", body)
        await ear.until(lambda body=body: bool(ear.bodies) and ear.bodies[-1] == body)
        buses[1].say("notes", body)
        await ear.until(lambda body=body: bool(ear.words) and ear.words[-1] == body)

    assert ear.bodies == ear.words == bodies
    read = await buses[0].read("notes", ear.entries[0].epoch, 0)
    assert read is None or read == ear.entries  # a stream may keep fewer large ones


async def test_a_body_that_is_too_large_is_given_up_and_told(
    buses: tuple[Bus, Bus],
) -> None:
    ear = await listen(buses[0], "notes")

    buses[0].publish("notes", bytes(MAX_BODY_BYTES + 1))
    buses[0].say("notes", bytes(MAX_BODY_BYTES + 1))
    await ear.until(lambda: ear.drops == 1)
    buses[0].publish("notes", b"next")
    await ear.until(lambda: bool(ear.entries))

    assert ear.bodies == [b"next"]
    assert ear.words == []


async def test_the_position_is_that_of_the_last_entry(buses: tuple[Bus, Bus]) -> None:
    ear = await listen(buses[0], "notes")

    before = await buses[0].position("notes")
    for n in range(3):
        buses[0].publish("notes", b"%d" % n)
    await ear.until(lambda: len(ear.entries) == 3)

    assert before == ("", 0)
    assert await buses[1].position("notes") == (ear.entries[-1].epoch, 3)


async def test_what_was_missed_can_be_read(buses: tuple[Bus, Bus]) -> None:
    ear = await listen(buses[0], "notes")
    for n in range(250):
        buses[0].publish("notes", b"%d" % n)
    await ear.until(lambda: len(ear.entries) == 250)
    epoch = ear.entries[0].epoch

    assert await buses[1].read("notes", epoch, 0) == ear.entries
    assert await buses[1].read("notes", epoch, 247) == ear.entries[247:]
    assert await buses[1].read("notes", epoch, 250) == []


async def test_a_hole_that_cannot_be_filled_is_told(buses: tuple[Bus, Bus]) -> None:
    ear = await listen(buses[0], "notes")
    buses[0].publish("notes", b"1")
    await ear.until(lambda: bool(ear.entries))
    epoch = ear.entries[0].epoch

    assert await buses[1].read("notes", epoch, 2) is None
    assert await buses[1].read("notes", "another", 0) is None
    assert await buses[1].read("never written to", epoch, 0) is None


async def test_replicas_hear_of_each_other(buses: tuple[Bus, Bus]) -> None:
    first, second = buses

    alone = await first.beat("a", b"one")
    both = await second.beat("b", b"\x00:\xff")
    await first.leave("a")
    after = await second.beat("b", b"changed")

    assert alone == {"a": b"one"}
    assert both == {"a": b"one", "b": b"\x00:\xff"}
    assert after == {"b": b"changed"}


async def test_a_kept_value_is_taken_once(buses: tuple[Bus, Bus]) -> None:
    first, second = buses

    await first.keep("ticket", b"older", 60)
    await first.keep("ticket", b"value", 60)

    assert await second.take("ticket") == b"value"
    assert await first.take("ticket") is None
    assert await second.take("never kept") is None


async def test_who_leaves_sends_first_what_waits(make: Make) -> None:
    async with make() as other:
        ear = await listen(other, "notes")

        async with make() as bus:
            await listen(bus, "notes")
            for n in range(100):
                bus.publish("notes", b"%d" % n)
        await ear.until(lambda: len(ear.entries) == 100)

    assert ear.bodies == [b"%d" % n for n in range(100)]


async def test_a_claim_is_of_one_at_a_time(buses: tuple[Bus, Bus]) -> None:
    first, second = buses

    taken = [
        await bus.claim("notes", token, 60)
        for bus, token in ((first, "a"), (second, "b"), (first, "c"))
    ]
    await second.release("notes", "b")  # which has none
    still = await second.claim("notes", "b", 60)
    await first.release("notes", "a")
    then = await second.claim("notes", "b", 60)

    assert taken == [True, False, False]
    assert (still, then) == (False, True)


async def test_of_those_who_claim_at_once_one_is_told_yes(
    buses: tuple[Bus, Bus],
) -> None:
    for number in range(20):
        asked = [bus.claim(f"r{number}", name, 60) for bus in buses for name in "abcd"]

        assert sum(await asyncio.gather(*asked)) == 1


async def test_a_claim_is_renewed_by_who_has_it_alone(buses: tuple[Bus, Bus]) -> None:
    first, second = buses
    await first.claim("notes", "a", 60)

    assert await first.renew("notes", "a", 60)
    assert not await second.renew("notes", "b", 60)
    await first.release("notes", "a")
    assert not await first.renew("notes", "a", 60)


async def test_a_claim_that_ran_out_is_another_s_and_never_again_the_first_one_s(
    buses: tuple[Bus, Bus],
) -> None:
    first, second = buses
    await first.claim("notes", "a", 0.05)

    async with asyncio.timeout(30):
        while not await second.claim("notes", "b", 60):  # noqa: ASYNC110  # the bus has its own clock
            await asyncio.sleep(0.01)
    renewed = await first.renew("notes", "a", 60)
    await first.release("notes", "a")

    assert not renewed
    assert not await first.claim("notes", "a", 60)
    assert await second.renew("notes", "b", 60)


async def test_claims_of_rooms_do_not_meet_whatever_they_are_called(
    buses: tuple[Bus, Bus],
) -> None:
    taken = [await buses[0].claim(name, "a", 60) for name in ODD_NAMES]
    again = [await buses[1].claim(name, "b", 60) for name in ODD_NAMES]

    assert all(taken)
    assert not any(again)
