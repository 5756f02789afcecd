"""The stock clients, by the short names that clients.mjs gives them."""

from itertools import combinations_with_replacement

Y_WEBSOCKET = ("y-websocket-1", "y-websocket-2", "y-websocket-3", "y-websocket-4")
HOCUSPOCUS = ("hocuspocus-2", "hocuspocus-3", "hocuspocus-4")
Y_SWEET = ("y-sweet",)
KINDS = (*Y_WEBSOCKET, *HOCUSPOCUS, *Y_SWEET)
PAIRS = tuple(combinations_with_replacement(KINDS, 2))


def write(text: str, at: int = 0) -> dict[str, object]:
    """A step of an edit: insert into the text; -1 is its end."""
    return {"text": "text", "at": at, "insert": text}


def erase(at: int, length: int) -> dict[str, object]:
    return {"text": "text", "at": at, "remove": length}


def put(key: str, value: object) -> dict[str, object]:
    return {"map": "map", "key": key, "value": value}


def push(*values: object) -> dict[str, object]:
    return {"array": "array", "push": values}
