"""Providers under access control: tokens that are wrong, that end and are renewed, and updates that are not taken."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import pytest
from faults.proxy import Proxy
from forging import AUDIENCE, ISSUER, Issuer
from members import SECONDS, comes_to, reads, text, until
from processes import Server
from pycrdt import Doc

from collab.sdk import Phase, Provider, Replaced
from collab.sdk.errors import Conflict, Forbidden, RateLimited, Refused
from collab.sdk.provider import Event

pytestmark = pytest.mark.anyio

READER, WRITER = ["read", "presence"], ["read", "write", "presence"]


class Door:
    """A server with access control, and tokens for it."""

    def __init__(self, server: Server, issuer: Issuer) -> None:
        self.url, self.port, self._issuer = server.url, server.port, issuer

    def token(
        self,
        who: str,
        room: str,
        may: list[str],
        seconds: float = 600,
        *,
        kind: str = "human",
    ) -> str:
        return self._issuer.token(
            sub=who,
            kind=kind,
            name=who.title(),
            rooms={room: may},
            prefixes=None,
            exp=time.time() + seconds,
        )


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    home = tmp_path_factory.mktemp("door")
    issuer = Issuer()
    server = Server(
        home / "data",
        *("--auth", "jwt", "--jwt-keys", str(issuer.write(home / "keys.json"))),
        *("--jwt-audience", AUDIENCE, "--jwt-issuer", ISSUER),
        *("--binding", "enforce", "--agent-characters-per-minute", "60000"),
    )
    server.start()
    yield Door(server, issuer)
    server.kill()


def soon() -> float:
    return 0.02


async def test_the_server_says_who_a_member_is(door: Door, room: str) -> None:
    token = door.token("ada", room, WRITER)

    async with Provider(door.url, room, token=token, name="Somebody") as provider:
        await provider.synced(SECONDS)

        assert (provider.user.id, provider.user.name) == ("ada", "Ada")


@pytest.mark.parametrize("token", ["", "nonsense"])
async def test_without_a_good_token_nobody_enters(
    door: Door, room: str, token: str
) -> None:
    async with Provider(door.url, room, token=token) as provider:
        with pytest.raises(Forbidden):
            await provider.synced(SECONDS)

        assert provider.state.phase is Phase.REFUSED


async def test_a_token_for_another_room_opens_nothing(door: Door, room: str) -> None:
    token = door.token("ada", "another room", WRITER)

    async with Provider(door.url, room, token=token) as provider:
        with pytest.raises(Forbidden):
            await provider.synced(SECONDS)


async def test_a_token_that_has_ended_ends_it(door: Door, room: str) -> None:
    token = door.token("ada", room, WRITER, seconds=4)

    async with Provider(door.url, room, token=token) as provider:
        await provider.synced(SECONDS)
        await comes_to(provider, Phase.REFUSED)

        assert isinstance(provider.state.error, Forbidden)


async def test_a_token_is_renewed_on_the_same_connection(door: Door, room: str) -> None:
    given: list[str] = []

    async def next_token() -> str:
        given.append(
            door.token("ada", room, WRITER, seconds=4 if len(given) < 3 else 600)
        )
        return given[-1]

    async with (
        Proxy("127.0.0.1", door.port) as proxy,
        Provider(
            f"http://127.0.0.1:{proxy.port}", room, token=next_token, chance=soon
        ) as provider,
    ):
        await until(lambda: len(given) == 4)
        text(provider.doc).insert(0, "still here")
        await provider.flush(timeout=SECONDS)

        assert proxy.accepted == 1


async def test_a_token_that_has_ended_meanwhile_is_followed_by_the_next(
    door: Door, room: str
) -> None:
    tokens = iter(
        [door.token("ada", room, WRITER, seconds=-5), door.token("ada", room, WRITER)]
    )

    async with Provider(
        door.url, room, token=lambda: next(tokens), chance=soon
    ) as provider:
        await provider.synced(SECONDS)


async def test_a_function_without_a_good_token_ends_it(door: Door, room: str) -> None:
    asked: list[int] = []

    def next_token() -> str:
        asked.append(1)
        return "nonsense"

    async with Provider(door.url, room, token=next_token, chance=soon) as provider:
        await comes_to(provider, Phase.REFUSED)

        assert len(asked) == 2


async def test_what_a_reader_writes_is_refused_and_its_document_begins_anew(
    door: Door, room: str
) -> None:
    events: list[Event] = []
    async with (
        Provider(door.url, room, token=door.token("ada", room, WRITER)) as ada,
        Provider(
            door.url, room, token=door.token("eve", room, READER), chance=soon
        ) as eve,
    ):
        text(ada.doc).insert(0, "true")
        await ada.flush(timeout=SECONDS)
        await reads(eve, "true")
        before = eve.doc
        eve.observe(events.append)
        text(eve.doc).insert(4, " and false")

        with pytest.raises(Forbidden):
            await eve.flush(timeout=SECONDS)

        await eve.synced(SECONDS)
        await reads(eve, "true")
        assert eve.doc is not before
        assert eve.doc.client_id != before.client_id
        assert [event.doc for event in events if isinstance(event, Replaced)] == [
            eve.doc
        ]
        assert str(text(ada.doc)) == "true"


async def test_a_programs_own_document_is_left_alone_when_it_is_refused(
    door: Door, room: str
) -> None:
    doc: Doc = Doc()
    async with (
        Provider(door.url, room, token=door.token("ada", room, WRITER)) as ada,
        Provider(door.url, room, doc, token=door.token("eve", room, READER)) as eve,
    ):
        await eve.synced(SECONDS)
        text(doc).insert(0, "mine")

        with pytest.raises(Forbidden):
            await eve.flush(timeout=SECONDS)

        assert eve.state.phase is Phase.REFUSED
        assert eve.doc is doc
        text(ada.doc).insert(0, "theirs ")
        await until(lambda: "theirs" in str(text(doc)))  # it reads on
        assert "mine" not in str(text(ada.doc))


async def test_an_agent_that_writes_more_than_it_may_outside_of_a_turn_loses_nothing(
    door: Door, room: str
) -> None:
    """The server asks for the rest when there may be more: here after about a second."""
    heard: list[object] = []
    token = door.token("bot", room, WRITER, kind="agent")
    async with Provider(door.url, room, token=token) as bot:
        await bot.synced(SECONDS)
        bot.observe(heard.append)
        text(bot.doc).insert(0, "x" * 61_000)
        await bot.flush(timeout=SECONDS)
        text(bot.doc).insert(0, "and on ")
        await until(lambda: isinstance(bot.state.error, RateLimited))

        await bot.flush(timeout=SECONDS)

        assert str(text(bot.doc)) == "and on " + "x" * 61_000
        assert not any(isinstance(event, Replaced) for event in heard)


async def test_a_client_id_of_somebody_else_is_refused_by_name(
    door: Door, room: str
) -> None:
    async with Provider(
        door.url, room, Doc(client_id=77), token=door.token("ada", room, WRITER)
    ) as ada:
        text(ada.doc).insert(0, "ada")
        await ada.flush(timeout=SECONDS)
    stolen: Doc = Doc(client_id=77)

    async with Provider(
        door.url, room, stolen, token=door.token("eve", room, WRITER)
    ) as eve:
        await eve.synced(SECONDS)
        stolen = Doc(client_id=77)
        text(stolen).insert(0, "longer than ada")
        eve.doc.apply_update(stolen.get_update())

        with pytest.raises((Conflict, Refused)):
            await eve.flush(timeout=SECONDS)


def test_a_rate_limit_says_when_to_come_back() -> None:
    assert RateLimited("slow down", 7).retry_seconds == 7


async def test_who_leaves_is_told_what_was_refused(door: Door, room: str) -> None:
    async def writes() -> None:
        token = door.token("eve", room, READER)
        async with Provider(door.url, room, token=token) as eve:
            await eve.synced(SECONDS)
            text(eve.doc).insert(0, "lost")

    with pytest.raises(Forbidden):
        await writes()


async def test_no_token_is_logged_at_any_level(
    door: Door, room: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = door.token("ada", room, WRITER)

    async with Provider(door.url, room, token=token) as provider:
        await provider.synced(SECONDS)
        assert token not in repr(provider)

    assert token not in caplog.text
