"""`make load` for real: it passes on an honest server, and fails with a reason on one that is not."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio import to_thread
from processes import ROOT, Server
from proxying import Haproxy
from services import Redis
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, ConnectionClosedError

from collab.protocol import yjs
from collab.protocol.varint import Reader, encode_varint

pytestmark = pytest.mark.anyio

USERS = 4  # connections beyond these read the room anew at the end
SHORT = ("--seconds", "3", "--think-seconds", "0.2", "--settle-seconds", "1")


async def load(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """One run. Its greenlets patch the whole process, so that it never is this one."""
    results = str(folder / "results")
    command = [sys.executable, "loadtests/swarm.py", "--results", results, *flags]

    def run() -> subprocess.CompletedProcess[str]:
        with subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                out, err = process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                process.terminate()  # which ends what it has started
                raise
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    return await to_thread.run_sync(run)


def reports(folder: Path) -> dict[str, str]:
    """What the only run in this folder has left."""
    (run,) = (folder / "results").iterdir()
    return {path.name: path.read_text() for path in run.iterdir()}


class Proxy:
    """Between the users and an honest server; what a dishonest one would do is in the methods that are overridden."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.connections = 0
        self.room = ""

    def up(self, number: int, frame: bytes) -> tuple[bytes | None, bytes | None]:
        """What goes on to the server, and what goes back to the client at once."""
        return frame, None

    def down(self, number: int, frame: bytes) -> bytes | None:
        """What goes on to the client."""
        return frame

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        async with serve(
            self._carry,
            "127.0.0.1",
            0,
            compression=None,
            subprotocols=[yjs.COLLAB_V1],
        ) as listening:
            port = next(iter(listening.sockets)).getsockname()[1]
            yield f"ws://127.0.0.1:{port}"

    async def _carry(self, client: ServerConnection) -> None:
        number, self.connections = self.connections, self.connections + 1
        assert client.request is not None
        self.room = client.request.path.removeprefix("/ws/")
        async with connect(
            f"{self.server.address}{client.request.path}",
            compression=None,
            subprotocols=[yjs.COLLAB_V1],
        ) as upstream:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._upwards, number, client, upstream)
                try:
                    async for frame in upstream:
                        assert isinstance(frame, bytes)
                        passed = self.down(number, frame)
                        if passed is not None:
                            await client.send(passed)
                except ConnectionClosed:
                    pass
                tasks.cancel_scope.cancel()

    async def _upwards(
        self, number: int, client: ServerConnection, upstream: ClientConnection
    ) -> None:
        try:
            async for frame in client:
                assert isinstance(frame, bytes)
                passed, back = self.up(number, frame)
                if back is not None:
                    await client.send(back)
                if passed is not None:
                    await upstream.send(passed)
        except ConnectionClosedError:
            pass
        await upstream.close()


class LosesOneOnTheWay(Proxy):
    """One update does not reach one member. The echo of a member's own does not count: it has that already."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self.own: defaultdict[int, set[bytes]] = defaultdict(set)
        self.seen: Counter[int] = Counter()
        self.has_lost = False

    def up(self, number: int, frame: bytes) -> tuple[bytes | None, bytes | None]:
        self.own[number].add(frame)
        return frame, None

    def down(self, number: int, frame: bytes) -> bytes | None:
        if frame[:2] == b"\x00\x02" and frame not in self.own[number]:
            self.seen[number] += 1
            if self.seen[number] == 8 and not self.has_lost:
                self.has_lost = True
                return None
        return frame


class AcknowledgesWithoutKeeping(Proxy):
    """One update is called saved and kept by nobody."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self.sent: Counter[int] = Counter()
        self.robbed: int | None = None

    def up(self, number: int, frame: bytes) -> tuple[bytes | None, bytes | None]:
        if frame[0] == yjs.SYNC and frame[1] != yjs.STEP_1:
            self.sent[number] += 1
            if self.sent[number] == 5 and self.robbed is None:
                self.robbed = number
                return None, yjs.ack(5, 0)
        return frame, None

    def down(self, number: int, frame: bytes) -> bytes | None:
        if number == self.robbed and frame[0] == yjs.ACK:
            reader = Reader(frame, 1)
            sequence = reader.read_varint() + 1
            return bytes((yjs.ACK,)) + encode_varint(sequence) + frame[reader.at :]
        return frame


class ForgetsToAcknowledge(Proxy):
    """After a few, nobody hears any more that something was saved."""

    def down(self, number: int, frame: bytes) -> bytes | None:
        is_late = frame[0] == yjs.ACK and Reader(frame, 1).read_varint() > 5
        return None if is_late else frame


class ShowsLatecomersNothing(Proxy):
    """Those who are there agree; who comes later gets an empty document."""

    def down(self, number: int, frame: bytes) -> bytes | None:
        if number >= USERS and frame[:2] == b"\x00\x01":
            return yjs.sync_step_2(yjs.NOTHING)
        return frame


