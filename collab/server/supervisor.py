"""`--workers N`: one process that holds the port, and N replicas that serve it, each in a process of its own.

Each place has a listening socket for as long as the supervisor lives; workers come and go on it, and what connects
meanwhile waits in its queue. On Linux they are different sockets of one port (SO_REUSEPORT), among which the kernel
spreads connections evenly: from one queue that all take from, a burst of 400 connections to 4 workers went 27 to 212
to each, from a queue each 93 to 110. Who stays for hours must be spread by number, not by who is idle just now.
"""

from __future__ import annotations

import asyncio
import random
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from collab import logs
from collab.errors import ConfigurationError
from collab.server import banner
from collab.server.worker import READY, ask, socket_of
from collab.settings import Settings

START_SECONDS = 60.0  # for a worker to become ready
STABLE_SECONDS = 10.0  # who lives longer has not died at once
MAX_DEATHS = 6  # at once, one after the other, in one place
CHECK_SECONDS = 5.0  # between two looks whether a worker answers
HUNG_SECONDS = 30.0  # without an answer, after which it is killed
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 5.0
DRAIN_PATIENCE_SECONDS = 20.0  # beyond its window, for a worker to drain
FORCED_SECONDS = 10.0  # for a worker to end that was told to end at once

log = logs.logger(__name__)


class Child:
    """One process of a worker."""

    def __init__(self, number: int, process: Process, since: float) -> None:
        self.number, self.process = number, process
        self.since = since  # when it became ready
        self.is_ready = self.is_retired = False

    def tell(self, number: signal.Signals) -> None:
        if self.process.returncode is None:
            self.process.send_signal(number)

    def retire(self) -> None:
        """A successor serves its socket: it lets go of it, and drains."""
        self.is_retired = True
        assert self.process.stdin is not None
        self.process.stdin.close()

    async def end(self, seconds: float) -> int:
        """Wait for its end, and enforce it after that time; returns its exit code."""
        try:
            async with asyncio.timeout(seconds):
                return await self.process.wait()
        except TimeoutError:
            log.error("a worker does not end and is killed", number=self.number)
            self.tell(signal.SIGKILL)
            return await self.process.wait()


class Place:
    """One child after the other, on one listening socket."""

    def __init__(self, number: int, listening: socket.socket) -> None:
        self.number, self.listening = number, listening
        self.child: Child | None = None
        self.restarts = self.deaths = 0
        self.changing = asyncio.Lock()  # held by whoever puts another child here


