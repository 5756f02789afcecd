"""The demo agent comes for who may write, with no more rights than it needs, few at once, and goes with the server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from calling import Caller, open_api
from processes import ROOT, Server, eventually
from starlette.applications import Starlette

from collab.auth.base import Credential
from collab.auth.permissions import EVERYTHING, PRESENCE, READ, WRITE, Principal
from collab.auth.tickets import Tickets
from collab.errors import CollabError, PermissionDenied
from collab.server import demo
from collab.server.demo import Demo
from collab.server.responses import answer_error

AGENT = "/playground/agent?room=r"

# In place of the agent: asks for two tickets, and stays.
STAND_IN = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
for _ in range(2):
    print("ticket", flush=True)
    sys.stdin.readline()
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def stand_in(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    async def start(self: Demo, room: str) -> Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", STAND_IN), stdin=PIPE, stdout=PIPE, stderr=DEVNULL
        )

    if "serve" not in request.fixturenames:
        monkeypatch.setattr(Demo, "_start", start)


class Asking:
    def __init__(self, caller: Caller, client: httpx2.AsyncClient) -> None:
        self.caller, self._client = caller, client

    async def __call__(self, method: str, path: str = AGENT, token: str = "") -> int:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        answer = await self._client.request(method, path, headers=headers)
        return answer.status_code


@asynccontextmanager
async def offered(*, is_open: bool = False) -> AsyncIterator[Asking]:
    async with open_api(is_open=is_open) as caller:
        access, limits = caller.house.access, caller.house.sockets.limits
        async with Demo(access, limits, "http://127.0.0.1:1") as made:
            app = Starlette(
                routes=made.routes(), exception_handlers={CollabError: answer_error}
            )
            transport = httpx2.ASGITransport(app=app)
            async with httpx2.AsyncClient(
                transport=transport, base_url="http://localhost"
            ) as client:
                yield Asking(caller, client)


@pytest.mark.anyio
async def test_it_comes_once_to_a_room_and_can_be_sent_away() -> None:
    async with offered(is_open=True) as ask:
        came, again = await ask("POST"), await ask("POST")
        left = await ask("DELETE")
        elsewhere = await ask("DELETE", "/playground/agent?room=elsewhere")

    assert (came, again) == (202, 200)
    assert (left, elsewhere) == (204, 404)


@pytest.mark.anyio
async def test_one_that_is_sent_away_on_its_way_does_not_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_away, is_here = asyncio.Event(), asyncio.Event()
    start, made = Demo._start, list[Process]()

    async def late(self: Demo, room: str) -> Process:
        await is_away.wait()
        made.append(await start(self, room))
        is_here.set()
        return made[0]

    monkeypatch.setattr(Demo, "_start", late)
    async with offered(is_open=True) as ask:
        came, left = await ask("POST"), await ask("DELETE")
        is_away.set()
        await is_here.wait()
        await made[0].wait()

    assert (came, left) == (202, 204)


@pytest.mark.anyio
async def test_one_that_does_not_want_to_go_does_not_keep_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: asyncio.Future[Process] = asyncio.get_running_loop().create_future()

    async def start(self: Demo, room: str) -> Process:
        stubborn = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); print(flush=True); signal.pause()"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", stubborn), stdin=PIPE, stdout=PIPE
        )
        assert process.stdout is not None
        await process.stdout.readline()  # from now on it does not hear of interrupts
        made.set_result(process)
        return process

    monkeypatch.setattr(Demo, "_start", start)
    monkeypatch.setattr(demo, "END_SECONDS", 0.1)
    async with offered(is_open=True) as ask:
        await ask("POST")
        process = await made

    # By what it ended, asyncio does not know when the kill itself has seen the end.
    assert process.returncode is not None


@pytest.mark.anyio
async def test_there_are_few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "MAX_AGENTS", 2)

    async with offered(is_open=True) as ask:
        statuses = [await ask("POST", f"/playground/agent?room={n}") for n in range(3)]

    assert statuses == [202, 202, 503]


@pytest.mark.anyio
async def test_only_who_may_write_may_send_for_it_or_away() -> None:
    async with offered() as ask:
        ask.caller.may("reader", READ | PRESENCE)
        statuses = [
            await ask(method, token=token)
            for method in ("POST", "DELETE")
            for token in ("", "unknown", "reader")
        ]

    assert statuses == [401, 401, 403] * 2


@pytest.mark.anyio
@pytest.mark.parametrize(
    "path",
    ["/playground/agent", "/playground/agent?room=", "/playground/agent?room=%00"],
)
async def test_a_room_has_to_be_named(path: str) -> None:
    async with offered(is_open=True) as ask:
        assert await ask("POST", path) == 400


@pytest.mark.anyio
async def test_its_tickets_are_for_one_room_and_no_more_than_it_needs() -> None:
    async with offered() as ask:
        ask.caller.may("ada", EVERYTHING, name="Ada")
        access = ask.caller.house.access
        issued = follow(access.tickets)
        await ask("POST", token="ada")
        found = [
            await access.authority.authenticate(
                Credential(token=await issued.get()), "r"
            )
            for _ in range(2)
        ]
        agent = found[0]
        may = [access.authority.operations(agent, room) for room in ("r", "another")]

    assert found == [agent, agent]
    assert (agent.id, agent.kind, agent.name) == ("ada", "agent", "Demo reviewer")
    assert agent.on_behalf_of == "ada"
    assert may == [READ | WRITE | PRESENCE, 0]


@pytest.mark.anyio
async def test_it_has_to_go_when_who_sent_for_it_may_not_write_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: asyncio.Future[Process] = asyncio.get_running_loop().create_future()
    start = Demo._start

    async def tell(self: Demo, room: str) -> Process:
        made.set_result(await start(self, room))
        return made.result()

    monkeypatch.setattr(Demo, "_start", tell)
    async with offered() as ask:
        ask.caller.may("ada", READ | WRITE)
        access = ask.caller.house.access
        issued = follow(access.tickets)
        await ask("POST", token="ada")
        await issued.get()
        access.allow = refuse  # type: ignore[method-assign]  # what a change of rights does
        async with asyncio.timeout(30):
            await (await made).wait()

    assert issued.empty()


def test_it_goes_when_sent_away_by_a_server_that_ignores_interrupts() -> None:
    agent = subprocess.Popen(
        [
            *(sys.executable, "-m", "collab.server.demonstrate"),
            *("http://127.0.0.1:1", "r", "--name", "A", "--role", "reviewer"),
            *("--idle-seconds", "600"),
        ],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )

    def has_gone() -> bool:
        agent.send_signal(signal.SIGINT)
        return agent.poll() is not None

    try:
        assert eventually(has_gone)
    finally:
        agent.kill()
        agent.communicate()


def follow(tickets: Tickets) -> asyncio.Queue[str]:
    """What is issued from here on."""
    issued: asyncio.Queue[str] = asyncio.Queue()
    issue = tickets.issue

    async def tell(principal: Principal, room: str = "") -> tuple[str, float]:
        token, expires = await issue(principal, room)
        issued.put_nowait(token)
        return token, expires

    tickets.issue = tell  # type: ignore[method-assign]  # to see what is issued
    return issued


def refuse(*_: object) -> int:
    raise PermissionDenied("you may not do this in this room")


def keyed(server: Server, may: str) -> dict[str, str]:
    made = server.run(
        *("key", "create", "--principal", "ada", "--name", "Ada", "--kind", "human"),
        *("--prefix", f"={may}", "--json"),
    )
    return {"authorization": f"Bearer {json.loads(made.stdout)['key']}"}


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    named = [(int(one), Path(f"/proc/{one}/cmdline").read_bytes()) for one in found]
    return [one for one, command in named if b"collab.server.demonstrate" in command]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_mends_the_text_for_who_sent_for_it_and_ends_with_the_server(
    serve: Callable[..., Server],
) -> None:
    server = serve("--auth", "keys", "--demo", "on")
    ada = keyed(server, "read,write,presence,history")
    room = f"{server.url}/v1/rooms/r"
    with httpx2.Client(headers=ada) as client:
        assert eventually(
            lambda: client.post(f"{server.url}/v1/tickets", json={}).status_code == 201
        )
        client.patch(
            f"{room}/document",
            json={"splices": [{"root": "text", "index": 0, "insert": "the the end"}]},
        )
        came = client.post(f"{server.url}{AGENT}").status_code
        mended = eventually(
            lambda: client.get(f"{room}/document?format=text").text == "the end",
        )
        who = client.get(f"{room}/presence").json()["clients"][0]["state"]["user"]
        by = client.get(f"{room}/activity").json()["authors"][0]
    pids = children(server.pid)
    server.terminate()

    assert (came, mended) == (202, True)
    assert (who["name"], who["kind"], who["on_behalf_of"]) == (
        "Demo reviewer",
        "agent",
        "ada",
    )
    assert (by["kind"], by["on_behalf_of"]) == ("agent", "ada")
    assert by["reason"] == "“the” was there twice"
    assert len(pids) == 1
    assert eventually(lambda: not is_alive(pids[0]))


def test_where_it_is_off_nobody_can_send_for_it(serve: Callable[..., Server]) -> None:
    server = serve("--demo", "off")

    answer = httpx2.post(f"{server.url}{AGENT}")

    assert answer.status_code == 404
    assert children(server.pid) == []