async def test_a_run_on_a_server_of_its_own_passes_and_leaves_its_reports(
    tmp_path: Path,
) -> None:
    done = await load(tmp_path, "--users", "8", *SHORT, "--rooms", "2")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed: every room the same everywhere" in done.stdout
    for event in ("connect", "initial_sync", "saved", "propagation"):
        assert re.search(rf"^{event} +\d+ +0 ", done.stdout, re.MULTILINE)
    left = reports(tmp_path)
    assert "initial_sync" in left["report.html"]
    assert "initial_sync" in left["stats.csv"]
    assert "draining" in left["server.log"]
    found = re.search(r"at (ws://\S+)", done.stdout)
    assert found is not None
    with pytest.raises(OSError, match="Connect call failed"):
        await connect(f"{found[1]}/ws/room")


async def test_a_storm_from_two_processes_on_two_replicas_converges(
    tmp_path: Path, serve: Callable[..., Server]
) -> None:
    with Redis() as redis:
        one, two = (serve("--redis", redis.url) for _ in range(2))
        flags = ("--users", "8", "--rooms", "2", "--shape", "storm", "--processes", "2")
        addresses = f"{one.url},{two.address}/"

        done = await load(tmp_path, *SHORT, *flags, "--url", addresses)

    assert done.returncode == 0, done.stdout + done.stderr
    stats = json.loads(reports(tmp_path)["stats.json"])
    counted = {entry["name"]: entry["num_requests"] for entry in stats}
    assert counted["reconnect"] >= 8
    # One that is cut again before it is back in step has connected, and not come back.
    assert counted["connect"] >= 8 + counted["reconnect"]


async def test_many_users_behind_haproxy_end_with_every_room_the_same_on_both_replicas(
    tmp_path: Path, serve: Callable[..., Server]
) -> None:
    with Redis() as redis:
        flags = ("--redis", redis.url, "--trusted-proxies", "127.0.0.1")
        replicas = [serve(*flags) for _ in range(2)]
        with Haproxy([replica.port for replica in replicas]) as proxy:
            asked = ("--users", "60", "--rooms", "6", "--seconds", "8")

            done = await load(tmp_path, *asked, "--url", proxy.url)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed: every room the same everywhere" in done.stdout


async def test_a_run_that_is_ended_ends_its_server_too(tmp_path: Path) -> None:
    command = [sys.executable, "loadtests/swarm.py", "--results", str(tmp_path)]
    async with await anyio.open_process(command, cwd=ROOT, stderr=None) as process:
        assert process.stdout is not None
        printed = ""
        while "2 s  " not in printed:
            printed += (await process.stdout.receive()).decode()

        process.terminate()
        code = await process.wait()

    found = re.search(r"at (ws://\S+)", printed)
    assert found is not None
    assert code == 128 + signal.SIGTERM
    with pytest.raises(OSError, match="Connect call failed"):
        await connect(f"{found[1]}/ws/room")


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (LosesOneOnTheWay, r"1 of 4 documents differ from the others in .*state vect"),
        (AcknowledgesWithoutKeeping, r"1 of 4 documents differ from the others in"),
        (ForgetsToAcknowledge, r"waits for \d+ acknowledgements"),
        (ShowsLatecomersNothing, r"1 of 5 documents differ .*\(fresh-reader-0\)"),
    ],
)
async def test_a_server_that_loses_something_fails_the_run_with_the_room(
    tmp_path: Path,
    server: Server,
    broken: Callable[[Server], Proxy],
    sentence: str,
) -> None:
    proxy = broken(server)
    flags = ("--users", str(USERS), "--rooms", "1")

    async with proxy.serving() as url:
        done = await load(tmp_path, *SHORT, *flags, "--url", url)

    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(rf"FAILED: room {proxy.room}: .*{sentence}", done.stdout), (
        done.stdout + done.stderr
    )


async def test_a_target_that_is_missed_fails_the_run(
    tmp_path: Path, server: Server
) -> None:
    targets = ("--p50-saved-ms", "0.01", "--p99-connect-ms", "60000")

    done = await load(tmp_path, "--users", "2", *SHORT, *targets, "--url", server.url)

    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAILED: target missed: p50 of saved ≤ 0.01 ms" in done.stdout
    assert "reached: p99 ≤ 60000" in done.stdout
    assert done.stdout.count("FAILED") == 1


async def test_a_server_that_closes_everybody_fails_the_run_with_the_code(
    tmp_path: Path,
) -> None:
    async def turn_away(connection: ServerConnection) -> None:
        await connection.close(4403, "permission_denied")

    async with serve(
        turn_away,
        "127.0.0.1",
        0,
        subprotocols=[yjs.COLLAB_V1],
    ) as listening:
        port = next(iter(listening.sockets)).getsockname()[1]
        done = await load(
            tmp_path, "--users", "2", *SHORT, "--url", f"ws://127.0.0.1:{port}"
        )

    assert done.returncode == 1, done.stdout + done.stderr
    assert "2 × connection: 4403 permission_denied" in done.stdout
    assert "is gone: closed with 4403" in done.stdout
    assert "FAILED: nothing was measured: initial_sync" in done.stdout


async def test_an_address_where_nobody_listens_fails_the_run(tmp_path: Path) -> None:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listening:
        port = listening.extra(anyio.abc.SocketAttribute.local_port)

    done = await load(
        tmp_path, "--users", "2", *SHORT, "--url", f"ws://127.0.0.1:{port}"
    )

    assert done.returncode == 1, done.stdout + done.stderr
    assert "connect: ConnectionRefusedError" in done.stdout
