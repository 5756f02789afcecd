"""What a data directory holds: `export`, `import`, `inspect`."""

from __future__ import annotations

import asyncio
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from collab.commands.base import AsJson, Data, Tenant, command, existing, show_json
from collab.commands.flags import located
from collab.errors import (
    CollabError,
    ConfigurationError,
    Refused,
    RoomNotFound,
    StoreCorrupt,
)
from collab.names import SEPARATOR, room_key, room_name, split_key, spoken
from collab.settings import Settings

if TYPE_CHECKING:
    from collab.store.base import Store


class Format(StrEnum):
    """What an export looks like."""

    UPDATE = "update"
    TEXT = "text"
    MARKDOWN = "markdown"
    JSON = "json"


@command("export")
@located
def export_room(
    room: str,
    format: Annotated[
        Format,
        typer.Option(
            help="update: Yjs bytes; text or markdown: one root; json: all roots."
        ),
    ] = Format.TEXT,
    root: Annotated[
        str,
        typer.Option(
            help="Which root to write as text; the only one, when it is not said."
        ),
    ] = "",
    at: Annotated[
        int,
        typer.Option(
            min=0,
            help="As it was at this position of its log; as it is, when it is not said.",
        ),
    ] = 0,
    output: Annotated[
        Path | None, typer.Option(help="File to write to; standard output otherwise.")
    ] = None,
    tenant: Tenant = "",
    *,
    where: Settings,
) -> None:
    """Write what a room holds. Works beside a running server."""
    from collab.audit.chain import note
    from collab.document.export import to_json, to_markdown, to_text

    update = asyncio.run(_snapshot(room_key(tenant, room), where, at))
    note(where.data, "room.export", room=room, tenant=tenant, format=format.value)
    match format:
        case Format.UPDATE:
            content = update
        case Format.JSON:
            options = orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS
            content = orjson.dumps(to_json(update), option=options) + b"\n"
        case Format.MARKDOWN:
            content = to_markdown(update, root).encode()
        case Format.TEXT:
            content = to_text(update, root).encode()
    if output is None:
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
        return
    try:
        output.write_bytes(content)
    except OSError as error:
        raise CollabError(f"cannot write {output}: {error.strerror}") from None


def _store(where: Settings) -> Store:
    """To look into, beside those who have it open."""
    match where.store_kind:
        case "memory":
            raise ConfigurationError("store memory is the server's own: ask it at /v1")
        case "sqlite":
            from collab.store.sqlite import SqliteStore

            return SqliteStore(existing(where.data), is_read_only=True)
        case _:
            from collab.server.app import make_store

            return make_store(where)


def _not_there(room: str, where: Settings) -> RoomNotFound:
    place = str(where.data) if where.store_kind == "sqlite" else where.store_kind
    return RoomNotFound(f"there is no room {spoken(room)} in {place}")


async def _snapshot(room: str, where: Settings, at: int) -> bytes:
    from collab.document.document import Document

    async with _store(where) as store:
        stored = await store.load(room)
    if not stored.epoch:
        raise _not_there(room, where)
    if at and where.store_kind != "sqlite":
        raise ConfigurationError("only a data directory is asked how a room was")
    if at:
        return _snapshot_at(room, where.data, at)
    snapshot = stored.checkpoint.snapshot if stored.checkpoint else None
    return Document.load(snapshot, [update for _, update in stored.tail]).snapshot()


def _snapshot_at(room: str, data: Path, at: int) -> bytes:
    from contextlib import closing

    from collab.document.document import Document
    from collab.store.checks import look, room_records
    from collab.store.schema import connect

    with closing(connect(data / "collab.db", is_read_only=True)) as db:
        db.execute("BEGIN")
        (record,) = (
            each
            for each in room_records(db)
            if each.name == room and each.deleted is None
        )
        seen = look(db, record)
    if at > seen.last:
        raise ConfigurationError(f"the log ends at position {seen.last}")
    base = next((each for each in seen.checkpoints if each.position <= at), None)
    start = base.position if base else 0
    if any(position <= at and last > start for position, last in seen.gaps):
        raise StoreCorrupt(
            "the log no longer reaches back so far: it is kept as long as the room's retention says"
        )
    rows = [update for position, update in seen.after(start) if position <= at]
    return Document.load(base.snapshot if base else None, rows).snapshot()


@command("import")
def import_room(
    room: str,
    file: Annotated[
        Path, typer.Argument(help="A Yjs update, or with --text a text file.")
    ],
    text: Annotated[
        str,
        typer.Option(help="Take the file as plain text into this root of a new room."),
    ] = "",
    tenant: Tenant = "",
    json: AsJson = False,
    data: Data = Path("data"),
) -> None:
    """Merge a Yjs update into a room, or begin a room with a text. The server must not be running."""
    from collab.audit.chain import note
    from collab.document.export import from_text

    try:
        content = file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}") from None
    if text:
        try:
            content = from_text(content.decode(), text)
        except UnicodeDecodeError:
            raise ConfigurationError(f"{file} is not UTF-8 text") from None
    if data.is_dir():
        note(data, "room.import", room=room, tenant=tenant, bytes=len(content))
    key = room_key(tenant, room)
    position = asyncio.run(_merge(key, content, data, is_new=bool(text)))
    if json:
        show_json(
            {
                "room": room,
                "tenant": tenant,
                "position": position or None,
                "is_changed": bool(position),
            }
        )
    else:
        said = f"logged at position {position}" if position else "nothing new"
        typer.echo(f"{spoken(key)}: {said}")


