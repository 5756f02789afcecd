"""Who is present in a room, and being present without a socket."""

from __future__ import annotations

import orjson

from collab.server.api import models
from collab.server.api.dispatch import Call


async def read(call: Call) -> models.Presence:
    """At this server; a room that nobody is in is not opened for it."""
    room = call.api.replica.live(call.key)
    found = []
    for client, _, json, owner in room.awareness.states() if room else ():
        author = getattr(owner, "author", None)
        found.append(
            models.Present(
                client=client,
                principal=author.principal if author else "",
                connection=author.connection if author else "",
                state=orjson.loads(json),
            )
        )
    return models.Presence(clients=found)
