"""A real server process, and what an operator sees of it: its log, its counters, its memory."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from forging import AUDIENCE, ISSUER, Issuer
from peer import PATIENCE, ask

ROOT = Path(__file__).parents[2]

# Lines that tell how the server is, not what a peer did.
ORDINARY = re.compile(
    r"listening|served beyond|room (opened|closed|evicted)|checkpoint|compact|store|drain|stopp|start",
    re.I,
)
FENCE = "unknown HTTP version"


class House:
    """One running server; `flags` as on the command line. With an issuer it is one that asks for tokens."""

    def __init__(
        self, data: Path, *flags: str, issuer: Issuer | None = None, token: str = ""
    ) -> None:
        self.data, self.issuer, self._token = data, issuer, token
        self.lines: list[dict[str, Any]] = []
        self.raw_lines: list[bytes] = []
        self._news = threading.Condition()
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "collab",
                "serve",
                "--port",
                "0",
                "--data",
                str(data),
                "--log-format",
                "json",
                *flags,
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        found = re.search(r"listening on http://[^ ]*:(\d+)", line)
        assert found, f"the server said {line!r}"
        self.port = int(found[1])
        # The REST API is loaded later than the port is open: what that takes is no peer's doing.
        with urlopen(f"http://127.0.0.1:{self.port}/v1/openapi.json") as answer:
            answer.read()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                parsed = json.loads(line)
            except ValueError:
                parsed = {"event": "not JSON", "raw": line.decode("latin-1")}
            with self._news:
                self.raw_lines.append(line)
                self.lines.append(parsed)
                self._news.notify_all()

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()

    @property
    def token(self) -> str:
        """What an honest member shows."""
        return self.issuer.token() if self.issuer else self._token

    def is_alive(self) -> bool:
        return self.process.poll() is None

    async def counters(self) -> dict[str, float]:
        """Every sample of /metrics."""
        answer = await ask(
            self.port,
            f"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nConnection: close\r\n\r\n".encode(),
        )
        assert answer.status == 200, answer.raw
        samples = {}
        for line in answer.body.decode().splitlines():
            name, _, value = line.rpartition(" ")
            if name and not line.startswith("#"):
                with contextlib.suppress(ValueError):
                    samples[name] = float(value)
        return samples

    async def incidents(self, since: int) -> list[dict[str, Any]]:
        """What the log says of peers since then, complete: a line we cause on purpose comes after all others."""
        before = self._fences()
        await ask(self.port, b"GET / HTTP/2.0\r\nHost: fence\r\n\r\n")
        deadline = time.monotonic() + PATIENCE
        with self._news:
            while self._fences() == before:
                assert self._news.wait(deadline - time.monotonic()), (
                    "the log has stopped"
                )
        return [
            line
            for line in self.lines[since:]
            if line.get("reason") != FENCE
            and not ORDINARY.search(str(line.get("event")))
        ]

    def _fences(self) -> int:
        return sum(line.get("reason") == FENCE for line in self.lines)

    def memory_bytes(self, field: str) -> int:
        """`VmRSS` is now, `VmHWM` the most since `forget_peak`."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"{field}:\s+(\d+) kB", status)
        assert found
        return int(found[1]) * 1024

    def cpu_seconds(self) -> float:
        """What the process has worked; other than the clock it stands still while others have the machine."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2]
        user, system = fields.split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")


FLAGS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "hurried": (
        "--handshake-seconds",
        "1",
        "--idle-seconds",
        "2",
        "--slow-member-seconds",
        "1",
    ),
    "enforcing": ("--binding", "enforce"),
    "tight": ("--max-stash-bytes", "65536"),
    "bounded": (
        *("--host", "0.0.0.0", "--insecure-no-auth"),
        *("--max-sockets-per-address", "5"),
    ),
}


# With access control.
GUARDED: dict[str, tuple[str, ...]] = {
    "guarded": (),
    "proxied": (
        *("--trusted-proxies", "127.0.0.1"),
        *("--max-sockets-per-address", "5", "--auth-failures-per-minute", "3"),
    ),
}


def guarded(data: Path, *flags: str) -> House:
    """One that nobody enters without a token or a key."""
    issuer = Issuer()
    keys = issuer.write(data.parent / f"{data.name}.json")
    return House(
        data,
        *("--auth", "jwt", "--auth", "keys", "--jwt-keys", str(keys)),
        *("--jwt-audience", AUDIENCE, "--jwt-issuer", ISSUER),
        *flags,
        issuer=issuer,
    )


class Houses:
    """The servers of one test process, each started when first needed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open: dict[str, House] = {}

    def get(self, name: str) -> House:
        if name not in self._open:
            data = self._directory / name
            self._open[name] = (
                guarded(data, *GUARDED[name])
                if name in GUARDED
                else House(data, *FLAGS[name])
            )
        return self._open[name]

    def close(self) -> None:
        for house in self._open.values():
            house.close()


@contextlib.contextmanager
def houses(directory: Path) -> Iterator[Houses]:
    made = Houses(directory)
    try:
        yield made
    finally:
        made.close()
