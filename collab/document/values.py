"""Plain values and the paths into them, read strictly; and why an operation on them cannot be done."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import orjson

from collab.errors import CollabError, Conflict, InvalidRequest
from collab.protocol.structs import MAX_NESTING

MAX_INTEGER = (1 << 53) - 1  # JavaScript counts exactly to here

Path = tuple[str, ...]


class Problem(Exception):
    """Why an operation cannot be done: the document is not so (409), or no document could be (400)."""

    def __init__(self, message: str, error: type[CollabError] = Conflict) -> None:
        super().__init__(message)
        self.error = error


class Ambiguous(Problem):
    """There are several places."""

    def __init__(self, message: str, positions: Sequence[int]) -> None:
        super().__init__(message)
        self.positions = positions


# Paths


def parse(written: str) -> Path:
    """The parts of a JSON Pointer (RFC 6901)."""
    if not checked(written).startswith("/"):
        raise Problem("a path begins with / and the name of a root", InvalidRequest)
    if re.search("~(?![01])", written):
        raise Problem("in a path, ~ is written ~0 and / is written ~1", InvalidRequest)
    return tuple(
        part.replace("~1", "/").replace("~0", "~") for part in written[1:].split("/")
    )


def pointer(path: Path) -> str:
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path)


def index_in(path: Path, at: int, last: int) -> int:
    """A part of a path as the index of a list, up to and including `last`."""
    part = path[at]
    if not re.fullmatch("0|[1-9][0-9]{0,8}", part):
        raise Problem(f"{pointer(path[: at + 1])} is no index of a list")
    if int(part) > last:
        raise Problem(f"{pointer(path[: at + 1])} is beyond the end of the list")
    return int(part)


def inner_child(value: Any, path: Path, at: int) -> Any:
    if isinstance(value, dict):
        if path[at] not in value:
            raise Problem(f"{pointer(path[: at + 1])} is not there")
        return value[path[at]]
    if isinstance(value, list):
        return value[index_in(path, at, len(value) - 1)]
    raise Problem(f"{pointer(path[:at])} is not a map or a list")


def inner_add(value: Any, path: Path, new: Any) -> None:
    if isinstance(value, list):
        last = len(path) - 1
        index = len(value) if path[-1] == "-" else index_in(path, last, len(value))
        value.insert(index, new)
    else:
        inner_write(value, path, new)


def inner_write(value: Any, path: Path, new: Any) -> None:
    if isinstance(value, dict):
        value[path[-1]] = new
    elif isinstance(value, list):
        value[index_in(path, len(path) - 1, len(value) - 1)] = new
    else:
        raise Problem(f"{pointer(path[:-1])} is not a map or a list")


def inner_remove(value: Any, path: Path, new: Any) -> None:
    inner_child(value, path, len(path) - 1)
    del value[path[-1] if isinstance(value, dict) else int(path[-1])]


# Values


def check_value(value: Any) -> Any:
    """The value, when a document can hold it: native code would end the process over one nested too deep."""
    todo = [(value, 1)]
    while todo:
        each, depth = todo.pop()
        if depth > MAX_NESTING:
            raise Problem(
                f"a value is nested deeper than {MAX_NESTING}", InvalidRequest
            )
        if isinstance(each, str):
            checked(each)
        elif isinstance(each, dict):
            for key in each:
                if not isinstance(key, str):
                    raise Problem("a key is a text", InvalidRequest)
                checked(key)
            todo += [(item, depth + 1) for item in each.values()]
        elif isinstance(each, list | tuple):
            todo += [(item, depth + 1) for item in each]
        elif isinstance(each, int):
            if abs(each) > MAX_INTEGER:
                raise Problem(
                    "a whole number is too large to be exact in a browser",
                    InvalidRequest,
                )
        elif isinstance(each, float):
            if each - each != 0:
                raise Problem("a number must be finite", InvalidRequest)
        elif each is not None:
            raise Problem("a value is JSON", InvalidRequest)
    return value


def checked(text: str) -> str:
    """The text, when it is one: half a surrogate pair is no character."""
    if not isinstance(text, str):
        raise Problem("that is no text", InvalidRequest)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Problem(
                "half a surrogate pair is no character", InvalidRequest
            ) from None
    return text


def same(one: Any, other: Any) -> bool:
    """Equal as JSON: `true` is not 1, but 1.0 is."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(
            same(item, other[key]) for key, item in one.items()
        )
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def canonical(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def size(value: Any) -> int:
    """About how much work a plain value is."""
    size, todo = 0, [value]
    while todo:
        each = todo.pop()
        size += len(each) if isinstance(each, str | dict | list) else 1
        if isinstance(each, dict):
            todo += each.values()
        elif isinstance(each, list):
            todo += each
    return size
