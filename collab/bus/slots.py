"""Which server has which slot now: one server has them all, Sentinel says which one, the nodes of a Cluster share them."""

from __future__ import annotations

import asyncio
import contextlib
import random
from bisect import bisect_right
from collections.abc import Callable
from typing import Any, NamedTuple

import hiredis

from collab.bus.wire import Dialer, Place, pack, reason_of
from collab.connection import COMMAND_SECONDS

SLOTS = 16384

# How often it is asked again without a reason; with one, after a moment.
_PERIODS = {"sentinel": 2.0, "cluster": 5.0}
_MOMENT = 0.2
_ASK_SECONDS = 0.6  # of each server, so that the third is still asked in time

# What taking an answer apart raises when it is none of those that are documented.
_ODD = (ValueError, LookupError, TypeError, AttributeError)


class _Share(NamedTuple):
    start: int
    end: int
    place: Place


class Slots:
    """Asked again when in doubt. `changed` is called after every answer that differs from the one before."""

    def __init__(self, dialer: Dialer, changed: Callable[[], None]) -> None:
        self._dialer = dialer
        self._endpoint = dialer.endpoint
        self._changed = changed
        self._doubted = asyncio.Event()
        self._shares: list[_Share] = []
        self._moved: dict[int, Place] = {}  # as a server said, since the last answer
        self.trouble = "no_server"  # why nobody is known to have a slot
        self._others: set[Place] = set()  # nodes that may be asked when others are gone
        if self._endpoint.kind == "single":
            self._shares = [_Share(0, SLOTS - 1, self._endpoint.places[0])]

    def place(self, slot: int) -> Place | None:
        """Who has it; None when nobody is known to."""
        if slot in self._moved:
            return self._moved[slot]
        at = bisect_right(self._shares, slot, key=lambda share: share.start) - 1
        if at < 0 or slot > self._shares[at].end:
            return None
        return self._shares[at].place

    @property
    def places(self) -> set[Place]:
        return {share.place for share in self._shares} | set(self._moved.values())

    def doubt(self) -> None:
        """Something went wrong as if this was out of date: ask again soon."""
        self._doubted.set()

    def moved(self, error: hiredis.ReplyError, asked: Place) -> None:
        """A node says who has a slot now: `MOVED <slot> <host>:<port>`."""
        words = str(error).split(" ")
        with contextlib.suppress(ValueError, IndexError):
            slot, (host, _, port) = int(words[1]), words[2].rpartition(":")
            place = (host or asked[0], int(port))
            if self.place(slot) != place:
                self._moved[slot] = place
                self._changed()
        self.doubt()

    async def run(self) -> None:
        """Keep it up to date until cancelled."""
        while self._endpoint.kind != "single":
            self._doubted.clear()
            shares = await self._ask()
            if shares and (shares != self._shares or self._moved):
                self._shares = shares
                self._moved.clear()
                self._changed()
            await asyncio.sleep(_MOMENT * (0.5 + random.random()))
            if shares:
                period = _PERIODS[self._endpoint.kind] * (0.75 + random.random() / 2)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._doubted.wait(), period)

    async def _ask(self) -> list[_Share]:
        """The first answer that is one."""
        trouble = "no_server"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(COMMAND_SECONDS):
                candidates = list(self._others | set(self._endpoint.places))
                for place in random.sample(candidates, len(candidates)):
                    try:
                        async with asyncio.timeout(_ASK_SECONDS):
                            if shares := await self._ask_one(place):
                                return shares
                    except hiredis.ReplyError as error:
                        trouble = reason_of(error)
                    except (OSError, hiredis.HiredisError, *_ODD):
                        pass
        self.trouble = trouble
        return []

    async def _ask_one(self, place: Place) -> list[_Share]:
        if self._endpoint.kind == "sentinel":
            command = pack(
                "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._endpoint.service
            )
            wire = await self._dialer.dial_sentinel(place)
        else:
            command = pack("CLUSTER", "SLOTS")
            wire = await self._dialer.dial(place, lambda _: None)
        try:
            (answer,) = await wire.ask(command)
        finally:
            wire.close()
        if isinstance(answer, hiredis.ReplyError):
            raise answer
        if not isinstance(answer, list):
            return []  # or a service the sentinel does not know
        if self._endpoint.kind == "sentinel":
            host, port = answer
            return [_Share(0, SLOTS - 1, (host.decode(), int(port)))]
        shares = [
            (start, end, [_node(one, place[0]) for one in nodes])
            for start, end, *nodes in answer
        ]
        self._others = {node for _, _, nodes in shares for node in nodes}
        return sorted(_Share(start, end, nodes[0]) for start, end, nodes in shares)


def _node(row: list[Any], asked: str) -> Place:
    """Without a name, a node is where the one is that was asked."""
    host, port, *_ = row
    return host.decode() if host else asked, int(port)