class Supervisor:
    """Keeps a child in each place until it is told to end."""

    def __init__(
        self,
        command: Sequence[str],
        listening: Sequence[socket.socket],
        *,
        patience_seconds: float,
        hung_seconds: float = HUNG_SECONDS,
    ) -> None:
        """`patience_seconds`: how long a child may take to drain."""
        self._command, self._patience_seconds = tuple(command), patience_seconds
        self._hung_seconds = hung_seconds
        self._places = [Place(at, each) for at, each in enumerate(listening, start=1)]
        self._children: set[Child] = set()  # all that run, those that drain among them
        self._is_ending = asyncio.Event()
        self._is_asked = asyncio.Event()  # to replace all
        self._code = 0

    async def run(self, started: Callable[[], None]) -> int:
        """Until a signal, or until a child cannot be kept alive; returns the exit code. `started`: all listen.

        Raises ConfigurationError when there is no room for temporary files.
        """
        self._loop = asyncio.get_running_loop()
        self._heed_signals()
        try:
            with _temporary() as directory:
                self._directory = Path(directory)
                if await self._begin():
                    log.info("workers are ready", workers=len(self._places))
                    started()
                    async with asyncio.TaskGroup() as tasks:
                        tasks.create_task(self._roll())
                        for place in self._places:
                            tasks.create_task(self._keep(place))
                            tasks.create_task(self._watch(place))
                codes = [await child.process.wait() for child in self._children]
        finally:
            for number in self._signals:
                self._loop.remove_signal_handler(number)
            for place in self._places:
                place.listening.close()
        return self._code or int(any(codes))

    async def _begin(self) -> bool:
        """Whether all are ready: the first one alone, so that what is wrong with the settings or the store is said once."""
        first, *others = self._places
        if not await self._occupy(first):
            return False
        async with asyncio.TaskGroup() as tasks:
            made = [tasks.create_task(self._occupy(place)) for place in others]
        return all(task.result() for task in made)

    async def _occupy(self, place: Place) -> bool:
        """The first child of a place. One that cannot even start ends everything."""
        place.child = await self._start(place)
        if self._is_ending.is_set():
            return False
        if not place.child.is_ready:
            code = await place.child.process.wait()
            self._give_up(code, f"worker {place.number} did not start")
        return place.child.is_ready

    async def _start(self, place: Place) -> Child:
        """A process in that place: when this returns it is ready, or has ended."""
        held = place.listening.fileno()
        process = await asyncio.create_subprocess_exec(
            *self._command,
            *("--number", str(place.number), "--restarts", str(place.restarts)),
            *("--listening", str(held), "--directory", str(self._directory)),
            stdin=PIPE,
            stdout=PIPE,
            pass_fds=[held],
            process_group=0,  # the terminal's Ctrl-C is for the supervisor alone
        )
        child = Child(place.number, process, self._loop.time())
        self._children.add(child)
        if self._is_ending.is_set():
            child.tell(signal.SIGTERM)
        assert process.stdout is not None
        try:
            async with asyncio.timeout(START_SECONDS):
                child.is_ready = await process.stdout.readline() == READY
        except TimeoutError:
            log.error("a worker did not become ready", number=place.number)
        child.since = self._loop.time()
        if not child.is_ready:
            await self._discard(child)
        return child

    async def _discard(self, child: Child) -> None:
        """It closed its standard output, which is to say it has ended, or must."""
        await child.end(FORCED_SECONDS)
        self._children.discard(child)

    # One that ends unasked

    async def _keep(self, place: Place) -> None:
        while not self._is_ending.is_set():
            child = place.child
            assert child is not None
            code = await child.process.wait()
            async with place.changing:
                if place.child is child and not self._is_ending.is_set():
                    self._children.discard(child)
                    await self._replace(place, child, code)
        place.listening.close()

    async def _replace(self, place: Place, dead: Child, code: int) -> None:
        seconds = self._loop.time() - dead.since
        is_stable = dead.is_ready and seconds > STABLE_SECONDS
        place.deaths = 1 if is_stable else place.deaths + 1
        place.restarts += 1
        log.error(
            "a worker ended", number=place.number, code=code, seconds=int(seconds)
        )
        if place.deaths > MAX_DEATHS:
            self._give_up(code, f"worker {place.number} ends again and again")
            return
        pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**place.deaths)
        if not await self._ends_within(pause * random.uniform(0.5, 1.0)):
            place.child = await self._start(place)

    async def _ends_within(self, seconds: float) -> bool:
        """Wait so long, or until all are to end."""
        try:
            async with asyncio.timeout(seconds):
                return await self._is_ending.wait()
        except TimeoutError:
            return False

    async def _watch(self, place: Place) -> None:
        """Kill a child that lives and does not answer: what connects to its socket would wait for ever."""
        child, heard = place.child, self._loop.time()
        while not await self._ends_within(min(CHECK_SECONDS, self._hung_seconds / 3)):
            is_heard = await ask(socket_of(self._directory, place.number)) is not None
            if is_heard or place.child is not child:
                child, heard = place.child, self._loop.time()
            elif child is not None and self._loop.time() - heard > self._hung_seconds:
                log.error("a worker does not answer and is killed", number=place.number)
                child.tell(signal.SIGKILL)

    def _give_up(self, code: int, what: str) -> None:
        self._code = 128 - code if code < 0 else code or 1
        sys.stderr.write(f"collab: {what}, last with exit code {self._code}\n")
        self._tell_to_end()

    # Replacing all, one after the other

    async def _roll(self) -> None:
        while True:
            await self._is_asked.wait()
            self._is_asked.clear()
            if self._is_ending.is_set():
                return
            log.info("replacing the workers, one after the other")
            for place in self._places:
                if self._is_ending.is_set() or not await self._renew(place):
                    break
            else:
                log.info("all workers are replaced")

    async def _renew(self, place: Place) -> bool:
        """Put another child in the place of one that serves, and let that one drain; False when that one must stay."""
        async with place.changing:
            new = await self._start(place)
            if not new.is_ready:
                log.error("the new worker did not start", number=place.number)
                return False
            old, place.child = place.child, new
        assert old is not None
        old.retire()
        await old.end(self._patience_seconds)
        self._children.discard(old)
        return True

    # Signals

    def _heed_signals(self) -> None:
        is_in_terminal = sys.stdin is not None and sys.stdin.isatty()
        self._signals: dict[int, Callable[[], None]] = {
            signal.SIGINT: self._tell_to_end,
            signal.SIGTERM: self._tell_to_end,
            signal.SIGHUP: self._tell_to_end if is_in_terminal else self._reload,
            signal.SIGUSR1: self._is_asked.set,
        }
        for number, heed in self._signals.items():
            self._loop.add_signal_handler(number, heed)

    def _reload(self) -> None:
        for child in self._children:
            if child.is_ready:  # who is not reads the files anyway
                child.tell(signal.SIGHUP)

    def _tell_to_end(self) -> None:
        """The first time all drain together; the second time all end at once. Who takes too long is killed."""
        is_forced = self._is_ending.is_set()
        for child in self._children:
            if is_forced or not child.is_retired:
                child.tell(signal.SIGTERM)
        self._loop.call_later(
            FORCED_SECONDS if is_forced else self._patience_seconds, self._kill
        )
        self._is_ending.set()
        self._is_asked.set()

    def _kill(self) -> None:
        for child in self._children:
            child.tell(signal.SIGKILL)


