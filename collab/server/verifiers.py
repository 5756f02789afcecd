"""Settings → verifiers of tokens; joserfc and httpx2 are imported only where they are used."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from collab.auth.base import Verifier
from collab.metrics import Metrics
from collab.settings import Settings

if TYPE_CHECKING:
    from collab.auth.signing import Keyring
    from collab.auth.webhook import Webhook


@asynccontextmanager
async def make_tokens(settings: Settings, metrics: Metrics) -> AsyncIterator[Verifier]:
    """The verifier of JWTs. Raises ConfigurationError for a key that must not be used."""
    from collab.auth.tokens import Tokens

    async with _keyring(settings, metrics) as keys:
        yield Tokens(keys, audience=settings.jwt_audience, issuer=settings.jwt_issuer)


@asynccontextmanager
async def _keyring(settings: Settings, metrics: Metrics) -> AsyncIterator[Keyring]:
    from collab.auth.signing import FileKeys, read_keys

    if settings.jwt_keys is not None:
        keys = read_keys(settings.jwt_keys, settings.jwt_algorithms)
        yield FileKeys(keys)
        return
    from collab.auth.jwks import Jwks

    async with Jwks(
        settings.jwt_jwks_url,
        settings.jwt_algorithms,
        allow_private=settings.allow_private_backends,
        metrics=metrics,
    ) as jwks:
        yield jwks


@asynccontextmanager
async def make_webhook(settings: Settings, metrics: Metrics) -> AsyncIterator[Webhook]:
    """The verifier that asks the team's backend. Raises ConfigurationError for an address or secret that must not be."""
    from collab.auth.signing import read_secret
    from collab.auth.webhook import Webhook

    assert settings.webhook_secret_file is not None  # checked with the settings
    secret = read_secret(settings.webhook_secret_file)
    async with Webhook(
        settings.webhook_url,
        secret,
        seconds=settings.webhook_seconds,
        cache_seconds=settings.webhook_cache_seconds,
        allow_private=settings.allow_private_backends,
        metrics=metrics,
    ) as webhook:
        yield webhook
