"""What every test may use: the asyncio backend, and a real server process."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from disks import mounted
from hypothesis import settings
from processes import Server

# Machines are shared: how long one example takes says nothing.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _logging_stays() -> Iterator[None]:
    """Commands that run in this process say where log lines go and from which level on, for all tests after them."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start servers with flags of one's own; all are ended with the test."""
    started: list[Server] = []

    def start(
        *flags: str,
        data: Path | None = None,
        kind: Callable[..., Server] = Server,
    ) -> Server:
        server = kind(data or tmp_path / f"data{len(started)}", *flags)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        if server.process is not None:
            server.kill()


@pytest.fixture
def server(serve: Callable[..., Server]) -> Server:
    """A server with default settings."""
    return serve()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that `disks.fill` fills."""
    with mounted(tmp_path / "disk") as place:
        yield place


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One of them for all tests of a worker that neither end it nor care what else has been in it."""
    server = Server(tmp_path_factory.mktemp("house") / "data")
    server.start()
    yield server
    server.kill()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long, mostly by waiting, comes first, in the shares of half of the processes.

    The other half works meanwhile. Were all to wait at first, nobody could later; and at the end all would wait for one.
    """
    slow = [item for item in items if item.get_closest_marker("slow")]
    quick = [item for item in items if not item.get_closest_marker("slow")]
    ordered: list[pytest.Item] = []
    # In as many shares as pytest-xdist makes, and of the same sizes.
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    waiting = (count + 1) // 2
    for left in range(count, 0, -1):
        long = len(slow) // max(1, left - count + waiting)
        rest = (len(slow) + len(quick)) // left - long
        ordered += slow[:long] + quick[:rest]
        del slow[:long], quick[:rest]
    items[:] = ordered
