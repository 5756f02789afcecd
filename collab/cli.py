"""The command line: serve, and look into or change a data directory."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

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
from collab.commands.flags import CONFIG, flag_of, given, with_flags
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
    from collab.server.app import run  # heavy: other commands do without

    chosen = _chosen(config, flags)
    logs.configure(log_format=chosen.log_format, level=chosen.log_level)
    for each in configuration.verdicts(chosen):
        if each.state == "refuse":
            raise ConfigurationError(f"{each.setting}: {each.sentence}")
        if each.state == "warning":
            logs.logger(__name__).warning(
                "warning at the start", setting=each.setting, advice=each.sentence
            )
    run(chosen)


def check(config: Path | None, json: bool, **flags: Any) -> None:
    """Say what is wrong with the settings, as `serve` would read them. Exits with 3 when it would refuse to start."""
    configuration.report(_chosen(config, flags), json=json)


def _chosen(config: Path | None, flags: dict[str, Any]) -> settings.Settings:
    return settings.load(given(flags), config)


def _register(function: Callable[..., None], *others: Parameter) -> None:
    """A command whose flags are the settings, and others."""
    fields = settings.Settings.model_fields.items()
    flags = [flag_of(name, field) for name, field in fields]
    with_flags(function, [CONFIG, *others, *flags])
    app.command()(function)


_register(serve)
_register(
    check,
    Parameter("json", Parameter.KEYWORD_ONLY, default=False, annotation=AsJson),
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
