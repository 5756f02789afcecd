"""Agents with API keys that say what they do and for whom, at a real server: who sees it, and that nobody forges it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from members import SECONDS, reads, text, until
from processes import Server

from collab.sdk.errors import Forbidden
from collab.sdk.history import History
from collab.sdk.presence import User
from collab.sdk.provider import Provider

pytestmark = pytest.mark.anyio

# What an agent says of itself that would rather be somebody else.
FORGED = {
    "id": "root",
    "name": "Root",
    "kind": "human",
    "role": "coordinator",
    "on_behalf_of": "eve",
}
BOT = User("bot", "Bot", "agent", "reviewer", "ada")


class Door:
    """A server that knows API keys alone."""

    def __init__(self, server: Server) -> None:
        self.server, self.url = server, server.url

    def key(self, principal: str, *about: str, may: str) -> str:
        made = self.server.run(
            *("key", "create", "--principal", principal, "--prefix", f"={may}"),
            *(*about, "--json"),
        )
        return str(json.loads(made.stdout)["key"])


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    server = Server(tmp_path_factory.mktemp("door") / "data", "--auth", "keys")
    server.start()
    yield Door(server)
    server.kill()


@pytest.fixture(scope="module")
def keys(door: Door) -> dict[str, str]:
    """One for each of them; those of people say nothing but whose they are."""
    agent = "--kind", "agent", "--name", "Bot", "--role", "reviewer"
    may = "read,write,presence,history"
    found = {who: door.key(who, may=may) for who in ("ada", "eve")}
    return {**found, "bot": door.key("bot", *agent, "--on-behalf-of", "ada", may=may)}


@asynccontextmanager
async def member(
    door: Door, room: str, token: str, state: dict[str, Any] | None = None
) -> AsyncIterator[Provider]:
    async with Provider(door.url, room, token=token, state=state) as provider:
        await provider.synced(SECONDS)
        yield provider


@asynccontextmanager
async def edited(
    door: Door, room: str, keys: dict[str, str], token: str = ""
) -> AsyncIterator[tuple[Provider, Provider]]:
    """Ada, and a bot of hers that has edited in the turn `t1` and claims to be somebody else."""
    async with (
        member(door, room, keys["ada"], {"user": {"name": "Ada"}}) as ada,
        member(door, room, token or keys["bot"], {"user": FORGED}) as bot,
    ):
        bot.turn("t1", {"reason": "to help", **FORGED, "by": "eve", "undoes": "t0"})
        text(bot.doc).insert(0, "Hello.\n")
        await bot.flush(timeout=SECONDS)
        bot.turn("")
        await reads(ada, "Hello.\n")
        yield ada, bot


async def test_others_see_what_an_agent_does_and_for_whom(
    door: Door, room: str, keys: dict[str, str]
) -> None:
    async with edited(door, room, keys) as (ada, bot):
        await until(lambda: bool(ada.peers))

        (seen,) = ada.peers.values()
        assert seen.user == BOT
        assert bot.user == BOT


async def test_each_of_its_characters_says_so_too(
    door: Door, room: str, keys: dict[str, str]
) -> None:
    async with edited(door, room, keys) as (ada, _):
        history = History(ada.requests, room)
        span = (await history.blame()).at(0)
        activity = await history.activity()
        members = (await ada.requests.get(f"/v1/rooms/{room}/members")).json()

    assert span is not None
    author = span.author
    assert (author.principal, author.name, author.kind) == ("bot", "Bot", "agent")
    assert (author.role, author.on_behalf_of) == ("reviewer", "ada")
    assert (author.turn, author.reason, author.by, author.undoes) == (
        *("t1", "to help"),
        *("", ""),
    )
    assert [entry.author.role for entry in activity.entries] == ["reviewer"]
    told = {each["principal"]: each for each in members["members"]}
    assert (told["bot"]["role"], told["bot"]["on_behalf_of"]) == ("reviewer", "ada")
    assert told["ada"]["on_behalf_of"] == ""


async def test_whom_it_acts_for_takes_its_turn_back_and_nobody_else_does(
    door: Door, room: str, keys: dict[str, str]
) -> None:
    async with (
        edited(door, room, keys) as (ada, _),
        member(door, room, keys["eve"]) as eve,
    ):
        with pytest.raises(Forbidden):
            await History(eve.requests, room).undo("t1", "bot")
        undone = await History(ada.requests, room).undo("t1", "bot")
        await reads(ada, "")

    assert undone.is_changed


async def test_a_ticket_carries_it_over(
    door: Door, room: str, keys: dict[str, str]
) -> None:
    async with member(door, room, keys["bot"]) as bot:
        made = (await bot.requests.post("/v1/tickets", {"room": room})).json()

    async with edited(door, room, keys, made["ticket"]) as (ada, bot):
        await until(lambda: bool(ada.peers))
        span = (await History(ada.requests, room).blame()).at(0)

        assert [each.user for each in ada.peers.values()] == [BOT]
    assert span is not None
    assert (span.author.role, span.author.on_behalf_of) == ("reviewer", "ada")


async def test_it_is_sent_away_when_whom_it_acts_for_is_revoked(
    door: Door, room: str
) -> None:
    may = "read,write,presence"
    token = door.key("helper", "--on-behalf-of", "zoe", may=may)

    async with member(door, room, token) as helper:
        door.server.run("revoke", "zoe")
        await until(lambda: helper.state.error is not None)

        assert isinstance(helper.state.error, Forbidden)
