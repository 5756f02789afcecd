"""What keeps a data directory sound: `verify`, `repair`, `compact`, `backup`, `restore`."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from collab.store.aside import set_aside
from collab.store.backup import Restoring, check_target, copied, put_in_place
from collab.store.base import wall_clock
from collab.store.checks import (
    Look,
    RoomRecord,
    common_faults,
    expect_damage,
    file_faults,
    look,
    room_record,
    room_records,
)
from collab.store.directory import Directory
from collab.store.reading import translate
from collab.store.salvage import salvage
from collab.store.schema import check_current, connect, migrate

if TYPE_CHECKING:
    from collab.commands.checking import Finding

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
) -> tuple[list[Finding], dict[str, int]]:
    path = data / "collab.db"
    if not path.exists():
        raise ConfigurationError(f"there is no store in {data}; name it with --data")
    return await _examine(path, selection, data, progress)


async def _examine(
    path: Path, selection: Selection, data: Path, progress: Progress
) -> tuple[list[Finding], dict[str, int]]:
    from collab.commands.checking import (
        findings,
        make_child,
        replay,
    )

    found: list[Finding] = []
    counts = {"rooms": 0, "updates": 0, "checkpoints": 0}
    with _reading(path) as db:
        if selection.is_all:
            found += _survey(db)
        try:
            records = [each for each in room_records(db) if selection.has(each.name)]
        except sqlite3.DatabaseError as error:
            return [*found, *_of_file([str(error)])], counts
        selection.must_have([each.name for each in records], data)
        async with make_child() as child:
            for number, record in enumerate(records):
                progress.show(number, "rooms", total=len(records))
                counts["rooms"] += 1
                seen = _seen(db, record, found)
                if seen is None:
                    continue
                found += findings(seen, await replay(seen, child))
                counts["updates"] += len(seen.rows)
                counts["checkpoints"] += len(seen.checkpoints)
    progress.end()
    return found, counts


def _survey(db: sqlite3.Connection) -> list[Finding]:
    """What is wrong beyond single rooms."""
    from collab.commands.checking import of_common

    torn = file_faults(db)
    return _of_file(torn) if torn else of_common(common_faults(db))


def _seen(
    db: sqlite3.Connection, record: RoomRecord, found: list[Finding]
) -> Look | None:
    """A look at a room; None when it is gone by now, or its pages cannot be read, which is added to `found`."""
    try:
        with _snapshot(db):
            now = room_record(db, record.id)
            return None if now is None else look(db, now)
    except sqlite3.DatabaseError as error:
        found += _of_file([str(error)], record.name)
        return None


def _of_file(faults: list[str], room: str = "") -> list[Finding]:
    from collab.commands.checking import Finding

    consequence = "a repair writes the file anew of what can still be read"
    return [Finding(room, "file", fault, consequence) for fault in faults]


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """The data file, beside whoever writes to it."""
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
def _locked(data: Path) -> Iterator[Directory]:
    """The data directory, which nobody else has open. StoreLocked while a server runs."""
    directory = Directory(existing(data), reserve_bytes=0)
    directory.lock()
    try:
        if not directory.database.exists():
            raise ConfigurationError(
                f"there is no store in {data}; name it with --data"
            )
        yield directory
    except sqlite3.Error as error:
        raise translate(error, f"{directory.database} cannot be changed") from None
    finally:
        directory.unlock()


@contextmanager
def _opened(directory: Directory) -> Iterator[sqlite3.Connection]:
    with closing(connect(directory.database)) as db:
        migrate(db, directory.database)
        expect_damage(db)
        yield db


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
) -> list[Finding]:
    """Each room in a transaction of its own, so that one that ends early has repaired the rooms before."""
    from collab.commands.checking import make_child, mend, of_common

    done: list[Finding] = []
    end = "ROLLBACK" if is_dry_run else "COMMIT"
    now = wall_clock()
    with _locked(data) as directory, ExitStack() as stack:
        torn = _torn(directory)
        if torn:
            done += _of_file(torn)
            if is_dry_run:
                return done  # what can still be read is known only when it was
            kept = _write_anew(directory)
            done = [
                each._replace(
                    consequence=f"the file is written anew; the old one is kept in {kept}"
                )
                for each in done
            ]
        db = stack.enter_context(_opened(directory))
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


def _torn(directory: Directory) -> list[str]:
    with closing(connect(directory.database, is_read_only=True)) as db:
        return file_faults(db)


def _write_anew(directory: Directory) -> Path | None:
    staged = directory.stage()
    salvage(directory.database, staged / "collab.db")
    return put_in_place(directory, staged, kept=f"damaged-{wall_clock()}")


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
    from collab.compaction import ChildDied, make_attribution, make_checkpoint
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
                while made is not None:
                    counts["checkpoints"] += 1
                    stored, made = await make_checkpoint(store, key, child)
                counts["skipped"] += bool(stored.tail)
                until = stored.checkpoint.position if stored.checkpoint else 0
                while await make_attribution(
                    store, key, child, fence=stored.fence, until=until
                ):
                    pass
            except (CollabError, ChildDied):
                counts["skipped"] += 1  # `verify` says why
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
    with _locked(data) as directory, _opened(directory) as db:
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


def _backup(data: Path, file: Path, progress: Progress) -> tuple[list[Finding], int]:
    from collab.commands.checking import Replay, findings

    if not file.parent.is_dir():
        raise ConfigurationError(f"there is no directory {file.parent}")
    found: list[Finding] = []
    with _readable(data), copied(data, file, progress.of("pages")) as copy:
        expect_damage(copy)
        found += _survey(copy)
        records = list(room_records(copy))
        for number, record in enumerate(records):
            progress.show(number, "rooms checked", total=len(records))
            seen = _seen(copy, record, found)
            found += findings(seen, Replay()) if seen else []
    progress.end()
    return found, len(records)


@contextmanager
def _readable(data: Path) -> Iterator[None]:
    """What goes wrong while a data file is read, as one of our errors."""
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
    check_target(data, replace=replace)
    if data.is_dir():
        _audit(data, "restore", file=str(file))
    found, rooms, kept = asyncio.run(
        _restore(file, data, Progress(progress), is_replacing=replace)
    )
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
) -> tuple[list[Finding], int, Path | None]:
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
