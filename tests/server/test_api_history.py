"""Who wrote what, what a document was, and taking turns back, over HTTP."""

from __future__ import annotations

import random
from typing import Any

import pytest
from calling import Caller, open_api
from hypothesis import given, settings
from hypothesis import strategies as st
from pycrdt import Doc, Map, Text, TransactionEvent

from collab.auth.permissions import ADMIN, HISTORY, READ, WRITE
from collab.names import room_key
from collab.room import Visitor
from collab.store.base import Author, Row
from collab.store.memory import MemoryStore
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

    def forge(self, update: bytes) -> None:
        """To be sent as if it had been made here."""
        self._made.append(update)

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


async def test_a_turn_that_goes_on_after_it_was_taken_back_is_taken_back_again() -> (
    None
):
    async with open_api() as call:
        ada, bot = member(call, "ada"), member(call, "bot")
        await ada.write(0, 0, "keep this")
        await bot.hear()
        bot.turn("t1")
        await bot.write(5, 4, "that, ")
        await back(call, "t1")
        await bot.hear()
        await bot.write(9, 0, " and more")
        going_on = (await call("GET", f"{ROOM}/turns/t1")).json()

        states = [
            ((await back(call, "t1", verb))["changed"], await said(call))
            for verb in ("undo", "undo", "redo")
        ]
        await back(call, "t1")
        await bot.hear()
        await bot.write(9, 0, "?")
        await call("POST", f"{ROOM}/undo", json={"principal": "bot", "from_time": 0})

        assert await said(call) == "keep this"
        assert going_on["undone_by"] == ""
        assert states == [
            (True, "keep this"),
            (False, "keep this"),
            (True, "keep that,  and more"),
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


async def test_a_page_that_was_erased_comes_back_however_long_it_was() -> None:
    async with open_api(max_update_bytes=2048) as call:
        ada, bot = member(call, "ada"), member(call, "bot")
        for _ in range(20):
            await ada.write(0, 0, "all that was written here " * 20)
        await bot.hear()
        bot.turn("t")
        whole = await said(call)
        await bot.write(0, len(whole), "")

        await back(call, "t")

        assert await said(call) == whole


async def test_the_undo_of_an_undo_is_a_redo() -> None:
    async with open_api() as call:
        bot = member(call, "bot")
        bot.turn("t")
        await bot.write(0, 0, "hello")
        first = await back(call, "t")

        second = await back(call, first["turn"])
        third = await back(call, first["turn"])

        assert (second["changed"], third["changed"]) == (True, False)
        assert await said(call) == "hello"


async def test_maps_and_formats_are_taken_back_too() -> None:
    async with open_api() as call:
        ada, bot = member(call, "ada"), member(call, "bot")
        ada.doc["todo"] = Map({"done": False, "who": "ada"})
        await ada.write(0, 0, "bold words")
        await ada.send()
        await bot.hear()
        bot.turn("t")
        todo = bot.doc.get("todo", type=Map)
        todo["done"] = True
        del todo["who"]
        bot.text.format(0, 4, {"bold": True})
        await bot.send()

        await back(call, "t")

        assert (await call("GET", HERE)).json() == {
            "text": "bold words",
            "todo": {"done": False, "who": "ada"},
        }
        markdown = await call("GET", f"{HERE}?format=markdown")
        assert markdown.text == "bold words"


async def test_all_that_somebody_did_in_a_time_is_taken_back() -> None:
    async with open_api() as call:
        ada, bot = member(call, "ada"), member(call, "bot")
        await ada.write(0, 0, "one two")
        await bot.hear()
        await bot.write(3, 0, " and a half")
        bot.turn("t1")
        await bot.write(0, 3, "ONE")
        await back(call, "t1")
        asked = {"principal": "bot", "from_time": 0}

        first = await call("POST", f"{ROOM}/undo", json=asked)
        second = await call("POST", f"{ROOM}/undo", json=asked)
        after = await said(call)
        again = await back(call, first.json()["turn"])

        assert first.json()["changed"] is True
        assert second.json()["changed"] is False
        assert after == "one two"
        assert again["changed"] is True
        assert await said(call) == "one and a half two"


async def test_what_a_turn_of_that_time_did_counts_as_taken_back() -> None:
    async with open_api() as call:
        bot = member(call, "bot")
        bot.turn("t")
        await bot.write(0, 0, "hello")

        done = await call(
            "POST", f"{ROOM}/undo", json={"principal": "bot", "from_time": 0}
        )

        turn = (await call("GET", f"{ROOM}/turns/t")).json()
        assert turn["undone_by"] == done.json()["turn"]
        assert (await back(call, "t"))["changed"] is False


async def test_edits_by_request_belong_to_a_turn_of_whoever_asks() -> None:
    async with open_api() as call:
        call.may("ada", READ | WRITE)
        call.may("bot", READ | WRITE, kind="agent")
        for name in ("ada", "bot"):
            splices = [{"root": "text", "index": 0, "insert": f"{name} "}]
            answer = await call(
                "PATCH",
                f"{HERE}?turn=t&task=greet&reason=why+not",
                token=name,
                json={"splices": splices},
            )
            assert answer.status_code == 200, answer.text

        blamed = (await call("GET", f"{ROOM}/blame")).json()
        await back(call, "t", token="ada")

        assert [
            (each["principal"], each["turn"], each["task"], each["reason"])
            for each in blamed["authors"]
        ] == [("bot", "t", "greet", "why not"), ("ada", "t", "greet", "why not")]
        assert await said(call) == "bot "


# Rights


async def test_the_turn_of_another_is_taken_back_by_an_administrator_alone() -> None:
    async with open_api() as call:
        bot = member(call, "bot")
        call.may("eve", READ | WRITE | HISTORY)
        call.may("boss", READ | WRITE | ADMIN)
        bot.turn("t", on_behalf_of="ada")
        await bot.write(0, 0, "hello")

        path, options = f"{ROOM}/turns/t/undo", {"json": {}}
        of_eve = await call("POST", path, token="eve", **options)
        everything = await call(
            "POST",
            f"{ROOM}/undo",
            token="eve",
            json={"principal": "bot", "from_time": 0},
        )
        of_boss = await call("POST", path, token="boss", **options)

        assert (of_eve.status_code, of_eve.json()["code"]) == (403, "permission_denied")
        assert everything.status_code == 403
        assert of_boss.json()["changed"] is True


async def test_what_an_administrator_took_back_its_author_cannot_bring_again() -> None:
    async with open_api() as call:
        bot = member(call, "bot")
        bot.turn("t")
        await bot.write(0, 0, "hello")
        await back(call, "t", token="root")

        answer = await call("POST", f"{ROOM}/turns/t/redo", token="bot", json={})

        assert answer.status_code == 403
        assert await said(call) == ""


async def test_a_turn_stays_its_authors_whoever_took_it_back_meanwhile() -> None:
    async with open_api() as call:
        bot = member(call, "bot")
        bot.turn("t")
        await bot.write(0, 0, "hello")
        await back(call, "t", token="root")
        await back(call, "t", "redo", token="root")

        done = await back(call, "t", token="bot")

        assert done["changed"] is True


async def test_the_past_is_for_who_may_read_the_log() -> None:
    async with open_api() as call:
        ada = member(call, "ada")
        call.may("reader", READ)
        await ada.write(0, 0, "hello")

        for path in ("document?at=1", "blame", "changeset?from=0", "activity"):
            answer = await call("GET", f"{ROOM}/{path}", token="reader")
            assert answer.status_code == 403, path


async def test_a_turn_that_several_principals_have_is_asked_for_by_its_principal() -> (
    None
):
    async with open_api() as call:
        ada, bot = member(call, "ada"), member(call, "bot")
        ada.turn("t")
        await ada.write(0, 0, "ada")
        await bot.hear()
        bot.turn("t")
        await bot.write(3, 0, "bot")

        unclear = await call("POST", f"{ROOM}/turns/t/undo", json={})
        own = await back(call, "t", token="ada")
        named = await back(call, "t", principal="bot")

        assert (unclear.status_code, unclear.json()["code"]) == (409, "conflict")
        assert own["changed"] is named["changed"] is True
        assert await said(call) == ""


async def test_a_turn_that_is_not_there_is_not_found() -> None:
    async with open_api() as call:
        ada = member(call, "ada")
        await ada.write(0, 0, "hello")

        for method, path in (
            ("GET", f"{ROOM}/turns/t"),
            ("POST", f"{ROOM}/turns/t/undo"),
            ("POST", f"{ROOM}/turns/t/redo"),
        ):
            options = {"json": {}} if method == "POST" else {}
            answer = await call(method, path, **options)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_a_forged_name_of_a_turn_is_refused() -> None:
    async with open_api() as call:
        await member(call, "ada").write(0, 0, "hello")

        for name in ("a%20b", "%00", "@1-2", "x" * 65):
            answer = await call("POST", f"{ROOM}/turns/{name}/undo", json={})
            assert answer.status_code == 400, name


async def test_the_same_request_takes_back_once() -> None:
    async with open_api() as call:
        bot = member(call, "bot")
        bot.turn("t")
        await bot.write(0, 0, "hello")
        options: dict[str, Any] = {"json": {}, "headers": {"idempotency-key": "k"}}

        first = await call("POST", f"{ROOM}/turns/t/undo", **options)
        await back(call, "t", "redo")
        second = await call("POST", f"{ROOM}/turns/t/undo", **options)

        assert second.json() == first.json()
        assert await said(call) == "hello"


# The past


async def test_a_document_is_read_as_it_was() -> None:
    async with open_api() as call:
        ada = member(call, "ada")
        for place, word in enumerate("abc"):
            await ada.write(place, 0, word)
        rows = (await call("GET", f"{ROOM}/updates")).json()

        texts = [
            (await call("GET", f"{HERE}?format=text&root=text&at={at}")).text
            for at in (1, 2, 3)
        ]
        nothing = await call("GET", f"{HERE}?at=0")
        later = await call("GET", f"{HERE}?at=4")
        last = rows["updates"][-1]["milliseconds"]
        now = await call("GET", f"{HERE}?format=update&at_time={last}")
        before = await call("GET", f"{HERE}?at_time=1")

        assert texts == ["a", "ab", "abc"]
        assert nothing.json() == before.json() == {}
        assert nothing.headers["etag"] == f'"{rows["epoch"]}-0"'
        assert (later.status_code, later.json()["code"]) == (425, "not_yet")
        doc: Doc[Any] = Doc()
        doc.apply_update(now.content)
        assert str(doc.get("text", type=Text)) == "abc"


async def test_a_changeset_says_what_came_and_went_and_by_whom() -> None:
    async with open_api() as call:
        ada, bot = member(call, "ada"), member(call, "bot")
        await ada.write(0, 0, "the 😀 quick fox")
        await bot.hear()
        bot.turn("t", reason="bolder")
        await bot.write(9, 5, "slow")
        await ada.hear()
        await ada.write(0, 0, "See ")
        await ada.write(0, 1, "s")

        answer = await call("GET", f"{ROOM}/changeset?from=1")
        none = await call("GET", f"{ROOM}/changeset?from=4")

        found = answer.json()
        authors = found["authors"]
        assert [
            (
                each["start"],
                each["old"],
                each["new"],
                authors[each["author"]]["principal"],
            )
            for each in found["changes"]
        ] == [(0, "", "see ", "ada"), (10, "quick", "slow", "bot")]
        assert (found["from"], found["to"]) == (1, 4)
        assert none.json()["changes"] == []


async def test_what_ends_before_it_begins_is_refused_wherever_it_is_asked() -> None:
    async with open_api() as call:
        await member(call, "ada").write(0, 0, "hello")

        answers = [
            await call("GET", f"{ROOM}/{path}")
            for path in ("blame?start=5&end=1", "changeset?from=1&to=0")
        ]

    assert [(each.status_code, each.json()["code"]) for each in answers] == [
        (409, "conflict")
    ] * 2


async def test_activity_tells_turns_and_sittings_the_newest_first() -> None:
    async with open_api() as call:
        ada, bot = member(call, "ada"), member(call, "bot")
        await ada.write(0, 0, "hello")
        await bot.hear()
        bot.turn("t", kind="agent")
        await bot.write(5, 0, "!!")
        await ada.write(0, 1, "H")
        await bot.write(5, 1, "")
        await back(call, "t")

        whole = (await call("GET", f"{ROOM}/activity")).json()
        page = (await call("GET", f"{ROOM}/activity?limit=2")).json()
        rest = (await call("GET", f"{ROOM}/activity?before={page['next']}")).json()
        new = (await call("GET", f"{ROOM}/activity?after=3")).json()

        shown = [
            (
                whole["authors"][each["author"]]["principal"],
                whole["authors"][each["author"]]["turn"],
                each["first"],
                each["last"],
                each["inserted"],
                each["deleted"],
                bool(each["undone_by"]),
            )
            for each in whole["entries"]
        ]
        undo = whole["authors"][0]["turn"]
        assert shown == [
            ("root", undo, 5, 5, 0, 1, False),
            ("bot", "t", 2, 4, 2, 1, True),
            ("ada", "", 1, 3, 6, 1, False),
        ]
        assert whole["next"] is None
        assert [each["last"] for each in page["entries"]] == [5, 4]
        assert [each["last"] for each in rest["entries"]] == [3, 2]  # the rest of it
        assert [each["last"] for each in new["entries"]] == [5, 4]


async def test_what_the_log_no_longer_holds_is_gone() -> None:
    async with open_api(store=Forgetful()) as call:
        ada, bot = member(call, "ada"), member(call, "bot")
        bot.turn("old")
        await bot.write(0, 0, "old")
        await ada.hear()
        await ada.write(0, 0, "new ")
        store = call.house.replica.store
        assert isinstance(store, Forgetful)
        store.begins = 2

        undone = await call("POST", f"{ROOM}/turns/old/undo", json={})
        read = await call("GET", f"{HERE}?at=1")

        for answer in (undone, read):
            assert answer.status_code in (404, 410), answer.text
        assert read.json()["code"] == "history_gone"
        blamed = (await call("GET", f"{ROOM}/blame")).json()
        assert [
            blamed["authors"][span["author"]]["principal"] for span in blamed["spans"]
        ] == ["ada", ""]


class Forgetful(MemoryStore):
    """Keeps no log before some position."""

    begins = 0

    async def history(
        self, room: str, *, after: int = 0, limit: int = 1000
    ) -> list[Row]:
        return await super().history(
            room, after=max(after, self.begins - 1), limit=limit
        )


async def test_edits_that_somebody_relays_are_credited_to_their_author() -> None:
    async with open_api() as call:
        ada, bot = member(call, "ada"), member(call, "bot")
        await ada.write(0, 0, "mine ")
        ada.doc.get("text", type=Text).insert(5, "offline")
        bot.doc.apply_update(ada.doc.get_update())  # and ada goes away
        bot._made = [bot.doc.get_update()]
        await bot.send()

        found = (await call("GET", f"{ROOM}/blame")).json()

        shown = [found["authors"][span["author"]] for span in found["spans"]]
        assert [(each["principal"], each["introduced_by"]) for each in shown] == [
            ("ada", ""),
            ("ada", "bot"),
        ]


async def test_who_edits_by_request_in_a_turn_has_the_budget_of_one() -> None:
    async with open_api(agent_characters_per_minute=10) as call:
        call.may("ada", READ | WRITE)
        edit = [{"root": "text", "index": 0, "insert": "x" * 20}]
        answers = [
            await call("PATCH", f"{HERE}{turn}", token="ada", json={"splices": edit})
            for turn in ("", "", "?turn=t", "?turn=t", "")
        ]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 200]


