"""Edits by text and by path, tried on a copy of a document: all or nothing, and never more than differs.

Places are counted in characters (Unicode code points); native code counts UTF-8 bytes, browsers UTF-16 units. What is
in a text without being a character, such as an image, counts as one and reads as U+FFFC.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, NamedTuple

import orjson
from pycrdt import Array, Doc, Map, Text

from collab.document.document import Document
from collab.document.export import EMBED, check_lists, plain, root_of
from collab.errors import (
    AmbiguousText,
    CollabError,
    Conflict,
    InvalidRequest,
    TextNotFound,
    TooLarge,
)
from collab.protocol.structs import MAX_NESTING

MAX_OPERATIONS = 1000
# Work of one request in units of about 5 ns: longer than 0.3 s it must not keep the event loop.
MAX_WORK = 60_000_000
VALUE_WORK = 1000  # to read or write one value
COMPARISON_WORK = 60
MAX_CANDIDATES = 10
NEIGHBOURS = 100  # looked at to see how a new value is to be kept
# Comparisons spent on finding the fewest changes; one change from the first difference to the last else.
MAX_COMPARISONS = 100_000
MAX_INTEGER = (1 << 53) - 1  # JavaScript counts exactly to here

_MADE = object()  # of the value that is said

_WORDS = re.compile(r"\w+|\s+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Splice:
    """At a place in a text, delete so many characters and insert others."""

    root: str
    index: int
    delete: int = 0
    insert: str = ""
    attributes: dict[str, Any] | None = None  # of what is inserted, in a rich text


@dataclass(frozen=True, slots=True)
class Replacement:
    """Replace the one place where a text says `old`; the one closest to `near`, if given."""

    root: str
    old: str
    new: str
    near: int | None = None


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Make a text say this, changing only what differs."""

    root: str
    text: str


@dataclass(frozen=True, slots=True)
class Patch:
    """One operation of JSON Patch (RFC 6902). The first part of a path names the root."""

    op: Literal["add", "remove", "replace", "move", "copy", "test"]
    path: str
    value: Any = None
    source: str = ""  # `from`


Operation = Splice | Replacement | Rewrite | Patch


def edit(
    document: Document, client: int, operations: Sequence[Operation]
) -> bytes | None:
    """The update that does all of this; see `Draft.edit`. The document stays as it is."""
    return Draft(document.snapshot(), client).edit(operations)


class Draft:
    """A copy of a document that writes under a client id of its own.

    No second copy may write under that id unless it holds everything that was ever written under it.
    """

    def __init__(self, snapshot: bytes, client: int) -> None:
        self._doc: Doc[Any] = Doc(client_id=client)
        self._doc.apply_update(snapshot)
        self._is_checked = False
        self.bytes = len(snapshot)  # about what it holds

    def edit(self, operations: Sequence[Operation]) -> bytes | None:
        """Apply the operations one after the other; the update that repeats them elsewhere, None when nothing changed.

        Raises InvalidRequest, Conflict (what an operation speaks of is not there, or not once; a `test` fails),
        TooLarge, or Refused for a document with lists that cannot be read: the copy is of no use after that.
        """
        if len(operations) > MAX_OPERATIONS:
            raise TooLarge("operations")
        if not self._is_checked and any(
            isinstance(operation, Patch) for operation in operations
        ):
            check_lists(self._doc.get_update())
            self._is_checked = True  # no edit of ours puts characters into a list
        updates: list[bytes] = []
        subscription = self._doc._doc.observe(
            lambda event: updates.append(event.update)
        )
        try:
            with self._doc.transaction():
                attempt = _Attempt(self._doc)
                for number, operation in enumerate(operations):
                    attempt.apply(number, operation)
        except Exception:
            raise
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a Rust panic is not an Exception
            reason = f"native code failed on a copy: {type(error).__name__}"
            raise RuntimeError(reason) from None
        finally:
            subscription.drop()
        if not updates:
            return None
        self.bytes += len(updates[0])
        return updates[0]


class Budget:
    """What one request may still cost."""

    def __init__(self, left: int = MAX_WORK) -> None:
        self.left = left

    def spend(self, work: int) -> None:
        """Raises TooLarge when there is not so much left."""
        self.left -= work
        if self.left < 0:
            raise TooLarge("work of one request")


