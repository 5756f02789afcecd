"""An agent in a process of its own: streams words into a section, and says which of them are saved.

    python tests/sdk/streaming_agent.py http://127.0.0.1:8000 room One one 200

The first line that it prints is the turn, each further one the words that are saved by then, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import collab
from collab.sdk import Doc


def say(what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def words(prefix: str, count: int) -> AsyncIterator[str]:
    for number in range(count):
        yield f"{prefix}{number} "
        await asyncio.sleep(0.01)


async def report(doc: Doc, prefix: str) -> None:
    """What stood here when a flush began is saved when it ends."""
    while True:
        written = [word for word in doc.text.split() if word.startswith(prefix)]
        await doc.provider.flush()
        say(written)
        await asyncio.sleep(0.05)


async def main(url: str, room: str, section: str, prefix: str, count: int) -> None:
    async with collab.connect(url, name=section) as agent:
        doc = await agent.open(room)
        await doc.wait_for(lambda each: "## Me\n" in each.text)
        reporting = asyncio.ensure_future(report(doc, prefix))
        async with doc.turn(reason=f"fill {section}") as turn:
            say(turn.id)
            await turn.stream(turn.section(section).end, words(prefix, count))
        reporting.cancel()
        say([f"{prefix}{number}" for number in range(count)])


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:5], int(sys.argv[5])))
