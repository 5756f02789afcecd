"""The socket of a Hocuspocus client: many documents, each with its own authentication, queue and member."""

from __future__ import annotations

import time
from typing import Any

from collab import logs
from collab.auth.base import Credential
from collab.auth.permissions import Principal
from collab.errors import (
    CollabError,
    DocumentBroken,
    HandshakeTimeout,
    InvalidMessage,
    Overrun,
    PermissionDenied,
    RateLimited,
    StoreUnavailable,
    Unauthenticated,
)
from collab.names import room_name
from collab.outbox import NO_STATE_VECTOR
from collab.protocol import hocuspocus, yjs
from collab.protocol.frames import frame
from collab.protocol.messages import (
    Auth,
    AwarenessUpdate,
    Detach,
    Message,
    Pong,
    QueryAwareness,
    Stateless,
    SyncStep1,
    SyncStep2,
    Unknown,
    Update,
)
from collab.room import Member
from collab.server.socket import RENEWAL_COST, Socket
from collab.server.sockets import BEAT_SECONDS, Sockets
from collab.server.y_websocket import QUESTION_COST

MAX_WAITING_BYTES = 65_536
MAX_WAITING_MESSAGES = 100
# A client is asked for a new token when its own ends within this time.
RENEWAL_SECONDS = 30.0

_PING = frame(hocuspocus.PING_MESSAGE)
_WHO = bytes((yjs.QUERY_AWARENESS,))

log = logs.logger(__name__)


class Place:
    """One document on this socket: its member, or what waits until there is one."""

    __slots__ = (
        "ends",
        "has_asked",
        "is_denied",
        "is_opening",
        "member",
        "questions",
        "refused",
        "waiting",
        "was_denied",
    )

    def __init__(self) -> None:
        self.member: Member | None = None
        self.is_opening = False
        self.is_denied = False  # until its client shows another token
        self.was_denied = False  # and has missed something since
        self.ends = 0.0  # of the credential that a new one was asked for
        self.has_asked = False
        self.waiting: list[Message] = []
        self.questions = 0  # of the client, whose own answer to ours is still to come
        self.refused = 0  # messages that could not be saved when they came

    def refuse(self, *, precise: bool) -> None:
        """The message could not be saved; the client offers it again when the room asks."""
        held = 0 if precise else self.refused
        self.refused = held + self.settle(precise=precise)

    def miss(self, message: Message) -> None:
        """The message is not taken in, and the client has counted it."""
        if isinstance(message, Update):
            self.refused += 1
        elif isinstance(message, SyncStep1):
            self.questions, self.refused = 1, 0  # it has begun to count anew

    def settle(self, *, precise: bool) -> int:
        """How many of the client's messages are taken in with this one.

        The client counts its updates and its questions, not the answers that only we asked for; one of those brings
        everything that was refused before.
        """
        if not precise:
            return 1
        settled = min(self.questions, 1) + self.refused
        self.questions -= min(self.questions, 1)
        self.refused = 0
        return settled


