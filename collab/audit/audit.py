"""The audit log of a server: a bounded queue, and one thread that writes it to the chain."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from collab import logs
from collab.audit.chain import Chain, Happening
from collab.errors import CollabError, ConfigurationError, StoreUnavailable
from collab.metrics import Metrics
from collab.names import SEPARATOR, split_key
from collab.store.base import Author, Entry

# What may happen, and what its line means. `deploy/README.md` has this table.
EVENTS = {
    "begin": "A file begins; `previous` is the hash that it goes on from.",
    "torn": "A crash tore the line before; its length and SHA-256.",
    "gap": "So many events could not be kept, since the log could not be written fast enough.",
    "start": "A server began to listen.",
    "drain": "A server was told to stop.",
    "stop": "A server has ended in good order.",
    "join": "A connection entered a room; what it may do there.",
    "leave": "It left.",
    "rights": "What a connection may do in its room has changed under it.",
    "denied": "Authentication or permission was refused; `code`, `address`, how many `times` in half a second.",
    "update": "Edits were logged: positions `first` to `last`, and in order how many `by` which principal.",
    "room.create": "A room was created.",
    "room.delete": "A room was deleted.",
    "room.restore": "A deleted room was restored.",
    "room.describe": "A room's own metadata was changed.",
    "room.disconnect": "Connections of a room were ended.",
    "turn.cancel": "A turn was to be stopped, of the principal that is named or of whoever had it open.",
    "room.export": "A room's content was taken out by the command line. What is read over HTTP is not written down.",
    "room.import": "Content was put into a room by the command line.",
    "room.repair": "Damaged records of a room, or of all, were set aside by command.",
    "room.compact": "Checkpoints of a room, or of all, were made by command.",
    "backup": "The data directory was backed up.",
    "restore": "A data directory was made from a backup.",
    "grant": "Operations were granted to a principal.",
    "ungrant": "A grant was taken back.",
    "revoke": "A principal or a token was revoked.",
    "unrevoke": "A revocation was taken back.",
    "key.create": "An API key was made.",
    "key.revoke": "An API key was revoked.",
    "key.rotate": "An API key got a new secret.",
    "ticket": "A single-use ticket was handed out.",
}

MAX_WAITING = 50_000  # events in memory
MAX_RUNS = 500  # changes of author in one line
MAX_DENIALS = 100  # different ones in one batch; the others are counted together
FLUSH_SECONDS = 0.5
RETRY_SECONDS = 5.0
CONFIRM_SECONDS = 5.0  # that a verb waits for its line
STOP_SECONDS = 10.0

log = logs.logger(__name__)


class Edits(NamedTuple):
    """What one commit took into the log of one room."""

    seconds: float
    room: str
    first: int
    authors: Sequence[Author]


class Awaited(NamedTuple):
    """An event whose cause waits until it is on disk; it is forgotten when it cannot be written."""

    happening: Happening
    done: Callable[[CollabError | None], None]


Item = Happening | Edits | Awaited


class Audit:
    """Takes events without waiting, and writes them at least once in half a second. A context manager.

    When more than `MAX_WAITING` events wait, further ones are counted and a line `gap` tells how many; what was to be
    written before it is done (`confirmed`) is refused instead. Without a path it is off, and everything is a no-op.
    """

    def __init__(
        self,
        data: Path | None = None,
        path: Path | None = None,
        *,
        metrics: Metrics | None = None,
    ) -> None:
        self.is_failing = False
        self._metrics = metrics or Metrics()
        self._chain = Chain(data or path.parent, path) if path else None
        self._waiting: deque[Item] = deque()
        self._lost = self._told = (
            0  # events that were not kept, and how many of them a line has told
        )
        self._some, self._now = threading.Event(), threading.Event()
        self._is_ending = False
        self._thread: threading.Thread | None = None

    @property
    def is_on(self) -> bool:
        return self._chain is not None

    def __enter__(self) -> Self:
        """Raises ConfigurationError when the file cannot be written."""
        if self._chain is None:
            return self
        try:
            self._chain.__enter__()
        except OSError as error:
            raise ConfigurationError(
                f"the audit log {self._chain.path} cannot be written: {error.strerror}. Name another with --audit-log."
            ) from None
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        """Write what waits, and give up when that takes too long."""
        if self._chain is None or self._thread is None:
            return
        self._is_ending = True
        self._some.set()
        self._now.set()
        self._thread.join(STOP_SECONDS)
        lost = len(self._waiting) + self._lost - self._told
        if self._thread.is_alive() or lost:
            log.error("audit events are lost", events=lost)
        if not self._thread.is_alive():
            self._chain.__exit__(None, None, None)

    # On the event loop

    def record(
        self,
        event: str,
        *,
        principal: str = "",
        tenant: str = "",
        room: str = "",
        **details: Any,
    ) -> None:
        """Take an event. `room` may be the key of a room, which brings its tenant. Never waits, never raises."""
        if self._chain is not None:
            self._put(_happening(event, principal, tenant, room, details))

    def edits(self, entries: Iterable[Entry]) -> None:
        """What a commit has taken in."""
        if self._chain is None:
            return
        now = time.time()
        for entry in entries:
            self._put(Edits(now, entry.room, entry.position, entry.authors))

    async def confirmed(
        self,
        event: str,
        *,
        principal: str = "",
        tenant: str = "",
        room: str = "",
        **details: Any,
    ) -> None:
        """As `record`, and wait until the line is on disk: for verbs that must not go unseen, before they act.

        Raises StoreUnavailable when it cannot be written. The line may stand although the verb failed afterwards.
        """
        if self._chain is None:
            return
        loop = asyncio.get_running_loop()
        written: asyncio.Future[None] = loop.create_future()

        def settle(error: CollabError | None) -> None:
            if written.done():
                return
            if error is None:
                written.set_result(None)
            else:
                written.set_exception(error)

        happening = _happening(event, principal, tenant, room, details)
        awaited = Awaited(happening, lambda error: _tell(loop, settle, error))
        if not self._put(awaited):
            raise _unwritten()
        self._now.set()
        try:
            async with asyncio.timeout(CONFIRM_SECONDS):
                await written
        except TimeoutError:
            raise _unwritten() from None

    def _put(self, item: Item) -> bool:
        if len(self._waiting) >= MAX_WAITING:
            self._lost += 1
            self._metrics.audit_lost += 1
            return False
        self._waiting.append(item)
        if not self._some.is_set():
            self._some.set()
        return True

    # On the thread

    def _run(self) -> None:
        kept: list[Happening] = []  # that could not be written yet
        while not self._is_ending or self._waiting:
            if not kept:
                self._some.wait()
            self._some.clear()
            self._now.wait(RETRY_SECONDS if kept else FLUSH_SECONDS)
            self._now.clear()
            try:
                kept = self._flush(kept)
            except Exception:
                log.exception("a bug met the audit log")
                kept = []
            if kept and self._is_ending:
                return

    def _flush(self, kept: list[Happening]) -> list[Happening]:
        """Write what waits; returns what must be tried again."""
        assert self._chain is not None
        batch: list[Item] = []
        while self._waiting and len(batch) + len(kept) < MAX_WAITING:
            batch.append(self._waiting.popleft())
        awaited = [item for item in batch if isinstance(item, Awaited)]
        lines, lost = kept + gathered(batch), self._lost
        if lost > self._told:
            details = {"events": lost - self._told}
            lines.append(Happening(time.time(), "gap", details=details))
        try:
            if lines:
                self._chain.append(lines)
        except (OSError, CollabError) as error:
            if not self.is_failing:
                self.is_failing = True
                log.error("audit log cannot be written", reason=str(error))
            for item in awaited:
                item.done(_unwritten())
            dropped = {id(item.happening) for item in awaited}
            return [
                line
                for line in lines
                if id(line) not in dropped and line.event != "gap"
            ]
        if self.is_failing:
            self.is_failing = False
            log.info("audit log can be written again")
        self._told = lost
        self._metrics.audit_lines += len(lines)
        for item in awaited:
            item.done(None)
        return []


def _happening(
    event: str, principal: str, tenant: str, room: str, details: dict[str, Any]
) -> Happening:
    known, name = split_key(room)
    return Happening(time.time(), event, principal, tenant or known, name, details)


def _unwritten() -> StoreUnavailable:
    return StoreUnavailable("the audit log cannot be written, so nothing was changed")


def _tell(
    loop: asyncio.AbstractEventLoop,
    settle: Callable[[CollabError | None], None],
    error: CollabError | None,
) -> None:
    try:
        loop.call_soon_threadsafe(settle, error)
    except RuntimeError:
        pass  # the loop has ended, and with it who waited


def gathered(batch: Sequence[Item]) -> list[Happening]:
    """The lines of a batch: edits of a room in one until something else happens there, equal denials in one."""
    lines: list[Happening] = []
    edits: dict[str, _Edited] = {}
    denials: Counter[tuple[Any, ...]] = Counter()
    for item in batch:
        if isinstance(item, Edits):
            edited = edits.get(item.room)
            if edited is None or not edited.takes(item):
                if edited is not None:
                    lines.append(edited.line())
                edited = edits[item.room] = _Edited(item)
            edited.add(item.authors)
            continue
        happening = item.happening if isinstance(item, Awaited) else item
        if happening.event == "denied":
            denials[_kind(happening)] += 1
            if denials[_kind(happening)] > 1:
                continue
        elif not happening.room:
            lines += [each.line() for each in edits.values()]
            edits.clear()
        else:
            key = (
                f"{happening.tenant}{SEPARATOR}{happening.room}"
                if happening.tenant
                else happening.room
            )
            if key in edits:
                lines.append(edits.pop(key).line())
        lines.append(happening)
    lines += [each.line() for each in edits.values()]
    return _counted(lines, denials) if denials else lines


class _Edited:
    """A line about the edits of one room, while it is gathered."""

    def __init__(self, first: Edits) -> None:
        self._first = first
        self._next = first.first
        self._runs: list[list[Any]] = []

    def takes(self, more: Edits) -> bool:
        return more.first == self._next and len(self._runs) < MAX_RUNS

    def add(self, authors: Sequence[Author]) -> None:
        for author in authors:
            if self._runs and self._runs[-1][0] == author.principal:
                self._runs[-1][1] += 1
            else:
                self._runs.append([author.principal, 1])
        self._next += len(authors)

    def line(self) -> Happening:
        tenant, room = split_key(self._first.room)
        runs = self._runs
        principal = runs[0][0] if len(runs) == 1 else ""
        details = {"first": self._first.first, "last": self._next - 1, "by": runs}
        return Happening(
            self._first.seconds, "update", principal, tenant, room, details
        )


def _kind(denial: Happening) -> tuple[Any, ...]:
    """Equal ones have this in common. A stranger chooses names of rooms freely, so they tell nothing apart."""
    room = denial.room if denial.principal else ""
    return denial.principal, denial.tenant, room, repr(denial.details)


def _counted(
    lines: list[Happening], denials: Counter[tuple[Any, ...]]
) -> list[Happening]:
    """Denials with how often each came; beyond a bound they are only counted, since a stranger causes them."""
    found: list[Happening] = []
    told = others = 0
    latest = None
    for line in lines:
        if line.event != "denied":
            found.append(line)
        elif told < MAX_DENIALS:
            told += 1
            times = denials[_kind(line)]
            found.append(line._replace(details=line.details | {"times": times}))
        else:
            others += denials[_kind(line)]
            latest = line
    if latest is not None:
        found.append(
            Happening(latest.seconds, "denied", details={"code": "", "times": others})
        )
    return found
