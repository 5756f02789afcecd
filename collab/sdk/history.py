"""Who wrote what, what the document was, and taking back: asked of the server, whose log knows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar
from urllib.parse import quote

from collab.sdk.errors import Refused
from collab.sdk.requests import Answer, Requests

T = TypeVar("T")
Format = Literal["text", "markdown", "json"]


@dataclass(frozen=True, slots=True)
class Author:
    """Who did it and as a part of what, as the server knows it from credential and log. "" is what it does not know."""

    principal: str = ""
    name: str = ""
    kind: str = ""  # human, agent or service
    on_behalf_of: str = ""
    turn: str = ""
    task: str = ""
    model: str = ""
    reason: str = ""
    undoes: str = ""  # the turn that this one takes back
    introduced_by: str = ""  # who brought it in, when that is somebody else


@dataclass(frozen=True, slots=True)
class Span:
    """Characters of the document and who wrote them; `when` may be known to the minute only."""

    start: int
    end: int
    author: Author
    when: datetime


@dataclass(frozen=True, slots=True)
class Blame:
    """A part of the document, at a position of its log."""

    epoch: str
    position: int
    spans: tuple[Span, ...]

    def at(self, index: int) -> Span | None:
        """Who wrote this character."""
        return next(
            (span for span in self.spans if span.start <= index < span.end), None
        )


@dataclass(frozen=True, slots=True)
class Deletion:
    """So many characters that stood at a place are gone."""

    at: int
    length: int
    author: Author
    when: datetime


@dataclass(frozen=True, slots=True)
class Changeset:
    """What happened between two positions: `inserted` counts in the document at `after`, `deleted` in it too."""

    epoch: str
    before: int
    after: int
    inserted: tuple[Span, ...]
    deleted: tuple[Deletion, ...]


@dataclass(frozen=True, slots=True)
class Activity:
    """What one author did in one go."""

    first: int  # positions in the log
    last: int
    began: datetime
    ended: datetime
    author: Author


@dataclass(frozen=True, slots=True)
class Past:
    """The document as it was; `content` is text, or values by the names of roots when asked for as JSON."""

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
        self._path = f"/v1/rooms/{quote(room, safe='')}"

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
        at: int | datetime | None = None,
    ) -> Blame:
        """Who wrote the characters from `start` to `end`, now or in the past."""
        answer = await self._requests.get(
            f"{self._path}/blame", root=root, start=start, end=end, **_when(at)
        )
        return _read(lambda: read_blame(answer.json()))

    async def changeset(
        self, before: int, after: int | None = None, *, root: str | None = None
    ) -> Changeset:
        """What happened after one position, up to and with another."""
        query = {"from": before, "to": after, "root": root}
        answer = await self._requests.get(f"{self._path}/changeset", **query)
        return _read(lambda: read_changeset(answer.json()))

    async def activity(self, after: int = 0, limit: int = 100) -> tuple[Activity, ...]:
        """Who did what, oldest first, one entry for each turn and each stretch of a person's edits."""
        answer = await self._requests.get(
            f"{self._path}/activity", after=after, limit=limit
        )
        return _read(lambda: read_activity(answer.json()))

    async def at(
        self, when: int | datetime, *, format: Format = "text", root: str | None = None
    ) -> Past:
        """The document at a position of the log, or at a time."""
        answer = await self._requests.get(
            f"{self._path}/document", format=format, root=root, **_when(when)
        )
        epoch, _, position = answer.tag.rpartition("-")
        content = answer.json() if format == "json" else _text(answer)
        return _read(lambda: Past(epoch, int(position), content))

    async def undo(self, turn: str, principal: str | None = None) -> Undone:
        """Take a turn back, whenever it was, and leave what others wrote inside of it."""
        return await self._take_back(f"/turns/{quote(turn, safe='')}/undo", principal)

    async def redo(self, turn: str, principal: str | None = None) -> Undone:
        """Take back what took this turn back."""
        return await self._take_back(f"/turns/{quote(turn, safe='')}/redo", principal)

    async def undo_by(
        self, principal: str, since: datetime, until: datetime | None = None
    ) -> Undone:
        """Take back everything that a principal did in a time."""
        body: dict[str, Any] = {"principal": principal}
        body["from_time"] = _milliseconds(since)
        if until is not None:
            body["to_time"] = _milliseconds(until)
        answer = await self._requests.post(f"{self._path}/undo", body)
        return _read(lambda: read_undone(answer.json()))

    async def cancel(self, turn: str, principal: str | None = None) -> None:
        """Stop a turn, wherever it is being taken."""
        body = {"principal": principal} if principal else {}
        await self._requests.post(
            f"{self._path}/turns/{quote(turn, safe='')}/cancel", body
        )

    async def _take_back(self, path: str, principal: str | None) -> Undone:
        body = {"principal": principal} if principal else {}
        answer = await self._requests.post(self._path + path, body)
        return _read(lambda: read_undone(answer.json()))


# What the server answers


def read_blame(found: Mapping[str, Any]) -> Blame:
    authors = _authors(found)
    return Blame(
        str(found["epoch"]),
        int(found["position"]),
        tuple(_span(each, authors) for each in found["spans"]),
    )


def read_changeset(found: Mapping[str, Any]) -> Changeset:
    authors = _authors(found)
    return Changeset(
        str(found["epoch"]),
        int(found["from"]),
        int(found["to"]),
        tuple(_span(each, authors) for each in found["inserted"]),
        tuple(
            Deletion(
                int(each["at"]),
                int(each["length"]),
                authors[each["author"]],
                _moment(each["time"]),
            )
            for each in found["deleted"]
        ),
    )


def read_activity(found: Mapping[str, Any]) -> tuple[Activity, ...]:
    authors = _authors(found)
    return tuple(
        Activity(
            int(each["first"]),
            int(each["last"]),
            _moment(each["began"]),
            _moment(each["ended"]),
            authors[each["author"]],
        )
        for each in found["entries"]
    )


def read_undone(found: Mapping[str, Any]) -> Undone:
    return Undone(
        str(found["epoch"]),
        int(found["position"]),
        str(found.get("turn", "")),
        bool(found["changed"]),
    )


def _authors(found: Mapping[str, Any]) -> Sequence[Author]:
    """Fields that a newer server names are passed over."""
    return [
        Author(**{name: str(each[name]) for name in _FIELDS if each.get(name)})
        for each in found["authors"]
    ]


_FIELDS = tuple(field.name for field in fields(Author))


def _span(found: Mapping[str, Any], authors: Sequence[Author]) -> Span:
    return Span(
        int(found["start"]),
        int(found["end"]),
        authors[found["author"]],
        _moment(found["time"]),
    )


def _read(reading: Callable[[], T]) -> T:
    try:
        return reading()
    except (KeyError, IndexError, TypeError, ValueError, OverflowError):
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


def _when(at: int | datetime | None) -> dict[str, int]:
    if at is None:
        return {}
    return (
        {"at_time": _milliseconds(at)} if isinstance(at, datetime) else {"at": int(at)}
    )
