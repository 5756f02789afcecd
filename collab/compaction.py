"""Turns long logs into checkpoints and attributions, in child processes, and finds rows that native code does not survive."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, Self

import collab
from collab import logs
from collab.document.export import decode_error
from collab.document.past import Question, encode_question
from collab.document.replay import (
    Answer,
    Request,
    Tail,
    decode_answer,
    encode_request,
    read_length,
)
from collab.errors import CollabError, InvalidMessage, RoomNotFound, RoomUnavailable
from collab.metrics import Metrics
from collab.store.base import (
    LANDMARK_ROWS,
    Attributed,
    Checkpoint,
    Row,
    Store,
    Stored,
)

log = logs.logger(__name__)

STEP_ROWS = LANDMARK_ROWS  # so that there is one in each band, however fast a log grew
STEP_BYTES = 32 << 20  # of rows that are attributed at once
_FIRST_PAGE, _MAX_PAGE = 64, 1024  # rows asked for at once: they may be large
_REST = 20  # times as long as a compaction took is the pause after it
_IDLE_SECONDS = 60.0  # until a child without work ends
_MAX_ANSWER_BYTES = 1 << 31


class Compactable(Protocol):
    """What the compactor must know of a room, and sets back."""

    name: str
    rows_since_checkpoint: int
    bytes_since_checkpoint: int


class ChildDied(Exception):
    """A child process crashed, hung or used too much; it is gone."""


class Child:
    """A process that runs `collab.document.replay`, started when it is first needed."""

    def __init__(
        self,
        *,
        memory_bytes: int,
        cpu_seconds: int,
        hang_seconds: float,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._limits = str(memory_bytes), str(cpu_seconds)
        self._hang_seconds = hang_seconds
        self._environment = None if environment is None else os.environ | environment
        self._process: Process | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.end()

    async def end(self) -> None:
        """End the process, and wait for it; the next request starts another."""
        process, self._process = self._process, None
        if process is not None:
            if process.returncode is None:
                process.kill()
            await asyncio.shield(process.wait())

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def ask(self, request: bytes) -> None:
        """Hand over a request; answers come by `answer`. ChildDied also when it is already gone."""
        try:
            async with asyncio.timeout(self._hang_seconds):
                if self._process is None:
                    self._process = await asyncio.create_subprocess_exec(
                        sys.executable,
                        "-m",
                        "collab.document.replay",
                        *self._limits,
                        stdin=PIPE,
                        stdout=PIPE,
                        env=self._environment,
                        cwd=Path(collab.__file__).parent.parent,
                    )
                assert self._process.stdin is not None
                self._process.stdin.write(request)
                await self._process.stdin.drain()
        except (OSError, TimeoutError) as error:
            await self.end()
            raise ChildDied(f"a child process took no request: {error!r}") from None

    async def answer(self) -> tuple[Answer, int, bytes]:
        """The next answer; ChildDied when there will be none."""
        process = self._process
        if process is None or process.stdout is None:
            raise ChildDied("there is no child process")
        try:
            async with asyncio.timeout(self._hang_seconds):
                length = read_length(await process.stdout.readexactly(8))
                if length > _MAX_ANSWER_BYTES:
                    raise ChildDied("a child process answered nonsense")
                return decode_answer(await process.stdout.readexactly(length))
        except (OSError, EOFError, TimeoutError, ValueError, ChildDied) as error:
            await self.end()
            raise ChildDied(
                f"a child process died with {process.returncode}: {type(error).__name__}"
            ) from None


class Compactor:
    """Compacts one room at a time per child, so seldom that it takes a twentieth of the time at most.

    An async context manager; leaving it ends the children.
    """

    def __init__(
        self,
        store: Store,
        *,
        metrics: Metrics,
        rows: int = 1000,
        max_bytes: int = 1 << 18,
        processes: int = 1,
        memory_bytes: int = 4 << 30,
        cpu_seconds: int = 60,
        hang_seconds: float = 60.0,
        rest: float = _REST,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._store, self._metrics = store, metrics
        self._rows, self._max_bytes = rows, max_bytes
        self._rest = rest
        self._memory_bytes, self._cpu_seconds = memory_bytes, cpu_seconds
        self._hang_seconds, self._environment = hang_seconds, environment
        self._wanted: dict[str, Compactable] = {}  # in the order of asking
        self._busy: set[str] = set()
        self._patience: dict[
            str, int
        ] = {}  # factor on the thresholds of rooms that would not compact
        self._is_wanted = asyncio.Event()
        self._children = [self._child() for _ in range(processes)]
        self._workers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = await asyncio.TaskGroup().__aenter__()
        self._workers = [
            self._tasks.create_task(self._work(child)) for child in self._children
        ]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for worker in self._workers:
            worker.cancel()
        await self._tasks.__aexit__(None, None, None)

    @property
    def is_idle(self) -> bool:
        """Nothing is being compacted or waits for it."""
        return not self._wanted and not self._busy

    @property
    def pids(self) -> list[int]:
        """The child processes of the workers."""
        return [child.pid for child in self._children if child.pid is not None]

    def consider(self, room: Compactable) -> None:
        """After a commit: have the room compacted when enough has come since its last checkpoint."""
        if self._is_due(room) and room.name not in self._busy:
            self._wanted[room.name] = room
            self._is_wanted.set()

    def _is_due(self, room: Compactable) -> bool:
        patience = self._patience.get(room.name, 1)
        return (
            room.rows_since_checkpoint >= self._rows * patience
            or room.bytes_since_checkpoint >= self._max_bytes * patience
        )

    async def _work(self, child: Child) -> None:
        loop = asyncio.get_running_loop()
        async with child:
            while True:
                room = await self._next(child)
                started = loop.time()
                self._busy.add(room.name)
                try:
                    await self._compact(room, child)
                finally:
                    self._busy.discard(room.name)
                await asyncio.sleep(self._rest * (loop.time() - started))

    async def _next(self, child: Child) -> Compactable:
        """The room that has waited longest; a child without work for long may go."""
        while not self._wanted:
            self._is_wanted.clear()
            try:
                async with asyncio.timeout(_IDLE_SECONDS):
                    await self._is_wanted.wait()
            except TimeoutError:
                await child.end()
        return self._wanted.pop(next(iter(self._wanted)))

    def _child(self) -> Child:
        return Child(
            memory_bytes=self._memory_bytes,
            cpu_seconds=self._cpu_seconds,
            hang_seconds=self._hang_seconds,
            environment=self._environment,
        )

    async def _compact(self, room: Compactable, child: Child) -> None:
        name = room.name
        is_compacted = is_more = False
        try:
            is_compacted, is_more = await self._step(room, child)
        except (CollabError, ChildDied) as error:
            self._metrics.compaction_failures += 1
            log.error("compaction failed", room=name, reason=str(error))
        except Exception:
            self._metrics.compaction_failures += 1
            log.exception("compaction failed", room=name)
        if is_compacted:
            self._patience.pop(name, None)
        else:
            self._patience[name] = min(2 * self._patience.get(name, 1), 64)
        if is_more:  # behind all that wait already
            self._wanted[name] = room
            self._is_wanted.set()

    async def _step(self, room: Compactable, child: Child) -> tuple[bool, bool]:
        """Whether there is a new checkpoint now, or none is needed; and whether there is more to do at once."""
        if not self._is_due(room):  # here for its attribution
            stored, made = await self._store.load(room.name), None
        else:
            stored, made = await make_checkpoint(self._store, room.name, child)
            if made is None and stored.tail:
                return False, False
        if made is not None:
            self._metrics.compactions += 1
            covered = [update for at, update in stored.tail if at <= made.position]
            room.rows_since_checkpoint = max(
                0, room.rows_since_checkpoint - len(covered)
            )
            room.bytes_since_checkpoint = max(
                0, room.bytes_since_checkpoint - sum(map(len, covered))
            )
        is_behind = await self._attribute(room.name, child, stored, made)
        return True, is_behind or (made is not None and self._is_due(room))

    async def _attribute(
        self, name: str, child: Child, stored: Stored, made: Checkpoint | None
    ) -> bool:
        """Whether rows below the newest checkpoint are still to be attributed. That it fails is no matter to the room."""
        newest = made or stored.checkpoint
        if newest is None:
            return False
        try:
            return await make_attribution(
                self._store, name, child, fence=stored.fence, until=newest.position
            )
        except RoomNotFound:  # it was deleted meanwhile
            return False
        except (CollabError, ChildDied) as error:
            self._metrics.compaction_failures += 1
            log.error("attribution failed", room=name, reason=str(error))
            return False

    async def find_killer(
        self, checkpoint: Checkpoint | None, tail: Tail
    ) -> int | None:
        """As the function of that name, in a child of its own."""
        async with self._child() as child:
            return await find_killer(child, checkpoint, tail)


async def rendered(child: Child, request: bytes, fault: str) -> bytes:
    """What a child makes of a request. Raises what it refuses that with, RoomUnavailable (`fault`), and ChildDied."""
    try:
        await child.ask(request)
        answer, _, rest = await child.answer()
    except ChildDied:
        raise
    except BaseException:
        await child.end()  # its answer would be taken for the next one's
        raise
    if answer is Answer.RENDERED:
        return rest
    if answer is Answer.REFUSED:
        raise decode_error(rest)
    raise RoomUnavailable(fault)


async def find_killer(
    child: Child, checkpoint: Checkpoint | None, tail: Tail
) -> int | None:
    """The position of the first row that native code does not survive, or guard and gate refuse.

    None when the whole log survives; 0 when it is the checkpoint that kills.
    """
    snapshot = checkpoint.snapshot if checkpoint else None
    position = 0
    try:
        await child.ask(encode_request(Request.WATCH, snapshot, 0, tail))
        while True:
            answer, at, rest = await child.answer()
            if answer is Answer.SURVIVED:
                return None
            if answer is not Answer.AT:
                reason = rest.decode(errors="replace")
                break
            position = at
    except ChildDied as error:
        reason = str(error)
    log.error("a log cannot be replayed", position=position, reason=reason)
    return position


async def compare(child: Child, checkpoint: Checkpoint, tail: Tail) -> str:
    """In what the rows alone differ from the checkpoint and the rows after it; "" when they make the same.

    The first of the rows may be another checkpoint, at its position. Raises ChildDied when a row cannot be applied.
    """
    position, snapshot = checkpoint
    await child.ask(encode_request(Request.COMPARE, snapshot, position, tail))
    answer, _, rest = await child.answer()
    if answer not in (Answer.SURVIVED, Answer.DIFFERENT):
        raise ChildDied(rest.decode(errors="replace"))
    return rest.decode(errors="replace") if answer is Answer.DIFFERENT else ""


async def make_checkpoint(
    store: Store, name: str, child: Child
) -> tuple[Stored, Checkpoint | None]:
    """What was loaded, and the checkpoint that was made of it; None when there is nothing that can go into one.

    It covers STEP_ROWS positions at most, where nothing waits at the last of them for what comes later. Nothing is given
    up for it: the rows it covers stay. Raises ChildDied.
    """
    stored = await store.load(name)
    if not stored.tail:
        return stored, None
    start = stored.checkpoint.position if stored.checkpoint else 0
    some = [row for row in stored.tail if row[0] <= start + STEP_ROWS]
    made = await _made(child, stored, some) if some else None
    if made is None and len(some) < len(stored.tail):
        made = await _made(child, stored, stored.tail)
    if made is None:
        log.info("not compacted: something waits for what is missing", room=name)
        return stored, None
    is_stored = await store.checkpoint(name, made, fence=stored.fence)
    return stored, made if is_stored else None


async def _made(child: Child, stored: Stored, tail: Tail) -> Checkpoint | None:
    snapshot, start = None, 0
    if stored.checkpoint is not None:
        start, snapshot = stored.checkpoint
    # In a thread: of a log that has grown very long, this would hold the loop for many milliseconds.
    request = await asyncio.to_thread(
        encode_request, Request.COMPACT, snapshot, start, tail
    )
    await child.ask(request)
    answer, position, rest = await child.answer()
    if answer is Answer.UNREADY:
        return None
    if answer is not Answer.COMPACTED:
        raise ChildDied(rest.decode(errors="replace"))
    return Checkpoint(position, rest)


async def make_attribution(
    store: Store, name: str, child: Child, *, fence: int, until: int
) -> bool:
    """Attribute rows that are not yet, STEP_ROWS or STEP_BYTES of them at most; whether there are more up to `until`.

    An attribution that cannot be read is made anew from what is left of the log. Raises ChildDied and RoomNotFound.
    """
    known = await store.attribution(name)
    if known is not None and known.position >= until:
        return False
    try:
        made = await _attributed(store, name, child, known, until)
    except InvalidMessage:
        log.warning("an attribution is made anew", room=name)
        made, reached = None, known.position if known else 0
        while made is None or made.position <= reached:
            made = await _attributed(store, name, child, made, until)
            if made is None:
                return False
    if made is None:
        return False
    is_stored = await store.attribute(name, made, fence=fence)
    return is_stored and made.position < until


async def _attributed(
    store: Store, name: str, child: Child, known: Attributed | None, until: int
) -> Attributed | None:
    """With some more rows than `known`; None where there are neither. Raises InvalidMessage when that is not ours."""
    after = known.position if known else 0
    rows = await _rows(store, name, after, until)
    if not rows:
        return known and Attributed(until, known.encoded)
    base: Checkpoint | None = None
    if known is None and rows[0].position > 1:
        base = await store.checkpoint_before(name, rows[0].position - 1)
    tail = encode_question(
        Question.ATTRIBUTE, {}, [known.encoded] if known else [], rows
    )
    snapshot = base.snapshot if base else None
    await child.ask(
        await asyncio.to_thread(encode_request, Request.PAST, snapshot, 0, tail)
    )
    answer, _, rest = await child.answer()
    if answer is Answer.REFUSED:
        raise InvalidMessage(rest.decode(errors="replace"))
    if answer is not Answer.RENDERED:
        raise ChildDied(rest.decode(errors="replace"))
    return Attributed(rows[-1].position, rest)


async def _rows(store: Store, name: str, after: int, until: int) -> list[Row]:
    rows: list[Row] = []
    size, count = 0, _FIRST_PAGE
    while len(rows) < STEP_ROWS and size < STEP_BYTES:
        page = await store.history(name, after=after, limit=count)
        page = [row for row in page if row.position <= until]
        if not page:
            break
        rows += page
        size += sum(len(row.update) for row in page)
        after, count = page[-1].position, min(2 * count, _MAX_PAGE)
    return rows
