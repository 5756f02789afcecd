"""How much one principal, tenant or address may have and do, over all its sockets and requests.

A socket has a rate of its own (see `Socket`). What stands here keeps fifty sockets from having fifty times as much.
Without access control there are no principals, and who comes from this machine has no address to speak of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Literal

from collab.auth.failures import network_of
from collab.auth.permissions import ANONYMOUS, Principal
from collab.errors import RateLimited
from collab.metrics import Metrics
from collab.names import SEPARATOR

BURST_SECONDS = 5.0  # of the sustained rate
# Of the process's time, that long messages of one socket may take, or the requests of one principal, bursts aside.
CPU_SHARE = 0.2
KEPT_ACCOUNTS = 10_000  # of those who have nothing open, in each table
MAX_WAIT_SECONDS = (
    10.0  # that a socket is not read since others of its account are fast
)
RETRY_SECONDS = 5.0  # where nobody can say when there is room again
FULL_SECONDS = 600.0  # likewise, where somebody would have to delete
KEPT_BUDGETS = 10_000  # the one that was asked for longest ago is whole again


class Bucket:
    """Tokens that come back with time. A rate of 0 is no bound."""

    __slots__ = ("_at", "_full", "_rate", "_tokens")

    def __init__(
        self, rate: float, now: float, *, burst_seconds: float = BURST_SECONDS
    ) -> None:
        self._full = rate * burst_seconds
        self._rate, self._tokens, self._at = rate, self._full, now

    def take(self, now: float) -> float:
        """Take one if there is one; else the seconds until there is."""
        if not self._rate:
            return 0.0
        self._refill(now)
        if self._tokens < 1:
            return (1 - self._tokens) / self._rate
        self._tokens -= 1
        return 0.0

    def owe(self, cost: float, now: float) -> float:
        """Take what it costs in any case; the seconds until the debt is paid."""
        if not self._rate:
            return 0.0
        self._refill(now)
        self._tokens -= cost
        return max(0.0, -self._tokens / self._rate)

    def _refill(self, now: float) -> None:
        self._tokens = min(self._full, self._tokens + (now - self._at) * self._rate)
        self._at = now


class Budget:
    """What an agent, or a member in a turn, may still write in one room. People outside of turns have none."""

    __slots__ = ("_characters", "_clock", "_metrics", "_operations", "share")

    def __init__(
        self,
        operations_per_second: float,
        characters_per_minute: float,
        share: float,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self.share = share
        self._metrics, self._clock = metrics, clock
        now = clock()
        self._operations = Bucket(operations_per_second, now, burst_seconds=30.0)
        self._characters = Bucket(characters_per_minute / 60, now, burst_seconds=60.0)

    def spend(self, characters: int, *, is_full: bool) -> None:
        """One update. More characters than there are left are taken once, and waited for after that.

        Raises RateLimited.
        """
        if is_full:
            self._metrics.limited["document_share_of_agents"] += 1
            raise RateLimited(
                "this document is as large as agents may make it", FULL_SECONDS
            )
        now = self._clock()
        wait = self._operations.take(now)
        if wait:
            self._metrics.limited["operations_per_agent"] += 1
            raise RateLimited("too many operations of one agent in this room", wait)
        wait = self._characters.owe(0, now)
        if wait:
            self._metrics.limited["characters_per_agent"] += 1
            raise RateLimited("too many characters of one agent in this room", wait)
        self._characters.owe(characters, now)

    def charge(self, operations: int) -> None:
        """Something took as much work as so many updates: the next ones come later."""
        self._operations.owe(operations, self._clock())


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What each account of a kind may have; 0 is no bound."""

    kind: Literal["principal", "tenant", "address"]
    sockets: int = 0
    streams: int = 0
    messages_per_second: float = 0.0
    requests_per_second: float = 0.0


