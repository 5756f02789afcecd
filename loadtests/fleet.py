"""What many replicas cost: an edit that crosses, rooms that idle, Redis that returns, a rolling restart.

Servers, Redis and Postgres are real and on this machine, started for the run, on whichever core is free; CPU is the operating system's account
of each process. One process of clients writes at one replica and listens at another, so one clock measures the way.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis
import uvloop
from pycrdt import Doc, Text
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from processes import Server  # noqa: E402  # found by the line above
from services import Postgres, Redis  # noqa: E402  # likewise

from collab.protocol.varint import Reader, encode_bytes  # noqa: E402  # likewise

if TYPE_CHECKING:
    from scenarios import Bench

ROOMS, EDITS_PER_SECOND = 100, 1000
IDLE_ROOMS = 1000
COMPARED_SECONDS = 60.0  # each room is compared two to four times in it
CLIENTS, REPLICAS = 300, 3
TICKS = os.sysconf("SC_CLK_TCK")
PATIENCE_SECONDS = 60.0
SYNCED_PAGES, PAGE_BYTES = 100, 8192
NO_LIMITS = (
    *("--max-sockets-per-address", "0", "--messages-per-second", "1000000"),
    *("--log-level", "error"),
)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, by the kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def metric(server: Server, name: str) -> float:
    with urllib.request.urlopen(f"{server.url}/metrics") as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
    raise AssertionError(f"there is no metric {name}")


def sync_milliseconds() -> float:
    """What the disk takes now to write a page for good: commits wait for it, and on a virtual machine it is another every hour."""
    times = []
    with tempfile.NamedTemporaryFile() as file:
        file.write(bytes(SYNCED_PAGES * PAGE_BYTES))
        file.flush()
        os.fsync(file.fileno())
        for number in range(SYNCED_PAGES):
            os.pwrite(file.fileno(), bytes(PAGE_BYTES), number * PAGE_BYTES)
            before = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - before)
    return 1000 * statistics.median(times)


class Cluster:
    """Replicas with one Redis, and what they keep their rooms in."""

    def __init__(
        self, stack: ExitStack, store: str, replicas: int, *flags: str
    ) -> None:
        self.redis = stack.enter_context(Redis())
        names: list[str] = ["--redis", self.redis.url, *NO_LIMITS, *flags]
        if store == "postgres":
            names += ["--postgres", stack.enter_context(Postgres()).dsn]
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.servers = [Server(folder / f"r{n}", *names) for n in range(replicas)]
        for server in self.servers:
            server.start()
            stack.callback(self._end, server)

    def _end(self, server: Server) -> None:
        if server.process is not None:
            server.kill()

    def reads(self) -> int:
        """How often Redis has read from a socket: at most once per round trip of anybody's."""
        with redis.Redis.from_url(self.redis.url) as client:
            return int(client.info("stats")["total_reads_processed"])


class Writer:
    """Types at one replica, as a stock client does."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.doc: Doc[Any] = Doc()
        self.text = self.doc.get("text", type=Text)
        self.sent: list[float] = []
        self._made: list[bytes] = []
        self.doc.observe(lambda event: self._made.append(event.update))

    async def type(self) -> None:
        self.text.insert(len(self.sent), "x")
        self.sent.append(time.perf_counter())
        await self.socket.send(b"\x00\x02" + encode_bytes(self._made.pop()))


class Listener:
    """Hears at another; while nothing is lost on the way, the nth edit it hears is the nth that its writer made."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.doc: Doc[Any] = Doc()
        self.text = self.doc.get("text", type=Text)
        self.heard: list[float] = []

    async def listen(self) -> None:
        async for message in self.socket:
            if message[:2] == b"\x00\x02":
                self.heard.append(time.perf_counter())
                self.doc.apply_update(Reader(message, 2).read_bytes())


async def silent(socket: ClientConnection) -> None:
    async for _ in socket:
        pass


@asynccontextmanager
async def pairs(
    writing: Server, listening: Server, rooms: int
) -> AsyncIterator[list[tuple[Writer, Listener]]]:
    """A writer here and a listener there, in each room."""
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        made, running = [], []
        for number in range(rooms):
            here = await stack.enter_async_context(
                connect(f"{writing.address}/ws/room{number}")
            )
            there = await stack.enter_async_context(
                connect(f"{listening.address}/ws/room{number}")
            )
            for socket in (here, there):
                await socket.send(b"\x00\x00" + encode_bytes(b"\x00"))
            writer = Writer(here)
            listener = Listener(there)
            running += [
                tasks.create_task(silent(here)),
                tasks.create_task(listener.listen()),
            ]
            made.append((writer, listener))
        await asyncio.sleep(1.0)
        try:
            yield made
        finally:
            for task in running:
                task.cancel()


