"""Two agents in processes of their own, in one document over two replicas; one of them is killed. The browser tests of
client-js have the same with people at the playground.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from members import SECONDS, text, until
from processes import ROOT, Server
from services import Redis

import collab
from collab.sdk import Doc

pytestmark = pytest.mark.anyio

AGENT = Path(__file__).parent / "streaming_agent.py"
PLAN = "# Plan\n\n## One\n\n:\n\n## Two\n\n:\n\n## Me\n"
WORDS = 100


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
            if line.endswith(b"\n"):  # or it was killed while it said so
                self.saved = json.loads(line)


@asynccontextmanager
async def writer(
    url: str, room: str, section: str, count: int
) -> AsyncIterator[Writer]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(AGENT), url, room, section, section.lower(), str(count)),
        cwd=ROOT,
        stdout=PIPE,
        limit=1 << 20,
    )
    found = Writer(process)
    listening = asyncio.ensure_future(found.listen())
    try:
        yield found
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await listening


async def type_words(doc: Doc, count: int) -> None:
    """As a person does, letter by letter, at the end."""
    for letter in "".join(f" me{number}" for number in range(count)):
        text(doc.raw).insert(len(doc.text.encode()), letter)
        await asyncio.sleep(0.002)


def words(doc: Doc, prefix: str) -> list[str]:
    return re.findall(rf"\b{prefix}\d+\b", doc.text)


def first(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


async def test_what_a_killed_agent_called_saved_is_there_and_can_be_taken_back(
    serve: Callable[..., Server], room: str
) -> None:
    with Redis() as redis:
        here, there = (serve("--redis", redis.url) for _ in range(2))
        async with (
            writer(here.url, room, "One", 1_000_000) as one,
            writer(there.url, room, "Two", WORDS) as two,
            collab.connect(here.url, name="Me", kind="human") as me,
            collab.connect(there.url, name="Other", kind="human") as other,
        ):
            mine, others = await me.open(room), await other.open(room)
            text(mine.raw).insert(0, PLAN)
            typing = asyncio.ensure_future(type_words(mine, WORDS))
            await until(lambda: len(one.saved) >= 40)

            one.process.kill()
            await one.process.wait()
            await until(lambda: two.saved == first("two", WORDS))
            await typing

            # Everybody has the same, and what was called saved is in it.
            await mine.wait_for(lambda each: len(words(each, "two")) == WORDS, SECONDS)
            await others.wait_for(lambda each: each.text == mine.text, SECONDS)
            kept = words(mine, "one")
            assert kept == first("one", len(kept))
            assert len(kept) >= len(one.saved)
            assert words(mine, "two") == first("two", WORDS)
            assert words(mine, "me") == first("me", WORDS)

            # Neither replica shows it any more.
            for doc in (mine, others):
                await until(lambda doc=doc: "One" not in names(doc))

            # Its turn is taken back at the other replica; what everybody else wrote stays.
            undone = await others.undo(one.turn, reason="it did not finish")
            await mine.wait_for(lambda each: not words(each, "one"), SECONDS)
            await others.wait_for(lambda each: each.text == mine.text, SECONDS)
            assert undone.is_changed
            assert words(mine, "two") == first("two", WORDS)
            assert words(mine, "me") == first("me", WORDS)


def names(doc: Doc) -> set[str]:
    return {peer.user.name for peer in doc.provider.peers.values()}
