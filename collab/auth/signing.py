"""Keys that sign tokens: read from files, each pinned to the one algorithm that its type is for."""

from __future__ import annotations

import json
import os
import warnings
from base64 import urlsafe_b64decode
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from collab.auth.claims import MAX_TEXT_BYTES
from collab.errors import ConfigurationError

Algorithm = Literal["EdDSA", "ES256", "RS256", "HS256"]
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)

MAX_FILE_BYTES = 65_536
MAX_KEYS = 16  # a token without `kid` is tried with each key of its algorithm
MIN_SECRET_BYTES = 32
MIN_RSA_BITS, MAX_RSA_BITS = 2048, 8192

# Points of small order, as they are encoded: under such a key one signature fits any token. From libsodium.
_SMALL_ORDER = {
    bytes.fromhex(point)
    for point in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
}


class WeakKey(ValueError):
    """Why a key must not be used; says nothing of what it holds."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key and the only algorithm it is used with, whatever a token's header says."""

    algorithm: Algorithm
    id: str  # `kid`; "" when it has none
    thumbprint: str = field(repr=False)
    material: Key = field(repr=False)

    def verifies(self, content: bytes, signature: bytes) -> bool:
        try:
            return JWSRegistry.algorithms[self.algorithm].verify(
                content, signature, self.material
            )
        except (JoseError, ValueError):
            return False

    def sign(self, content: bytes) -> bytes:
        return JWSRegistry.algorithms[self.algorithm].sign(content, self.material)

    @property
    def is_secret(self) -> bool:
        """Whether who reads it can make tokens."""
        return self.material.is_private

    @property
    def public(self) -> dict[str, Any]:
        """Its public half as a JWK. Raises ConfigurationError for a secret, which has none."""
        if isinstance(self.material, OctKey):
            raise ConfigurationError(
                "a secret has no public half: whoever checks with it can sign"
            )
        half = self.material.as_dict(private=False)
        return {**half, "alg": self.algorithm, "use": "sig"}


class Keyring(Protocol):
    """Where a verifier finds keys."""

    async def find(self, id: str, algorithm: str) -> Sequence[SigningKey]:
        """The keys that a token may be signed with, by its header. Raises Busy when they cannot be had now."""
        ...

    def holds(self, thumbprint: str) -> bool:
        """Whether a key that verified a token is still one of ours."""
        ...


class FileKeys:
    """The keys of a file, read once."""

    def __init__(self, keys: Sequence[SigningKey]) -> None:
        self._keys = keys
        self._thumbprints = {key.thumbprint for key in keys}

    async def find(self, id: str, algorithm: str) -> Sequence[SigningKey]:
        return fitting(self._keys, id, algorithm)

    def holds(self, thumbprint: str) -> bool:
        return thumbprint in self._thumbprints


def fitting(
    keys: Sequence[SigningKey], id: str, algorithm: str
) -> Sequence[SigningKey]:
    """A token's `kid` chooses among keys that have one; it is compared and nothing else."""
    return [
        key
        for key in keys
        if key.algorithm == algorithm and (not id or not key.id or key.id == id)
    ]


def read_keys(path: Path, algorithms: Collection[str]) -> Sequence[SigningKey]:
    """The keys of a file: a JWK, a JWKS, one PEM key, or the bytes of a secret. Raises ConfigurationError."""
    content = read_file(path)
    try:
        if content.lstrip().startswith(b"{"):
            keys = _from_json(content)
        elif b"-----BEGIN " in content:
            keys = [_from_pem(content)]
        else:
            keys = [_from_secret(content)]
    except WeakKey as error:
        raise ConfigurationError(f"{path}: {error}") from None
    for key in keys:
        if key.algorithm not in algorithms:
            raise ConfigurationError(
                f"{path}: a key for {key.algorithm}, which jwt_algorithms does not name"
            )
    return keys


def read_secret(path: Path) -> bytes:
    """The bytes of a secret that signs or verifies. Raises ConfigurationError."""
    try:
        return _secret(read_file(path))
    except WeakKey as error:
        raise ConfigurationError(f"{path}: {error}") from None


