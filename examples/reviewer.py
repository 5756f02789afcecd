"""A reviewer that needs no model: it mends small slips in a text, or in the document of a rich editor such as Tiptap, while
people write, and lets be what they are typing.

    python -m examples.reviewer http://127.0.0.1:8000 playground

It shows what it does, makes the smallest edits that there are, and takes a turn for each pass, so that a pass can be
stopped while it lasts and taken back as a whole afterwards. What was stopped or taken back it does not do again.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import collab
from collab.sdk import Anchor, Cancelled, Doc, RateLimited, SdkError, Unavailable

PACE_SECONDS = 0.6  # between two edits, so that people can follow
QUIET_SECONDS = (
    3.0  # since somebody's caret moved: what they write in that line is done
)
DEBOUNCE_SECONDS = 1.0
MAX_DEBOUNCES = 3  # then it looks, though somebody goes on
MAX_EDITS = 20  # in one turn; the next takes what is left
MAX_REMEMBERED = 2000  # of what was done already; the oldest is forgotten
MAX_WORDS = 40  # in a sentence

SPELLINGS = {
    "adress": "address",
    "becuase": "because",
    "definately": "definitely",
    "occured": "occurred",
    "recieve": "receive",
    "seperate": "separate",
    "teh": "the",
    "thier": "their",
    "untill": "until",
    "wich": "which",
}
# Said twice on purpose, now and then.
TWINS = {"had", "that", "is", "bye", "no", "very"}


@dataclass(frozen=True, slots=True)
class Slip:
    """What to write in place of the characters from `start` to `end`, and why."""

    start: int
    end: int
    new: str
    reason: str
    sign: int  # a character beside it that stays, mended or not: it is known again by this
    line: tuple[int, str]  # where its line begins, and what it says


def slips(text: str) -> Iterator[Slip]:
    """All of them, in the order of the lines. Code is not looked at."""
    at, is_code = 0, False
    lines = text.split("\n")
    for before, line, after in zip(["", *lines], lines, [*lines[1:], ""], strict=False):
        if line.lstrip().startswith(("```", "~~~")):
            is_code = not is_code
        elif not is_code:
            found = slips_in(line, before, after, at)
            yield from sorted(found, key=lambda slip: slip.start)
        at += len(line) + 1


def slips_in(line: str, before: str, after: str, at: int) -> Iterator[Slip]:
    """Those of one line, which begins at this place."""
    here = at, line
    if re.match(r"#{1,6} ", line) and before.strip():
        yield Slip(at, at, "\n", "an empty line before a heading", at, here)
    code = [found.span() for found in re.finditer(r"`[^`]*`|\S*://\S*", line)]

    def matches(pattern: str) -> Iterator[re.Match[str]]:
        for found in re.finditer(pattern, line, re.IGNORECASE):
            if not any(first <= found.start() < last for first, last in code):
                yield found

    for found in matches(rf"\b({'|'.join(SPELLINGS)})\b"):
        word, start, end = found[0], at + found.start(), at + found.end()
        right = SPELLINGS[word.lower()]
        right = right.capitalize() if word[0].isupper() else right
        why = f"“{right}” for “{word}”"
        yield Slip(start, end, right, why, start - 1 if start else end, here)
    for found in matches(r"\b([^\W\d_]+)([ \t]+\1)\b"):
        word, start, end = found[1], at + found.start(2), at + found.end()
        if word.lower() not in TWINS:
            why = f"“{word}” was there twice"
            yield Slip(start, end, "", why, at + found.start(), here)
    spaces = re.search(r"(?<=\S)[ \t]+$", line)
    if spaces and spaces[0] != "  ":  # two are a line break in Markdown
        start, why = at + spaces.start(), "spaces at the end of a line"
        yield Slip(start, at + len(line), "", why, start - 1, here)
    if not line.startswith(("<!--", "|", "#")) and not after.startswith("<!--"):
        for sentence in re.finditer(r"[^.!?…]+", line):
            count = len(sentence[0].split())
            if count > MAX_WORDS:
                note = f"\n<!-- A sentence of {count} words: could it be two? -->"
                end, why = at + len(line), "a remark on a long sentence"
                yield Slip(end, end, note, why, at + sentence.start(), here)


def reason(found: list[Slip]) -> str:
    """One sentence on a pass."""
    first, more = found[0].reason, len(found) - 1
    said = f"{first[0].upper()}{first[1:]}"
    return said if not more else f"{said}, and {more} more"


Sign = tuple[Anchor | None, str, str]


class Reviewer:
    """One agent in one document."""

    def __init__(self, agent: collab.Agent, doc: Doc, *, pace: float = PACE_SECONDS):
        self.agent, self.doc, self.pace = agent, doc, pace
        self.seen: dict[Sign, None] = {}  # done, or not wanted
        self.carets: dict[int, tuple[Any, float]] = {}  # and when each moved last

    async def work(self, idle_seconds: float | None = None) -> None:
        """Until nobody has changed anything for so long."""
        while True:
            try:
                is_waiting = await self.review()
            except (RateLimited, Unavailable) as error:
                self.agent.status("error", detail=str(error))
                is_waiting = True  # for better times
            try:
                async with asyncio.timeout(
                    QUIET_SECONDS if is_waiting else idle_seconds
                ):
                    await self.moved()
            except TimeoutError:
                if not is_waiting:
                    return

    async def moved(self) -> None:
        """Until somebody has changed something, and nobody anything more for a moment; in a text, or in XML."""
        known = self.doc.read().text
        await self.doc.wait_for(lambda doc: doc.read().text != known)
        for _ in range(MAX_DEBOUNCES):
            known = self.doc.read().text
            await asyncio.sleep(DEBOUNCE_SECONDS)
            if self.doc.read().text == known:
                break

    async def review(self) -> bool:
        """One pass, as one turn. Whether something is left since somebody is typing there."""
        self.agent.status("thinking", detail="Reading")
        found, is_waiting = self.look()
        detail = ""
        if found:
            lines = [self.line_sign(slip) for slip in found[:MAX_EDITS]]
            try:
                async with self.doc.turn(reason=reason(found)) as turn:
                    for _ in range(min(len(found), MAX_EDITS)):
                        if not await self.mend(turn):
                            break
            except Cancelled:
                # Whoever stops it does not want the rest of it either.
                for slip in slips(self.doc.read().text):
                    self.remember(self.sign(slip))
                detail = "Was stopped, and leaves that alone"
            # When the turn is taken back the lines say again what they said.
            for sign in lines:
                self.remember(sign)
        self.agent.status("idle", detail=detail)
        return is_waiting

    async def mend(self, turn: Any) -> bool:
        """The first slip that there is now; False for none."""
        found, _ = self.look()
        if not found:
            return False
        self.agent.status("writing", detail=found[0].reason, turn=turn.id)
        turn.point(self.doc.anchor(found[0].start))
        await asyncio.sleep(self.pace)
        # People have gone on writing meanwhile. From here to the edit nothing waits.
        found, _ = self.look()
        if not found:
            return False
        slip = found[0]
        self.remember(self.sign(slip))
        reading = self.doc.read()
        if slip.start == slip.end:
            await turn.insert(reading.at(slip.start), slip.new)
        else:
            old = reading.match(slip.start, slip.end - slip.start)
            await turn.replace(old, slip.new)
        return True

    def look(self) -> tuple[list[Slip], bool]:
        """What is to be mended now, and whether there is more where somebody is typing."""
        text = self.doc.read().text
        busy = self.busy_lines(text)
        found, is_waiting = [], False
        for slip in slips(text):
            if self.sign(slip) in self.seen or self.line_sign(slip) in self.seen:
                continue
            if any(start <= slip.end and slip.start <= end for start, end in busy):
                is_waiting = True
            else:
                found.append(slip)
        return found, is_waiting

    def busy_lines(self, text: str) -> list[tuple[int, int]]:
        """The lines in which somebody's caret has moved a moment ago."""
        now = asyncio.get_running_loop().time()
        carets, lines = {}, []
        for client, peer in self.doc.provider.peers.items():
            if peer.is_agent or peer.cursor is None:
                continue
            place = peer.cursor.get("head")
            known, moved = self.carets.get(client, (None, 0.0))
            carets[client] = place, moved if place == known else now
            if now - carets[client][1] < QUIET_SECONDS:
                try:
                    index = self.doc.resolve(Anchor.from_json(place)).index
                except collab.CollabError:
                    continue  # no place in this text
                start = text.rfind("\n", 0, index) + 1
                end = text.find("\n", index)
                lines.append((start, len(text) if end < 0 else end))
        self.carets = carets
        return lines

    def sign(self, slip: Slip) -> Sign:
        """The same for the same slip, whatever is written around it."""
        return self.doc.anchor(slip.sign), "", slip.reason

    def line_sign(self, slip: Slip) -> Sign:
        """The same for the same slip, as long as its line says the same."""
        start, line = slip.line
        return self.doc.anchor(start - 1) if start else None, line, slip.reason

    def remember(self, sign: Sign) -> None:
        self.seen[sign] = None
        if len(self.seen) > MAX_REMEMBERED:
            del self.seen[next(iter(self.seen))]


async def review(
    url: str,
    room: str,
    *,
    token: Any = None,
    name: str = "Reviewer",
    role: str = "reviewer",
    idle_seconds: float | None = None,
) -> None:
    """Review a room until it is quiet for so long."""
    async with collab.connect(url, token=token, name=name, role=role) as agent:
        await Reviewer(agent, await agent.open(room)).work(idle_seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Mends small slips in a room.")
    parser.add_argument("url", help="of the server, such as http://127.0.0.1:8000")
    parser.add_argument("room")
    said = parser.parse_args()
    try:
        asyncio.run(
            review(said.url, said.room, token=os.environ.get("COLLAB_TOKEN") or None)
        )
    except KeyboardInterrupt:
        pass
    except SdkError as error:
        sys.exit(str(error))
