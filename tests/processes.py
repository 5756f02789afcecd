"""A real server process, for tests of any folder."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ports import free_port
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

ROOT = Path(__file__).parent.parent
START_SECONDS = 30
BUSY_SECONDS = (
    5.0  # that a promise of time may take longer where others use the machine too
)


class Server:
    """A real `collab serve` process on a port and a directory of its own."""

    def __init__(self, data: Path, *flags: str) -> None:
        self.data, self.flags = data, flags
        self.port = free_port()
        self.errors = data.parent / f"{data.name}-stderr.log"
        self.process: subprocess.Popen[str] | None = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def address(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def command(self) -> list[str]:
        """What is run, flags aside."""
        served = ["serve", "--port", str(self.port), "--data", str(self.data)]
        return [sys.executable, "-m", "collab", *served]

    def start(self) -> None:
        """Start, always on the same port, and wait until it listens."""
        if self._temporary is None:
            # Workers have sockets in it, so its path is short; and who is killed leaves them there.
            self._temporary = tempfile.TemporaryDirectory(prefix="collab-")
        with self.errors.open("a") as errors:
            self.process = subprocess.Popen(
                [*self.command(), "--log-format", "json", *self.flags],
                cwd=ROOT,
                env=os.environ | {"TMPDIR": self._temporary.name},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        timer = threading.Timer(START_SECONDS, self.process.kill)
        timer.start()
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        timer.cancel()
        found = re.search(r":(\d+)\s*$", line)
        assert found, f"the server did not start: {line}{self.errors.read_text()}"
        self.port = int(found[1])

    def terminate(self) -> int:
        """SIGTERM: drain; returns the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self._end()

    def ended(self) -> int:
        """Wait until it has ended by itself; returns the exit code."""
        return self._end()

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        assert self.process is not None
        self.process.kill()
        self._end()

    def restart(self) -> None:
        self.terminate()
        self.start()

    def _end(self) -> int:
        assert self.process is not None
        code = self.process.wait(START_SECONDS)
        assert self.process.stdout is not None
        assert self._temporary is not None
        self.process.stdout.close()
        self._temporary.cleanup()
        self.process = self._temporary = None
        return code

    def logs(self) -> str:
        return self.errors.read_text()

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Another command on the same data directory."""
        command = [sys.executable, "-m", "collab", *arguments, "--data", str(self.data)]
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )


def eventually(check: Callable[[], bool], *, seconds: float = 30.0) -> bool:
    """Whether something that another process does comes true in time."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            return False
        os.sched_yield()
        time.sleep(0.01)
    return True


async def close_code(socket: ClientConnection) -> int | None:
    """Read until the server closes; the code that it closes with, None when the connection was cut."""
    try:
        while True:
            await socket.recv()
    except ConnectionClosed as end:
        return end.rcvd.code if end.rcvd else None