class _Attempt:
    """The operations of one request, inside one transaction."""

    def __init__(self, doc: Doc[Any]) -> None:
        self._doc = doc
        self._budget = Budget()
        self._spend = self._budget.spend
        self._names = set(doc.keys())
        self._roots: dict[str, Any] = {}
        self._texts: dict[str, _Characters] = {}

    def apply(self, number: int, operation: Operation) -> None:
        try:
            match operation:
                case Splice():
                    self._splice(operation)
                case Replacement():
                    self._replace(operation)
                case Rewrite():
                    self._text(operation.root).rewrite(_checked(operation.text))
                case Patch():
                    self._patch(operation)
        except _Ambiguous as problem:
            message = f"operation {number}: {problem}"
            raise AmbiguousText(message, problem.positions) from None
        except _Problem as problem:
            raise problem.error(f"operation {number}: {problem}") from None

    # Texts

    def _text(self, root: str) -> _Characters:
        """The text of that root; a root that holds nothing yet becomes one."""
        text = self._texts.get(root)
        if text is None:
            shared = self._root(root)
            if shared is None:
                shared = self._roots[root] = self._doc.get(_checked(root), type=Text)
            if not isinstance(shared, Text):
                raise _Problem("this root is not a text")
            text = self._texts[root] = _Characters(shared, self._budget)
        return text

    def _splice(self, splice: Splice) -> None:
        text = self._text(splice.root)
        if not 0 <= splice.index <= splice.index + splice.delete <= len(text.shown):
            raise _Problem(
                f"from {splice.index}, {splice.delete} characters: the text has {len(text.shown)}"
            )
        if splice.attributes is not None:
            check_value(splice.attributes)
        text.splice(
            splice.index, splice.delete, _checked(splice.insert), splice.attributes
        )

    def _replace(self, replacement: Replacement) -> None:
        text, old, new = (
            self._text(replacement.root),
            replacement.old,
            _checked(replacement.new),
        )
        if not old:
            raise _Problem("there is nothing to look for", InvalidRequest)
        near = replacement.near
        most = MAX_CANDIDATES + 1 if near is None else None
        places = list(islice(_places(text.shown, old), most))
        self._spend(len(text.shown) + 50 * len(places))
        if not places:
            raise _Problem("`old` is not in the text", TextNotFound)
        if near is not None:
            closest = min(abs(place - near) for place in places)
            places = [place for place in places if abs(place - near) == closest]
        if len(places) > 1:
            shown = ", ".join(map(str, places[:MAX_CANDIDATES]))
            more = " and further on" if len(places) > MAX_CANDIDATES else ""
            raise _Ambiguous(
                f"`old` is in the text at {shown}{more}", places[:MAX_CANDIDATES]
            )
        text.change(places[0], old, new)

    # Paths

    def _root(self, name: str) -> Any:
        """The shared type of that root, None while it holds nothing: then it can still become any."""
        if name not in self._roots and name in self._names:
            self._roots[name] = root_of(self._doc, name)
        return self._roots.get(name)

    def _patch(self, patch: Patch) -> None:
        path = _parsed(patch.path)
        self._texts.clear()  # a path may change a text too
        match patch.op:
            case "test":
                if not _same(self._read(path), patch.value):
                    raise _Problem(f"{patch.path} is not what it should be")
            case "add":
                self._add(path, check_value(patch.value))
            case "replace":
                self._read(path)
                self._write(path, check_value(patch.value))
            case "remove":
                self._remove(path)
            case "copy":
                self._add(path, *self._taken(_parsed(patch.source)))
            case "move":
                source = _parsed(patch.source)
                if source == path:
                    self._read(path)
                    return
                if path[: len(source)] == source:
                    raise _Problem(
                        f"{patch.source} cannot be moved into itself", InvalidRequest
                    )
                value, fresh = self._taken(source)
                self._remove(source)
                self._add(path, value, fresh)

    def _locate(self, path: _Path) -> _Place:
        """Where a path ends, which is below a root."""
        holder = self._root(path[0])
        if holder is None:
            holder = self._begin(path)
        at = 1
        while True:
            if not isinstance(holder, Map | Array):
                raise _Problem(f"{_shown(path[:at])} is not a map or a list")
            if at == len(path) - 1:
                return _Place(holder, path[at], ())
            child = self._child(holder, path, at)
            if isinstance(child, dict | list):
                return _Place(holder, path[at], path[at + 1 :])
            holder = child
            at += 1

    def _begin(self, path: _Path) -> Any:
        """A root that holds nothing becomes a map or a list by what the path asks of it."""
        if len(path) > 2:
            raise _Problem(f"{_shown(path[:2])} is not there")
        if path[1].isdigit():
            raise _Problem(
                f"{_shown(path[:1])} is empty: first add [] or {{}} there, to say which it is"
            )
        kind = Array if path[1] == "-" else Map
        root = self._roots[path[0]] = self._doc.get(_checked(path[0]), type=kind)
        return root

    def _child(self, holder: Any, path: _Path, at: int) -> Any:
        """What a map or list holds under a part of the path."""
        if isinstance(holder, Map):
            if path[at] not in holder:
                raise _Problem(f"{_shown(path[: at + 1])} is not there")
            return holder[path[at]]
        self._spend(len(holder))
        return holder[_index(path, at, len(holder) - 1)]

    def _find(self, path: _Path) -> Any:
        """What is at a path: a shared type or a plain value."""
        if len(path) == 1:
            root = self._root(path[0])
            if root is None and path[0] not in self._names:
                raise _Problem(f"{_shown(path)} is not there")
            return root
        holder, _, inner = self._locate(path)
        found = self._child(holder, path, len(path) - 1 - len(inner))
        for at in range(len(path) - len(inner), len(path)):
            found = _inner_child(found, path, at)
        return found

    def _read(self, path: _Path) -> Any:
        return self._plain(self._find(path))

    def _plain(self, value: Any) -> Any:
        return plain(value, self._spend_values)

    def _spend_values(self, count: int) -> None:
        self._spend(count * VALUE_WORK)

    def _taken(self, path: _Path) -> tuple[Any, Any]:
        """What `move` and `copy` take along: its value, and a copy in which texts stay texts and what is shared so."""
        found = self._find(path)
        return self._plain(found), _copied(found, path)

    def _add(self, path: _Path, value: Any, fresh: Any = _MADE) -> None:
        """Insert into a list; anywhere else the same as `_write`. `fresh` is what to insert when it is not made of
        the value.
        """
        if len(path) > 1:
            holder, key, inner = self._locate(path)
            if inner:
                return self._write_inner(path, inner, value, _inner_add)
            if isinstance(holder, Array):
                self._spend(len(holder))
                last = len(holder)
                index = last if key == "-" else _index(path, len(path) - 1, last)
                holder.insert(index, self._new(holder, value, fresh))
                return
        self._write(path, value, fresh)

    def _write(self, path: _Path, value: Any, fresh: Any = _MADE) -> None:
        """Make what is at a path this value, changing only what differs."""
        if len(path) == 1:
            return self._write_root(path[0], value)
        holder, key, inner = self._locate(path)
        if inner:
            return self._write_inner(path, inner, value, _inner_write)
        if isinstance(holder, Map):
            if key in holder:
                self._assign(holder, key, value, fresh)
            else:
                holder[_checked(key)] = self._new(holder, value, fresh)
        else:
            index = _index(path, len(path) - 1, len(holder) - 1)
            self._assign(holder, index, value, fresh)

    def _write_root(self, name: str, value: Any) -> None:
        root = self._root(name)
        if root is None:
            kind = _KINDS.get(type(value))
            if kind is None:
                raise _Problem("a root holds a map, a list or a text", InvalidRequest)
            root = self._roots[name] = self._doc.get(_checked(name), type=kind)
        if not self._merge(root, value):
            raise _Problem("a root stays the map, list or text that it is")

    def _write_inner(self, path: _Path, inner: _Path, value: Any, change: Any) -> None:
        """A plain value inside a shared map or list is one value: a change inside it replaces it."""
        holder = self._locate(path).holder
        at = len(path) - 1 - len(inner)
        old = self._child(holder, path, at)
        self._spend(_size(old) * VALUE_WORK)
        new = orjson.loads(orjson.dumps(old))  # a copy
        target = new
        for step in range(at + 1, len(path) - 1):
            target = _inner_child(target, path, step)
        change(target, path, value)
        if not _same(old, new):
            key = path[at] if isinstance(holder, Map) else int(path[at])
            _store(holder, key, check_value(new))

    def _remove(self, path: _Path) -> None:
        if len(path) == 1:
            root = self._find(path)
            if root is not None and not self._merge(root, _EMPTY.get(type(root))):
                raise _Problem(f"{_shown(path)} cannot be changed by path")
            return
        holder, key, inner = self._locate(path)
        if inner:
            self._write_inner(path, inner, None, _inner_remove)
        else:
            self._child(holder, path, len(path) - 1)
            del holder[key if isinstance(holder, Map) else int(key)]

    # Values

    def _assign(self, holder: Any, key: Any, value: Any, fresh: Any = _MADE) -> None:
        """Replace what a map or list holds under a key that is there."""
        old = holder[key]
        if self._merge(old, value) or _same(self._plain(old), value):
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
                        shared[_checked(key)] = self._new(shared, item)
            case Array(), list():
                self._merge_list(shared, value)
            case Text(), str():
                _Characters(shared, self._budget).rewrite(value)
            case _:
                return False
        return True

    def _merge_list(self, shared: Array[Any], value: list[Any]) -> None:
        self._spend_values(len(value))
        old = [_canonical(item) for item in self._plain(shared)]
        new = [_canonical(plain(item)) for item in value]  # 1.0 is 1
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
        self._spend_values(_size(value))
        values = holder.values() if isinstance(holder, Map) else holder
        if any(isinstance(each, dict | list) for each in islice(values, NEIGHBOURS)):
            return value
        return _shared(value)


