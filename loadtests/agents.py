"""What agents cost the people beside them, and what people cost the agents: streams, stops, broken sockets, a flood.

Servers and clients are real and on this machine. The people and the agents of one run are in one process, so one clock
measures the way; an agent that floods a room has a process of its own.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from types import coroutine
from typing import TYPE_CHECKING, Any

import uvloop
from pycrdt import Doc, Text, TransactionEvent
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from faults.proxy import Proxy  # noqa: E402  # found by the line above
from processes import Server  # noqa: E402  # likewise
from services import Redis  # noqa: E402  # likewise

import collab  # noqa: E402  # likewise
from collab.document.order import Order  # noqa: E402  # likewise
from collab.protocol import yjs  # noqa: E402  # likewise
from collab.protocol.varint import Reader  # noqa: E402  # likewise
from collab.sdk import Cancelled, Phase, messages  # noqa: E402  # likewise
from collab.sdk.turn import Flow, Turn  # noqa: E402  # likewise

if TYPE_CHECKING:
    from scenarios import Bench

PEOPLE = 10
LETTERS_PER_SECOND = 4.0  # of each person beside a stream
WORD_LETTERS = 8
MARKS = 0xE000  # for private use: no keyboard has them
TOKENS_PER_SECOND = 100
STRETCHES = 5  # by turns alone and beside the flood
FLOOD_LEAD_SECONDS = 2.5  # until it has made what it sends, and its first burst is in
FLOOD_RATE = 10_000  # operations a second
TYPING_RATE = 20.0  # edits a second of each person beside a flood
FLAGS = ("--log-level", "error", "--max-sockets-per-address", "0")
HERE = Path(__file__).resolve().parent


@contextmanager
def serving(*flags: str) -> Iterator[Server]:
    """A server with the limits that it ships with."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder) / "data", *FLAGS, *flags)
        server.start()
        try:
            yield server
        finally:
            server.kill()


@contextmanager
def replicas() -> Iterator[tuple[Server, Server]]:
    """Two servers over one Redis, in which the rooms are kept."""
    with Redis() as redis, ExitStack() as stack:
        flags = ("--redis", redis.url)
        one, other = (stack.enter_context(serving(*flags)) for _ in range(2))
        yield one, other


