"""Scenarios with stock clients in place of our own typists: they come through HAProxy, spread over three replicas."""

from __future__ import annotations

import asyncio
import itertools
import json
from base64 import b64decode
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from cluster import Replica
from ledger import Ledger, Operation, View
from proxying import Haproxy, put
from scenario import ROOM, Scenario, Stage
from services import Cluster, Postgres, Redis, Sentinels
from typists import Places, deletions

from collab.protocol.statevector import state_vector

HERE = Path(__file__).parent
REPLICAS = 3
PER_SECOND = 8.0
KINDS = (
    *("y-websocket-3", "hocuspocus-4", "y-websocket-2", "hocuspocus-3"),
    *("y-websocket-4", "hocuspocus-2", "y-websocket-1"),
)
NUMBERS = itertools.count(1)


@dataclass(slots=True)
class StockDocument:
    """As much of a client's document as the harness asks for."""

    client_id: int = 0
    vector: bytes = b"\x00"

    def get_state(self) -> bytes:
        return self.vector


class StockTypist:
    """One stock client in the Node process; what is known of it is what it last said."""

    def __init__(
        self,
        node: Node,
        kind: str,
        ledger: Ledger,
        room: str,
        front: Front,
        prefers: Replica,
        per_second: float,
    ) -> None:
        self.name = f"ws{next(NUMBERS)}"
        self.kind, self.ledger, self.room = kind, ledger, room
        self._node, self._front, self._prefers = node, front, prefers
        self.per_second = per_second
        self.doc = StockDocument()
        self.places: Places = list  # the proxy knows better
        self.epochs: list[str] = []  # stock clients know of none
        self.unsaved_at_drain: list[int] = []  # nor are they told of a drain
        self.away_seconds: list[float] = []
        self.closes: list[int] = []
        self.opened = 0
        self.is_connected = self.is_barred = False
        self._is_typing = per_second > 0
        self._is_still = not self._is_typing  # it has stopped, and this is its view
        self._waiting: deque[Operation] = deque()
        self._view: View | None = None
        self._is_dead = asyncio.Event()

    @property
    def is_typing(self) -> bool:
        return self._is_typing

    @is_typing.setter
    def is_typing(self, is_typing: bool) -> None:
        if is_typing != self._is_typing:
            self._is_typing, self._is_still = is_typing, False
            self._node.tell(typing=self.name, **{"is": is_typing})

    @property
    def is_saved(self) -> bool:
        return not self._waiting and (self._is_typing or self._is_still)

    @property
    def unsaved(self) -> int:
        return len(self._waiting)

    def view(self) -> View:
        return self._view or View(self.name, "", [], {}, {}, {})

    async def live(self) -> None:
        self._node.typists[self.name] = self
        self._node.tell(
            open=self.name,
            kind=self.kind,
            url=self._front.proxy.url,
            room=self.room,
            prefers=str(self._front.place(self._prefers)),
            perSecond=self.per_second,
        )
        try:
            await self._is_dead.wait()
        finally:
            self.die()

    def retire(self) -> None:
        self.die()

    def die(self) -> None:
        """Its socket is cut, and it never comes back."""
        if not self._is_dead.is_set():
            self._is_dead.set()
            self._node.tell(close=self.name)  # what it said before is still heard

    def hear(self, said: dict[str, Any]) -> None:
        """One line of the Node process."""
        match said:
            case {"id": int(number)}:
                self.doc.client_id = number
            case {"sent": [kind, token]}:
                operation = Operation(kind, token)
                self.ledger.send(operation)
                self._waiting.append(operation)
            case {"saved": int(count)}:
                for _ in range(count):
                    self.ledger.save(self._waiting.popleft())
            case {"away": milliseconds}:
                self.away_seconds.append(milliseconds / 1000)
            case {"state": state}:
                self.is_connected = state["isConnected"]
                self.opened = state["opened"]
                # Hocuspocus is told of a refusal in words, on a socket that stays.
                self.closes = [*state["codes"], *(4404 for _ in state["denied"])]
                self.is_barred = any(4400 <= code < 4500 for code in self.closes)
            case {"view": seen}:
                self._is_still = said["isStill"]
                self.doc.vector = b64decode(seen["vector"])
                self._view = View(
                    f"{self.name} ({self.kind})",
                    text=seen["text"],
                    array=seen["array"],
                    map=seen["map"],
                    vector=state_vector(self.doc.vector),
                    deleted=deletions(b64decode(seen["state"])),
                    is_waiting=seen["isWaiting"],
                )


