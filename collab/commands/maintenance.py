"""What keeps a data directory sound: `verify`, `repair`, `compact`, `backup`, `restore`."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from collab.commands.base import EXIT_FOUND, AsJson, Data, command, existing, show_json
from collab.commands.progress import Progress, Shown
from collab.errors import (
    CollabError,
    ConfigurationError,
    RoomNotFound,
    StoreUnavailable,
)
from collab.names import SEPARATOR, room_key, room_name

Room = Annotated[str, typer.Argument(help="One room; all rooms when it is not said.")]
Tenant = Annotated[
    str,
    typer.Option(help="The tenant of the room; without ROOM, all rooms of the tenant."),
]


def _audit(
    data: Path, event: str, room: str = "", tenant: str = "", **details: Any
) -> None:
    from collab.audit.chain import note

    note(data, event, room=room, tenant=tenant, **details)


class Selection:
    """The rooms that a command is about."""

    def __init__(self, room: str, tenant: str) -> None:
        self.room = room_key(tenant, room) if room else ""
        self.prefix = f"{room_name(tenant)}{SEPARATOR}" if tenant else ""
        self.is_all = not room and not tenant

    def has(self, key: str) -> bool:
        return key == self.room if self.room else key.startswith(self.prefix)

    def must_have(self, keys: list[str], data: Path) -> None:
        if self.room and self.room not in keys:
            raise RoomNotFound(
                f"there is no such room in {data}; `collab inspect` lists them"
            )


@command("verify")
def verify(
    room: Room = "",
    tenant: Tenant = "",
    json: AsJson = False,
    progress: Shown = None,
    data: Data = Path("data"),
) -> None:
    """Check every record, and every checkpoint against its log. Works beside a running server.

    Ends with 3 when something is wrong.
    """
    found, counts = asyncio.run(
        _verify(existing(data), Selection(room, tenant), Progress(progress))
    )
    if json:
        show_json({**counts, "findings": [each.as_json() for each in found]})
    else:
        for each in found:
            typer.echo(each.as_text())
        sizes = ", ".join(f"{count} {what}" for what, count in counts.items())
        typer.echo(f"{sizes}: {f'{len(found)} faults' if found else 'all sound'}")
    if found:
        typer.echo(
            "stop the server and run `collab repair --dry-run` to see what can be done",
            err=True,
        )
        raise typer.Exit(EXIT_FOUND)


async def _verify(
    data: Path, selection: Selection, progress: Progress
) -> tuple[list[Any], dict[str, int]]:
    path = data / "collab.db"
    if not path.exists():
        raise ConfigurationError(f"there is no store in {data}; name it with --data")
    return await _examine(path, selection, data, progress)


async def _examine(
    path: Path, selection: Selection, data: Path, progress: Progress
) -> tuple[list[Any], dict[str, int]]:
    from collab.commands.checking import (
        Finding,
        findings,
        make_child,
        of_common,
        replay,
    )
    from collab.store.checks import common_faults, file_faults, look, room_records

    found: list[Finding] = []
    counts = {"rooms": 0, "updates": 0, "checkpoints": 0}
    with _reading(path) as db:
        if selection.is_all:
            found += _of_file(file_faults(db))
            found += of_common(common_faults(db))
        records = [each for each in room_records(db) if selection.has(each.name)]
        selection.must_have([each.name for each in records], data)
        async with make_child() as child:
            for number, record in enumerate(records):
                progress.show(number, "rooms", total=len(records))
                with _snapshot(db):
                    seen = look(db, record)
                found += findings(seen, await replay(seen, child))
                counts["rooms"] += 1
                counts["updates"] += len(seen.rows)
                counts["checkpoints"] += len(seen.checkpoints)
    progress.end()
    return found, counts


def _of_file(faults: list[str]) -> list[Any]:
    from collab.commands.checking import Finding

    consequence = "restore a backup, or export what can still be read"
    return [Finding("", "file", fault, consequence) for fault in faults]


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """The data file, beside whoever writes to it."""
    from collab.store.checks import expect_damage
    from collab.store.reading import translate
    from collab.store.schema import check_current, connect

    try:
        db = connect(path, is_read_only=True)
        try:
            check_current(db, path)
            expect_damage(db)
            yield db
        finally:
            db.close()
    except sqlite3.Error as error:
        raise translate(error, f"{path} cannot be read") from None


@contextmanager
def _snapshot(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN")
    try:
        yield
    finally:
        db.execute("ROLLBACK")


@contextmanager
def _alone(data: Path) -> Iterator[sqlite3.Connection]:
    """The data file, which nobody else has open. StoreLocked while a server runs."""
    from collab.store.checks import expect_damage
    from collab.store.directory import Directory
    from collab.store.reading import translate
    from collab.store.schema import connect, migrate

    directory = Directory(existing(data), reserve_bytes=0)
    if not directory.database.exists():
        raise ConfigurationError(f"there is no store in {data}; name it with --data")
    directory.lock()
    try:
        db = connect(directory.database)
        try:
            migrate(db, directory.database)
            expect_damage(db)
            yield db
        finally:
            db.close()
    except sqlite3.Error as error:
        raise translate(error, f"{directory.database} cannot be changed") from None
    finally:
        directory.unlock()


@command("repair")
def repair(
    room: Room = "",
    tenant: Tenant = "",
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what would be done, and change nothing."),
    ] = False,
    json: AsJson = False,
    progress: Shown = None,
    data: Data = Path("data"),
) -> None:
    """Set damaged records aside so that every room can be opened, and say what was lost. The server must not be running.

    Nothing is dropped: the table `aside` of the data file keeps what was taken out. Ends with 3 when there was
    something to do.
    """
    if not dry_run:
        _audit(existing(data), "room.repair", room, tenant)
    done = asyncio.run(
        _repair(data, Selection(room, tenant), Progress(progress), is_dry_run=dry_run)
    )
    if json:
        show_json({"is_dry_run": dry_run, "done": [each.as_json() for each in done]})
    else:
        for each in done:
            typer.echo(each.as_text())
        would = "to be done" if dry_run else "done"
        typer.echo(f"{len(done)} things {would}" if done else "all sound")
    if done:
        raise typer.Exit(EXIT_FOUND)


async def _repair(
    data: Path, selection: Selection, progress: Progress, *, is_dry_run: bool
) -> list[Any]:
    """Each room in a transaction of its own, so that one that ends early has repaired the rooms before."""
    from collab.commands.checking import Finding, make_child, mend, of_common
    from collab.store.base import wall_clock
    from collab.store.checks import common_faults, file_faults, room_records, set_aside

    done: list[Finding] = []
    end = "ROLLBACK" if is_dry_run else "COMMIT"
    now = wall_clock()
    with _alone(data) as db:
        torn = file_faults(db)
        if torn:
            raise CollabError(
                f"the pages of the data file are damaged ({torn[0]}): restore a backup, or export what can be read"
            )
        if selection.is_all:
            db.execute("BEGIN IMMEDIATE")
            for fault in common_faults(db):
                set_aside(db, 0, fault, now)
                done += [
                    each._replace(consequence="set aside")
                    for each in of_common([fault])
                ]
            db.execute(end)
        records = [each for each in room_records(db) if selection.has(each.name)]
        selection.must_have([each.name for each in records], data)
        async with make_child() as child:
            for number, record in enumerate(records):
                progress.show(number, "rooms", total=len(records))
                db.execute("BEGIN IMMEDIATE")
                done += await mend(db, record, child, now)
                db.execute(end)
    progress.end()
    return done


@command("compact")
def compact(
    room: Room = "",
    tenant: Tenant = "",
    json: AsJson = False,
    progress: Shown = None,
    data: Data = Path("data"),
) -> None:
    """Make checkpoints now, remove what its time has come for, and give free space back. The server must not be running."""
    existing(data)
    selection, before = Selection(room, tenant), _bytes(data)
    _audit(data, "room.compact", room, tenant)
    counts = asyncio.run(_compact(data, selection, Progress(progress)))
    counts["is_vacuumed"] = _vacuum(data)
    counts |= {"bytes_before": before, "bytes_after": _bytes(data)}
    if json:
        show_json(counts)
        return
    typer.echo(
        f"{counts['rooms']} rooms, {counts['checkpoints']} new checkpoints, {counts['skipped']} not ready;"
        f" {before} bytes before, {counts['bytes_after']} after"
    )
    if not counts["is_vacuumed"]:
        typer.echo(
            "free space stays in the file: giving it back needs twice its size on the disk",
            err=True,
        )


async def _compact(
    data: Path, selection: Selection, progress: Progress
) -> dict[str, Any]:
    from collab.commands.checking import make_child
    from collab.compaction import ChildDied, make_checkpoint
    from collab.store.sqlite import SqliteStore

    counts = {"rooms": 0, "checkpoints": 0, "skipped": 0}
    if not (data / "collab.db").exists():
        raise ConfigurationError(f"there is no store in {data}; name it with --data")
    async with SqliteStore(data) as store, make_child() as child:
        keys: list[str] = []
        while page := await store.rooms(
            prefix=selection.prefix, after=keys[-1] if keys else "", limit=1000
        ):
            keys += [info.name for info in page]
        selection.must_have(keys, data)
        for key in filter(selection.has, keys):
            progress.show(counts["rooms"], "rooms", total=len(keys))
            counts["rooms"] += 1
            try:
                stored, made = await make_checkpoint(store, key, child)
            except (CollabError, ChildDied):
                counts["skipped"] += 1  # `verify` says why
                continue
            counts["checkpoints"] += made is not None
            counts["skipped"] += made is None and bool(stored.tail)
        await store.tidy()
    progress.end()
    return counts


def _bytes(data: Path) -> int:
    return sum(
        path.stat().st_size
        for path in (data / "collab.db", data / "collab.db-wal")
        if path.exists()
    )


def _vacuum(data: Path) -> bool:
    """Write the file anew without its free pages, in SQLite's own way, which survives a crash at any moment."""
    with _alone(data) as db:
        if shutil.disk_usage(data).free < 2 * _bytes(data) + (64 << 20):
            return False
        db.execute("VACUUM")
        (busy, _, _) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise StoreUnavailable(
                "another program reads the data file: try again later"
            )
    return True


