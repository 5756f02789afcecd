"""Clients that do not read, go silent, are copies, repeat themselves, bring much, come all at once: F24 to F28, F33, F35."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Callable

import cable
from cluster import Replica
from forging import AUDIENCE, ISSUER, Issuer
from fresh import look
from ledger import Ledger
from proxy import Proxy
from rows_redis import POOLED, each, together
from scenario import ROOM, Scenario, Stage, Store
from typists import Typist
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

CALM_SECONDS = 1.5
MUCH_BYTES = 80_000_000  # that an allocator may keep after large documents
FLOOD = 300  # repeats of one connection that are still no flood


async def slow_reader(stage: Stage) -> None:
    """A member with a small window stops reading while others type and bring much."""
    stage.slack_bytes = MUCH_BYTES
    (replica,) = await stage.open_replicas(
        1, "--max-outbox-bytes", "65536", "--slow-member-seconds", "1"
    )
    typists = stage.type(3)
    stage.type_elsewhere(replica)
    await stage.everybody()
    await stage.edits(50)
    await asyncio.sleep(CALM_SECONDS)

    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await asyncio.get_running_loop().run_in_executor(
        None, narrow.connect, ("127.0.0.1", replica.port)
    )
    async with connect(
        f"{replica.address}/ws/{ROOM}",
        sock=narrow,
        max_queue=1,
        ping_interval=None,
        compression=None,
    ) as slow:
        await slow.send(b"\x00\x00\x01\x00")
        with stage.watching("one member does not read", CALM_SECONDS):
            for _ in range(stage.size(60, 200)):
                await typists[0].bulk(200_000, key="same")
                await asyncio.sleep(0.1)
            await stage.edits(100)
        stage.healed()
        try:
            async with asyncio.timeout(10):
                while True:
                    await slow.recv()
        except (ConnectionClosed, TimeoutError):
            pass
        # Cut, if it does not read that it is closed either.
        is_over = slow.close_code in (1013, 1006)
        stage.expect(is_over, f"it is closed with 1013, not {slow.close_code}")
    stage.expect(
        all(one.opened == 1 for one in typists), "the others are not disturbed"
    )


async def half_open(stage: Stage) -> None:
    """Clients behind a network that swallows everything: they are there no more, and come back with what they typed."""
    (replica,) = await stage.open_replicas(1, "--idle-seconds", "3")
    proxy = await stage.open_proxy(replica)
    await _fall_silent(stage, replica, proxy, proxy.hold, proxy.heal)


async def unplugged(stage: Stage) -> None:
    """The same, where a cable is pulled: neither end hears that the other is gone."""
    cable = await stage.open_cable()
    everywhere = ("--host", "0.0.0.0", "--insecure-no-auth")
    hosts = ("--allowed-hosts", "127.0.0.1")
    (replica,) = await stage.open_replicas(
        1, "--idle-seconds", "3", *everywhere, *hosts
    )
    proxy = await stage.open_proxy(replica)
    await _fall_silent(stage, replica, proxy, cable.pull, cable.plug)


async def _fall_silent(
    stage: Stage,
    replica: Replica,
    proxy: Proxy,
    part: Callable[[], None],
    heal: Callable[[], None],
) -> None:
    stay = stage.type(2, at=[replica])
    far = stage.type(2, places=lambda: [f"ws://127.0.0.1:{proxy.port}"])
    for typist in (*stay, *far):
        typist.renew_seconds = 1.0
    await stage.everybody()
    await stage.edits(50)

    stage.fault("silence")
    part()
    near = {one.doc.client_id for one in stay}

    async def are_gone() -> bool:
        return (await look(replica.address, ROOM)).present == near

    seconds = await stage.within(are_gone, "the silent are gone", seconds=35)
    stage.result.notes["seconds until the silent are gone"] = round(seconds, 1)
    stage.bury(far[1:])
    heal()
    stage.healed()
    await stage.everybody()
    await stage.edits(50)


async def copied_client(stage: Stage) -> None:
    """Two documents write under one client id, as after a copied profile."""
    (replica,) = await stage.open_replicas(1, "--binding", "enforce")
    first, *_ = stage.type(2)
    await stage.everybody()
    await stage.edits(40)

    (copy,) = stage.type(1, client_id=first.doc.client_id)
    await _is_barred(stage, copy)

    stage.expect(4409 in copy.closes, f"it is told why: {copy.closes}")
    await stage.edits(40)
    seen = (await look(replica.address, ROOM)).tokens
    stage.expect(
        not any(token.startswith(f"{copy.name}-") for token in seen),
        "nothing of the copy is in the document",
    )


async def _is_barred(stage: Stage, copy: Typist) -> None:
    await stage.until(lambda: copy.is_barred, "the copy is refused")
    stage.typists.remove(copy)


async def copied_client_elsewhere(stage: Stage, *, store: Store) -> None:
    """The same at two replicas: who owns a client id is known where the room is kept, if people have accounts."""
    issuer = Issuer()
    keys = issuer.write(stage.directory / "keys.json")
    stage.query = f"?token={issuer.token()}"
    _, _, replicas = await together(
        stage,
        store,
        *("--auth", "jwt", "--jwt-keys", str(keys), "--allow-query-token"),
        *("--jwt-audience", AUDIENCE, "--jwt-issuer", ISSUER, "--binding", "enforce"),
    )
    (first,) = stage.type(1, at=replicas[:1])
    await stage.everybody()
    await stage.edits(40)

    (copy,) = stage.type(
        1,
        at=replicas[1:],
        client_id=first.doc.client_id,
        room=f"{ROOM}?token={issuer.token(sub='mallory')}",
    )
    await _is_barred(stage, copy)

    stage.expect(4409 in copy.closes, f"it is told why: {copy.closes}")
    await stage.edits(40)
    for replica in replicas:
        seen = (await look(replica.address, ROOM + stage.query)).tokens
        stage.expect(
            not any(token.startswith(f"{copy.name}-") for token in seen),
            f"nothing of the copy is in the document of replica {replica.number}",
        )


async def old_updates(stage: Stage) -> None:
    """A client sends its whole history again and again: nothing is logged, nobody hears of it."""
    await stage.open_replicas(1)
    typists = stage.type(3)
    await stage.everybody()
    await stage.edits(150)
    for typist in typists:
        typist.is_typing = False
    await stage.until(lambda: all(one.is_saved for one in typists), "all is saved")
    before = max(one.position for one in typists)

    sent = 0
    for _ in range(stage.size(5, 40)):
        (again,) = stage.type(1, per_second=0)
        await stage.everybody()
        for update in typists[0].history[:FLOOD]:
            await again.send(update)
            sent += 1
        await again.barrier()
        await stage.dismiss([again])

    stage.healed()
    typists[0].is_typing = True
    await stage.edits(10)
    typists[0].is_typing = False
    await stage.until(lambda: typists[0].is_saved, "all is saved")
    after = max(one.position for one in typists)
    stage.expect(after - before <= 100, f"the log does not grow: {before} → {after}")
    stage.result.notes["updates sent again"] = sent


async def huge_document(stage: Stage) -> None:
    """A room grows large; it is loaded again while others type elsewhere."""
    stage.slack_bytes = MUCH_BYTES if not stage.is_long else 10 * MUCH_BYTES
    (replica,) = await stage.open_replicas(1)
    typists = stage.type(2, per_second=10)
    await stage.everybody()
    for _ in range(stage.size(12, 100)):
        await typists[0].bulk(400_000)
    await typists[0].barrier()
    stage.fault("SIGKILL")
    await replica.kill()
    replica.is_hidden = True
    await replica.start()
    stage.type_elsewhere(replica)
    await asyncio.sleep(CALM_SECONDS)

    with stage.watching("a large room is loaded", CALM_SECONDS):
        await look(replica.address, ROOM)
        replica.is_hidden = False
        await stage.everybody()
        await asyncio.sleep(CALM_SECONDS)
    stage.healed()
    await stage.edits(20)


async def everybody_at_once(stage: Stage) -> None:
    """The process dies under many clients, and they all come back in the same moment."""
    (replica,) = await stage.open_replicas(1)
    stage.type(3)
    crowd = await _crowd(stage)
    stage.fault("SIGKILL")
    await replica.kill()
    await replica.start()
    await _all_back(stage, crowd)


async def half_at_once(stage: Stage, *, store: Store) -> None:
    """One of the replicas dies, and its clients all come to the others."""
    stage.slack_files = POOLED
    _, _, replicas = await together(stage, store)
    stage.bury(stage.typists[1:])
    stage.typists[0].places = lambda: [replicas[0].address]
    crowd = await _crowd(stage)
    stage.fault("SIGKILL")
    await replicas[-1].kill()
    await _all_back(stage, crowd)
    await replicas[-1].start()


async def _crowd(stage: Stage) -> list[Typist]:
    crowd = [
        typist
        for room in range(10)
        for typist in stage.type(
            stage.size(15, 150), per_second=0, room=f"crowd{room}", ledger=Ledger()
        )
    ]
    await stage.until(
        lambda: all(one.is_connected for one in crowd), "all have come", seconds=60
    )
    await stage.edits(50)
    return crowd


async def _all_back(stage: Stage, crowd: list[Typist]) -> None:
    stage.healed()
    seconds = await stage.until(
        lambda: all(one.is_connected for one in crowd), "all are back", seconds=60
    )
    stage.result.notes[f"seconds until {len(crowd)} are back"] = round(seconds, 1)
    await stage.everybody()
    await stage.edits(50)
    await stage.dismiss(crowd)


async def little_memory(stage: Stage) -> None:
    """The process may not grow any more while clients bring much; if it dies, it is started again."""
    stage.expected = ("MemoryError", "can't start new thread", "Cannot allocate memory")
    (replica,) = await stage.open_replicas(1)
    stage.type(3)
    await stage.everybody()
    await stage.edits(50)
    hoarders = [
        stage.type(1, per_second=0, room=f"hoard{number}", ledger=Ledger())[0]
        for number in range(4)
    ]
    await stage.until(lambda: all(one.is_connected for one in hoarders), "all are here")

    bound = replica.virtual_bytes + 24_000_000
    stage.fault("RLIMIT_AS")
    resource.prlimit(replica.pid, resource.RLIMIT_AS, (bound, resource.RLIM_INFINITY))
    for _ in range(60):
        for hoarder in hoarders:
            if hoarder.is_connected:
                try:
                    await hoarder.bulk(300_000)
                except (ConnectionClosed, OSError):
                    pass
        await asyncio.sleep(0.01)
    died = not replica.is_running
    stage.result.notes["died"] = str(died)
    if not died:
        await replica.kill()
    else:
        await replica.wait()
    await stage.dismiss(hoarders)
    await replica.start()
    stage.healed()
    await stage.everybody()
    await stage.edits(50)


ROWS = (
    Scenario("F24/single", "a member with a 4 KB window stops reading", slow_reader),
    Scenario("F25/single", "a network that swallows everything, both ways", half_open),
    *(
        [Scenario("F25 cable/single", "the cable to the clients is pulled", unplugged)]
        if cable.is_available()
        else []
    ),
    Scenario("F26/single", "two documents under one client id", copied_client),
    *each(
        "F26",
        "two documents under one client id, at two replicas",
        copied_client_elsewhere,
    ),
    Scenario("F27/single", "a whole history sent again and again", old_updates),
    Scenario("F28/single", "a large document, loaded beside others", huge_document),
    Scenario("F33/single", "all clients come back at once", everybody_at_once),
    *each(
        "F33", "the clients of a killed replica all come to the others", half_at_once
    )[:1],
    Scenario("F35/single", "no more memory (RLIMIT_AS)", little_memory),
)
