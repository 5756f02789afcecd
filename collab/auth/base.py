"""What a verifier promises: it turns a credential into a principal, or says that the credential is not its kind."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from collab.auth.permissions import Principal


class Credential(NamedTuple):
    """What a peer has shown. Never logged."""

    token: str = ""  # a JWT, an API key or a ticket
    certificate: str = ""  # SPIFFE id of the client certificate, when one was verified
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
