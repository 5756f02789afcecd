"""Real servers for the tests of stores: one for all of a test process, each test in a database or cluster of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis_user import make_user, of_user
from services import Cluster, Postgres, Redis

from collab.connection import Endpoint, endpoint


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


@pytest.fixture
def redis_place(redis: Redis) -> Endpoint:
    return endpoint(redis.url)


@pytest.fixture
def redis_as_its_user(redis: Redis, tmp_path: Path) -> Endpoint:
    password = make_user([redis], tmp_path)
    return endpoint(of_user(redis.url), password_file=password)


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """As that user too, who has to ask for more there."""
    with Cluster() as cluster:
        password = make_user(cluster.nodes, tmp_path_factory.mktemp("cluster"))
        yield endpoint(of_user(cluster.url), password_file=password)
