"""A real server process to test stock clients against."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from ports import free_port

ROOT = Path(__file__).parents[2]
ANNOUNCEMENT = "listening on "
COLLAB = (sys.executable, "-m", "collab")


class Server:
    """`collab serve` on a free port of its own; a restart keeps the port."""

    def __init__(
        self, data: Path, flags: tuple[str, ...], log: Path | None = None
    ) -> None:
        self.data = data
        self.port = free_port()
        self.url = ""
        self._flags = flags
        self._log = log or data.parent / f"{data.name}.log"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Returns when the server listens."""
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [
                    *COLLAB,
                    "serve",
                    "--port",
                    str(self.port),
                    "--data",
                    str(self.data),
                    *self._flags,
                ],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(
            target=self._read, args=(self._process, lines), daemon=True
        ).start()
        while ANNOUNCEMENT not in (line := lines.get(timeout=30)):
            assert line, f"the server did not start: {self._log.read_text()}"
        self.url = (
            line[line.index(ANNOUNCEMENT) + len(ANNOUNCEMENT) :].split()[0].rstrip("/")
        )

    @staticmethod
    def _read(process: subprocess.Popen[str], lines: queue.SimpleQueue[str]) -> None:
        assert process.stdout is not None
        with process.stdout as stdout:
            for line in stdout:
                lines.put(line)
        lines.put("")

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait until the process has ended; returns its exit code."""
        assert self._process is not None
        return self._process.wait(timeout=60)

    def stop(self) -> int:
        """SIGTERM, and wait until it has drained."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        self.signal(signal.SIGKILL)
        self.wait()

    @property
    def is_ready(self) -> bool:
        """What `/readyz` says."""
        try:
            with urlopen(f"{self.url}/readyz") as response:
                return int(response.status) == 200
        except HTTPError as error:
            error.close()
            return False

    @property
    def log(self) -> str:
        return self._log.read_text()

    def export(self, room: str, kind: str = "text", root: str = "text") -> str:
        """What `collab export` prints for a room."""
        command = [*COLLAB, "export", room, "--format", kind]
        command += ["--root", root] if kind == "text" else []
        done = subprocess.run(
            [*command, "--data", str(self.data)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def exported(self, room: str) -> dict[str, Any]:
        """The roots of a room as `collab export --format json` has them."""
        return dict(json.loads(self.export(room, "json")))


@contextmanager
def serve(data: Path, *flags: str, log: Path | None = None) -> Iterator[Server]:
    """Run a server for as long as the block lasts."""
    server = Server(data, flags, log)
    server.start()
    try:
        yield server
    finally:
        server.kill()