class HocuspocusSocket(Socket):
    """Addresses are answered exactly as they came."""

    __slots__ = (
        "_beats",
        "_deferred",
        "_has_entered",
        "_pings",
        "_places",
        "_waiting_bytes",
        "shown",
    )

    dialect = "hocuspocus"

    def __init__(
        self,
        transport: Any,
        sockets: Sockets,
        address: str,
        shown: Credential | Principal,
    ) -> None:
        self.shown = shown  # in the handshake; a document's own token goes before it
        self._places: dict[bytes, Place] = {}
        self._waiting_bytes = 0
        self._pings = False  # since version 4 the client understands a ping
        self._has_entered = False  # into any room
        self._beats = 0  # until then
        # Questions that must wait until the peer has read.
        self._deferred: dict[bytes, bytes] = {}
        super().__init__(transport, sockets, address)

    def members(self) -> list[Member]:
        return [
            place.member for place in self._places.values() if place.member is not None
        ]

    def left(self) -> None:
        places, self._places = self._places, {}
        for place in places.values():
            if place.member is not None:
                self.sockets.replica.leave(place.member.room, place.member)

    def keep_alive(self) -> None:
        if self._pings:
            self.write(_PING)
            return
        for address, place in self._places.items():
            if place.member is not None:
                self.write(frame(address + yjs.KEEP_ALIVE))
                return

    def beat(self) -> None:
        super().beat()
        if not self._has_entered:
            self._beats += 1
            is_late = self._beats * BEAT_SECONDS > self.sockets.idle_seconds
            if is_late and not any(p.is_opening for p in self._places.values()):
                self.close(HandshakeTimeout("no document was opened"))
        elif not self.is_full:
            self._ask_tokens(time.time() + RENEWAL_SECONDS)

    def _ask_tokens(self, until: float) -> None:
        """Ask, once each, for successors of the tokens that end by then."""
        for place in self._places.values():
            member = place.member
            if member is not None and place.ends < member.principal.expires <= until:
                place.ends = member.principal.expires
                member.send(hocuspocus.TOKEN_REQUEST)

    def receive(self, message: bytes) -> None:
        address, said = hocuspocus.decode(message)
        place = self._places.get(address)
        if place is not None and place.member is not None:
            self._handle(place, place.member, said)
        elif type(said) is Pong:
            self.waste(1)
        elif type(said) is Detach:
            self.waste(1)
            self._places.pop(address, None)
        elif type(said) is Auth and (place is None or not place.is_opening):
            self._authenticate(address, said)
        elif place is not None and place.is_denied:
            self._drop(place, said)
        else:
            self._wait(address, said, len(message))

    # Before authentication

    def _place(self, address: bytes) -> Place:
        place = self._places.get(address)
        if place is None:
            if len(self._places) >= self.sockets.max_rooms_per_socket:
                self._make_room()
            place = self._places[address] = Place()
        return place

    def _make_room(self) -> None:
        for address, place in self._places.items():
            if place.is_denied:
                del self._places[address]
                return
        raise Overrun(
            f"more than {self.sockets.max_rooms_per_socket} documents on one socket"
        )

    def _drop(self, place: Place, message: Message) -> None:
        """The client has been told that it may not; it goes on for a while, or for ever."""
        self.waste(1)
        place.miss(message)

    def _wait(self, address: bytes, message: Message, size: int) -> None:
        """Clients do not wait for the answer to their authentication, so what they say next is kept for a moment."""
        if isinstance(message, Unknown):
            return self._stray(message.type)
        hocuspocus.room_of(address)
        place = self._place(address)
        if not place.is_opening and type(message) is SyncStep1:
            # Version 2 says no token when it has none: it begins with the question.
            self._authenticate(address, Auth("", None))
            if place.is_denied:
                return
        self._waiting_bytes += size
        place.waiting.append(message)
        count = sum(len(other.waiting) for other in self._places.values())
        if self._waiting_bytes > MAX_WAITING_BYTES or count > MAX_WAITING_MESSAGES:
            raise Overrun("too much was said before authentication ended")

    def _authenticate(self, address: bytes, auth: Auth) -> None:
        name = hocuspocus.room_of(address)
        if auth.version is not None:
            self._pings = True
        try:
            room_name(name)
        except CollabError as error:
            self._deny(address, error)
            self.waste(QUESTION_COST)
            return
        place = self._place(address)
        if place.is_denied:
            self.waste(RENEWAL_COST)
        place.is_opening, place.is_denied = True, False
        shown = self._shown(auth)
        self.sockets.replica.start(self._open(address, place, name, shown))

    def _shown(self, auth: Auth) -> Credential | Principal:
        if auth.token:
            return Credential(token=auth.token, address=self.address)
        return self.shown

    def _deny(self, address: bytes, error: CollabError) -> None:
        """Refuse one document; the socket stays."""
        self.sockets.metrics.closes[error.code] += 1
        log.warning(
            "document denied", code=error.code, reason=str(error), address=self.address
        )
        place = self._places.get(address)
        if place is not None:
            place.is_opening = False
            place.is_denied = place.was_denied = True
            for message in place.waiting:
                place.miss(message)
            place.waiting.clear()
            if not isinstance(error, (Unauthenticated, PermissionDenied)):
                del self._places[address]  # the same token may do in a moment
            if not any(p.waiting for p in self._places.values()):
                self._waiting_bytes = 0
        self.write(frame(address + hocuspocus.permission_denied(str(error))))

    async def _open(
        self,
        address: bytes,
        place: Place,
        name: str,
        shown: Credential | Principal,
    ) -> None:
        replica = self.sockets.replica
        try:
            entry = await self.sockets.access.enter(shown, name)
            room = entry.room
            if self._places.get(address) is not place:
                return  # gone meanwhile
            member = self.member_for(entry, address)
            replica.join(room, member)
        except CollabError as error:
            if self._places.get(address) is not place:
                return
            if error.close_code in (1012, 1013, 4429) and len(self._places) == 1:
                self.close(error)  # the client comes back by itself
            else:
                self._deny(address, error)
            return
        member.is_full = self.is_full
        place.member = member
        place.is_opening = False
        self._has_entered = True
        member.send(hocuspocus.authenticated(may_write=member.may_write))
        room.introduce(member)
        waiting, place.waiting = place.waiting, []
        if place.was_denied and not any(type(said) is SyncStep1 for said in waiting):
            # With another token on the same socket its client does not begin anew by itself.
            room.answer(member, NO_STATE_VECTOR)
            if member.may_write:
                room.ask(member)
        place.was_denied = False
        self._waiting_bytes = 0
        try:
            for message in waiting:
                self._handle(place, member, message)
        except CollabError as error:
            self.close(error)

    # What the server changes

    def rights_changed(self, member: Member) -> None:
        member.send(hocuspocus.authenticated(may_write=member.may_write))
        if member.may_write:
            member.room.ask(member)  # for what was refused meanwhile

    def renewed(self, member: Member) -> None:
        member.send(hocuspocus.authenticated(may_write=member.may_write))

    def put_off(self, member: Member) -> None:
        self._places[member.prefix].ends = 0.0  # ask again

    def expel(self, member: Member, error: CollabError) -> None:
        place = self._places[member.prefix]
        place.member = None
        # What it wrote and is not told of any more.
        applied = frame(member.prefix + hocuspocus.APPLIED)
        place.refused += sum(owed == applied for _, owed in member.pending)
        self._deny(member.prefix, error)
        if self._pings:
            # So that it sees nobody any more. Version 2 fails over this message.
            self.write(frame(member.prefix + hocuspocus.close(str(error))))
        self.sockets.replica.leave(member.room, member)

    # After it

    def _handle(self, place: Place, member: Member, message: Message) -> None:
        room = member.room
        match message:
            case Update(update):
                self._update(place, member, update, precise=False)
            case SyncStep2(update):
                self._update(place, member, update, precise=True)
            case SyncStep1(state_vector):
                if place.has_asked:
                    self.waste(QUESTION_COST)
                place.has_asked = True
                # The client counts on a question for every one of its own, and begins to count anew: what it is still to be
                # told of what came before would be taken for the answer.
                place.questions, place.refused = 1, 0
                applied = frame(member.prefix + hocuspocus.APPLIED)
                member.pending = [owed for owed in member.pending if owed[1] != applied]
                if member.may_write:
                    room.ask(member)
                elif room.document.has_seen(state_vector):
                    self._settle(place, member)
                else:
                    self._refuse(place, member, precise=True)
                if self.is_full:
                    self._deferred[member.prefix] = state_vector
                else:
                    room.answer(member, state_vector)
            case AwarenessUpdate(states):
                self._present(member, states)
            case QueryAwareness():
                self.waste(1)
                room.introduce(member)
            case Stateless(text):
                if member.may_write:
                    room.relay(member, hocuspocus.stateless(text))
                else:
                    self.waste(1)
            case Detach():
                self.waste(1)
                del self._places[member.prefix]
                self.sockets.replica.leave(room, member)
            case Auth(_, _):
                shown = self._shown(message)
                if isinstance(shown, Credential):
                    self.renew(member, shown)
                else:
                    self.waste(1)  # nothing new
            case Unknown(number):
                self._stray(number)

    def _update(
        self, place: Place, member: Member, update: bytes, *, precise: bool
    ) -> None:
        room = member.room
        try:
            is_new = self.update(member, update, precise=precise)
        except PermissionDenied as error:
            self.forbid(member, update, error)
            if precise and update == yjs.NOTHING:
                self._settle(place, member)
            else:
                self._refuse(place, member, precise=precise)
            return
        except StoreUnavailable:
            # The room asks again when it can save.
            self._refuse(place, member, precise=precise)
            return
        except RateLimited as error:
            self.withhold(member, error)
            self._refuse(place, member, precise=precise)
            return
        except DocumentBroken:
            self.sockets.replica.start(self.sockets.replica.rebuild(room))
            raise InvalidMessage("this update cannot be applied") from None
        if precise:
            self._settle(place, member)
        else:
            room.owe(member, hocuspocus.APPLIED)
        if not is_new:
            self.sockets.metrics.repeats += 1
            if not precise:
                self.waste(1)

    def _settle(self, place: Place, member: Member) -> None:
        """The client's answer to a question has come, or nothing of it is missing."""
        for _ in range(place.settle(precise=True)):
            member.room.owe(member, hocuspocus.APPLIED)

    def _refuse(self, place: Place, member: Member, *, precise: bool) -> None:
        place.refuse(precise=precise)
        member.room.owe(member, hocuspocus.NOT_APPLIED)

    def _present(self, member: Member, states: bytes) -> None:
        reply = self.present(member, states)
        if reply is not None:
            member.send(yjs.awareness_message(reply))
            if self._pings:
                # Version 4 takes the higher clock but says nothing until it is asked.
                member.send(_WHO)

    def _stray(self, number: int) -> None:
        if number == hocuspocus.BROADCAST_STATELESS:
            raise PermissionDenied("this message is for servers only")
        self.unknown(number)

    def drained(self) -> None:
        deferred, self._deferred = self._deferred, {}
        for address, state_vector in deferred.items():
            place = self._places.get(address)
            if place is not None and place.member is not None:
                place.member.room.answer(place.member, state_vector)