async def write_for(writers: list[Writer], rate: float, seconds: float) -> int:
    """Poisson arrivals over all writers."""
    chance, end, count = random.Random(1), time.perf_counter() + seconds, 0
    due = time.perf_counter()
    while due < end:
        due += chance.expovariate(rate)
        wait = due - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        await chance.choice(writers).type()
        count += 1
    return count


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not is_so():  # noqa: ASYNC110  # it depends on many sockets at once
            await asyncio.sleep(0.002)


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


async def cross(store: str, seconds: float) -> dict[str, float]:
    """1,000 edits a second over 100 rooms, written at one replica, heard at the other."""
    synced = sync_milliseconds()
    with ExitStack() as stack:
        cluster = Cluster(stack, store, 2)
        one, other = cluster.servers
        async with pairs(one, other, ROOMS) as made:
            writers = [writer for writer, _ in made]
            await write_for(writers, EDITS_PER_SECOND, 2.0)
            skip = [len(writer.sent) for writer in writers]
            names = {
                "writing": one.pid,
                "hearing": other.pid,
                "redis": cluster.redis.pid,
            }
            before = {name: cpu_seconds(pid) for name, pid in names.items()}
            trips = sum(
                metric(each, "collab_bus_round_trips_total") for each in cluster.servers
            )
            reads, started = cluster.reads(), time.perf_counter()
            count = await write_for(writers, EDITS_PER_SECOND, seconds)
            took = time.perf_counter() - started
            await until(
                lambda: all(
                    len(each.heard) >= len(writer.sent) for writer, each in made
                )
            )
            reads = cluster.reads() - reads
            trips = (
                sum(
                    metric(each, "collab_bus_round_trips_total")
                    for each in cluster.servers
                )
                - trips
            )
            used = {
                name: cpu_seconds(pid) - before[name] for name, pid in names.items()
            }
            times = [
                1000 * (heard - sent)
                for (writer, each), first in zip(made, skip, strict=True)
                for sent, heard in zip(
                    writer.sent[first:], each.heard[first:], strict=True
                )
            ]
    return {
        "edits per second": count / took,
        "p50 ms": percentile(times, 0.5),
        "p99 ms": percentile(times, 0.99),
        "bus round trips per edit": trips / count,
        "reads of Redis per edit": reads / count,
        "sync of the disk, ms": synced,
        **{
            f"CPU of {name}, ms/s": 1000 * seconds / took
            for name, seconds in used.items()
        },
    }


async def elsewhere(store: str, seconds: float) -> dict[str, float]:
    """The same edits, and what they cost a replica that has none of the rooms."""
    with ExitStack() as stack:
        cluster = Cluster(stack, store, 2)
        one, other = cluster.servers
        async with pairs(one, one, ROOMS) as made:
            writers = [writer for writer, _ in made]
            await asyncio.sleep(2.0)
            before, heard = (
                cpu_seconds(other.pid),
                metric(other, "collab_bus_received_total"),
            )
            await asyncio.sleep(seconds)
            idle = cpu_seconds(other.pid) - before
            before = cpu_seconds(other.pid)
            count = await write_for(writers, EDITS_PER_SECOND, seconds)
            busy = cpu_seconds(other.pid) - before
            heard = metric(other, "collab_bus_received_total") - heard
    return {
        "messages heard per edit": heard / count,
        "CPU without edits, ms/s": 1000 * idle / seconds,
        "CPU during edits, ms/s": 1000 * busy / seconds,
    }


async def idle(store: str, seconds: float) -> dict[str, float]:
    """1,000 rooms open on two replicas, in which nothing happens: what their comparing costs."""
    with ExitStack() as stack:
        cluster = Cluster(stack, store, 2, "--idle-room-seconds", "3600")
        await asyncio.sleep(3.0)
        before = cpu_seconds(cluster.servers[0].pid)
        await asyncio.sleep(seconds)
        empty = cpu_seconds(cluster.servers[0].pid) - before
        for server in cluster.servers:
            for number in range(IDLE_ROOMS):
                async with connect(f"{server.address}/ws/room{number}") as socket:
                    writer = Writer(socket)
                    await writer.type()
                    await socket.recv()
        await asyncio.sleep(
            35.0
        )  # until what their opening and writing brought about is over
        before = cpu_seconds(cluster.servers[0].pid)
        await asyncio.sleep(COMPARED_SECONDS)
        full = cpu_seconds(cluster.servers[0].pid) - before
        rooms = metric(cluster.servers[0], "collab_rooms")
    return {
        "rooms": rooms,
        "CPU without rooms, % of a core": 100 * empty / seconds,
        "CPU with rooms, % of a core": 100 * full / COMPARED_SECONDS,
    }


