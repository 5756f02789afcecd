"""Replicas as real processes, which a scenario starts, stops and kills."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from ledger import Footprint
from ports import free_port

ROOT = Path(__file__).parents[2]
START_SECONDS = 60.0
END_SECONDS = 60.0


class Replica:
    """`collab serve` on a port of its own, which it keeps; `program` runs in its place, for builds that are broken."""

    def __init__(
        self,
        number: int,
        directory: Path,
        flags: Sequence[str],
        *,
        program: Sequence[str] = ("-m", "collab"),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.number, self.flags, self.program = number, tuple(flags), tuple(program)
        self.data = directory / f"replica{number}"
        self.log_path = directory / f"replica{number}.log"
        self.env = dict(env or {})
        self.port = free_port()
        self.is_up = False
        self.is_hidden = False  # up, and nobody is sent there
        self.starts = 0
        self._process: asyncio.subprocess.Process | None = None

    @property
    def address(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def log(self) -> str:
        return self.log_path.read_text() if self.log_path.exists() else ""

    async def start(self, *, is_expected: bool = True) -> int | None:
        """Returns when it listens, or with its exit code when it did not want to and that is what is asked for."""
        with self.log_path.open("a") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *self.program,
                *("serve", "--port", str(self.port), "--data", str(self.data)),
                *("--log-format", "json", *self.flags),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT)} | self.env,
            )
        assert self._process.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            line = await self._process.stdout.readline()
        found = re.search(rb":(\d+)\s*$", line)
        if found is None:
            code = await self.wait()
            assert not is_expected, (
                f"replica {self.number} exited with {code}: {self.log[-2000:]}"
            )
            return code
        self.port, self.is_up = int(found[1]), True
        self.starts += 1
        return None

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def kill(self) -> None:
        """SIGKILL, as a crash would."""
        self.signal(signal.SIGKILL)
        await self.wait()

    async def drain(self) -> int:
        """SIGTERM; the exit code."""
        self.is_up = False  # a balancer would not send anybody here any more
        self.signal(signal.SIGTERM)
        return await self.wait()

    async def wait(self) -> int:
        process = self._process
        assert process is not None
        async with asyncio.timeout(END_SECONDS):
            code = await process.wait()
        self.is_up, self._process = False, None
        process._transport.close()  # type: ignore[attr-defined]  # its pipe too
        return code

    async def end(self) -> None:
        """Whatever state it is in."""
        if self._process is not None:
            self.signal(signal.SIGCONT)
            await self.kill()

    def stop(self) -> None:
        self.signal(signal.SIGSTOP)

    def cont(self) -> None:
        self.signal(signal.SIGCONT)

    async def get(
        self, path: str, *, method: str = "GET", body: Any = None
    ) -> tuple[int, str]:
        """Status and body; 0 when nobody answers."""
        return await asyncio.to_thread(self._get, path, method, body)

    def _get(self, path: str, method: str, body: Any) -> tuple[int, str]:
        request = Request(
            f"http://127.0.0.1:{self.port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"} if body is not None else {},
        )
        try:
            with urlopen(request, timeout=5) as response:
                return response.status, response.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except (URLError, OSError):
            return 0, ""

    async def troubles(self) -> list[Any]:
        """Why it says that it should get no traffic."""
        _, body = await self.get("/readyz")
        return list(json.loads(body).get("reasons", [])) if body else ["no answer"]

    async def metric(self, name: str) -> float:
        """The sum over all label values."""
        _, body = await self.get("/metrics")
        found = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", body, re.MULTILINE)
        return sum(float(value) for value in found)

    def footprint(self) -> Footprint:
        return Footprint(
            resident_bytes=self._status("VmRSS") * 1024,
            files=len(os.listdir(f"/proc/{self.pid}/fd")),
            threads=self._status("Threads"),
        )

    @property
    def virtual_bytes(self) -> int:
        return self._status("VmSize") * 1024

    def _status(self, name: str) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(rf"^{name}:\s+(\d+)", status, re.MULTILINE)
        assert found is not None
        return int(found[1])
