"""One server for all tests of the SDK that do no harm to it; each is in a room of its own."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from faces import Awaited
from processes import Server

import collab


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("sdk") / "data")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def room() -> str:
    """The name of a room that nobody has been in."""
    return f"room-{uuid.uuid4().hex[:12]}"


@pytest.fixture(params=["async", "sync"])
def connect(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """`collab.connect`, and `collab.connect_sync` behind the same words: a test that takes it runs with both."""
    if request.param == "async":
        return collab.connect
    return lambda *given, **named: Awaited(collab.connect_sync(*given, **named))
