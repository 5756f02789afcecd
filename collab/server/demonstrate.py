"""The process of a demo agent: runs the reviewer of `examples/`, which asks for a ticket by a line and gets it by a line."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType


def reviewer() -> ModuleType:
    """The example, which an installed package holds beside this file, and a checkout at its top."""
    beside = Path(__file__).with_name("reviewer.py")
    path = (
        beside
        if beside.exists()
        else Path(__file__).parents[2] / "examples" / "reviewer.py"
    )
    spec = importlib.util.spec_from_file_location("reviewer", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its data classes look for themselves
    spec.loader.exec_module(module)
    return module


class Server:
    """The server at the other end of the pipes. When it has gone, so must we."""

    def __init__(self, lines: asyncio.StreamReader) -> None:
        self._lines = lines
        self._tickets: asyncio.Queue[str] = asyncio.Queue(maxsize=1)

    async def ticket(self) -> str:
        print("ticket", flush=True)  # noqa: T201  # this is how it is asked
        return await self._tickets.get()

    async def listen(self) -> None:
        """Until it has nothing to say any more."""
        while line := await self._lines.readline():
            await self._tickets.put(line.decode().strip())


async def demonstrate(said: argparse.Namespace) -> None:
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
    )
    server = Server(lines)
    work = reviewer().review(
        said.url,
        said.room,
        token=server.ticket if said.tickets else None,
        name=said.name,
        role=said.role,
        idle_seconds=said.idle_seconds,
    )
    working = asyncio.ensure_future(work)
    listening = asyncio.ensure_future(server.listen())
    try:
        await asyncio.wait((working, listening), return_when=asyncio.FIRST_COMPLETED)
    finally:
        listening.cancel()
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("room")
    parser.add_argument("--name", required=True)
    parser.add_argument("--role", required=True)
    parser.add_argument("--idle-seconds", type=float, required=True)
    parser.add_argument("--tickets", action="store_true")
    # By it we are sent away, and a server that was started to ignore it has handed that down to us.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        asyncio.run(demonstrate(parser.parse_args()))
    except KeyboardInterrupt:
        pass  # it was sent away


if __name__ == "__main__":
    main()
