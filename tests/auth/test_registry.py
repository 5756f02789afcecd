"""The registry: keys, grants and revocations, in memory and on disk, for several processes."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from together import revoke_together

from collab.auth.permissions import ADMIN, READ, WRITE, Grant, Principal
from collab.auth.records import ENDED_SECONDS, Record, Revocation
from collab.auth.registry import REVOCATION_SECONDS, Registry
from collab.auth.shelves.memory import MemoryShelf
from collab.auth.shelves.sqlite import FILE, SqliteShelf
from collab.errors import (
    Busy,
    CollabError,
    ConfigurationError,
    Conflict,
    InvalidRequest,
    InvalidRoomName,
    NothingHere,
    StoreCorrupt,
    StoreUnavailable,
)

NOTES = Grant("notes", READ | WRITE)
TEAM = Grant("team/", READ, is_prefix=True)


class Clock:
    """Stands still until it is told."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "file"])
def registry(
    request: pytest.FixtureRequest, tmp_path: Path, clock: Clock
) -> Iterator[Registry]:
    shelf = SqliteShelf(tmp_path / FILE) if request.param == "file" else MemoryShelf()
    with Registry(shelf, clock=clock) as opened:
        yield opened


def principal(id: str = "ada", **about: object) -> Principal:
    return replace(Principal(id), **about)


# Keys


def test_a_key_is_known_by_its_token(registry: Registry) -> None:
    key, token = registry.create_key("ci", (NOTES,), tenant="acme", kind="agent")

    holder = registry.holder(token)

    assert holder is not None
    assert (holder.id, holder.tenant, holder.kind) == ("ci", "acme", "agent")
    assert holder.grants == (NOTES,)
    assert holder.token == key.id


def test_a_key_says_what_its_holder_does_and_for_whom(registry: Registry) -> None:
    key, token = registry.create_key(
        "bot", (NOTES,), kind="agent", role="reviewer", on_behalf_of="ada"
    )
    rotated, new_token = registry.rotate_key(key.id, overlap_seconds=0)

    for each in (token, new_token):
        holder = registry.holder(each)
        assert holder is not None
        assert (holder.role, holder.on_behalf_of) == ("reviewer", "ada")
    assert (rotated.shown()["role"], rotated.shown()["on_behalf_of"]) == (
        "reviewer",
        "ada",
    )


def test_a_key_ends_with_whom_it_acts_for_and_stays_ended(
    registry: Registry, clock: Clock
) -> None:
    _, token = registry.create_key("bot", (NOTES,), on_behalf_of="ada")
    holder = registry.holder(token)
    assert holder is not None

    assert registry.revoke("ada") == 1
    clock.now += REVOCATION_SECONDS + 1
    registry.revoke("eve")  # what is over is forgotten with any change

    assert registry.revocations()[0].subject == "eve"
    assert registry.is_revoked(holder)


def test_a_key_comes_back_with_whom_it_acts_for(registry: Registry) -> None:
    _, token = registry.create_key("bot", (NOTES,), on_behalf_of="ada")
    registry.create_key("bot", (NOTES,), tenant="acme", on_behalf_of="ada")
    holder = registry.holder(token)
    assert holder is not None

    ended = registry.revoke("ada")
    restored = registry.restore("ada")

    assert (ended, restored) == (1, 1)
    assert not registry.is_revoked(holder)


@pytest.mark.parametrize("said", [{"role": "a\nb"}, {"on_behalf_of": "x" * 257}])
def test_a_key_for_nobody_is_not_made(registry: Registry, said: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest):
        registry.create_key("bot", (NOTES,), **said)  # type: ignore[arg-type]  # which, the parameters say

    assert registry.keys() == []


