"""The socket of a y-websocket client, and of one that asked for `collab.v1`."""

from __future__ import annotations

import time
from math import isfinite
from typing import Any

from collab.auth.base import Credential
from collab.errors import (
    CollabError,
    DocumentBroken,
    InvalidMessage,
    LeaseLost,
    OthersPresent,
    PermissionDenied,
    RateLimited,
    StoreUnavailable,
    TurnCancelled,
)
from collab.protocol import yjs
from collab.protocol.frames import frame
from collab.protocol.messages import (
    AwarenessUpdate,
    BeginTurn,
    CancelTurn,
    Message,
    QueryAwareness,
    Renewal,
    SyncStep1,
    SyncStep2,
    Unknown,
    Update,
)
from collab.room import Member
from collab.server.access import Entry
from collab.server.socket import Socket
from collab.server.sockets import Sockets
from collab.turns import About

QUESTION_COST = 40.0  # waste of a step 1 after the first: ten in a row are a flood, one in two seconds is not
CANCEL_COST = 4.0  # waste of asking that a turn be stopped: all replicas hear of it
MAX_REMINDED = 8  # client ids of one connection
MAX_FORBIDDEN = (
    3  # updates of a reader whose client has no other way to learn that it is one
)

_KEEP_ALIVE = frame(yjs.KEEP_ALIVE)