class _Problem(Exception):
    """Why an operation cannot be done: the document is not so (409), or no document could be (400)."""

    def __init__(self, message: str, error: type[CollabError] = Conflict) -> None:
        super().__init__(message)
        self.error = error


class _Ambiguous(_Problem):
    """There are several places."""

    def __init__(self, message: str, positions: Sequence[int]) -> None:
        super().__init__(message)
        self.positions = positions


class _Place(NamedTuple):
    """The innermost shared map or list on a path, the key in it, and what follows inside a plain value there."""

    holder: Any
    key: str
    inner: _Path


class _Characters:
    """A shared text in characters."""

    def __init__(self, shared: Text, budget: Budget) -> None:
        self._shared, self._budget = shared, budget
        budget.spend(len(shared) + VALUE_WORK)
        self.shown = str(shared)
        self._embeds: list[int] = []  # where something is that is no character
        self._is_rich: bool | None = None  # not known yet
        if len(shared) != len(self.shown.encode()):
            pieces = []
            at = 0
            for piece, _ in shared.diff():
                if not isinstance(piece, str):
                    self._embeds.append(at)
                    piece = EMBED
                pieces.append(piece)
                at += len(piece)
            self.shown = "".join(pieces)
            if self._offset(len(self.shown)) != len(shared):
                raise _Problem("this root holds a text and a list at once")

    def splice(
        self,
        index: int,
        delete: int,
        insert: str,
        attributes: dict[str, Any] | None = None,
    ) -> None:
        """Within bounds. What is inserted in place of something takes its format, if not told another."""
        if not delete and not insert:
            return
        self._budget.spend(4 * len(self.shown) + VALUE_WORK)
        start, stop = self._offset(index), self._offset(index + delete)
        if attributes is None and delete and insert:
            attributes = self._format(index)
        # First in, then out: so it stands where that stood for whoever deletes or inserts there at the same time.
        if insert:
            self._shared.insert(start, insert, attributes)
            if attributes:
                self._is_rich = None
        if delete:
            more = len(insert.encode())
            del self._shared[start + more : stop + more]
        self.shown = self.shown[:index] + insert + self.shown[index + delete :]
        if self._embeds:
            shift = len(insert) - delete
            self._embeds = [
                at + shift if at >= index + delete else at
                for at in self._embeds
                if not index <= at < index + delete
            ]

    def change(self, index: int, old: str, new: str) -> None:
        """Replace what is at a place, except for where it begins and ends alike."""
        start, stop, end = _middle(old, new)
        self.splice(index + start, stop - start, new[start:end])

    def rewrite(self, text: str) -> None:
        """Change word by word what differs."""
        old = self.shown
        start, stop, end = _middle(old, text)
        self._budget.spend(20 * (stop + end - 2 * start))
        words, others = _WORDS.findall(old[start:stop]), _WORDS.findall(text[start:end])
        places = [start]
        for word in words:
            places.append(places[-1] + len(word))
        hunks = changes(words, others, self._budget)
        for first, last, new_first, new_last in reversed(hunks):
            at, end = places[first], places[last]
            self.change(at, old[at:end], "".join(others[new_first:new_last]))

    def _offset(self, index: int) -> int:
        """Where a character begins, as native code counts."""
        before = self.shown[:index]
        offset = index if before.isascii() else len(before.encode())
        if self._embeds:
            offset -= sum(at < index for at in self._embeds) * (len(EMBED.encode()) - 1)
        return offset

    def _format(self, index: int) -> dict[str, Any] | None:
        """How a character is formatted; None when nothing in this text is."""
        if self._is_rich is False:
            return None
        pieces = self._shared.diff()
        self._is_rich = any(attributes for _, attributes in pieces)
        if not self._is_rich:
            return None
        at = 0
        for piece, attributes in pieces:
            at += len(piece) if isinstance(piece, str) else 1
            if at > index:
                return dict(attributes or {})
        return None