async def recover(store: str, seconds: float) -> dict[str, float]:
    """Redis is killed while people type; from its return on: how long until all of it has crossed."""
    found = []
    for _ in range(3):
        with ExitStack() as stack:
            cluster = Cluster(stack, store, 2)
            async with pairs(*cluster.servers, 20) as made:
                writers = [writer for writer, _ in made]
                await write_for(writers, 100, 2.0)
                cluster.redis.kill()
                await write_for(writers, 100, seconds)
                cluster.redis.start()
                back = time.perf_counter()
                typing = asyncio.create_task(write_for(writers, 100, 2.0))
                missed = [(each.text, len(writer.sent)) for writer, each in made]
                await until(partial(_have, missed))
                found.append(time.perf_counter() - back)
                await typing
    return {
        "worst of 3, seconds": max(found),
        "median, seconds": statistics.median(found),
    }


def _have(texts: list[tuple[Text, int]]) -> bool:
    return all(len(text) >= count for text, count in texts)


class Person:
    """A client that comes back to another replica when its own goes, and remembers what was acknowledged."""

    def __init__(self, number: int, servers: list[Server]) -> None:
        self.number, self._servers, self._next = number, servers, number
        self.room = f"room{number % 30}"
        self.doc: Doc[Any] = Doc()
        self.text = self.doc.get("text", type=Text)
        self.acked: set[str] = set()
        self.away: list[float] = []  # seconds
        self._waiting: list[tuple[int, str]] = []
        self._sequence = self._count = 0
        self._made: list[bytes] = []
        self._socket: ClientConnection | None = None
        self._lost = 0.0
        self.doc.observe(lambda event: self._made.append(event.update))

    async def live(self) -> None:
        while True:
            server = self._servers[self._next % len(self._servers)]
            self._next += 1
            try:
                async with connect(
                    f"{server.address}/ws/{self.room}", subprotocols=["collab.v1"]
                ) as socket:
                    await self._stay(socket)
            except (OSError, InvalidHandshake, ConnectionClosed, TimeoutError):
                pass
            self._lost = self._lost or time.perf_counter()
            self._socket = None
            await asyncio.sleep(random.uniform(0.05, 0.3))

    async def _stay(self, socket: ClientConnection) -> None:
        self._sequence = 0
        self._waiting = [(1, token) for _, token in self._waiting]
        await socket.send(b"\x00\x00" + encode_bytes(self.doc.get_state()))
        async for message in socket:
            if not isinstance(message, bytes):
                continue
            reader = Reader(message)
            kind = reader.read_varint()
            if kind == 0:
                await self._sync(socket, reader.read_varint(), reader.read_bytes())
            elif kind == 111:
                sequence = reader.read_varint()
                self.acked |= {
                    token for sent, token in self._waiting if sent <= sequence
                }
                self._waiting = [each for each in self._waiting if each[0] > sequence]

    async def _sync(self, socket: ClientConnection, kind: int, content: bytes) -> None:
        if kind == 0:  # what the server lacks
            self._sequence += 1
            await socket.send(b"\x00\x01" + encode_bytes(self.doc.get_update(content)))
            self._socket = socket
            return
        self.doc.apply_update(content)
        self._made.clear()
        if kind == 1 and self._lost:
            self.away.append(time.perf_counter() - self._lost)
            self._lost = 0.0

    async def type(self) -> None:
        token = f"{self.number:03d}-{self._count:04d} "
        self._count += 1
        self._made.clear()
        self.text.insert(0, token)
        update = self._made.pop()
        if self._socket is None:
            self._waiting.append((1, token))
            return
        self._sequence += 1
        self._waiting.append((self._sequence, token))
        try:
            await self._socket.send(b"\x00\x02" + encode_bytes(update))
        except ConnectionClosed:
            pass  # it goes with the whole document when the client is back


async def rolling(store: str, seconds: float) -> dict[str, float]:
    """Three replicas restarted one after the other under 300 clients who type."""
    with ExitStack() as stack:
        cluster = Cluster(stack, store, REPLICAS)
        people = [Person(number, cluster.servers) for number in range(CLIENTS)]
        async with asyncio.TaskGroup() as tasks:
            lives = [tasks.create_task(person.live()) for person in people]
            typing = tasks.create_task(_type_on(people))
            await asyncio.sleep(5.0)
            for server in cluster.servers:
                await asyncio.to_thread(server.restart)
                await asyncio.sleep(2.0)
            typing.cancel()
            await asyncio.sleep(3.0)
            for life in lives:
                life.cancel()
        lost = await _lost(cluster.servers, people)
    away = [seconds for person in people for seconds in person.away]
    return {
        "acknowledged edits": sum(len(person.acked) for person in people),
        "lost": lost,
        "times away": len(away),
        "longest away, seconds": max(away),
        "p50 away, seconds": percentile(away, 0.5),
    }


