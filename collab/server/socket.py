"""One attached WebSocket: frames in, messages to its dialect; nothing is awaited on the way (RFC 6455).

After the handshake the transport is handed to a `Socket`; the task, the scope and the HTTP parser are gone, so an
idle connection is little more than this object and its member.
"""

from __future__ import annotations

import asyncio
import secrets
from time import perf_counter, thread_time
from typing import Any

from websockets.speedups import apply_mask

from collab import logs
from collab.auth.base import Credential
from collab.auth.permissions import ANONYMOUS, PRESENCE, Principal
from collab.document.document import ANONYMOUS as ANONYMOUS_OWNER
from collab.errors import (
    CollabError,
    FrameTooBig,
    InvalidMessage,
    PermissionDenied,
    ProtocolViolation,
    RateLimited,
    SlowMember,
    Unauthenticated,
    UnsupportedFrame,
)
from collab.protocol.frames import PING, close_frame, is_farewell, pong_frame
from collab.protocol.yjs import NOTHING
from collab.room import Member
from collab.server.access import Entry
from collab.server.limits import CPU_SHARE, Account
from collab.server.sockets import BEAT_SECONDS, Sockets
from collab.store.base import Author
from collab.turns import About

CONTINUATION, TEXT, BINARY, CLOSE, PING_OPCODE, PONG_OPCODE = 0, 1, 2, 8, 9, 10
MAX_FRAGMENTS = 1000
MAX_UNKNOWN = 10
# Of messages that bring nothing: pings, repeats, questions asked again and again.
WASTE_BURST = 400.0
WASTE_PER_SECOND = 20.0
RENEWAL_COST = 20.0  # of a new token for a live member: to verify one is work
CHARGED_BYTES = 4096
CHARGED_SECONDS = 0.002  # hundred times what a keystroke takes
MAX_CLAIMED_NAME = (
    100  # characters that are written beside what a member without an account writes
)
INTRODUCTION_SECONDS = 1.0  # between two names of such a member
PAUSE_SECONDS = 0.1  # that who is too fast is not read, at least: what comes then is one loop turn's work
LOAN = 50.0  # messages that are taken from a principal's account at once
PROBE_SECONDS = 3.0
LINGER_SECONDS = 5.0  # between our close frame and the end, whatever the peer does

_CLOSE_CODES = frozenset(
    (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014)
)

log = logs.logger(__name__)


