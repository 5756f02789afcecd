"""What is compared: every scenario starts its servers, puts a load on them and holds the outcome against its bars."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from statistics import median

import agents
import client
import fleet
import http_load
import pasts
import places
import traces
from client import Result
from servers import REPOSITORY, Kind, Server

Figures = dict[
    str, dict[str, list[float]]
]  # server → measure → its value in each round

FAN_OUT = ("µs/delivery", "p50 ms", "p99 ms", "logged p95 ms")
LOGGED = tuple(
    f"{load} {share} ms"
    for load in ("modest", "half of saturation")
    for share in ("p50", "p95", "p99")
)
MODEST = {"rooms": 20, "members": 10, "writers": 10, "rate": 4}
HOT = {"rooms": 1, "members": 50, "writers": 5, "rate": 40}
MANY = {"rooms": 100, "members": 10, "writers": 10}
JOINERS = 100
IDLE_ROOMS, IDLE_MEMBERS = 100, 10
SATURATED_MS = 100.0
STEP = 1.5
MOST_PROBES = 12
# Limits that would slow or refuse this load, which is all of one address and one principal.
UNLIMITED = (
    *("--requests-per-second-per-principal", "0"),
    *("--requests-per-second-per-address", "0"),
    *("--max-sockets-per-address", "0"),
)


def short(value: float) -> str:
    """Three figures; a dash for what was not measured."""
    if value != value:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


@dataclass(frozen=True, slots=True)
class Target:
    """One bar of the benchmark and how this run stands to it."""

    scenario: str
    what: str
    value: float
    bound: float
    is_least: bool = False  # at least, instead of at most
    unit: str = ""

    @property
    def is_reached(self) -> bool:
        return self.value >= self.bound if self.is_least else self.value <= self.bound

    def __str__(self) -> str:
        word = "reached" if self.is_reached else "MISSED "
        bar = "at least" if self.is_least else "at most"
        return f"{word}  {self.what}: {short(self.value)}{self.unit} ({bar} {short(self.bound)}{self.unit})"


@dataclass(slots=True)
class Bench:
    """One call of this program: what to compare, how long, and what came out."""

    kinds: tuple[Kind, ...]
    is_quick: bool
    rounds: int
    core: int
    load_core: int
    figures: dict[str, Figures] = field(default_factory=dict)
    targets: list[Target] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    runs: int = 0
    best_rate: float = 0.0  # at which ours saturates, updates a second of each writer
    others: list[float] = field(
        default_factory=list
    )  # share of the server's core that somebody else had

    @property
    def ours(self) -> Kind:
        return self.kinds[0]

    def run(self, server: Server, mode: str, **arguments: object) -> Result:
        """One run in rooms of its own, that other runs against this server have not touched."""
        self.runs += 1
        if mode in ("steady", "churn"):
            arguments.setdefault("trace", traces.keystrokes())
        arguments = {"room": f"run{self.runs}", "seed": self.runs, **arguments}
        result = client.run(server, mode, core=self.load_core, **arguments)
        if result.seconds:
            self.others.append(result.others_seconds / result.seconds)
        return result

    def expect_whole(self, scenario: str, kind: Kind, result: Result) -> None:
        """Remember a run in which something was lost: its figures are worth nothing."""
        if not result.is_whole:
            facts = {
                name: result[name]
                for name in (
                    "missing",
                    "echo_missing",
                    "closed",
                    "close_code",
                    "undecoded",
                )
            }
            self.lost.append(f"{scenario}, {kind.name}: {facts}")

    def interleave(
        self,
        measure: Callable[[Kind], dict[str, float]],
        kinds: Iterable[Kind] | None = None,
    ) -> Figures:
        """Every server once per round."""
        figures: Figures = {}
        kinds = tuple(kinds or self.kinds)
        for _ in range(self.rounds):
            for kind in kinds:
                for name, value in measure(kind).items():
                    figures.setdefault(kind.name, {}).setdefault(name, []).append(value)
        return figures

    def aim(
        self,
        scenario: str,
        what: str,
        value: float,
        bound: float,
        *,
        is_least: bool = False,
        unit: str = "",
    ) -> None:
        self.targets.append(Target(scenario, what, value, bound, is_least, unit))

    def aim_ratio(
        self,
        scenario: str,
        measure: str,
        bounds: dict[str, float],
        *,
        is_least: bool = False,
    ) -> None:
        """A bar that is a ratio to a peer: the median of the rounds' own ratios."""
        figures = self.figures[scenario]
        ours = figures[self.ours.name][measure]
        for peer, bound in bounds.items():
            if peer in figures:
                ratios = [
                    mine / theirs
                    for mine, theirs in zip(ours, figures[peer][measure], strict=True)
                    if theirs
                ]
                what = f"{measure} against {peer}"
                self.aim(
                    scenario,
                    what,
                    median(ratios) if ratios else float("nan"),
                    bound,
                    is_least=is_least,
                    unit=" ×",
                )

    def median(self, scenario: str, measure: str) -> float:
        return median(self.figures[scenario][self.ours.name][measure])


