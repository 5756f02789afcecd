"""Entries on their way to Redis: batches one after the other, each as one pipeline over one connection."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from collab import logs
from collab.connection import Call, Client, ForeignContent
from collab.errors import (
    CollabError,
    RoomNotFound,
    RoomUnavailable,
    StoreCorrupt,
    StoreUnavailable,
)
from collab.names import key_of, spoken
from collab.store.base import Done, Entry
from collab.store.redis import scripts
from collab.store.redis.entries import FORMAT, pack_abouts, pack_entry

log = logs.logger(__name__)

MAX_BATCH_BYTES = 8 << 20  # what Redis takes well within the time of a command
MAX_BATCH_ENTRIES = 2000
MAX_DOUBTFUL = 10_000  # rooms of failed batches; beyond that listings wait for `tidy`


class _Append(NamedTuple):
    entries: Sequence[Entry]
    done: Done


class _Job(NamedTuple):
    run: Callable[[], Awaitable[Any]]
    answer: asyncio.Future[Any]


Answer = tuple[Done, Entry, CollabError | None]


class Appender:
    """Appends and what must stay behind them, in the order of the calls.

    Never two batches at a time, so nothing overtakes; at most one each window. When one fails, everything that waits
    fails with it. Bounded by whoever appends: the journal stops members before too much waits.
    """

    def __init__(
        self,
        client: Client,
        cluster: str,
        *,
        window_seconds: float,
        created: Callable[[Iterable[str]], Awaitable[None]],
        trouble: Callable[[], StoreUnavailable | None],
    ) -> None:
        self._client, self._cluster = client, cluster
        self._window_seconds = window_seconds
        self._created, self._trouble = created, trouble
        self._queue: deque[_Append | _Job] = deque()
        self._wake = asyncio.Event()
        self._is_closing = False
        self._doubtful: set[str] = set()  # may have been made by a batch that failed

    def append(self, entries: Sequence[Entry], done: Done) -> None:
        self._queue.append(_Append(entries, done))
        self._wake.set()

    async def behind(self, run: Callable[[], Awaitable[Any]]) -> Any:
        """Do this once all that was appended before is logged; StoreUnavailable when it could not be."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queue.append(_Job(run, answer))
        self._wake.set()
        return await answer

    def close(self) -> None:
        """`run` ends once the queue is empty."""
        self._is_closing = True
        self._wake.set()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        last = -self._window_seconds
        while True:
            while not self._queue:
                if self._is_closing:
                    return
                self._wake.clear()
                await self._wake.wait()
            pause = last + self._window_seconds - loop.time()
            if pause > 0 and not self._is_closing:
                await asyncio.sleep(pause)
            last = loop.time()
            await self._commit()

    async def _commit(self) -> None:
        appends = self._take()
        try:
            if appends:
                await self._append(appends)
                return
            job = self._queue.popleft()
            assert isinstance(job, _Job)
            try:
                _resolve(job.answer, await job.run(), None)
            except CollabError as error:
                _resolve(job.answer, None, error)
        except StoreUnavailable as error:
            self._fail(appends, error)

    def _take(self) -> list[_Append]:
        """From the head of the queue what goes into one batch; nothing when a job is there."""
        taken: list[_Append] = []
        size = count = 0
        while self._queue and isinstance(head := self._queue[0], _Append):
            count += len(head.entries)
            size += sum(len(one) for entry in head.entries for one in entry.updates)
            if taken and (size > MAX_BATCH_BYTES or count > MAX_BATCH_ENTRIES):
                break
            taken.append(head)
            self._queue.popleft()
        return taken

    async def _append(self, appends: Sequence[_Append]) -> None:
        trouble = self._trouble()
        if trouble is not None:
            raise trouble
        histories: dict[tuple[str, str], list[Entry]] = {}
        for entries, _ in appends:
            for entry in entries:
                histories.setdefault((entry.room, entry.epoch), []).append(entry)
        calls = [self._call(*history, of) for history, of in histories.items()]
        try:
            answers = await self._client.call_all(calls)
        except StoreUnavailable:
            self._doubt(room for room, _ in histories)
            raise
        outcomes = {
            history: _outcome(history[0], answer)
            for history, answer in zip(histories, answers, strict=True)
        }
        await self._list(outcomes)
        failed = _answer(appends, outcomes)
        if failed:
            self._doubt(entry.room for _, entry, _ in failed)
            self._fail((), failed[0][2])
            return

    async def _list(self, outcomes: dict[tuple[str, str], _Outcome]) -> None:
        """Before anybody is answered, so that a room which was written to is listed."""
        made = {
            room
            for (room, _), outcome in outcomes.items()
            if outcome.error is None and (outcome.is_created or room in self._doubtful)
        }
        if made:
            self._doubtful -= made
            await self._created(made)

    def _doubt(self, rooms: Iterable[str]) -> None:
        if len(self._doubtful) < MAX_DOUBTFUL:
            self._doubtful.update(rooms)

    def _call(self, room: str, epoch: str, entries: Iterable[Entry]) -> Call:
        arguments: list[str | bytes | int] = [FORMAT, epoch]
        for entry in entries:
            record = pack_entry(entry)
            arguments += (
                entry.origin,
                entry.position,
                len(entry.updates),
                entry.milliseconds,
                record,
                pack_abouts(entry, record),
            )
        names = ("room", f"{epoch}:log", f"{epoch}:origins", f"{epoch}:owners")
        keys = [key_of(self._cluster, room, name) for name in (*names, "waiting")]
        return Call(scripts.APPEND, keys, arguments)

    def _fail(self, appends: Sequence[_Append], error: CollabError | None) -> None:
        """These, and all that is queued behind them."""
        waiting, self._queue = self._queue, deque()
        answers: list[Answer] = []
        for each in (*appends, *waiting):
            if isinstance(each, _Job):
                _resolve(each.answer, None, error)
            else:
                answers += ((each.done, entry, error) for entry in each.entries)
        _tell(answers)


