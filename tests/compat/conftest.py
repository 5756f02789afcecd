"""Stock clients in Node, and servers for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest
from driving import HERE, Driver
from serving import Server, serve

ROOMS = count()


@pytest.fixture(scope="session")
def node() -> Iterator[Driver]:
    """One Node process for all tests of a worker."""
    assert (HERE / "node_modules").is_dir(), (
        "the stock clients are not installed: run npm ci in tests/compat"
    )
    driver = Driver()
    yield driver
    driver.stop()


@pytest.fixture
def clients(node: Driver) -> Iterator[Driver]:
    """Opens stock clients; they are gone after the test."""
    node.start()
    yield node
    node.do("close")


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server at its defaults for all tests of a worker which do not stop it."""
    with serve(tmp_path_factory.mktemp("house") / "data") as server:
        yield server


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers of the test's own, with flags."""
    with ExitStack() as stack:
        yield lambda *flags: stack.enter_context(
            serve(tmp_path / f"data{next(ROOMS)}", *flags)
        )


@pytest.fixture
def room() -> str:
    """A room nobody else uses."""
    return f"room-{next(ROOMS)}"
