"""What a room was, who wrote what, and taking a turn back."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import orjson
from starlette.responses import Response

from collab.auth.permissions import ADMIN
from collab.document.document import ANONYMOUS
from collab.document.people import Owners, show
from collab.errors import (
    Busy,
    Conflict,
    DocumentBroken,
    Draining,
    PermissionDenied,
)
from collab.exclusion import Claim
from collab.history.historian import Plan
from collab.room import Room, Visitor
from collab.server.api import models
from collab.server.api.dispatch import JSON, Call
from collab.server.api.document import CONNECTION, entity_tag, existing, settled
from collab.store.base import Author, wall_clock
from collab.turns import UNDO, checked_turn, read_about

# Reading


async def blame(call: Call) -> Response:
    """Who wrote the characters of a text, inserted the items of a list or set the keys of a map, and when, to the minute:
    now, or as it was at a position. Each author is told once and named by number. What was typed elsewhere and brought
    in by somebody is credited to whoever owns the client id, and `introduced_by` says by whom.

    XML is its text, as a document is exported; a line break in it is whose the block is that begins there.
    """
    query: models.BlameQuery = call.query
    if query.end is not None and query.end < query.start:
        raise Conflict("`end` comes before `start`")
    room, position = await settled(call)
    historian = call.api.replica.historian
    if query.at is None:
        with call.work():
            snapshot: bytes | None = room.document.snapshot()
    else:
        snapshot, position = None, query.at
    answer = await historian.blame(
        room.name,
        room.epoch,
        owners(room),
        query.root,
        query.start,
        query.end,
        path=query.path,
        snapshot=snapshot,
        position=position,
    )
    return _json(answer, epoch=room.epoch, position=position)


async def changeset(call: Call) -> Response:
    """What changed in a document between two positions of its log, and who did it: in texts, lists, maps and XML, however
    deep. What came in with something by the same author is part of it; what others did inside is told behind it.
    """
    query: models.ChangesetQuery = call.query
    room, position = await settled(call)
    upto = position if query.to is None else query.to
    if upto < query.after:
        raise Conflict("`to` comes before `from`")
    answer = await call.api.replica.historian.changeset(
        room.name, owners(room), query.after, upto, query.root, path=query.path
    )
    return _json(answer, {"from": query.after}, epoch=room.epoch, to=upto)


async def activity(call: Call) -> Response:
    """Who did what, the newest first: one entry for each turn, and for what somebody did without one between two
    pauses. `after` tells only what is new, `next` leads to what is older.
    """
    query: models.ActivityQuery = call.query
    room, position = await settled(call)
    found = await call.api.replica.historian.activity(
        room.name, query.after, query.before, query.limit
    )
    return Response(
        orjson.dumps({"epoch": room.epoch, "position": position, **found}),
        media_type=JSON,
    )


async def turn(call: Call) -> models.TurnInfo:
    """A turn: who took it and for what, where it is in the log, and whether it was taken back."""
    query: models.TurnQuery = call.query
    room, position = await settled(call)
    historian = call.api.replica.historian
    turns = await historian.turns(room.name)
    taken = turns.find(_named(call), query.principal, call.principal.id)
    standing = turns.standing(taken)
    return models.TurnInfo(
        epoch=room.epoch,
        position=position,
        author=models.ShownAuthor(**show(taken.author, taken.author.principal)),
        first=taken.first,
        last=taken.last,
        began=taken.began,
        ended=taken.ended,
        undone_by=standing.whose.id if standing else "",
    )


def owners(room: Room) -> Owners:
    """Whose client ids these are, as far as that means somebody."""
    return {
        client: principal
        for client, principal in room.document.owners.items()
        if not principal.startswith(ANONYMOUS)
    }


def _named(call: Call) -> str:
    return checked_turn(call.parameters["turn"])


def _json(answer: bytes, more: dict[str, Any] | None = None, **told: Any) -> Response:
    """A JSON object with more members in front."""
    head = orjson.dumps({**told, **(more or {})})
    return Response(head[:-1] + b"," + answer[1:], media_type=JSON)


# Taking back


async def undo(call: Call) -> Response:
    """Takes a turn back, whenever it was, as a new turn: what it inserted goes, what it deleted comes back, and what
    others wrote stays, within it too. Your own turns and those on your behalf need `write`, those of others `admin`. A
    turn that is taken back already is left as it is.
    """
    return await _turn_back(call, is_redo=False)


async def redo(call: Call) -> Response:
    """Takes back what took a turn back; the rights are those over that."""
    return await _turn_back(call, is_redo=True)


async def _turn_back(call: Call, *, is_redo: bool) -> Response:
    asked: models.TakeBack = call.body
    id = _named(call)

    async def plan(room: Room) -> Plan:
        return await call.api.replica.historian.undo(
            room.name, id, asked.principal, call.principal.id, is_redo=is_redo
        )

    return await _take_back(call, plan, asked.reason)


async def undo_range(call: Call) -> Response:
    """Takes back all that a principal did between two times, without what is taken back already and without what it
    took back itself. Your own needs `write`, that of others `admin`, unless all of it was on your behalf.
    """
    asked: models.TakeBackRange = call.body

    async def plan(room: Room) -> Plan:
        now = wall_clock()
        until = now if asked.to_time is None else min(now, asked.to_time)
        return await call.api.replica.historian.undo_range(
            room.name, asked.principal, asked.from_time, until
        )

    return await _take_back(call, plan, asked.reason)


async def _take_back(
    call: Call, plan: Callable[[Room], Awaitable[Plan]], reason: str
) -> Response:
    replica = call.api.replica
    if call.taken_in is not None:
        room, position, id = call.taken_in
        await replica.logged(room, position)
        return _taken_back(room, room.place if room.origin else position, id)
    name = (await existing(call)).name
    budget = call.api.limits.of_agent(call.principal, name)
    if budget is not None:
        budget.spend(0, is_full=False)  # to work it out costs as much as an edit
    async with replica.historian.exclusion.of(name) as claim:
        room = await existing(call)
        await replica.caught_up(room)
        room = await call.open()  # rights may have ended meanwhile, and the room
        end = room.log_end
        id = await _take_in(call, room, claim, await plan(room), reason)
        if not id:
            return _taken_back(room, end, "")
        position = room.position
        call.taken_in = room, position, id
        await replica.logged_under(claim, room, position)
    return _taken_back(room, room.place if room.origin else position, id)


async def _take_in(
    call: Call, room: Room, claim: Claim, plan: Plan, reason: str
) -> str:
    """The id of the new turn, once it is in the room; "" when there is nothing to be done."""
    if not plan.chosen:
        return ""
    _check(call, plan)
    replica = call.api.replica
    document = room.document
    client, clock = document.own_client(call.principal.id)
    with call.work():
        snapshot = room.document.snapshot()
    update = await replica.historian.take_back(room.name, plan, snapshot, client)
    if update is None:
        return ""
    await claim.renew()
    if await call.open() is not room:
        raise Draining("the room was closed; ask again")
    visitor = Visitor(call.principal, call.operations, connection=CONNECTION)
    visitor.bound(call.api.limits.of_agent(call.principal, room.name))
    id = f"{UNDO}{secrets.token_hex(8)}"
    about = replace(
        call.principal.about,
        reason=reason,
        undoes=plan.about.undoes,
        by=plan.about.by,
    )
    visitor.author = Author(call.principal.id, CONNECTION, id, about.encode())
    replica.join(room, visitor)
    try:
        claim.check()
        if room.document is not document or document.gate.known.get(client, 0) != clock:
            raise Busy("somebody has written under the client id of this; ask again")
        with call.work():
            is_changed = room.update(visitor, update, is_ours=True)
        document.keep_client(call.principal.id, client)
        return id if is_changed else ""
    except DocumentBroken:
        await replica.rebuild(room)
        raise
    finally:
        replica.leave(room, visitor)


def _check(call: Call, plan: Plan) -> None:
    """What others did on nobody's behalf but their own needs more than the right to write."""
    if call.operations & ADMIN:
        return
    chosen, me = set(plan.chosen), call.principal.id
    authors = {row.author for row in plan.rows if row.position in chosen}
    told = [(author.principal, read_about(author.about)) for author in authors]
    # A turn that came and went has rows of those who took it back: it stays its author's.
    own = [each for each in told if not each[1].undoes] or told
    for principal, about in own:
        if me not in (principal, about.on_behalf_of):
            raise PermissionDenied("you may not take back what others did")


def _taken_back(room: Room, position: int, id: str) -> Response:
    answer = models.TakenBack(
        epoch=room.epoch, position=position, turn=id, changed=bool(id)
    )
    return Response(
        answer.model_dump_json(), headers={"etag": entity_tag(room)}, media_type=JSON
    )
