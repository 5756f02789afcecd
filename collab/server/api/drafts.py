"""Edits that come without a socket: each principal writes in each room under a client id of its own.

An id lives as long as its room stays in memory and is never taken up again: what was written under it and lost with
the process may be known to somebody. An edit is made on a copy and goes at once into the room, so no two copies write
under one id at the same time.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary, ref

from collab.document.document import Document
from collab.document.edits import Draft, Operation
from collab.errors import TooLarge
from collab.room import Room, Visitor

MAX_WRITERS = (
    1000  # of one room that are remembered; whoever was forgotten gets another id
)
# Of documents whose copies are kept, as updates; in memory they take about ten times as much.
MAX_KEPT_BYTES = 4 << 20
MAX_DRAFT_BYTES = 1 << 20  # a copy of a larger one is not kept


class _Kept(NamedTuple):
    """A copy that holds just what the document of its room did after the last edit."""

    document: ref[Document]
    version: int
    client: int
    draft: Draft
    bytes: int


class Drafts:
    """The client ids, and the copies of the documents that were edited last: making one takes long."""

    def __init__(self) -> None:
        self._clients: WeakKeyDictionary[Room, dict[str, int]] = WeakKeyDictionary()
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._bytes = 0

    def edit(
        self, room: Room, visitor: Visitor, operations: Sequence[Operation]
    ) -> bool:
        """Edit the document of a room; whether that changed anything. All at once or, when it raises, nothing.

        Raises what `Draft.edit` and `Room.update` raise.
        """
        client = self._client(room, visitor.principal.id)
        draft = self._draft(room, client)
        update = draft.edit(operations)
        if update is not None:
            if len(update) > room.document.max_update_bytes:
                raise TooLarge("update bytes")
            # Not by parts, of which some could be refused: the copy has shown that it is quick, and what we insert
            # stands beside its neighbours, so nothing is compared.
            room.update(visitor, update, is_ours=True)
        self._keep(room, client, draft)
        return update is not None

    def _client(self, room: Room, principal: str) -> int:
        clients = self._clients.setdefault(room, {})
        client = clients.get(principal)
        if client is None:
            client = secrets.randbits(32)
            while client in room.document.gate.known:
                client = secrets.randbits(32)
            if len(clients) >= MAX_WRITERS:
                del clients[next(iter(clients))]
            clients[principal] = client
        return client

    def _draft(self, room: Room, client: int) -> Draft:
        kept = self._kept.pop(room.name, None)
        if kept is not None:
            self._bytes -= kept.bytes
            if kept.document() is room.document and (kept.version, kept.client) == (
                room.version,
                client,
            ):
                return kept.draft
        document = room.document
        snapshot = document.snapshot()
        is_proven = len(snapshot) <= document.proven
        draft = Draft(snapshot, client, is_proven=is_proven)
        if is_proven:
            document.prove(len(snapshot))
        return draft

    def _keep(self, room: Room, client: int, draft: Draft) -> None:
        size = draft.bytes + 1000
        if size > MAX_DRAFT_BYTES:
            return
        self._kept[room.name] = _Kept(
            ref(room.document), room.version, client, draft, size
        )
        self._bytes += size
        while self._bytes > MAX_KEPT_BYTES:
            self._bytes -= self._kept.popitem(last=False)[1].bytes