async def until(is_so: Callable[[], bool], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not is_so():  # noqa: ASYNC110  # it depends on several sockets at once
            await asyncio.sleep(0.005)


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def author(update: bytes) -> int:
    """The client of an update's first structs; 0 when it only deletes."""
    reader = Reader(update)
    if not reader.read_varint():
        return 0
    reader.read_varint()
    return reader.read_varint()


class Typist:
    """A person: types, as a stock client does, and does not look at what the others do."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.doc: Doc[Any] = Doc()
        self.text = self.doc.get("text", type=Text)
        self.sent: list[float] = []
        self._made: list[bytes] = []
        self.doc.observe(self._changed)

    def _changed(self, event: TransactionEvent) -> None:
        self._made.append(event.update)

    async def type(self) -> None:
        self.text.insert(len(self.sent), "x")
        self.sent.append(time.perf_counter())
        await self.socket.send(yjs.update_message(self._made.pop()))

    async def drain(self) -> None:
        async for _ in self.socket:
            pass


class Watcher:
    """Notes when each edit of each person arrives; of one person the nth to arrive is the nth that was typed."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.heard: dict[int, list[float]] = {}

    async def watch(self) -> None:
        await self.socket.send(yjs.sync_step_1(b"\x00"))
        async for frame in self.socket:
            if frame[:2] == b"\x00\x02":
                client = author(Reader(frame, 2).read_bytes())
                self.heard.setdefault(client, []).append(time.perf_counter())


@asynccontextmanager
async def typists(
    server: Server, room: str
) -> AsyncIterator[tuple[list[Typist], Watcher]]:
    address = f"{server.address}/ws/{room}"
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        people = []
        for _ in range(PEOPLE):
            socket = await stack.enter_async_context(connect(address, compression=None))
            people.append(Typist(socket))
        watcher = Watcher(
            await stack.enter_async_context(connect(address, compression=None))
        )
        reading = [tasks.create_task(person.drain()) for person in people]
        reading.append(tasks.create_task(watcher.watch()))
        await asyncio.sleep(0.5)
        try:
            yield people, watcher
        finally:
            for task in reading:
                task.cancel()


async def type_for(people: list[Typist], seconds: float) -> None:
    chance, end = random.Random(1), time.perf_counter() + seconds
    due = time.perf_counter()
    while due < end:
        due += chance.expovariate(TYPING_RATE * len(people))
        wait = due - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        await chance.choice(people).type()


async def latencies(server: Server, room: str, seconds: float) -> list[float]:
    """Milliseconds from a keystroke to another member, of everything that was typed in this time."""
    async with typists(server, room) as (people, watcher):
        await type_for(people, seconds)
        await until(
            lambda: all(
                len(watcher.heard.get(each.doc.client_id, ())) >= len(each.sent)
                for each in people
            )
        )
    return [
        1000 * (heard - sent)
        for each in people
        for sent, heard in zip(
            each.sent, watcher.heard.get(each.doc.client_id, ()), strict=True
        )
    ]


@contextmanager
def flooding(address: str) -> Iterator[Callable[[], tuple[float, float]]]:
    """An agent in a process of its own; yields how many operations a second it has made and how many turns, to be asked
    when it is over.
    """
    command = [sys.executable, str(HERE / "flooding.py"), address, str(FLOOD_RATE)]
    said: list[list[bytes]] = []

    def rates() -> tuple[float, float]:
        counts = [int(operations) for operations, _ in said if int(operations)]
        if len(counts) < 2:
            return float("nan"), float("nan")
        return (counts[-1] - counts[0]) / (len(counts) - 1), int(said[-1][1])

    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            yield rates
        finally:
            process.kill()
            assert process.stdout is not None
            said += [line.split() for line in process.stdout.read().splitlines()]


async def beside_a_flood(seconds: float, *, is_same_room: bool) -> dict[str, float]:
    """People alone and beside an agent that makes 10,000 operations a second, by turns."""
    alone: list[float] = []
    beside: list[float] = []
    rates: list[tuple[float, float]] = []
    with serving() as server:
        await latencies(server, "warm", 1.0)
        for number in range(STRETCHES):
            alone += await latencies(server, f"alone{number}", seconds / STRETCHES)
            room = f"beside{number}"
            flooded = room if is_same_room else f"another{number}"
            with flooding(f"{server.address}/ws/{flooded}") as rate:
                await asyncio.sleep(FLOOD_LEAD_SECONDS)
                beside += await latencies(server, room, seconds / STRETCHES)
            rates.append(rate())
    return {
        "p50 alone ms": percentile(alone, 0.5),
        "p99 alone ms": percentile(alone, 0.99),
        "p50 beside ms": percentile(beside, 0.5),
        "p99 beside ms": percentile(beside, 0.99),
        "operations made/s": statistics.median(made for made, _ in rates),
        "turns begun": statistics.median(turns for _, turns in rates),
    }


# Streams


class Person:
    """A member who sees the whole document and types words into it, letter by letter, where another word ends."""

    def __init__(self, number: int, socket: ClientConnection) -> None:
        self.socket, self._number = socket, number
        self.doc: Doc[Any] = Doc()
        self.text = self.doc.get("text", type=Text)
        self.words = 0
        self._typed = WORD_LETTERS
        self._made: list[bytes] = []
        self._is_receiving = False
        self.doc.observe(self._changed)

    def _changed(self, event: TransactionEvent) -> None:
        if not self._is_receiving:
            self._made.append(event.update)

    @property
    def _mark(self) -> str:
        """What the word of now begins with, and no other."""
        return chr(MARKS + self._number * 640 + self.words)

    async def live(self) -> None:
        await self.socket.send(yjs.sync_step_1(b"\x00"))
        async for frame in self.socket:
            if frame[:2] in (b"\x00\x01", b"\x00\x02"):
                self._is_receiving = True
                self.doc.apply_update(Reader(frame, 2).read_bytes())
                self._is_receiving = False

    async def type(self, chance: random.Random) -> None:
        shown = str(self.text)
        if self._typed == WORD_LETTERS:
            self.words += 1
            self._typed = 0
            at = shown.find(" ", chance.randrange(len(shown) + 1)) + 1
            letter = self._mark
        else:
            self._typed += 1
            at = shown.index(self._mark) + self._typed
            letter = " " if self._typed == WORD_LETTERS else chance.choice("abcdef")
        self.text.insert(len(shown[:at].encode()), letter)
        await self.socket.send(yjs.update_message(self._made.pop()))

    async def end(self, chance: random.Random) -> None:
        """Finish the word of now."""
        while self._typed < WORD_LETTERS:
            await self.type(chance)


class Meter:
    """A member that only counts what reaches it of an agent: bytes of its frames, and when its text came."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.client = 0
        self.edits = self.presence = 0  # bytes
        self.heard: list[float] = []

    async def watch(self) -> None:
        await self.socket.send(yjs.sync_step_1(b"\x00"))
        async for frame in self.socket:
            assert isinstance(frame, bytes)
            head = 2 if len(frame) < 126 else 4
            if frame[:2] == b"\x00\x02":
                if author(Reader(frame, 2).read_bytes()) == self.client:
                    self.edits += head + len(frame)
                    self.heard.append(time.perf_counter())
            elif frame[:1] == b"\x01":
                states = Reader(Reader(frame, 1).read_bytes())
                if states.read_varint() and states.read_varint() == self.client:
                    self.presence += head + len(frame)


class Applied:
    """How long a batch of a stream takes until it is in the agent's own document."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.cpu: list[
            float
        ] = []  # seconds of the processor, which others have no part in

    @contextmanager
    def measured(self) -> Iterator[None]:
        write = Flow.write

        async def timed(flow: Flow, text: str) -> None:
            await self._timing(write(flow, text))

        Flow.write = timed  # type: ignore[method-assign]  # for as long as it is measured
        try:
            yield
        finally:
            Flow.write = write  # type: ignore[method-assign]  # as it was

    @coroutine
    def _timing(self, writing: Coroutine[Any, Any, None]) -> Generator[Any, None, None]:
        """A batch is in the document when it waits for the first time."""
        steps = writing.__await__()
        began, cpu = time.perf_counter(), time.thread_time()
        first = next(steps)
        self.seconds.append(time.perf_counter() - began)
        self.cpu.append(time.thread_time() - cpu)
        yield first
        yield from steps