def test_another_secret_or_id_is_nobody(registry: Registry) -> None:
    key, token = registry.create_key("ci", (NOTES,))
    _, other_token = registry.create_key("other", (NOTES,))

    secret = other_token.partition(".")[2]

    assert registry.holder(f"{key.id}.{secret}") is None
    assert registry.holder(f"ck_0000000000000000.{secret}") is None
    assert registry.holder(token[:-1]) is None
    assert registry.holder(key.id) is None
    assert registry.holder("") is None
    assert registry.holder("ck_\ud800.\udfff") is None


def test_no_two_keys_are_alike(registry: Registry) -> None:
    made = [registry.create_key("ci", (NOTES,)) for _ in range(20)]

    assert len({key.id for key, _ in made}) == 20
    assert len({token.partition(".")[2] for _, token in made}) == 20


def test_a_key_ends_when_its_time_is_over(registry: Registry, clock: Clock) -> None:
    _, token = registry.create_key("ci", (NOTES,), seconds=60)
    holder = registry.holder(token)
    assert holder is not None

    clock.now += 61

    assert holder.expires < clock.now
    assert registry.is_revoked(holder)


def test_a_revoked_key_ends_at_once_and_is_listed_as_such(
    registry: Registry, clock: Clock
) -> None:
    key, token = registry.create_key("ci", (NOTES,))
    holder = registry.holder(token)
    assert holder is not None
    assert not registry.is_revoked(holder)

    ended = registry.revoke_key(key.id)

    assert ended.revoked == clock.now
    assert registry.is_revoked(holder)
    assert registry.keys() == [ended]


def test_a_whole_key_may_be_handed_in_where_its_id_is_enough(
    registry: Registry,
) -> None:
    key, token = registry.create_key("ci", (NOTES,))

    assert registry.revoke_key(token).id == key.id


def test_a_key_that_has_ended_keeps_the_time_of_its_end(
    registry: Registry, clock: Clock
) -> None:
    key, _ = registry.create_key("ci", (NOTES,))
    ended = registry.revoke_key(key.id)

    clock.now += 5

    assert registry.revoke_key(key.id) == ended


def test_a_key_of_another_tenant_is_not_there(registry: Registry) -> None:
    key, _ = registry.create_key("ci", (NOTES,), tenant="acme")

    with pytest.raises(NothingHere):
        registry.revoke_key(key.id, tenant="other")
    with pytest.raises(NothingHere):
        registry.rotate_key(key.id, overlap_seconds=0, tenant="")
    assert registry.keys("other") == []
    assert registry.keys("acme") == [key]


def test_rotation_keeps_both_keys_for_a_while(registry: Registry, clock: Clock) -> None:
    key, token = registry.create_key("ci", (NOTES, TEAM), tenant="acme", seconds=1000)
    old = registry.holder(token)
    assert old is not None

    clock.now += 100
    new, new_token = registry.rotate_key(key.id, overlap_seconds=60)

    assert (new.principal, new.tenant, new.grants) == ("ci", "acme", (NOTES, TEAM))
    assert new.expires == clock.now + 1000
    assert not registry.is_revoked(old)
    clock.now += 61
    assert registry.is_revoked(old)
    fresh = registry.holder(new_token)
    assert fresh is not None
    assert not registry.is_revoked(fresh)
    assert registry.keys()[0].replaced_by == new.id


def test_rotation_never_lengthens_the_life_of_the_old_key(
    registry: Registry, clock: Clock
) -> None:
    key, _ = registry.create_key("ci", (NOTES,), seconds=10)

    registry.rotate_key(key.id, overlap_seconds=1000)

    assert registry.keys()[0].expires == clock.now + 10


def test_only_a_live_key_is_rotated_and_only_once(
    registry: Registry, clock: Clock
) -> None:
    ended, _ = registry.create_key("ci", (NOTES,))
    registry.revoke_key(ended.id)
    replaced, _ = registry.create_key("ci", (NOTES,))
    registry.rotate_key(replaced.id, overlap_seconds=60)

    with pytest.raises(Conflict):
        registry.rotate_key(ended.id, overlap_seconds=60)
    with pytest.raises(Conflict):
        registry.rotate_key(replaced.id, overlap_seconds=60)


