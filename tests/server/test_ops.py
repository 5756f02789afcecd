"""Who may ask how the server is, and how much it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count

import httpx2
import pytest
from processes import Server

pytestmark = pytest.mark.anyio

PASSED_ON = {"x-forwarded-for": "203.0.113.7"}
PATHS = ("/healthz", "/readyz", "/metrics")


NUMBERS = count()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with access control."""
    server = Server(tmp_path_factory.mktemp("guarded") / "data", "--auth", "keys")
    server.start()
    yield server
    server.kill()


def key(server: Server, *about: str) -> str:
    """Of a principal as described."""
    name = f"prometheus-{next(NUMBERS)}"
    made = server.run("key", "create", "--principal", name, *about, "--json")
    assert made.returncode == 0, made.stderr
    return str(json.loads(made.stdout)["key"])


async def ask(server: Server, **headers: str) -> list[int]:
    """What the three paths answer to a request that a proxy passes on."""
    shown = PASSED_ON | {name.replace("_", "-"): each for name, each in headers.items()}
    async with httpx2.AsyncClient(base_url=server.url, headers=shown) as client:
        return [(await client.get(path)).status_code for path in PATHS]


async def test_without_access_control_everybody_is_told(house: Server) -> None:
    assert await ask(house) == [200, 200, 200]


async def test_strangers_are_told_that_it_lives_and_no_more(guarded: Server) -> None:
    async with httpx2.AsyncClient(base_url=guarded.url, headers=PASSED_ON) as client:
        ready = await client.get("/readyz")
    async with httpx2.AsyncClient(base_url=guarded.url) as client:
        ready_here = await client.get("/readyz")
        figures_here = await client.get("/metrics")

    assert await ask(guarded) == [200, 200, 401]
    assert await ask(guarded, authorization="Bearer ck_0.x") == [200, 200, 401]
    assert ready.json() == {"status": "ready"}
    assert ready_here.json() == {"status": "ready", "reasons": []}
    assert figures_here.status_code == 200


async def test_who_administrates_every_room_sees_the_figures(guarded: Server) -> None:
    shown = key(guarded, "--prefix", "=admin")

    assert await ask(guarded, authorization=f"Bearer {shown}") == [200, 200, 200]


@pytest.mark.parametrize(
    "about",
    [
        ("--prefix", "=read,write,presence,history"),
        ("--prefix", "team-a/=admin"),
        ("--room", "notes=admin"),
        ("--prefix", "=admin", "--tenant", "acme"),
    ],
)
async def test_who_administrates_less_does_not(
    guarded: Server, about: tuple[str, ...]
) -> None:
    shown = key(guarded, *about)

    assert await ask(guarded, authorization=f"Bearer {shown}") == [200, 200, 403]


async def test_a_page_that_rebinds_its_name_does_not_see_them(guarded: Server) -> None:
    async with httpx2.AsyncClient(base_url=guarded.url) as client:
        found = await client.get("/metrics", headers={"host": "evil.example"})

    assert found.status_code == 421
