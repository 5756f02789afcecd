"""Answers questions about bytes of the past: small ones at once, large ones in a child process."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from collab.compaction import Child, ChildDied, rendered
from collab.document import past
from collab.document.past import Question
from collab.document.replay import Request, encode_request
from collab.errors import Busy, RoomUnavailable
from collab.exclusion import MAX_WAITING_OF_ROOM, place
from collab.store.base import Checkpoint, Row

# Of document and log together: a few milliseconds, and tens where an update was made to take as long as it can.
INLINE_BYTES = 4096
INLINE_ROWS = 200
MAX_WAITING = 32  # questions that wait for a child
REST_SECONDS = 30.0  # in which a question that took too long is not asked again
MAX_RESTING = 1000  # the earliest is asked again before

_FAULT = "this part of the log cannot be replayed"


class Replayer:
    """Answers questions one after the other: small ones at once, large ones in a child process."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._lock = asyncio.Lock()
        self._waiting: Counter[str] = Counter()  # by room
        self._resting: dict[tuple[str, Question], float] = {}  # until when

    async def end(self) -> None:
        await self._child.end()

    async def ask(
        self,
        room: str,
        question: Question,
        options: Mapping[str, Any],
        checkpoint: Checkpoint | None,
        parts: Sequence[bytes],
        rows: Sequence[Row],
    ) -> bytes:
        """Raises what `past.answer` raises, Busy, and RoomUnavailable when the child does not survive it."""
        snapshot = checkpoint.snapshot if checkpoint else None
        size = sum(map(len, parts)) + sum(len(row.update) for row in rows)
        if size + len(snapshot or b"") <= INLINE_BYTES and len(rows) <= INLINE_ROWS:
            return _at_once(question, options, snapshot, parts, rows)
        if self._waiting.total() >= MAX_WAITING:
            raise Busy("too much is asked about the past; come back in a moment")
        with place(self._waiting, room, MAX_WAITING_OF_ROOM):
            # In a thread: of a long log, this would hold the loop for many milliseconds.
            request = await asyncio.to_thread(
                lambda: encode_request(
                    Request.PAST,
                    snapshot,
                    0,
                    past.encode_question(question, options, parts, rows),
                )
            )
            async with self._lock:
                return await self._in_child(room, question, request)

    async def _in_child(self, room: str, question: Question, request: bytes) -> bytes:
        now = asyncio.get_running_loop().time()
        if self._resting.get((room, question), now) > now:
            raise RoomUnavailable("this took too long to find out a moment ago")
        try:
            return await rendered(self._child, request, _FAULT)
        except ChildDied:
            if len(self._resting) >= MAX_RESTING:
                del self._resting[next(iter(self._resting))]
            self._resting.pop((room, question), None)
            self._resting[room, question] = now + REST_SECONDS
            raise RoomUnavailable("this takes too long to find out") from None


def _at_once(
    question: Question,
    options: Mapping[str, Any],
    snapshot: bytes | None,
    parts: Sequence[bytes],
    rows: Sequence[Row],
) -> bytes:
    try:
        return past.answer(question, options, snapshot, parts, rows)
    except Exception:
        raise
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # a Rust panic is not an Exception
        raise RoomUnavailable(_FAULT) from None