class Account:
    """What one principal, tenant or address has open, and what it has left of its rates."""

    __slots__ = (
        "_metrics",
        "_terms",
        "above",
        "messages",
        "requests",
        "sockets",
        "streams",
    )

    def __init__(self, terms: Terms, metrics: Metrics, now: float) -> None:
        self._terms, self._metrics = terms, metrics
        self.above: Account | None = None  # the tenant's, where this is a principal's
        self.sockets = self.streams = 0
        self.messages = Bucket(terms.messages_per_second, now)
        self.requests = Bucket(terms.requests_per_second, now)

    @property
    def is_idle(self) -> bool:
        return not (self.sockets or self.streams)

    def check_sockets(self) -> None:
        """Raises RateLimited when no further socket may be opened."""
        if 0 < self._terms.sockets <= self.sockets:
            raise self._refused("sockets", RETRY_SECONDS)
        if self.above is not None:
            self.above.check_sockets()

    def add_socket(self, count: int = 1) -> None:
        """A socket was opened; with -1, closed."""
        self.sockets += count
        if self.above is not None:
            self.above.add_socket(count)

    def check_streams(self) -> None:
        """Raises RateLimited when no further stream may be opened."""
        if 0 < self._terms.streams <= self.streams:
            raise self._refused("streams", RETRY_SECONDS)

    def request(self, now: float) -> None:
        """Count a request. Raises RateLimited."""
        wait = self.requests.take(now)
        if wait:
            raise self._refused("requests", wait)

    def charge(self, seconds: float, now: float) -> None:
        """Count the work of a request, beyond what each may take, as that of further ones."""
        rate = self._terms.requests_per_second
        self.requests.owe(max(0.0, seconds / CPU_SHARE * rate - 1), now)

    def lend(self, cost: float, now: float) -> float:
        """What a socket may take in messages before it asks again; the seconds it must wait until it may.

        Who asks is served in the order of asking: a debt is waited for, not tried again.
        """
        wait = self.messages.owe(cost, now)
        if wait:
            self._metrics.limited[f"messages_per_{self._terms.kind}"] += 1
        if self.above is not None:
            wait = max(wait, self.above.lend(cost, now))
        return min(wait, MAX_WAIT_SECONDS)

    def _refused(self, what: str, seconds: float) -> RateLimited:
        kind = self._terms.kind
        self._metrics.limited[f"{what}_per_{kind}"] += 1
        return RateLimited(f"too many {what} of one {kind}", max(1.0, seconds))


class Accounts:
    """All accounts of one kind.

    Who has nothing open is forgotten in the end, the longest unseen first: there are never many more than KEPT_ACCOUNTS,
    or than twice as many as have something open.
    """

    def __init__(
        self, terms: Terms, metrics: Metrics, clock: Callable[[], float]
    ) -> None:
        self._terms, self._metrics, self._clock = terms, metrics, clock
        self._accounts: dict[str, Account] = {}

    def __len__(self) -> int:
        return len(self._accounts)

    def of(self, key: str, above: Account | None = None) -> Account:
        """Somebody's account, made the first time."""
        account = self._accounts.pop(key, None)
        if account is None:
            self._forget()
            account = Account(self._terms, self._metrics, self._clock())
        if not account.sockets:
            account.above = above  # the one of before may have been forgotten
        self._accounts[key] = account
        return account

    def _forget(self) -> None:
        """Room for one more: the two that were not seen for longest go, unless they have something open."""
        if len(self._accounts) < KEPT_ACCOUNTS:
            return
        for key in [key for key, _ in zip(self._accounts, range(2), strict=False)]:
            account = self._accounts.pop(key)
            if not account.is_idle:
                self._accounts[key] = account


