"""Turns while they are open."""

from __future__ import annotations

from collab.errors import NothingHere
from collab.server.api import models
from collab.server.api.dispatch import Call
from collab.turns import checked_turn


async def cancel(call: Call) -> None:
    """Whoever has this turn open, at any replica, is told, and what it sends for it is refused from 200 ms later on.

    404 when that is nobody, and there is no other replica where it may be.
    """
    query: models.CancelQuery = call.query
    turn = checked_turn(call.parameters["turn"])
    await call.audit("turn.cancel", turn=turn, subject=query.principal)
    if not call.api.replica.cancel_turn(call.key, turn, query.principal):
        raise NothingHere("nobody has this turn open")