async def _type_on(people: list[Person]) -> None:
    while True:
        await asyncio.sleep(1 / CLIENTS)
        await random.choice(people).type()


async def _lost(servers: list[Server], people: list[Person]) -> int:
    """Acknowledged tokens that a fresh reader does not find, through any replica."""
    missing = 0
    for server in servers:
        for room in {person.room for person in people}:
            reader = Person(0, [server])
            reader.room = room
            async with connect(
                f"{server.address}/ws/{room}", subprotocols=["collab.v1"]
            ) as socket:
                await socket.send(b"\x00\x00" + encode_bytes(reader.doc.get_state()))
                async with asyncio.timeout(PATIENCE_SECONDS):
                    while True:
                        message = Reader(await socket.recv())
                        if message.read_varint() == 0 and message.read_varint() == 1:
                            reader.doc.apply_update(message.read_bytes())
                            break
            found = set(str(reader.text).split())
            missing += sum(
                token.strip() not in found
                for person in people
                if person.room == room
                for token in person.acked
            )
    return missing


# As scenarios of the benchmark


def _measure(
    bench: Bench,
    name: str,
    once: Callable[[str, float], Coroutine[Any, Any, dict[str, float]]],
    *,
    stores: tuple[str, ...],
    seconds: float,
    rounds: int = 1,
) -> dict[str, dict[str, float]]:
    """Fill the scenario's figures, by store; returns their medians. All processes share both cores."""
    os.sched_setaffinity(0, {bench.core, bench.load_core})
    try:
        figures: dict[str, dict[str, list[float]]] = {}
        for _ in range(rounds):
            for store in stores:
                found = uvloop.run(once(store, seconds))
                for what, value in found.items():
                    figures.setdefault(f"with {store}", {}).setdefault(what, []).append(
                        value
                    )
    finally:
        os.sched_setaffinity(0, {bench.load_core})
    bench.figures[name] = figures
    return {
        store: {what: statistics.median(values) for what, values in measures.items()}
        for store, measures in figures.items()
    }


def crossing(bench: Bench) -> None:
    """Two replicas, 1,000 edits a second over 100 rooms written at one and heard at the other, on two cores with Redis and the clients."""
    found = _measure(
        bench,
        "crossing",
        cross,
        stores=("redis", "postgres"),
        seconds=4.0 if bench.is_quick else 15.0,
        rounds=bench.rounds,
    )
    for store, figures in found.items():
        bench.aim("crossing", f"p50 {store}", figures["p50 ms"], 5, unit=" ms")
        bench.aim("crossing", f"p99 {store}", figures["p99 ms"], 25, unit=" ms")
        trips = figures["bus round trips per edit"]
        bench.aim("crossing", f"round trips of the bus per edit {store}", trips, 0.2)


def absent(bench: Bench) -> None:
    """The same edits, and a replica that has none of their rooms."""
    found = _measure(
        bench,
        "absent",
        elsewhere,
        stores=("redis",),
        seconds=5.0 if bench.is_quick else 15.0,
    )
    heard = found["with redis"]["messages heard per edit"]
    bench.aim("absent", "messages that it hears per edit", heard, 0)


def comparing(bench: Bench) -> None:
    """1,000 rooms open on two replicas, in which nothing happens but that they are compared."""
    found = _measure(bench, "comparing", idle, stores=("redis",), seconds=10.0)
    for store, figures in found.items():
        more = (
            figures["CPU with rooms, % of a core"]
            - figures["CPU without rooms, % of a core"]
        )
        bench.aim("comparing", f"of one core, {store}", more, 2, unit=" %")


def recovery(bench: Bench) -> None:
    """Redis is killed under people who type at two replicas, and comes back empty or as it was."""
    found = _measure(
        bench,
        "recovery",
        recover,
        stores=("postgres",),
        seconds=2.0 if bench.is_quick else 5.0,
    )
    for store, figures in found.items():
        bench.aim(
            "recovery",
            f"until all has crossed, {store}",
            figures["worst of 3, seconds"],
            3,
            unit=" s",
        )


def restarting(bench: Bench) -> None:
    """Three replicas restarted one after the other under 300 clients who type and come back to another one."""
    found = _measure(bench, "restarting", rolling, stores=("redis",), seconds=0.0)
    for store, figures in found.items():
        bench.aim("restarting", f"acknowledged edits lost, {store}", figures["lost"], 0)
        bench.aim(
            "restarting",
            f"longest away, {store}",
            figures["longest away, seconds"],
            5,
            unit=" s",
        )
        if figures["lost"]:
            bench.lost.append(
                f"restarting {store}: {figures['lost']:.0f} acknowledged edits"
            )
