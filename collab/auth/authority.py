"""Who may do what: verifiers in order, and on top of a principal's own grants what was granted or revoked here."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from collab.auth.base import Credential, Rechecker, Verifier
from collab.auth.permissions import ANONYMOUS, Principal
from collab.errors import Unauthenticated


class Overrides(Protocol):
    """Grants and revocations made on this server; see `collab.auth.registry`."""

    version: int

    def granted(self, principal: Principal, room: str) -> int:
        """Operations that were granted here beyond what the credential says."""
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
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._verifiers, self._overrides, self._clock = verifiers, overrides, clock

    @property
    def is_open(self) -> bool:
        """Whether there is no access control at all."""
        return not self._verifiers

    async def authenticate(self, credential: Credential, room: str = "") -> Principal:
        """The principal behind a credential. Raises Unauthenticated, or Busy when a backend cannot be asked."""
        if self.is_open:
            return ANONYMOUS
        for verifier in self._verifiers:
            principal = await verifier.verify(credential, room)
            if principal is not None:
                if self._is_over(principal):
                    break
                return principal
        raise Unauthenticated("a valid token is needed here")

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
        if self._is_over(principal):
            return 0
        found = principal.operations(room)
        if self._overrides is not None:
            found |= self._overrides.granted(principal, room)
        return found

    def _is_over(self, principal: Principal) -> bool:
        return principal.expires <= self._clock() or (
            self._overrides is not None and self._overrides.is_revoked(principal)
        )
