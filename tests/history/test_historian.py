"""Questions about the past: the same answer at once and from a child process, from a checkpoint and from the beginning."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from pycrdt import Doc, Text

from collab.document.attribution import attribute
from collab.document.past import document_at
from collab.errors import (
    Busy,
    CollabError,
    Conflict,
    HistoryGone,
    NothingHere,
    NotYet,
    RoomNotFound,
    RoomUnavailable,
    TooLarge,
)
from collab.exclusion import MAX_WAITING_OF_ROOM
from collab.history import historian as history
from collab.history import replayer
from collab.history.historian import Historian
from collab.store.base import Attributed, Author, Checkpoint, Entry, Row
from collab.store.memory import MemoryStore
from collab.turns import About

pytestmark = pytest.mark.anyio


class Writer:
    """A log of three who take turns, and what it makes."""

    def __init__(self, words: int) -> None:
        self.rows: list[Row] = []
        docs: list[Doc[Any]] = [Doc(client_id=10 + number) for number in range(3)]
        made: list[bytes] = []
        for doc in docs:
            doc.observe(lambda event: made.append(event.update))
        for word in range(words):
            number = word // 5 % 3
            text = docs[number].get("text", type=Text)
            made.clear()
            with docs[number].transaction():
                if word % 7 == 6:
                    del text[3:8]
                text.insert(word * 3 % (len(text) + 1), f"word{word} ")
            update = made[0]
            for other in docs:
                if other is not docs[number]:
                    other.apply_update(update)
            turn = f"t{word // 15}" if number else None
            author = Author(f"user{number}", "c", turn)
            self.rows.append(Row(word + 1, (word + 1) * 1000, author, update))

    def snapshot(self, position: int | None = None) -> bytes:
        updates = [row.update for row in self.rows]
        return document_at(None, updates[: len(updates) if position is None else position])  # fmt: skip

    def said(self, position: int | None = None) -> str:
        doc: Doc[Any] = Doc()
        doc.apply_update(self.snapshot(position))
        return str(doc.get("text", type=Text))


async def logged(store: MemoryStore, rows: Sequence[Row]) -> None:
    done = asyncio.Event()

    def appended(entries: Sequence[Entry], error: CollabError | None) -> None:
        assert error is None
        done.set()

    entries = [
        Entry("r", "e", row.position, row.milliseconds, [row.update], [row.author])
        for row in rows
    ]
    store.append(entries, appended)
    await done.wait()


@asynccontextmanager
async def asked(writer: Writer, *checkpoints: int) -> AsyncIterator[Historian]:
    """A historian of a room whose log was compacted at some positions."""
    async with MemoryStore() as store:
        at = 0
        for position in checkpoints:
            await logged(store, writer.rows[at:position])
            fence = (await store.load("r")).fence
            checkpoint = Checkpoint(position, writer.snapshot(position))
            assert await store.checkpoint("r", checkpoint, fence=fence)
            encoded = attribute(None, writer.rows[:position])
            assert await store.attribute("r", Attributed(position, encoded), fence=fence)  # fmt: skip
            at = position
        await logged(store, writer.rows[at:])
        async with Historian(store) as historian:
            yield historian


WRITER = Writer(120)


@pytest.mark.parametrize("is_inline", [True, False])
@pytest.mark.parametrize("checkpoints", [(), (40, 70)])
async def test_every_answer_is_the_same_from_wherever_it_comes(
    monkeypatch: pytest.MonkeyPatch, checkpoints: tuple[int, ...], is_inline: bool
) -> None:
    monkeypatch.setattr(replayer, "INLINE_BYTES", 1 << 30 if is_inline else 0)
    async with asked(WRITER, *checkpoints) as historian:
        texts = [
            (await historian.document("r", position, "text", "")).decode()
            for position in (0, 1, 39, 40, 41, 75, 120)
        ]
        blamed = orjson.loads(
            await historian.blame("r", "e", {}, "", 0, None, snapshot=WRITER.snapshot())
        )
        before = orjson.loads(
            await historian.blame("r", "e", {}, "", 3, 20, position=50)
        )
        changed = orjson.loads(await historian.changeset("r", {}, 45, 60, ""))
        active = await historian.activity("r", 0, None, 5)
        plan = await historian.undo("r", "t1", "user1", "root")
        update = await historian.take_back("r", plan, WRITER.snapshot(), 99)

    assert texts == [WRITER.said(position) for position in (0, 1, 39, 40, 41, 75, 120)]
    assert blamed["spans"][-1]["end"] == len(WRITER.said())
    assert (before["spans"][0]["start"], before["spans"][-1]["end"]) == (3, 20)
    text = WRITER.said(60)
    for each in reversed(changed["changes"]):
        start, end = each["start"], each["start"] + len(each["new"])
        assert text[start:end] == each["new"]
        text = text[:start] + each["old"] + text[end:]
    assert text == WRITER.said(45)
    assert len(active["entries"]) == 5
    assert update is not None
    undone: Doc[Any] = Doc()
    undone.apply_update(WRITER.snapshot())
    undone.apply_update(update)
    gone = {f"word{at}" for at in range(120) if at // 15 == 1 and at // 5 % 3 == 1}
    assert gone.isdisjoint(str(undone.get("text", type=Text)).split())


async def test_every_character_is_credited_to_who_typed_it() -> None:
    async with asked(WRITER, 40, 70) as historian:
        blamed = orjson.loads(
            await historian.blame("r", "e", {}, "", 0, None, snapshot=WRITER.snapshot())
        )

    text = WRITER.said()
    seen = 0
    for span in blamed["spans"]:
        assert span["start"] == seen
        seen = span["end"]
        author = blamed["authors"][span["author"]]
        said = text[span["start"] : span["end"]]
        for word in said.split()[1:-1]:
            if word.startswith("word") and word[4:].isdecimal():
                at = int(word[4:])
                assert author["principal"] == f"user{at // 5 % 3}"
    assert seen == len(text)


@pytest.mark.parametrize("milliseconds", [0, 999, 1000, 1001, 60_500, 120_000, 10**15])
async def test_a_time_leads_to_the_last_row_until_then(milliseconds: int) -> None:
    async with asked(WRITER) as historian:
        found = await historian.position_at("r", milliseconds)

    assert found == min(120, milliseconds // 1000)


async def test_what_cannot_be_answered_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with asked(WRITER) as historian:
        with pytest.raises(NotYet):
            await historian.document("r", 121, "text", "")
        with pytest.raises(NothingHere):
            await historian.undo("r", "t99", "", "root")
        with pytest.raises(Conflict):
            await historian.undo("r", "t1", "", "root")  # two have one of this name
        with pytest.raises(RoomNotFound):
            await historian.turns("nowhere")
        monkeypatch.setattr(history, "MAX_CHANGED_ROWS", 10)
        with pytest.raises(TooLarge):
            await historian.changeset("r", {}, 0, 11, "")
        monkeypatch.setattr(history, "MAX_LOG_BYTES", 100)
        with pytest.raises(RoomUnavailable):
            await historian.document("r", 100, "text", "")
        monkeypatch.undo()
        monkeypatch.setattr(history, "MAX_LOG_ROWS", 80)
        with pytest.raises(RoomUnavailable):
            await historian.document("r", 100, "text", "")


async def test_few_read_the_log_at_once_and_not_too_many_wait_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(history, "MAX_WAITING_TO_READ", 10)
    at_once: list[int] = [0]
    async with asked(WRITER) as historian:
        read = historian._store.history

        async def slow(room: str, *, after: int = 0, limit: int = 1000) -> list[Row]:
            at_once.append(at_once[-1] + 1)
            await asyncio.sleep(0)
            at_once.append(at_once[-1] - 1)
            return await read(room, after=after, limit=limit)

        monkeypatch.setattr(historian._store, "history", slow)
        answers = await asyncio.gather(
            *(historian.document("r", 3, "text", "") for _ in range(12)),
            return_exceptions=True,
        )
        afterwards = await historian.document("r", 3, "text", "")

    assert [type(each) for each in answers].count(Busy) == 2
    assert max(at_once) == history.MAX_READING
    assert answers[0] == afterwards == WRITER.said(3).encode()


async def test_turns_beyond_a_bound_are_read_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(history, "MAX_KEPT_TURNS", 3)
    async with asked(WRITER) as historian:
        first = await historian.turns("r")
        again = await historian.turns("r")
        kept = len(historian._turns)

    assert again is not first
    assert [*again.taken] == [*first.taken]
    assert kept == 0


async def test_large_rows_are_read_a_few_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(history, "PAGE_BYTES", 100)
    asked_for: list[int] = []
    async with asked(WRITER) as historian:
        read = historian._store.history

        async def noted(room: str, *, after: int = 0, limit: int = 1000) -> list[Row]:
            asked_for.append(limit)
            return await read(room, after=after, limit=limit)

        monkeypatch.setattr(historian._store, "history", noted)
        text = await historian.document("r", 100, "text", "")

    assert text.decode() == WRITER.said(100)
    assert asked_for[0] == history.FIRST_PAGE
    assert max(asked_for[1:]) < 10


@pytest.mark.parametrize("is_inline", [True, False])
async def test_what_is_inside_of_a_root_is_found_in_whichever_process(
    monkeypatch: pytest.MonkeyPatch, is_inline: bool
) -> None:
    monkeypatch.setattr(replayer, "INLINE_BYTES", 1 << 30 if is_inline else 0)
    snapshot = WRITER.snapshot()
    async with asked(WRITER) as historian:
        for ask in (
            historian.blame(
                "r", "e", {}, "text", 0, None, path="/0", snapshot=snapshot
            ),
            historian.changeset("r", {}, 0, 20, "text", path="/0"),
        ):
            with pytest.raises(NothingHere):
                await ask


def retold(by: dict[int, Author]) -> Writer:
    """A log in which others did what was done."""
    writer = Writer(110)
    writer.rows = [
        row._replace(author=by.get(row.position, Author("ada", "c")))
        for row in writer.rows
    ]
    return writer


def undoes(turn: str) -> Author:
    about = About(undoes=turn, by="bot").encode()
    return Author("ada", "c", f"undo-{turn}", about)


@pytest.mark.parametrize("limit", [25, 40])
async def test_all_that_was_taken_back_before_is_looked_at_or_it_is_told(
    monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    turns = {at: Author("bot", "c", "odd" if at % 2 else "even") for at in range(1, 31)}
    turns |= {40: undoes("odd"), 50: undoes("even")}
    turns |= {at: Author("bot", "c", "t") for at in range(101, 111)}
    writer = retold(turns)
    monkeypatch.setattr(history, "MAX_LOG_ROWS", limit)

    async with asked(writer, 100) as historian:
        if limit < 30:
            with pytest.raises(RoomUnavailable):
                await historian.undo("r", "t", "bot", "bot")
            return
        plan = await historian.undo("r", "t", "bot", "bot")

    assert plan.gone == [row.update for row in writer.rows[:30]]


async def test_a_turn_is_brought_again_as_it_was_however_long_ago_that_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    writer = retold({1: Author("bot", "c", "t"), 100: undoes("t")})

    async with asked(writer) as historian:
        plan = await historian.undo("r", "t", "bot", "bot", is_redo=True)
        monkeypatch.setattr(history, "MAX_LOG_ROWS", 50)
        with pytest.raises(RoomUnavailable):
            await historian.undo("r", "t", "bot", "bot", is_redo=True)

    assert (plan.chosen, plan.again) == ([100], [1])


async def test_when_the_log_was_trimmed_what_is_left_can_be_asked() -> None:
    async with asked(WRITER, 40, 70, 100) as historian:
        store = historian._store
        await store.retain("r", 0)
        await store.tidy()
        left = await store.history("r")
        assert left[0].position > 40

        with pytest.raises(HistoryGone):
            await historian.document("r", 20, "text", "")
        with pytest.raises(HistoryGone):
            await historian.undo("r", "t1", "user1", "root")
        text = await historian.document("r", 110, "text", "")
        blamed = await historian.blame(
            "r", "e", {}, "", 0, None, snapshot=WRITER.snapshot()
        )

    assert text.decode() == WRITER.said(110)
    assert {author["principal"] for author in orjson.loads(blamed)["authors"]} == {
        "user0",
        "user1",
        "user2",
    }


async def test_what_kills_the_child_costs_one_question_and_is_not_asked_again_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replayer, "INLINE_BYTES", 0)
    async with MemoryStore() as store:
        await logged(store, WRITER.rows)
        async with Historian(store, hang_seconds=0.0) as historian:
            with pytest.raises(RoomUnavailable, match="takes"):
                await historian.document("r", 100, "text", "")
            with pytest.raises(RoomUnavailable, match="took"):
                await historian.document("r", 99, "text", "")
        async with Historian(store) as historian:
            text = await historian.document("r", 100, "text", "")

    assert text.decode() == WRITER.said(100)


async def test_one_room_does_not_keep_the_others_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replayer, "INLINE_BYTES", 0)
    async with asked(WRITER) as historian:
        answers = await asyncio.gather(
            *(historian.document("r", at, "text", "") for at in range(1, 13)),
            return_exceptions=True,
        )

    busy = [each for each in answers if isinstance(each, Busy)]
    assert len(busy) == 12 - MAX_WAITING_OF_ROOM
    assert answers[0] == WRITER.said(1).encode()
