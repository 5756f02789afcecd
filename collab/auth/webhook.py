"""Asks the team's own backend, for each room, what a token is worth; believes an answer for seconds, not for long.

The request is a POST of `{"token", "room", "address"}`. Its header `Collab-Signature` is `sha256=` and the HMAC-SHA256,
in hex and with the shared secret, of the header `Collab-Timestamp`, a full stop and the body. 401 and 403 refuse; 200
tells `{"principal", "operations": [...]}` and, if it likes, `tenant`, `kind`, `name` and `expires`. Anything else, or
nothing in time, is no answer: nobody gets in without one, and who is in may only read once the last has run out.
`room` is empty where none is meant. For each member of a room the backend is asked twice in `webhook_cache_seconds`.
"""

from __future__ import annotations

import hmac
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from math import inf
from typing import NamedTuple, Self

import orjson

from collab import logs
from collab.auth import claims as read
from collab.auth.base import INVALID, Credential
from collab.auth.claims import Unfit
from collab.auth.egress import Answer as Reply
from collab.auth.egress import Backend, Crowded, Flights, Unreachable, checked_url
from collab.auth.permissions import PRESENCE, READ, Grant, Principal
from collab.errors import Busy, PermissionDenied, Unauthenticated
from collab.metrics import Metrics

MAX_TOKEN_BYTES = 16_384
MAX_ANSWER_BYTES = 16_384
MAX_ANSWERS = 50_000  # the one that was used longest ago is forgotten
RETRY_SECONDS = 1.0  # a backend that could not be reached is left alone
NOTE_SECONDS = 10.0  # between two lines about it
OURS = ("ck_", "tk_")  # keys and tickets are made here, and nobody else's to judge

log = logs.logger(__name__)


class _Answer(NamedTuple):
    """What the backend said of a token in a room."""

    asked: float
    principal: Principal | None
    is_denied: bool = False  # somebody, who may do nothing in this room
    credential: Credential = Credential()  # to ask again with, when it let somebody in
    has_failed: bool = False  # asking again has, since then