@command("backup")
def backup(
    file: Annotated[
        Path, typer.Argument(help="Where to; an older backup there is replaced.")
    ],
    json: AsJson = False,
    progress: Shown = None,
    data: Data = Path("data"),
) -> None:
    """Copy rooms, keys and grants into one file, and check the copy. Works beside a running server.

    Ends with 3 when the copy was made but holds damaged records.
    """
    _audit(existing(data), "backup", file=str(file))
    found, rooms = _backup(data, file, Progress(progress))
    size = file.stat().st_size
    if json:
        findings = [each.as_json() for each in found]
        show_json({"rooms": rooms, "bytes": size, "findings": findings})
    else:
        for each in found:
            typer.echo(each.as_text())
        typer.echo(f"{file}: {rooms} rooms, {size} bytes")
    if found:
        raise typer.Exit(EXIT_FOUND)


def _backup(data: Path, file: Path, progress: Progress) -> tuple[list[Any], int]:
    from collab.commands.checking import Finding, Replay, findings, of_common
    from collab.store.backup import copied
    from collab.store.checks import (
        common_faults,
        expect_damage,
        file_faults,
        look,
        room_records,
    )

    if not file.parent.is_dir():
        raise ConfigurationError(f"there is no directory {file.parent}")
    found: list[Finding] = []
    with _readable(data), copied(data, file, progress.of("pages")) as copy:
        expect_damage(copy)
        found += _of_file(file_faults(copy))
        found += of_common(common_faults(copy))
        records = list(room_records(copy))
        for number, record in enumerate(records):
            progress.show(number, "rooms checked", total=len(records))
            found += findings(look(copy, record), Replay())
    progress.end()
    return found, len(records)