def test_ended_keys_are_forgotten_after_a_month(
    registry: Registry, clock: Clock
) -> None:
    registry.create_key("ci", (NOTES,), seconds=10)
    lasting, _ = registry.create_key("ci", (NOTES,))

    clock.now += ENDED_SECONDS + 11
    registry.grant("ada", NOTES)

    assert registry.keys() == [lasting]


@pytest.mark.parametrize(
    "grant",
    [
        Grant("", READ),
        Grant("a\nb", READ),
        Grant("team", READ, is_prefix=True),
        Grant("notes", 0),
    ],
)
def test_a_grant_that_nobody_can_mean_is_refused(
    registry: Registry, grant: Grant
) -> None:
    with pytest.raises((InvalidRequest, InvalidRoomName)):
        registry.create_key("ci", (grant,))
    with pytest.raises((InvalidRequest, InvalidRoomName)):
        registry.grant("ada", grant)


@pytest.mark.parametrize(
    "id", ["", " ", "a\x1fb", "anonymous", "anonymous:1", "é" * 200]
)
def test_an_id_that_is_none_is_refused(registry: Registry, id: str) -> None:
    with pytest.raises(InvalidRequest):
        registry.create_key(id, (NOTES,))
    with pytest.raises(InvalidRequest):
        registry.grant(id, NOTES)
    with pytest.raises(InvalidRequest):
        registry.revoke(id)


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), 1e300])
def test_a_time_that_is_none_is_refused(registry: Registry, seconds: float) -> None:
    key, _ = registry.create_key("ci", (NOTES,))

    for attempt in (
        lambda: registry.create_key("ci", (NOTES,), seconds=seconds),
        lambda: registry.rotate_key(key.id, overlap_seconds=seconds),
        lambda: registry.grant("ada", NOTES, seconds=seconds),
        lambda: registry.revoke("ada", seconds=seconds),
        lambda: registry.revoke_token("jti", seconds=seconds),
    ):
        with pytest.raises(InvalidRequest):
            attempt()

    assert registry.keys() == [key]
    assert not registry.grants()
    assert not registry.revocations()


def test_a_tenant_is_never_the_mark_for_all(registry: Registry) -> None:
    with pytest.raises(InvalidRequest):
        registry.create_key("ci", (NOTES,), tenant="\x1f")
    with pytest.raises(InvalidRequest):
        registry.revoke("ada", tenant="\x1f")


# Grants


def test_what_was_granted_adds_to_what_a_token_says(registry: Registry) -> None:
    registry.grant("ada", NOTES)
    registry.grant("ada", TEAM)

    assert registry.granted(principal(), "notes") == READ | WRITE
    assert registry.granted(principal(), "team/a") == READ
    assert registry.granted(principal(), "teams") == 0
    assert registry.granted(principal(), "notes2") == 0
    assert registry.granted(principal("eve"), "notes") == 0
    assert registry.granted(principal(tenant="acme"), "notes") == 0


def test_a_second_grant_for_a_room_takes_the_place_of_the_first(
    registry: Registry,
) -> None:
    registry.grant("ada", NOTES)

    registry.grant("ada", Grant("notes", READ))

    assert registry.granted(principal(), "notes") == READ
    assert len(registry.grants()) == 1


def test_a_room_and_a_prefix_of_one_name_are_two_grants(registry: Registry) -> None:
    registry.grant("ada", Grant("team/", WRITE))
    registry.grant("ada", TEAM)

    registry.withdraw("ada", "team/")

    assert registry.granted(principal(), "team/") == READ
    assert [each.grant for each in registry.grants()] == [TEAM]


def test_a_withdrawn_grant_holds_no_longer(registry: Registry) -> None:
    registry.grant("ada", NOTES, tenant="acme")

    registry.withdraw("ada", "notes", tenant="acme")

    assert registry.granted(principal(tenant="acme"), "notes") == 0
    with pytest.raises(NothingHere):
        registry.withdraw("ada", "notes", tenant="acme")