async def _merge(room: str, update: bytes, data: Path, *, is_new: bool) -> int:
    """Through the same room code as every other edit. Returns the position, 0 when the update brought nothing."""
    from collab.auth.permissions import EVERYTHING, Principal
    from collab.metrics import Metrics
    from collab.replica import Replica
    from collab.room import Visitor
    from collab.store.sqlite import SqliteStore

    async with Replica(
        SqliteStore(data), Metrics(), max_update_bytes=1 << 30
    ) as replica:
        opened = await replica.open(room)
        if is_new and opened.position:
            raise ConfigurationError(
                f"room {spoken(room)} exists: a document is never made again from text, since old clients would double it"
            )
        member = Visitor(Principal("operator"), EVERYTHING, connection="import")
        replica.join(opened, member)
        try:
            is_changed = opened.update(member, update, precise=True)
        except Refused as error:
            raise CollabError(
                f"this is no Yjs update that can be taken ({error.rule}); say --text ROOT for plain text"
            ) from None
        replica.leave(opened, member)
        if not await replica.settle():
            raise CollabError(
                "the update could not be saved: the disk is full or failing"
            )
        return opened.position if is_changed else 0


@command("inspect")
@located
def inspect(
    room: Annotated[
        str, typer.Argument(help="One room in detail; all rooms when it is not said.")
    ] = "",
    tenant: Annotated[
        str,
        typer.Option(
            help="The tenant of the room; without ROOM, all rooms of the tenant."
        ),
    ] = "",
    deleted: Annotated[
        bool, typer.Option("--deleted", help="The deleted rooms that can be restored.")
    ] = False,
    json: AsJson = False,
    *,
    where: Settings,
) -> None:
    """Say which rooms there are, or what one of them holds. Works beside a running server."""
    if room:
        _show_room(asyncio.run(_inspect_room(room_key(tenant, room), where)), json=json)
    else:
        prefix = f"{room_name(tenant)}{SEPARATOR}" if tenant else ""
        found = asyncio.run(_inspect(where, prefix, is_deleted=deleted))
        _show_rooms(found, json=json)


def _show_room(found: dict[str, Any], *, json: bool) -> None:
    if json:
        show_json(found)
        return
    for key, value in found.items():
        if value not in ("", None):
            typer.echo(f"{key.replace('_', ' '):22} {value}")


def _show_rooms(found: list[dict[str, Any]], *, json: bool) -> None:
    if json:
        show_json(found)
        return
    typer.echo(f"{'room':32} {'updates':>9} {'checkpoint':>11} {'bytes':>11}")
    for each in found:
        typer.echo(
            f"{spoken(each['tenant'] + SEPARATOR + each['room']):32} {each['position']:>9}"
            f" {each['checkpoint_position']:>11} {each['bytes']:>11}"
        )
    typer.echo(f"{len(found)} rooms")


async def _inspect(
    where: Settings, prefix: str, *, is_deleted: bool
) -> list[dict[str, Any]]:
    rooms: list[dict[str, Any]] = []
    after = ""
    async with _store(where) as store:
        while page := await store.rooms(
            prefix=prefix, after=after, limit=1000, deleted=is_deleted
        ):
            rooms += [{**_named(info.name), **info._asdict()} for info in page]
            after = page[-1].name
    for room in rooms:
        del room["name"]
    return rooms


def _named(key: str) -> dict[str, str]:
    tenant, name = split_key(key)
    return {"room": name, "tenant": tenant}


async def _inspect_room(room: str, where: Settings) -> dict[str, Any]:
    from collab.document.document import Document
    from collab.document.export import roots

    async with _store(where) as store:
        stored = await store.load(room)
        info = await store.info(room)
    if not stored.epoch or info is None:
        raise _not_there(room, where)
    checkpoint = stored.checkpoint
    document = Document.load(
        checkpoint.snapshot if checkpoint else None,
        [update for _, update in stored.tail],
    )
    snapshot = document.snapshot()
    return {
        **_named(room),
        "epoch": stored.epoch,
        "position": stored.position,
        "checkpoint_position": checkpoint.position if checkpoint else 0,
        "tail_updates": len(stored.tail),
        "document_bytes": len(snapshot),
        "clients": len(document.gate.known),
        "stashed_updates": len(document.gate),
        "roots": roots(snapshot),
        "metadata": info.metadata,
        "history_seconds": info.history_seconds,
    }