# Fan-out ------------------------------------------------------------------


def _fan_out(bench: Bench, scenario: str, shape: dict[str, int]) -> None:
    seconds = 2 if bench.is_quick else 5

    def measure(kind: Kind) -> dict[str, float]:
        with Server(kind, bench.core) as server:
            result = bench.run(
                server,
                "steady",
                warm=1,
                seconds=seconds,
                echo=int(kind.is_ours),
                **shape,
            )
        bench.expect_whole(scenario, kind, result)
        logged = result["echo_p95_ms"] if kind.is_ours else float("nan")
        return dict(
            zip(
                FAN_OUT,
                (
                    result.microseconds_per_delivery,
                    result["p50_ms"],
                    result["p99_ms"],
                    logged,
                ),
                strict=True,
            )
        )

    bench.figures[scenario] = bench.interleave(measure)


def hot(bench: Bench) -> None:
    """A: one room of 50, five of them writing 40 updates a second each."""
    _fan_out(bench, "hot", HOT)
    bench.aim_ratio("hot", "µs/delivery", {"y-websocket": 0.75, "hocuspocus": 0.6})


def modest(bench: Bench) -> None:
    """B: 20 rooms of 10, everybody writing 4 updates a second."""
    _fan_out(bench, "modest", MODEST)
    bench.aim_ratio("modest", "µs/delivery", {"y-websocket": 0.65, "hocuspocus": 0.5})
    bench.aim(
        "modest",
        "keystroke to the other members, p99",
        bench.median("modest", "p99 ms"),
        10,
        unit=" ms",
    )


def awareness(bench: Bench) -> None:
    """50 members of one room, each moving its cursor ten times a second."""

    def measure(kind: Kind) -> dict[str, float]:
        with Server(kind, bench.core) as server:
            seconds = 2 if bench.is_quick else 4
            result = bench.run(
                server, "awareness", members=50, rate=10, warm=1, seconds=seconds
            )
        bench.expect_whole("awareness", kind, result)
        return {
            "µs/delivery": result.microseconds_per_delivery,
            "p50 ms": result["p50_ms"],
            "p99 ms": result["p99_ms"],
        }

    bench.figures["awareness"] = bench.interleave(measure)
    bench.aim_ratio("awareness", "µs/delivery", {"y-websocket": 0.25})


# Saturation ---------------------------------------------------------------


def saturation(bench: Bench) -> None:
    """100 rooms of 10, everybody writing: the highest rate with p99 under 100 ms and nothing missing."""

    def measure(kind: Kind) -> dict[str, float]:
        rate, result = _search(bench, kind)
        if kind.is_ours:
            bench.best_rate = max(bench.best_rate, rate)
        if result is None:
            return {
                "deliveries/s": float("nan"),
                "µs/delivery": float("nan"),
                "p99 ms": float("nan"),
                "client busy": 0,
            }
        return {
            "deliveries/s": result.deliveries_per_second,
            "µs/delivery": result.microseconds_per_delivery,
            "p99 ms": result["p99_ms"],
            "client busy": result["busy"],
        }

    bench.figures["saturation"] = bench.interleave(measure)
    bench.aim_ratio(
        "saturation",
        "deliveries/s",
        {"y-websocket": 12, "hocuspocus": 8},
        is_least=True,
    )


