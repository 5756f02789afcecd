"""What a process knows of being one worker among several: its number, its socket, and how the others are doing.

Its standard input is held open by the supervisor: when it ends, this worker is on its own, since a successor has taken
its place or the supervisor is gone, and drains. Its standard output says once that it is ready.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from prometheus_client import CollectorRegistry, generate_latest

READY = b"ready\n"
FIGURES_SECONDS = 1.0  # that a worker's figures are waited for

_FAMILY = re.compile(r"^(?=# HELP )", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Worker:
    """What a worker has from its supervisor."""

    number: int
    listening: socket.socket
    directory: Path  # of the sockets on which the workers hand out their figures
    restarts: int = 0  # of earlier workers in this place

    def begin(self, abandoned: Callable[[], None]) -> None:
        """Say that this worker is ready; `abandoned` is called once when nobody holds it any more."""
        loop, held = asyncio.get_running_loop(), sys.stdin.fileno()

        def look() -> None:
            if not os.read(held, 1024):
                loop.remove_reader(held)
                abandoned()

        loop.add_reader(held, look)
        sys.stdout.buffer.write(READY)
        sys.stdout.flush()


class Figures:
    """What `/metrics` answers, from whichever worker is asked: the figures of all, each under its worker's number.

    Not their sums: the counters of a worker that was replaced begin at nought, and only one by one does Prometheus see that.
    """

    def __init__(self, registry: CollectorRegistry, worker: Worker | None) -> None:
        self._registry, self._worker = registry, worker
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        if self._worker is not None:
            path = socket_of(self._worker.directory, self._worker.number)
            self._server = await asyncio.start_unix_server(self._hand_out, path)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._server is not None:
            self._server.close()

    async def gather(self) -> bytes:
        """The figures as Prometheus reads them."""
        if self._worker is None:
            return generate_latest(self._registry)
        paths = sorted(self._worker.directory.glob("*.sock"))
        async with asyncio.TaskGroup() as tasks:
            asked = {int(path.stem): tasks.create_task(ask(path)) for path in paths}
        return join({number: task.result() for number, task in asked.items()}).encode()

    async def _hand_out(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            writer.write(generate_latest(self._registry))
            await writer.drain()
        writer.close()


def socket_of(directory: Path, number: int) -> Path:
    """Where a worker hands out its figures."""
    return directory / f"{number}.sock"


async def ask(path: Path) -> str | None:
    """The figures of one worker; None when it does not answer in time."""
    try:
        async with asyncio.timeout(FIGURES_SECONDS):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                return (await reader.read()).decode()
            finally:
                writer.close()
    except OSError:  # a TimeoutError among them
        return None


def join(texts: Mapping[int, str | None]) -> str:
    """Several expositions as one: each family once, each sample with its worker; without text, a worker is down."""
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for number, text in sorted(texts.items()):
        if text is None:
            text = "# HELP collab_worker_up \n# TYPE collab_worker_up gauge\ncollab_worker_up 0.0\n"
        for family in _FAMILY.split(text)[1:]:
            about, kind, *lines = family.splitlines()
            name = about.split()[2]
            if len(about) > len(heads.get(name, [""])[0]):
                heads[name] = [about, kind]
            samples.setdefault(name, []).extend(_of(number, line) for line in lines)
    return "".join(
        "".join(f"{line}\n" for line in (*heads[name], *samples[name]))
        for name in heads
    )


def _of(number: int, sample: str) -> str:
    name, brace, rest = sample.partition("{")
    if brace:
        return f'{name}{{worker="{number}",{rest}'
    name, _, value = sample.partition(" ")
    return f'{name}{{worker="{number}"}} {value}'
