"""Who is connected at all replicas: what is asked, what is answered, and what is not believed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from collab.protocol.envelope import Attending, Message, WhoAttends
from collab.replicas import attendance as module
from collab.replicas.attendance import (
    ANSWERS_AT_ONCE,
    MAX_QUESTIONS,
    Attendance,
    Attendee,
    Clerk,
)

pytestmark = pytest.mark.anyio

ADA = Attendee(
    *("ada", "Ada", "human", "", "", None, "c1", "y-websocket", 1000),
    *(["read"], "127.0.0.1"),
)


class Wire:
    """Keeps what was said."""

    def __init__(self) -> None:
        self.me = "me"
        self.said: list[Message] = []
        self.at = 0.0

    def now(self) -> float:
        return self.at

    def tell_all(self, message: Message) -> None:
        self.said.append(message)


def clerk(wire: Wire) -> Clerk:
    return Clerk(wire, lambda name: None)


def told(*found: Attendee, whole: bool = True) -> bytes:
    return orjson.dumps({"members": [each._asdict() for each in found], "whole": whole})


async def asked(
    replicas: set[str], answer: Callable[[Clerk, int], None]
) -> tuple[Attendance, Wire]:
    """What a question brings where this is the answer."""
    wire = Wire()
    asking = clerk(wire)
    task = asyncio.ensure_future(asking.ask("r", replicas))
    await asyncio.sleep(0)
    (question,) = wire.said
    assert isinstance(question, WhoAttends)
    answer(asking, question.number)
    return await task, wire


async def test_who_is_alone_asks_nobody() -> None:
    wire = Wire()

    found = await clerk(wire).ask("r", ())

    assert found == Attendance([], True)
    assert wire.said == []


async def test_the_answers_of_all_are_the_whole() -> None:
    bob = ADA._replace(principal="bob")

    def answer(asking: Clerk, number: int) -> None:
        asking.hear(Attending("one", "me", number, told(ADA)))
        asking.hear(Attending("two", "me", number, told(bob)))

    found, wire = await asked({"one", "two"}, answer)

    assert found == Attendance([ADA, bob], True)
    assert wire.said == [WhoAttends("me", 1, "r")]


async def test_nobody_answers_twice_or_for_another_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.01)

    def answer(asking: Clerk, number: int) -> None:
        for each in (
            Attending("one", "me", number, told(ADA)),
            Attending("one", "me", number, told(ADA)),
            Attending("two", "me", number + 1, told(ADA)),
            Attending("two", "you", number, told(ADA)),
        ):
            asking.hear(each)

    found, _ = await asked({"one", "two"}, answer)

    assert found == Attendance([ADA], False)


async def test_a_replica_that_has_too_many_says_so() -> None:
    def answer(asking: Clerk, number: int) -> None:
        asking.hear(Attending("one", "me", number, told(ADA, whole=False)))

    found, _ = await asked({"one"}, answer)

    assert found == Attendance([ADA], False)


async def test_no_more_are_listed_than_there_may_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_LISTED", 3)

    def answer(asking: Clerk, number: int) -> None:
        asking.hear(Attending("one", "me", number, told(ADA, ADA)))
        asking.hear(Attending("two", "me", number, told(ADA, ADA)))

    found, _ = await asked({"one", "two"}, answer)

    assert found == Attendance([ADA] * 3, False)


async def test_who_asks_too_much_at_once_hears_of_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.05)
    asking = clerk(Wire())

    found = await asyncio.gather(
        *(asking.ask("r", {"one"}) for _ in range(MAX_QUESTIONS + 5))
    )

    assert found == [Attendance([], False)] * (MAX_QUESTIONS + 5)
    assert asking._questions == {}


def test_a_flood_of_questions_is_answered_in_part() -> None:
    wire = Wire()
    asked = clerk(wire)

    for number in range(1000):
        asked.hear(WhoAttends("other", number, "r"))
    during = len(wire.said)
    wire.at += 1
    asked.hear(WhoAttends("other", 1000, "r"))

    assert during == ANSWERS_AT_ONCE
    assert wire.said[-1] == Attending("me", "other", 1000, told())


def test_what_does_not_fit_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TOLD_BYTES", 500)

    found, is_whole = module._decode(module._encode([ADA] * 10))

    assert found == [ADA] * len(found)
    assert 0 < len(found) < 10
    assert not is_whole


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"[]",
        b"{}",
        b'{"members": {}}',
        b'{"members": [1]}',
        b'{"members": [{}]}',
        *(
            orjson.dumps({"members": [{**ADA._asdict(), **wrong}]})
            for wrong in (
                {"principal": 5},
                {"role": None},
                {"turn": 0},
                {"address": 0},
                {"operations": "read"},
                {"operations": [5]},
                {"since_milliseconds": True},
                {"since_milliseconds": "1"},
            )
        ),
    ],
)
async def test_what_no_replica_says_is_not_believed(said: bytes) -> None:
    faults: list[Any] = []

    def answer(asking: Clerk, number: int) -> None:
        try:
            asking.hear(Attending("one", "me", number, said))
        except (ValueError, TypeError, LookupError) as error:
            faults.append(error)
        asking.hear(Attending("one", "me", number, told(ADA)))

    found, _ = await asked({"one"}, answer)

    assert len(faults) == 1
    assert found == Attendance([ADA], True)


def test_what_a_newer_replica_adds_is_passed_over() -> None:
    said = orjson.dumps(
        {"members": [{**ADA._asdict(), "later": 1}], "whole": True, "later": 1}
    )

    assert module._decode(said) == ([ADA], True)
