"""Who is connected to a room at all replicas: each is asked when somebody wants to know, and has a second to answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

import orjson

from collab.auth.permissions import names_of
from collab.protocol.envelope import Attending, Message, WhoAttends
from collab.replicas.allowance import Allowance
from collab.room import Room

ANSWER_SECONDS = 1.0  # that the others have; what comes later is passed over
MAX_QUESTIONS = (
    32  # that are open at once; who asks one more hears of this replica alone
)
MAX_TOLD_BYTES = 1 << 20  # of members, of one room at one replica
MAX_LISTED = 10_000  # of one room at the others
# Questions of others that are answered: each costs a look at every member of a room.
ANSWERS_AT_ONCE, ANSWERS_PER_SECOND = 50.0, 20.0


class Attendee(NamedTuple):
    """A member as others may be told of it."""

    principal: str
    name: str
    kind: str
    role: str
    on_behalf_of: str
    turn: str | None
    connection: str
    dialect: str
    since_milliseconds: int
    operations: list[str]
    address: str  # for administrators


_TEXTS = (
    "principal",
    "name",
    "kind",
    "role",
    "on_behalf_of",
    "connection",
    "dialect",
    "address",
)


class Attendance(NamedTuple):
    """Members, and whether these are all: not so when somebody did not answer in time, or has too many to tell."""

    attendees: list[Attendee]
    is_whole: bool


def attendees(room: Room | None) -> list[Attendee]:
    """The members that a room has here."""
    return [
        Attendee(
            principal=member.author.principal,
            name=member.principal.name,
            kind=member.principal.kind,
            role=member.principal.role,
            on_behalf_of=member.principal.on_behalf_of,
            turn=member.author.turn,
            connection=member.author.connection,
            dialect=member.line.dialect,
            since_milliseconds=int(member.since * 1000),
            operations=names_of(member.operations),
            address=member.line.address,
        )
        for member in (room.members if room else ())
    ]


class Wire(Protocol):
    """What asking and answering need of the relay."""

    me: str

    def now(self) -> float: ...

    def tell_all(self, message: Message) -> None:
        """Say something to all replicas, whatever rooms they have open."""
        ...


class _Question:
    def __init__(self, asked: Iterable[str]) -> None:
        self.missing = set(asked)
        self.heard: set[str] = set()
        self.found: list[Attendee] = []
        self.is_whole = True
        self.is_answered = asyncio.Event()


class Clerk:
    """Asks the others, and answers them."""

    def __init__(self, wire: Wire, live: Callable[[str], Room | None]) -> None:
        self._wire, self._live = wire, live
        self._questions: dict[int, _Question] = {}
        self._number = 0
        self._answers = Allowance(ANSWERS_AT_ONCE, ANSWERS_PER_SECOND, wire.now())

    async def ask(self, name: str, replicas: Iterable[str]) -> Attendance:
        """Who is in the room at these replicas, and at those that nobody here knows yet."""
        question = _Question(replicas)
        if not question.missing:
            return Attendance([], True)
        if len(self._questions) >= MAX_QUESTIONS:
            return Attendance([], False)
        self._number += 1
        number = self._number
        self._questions[number] = question
        try:
            self._wire.tell_all(WhoAttends(self._wire.me, number, name))
            async with asyncio.timeout(ANSWER_SECONDS):
                await question.is_answered.wait()
        except TimeoutError:
            question.is_whole = False
        finally:
            del self._questions[number]
        return Attendance(question.found, question.is_whole)

    def hear(self, message: WhoAttends | Attending) -> None:
        """A question of another replica, or an answer. Raises ValueError, TypeError or LookupError for what no replica says."""
        match message:
            case WhoAttends(sender, number, name):
                if self._answers.take(self._wire.now()):
                    told = _encode(attendees(self._live(name)))
                    self._wire.tell_all(Attending(self._wire.me, sender, number, told))
            case Attending(sender, to, number, told) if to == self._wire.me:
                question = self._questions.get(number)
                if question is not None and sender not in question.heard:
                    _take(question, sender, told)


def _take(question: _Question, sender: str, told: bytes) -> None:
    found, is_whole = _decode(told)
    room = MAX_LISTED - len(question.found)
    question.found += found[:room]
    question.is_whole &= is_whole and len(found) <= room
    question.heard.add(sender)
    question.missing.discard(sender)
    if not question.missing:
        question.is_answered.set()


def _encode(found: list[Attendee]) -> bytes:
    """As many of them as fit."""
    told, size = [], 0
    for attendee in found:
        size += len(orjson.dumps(attendee._asdict()))
        if size > MAX_TOLD_BYTES:
            break
        told.append(attendee._asdict())
    return orjson.dumps({"members": told, "whole": len(told) == len(found)})


def _decode(told: bytes) -> tuple[list[Attendee], bool]:
    said = orjson.loads(told)
    if type(said) is not dict or type(said.get("members")) is not list:
        raise TypeError
    return [_attendee(each) for each in said["members"]], said.get("whole") is True


def _attendee(said: Any) -> Attendee:
    """What a newer replica says beside it is passed over."""
    found = Attendee(*(said[name] for name in Attendee._fields))
    texts = [getattr(found, name) for name in _TEXTS]
    if found.turn is not None:
        texts.append(found.turn)
    if type(found.since_milliseconds) is not int or type(found.operations) is not list:
        raise TypeError
    if not all(isinstance(each, str) for each in (*texts, *found.operations)):
        raise TypeError
    return found
