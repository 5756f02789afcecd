"""The servers under test: how each is started on its own core, and what the operating system says it used."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO
from urllib.error import HTTPError
from urllib.request import urlopen

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
START_SECONDS = 20.0
STOP_SECONDS = 30.0

# Only what would slow or refuse the load itself is raised: a whole document comes as one message. SQLite at FULL,
# guard, gate, binding audit and metrics stay on.
OUR_FLAGS = (
    *("--messages-per-second", "1000000", "--bytes-per-second", "1000000000"),
    *("--max-message-bytes", "16777216", "--max-update-bytes", "16777216"),
)


class Unavailable(Exception):
    """Something the benchmark needs is not here; the sentence says what."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the compared servers. `command` has {port} and {folder} where those go."""

    name: str
    command: tuple[str, ...]
    path: str = "/"  # before the room's name
    dialect: str = "y-websocket"
    folder: Path = REPOSITORY
    is_ours: bool = False


OURS = Kind(
    "collab",
    (
        sys.executable,
        "-m",
        "collab",
        "serve",
        "--port",
        "{port}",
        "--data",
        "{folder}",
        *OUR_FLAGS,
    ),
    path="/ws/",
    is_ours=True,
)
PEERS = (
    Kind(
        "y-websocket",
        ("node", str(HERE / "peers" / "y-websocket" / "serve.mjs"), "{port}"),
        folder=HERE / "peers" / "y-websocket",
    ),
    Kind(
        "hocuspocus",
        ("node", str(HERE / "peers" / "hocuspocus" / "serve.mjs"), "{port}"),
        folder=HERE / "peers" / "hocuspocus",
        dialect="hocuspocus",
    ),
)


def cores() -> tuple[int, int]:
    """One core for the server, one for the load."""
    free = sorted(os.sched_getaffinity(0))
    if len(free) < 2:
        raise Unavailable(
            "the benchmark needs two cores: one for the server, one for the load client"
        )
    return free[0], free[1]


def install(kind: Kind) -> None:
    """Fetch a peer's locked packages from npm, once."""
    if kind.is_ours or (kind.folder / "node_modules").exists():
        return
    if shutil.which("npm") is None:
        raise Unavailable(
            "the peers need Node 20 or newer with npm; --peers none measures this server alone"
        )
    sys.stderr.write(f"installing {kind.name} from npm\n")
    done = subprocess.run(
        ["npm", "ci", "--silent"], cwd=kind.folder, capture_output=True, text=True
    )
    if done.returncode:
        raise Unavailable(
            f"npm could not install {kind.name}: {done.stderr.strip()[-300:]}"
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(slots=True)
class Server:
    """A running server, pinned to its core: `with Server(kind, core) as server`. Its folder goes with it unless given."""

    kind: Kind
    core: int
    flags: tuple[str, ...] = ()
    folder: Path | None = None
    is_awaited: bool = True  # whether entering waits until the port answers
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] = field(init=False)
    started: float = field(init=False)  # monotonic, just before the process
    _own_folder: str = field(init=False, default="")
    _words: IO[bytes] = field(init=False, default_factory=tempfile.TemporaryFile)

    def __enter__(self) -> Server:
        if self.folder is None:
            self._own_folder = tempfile.mkdtemp(prefix="collab-bench-")
        folder = str(self.folder or self._own_folder)
        command = [
            part.format(port=self.port, folder=folder)
            for part in (*self.kind.command, *self.flags)
        ]
        self.started = time.clock_gettime(time.CLOCK_MONOTONIC)
        self.process = subprocess.Popen(
            command,
            cwd=self.kind.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._words,
            preexec_fn=self._settle,
            env=_environment(),
        )
        if self.is_awaited:
            self._await_port()
            if self.kind.is_ours:
                # It loads its REST API when that is asked for, or two seconds later, in the midst of what is measured.
                with suppress(HTTPError):  # another server in our place has none
                    url = f"http://127.0.0.1:{self.port}/v1/openapi.json"
                    with urlopen(url) as answer:
                        answer.read()
        return self

    def _settle(self) -> None:
        os.sched_setaffinity(0, {self.core})
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    def _await_port(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise Unavailable(
                    f"{self.kind.name} did not start: {self.words()[-500:]}"
                )
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.01)
        raise Unavailable(f"{self.kind.name} does not answer on port {self.port}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        self._words.close()
        if self._own_folder:
            shutil.rmtree(self._own_folder, ignore_errors=True)
            os.sync()  # or what the disk still has to do for this run slows the next

    def stop(self) -> int:
        """Ask it to end, make it end when it does not; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(
                signal.SIGTERM if self.kind.is_ours else signal.SIGKILL
            )
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
        code = self.process.wait()
        return code

    def words(self) -> str:
        """What it has said on stderr."""
        self._words.seek(0)
        return self._words.read().decode(errors="replace").strip()

    def cpu_seconds(self) -> float:
        """On the processor so far: every thread, every child alive, and every child that has been waited for."""
        return sum(_running_seconds(pid) for pid in self._family()) + _reaped_seconds(
            self.process.pid
        )

    def rss_bytes(self) -> int:
        """Resident memory of the process itself; a child that compacts comes and goes."""
        return _resident_bytes(self.process.pid)

    def _family(self) -> list[int]:
        family = [self.process.pid]
        for pid in family:
            family.extend(_children(pid))
        return family


def _children(pid: int) -> Iterator[int]:
    for task in _read(f"/proc/{pid}/task", is_folder=True).split():
        for child in _read(f"/proc/{pid}/task/{task}/children").split():
            yield int(child)


def _running_seconds(pid: int) -> float:
    tasks = _read(f"/proc/{pid}/task", is_folder=True).split()
    clocks = (_read(f"/proc/{pid}/task/{task}/schedstat").split() for task in tasks)
    return sum(int(clock[0]) for clock in clocks if clock) / 1e9


def _reaped_seconds(pid: int) -> float:
    words = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return (
        (int(words[13]) + int(words[14])) / os.sysconf("SC_CLK_TCK") if words else 0.0
    )


def _resident_bytes(pid: int) -> int:
    words = _read(f"/proc/{pid}/statm").split()
    return int(words[1]) * os.sysconf("SC_PAGE_SIZE") if words else 0


def _read(path: str, *, is_folder: bool = False) -> str:
    """What /proc says, or nothing: a thread or a child may end while one looks."""
    try:
        return " ".join(os.listdir(path)) if is_folder else Path(path).read_text()
    except OSError:
        return ""


def core_busy_seconds(core: int) -> float:
    """How long this core has been busy, with anybody's work."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith(f"cpu{core} "):
            user, nice, system, _idle, _wait, irq, softirq, steal = map(
                int, line.split()[1:9]
            )
            return (user + nice + system + irq + softirq + steal) / os.sysconf(
                "SC_CLK_TCK"
            )
    return 0.0


def _environment() -> dict[str, str]:
    """As a user's: Node's peers in production, and Python with compiled modules kept from the first start on."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name != "PYTHONDONTWRITEBYTECODE"
    }
    return {**kept, "NODE_ENV": "production"}