# Differences


def _middle(old: str, new: str) -> tuple[int, int, int]:
    """Without what both begin and end with: where the rest begins, and where it ends in the one and the other."""
    start = _alike(old, new)
    tail = _alike(
        old[: start - 1 if start else None : -1],
        new[: start - 1 if start else None : -1],
    )
    return start, len(old) - tail, len(new) - tail


def _alike(one: str, other: str) -> int:
    """How many characters two strings have in common from the beginning."""
    low, high = 0, min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low


Hunk = tuple[int, int, int, int]  # from, to; in the other from, to


def changes(
    old: Sequence[Hashable], new: Sequence[Hashable], budget: Budget | None = None
) -> list[Hunk]:
    """The fewest changes that turn one sequence into another (Myers, "An O(ND) difference algorithm", 1986).

    One change of all in between when finding them takes more than MAX_COMPARISONS.
    """
    start, shorter = 0, min(len(old), len(new))
    while start < shorter and old[start] == new[start]:
        start += 1
    tail = 0
    while tail < shorter - start and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    n, m = len(old) - start - tail, len(new) - start - tail
    if not n and not m:
        return []
    hunks = [(0, n, 0, m)]
    if n and m:
        one, other = old[start : start + n], new[start : start + m]
        trace, comparisons = _trace(one, other)
        if budget is not None:
            budget.spend(comparisons * COMPARISON_WORK)
        if trace is not None:
            hunks = _hunks(trace, n, m)
    return [(start + a, start + b, start + c, start + d) for a, b, c, d in hunks]


