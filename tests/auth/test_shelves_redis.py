"""Records in Redis, when Redis is not as it should be."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import BUSY_SECONDS
from services import Cluster, Redis

from collab.auth.permissions import READ, Grant, Principal
from collab.auth.registry import Registry
from collab.auth.shelves.redis import RedisShelf
from collab.connection import COMMAND_SECONDS, endpoint
from collab.errors import ConfigurationError, StoreCorrupt, StoreUnavailable

NOTES = Grant("notes", READ)
KEY = "c:access"


@pytest.fixture
def redis() -> Iterator[Redis]:
    with Redis() as server:
        yield server


def shelf(server: Redis | Cluster, password: Path | None = None) -> RedisShelf:
    return RedisShelf(endpoint(server.url, password_file=password), "c")


def test_an_emptied_redis_is_told_again_who_may_not_come_in(redis: Redis) -> None:
    with Registry(shelf(redis)) as registry:
        _, token = registry.create_key("ci", (NOTES,))
        registry.revoke("eve")

        redis.flush()
        registry.refresh()

        with Registry(shelf(redis)) as other:
            assert other.holder(token) is not None
            assert other.is_revoked(Principal("eve"))


def test_of_two_who_put_it_back_one_does(redis: Redis) -> None:
    with Registry(shelf(redis)) as first, Registry(shelf(redis)) as second:
        first.revoke("eve")
        second.refresh()

        redis.flush()
        first.refresh()
        second.refresh()
        second.revoke("mallory")
        first.refresh()

        assert len(first.revocations()) == len(second.revocations()) == 2


@pytest.mark.parametrize(
    "command",
    [
        ("SET", KEY, "junk"),
        ("HSET", KEY, "version", "junk"),
        ("HSET", KEY, "version", b"\xff"),
        ("HSET", KEY, "version", "9-x", '["key","ck_1"]', "junk"),
        ("HSET", KEY, "version", "9-x", '["grant"', "{}"),
        ("HDEL", KEY, "version"),
    ],
)
def test_what_others_have_written_is_not_believed_and_changes_nothing_known(
    redis: Redis, command: tuple[str | bytes, ...]
) -> None:
    with Registry(shelf(redis)) as registry:
        registry.revoke("eve")
        if command[0] == "SET":
            redis.do("DEL", KEY)
        redis.do(*command)  # type: ignore[arg-type]  # bytes as well

        if command[0] == "HDEL":
            registry.refresh()  # puts it back
        else:
            with pytest.raises(StoreCorrupt):
                registry.refresh()
            with pytest.raises(StoreCorrupt):
                registry.revoke("mallory")
            with pytest.raises(StoreCorrupt), Registry(shelf(redis)):
                pass

        assert registry.is_revoked(Principal("eve"))
        assert not registry.is_revoked(Principal("mallory"))


def test_a_redis_that_does_not_answer_ends_in_time_and_comes_back(redis: Redis) -> None:
    with Registry(shelf(redis)) as registry:
        registry.revoke("eve")
        redis.stop()
        begun = time.monotonic()

        with pytest.raises(StoreUnavailable):
            registry.refresh()
        took = time.monotonic() - begun
        redis.cont()
        registry.refresh()

        assert took < COMMAND_SECONDS + BUSY_SECONDS
        assert registry.is_revoked(Principal("eve"))


def test_a_redis_that_was_restarted_is_asked_again(tmp_path: Path) -> None:
    with Redis(aof="always") as redis, Registry(shelf(redis)) as registry:
        registry.revoke("eve")
        redis.kill()
        with pytest.raises(StoreUnavailable):
            registry.refresh()

        redis.start()
        registry.refresh()
        registry.revoke("mallory")

        assert len(registry.revocations()) == 2


def test_a_redis_that_takes_nothing_more_refuses_a_change_and_answers(
    redis: Redis,
) -> None:
    with Registry(shelf(redis)) as registry:
        registry.revoke("eve")
        redis.do("CONFIG", "SET", "maxmemory", "1mb")

        with pytest.raises(StoreUnavailable):
            registry.revoke("mallory")
        registry.refresh()

        assert not registry.is_revoked(Principal("mallory"))


def test_a_wrong_password_is_said_at_once(tmp_path: Path) -> None:
    wrong = tmp_path / "password"
    wrong.write_text("wrong")

    with Redis(password="right") as redis:
        with pytest.raises(ConfigurationError), shelf(redis, wrong):
            pass


@pytest.mark.slow
def test_a_cluster_keeps_it_too() -> None:
    with Cluster() as cluster, Registry(shelf(cluster)) as registry:
        registry.revoke("eve")

        with Registry(shelf(cluster)) as other:
            assert other.is_revoked(Principal("eve"))
