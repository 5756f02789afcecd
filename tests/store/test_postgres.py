"""The Postgres store where others append too, and where Postgres fails, is slow, or is not what it should be."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import pytest
from faults.proxy import Proxy
from logged import capture_logs
from processes import BUSY_SECONDS
from services import Postgres

from collab.errors import (
    CollabError,
    ConfigurationError,
    RoomUnavailable,
    StoreCorrupt,
    StoreUnavailable,
)
from collab.server.app import make_store
from collab.settings import Settings
from collab.store.base import Attributed, Author, Checkpoint, Entry
from collab.store.postgres import connections, schema
from collab.store.postgres import store as postgres_store
from collab.store.postgres.store import PostgresStore

pytestmark = pytest.mark.anyio

ALICE = Author("alice", "c1")
PATIENCE = 30.0


def entry(
    first: int,
    *updates: bytes,
    room: str = "notes",
    epoch: str = "e1",
    origin: str = "here",
    author: Author = ALICE,
) -> Entry:
    return Entry(room, epoch, first, 1000, updates, [author] * len(updates), origin)


async def append(
    store: PostgresStore, *entries: Entry
) -> list[tuple[Entry, CollabError | None]]:
    """What became of each, in the order of the answers."""
    answers: list[tuple[Entry, CollabError | None]] = []
    everything = asyncio.Event()

    def done(answered: Sequence[Entry], error: CollabError | None) -> None:
        answers.extend((one, error) for one in answered)
        if len(answers) == len(entries):
            everything.set()

    store.append(entries, done)
    await asyncio.wait_for(everything.wait(), PATIENCE)
    return answers


async def persist(store: PostgresStore, *entries: Entry) -> list[Entry]:
    """Append as the journal does: the same again until the store is there."""
    async with asyncio.timeout(PATIENCE):
        while True:
            answers = await append(store, *entries)
            assert all(
                error is None or isinstance(error, StoreUnavailable)
                for _, error in answers
            )
            if all(error is None for _, error in answers):
                return [one for one, _ in answers]
            await asyncio.sleep(0.05)


async def log_of(store: PostgresStore, room: str = "notes") -> list[bytes]:
    return [update for _, update in (await store.load(room)).tail]


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[PostgresStore]:
    async with PostgresStore(dsn, window_seconds=0) as store:
        yield store


@pytest.fixture
async def other(store: PostgresStore, dsn: str) -> AsyncIterator[PostgresStore]:
    """Another replica on the same database."""
    async with PostgresStore(dsn, window_seconds=0) as other:
        yield other


@pytest.fixture
async def proxy(postgres: Postgres) -> AsyncIterator[Proxy]:
    async with Proxy("127.0.0.1", postgres.port) as proxy:
        yield proxy


@pytest.fixture
async def parted(
    store: PostgresStore, dsn: str, proxy: Proxy, postgres: Postgres
) -> AsyncIterator[PostgresStore]:
    """Another replica, behind the proxy."""
    by_proxy = dsn.replace(f":{postgres.port}/", f":{proxy.port}/")
    async with PostgresStore(by_proxy, window_seconds=0) as parted:
        yield parted


async def execute(dsn: str, *statements: str) -> None:
    db = await asyncpg.connect(dsn)
    for statement in statements:
        await db.execute(statement)
    await db.close()


# Together


async def test_two_replicas_append_to_one_room_at_once(
    store: PostgresStore, other: PostgresStore
) -> None:
    async def write(at: PostgresStore, origin: str) -> list[int]:
        places = []
        for number in range(1, 101, 2):
            updates = [b"%s-%d" % (origin.encode(), number + n) for n in range(2)]
            ((answered, error),) = await append(
                at, entry(number, *updates, origin=origin)
            )
            assert error is None
            places.append(answered.logged)
        return places

    places = await asyncio.gather(write(store, "a"), write(other, "b"))

    stored = await store.load("notes")
    log = [update for _, update in stored.tail]
    assert [at for at, _ in stored.tail] == list(range(1, 201))
    for origin, told in zip(("a", "b"), places, strict=True):
        own = [each for each in log if each.startswith(origin.encode())]
        assert own == [b"%s-%d" % (origin.encode(), n) for n in range(1, 101)]
        assert [log[place - 1] for place in told] == own[1::2]


async def test_rooms_taken_in_opposite_orders_do_not_hold_each_other_up(
    store: PostgresStore, other: PostgresStore, postgres: Postgres
) -> None:
    names = [f"room-{number:03}" for number in range(60)]
    there = len(postgres.log.read_text())

    async def write(at: PostgresStore, origin: str, names: list[str]) -> None:
        for number in range(1, 21):
            answers = await append(
                at, *[entry(number, b"x", room=name, origin=origin) for name in names]
            )
            assert {error for _, error in answers} == {None}

    await asyncio.gather(
        write(store, "a", names), write(other, "b", list(reversed(names)))
    )

    assert [info.position for info in await store.rooms(limit=100)] == [40] * 60
    assert "deadlock" not in postgres.log.read_text()[there:]


async def test_everybody_is_told_the_same_next_epoch_until_somebody_writes(
    store: PostgresStore, other: PostgresStore
) -> None:
    first = (await store.load("notes")).next_epoch
    same = (await other.load("notes")).next_epoch
    await append(store, entry(1, b"a", epoch=first))
    await other.delete("notes")

    then = (await store.load("notes")).next_epoch

    assert first == same != then
    assert (await store.load("other")).next_epoch not in (first, then)
    assert store.identity == other.identity


async def test_databases_differ_in_identity(
    store: PostgresStore, postgres: Postgres
) -> None:
    async with PostgresStore(postgres.new_dsn()) as elsewhere:
        assert elsewhere.identity != store.identity


async def test_the_slower_of_two_compactors_changes_nothing(
    store: PostgresStore, other: PostgresStore
) -> None:
    await append(store, entry(1, *[b"x"] * 9))
    slow = (await store.load("notes")).fence
    fast = (await other.load("notes")).fence

    stored = await asyncio.gather(
        *(
            at.checkpoint("notes", Checkpoint(position, b"%d" % position), fence=fence)
            for at, position, fence in ((other, 5, fast), (store, 5, fast))
        )
    )
    late = await store.checkpoint("notes", Checkpoint(7, b"7"), fence=slow)

    assert sorted(stored) == [False, True]
    assert not late
    assert (await store.load("notes")).checkpoint == Checkpoint(5, b"5")


async def test_a_checkpoint_of_what_a_failover_has_undone_is_refused(
    store: PostgresStore, dsn: str
) -> None:
    await append(store, entry(1, b"a", b"lost"))
    stored = await store.load("notes")
    # As at a standby that has become the primary before it had heard of everything.
    await execute(
        dsn,
        "DELETE FROM collab.log WHERE position = 2",
        "DELETE FROM collab.origin",
        "UPDATE collab.room SET position = 1",
    )
    await append(store, entry(1, b"other", origin="elsewhere"))

    is_stored = await store.checkpoint(
        "notes", Checkpoint(stored.position, b"a lost"), fence=stored.fence
    )

    assert not is_stored
    assert await log_of(store) == [b"a", b"other"]


async def test_a_load_under_way_elsewhere_is_no_crash_and_one_cut_short_is(
    dsn: str, store: PostgresStore
) -> None:
    async with AsyncExitStack() as stack:
        doomed = await stack.enter_async_context(PostgresStore(dsn))
        await doomed.begin_load("notes")
        under_way = await store.begin_load("notes")
        await store.end_load("notes")
        await doomed.begin_load("notes")

    after = [await store.begin_load("notes"), await store.begin_load("notes")]
    await store.end_load("notes")

    assert under_way == 0
    assert after == [1, 1]
    assert await store.begin_load("notes") == 0


async def test_owners_wait_for_the_first_entry(
    store: PostgresStore, other: PostgresStore
) -> None:
    await store.bind("notes", {7: "alice"})

    await append(store, entry(1, b"a"))

    assert (await other.load("notes")).owners == {7: "alice"}


async def test_what_a_process_repeats_is_taken_once(store: PostgresStore) -> None:
    await append(store, entry(1, b"a", b"b"))

    answers = await append(
        store, entry(1, b"a", b"b"), entry(2, b"b", b"c"), entry(4, b"d")
    )

    assert await log_of(store) == [b"a", b"b", b"c", b"d"]
    assert [answered.logged for answered, _ in answers] == [0, 0, 4]


# What can and cannot be kept


async def test_an_entry_that_postgres_cannot_keep_is_refused_alone(
    store: PostgresStore,
) -> None:
    answers = await append(
        store,
        entry(1, b"a"),
        entry(1, b"x", room="nul\0"),
        entry(1, b"x", room="half \ud800"),
        entry(1, "text", room="other"),  # type: ignore[arg-type]
        entry(1, b"x", room="odd")._replace(milliseconds=1 << 70),
        entry(2, b"b"),
    )

    assert [type(error) for _, error in answers] == [
        type(None),
        *[StoreCorrupt] * 4,
        type(None),
    ]
    assert await log_of(store) == [b"a", b"b"]


async def test_names_and_authors_may_hold_anything_else(store: PostgresStore) -> None:
    room = "tenant\x1f%_\\'\U0001f600"
    author = Author("alice\0", "c\n1", "turn \U0010ffff")

    await append(store, entry(1, b"\0", room=room, author=author))

    (row,) = await store.history(room)
    assert row.author == author
    assert [info.name for info in await store.rooms(prefix="tenant\x1f%")] == [room]


async def test_an_entry_larger_than_a_batch_goes_alone(store: PostgresStore) -> None:
    large = secrets.token_bytes(6 << 20)

    await append(store, entry(1, b"a"), entry(2, large), entry(3, b"b"))

    assert await log_of(store) == [b"a", large, b"b"]


async def test_a_room_of_a_newer_format_is_left_alone(
    store: PostgresStore, dsn: str
) -> None:
    await append(store, entry(1, b"a"), entry(1, b"a", room="other"))
    fence = (await store.load("notes")).fence
    await execute(dsn, "UPDATE collab.room SET format = 2 WHERE name = 'notes'")

    answers = await append(store, entry(2, b"b"), entry(2, b"b", room="other"))

    assert [type(error) for _, error in answers] == [RoomUnavailable, type(None)]
    with pytest.raises(RoomUnavailable):
        await store.load("notes")
    with pytest.raises(RoomUnavailable):
        await store.checkpoint("notes", Checkpoint(1, b"a"), fence=fence)
    assert await log_of(store, "other") == [b"a", b"b"]


async def test_a_newer_database_is_refused_and_one_with_additions_is_not(
    store: PostgresStore, dsn: str
) -> None:
    await append(store, entry(1, b"a"))
    await execute(dsn, "UPDATE collab.about SET version = 99")
    async with PostgresStore(dsn) as older:
        assert await log_of(older) == [b"a"]
    await execute(dsn, "UPDATE collab.about SET oldest = 99")

    with pytest.raises(ConfigurationError, match="newer version"):
        await PostgresStore(dsn).__aenter__()

    assert await log_of(store) == [b"a"]


async def test_a_database_of_the_first_version_is_brought_up_to_date(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:1])
        older = await PostgresStore(dsn, window_seconds=0).__aenter__()
    await append(older, entry(1, *[b"x"] * 10))

    async with PostgresStore(dsn, window_seconds=0) as newer:
        about = ALICE._replace(turn="t1", about="{}")
        await append(newer, entry(1, b"y", author=about, origin="new"))
        for position in (2, 4, 6):
            fence = (await newer.load("notes")).fence
            made = Checkpoint(position, b"%d" % position)
            assert await newer.checkpoint("notes", made, fence=fence)
        await newer.attribute("notes", Attributed(6, b"who"), fence=fence)
        await append(older, entry(11, b"z"))  # it serves on until it is replaced
        await older.__aexit__()
        rows = await newer.history("notes", after=9)
        first = await newer.checkpoint_before("notes", 3)

    assert [row.author for row in rows] == [ALICE, about, ALICE]
    assert first == Checkpoint(2, b"2")


async def test_a_damaged_attribution_is_not_served_and_told_anew(
    store: PostgresStore, dsn: str
) -> None:
    await append(store, entry(1, b"a", b"b", b"c"))
    fence = (await store.load("notes")).fence
    await store.attribute("notes", Attributed(3, b"who"), fence=fence)
    for damage in ("encoded = 'no'", "position = 1", "crc = crc + 1"):
        await execute(dsn, f"UPDATE collab.attribution SET {damage}")

        assert await store.attribution("notes") is None
        assert await store.attribute("notes", Attributed(2, b"who"), fence=fence)
        assert await store.attribution("notes") == Attributed(2, b"who")


async def test_many_replicas_begin_on_an_empty_database_at_once(dsn: str) -> None:
    async with AsyncExitStack() as stack:
        stores = await asyncio.gather(
            *(stack.enter_async_context(PostgresStore(dsn)) for _ in range(4))
        )

        assert len({store.identity for store in stores}) == 1


@pytest.mark.parametrize("column", ["milliseconds", "crc", "author", "update"])
async def test_a_damaged_row_is_noticed(
    store: PostgresStore, dsn: str, column: str
) -> None:
    changed = {
        "author": "replace(author, 'alice', 'blice')",
        "update": "update || '\\x00'",
    }.get(column, f"{column} + 1")
    await append(store, entry(1, b"a", b"b", b"c"))
    await execute(dsn, f"UPDATE collab.log SET {column} = {changed} WHERE position = 2")

    with pytest.raises(StoreCorrupt, match="position 2"):
        await store.load("notes")

    assert [row.position for row in await store.history("notes")] == [1, 3]
    assert store.damaged_records == 1


@pytest.mark.parametrize("position", [1, 2, 3])
async def test_a_missing_row_is_noticed(
    store: PostgresStore, dsn: str, position: int
) -> None:
    await append(store, entry(1, b"a", b"b", b"c"))
    await execute(dsn, f"DELETE FROM collab.log WHERE position = {position}")

    with pytest.raises(StoreCorrupt, match=f"position {position}"):
        await store.load("notes")


async def test_the_older_checkpoint_stands_in_for_a_damaged_one(
    store: PostgresStore, dsn: str
) -> None:
    await append(store, entry(1, b"a", b"b", b"c"))
    for position in (1, 2):
        fence = (await store.load("notes")).fence
        await store.checkpoint("notes", Checkpoint(position, b"to"), fence=fence)
    await store.retain("notes", 0)
    damage = "UPDATE collab.checkpoint SET snapshot = 'no' WHERE position = 2"
    await execute(dsn, damage)
    await store.tidy()

    stored = await store.load("notes")

    assert stored.checkpoint == Checkpoint(1, b"to")
    assert stored.tail == [(2, b"b"), (3, b"c")]
    assert len(await store.history("notes")) == 3, "kept, for one checkpoint is damaged"


async def test_what_is_purged_leaves_nothing_but_a_tombstone(
    store: PostgresStore, dsn: str
) -> None:
    await append(store, entry(1, *[b"x"] * 50), entry(1, b"a", room="other"))
    await store.bind("notes", {7: "alice"})
    fence = (await store.load("notes")).fence
    await store.checkpoint("notes", Checkpoint(9, b"x"), fence=fence)
    await store.attribute("notes", Attributed(9, b"who"), fence=fence)
    await store.delete("notes", purge=True)

    await store.tidy()

    db = await asyncpg.connect(dsn)
    left = [
        await db.fetchval(f"SELECT count(*) FROM collab.{table}")
        for table in ("room", "log", "owner", "origin", "checkpoint", "attribution")
    ]
    await db.close()
    assert left == [2, 1, 0, 1, 0, 0]


# When Postgres fails


async def test_a_commit_whose_answer_is_lost_is_neither_lost_nor_doubled(
    store: PostgresStore, parted: PostgresStore, proxy: Proxy
) -> None:
    await append(parted, entry(1, b"before"))
    proxy.cut_after(b"ambiguous")

    ((_, error),) = await append(parted, entry(2, b"ambiguous"))
    proxy.heal()
    (answered,) = await persist(parted, entry(2, b"ambiguous"))
    await persist(parted, entry(3, b"after"))

    assert isinstance(error, StoreUnavailable)
    assert proxy.cut == 1
    assert answered.logged in (0, 2)
    assert await log_of(store) == [b"before", b"ambiguous", b"after"]


async def test_what_is_queued_behind_a_failed_commit_does_not_overtake(
    store: PostgresStore, parted: PostgresStore, proxy: Proxy
) -> None:
    answers: list[tuple[int, bool]] = []
    everything = asyncio.Event()

    def done(answered: Sequence[Entry], error: CollabError | None) -> None:
        answers.extend((one.position, error is None) for one in answered)
        if len(answers) == 3:
            everything.set()

    connected = proxy.accepted
    proxy.hold()
    parted.append([entry(1, b"a")], done)
    for _ in range(20):
        await asyncio.sleep(0)  # the first is on its way
    parted.append([entry(2, b"b")], done)
    parted.append([entry(3, b"c")], done)
    proxy.reset()
    await asyncio.wait_for(everything.wait(), PATIENCE)

    assert answers == [(1, False), (2, False), (3, False)]
    assert proxy.accepted == connected
    assert await log_of(store) == []


async def test_postgres_that_ends_and_comes_back(
    store: PostgresStore, postgres: Postgres
) -> None:
    await append(store, entry(1, b"a"))
    postgres.stop_immediately()

    ((_, error),) = await append(store, entry(2, b"b"))
    with pytest.raises(StoreUnavailable):
        await store.load("notes")
    postgres.start()
    await persist(store, entry(2, b"b"))

    assert isinstance(error, StoreUnavailable)
    assert await log_of(store) == [b"a", b"b"]


async def test_a_silent_postgres_is_given_two_seconds(
    store: PostgresStore, postgres: Postgres
) -> None:
    await append(store, entry(1, b"a"))
    now = asyncio.get_running_loop().time
    postgres.stop()
    try:
        begun = now()
        ((_, error),) = await append(store, entry(2, b"b"))
        with pytest.raises(StoreUnavailable):
            await store.load("notes")
        took = now() - begun
    finally:
        postgres.cont()
    await persist(store, entry(2, b"b"))
    await store.end_load("notes")

    assert isinstance(error, StoreUnavailable)
    assert took < 2 * connections.COMMAND_SECONDS + BUSY_SECONDS
    assert await log_of(store) == [b"a", b"b"]


async def test_nobody_waits_long_while_postgres_is_silent(
    store: PostgresStore, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "PLACE_SECONDS", 1.0)
    monkeypatch.setattr(connections, "MAX_WAITING", 20)
    await append(store, entry(1, b"a"))
    postgres.stop()
    try:
        answers = await asyncio.wait_for(
            asyncio.gather(
                *(store.load("notes") for _ in range(40)), return_exceptions=True
            ),
            PATIENCE,
        )
    finally:
        postgres.cont()

    assert {type(answer) for answer in answers} == {StoreUnavailable}
    assert sum("too many" in str(answer) for answer in answers) == 16


async def test_a_postgres_that_takes_no_writes_is_no_store(
    store: PostgresStore, postgres: Postgres, dsn: str
) -> None:
    name = dsn.rpartition("/")[2]
    await append(store, entry(1, b"a"))
    # As after a failover to a standby: the connections there are go on, and nothing can be written.
    read_only = f"ALTER DATABASE {name} SET default_transaction_read_only = on"
    cut = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    postgres.sql(read_only)
    postgres.sql(cut)

    ((_, error),) = await append(store, entry(2, b"b"))
    ((_, again),) = await append(store, entry(2, b"b"))
    postgres.sql(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    await persist(store, entry(2, b"b"))

    assert isinstance(error, StoreUnavailable)
    assert isinstance(again, StoreUnavailable)
    assert await log_of(store) == [b"a", b"b"]


async def test_the_end_of_a_load_is_told_when_postgres_is_back(
    store: PostgresStore, parted: PostgresStore, proxy: Proxy
) -> None:
    await parted.begin_load("notes")
    proxy.is_refusing = True
    proxy.reset()
    await parted.end_load("notes")
    proxy.heal()
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await parted.begin_load("other")
                break
            except StoreUnavailable:
                await asyncio.sleep(0.05)

    assert not parted._ended
    assert await store.begin_load("notes") == 0


async def test_leaving_gives_up_on_what_cannot_be_written(
    dsn: str, postgres: Postgres, proxy: Proxy
) -> None:
    by_proxy = dsn.replace(f":{postgres.port}/", f":{proxy.port}/")
    errors: list[CollabError | None] = []
    async with asyncio.timeout(PATIENCE):
        async with PostgresStore(by_proxy) as store:
            proxy.hold()
            store.append([entry(1, b"a")], lambda _, error: errors.append(error))

    assert [type(error) for error in errors] == [StoreUnavailable]


# What is wrong at the start


async def test_a_password_is_read_from_its_file(
    postgres: Postgres, dsn: str, tmp_path: Path
) -> None:
    rules = postgres.directory / "data" / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text(f"host all guarded 127.0.0.1/32 scram-sha-256\n{before}")
    postgres.sql("CREATE ROLE guarded LOGIN SUPERUSER PASSWORD 'right one'")
    postgres.sql("SELECT pg_reload_conf()")
    guarded = dsn.replace("collab@", "guarded@")
    password = tmp_path / "password"
    try:
        password.write_text("right one\n")
        async with PostgresStore(guarded, password_file=password) as store:
            await append(store, entry(1, b"a"))
        password.write_text("wrong one\n")

        with pytest.raises(ConfigurationError) as refused:
            await PostgresStore(guarded, password_file=password).__aenter__()

        assert "wrong one" not in str(refused.value)
        with pytest.raises(ConfigurationError, match="postgres_password_file"):
            await PostgresStore(guarded, password_file=tmp_path / "none").__aenter__()
    finally:
        rules.write_text(before)
        await execute(dsn, "DROP OWNED BY guarded", "DROP ROLE guarded")
        postgres.sql("SELECT pg_reload_conf()")


@pytest.mark.parametrize(
    "change", ["/nowhere", "mysql://", "port=port", "not an address at all"]
)
async def test_an_address_that_is_wrong_ends_the_start(dsn: str, change: str) -> None:
    wrong = {
        "/nowhere": f"{dsn.rpartition('/')[0]}/nowhere",
        "mysql://": "mysql://hidden:secret@127.0.0.1/x",
        "port=port": "postgresql://hidden:secret@127.0.0.1:port/x",
    }.get(change, change)

    with pytest.raises(ConfigurationError) as refused:
        await PostgresStore(wrong).__aenter__()

    assert "secret" not in str(refused.value)


async def test_a_postgres_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(StoreUnavailable):
        await PostgresStore("postgresql://collab@127.0.0.1:9/x").__aenter__()


async def test_a_schema_of_somebody_else_is_left_alone(dsn: str) -> None:
    await execute(dsn, "CREATE SCHEMA collab", "CREATE TABLE collab.room (n int)")

    with pytest.raises(ConfigurationError, match="another program"):
        await PostgresStore(dsn).__aenter__()


async def test_what_a_commit_survives_is_said_at_the_start(dsn: str) -> None:
    with capture_logs() as lines:
        async with PostgresStore(dsn):
            pass

    assert "fsync" in str(lines)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "collab.store.postgres.store")
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    for name in [
        name for name in sys.modules if name.startswith("collab.store.postgres.")
    ]:
        monkeypatch.delitem(sys.modules, name)

    with pytest.raises(ConfigurationError, match=r"collab\[postgres\]"):
        make_store(Settings(postgres="postgresql://collab@127.0.0.1/x"))


def test_the_store_is_made_by_its_setting() -> None:
    made = make_store(Settings(postgres="postgresql://collab@127.0.0.1/x"))

    assert isinstance(made, postgres_store.PostgresStore)
