"""The load client from Python: compile load.c once, run it on its core, measure the server between its marks."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from servers import Server, Unavailable, core_busy_seconds

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "load.c"
CACHE = HERE / ".cache"


@dataclass(slots=True)
class Result:
    """What one run of the load client found, and what the server used between `start` and `stop`."""

    facts: dict[str, float]
    cpu_seconds: float = 0.0
    others_seconds: float = 0.0  # on the server's core, not of the server
    seconds: float = 0.0
    rss: list[int] = field(default_factory=list)  # at each mark

    def __getitem__(self, name: str) -> float:
        return self.facts[name]

    @property
    def is_whole(self) -> bool:
        """Everything arrived, nobody was closed, and every byte was understood."""
        return not (
            self["missing"]
            or self["echo_missing"]
            or self["closed"]
            or self["undecoded"]
        )

    @property
    def microseconds_per_delivery(self) -> float:
        return self.cpu_seconds / max(self["arrived"], 1) * 1e6

    @property
    def deliveries_per_second(self) -> float:
        return self["measured_delivered"] / self["seconds"]


def binary() -> Path:
    """The compiled load client; compiled again when its source has changed."""
    mark = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    path = CACHE / f"load-{mark}"
    if path.exists():
        return path
    compiler = next(
        (name for name in ("cc", "gcc", "clang") if shutil.which(name)), None
    )
    if compiler is None:
        raise Unavailable(
            "the load client is written in C and there is no compiler: install gcc (apt install gcc libc6-dev)"
        )
    CACHE.mkdir(exist_ok=True)
    fresh = CACHE / f"load-{mark}.{os.getpid()}"
    command = [
        compiler,
        "-std=gnu11",
        "-O2",
        "-Wall",
        "-Wextra",
        "-o",
        str(fresh),
        str(SOURCE),
        "-lm",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Unavailable(
            f"the load client does not compile: {done.stderr.strip()[-500:]}"
        )
    fresh.replace(path)
    return path


def start(
    mode: str, port: int, *, core: int | None = None, **arguments: object
) -> subprocess.Popen[str]:
    """The load client under way; `room_prefix=1` becomes `--room-prefix 1`."""
    words = [str(binary()), mode, "--port", str(port)]
    for name, value in arguments.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    if core is not None and shutil.which("taskset"):
        words = ["taskset", "-c", str(core), *words]
    return subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(
    process: subprocess.Popen[str], at_mark: Callable[[str], None] = lambda mark: None
) -> dict[str, float]:
    """Follow the marks of a load client to its last line; Unavailable with its own words when it gave up."""
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        for line in process.stdout:
            if line.startswith("{"):
                facts: dict[str, float] = json.loads(line)
                return facts
            at_mark(line.strip())
        raise Unavailable(
            process.stderr.read().strip() or "the load client said nothing"
        )


def run(server: Server, mode: str, *, core: int, **arguments: object) -> Result:
    """One run against a running server."""
    result = Result({})
    arguments = {"path": server.kind.path, "dialect": server.kind.dialect, **arguments}
    begun: list[float] = []
    process = start(mode, server.port, core=core, **arguments)

    def at_mark(mark: str) -> None:
        used, busy = server.cpu_seconds(), core_busy_seconds(server.core)
        if mark == "start":
            begun.extend((used, busy))
        elif mark == "stop":
            result.cpu_seconds = used - begun[0]
            result.others_seconds = max(0.0, busy - begun[1] - result.cpu_seconds)
        result.rss.append(server.rss_bytes())
        if mode == "idle" and mark == "start":
            assert process.stdin is not None
            process.stdin.close()

    try:
        result.facts = finish(process, at_mark)
    except Unavailable as error:
        words = server.words().strip().splitlines()[-3:]
        raise Unavailable("\n".join((f"{server.kind.name}: {error}", *words))) from None
    result.seconds = result["seconds"]
    return result
