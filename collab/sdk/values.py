"""What was read of maps and lists, by path: whether it is still so."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from collab.document.values import Path, Problem, canonical, inner_child, parse, pointer
from collab.sdk.errors import Invalid

MAX_VALUES = 100  # paths; of the oldest nothing is known any more

NOTHING: Any = object()  # there is no such value


class Values:
    """The values of paths as they were read, or as we wrote them since."""

    def __init__(self) -> None:
        self._read: OrderedDict[Path, Any] = OrderedDict()

    def remember(self, path: Path, value: Any) -> None:
        """It was read; what was read below it is a part of it."""
        for other in [other for other in self._read if other[: len(path)] == path]:
            del self._read[other]
        self._read[path] = value
        while len(self._read) > MAX_VALUES:
            self._read.popitem(last=False)

    def expected(self, path: Path) -> tuple[bool, Any]:
        """Whether something was read there, and what it was."""
        for length in range(len(path), 0, -1):
            if path[:length] in self._read:
                return True, _below(self._read[path[:length]], path, length)
        return False, NOTHING

    def wrote(self, path: Path, value: Any) -> None:
        """It is so now, by our own hand."""
        for length in range(len(path), 0, -1):
            if path[:length] in self._read:
                self._read[path[:length]] = _with(
                    self._read[path[:length]], path, length, value
                )
        for other in list(self._read):
            if len(other) > len(path) and other[: len(path)] == path:
                self._read[other] = _below(value, other, len(path))


def steps(path: str) -> Path:
    """The parts of a path. Raises Invalid."""
    try:
        return parse(path)
    except Problem as problem:
        raise Invalid(str(problem)) from None


def is_same(one: Any, other: Any) -> bool:
    """Equal as JSON."""
    if one is NOTHING or other is NOTHING:
        return one is other
    return canonical(one) == canonical(other)


def _below(value: Any, path: Path, at: int) -> Any:
    """What a plain value holds further down, NOTHING when it does not."""
    try:
        for step in range(at, len(path)):
            value = inner_child(value, path, step)
    except Problem:
        return NOTHING
    return value


def _with(value: Any, path: Path, at: int, new: Any) -> Any:
    """The same with another value further down."""
    if at == len(path):
        return new
    if isinstance(value, dict):
        changed = dict(value)
        if new is NOTHING and at == len(path) - 1:
            changed.pop(path[at], None)
        else:
            changed[path[at]] = _with(value.get(path[at]), path, at + 1, new)
        return changed
    if isinstance(value, list) and path[at].isdigit() and int(path[at]) < len(value):
        index = int(path[at])
        return [
            *value[:index],
            _with(value[index], path, at + 1, new),
            *value[index + 1 :],
        ]
    return value


__all__ = ["NOTHING", "Values", "is_same", "pointer", "steps"]
