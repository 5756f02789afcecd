"""curl alone does everything: it creates a room, edits, reads, watches and deletes, with a key and without."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Queue

import pytest
from processes import Server

SECONDS = 20
EVERYTHING = "=read,write,presence,history,admin"


class Curl:
    """The program, with what every call needs."""

    def __init__(self, server: Server, key: str = "") -> None:
        self._here = f"{server.url}/v1/rooms"
        self._always = ["--silent", "--show-error", "--max-time", str(SECONDS)]
        if key:
            self._always += ["--header", f"Authorization: Bearer {key}"]

    def command(self, path: str, *options: str) -> list[str]:
        program = shutil.which("curl")
        assert program, "there is no curl here"
        return [program, *self._always, *options, self._here + path]

    def __call__(self, path: str, *options: str) -> str:
        return subprocess.run(
            self.command(path, "--fail-with-body", *options),
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    def send(self, method: str, path: str, content: object, *options: str) -> str:
        return self(
            path,
            *("--request", method, "--header", "Content-Type: application/json"),
            *("--data", json.dumps(content)),
            *options,
        )

    def insert(self, path: str, index: int, text: str, *options: str) -> int:
        """The position at which it is saved."""
        splices = [{"root": "text", "index": index, "insert": text}]
        said = self.send("PATCH", f"{path}/document", {"splices": splices}, *options)
        position = json.loads(said)["position"]
        assert isinstance(position, int)
        return position

    @contextmanager
    def watching(self, path: str) -> Iterator[Queue[str]]:
        """The lines of a stream of events, as they come."""
        command = self.command(
            path, "--no-buffer", "--header", "Accept: text/event-stream"
        )
        program = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert program.stdout is not None
        output, lines = program.stdout, Queue[str]()

        def read() -> None:
            for line in output:
                lines.put(line.rstrip("\r\n"))

        reader = threading.Thread(target=read)
        reader.start()
        try:
            yield lines
        finally:
            program.terminate()
            program.wait(SECONDS)
            reader.join()
            output.close()


def until(lines: Queue[str], start: str) -> str:
    """What follows the first line that begins so."""
    while not (line := lines.get(timeout=SECONDS)).startswith(start):
        pass
    return line[len(start) :].strip()


@pytest.mark.parametrize("is_open", [True, False])
def test_curl_alone_takes_part(serve: Callable[..., Server], is_open: bool) -> None:
    server = serve(*(() if is_open else ("--auth", "keys")))
    key = "" if is_open else make_key(server)
    curl = Curl(server, key)
    room = "/team%2Fplan"

    made = json.loads(curl.send("POST", "", {"name": "team/plan"}))
    assert made["position"] == 0

    assert curl.insert(room, 0, "Hello") == 1
    with curl.watching(f"{room}/updates?after=0") as lines:
        assert until(lines, "id:") == "1"
        twice = ("--header", "Idempotency-Key: once")
        positions = [curl.insert(room, 5, ", curl", *twice) for _ in range(2)]
        assert positions == [2, 2]
        assert until(lines, "id:") == "2"

    assert curl(f"{room}/document?format=text&min_position=2") == "Hello, curl"
    assert json.loads(curl("?prefix=team/"))["rooms"][0]["position"] == 2

    curl(room, "--request", "DELETE")
    assert json.loads(curl(""))["rooms"] == []
    gone = subprocess.run(
        curl.command(room, "--write-out", "%{http_code}", "--output", "/dev/null"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert gone.stdout == "404"


def make_key(server: Server) -> str:
    options = ("--principal", "curl", "--prefix", EVERYTHING, "--json")
    key = json.loads(server.run("key", "create", *options).stdout)["key"]
    assert isinstance(key, str)
    return key