def _trace(
    old: Sequence[Hashable], new: Sequence[Hashable]
) -> tuple[list[dict[int, int]] | None, int]:
    """How far each number of changes leads on each diagonal, up to the end; and the comparisons it took."""
    n, m = len(old), len(new)
    reached = {1: 0}
    trace: list[dict[int, int]] = []
    comparisons = 0
    for count in range(n + m + 1):
        trace.append(dict(reached))
        for k in range(-count, count + 1, 2):
            if k < -m or k > n:
                continue
            if _is_down(reached, k, count):
                x = reached.get(k + 1, -1)
            else:
                x = reached.get(k - 1, -1) + 1
            first, y = x, x - k
            while x < n and y < m and old[x] == new[y]:
                x += 1
                y += 1
            reached[k] = x
            comparisons += x - first + 1
            if x >= n and y >= m:
                return trace, comparisons
        if comparisons > MAX_COMPARISONS:
            break
    return None, comparisons


def _is_down(reached: dict[int, int], k: int, count: int) -> bool:
    """Whether the furthest way to a diagonal comes by an insertion, not by a deletion."""
    return k == -count or (
        k != count and reached.get(k - 1, -1) < reached.get(k + 1, -1)
    )


def _hunks(trace: list[dict[int, int]], x: int, y: int) -> list[Hunk]:
    """Go the way back, and join changes that touch."""
    hunks: list[Hunk] = []
    for count in range(len(trace) - 1, 0, -1):
        reached = trace[count]
        k = x - y
        down = _is_down(reached, k, count)
        before = k + 1 if down else k - 1
        old_x = reached[before]
        old_y = old_x - before
        to_x, to_y = (old_x, old_y + 1) if down else (old_x + 1, old_y)
        if hunks and hunks[-1][0] == to_x and hunks[-1][2] == to_y:
            _, end, _, new_end = hunks.pop()
        else:
            end, new_end = to_x, to_y
        hunks.append((old_x, end, old_y, new_end))
        x, y = old_x, old_y
    return hunks[::-1]


def _places(text: str, old: str) -> Iterator[int]:
    """Where a text says this, overlapping or not."""
    at = text.find(old)
    while at >= 0:
        yield at
        at = text.find(old, at + 1)


# Paths and plain values

_Path = tuple[str, ...]
_KINDS: dict[type, Any] = {dict: Map, list: Array, str: Text}
_EMPTY: dict[type, Any] = {Map: {}, Array: [], Text: ""}