async def test_what_an_agent_brings_back_is_charged_to_its_budget() -> None:
    async with open_api(agent_characters_per_minute=10) as call:
        ada, bot = member(call, "ada"), member(call, "bot")
        call.may("bot", READ | WRITE, kind="agent")
        await ada.write(0, 0, "twenty characters...")
        await bot.hear()
        bot.turn("t")
        await bot.write(0, 20, "")

        back = [
            await call("POST", f"{ROOM}/turns/t/{verb}", token=who, json={})
            for who, verb in (("bot", "undo"), ("bot", "redo"), ("root", "redo"))
        ]

        assert [answer.status_code for answer in back] == [200, 429, 200]
        assert back[1].json()["code"] == "rate_limited"
        assert await said(call) == ""


async def test_what_is_taken_back_again_and_again_adds_one_client_id() -> None:
    async with open_api() as call:
        ada, bot = member(call, "ada"), member(call, "bot")
        await ada.write(0, 0, "what was there")
        await bot.hear()
        bot.turn("t")
        await bot.write(0, 5, "all that ")
        room = await call.house.replica.open(room_key("", "r"))
        before = set(room.document.gate.known)

        said_then = []
        for verb in ("undo", "redo", "undo", "redo", "undo"):
            await back(call, "t", verb)
            said_then.append(await said(call))
        (own,) = set(room.document.gate.known) - before
        stranger: Doc[Any] = Doc(client_id=own)
        stranger.apply_update(room.document.snapshot())
        made: list[bytes] = []
        stranger.observe(lambda event: made.append(event.update))
        stranger.get("text", type=Text).insert(0, "forged ")
        ada.forge(made[0])
        await ada.send()
        await back(call, "t", "redo")

        assert said_then == ["what was there", "all that was there"] * 2 + [
            "what was there"
        ]
        assert await said(call) == "forged all that was there"
        assert len(set(room.document.gate.known) - before) == 2


async def test_nobody_edits_by_request_under_the_name_of_an_undo() -> None:
    async with open_api() as call:
        edit = [{"root": "text", "index": 0, "insert": "x"}]

        answer = await call("PATCH", f"{HERE}?turn=undo-1", json={"splices": edit})

    assert answer.status_code == 403
