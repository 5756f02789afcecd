"""What a verifier promises: it turns a credential into a principal, or says that the credential is not its kind."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from collab.auth.permissions import Principal

# To whoever has shown a token. Why it is worth nothing, is for the log.
INVALID = (
    "this token is not valid here: get a new one; at debug the server's log says why"
)


class Certificate(NamedTuple):
    """What is known of a client certificate that the handshake has verified."""

    id: str  # the SPIFFE id it was issued for
    serial: str
    expires: float  # seconds since 1970


class Credential(NamedTuple):
    """What a peer has shown. Never logged."""

    token: str = ""  # a JWT, an API key or a ticket
    certificate: Certificate | None = None
    address: str = ""  # of the peer, behind trusted proxies

    def __repr__(self) -> str:
        return "Credential(…)"


class Verifier(Protocol):
    """One way to authenticate."""

    async def verify(self, credential: Credential, room: str) -> Principal | None:
        """The principal; None when this kind of credential is for another verifier.

        `room` is the room that is asked for, or "": only who asks a backend for each room needs it.
        Raises Unauthenticated, or Busy when it cannot be said now.
        """
        ...


@runtime_checkable
class Rechecker(Protocol):
    """A verifier whose answers hold only for a while: its principals are marked `is_lent`."""

    def recheck(self, principal: Principal, room: str) -> Principal | None:
        """What holds now for a principal that it let into this room: the same one, or one with other operations.

        Call it about once a second for each live member whose principal is lent, and keep what it returns: it never
        waits, and asks again in the background in time. None: the credential has ended. While nobody can be asked,
        what is returned may still read but no longer write, and may write again once the answer is there.
        """
        ...

    def distrust(self, tenant: str, principal: str = "") -> None:
        """Ask anew what the principals of a tenant may do, or one of them; who is here goes on until it is known."""
        ...
