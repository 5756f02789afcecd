"""Who wrote what, what the document was, and taking back: asked of the server, whose log knows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from collab.sdk.errors import Refused
from collab.sdk.requests import Answer, Requests, quoted

T = TypeVar("T")
Format = Literal["text", "markdown", "json", "update"]


@dataclass(frozen=True, slots=True)
class Author:
    """Who did it and as a part of what, as the server knows it from credential and log. "" is what it does not know."""

    principal: str = ""
    name: str = ""
    kind: str = ""  # human, agent or service
    on_behalf_of: str = ""
    role: str = ""
    turn: str = ""
    task: str = ""
    model: str = ""
    reason: str = ""
    undoes: str = ""  # the turn that this one takes back
    by: str = ""  # whose turn that was
    introduced_by: str = ""  # who brought it in, when that is somebody else


@dataclass(frozen=True, slots=True)
class Span:
    """Characters, items of a list or a key of a map, and who wrote them; `when` may be known to the minute only."""

    start: int
    end: int
    author: Author
    when: datetime
    path: str | None = None  # in XML: inside the root, the text or what begins the line
    key: str | None = None  # of a map


@dataclass(frozen=True, slots=True)
class Blame:
    """A part of the document, at a position of its log."""

    epoch: str
    position: int
    spans: tuple[Span, ...]
    root: str = ""
    path: str = ""
    kind: str = "text"  # what is there: text, xml, array, map, value or empty

    def at(self, index: int) -> Span | None:
        """Who wrote this character."""
        return next(
            (span for span in self.spans if span.start <= index < span.end), None
        )


@dataclass(frozen=True, slots=True)
class TextChange:
    """At one place of a text, what one author took away and put there; `start` counts in the text at the end."""

    root: str
    start: int
    old: str
    new: str
    author: Author
    when: datetime
    position: int  # of the last update that did it
    path: str = ""  # of the text, inside the root


@dataclass(frozen=True, slots=True)
class ItemsChange:
    """At one place of a list, or among the nodes of XML, what one author took away and put there. An element is a dict
    of `tag`, `attributes` and `children`.
    """

    root: str
    start: int  # in the list at the end
    old: tuple[Any, ...]
    new: tuple[Any, ...]
    author: Author
    when: datetime
    position: int
    path: str = ""  # of the list, inside the root


@dataclass(frozen=True, slots=True)
class KeyChange:
    """A key of a map, or an attribute of an element; `old` and `new` are empty where there is none."""

    root: str
    key: str
    old: tuple[Any, ...]
    new: tuple[Any, ...]
    author: Author
    when: datetime
    position: int
    path: str = ""  # of the map, inside the root


LoggedChange = TextChange | ItemsChange | KeyChange


@dataclass(frozen=True, slots=True)
class Changeset:
    """What happened after one position of the log, up to and with another; what came and went between is not in it."""

    epoch: str
    after: int
    to: int
    changes: tuple[LoggedChange, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """A turn, or what somebody did without one between two pauses."""

    author: Author
    first: int  # positions in the log
    last: int
    began: datetime
    ended: datetime
    inserted: int  # as Yjs counts
    deleted: int
    undone_by: str  # the turn that took it back


@dataclass(frozen=True, slots=True)
class Activity:
    """One page of who did what, the newest first; `next` is `before` of the page that follows."""

    epoch: str
    position: int
    entries: tuple[Entry, ...]
    next: int | None


@dataclass(frozen=True, slots=True)
class LoggedTurn:
    """A turn as the log has it."""

    epoch: str
    position: int
    author: Author
    first: int
    last: int
    began: datetime
    ended: datetime
    undone_by: str


@dataclass(frozen=True, slots=True)
class Past:
    """The document as it was. `content` is text; values by the names of roots as JSON, bytes for Yjs as an update."""

    epoch: str
    position: int
    content: Any


@dataclass(frozen=True, slots=True)
class Undone:
    """`turn` is the turn that took back; `is_changed` is False when there was nothing left to take back."""

    epoch: str
    position: int
    turn: str
    is_changed: bool


class History:
    """Of one room. Every question raises `NotFound` for what the log no longer holds, `Forbidden` without the right."""

    def __init__(self, requests: Requests, room: str) -> None:
        self._requests = requests
        self._path = f"/v1/rooms/{quoted(room)}"

    async def position(self) -> tuple[str, int]:
        """Epoch and position of the last update in the log."""
        found = (await self._requests.get(self._path)).json()
        return _read(lambda: (str(found["epoch"]), int(found["position"])))

    async def blame(
        self,
        root: str | None = None,
        start: int | None = None,
        end: int | None = None,
        *,
        path: str | None = None,
        at: int | None = None,
    ) -> Blame:
        """Who wrote what is at a path inside a root, or what of it is from `start` to `end`; now or at a position of the
        log.
        """
        answer = await self._requests.get(
            f"{self._path}/blame", root=root, path=path, start=start, end=end, at=at
        )
        return _read(lambda: read_blame(answer.json()))

    async def changeset(
        self,
        after: int,
        to: int | None = None,
        *,
        root: str | None = None,
        path: str | None = None,
    ) -> Changeset:
        """What happened after one position, up to and with another: anywhere, in a root, or in what is at a path there."""
        query = {"from": after, "to": to, "root": root, "path": path}
        answer = await self._requests.get(f"{self._path}/changeset", **query)
        return _read(lambda: read_changeset(answer.json()))

    async def activity(
        self, *, after: int = 0, before: int | None = None, limit: int = 50
    ) -> Activity:
        """Who did what, the newest first, one entry for each turn and for each sitting of a person."""
        answer = await self._requests.get(
            f"{self._path}/activity", after=after, before=before, limit=limit
        )
        return _read(lambda: read_activity(answer.json()))

    async def turn(self, turn: str, principal: str | None = None) -> LoggedTurn:
        """A turn: who took it and for what, and whether it was taken back."""
        path = f"{self._path}/turns/{quoted(turn)}"
        answer = await self._requests.get(path, principal=principal)
        return _read(lambda: read_turn(answer.json()))

    async def at(
        self, when: int | datetime, *, format: Format = "text", root: str | None = None
    ) -> Past:
        """The document at a position of the log, or at a time."""
        answer = await self._requests.get(
            f"{self._path}/document", format=format, root=root, **_when(when)
        )
        epoch, _, position = answer.tag.rpartition("-")
        content: Any = answer.content
        if format != "update":
            content = answer.json() if format == "json" else _text(answer)
        return _read(lambda: Past(epoch, int(position), content))

    async def undo(
        self, turn: str, principal: str | None = None, *, reason: str = ""
    ) -> Undone:
        """Take a turn back, whenever it was, and leave what others wrote inside of it.

        Without a principal it is one's own turn, or the only one of that id.
        """
        return await self._take_back(turn, "undo", principal, reason)

    async def redo(
        self, turn: str, principal: str | None = None, *, reason: str = ""
    ) -> Undone:
        """Take back what took this turn back."""
        return await self._take_back(turn, "redo", principal, reason)

    async def undo_by(
        self,
        principal: str,
        since: datetime,
        until: datetime | None = None,
        *,
        reason: str = "",
    ) -> Undone:
        """Take back everything that a principal did in a time."""
        body: dict[str, Any] = {"principal": principal, "reason": reason}
        body["from_time"] = _milliseconds(since)
        if until is not None:
            body["to_time"] = _milliseconds(until)
        answer = await self._requests.post(f"{self._path}/undo", body)
        return _read(lambda: read_undone(answer.json()))

    async def cancel(self, turn: str, principal: str | None = None) -> None:
        """Stop a turn, wherever it is being taken. Raises NotFound when nobody has it open."""
        whose = f"?principal={quoted(principal)}" if principal else ""
        path = f"{self._path}/turns/{quoted(turn)}/cancel"
        await self._requests.post(path + whose)

    async def _take_back(
        self, turn: str, verb: str, principal: str | None, reason: str
    ) -> Undone:
        path = f"{self._path}/turns/{quoted(turn)}/{verb}"
        body = {"principal": principal or "", "reason": reason}
        answer = await self._requests.post(path, body)
        return _read(lambda: read_undone(answer.json()))


# What the server answers


def read_blame(found: Mapping[str, Any]) -> Blame:
    authors = _authors(found)
    return Blame(
        str(found["epoch"]),
        int(found["position"]),
        tuple(_span(each, authors) for each in found["spans"]),
        str(found.get("root", "")),
        str(found.get("path", "")),
        str(found.get("kind", "text")),
    )


def read_changeset(found: Mapping[str, Any]) -> Changeset:
    authors = _authors(found)
    return Changeset(
        str(found["epoch"]),
        int(found["from"]),
        int(found["to"]),
        tuple(_change(each, authors) for each in found["changes"]),
    )


def read_activity(found: Mapping[str, Any]) -> Activity:
    authors = _authors(found)
    following = found["next"]
    return Activity(
        str(found["epoch"]),
        int(found["position"]),
        tuple(
            Entry(
                authors[each["author"]],
                int(each["first"]),
                int(each["last"]),
                _moment(each["began"]),
                _moment(each["ended"]),
                int(each["inserted"]),
                int(each["deleted"]),
                str(each["undone_by"]),
            )
            for each in found["entries"]
        ),
        None if following is None else int(following),
    )


def read_turn(found: Mapping[str, Any]) -> LoggedTurn:
    return LoggedTurn(
        str(found["epoch"]),
        int(found["position"]),
        _author(found["author"]),
        int(found["first"]),
        int(found["last"]),
        _moment(found["began"]),
        _moment(found["ended"]),
        str(found["undone_by"]),
    )


def read_undone(found: Mapping[str, Any]) -> Undone:
    return Undone(
        str(found["epoch"]),
        int(found["position"]),
        str(found.get("turn", "")),
        bool(found["changed"]),
    )


def _authors(found: Mapping[str, Any]) -> Sequence[Author]:
    return [_author(each) for each in found["authors"]]


def _author(found: Mapping[str, Any]) -> Author:
    """Fields that a newer server names are passed over."""
    return Author(**{name: str(found[name]) for name in _FIELDS if found.get(name)})


_FIELDS = tuple(field.name for field in fields(Author))


def _span(found: Mapping[str, Any], authors: Sequence[Author]) -> Span:
    return Span(
        int(found["start"]),
        int(found["end"]),
        authors[found["author"]],
        _moment(found["time"]),
        _said(found.get("path")),
        _said(found.get("key")),
    )


def _change(found: Mapping[str, Any], authors: Sequence[Author]) -> LoggedChange:
    root, start, path = str(found["root"]), found["start"], str(found.get("path", ""))
    old, new = found["old"], found["new"]
    by = authors[found["author"]], _moment(found["time"]), int(found["position"]), path
    kind = found.get("kind", "text")
    if kind == "text":
        return TextChange(root, int(start), str(old), str(new), *by)
    if kind == "items":
        return ItemsChange(root, int(start), tuple(old), tuple(new), *by)
    return KeyChange(root, str(found["key"]), tuple(old), tuple(new), *by)


def _said(found: Any) -> str | None:
    return None if found is None else str(found)


def _read(reading: Callable[[], T]) -> T:
    try:
        return reading()
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError):
        raise Refused("the server's answer is not what was asked for") from None


def _text(answer: Answer) -> str:
    try:
        return answer.content.decode()
    except UnicodeDecodeError:
        raise Refused("the server's answer is no text") from None


def _moment(milliseconds: Any) -> datetime:
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC)


def _milliseconds(when: datetime) -> int:
    """A time without a zone is one of this machine's clock, as everywhere in Python."""
    return round(when.timestamp() * 1000)


def _when(at: int | datetime) -> dict[str, int]:
    if isinstance(at, datetime):
        return {"at_time": _milliseconds(at)}
    return {"at": int(at)}
