"""The members of this process, and how a run ends: everything saved, and the same everywhere. Runs under gevent."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import gevent
from agreement import Rooms, problems
from member import Member
from provider import Provider, Report

POLL_SECONDS = 0.2


class Place(NamedTuple):
    """Where and as what a run takes place."""

    urls: Sequence[str]
    nonce: str
    rooms: int

    def room(self, number: int) -> str:
        return f"load-{self.nonce}-{number % self.rooms}"


class Crew:
    """All members of this process. `process` is its number among those that make the load."""

    def __init__(self, place: Place, report: Report, *, process: int = 0) -> None:
        self.place, self.process = place, process
        self.is_writing = True
        self.members: list[Member] = []
        self._report = report
        self._enlisted: Counter[str] = Counter()
        self.chance = random.Random(f"{place.nonce} {process}")

    def enlist(self, role: str) -> Member:
        """One more member, not started yet; those of a role are spread over the rooms."""
        number = self._enlisted[role]
        self._enlisted[role] += 1
        room = self.place.room(self.process + number)
        return self.add(room, f"{role}-{self.process}-{number}", self.place.urls)

    def add(self, room: str, name: str, urls: Sequence[str]) -> Member:
        """A member of this room, not started yet."""
        provider = Provider(room, name, self._report, run=self.place.nonce)
        member = Member(provider, urls, self._report, self.chance)
        self.members.append(member)
        return member

    def drop_all(self) -> None:
        """Every connection at once."""
        for member in self.members:
            member.drop()

    def rest(self) -> None:
        """No more edits; who is waiting to come back does so now."""
        if self.is_writing:
            self.is_writing = False
            for member in self.members:
                member.hurry()

    def standing(self) -> Rooms:
        """How each member stands."""
        rooms: Rooms = {}
        for member in self.members:
            gevent.sleep(0)  # comparing takes a while, and frames go on coming
            rooms.setdefault(member.provider.room, {})[member.provider.name] = (
                member.standing()
            )
        return rooms

    def end(self) -> None:
        """Everybody leaves."""
        gevent.joinall([gevent.spawn(member.end) for member in self.members])


def unheard(event: str, seconds: float, failure: Exception | None = None) -> None:
    """Of what happens after the run nothing counts."""


def settle(ask: Callable[[], Rooms], place: Place, *, seconds: float) -> list[str]:
    """Wait until all members hold the same, then read every room anew through every address; what is still wrong
    when the time is over.
    """
    found = _until(ask, seconds)
    if found:
        return found
    readers = Crew(place, unheard)
    for room in ask():
        for number, url in enumerate(place.urls):
            readers.add(room, f"fresh-reader-{number}", [url]).start()

    def ask_both() -> Rooms:
        everybody = ask()
        for room, members in readers.standing().items():
            everybody.setdefault(room, {}).update(members)
        return everybody

    try:
        return _until(ask_both, seconds)
    finally:
        readers.end()


def _until(ask: Callable[[], Rooms], seconds: float) -> list[str]:
    deadline = time.monotonic() + seconds
    while found := problems(ask()):
        if time.monotonic() > deadline:
            break
        gevent.sleep(POLL_SECONDS)
    return found