class RoomSocket(Socket):
    """A socket with one member in one room."""

    __slots__ = (
        "_deferred",
        "_forbidden",
        "_has_asked",
        "_reminded",
        "_repeats",
        "_version",
        "is_v1",
        "member",
    )

    dialect = "y-websocket"

    def __init__(
        self,
        transport: Any,
        sockets: Sockets,
        address: str,
        entry: Entry,
        *,
        is_v1: bool = False,
    ) -> None:
        super().__init__(transport, sockets, address)
        room = entry.room
        self.is_v1 = is_v1
        self._has_asked = False
        self._forbidden = 0
        self._version = room.version
        self._repeats = 0
        self._reminded: set[int] = set()
        # A question that must wait until the peer has read.
        self._deferred: bytes | None = None
        self.member = self.member_for(entry)
        sockets.replica.join(room, self.member)
        if is_v1:
            self._greet()
            self._tell_end()
            if not room.version:
                room.watchers[self._begun] = None
        if self.is_writable:
            room.ask(self.member)
        room.introduce(self.member)

    def members(self) -> list[Member]:
        return [self.member]

    def left(self) -> None:
        self.member.room.watchers.pop(self._begun, None)
        self.sockets.replica.leave(self.member.room, self.member)

    def keep_alive(self) -> None:
        self.write(_KEEP_ALIVE)

    def notify(self, kind: str, retry_after_milliseconds: int = 0) -> None:
        if self.is_v1:
            self.member.send(yjs.notice(kind, retry_after_milliseconds))

    @property
    def is_writable(self) -> bool:
        """Whether the member's updates are taken now."""
        return self.member.may_write and self.member.room.unwritable is None

    def _greet(self) -> None:
        room = self.member.room
        hello = yjs.hello(
            room.epoch if room.version or room.log_end else "",
            is_writable=self.is_writable,
            max_update_bytes=room.document.max_update_bytes,
        )
        self.member.send(hello)

    def _begun(self) -> None:
        """The log of a room that nobody had written to has moved: its history has a name from now on."""
        room = self.member.room
        if room.logged_position or room.log_end:
            room.watchers.pop(self._begun, None)
            self._greet()

    def rights_changed(self, member: Member) -> None:
        self._version, self._repeats = member.room.version, 0
        self._forbidden = 0
        self.notify("writable" if self.is_writable else "read-only")
        if self.is_writable:
            member.room.ask(member)  # for what was refused meanwhile

    def renewed(self, member: Member) -> None:
        self._tell_end()

    def put_off(self, member: Member) -> None:
        self._tell_end()

    def _tell_end(self) -> None:
        """How long the credential lasts, so that the client can show a new one in time."""
        expires = self.member.principal.expires
        if self.is_v1 and isfinite(expires):
            left = max(0, int((expires - time.time()) * 1000))
            self.member.send(yjs.notice("expires", left))

    def receive(self, message: bytes) -> None:
        update = yjs.keystroke(message)
        if update is not None:
            self._update(update, precise=False)
            return
        own = yjs.decode_v1(message) if self.is_v1 else None
        if own is not None:
            self._handle(own)
            return
        for one in yjs.decode(message):
            self._handle(one)

    def _handle(self, message: Message) -> None:
        match message:
            case Update(update):
                self._update(update, precise=False)
            case SyncStep2(update):
                self._update(update, precise=True)
            case SyncStep1(state_vector):
                self._answer(state_vector)
            case AwarenessUpdate(states):
                self._present(states)
            case QueryAwareness():
                self.waste(1)
                self.member.room.introduce(self.member)
            case Renewal(token):
                self.renew(self.member, Credential(token=token, address=self.address))
            case BeginTurn(turn, said):
                self._begin(turn, said)
            case CancelTurn(turn, principal):
                self._cancel(turn, principal)
            case Unknown(number):
                self.unknown(number)

    def _begin(self, turn: str, said: About) -> None:
        member = self.member
        room = member.room
        if turn and member.budget is None:
            limits = self.sockets.limits
            member.bound(limits.budget(member.principal, member.owner, room.name))
        room.begin_turn(member, turn, said)

    def _cancel(self, turn: str, principal: str) -> None:
        """Stop a turn, of whoever it is: who may write may also keep others from it."""
        member = self.member
        self.waste(CANCEL_COST)
        if not member.may_write:
            error = PermissionDenied("this member may only read")
            self._audit_denial(member, error, "cancel")
            member.send(yjs.permission_denied(str(error)))
            return
        replica, room = self.sockets.replica, member.room.name
        replica.audit.record(
            "turn.cancel",
            principal=member.principal.id,
            room=room,
            connection=member.author.connection,
            address=self.address,
            turn=turn,
            subject=principal,
        )
        replica.cancel_turn(room, turn, principal)

    def _update(self, update: bytes, *, precise: bool) -> None:
        member = self.member
        room = member.room
        try:
            is_new = self.update(member, update, precise=precise)
        except PermissionDenied as error:
            self._forbid(update, error)
            return
        except StoreUnavailable as error:
            # A stock client keeps the edit and offers it again when the room asks, once it can save.
            self._refuse(error)
            return
        except (TurnCancelled, LeaseLost, OthersPresent, RateLimited) as error:
            self.withhold(member, error)
            self._refuse(error)
            return
        except DocumentBroken:
            self.sockets.replica.start(self.sockets.replica.rebuild(room))
            raise InvalidMessage("this update cannot be applied") from None
        except CollabError as error:
            self._refuse(error)
            raise
        if self.is_v1:
            room.owe(
                member, yjs.ack(member.sequence, room.position), is_cumulative=True
            )
        elif precise and not is_new and update != yjs.NOTHING:
            self._repeat(update)
        if not is_new:
            self.sockets.metrics.repeats += 1
            self._repeats += not precise
            # pycrdt's own provider sends back all that it gets, once: that is not a flood.
            if self._repeats > room.version - self._version and not precise:
                self.waste(1)

    def _repeat(self, update: bytes) -> None:
        """Its first echo may have been lost with an earlier connection: this is the only acknowledgement it reads."""
        self.member.room.owe(self.member, yjs.update_message(update))

    def _forbid(self, update: bytes, error: PermissionDenied) -> None:
        if update != yjs.NOTHING and self._is_repeat():
            self.sockets.metrics.denied_updates += 1
            self.member.send(yjs.permission_denied(str(error)))
            return
        self.forbid(self.member, update, error)
        if update == yjs.NOTHING and not self.is_v1:
            return
        self._refuse(error)
        self._warn(error)

    def _is_repeat(self) -> bool:
        """Whether a reader may only be saying what it has heard, as pycrdt's own provider does, each update once.

        Nobody looks into it, so as many as were heard pass for that.
        """
        heard = self.member.room.version - self._version + bool(self._version)
        self._repeats += 1
        return not self.is_v1 and self._repeats <= heard

    def _warn(self, error: PermissionDenied) -> None:
        """Stock clients only write this to their console."""
        if self.is_v1:
            return
        self._forbidden += 1
        self.member.send(yjs.permission_denied(str(error)))
        if self._forbidden >= MAX_FORBIDDEN:
            raise error

    def _refuse(self, error: CollabError) -> None:
        if self.is_v1:
            self.member.send(yjs.refused(self.member.sequence, error.code, str(error)))

    def _answer(self, state_vector: bytes) -> None:
        if self._has_asked:
            self.waste(QUESTION_COST)
        self._has_asked = True
        if self.is_full:
            self._deferred = state_vector
        else:
            self.member.room.answer(self.member, state_vector)

    def drained(self) -> None:
        if self._deferred is not None:
            state_vector, self._deferred = self._deferred, None
            self.member.room.answer(self.member, state_vector)

    def _present(self, states: bytes) -> None:
        member, count = self.member, len(self.member.clients)
        reply = self.present(member, states)
        if len(member.clients) > count:
            self._remind()
            if self.is_v1:  # who it is, before the answer to its step 1
                shown = member.room.awareness.shown(member)
                member.send(yjs.awareness_message(shown))
        if reply is not None:
            self.member.send(yjs.awareness_message(reply))

    def _remind(self) -> None:
        """The member has said which client it is: it may have been here before."""
        if self.is_v1 or len(self._reminded) >= MAX_REMINDED:
            return
        for client in self.member.clients - self._reminded:
            self._reminded.add(client)
            self.member.room.remind(self.member, client)
