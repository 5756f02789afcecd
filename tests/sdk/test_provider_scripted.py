"""Providers in front of a server that says odd, hostile and rare things."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from members import SECONDS, comes_to, reads, text, until
from pycrdt import Doc
from scripted import Line, Scripted, scripted
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from collab.protocol import yjs
from collab.protocol.varint import encode_bytes, encode_string, encode_varint
from collab.sdk import Phase, Provider, Replaced, TurnEnded
from collab.sdk.errors import (
    AnotherHistory,
    Cancelled,
    Forbidden,
    Invalid,
    LeaseLost,
    NotFound,
    RateLimited,
    Refused,
    Unavailable,
)
from collab.sdk.ledger import WINDOW
from collab.sdk.provider import Event, PeersChanged

pytestmark = pytest.mark.anyio


def soon() -> float:
    return 0.01


def ended(turn: str, code: str) -> bytes:
    return b"\x74" + encode_string(turn) + encode_string(code) + encode_string("why")


def turn_of(frame: bytes) -> str:
    return frame[2 : 2 + frame[1]].decode()


@pytest.fixture
async def server() -> AsyncIterator[Scripted]:
    async with scripted() as made:
        yield made


async def meet(server: Scripted, provider: Provider) -> Line:
    """A connection, and the document in step over it."""
    line = await server.line()
    await line.greet()
    await provider.synced(SECONDS)
    await line.hear(b"\x00\x01")
    return line


async def test_a_change_is_saved_when_an_acknowledgement_covers_it(
    server: Scripted,
) -> None:
    async with Provider(server.url, "room", chance=soon) as provider:
        line = await meet(server, provider)
        text(provider.doc).insert(0, "a")
        await line.hear_update()

        await line.say(yjs.ack(1, 5))  # of the step 2 before it
        await line.say(yjs.notice("unheard of"))
        assert provider.state.phase is Phase.UNSAVED
        await line.say(yjs.ack(2, 6))

        assert await provider.flush(timeout=SECONDS) == 6


async def test_an_acknowledgement_below_logged_saves_nothing(server: Scripted) -> None:
    async with Provider(server.url, "room", flush_seconds=0.05) as provider:
        line = await meet(server, provider)
        text(provider.doc).insert(0, "a")
        await line.hear_update()

        await line.say(bytes((yjs.ACK, 2, 1, 1)))  # merged

        with pytest.raises(Unavailable):
            await provider.flush(timeout=0.1)
        await line.say(yjs.ack(2, 1))
        await provider.flush(timeout=SECONDS)


async def test_what_is_made_while_much_is_on_its_way_waits_and_leaves_as_one(
    server: Scripted,
) -> None:
    async with Provider(server.url, "room", chance=soon) as provider:
        line = await meet(server, provider)
        for number in range(WINDOW - 1):  # the step 2 is on its way too
            text(provider.doc).insert(number, "x")
            await line.hear_update()
        for _ in range(50):
            text(provider.doc).insert(0, "y")
            await asyncio.sleep(0)

        await line.say(yjs.ack(WINDOW, 1))

        last = await line.hear_update()
        await line.say(yjs.ack(WINDOW + 1, 2))
        assert last.count(b"y") == 50
        assert await provider.flush(timeout=SECONDS) == 2


async def test_what_was_not_acknowledged_is_said_again_on_the_next_connection(
    server: Scripted,
) -> None:
    async with Provider(server.url, "room", chance=soon) as provider:
        line = await meet(server, provider)
        text(provider.doc).insert(0, "a")
        first = await line.hear_update()
        await line.close(1012, "restarting")

        line = await server.line()
        await line.greet()

        assert await line.hear_update() == first
        await line.say(yjs.ack(1, 1))
        await provider.flush(timeout=SECONDS)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x00",
        b"\x00\x02",
        b"\x00\x02\x05\x00",
        b"\x00\x02\x02\xff\xff",
        b"\x00\x01\x05\x01\x01\x01\x00\xff",
        b"\x00\x00\x01\xff",
        b"\x00\x07\x00",
        b"\x01\x03\x01\x01\x01",
        b"\x01\x07\x01\x01\x01\x03{{{",
        b"\x6e\x01\x02\xff\xff\x00",
        b"\x6e\x02\x01e\x04live",
        b"\x6f\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x00\x02\x02\x00\x00more",
    ],
)
async def test_nonsense_ends_it_with_a_typed_error_and_leaves_the_document_alone(
    server: Scripted, frame: bytes
) -> None:
    async with Provider(server.url, "room", chance=soon) as provider:
        line = await meet(server, provider)

        await line.say(frame)

        await comes_to(provider, Phase.REFUSED)
        assert isinstance(provider.state.error, Refused)
        assert str(text(provider.doc)) == ""


async def test_a_text_frame_ends_it_with_a_typed_error(server: Scripted) -> None:
    async with Provider(server.url, "room") as provider:
        line = await meet(server, provider)

        await line.socket.send("hello")

        await comes_to(provider, Phase.REFUSED)
        assert isinstance(provider.state.error, Refused)


async def test_a_message_of_a_later_version_is_passed_over(server: Scripted) -> None:
    other: Doc = Doc()
    text(other).insert(0, "after")
    async with Provider(server.url, "room") as provider:
        line = await meet(server, provider)

        await line.say(encode_varint(300) + b"whatever")
        await line.say(yjs.update_message(other.get_update()))

        await reads(provider, "after")


async def test_an_update_that_comes_too_early_waits_for_what_it_refers_to(
    server: Scripted,
) -> None:
    other: Doc = Doc()
    updates: list[bytes] = []
    subscription = other.observe(lambda event: updates.append(event.update))
    for number, letter in enumerate("abc"):
        text(other).insert(number, letter)
    other.unobserve(subscription)
    async with Provider(server.url, "room") as provider:
        line = await meet(server, provider)

        for update in reversed(updates):
            await line.say(yjs.update_message(update))

        await reads(provider, "abc")


async def test_another_epoch_is_not_merged_into(server: Scripted) -> None:
    async with Provider(server.url, "room", chance=soon) as provider:
        line = await meet(server, provider)
        await line.close(1012)

        line = await server.line()
        await line.greet("another")

        await comes_to(provider, Phase.REFUSED)
        assert isinstance(provider.state.error, AnotherHistory)
        assert provider.epoch == "e"


@pytest.mark.parametrize("code", [4400, 4401, 4403, 4404, 4408, 4409, 4413, 1003, 1009])
async def test_a_final_close_code_ends_it(server: Scripted, code: int) -> None:
    async with Provider(server.url, "room", chance=soon) as provider:
        line = await meet(server, provider)

        await line.close(code, "because")

        await comes_to(provider, Phase.REFUSED)
        assert "because" in str(provider.state.error)
        assert server.came == 1


async def test_who_waits_hears_the_end_of_what_was_refused_for_good(
    server: Scripted,
) -> None:
    async with (
        asyncio.timeout(SECONDS),
        asyncio.TaskGroup() as tasks,
        Provider(server.url, "room", chance=soon) as provider,
    ):
        states = tasks.create_task(listed(provider.states()))
        presences = tasks.create_task(listed(provider.presences()))
        line = await meet(server, provider)

        await line.close(4403, "because")

        assert (await states)[-1].phase is Phase.REFUSED
        assert await presences


async def test_leaving_a_document_of_which_something_was_refused_ends_every_wait(
    server: Scripted,
) -> None:
    async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as tasks:
        async with Provider(server.url, "room", Doc(), chance=soon) as provider:
            line = await meet(server, provider)
            states = tasks.create_task(listed(provider.states()))
            text(provider.doc).insert(0, "a")
            await line.hear_update()
            await line.say(yjs.refused(2, "permission_denied", "you only read"))
            await comes_to(provider, Phase.REFUSED)
            assert provider.state.error is not None
            provider.heard(provider.state.error)
            await line.close(1012)
            await until(lambda: provider.state.attempt > 0)
            synced = tasks.create_task(left(provider))
            await asyncio.sleep(0)

    assert states.result()[-1].phase is Phase.REFUSED
    assert "left" in str(synced.result())


async def left(provider: Provider) -> Unavailable:
    with pytest.raises(Unavailable) as raised:
        await provider.synced(timeout=None)
    return raised.value


async def listed(these: AsyncIterator[Any]) -> list[Any]:
    return [each async for each in these]


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 1013, 4000, 4205, 4500])
async def test_after_any_other_close_code_it_comes_back(
    server: Scripted, code: int
) -> None:
    async with Provider(server.url, "room", chance=soon) as provider:
        line = await meet(server, provider)

        await line.close(code)

        await meet(server, provider)


async def test_who_has_said_too_much_comes_back_when_the_reason_says(
    server: Scripted,
) -> None:
    async with Provider(server.url, "room", chance=soon) as provider:
        line = await meet(server, provider)

        await line.close(4429, "too much; retry in 0 s")

        await until(lambda: provider.state.attempt > 0)
        assert isinstance(provider.state.error, RateLimited)
        await meet(server, provider)


async def test_while_nothing_can_be_saved_changes_wait_and_are_said_once_asked_for(
    server: Scripted,
) -> None:
    async with Provider(server.url, "room", chance=soon) as provider:
        line = await meet(server, provider)
        text(provider.doc).insert(0, "a")
        await line.hear_update()
        await line.say(yjs.refused(2, "store_unavailable", "the disk is full"))
        await until(lambda: not provider.state.is_writable)
        text(provider.doc).insert(1, "b")
        assert provider.state.phase is Phase.UNSAVED

        await line.say(yjs.notice("writable"))
        await line.say(yjs.sync_step_1(b"\x00"))

        other: Doc = Doc()
        other.apply_update(await line.hear_update())
        assert str(text(other)) == "ab"
        await line.say(yjs.ack(3, 1))
        await provider.flush(timeout=SECONDS)


async def test_who_writes_too_fast_outside_of_a_turn_keeps_it_until_it_is_asked_for(
    server: Scripted,
) -> None:
    async with Provider(server.url, "room", chance=soon) as provider:
        line = await meet(server, provider)
        text(provider.doc).insert(0, "a")
        await line.hear_update()
        await line.say(yjs.refused(2, "rate_limited", "too much; retry in 1 s"))
        await until(lambda: isinstance(provider.state.error, RateLimited))
        text(provider.doc).insert(1, "b")
        assert provider.state.phase is Phase.UNSAVED

        await line.say(yjs.sync_step_1(b"\x00"))

        other: Doc = Doc()
        other.apply_update(await line.hear_update())
        assert str(text(other)) == "ab"
        text(provider.doc).insert(2, "c")
        await line.hear_update()
        await line.say(yjs.ack(4, 1))
        await provider.flush(timeout=SECONDS)
        assert provider.state.error is None


async def test_a_server_that_says_it_takes_nothing_at_once_is_sent_small_parts(
    server: Scripted,
) -> None:
    async with Provider(server.url, "room", chance=soon) as provider:
        text(provider.doc).insert(0, "x" * 3000)
        line = await server.line()

        await line.greet(max_update_bytes=0)

        for sequence in range(1, 5):
            assert len(await line.hear_update()) <= 1024
            await line.say(yjs.ack(sequence, sequence))
        await provider.flush(timeout=SECONDS)


async def test_a_room_that_is_read_only_is_asked_once_why(server: Scripted) -> None:
    async with Provider(server.url, "room", flush_seconds=0.01) as provider:
        line = await server.line()
        await line.greet(is_writable=False)
        await provider.synced(SECONDS)
        for number in range(5):
            text(provider.doc).insert(number, "x")

        assert await line.hear(b"\x00\x01", b"\x00\x02") == yjs.sync_step_2(yjs.NOTHING)
        await line.say(yjs.refused(1, "store_unavailable", "the disk is full"))

        await until(lambda: provider.state.error is not None)
        assert provider.state.phase is Phase.UNSAVED
        await line.say(yjs.notice("writable"))
        await line.say(yjs.sync_step_1(b"\x00"))
        await line.hear_update()
        await line.say(yjs.ack(2, 1))
        await provider.flush(timeout=SECONDS)


@pytest.mark.parametrize(
    "reason", ["a \0 in it", "half of \ud83d", "x" * 2048, 7, b"bytes"]
)
async def test_a_turn_that_no_server_takes_is_not_begun(
    server: Scripted, reason: Any
) -> None:
    async with Provider(server.url, "room", chance=soon) as provider:
        line = await meet(server, provider)

        with pytest.raises(Invalid):
            provider.turn("t1", {"reason": reason})

        text(provider.doc).insert(0, "a")
        await line.hear_update()
        await line.say(yjs.ack(2, 1))
        await provider.flush(timeout=SECONDS)


async def test_a_turn_whose_name_is_none_cannot_be_stopped() -> None:
    provider = Provider("http://127.0.0.1:1", "room")

    with pytest.raises(Invalid, match="turn"):
        provider.cancel_turn("no name")


async def test_a_turn_goes_before_what_belongs_to_it(server: Scripted) -> None:
    async with Provider(server.url, "room", chance=soon) as provider:
        line = await meet(server, provider)
        text(provider.doc).insert(0, "before ")
        provider.turn("t1", {"reason": "because"})
        text(provider.doc).insert(7, "within ")
        provider.turn("")
        text(provider.doc).insert(14, "after")

        said = [await line.hear(b"\x00\x02", b"\x73") for _ in range(5)]

        assert [frame[:1] for frame in said] == [b"\0", b"\x73", b"\0", b"\x73", b"\0"]
        assert turn_of(said[1]) == "t1"
        assert b'{"reason":"because"}' in said[1]
        assert turn_of(said[3]) == ""
        await line.say(yjs.ack(4, 1))


async def test_a_turn_is_said_again_on_the_next_connection_before_its_updates(
    server: Scripted,
) -> None:
    async with Provider(server.url, "room", chance=soon) as provider:
        line = await meet(server, provider)
        provider.turn("t1")
        await line.close(1012)
        text(provider.doc).insert(0, "away")

        line = await server.line()
        await line.greet()

        assert turn_of(await line.hear(b"\x73", b"\x00\x01")) == "t1"
        await line.hear_update()
        await line.say(yjs.ack(1, 1))
        await provider.flush(timeout=SECONDS)
        provider.turn("")
        assert turn_of(await line.hear(b"\x73")) == ""


async def test_what_a_turn_left_unsaved_is_still_said_as_that_turns(
    server: Scripted,
) -> None:
    async with Provider(server.url, "room", chance=soon) as provider:
        line = await meet(server, provider)
        await line.close(1012)
        await until(lambda: provider.state.phase is Phase.CONNECTING)
        provider.turn("t1")
        text(provider.doc).insert(0, "away")
        provider.turn("")

        line = await server.line()
        await line.greet()

        said = [await line.hear(b"\x73", b"\x00\x01") for _ in range(3)]
        assert [turn_of(said[0]), turn_of(said[2])] == ["t1", ""]
        await line.say(yjs.ack(1, 1))
        await provider.flush(timeout=SECONDS)


async def test_who_takes_a_turn_hears_that_it_has_ended(server: Scripted) -> None:
    heard: list[Event] = []
    async with Provider(server.url, "room") as provider:
        line = await meet(server, provider)
        provider.observe(heard.append)

        await line.say(ended("t1", "turn_cancelled"))
        await line.say(ended("t2", "lease_lost"))
        await line.say(ended("t3", "rate_limited"))

        await until(lambda: len(heard) == 3)
        found = [event for event in heard if isinstance(event, TurnEnded)]
        assert [(event.turn, type(event.error)) for event in found] == [
            ("t1", Cancelled),
            ("t2", LeaseLost),
            ("t3", RateLimited),
        ]


async def test_what_was_written_after_a_turn_was_cancelled_is_taken_out_again(
    server: Scripted,
) -> None:
    heard: list[Event] = []
    async with Provider(server.url, "room", chance=soon) as provider:
        line = await meet(server, provider)
        provider.observe(heard.append)
        provider.turn("t1")
        text(provider.doc).insert(0, "too late")
        await line.hear_update()

        await line.say(yjs.refused(2, "turn_cancelled", "stopped"))

        line = await server.line()
        await line.greet()
        with pytest.raises(Cancelled):
            await provider.leave()
        assert str(text(provider.doc)) == ""
        assert any(isinstance(event, Replaced) for event in heard)
        provider.heard(provider._ledger.replaced_for)


async def test_a_server_that_never_answers_a_handshake_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("collab.sdk.connection.DIAL_SECONDS", 0.05)

    writers: list[asyncio.StreamWriter] = []

    def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    listening = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    async with Provider(f"http://127.0.0.1:{port}", "room", chance=soon) as provider:
        with pytest.raises(Unavailable, match="does not answer"):
            await provider.synced(0.5)
    listening.close()
    for writer in writers:
        writer.transport.abort()


@asynccontextmanager
async def refusing(status: int, body: bytes) -> AsyncIterator[str]:
    """The address of a server that answers every handshake so."""

    async def refuse(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 %d No\r\ncontent-length: %d\r\n\r\n" % (status, len(body))
        writer.write(head + body)
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(refuse, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    listening.close()


async def test_a_handshake_that_is_refused_over_http_says_why() -> None:
    async with (
        refusing(403, b"not for us") as url,
        Provider(url, "room", chance=soon) as provider,
    ):
        await comes_to(provider, Phase.REFUSED)
        assert "not for us" in str(provider.state.error)


async def test_a_server_that_does_not_speak_the_protocol_is_not_taken_for_one() -> None:
    async def greet(socket: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            await Line(socket).greet()

    async with serve(greet, "127.0.0.1", 0) as listening:
        port = next(iter(listening.sockets)).getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        async with Provider(url, "room", chance=soon) as provider:
            await until(lambda: provider.state.attempt > 1)

            assert "no such server" in str(provider.state.error)


async def test_a_host_that_has_no_such_name_ends_it_with_a_typed_error() -> None:
    async with Provider("http://a..b", "room", chance=soon) as provider:
        await comes_to(provider, Phase.REFUSED)


async def test_a_redirect_is_not_followed_with_the_token() -> None:
    seen: list[bytes] = []

    async def redirect(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(
            b"HTTP/1.1 302 There\r\nlocation: ws://127.0.0.1:%d/ws/stolen\r\n"
            b"content-length: 0\r\n\r\n" % port
        )
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(redirect, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    async with Provider(url, "room", token="secret", chance=soon) as provider:
        await comes_to(provider, Phase.REFUSED)
    listening.close()

    assert len(seen) == 1
    assert "secret" not in repr(provider.state)


@pytest.mark.parametrize(
    "token", ["two words", "a\r\nHost: elsewhere", "ключ", "x" * 20_000]
)
async def test_what_is_no_token_is_never_sent(server: Scripted, token: str) -> None:
    async with Provider(server.url, "room", token=token, chance=soon) as provider:
        await comes_to(provider, Phase.REFUSED)

        assert isinstance(provider.state.error, Forbidden)
        assert token not in str(provider.state.error)
        assert server.came == 0


async def test_a_function_for_tokens_that_fails_is_asked_again_and_told_of_once(
    server: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[int] = []

    async def next_token() -> str:
        asked.append(1)
        if len(asked) < 4:
            raise ZeroDivisionError("with a secret")
        return "token"

    async with Provider(server.url, "room", token=next_token, chance=soon) as provider:
        await until(lambda: provider.state.error is not None)
        error = provider.state.error
        await meet(server, provider)

    assert isinstance(error, Unavailable)
    assert str(error).endswith("its function raised ZeroDivisionError")
    assert isinstance(error.__cause__, ZeroDivisionError)
    assert [record.name for record in caplog.records] == ["collab.sdk.credential"]
    assert caplog.records[0].exc_info is None
    assert "secret" not in caplog.text


async def test_a_function_that_brings_no_token_in_time_is_not_the_servers_fault(
    server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collab.sdk.credential.TOKEN_SECONDS", 0.01)

    async def next_token() -> str:
        await asyncio.Event().wait()
        return ""

    async with Provider(server.url, "room", token=next_token, chance=soon) as provider:
        await until(lambda: provider.state.error is not None)

        assert "TimeoutError" in str(provider.state.error)
        assert server.came == 0


async def test_who_was_there_is_not_shown_on_when_another_document_takes_its_place(
    server: Scripted,
) -> None:
    heard: list[Event] = []
    async with Provider(server.url, "room", chance=soon) as provider:
        line = await meet(server, provider)
        shown = encode_varint(7) + b"\x01" + encode_bytes(b'{"user":{"name":"Ada"}}')
        await line.say(yjs.awareness_message(b"\x01" + shown))
        await until(lambda: 7 in provider.peers)
        provider.observe(heard.append)
        text(provider.doc).insert(0, "a")
        await line.hear_update()

        await line.say(yjs.refused(2, "refused", "no"))

        await meet(server, provider)
        told = [event for event in heard if isinstance(event, PeersChanged)]
        provider.heard(next(e.error for e in heard if isinstance(e, Replaced)))
        assert [dict(event.peers) for event in told] == [{}]


async def test_presence_beyond_what_there_is_room_for_is_counted_and_ends_nothing(
    server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collab.sdk.presence.MAX_SEEN_BYTES", 1 << 18)
    large = b'{"a":"%s"}' % (b"x" * 60_000)
    async with Provider(server.url, "room", chance=soon) as provider:
        line = await meet(server, provider)

        for client in range(10):
            shown = encode_varint(client) + b"\x01" + encode_bytes(large)
            await line.say(yjs.awareness_message(b"\x01" + shown))

        await until(lambda: provider.unseen == 6)
        assert len(provider.peers) == 4
        assert provider.state.phase is Phase.SYNCED


@pytest.mark.parametrize("body", [b"", b"<html>of a proxy</html>"])
@pytest.mark.parametrize(("status", "kind"), [(403, Forbidden), (404, NotFound)])
async def test_a_wrong_path_is_told_with_what_to_check(
    status: int, kind: type[Exception], body: bytes
) -> None:
    async with (
        refusing(status, body) as url,
        Provider(f"{url}/elsewhere", "room", token="secret", chance=soon) as provider,
    ):
        await comes_to(provider, Phase.REFUSED)

    assert isinstance(provider.state.error, kind)
    assert "check the address" in str(provider.state.error)
    assert "proxy</html>" not in str(provider.state.error)
    assert "secret" not in str(provider.state.error)