class Socket(asyncio.Protocol):
    """The WebSocket protocol of one connection; a dialect is a subclass with `receive` and `left`."""

    __slots__ = (
        "_asking",
        "_budget",
        "_fragments",
        "_full_since",
        "_has_spoken",
        "_heard",
        "_holds",
        "_is_closing",
        "_linger",
        "_need",
        "_own",
        "_probed",
        "_refilled",
        "_rest",
        "_seat",
        "_silences",
        "_throttle",
        "_unknown",
        "_waste",
        "_wasted",
        "account",
        "address",
        "connection",
        "home",
        "sockets",
        "transport",
        "write",
    )

    dialect: str

    def __init__(self, transport: Any, sockets: Sockets, address: str) -> None:
        self.transport = transport
        self.write = transport.write
        self.sockets = sockets
        self.address = address
        self.account: Account | None = None  # of its principal
        self.home = sockets.limits.of_address(address)
        if self.home is not None:
            self.home.add_socket()
        self.connection = secrets.token_hex(8)
        self._has_spoken = False
        self._rest = (
            bytearray()
        )  # the beginning of a frame, or what came while reading was paused
        self._need = 0  # bytes of it that make the next step possible
        self._fragments: list[bytes] | None = None
        self._budget = sockets.burst  # what it may say before it asks for more
        self._own = 0.0  # what its own rate leaves beyond that
        self._refilled = self._wasted = sockets.loop.time()
        self._waste = 0.0
        self._unknown = 0
        self._holds = 0  # reasons not to take anything now
        self._throttle: asyncio.TimerHandle | None = None
        self._full_since: asyncio.TimerHandle | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._asking: asyncio.TimerHandle | None = None
        self._heard = True
        self._silences = 0
        self._probed = 0.0
        self._is_closing = False
        transport.set_write_buffer_limits(high=sockets.max_outbox_bytes)
        transport.set_protocol(self)
        self._seat = sockets.add(self)

    # What a dialect does

    def receive(self, message: bytes) -> None:
        """Take one binary message. May raise any CollabError, which closes this socket and nothing else."""
        raise NotImplementedError

    def members(self) -> list[Member]:
        """The members that live on this socket."""
        raise NotImplementedError

    def left(self) -> None:
        """The connection is gone: leave every room."""
        raise NotImplementedError

    def keep_alive(self) -> None:
        """Send something that the client's library counts as life; it does not see pings."""
        raise NotImplementedError

    def notify(self, kind: str, retry_after_milliseconds: int = 0) -> None:
        """Most clients have no words for it."""

    def rights_changed(self, member: Member) -> None:
        """Most clients have no words for it."""

    def expel(self, member: Member, error: CollabError) -> None:
        self.close(error)

    def renewed(self, member: Member) -> None:
        """Tell a client that understands it that its new credential was taken."""

    def put_off(self, member: Member) -> None:
        """Nobody could say what its new credential is worth: the old one goes on, and one may be shown again."""

    def member_for(self, entry: Entry, prefix: bytes = b"") -> Member:
        """A member that lives on this socket. Without access control it is a connection, and nobody's account.

        Raises RateLimited when its principal has too many sockets.
        """
        room, principal, operations = entry
        self.belong(principal)
        is_anonymous = principal is ANONYMOUS
        member = Member(
            self.write,
            self,
            Author(principal.id, self.connection),
            owner=f"{ANONYMOUS_OWNER}{self.connection}"
            if is_anonymous
            else principal.id,
            prefix=prefix,
            principal=principal,
            operations=operations,
            user=principal.stamp,
        )
        member.bound(self.sockets.limits.of_agent(principal, room.name))
        return member

    # Frames in

    def data_received(self, data: bytes) -> None:
        self._heard = True
        n = data[1] & 127 if len(data) > 6 else 127
        if len(data) == n + 6 and n < 126 and data[0] == 0x82 and data[1] & 128:
            if (
                not self._rest
                and not self._holds
                and self._fragments is None
                and not self._is_closing
            ):
                self._take(
                    apply_mask(data[6:], data[2:6])
                )  # one whole short frame: what a keystroke is
                return
        if self._is_closing:
            # TLS has no half-closed connections: the peer waits for us to end this one.
            if not self.transport.can_write_eof() and is_farewell(data):
                self.transport.close()
            return
        self._rest += data
        if not self._holds and len(self._rest) >= self._need:
            self._parse()

    def _parse(self) -> None:
        """Any other frames: several at once, parts, long ones, control frames, fragments."""
        data, self._rest = self._rest, bytearray()
        at, end, need = 0, len(data), 2
        while not self._holds and not self._is_closing:
            need = 2
            if end - at < need:
                break
            first, second = data[at], data[at + 1]
            n, head, opcode = second & 127, at + 2, first & 15
            if first & 0x70:
                return self.close(ProtocolViolation("reserved bits are set"))
            if not second & 128:
                return self.close(ProtocolViolation("a client's frames must be masked"))
            if opcode >= CLOSE and (n > 125 or not first & 128 or opcode > PONG_OPCODE):
                return self.close(ProtocolViolation("a bad control frame"))
            if n > 125:
                head += 2 if n == 126 else 8
                need = head - at
                if end < head:
                    break
                n = int.from_bytes(data[at + 2 : head], "big")
            if n > self.sockets.max_message_bytes:
                return self.close(
                    FrameTooBig(f"more than {self.sockets.max_message_bytes} bytes")
                )
            stop = head + 4 + n
            need = stop - at
            if stop > end:
                break
            content = (
                apply_mask(data[head + 4 : stop], data[head : head + 4]) if n else b""
            )
            at = stop
            if opcode == BINARY and first & 128 and self._fragments is None:
                self._take(content)
            else:
                self._other(opcode, bool(first & 128), content)
        if not self._is_closing:
            self._rest = data[at:] if at else data
            self._need = need if not self._holds else 0

    def _other(self, opcode: int, is_final: bool, content: bytes) -> None:
        if opcode in (BINARY, CONTINUATION):
            self._collect(opcode, is_final, content)
        elif opcode == PING_OPCODE:
            self.write(pong_frame(content))
            self._spend_waste(1)
        elif opcode == PONG_OPCODE:
            self._spend_waste(1)
        elif opcode == CLOSE:
            self._answer_close(content)
        elif opcode == TEXT:
            self.close(UnsupportedFrame("only binary messages are spoken here"))
        else:
            self.close(ProtocolViolation("an unknown kind of frame"))

    def _spend_waste(self, cost: float) -> None:
        """`waste`, where there is nobody to catch the exception."""
        try:
            self.waste(cost)
            self._spend(0)
        except CollabError as error:
            self.close(error)

    def _collect(self, opcode: int, is_final: bool, content: bytes) -> None:
        fragments = self._fragments
        if (opcode == BINARY) != (fragments is None):
            return self.close(ProtocolViolation("fragments out of order"))
        if fragments is None:
            fragments = self._fragments = []
        fragments.append(content)
        self._budget -= 0.1
        if (
            len(fragments) > MAX_FRAGMENTS
            or sum(map(len, fragments)) > self.sockets.max_message_bytes
        ):
            return self.close(FrameTooBig("too much in fragments"))
        if is_final:
            self._fragments = None
            self._take(b"".join(fragments))

    def _answer_close(self, content: bytes) -> None:
        code = int.from_bytes(content[:2], "big") if content else 1000
        is_valid = len(content) != 1 and (code in _CLOSE_CODES or 3000 <= code < 5000)
        if is_valid:
            try:
                content[2:].decode()
            except UnicodeDecodeError:
                is_valid = False
        if not is_valid:
            return self.close(ProtocolViolation("a bad close frame"))
        self._finish(close_frame(code) if content else b"\x88\x00", is_answer=True)

    def _take(self, message: bytes) -> None:
        if not self._has_spoken:
            self._has_spoken = True
            self.sockets.heard(self)
        # Long ones are charged for what they took, short ones only when that was long: to ask how much of it was work
        # would cost more than they do.
        is_long = len(message) > CHARGED_BYTES
        clock = thread_time if is_long else perf_counter
        begun = clock()
        try:
            self.receive(message)
        except CollabError as error:
            self.close(error)
        except Exception:
            log.exception("a bug met a message", address=self.address)
            self.close(CollabError("an error on our side"))
        seconds = clock() - begun
        if is_long or seconds > CHARGED_SECONDS:
            self._budget -= seconds / CPU_SHARE * self.sockets.messages_per_second
        self._spend(len(message))

    def present(self, member: Member, states: bytes) -> bytes | None:
        """Take in what a member says of itself; returns what it must be told. Dropped when it may not be seen."""
        sockets, room = self.sockets, member.room
        sockets.metrics.awareness_messages += 1
        if not member.operations & PRESENCE:
            # No waste: stock clients repeat what they hear about others.
            sockets.metrics.denied_presence += 1
            return None
        now = sockets.loop.time()
        reply = room.awareness.apply(states, member, now)
        sockets.replica.present(room)
        if member.principal is ANONYMOUS and now >= member.introduced:
            self._introduce(member, now)
        return reply

    def _introduce(self, member: Member, now: float) -> None:
        """Without access control a member is called what it calls itself; it says so again with all that it says."""
        name, kind = member.room.awareness.introduction(member)
        about = About(name=name[:MAX_CLAIMED_NAME], kind=kind)
        if about != member.about:
            member.introduce(about)
            member.introduced = now + INTRODUCTION_SECONDS

    def renew(self, member: Member, credential: Credential) -> None:
        """A member shows a new credential for the rest of its stay; what it says meanwhile goes by the old one."""
        self.waste(RENEWAL_COST)
        self.sockets.replica.start(self._renew(member, credential))

    async def _renew(self, member: Member, credential: Credential) -> None:
        try:
            await self.sockets.access.refresh(member, credential)
        except CollabError as error:
            self._audit_denial(member, error, "renew")
            if member not in self.members():
                return
            if isinstance(error, (Unauthenticated, PermissionDenied)):
                self.expel(member, error)
            else:
                self.put_off(member)
            return
        if member in self.members():
            self.renewed(member)

    def update(self, member: Member, update: bytes, *, precise: bool) -> bool:
        """Hand an update to its room; one in 64 is timed. Raises what `Room.update` raises."""
        member.sequence += 1
        if member.sequence & 63:
            return member.room.update(member, update, precise=precise)
        begun = perf_counter()
        try:
            return member.room.update(member, update, precise=precise)
        finally:
            self.sockets.metrics.apply.observe(perf_counter() - begun)

    def forbid(self, member: Member, update: bytes, error: PermissionDenied) -> None:
        """A reader has sent an update, and nobody has looked into it. Read-only stock clients send empty ones."""
        self.sockets.metrics.denied_updates += 1
        self.waste(1)
        if update != NOTHING:
            self._audit_denial(member, error, "update")

    def withhold(self, member: Member, error: CollabError) -> None:
        """An update of an agent was not taken. Outside of a turn it is asked for again when there may be more."""
        self.sockets.metrics.withheld_updates += 1
        self.waste(1)
        if isinstance(error, RateLimited) and member.turn is None:
            if self._asking is None:
                self._asking = self.sockets.loop.call_later(
                    error.retry_seconds, self._ask_again
                )

    def _ask_again(self) -> None:
        self._asking = None
        for member in self.members():
            if member.budget is not None and member.may_write:
                member.room.ask(member)

    def _audit_denial(self, member: Member, error: CollabError, what: str) -> None:
        self.sockets.access.denied(
            error, what, member.principal, room=member.room.name, address=self.address
        )

    # Limits

    def _spend(self, size: int) -> None:
        """A sender that is too fast is read more slowly; what it sends is neither dropped nor refused."""
        sockets = self.sockets
        sockets.metrics.received_bytes += size
        self._budget -= 1 + size // sockets.bytes_per_message
        if self._budget < 0 and self._throttle is None:
            wait = self._borrow()
            if wait and not self._is_closing:
                sockets.metrics.throttles += 1
                self.pause()
                self._slow(wait)

    def _borrow(self) -> float:
        """What was lent is used up: ask for more; returns how many seconds to wait before it may be used.

        A principal's account is asked once for many messages. Without one all that the socket has is lent to it.
        """
        sockets, account = self.sockets, self.account
        rate, now = sockets.messages_per_second, sockets.loop.time()
        debt = -self._budget
        own = min(sockets.burst, self._own - debt + (now - self._refilled) * rate)
        self._refilled = now
        if account is None:
            self._own, self._budget = 0.0, own
            return max(0.0, -own / rate)
        lent = max(0.0, min(own, LOAN))
        self._own, self._budget = own - lent, lent
        return max(-own / rate, account.lend(lent + debt, now))

    def _slow(self, seconds: float) -> None:
        self._throttle = self.sockets.loop.call_later(
            max(seconds, PAUSE_SECONDS), self._end_throttle
        )

    def _end_throttle(self) -> None:
        self._throttle = None
        # A loan that was waited for is there; a debt to one's own rate has been paid, but nothing is lent yet.
        wait = self._borrow() if self._budget <= 0 else 0.0
        if wait:
            self._slow(wait)
        else:
            self.resume()

    def belong(self, principal: Principal) -> None:
        """Count this socket, and what it says, for the principal that first came in on it. Raises RateLimited."""
        if self.account is not None:
            return
        account = self.sockets.limits.of_principal(principal)
        if account is not None:
            account.check_sockets()
            account.add_socket()
            self.account = account
            self._own, self._budget = self._budget, 0.0

    def waste(self, cost: float) -> None:
        """Count what brings nobody anything. Raises RateLimited when it becomes a flood."""
        now = self.sockets.loop.time()
        self._waste = (
            max(0.0, self._waste - (now - self._wasted) * WASTE_PER_SECOND) + cost
        )
        self._wasted = now
        if self._waste > WASTE_BURST:
            raise RateLimited("too many messages that change nothing")

    def unknown(self, kind: int) -> None:
        """A message of an unknown type: skipped, until it is no accident any more."""
        self._unknown += 1
        self.waste(1)
        if self._unknown > MAX_UNKNOWN:
            raise InvalidMessage(f"messages of unknown type {kind}")

    def pause(self) -> None:
        self._holds += 1
        if self._holds == 1 and not self._is_closing:
            self.transport.pause_reading()

    def resume(self) -> None:
        self._holds -= 1
        if self._holds == 0 and not self._is_closing:
            self.transport.resume_reading()
            if self._rest:
                self._parse()

    # A peer that does not read

    def pause_writing(self) -> None:
        for member in self.members():
            member.is_full = True
        self._watch()

    def _watch(self) -> None:
        """While the peer reads at all it may take its time: a large document over a slow line is no fault."""
        self._full_since = self.sockets.loop.call_later(
            self.sockets.slow_member_seconds,
            self._give_up,
            self.transport.get_write_buffer_size(),
        )

    def resume_writing(self) -> None:
        if self._full_since is not None:
            self._full_since.cancel()
            self._full_since = None
        if self._is_closing:
            return  # the last word has been said, and nothing may be written behind it
        for member in self.members():
            if member.room.resume(member):
                self.sockets.metrics.resyncs += 1
        self.drained()

    def drained(self) -> None:
        """The peer takes more again: what was put off until then."""

    @property
    def is_full(self) -> bool:
        """Whether the peer does not take more at the moment."""
        return self._full_since is not None

    def _give_up(self, unsent: int) -> None:
        if self.transport.get_write_buffer_size() < unsent:
            self._watch()
            return
        self._full_since = None
        self.sockets.metrics.slow_closes += 1
        self.close(SlowMember("the client does not read what it is sent"))

    # Life and death

    def beat(self) -> None:
        """Called every twelve seconds."""
        if self._is_closing:
            return
        if self._heard:
            self._silences = 0
        else:
            self._silences += 1
            if self._silences * BEAT_SECONDS >= self.sockets.idle_seconds:
                log.info("socket closed", code="silent", address=self.address)
                self.sockets.metrics.closes["silent"] += 1
                self.transport.abort()
                return
        self._heard = False
        if not self.is_full:
            self.write(PING)
            self.keep_alive()

    def is_alive(self) -> bool:
        now = self.sockets.loop.time()
        if not self._probed:
            self._probed = now
            self._heard = False
            self.write(PING)
            return False
        if self._heard:
            self._probed = 0.0
            return True
        if now - self._probed > PROBE_SECONDS and not self._holds:
            self.transport.abort()
        return False

    def close(self, error: CollabError) -> None:
        """Tell the peer why, and end; one log line and one count, whatever comes after."""
        if self._is_closing:
            return
        self.sockets.metrics.closes[error.code] += 1
        rule = getattr(error, "rule", None)
        if rule is not None:
            self.sockets.metrics.refusals[rule] += 1
        log.warning(
            "socket closed",
            code=error.code,
            close_code=error.close_code,
            reason=str(error),
            address=self.address,
            rooms=[member.room.name for member in self.members()][:3],
        )
        self._finish(close_frame(error.close_code, str(error)))

    def _finish(self, frame: bytes, *, is_answer: bool = False) -> None:
        """Say the last word, and end. What the peer still sends is read and dropped: closing over unread bytes would
        reset the connection, and take what the peer has not read yet with it.
        """
        if self._is_closing:
            return
        self._is_closing = True
        self._rest = bytearray()
        self._fragments = None
        self.left()
        transport = self.transport
        if transport.is_closing():
            return
        self.write(frame)
        if is_answer:
            transport.close()
        else:
            if transport.can_write_eof():
                transport.write_eof()
            if self._holds:
                transport.resume_reading()
        self._linger = self.sockets.loop.call_later(LINGER_SECONDS, transport.abort)

    def goodbye(self) -> None:
        """The end of a drain: nothing is wrong, come back soon."""
        self._finish(close_frame(1012, "the server restarts"))

    def shutdown(self) -> None:
        """uvicorn's last word to what is still open when it stops."""
        self.goodbye()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_closing = True
        self._rest = bytearray()
        for timer in (self._throttle, self._full_since, self._linger, self._asking):
            if timer is not None:
                timer.cancel()
        self._throttle = self._full_since = self._linger = self._asking = None
        for account in (self.account, self.home):
            if account is not None:
                account.add_socket(-1)
        self.account = self.home = None
        self.sockets.discard(self, self._seat)
        self.left()
