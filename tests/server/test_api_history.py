"""Who wrote what, what a document was, and taking turns back, over HTTP."""

from __future__ import annotations

import random
from typing import Any

import pytest
from calling import Caller, open_api
from hypothesis import given, settings
from hypothesis import strategies as st
from pycrdt import Doc, Text, TransactionEvent

from collab.auth.permissions import HISTORY, READ, WRITE
from collab.names import room_key
from collab.room import Visitor
from collab.store.base import Author
from collab.turns import About

pytestmark = pytest.mark.anyio

ROOM = "/v1/rooms/r"
HERE = f"{ROOM}/document"


class Agent:
    """Edits the room's document as a member does, and says which turn its edits belong to."""

    def __init__(self, call: Caller, name: str, **about: Any) -> None:
        self.doc: Doc[Any] = Doc()
        self.text = self.doc.get("text", type=Text)
        self._call, self.name, self._about = call, name, About(**about)
        self._turn: str | None = None
        self._made: list[bytes] = []
        self.doc.observe(self._note)

    def _note(self, event: TransactionEvent) -> None:
        self._made.append(event.update)

    def turn(self, id: str | None, **about: Any) -> None:
        self._turn = id
        self._about = About(**about)

    async def hear(self) -> None:
        """Take in what the others wrote."""
        self.doc.apply_update(await self._room())
        self._made.clear()

    async def write(self, place: int, delete: int, insert: str) -> None:
        """In bytes."""
        with self.doc.transaction():
            if delete:
                del self.text[place : place + delete]
            if insert:
                self.text.insert(place, insert)
        await self.send()

    async def send(self) -> None:
        """Bring what was edited into the room, one row for each transaction, and wait until it is logged."""
        replica = self._call.house.replica
        room = await replica.open(room_key("", "r"))
        principal = self._call.house.table.principals[self.name]
        member = Visitor(principal, READ | WRITE, connection="c")
        member.author = Author(self.name, "c", self._turn, self._about.encode())
        replica.join(room, member)
        for update in self._made:
            room.update(member, update)
        self._made.clear()
        replica.leave(room, member)
        await replica.logged(room, room.position)

    async def _room(self) -> bytes:
        room = await self._call.house.replica.open(room_key("", "r"))
        return room.document.snapshot()


def member(call: Caller, name: str, operations: int = READ | WRITE | HISTORY) -> Agent:
    call.may(name, operations)
    return Agent(call, name)


async def said(call: Caller) -> str:
    return (await call("GET", f"{HERE}?format=text")).text


async def back(
    call: Caller, turn: str, verb: str = "undo", token: str = "root", **body: Any
) -> dict[str, Any]:
    answer = await call("POST", f"{ROOM}/turns/{turn}/{verb}", token=token, json=body)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert isinstance(found, dict)
    return found


async def test_blame_says_who_wrote_which_characters() -> None:
    async with open_api() as call:
        ada, bot = member(call, "ada"), member(call, "bot")
        await ada.write(0, 0, "hello wörld")
        await bot.hear()
        bot.turn("t1", kind="agent", reason="greet better", on_behalf_of="ada")
        await bot.write(5, 0, " 😀 dear")

        answer = await call("GET", f"{ROOM}/blame", token="ada")

        found = answer.json()
        authors = found["authors"]
        assert [
            (span["start"], span["end"], authors[span["author"]]["principal"])
            for span in found["spans"]
        ] == [(0, 5, "ada"), (5, 12, "bot"), (12, 18, "ada")]
        assert authors[1]["turn"] == "t1"
        assert authors[1]["reason"] == "greet better"
        assert authors[1]["on_behalf_of"] == "ada"
        assert found["position"] == 2


async def test_a_turn_is_taken_back_and_what_others_wrote_inside_it_stays() -> None:
    async with open_api() as call:
        ada, bot = member(call, "ada"), member(call, "bot")
        await ada.write(0, 0, "one two three")
        await bot.hear()
        bot.turn("t1", on_behalf_of="ada")
        await bot.write(4, 3, "AGENT WROTE")
        await bot.write(15, 0, "!")
        await ada.hear()
        await ada.write(9, 0, "[ada]")

        done = await back(call, "t1", token="ada", reason="too loud")

        assert done["changed"] is True
        assert await said(call) == "one two[ada] three"
        turn = (await call("GET", f"{ROOM}/turns/{done['turn']}")).json()
        assert turn["author"]["undoes"] == "t1"
        assert turn["author"]["by"] == "bot"
        assert turn["author"]["reason"] == "too loud"
        assert turn["author"]["principal"] == "ada"


async def test_it_is_taken_back_once_and_can_be_brought_again_and_taken_back_again() -> (
    None
):
    async with open_api() as call:
        ada, bot = member(call, "ada"), member(call, "bot")
        await ada.write(0, 0, "keep this")
        await bot.hear()
        bot.turn("t1")
        await bot.write(5, 4, "that, and more")
        written = await said(call)

        states = []
        for verb in ("undo", "undo", "redo", "redo", "undo", "undo", "redo"):
            done = await back(call, "t1", verb)
            states.append((verb, done["changed"], await said(call)))

        assert states == [
            ("undo", True, "keep this"),
            ("undo", False, "keep this"),
            ("redo", True, written),
            ("redo", False, written),
            ("undo", True, "keep this"),
            ("undo", False, "keep this"),
            ("redo", True, written),
        ]


@settings(max_examples=25)
@given(seed=st.integers(0, 1 << 30))
async def test_turns_that_run_into_each_other_are_taken_back_in_any_order(
    seed: int,
) -> None:
    chance = random.Random(seed)
    async with open_api() as call:
        people = [member(call, name) for name in ("ada", "bot", "cyd")]
        inserted: dict[str, str] = {}  # character → turn
        deleted: dict[str, str] = {}
        turns: dict[str, str] = {}  # → principal
        for number in range(chance.randrange(5, 25)):
            one = chance.choice(people)
            await one.hear()
            turn = f"{one.name}-{chance.randrange(2)}"
            turns[turn] = one.name
            one.turn(turn)
            text = str(one.text)
            at, gone, new = chance.randrange(len(text) + 1), "", ""
            if text and chance.random() < 0.4:
                at = chance.randrange(len(text))
                gone = text[at : at + chance.randrange(1, 5)]
            if not gone or chance.random() < 0.3:
                new = "".join(
                    chr(0x4E00 + 10 * number + each)
                    for each in range(chance.randrange(1, 5))
                )
            inserted |= dict.fromkeys(new, turn)
            deleted |= dict.fromkeys(gone, turn)
            await one.write(len(text[:at].encode()), len(gone.encode()), new)
        whole = await said(call)
        undone: set[str] = set()
        for _ in range(12):
            turn = chance.choice([*turns])
            verb = "redo" if turn in undone else "undo"
            done = await back(call, turn, verb)
            if not done["changed"]:
                continue  # nothing of it was left
            undone ^= {turn}

            shown = [
                each
                for each, by in inserted.items()
                if by not in undone and (each not in deleted or deleted[each] in undone)
            ]
            now = await said(call)
            assert sorted(now) == sorted(shown)
            stayed = [each for each in whole if each in now]
            assert [each for each in now if each in whole] == stayed