async def tokens(said: list[str], is_over: Callable[[], bool]) -> AsyncIterator[str]:
    """What a model says: pieces of words, 100 a second."""
    chance, due = random.Random(2), time.perf_counter()
    while not is_over():
        due += 1 / TOKENS_PER_SECOND
        wait = due - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        letters = "".join(chance.choices("etaoinshrdlu", k=chance.randint(2, 5)))
        said.append(letters + (" " if chance.random() < 0.6 else ""))
        yield said[-1]


def over_after(seconds: float) -> Callable[[], bool]:
    end = time.perf_counter() + seconds
    return lambda: time.perf_counter() >= end


async def streaming(seconds: float) -> dict[str, float]:
    """An agent streams beside ten people who type; then what everybody has is compared."""
    said: list[str] = []
    applied, chance = Applied(), random.Random(3)
    with serving() as server:
        address = f"{server.address}/ws/stream"
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
            people = [
                Person(
                    n,
                    await stack.enter_async_context(connect(address, compression=None)),
                )
                for n in range(PEOPLE)
            ]
            meter = Meter(
                await stack.enter_async_context(connect(address, compression=None))
            )
            agent = await stack.enter_async_context(
                collab.connect(server.url, name="Writer")
            )
            doc = await agent.open("stream")
            meter.client = doc.raw.client_id
            living = [tasks.create_task(each.live()) for each in people]
            living.append(tasks.create_task(meter.watch()))
            await asyncio.sleep(0.5)
            is_over = over_after(seconds)
            typing = tasks.create_task(_type_on(people, chance, is_over))
            with applied.measured():
                async with doc.turn(reason="bench") as turn:
                    await turn.stream("end", tokens(said, is_over))
            await typing
            for person in people:
                await person.end(chance)
            await until(lambda: all(str(each.text) == doc.text for each in people))
            snapshot = doc.raw.get_update()
            for task in living:
                task.cancel()
    text = "".join(said)
    lost, split = _inspected(snapshot, meter.client, text)
    content = len(text.encode())
    return {
        "tokens/s": len(said) / seconds,
        "bytes for each byte": meter.edits / content,
        "with presence": (meter.edits + meter.presence) / content,
        "apply p99 ms": 1000 * percentile(applied.seconds, 0.99),
        "apply p50 ms": 1000 * percentile(applied.seconds, 0.5),
        "apply CPU p99 ms": 1000 * percentile(applied.cpu, 0.99),
        "lost or out of order": lost,
        "words split": split,
    }