def _search(bench: Bench, kind: Kind) -> tuple[float, Result | None]:
    """Half as much again until it fails, then between the last two; down first when even the start is too much."""
    rate = (60.0 if bench.is_quick else 40.0) if kind.is_ours else 4.0
    seconds, fine = (1.2, 1.3) if bench.is_quick else (2.5, 1.12)
    best, found, failed = 0.0, None, 0.0
    with Server(kind, bench.core) as server:
        for _ in range(MOST_PROBES):
            result = bench.run(
                server,
                "steady",
                warm=0.7,
                seconds=seconds,
                rate=rate,
                echo=int(kind.is_ours),
                **MANY,
            )
            if result.is_whole and result["p99_ms"] < SATURATED_MS:
                best, found = rate, result
            else:
                failed = rate
            if not failed:
                rate = best * STEP
            elif not best:
                rate = failed / STEP
            elif failed / best > fine:
                rate = (best * failed) ** 0.5
            else:
                break
    return best, found


def logged(bench: Bench) -> None:
    """From the keystroke to its author's knowing that it is on disk: at modest load and at half of saturation."""
    rate = bench.best_rate or _search(bench, bench.ours)[0]
    shapes: dict[str, dict[str, float]] = {"modest": {**MODEST}}
    if rate:
        shapes["half of saturation"] = {**MANY, "rate": rate / 2}

    def measure(_: Kind) -> dict[str, float]:
        found = dict.fromkeys(LOGGED, float("nan"))
        for name, shape in shapes.items():
            with Server(bench.ours, bench.core) as server:
                seconds = 2 if bench.is_quick else 4
                result = bench.run(
                    server, "steady", warm=1, seconds=seconds, echo=1, **shape
                )
            bench.expect_whole(f"logged, {name}", bench.ours, result)
            for share in ("p50", "p95", "p99"):
                found[f"{name} {share} ms"] = result[f"echo_{share}_ms"]
        return found

    bench.figures["logged"] = bench.interleave(measure, [bench.ours])
    bench.aim(
        "logged",
        "time to logged at modest load, p95",
        bench.median("logged", "modest p95 ms"),
        8,
        unit=" ms",
    )
    value = bench.median("logged", "half of saturation p95 ms")
    bench.aim(
        "logged", "time to logged at half of saturation, p95", value, 25, unit=" ms"
    )


# Joining and waiting ------------------------------------------------------


def join(bench: Bench) -> None:
    """100 members, 50 at a time, into a room that holds a document of 260,000 edits."""
    document = traces.document()

    def measure(kind: Kind) -> dict[str, float]:
        with Server(kind, bench.core) as server:
            result = bench.run(
                server,
                "join",
                members=JOINERS + 1,
                document=document.path,
                document_clock=document.clock,
                warm=1.5,
            )
        bench.expect_whole("join", kind, result)
        return {
            "CPU ms/join": result.cpu_seconds / JOINERS * 1e3,
            "p50 ms": result["p50_ms"],
            "p99 ms": result["p99_ms"],
        }

    bench.figures["join"] = bench.interleave(measure)
    bench.aim_ratio("join", "CPU ms/join", {"y-websocket": 0.15})


def idle(bench: Bench) -> None:
    """1,000 members in 100 rooms who say nothing: resident memory for each, its share of a room in it."""

    def measure(kind: Kind) -> dict[str, float]:
        with Server(kind, bench.core) as server:
            bench.run(
                server, "idle", rooms=1, members=10
            )  # what any first visit loads and allocates
            time.sleep(0.5)
            before, used = server.rss_bytes(), server.cpu_seconds()
            result = bench.run(server, "idle", rooms=IDLE_ROOMS, members=IDLE_MEMBERS)
            used = server.cpu_seconds() - used
        count = IDLE_ROOMS * IDLE_MEMBERS
        return {
            "KiB/member": (result.rss[0] - before) / count / 1024,
            "CPU ms/connection": used / count * 1e3,
        }

    bench.figures["idle"] = bench.interleave(measure)
    bench.aim(
        "idle",
        "resident memory of an idle member",
        bench.median("idle", "KiB/member"),
        6,
        unit=" KiB",
    )


def cold(bench: Bench) -> None:
    """From starting the process to the first member's holding the document of 260,000 edits out of SQLite."""
    document = traces.document()
    with tempfile.TemporaryDirectory(prefix="collab-bench-") as name:
        folder = Path(name)
        with Server(bench.ours, bench.core, folder=folder) as server:
            facts = {"document": document.path, "document_clock": document.clock}
            bench.run(server, "push", room="cold", members=1, **facts)

        def measure(kind: Kind) -> dict[str, float]:
            server = Server(kind, bench.core, folder=folder, is_awaited=False)
            words = {
                "path": kind.path,
                "room": "cold",
                "members": 1,
                "document_clock": document.clock,
            }
            waiting = client.start("join", server.port, core=bench.load_core, **words)
            with server:
                finished = client.finish(waiting)["finished"]
            return {"ms": (finished - server.started) * 1e3}

        bench.figures["cold"] = bench.interleave(measure, [bench.ours])
    bench.aim(
        "cold",
        "process start to the first member holding it",
        bench.median("cold", "ms"),
        400,
        unit=" ms",
    )


