"""One at a time in a room, among requests and among replicas; a clock that tests hold."""

from __future__ import annotations

import asyncio

import pytest

from collab.bus.memory import Hub, MemoryBus
from collab.errors import BusUnavailable, Busy
from collab.exclusion import (
    CLAIM_SECONDS,
    MARGIN_SECONDS,
    MAX_WAITING_OF_ROOM,
    Exclusion,
)

pytestmark = pytest.mark.anyio


class House:
    """Two replicas and the time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.hub = Hub(clock=lambda: self.now)
        self.here, self.there = (
            Exclusion(MemoryBus(self.hub), clock=lambda: self.now, pause=self._pause)
            for _ in range(2)
        )

    def _pause(self) -> float:
        self.now += 0.1
        return 0.0


@pytest.fixture
def house() -> House:
    return House()


@pytest.mark.parametrize("has_bus", [True, False])
async def test_requests_of_a_process_are_at_it_one_after_the_other(
    house: House, has_bus: bool
) -> None:
    exclusion = house.here if has_bus else Exclusion()
    order: list[str] = []

    async def work(name: str) -> None:
        async with exclusion.of("r") as claim:
            order.append(f"{name} comes")
            await asyncio.sleep(0)
            await claim.renew()
            claim.check()
            order.append(f"{name} goes")

    await asyncio.gather(work("a"), work("b"))

    assert order == ["a comes", "a goes", "b comes", "b goes"]


async def test_another_replica_waits_until_the_room_is_let_go(house: House) -> None:
    async def other() -> None:
        async with house.there.of("r"):
            pass

    async with house.here.of("r"), house.there.of("another"):
        waiting = asyncio.create_task(other())
        for _ in range(5):
            await asyncio.sleep(0)
        was_done = waiting.done()
    await waiting

    assert not was_done


async def test_who_waits_too_long_for_another_replica_is_told(house: House) -> None:
    async with house.here.of("r"):
        with pytest.raises(Busy):
            async with house.there.of("r"):
                raise AssertionError("it was claimed")
    async with house.there.of("r") as claim:
        claim.check()


async def test_a_claim_that_has_nearly_run_out_is_refused_until_it_is_renewed(
    house: House,
) -> None:
    async with house.here.of("r") as claim:
        house.now += CLAIM_SECONDS - MARGIN_SECONDS
        claim.check()
        house.now += 0.001
        with pytest.raises(Busy):
            claim.check()

        await claim.renew()

        claim.check()


async def test_a_claim_that_has_run_out_is_not_renewed(house: House) -> None:
    async with house.here.of("r") as claim:
        house.now += CLAIM_SECONDS
        async with house.there.of("r") as other:
            with pytest.raises(Busy):
                await claim.renew()
            with pytest.raises(Busy):
                claim.check()
            other.check()


async def test_a_bus_that_forgets_takes_the_claim_along(house: House) -> None:
    async with house.here.of("r") as claim:
        house.hub.flush()

        with pytest.raises(Busy):
            await claim.renew()


async def test_without_the_bus_nothing_is_claimed_or_renewed(house: House) -> None:
    async with house.here.of("r") as claim:
        house.hub.is_up = False

        with pytest.raises(BusUnavailable):
            await claim.renew()
        with pytest.raises(BusUnavailable):
            async with house.there.of("another"):
                raise AssertionError("it was claimed")


async def test_a_claim_that_is_kept_is_let_go_by_its_keeper(house: House) -> None:
    async with house.here.of("r") as claim:
        claim.is_kept = True
    with pytest.raises(Busy):
        async with house.there.of("r"):
            raise AssertionError("it was claimed")

    await claim.release()

    async with house.there.of("r"):
        pass


async def test_few_wait_for_a_room(house: House) -> None:
    go = asyncio.Event()

    async def work() -> None:
        async with house.here.of("r"):
            await go.wait()

    waiting = [asyncio.create_task(work()) for _ in range(MAX_WAITING_OF_ROOM)]
    await asyncio.sleep(0)

    with pytest.raises(Busy):
        async with house.here.of("r"):
            raise AssertionError("there was a place")

    go.set()
    await asyncio.gather(*waiting)
