"""Records in Postgres, when Postgres is not as it should be."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from processes import BUSY_SECONDS
from services import Postgres
from together import revoke_together

from collab.auth.permissions import READ, Grant, Principal
from collab.auth.registry import Registry
from collab.auth.shelves.postgres import COMMAND_SECONDS, PostgresShelf
from collab.errors import (
    CollabError,
    ConfigurationError,
    StoreCorrupt,
    StoreUnavailable,
)

NOTES = Grant("notes", READ)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


def test_many_who_begin_at_once_make_the_tables_once(postgres: Postgres) -> None:
    dsn = postgres.new_dsn()
    faults = revoke_together(lambda: PostgresShelf(dsn))

    assert faults == []
    with Registry(PostgresShelf(dsn)) as registry:
        assert len(registry.revocations()) == 6


def test_a_lost_connection_is_made_anew(postgres: Postgres) -> None:
    with Registry(PostgresShelf(postgres.new_dsn())) as registry:
        registry.revoke("eve")
        postgres.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname LIKE 'test%'"
        )

        attempts = 0
        while True:
            attempts += 1
            try:
                registry.revoke("mallory")
                break
            except StoreUnavailable:
                assert attempts < 3

        assert len(registry.revocations()) == 2


def test_what_postgres_says_of_a_record_is_not_repeated(postgres: Postgres) -> None:
    with PostgresShelf(postgres.new_dsn()) as shelf:
        check = "ALTER TABLE collab.access ADD CHECK (record NOT LIKE '%notes%')"
        shelf._do(_execute(shelf, check))
        registry = Registry(shelf)

        with pytest.raises(StoreUnavailable, match="check constraint") as caught:
            registry.grant("ada", NOTES)

    assert "ada" not in str(caught.value)


def test_tables_without_a_version_are_said_to_be_not_whole(postgres: Postgres) -> None:
    dsn = postgres.new_dsn()
    with PostgresShelf(dsn) as shelf:
        shelf._do(_execute(shelf, "DELETE FROM collab.access_about"))

        with pytest.raises(StoreCorrupt):
            shelf.read()


def test_tables_of_a_newer_version_are_left_alone(postgres: Postgres) -> None:
    dsn = postgres.new_dsn()
    with PostgresShelf(dsn) as shelf:
        shelf._do(_execute(shelf, "UPDATE collab.access_about SET oldest = 99"))

    with pytest.raises(ConfigurationError), PostgresShelf(dsn):
        pass


async def _execute(shelf: PostgresShelf, statement: str) -> None:
    await shelf._db.execute(statement)


def test_who_may_not_make_the_tables_is_told_so(postgres: Postgres) -> None:
    postgres.sql("CREATE ROLE reader LOGIN")
    dsn = postgres.new_dsn().replace("collab@", "reader@")

    with pytest.raises(ConfigurationError), PostgresShelf(dsn):
        pass


@pytest.mark.parametrize(
    "dsn", ["", "nonsense hush", "postgresql://collab:hush@[", "mysql://hush@x"]
)
def test_an_address_that_is_none_is_said_to_be_one_and_not_repeated(dsn: str) -> None:
    with pytest.raises(CollabError) as caught, PostgresShelf(dsn):
        pass

    assert "hush" not in str(caught.value)


def test_a_postgres_that_does_not_answer_ends_in_time() -> None:
    with Postgres() as postgres, Registry(PostgresShelf(postgres.dsn)) as registry:
        registry.revoke("eve")
        postgres.stop()
        begun = time.monotonic()

        with pytest.raises(StoreUnavailable):
            registry.refresh()
        took = time.monotonic() - begun
        postgres.cont()
        registry.refresh()

        assert took < COMMAND_SECONDS + BUSY_SECONDS
        assert registry.is_revoked(Principal("eve"))