# Memory over time ---------------------------------------------------------


def churn(bench: Bench) -> None:
    """10,000 rooms opened, written to once and left, after as many others that have filled the bounded tables."""
    cycles = 4_000 if bench.is_quick else 20_000
    with Server(bench.ours, bench.core, flags=("--idle-room-seconds", "0.2")) as server:
        result = bench.run(server, "churn", cycles=cycles, at_once=20, timeout=300)
        time.sleep(3)
        last = server.rss_bytes()
    bench.expect_whole("churn", bench.ours, result)
    early, late = (
        max(result.rss[1:6]),
        min(max(result.rss[6:]), max(last, result.rss[-1])),
    )
    found = {
        "MiB after half": early / 2**20,
        "MiB after all": late / 2**20,
        "CPU ms/cycle": result.cpu_seconds / cycles * 1e3,
    }
    bench.figures["churn"] = {
        bench.ours.name: {name: [value] for name, value in found.items()}
    }
    bench.aim(
        "churn",
        f"memory after {cycles:,} rooms against after half of them",
        late / early,
        1.05,
        unit=" ×",
    )


def slow(bench: Bench) -> None:
    """A busy room of 20 in which one member stops reading, beside the same room in which everybody reads."""
    load = {
        "members": 20,
        "writers": 5,
        "rate": 40,
        "trace": traces.pastes(),
        "grace": 5,
    }
    seconds = 8 if bench.is_quick else 12

    def measure(kind: Kind) -> dict[str, float]:
        found: dict[str, float] = {}
        for stalled, name in ((0, "all read"), (1, "one stalls")):
            with Server(kind, bench.core) as server:
                result = bench.run(
                    server, "steady", stalled=stalled, warm=1, seconds=seconds, **load
                )
            bench.expect_whole(f"slow, {name}", kind, result)
            found |= {
                f"{name}: p99 ms": result["p99_ms"],
                f"{name}: MiB grown": (result.rss[1] - result.rss[0]) / 2**20,
            }
        return found

    figures = bench.figures["slow"] = bench.interleave(measure, [bench.ours])
    mine = {name: median(values) for name, values in figures[bench.ours.name].items()}
    ratio = mine["one stalls: p99 ms"] / mine["all read: p99 ms"]
    bench.aim(
        "slow", "the others' p99 against a room without it", ratio, 1.1, unit=" ×"
    )
    more = mine["one stalls: MiB grown"] - mine["all read: MiB grown"]
    bench.aim("slow", "memory more than in a room without it", more, 4, unit=" MiB")


# Access control and REST ---------------------------------------------------

TOKENS = 500
DOCUMENT_BYTES = 10_000


def _signed(folder: Path, count: int = 1) -> tuple[tuple[str, ...], list[str]]:
    """Flags of a server with access control, and tokens of as many people who may read and write everywhere."""
    from joserfc import jwt
    from joserfc.jwk import OctKey

    secret = secrets.token_hex(32)
    path = folder / "secret"
    path.touch(mode=0o600)
    path.write_text(secret)
    key, now = OctKey.import_key(secret), int(time.time())
    allowed = {"prefixes": {"": ["read", "write", "presence", "history", "admin"]}}
    tokens = [
        jwt.encode(
            {"alg": "HS256", "typ": "JWT"},
            {"sub": f"user{number}", "exp": now + 3600, "jti": str(number), **allowed},
            key,
        )
        for number in range(count)
    ]
    flags = ("--auth", "jwt", "--jwt-keys", str(path), *UNLIMITED)
    return flags, tokens


