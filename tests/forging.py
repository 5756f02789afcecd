"""An issuer of tokens for tests, and every token of the catalogue's rows J that must open nothing.

The rows are tried at the verifier in `tests/auth` and over TCP in `tests/hostile`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from collab.auth.signing import SigningKey, from_jwk

AUDIENCE, ISSUER = "collab", "https://login.example.com"
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_GENERATED = (
    ("EdDSA", lambda: OKPKey.generate_key("Ed25519")),
    ("ES256", lambda: ECKey.generate_key("P-256")),
    ("RS256", lambda: RSAKey.generate_key(2048)),
    ("HS256", lambda: OctKey.generate_key(256)),
)


def encode(content: bytes | str | dict[str, Any]) -> str:
    """One segment of a token."""
    if isinstance(content, dict):
        content = json.dumps(content)
    if isinstance(content, str):
        content = content.encode()
    return urlsafe_b64encode(content).rstrip(b"=").decode()


class Issuer:
    """A key of each algorithm, whose `kid` is the algorithm's name."""

    def __init__(self) -> None:
        self.keys: dict[str, SigningKey] = {}
        for algorithm, generate in _GENERATED:
            key = generate()
            self.keys[algorithm] = from_jwk(
                {**key.as_dict(private=True), "kid": algorithm, "alg": algorithm}
            )

    def jwks(self, *algorithms: str) -> dict[str, Any]:
        """What is published of them; of a secret, all."""
        chosen = algorithms or tuple(self.keys)
        keys = []
        for name in chosen:
            jwk = dict(self.keys[name].material.as_dict(private=name == "HS256"))
            keys.append(jwk | {"kid": name, "alg": name, "use": "sig"})
        return {"keys": keys}

    def write(self, path: Path) -> Path:
        path.write_text(json.dumps(self.jwks()))
        path.chmod(0o600)
        return path

    def claims(self, **others: Any) -> dict[str, Any]:
        """Of a token that is good for every room; what is None is left out."""
        now = int(time.time())
        claims = {
            "sub": "alice",
            "iss": ISSUER,
            "aud": AUDIENCE,
            "iat": now,
            "exp": now + 600,
            "prefixes": {"": ["read", "write", "presence"]},
        } | others
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, **others: Any) -> str:
        """A good token, but for these claims."""
        return self.sign({}, self.claims(**others))

    def sign(
        self,
        header: dict[str, Any],
        claims: dict[str, Any] | bytes | str,
        algorithm: str = "EdDSA",
    ) -> str:
        """Signed properly, whatever header and claims say; what is None in the header is left out."""
        full = {"alg": algorithm, "typ": "JWT", "kid": algorithm} | header
        first = encode(
            {name: value for name, value in full.items() if value is not None}
        )
        content = f"{first}.{encode(claims)}"
        return f"{content}.{encode(self.keys[algorithm].sign(content.encode()))}"

    def resign(self, token: str, signature: bytes) -> str:
        return f"{token.rpartition('.')[0]}.{encode(signature)}"


Forge = Callable[[Issuer], str]


class Forgery(NamedTuple):
    """A token that must be refused."""

    row: str
    name: str
    make: Forge


def _claim(row: str, name: str, /, **others: Any) -> Forgery:
    return Forgery(row, name, lambda issuer: issuer.token(**others))


def _timed(row: str, name: str, claim: str, seconds: float) -> Forgery:
    """A claim that is a time, so many seconds from when the token is used."""
    return Forgery(
        row, name, lambda issuer: issuer.token(**{claim: time.time() + seconds})
    )


def _header(row: str, name: str, /, **others: Any) -> Forgery:
    return Forgery(row, name, lambda issuer: issuer.sign(others, issuer.claims()))


def _none(algorithm: str) -> Forge:
    def make(issuer: Issuer) -> str:
        header = encode({"alg": algorithm, "typ": "JWT"})
        return f"{header}.{encode(issuer.claims())}."

    return make


def _no_signature(issuer: Issuer) -> str:
    return issuer.token().rpartition(".")[0] + "."


def _none_with_signature(issuer: Issuer) -> str:
    return issuer.sign({"alg": "none"}, issuer.claims())


def public_bytes(issuer: Issuer, algorithm: str, form: str) -> bytes:
    key = issuer.keys[algorithm].material.public_key
    match form:
        case "PEM":
            return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        case "DER":
            return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        case "ssh":
            return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        case _:
            return json.dumps(issuer.jwks(algorithm)["keys"][0]).encode()


