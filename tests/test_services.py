"""The servers that other tests build upon are real, and do as they are told."""

from __future__ import annotations

import os

import pytest
import redis
from services import Cluster, Postgres, Redis, Sentinels, wait_for


def test_redis_with_an_aof_comes_back_with_what_it_had_and_on_request_with_nothing() -> (
    None
):
    with Redis(aof="always") as server:
        url, pid = server.url, server.pid
        server.do("SET", "key", "kept")

        server.restart()
        kept = server.do("GET", "key")
        server.restart(is_empty=True)

        assert (kept, server.do("GET", "key")) == ("kept", None)
        assert (server.url, server.pid != pid) == (url, True)


def test_redis_without_an_aof_forgets() -> None:
    with Redis() as server:
        server.do("SET", "key", "lost")

        server.restart()

        assert server.do("GET", "key") is None


def test_a_stopped_redis_takes_connections_and_answers_after_it_goes_on() -> None:
    with Redis() as server:
        server.stop()

        with redis.Redis(port=server.port, socket_timeout=0.2, retry=None) as client:
            with pytest.raises(redis.RedisError):
                client.ping()
            server.cont()

            assert wait_for(server.is_ready)


def test_redis_refuses_more_than_its_memory_and_whoever_does_not_know_its_password() -> (
    None
):
    with Redis(maxmemory="3mb", password="between us") as server:
        with redis.Redis(port=server.port, retry=None) as client:
            with pytest.raises(redis.AuthenticationError):
                client.ping()

        with pytest.raises(redis.exceptions.OutOfMemoryError):
            server.do("SET", "key", "x" * 4_000_000)


def test_a_server_is_gone_with_its_directory_after_the_block() -> None:
    with Redis() as server:
        pid, directory = server.pid, server.directory

    assert not directory.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_sentinels_put_the_follower_in_the_place_of_a_killed_primary() -> None:
    with Sentinels() as group:
        first = group.primary
        first.kill()

        assert wait_for(lambda: group.primary is not first)
        assert group.url.startswith("redis+sentinel://127.0.0.1:")


def test_a_cluster_serves_every_slot() -> None:
    with Cluster() as cluster:
        with redis.RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port) as client:
            for number in range(20):
                client.set(f"key{number}", number)

            assert [int(client.get(f"key{number}")) for number in range(20)] == list(
                range(20)
            )


def test_a_follower_in_a_cluster_takes_over() -> None:
    with Cluster(has_followers=True) as cluster:
        cluster.nodes[0].kill()

        assert wait_for(
            lambda: (
                str(cluster.nodes[1].do("CLUSTER", "NODES")).count("master") - 1 == 3
            )
        )


def test_postgres_keeps_what_was_committed_when_it_is_killed_or_stopped() -> None:
    with Postgres() as server:
        server.sql("CREATE TABLE kept (number int)")

        for number, end in enumerate((server.kill, server.stop_immediately)):
            server.sql(f"INSERT INTO kept VALUES ({number})")
            end()
            server.start()
        server.restart()

        assert server.sql("SELECT count(*) FROM kept") == "2"
        assert server.new_dsn() != server.new_dsn()
