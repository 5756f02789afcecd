"""Removes what its time has come for: purged rooms, old log, old answers; a chunk at a time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from collab import logs
from collab.errors import CollabError
from collab.store.base import ANSWER_SECONDS, Clock
from collab.store.postgres import reading
from collab.store.postgres.connections import Connections
from collab.store.postgres.schema import FORMAT

log = logs.logger(__name__)

TIDY_SECONDS = (
    600.0  # between two looks, give or take a fifth: replicas need not look together
)
ORIGIN_SECONDS = (
    24 * 3600
)  # that the numbers of an origin are known after its last entry
NOTE_SECONDS = 7 * 24 * 3600  # that crashes while a room was loaded are remembered
_CHUNK = 2_000  # rows removed by one statement
_ROOMS = 64  # looked at together for old rows

_DOOMED = """
    UPDATE collab.room SET purge = 0 WHERE id = (
        SELECT id FROM collab.room WHERE deleted IS NOT NULL AND NOT is_purged AND purge <= $1 AND format <= $2
        ORDER BY purge, id LIMIT 1
    ) AND deleted IS NOT NULL AND purge <= $1 RETURNING id
"""
# The last of the rows at the beginning of a room's log that are old and that the two newest checkpoints cover, and the
# attribution where there is one.
_OLD = """
    WITH head AS (
        SELECT position, milliseconds FROM collab.log WHERE room = $1 ORDER BY position LIMIT $2
    ), covered AS (
        SELECT least(min(position), (SELECT position FROM collab.attribution WHERE room = $1)) AS position FROM (
            SELECT position FROM collab.checkpoint WHERE room = $1 ORDER BY position DESC LIMIT 2
        ) newest HAVING count(*) > 1
    ), kept AS (
        SELECT min(head.position) AS position FROM head, covered
        WHERE head.position > covered.position OR head.milliseconds >= $3
    )
    SELECT max(head.position) FROM head, covered, kept
    WHERE kept.position IS NULL OR head.position < kept.position
"""
_TRIM = """
    WITH gone AS (
        DELETE FROM collab.log WHERE room = $1 AND position <= $2 RETURNING octet_length(update) AS size
    ), passed AS ( -- between such a landmark and the next row something is missing now
        DELETE FROM collab.checkpoint WHERE room = $1 AND position < $2
    )
    UPDATE collab.room SET bytes = greatest(0, bytes - (SELECT coalesce(sum(size), 0) FROM gone)) WHERE id = $1
"""


async def tidy_sometimes(
    tidy: Callable[[], Awaitable[None]], is_due: asyncio.Event
) -> None:
    """Every few minutes, and when a room is to be purged now."""
    while True:
        pause = TIDY_SECONDS * random.uniform(0.8, 1.2)
        try:
            async with asyncio.timeout(pause):
                await is_due.wait()
        except TimeoutError:
            pass
        is_due.clear()
        try:
            await tidy()
        except CollabError as error:
            log.warning("tidying up failed", reason=str(error))
        except Exception:
            log.exception("tidying up failed")


async def tidy(connections: Connections, clock: Clock) -> None:
    """All there is to do now. Several replicas may do it at once."""
    now = clock()
    await _purge(connections, now)
    await _trim(connections, now)
    for table, column, seconds in (
        ("answer", "milliseconds", ANSWER_SECONDS),
        ("origin", "changed", ORIGIN_SECONDS),
        ("load", "begun", NOTE_SECONDS),
        ("crash", "changed", NOTE_SECONDS),
    ):
        await _all(
            connections,
            f"DELETE FROM collab.{table} WHERE ctid = ANY (ARRAY("
            f"SELECT ctid FROM collab.{table} WHERE {column} < $1 LIMIT {_CHUNK} FOR UPDATE SKIP LOCKED))",
            now - seconds * 1000,
        )


async def _all(connections: Connections, statement: str, *values: Any) -> None:
    """Repeat a statement until it removes no more."""
    removed = _CHUNK
    while removed == _CHUNK:
        async with connections.borrowed() as (db, _):
            said = await db.execute(statement, *values)
        removed = int(said.split()[-1])


async def _purge(connections: Connections, now: int) -> None:
    while True:
        async with connections.borrowed() as (db, _):
            room = await db.fetchval(_DOOMED, now, FORMAT)
        if room is None:
            return
        for table in ("checkpoint", "owner", "rejected", "origin", "log"):
            await _all(
                connections,
                f"DELETE FROM collab.{table} WHERE ctid = ANY (ARRAY("
                f"SELECT ctid FROM collab.{table} WHERE room = $1 LIMIT {_CHUNK} FOR UPDATE SKIP LOCKED))",
                room,
            )
        async with connections.borrowed() as (db, _):
            await db.execute(
                "UPDATE collab.room SET is_purged = true, bytes = 0, metadata = NULL, history = NULL WHERE id = $1",
                room,
            )


async def _trim(connections: Connections, now: int) -> None:
    last = 0
    while True:
        async with connections.borrowed() as (db, _):
            rooms = await db.fetch(
                "SELECT id, name FROM collab.room WHERE history IS NOT NULL AND id > $1 AND deleted IS NULL"
                " AND format <= $2 ORDER BY id LIMIT $3",
                last,
                FORMAT,
                _ROOMS,
            )
        if not rooms:
            return
        for last, name in rooms:
            try:
                await _trim_room(connections, last, name, now)
            except CollabError as error:  # a damaged record; the others go on
                log.warning("old log was kept", room=name, reason=str(error))


async def _trim_room(
    connections: Connections, number: int, name: str, now: int
) -> None:
    is_checked = False
    while True:
        async with connections.borrowed() as (db, limit):
            seconds = (await reading.info(db, number)).history_seconds
            if seconds is None:  # of a damaged record nothing is believed
                return
            position = await db.fetchval(_OLD, number, _CHUNK, now - seconds * 1000)
            if position is None:
                return
            if not is_checked:
                live = await reading.living(db, name)
                if live.id != number:
                    return
                if not await reading.has_two_checkpoints(db, live, limit):
                    return
                is_checked = True
            await db.execute(_TRIM, number, position)