def _confused(algorithm: str, form: str, kid: str | None) -> Forge:
    """HMAC with a public key as the secret."""

    def make(issuer: Issuer) -> str:
        secret = public_bytes(issuer, algorithm, form)
        header = {"alg": "HS256", "typ": "JWT"} | ({"kid": kid} if kid else {})
        content = f"{encode(header)}.{encode(issuer.claims())}"
        mac = hmac.new(secret, content.encode(), hashlib.sha256).digest()
        return f"{content}.{encode(mac)}"

    return make


def _swapped(claimed: str, signed: str) -> Forge:
    """One algorithm in the header, signed with the key of another."""
    return lambda issuer: issuer.sign(
        {"alg": claimed, "kid": claimed}, issuer.claims(), signed
    )


def _own_key(**extra: Callable[[OKPKey], Any]) -> Forge:
    """Signed with a key that the token itself brings or points to."""

    def make(issuer: Issuer) -> str:
        key = OKPKey.generate_key("Ed25519")
        header = {"alg": "EdDSA", "typ": "JWT"}
        header |= {name: value(key) for name, value in extra.items()}
        content = f"{encode(header)}.{encode(issuer.claims())}"
        signature = key.private_key.sign(content.encode())
        return f"{content}.{encode(signature)}"

    return make


def _ecdsa(change: Callable[[int, int], bytes]) -> Forge:
    """A good ES256 signature, written or changed in a way that is none."""

    def make(issuer: Issuer) -> str:
        token = issuer.sign({}, issuer.claims(), "ES256")
        content = token.rpartition(".")[0].encode()
        signature = issuer.keys["ES256"].sign(content)
        r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
        return issuer.resign(token, change(r, s))

    return make


def _pair(r: int, s: int, length: int = 32) -> bytes:
    return r.to_bytes(length) + s.to_bytes(length)


def _ed25519(change: Callable[[bytes], bytes]) -> Forge:
    def make(issuer: Issuer) -> str:
        token = issuer.token()
        content = token.rpartition(".")[0].encode()
        return issuer.resign(token, change(issuer.keys["EdDSA"].sign(content)))

    return make


_L = 2**252 + 27742317777372353535851937790883648493


def _plus_order(signature: bytes) -> bytes:
    scalar = int.from_bytes(signature[32:], "little") + _L
    return signature[:32] + scalar.to_bytes(32, "little")


def _text(payload: str) -> Forge:
    return lambda issuer: issuer.sign({}, payload)


def _twice(name: str, value: Any) -> Forge:
    """A claim that is there twice, the harmless one last."""

    def make(issuer: Issuer) -> str:
        claims = json.dumps(issuer.claims())
        return issuer.sign({}, f'{{"{name}": {json.dumps(value)}, {claims[1:]}')

    return make


def _twice_in_rooms(issuer: Issuer) -> str:
    claims = json.dumps(issuer.claims())
    return issuer.sign(
        {}, f'{{"rooms": {{"a": ["read"], "a": ["write"]}}, {claims[1:]}'
    )


def _twice_in_header(issuer: Issuer) -> str:
    header = encode('{"alg": "none", "alg": "EdDSA", "typ": "JWT", "kid": "EdDSA"}')
    content = f"{header}.{encode(issuer.claims())}"
    return f"{content}.{encode(issuer.keys['EdDSA'].sign(content.encode()))}"


def _loose(change: Callable[[str], str]) -> Forge:
    return lambda issuer: change(issuer.token())


