"""API keys as credentials: `ck_<id>.<secret>`, looked up in the registry."""

from __future__ import annotations

from collab import logs
from collab.auth.base import INVALID, Credential
from collab.auth.permissions import Principal
from collab.auth.registry import KEY_PREFIX, Registry
from collab.errors import Busy, CollabError, Unauthenticated

log = logs.logger(__name__)


class Keys:
    """The verifier of API keys. Whether a key has ended is asked of the registry, like a revocation.

    While the registry cannot look, those that it knows are let in; Busy for all others.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def verify(self, credential: Credential, room: str) -> Principal | None:
        if not credential.token.startswith(KEY_PREFIX):
            return None
        principal = self._registry.holder(credential.token)
        if principal is None:
            # It may have been made a moment ago, by a command.
            try:
                await self._registry.poll()
            except CollabError:
                # Why, the watch over rights logs: it names files and hosts, and this is said to whoever asks.
                raise Busy("API keys cannot be looked up now") from None
            principal = self._registry.holder(credential.token)
        if principal is None:
            log.debug("token refused", reason="there is no such key")
            raise Unauthenticated(INVALID)
        return principal
