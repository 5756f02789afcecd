"""Real servers for the tests of stores: one for all of a test process, each test in a database or cluster of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from services import Cluster, Postgres, Redis

from collab.connection import Endpoint, endpoint

DEPLOYING = Path(__file__).parents[2] / "deploy" / "README.md"


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
    """As the user of the documentation."""
    return as_documented(redis.url, [redis], tmp_path)


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """As that user too, who has to ask for more there."""
    with Cluster() as cluster:
        directory = tmp_path_factory.mktemp("cluster")
        yield as_documented(cluster.url, cluster.nodes, directory)


def as_documented(url: str, nodes: Sequence[Redis], directory: Path) -> Endpoint:
    found = re.search(r"```\n(ACL SETUSER collab .*?)```", DEPLOYING.read_text(), re.S)
    assert found
    for node in nodes:
        node.do(*found[1].replace("PASSWORD", "secret").split())
    password = directory / "password"
    password.write_text("secret")
    return endpoint(url.replace("//", "//collab@"), password_file=password)
