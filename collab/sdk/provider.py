"""Provider: a pycrdt.Doc in step with a room, and the truth about what of it is on disk."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from random import random
from types import MappingProxyType, TracebackType
from typing import Any, Literal, Self

import orjson
from pycrdt import Doc
from websockets.exceptions import WebSocketException

from collab.document.document import NOTHING
from collab.errors import DocumentBroken, InvalidMessage
from collab.protocol import yjs
from collab.protocol.messages import AwarenessUpdate, SyncStep1, SyncStep2, Update
from collab.sdk import messages
from collab.sdk.backoff import Closing, delay
from collab.sdk.connection import (
    LOCAL,
    Connection,
    base_url,
    closing_of,
    dialled,
    room_address,
)
from collab.sdk.credential import Credential, Token
from collab.sdk.errors import (
    AnotherHistory,
    Conflict,
    Invalid,
    NotAcknowledged,
    RateLimited,
    Refused,
    SdkError,
    TooLarge,
    Unavailable,
    error_of,
)
from collab.sdk.ledger import Ledger
from collab.sdk.messages import (
    Ack,
    EndedTurn,
    Hello,
    Notice,
    RefusedUpdate,
    ServerMessage,
)
from collab.sdk.mirror import Mirror
from collab.sdk.presence import Peer, Presence, User
from collab.sdk.requests import Requests
from collab.turns import MAX_ABOUT_BYTES, checked_turn, read_said

Level = Literal["received", "merged", "logged", "stored"]

VERSION = 1
FLUSH_SECONDS = 10.0
WAIT_SECONDS = 60.0  # for what a program waits for and does not bound itself
LEAST_UPDATE_BYTES = 1024  # that every server takes

# Refusals that end by themselves; all others concern what was written, or who wrote it.
_PASSING = frozenset(
    {
        "store_unavailable",
        "room_unavailable",
        "bus_unavailable",
        "busy",
        "draining",
    }
)
# After these the socket stays open, so a document that is not ours may go on reading.
_STAYING = frozenset(
    {
        "permission_denied",
        "turn_cancelled",
        "lease_lost",
        "rate_limited",
        "others_present",
    }
)


class Phase(Enum):
    """Where a document stands between this program and the room."""

    CONNECTING = "connecting"  # for the first time or again; edits are kept
    SYNCED = (
        "synced"  # it holds what the room held, and nothing of ours was written yet
    )
    UNSAVED = "unsaved"  # some of ours is not known to be on disk
    SAVED = "saved"  # all of ours is
    REFUSED = "refused"  # the server does not take it; `error` says why
    CLOSED = "closed"  # the room was left


@dataclass(frozen=True, slots=True)
class State:
    """What a program may show about a document."""

    phase: Phase
    unsaved_since: float | None = None  # seconds of the epoch, whatever the phase
    error: SdkError | None = None  # why it is refused, or why it is connecting again
    is_writable: bool = True  # as far as the server said
    attempt: int = 0  # to connect, since it was last in step


@dataclass(frozen=True, slots=True)
class Replaced:
    """An update was refused, so the document held what the room does not: a new one has taken its place."""

    doc: Doc[Any]
    error: SdkError


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """The server has ended a turn of ours."""

    turn: str
    error: SdkError


@dataclass(frozen=True, slots=True)
class PeersChanged:
    """Somebody came, left or shows something else. `peers` are those of now, and of later when they are kept."""

    peers: Mapping[int, Peer]


Event = State | Replaced | TurnEnded | PeersChanged


class Provider:
    """Keeps a document in step with a room for as long as its block lasts.

    async with Provider("https://example.org", "room", doc, token=token) as provider:
        await provider.synced()

    A document that is given stays the program's own: when the server refuses what is in it, the state says so and
    nothing more is sent. One that the provider makes itself is replaced then, `doc` is another one after that, and
    observers are told by `Replaced`. What is too long for one message goes in parts, but for a single value: that ends like
    a refusal, with TooLarge. Edit the document on the thread of the loop, and never wait inside a transaction.
    """

    def __init__(
        self,
        url: str,
        room: str,
        doc: Doc[Any] | None = None,
        *,
        token: Token = None,
        name: str = "",
        state: Mapping[str, Any] | None = None,
        tls: ssl.SSLContext | None = None,
        flush_seconds: float = FLUSH_SECONDS,
        chance: Callable[[], float] = random,
    ) -> None:
        """`token` is one, or brings the next one each time it is asked. `state` is what others see of this member;
        without it they see the name, and nobody when there is none. `tls` is for certificates of one's own.
        `flush_seconds` bounds the wait on leaving.
        """
        self.room = room
        self._address = room_address(url, room)
        self._credential, self._tls = Credential(token), tls
        self.requests = Requests(base_url(url), self._credential.current, tls=tls)
        self._flush_seconds = flush_seconds
        self._chance = chance
        self._is_own = doc is None
        self._mirror = Mirror(doc if doc is not None else Doc(), self._edited)
        shown = (
            state if state is not None else {"user": {"name": name}} if name else None
        )
        self._presence = Presence(self.doc.client_id, shown)
        self._observers: list[Callable[[Event], object]] = []
        self._signal = asyncio.Event()  # replaced by a new one at each change
        self._state = State(Phase.CONNECTING)
        self._peers_version = 0

        self._epoch = ""
        self._attempt = 0
        self._asked_seconds = 0.0
        self._is_synced = self._may_send = self._has_probed = False
        self._is_writable = True
        self._final: SdkError | None = None  # it does not come back
        self._is_over = False  # nothing changes any more
        self._fault: SdkError | None = None  # of the last connection

        self._connection: Connection | None = None  # while there is one
        self._ledger = Ledger(has_content=not self._mirror.is_empty)

        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._tasks: asyncio.TaskGroup | None = None
        self._life: asyncio.Task[None] | None = None

    # What a program sees.

    @property
    def doc(self) -> Doc[Any]:
        """The document; another one after `Replaced`."""
        return self._mirror.doc

    @property
    def state(self) -> State:
        """Where it stands now."""
        return self._state

    @property
    def peers(self) -> Mapping[int, Peer]:
        """The others who are here, by client id."""
        return dict(self._presence.peers)

    @property
    def unseen(self) -> int:
        """How often somebody was not taken up into `peers` on this connection, because they are too many or show too much."""
        return self._presence.unseen

    @property
    def user(self) -> User:
        """Who the server says this member is, once it was in step; empty for who shows nothing, or may not be seen."""
        return self._presence.user

    @property
    def position(self) -> int:
        """In the room's log: of the last change that was acknowledged."""
        return self._ledger.position

    @property
    def epoch(self) -> str:
        """The name of the room's history, "" until it is known."""
        return self._epoch

    def observe(self, callback: Callable[[Event], object]) -> Callable[[], None]:
        """Call back at each event, in order, at once; the answer ends that."""
        self._observers.append(callback)

        def end() -> None:
            if callback in self._observers:
                self._observers.remove(callback)

        return end

    async def states(self) -> AsyncIterator[State]:
        """The state now and after each change; who is slow misses those in between. Ends when the room was left, or refused
        for good.
        """
        seen: State | None = None
        while True:
            signal, state = self._signal, self._state
            if state != seen:
                seen = state
                yield state
            elif self._is_over:
                return
            else:
                await signal.wait()

    async def presences(self) -> AsyncIterator[Mapping[int, Peer]]:
        """Who is here now and after each change; who is slow misses those in between. Ends as `states` does."""
        seen = -1
        while not self._is_over:
            signal = self._signal
            if seen != self._peers_version:
                seen = self._peers_version
                yield self.peers
            else:
                await signal.wait()

    async def synced(
        self,
        timeout: float | None = WAIT_SECONDS,  # noqa: ASYNC109 - the blocking façade has it too
    ) -> None:
        """Wait until the document has held all that the room held. Raises the error of a server that refuses, and
        Unavailable after `timeout` seconds.
        """
        await self._until(lambda: self._is_synced, timeout, "the room was not reached")

    async def flush(
        self,
        level: Level = "logged",
        timeout: float | None = WAIT_SECONDS,  # noqa: ASYNC109 - the blocking façade has it too
    ) -> int:
        """Wait until all local changes made so far are acknowledged; the answer is their position in the room's log.

        `received` and `merged` have no sign of their own: they have happened when `logged` has. Raises
        NotAcknowledged for `stored`, the error of a server that refuses, and Unavailable after `timeout` seconds:
        nothing is lost then, and it goes on being tried.
        """
        if level == "stored":
            raise NotAcknowledged("no server says yet when a change is in a checkpoint")
        if level not in ("received", "merged", "logged"):
            raise Invalid(f"there is no level {level!r}")
        ledger, point = self._ledger, self._ledger.point
        await self._until(
            lambda: ledger.has_saved(point), timeout, "it was not saved in time"
        )
        return self.position

    async def _until(
        self,
        is_true: Callable[[], bool],
        timeout: float | None,  # noqa: ASYNC109 - handed on from those above
        failure: str,
    ) -> None:
        try:
            async with asyncio.timeout(timeout):
                while not is_true():
                    if self._final is not None:
                        raise self._ledger.tell_of(self._final)
                    if self._is_over:
                        raise Unavailable("the room was left")
                    await self._signal.wait()
        except TimeoutError:
            cause = f": {self._fault}" if self._fault is not None else ""
            raise Unavailable(failure + cause) from None

    def heard(self, error: SdkError) -> None:
        """A program knows of this refusal: leaving does not tell it again."""
        self._ledger.told = error

    # What a program says.

    def show(self, state: Mapping[str, Any] | None) -> None:
        """Set what others see of this member, None to be seen no more. Raises Invalid when it is no JSON, or too much."""
        self._presence.show(state)
        if self._connection is not None:
            self._connection.show()

    @property
    def shown(self) -> Mapping[str, Any]:
        """What `show` has set."""
        return dict(self._presence.state or {})

    def send(self, frame: bytes) -> bool:
        """Send a message in order with the updates. False when there is no connection: it is not sent later."""
        if self._connection is None:
            return False
        self._connection.message(frame)
        return True

    def turn(self, id: str, about: Mapping[str, str] | None = None) -> None:
        """The changes from here on belong to that turn; "" ends it. Sent again on each connection, before what belongs
        to it. Raises Invalid for what no server takes: an id that is none, too much about it, or no text.
        """
        try:
            encoded = orjson.dumps(dict(about or {})).decode()
            read_said(encoded)
            if id:
                checked_turn(id)
        except (TypeError, InvalidMessage) as error:
            raise Invalid(str(error)) from None
        if len(encoded.encode()) + len(id) > MAX_ABOUT_BYTES:
            raise Invalid(f"a turn is described in at most {MAX_ABOUT_BYTES} bytes")
        self._ledger.begin_turn(id, encoded)
        # Otherwise it goes before the answer that brings what belongs to it.
        if self._may_send:
            self.send(messages.turn(id, encoded))

    def cancel_turn(self, turn: str, principal: str = "") -> bool:
        """Ask for somebody's turn to be stopped; False when there is no connection. Raises Invalid for an id that is none."""
        try:
            return self.send(messages.cancel(checked_turn(turn), principal))
        except InvalidMessage as error:
            raise Invalid(str(error)) from None

    # Its life.

    async def __aenter__(self) -> Self:
        if self._life is not None:
            raise Conflict("a provider's block is entered once: make another")
        self._tasks = await asyncio.TaskGroup().__aenter__()
        self._life = self._tasks.create_task(self.run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        tasks, self._tasks = self._tasks, None
        if tasks is None or self._life is None:
            return  # it was left before
        try:
            await self.leave(is_failing=kind is not None)
        finally:
            self._life.cancel()
            # An error of the program's own is not one of ours: it goes on as it is.
            is_cancelled = kind is not None and issubclass(kind, asyncio.CancelledError)
            given = (kind, error, traceback) if is_cancelled else (None, None, None)
            await tasks.__aexit__(*given)

    async def leave(self, *, is_failing: bool = False) -> None:
        """Flush, for a bounded time. Raises when something is not saved, unless the program knows or fails already."""
        ledger, told = self._ledger, self._ledger.told
        try:
            if not ledger.is_saved:
                await self.flush(timeout=self._flush_seconds)
            elif ledger.replaced_for is not None:
                raise ledger.replaced_for
        except SdkError as error:
            if not is_failing and error is not told:
                raise

    async def run(self) -> None:
        """Keep the document in step until cancelled, or refused for good: then `state` says so and this returns."""
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        try:
            while self._final is None:
                closing = await self._connect()
                self._forget_connection()
                pause = self._after(closing)
                self._report()
                if self._final is None:
                    await asyncio.sleep(pause)
        finally:
            self._forget_connection()
            self._mirror.close()
            self._is_over = True
            self._report()
            await self.requests.aclose(self._final)

    def _after(self, closing: Closing) -> float:
        """What the end of a connection means: the pause before the next one, or `_final`."""
        self._fault = closing.as_error()
        if closing.is_final and not self._has_another_token(closing):
            self._final = self._fault
            return 0.0
        pause = closing.pause_seconds() + delay(
            self._attempt, self._asked_seconds, self._chance
        )
        self._attempt += 1
        self._asked_seconds = 0.0
        return pause

    def _has_another_token(self, closing: Closing) -> bool:
        """A token that has ended may be followed by another, once: the next refusal is final."""
        return (
            closing.code == 4401
            and self._credential.is_renewable
            and self._attempt == 0
        )

    async def _connect(self) -> Closing:
        """One connection, from asking for a token to its end."""
        try:
            token = self._credential.shown = await self._credential.next()
            async with dialled(self._address, token, self._tls) as socket:
                return await self._begin().carry(socket)
        except SdkError as error:  # of the program's own, when asked for a token
            code = LOCAL if isinstance(error, Unavailable) else 4401
            return Closing(code, str(error), error=error)
        except (OSError, TimeoutError, ValueError, WebSocketException) as error:
            return closing_of(error)

    def _encode_presence(self) -> bytes:
        return yjs.awareness_message(self._presence.encode())

    def _begin(self) -> Connection:
        """The socket is open."""
        connection = self._connection = Connection(
            self._ledger,
            self._credential,
            receive=self._receive,
            reject=self._reject,
            presence=self._encode_presence,
        )
        if self._presence.state is not None:
            connection.outgoing.latest(self._encode_presence)
        connection.message(yjs.sync_step_1(self._mirror.state_vector()))
        return connection

    def _forget_connection(self) -> None:
        """What was not acknowledged goes out again in the next connection's step 2."""
        self._connection = None
        self._is_synced = self._may_send = self._has_probed = False
        self._ledger.forget_connection()
        if self._presence.forget():
            self._tell_peers()

    # What the server says.

    def _receive(self, frame: bytes) -> None:
        try:
            self._hear(messages.decode(frame))
        except DocumentBroken:
            self._reject(Refused("the document could not take what the server sent"))

    def _hear(self, message: ServerMessage | None) -> None:
        match message:
            case Update(update):
                self._mirror.apply(update)
            case SyncStep2(update):
                self._mirror.apply(update)
                self._synchronised()
            case SyncStep1(state_vector):
                self._answer(state_vector)
            case AwarenessUpdate(states):
                self._see(states)
            case Ack():
                self._acknowledged(message)
            case Hello():
                self._greeted(message)
            case RefusedUpdate():
                self._refused(message)
            case Notice():
                self._noticed(message)
            case EndedTurn(turn, code, reason):
                self._tell(TurnEnded(turn, error_of(code, reason or code)))

    def _greeted(self, hello: Hello) -> None:
        if hello.version != VERSION:
            raise Refused("the server speaks a later version than this program")
        if self._epoch and hello.epoch != self._epoch:
            raise AnotherHistory("the room has another history than before")
        self._epoch = hello.epoch
        self._is_writable = hello.is_writable
        if self._connection is not None:
            least = max(hello.max_update_bytes, LEAST_UPDATE_BYTES)
            self._connection.outgoing.max_update_bytes = least

    def _synchronised(self) -> None:
        self._is_synced = True
        self._attempt = 0
        self._fault = None
        self._report()
        self._probe()

    def _answer(self, state_vector: bytes) -> None:
        assert self._connection is not None
        outgoing, ledger = self._connection.outgoing, self._ledger
        if ledger.rejection is not None and not self._is_writable:
            return
        ledger.rejection = None
        self._fault = None
        outgoing.drop_updates()
        now, then = ledger.turn, ledger.unsaved_turn
        if then.id:
            outgoing.message(messages.turn(then.id, then.about))
        try:
            outgoing.answer(self._mirror.diff(state_vector), ledger.changes)
        except TooLarge as error:
            self._reject(error)
            return
        if now.id != then.id:
            outgoing.message(messages.turn(now.id, now.about))
        self._may_send = True
        self._report()

    def _acknowledged(self, ack: Ack) -> None:
        if ack.level < yjs.LOGGED:
            return
        has_saved = self._ledger.acknowledge(ack.sequence, ack.position)
        if self._connection is not None:
            self._connection.go_on()
        if has_saved:
            self._report()

    def _refused(self, refused: RefusedUpdate) -> None:
        assert self._connection is not None
        self._ledger.refuse(refused.sequence)
        self._may_send = False
        self._connection.outgoing.drop_updates()
        self._connection.go_on()
        error = error_of(refused.code, refused.reason or refused.code)
        is_asked_again = (
            isinstance(error, RateLimited) and not self._ledger.unsaved_turn.id
        )
        if refused.code in _PASSING or is_asked_again:
            if not is_asked_again:
                self._is_writable = False
                self._has_probed = True
            self._fault = error
            self._report()
            return
        self._reject(error, is_staying=refused.code in _STAYING)

    def _reject(self, error: SdkError, *, is_staying: bool = False) -> None:
        """The document holds what the room will not: begin anew with another, or say so when it is not ours."""
        pause = error.retry_seconds if isinstance(error, RateLimited) else 0.0
        if not self._is_own:
            self._ledger.rejection = error
            if is_staying:
                self._report()
            else:
                self._end(Closing(4400, str(error), error=error))
            return
        self._mirror.close()
        self._mirror = Mirror(Doc(), self._edited)
        self._presence.client = self.doc.client_id
        self._is_synced = self._may_send = False  # the new one holds nothing yet
        self._ledger.begin_anew(error)
        self._end(Closing(LOCAL, str(error), pause, error=error))
        self._tell(Replaced(self.doc, error))
        self._report()

    def _end(self, closing: Closing) -> None:
        if self._connection is not None:
            self._connection.end(closing)

    def _noticed(self, notice: Notice) -> None:
        if notice.kind == "drain":
            self._asked_seconds = notice.milliseconds / 1000
        elif notice.kind == "expires" and self._credential.is_renewable:
            if self._connection is not None:
                self._connection.renew_token(notice.milliseconds / 1000)
        elif notice.kind in ("read-only", "writable"):
            self._is_writable = notice.kind == "writable"
            self._has_probed = False
            self._report()
            self._probe()

    def _see(self, states: bytes) -> None:
        has_changed, must_announce = self._presence.receive(states)
        if must_announce and self._connection is not None:
            self._connection.show()
        if has_changed:
            self._tell_peers()

    # What the program does to the document.

    def _edited(self, update: bytes) -> None:
        if self._loop is not None and threading.get_ident() != self._thread:
            # Nobody should; but it would be sent late, or never.
            self._loop.call_soon_threadsafe(self._edited, update)
            return
        ledger = self._ledger
        was_saved = ledger.is_saved
        ledger.change()
        if self._connection is not None:
            if self._may_send and self._is_writable:
                self._connection.update(update, ledger.changes)
            else:
                self._probe()
        if was_saved:
            self._report(is_inside=True)

    def _probe(self) -> None:
        """Who may not write now learns why only by trying; once is enough."""
        if (
            self._is_synced
            and not self._is_writable
            and not self._has_probed
            and not self._ledger.is_saved
            and self._connection is not None
        ):
            self._has_probed = True
            self._connection.outgoing.answer(NOTHING, self._ledger.saved)

    # Telling.

    def _tell_peers(self) -> None:
        self._peers_version += 1
        self._tell(PeersChanged(MappingProxyType(self._presence.peers)))
        self._wake()

    def _report(self, *, is_inside: bool = False) -> None:
        """`is_inside` a transaction nobody may look at the document, so observers are told when it is over."""
        state = self._look()
        if state != self._state:
            self._state = state
            if not is_inside:
                self._tell(state)
            elif self._loop is not None:
                self._loop.call_soon(self._tell, state)
        self._wake()

    def _look(self) -> State:
        ledger = self._ledger
        error = self._final or ledger.rejection
        if error is not None:
            phase = Phase.REFUSED
        elif self._is_over:
            phase = Phase.CLOSED
        elif not self._is_synced:
            phase, error = Phase.CONNECTING, self._fault
        elif not ledger.is_saved:
            phase, error = Phase.UNSAVED, self._fault
        else:
            phase = Phase.SAVED if ledger.saved else Phase.SYNCED
        return State(
            phase,
            ledger.unsaved_since,
            error,
            self._is_writable,
            self._attempt,
        )

    def _wake(self) -> None:
        signal, self._signal = self._signal, asyncio.Event()
        signal.set()

    def _tell(self, event: Event) -> None:
        for callback in list(self._observers):
            try:
                callback(event)
            except Exception as error:
                self._complain("an observer of a provider failed", error)

    def _complain(self, message: str, error: Exception) -> None:
        """About a function of the program's own: it hears of it, and the connection goes on."""
        asyncio.get_running_loop().call_exception_handler(
            {"message": message, "exception": error}
        )
