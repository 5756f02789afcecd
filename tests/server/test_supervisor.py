"""`--workers N` as processes: one port, replaced when they die, drained together, gone with their supervisor."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from certificates import Files
from overseen import Workers, lives
from processes import ROOT, close_code, eventually
from websockets.asyncio.client import ClientConnection, connect

from collab.errors import ConfigurationError
from collab.server import supervisor
from collab.server.supervisor import Supervisor, bind

pytestmark = pytest.mark.anyio

Start = Callable[..., Workers]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start workers with flags of one's own; all are ended with the test."""
    started: list[Workers] = []

    def start(*flags: str, count: int = 2) -> Workers:
        made = Workers(tmp_path / f"data{len(started)}", *flags)
        made.count = count
        started.append(made)
        made.start()
        return made

    yield start
    for each in started:
        if each.process is not None:
            left = each.workers
            each.kill()
            assert eventually(lambda left=left: not any(map(lives, left)), seconds=40)


async def sockets(server: Workers, count: int) -> list[ClientConnection]:
    """Of clients that have said what must be said first."""
    joined = [await connect(f"{server.address}/ws/r{n}") for n in range(count)]
    for each in joined:
        await each.send(b"\x00\x00\x01\x00")
    return joined


async def figures(server: Workers, name: str) -> dict[str, float]:
    """What each worker says of a metric."""
    async with httpx2.AsyncClient(base_url=server.url, timeout=30) as client:
        text = (await client.get("/metrics")).text
    return {
        worker: float(value)
        for worker, value in re.findall(
            rf'^{name}{{worker="(\d+)"}} (\S+)$', text, flags=re.MULTILINE
        )
    }


async def test_workers_share_the_port_and_its_sockets(start: Start) -> None:
    server = start()

    joined = await sockets(server, 60)
    counts = await figures(server, "collab_sockets")
    for each in joined:
        await each.close()

    assert sum(counts.values()) == 60
    assert min(counts.values()) > 10
    assert await figures(server, "collab_worker_up") == {"1": 1, "2": 1}
    assert server.logs().count("workers are ready") == 1


async def test_a_killed_worker_is_replaced_and_its_clients_come_back(
    start: Start,
) -> None:
    server = start()
    joined = await sockets(server, 20)
    first, second = server.workers

    os.kill(first, signal.SIGKILL)
    lost = 20 - sum((await figures(server, "collab_sockets")).values())
    for at, each in enumerate(joined):
        if len(joined) > at and await is_cut(each, first):
            joined[at] = await connect(f"{server.address}/ws/r{at}")
    replaced = await asyncio.to_thread(
        eventually, lambda: len(server.workers) == 2, seconds=30
    )

    restarts = await figures(server, "collab_worker_restarts_total")
    counts = await figures(server, "collab_sockets")
    for each in joined:
        await each.close()
    assert 0 < lost < 20
    assert replaced
    assert first not in server.workers
    assert second in server.workers
    assert sorted(restarts.values()) == [0, 1]
    assert sum(counts.values()) == 20