def _trailing_bits(token: str) -> str:
    """The same bytes in another spelling: the last character of 64 bytes holds four bits that count for nothing."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + alphabet[alphabet.index(token[-1]) | 1]


FORGERIES = [
    *(
        Forgery("J1", f"alg {name}", _none(name))
        for name in ("none", "None", "nOnE", "NONE", "", "null")
    ),
    Forgery("J1", "no signature", _no_signature),
    Forgery("J1", "none, and signed", _none_with_signature),
    _header("J1", "no alg", alg=None),
    _header("J1", "alg that is a list", alg=["EdDSA"]),
    *(
        Forgery("J2", f"HMAC with our {key} as {form}, kid {kid}", _confused(key, form, kid))
        for key in ("RS256", "ES256", "EdDSA")
        for form in ("PEM", "DER", "ssh", "JWK")
        for kid in (key, "HS256", None)
    ),
    Forgery("J2", "RS256 in the header, HS256 below", _swapped("RS256", "HS256")),
    Forgery("J2", "ES256 in the header, EdDSA below", _swapped("ES256", "EdDSA")),
    Forgery("J2", "HS256 in the header, RS256 below", _swapped("HS256", "RS256")),
    *(_header("J2", f"alg {name}", alg=name) for name in ("HS512", "PS256", "ES256K", "ES512", "Ed25519", "EDDSA", "dir")),
    *(
        _header("J3", name, kid=kid)
        for name, kid in (
            ("kid that is a path", "../../../../dev/null"),
            ("kid that is a URL", "http://127.0.0.1:1/jwks.json"),
            ("kid that is SQL", "' UNION SELECT 'AAAA' --"),
            ("kid with NUL", "EdDSA\0"),
            ("kid of 10 KB", "k" * 10_240),
            ("unknown kid", "another"),
            ("kid that is a number", 7),
            ("kid that is a list", ["EdDSA"]),
        )
    ),
    Forgery("J4", "a key of its own in jwk", _own_key(jwk=lambda key: key.as_dict())),
    Forgery("J4", "jku", _own_key(jku=lambda key: "http://127.0.0.1:1/jwks.json")),
    Forgery("J4", "x5u", _own_key(x5u=lambda key: "http://127.0.0.1:1/chain.pem")),
    Forgery("J4", "x5c", _own_key(x5c=lambda key: ["MIIB"])),
    _header("J5", "unknown crit", crit=["exp"], exp=1),
    _header("J5", "unknown crit of ours", crit=["http://example.com/x"]),
    _header("J5", "empty crit", crit=[]),
    _header("J5", "b64 false", b64=False, crit=["b64"]),
    _header("J5", "b64 false, not critical", b64=False),
    _header("J5", "zip", zip="DEF"),
    _claim("J6", "no exp", exp=None),
    _claim("J6", "exp as text", exp="4102444800"),
    _claim("J6", "exp 1e308", exp=1e308),
    _claim("J6", "exp NaN", exp=float("nan")),
    _claim("J6", "exp Infinity", exp=float("inf")),
    _claim("J6", "negative exp", exp=-1),
    _timed("J6", "exp a second ago", "exp", -1),
    _timed("J6", "exp in ten years", "exp", 10 * 365 * 86_400),
    _timed("J6", "exp in 25 hours", "exp", 25 * 3600),
    _timed("J6", "good for more than a day", "iat", -86_400),
    _claim("J6", "exp true", exp=True),
    _claim("J6", "exp a list", exp=[4102444800]),
    _claim("J6", "exp of 400 digits", exp=10**400),
    _timed("J7", "nbf in two minutes", "nbf", 120),
    _timed("J7", "iat in two minutes", "iat", 120),
    _claim("J7", "nbf as text", nbf="0"),
    _claim("J7", "iat false", iat=False),
    _claim("J8", "no aud", aud=None),
    _claim("J8", "another aud", aud="other"),
    _claim("J8", "aud that begins like ours", aud=AUDIENCE + "x"),
    _claim("J8", "a list of other aud", aud=["a", "b"]),
    _claim("J8", "aud an object", aud={AUDIENCE: True}),
    _claim("J8", "no iss", iss=None),
    _claim("J8", "another iss", iss=ISSUER + "/"),
    _claim("J8", "iss a list", iss=[ISSUER]),
    *(
        _header("J8", f"typ {name}", typ=name)
        for name in ("logout+jwt", "dpop+jwt", "secevent+jwt", "JOSE", "", None, 1)
    ),
    Forgery("J9", "sub twice", _twice("sub", "admin")),
    Forgery("J9", "exp twice", _twice("exp", 1)),
    Forgery("J9", "alg twice", _twice_in_header),
    Forgery("J9", "rooms twice, deep inside", _twice_in_rooms),
    *(
        Forgery("J9", f"payload {name}", _text(payload))
        for name, payload in (
            ("a list", "[]"),
            ("a text", '"alice"'),
            ("null", "null"),
            ("empty", ""),
            ("no JSON", "{"),
            ("with a BOM", "\ufeff{}"),
            ("ten thousand deep", "[" * 10_000),
            ("a number of 5,000 digits", '{"exp":' + "9" * 5_000 + "}"),
        )
    ),
    Forgery("J9", "payload in UTF-16", lambda issuer: issuer.sign({}, json.dumps(issuer.claims()).encode("utf-16"))),
    Forgery("J9", "payload of 1 MB", lambda issuer: issuer.token(pad="x" * (1 << 20))),
    Forgery("J9", "payload of 20 KB", lambda issuer: issuer.token(pad="x" * 20_000)),
    Forgery("J9", "half of a surrogate pair", lambda issuer: issuer.token(name="\ud800")),
    Forgery("J9", "JWE", lambda issuer: ".".join((encode({"alg": "dir", "enc": "A256GCM"}), "", *["AAAA"] * 3))),
    _header("J9", "nested", cty="JWT"),
    Forgery("J9", "a token in a token", lambda issuer: issuer.sign({}, issuer.token())),
    Forgery("J9", "header a list", lambda issuer: f"{encode('[]')}.{encode('{}')}.AAAA"),
    Forgery("J9", "JSON serialization", lambda issuer: json.dumps({"payload": "e30", "a.b.c": "d"})),
    Forgery("J9", "padding", _loose(lambda token: token + "==")),
    Forgery("J9", "four parts", _loose(lambda token: token + ".AAAA")),
    Forgery("J9", "a line break", _loose(lambda token: token + "\n")),
    Forgery("J9", "the alphabet with slashes", _loose(lambda token: token[:-1] + "/")),
    Forgery("J9", "not ASCII", _loose(lambda token: token[:-1] + "é")),
    Forgery("J9", "another spelling of the signature", _loose(_trailing_bits)),
    Forgery("J11", "ES256 zero", _ecdsa(lambda r, s: bytes(64))),
    Forgery("J11", "ES256 r zero", _ecdsa(lambda r, s: _pair(0, s))),
    Forgery("J11", "ES256 s zero", _ecdsa(lambda r, s: _pair(r, 0))),
    Forgery("J11", "ES256 of the order", _ecdsa(lambda r, s: _pair(P256_ORDER, P256_ORDER))),
    Forgery("J11", "ES256 s over the order", _ecdsa(lambda r, s: _pair(r, s + P256_ORDER, 33))),
    Forgery("J11", "ES256 as DER", _ecdsa(encode_dss_signature)),
    Forgery("J11", "ES256 with a byte more", _ecdsa(lambda r, s: _pair(r, s) + b"\0")),
    Forgery("J11", "ES256 negated r", _ecdsa(lambda r, s: _pair(P256_ORDER - r, s))),
    Forgery("J11", "Ed25519 of small order", _ed25519(lambda good: b"\1" + bytes(63))),
    Forgery("J11", "Ed25519 zero", _ed25519(lambda good: bytes(64))),
    Forgery("J11", "Ed25519 s over the order", _ed25519(_plus_order)),
    Forgery("J11", "Ed25519 cut short", _ed25519(lambda good: good[:-1])),
    _claim("J13", "rooms a list", rooms=["notes"]),
    _claim("J13", "rooms a text", rooms="*"),
    _claim("J13", "a prefix without a slash", prefixes={"team": ["read"]}),
    _claim("J13", "a prefix with a star", prefixes={"team/*": ["read"]}),
    _claim("J13", "a prefix as a pattern", prefixes={".*": ["read"]}),
    _claim("J13", "prefixes a list", prefixes=["team/"]),
    _claim("J13", "operations a text", rooms={"notes": "write"}),
    _claim("J13", "a star for operations", rooms={"notes": ["*"]}),
    _claim("J13", "an unknown operation", rooms={"notes": ["read", "own"]}),
    _claim("J13", "operations of numbers", rooms={"notes": [1]}),
    _claim("J13", "an empty room", rooms={"": ["read"]}),
    _claim("J13", "a room with a control character", rooms={"a\x1fb": ["read"]}),
    _claim("J13", "no sub", sub=None),
    _claim("J13", "an empty sub", sub=""),
    _claim("J13", "sub a number", sub=1),
    _claim("J13", "sub of 300 bytes", sub="s" * 300),
    _claim("J13", "sub nobody's", sub="anonymous"),
    _claim("J13", "another kind", kind="admin"),
    _claim("J13", "tenant with a separator", tenant="a\x1fb"),
    _claim("J13", "tenant a list", tenant=["a"]),
    _claim("J13", "jti a number", jti=1),
    _claim("J13", "name of 1 KB", name="n" * 1024),
]  # fmt: skip
