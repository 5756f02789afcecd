"""What was logged, as one dictionary for each line: `with capture_logs() as lines`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        values = getattr(record, "values", {})
        level = record.levelname.lower()
        self.lines.append({**values, "event": record.getMessage(), "log_level": level})


@contextmanager
def capture_logs() -> Iterator[list[dict[str, Any]]]:
    """All lines of whatever level, instead of wherever else they would go."""
    logger, kept = logging.getLogger("collab"), _Kept()
    level, propagates = logger.level, logger.propagate
    logger.addHandler(kept)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield kept.lines
    finally:
        logger.removeHandler(kept)
        logger.setLevel(level)
        logger.propagate = propagates
