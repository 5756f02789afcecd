"""What every shelf must do, run on each of them."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest
from services import Postgres, Redis

from collab.auth.permissions import ADMIN, READ, WRITE, Grant, Principal
from collab.auth.records import (
    ANY_TENANT,
    Granted,
    Key,
    Record,
    Revocation,
    name_of,
)
from collab.auth.registry import Registry
from collab.auth.shelves.base import Shelf
from collab.auth.shelves.memory import MemoryShelf
from collab.auth.shelves.postgres import PostgresShelf
from collab.auth.shelves.redis import RedisShelf
from collab.auth.shelves.sqlite import FILE, SqliteShelf
from collab.connection import endpoint

KEY = Key(
    "ck_0",
    "ci",
    "acme",
    "agent",
    "Büro \N{ROCKET}",
    (Grant("notes", READ | WRITE), Grant("", ADMIN, is_prefix=True)),
    1.5,
    inf,
    inf,
    "",
    bytes(range(32)),
)
GRANTED = Granted("", "ada", Grant("a/", READ, is_prefix=True), 2.25, inf)
REVOCATION = Revocation(ANY_TENANT, "token", 'j"t\x1fi\\', 3.0, 1e10)
ALL: list[Record] = [
    KEY,
    replace(KEY, id="ck_1", expires=9.5, revoked=8.5, replaced_by="ck_0"),
    replace(KEY, id="ck_2", role="Prüfer", on_behalf_of="ada"),
    GRANTED,
    GRANTED._replace(grant=Grant("a/", WRITE)),
    GRANTED._replace(tenant="acme", expires=1e10),
    REVOCATION,
    REVOCATION._replace(tenant="acme", kind="principal", subject="ada"),
]

Open = Callable[[], Shelf]


@pytest.fixture(scope="session")
def redis() -> Iterator[Redis]:
    with Redis() as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", "redis", "postgres"])
def shelf_of(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Shelf]:
    """Makes shelves of the same records, each as another process would have it."""
    match request.param:
        case "redis":
            server = request.getfixturevalue("redis")
            cluster = secrets.token_hex(8)
            return lambda: RedisShelf(endpoint(server.url), cluster)
        case "memory":
            shared = MemoryShelf()
            return lambda: shared
        case "postgres":
            dsn = request.getfixturevalue("postgres").new_dsn()
            return lambda: PostgresShelf(dsn)
        case _:
            return lambda: SqliteShelf(tmp_path / FILE)


@pytest.fixture
def open_one(shelf_of: Open) -> Iterator[Open]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(shelf_of())


def by_name(records: object) -> dict[object, Record]:
    return {name_of(each): each for each in records}  # type: ignore[attr-defined]  # each kind has a name of its own


def put(shelf: Shelf, *records: Record) -> str:
    version = shelf.write(shelf.version(), records, ())
    assert version is not None
    return version


def test_an_empty_shelf_holds_nothing(open_one: Open) -> None:
    shelf = open_one()

    held = shelf.read()

    assert list(held.records) == []
    assert held.version == shelf.version()


def test_what_was_put_comes_back_as_it_was(open_one: Open) -> None:
    writer, reader = open_one(), open_one()

    put(writer, *ALL)

    assert by_name(reader.read().records) == by_name(ALL)
    assert len(reader.read().records) == len(ALL)


def test_what_was_put_is_there_after_all_have_closed(shelf_of: Open) -> None:
    with shelf_of() as shelf:
        put(shelf, *ALL)

    with shelf_of() as shelf:
        found = shelf.read()

    assert by_name(found.records) == by_name(ALL)


def test_a_record_takes_the_place_of_one_of_its_name(open_one: Open) -> None:
    shelf = open_one()
    put(shelf, *ALL)

    put(shelf, replace(KEY, revoked=7.0), GRANTED._replace(grant=Grant("a/", WRITE)))

    found = by_name(shelf.read().records)
    assert len(found) == len(ALL)
    assert found[name_of(KEY)] == replace(KEY, revoked=7.0)


def test_what_was_dropped_is_gone(open_one: Open) -> None:
    shelf, other = open_one(), open_one()
    put(shelf, *ALL)

    assert shelf.write(shelf.version(), (), [KEY, GRANTED, REVOCATION]) is not None

    left = by_name(ALL)
    for each in (KEY, GRANTED, REVOCATION):
        del left[name_of(each)]
    assert by_name(other.read().records) == left


def test_dropping_what_is_not_there_is_nothing(open_one: Open) -> None:
    shelf = open_one()

    version = shelf.write(shelf.version(), (), [KEY])

    assert version is not None
    assert list(shelf.read().records) == []


def test_another_process_sees_another_version(open_one: Open) -> None:
    writer, reader = open_one(), open_one()
    before = reader.read().version

    put(writer, KEY)

    assert reader.version() != before
    assert reader.read().version == reader.version()


def test_the_version_stays_while_nobody_writes(open_one: Open) -> None:
    shelf = open_one()

    version = put(shelf, KEY)

    assert shelf.version() == shelf.version() == version == shelf.read().version


def test_who_is_behind_changes_nothing(open_one: Open) -> None:
    first, second = open_one(), open_one()
    behind = second.read().version
    put(first, KEY)

    assert second.write(behind, [GRANTED], [KEY]) is None

    assert list(first.read().records) == [KEY]
    assert put(second, GRANTED) is not None


def test_no_version_comes_twice(open_one: Open) -> None:
    first, second = open_one(), open_one()
    seen = set()

    for number in range(6):
        writer, reader = (first, second) if number % 2 else (second, first)
        put(writer, KEY)
        seen.add(reader.version())

    assert (
        len(seen) >= 3
    )  # what one's own shelf says of one's own changes does not count
    assert first.version() != ""


def test_many_records_are_put_at_once(open_one: Open) -> None:
    many = [REVOCATION._replace(subject=f"token {n}") for n in range(9000)]
    shelf, other = open_one(), open_one()

    put(shelf, *many)
    found = other.read().records
    assert shelf.write(shelf.version(), (), many) is not None

    assert len(found) == len(many)
    assert list(other.read().records) == []


def test_two_registries_change_the_same_records(shelf_of: Open) -> None:
    with Registry(shelf_of()) as server, Registry(shelf_of()) as command:
        key, token = command.create_key("ci", (Grant("notes", READ),))
        server.refresh()
        holder = server.holder(token)
        server.grant("ada", Grant("notes", WRITE))
        command.revoke_key(key.id)
        server.refresh()

        assert holder is not None
        assert server.is_revoked(holder)
        assert command.granted(Principal("ada"), "notes") == WRITE
        assert len(server.grants()) == len(command.grants()) == 1