def test_a_grant_ends_when_its_time_is_over(registry: Registry, clock: Clock) -> None:
    registry.grant("ada", NOTES, seconds=10)
    version = registry.version

    clock.now += 11
    registry.refresh()

    assert registry.granted(principal(), "notes") == 0
    assert registry.grants() == []
    assert registry.version > version


def test_grants_are_listed_by_tenant_and_principal(registry: Registry) -> None:
    registry.grant("ada", NOTES)
    registry.grant("bob", NOTES, tenant="acme")

    assert [each.principal for each in registry.grants("acme")] == ["bob"]
    assert [each.principal for each in registry.grants(principal="ada")] == ["ada"]
    assert registry.grants("acme", "ada") == []


# Revocations


def test_a_revocation_ends_what_is_older_and_nothing_newer(
    registry: Registry, clock: Clock
) -> None:
    before = principal(issued=clock.now - 5)
    same_second = principal(issued=float(int(clock.now)))
    unknown = principal()

    registry.revoke("ada")
    after = principal(issued=clock.now + 1)

    assert registry.is_revoked(before)
    assert registry.is_revoked(same_second)
    assert registry.is_revoked(unknown)
    assert not registry.is_revoked(after)
    assert not registry.is_revoked(principal("bob"))
    assert not registry.is_revoked(principal(tenant="acme"))


@pytest.mark.parametrize("revoked", ["reviewer", "ada"])
def test_whoever_acts_for_another_ends_with_either(
    registry: Registry, revoked: str
) -> None:
    acting = principal("reviewer", on_behalf_of="ada")

    registry.revoke(revoked)

    assert registry.is_revoked(acting)
    assert not registry.is_revoked(principal("reviewer2", on_behalf_of="bob"))


def test_a_revoked_principal_loses_its_keys_and_gets_them_back(
    registry: Registry, clock: Clock
) -> None:
    _, token = registry.create_key("ada", (NOTES,))
    apart, _ = registry.create_key("ada", (NOTES,))
    registry.revoke_key(apart.id)
    clock.now += 1
    other, _ = registry.create_key("bob", (NOTES,))
    holder = registry.holder(token)
    assert holder is not None

    count = registry.revoke("ada")

    assert count == 1
    assert registry.is_revoked(holder)
    assert other in registry.keys()
    assert registry.restore("ada") == 1
    assert not registry.is_revoked(holder)
    assert [key.revoked < inf for key in registry.keys()].count(True) == 1


def test_what_was_revoked_twice_comes_back_at_once(
    registry: Registry, clock: Clock
) -> None:
    registry.create_key("ada", (NOTES,))
    apart, _ = registry.create_key("ada", (NOTES,))
    registry.revoke_key(apart.id)
    clock.now += 1
    registry.revoke("ada")
    clock.now += 1
    registry.revoke("ada")  # as after an answer that was lost

    count = registry.restore("ada")

    assert count == 1
    assert [key.id for key in registry.keys() if key.revoked < inf] == [apart.id]


def test_a_key_that_is_made_after_a_revocation_is_good(
    registry: Registry, clock: Clock
) -> None:
    registry.revoke("ada")

    clock.now += 1
    _, token = registry.create_key("ada", (NOTES,))

    holder = registry.holder(token)
    assert holder is not None
    assert not registry.is_revoked(holder)


def test_one_token_is_revoked_and_no_other(registry: Registry) -> None:
    registry.revoke_token("jti-1")

    assert registry.is_revoked(principal(token="jti-1"))
    assert registry.is_revoked(principal(token="jti-1", tenant="acme"))
    assert not registry.is_revoked(principal(token="jti-2"))
    assert not registry.is_revoked(principal())


