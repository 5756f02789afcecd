"""What a scenario of the fault table is given, and how a run of it is judged."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import (
    Awaitable,
    Callable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AsyncExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from cable import Cable
from cluster import Replica
from fresh import YjsReader, look, look_into_store
from ledger import (
    SLACK_BYTES,
    SLACK_COUNT,
    Footprint,
    Latencies,
    Ledger,
    View,
    Violation,
    complaints,
    grown,
    judge,
    slowed,
    unequal,
)
from proxy import Proxy
from services import Cluster, Postgres, Process, Redis, Sentinels
from typists import Places, Typist, latencies
from websockets.exceptions import WebSocketException

PRESENCE_SECONDS = 35.0
LAG_SECONDS = 0.02
SHORT_LIFE_MS = 60_000
ROOM = "faults"
HEALTHY = "healthy"  # a room that has nothing to do with the fault
FLAGS = (
    *("--messages-per-second", "100000", "--bytes-per-second", "100000000"),
    *("--drain-seconds", "1", "--idle-room-seconds", "2"),
    *("--compact-rows", "300", "--log-level", "warning"),
)

Store = Literal["sqlite", "postgres", "redis"]
Service = TypeVar("Service", Redis, Postgres, Sentinels, Cluster)


@dataclass(slots=True)
class Result:
    """One run of one scenario."""

    scenario: str
    seed: int
    acked: int = 0
    lost: int = 0
    doubled: int = 0
    converge_seconds: float = 0.0
    logged_seconds: float = 0.0
    away_seconds: float = 0.0
    seconds: float = 0.0
    violations: list[Violation] = field(default_factory=list)
    notes: dict[str, float | str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_json(cls, found: dict[str, Any]) -> Result:
        violations = [Violation(*one) for one in found["violations"]]
        return cls(**(found | {"violations": violations}))


class Stage:
    """Services, replicas and typists of one run; all are gone with its block."""

    def __init__(
        self,
        scenario: str,
        directory: Path,
        *,
        seed: int = 1,
        is_long: bool = False,
        program: Sequence[str] = ("-m", "collab"),
        patience_seconds: float = 60.0,
    ) -> None:
        self.result = Result(scenario, seed)
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.is_long = directory, is_long
        self.program, self.patience_seconds = tuple(program), patience_seconds
        self.chance = random.Random(f"{scenario} {seed}")
        self.ledger = Ledger(directory / "ledger.jsonl")
        self.healthy = Ledger()
        self.replicas: list[Replica] = []
        self.typists: list[Typist] = []
        self.proxies: list[Proxy] = []  # one for each replica, to Redis or Postgres
        self.cable: Cable | None = None
        self.redis: Redis | None = None  # that of the replicas
        self.views: list[View] = []
        self.may_lose = ""  # why what was acknowledged may be gone, where the level of the acknowledgement said so
        self.looks_into_store = True
        self.query = ""  # behind the name of every room: with access control, a token
        self.slack_bytes = SLACK_BYTES
        self.slack_files = SLACK_COUNT
        self.expected: tuple[str, ...] = ()  # in the log lines of exceptions
        self._dsn = ""
        self._keys = 0
        self._store_flags: dict[str, Any] = {}
        self._began = time.monotonic()
        self._healed_at = 0.0
        self._baselines: dict[int, Footprint] = {}
        self._stack = AsyncExitStack()
        self._tasks: asyncio.TaskGroup
        self._lives: dict[Typist, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        self._stack.callback(lambda: self.ledger.close())
        self._stack.push_async_callback(self._end_replicas)
        self._tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
        self._stack.push_async_callback(self.send_home)
        return self

    async def __aexit__(self, *reason: Any) -> None:
        await self._stack.__aexit__(*reason)

    async def _end_replicas(self) -> None:
        for replica in self.replicas:
            await replica.end()

    # Who is there

    def size(self, short: int, long: int) -> int:
        return long if self.is_long else short

    async def open(self, service: Service) -> Service:
        """Start a service."""
        await asyncio.to_thread(service.__enter__)
        self._stack.callback(service.__exit__, None, None, None)
        return service

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
        """Start replicas; with `proxied` each reaches that service through a proxy of its own."""
        if postgres and not self._dsn:
            self._dsn = await asyncio.to_thread(postgres.new_dsn)
        dsn = self._dsn if postgres else ""
        self._store_flags = {"data": self.directory / "replica0"}
        if redis:
            self._store_flags["redis"] = redis.url
        if postgres:
            self._store_flags["postgres"] = dsn
        new = []
        for _ in range(count):
            number = len(self.replicas) + len(new)
            url, own_dsn = redis.url if redis else "", dsn
            if proxied == "redis" and isinstance(redis, Redis):
                proxy = await self.open_proxy(redis)
                self.proxies.append(proxy)
                url = url.replace(f":{redis.port}", f":{proxy.port}")
            elif proxied == "postgres" and postgres:
                proxy = await self.open_proxy(postgres)
                self.proxies.append(proxy)
                own_dsn = dsn.replace(f":{postgres.port}", f":{proxy.port}")
            services = ("--redis", url) if url else ()
            services += ("--postgres", own_dsn) if own_dsn else ()
            new.append(
                Replica(
                    number,
                    self.directory,
                    (*FLAGS, *services, *flags),
                    program=program or self.program,
                    env=env,
                )
            )
        self.replicas += new
        if is_started:
            await asyncio.gather(*(replica.start() for replica in new))
            for replica in new:
                await look(replica.address, f"warm{self.query}")
                self.note_size(replica)
        return new

    def note_size(self, replica: Replica) -> None:
        """What C7 holds it against."""
        self._baselines[replica.number] = replica.footprint()

    def note_keys(self) -> None:
        """How many keys Redis holds once the room is there; more of it should not make more of them."""
        self._keys = self._count_keys()

    def _count_keys(self) -> int:
        """Without those that are gone within a minute, such as what a killed process has left of itself."""
        assert self.redis is not None
        keys = self.redis.do("KEYS", "*")
        assert isinstance(keys, list)
        lives = [int(str(self.redis.do("PTTL", str(key)))) for key in keys]
        return sum(not 0 <= life <= SHORT_LIFE_MS for life in lives)

    async def open_cable(self) -> Cable:
        """A cable to pull; services that are to be reached over it must listen on its near end."""
        self.cable = await asyncio.to_thread(Cable().__enter__)
        self._stack.callback(self.cable.__exit__)
        return self.cable

    async def open_proxy(self, service: Process | Replica) -> Proxy:
        """Over the cable, if there is one."""
        seed = self.chance.randrange(1 << 30)
        proxy = Proxy("127.0.0.1", service.port, seed=seed, cable=self.cable)
        return await self._stack.enter_async_context(proxy)

    def type(
        self,
        count: int,
        *,
        per_second: float = 40.0,
        at: Sequence[Replica] = (),
        room: str = "",
        ledger: Ledger | None = None,
        client_id: int | None = None,
        places: Places | None = None,
    ) -> list[Typist]:
        """Let clients type, each on one of these replicas that is up, or on any."""
        new = []
        for number in range(count):
            own = [at[number % len(at)]] if at else self.replicas

            def up(own: Sequence[Replica] = own) -> list[str]:
                return [one.address for one in own if one.is_up and not one.is_hidden]

            typist = Typist(
                ledger or self.ledger,
                room or ROOM + self.query,
                places or up,
                random.Random(self.chance.random()),
                per_second=per_second,
                client_id=client_id,
            )
            self._lives[typist] = self._tasks.create_task(typist.live())
            new.append(typist)
        if ledger is None:
            self.typists += new
        return new

    def type_elsewhere(self, replica: Replica) -> None:
        """Somebody in a room of their own, on whom the fault should leave no mark."""
        self.type(
            1,
            per_second=30,
            room=HEALTHY,
            ledger=self.healthy,
            places=lambda: [replica.address],
        )

    def bury(self, typists: Sequence[Typist]) -> None:
        """These never come back: what they were told is saved must be kept by others."""
        for typist in typists:
            typist.die()
            self._lives.pop(typist).cancel()
            if typist in self.typists:
                self.typists.remove(typist)

    async def part(self, typists: Sequence[Typist]) -> None:
        """As `bury`, and those at other replicas have heard of it: a fault that follows need not hide it."""
        self.bury(typists)
        await asyncio.sleep(0.15)

    async def dismiss(self, typists: Sequence[Typist]) -> None:
        """These leave as they should."""
        tasks = [self._lives.pop(typist) for typist in typists]
        self.typists = [one for one in self.typists if one not in typists]
        for typist, task in zip(typists, tasks, strict=True):
            typist.retire()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def send_home(self) -> None:
        await self.dismiss(list(self._lives))

    # What happens

    async def until(
        self, check: Callable[[], bool], what: str, *, seconds: float = 0.0
    ) -> float:
        """Wait for something, and say how long it took; a violation when it does not come true."""
        began = time.monotonic()
        while not check():
            if time.monotonic() - began > (seconds or self.patience_seconds):
                raise AssertionError(f"not in time: {what}")
            await asyncio.sleep(0.01)
        return time.monotonic() - began

    async def edits(self, count: int) -> None:
        """Let so many more edits be saved."""
        goal = len(self.ledger.saved) + count
        await self.until(
            lambda: len(self.ledger.saved) >= goal, f"{count} more edits are saved"
        )

    async def everybody(self) -> None:
        """All typists are connected and in step."""
        await self.until(
            lambda: all(one.is_connected for one in self.typists),
            "every typist is connected",
        )

    async def within(
        self, check: Callable[[], Awaitable[bool]], what: str, *, seconds: float
    ) -> float:
        """As `until`, for what must be asked for."""
        began = time.monotonic()
        while not await check():
            if time.monotonic() - began > seconds:
                raise AssertionError(f"not within {seconds:.0f} s: {what}")
            await asyncio.sleep(0.05)
        return time.monotonic() - began

    def expect(self, is_so: bool, what: str, *, check: str = "extra") -> None:
        """A condition of this scenario alone."""
        if not is_so:
            self.result.violations.append(Violation(check, what))

    def fault(self, what: str) -> None:
        self.ledger.note(what)

    def start_over(self, ledger: Ledger) -> None:
        """The room is another one from here on: nothing of what was saved may be in it."""
        self.ledger.close()
        self.ledger = ledger
        self._stack.callback(ledger.close)

    def healed(self) -> None:
        """From now on the time to converge counts."""
        self._healed_at = time.monotonic()

    @contextmanager
    def watching(self, source: str, before: float) -> Iterator[None]:
        """C8: the healthy room during this block, against that long before it."""
        began = time.monotonic()
        calm = latencies(self.healthy, began - before, began)
        lag: list[float] = []
        sampling = self._tasks.create_task(sample_lag(lag))
        try:
            yield
        finally:
            sampling.cancel()
        during = latencies(self.healthy, began, time.monotonic())
        self.result.notes[f"healthy room p99 ({source})"] = (
            f"{calm.p99 * 1000:.0f} → {during.p99 * 1000:.0f} ms"
            if calm.seconds and during.seconds
            else "nothing"
        )
        own_lag = Latencies(lag).p99 if lag else 0.0
        self.result.violations += slowed(source, calm, during, own_lag=own_lag)

    # The verdict

    async def judge(self) -> Result:
        """Wait until all is quiet, and hold everybody's view against the ledger."""
        result = self.result
        self._healed_at = self._healed_at or time.monotonic()
        for typist in self.typists:
            typist.is_typing = False
        await self._converge()
        await self._look()
        await self._leave()
        result.logged_seconds = self.ledger.worst_seconds_to_saved
        result.acked += len(self.ledger.saved)
        result.seconds = time.monotonic() - self._began
        return result

    async def _converge(self) -> None:
        """The clients that are there, by themselves."""
        deadline = time.monotonic() + self.patience_seconds
        while not self._is_quiet():
            if time.monotonic() > deadline:
                self._say_what_is_not_quiet()
                break
            await asyncio.sleep(0.02)
        self.result.away_seconds = max(
            (seconds for one in self.typists for seconds in one.away_seconds[1:]),
            default=0.0,
        )

    def _is_quiet(self) -> bool:
        if not all(one.is_connected and one.is_saved for one in self.typists):
            return False
        vectors = [one.doc.get_state() for one in self.typists]
        if len({len(vector) for vector in vectors}) > 1:
            return False
        return not unequal([one.view() for one in self.typists])

    def _say_what_is_not_quiet(self) -> None:
        self.result.violations.append(
            Violation(
                "C1",
                f"after {self.patience_seconds:.0f} s: {sum(not one.is_connected for one in self.typists)} not connected, "
                f"{sum(one.unsaved for one in self.typists)} edits not saved",
            )
        )
        self.result.violations += unequal([one.view() for one in self.typists])

    async def _look(self) -> None:
        """Fresh readers of two kinds through every replica; they may have to wait for presence, and for nothing else."""
        live = [one.doc.client_id for one in self.typists]
        up = [replica for replica in self.replicas if replica.is_up]
        deadline = time.monotonic() + min(PRESENCE_SECONDS, self.patience_seconds)
        seconds = 0.0
        async with YjsReader() as yjs:
            while True:
                self.views = []
                for replica in up:
                    self.views.append(await look(replica.address, ROOM + self.query))
                    self.views.append(
                        await yjs.look(replica.address, ROOM + self.query)
                    )
                own = [one.view() for one in self.typists]
                found = judge(self.ledger, [*self.views, *own], live)
                if not any(violation.check != "C6" for violation in found):
                    seconds = seconds or time.monotonic() - self._healed_at
                if not found or time.monotonic() > deadline:
                    break
                await asyncio.sleep(0.3)
        self.result.converge_seconds = seconds or time.monotonic() - self._healed_at
        self._add(found)

    def _add(self, found: Sequence[Violation]) -> None:
        result = self.result
        result.lost = max([result.lost, *(v.count for v in found if v.check == "C2")])
        result.doubled = max(
            [result.doubled, *(v.count for v in found if v.check == "C4")]
        )
        if self.may_lose and result.lost:
            result.notes["lost"] = f"{result.lost}: {self.may_lose}"
            found = [v for v in found if v.check not in ("C2", "C3")]
        result.violations += found

    async def _leave(self) -> None:
        """Everybody goes, then the replicas; what they leave behind, and what the store holds."""
        epochs = {epoch for one in self.typists for epoch in one.epochs if epoch}
        self.expect(len(epochs) <= 1, f"one history, not {len(epochs)}", check="C1")
        await self.send_home()
        for replica in [each for each in self.replicas if each.is_up]:
            await self._is_back_to_its_size(replica)
            code = await replica.drain()
            self.expect(code == 0, f"replica {replica.number} exits with {code}")
        for replica in self.replicas:
            lines = replica.log.splitlines()
            log = "\n".join(
                line for line in lines if not any(one in line for one in self.expected)
            )
            self.result.violations += complaints(f"replica {replica.number}", log)
        if self.redis is not None and self._keys:
            now = await asyncio.to_thread(self._count_keys)
            before, after = Footprint(0, 0, 0, self._keys), Footprint(0, 0, 0, now)
            self.result.violations += grown("Redis", before, after)
        if self.looks_into_store:
            stored = await look_into_store(self._store_flags, ROOM)
            found = judge(self.ledger, [*self.views[:1], stored], [])
            self._add([violation for violation in found if violation.check != "C6"])

    async def _is_back_to_its_size(self, replica: Replica) -> None:
        """C7, once the rooms have been put away."""
        before = self._baselines[replica.number]
        deadline = time.monotonic() + min(15.0, self.patience_seconds)
        while found := grown(
            f"replica {replica.number}",
            before,
            replica.footprint(),
            slack_bytes=self.slack_bytes,
            slack_files=self.slack_files,
        ):
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.1)
        self.result.violations += found


Play = Callable[[Stage], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row of the fault table, provoked for real."""

    name: str  # such as F6/postgres
    fault: str  # a sentence: what is done
    play: Play
    patience_seconds: float = 60.0
    stage: type[Stage] = Stage  # with whose clients

    async def run(
        self,
        directory: Path,
        *,
        seed: int,
        is_long: bool = False,
        program: Sequence[str] = ("-m", "collab"),
        patience_seconds: float = 0.0,
    ) -> Result:
        """Play it and judge it."""
        async with self.stage(
            self.name,
            directory,
            seed=seed,
            is_long=is_long,
            program=program,
            patience_seconds=patience_seconds or self.patience_seconds,
        ) as stage:
            try:
                await self.play(stage)
            except (AssertionError, OSError, WebSocketException) as error:
                what = f"{type(error).__name__}: {error}"
                stage.result.violations.append(Violation("extra", what))
            return await stage.judge()


async def sample_lag(lag: list[float]) -> None:
    """How much later than it wanted to this process goes on."""
    now = asyncio.get_running_loop().time
    while True:
        due = now() + LAG_SECONDS
        await asyncio.sleep(LAG_SECONDS)
        lag.append(now() - due)
