"""Certificates for tests: a server's, and those of clients with whatever URIs a test wants."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from trustme import CA, KeyType, LeafCert


class Files:
    """The files that a server reads, in a directory of its own, and the authorities behind them."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self.certificate, self.key = directory / "cert.pem", directory / "key.pem"
        self.client_ca = directory / "clients.pem"
        self.ca, self.clients = CA(), CA()
        self.clients.cert_pem.write_to_path(str(self.client_ca))
        self.renew()

    def renew(self) -> int:
        """A new certificate of the same authority in the files; returns its serial number."""
        made = self.ca.issue_cert(
            "localhost", "127.0.0.1", "::1", key_type=KeyType.ECDSA
        )
        made.private_key_pem.write_to_path(str(self.key))
        self.key.chmod(0o600)
        chain = b"".join(each.bytes() for each in made.cert_chain_pems)
        self.certificate.write_bytes(chain)
        return x509.load_pem_x509_certificate(chain).serial_number

    def flags(self, client: str = "off") -> list[str]:
        """What a server is started with."""
        found = ["--tls-certificate", str(self.certificate), "--tls-key", str(self.key)]
        if client != "off":
            found += ["--tls-client", client, "--tls-client-ca", str(self.client_ca)]
        return found

    def context(self, client: LeafCert | None = None) -> ssl.SSLContext:
        """A client's, with a certificate or without."""
        found = ssl.create_default_context()
        self.ca.configure_trust(found)
        if client is not None:
            client.configure_cert(found)
        return found


def issue(
    ca: CA, *uris: str, days: float = 1.0, names: tuple[str, ...] = ()
) -> LeafCert:
    """A client's certificate that ends in so many days; with negative ones it has ended."""
    issuer = x509.load_pem_x509_certificate(ca.cert_pem.bytes())
    signing = serialization.load_pem_private_key(ca.private_key_pem.bytes(), None)
    assert isinstance(signing, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    known: list[x509.GeneralName] = [
        x509.UniformResourceIdentifier(uri) for uri in uris
    ]
    known += [x509.DNSName(name) for name in names]
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=9))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(known), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .sign(signing, hashes.SHA256())
    )
    return LeafCert(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        ),
        made.public_bytes(serialization.Encoding.PEM),
        [],
    )
