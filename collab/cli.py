"""The command line: serve, and look into or change a data directory."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from importlib import import_module
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

import collab
from collab import logs, settings
from collab.commands import configuration
from collab.commands.base import EXIT_CONFIGURATION, EXIT_FAILED, AsJson, app
from collab.commands.flags import CONFIG, flag_of, given, with_flags
from collab.errors import CollabError, ConfigurationError

SERVING = ("serve", "worker")
# Modules that register further commands.
OTHERS = ("auditing", "contents", "keys", "maintenance", "tokens")

# Beside the settings.
OF_A_CHECK = Parameter("json", Parameter.KEYWORD_ONLY, default=False, annotation=AsJson)
OF_A_WORKER = [
    Parameter(name, Parameter.KEYWORD_ONLY, annotation=Annotated[kind, typer.Option()])
    for name, kind in (
        ("number", int),
        ("restarts", int),
        ("listening", int),
        ("directory", Path),
    )
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
    return settings.load(given(flags), config)


def _register(
    function: Callable[..., None], *others: Parameter, hidden: bool = False
) -> None:
    """A command whose flags are the settings, and others; once, however often a program calls `main`."""
    if any(each.callback is function for each in app.registered_commands):
        return
    fields = settings.Settings.model_fields.items()
    flags = [flag_of(name, field) for name, field in fields]
    with_flags(function, [CONFIG, *others, *flags])
    app.command(hidden=hidden)(function)


def _register_all(asked: str) -> None:
    """A server that starts makes its own flags alone, and loads the modules of no other command."""
    if asked != "worker":
        _register(serve)
    if asked != "serve":
        _register(worker, *OF_A_WORKER, hidden=True)
    if asked not in SERVING:
        _register(check, OF_A_CHECK)
        for name in OTHERS:
            import_module(f"collab.commands.{name}")


def main() -> None:
    """The entry point: an expected error is one sentence and an exit code, never a traceback."""
    logs.configure(log_format="console", level="error")  # `serve` sets its own
    _register_all(sys.argv[1] if len(sys.argv) > 1 else "")
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