async def _type_on(
    people: list[Person], chance: random.Random, is_over: Callable[[], bool]
) -> None:
    while not is_over():
        await asyncio.sleep(chance.expovariate(PEOPLE * LETTERS_PER_SECOND))
        await chance.choice(people).type(chance)


def _inspected(snapshot: bytes, client: int, text: str) -> tuple[int, int]:
    """Whether what this client wrote is in the document, in order; and how many words somebody else is inside of."""
    order = Order.of(snapshot)
    shown = order.text("text")
    whose = bytearray(len(shown))
    for span in order.spans("text"):
        if span.client == client:
            whose[span.start : span.start + span.size] = b"\x01" * span.size
    written = "".join(one for one, is_its in zip(shown, whose, strict=True) if is_its)
    split = 0
    for word in re.finditer(r"\S+", shown):
        marks = whose[word.start() : word.end()]
        split += 0 < sum(marks) < len(marks)
    return abs(len(text) - len(written)) or int(text != written), split


async def stopping(times: int, *, is_apart: bool) -> tuple[list[float], list[float]]:
    """Milliseconds from somebody's stop to the last character of the stream that another member gets, and to the
    agent's own knowing of it; the others may be at another replica than the agent.
    """
    found: list[float] = []
    known: list[float] = []
    chance = random.Random(4)
    with ExitStack() as servers:
        if is_apart:
            server, other = servers.enter_context(replicas())
        else:
            server = other = servers.enter_context(serving())
        address = f"{other.address}/ws/stop"
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
            meter = Meter(
                await stack.enter_async_context(connect(address, compression=None))
            )
            stopper = await stack.enter_async_context(
                connect(
                    address, compression=None, subprotocols=[Subprotocol(yjs.COLLAB_V1)]
                )
            )
            agent = await stack.enter_async_context(
                collab.connect(server.url, name="Writer")
            )
            doc = await agent.open("stop")
            reading = [
                tasks.create_task(meter.watch()),
                tasks.create_task(_drain(stopper)),
            ]
            for _ in range(times):
                asked: list[float] = []
                turn, meter.client = doc.turn(reason="bench"), doc.raw.client_id

                async def stop(turn: Turn = turn, asked: list[float] = asked) -> None:
                    await asyncio.sleep(chance.uniform(0.6, 1.2))
                    asked.append(time.perf_counter())
                    await stopper.send(messages.cancel(turn.id, ""))

                asking = tasks.create_task(stop())
                try:
                    async with turn:
                        await turn.stream("end", tokens([], lambda: False))
                except Cancelled:
                    known.append(1000 * (time.perf_counter() - asked[0]))
                await asking
                await asyncio.sleep(0.5)
                heard = [at for at in meter.heard if at > asked[0] - 5]
                found.append(1000 * max(0.0, heard[-1] - asked[0]))
            for task in reading:
                task.cancel()
    return found, known


async def _drain(socket: ClientConnection) -> None:
    await socket.send(yjs.sync_step_1(b"\x00"))
    async for _ in socket:
        pass