class _Outcome(NamedTuple):
    """What became of the entries of one history in a batch, which are logged together or not at all."""

    error: CollabError | None
    is_created: bool = False
    logged: Sequence[int] = ()


def _outcome(room: str, answer: Any) -> _Outcome:
    match answer:
        case [created, *logged]:
            return _Outcome(None, bool(created), logged)
        case b"newer":
            error: CollabError = RoomUnavailable(
                f"room {spoken(room)} was written by a newer version of the server"
            )
        case b"over":
            error = RoomNotFound(f"room {spoken(room)} was deleted, or has begun anew")
        case StoreUnavailable():
            error = answer
        case ForeignContent() | _:
            log.error("a key of the room holds what others have written", room=room)
            error = StoreCorrupt(
                f"room {spoken(room)}: a key of it in Redis holds what others have written"
            )
    return _Outcome(error)


def _answer(
    appends: Sequence[_Append], outcomes: dict[tuple[str, str], _Outcome]
) -> list[Answer]:
    """Tell what is settled; returns what has to be tried again."""
    logged = {history: iter(outcome.logged) for history, outcome in outcomes.items()}
    settled: list[Answer] = []
    failed: list[Answer] = []
    for entries, done in appends:
        for entry in entries:
            history = entry.room, entry.epoch
            error = outcomes[history].error
            if isinstance(error, StoreUnavailable):
                failed.append((done, entry, error))
                continue
            if error is None:
                entry = entry._replace(logged=next(logged[history]))
            settled.append((done, entry, error))
    _tell(settled)
    _tell(failed)
    return failed


def _tell(answers: Iterable[Answer]) -> None:
    """Neighbours with one fate in one call; who is refused, alone."""
    for (_, is_alone), some in groupby(answers, _fate):
        group = list(some)
        if is_alone:
            for done, entry, error in group:
                done((entry,), error)
        else:
            group[0][0]([entry for _, entry, _ in group], group[0][2])


def _fate(answer: Answer) -> tuple[tuple[int, bool], bool]:
    done, _, error = answer
    is_alone = error is not None and not isinstance(error, StoreUnavailable)
    return (id(done), error is None), is_alone


def _resolve(
    answer: asyncio.Future[Any], value: Any, error: CollabError | None
) -> None:
    if answer.done():
        return
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(value)
