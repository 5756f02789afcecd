"""Logging: JSON or console lines, values beside constant messages. Never a token, never content."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog


def configure(*, log_format: str, level: str, worker: int | None = None) -> None:
    """Set up structlog and let the standard library's loggers (uvicorn's, asyncio's) use the same lines."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if worker is not None:
        shared.append(_of(worker))
    renderer: Any
    if log_format == "json":
        shared.append(structlog.processors.format_exc_info)
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            # The other one shows the values of variables: tokens, documents.
            exception_formatter=structlog.dev.plain_traceback,
        )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # We say ourselves when we start and stop, and whom we ask: their lines hold whole addresses.
    for name in ("uvicorn", "httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _of(worker: int) -> Any:
    """A processor that says in each line whose it is."""

    def add(_logger: Any, _method: str, line: dict[str, Any]) -> dict[str, Any]:
        line["worker"] = worker
        return line

    return add


def logger(name: str) -> Any:
    """The logger of a module; call it with `__name__`."""
    return structlog.stdlib.get_logger(name)
