"""Providers against a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from certificates import Files
from faults.proxy import Proxy
from members import SECONDS, comes_to, reads, text, until, waits
from processes import Server
from pycrdt import Doc, Map

from collab.protocol import yjs
from collab.sdk import Phase, Provider, State
from collab.sdk.errors import (
    AnotherHistory,
    Conflict,
    Invalid,
    NotAcknowledged,
    NotFound,
    Unavailable,
)

pytestmark = pytest.mark.anyio

Serve = Callable[..., Server]


def soon() -> float:
    """In place of chance: comes back almost at once."""
    return 0.02


async def test_what_one_writes_another_reads(house: Server, room: str) -> None:
    async with Provider(house.url, room) as one, Provider(house.url, room) as two:
        await one.synced(SECONDS)
        await two.synced(SECONDS)
        text(one.doc).insert(0, "Grüße 😀")

        await one.flush(timeout=SECONDS)

        await reads(two, "Grüße 😀")
        assert one.state.phase is Phase.SAVED
        assert two.state.phase is Phase.SYNCED
        assert one.position == 1


async def test_a_documents_own_content_is_sent(house: Server, room: str) -> None:
    doc = Doc()
    text(doc).insert(0, "before")

    async with Provider(house.url, room, doc) as one, Provider(house.url, room) as two:
        await one.flush(timeout=SECONDS)

        await reads(two, "before")
        assert one.doc is doc


async def test_the_history_of_a_new_room_has_a_name_for_all_who_are_in_it_once_it_begins(
    house: Server, room: str
) -> None:
    async with Provider(house.url, room) as one, Provider(house.url, room) as two:
        for provider in (one, two):
            await provider.synced(SECONDS)
        assert one.epoch == ""

        text(one.doc).insert(0, "first")
        await one.flush(timeout=SECONDS)

        assert one.epoch != ""
        await until(lambda: two.epoch == one.epoch)
    async with Provider(house.url, room) as later:
        await later.synced(SECONDS)
        assert later.epoch == one.epoch


async def test_a_change_is_unsaved_until_the_server_has_it_on_disk(
    house: Server, room: str
) -> None:
    states: list[State] = []
    async with Provider(house.url, room) as provider:
        await provider.synced(SECONDS)
        provider.observe(
            lambda event: states.append(event) if isinstance(event, State) else None
        )

        text(provider.doc).insert(0, "a")
        text(provider.doc).insert(1, "b")
        await provider.flush(timeout=SECONDS)

        assert states[0].phase is Phase.UNSAVED
        assert states[0].unsaved_since is not None
        assert states[-1] == State(Phase.SAVED)


async def test_an_observer_may_look_at_the_document_and_edit_it(
    house: Server, room: str
) -> None:
    seen: list[str] = []
    async with Provider(house.url, room) as provider:
        await provider.synced(SECONDS)

        def look(event: object) -> None:
            if isinstance(event, State) and not seen:
                seen.append(str(text(provider.doc)))
                text(provider.doc).insert(0, "b")

        provider.observe(look)
        text(provider.doc).insert(0, "a")
        await provider.flush(timeout=SECONDS)
        await comes_to(provider, Phase.SAVED)

        assert seen == ["a"]


async def test_a_document_may_be_edited_before_its_block(
    house: Server, room: str
) -> None:
    provider = Provider(house.url, room)
    text(provider.doc).insert(0, "early")

    async with provider, Provider(house.url, room) as two:
        await reads(two, "early")


async def test_states_end_with_the_block(house: Server, room: str) -> None:
    async with asyncio.TaskGroup() as tasks:
        async with Provider(house.url, room) as provider:
            states = tasks.create_task(listed(provider))
            await provider.synced(SECONDS)

    assert states.result()[-1].phase is Phase.CLOSED


async def listed(provider: Provider) -> list[State]:
    return [state async for state in provider.states()]


async def test_nobody_says_when_a_change_is_in_a_checkpoint(
    house: Server, room: str
) -> None:
    async with Provider(house.url, room) as provider:
        with pytest.raises(NotAcknowledged):
            await provider.flush("stored")


async def test_leaving_waits_until_all_is_saved(house: Server, room: str) -> None:
    async with Provider(house.url, room) as one:
        text(one.doc).insert(0, "last words")

    async with Provider(house.url, room) as two:
        await two.synced(SECONDS)
        assert str(text(two.doc)) == "last words"


async def test_leaving_says_what_could_not_be_saved(room: str) -> None:
    provider = Provider("http://127.0.0.1:9", room, flush_seconds=0.05, chance=soon)

    with pytest.raises(Unavailable, match="not saved in time"):
        async with provider:
            text(provider.doc).insert(0, "lost")

    assert provider.state.phase is Phase.CLOSED


async def test_an_error_of_the_program_leaves_the_block_as_it_is(
    house: Server, room: str
) -> None:
    async def fails() -> None:
        async with Provider(house.url, room) as provider:
            await provider.synced(SECONDS)
            text(provider.doc).insert(0, "kept")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fails()

    async with Provider(house.url, room) as two:
        await two.synced(SECONDS)
        assert str(text(two.doc)) == "kept"


async def test_a_providers_block_is_left_as_often_as_one_likes_and_entered_once(
    house: Server, room: str
) -> None:
    provider = Provider(house.url, room)
    async with provider:
        await provider.synced(SECONDS)

    await provider.__aexit__(None, None, None)

    with pytest.raises(Conflict):
        await provider.__aenter__()


async def test_the_address_of_a_room_instead_of_the_servers_is_told_with_what_to_check(
    house: Server, room: str
) -> None:
    async with Provider(f"{house.url}/rooms", room) as provider:
        with pytest.raises(NotFound, match="/ws/ROOM"):
            await provider.synced(SECONDS)


async def test_a_cancelled_block_ends(house: Server, room: str) -> None:
    provider = Provider(house.url, room)

    async def waits_for_ever() -> None:
        async with provider:
            await provider.synced(SECONDS)
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(waits_for_ever())
        await comes_to(provider, Phase.SYNCED)
        task.cancel()

    assert task.cancelled()
    assert provider.state.phase is Phase.CLOSED


async def test_a_wrong_name_of_a_room_is_told_at_once() -> None:
    with pytest.raises(Invalid):
        Provider("http://127.0.0.1:9", "\x00")


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8000",
        "ftp://host",
        "http://user:secret@host",
        "http://host/?token=x",
        "http://host:99999",
        "http://[::1",
    ],
)
async def test_a_wrong_address_is_told_at_once(url: str) -> None:
    with pytest.raises(Invalid, match="server"):
        Provider(url, "room")


async def test_what_is_written_while_the_server_is_away_is_neither_lost_nor_doubled(
    server: Server,
) -> None:
    async with (
        Provider(server.url, "room", chance=soon) as one,
        Provider(server.url, "room", chance=soon) as two,
    ):
        for provider in (one, two):
            await provider.synced(SECONDS)
        text(one.doc).insert(0, "before.")
        await one.flush(timeout=SECONDS)
        await reads(two, "before.")
        text(one.doc).insert(7, "hardly sent.")
        server.kill()
        await waits(one)
        await waits(two)
        text(one.doc).insert(0, "one away.")
        text(two.doc).insert(0, "two away.")

        server.start()
        await one.flush(timeout=SECONDS)
        await two.flush(timeout=SECONDS)

        await until(lambda: str(text(one.doc)) == str(text(two.doc)))
        words = sorted(str(text(one.doc)).replace(".", ". ").split())
        assert words == sorted(
            ["before.", "hardly", "sent.", "one", "away.", "two", "away."]
        )


async def test_a_server_that_is_killed_again_and_again_loses_nothing(
    server: Server,
) -> None:
    written = [f"{number}," for number in range(400)]

    async with (
        Provider(server.url, "room", chance=soon) as one,
        Provider(server.url, "room", chance=soon) as two,
    ):
        await one.synced(SECONDS)
        for number, word in enumerate(written):
            text(one.doc).insert(len(str(text(one.doc))), word)
            if number % 100 == 50:
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)
            await asyncio.sleep(0)
        await one.flush(timeout=SECONDS)

        await reads(two, "".join(written))


async def test_a_socket_that_is_dropped_a_hundred_times_loses_and_doubles_nothing(
    house: Server, room: str
) -> None:
    written: list[str] = []
    async with (
        Proxy("127.0.0.1", house.port) as proxy,
        Provider(f"http://127.0.0.1:{proxy.port}", room, chance=lambda: 0.0) as one,
        Provider(house.url, room) as two,
    ):
        await one.synced(SECONDS)
        for number in range(100):
            for part in range(5):
                written.append(f"{number}.{part} ")
                text(one.doc).insert(len(str(text(one.doc))), written[-1])
                await asyncio.sleep(0.001)
            proxy.reset()
            text(one.doc).insert(len(str(text(one.doc))), "| ")
            written.append("| ")
            # Often in the middle of coming back.
            await until(lambda number=number: proxy.accepted > number + 1)
        await one.flush(timeout=SECONDS)

        await reads(two, "".join(written))
        assert proxy.accepted > 100


async def test_a_server_that_goes_down_for_a_restart_is_found_again(
    server: Server,
) -> None:
    async with Provider(server.url, "room", chance=soon) as provider:
        text(provider.doc).insert(0, "before ")
        await provider.flush(timeout=SECONDS)

        await asyncio.to_thread(server.restart)
        text(provider.doc).insert(7, "after")
        await provider.flush(timeout=SECONDS)

        assert provider.position == 2


async def test_a_server_that_falls_silent_is_left_and_found_again(
    house: Server, room: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collab.sdk.connection.PING_SECONDS", 0.1)
    monkeypatch.setattr("collab.sdk.connection.SILENCE_SECONDS", 0.1)
    monkeypatch.setattr("collab.sdk.connection.CLOSE_SECONDS", 0.1)
    async with (
        Proxy("127.0.0.1", house.port) as proxy,
        Provider(f"http://127.0.0.1:{proxy.port}", room, chance=soon) as provider,
    ):
        await provider.synced(SECONDS)
        proxy.hold()
        text(provider.doc).insert(0, "into the void")
        await waits(provider)

        proxy.heal()
        await provider.flush(timeout=SECONDS)

        assert provider.state.phase is Phase.SAVED


async def test_a_room_with_another_history_is_not_merged_into(
    serve: Serve, tmp_path
) -> None:
    server = serve(data=tmp_path / "first")
    async with Provider(server.url, "room") as provider:
        text(provider.doc).insert(0, "old")
        await provider.flush(timeout=SECONDS)
    async with Provider(server.url, "room", chance=soon) as provider:
        await provider.synced(SECONDS)
        server.kill()
        server.data = tmp_path / "second"
        server.start()

        await comes_to(provider, Phase.REFUSED)

        assert isinstance(provider.state.error, AnotherHistory)
        with pytest.raises(AnotherHistory):
            await provider.synced()
    async with Provider(server.url, "room") as other:
        await other.synced(SECONDS)
        assert str(text(other.doc)) == ""


async def test_more_edits_than_may_wait_arrive_all_the_same(
    house: Server, room: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collab.sdk.outgoing.MAX_WAITING", 50)
    async with (
        Provider(house.url, room, chance=soon) as one,
        Provider(house.url, room) as two,
    ):
        await one.synced(SECONDS)

        for number in range(1000):
            text(one.doc).insert(number, "x")
        await one.flush(timeout=SECONDS)

        await reads(two, "x" * 1000)


async def test_edits_of_one_turn_of_the_loop_leave_together(
    house: Server, room: str
) -> None:
    async with Provider(house.url, room) as one:
        await one.synced(SECONDS)

        with one.doc.transaction():
            text(one.doc).insert(0, "in one")
        for number in range(500):
            text(one.doc).insert(number, "x")
        await one.flush(timeout=SECONDS)

        assert one.position < 10


async def test_what_another_thread_writes_is_sent_as_well(
    house: Server, room: str
) -> None:
    loop = asyncio.get_running_loop()
    async with Provider(house.url, room) as provider:
        await provider.synced()

        loop.set_debug(True)  # then it complains of whoever is on a wrong thread
        try:
            await asyncio.to_thread(lambda: text(provider.doc).insert(0, "a"))
        finally:
            loop.set_debug(False)
        await provider.flush()

        assert provider.state.phase is Phase.SAVED


async def test_maps_and_deletions_cross_too(house: Server, room: str) -> None:
    async with Provider(house.url, room) as one, Provider(house.url, room) as two:
        one.doc.get("map", type=Map)["key"] = {"a": [1, None, "ü"]}
        text(one.doc).insert(0, "0123456789")
        await one.flush(timeout=SECONDS)
        await reads(two, "0123456789")

        del text(two.doc)[2:8]
        await two.flush(timeout=SECONDS)

        await reads(one, "0189")
        assert two.doc.get("map", type=Map).to_py() == {"key": {"a": [1, None, "ü"]}}


async def test_a_whole_document_with_more_structs_than_one_update_may_hold_is_read(
    house: Server, room: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collab.sdk.mirror.MAX_STRUCTS", 100)
    monkeypatch.setattr("collab.protocol.structs.MAX_STRUCTS", 100)
    async with Provider(house.url, room) as one:
        await one.synced(SECONDS)
        for number in range(300):
            text(one.doc).insert(0, f"{number % 10}😀")
        await one.flush(timeout=SECONDS)
        written = str(text(one.doc))

    async with Provider(house.url, room) as two:
        await two.synced(SECONDS)
        assert str(text(two.doc)) == written
        text(two.doc).insert(0, "and on")
        await two.flush(timeout=SECONDS)


async def test_what_a_server_says_wrongly_ends_it_with_a_typed_error(
    house: Server, room: str
) -> None:
    async with Provider(house.url, room) as provider:
        await provider.synced(SECONDS)

        provider.send(b"\x73\x01\xff\x02{}")  # a turn whose id is not UTF-8
        await comes_to(provider, Phase.REFUSED)

        assert provider.state.error is not None


async def test_other_messages_keep_their_place_among_the_updates(
    house: Server, room: str
) -> None:
    async with Provider(house.url, room) as provider:
        await provider.synced(SECONDS)

        text(provider.doc).insert(0, "a")
        assert provider.send(yjs.KEEP_ALIVE)
        text(provider.doc).insert(1, "b")
        await provider.flush(timeout=SECONDS)

        assert provider.position == 2


async def test_an_observer_of_the_program_that_fails_ends_nothing(
    house: Server, room: str
) -> None:
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda loop, context: failures.append(context["exception"])
    )

    def fail(event: object) -> None:
        raise ZeroDivisionError

    async with Provider(house.url, room) as one, Provider(house.url, room) as two:
        await two.synced(SECONDS)
        two.observe(fail)
        two.doc.observe(fail)
        text(one.doc).insert(0, "read all the same")

        await reads(two, "read all the same")

    assert failures


async def test_certificates_of_ones_own_are_trusted_when_they_are_named(
    serve: Serve, tmp_path: Path
) -> None:
    files = Files(tmp_path / "tls")
    server = serve(*files.flags())
    url = f"https://localhost:{server.port}"

    async with Provider(url, "room", tls=files.context()) as provider:
        text(provider.doc).insert(0, "over TLS")
        await provider.flush(timeout=SECONDS)
    async with Provider(url, "room", chance=soon) as stranger:
        with pytest.raises(Unavailable, match="not trusted"):
            await stranger.synced(1)
