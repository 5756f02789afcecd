"""TLS by file: the server's certificate, and whose client certificates it takes. New files need no restart.

Each change makes a context of its own, so that sessions begun under the old one cannot be taken up again under the
new one. A connection keeps the context it began with, hence none is dropped.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal

from collab import logs
from collab.errors import ConfigurationError
from collab.metrics import Metrics

POLL_SECONDS = 1.0
# TLS 1.2 with forward secrecy and authenticated encryption; the suites of TLS 1.3 are all of that kind.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"

ClientCertificates = Literal["off", "optional", "required"]

log = logs.logger(__name__)


class Tls:
    """The context of new connections, made again whenever a file changes.

    A broken file is logged and counted, and what worked before goes on until the next change.
    """

    def __init__(
        self,
        certificate: Path,
        key: Path,
        *,
        client_ca: Path | None = None,
        client: ClientCertificates = "off",
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._certificate, self._key, self._client_ca = certificate, key, client_ca
        self._client, self._metrics, self._clock = client, metrics, clock
        self._is_asked = asyncio.Event()
        self._seen = self._look()
        self.expires = 0.0  # seconds since 1970
        self.context = self._make()
        metrics.gauges["tls_certificate_seconds"] = lambda: self.expires - clock()

    def reload(self) -> None:
        """Read the files again, whether they look different or not."""
        self._is_asked.set()

    async def watch(self, renewed: Callable[[ssl.SSLContext], Awaitable[None]]) -> None:
        """Runs for the life of the server; `renewed` gets each new context, and again in a second if that fails."""
        while True:
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self._is_asked.wait()
            except TimeoutError:
                pass
            if self.refresh():
                try:
                    await renewed(self.context)
                except OSError:  # no file descriptor left, say
                    log.exception("the new TLS files are not in use yet")
                    self._seen = []

    def refresh(self) -> bool:
        """Whether there is a new context, since the files have changed or `reload` was called."""
        seen = self._look()
        if seen == self._seen and not self._is_asked.is_set():
            return False
        self._is_asked.clear()
        self._seen = seen
        try:
            self.context = self._make()
        except ConfigurationError as error:
            self._metrics.tls_reload_failures += 1
            log.error("the new TLS files are not used", reason=str(error))
            return False
        self._metrics.tls_reloads += 1
        log.info(
            "TLS files read again", valid_seconds=int(self.expires - self._clock())
        )
        return True

    def _look(self) -> list[tuple[int, ...]]:
        """What tells one state of the files from another: links are followed, as those of a mounted secret."""
        found: list[tuple[int, ...]] = []
        for path in filter(None, (self._certificate, self._key, self._client_ca)):
            try:
                now = path.stat()
            except OSError:
                found.append((0,))
            else:
                found.append((now.st_mtime_ns, now.st_size, now.st_ino, now.st_dev))
        return found

    def _make(self) -> ssl.SSLContext:
        """Raises ConfigurationError."""
        expires = _expiry(self._certificate)
        if expires <= self._clock():
            raise ConfigurationError(f"the certificate in {self._certificate} expired")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
        context.set_ciphers(CIPHERS)
        context.set_alpn_protocols(["http/1.1"])
        context.sslobject_class = self._observed()
        try:
            context.load_cert_chain(self._certificate, self._key, _no_password)
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"the certificate in {self._certificate} and the key in {self._key} cannot be used: {_reason(error)}"
            ) from None
        if self._client_ca is not None and self._client != "off":
            try:
                context.load_verify_locations(self._client_ca)
            except (OSError, ValueError) as error:
                raise ConfigurationError(
                    f"the client CA in {self._client_ca} cannot be used: {_reason(error)}"
                ) from None
            # Whoever is named there is trusted, a root or not.
            context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
            context.verify_mode = (
                ssl.CERT_REQUIRED if self._client == "required" else ssl.CERT_OPTIONAL
            )
        self.expires = expires
        return context

    def _observed(self) -> type[ssl.SSLObject]:
        metrics = self._metrics

        class Observed(ssl.SSLObject):
            """Says when a handshake fails; the event loop keeps that to itself."""

            def do_handshake(self) -> None:
                try:
                    super().do_handshake()
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    raise
                except ssl.SSLError as error:
                    metrics.tls_failures += 1
                    log.info("TLS handshake failed", reason=_reason(error))
                    raise

        return Observed


def _expiry(path: Path) -> float:
    """When the first certificate of a PEM file ends, in seconds since 1970. Raises ConfigurationError."""
    from cryptography import x509  # heavy: only who serves TLS needs it

    try:
        return x509.load_pem_x509_certificates(path.read_bytes())[
            0
        ].not_valid_after_utc.timestamp()
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"there is no certificate in {path}: {_reason(error)}"
        ) from None


def _no_password() -> str:
    """OpenSSL would ask the terminal."""
    raise ValueError("the key has a password")


def _reason(error: Exception) -> str:
    """In words, without what OpenSSL says of its own source."""
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None)
    return str(reason or error).split("\n")[0].lower().replace("_", " ")