async def test_a_worker_that_hangs_is_replaced(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUNG_SECONDS", "6")
    server = start()
    first, second = server.workers

    os.kill(first, signal.SIGSTOP)
    replaced = await asyncio.to_thread(
        eventually,
        lambda: len(server.workers) == 2 and first not in server.workers,
        seconds=30,
    )

    assert replaced
    assert second in server.workers
    assert "does not answer" in server.logs()


async def is_cut(client: ClientConnection, pid: int) -> bool:
    """Whether the connection ended with a process that has ended."""
    try:
        async with asyncio.timeout(0.2):
            await client.wait_closed()
    except TimeoutError:
        return False
    return True


async def test_nothing_is_left_when_the_supervisor_is_killed(start: Start) -> None:
    server = start("--drain-seconds", "1")
    joined = await sockets(server, 10)
    workers = server.workers

    server.kill()

    codes = {await close_code(each) for each in joined}
    gone = await asyncio.to_thread(eventually, lambda: not any(map(lives, workers)))
    assert codes == {1012}
    assert gone
    with socket.create_server(("127.0.0.1", server.port)):
        pass  # the port is free again


async def test_a_supervisor_drains_all_workers_and_ends_well(start: Start) -> None:
    server = start("--drain-seconds", "1")
    joined = await sockets(server, 30)
    workers = server.workers

    code = await asyncio.to_thread(server.terminate)

    codes = {await close_code(each) for each in joined}
    assert code == 0
    assert codes == {1012}
    assert not any(map(lives, workers))


async def test_while_all_drain_the_port_says_so(start: Start) -> None:
    server = start("--drain-seconds", "3")
    joined = await sockets(server, 300)
    os.kill(server.pid, signal.SIGTERM)

    async with httpx2.AsyncClient(base_url=server.url, timeout=30) as client:
        ready = await client.get("/readyz")
        while ready.status_code == 200:
            ready = await client.get("/readyz")

    assert ready.json() == {"status": "unready", "reasons": ["draining"]}
    assert {await close_code(each) for each in joined} == {1012}
    assert await asyncio.to_thread(server.ended) == 0


async def test_a_second_signal_ends_all_at_once(start: Start) -> None:
    server = start("--drain-seconds", "60")
    joined = await sockets(server, 200)
    os.kill(server.pid, signal.SIGTERM)
    await asyncio.to_thread(
        eventually, lambda: server.logs().count('"draining"') == server.count
    )

    async with asyncio.timeout(30):
        code = await asyncio.to_thread(server.terminate)

    assert code == 0
    assert {await close_code(each) for each in joined} == {1012}


async def readiness(server: Workers) -> int:
    """Over a connection of its own."""
    async with httpx2.AsyncClient(base_url=server.url, timeout=30) as client:
        return (await client.get("/readyz")).status_code


async def test_workers_are_replaced_one_after_the_other_and_nobody_is_refused(
    start: Start,
) -> None:
    server = start("--drain-seconds", "1")
    joined = await sockets(server, 20)
    before = server.workers
    answers: Counter[int] = Counter()

    os.kill(server.pid, signal.SIGUSR1)
    async with asyncio.timeout(60):
        while "all workers are replaced" not in server.logs():
            status = await readiness(server)
            if status == 503:  # a connection that one took in just before it drained
                status = await readiness(server)
            answers[status] += 1

    codes = {await close_code(each) for each in joined}
    assert set(answers) == {200}
    assert codes == {1012}
    assert len(server.workers) == 2
    assert not set(before) & set(server.workers)
    assert not any(map(lives, before))


async def test_a_hangup_reaches_every_worker(start: Start, tmp_path: Path) -> None:
    files = Files(tmp_path / "tls")
    server = start(*files.flags())

    os.kill(server.pid, signal.SIGHUP)

    assert await asyncio.to_thread(
        eventually,
        lambda: (
            {
                worker
                for line in server.logs().splitlines()
                if "TLS files read again" in line
                for worker in re.findall(r'"worker": (\d)', line)
            }
            == {"1", "2"}
        ),
    )


# What cannot be kept alive


def program(text: str) -> list[str]:
    return [sys.executable, "-c", text]


async def test_where_nothing_can_be_written_it_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    overseer = Supervisor(program(""), bind("127.0.0.1", 0, 2), patience_seconds=5)

    with pytest.raises(ConfigurationError, match="temporary files"):
        await overseer.run(lambda: None)


async def test_a_worker_that_cannot_start_ends_everything_at_once(
    capfd: pytest.CaptureFixture[str],
) -> None:
    started: list[bool] = []
    overseer = Supervisor(
        program("print('collab: a wrong setting'); raise SystemExit(2)"),
        bind("127.0.0.1", 0, 3),
        patience_seconds=5,
    )

    code = await overseer.run(lambda: started.append(True))

    assert code == 2
    assert not started
    assert (
        capfd.readouterr().err
        == "collab: worker 1 did not start, last with exit code 2\n"
    )


async def test_a_worker_that_dies_again_and_again_ends_everything(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE_SECONDS", 0.001)
    started: list[bool] = []
    # The first one dies; the other serves until it is told to end.
    text = "import sys; print('ready', flush=True); '1' in sys.argv[2] and sys.exit(7); sys.stdin.read()"
    overseer = Supervisor(program(text), bind("127.0.0.1", 0, 2), patience_seconds=5)

    code = await overseer.run(lambda: started.append(True))

    assert code == 7
    assert started
    assert "worker 1 ends again and again" in capfd.readouterr().err


async def test_a_new_worker_that_does_not_start_leaves_the_old_one(
    tmp_path: Path,
) -> None:
    spoilt = tmp_path / "spoilt"
    text = f"import pathlib, sys; pathlib.Path({str(spoilt)!r}).exists() and sys.exit(2); print('ready', flush=True); sys.stdin.read()"
    overseer = Supervisor(program(text), bind("127.0.0.1", 0, 2), patience_seconds=5)
    ready = asyncio.Event()
    run = asyncio.create_task(overseer.run(ready.set))
    await ready.wait()
    (old,) = [place.child for place in overseer._places if place.number == 1]
    spoilt.touch()

    os.kill(os.getpid(), signal.SIGUSR1)
    await overseer._is_asked.wait()
    async with overseer._places[1].changing:
        pass
    os.kill(os.getpid(), signal.SIGTERM)

    assert await run == 1  # they ended by the signal, as they know no better
    assert overseer._places[0].child is old


def test_a_port_that_is_taken_is_one_sentence() -> None:
    taken = bind("127.0.0.1", 0, 2)
    taken[0].listen()
    port = taken[0].getsockname()[1]

    with pytest.raises(ConfigurationError, match=str(port)):
        bind("127.0.0.1", port, 2)

    for each in taken:
        each.close()


def test_workers_without_what_they_need_to_share_are_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "collab", "serve", "--workers", "2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 2
    assert "--redis" in done.stderr
