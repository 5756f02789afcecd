"""What commands share: how they are registered, options that mean the same everywhere, how results are shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import orjson
import typer

from collab.errors import ConfigurationError

EXIT_FAILED, EXIT_CONFIGURATION, EXIT_FOUND = 1, 2, 3

Data = Annotated[Path, typer.Option(help="Directory of the SQLite store.")]
Tenant = Annotated[str, typer.Option(help="The tenant of the room.")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="A real-time collaboration server for people and agents.",
)

F = TypeVar("F", bound=Callable[..., Any])


def command(name: str) -> Callable[[F], F]:
    """Register a command of `collab`."""
    return app.command(name)


def group(name: str, help: str) -> typer.Typer:
    """A command with commands of its own, such as `collab key create`."""
    inner = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=help)
    app.add_typer(inner, name=name)
    return inner


def existing(data: Path) -> Path:
    """The data directory, or ConfigurationError."""
    if not data.is_dir():
        raise ConfigurationError(
            f"there is no data directory {data}; name it with --data"
        )
    return data


def show_json(found: Any) -> None:
    """One JSON document on standard output."""
    typer.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
