"""Logging: JSON or console lines, values beside constant messages. Never a token, never content."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

_PLAIN, _RED, _YELLOW = "\x1b[0m", "\x1b[31m", "\x1b[33m"


class Logger:
    """Says what happened in a constant sentence, so that lines can be counted, with the values beside it."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, /, **values: Any) -> None:
        self._say(logging.DEBUG, event, values)

    def info(self, event: str, /, **values: Any) -> None:
        self._say(logging.INFO, event, values)

    def warning(self, event: str, /, **values: Any) -> None:
        self._say(logging.WARNING, event, values)

    def error(self, event: str, /, **values: Any) -> None:
        self._say(logging.ERROR, event, values)

    def exception(self, event: str, /, **values: Any) -> None:
        """An error, with the traceback of the exception that is being handled."""
        self._say(logging.ERROR, event, values, has_traceback=True)

    def _say(
        self,
        level: int,
        event: str,
        values: dict[str, Any],
        *,
        has_traceback: bool = False,
    ) -> None:
        if self._logger.isEnabledFor(level):
            beside = {"values": values}
            self._logger.log(level, event, exc_info=has_traceback, extra=beside)


def logger(name: str) -> Logger:
    """The logger of a module; call it with `__name__`."""
    return Logger(name)


class _Lines(logging.Formatter):
    """Makes a line of each record, the standard library's (uvicorn's, asyncio's) among them."""

    def __init__(self, worker: int | None) -> None:
        super().__init__()
        self._common = {} if worker is None else {"worker": worker}

    def values(self, record: logging.LogRecord) -> dict[str, Any]:
        return {**getattr(record, "values", {}), **self._common}

    def time(self, record: logging.LogRecord) -> str:
        then = datetime.fromtimestamp(record.created, UTC)
        return then.isoformat(timespec="microseconds").replace("+00:00", "Z")

    def traceback(self, record: logging.LogRecord) -> str:
        """Without the values of variables: they are tokens, documents."""
        found = record.exc_info
        return self.formatException(found) if found and found[0] else ""


class _Json(_Lines):
    def format(self, record: logging.LogRecord) -> str:
        line = self.values(record) | {
            "event": record.getMessage(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "timestamp": self.time(record),
        }
        if traceback := self.traceback(record):
            line["exception"] = traceback
        return json.dumps(line, default=repr)


class _Console(_Lines):
    def __init__(self, worker: int | None, *, has_colors: bool) -> None:
        super().__init__(worker)
        self._has_colors = has_colors

    def format(self, record: logging.LogRecord) -> str:
        level = f"[{record.levelname.lower():8}]"
        if self._has_colors and record.levelno >= logging.WARNING:
            color = _RED if record.levelno >= logging.ERROR else _YELLOW
            level = f"{color}{level}{_PLAIN}"
        said = [self.time(record), level, record.getMessage(), f"[{record.name}]"]
        said += [
            f"{name}={_shown(value)}" for name, value in self.values(record).items()
        ]
        traceback = self.traceback(record)
        return " ".join(said) + (f"\n{traceback}" if traceback else "")


def _shown(value: Any) -> str:
    """As it is where that is one word, else quoted, with what would begin a line or colour it escaped."""
    is_word = isinstance(value, str) and value.isprintable() and value
    return value if is_word and not set(" =\"'") & set(value) else repr(value)


def configure(*, log_format: str, level: str, worker: int | None = None) -> None:
    """Send all loggers' lines to standard error, from this level on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _Json(worker)
        if log_format == "json"
        else _Console(worker, has_colors=sys.stderr.isatty())
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # We say ourselves when we start and stop, and whom we ask: their lines hold whole addresses.
    for name in ("uvicorn", "httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)