@contextmanager
def _readable(data: Path) -> Iterator[None]:
    """What goes wrong while a data file is read, as one of our errors."""
    from collab.store.reading import translate

    if not (data / "collab.db").exists():
        raise ConfigurationError(f"there is no store in {data}; name it with --data")
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, f"{data} cannot be copied") from None
    except OSError as error:
        raise StoreUnavailable(f"the copy cannot be written: {error}") from None


@command("restore")
def restore(
    file: Annotated[Path, typer.Argument(help="What `collab backup` wrote.")],
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Put it in place of what the directory holds, which is kept beside it.",
        ),
    ] = False,
    json: AsJson = False,
    progress: Shown = None,
    data: Data = Path("data"),
) -> None:
    """Put a backup into an empty or new directory. The server must not be running.

    Every room begins a new epoch, so that clients which know more than the backup can tell. Ends with 3 when rooms
    of the backup are damaged.
    """
    found, rooms, kept = asyncio.run(
        _restore(file, data, Progress(progress), is_replacing=replace)
    )
    _audit(data, "restore", file=str(file))
    if json:
        findings = [each.as_json() for each in found]
        kept_in = None if kept is None else str(kept)
        show_json({"rooms": rooms, "kept_in": kept_in, "findings": findings})
    else:
        for each in found:
            typer.echo(each.as_text())
        typer.echo(f"{data}: {rooms} rooms restored, each with a new epoch")
        if kept is not None:
            typer.echo(f"what was there before is kept in {kept}")
    if found:
        typer.echo("run `collab repair` before the server is started", err=True)
        raise typer.Exit(EXIT_FOUND)


async def _restore(
    file: Path, data: Path, progress: Progress, *, is_replacing: bool
) -> tuple[list[Any], int, Path | None]:
    from collab.store.backup import Restoring, check_target
    from collab.store.directory import Directory

    check_target(data, replace=is_replacing)
    directory = Directory(data, reserve_bytes=0)
    try:
        directory.lock()
        try:
            restoring = Restoring(file, directory, progress.of("bytes read"))
            try:
                found, _ = await _examine(
                    restoring.database, Selection("", ""), data, progress
                )
                kept = restoring.finish(keep=is_replacing)
            finally:
                restoring.discard()
        finally:
            directory.unlock()
    except OSError as error:
        raise StoreUnavailable(f"{data} cannot be written: {error}") from None
    progress.end()
    return found, restoring.rooms, kept
