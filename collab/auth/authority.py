"""Who may do what: verifiers in order, and on top of a principal's own grants what was granted or revoked here."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from collab import logs
from collab.auth.base import INVALID, Credential, Rechecker, Verifier
from collab.auth.failures import Failures
from collab.auth.permissions import ANONYMOUS, Grant, Principal
from collab.auth.tickets import TICKET_PREFIX
from collab.errors import Unauthenticated

MAX_TOKEN_CHARACTERS = 16_384

log = logs.logger(__name__)


class Overrides(Protocol):
    """Grants and revocations made on this server; see `collab.auth.registry`."""

    version: int

    async def poll(self) -> None:
        """Take in what other processes changed. Raises StoreUnavailable."""
        ...

    def granted(self, principal: Principal, room: str) -> int:
        """Operations that were granted here beyond what the credential says."""
        ...

    def grants_of(self, principal: Principal) -> Sequence[Grant]:
        """The grants behind that."""
        ...

    def is_revoked(self, principal: Principal) -> bool:
        """Whether the principal or its credential was revoked."""
        ...


class Authority:
    """Authenticates, and answers what a principal may do now. Without verifiers everybody may do everything."""

    def __init__(
        self,
        verifiers: Sequence[Verifier] = (),
        overrides: Overrides | None = None,
        *,
        failures: Failures | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._verifiers, self._overrides, self.clock = verifiers, overrides, clock
        self._failures = failures
        self.is_open = not verifiers  # there is no access control at all

    async def authenticate(self, credential: Credential, room: str = "") -> Principal:
        """The principal behind a credential.

        Raises Unauthenticated, Busy when a backend cannot be asked, and RateLimited after too many bad credentials.
        """
        if self.is_open:
            return ANONYMOUS
        if self._failures is None:
            return await self._verified(credential, room)
        self._failures.check(credential.address)
        try:
            return await self._verified(credential, room)
        except Unauthenticated:
            # Clients come back with tickets that they have used; nobody guesses one.
            if not credential.token.startswith(TICKET_PREFIX):
                self._failures.note(credential.address, credential.token)
            raise

    async def _verified(self, credential: Credential, room: str) -> Principal:
        if len(credential.token) > MAX_TOKEN_CHARACTERS:
            raise Unauthenticated(
                f"this token is too long: at most {MAX_TOKEN_CHARACTERS} characters are read"
            )
        for verifier in self._verifiers:
            principal = await verifier.verify(credential, room)
            if principal is None:
                continue
            if principal.is_lent and credential.token.startswith(TICKET_PREFIX):
                # With a ticket one can get the next: what a backend said before the first is not believed for ever.
                principal = self.recheck(principal, principal.room)
            if principal is None or self.has_ended(principal):
                log.debug("token refused", reason="it has expired or was revoked")
                break
            return principal
        else:
            if not credential.token:
                raise Unauthenticated(
                    "no token was shown: send Authorization: Bearer …, or what PROTOCOL.md says of sockets"
                )
            log.debug("token refused", reason="none of --auth knows its kind")
        raise Unauthenticated(INVALID)

    @property
    def version(self) -> int:
        """Moves when something was granted or revoked here; apart from that rights change only with the principal."""
        return 0 if self._overrides is None else self._overrides.version

    async def poll(self) -> None:
        """Take in what was changed elsewhere. Raises StoreUnavailable; what was known then goes on to hold."""
        if self._overrides is not None:
            await self._overrides.poll()

    def distrust(self, tenant: str, principal: str = "") -> None:
        """Ask anew wherever somebody else decides."""
        for verifier in self._verifiers:
            if isinstance(verifier, Rechecker):
                verifier.distrust(tenant, principal)

    def recheck(self, principal: Principal, room: str) -> Principal | None:
        """What holds now for a live member's principal; None when its credential has ended. See `Rechecker`."""
        if not principal.is_lent:
            return principal
        for verifier in self._verifiers:
            if isinstance(verifier, Rechecker):
                return verifier.recheck(principal, room)
        return None

    def operations(self, principal: Principal, room: str) -> int:
        """What a principal may do now in a room of its tenant; 0 when its credential has ended."""
        if self.is_open:
            return principal.operations(room)
        if self.has_ended(principal) or principal.room not in ("", room):
            return 0
        found = principal.operations(room)
        if self._overrides is not None:
            found |= self._overrides.granted(principal, room)
        return found & principal.at_most

    def grants(self, principal: Principal) -> list[Grant]:
        """Where it may do something, at the most: what it may there, `operations` says."""
        made = () if self._overrides is None else self._overrides.grants_of(principal)
        return [*principal.grants, *made]

    def has_ended(self, principal: Principal) -> bool:
        """Whether its credential has expired or was revoked."""
        return principal.expires <= self.clock() or (
            self._overrides is not None and self._overrides.is_revoked(principal)
        )
