"""The command line: serve, and look into or change a data directory."""

from __future__ import annotations

import socket
import sys
import typing
from collections.abc import Callable
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic.fields import FieldInfo

import collab
from collab import logs, settings
from collab.commands import (
    auditing,
    configuration,
    contents,
    keys,
    maintenance,
    tokens,
)  # registers their commands
from collab.commands.base import EXIT_CONFIGURATION, EXIT_FAILED, AsJson, app
from collab.errors import CollabError, ConfigurationError

__all__ = [
    "auditing",
    "configuration",
    "contents",
    "keys",
    "main",
    "maintenance",
    "tokens",
]


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
    chosen = _chosen(config, flags)
    logs.configure(log_format=chosen.log_format, level=chosen.log_level)
    for each in configuration.verdicts(chosen):
        if each.state == "refuse":
            raise ConfigurationError(f"{each.setting}: {each.sentence}")
        if each.state == "warning":
            logs.logger(__name__).warning(
                "warning at the start", setting=each.setting, advice=each.sentence
            )
    if chosen.workers > 1:
        from collab.server.supervisor import oversee

        raise typer.Exit(oversee(chosen, _as_worker(sys.orig_argv)))
    from collab.server.app import run  # heavy: other commands do without

    run(chosen)


def _as_worker(command: list[str]) -> list[str]:
    """The command that started this process, as that of one of its workers."""
    at = command.index("serve")
    return [sys.executable, *command[1:at], "worker", *command[at + 1 :]]


def worker(
    config: Path | None,
    number: int,
    restarts: int,
    listening: int,
    directory: Path,
    **flags: Any,
) -> None:
    """One of the replicas that `serve --workers` starts."""
    from collab.server.app import run
    from collab.server.worker import Worker

    chosen = _chosen(config, flags)
    logs.configure(log_format=chosen.log_format, level=chosen.log_level, worker=number)
    held = socket.socket(fileno=listening)
    held.set_inheritable(False)
    run(chosen, Worker(number, held, directory, restarts))


def check(config: Path | None, json: bool, **flags: Any) -> None:
    """Say what is wrong with the settings, as `serve` would read them. Exits with 3 when it would refuse to start."""
    configuration.report(_chosen(config, flags), json=json)


def _chosen(config: Path | None, flags: dict[str, Any]) -> settings.Settings:
    return settings.load(
        {name: value for name, value in flags.items() if value not in (None, (), [])},
        config,
    )


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
    shown = (
        f" [default: {field.default}]"
        if field.default not in ((), False, None, "")
        else ""
    )
    return Parameter(
        name,
        Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[
            kind, typer.Option(names, help=f"{field.description}{shown}")
        ],
    )


def _register(
    function: Callable[..., None], *others: Parameter, hidden: bool = False
) -> None:
    """A command whose flags are the settings, and others."""
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
    function.__signature__ = Signature([config, *others, *flags])  # type: ignore[attr-defined]
    function.__annotations__ = {
        each.name: each.annotation for each in (config, *others, *flags)
    }
    app.command(hidden=hidden)(function)


_register(serve)
_register(
    check,
    Parameter("json", Parameter.KEYWORD_ONLY, default=False, annotation=AsJson),
)
_register(
    worker,
    *(
        Parameter(
            name, Parameter.KEYWORD_ONLY, annotation=Annotated[kind, typer.Option()]
        )
        for name, kind in (
            ("number", int),
            ("restarts", int),
            ("listening", int),
            ("directory", Path),
        )
    ),
    hidden=True,
)


def main() -> None:
    """The entry point: an expected error is one sentence and an exit code, never a traceback."""
    logs.configure(log_format="console", level="error")  # `serve` sets its own
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
