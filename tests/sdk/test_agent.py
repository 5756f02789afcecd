"""Agents in rooms of a real server, asynchronous and blocking."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from faces import run
from faults.proxy import Proxy
from members import SECONDS, text, until
from processes import Server

import collab
from collab.sdk import AgentStatus, Conflict, Invalid, Phase, Unavailable, User

pytestmark = pytest.mark.anyio

Connect = Callable[..., Any]


def written(doc: Any) -> str:
    return str(run(doc, lambda core: str(text(core.raw))))


async def test_an_agent_reads_what_another_has_written(
    house: Server, room: str, connect: Connect
) -> None:
    async with connect(house.url, name="One") as one:
        doc = await one.open(room)
        run(doc, lambda core: text(core.raw).insert(0, "hello"))
        await doc.provider.flush(timeout=SECONDS)

    async with connect(house.url, name="Two") as two:
        doc = await two.open(room)
        assert written(doc) == "hello"


async def test_leaving_saves_what_was_written_in_all_rooms(
    house: Server, room: str, connect: Connect
) -> None:
    rooms = [f"{room}/{number}" for number in range(3)]
    async with connect(house.url) as agent:
        for name in rooms:
            doc = await agent.open(name)
            run(doc, lambda core: text(core.raw).insert(0, core.provider.room))

    async with connect(house.url) as agent:
        for name in rooms:
            assert written(await agent.open(name)) == name


async def test_the_same_room_is_opened_once(
    house: Server, room: str, connect: Connect
) -> None:
    async with connect(house.url) as agent:
        assert await agent.open(room) == await agent.open(room)
        assert list(agent.rooms) == [room]

        await agent.close(room)

        assert list(agent.rooms) == []


async def test_others_see_who_an_agent_is_and_what_it_does(
    house: Server, room: str, connect: Connect
) -> None:
    async with collab.connect(house.url, name="Ada", kind="human") as person:
        seen = (await person.open(room)).provider
        async with connect(house.url, name="Reviewer", role="executor") as agent:
            await agent.open(room)
            await until(lambda: len(seen.peers) == 1)
            (peer,) = seen.peers.values()
            assert peer.is_agent
            assert peer.user == User(name="Reviewer", kind="agent", role="executor")
            assert peer.agent == AgentStatus("idle")

            agent.status("writing", detail="chapter 2", task="t1")

            await until(
                lambda: (
                    [peer.agent for peer in seen.peers.values()]
                    == [AgentStatus("writing", task="t1", detail="chapter 2")]
                )
            )
        await until(lambda: not seen.peers)


async def test_who_has_just_entered_a_room_knows_who_it_is(
    house: Server, room: str, connect: Connect
) -> None:
    async with connect(house.url, name="Reviewer", role="executor") as agent:
        doc = await agent.open(room)

        assert doc.provider.user == User("", "Reviewer", "agent", "executor")


async def test_a_block_is_left_as_often_as_one_likes_and_entered_once(
    house: Server, room: str, connect: Connect
) -> None:
    agent = connect(house.url)
    async with agent:
        with pytest.raises(Conflict):
            await agent.__aenter__()
        await agent.open(room)

    await agent.__aexit__(None, None, None)

    with pytest.raises(Conflict, match="connect anew"):
        await agent.__aenter__()


async def test_a_word_that_is_unknown_is_an_error_of_the_client_and_of_python(
    house: Server, room: str, connect: Connect
) -> None:
    for error in (Invalid, ValueError):
        with pytest.raises(error, match="kind"):
            connect(house.url, kind="robot")
        async with connect(house.url) as agent:
            doc = await agent.open(room)
            with pytest.raises(error, match="status"):
                agent.status("asleep")
            with pytest.raises(error, match="format"):
                doc.read(format="prose")
            with pytest.raises(error, match="policy"):
                doc.turn(on_conflict="perhaps")
            with pytest.raises(error, match="level"):
                await doc.provider.flush("soon")


async def test_a_server_that_is_not_there_is_told_in_time(
    room: str, connect: Connect
) -> None:
    async with connect("http://127.0.0.1:9", open_seconds=0.05) as agent:
        with pytest.raises(Unavailable, match="cannot be reached"):
            await agent.open(room)

        assert list(agent.rooms) == []


async def test_what_cannot_be_shown_is_refused_and_hinders_nothing(
    house: Server, room: str, connect: Connect
) -> None:
    async with connect(house.url) as agent:
        for task in ("half of \ud83d", "x" * 5000):
            with pytest.raises(Invalid):
                agent.status("thinking", task=task)

        await agent.open(room)


async def test_a_wrong_name_of_a_room_is_told(house: Server, connect: Connect) -> None:
    async with connect(house.url) as agent:
        with pytest.raises(Invalid):
            await agent.open("  ")


async def test_an_error_of_the_program_goes_on_as_it_is(
    house: Server, room: str, connect: Connect
) -> None:
    async def fails() -> None:
        async with connect(house.url) as agent:
            await agent.open(room)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fails()


async def test_an_agent_is_of_no_use_after_its_block(
    house: Server, room: str, connect: Connect
) -> None:
    async with connect(house.url) as agent:
        pass

    with pytest.raises(Unavailable):
        await agent.open(room)


async def test_a_stream_whose_socket_is_dropped_a_hundred_times_is_whole(
    house: Server, room: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collab.sdk.backoff.LONGEST_SECONDS", 0.03)
    words = [f"{number} " for number in range(1000)]

    async with Proxy("127.0.0.1", house.port) as proxy:

        async def tokens() -> AsyncIterator[str]:
            for number, word in enumerate(words):
                if number % 10 == 5:
                    await until(lambda number=number: proxy.accepted > number // 10)
                    proxy.reset()
                yield word
                await asyncio.sleep(0.002)

        async with (
            collab.connect(f"http://127.0.0.1:{proxy.port}", name="Writer") as agent,
            collab.connect(house.url, name="Reader") as other,
        ):
            doc, seen = await agent.open(room), await other.open(room)
            async with doc.turn(reason="a long text") as turn:
                await turn.stream("end", tokens())

            await until(lambda: written(seen) == "".join(words))
            assert written(doc) == "".join(words)
            assert proxy.accepted > 100
            activity = await doc.activity()
            assert {entry.author.turn for entry in activity.entries} == {turn.id}


async def test_what_becomes_of_a_room_can_be_watched(
    house: Server, room: str, connect: Connect
) -> None:
    async with connect(house.url, name="One") as one:
        doc = await one.open(room)
        async for state in doc.provider.states():
            if state.phase is Phase.SAVED:
                break
            run(doc, lambda core: text(core.raw).insert(0, "x"))
        async with connect(house.url, name="Two") as two:
            await two.open(room)
            async for peers in doc.provider.presences():
                if [peer.user.name for peer in peers.values()] == ["Two"]:
                    break


async def test_others_see_where_an_agent_is(
    house: Server, room: str, connect: Connect
) -> None:
    async with (
        collab.connect(house.url, name="Ada", kind="human") as person,
        connect(house.url, name="Bot") as agent,
    ):
        seen = (await person.open(room)).provider
        doc = await agent.open(room)
        run(doc, lambda core: text(core.raw).insert(0, "一二三"))
        anchor = doc.anchor(1)

        agent.cursor(doc, anchor)

        shown = {"anchor": anchor.to_json(), "head": anchor.to_json()}
        await until(lambda: [peer.cursor for peer in seen.peers.values()] == [shown])