def test_a_token_of_one_tenant_is_not_that_of_another(registry: Registry) -> None:
    registry.revoke_token("jti-1", tenant="acme")

    assert registry.is_revoked(principal(token="jti-1", tenant="acme"))
    assert not registry.is_revoked(principal(token="jti-1"))


def test_revocations_are_undone_one_by_one(registry: Registry) -> None:
    registry.revoke("ada")
    registry.revoke_token("jti-1")

    registry.restore("ada")
    registry.restore_token("jti-1")

    assert not registry.is_revoked(principal(token="jti-1"))
    assert registry.revocations() == []
    with pytest.raises(NothingHere):
        registry.restore("ada")
    with pytest.raises(NothingHere):
        registry.restore_token("jti-1")


def test_a_key_is_revoked_and_restored_as_a_token_too(registry: Registry) -> None:
    key, token = registry.create_key("ci", (NOTES,))
    holder = registry.holder(token)
    assert holder is not None

    registry.revoke_token(key.id)

    assert registry.is_revoked(holder)
    registry.restore_token(key.id)
    assert not registry.is_revoked(holder)
    with pytest.raises(NothingHere):
        registry.revoke_token("ck_0000000000000000")


def test_a_revocation_is_forgotten_when_no_older_token_can_live(
    registry: Registry, clock: Clock
) -> None:
    registry.revoke("ada")
    registry.revoke_token("jti-1")

    clock.now += REVOCATION_SECONDS + 1
    registry.refresh()

    assert registry.revocations() == []
    assert not registry.is_revoked(principal(token="jti-1"))


# The file


def test_what_was_made_is_there_the_next_time(tmp_path: Path, clock: Clock) -> None:
    with Registry(SqliteShelf(tmp_path / FILE), clock=clock) as first:
        key, token = first.create_key("ci", (NOTES, TEAM), name="Build", seconds=60)
        first.grant("ada", NOTES)
        first.revoke("eve")

    with Registry(SqliteShelf(tmp_path / FILE), clock=clock) as second:
        holder = second.holder(token)
        assert holder is not None
        assert second.keys() == [key]
        assert second.granted(principal(), "notes") == READ | WRITE
        assert second.is_revoked(principal("eve"))


