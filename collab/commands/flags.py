"""Settings as flags of a command, whose default is "not given": environment and TOML file keep their say."""

from __future__ import annotations

import typing
from collections.abc import Callable
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo

from collab import settings
from collab.settings import Settings

# Where rooms and what belongs to them are.
PLACES = (
    "data",
    "store",
    "redis",
    "redis_password_file",
    "redis_sentinel_password_file",
    "redis_ca",
    "redis_certificate",
    "redis_key",
    "postgres",
    "postgres_password_file",
    "cluster",
)

CONFIG = Parameter(
    "config",
    Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[Path | None, typer.Option(help="Settings as TOML.")],
)


def flag_of(name: str, field: FieldInfo) -> Parameter:
    """A setting as a flag."""
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


def with_flags(function: Callable[..., None], flags: list[Parameter]) -> None:
    """Have typer read these flags from a function, whose type does not tell that it has this attribute."""
    function.__signature__ = Signature(flags)  # type: ignore[attr-defined]  # inspect reads it, types do not know it
    function.__annotations__ = {each.name: each.annotation for each in flags}


def given(flags: dict[str, Any]) -> dict[str, Any]:
    """Those flags that were said."""
    return {name: value for name, value in flags.items() if value not in (None, (), [])}


def located(function: Callable[..., None]) -> Callable[..., None]:
    """A command that is told by flags, environment and file where the rooms are: its argument `where`."""
    hints = typing.get_type_hints(function, include_extras=True)
    own = [
        each.replace(kind=Parameter.KEYWORD_ONLY, annotation=hints[each.name])
        for each in signature(function).parameters.values()
        if each.name != "where"
    ]

    def run(config: Path | None, **said: Any) -> None:
        places = {name: said.pop(name) for name in PLACES}
        where = settings.load(given(places), config, is_server=False)
        function(**said, where=where)

    fields = Settings.model_fields
    with_flags(run, [*own, CONFIG, *(flag_of(name, fields[name]) for name in PLACES)])
    run.__name__, run.__doc__ = function.__name__, function.__doc__
    return run