def _parsed(pointer: str) -> _Path:
    """The parts of a JSON Pointer (RFC 6901)."""
    if not pointer.startswith("/"):
        raise _Problem("a path begins with / and the name of a root", InvalidRequest)
    if re.search("~(?![01])", pointer):
        raise _Problem("in a path, ~ is written ~0 and / is written ~1", InvalidRequest)
    return tuple(
        part.replace("~1", "/").replace("~0", "~")
        for part in _checked(pointer)[1:].split("/")
    )


def _shown(path: _Path) -> str:
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path)


def _index(path: _Path, at: int, last: int) -> int:
    """A part of a path as the index of a list, up to and including `last`."""
    part = path[at]
    if not re.fullmatch("0|[1-9][0-9]{0,8}", part):
        raise _Problem(f"{_shown(path[: at + 1])} is no index of a list")
    if int(part) > last:
        raise _Problem(f"{_shown(path[: at + 1])} is beyond the end of the list")
    return int(part)


def _inner_child(value: Any, path: _Path, at: int) -> Any:
    if isinstance(value, dict):
        if path[at] not in value:
            raise _Problem(f"{_shown(path[: at + 1])} is not there")
        return value[path[at]]
    if isinstance(value, list):
        return value[_index(path, at, len(value) - 1)]
    raise _Problem(f"{_shown(path[:at])} is not a map or a list")


def _inner_add(value: Any, path: _Path, new: Any) -> None:
    if isinstance(value, list):
        last = len(path) - 1
        index = len(value) if path[-1] == "-" else _index(path, last, len(value))
        value.insert(index, new)
    else:
        _inner_write(value, path, new)


def _inner_write(value: Any, path: _Path, new: Any) -> None:
    if isinstance(value, dict):
        value[path[-1]] = new
    elif isinstance(value, list):
        value[_index(path, len(path) - 1, len(value) - 1)] = new
    else:
        raise _Problem(f"{_shown(path[:-1])} is not a map or a list")


def _inner_remove(value: Any, path: _Path, new: Any) -> None:
    _inner_child(value, path, len(path) - 1)
    del value[path[-1] if isinstance(value, dict) else int(path[-1])]


def check_value(value: Any) -> Any:
    """The value, when a document can hold it: native code would end the process over one nested too deep."""
    todo = [(value, 1)]
    while todo:
        each, depth = todo.pop()
        if depth > MAX_NESTING:
            raise _Problem(
                f"a value is nested deeper than {MAX_NESTING}", InvalidRequest
            )
        if isinstance(each, str):
            _checked(each)
        elif isinstance(each, dict):
            for key in each:
                _checked(key)
            todo += [(item, depth + 1) for item in each.values()]
        elif isinstance(each, list):
            todo += [(item, depth + 1) for item in each]
        elif isinstance(each, int) and abs(each) > MAX_INTEGER:
            raise _Problem(
                "a whole number is too large to be exact in a browser", InvalidRequest
            )
        elif isinstance(each, float) and each - each != 0:
            raise _Problem("a number must be finite", InvalidRequest)
    return value


def _checked(text: str) -> str:
    """The text, when it is one: half a surrogate pair is no character."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise _Problem(
                "half a surrogate pair is no character", InvalidRequest
            ) from None
    return text


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON: `true` is not 1, but 1.0 is."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(
            _same(item, other[key]) for key, item in one.items()
        )
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _canonical(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _size(value: Any) -> int:
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


def _shared(value: Any) -> Any:
    """A plain value as shared types, not yet in any document."""
    if isinstance(value, dict):
        return Map({key: _shared(item) for key, item in value.items()})
    if isinstance(value, list):
        return Array([_shared(item) for item in value])
    return value


def _copied(value: Any, path: _Path) -> Any:
    """The same once more, not yet in any document."""
    match value:
        case Map():
            return Map({key: _copied(item, path) for key, item in value.items()})
        case Array():
            return Array([_copied(item, path) for item in value])
        case Text():
            return Text(str(value))
        case dict() | list():
            return orjson.loads(orjson.dumps(value))
        case str() | int() | float() | None:
            return value
        case _:
            raise _Problem(f"{_shown(path)} holds something that cannot be copied")


def _store(holder: Any, key: Any, value: Any) -> None:
    """Put a value in the place of another."""
    if isinstance(holder, Array):
        del holder[key]
        holder.insert(key, value)
    else:
        holder[key] = value
