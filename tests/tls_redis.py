"""A real Redis over TLS."""

from __future__ import annotations

from pathlib import Path

from certificates import Files
from ports import free_port
from services import Redis


class TlsRedis(Redis):
    """A Redis that also listens over TLS, for those who show a certificate of the authority of its own."""

    def __init__(self, directory: Path) -> None:
        files = Files(directory)
        self.certificate, self.key = files.certificate, files.key
        self.ca = directory / "ca.pem"
        files.ca.cert_pem.write_to_path(str(self.ca))
        self._tls_port = free_port()
        super().__init__(
            options=(
                *("--tls-port", str(self._tls_port), "--tls-auth-clients", "yes"),
                *("--tls-cert-file", str(self.certificate)),
                *("--tls-key-file", str(self.key), "--tls-ca-cert-file", str(self.ca)),
            )
        )

    @property
    def url(self) -> str:
        return f"rediss://127.0.0.1:{self._tls_port}/0"