class Node:
    """The process of all stock clients of a run."""

    def __init__(self) -> None:
        self.typists: dict[str, StockTypist] = {}
        self._process: asyncio.subprocess.Process
        self._reading: asyncio.Task[None]

    async def __aenter__(self) -> Node:
        self._process = await asyncio.create_subprocess_exec(
            *("node", str(HERE / "stock.mjs")),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 26,
        )
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *reason: object) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._reading
        await self._process.wait()
        self._process._transport.close()  # type: ignore[attr-defined]  # its pipes too

    def tell(self, **words: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(words).encode() + b"\n")

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            said = json.loads(line)
            if typist := self.typists.get(said["client"]):
                typist.hear(said)


@dataclass(slots=True)
class Front:
    """A HAProxy in front of these replicas, as it is shipped; and it heeds which of them a client prefers."""

    replicas: list[Replica]
    proxy: Haproxy

    def place(self, replica: Replica) -> int:
        return self.replicas.index(replica) + 1


def heeding(count: int) -> Any:
    """Without this all clients of a room that name it in their address would meet on one replica."""
    rules = "".join(
        f"\n    use-server replica{number} if {{ url_param(prefers) {number} }}"
        for number in range(1, count + 1)
    )

    def change(text: str) -> str:
        return put(r"^backend replicas$", f"backend replicas{rules}", text)

    return change


class StockStage(Stage):
    """A stage whose typists are stock clients of every kind in turn."""

    kinds = KINDS

    def __init__(self, *arguments: Any, **details: Any) -> None:
        super().__init__(*arguments, **details)
        self._node = Node()
        self._fronts: list[Front] = []
        self._turn = itertools.count()

    async def __aenter__(self) -> StockStage:
        await super().__aenter__()
        await self._stack.enter_async_context(self._node)
        self._stack.push_async_callback(self.send_home)
        return self

    async def open_replicas(
        self,
        count: int,
        *flags: str,
        redis: Redis | Sentinels | Cluster | None = None,
        postgres: Postgres | None = None,
        proxied: Literal["", "redis", "postgres"] = "",
        is_started: bool = True,
        program: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> list[Replica]:
        """At least three that share a Redis at first; those that come later have a HAProxy of their own."""
        new = await super().open_replicas(
            max(count, REPLICAS) if redis and not self._fronts else count,
            *("--trusted-proxies", "127.0.0.1"),
            "--max-sockets-per-address",
            "0",  # they all come from here, past a proxy
            *flags,
            redis=redis,
            postgres=postgres,
            proxied=proxied,
            is_started=is_started,
            program=program,
            env=env,
        )
        proxy = Haproxy([replica.port for replica in new], heeding(len(new)))
        await asyncio.to_thread(proxy.__enter__)
        self._stack.callback(proxy.__exit__, None, None, None)
        self._fronts.append(Front(new, proxy))
        return new

    def type(  # type: ignore[override]  # they are no typists of ours
        self,
        count: int,
        *,
        per_second: float = PER_SECOND,
        at: Sequence[Replica] = (),
        room: str = ROOM,
        ledger: Ledger | None = None,
        client_id: int | None = None,
        places: Places | None = None,
    ) -> list[StockTypist]:
        new = []
        for number in range(count):
            turn = next(self._turn)
            own = at or self._fronts[0].replicas
            prefers = own[(number if at else turn) % len(own)]
            typist = StockTypist(
                self._node,
                self.kinds[turn % len(self.kinds)],
                ledger or self.ledger,
                room,
                next(one for one in self._fronts if prefers in one.replicas),
                prefers,
                min(per_second, PER_SECOND),
            )
            self._lives[typist] = self._tasks.create_task(typist.live())  # type: ignore[index]  # a stock typist lives as ours do
            new.append(typist)
        if ledger is None:
            self.typists += new  # type: ignore[arg-type]  # likewise
        return new


def with_stock_clients(scenarios: Iterable[Scenario]) -> dict[str, Scenario]:
    """Those in which replicas share a room."""
    return {
        name: replace(one, name=name, stage=StockStage)
        for one in scenarios
        if not one.name.endswith("/single")
        # In the one the server alone is refused, in the other a client is told which id to write under.
        if not one.name.startswith(("F11", "F26"))
        for name in [f"{one.name} stock"]
    }