class Webhook:
    """The verifier. An async context manager: what is under way ends with it."""

    def __init__(
        self,
        url: str,
        secret: bytes,
        *,
        seconds: float = 2.0,
        cache_seconds: float = 5.0,
        allow_private: bool = False,
        metrics: Metrics | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._questions = (metrics or Metrics()).backend_questions
        self._backend = Backend(
            checked_url(url, "webhook_url"),
            seconds=seconds,
            max_bytes=MAX_ANSWER_BYTES,
            allow_private=allow_private,
        )
        self._secret, self._cache_seconds = secret, cache_seconds
        self._clock, self._now = clock, now
        self._answers: OrderedDict[tuple[str, str], _Answer] = OrderedDict()
        self._flights = Flights()
        self._down_until = self._noted = -inf
        self._distrusts = 0
        self._is_down = False
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._backend)
        await self._stack.enter_async_context(self._flights)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def verify(self, credential: Credential, room: str) -> Principal | None:
        token = credential.token
        if not token or token.startswith(OURS):
            return None
        try:
            content = token.encode()
        except UnicodeEncodeError:
            raise Unauthenticated(INVALID) from None
        if len(content) > MAX_TOKEN_BYTES:
            raise Unauthenticated(INVALID)
        # Keyed, so that what an operator sees in the audit log is no way to guess a token.
        mac = hmac.digest(self._secret, b"token " + content, "sha256").hex()
        key = f"wh_{mac[:32]}", room
        answer = self._fresh(key)
        if answer is None:
            answer = await self._flights.get(key, lambda: self._ask(key, credential))
        if answer.principal is not None:
            return answer.principal
        # Made here: an error that is kept would keep the frames of all who got it.
        if answer.is_denied:
            raise PermissionDenied("you may not do this in this room")
        raise Unauthenticated(INVALID)

    def recheck(self, principal: Principal, room: str) -> Principal | None:
        key = principal.token, room
        answer = self._answers.get(key)
        if answer is None:
            return _reader(principal, room)  # forgotten, since there are too many
        self._answers.move_to_end(key)
        found = answer.principal
        if found is None:
            return replace(principal, grants=()) if answer.is_denied else None
        age = self._clock() - answer.asked
        # In time, so that the next answer is there when this one runs out.
        if age >= self._cache_seconds / 2 and key not in self._flights:
            self._ask_again(key, answer.credential)
        is_asked = key in self._flights and not answer.has_failed
        if age > self._cache_seconds and not is_asked:
            return _reader(principal, room)
        if found is principal:
            return principal
        if _who(found) != _who(principal):
            return None
        # A ticket may have been for less.
        found = replace(found, room=principal.room, at_most=principal.at_most)
        return principal if found == principal else found

    def credential(self, principal: Principal, room: str) -> Credential | None:
        """What it was shown for a principal that it let into this room; None when that is forgotten."""
        answer = self._answers.get((principal.token, room))
        return answer.credential if answer and answer.principal else None

    def distrust(self, tenant: str, principal: str = "") -> None:
        self._distrusts += 1
        for key, answer in self._answers.items():
            who = answer.principal
            # A refusal does not say whose it is.
            if who is None or (who.tenant == tenant and principal in ("", who.id)):
                self._answers[key] = answer._replace(asked=-inf)

    def _ask_again(self, key: tuple[str, str], credential: Credential) -> None:
        try:
            self._flights.start(key, lambda: self._ask(key, credential))
        except Busy:
            pass  # the next call tries again

    def _fresh(self, key: tuple[str, str]) -> _Answer | None:
        answer = self._answers.get(key)
        if answer is None or self._clock() - answer.asked > self._cache_seconds:
            return None
        self._answers.move_to_end(key)
        return answer

    async def _ask(self, key: tuple[str, str], credential: Credential) -> _Answer:
        """One question. Raises Busy when there is no answer."""
        distrusts = self._distrusts
        try:
            answer = await self._question(key, credential)
        except Busy:
            known = self._answers.get(key)
            if known is not None:
                self._answers[key] = known._replace(has_failed=True)
            raise
        if distrusts != self._distrusts:
            answer = answer._replace(asked=-inf)  # it may be from before
        known = self._answers.get(key)
        if answer.principal is not None:
            answer = answer._replace(credential=credential)
            if known is not None and known.principal == answer.principal:
                answer = answer._replace(principal=known.principal)
        self._answers[key] = answer
        self._answers.move_to_end(key)
        if len(self._answers) > MAX_ANSWERS:
            self._answers.popitem(last=False)
        return answer

    async def _question(self, key: tuple[str, str], credential: Credential) -> _Answer:
        asked = self._clock()
        if asked < self._down_until:
            raise Busy("the backend cannot be asked now")
        token, room = key
        body = orjson.dumps(
            {"token": credential.token, "room": room, "address": credential.address}
        )
        timestamp = str(int(self._now()))
        signed = hmac.digest(self._secret, f"{timestamp}.".encode() + body, "sha256")
        try:
            found = await self._backend.ask(
                "POST",
                body=body,
                headers={
                    "content-type": "application/json",
                    "collab-timestamp": timestamp,
                    "collab-signature": f"sha256={signed.hex()}",
                },
            )
        except Unreachable as error:
            if not isinstance(error, Crowded):
                self._down_until = self._clock() + RETRY_SECONDS
            self._note(str(error))
            raise Busy("the backend cannot be asked now") from None
        try:
            answer = self._read(found, asked, token, room)
        except Unfit as error:
            self._note(str(error))
            raise Busy("the backend cannot be asked now") from None
        self._note("")
        return answer

    def _read(self, found: Reply, asked: float, token: str, room: str) -> _Answer:
        if found.status in (401, 403):
            return _Answer(asked, None, is_denied=found.status == 403)
        if found.status != 200:
            raise Unfit("it did not answer with 200, 401 or 403")
        said = read.parse(found.body)
        expires = read.seconds(said, "expires")
        if expires is not None and expires <= self._now():
            return _Answer(asked, None)
        operations = read.operations(said.get("operations"), "operations")
        principal = Principal(
            **read.person(said, "principal"),
            grants=(Grant(room, operations),),
            expires=inf if expires is None else expires,
            token=token,
            is_lent=True,
        )
        return _Answer(asked, principal)

    def _note(self, fault: str) -> None:
        """A line when the backend fails, now and then, and one when it answers again."""
        self._questions["webhook_failed" if fault else "webhook_answered"] += 1
        now = self._clock()
        if fault and now - self._noted >= NOTE_SECONDS:
            self._is_down, self._noted = True, now
            log.warning("the webhook's backend gave no answer", reason=fault)
        elif self._is_down and not fault:
            self._is_down = False
            log.info("the webhook's backend answers again")


def _who(principal: Principal) -> tuple[str, str, str]:
    return principal.tenant, principal.id, principal.on_behalf_of


def _reader(principal: Principal, room: str) -> Principal:
    """The principal without what must not go on unasked."""
    allowed = (Grant(room, principal.operations(room) & (READ | PRESENCE)),)
    return (
        principal if principal.grants == allowed else replace(principal, grants=allowed)
    )