def rights(bench: Bench) -> None:
    """500 sockets with 500 tokens signed by HS256; and what asking for a right costs, in this process."""
    count = 100 if bench.is_quick else TOKENS

    def measure(kind: Kind) -> dict[str, float]:
        with tempfile.TemporaryDirectory(prefix="collab-bench-") as name:
            flags, tokens = _signed(Path(name), count + 1)
            with Server(kind, bench.core, flags=flags) as server:
                path = f"{kind.path}rights"
                asyncio.run(http_load.knock(server.port, path, tokens[count:]))
                before = server.cpu_seconds()
                asyncio.run(http_load.knock(server.port, path, tokens[:count]))
                cpu = server.cpu_seconds() - before
        return {"CPU s": cpu, "CPU ms/socket": cpu / count * 1e3, **_asked()}

    bench.figures["rights"] = bench.interleave(measure, [bench.ours])
    bench.aim(
        "rights",
        f"server CPU to open {count} sockets with distinct tokens",
        bench.median("rights", "CPU s"),
        2,
        unit=" s",
    )
    bench.aim(
        "rights",
        "asking for a right on a message",
        bench.median("rights", "ns/message"),
        1000,
        unit=" ns",
    )


def _asked() -> dict[str, float]:
    """What a message asks, and what is asked for each member once a second: has it ended, is it revoked, which grants."""
    sys.path.insert(0, str(REPOSITORY))
    from collab.auth.authority import Authority
    from collab.auth.permissions import READ, WRITE, Grant, Principal
    from collab.auth.registry import Registry
    from collab.auth.shelves.memory import MemoryShelf
    from collab.room import Visitor

    class Never:
        async def verify(self, credential: object, room: str) -> None:
            return None

    authority = Authority([Never()], Registry(MemoryShelf()))
    some = [Grant(f"team-{n}/", READ, is_prefix=True) for n in range(5)]
    ada = Principal("ada", grants=(*some, Grant("notes", READ | WRITE)), expires=9e9)
    member = Visitor(ada, READ | WRITE, connection="bench")

    def asked() -> int:
        return member.operations & WRITE

    return {
        "ns/message": _nanoseconds(asked),
        "ns/review": _nanoseconds(lambda: authority.operations(ada, "notes")),
    }


def _nanoseconds(call: Callable[[], object]) -> float:
    times = 200_000
    begun = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - begun) / times * 1e9


def rest(bench: Bench) -> None:
    """Requests for a document of 10 kB on eight connections, and splices into it, each answered once it is logged."""
    seconds = 1.0 if bench.is_quick else 4.0

    def measure(kind: Kind) -> dict[str, float]:
        with tempfile.TemporaryDirectory(prefix="collab-bench-") as name:
            flags, (token,) = _signed(Path(name))
            with Server(kind, bench.core, flags=flags) as server:
                return asyncio.run(_requests(server, token, seconds))

    bench.figures["rest"] = bench.interleave(measure, [bench.ours])
    for what, least in (("reads/s", 1500), ("splices/s", 600)):
        bench.aim("rest", what, bench.median("rest", what), least, is_least=True)


async def _requests(server: Server, token: str, seconds: float) -> dict[str, float]:
    port, path, kind = server.port, "/v1/rooms/rest/document", "application/json"
    text = ("All work and no play makes a dull page. " * 250)[:DOCUMENT_BYTES]
    begin = {"splices": [{"root": "text", "index": 0, "delete": 0, "insert": text}]}
    type_one = {
        "splices": [{"root": "text", "index": 5000, "delete": 0, "insert": "x"}]
    }
    await http_load.ask(
        port, http_load.request("PATCH", path, token, json.dumps(begin).encode(), kind)
    )
    read = http_load.request("GET", f"{path}?format=text&root=text", token)
    if len(await http_load.ask(port, read)) < DOCUMENT_BYTES:
        raise http_load.Failed("the document is not what was written")
    splice = http_load.request(
        "PATCH", path, token, json.dumps(type_one).encode(), kind
    )
    many = http_load.CONNECTIONS
    return {
        "reads/s": await http_load.press(port, [repeat(read)] * many, seconds),
        "splices/s": await http_load.press(port, [repeat(splice)] * many, seconds),
    }


SCENARIOS: dict[str, Callable[[Bench], None]] = {
    scenario.__name__: scenario
    for scenario in (
        hot,
        modest,
        saturation,
        logged,
        awareness,
        join,
        idle,
        cold,
        churn,
        slow,
        rights,
        rest,
        fleet.crossing,
        fleet.absent,
        fleet.comparing,
        fleet.recovery,
        fleet.restarting,
        agents.agents,
        agents.agent_drops,
        agents.flood,
        places.anchors,
        pasts.attribution,
        pasts.past,
        pasts.undo,
    )
}