class Limits:
    """The accounts of a process. Every refusal is RateLimited, and counted by what it was about."""

    def __init__(
        self,
        metrics: Metrics,
        *,
        max_sockets_per_principal: int = 0,
        max_sockets_per_tenant: int = 0,
        max_sockets_per_address: int = 0,
        messages_per_second_per_principal: float = 0.0,
        messages_per_second_per_tenant: float = 0.0,
        requests_per_second_per_principal: float = 0.0,
        requests_per_second_per_address: float = 0.0,
        max_streams: int = 0,
        max_streams_per_principal: int = 0,
        agent_operations_per_second: float = 0.0,
        agent_characters_per_minute: int = 0,
        max_agent_document_share: float = 1.0,
        key_of: Callable[[str], str] = network_of,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._metrics, self._clock, self._key_of = metrics, clock, key_of
        self._principals = Accounts(
            Terms(
                kind="principal",
                sockets=max_sockets_per_principal,
                streams=max_streams_per_principal,
                messages_per_second=messages_per_second_per_principal,
                requests_per_second=requests_per_second_per_principal,
            ),
            metrics,
            clock,
        )
        self._tenants = Accounts(
            Terms(
                kind="tenant",
                sockets=max_sockets_per_tenant,
                messages_per_second=messages_per_second_per_tenant,
            ),
            metrics,
            clock,
        )
        self._addresses = Accounts(
            Terms(
                kind="address",
                sockets=max_sockets_per_address,
                requests_per_second=requests_per_second_per_address,
            ),
            metrics,
            clock,
        )
        self._agent_terms = (
            agent_operations_per_second,
            agent_characters_per_minute,
            max_agent_document_share,
        )
        self._budgets: dict[tuple[str, str, str], Budget] = {}
        self._max_streams, self._streams = max_streams, 0
        metrics.gauges["streams"] = lambda: self._streams

    def of_principal(self, principal: Principal) -> Account | None:
        """None without access control. Those without a tenant have no tenant's account above theirs."""
        if principal is ANONYMOUS:
            return None
        tenant = principal.tenant
        above = self._tenants.of(tenant) if tenant else None
        return self._principals.of(f"{tenant}{SEPARATOR}{principal.id}", above)

    def budget(self, principal: Principal, owner: str, room: str) -> Budget:
        """What somebody may still write in a room as an agent; `owner` is the connection where it has no account."""
        key = principal.tenant, owner, room
        found = self._budgets.pop(key, None)
        if found is None:
            if len(self._budgets) >= KEPT_BUDGETS:
                del self._budgets[next(iter(self._budgets))]
            found = Budget(*self._agent_terms, self._metrics, self._clock)
        self._budgets[key] = found
        return found

    def of_agent(self, principal: Principal, room: str) -> Budget | None:
        """None for people and services; they have one in a turn."""
        if principal.kind != "agent":
            return None
        return self.budget(principal, principal.id, room)

    def of_address(self, address: str) -> Account | None:
        """None for this machine."""
        key = self._key_of(address)
        return self._addresses.of(key) if key else None

    def check_sockets(self, principal: Principal) -> None:
        """Raises RateLimited when a principal may not open a further socket."""
        account = self.of_principal(principal)
        if account is not None:
            account.check_sockets()

    def arrive(self, address: str) -> None:
        """Count one request before anybody looks at it. Raises RateLimited."""
        account = self.of_address(address)
        if account is not None:
            account.request(self._clock())

    def request(self, principal: Principal) -> None:
        """Count one request of somebody who is known by now. Raises RateLimited."""
        account = self.of_principal(principal)
        if account is not None:
            account.request(self._clock())

    def charge(self, principal: Principal, seconds: float) -> None:
        """Few requests can ask for much work: whoever had so much of the process's time is let in later."""
        account = self.of_principal(principal)
        if account is not None:
            account.charge(seconds, self._clock())

    @contextmanager
    def stream(self, principal: Principal) -> Iterator[None]:
        """Around an answer that goes on, such as server-sent events. Raises RateLimited before it begins."""
        account = self.of_principal(principal)
        if account is not None:
            account.check_streams()
        if 0 < self._max_streams <= self._streams:
            self._metrics.limited["streams"] += 1
            raise RateLimited("too many streams are open", RETRY_SECONDS)
        self._streams += 1
        if account is not None:
            account.streams += 1
        try:
            yield
        finally:
            self._streams -= 1
            if account is not None:
                account.streams -= 1

    def handshake(self, address: str) -> Account | None:
        """Count a handshake, and a socket of that account until the caller takes it back. Raises RateLimited."""
        account = self.of_address(address)
        if account is not None:
            account.request(self._clock())
            account.check_sockets()
            account.add_socket()
        return account
