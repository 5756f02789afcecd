"""Keys that are published under a URL: fetched when first needed, kept for a while, renewed in the background."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack
from typing import Any, Self

from collab import logs
from collab.auth.claims import Unfit, parse
from collab.auth.egress import Backend, Flights, Unreachable, checked_url
from collab.auth.signing import MAX_KEYS, SigningKey, WeakKey, fitting, from_jwk
from collab.errors import Busy
from collab.metrics import Metrics

FETCH_SECONDS = 3.0
MAX_BYTES = 65_536
FRESH_SECONDS = 600.0  # then they are fetched again, in the background
KEPT_SECONDS = 3600.0  # while that fails; then nobody gets in
RETRY_SECONDS = 30.0  # between two fetches, whatever tokens say about their key
FIRST_RETRY_SECONDS = 3.0  # the same as long as there are no keys at all

log = logs.logger(__name__)


class Jwks:
    """A keyring. An async context manager: what is under way ends with it."""

    def __init__(
        self,
        url: str,
        algorithms: Collection[str],
        *,
        allow_private: bool = False,
        metrics: Metrics | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._questions = (metrics or Metrics()).backend_questions
        self._backend = Backend(
            checked_url(url, "jwt_jwks_url"),
            seconds=FETCH_SECONDS,
            max_bytes=MAX_BYTES,
            allow_private=allow_private,
        )
        self._algorithms, self._clock = algorithms, clock
        self._keys: Sequence[SigningKey] | None = None
        self._thumbprints: frozenset[str] = frozenset()
        self._fetched = self._tried = float("-inf")
        self._flights = Flights()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._backend)
        await self._stack.enter_async_context(self._flights)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def find(self, id: str, algorithm: str) -> Sequence[SigningKey]:
        """Waits for a fetch only when there are no keys yet, or when none of them fits."""
        keys = self._current()
        found = fitting(keys or (), id, algorithm)
        if found:
            return found
        if self._may_fetch() or "keys" in self._flights:
            await self._flights.get("keys", self._fetch)
            keys = self._current()
        if keys is None:
            raise Busy("the keys that sign tokens cannot be fetched now")
        return fitting(keys, id, algorithm)

    def holds(self, thumbprint: str) -> bool:
        return self._current() is not None and thumbprint in self._thumbprints

    def _current(self) -> Sequence[SigningKey] | None:
        """The keys, if they are not too old; asks for new ones in time."""
        age = self._clock() - self._fetched
        if self._keys is not None and age > FRESH_SECONDS and self._may_fetch():
            self._flights.start("keys", self._fetch)
        return self._keys if age <= KEPT_SECONDS else None

    def _may_fetch(self) -> bool:
        now = self._clock()
        has_keys = now - self._fetched <= KEPT_SECONDS
        pause = RETRY_SECONDS if has_keys else FIRST_RETRY_SECONDS
        return now - self._tried >= pause

    async def _fetch(self) -> None:
        """Fails without a word to who asks: it looks for itself whether there are keys now."""
        self._tried = self._clock()
        try:
            answer = await self._backend.ask("GET")
            if answer.status != 200:
                raise Unreachable("it did not answer with 200")
            keys = self._read(parse(answer.body))
        except (Unreachable, Unfit) as error:
            has_keys = self._clock() - self._fetched <= KEPT_SECONDS
            self._questions["jwks_failed"] += 1
            log.warning(
                "keys that sign tokens were not fetched",
                reason=str(error),
                has_keys=has_keys,
            )
            return
        self._questions["jwks_answered"] += 1
        self._keys, self._fetched = keys, self._tried
        self._thumbprints = frozenset(key.thumbprint for key in keys)

    def _read(self, found: dict[str, Any]) -> Sequence[SigningKey]:
        """Those that can be used. Others are passed over, since issuers publish keys for other purposes too."""
        published = found.get("keys")
        if type(published) is not list:
            raise Unfit("its answer is not a JWKS")
        keys: list[SigningKey] = []
        reasons: list[str] = []
        for jwk in published:
            try:
                key = from_jwk(jwk, is_published=True)
            except WeakKey as error:
                reasons.append(str(error))
                continue
            if key.algorithm not in self._algorithms:
                reasons.append(f"{key.algorithm} is not in jwt_algorithms")
            elif len(keys) == MAX_KEYS:
                reasons.append(f"more than {MAX_KEYS} keys")
            else:
                keys.append(key)
        if reasons:
            log.warning(
                "published keys passed over",
                count=len(reasons),
                reasons=sorted(set(reasons)),
                used=len(keys),
            )
        return keys
