"""Who may ask how the server is, and how much it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from processes import Server

pytestmark = pytest.mark.anyio

PASSED_ON = {"x-forwarded-for": "203.0.113.7"}
PATHS = ("/healthz", "/readyz", "/metrics")


@pytest.fixture
def keyed(
    serve: Callable[..., Server], tmp_path: Path
) -> Callable[..., tuple[Server, str]]:
    """A server with access control, and a key of a principal as described."""

    def start(*about: str) -> tuple[Server, str]:
        data = tmp_path / "data"
        made = Server(data).run(
            "key", "create", "--principal", "prometheus", *about, "--json"
        )
        assert made.returncode == 0, made.stderr
        return serve("--auth", "keys", data=data), json.loads(made.stdout)["key"]

    return start


async def ask(server: Server, **headers: str) -> list[int]:
    """What the three paths answer to a request that a proxy passes on."""
    shown = PASSED_ON | {name.replace("_", "-"): each for name, each in headers.items()}
    async with httpx2.AsyncClient(base_url=server.url, headers=shown) as client:
        return [(await client.get(path)).status_code for path in PATHS]


async def test_without_access_control_everybody_is_told(server: Server) -> None:
    assert await ask(server) == [200, 200, 200]


async def test_strangers_are_told_that_it_lives_and_no_more(
    keyed: Callable[..., tuple[Server, str]],
) -> None:
    server, _ = keyed("--prefix", "=admin")

    async with httpx2.AsyncClient(base_url=server.url, headers=PASSED_ON) as client:
        ready = await client.get("/readyz")
    async with httpx2.AsyncClient(base_url=server.url) as client:
        ready_here = await client.get("/readyz")
        figures_here = await client.get("/metrics")

    assert await ask(server) == [200, 200, 401]
    assert await ask(server, authorization="Bearer ck_0.x") == [200, 200, 401]
    assert ready.json() == {"status": "ready"}
    assert ready_here.json() == {"status": "ready", "reasons": []}
    assert figures_here.status_code == 200


async def test_who_administrates_every_room_sees_the_figures(
    keyed: Callable[..., tuple[Server, str]],
) -> None:
    server, key = keyed("--prefix", "=admin")

    assert await ask(server, authorization=f"Bearer {key}") == [200, 200, 200]


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
    keyed: Callable[..., tuple[Server, str]], about: tuple[str, ...]
) -> None:
    server, key = keyed(*about)

    assert await ask(server, authorization=f"Bearer {key}") == [200, 200, 403]


async def test_a_page_that_rebinds_its_name_does_not_see_them(
    keyed: Callable[..., tuple[Server, str]],
) -> None:
    server, _ = keyed("--prefix", "=admin")

    async with httpx2.AsyncClient(base_url=server.url) as client:
        found = await client.get("/metrics", headers={"host": "evil.example"})

    assert found.status_code == 421
