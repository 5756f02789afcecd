"""The README followed word by word: each of its blocks runs, in order, against the server that the first one starts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue

import httpx2
import pytest
import tables
from processes import eventually
from services import Redis

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
BLOCKS = dict(
    re.findall(r"<!-- example: (\S+) -->\n```\w+\n(.*?)```", TEXT, flags=re.DOTALL)
)
ADDRESS = "127.0.0.1:8000"


class Running:
    """A program whose lines can be waited for."""

    def __init__(self, command: list[str | Path], cwd: Path, **env: str) -> None:
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env=os.environ | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._fresh: Queue[str | None] = Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._fresh.put(line.rstrip("\n"))
        self._fresh.put(None)

    def wait_for(self, is_it: Callable[[str], object]) -> str:
        while (line := self._fresh.get(timeout=100)) is not None:
            self.lines.append(line)
            if is_it(line):
                return line
        pytest.fail(
            "ended without the line that was expected:\n" + "\n".join(self.lines)
        )

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(40)
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def running(command: list[str | Path], cwd: Path, **env: str) -> Iterator[Running]:
    program = Running(command, cwd, **env)
    try:
        yield program
    finally:
        program.end()


def test_every_block_is_tried() -> None:
    assert set(BLOCKS) == {
        "run",
        "run-output",
        "browser",
        "python",
        "curl",
        "agent",
        "blocking",
        "key",
        "auth",
        "revoke",
        "replicas",
        "export",
        "install",
        "test",
    }
    assert len(re.findall(r"^```(?!mermaid)\w", TEXT, flags=re.MULTILINE)) == len(
        BLOCKS
    )


@pytest.mark.parametrize("name", tables.SNIPPETS)
def test_the_playground_offers_the_same_snippets(name: str) -> None:
    assert BLOCKS[name] == tables.snippet(tables.SNIPPETS[name]), "run `make fix`"


def test_continuous_integration_runs_the_test_command_of_the_readme() -> None:
    (command,) = BLOCKS["test"].splitlines()

    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith(f"&& exec {command}")


def test_installing_ends_in_the_command_that_the_wheel_brings() -> None:
    # test_wheel.py does what this block says, with a folder of its own and without the registry.
    assert "pip install ." in BLOCKS["install"]
    assert "/bin/collab serve --port" in BLOCKS["install"]


def test_the_readme_works_word_by_word(tmp_path: Path) -> None:
    settings = {"COLLAB_PORT": "0", "COLLAB_DATA": str(tmp_path / "data")}

    with running(["sh", "-c", "exec " + BLOCKS["run"]], ROOT, **settings) as server:
        port = re.search(
            r":(\d+)", server.wait_for(lambda line: line.startswith("listening on"))
        )
        assert port is not None
        here = f"127.0.0.1:{port[1]}"
        for line in BLOCKS["run-output"].replace(ADDRESS, here).splitlines():
            if line not in server.lines:
                server.wait_for(lambda said, line=line: said == line)
        browser(BLOCKS["browser"].replace(ADDRESS, here), here, tmp_path)
        python(BLOCKS["python"].replace(ADDRESS, here), tmp_path)
        assert "Gardener  A bench" in agent(BLOCKS["agent"].replace(ADDRESS, here))
        said = agent(BLOCKS["blocking"].replace(ADDRESS, here))
        assert "under the apple tree" in said
        assert "{'apple': {'age': 12}}" in said
        told = operate(BLOCKS["curl"].replace(ADDRESS, here), tmp_path)
        assert told.count("Hello, curl!") == 1
        assert "event: update" in told

    exported = operate(BLOCKS["export"], tmp_path)
    assert greeting("browser") in exported
    assert greeting("python") in exported

    key = operate(BLOCKS["key"], tmp_path).strip()
    with running(["sh", "-c", "exec " + BLOCKS["auth"]], ROOT, **settings) as server:
        line = server.wait_for(lambda line: line.startswith("listening on"))
        asked = f"{line.split()[-1]}/v1/tickets"
        bearer = {"authorization": f"Bearer {key}"}
        before = httpx2.post(asked, headers=bearer, json={}).status_code
        told = operate(BLOCKS["revoke"], tmp_path)
        ended = eventually(
            lambda: httpx2.post(asked, headers=bearer, json={}).status_code == 401,
        )
    assert (before, ended) == (201, True)
    assert '"subject":"ada"' in told
    assert "hold" in told


def test_two_replicas_on_one_port_start_with_the_command_of_the_readme(
    tmp_path: Path,
) -> None:
    settings = {"COLLAB_PORT": "0", "COLLAB_DATA": str(tmp_path / "data")}

    with Redis() as redis:
        command = BLOCKS["replicas"].replace("redis://127.0.0.1:6379", redis.url)
        with running(["sh", "-c", "exec " + command], ROOT, **settings) as server:
            line = server.wait_for(lambda line: line.startswith("listening on"))
            address = line.split()[-1]
            heard = eventually(
                lambda: (
                    'collab_replicas{worker="1"} 2.0'
                    in httpx2.get(f"{address}/metrics").text
                )
            )

    assert heard


def greeting(block: str) -> str:
    """What the snippet writes into the room."""
    said = re.search(r'"\\n([^"]+)"', BLOCKS[block])
    assert said is not None
    return said[1]


def browser(snippet: str, here: str, folder: Path) -> None:
    """Run it in Node, which keeps it connected, until the text has reached the room."""
    (folder / "node_modules").symlink_to(ROOT / "tests" / "compat" / "node_modules")
    (folder / "snippet.mjs").write_text(snippet)
    watcher = folder / "watcher.mjs"
    watcher.write_text(
        'import { WebsocketProvider } from "y-websocket";\n'
        'import * as Y from "yjs";\n'
        "const doc = new Y.Doc();\n"
        'doc.getText("text").observe((event) => console.log(JSON.stringify(event.target.toString())));\n'
        f'new WebsocketProvider("ws://{here}/ws", "playground", doc, {{ disableBc: true }});\n'
    )
    node = [shutil.which("node") or "node", "--experimental-websocket", "--no-warnings"]
    with (
        running([*node, watcher], folder) as watching,
        running([*node, folder / "snippet.mjs"], folder),
    ):
        watching.wait_for(lambda line: greeting("browser") in line)


def python(snippet: str, folder: Path) -> None:
    """Run it with the packages of these tests, in a folder that has none of our code."""
    (folder / "snippet.py").write_text(snippet)
    subprocess.run([sys.executable, "snippet.py"], cwd=folder, check=True, timeout=60)


def agent(snippet: str) -> str:
    """Run it as from a file at the top of the checkout; what it says."""
    command = [sys.executable, "-c", snippet]
    done = subprocess.run(
        command, cwd=ROOT, check=True, timeout=60, capture_output=True, text=True
    )
    return done.stdout


def operate(commands: str, folder: Path) -> str:
    """Run shell commands as from the checkout, with the data and the files of this test."""
    for name in (".venv", "collab"):
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    done = subprocess.run(
        ["sh", "-euc", commands],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
