"""A person in a browser and two agents in processes of their own, in one document, over two replicas."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from members import SECONDS, until
from processes import ROOT, Server
from services import Redis

import collab
from collab.sdk import Doc

pytestmark = pytest.mark.anyio

HERE = Path(__file__).parent
LETTER = "# Plan\n\n## One\n\n:\n\n## Two\n\n:\n\n## Me\n\n"


class Person:
    """Somebody at the playground."""

    def __init__(self, node: Process) -> None:
        self._node = node

    async def do(self, does: str, **more: Any) -> Any:
        assert self._node.stdin is not None
        assert self._node.stdout is not None
        self._node.stdin.write(json.dumps({"does": does, **more}).encode() + b"\n")
        async with asyncio.timeout(SECONDS):
            answer = json.loads(await self._node.stdout.readline())
        assert "failed" not in answer, answer
        return answer["is"]

    async def sees(self, expected: str) -> None:
        async with asyncio.timeout(SECONDS):
            while await self.do("text") != expected:  # noqa: ASYNC110 - it is a browser's doing
                await asyncio.sleep(0.05)


@asynccontextmanager
async def running(*command: str) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdin=PIPE, stdout=PIPE, limit=1 << 20
    )
    try:
        yield process
    finally:
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(5):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


class Writer:
    """An agent in a process of its own, and which of its words it says are saved."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.turn = ""
        self.saved: list[str] = []

    async def listen(self) -> None:
        assert self.process.stdout is not None
        self.turn = json.loads(await self.process.stdout.readline())
        async for line in self.process.stdout:
            if line.endswith(b"\n"):
                self.saved = json.loads(line)


async def comes(doc: Doc, is_so: Callable[[str], bool]) -> None:
    try:
        await doc.wait_for(lambda each: is_so(each.text), SECONDS)
    except TimeoutError:
        assert doc.text == ""


def found(text: str, prefix: str) -> list[str]:
    return re.findall(rf"\b{prefix}\d+\b", text)


async def test_a_person_and_two_agents_write_and_one_agent_is_killed(
    serve: Callable[..., Server], room: str
) -> None:
    agent = (sys.executable, str(HERE / "streaming_agent.py"))
    with Redis() as redis:
        here, there = (serve("--redis", redis.url) for _ in range(2))
        async with (
            running("node", str(HERE / "person.mjs")) as node,
            running(*agent, here.url, room, "One", "one", "1000000") as killed,
            running(*agent, there.url, room, "Two", "two", "100") as survivor,
            collab.connect(here.url, name="Here") as at_one,
            collab.connect(there.url, name="There") as at_other,
            asyncio.TaskGroup() as tasks,
        ):
            mine, theirs = await at_one.open(room), await at_other.open(room)
            one, two = Writer(killed), Writer(survivor)
            listening = tasks.create_task(one.listen())
            tasks.create_task(two.listen())
            person = Person(node)
            await person.do("visit", address=f"{here.url}/?room={room}")
            await person.do("type", words=LETTER, delay=0)
            await comes(theirs, lambda text: "## Me" in text)

            typing = tasks.create_task(
                person.do("type", words=" ".join(f"me{n}" for n in range(60)), delay=5)
            )
            await until(lambda: len(one.saved) >= 40 and len(two.saved) >= 10)
            killed.kill()
            await killed.wait()
            await listening
            await typing
            await survivor.wait()

            # Everybody converges, and what was called saved is there.
            await comes(mine, lambda text: len(found(text, "two")) == 100)
            await comes(mine, lambda text: len(found(text, "me")) == 60)
            await comes(theirs, lambda text: text == mine.text)
            await person.sees(mine.text)
            assert found(mine.text, "two") == [f"two{n}" for n in range(100)]
            assert found(mine.text, "me") == [f"me{n}" for n in range(60)]
            kept = found(mine.text, "one")
            assert kept == [f"one{n}" for n in range(len(kept))]
            assert len(kept) >= len(one.saved) >= 40

            # Who was killed is not here any more, at either replica.
            for doc in (mine, theirs):
                await until(
                    lambda doc=doc: (
                        "One"
                        not in {each.user.name for each in doc.provider.peers.values()}
                    )
                )

            # Its turn is taken back at the other replica; what the others wrote stays.
            undone = await theirs.undo(one.turn, reason="it did not finish")
            assert undone.is_changed
            await comes(mine, lambda text: not found(text, "one"))
            await comes(theirs, lambda text: text == mine.text)
            await person.sees(mine.text)
            assert found(mine.text, "two") == [f"two{n}" for n in range(100)]
            assert found(mine.text, "me") == [f"me{n}" for n in range(60)]
