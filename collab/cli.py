"""The command line: serve, and look into or change a data directory."""

from __future__ import annotations

import asyncio
import sys
import typing
from enum import StrEnum
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any, NoReturn

import orjson
import typer
from pydantic.fields import FieldInfo

import collab
from collab import logs, settings
from collab.errors import CollabError, ConfigurationError, RoomNotFound
from collab.names import room_name

EXIT_FAILED, EXIT_CONFIGURATION = 1, 2

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="A real-time collaboration server for people and agents.",
)

Data = Annotated[Path, typer.Option(help="Directory of the SQLite store.")]


def _version(shown: bool) -> None:
    if shown:
        typer.echo(f"collab {collab.__version__}")
        raise typer.Exit


@app.callback()
def main_options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_version,
            is_eager=True,
            help="Say which version this is.",
        ),
    ] = False,
) -> None:
    pass


def serve(config: Path | None, **flags: Any) -> None:
    """Serve rooms until Ctrl-C or SIGTERM. Every setting is a flag, a variable COLLAB_… and a key of the TOML file."""
    from collab.server.app import run  # heavy: other commands do without

    chosen = settings.load(
        {name: value for name, value in flags.items() if value not in (None, ())},
        config,
    )
    logs.configure(log_format=chosen.log_format, level=chosen.log_level)
    if not chosen.is_loopback:
        logs.logger(__name__).warning(
            "served beyond this machine without access control", host=chosen.host
        )
    run(chosen)


def _flag(name: str, field: FieldInfo) -> Parameter:
    """A setting as a flag whose default is "not given", so that environment and file keep their say."""
    kind: Any = field.annotation
    default: Any = None
    if typing.get_origin(kind) is tuple:
        kind, default = list[str], ()
    else:
        kind = kind | None
    flag = "--" + name.replace("_", "-")
    names = f"{flag}/--no-{flag[2:]}" if field.annotation is bool else flag
    shown = f" [default: {field.default}]" if field.default not in ((), False) else ""
    return Parameter(
        name,
        Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[
            kind, typer.Option(names, help=f"{field.description}{shown}")
        ],
    )


def _register_serve() -> None:
    config = Parameter(
        "config",
        Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[Path | None, typer.Option(help="Settings as TOML.")],
    )
    flags = [
        _flag(name, field) for name, field in settings.Settings.model_fields.items()
    ]
    # typer reads the flags from here; a function's type does not tell that it has this attribute.
    serve.__signature__ = Signature([config, *flags])  # type: ignore[attr-defined]
    serve.__annotations__ = {each.name: each.annotation for each in (config, *flags)}
    app.command()(serve)


_register_serve()


class Format(StrEnum):
    """What an export looks like."""

    UPDATE = "update"
    TEXT = "text"
    JSON = "json"


@app.command("export")
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
    from collab.document.export import to_json, to_text

    update = asyncio.run(_snapshot(room_name(room), data))
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

    _exists(data)
    async with SqliteStore(data, is_read_only=True) as store:
        stored = await store.load(room)
    if not stored.position:
        raise RoomNotFound(f"there is no room {room} in {data}")
    snapshot = stored.checkpoint.snapshot if stored.checkpoint else None
    return Document.load(snapshot, [update for _, update in stored.tail]).snapshot()


def _exists(data: Path) -> None:
    if not data.is_dir():
        raise ConfigurationError(
            f"there is no data directory {data}; name it with --data"
        )


@app.command("import")
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
    from collab.document.export import from_text

    if not file.is_file():
        raise ConfigurationError(f"there is no file {file}")
    content = file.read_bytes()
    if text:
        try:
            content = from_text(content.decode(), text)
        except UnicodeDecodeError:
            raise ConfigurationError(f"{file} is not UTF-8 text") from None
    position = asyncio.run(_merge(room_name(room), content, data, is_new=bool(text)))
    typer.echo(
        f"{room}: logged at position {position}" if position else f"{room}: nothing new"
    )


async def _merge(room: str, update: bytes, data: Path, *, is_new: bool) -> int:
    """Through the same room code as every other edit. Returns the position, 0 when the update brought nothing."""
    from collab.metrics import Metrics
    from collab.replica import Replica
    from collab.room import Member
    from collab.store.base import Author
    from collab.store.sqlite import SqliteStore

    async with Replica(
        SqliteStore(data), Metrics(), max_update_bytes=1 << 30
    ) as replica:
        opened = await replica.open(room)
        if is_new and opened.position:
            raise ConfigurationError(
                f"room {room} exists: a document is never made again from text, since old clients would double it"
            )
        member = Member(
            lambda frame: None,
            _Nobody(),
            Author("operator", "import"),
            owner="operator",
        )
        replica.join(opened, member)
        is_changed = opened.update(member, update, precise=True)
        replica.leave(opened, member)
        if not await replica.settle():
            raise CollabError(
                "the update could not be saved: the disk is full or failing"
            )
        return opened.position if is_changed else 0


class _Nobody:
    """The line of a member without a socket."""

    def is_alive(self) -> bool:
        return True

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def close(self, error: CollabError) -> None: ...

    def notify(self, kind: str, retry_after_milliseconds: int = 0) -> None: ...


@app.command()
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
    _exists(data)
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


def main() -> None:
    """The entry point: an expected error is one sentence and an exit code, never a traceback."""
    try:
        app()
    except CollabError as error:
        _fail(error)
    except ExceptionGroup as group:
        expected, others = group.split(CollabError)
        if others is not None or expected is None:
            raise
        first: Exception = expected.exceptions[0]
        while isinstance(first, ExceptionGroup):
            first = first.exceptions[0]
        _fail(first)


def _fail(error: Exception) -> NoReturn:
    typer.echo(f"collab: {error}", err=True)
    raise SystemExit(
        EXIT_CONFIGURATION if isinstance(error, ConfigurationError) else EXIT_FAILED
    ) from None
