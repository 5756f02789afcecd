"""A Node process that holds stock clients and does what a test says."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


class DriverError(AssertionError):
    """A condition did not come true in time, or a client threw."""


class Driver:
    """Stock clients by name; every method returns when the clients have done it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()

    def start(self) -> None:
        """Start Node unless it runs; a client that throws takes it down."""
        if self._process is not None and self._process.poll() is None:
            return
        self._answers = queue.SimpleQueue()
        self._process = subprocess.Popen(
            ["node", str(HERE / "driver.mjs")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        threading.Thread(
            target=self._read, args=(self._process, self._answers), daemon=True
        ).start()

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()

    @staticmethod
    def _read(process: subprocess.Popen[str], answers: queue.SimpleQueue[str]) -> None:
        assert process.stdout is not None
        with process.stdout as stdout:
            for line in stdout:
                answers.put(line)
        answers.put("")

    def do(self, action: str, *, patience: float = 60, **details: Any) -> Any:
        """Carry out one action of driver.mjs and return its result."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"action": action, **details}) + "\n")
        self._process.stdin.flush()
        line = self._answers.get(timeout=patience)
        if not line:
            raise DriverError(f"the Node process ended during {action}")
        answer = json.loads(line)
        if "error" in answer:
            raise DriverError(answer["error"])
        return answer["result"]

    def open(self, name: str, kind: str, url: str, room: str, **options: Any) -> int:
        """Open a client and return its client id."""
        socket = options.pop("socket", None)
        answer = self.do(
            "open",
            name=name,
            kind=kind,
            url=url,
            room=room,
            socket=socket,
            options=options,
        )
        return int(answer["clientId"])

    def wait(
        self,
        names: str | Sequence[str],
        until: str,
        is_: Any = None,
        *,
        seconds: float = 20,
    ) -> None:
        """Wait until the condition holds for all of these clients at once."""
        self.do(
            "wait",
            patience=seconds + 20,
            **{"names": names, "until": until, "is": is_, "for": seconds},
        )

    def state(self, name: str) -> dict[str, Any]:
        """What a client holds and has seen."""
        return dict(self.do("state", name=name))

    def edit(self, names: str | Sequence[str], *steps: dict[str, Any]) -> None:
        """One transaction with these steps in each of the clients."""
        self.do("edit", names=names, steps=steps)