def read_file(path: Path) -> bytes:
    """A file of keys. Raises ConfigurationError."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(
            f"cannot read {path}: {error.strerror or error}"
        ) from None
    if len(content) > MAX_FILE_BYTES:
        raise ConfigurationError(f"{path} is too long for a file of keys")
    return content


def _from_json(content: bytes) -> list[SigningKey]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        raise WeakKey("not the JSON of a JWK or JWKS") from None
    keys = found.get("keys", [found])
    if type(keys) is not list or not 1 <= len(keys) <= MAX_KEYS:
        raise WeakKey(f"not a JWKS of 1 to {MAX_KEYS} keys")
    return [from_jwk(key) for key in keys]


def from_jwk(jwk: Any, *, is_published: bool = False) -> SigningKey:
    """A JWK as a key with its algorithm. Raises WeakKey. Of a published key only the public half is looked at."""
    if type(jwk) is not dict:
        raise WeakKey("a key that is not an object")
    algorithm, key_class, names = _kind(jwk)
    if algorithm == "HS256" and is_published:
        raise WeakKey("a secret that is published is none")
    if jwk.get("alg", algorithm) != algorithm:
        raise WeakKey(f"a key whose alg is not {algorithm}")
    if jwk.get("use", "sig") != "sig":
        raise WeakKey("a key that is not for signatures")
    operations = jwk.get("key_ops", ["verify"])
    if type(operations) is not list or not {"verify", "sign"} & set(
        map(str, operations)
    ):
        raise WeakKey("a key that is not for signatures")
    id = jwk.get("kid", "")
    if type(id) is not str or len(id) > MAX_TEXT_BYTES:
        raise WeakKey("a key whose kid is not a short text")
    if algorithm == "RS256":
        _check_size(jwk)
    material = {name: jwk[name] for name in ("kty", "crv", *names) if name in jwk}
    if not is_published and type(jwk.get("d")) is str:
        private = ("d", "p", "q", "dp", "dq", "qi")
        material |= {name: jwk[name] for name in private if name in jwk}
    return _pinned(algorithm, id, lambda: key_class.import_key(material))


def _kind(jwk: dict[str, Any]) -> tuple[Algorithm, Any, tuple[str, ...]]:
    match jwk.get("kty"), jwk.get("crv"):
        case "OKP", "Ed25519":
            return "EdDSA", OKPKey, ("x",)
        case "EC", "P-256":
            return "ES256", ECKey, ("x", "y")
        case "RSA", _:
            return "RS256", RSAKey, ("n", "e")
        case "oct", _:
            return "HS256", OctKey, ("k",)
    raise WeakKey(
        "a key of a type that is not used here: OKP with Ed25519, EC with P-256, RSA, oct"
    )


def _check_size(jwk: dict[str, Any]) -> None:
    """Before native code sees it: a modulus of any length takes any time."""
    modulus = jwk.get("n")
    if type(modulus) is not str or len(modulus) > MAX_RSA_BITS // 6 + 4:
        raise WeakKey(f"an RSA key of more than {MAX_RSA_BITS} bits")
    if len(modulus) < MIN_RSA_BITS // 6:
        raise WeakKey(f"an RSA key of less than {MIN_RSA_BITS} bits")


def _from_pem(content: bytes) -> SigningKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import (
        load_pem_private_key,
        load_pem_public_key,
    )

    if content.count(b"-----BEGIN ") != 1:
        raise WeakKey("more than one PEM block; several keys go into a JWKS")
    try:
        key: Any = (
            load_pem_private_key(content, None)
            if b"PRIVATE" in content
            else load_pem_public_key(content)
        )
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise WeakKey("not a PEM key that can be read without a password") from None
    match key:
        case ed25519.Ed25519PublicKey() | ed25519.Ed25519PrivateKey():
            return _pinned("EdDSA", "", lambda: OKPKey.import_key(key))
        case ec.EllipticCurvePublicKey() | ec.EllipticCurvePrivateKey():
            if isinstance(key.curve, ec.SECP256R1):
                return _pinned("ES256", "", lambda: ECKey.import_key(key))
        case rsa.RSAPublicKey() | rsa.RSAPrivateKey():
            if key.key_size < MIN_RSA_BITS:
                raise WeakKey(f"an RSA key of less than {MIN_RSA_BITS} bits")
            return _pinned("RS256", "", lambda: RSAKey.import_key(key))
    raise WeakKey("not a PEM key that is used here: Ed25519, P-256 or RSA")


def _from_secret(content: bytes) -> SigningKey:
    secret = _secret(content)
    return _pinned("HS256", "", lambda: OctKey.import_key(secret))


def _secret(content: bytes) -> bytes:
    """What a file holds, less the line break that an editor has put behind a text."""
    return _checked(content.rstrip(b"\r\n") if content.isascii() else content)


def _checked(secret: bytes) -> bytes:
    if len(secret) < MIN_SECRET_BYTES:
        raise WeakKey(f"a secret of less than {MIN_SECRET_BYTES} bytes")
    if len(set(secret)) < 8:
        raise WeakKey("a secret of hardly any different bytes")
    return secret


def _pinned(algorithm: Algorithm, id: str, make: Any) -> SigningKey:
    try:
        with warnings.catch_warnings():
            # What it only warns of, a public key taken for a secret, must not be.
            warnings.simplefilter("error", SecurityWarning)
            key = make()
            thumbprint = key.thumbprint()
    except (JoseError, SecurityWarning, ValueError, TypeError, KeyError):
        raise WeakKey("not a key that can be read") from None
    if isinstance(key, RSAKey):
        bits = key.public_key.key_size
        if not MIN_RSA_BITS <= bits <= MAX_RSA_BITS:
            raise WeakKey(f"an RSA key of {bits} bits; it must have {MIN_RSA_BITS}")
    elif isinstance(key, OctKey):
        _checked(key.raw_value)
    elif isinstance(key, OKPKey):
        point = urlsafe_b64decode(str(key.dict_value["x"]) + "=")
        if point[:31] + bytes((point[31] & 0x7F,)) in _SMALL_ORDER:
            raise WeakKey("an Ed25519 key of small order")
    return SigningKey(algorithm, id, f"{algorithm} {thumbprint}", key)


def make_key(path: Path) -> SigningKey:
    """Make an Ed25519 key and write it, with its secret half, into a new file that only its owner reads."""
    key = OKPKey.generate_key("Ed25519", private=True)
    thumbprint = key.thumbprint()
    jwk = {
        **key.as_dict(private=True),
        "kid": thumbprint,
        "alg": "EdDSA",
        "use": "sig",
    }
    try:
        with open(
            path, "x", opener=lambda name, flags: os.open(name, flags, 0o600)
        ) as file:
            json.dump(jwk, file, indent=2)
            file.write("\n")
    except OSError as error:
        raise ConfigurationError(
            f"cannot write {path}: {error.strerror or error}"
        ) from None
    return from_jwk(jwk)