async def dropping(times: int) -> dict[str, float]:
    """The socket of an agent is dropped again and again during one stream."""
    said: list[str] = []
    dropped = [0]
    with serving() as server:
        async with (
            Proxy("127.0.0.1", server.port) as proxy,
            collab.connect(f"http://127.0.0.1:{proxy.port}") as agent,
            asyncio.TaskGroup() as tasks,
        ):
            doc = await agent.open("drops")

            async def drop() -> None:
                chance = random.Random(5)
                while dropped[0] < times:
                    await until(
                        lambda: doc.provider.state.phase is not Phase.CONNECTING
                    )
                    await asyncio.sleep(chance.uniform(0, 0.15))
                    if doc.provider.state.phase is not Phase.CONNECTING:
                        before = proxy.accepted
                        proxy.reset()
                        dropped[0] += 1
                        await until(lambda before=before: proxy.accepted > before)

            tasks.create_task(drop())
            began = time.perf_counter()
            async with doc.turn(reason="bench") as turn:
                await turn.stream("end", tokens(said, lambda: dropped[0] >= times))
            took = time.perf_counter() - began
        async with collab.connect(server.url) as reader:
            shown = (await reader.open("drops")).text
    text = "".join(said)
    return {
        "drops": dropped[0],
        "seconds": took,
        "characters": len(text),
        "lost or doubled": abs(len(shown) - len(text)) or float(shown != text),
    }


# As scenarios of the benchmark


def _spread(bench: Bench, run: Callable[[], Any]) -> Any:
    """On both cores: the server and the clients share them."""
    os.sched_setaffinity(0, {bench.core, bench.load_core})
    try:
        return uvloop.run(run())
    finally:
        os.sched_setaffinity(0, {bench.load_core})


def flood(bench: Bench) -> None:
    """Ten people type beside an agent that makes 10,000 operations a second in their room, and in another one."""
    seconds = 4.0 if bench.is_quick else 15.0
    figures: dict[str, dict[str, list[float]]] = {}
    for _ in range(bench.rounds):
        for name, is_same_room in (("in their room", True), ("in another", False)):
            found = _spread(
                bench,
                lambda same=is_same_room: beside_a_flood(seconds, is_same_room=same),
            )
            for what, value in found.items():
                figures.setdefault(name, {}).setdefault(what, []).append(value)
    bench.figures["flood"] = figures
    for name, measures in figures.items():
        ratios = [
            beside / alone
            for beside, alone in zip(
                measures["p99 beside ms"], measures["p99 alone ms"], strict=True
            )
        ]
        what = f"people's p99 with the flood {name}, against without"
        bench.aim("flood", what, statistics.median(ratios), 1.1, unit=" ×")


def agents(bench: Bench) -> None:
    """An agent streams 100 tokens a second while ten people type into the same text; and it is stopped again and again."""
    seconds, stops = (10.0, 8) if bench.is_quick else (60.0, 40)
    found = _spread(bench, lambda: streaming(seconds))
    late, known = _spread(bench, lambda: stopping(stops, is_apart=False))
    apart, _ = _spread(bench, lambda: stopping(stops, is_apart=True))
    found |= {
        "stop p99 ms": percentile(late, 0.99),
        "stop from another replica p99 ms": percentile(apart, 0.99),
        "agent knows p99 ms": percentile(known, 0.99),
        "stops": len(late),
    }
    bench.figures["agents"] = {
        "collab": {name: [value] for name, value in found.items()}
    }
    what = "bytes on the wire for each byte of the text"
    bench.aim("agents", f"{what}, presence included", found["with presence"], 1.6)
    bench.aim(
        "agents",
        "a batch in the agent's own document, p99",
        found["apply p99 ms"],
        2,
        unit=" ms",
    )
    bench.aim(
        "agents",
        f"from stop to the last character, p99 of {stops}",
        found["stop p99 ms"],
        300,
        unit=" ms",
    )
    bench.aim(
        "agents",
        "the same, stopped at another replica",
        found["stop from another replica p99 ms"],
        300,
        unit=" ms",
    )
    bench.aim(
        "agents", "words of somebody that another is inside of", found["words split"], 0
    )
    bench.aim(
        "agents", "characters lost or out of order", found["lost or out of order"], 0
    )
    if found["lost or out of order"]:
        bench.lost.append(f"agents: {found['lost or out of order']:.0f} characters")


def agent_drops(bench: Bench) -> None:
    """The socket of an agent is dropped 100 times during one stream."""
    found = _spread(bench, lambda: dropping(10 if bench.is_quick else 100))
    bench.figures["agent_drops"] = {
        "collab": {name: [value] for name, value in found.items()}
    }
    lost = found["lost or doubled"]
    bench.aim("agent_drops", "characters lost or doubled", lost, 0)
    if lost:
        bench.lost.append(f"agent_drops: {lost:.0f} characters")
