"""Client certificates: a SPIFFE id, verified by the TLS handshake, becomes a principal.

What it may do stands in the registry: `collab grant add spiffe://…`. Without a grant it may do nothing.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from typing import Any

from collab.auth.base import Certificate, Credential
from collab.auth.permissions import Principal

CERTIFICATE = "collab.certificate"  # where a scope has what the TLS handshake verified
MAX_ID_BYTES = 2048  # of the SPIFFE specification, as is the rest
_ID = re.compile(r"spiffe://[a-z0-9._-]{1,255}((?:/[A-Za-z0-9._-]+)+)")


def certificate_of(peer: Mapping[str, Any] | None) -> Certificate | None:
    """What `getpeercert` says, when the certificate has exactly one URI and that is a SPIFFE id."""
    if not peer:
        return None
    uris = [value for kind, value in peer.get("subjectAltName", ()) if kind == "URI"]
    if len(uris) != 1 or not is_spiffe_id(uris[0]):
        return None
    return Certificate(
        uris[0],
        peer["serialNumber"].lower(),
        float(ssl.cert_time_to_seconds(peer["notAfter"])),
    )


def is_spiffe_id(uri: str) -> bool:
    """Whether this names a workload: a trust domain and a path, nothing that could be written in two ways."""
    found = _ID.fullmatch(uri)
    if found is None or len(uri) > MAX_ID_BYTES:
        return False
    return not {".", ".."}.intersection(found[1].split("/"))


class Certificates:
    """A verifier. Who shows a token too is who the token says: the certificate is then that of a proxy."""

    async def verify(self, credential: Credential, room: str) -> Principal | None:
        certificate = credential.certificate
        if certificate is None or credential.token:
            return None
        return Principal(
            certificate.id,
            kind="service",
            name=certificate.id.rpartition("/")[2],
            expires=certificate.expires,
            token=certificate.serial,
        )
