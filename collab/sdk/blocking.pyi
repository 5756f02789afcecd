"""The blocking client for type checkers: written by tests/blocking.py."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

from collab.document.anchor import Anchor, Orphaned, Place, Side
from collab.document.blocks import Editor
from collab.sdk.agent import Agent, Kind, Status
from collab.sdk.changes import Change, Changes
from collab.sdk.doc import Doc, Format
from collab.sdk.edits import EditResult, Policy, Range
from collab.sdk.history import (
    Activity,
    Blame,
    Changeset,
    History,
    LoggedTurn,
    Past,
    Undone,
)
from collab.sdk.history import Format as HistoryFormat
from collab.sdk.memory import Where
from collab.sdk.observed import Named
from collab.sdk.presence import Peer, User
from collab.sdk.provider import Level, Provider, State
from collab.sdk.reading import Match, Reading, Section, Version
from collab.sdk.turn import SectionEdit, Turn, TurnRecord

T = TypeVar("T")

class BlockingAgent:
    base_url: str
    name: str
    kind: Kind
    role: str
    def run(self, function: Callable[[Agent], T | Awaitable[T]]) -> T: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    @property
    def rooms(self) -> Mapping[str, BlockingDoc]: ...
    def open(self, room: str, *, editor: Editor | None = ...) -> BlockingDoc: ...
    def close(self, room: str) -> None: ...
    def status(
        self,
        status: Status,
        *,
        detail: str = ...,
        task: str = ...,
        turn: str = ...,
        tail: str = ...,
    ) -> None: ...
    def cursor(
        self, doc: BlockingDoc, anchor: Anchor | None, head: Anchor | None = ...
    ) -> None: ...

class BlockingDoc:
    provider: BlockingProvider
    def run(self, function: Callable[[Doc], T | Awaitable[T]]) -> T: ...
    @property
    def text(self) -> str: ...
    def read(
        self,
        root: str | None = ...,
        format: Format = ...,
        section: str | None = ...,
        path: str | None = ...,
    ) -> Reading: ...
    def find(
        self,
        text: str,
        near: Where | None = ...,
        root: str | None = ...,
        path: str | None = ...,
    ) -> list[Match]: ...
    def get(self, path: str) -> Any: ...
    def version(self) -> Version: ...
    def anchor(
        self,
        index: int,
        side: Side = ...,
        root: str | None = ...,
        path: str | None = ...,
    ) -> Anchor: ...
    def resolve(self, anchor: Anchor) -> Place | Orphaned: ...
    def turn(
        self,
        *,
        reason: str = ...,
        task: str = ...,
        model: str = ...,
        on_conflict: Policy = ...,
        rollback: bool = ...,
    ) -> BlockingTurn: ...
    @property
    def history(self) -> BlockingHistory: ...
    def blame(
        self,
        range: Match | Section | tuple[Where, Where] | None = ...,
        *,
        root: str | None = ...,
        path: str | None = ...,
        at: int | None = ...,
    ) -> Blame: ...
    def changeset(
        self,
        after: int,
        to: int | None = ...,
        *,
        root: str | None = ...,
        path: str | None = ...,
    ) -> Changeset: ...
    def activity(
        self, *, after: int = ..., before: int | None = ..., limit: int = ...
    ) -> Activity: ...
    def logged_turn(
        self, turn: str | Named, principal: str | None = ...
    ) -> LoggedTurn: ...
    def at(
        self,
        when: int | datetime,
        *,
        format: HistoryFormat = ...,
        root: str | None = ...,
    ) -> Past: ...
    def undo(
        self, turn: str | Named, principal: str | None = ..., *, reason: str = ...
    ) -> Undone: ...
    def redo(
        self, turn: str | Named, principal: str | None = ..., *, reason: str = ...
    ) -> Undone: ...
    def undo_by(
        self,
        principal: str,
        since: datetime,
        until: datetime | None = ...,
        *,
        reason: str = ...,
    ) -> Undone: ...
    def cancel(self, turn: str | Named, principal: str | None = ...) -> None: ...
    def changes(
        self,
        *,
        after: str | None = ...,
        root: str | None = ...,
        debounce: float = ...,
        max_wait: float = ...,
        ignore_self: bool = ...,
    ) -> BlockingChanges: ...
    def wait_for(
        self, predicate: Callable[[Doc], bool], timeout: float | None = ...
    ) -> None: ...

class BlockingTurn:
    id: str
    record: TurnRecord | None
    def run(self, function: Callable[[Turn], T | Awaitable[T]]) -> T: ...
    @property
    def inserted(self) -> int: ...
    @property
    def deleted(self) -> int: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    def insert(
        self,
        where: Where,
        text: str,
        *,
        root: str | None = ...,
        path: str | None = ...,
        attributes: Mapping[str, Any] | None = ...,
    ) -> EditResult: ...
    def replace(
        self,
        old: str | Range,
        new: str,
        *,
        near: Where | None = ...,
        root: str | None = ...,
        path: str | None = ...,
    ) -> EditResult: ...
    def delete(
        self, range: Range, *, root: str | None = ..., path: str | None = ...
    ) -> EditResult: ...
    def patch(
        self, diff: str, *, root: str | None = ..., path: str | None = ...
    ) -> EditResult: ...
    def rewrite(
        self,
        text: str,
        *,
        root: str | None = ...,
        path: str | None = ...,
        force: bool = ...,
    ) -> EditResult: ...
    def format(
        self,
        range: Range,
        *,
        root: str | None = ...,
        path: str | None = ...,
        **attributes: Any,
    ) -> EditResult: ...
    def stream(
        self,
        where: Where,
        pieces: Iterable[str],
        *,
        replace: Range | None = ...,
        root: str | None = ...,
        path: str | None = ...,
    ) -> EditResult: ...
    def section(
        self, title: str, *, root: str | None = ..., path: str | None = ...
    ) -> BlockingSectionEdit: ...
    def set(self, path: str, value: Any) -> EditResult: ...
    def json_patch(self, operations: Sequence[Mapping[str, Any]]) -> EditResult: ...

class BlockingSectionEdit:
    def run(self, function: Callable[[SectionEdit], T | Awaitable[T]]) -> T: ...
    @property
    def end(self) -> Anchor: ...
    def replace(self, text: str) -> EditResult: ...
    def append(self, text: str) -> EditResult: ...
    def insert_before(self, text: str) -> EditResult: ...
    def rename(self, title: str) -> EditResult: ...
    def delete(self) -> EditResult: ...

class BlockingChanges:
    def run(self, function: Callable[[Changes], T | Awaitable[T]]) -> T: ...
    def __iter__(self) -> Iterator[Change]: ...

class BlockingHistory:
    def run(self, function: Callable[[History], T | Awaitable[T]]) -> T: ...
    def position(self) -> tuple[str, int]: ...
    def blame(
        self,
        root: str | None = ...,
        start: int | None = ...,
        end: int | None = ...,
        *,
        path: str | None = ...,
        at: int | None = ...,
    ) -> Blame: ...
    def changeset(
        self,
        after: int,
        to: int | None = ...,
        *,
        root: str | None = ...,
        path: str | None = ...,
    ) -> Changeset: ...
    def activity(
        self, *, after: int = ..., before: int | None = ..., limit: int = ...
    ) -> Activity: ...
    def turn(self, turn: str, principal: str | None = ...) -> LoggedTurn: ...
    def at(
        self,
        when: int | datetime,
        *,
        format: HistoryFormat = ...,
        root: str | None = ...,
    ) -> Past: ...
    def undo(
        self, turn: str, principal: str | None = ..., *, reason: str = ...
    ) -> Undone: ...
    def redo(
        self, turn: str, principal: str | None = ..., *, reason: str = ...
    ) -> Undone: ...
    def undo_by(
        self,
        principal: str,
        since: datetime,
        until: datetime | None = ...,
        *,
        reason: str = ...,
    ) -> Undone: ...
    def cancel(self, turn: str, principal: str | None = ...) -> None: ...

class BlockingProvider:
    room: str
    def run(self, function: Callable[[Provider], T | Awaitable[T]]) -> T: ...
    @property
    def state(self) -> State: ...
    @property
    def peers(self) -> Mapping[int, Peer]: ...
    @property
    def unseen(self) -> int: ...
    @property
    def user(self) -> User: ...
    @property
    def position(self) -> int: ...
    @property
    def epoch(self) -> str: ...
    def states(self) -> Iterator[State]: ...
    def presences(self) -> Iterator[Mapping[int, Peer]]: ...
    def synced(self, timeout: float | None = ...) -> None: ...
    def flush(self, level: Level = ..., timeout: float | None = ...) -> int: ...
    def show(self, state: Mapping[str, Any] | None) -> None: ...
    @property
    def shown(self) -> Mapping[str, Any]: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
