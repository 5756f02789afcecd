"""Maps and lists of a document by path (JSON Patch, RFC 6902), changing only what differs."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, NamedTuple

import orjson
from pycrdt import Array, Doc, Map, Text

from collab.document.budget import VALUE_WORK, Budget
from collab.document.characters import Characters
from collab.document.differences import changes
from collab.document.export import plain, root_of
from collab.document.values import (
    Path,
    Problem,
    canonical,
    check_value,
    checked,
    index_in,
    inner_add,
    inner_child,
    inner_remove,
    inner_write,
    parse,
    pointer,
    same,
    size,
)
from collab.errors import InvalidRequest

NEIGHBOURS = 100  # looked at to see how a new value is to be kept

_MADE = object()  # of the value that is said
_KINDS: dict[type, Any] = {dict: Map, list: Array, str: Text}
_EMPTY: dict[type, Any] = {Map: {}, Array: [], Text: ""}


@dataclass(frozen=True, slots=True)
class Patch:
    """One operation of JSON Patch (RFC 6902). The first part of a path names the root."""

    op: Literal["add", "remove", "replace", "move", "copy", "test"]
    path: str
    value: Any = None
    source: str = ""  # `from`


class _Place(NamedTuple):
    """The innermost shared map or list on a path, the key in it, and what follows inside a plain value there."""

    holder: Any
    key: str
    inner: Path


class _Copy(Text):
    """A text that is not yet in any document, with its formats and what stands in it without being text."""

    def __init__(self, pieces: list[tuple[Any, dict[str, Any] | None]]) -> None:
        super().__init__()
        self._pieces = pieces

    @property
    def type_name(self) -> str:
        """By which pycrdt knows what to make; else it takes the name of the class."""
        return "text"

    def _init(self, value: str | None) -> None:
        # From the end on, so that each goes in at the beginning: anywhere else native code first walks there.
        for what, attributes in reversed(self._pieces):
            if isinstance(what, str):
                self.insert(0, what, attributes or {})
            else:
                self.insert_embed(0, what, attributes or {})


class Tree:
    """The roots of one document, inside one transaction."""

    def __init__(self, doc: Doc[Any], budget: Budget) -> None:
        self._doc, self._budget = doc, budget
        self._spend = budget.spend
        self._names = set(doc.keys())
        self._roots: dict[str, Any] = {}

    def text(self, name: str) -> Characters:
        """A root that is a text; one that holds nothing yet becomes one."""
        if name not in self._roots and name in self._names:
            text: Text = self._doc.get(name, type=Text)
            shown = str(text)  # what long texts cost, so only once
            if shown:
                self._roots[name] = text
                return Characters(text, self._budget, shown)
        shared = self.root(name)
        if shared is None:
            shared = self._roots[name] = self._doc.get(checked(name), type=Text)
        if not isinstance(shared, Text):
            raise Problem("this root is not a text")
        return Characters(shared, self._budget)

    def root(self, name: str) -> Any:
        """The shared type of that root, None while it holds nothing: then it can still become any."""
        if name not in self._roots and name in self._names:
            self._roots[name] = root_of(self._doc, name)
        return self._roots.get(name)

    def apply(self, patch: Patch) -> None:
        """One operation of JSON Patch. Raises Problem."""
        path = parse(patch.path)
        match patch.op:
            case "test":
                if not same(self.read(path), patch.value):
                    raise Problem(f"{patch.path} is not what it should be")
            case "add":
                self._add(path, check_value(patch.value))
            case "replace":
                self.read(path)
                self._write(path, check_value(patch.value))
            case "remove":
                self._remove(path)
            case "copy":
                self._add(path, *self._taken(parse(patch.source)))
            case "move":
                source = parse(patch.source)
                if source == path:
                    self.read(path)
                    return
                if path[: len(source)] == source:
                    raise Problem(
                        f"{patch.source} cannot be moved into itself", InvalidRequest
                    )
                value, fresh = self._taken(source)
                self._remove(source)
                self._add(path, value, fresh)

    def _locate(self, path: Path) -> _Place:
        """Where a path ends, which is below a root."""
        holder = self.root(path[0])
        if holder is None:
            holder = self._begin(path)
        at = 1
        while True:
            if not isinstance(holder, Map | Array):
                raise Problem(f"{pointer(path[:at])} is not a map or a list")
            if at == len(path) - 1:
                return _Place(holder, path[at], ())
            child = self._child(holder, path, at)
            if isinstance(child, dict | list):
                return _Place(holder, path[at], path[at + 1 :])
            holder = child
            at += 1

    def _begin(self, path: Path) -> Any:
        """A root that holds nothing becomes a map or a list by what the path asks of it."""
        if len(path) > 2:
            raise Problem(f"{pointer(path[:2])} is not there")
        if path[1].isdigit():
            raise Problem(
                f"{pointer(path[:1])} is empty: first add [] or {{}} there, to say which it is"
            )
        kind = Array if path[1] == "-" else Map
        root = self._roots[path[0]] = self._doc.get(checked(path[0]), type=kind)
        return root

    def _child(self, holder: Any, path: Path, at: int) -> Any:
        """What a map or list holds under a part of the path."""
        if isinstance(holder, Map):
            if path[at] not in holder:
                raise Problem(f"{pointer(path[: at + 1])} is not there")
            return holder[path[at]]
        self._spend(len(holder))
        return holder[index_in(path, at, len(holder) - 1)]

    def _find(self, path: Path) -> Any:
        """What is at a path: a shared type or a plain value."""
        if len(path) == 1:
            root = self.root(path[0])
            if root is None and path[0] not in self._names:
                raise Problem(f"{pointer(path)} is not there")
            return root
        holder, _, inner = self._locate(path)
        found = self._child(holder, path, len(path) - 1 - len(inner))
        for at in range(len(path) - len(inner), len(path)):
            found = inner_child(found, path, at)
        return found

    def read(self, path: Path) -> Any:
        """What is at a path, as plain values. Raises Problem."""
        return self._plain(self._find(path))

    def _plain(self, value: Any) -> Any:
        return plain(value, self._spend_values)

    def _spend_values(self, count: int) -> None:
        self._spend(count * VALUE_WORK)

    def _taken(self, path: Path) -> tuple[Any, Any]:
        """What `move` and `copy` take along: its value, and a copy in which texts stay texts and what is shared so."""
        found = self._find(path)
        return self._plain(found), self._copied(found, path)

    def _copied(self, value: Any, path: Path) -> Any:
        """The same once more, not yet in any document."""
        match value:
            case Map():
                return Map(
                    {key: self._copied(each, path) for key, each in value.items()}
                )
            case Array():
                return Array([self._copied(each, path) for each in value])
            case Text():
                pieces = value.diff()
                self._spend_values(len(pieces))
                return _Copy([(self._copied(what, path), how) for what, how in pieces])
            case dict() | list():
                return orjson.loads(orjson.dumps(value))
            case str() | int() | float() | None:
                return value
            case _:
                raise Problem(f"{pointer(path)} holds something that cannot be copied")

    def _add(self, path: Path, value: Any, fresh: Any = _MADE) -> None:
        """Insert into a list; anywhere else the same as `_write`. `fresh` is what to insert when it is not made of
        the value.
        """
        if len(path) > 1:
            holder, key, inner = self._locate(path)
            if inner:
                return self._write_inner(path, inner, value, inner_add)
            if isinstance(holder, Array):
                self._spend(len(holder))
                last = len(holder)
                index = last if key == "-" else index_in(path, len(path) - 1, last)
                holder.insert(index, self._new(holder, value, fresh))
                return
        self._write(path, value, fresh)

    def _write(self, path: Path, value: Any, fresh: Any = _MADE) -> None:
        """Make what is at a path this value, changing only what differs."""
        if len(path) == 1:
            return self._write_root(path[0], value)
        holder, key, inner = self._locate(path)
        if inner:
            return self._write_inner(path, inner, value, inner_write)
        if isinstance(holder, Map):
            if key in holder:
                self._assign(holder, key, value, fresh)
            else:
                holder[checked(key)] = self._new(holder, value, fresh)
        else:
            index = index_in(path, len(path) - 1, len(holder) - 1)
            self._assign(holder, index, value, fresh)

    def _write_root(self, name: str, value: Any) -> None:
        root = self.root(name)
        if root is None:
            kind = _KINDS.get(type(value))
            if kind is None:
                raise Problem("a root holds a map, a list or a text", InvalidRequest)
            root = self._roots[name] = self._doc.get(checked(name), type=kind)
        if not self._merge(root, value):
            raise Problem("a root stays the map, list or text that it is")

    def _write_inner(self, path: Path, inner: Path, value: Any, change: Any) -> None:
        """A plain value inside a shared map or list is one value: a change inside it replaces it."""
        holder = self._locate(path).holder
        at = len(path) - 1 - len(inner)
        old = self._child(holder, path, at)
        self._spend(size(old) * VALUE_WORK)
        new = orjson.loads(orjson.dumps(old))  # a copy
        target = new
        for step in range(at + 1, len(path) - 1):
            target = inner_child(target, path, step)
        change(target, path, value)
        if not same(old, new):
            key = path[at] if isinstance(holder, Map) else int(path[at])
            _store(holder, key, check_value(new))

    def _remove(self, path: Path) -> None:
        if len(path) == 1:
            root = self._find(path)
            if root is not None and not self._merge(root, _EMPTY.get(type(root))):
                raise Problem(f"{pointer(path)} cannot be changed by path")
            return
        holder, key, inner = self._locate(path)
        if inner:
            self._write_inner(path, inner, None, inner_remove)
        else:
            self._child(holder, path, len(path) - 1)
            del holder[key if isinstance(holder, Map) else int(key)]

    # Values

    def _assign(self, holder: Any, key: Any, value: Any, fresh: Any = _MADE) -> None:
        """Replace what a map or list holds under a key that is there."""
        old = holder[key]
        if self._merge(old, value) or same(self._plain(old), value):
            return
        if isinstance(old, dict | list):
            fresh = value  # plain stays plain
        _store(holder, key, self._new(holder, value, fresh))

    def _merge(self, shared: Any, value: Any) -> bool:
        """Make a shared type hold this; False when it cannot."""
        match shared, value:
            case Map(), dict():
                self._spend_values(len(value) + len(shared))
                for key in list(shared.keys()):
                    if key not in value:
                        del shared[key]
                for key, item in value.items():
                    if key in shared:
                        self._assign(shared, key, item)
                    else:
                        shared[checked(key)] = self._new(shared, item)
            case Array(), list():
                self._merge_list(shared, value)
            case Text(), str():
                Characters(shared, self._budget).rewrite(value)
            case _:
                return False
        return True

    def _merge_list(self, shared: Array[Any], value: list[Any]) -> None:
        self._spend_values(len(value))
        old = [canonical(item) for item in self._plain(shared)]
        new = [canonical(plain(item)) for item in value]  # 1.0 is 1
        hunks = changes(old, new, self._budget)
        for start, stop, new_start, new_stop in reversed(hunks):
            self._spend_values(stop - start + new_stop - new_start)
            both = min(stop - start, new_stop - new_start)
            if start + both < stop:
                del shared[start + both : stop]
            for index in range(both, new_stop - new_start):
                item = self._new(shared, value[new_start + index])
                shared.insert(start + index, item)
            for index in range(both):
                self._assign(shared, start + index, value[new_start + index])

    def _new(self, holder: Any, value: Any, fresh: Any = _MADE) -> Any:
        """A new value as those beside it are: maps and lists are shared unless plain ones are there already."""
        if fresh is not _MADE:
            return fresh
        if not isinstance(value, dict | list):
            return value
        self._spend_values(size(value))
        values = holder.values() if isinstance(holder, Map) else holder
        if any(isinstance(each, dict | list) for each in islice(values, NEIGHBOURS)):
            return value
        return _shared(value)


def _shared(value: Any) -> Any:
    """A plain value as shared types, not yet in any document."""
    if isinstance(value, dict):
        return Map({key: _shared(item) for key, item in value.items()})
    if isinstance(value, list):
        return Array([_shared(item) for item in value])
    return value


def _store(holder: Any, key: Any, value: Any) -> None:
    """Put a value in the place of another."""
    if isinstance(holder, Array):
        del holder[key]
        holder.insert(key, value)
    else:
        holder[key] = value
