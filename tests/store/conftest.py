"""A real Postgres for the tests of its store: one for all of a test process, each test in a database of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from services import Postgres, Redis


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    # Whose machine never loses its power.
    with Postgres(options=("-c", "fsync=off", "-c", "shared_buffers=16MB")) as server:
        yield server


@pytest.fixture
def dsn(postgres: Postgres) -> str:
    """Of an empty database."""
    return postgres.new_dsn()


@pytest.fixture(scope="session")
def redis() -> Iterator[Redis]:
    with Redis() as server:
        yield server
