"""What commands say of rooms that replicas share, beside a running server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import httpx2
import pytest
from processes import Server
from services import Postgres, Redis
from test_cli import collab


@pytest.fixture(scope="module", params=["postgres", "redis"])
def place(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """The flags that say where the rooms are."""
    if request.param == "postgres":
        with Postgres() as postgres:
            yield "--postgres", postgres.new_dsn()
    else:
        with Redis() as redis:
            yield "--redis", redis.url


def test_rooms_that_replicas_share_are_looked_into(
    place: tuple[str, str], serve: Callable[..., Server]
) -> None:
    server = serve(*place)
    edit = {"text": {"root": "text", "content": "Grüße"}}
    httpx2.patch(f"{server.url}/v1/rooms/notes/document", json=edit).raise_for_status()

    rooms = json.loads(collab("inspect", "--json", *place).stdout)
    one = json.loads(collab("inspect", "notes", "--json", *place).stdout)
    exported = collab("export", "notes", *place)
    missing = collab("export", "other", *place)

    assert [(each["room"], each["position"]) for each in rooms] == [("notes", 1)]
    assert one["roots"] == {"text": "text"}
    assert exported.stdout == "Grüße"
    assert missing.returncode == 1
    assert "there is no room other" in missing.stderr