def test_the_file_is_for_its_owner_alone_and_holds_no_secret(tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.touch(0o644)
    os.chmod(path, 0o644)

    with Registry(SqliteShelf(path)) as registry:
        _, token = registry.create_key("ci", (NOTES,))
        modes = {each: stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()}
        content = b"".join(each.read_bytes() for each in tmp_path.iterdir())

    assert len(modes) > 1
    assert set(modes.values()) == {0o600}
    assert token.partition(".")[2].encode() not in content


def test_what_another_process_changes_is_seen_with_the_next_look(
    tmp_path: Path, clock: Clock
) -> None:
    with (
        Registry(SqliteShelf(tmp_path / FILE), clock=clock) as server,
        Registry(SqliteShelf(tmp_path / FILE), clock=clock) as command,
    ):
        version = server.version
        server.refresh()
        assert server.version == version

        command.revoke("ada")
        assert not server.is_revoked(principal())
        server.refresh()

        assert server.is_revoked(principal())
        assert server.version > version


def test_a_change_is_made_on_what_the_file_holds_now(
    tmp_path: Path, clock: Clock
) -> None:
    with (
        Registry(SqliteShelf(tmp_path / FILE), clock=clock) as server,
        Registry(SqliteShelf(tmp_path / FILE), clock=clock) as command,
    ):
        key, _ = command.create_key("ci", (NOTES,))

        server.revoke_key(key.id)
        command.refresh()

        assert command.keys()[0].revoked == clock.now


def test_too_many_of_anything_are_refused(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MAX_KEYS", "MAX_GRANTS", "MAX_REVOCATIONS"):
        monkeypatch.setattr(f"collab.auth.records.{name}", 1)
    registry.create_key("ci", (NOTES,))
    registry.grant("ada", NOTES)
    registry.revoke("eve")

    with pytest.raises(Conflict):
        registry.create_key("ci", (NOTES,))
    with pytest.raises(Conflict):
        registry.grant("bob", NOTES)
    with pytest.raises(Conflict):
        registry.revoke("mallory")

    assert len(registry.keys()) == len(registry.grants()) == 1
    assert not registry.is_revoked(principal("mallory"))


def test_one_tenant_does_not_use_up_what_is_there_for_all(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MAX_KEYS", "MAX_GRANTS", "MAX_REVOCATIONS"):
        monkeypatch.setattr(f"collab.auth.records.{name}", 4)
    for tenant in ("acme", ""):
        registry.create_key("ci", (NOTES,), tenant=tenant)
        registry.grant("ada", NOTES, tenant=tenant)
        registry.revoke("eve", tenant=tenant)

    with pytest.raises(Conflict):
        registry.create_key("ci", (NOTES,), tenant="acme")
    with pytest.raises(Conflict):
        registry.grant("bob", NOTES, tenant="acme")
    with pytest.raises(Conflict):
        registry.revoke("mallory", tenant="acme")
    registry.create_key("ci", (NOTES,))
    registry.grant("bob", NOTES)
    registry.revoke("mallory")
    registry.revoke_token("jti")

    assert len(registry.keys()) == len(registry.grants()) == 3


def test_a_file_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / FILE
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE theirs (x)")
    db.close()

    with pytest.raises(StoreCorrupt), Registry(SqliteShelf(path)):
        pass


# A file as the version before wrote it.
BEFORE = """
    CREATE TABLE key (
        id TEXT PRIMARY KEY, hash BLOB NOT NULL, principal TEXT NOT NULL, tenant TEXT NOT NULL, kind TEXT NOT NULL,
        name TEXT NOT NULL, grants TEXT NOT NULL, created REAL NOT NULL, expires REAL, revoked REAL,
        replaced_by TEXT NOT NULL DEFAULT ''
    ) WITHOUT ROWID;
    CREATE TABLE granted (
        tenant TEXT NOT NULL, principal TEXT NOT NULL, room TEXT NOT NULL, is_prefix INTEGER NOT NULL,
        operations INTEGER NOT NULL, created REAL NOT NULL, expires REAL,
        PRIMARY KEY (tenant, principal, room, is_prefix)
    ) WITHOUT ROWID;
    CREATE TABLE revocation (
        tenant TEXT NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL, made REAL NOT NULL, expires REAL NOT NULL,
        PRIMARY KEY (tenant, kind, subject)
    ) WITHOUT ROWID;
    INSERT INTO key VALUES ('ck_0', zeroblob(32), 'ci', 'acme', 'agent', '', '[["notes",3,false]]', 1.5, NULL, NULL, '');
    INSERT INTO granted VALUES ('', 'ada', 'notes', 0, 1, 1.0, NULL);
    INSERT INTO revocation VALUES ('', 'principal', 'eve', 1.0, 1e12);
    PRAGMA application_id = 0x636F6C61;
    PRAGMA user_version = 1;
"""


def test_a_file_of_the_version_before_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / FILE
    db = sqlite3.connect(path)
    db.executescript(BEFORE)
    db.close()

    with Registry(SqliteShelf(path)) as registry:
        (before,) = registry.keys()
        made, _ = registry.create_key("bot", (NOTES,), role="r", on_behalf_of="ada")
    with Registry(SqliteShelf(path)) as registry:
        found = registry.keys()
        granted = registry.granted(Principal("ada"), "notes")
        revoked = registry.is_revoked(Principal("eve", issued=0.5))

    assert (before.principal, before.role, before.on_behalf_of) == ("ci", "", "")
    assert found == [before, made]
    assert granted == READ
    assert revoked


def test_many_who_find_a_file_of_the_version_before_bring_it_up_to_date_once(
    tmp_path: Path,
) -> None:
    path = tmp_path / FILE
    db = sqlite3.connect(path)
    db.executescript(BEFORE)
    db.close()
    faults = revoke_together(lambda: SqliteShelf(path))

    assert faults == []
    with Registry(SqliteShelf(path)) as registry:
        assert len(registry.revocations()) == 7


def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / FILE
    with Registry(SqliteShelf(path)):
        pass
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()

    with pytest.raises(ConfigurationError), Registry(SqliteShelf(path)):
        pass


@pytest.mark.parametrize(
    "content", [b"no database at all" * 300, b"SQLite format 3\x00" + bytes(5000)]
)
def test_a_file_that_is_no_database_is_said_to_be_one(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / FILE
    path.write_bytes(content)

    with pytest.raises((StoreCorrupt, StoreUnavailable)), Registry(SqliteShelf(path)):
        pass


def test_a_row_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / FILE
    with Registry(SqliteShelf(path)) as registry:
        registry.create_key("ci", (NOTES,))
    db = sqlite3.connect(path)
    db.execute("UPDATE key SET grants = '{'")
    db.commit()
    db.close()

    with pytest.raises(StoreCorrupt), Registry(SqliteShelf(path)):
        pass


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(StoreUnavailable),
        Registry(SqliteShelf(tmp_path / "none" / FILE)),
    ):
        pass


@pytest.mark.anyio
async def test_a_change_beside_the_loop_holds_and_is_told(tmp_path: Path) -> None:
    told = []
    async with Registry(SqliteShelf(tmp_path / FILE)) as registry:
        registry.changed = lambda: told.append(registry.is_revoked(principal()))

        count = await registry.change(registry.revoke, "ada")

        assert (count, told) == (0, [True])


@pytest.mark.anyio
async def test_polling_takes_in_what_a_command_has_changed(tmp_path: Path) -> None:
    async with Registry(SqliteShelf(tmp_path / FILE)) as server:
        with Registry(SqliteShelf(tmp_path / FILE)) as command:
            command.grant("ada", Grant("notes", ADMIN))

        await server.poll()

        assert server.granted(principal(), "notes") == ADMIN


@pytest.mark.anyio
async def test_its_thread_ends_with_it_also_when_the_shelf_does_not_close() -> None:
    class Stuck(MemoryShelf):
        def __exit__(self, *_: object) -> None:
            raise StoreUnavailable("away")

    with pytest.raises(StoreUnavailable):
        async with Registry(Stuck()):
            pass

    threads = [each.name for each in threading.enumerate()]
    assert not any(name.startswith("registry") for name in threads)


@pytest.mark.anyio
async def test_an_error_beside_the_loop_comes_back(tmp_path: Path) -> None:
    async with Registry(SqliteShelf(tmp_path / FILE)) as registry:
        with pytest.raises(NothingHere):
            await registry.change(registry.restore, "ada")


@given(token=st.text(max_size=60))
def test_no_text_is_a_key_by_chance(token: str) -> None:
    with Registry(MemoryShelf()) as registry:
        key, _ = registry.create_key("ci", (NOTES,))

        assert registry.holder(token) is None
        assert registry.holder(f"{key.id}.{token}") is None
        try:
            registry.revoke_token(token)
        except CollabError:
            pass


# The shelf


class Elusive(MemoryShelf):
    """Somebody else changes it just before one does, some times; and it can be emptied."""

    def __init__(self, times: int = 0) -> None:
        super().__init__()
        self.times = times

    def write(
        self, version: str, put: Sequence[Record], drop: Sequence[Record]
    ) -> str | None:
        if self.times:
            self.times -= 1
            made = Revocation("", "token", f"other {self.times}", 1e6, 2e6)
            super().write(self.version(), [made], ())
        return super().write(version, put, drop)

    def empty(self) -> None:
        self.__init__()  # type: ignore[misc]  # as an emptied Redis


def test_a_change_is_tried_again_on_what_others_have_made(clock: Clock) -> None:
    with Registry(Elusive(3), clock=clock) as registry:
        registry.revoke("ada")

        assert registry.is_revoked(principal())
        assert len(registry.revocations()) == 4


def test_a_change_that_never_succeeds_is_given_up(clock: Clock) -> None:
    with Registry(Elusive(1000), clock=clock) as registry:
        with pytest.raises(Busy):
            registry.revoke("ada")

        assert not registry.is_revoked(principal())


def test_what_a_shelf_has_lost_is_put_back_by_who_knows_it(clock: Clock) -> None:
    shelf = Elusive()
    with Registry(shelf, clock=clock) as registry:
        _, token = registry.create_key("ci", (NOTES,))
        registry.revoke("ada")
        shelf.empty()

        registry.refresh()

        with Registry(shelf, clock=clock) as other:
            assert other.is_revoked(principal())
            assert other.holder(token) is not None


def test_a_change_to_an_emptied_shelf_keeps_what_was_known(clock: Clock) -> None:
    shelf = Elusive()
    with Registry(shelf, clock=clock) as registry:
        registry.revoke("ada")
        shelf.empty()

        registry.revoke("eve")

    with Registry(shelf, clock=clock) as other:
        assert other.is_revoked(principal())
        assert other.is_revoked(principal("eve"))


def test_what_is_in_memory_is_as_old_as_the_last_look(clock: Clock) -> None:
    timer = Clock()
    with Registry(MemoryShelf(), clock=clock, timer=timer) as registry:
        timer.now += 5
        before = registry.age_seconds

        registry.refresh()

        assert (before, registry.age_seconds) == (5, 0)


def test_a_token_id_that_no_text_can_hold_is_refused(registry: Registry) -> None:
    with pytest.raises(InvalidRequest):
        registry.revoke_token("\ud800")


class Slow(MemoryShelf):
    """Looking takes until it is let go; how often it was done."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0
        self.begun, self.gate = threading.Event(), threading.Event()
        self.gate.set()

    def version(self) -> str:
        self.looks += 1
        self.begun.set()
        assert self.gate.wait(10)
        return super().version()


@pytest.mark.anyio
async def test_many_who_want_a_look_at_once_share_two() -> None:
    shelf = Slow()
    async with Registry(shelf) as registry, asyncio.TaskGroup() as tasks:
        await registry.poll()
        shelf.gate.clear()
        shelf.begun.clear()
        before = shelf.looks
        tasks.create_task(registry.poll())
        await asyncio.to_thread(shelf.begun.wait, 10)
        others = [tasks.create_task(registry.poll()) for _ in range(50)]
        await asyncio.sleep(0)

        shelf.gate.set()
        await asyncio.gather(*others)

        assert shelf.looks - before == 2


@pytest.mark.anyio
async def test_a_look_that_was_given_up_is_nobody_elses() -> None:
    shelf = Slow()
    async with Registry(shelf) as registry, asyncio.TaskGroup() as tasks:
        await registry.poll()
        shelf.gate.clear()
        shelf.begun.clear()
        first = tasks.create_task(registry.poll())
        await asyncio.to_thread(shelf.begun.wait, 10)
        second, third = (tasks.create_task(registry.poll()) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        await asyncio.sleep(0)
        before = shelf.looks

        second.cancel()
        shelf.gate.set()
        await third

        assert shelf.looks > before


@pytest.mark.anyio
async def test_many_who_cannot_look_hear_of_it_at_once() -> None:
    class Away(MemoryShelf):
        looks, is_away = 0, False

        def version(self) -> str:
            if self.is_away:
                self.looks += 1
                raise StoreUnavailable("away")
            return super().version()

    shelf = Away()
    async with Registry(shelf) as registry:
        shelf.is_away = True
        found = await asyncio.gather(
            *(registry.poll() for _ in range(20)), return_exceptions=True
        )

    assert {type(each) for each in found} == {StoreUnavailable}
    assert shelf.looks <= 2
