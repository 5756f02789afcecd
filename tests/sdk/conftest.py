"""One server for all tests of the SDK that do no harm to it; each is in a room of its own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from processes import Server


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
