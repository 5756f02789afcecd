"""What a data directory holds: `export`, `import`, `inspect`."""

from __future__ import annotations

import asyncio
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from collab.commands.base import Data, command, existing
from collab.errors import CollabError, ConfigurationError, RoomNotFound
from collab.names import room_name


class Format(StrEnum):
    """What an export looks like."""

    UPDATE = "update"
    TEXT = "text"
    JSON = "json"


@command("export")
def export_room(
    room: str,
    format: Annotated[
        Format,
        typer.Option(
            help="update: Yjs bytes; text: one root as text; json: all roots."
        ),
    ] = Format.TEXT,
    root: Annotated[
        str,
        typer.Option(
            help="Which root to write as text; the only one, when it is not said."
        ),
    ] = "",
    output: Annotated[
        Path | None, typer.Option(help="File to write to; standard output otherwise.")
    ] = None,
    data: Data = Path("data"),
) -> None:
    """Write what a room holds. Works beside a running server."""
    from collab.audit.chain import note
    from collab.document.export import to_json, to_text

    update = asyncio.run(_snapshot(room_name(room), data))
    note(data, "room.export", room=room, format=format.value)
    if format is Format.UPDATE:
        content = update
    elif format is Format.JSON:
        content = (
            orjson.dumps(
                to_json(update), option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS
            )
            + b"\n"
        )
    else:
        content = to_text(update, root).encode()
    if output is None:
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
    else:
        output.write_bytes(content)


async def _snapshot(room: str, data: Path) -> bytes:
    from collab.document.document import Document
    from collab.store.sqlite import SqliteStore

    existing(data)
    async with SqliteStore(data, is_read_only=True) as store:
        stored = await store.load(room)
    if not stored.position:
        raise RoomNotFound(f"there is no room {room} in {data}")
    snapshot = stored.checkpoint.snapshot if stored.checkpoint else None
    return Document.load(snapshot, [update for _, update in stored.tail]).snapshot()


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
    data: Data = Path("data"),
) -> None:
    """Merge a Yjs update into a room, or begin a room with a text. The server must not be running."""
    from collab.audit.chain import note
    from collab.document.export import from_text

    if not file.is_file():
        raise ConfigurationError(f"there is no file {file}")
    content = file.read_bytes()
    if text:
        try:
            content = from_text(content.decode(), text)
        except UnicodeDecodeError:
            raise ConfigurationError(f"{file} is not UTF-8 text") from None
    if data.is_dir():
        note(data, "room.import", room=room, bytes=len(content))
    position = asyncio.run(_merge(room_name(room), content, data, is_new=bool(text)))
    typer.echo(
        f"{room}: logged at position {position}" if position else f"{room}: nothing new"
    )


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
                f"room {room} exists: a document is never made again from text, since old clients would double it"
            )
        member = Visitor(Principal("operator"), EVERYTHING, connection="import")
        replica.join(opened, member)
        is_changed = opened.update(member, update, precise=True)
        replica.leave(opened, member)
        if not await replica.settle():
            raise CollabError(
                "the update could not be saved: the disk is full or failing"
            )
        return opened.position if is_changed else 0


@command("inspect")
def inspect(
    room: Annotated[
        str, typer.Argument(help="One room in detail; all rooms when it is not said.")
    ] = "",
    json: Annotated[
        bool, typer.Option("--json", help="As JSON, for programs.")
    ] = False,
    data: Data = Path("data"),
) -> None:
    """Say what a data directory holds. Works beside a running server."""
    existing(data)
    if room:
        _show_room(asyncio.run(_inspect_room(room_name(room), data)), json=json)
    else:
        _show_rooms(asyncio.run(_inspect(data)), json=json)


def _show_room(found: dict[str, Any], *, json: bool) -> None:
    if json:
        typer.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
        return
    for key, value in found.items():
        typer.echo(f"{key.replace('_', ' '):22} {value}")


def _show_rooms(found: list[dict[str, Any]], *, json: bool) -> None:
    if json:
        typer.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
        return
    typer.echo(f"{'room':32} {'updates':>9} {'checkpoint':>11} {'bytes':>11}")
    for each in found:
        typer.echo(
            f"{each['room']:32} {each['position']:>9} {each['checkpoint_position']:>11} {each['bytes']:>11}"
        )
    typer.echo(f"{len(found)} rooms")


async def _inspect(data: Path) -> list[dict[str, Any]]:
    from collab.store.sqlite import SqliteStore

    rooms: list[dict[str, Any]] = []
    async with SqliteStore(data, is_read_only=True) as store:
        while page := await store.rooms(
            after=rooms[-1]["room"] if rooms else "", limit=1000
        ):
            rooms += [
                {
                    "room": info.name,
                    **{k: v for k, v in info._asdict().items() if k != "name"},
                }
                for info in page
            ]
    return rooms


async def _inspect_room(room: str, data: Path) -> dict[str, Any]:
    from collab.document.document import Document
    from collab.document.export import roots
    from collab.store.sqlite import SqliteStore

    async with SqliteStore(data, is_read_only=True) as store:
        stored = await store.load(room)
    if not stored.position:
        raise RoomNotFound(f"there is no room {room} in {data}")
    checkpoint = stored.checkpoint
    document = Document.load(
        checkpoint.snapshot if checkpoint else None,
        [update for _, update in stored.tail],
    )
    snapshot = document.snapshot()
    return {
        "room": room,
        "epoch": stored.epoch,
        "position": stored.position,
        "checkpoint_position": checkpoint.position if checkpoint else 0,
        "tail_updates": len(stored.tail),
        "document_bytes": len(snapshot),
        "clients": len(document.gate.known),
        "stashed_updates": len(document.gate),
        "roots": roots(snapshot),
    }
