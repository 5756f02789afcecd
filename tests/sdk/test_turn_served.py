"""Turns against a real server, with people and other agents around."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator

import pytest
from faults.proxy import Proxy
from members import SECONDS, text, until
from processes import Server

from collab.sdk import Cancelled, Conflict, Doc, LeaseLost, Provider, connect

pytestmark = pytest.mark.anyio


async def tokens(
    count: int, seconds: float = 0.0, name: str = "tok"
) -> AsyncIterator[str]:
    """As a model brings them: words begin anywhere in them."""
    whole = " ".join(f"{name}{number}" for number in range(count)) + " "
    for at in range(0, len(whole), 4):
        yield whole[at : at + 4]
        await asyncio.sleep(seconds)


def spoken(count: int, name: str = "tok") -> list[str]:
    return [f"{name}{number}" for number in range(count)]


async def test_a_turn_is_logged_when_its_block_is_left(
    house: Server, room: str
) -> None:
    async with (
        connect(house.url, name="Agent") as agent,
        Provider(house.url, room) as person,
    ):
        doc = await agent.open(room)
        await person.synced(SECONDS)

        async with doc.turn(reason="greet") as turn:
            await turn.insert("end", "Hello 👋 world")
            await turn.replace("world", "everybody")

        record = turn.record
        assert record is not None
        assert (record.id, record.inserted, record.deleted) == (turn.id, 22, 5)
        assert record.position == doc.provider.position > 0
        await until(lambda: str(text(person.doc)) == "Hello 👋 everybody")


async def test_a_stream_beside_typing_people_keeps_its_order_and_its_words(
    house: Server, room: str
) -> None:
    chance = random.Random(1)
    async with connect(house.url) as agent, connect(house.url) as friends:
        doc = await agent.open(room)
        async with doc.turn() as turn:
            await turn.insert("start", "Before.\n\n\n\nAfter.")
        people = [Provider(house.url, room) for _ in range(3)]
        async with people[0], people[1], people[2]:
            for person in people:
                await person.synced(SECONDS)
            is_over = asyncio.Event()

            async def type_on(person: Provider, letter: str) -> None:
                while not is_over.is_set():
                    shared = text(person.doc)
                    shared.insert(chance.choice([0, len(shared)]), letter)
                    await asyncio.sleep(0.005)

            async with asyncio.TaskGroup() as tasks:
                for person, letter in zip(people, "αβγ", strict=True):
                    tasks.create_task(type_on(person, letter))
                async with doc.turn() as turn:
                    result = await turn.stream(
                        doc.find("\n\n\n\n")[0], tokens(100, 0.003)
                    )
                is_over.set()
            for person in people:
                await person.flush(timeout=SECONDS)
            for person in people:
                await until(lambda person=person: str(text(person.doc)) == doc.text)
        del friends

        assert result.applied
        said = "".join(each for each in doc.text if each not in "αβγ")
        assert said.split("Before.\n\n\n\n")[1].removesuffix(
            "After."
        ).split() == spoken(100)
        assert [word for word in doc.text.split() if word.startswith("tok")] == spoken(
            100
        )


async def test_a_stream_goes_on_over_sockets_that_break(
    house: Server, room: str
) -> None:
    async with (
        Proxy("127.0.0.1", house.port) as proxy,
        Provider(
            f"http://127.0.0.1:{proxy.port}", room, chance=lambda: 0.02
        ) as provider,
        Provider(house.url, room) as person,
    ):
        await provider.synced(SECONDS)
        await person.synced(SECONDS)
        doc = Doc(provider)

        async def source() -> AsyncIterator[str]:
            number = 0
            async for token in tokens(400, 0.001):
                number += 1
                if number % 20 == 0:
                    proxy.reset()
                yield token

        async with doc.turn() as turn:
            await turn.stream("end", source())

        assert doc.text.split() == spoken(400)
        await until(lambda: str(text(person.doc)) == doc.text)
        assert proxy.accepted > 5


async def test_a_person_types_into_the_text_of_an_agent(
    house: Server, room: str
) -> None:
    async with connect(house.url) as agent, Provider(house.url, room) as person:
        doc = await agent.open(room)
        await person.synced(SECONDS)
        halfway = asyncio.Event()

        async def source() -> AsyncIterator[str]:
            async for token in tokens(40):
                yield token
            await halfway.wait()
            async for token in tokens(40, name="more"):
                yield token

        async with asyncio.TaskGroup() as tasks:

            async def write() -> None:
                async with doc.turn() as turn:
                    await turn.stream("end", source())

            tasks.create_task(write())
            await until(lambda: "tok30 " in str(text(person.doc)))
            shared = text(person.doc)
            shared.insert(str(shared).index("tok10"), "(mine) ")
            del shared[: len("tok0 ")]
            await person.flush(timeout=SECONDS)
            halfway.set()

        wanted = " ".join(
            [*spoken(10)[1:], "(mine)", *spoken(40)[10:], *spoken(40, "more")]
        )
        assert doc.text == f"{wanted} "


async def test_a_turn_that_somebody_stops_writes_nothing_more(
    house: Server, room: str
) -> None:
    async with connect(house.url) as agent, Provider(house.url, room) as person:
        doc = await agent.open(room)
        await person.synced(SECONDS)

        async def wait_for_ever() -> AsyncIterator[str]:
            yield "first words "
            await until(lambda: bool(str(text(person.doc))))
            person.cancel_turn(turn.id)
            await asyncio.Event().wait()
            yield "never"

        with pytest.raises(Cancelled):
            async with doc.turn() as turn:
                await turn.stream("end", wait_for_ever())

        assert doc.text == "first words"
        async with doc.turn() as turn:
            await turn.insert("end", " and another turn")
        await until(
            lambda: str(text(person.doc)) == doc.text == "first words and another turn"
        )


async def test_a_stopped_block_is_interrupted_wherever_it_waits(
    house: Server, room: str
) -> None:
    async with connect(house.url) as agent, Provider(house.url, room) as person:
        doc = await agent.open(room)
        await person.synced(SECONDS)
        began = 0.0

        async def work() -> None:
            nonlocal began
            async with doc.turn() as turn:
                await turn.insert("end", "x")
                await until(lambda: bool(str(text(person.doc))))
                began = time.monotonic()
                person.cancel_turn(turn.id)
                await asyncio.sleep(SECONDS)

        with pytest.raises(Cancelled):
            await work()

        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        assert time.monotonic() - began < SECONDS / 2


async def test_what_was_written_is_taken_back_when_that_was_asked_for(
    house: Server, room: str
) -> None:
    async with connect(house.url) as agent, Provider(house.url, room) as person:
        doc = await agent.open(room)
        await person.synced(SECONDS)
        async with doc.turn() as turn:
            await turn.insert("start", "one two three")
        doc.read()

        async def work() -> None:
            async with doc.turn(rollback=True) as turn:
                await turn.replace("two", "2")
                await turn.insert("end", " four")
                await until(lambda: str(text(person.doc)) == "one 2 three four")
                text(person.doc).insert(len("one 2 three fo"), "!")
                await until(lambda: "!" in doc.text)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await work()

        await until(lambda: str(text(person.doc)) == doc.text == "one two three!")


async def test_two_agents_write_at_once(house: Server, room: str) -> None:
    async with (
        connect(house.url, name="A") as one,
        connect(house.url, name="B") as other,
    ):
        first, second = await one.open(room), await other.open(room)
        async with first.turn() as turn:
            await turn.insert("start", "# A\n\n# B\n")
        await until(lambda: second.text == first.text)
        async with first.turn() as turn, second.turn() as another:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(
                    turn.stream(turn.section("A").end, tokens(50, 0.002, "a"))
                )
                tasks.create_task(another.stream("end", tokens(50, 0.002, "b")))

        await until(lambda: first.text == second.text)
        words = first.text.split()
        assert [word for word in words if word[0] == "a"] == spoken(50, "a")
        assert [word for word in words if word[0] == "b"] == spoken(50, "b")


async def test_one_turn_at_a_time_is_on_in_a_document(house: Server, room: str) -> None:
    async with connect(house.url) as agent:
        doc = await agent.open(room)

        async with doc.turn():
            with pytest.raises(Conflict):
                async with doc.turn():
                    pass

        async with doc.turn() as turn:
            await turn.insert("end", "x")


async def test_who_loses_a_turn_to_another_connection_is_told(
    house: Server, room: str
) -> None:
    async with connect(house.url) as one, connect(house.url) as other:
        doc, copy = await one.open(room), await other.open(room)
        again = copy.turn()

        async def work() -> None:
            async with doc.turn() as turn:
                await turn.insert("end", "mine")
                again.id = turn.id
                await until(lambda: copy.text == "mine")
                async with again:
                    await asyncio.sleep(SECONDS)

        with pytest.raises(LeaseLost):
            await work()


async def test_rewriting_most_of_a_text_takes_nobody_else_here(
    house: Server, room: str
) -> None:
    async with connect(house.url) as agent, connect(house.url, kind="human") as friends:
        doc = await agent.open(room)
        async with doc.turn() as turn:
            await turn.insert("start", "one two three four")
        doc.read()
        await friends.open(room)
        await until(lambda: bool(doc.provider.peers))

        async with doc.turn() as turn:
            with pytest.raises(Conflict):
                await turn.rewrite("something else entirely")
            await turn.rewrite("one two 3 four")

        assert doc.text == "one two 3 four"


async def test_a_refusal_that_was_raised_is_not_raised_again(
    house: Server, room: str
) -> None:
    async with connect(house.url) as agent, connect(house.url, kind="human") as friends:
        doc, copy = await agent.open(room), await friends.open(room)
        async with copy.turn() as turn:
            await turn.insert("start", "theirs " * 100)
        await until(lambda: doc.text == copy.text)

        async def work() -> None:
            async with doc.turn() as turn:
                await turn.rewrite("mine", force=True)
                await asyncio.sleep(SECONDS)

        with pytest.raises(Conflict):
            await work()
        async with doc.turn() as turn:
            await turn.insert("end", "and mine")

        await until(lambda: doc.text == copy.text == f"{'theirs ' * 100}and mine")