def _temporary() -> TemporaryDirectory[str]:
    try:
        return TemporaryDirectory(prefix="collab-")
    except OSError as error:
        raise ConfigurationError(
            f"workers need a directory for their sockets, and there is none for temporary files: {error.strerror or error}"
        ) from None


def oversee(settings: Settings, command: Sequence[str]) -> int:
    """Have workers serve, each started by that command, until a signal; returns the exit code."""
    if sys.platform == "win32":
        raise ConfigurationError("setting workers: this system has no signals for them")
    listening = bind(settings.host, settings.port, settings.workers)
    supervisor = Supervisor(
        command,
        listening,
        patience_seconds=settings.drain_notice_seconds
        + settings.drain_seconds
        + DRAIN_PATIENCE_SECONDS,
    )
    is_secure = settings.tls_certificate is not None
    return asyncio.run(
        supervisor.run(lambda: banner.show(listening[0], is_secure=is_secure))
    )


def bind(host: str, port: int, count: int) -> list[socket.socket]:
    """As many sockets of one port; nobody listens on them yet. Raises ConfigurationError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]
        # With SO_REUSEPORT alone, the port of another server of this user would not be taken.
        with socket.create_server(address[:2], family=family) as probe:
            address = probe.getsockname()
        first = _bound(family, address)
        # Elsewhere the port is shared, but the newest socket gets everything.
        is_spread = sys.platform == "linux"
        return [
            first,
            *(
                _bound(family, address) if is_spread else first.dup()
                for _ in range(count - 1)
            ),
        ]
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {host} port {port}: {error.strerror or error}; choose another with --port"
        ) from None


def _bound(family: int, address: tuple[object, ...]) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(address)
    return made
