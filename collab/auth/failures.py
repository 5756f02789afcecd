"""Addresses that show one bad credential after the other are not listened to for the rest of a minute."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from time import monotonic

from collab.errors import RateLimited
from collab.metrics import Metrics

WINDOW_SECONDS = 60.0
MAX_ADDRESSES = 10_000


# Asked for each request; addresses are slow to read.
@lru_cache(4096)
def network_of(address: str) -> str:
    """What is counted as one address; "" for this machine, which is not bounded.

    Whoever has an IPv6 address has the 2^64 that begin as it does.
    """
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if isinstance(found, IPv6Address):
        mapped = found.ipv4_mapped
        if mapped is None:
            return "" if found.is_loopback else f"{found.exploded[:19]}::/64"
        found = mapped
    return "" if found.is_loopback else str(found)


class Failures:
    """Counts the different bad credentials of each address, for a minute from the first.

    A client that tries one expired token again and again is counted once, so that it does not lock out the others
    behind its address. Of more than MAX_ADDRESSES the one whose minute began first is forgotten.
    """

    def __init__(
        self,
        metrics: Metrics,
        *,
        per_minute: int,
        key_of: Callable[[str], str] = network_of,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._metrics, self._per_minute = metrics, per_minute
        self._key_of, self._clock = key_of, clock
        # When the minute ends, and the hashes of what was shown in it.
        self._found: dict[str, tuple[float, set[int]]] = {}

    def __len__(self) -> int:
        return len(self._found)

    def check(self, address: str) -> None:
        """Before a credential is looked at. Raises RateLimited, whatever the credential is worth."""
        key = self._key_of(address)
        ends, shown = self._found.get(key, (0.0, ()))
        left = ends - self._clock()
        if left > 0 and len(shown) >= self._per_minute > 0:
            self._metrics.limited["failures_per_address"] += 1
            raise RateLimited(
                "too many bad tokens from this address: wait a minute", max(1.0, left)
            )

    def note(self, address: str, token: str) -> None:
        """A credential was worth nothing."""
        key = self._key_of(address)
        if not key or not self._per_minute:
            return
        now = self._clock()
        ends, shown = self._found.get(key, (0.0, set[int]()))
        if ends <= now:
            self._found.pop(key, None)
            if len(self._found) >= MAX_ADDRESSES:
                del self._found[next(iter(self._found))]
            ends, shown = now + WINDOW_SECONDS, set()
            self._found[key] = ends, shown
        if len(shown) < self._per_minute:
            shown.add(hash(token))
