"""Keys: what is read from files, what is refused, and what is never taken for a secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from forging import Issuer, encode, public_bytes
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OctKey, OKPKey

from collab.auth.signing import (
    ALGORITHMS,
    WeakKey,
    from_jwk,
    make_key,
    read_keys,
)
from collab.errors import ConfigurationError


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


def test_a_made_key_is_its_owners_alone_and_signs(tmp_path: Path):
    path = tmp_path / "key.json"

    made = make_key(path)

    assert path.stat().st_mode & 0o777 == 0o600
    (read,) = read_keys(path, ALGORITHMS)
    assert read.verifies(b"content", made.sign(b"content"))


def test_a_key_file_is_never_written_over(tmp_path: Path):
    path = tmp_path / "key.json"
    path.write_text("precious")

    with pytest.raises(ConfigurationError, match="cannot write"):
        make_key(path)

    assert path.read_text() == "precious"


def test_what_is_printed_of_a_key_holds_nothing_of_it(tmp_path: Path):
    key = make_key(tmp_path / "key.json")

    assert str(key.material.as_dict(private=True)["d"]) not in repr(key)
    assert key.thumbprint not in repr(key).replace(key.id, "")


@pytest.mark.parametrize("algorithm", ["EdDSA", "ES256", "RS256"])
@pytest.mark.parametrize("is_private", [True, False])
def test_a_pem_file_is_one_key(
    tmp_path: Path, issuer: Issuer, algorithm: str, is_private: bool
):
    path = tmp_path / "key.pem"
    path.write_bytes(issuer.keys[algorithm].material.as_pem(private=is_private))

    (key,) = read_keys(path, ALGORITHMS)

    assert (key.algorithm, key.is_secret) == (algorithm, is_private)


def test_a_file_of_other_bytes_is_a_secret(tmp_path: Path):
    path = tmp_path / "secret"
    path.write_text("0123456789abcdef0123456789abcdef\n")

    (key,) = read_keys(path, ALGORITHMS)

    assert (key.algorithm, key.is_secret) == ("HS256", True)


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n"])
def test_a_line_break_belongs_to_a_secret_of_bytes_and_not_to_one_of_text(
    tmp_path: Path, end: bytes
):
    text, noise = b"0123456789abcdef0123456789abcdef", bytes(range(160, 192))
    found = []
    for secret in (text, noise):
        path = tmp_path / "secret"
        path.write_bytes(secret + end)
        (key,) = read_keys(path, ALGORITHMS)
        found.append(key.material.raw_value)
    jwk = OctKey.import_key(noise[2:] + end + end)

    assert found == [text, noise + end]
    assert from_jwk(jwk.as_dict(private=True)).material.raw_value == jwk.raw_value


def unfit_jwks() -> list[tuple[str, Any]]:
    ed = OKPKey.generate_key("Ed25519").as_dict(private=False)
    small = {"kty": "OKP", "crv": "Ed25519"}
    return [
        ("no object", []),
        ("no kty", {}),
        ("another type", {"kty": "PQ", "crv": "x"}),
        ("Ed448", OKPKey.generate_key("Ed448").as_dict(private=False)),
        ("X25519", OKPKey.generate_key("X25519").as_dict(private=False)),
        ("P-384", ECKey.generate_key("P-384").as_dict(private=False)),
        ("secp256k1", ECKey.generate_key("secp256k1").as_dict(private=False)),
        ("RSA of 1024 bits", {"kty": "RSA", "e": "AQAB", "n": encode(b"\xff" * 128)}),
        ("RSA of 2047 bits", {"kty": "RSA", "e": "AQAB", "n": encode(b"\x7f" + b"\xff" * 255)}),
        ("RSA of 512 bits", {"kty": "RSA", "e": "AQAB", "n": "w" + "A" * 85}),
        ("RSA of 65,536 bits", {"kty": "RSA", "e": "AQAB", "n": "w" * 10_923}),
        ("RSA that is a number", {"kty": "RSA", "e": "AQAB", "n": 5}),
        ("31 bytes of secret", OctKey.import_key(b"0123456789abcdef0123456789abcde").as_dict(private=True)),
        ("no secret at all", {"kty": "oct", "k": ""}),
        ("a secret of one byte, often", {"kty": "oct", "k": "A" * 60}),
        ("another alg", {**ed, "alg": "RS256"}),
        ("alg none", {**ed, "alg": "none"}),
        ("alg a list", {**ed, "alg": ["EdDSA"]}),
        ("for encryption", {**ed, "use": "enc"}),
        ("for wrapping", {**ed, "key_ops": ["wrapKey"]}),
        ("key_ops a text", {**ed, "key_ops": "verify"}),
        ("kid a number", {**ed, "kid": 1}),
        ("kid of 1 KB", {**ed, "kid": "k" * 1024}),
        ("a short point", {**ed, "x": "AAAA"}),
        ("a point off the curve", {**ECKey.generate_key("P-256").as_dict(private=False), "x": "A" * 43}),
        ("no point", small),
        ("the neutral point", {**small, "x": "AQ" + "A" * 41}),
        ("a point of small order", {**small, "x": "xxdqcD1N2E-6PAt2DRBnDyogU_osOczGTsf9d5KsA3o"}),
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "jwk"), unfit_jwks(), ids=lambda each: each if isinstance(each, str) else "")  # fmt: skip
def test_a_weak_or_unfit_key_is_refused(name: str, jwk: Any, tmp_path: Path):
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [jwk]}))

    with pytest.raises(WeakKey):
        from_jwk(jwk)
    with pytest.raises(ConfigurationError, match="jwks"):
        read_keys(path, ALGORITHMS)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        b"{",
        b'{"keys": []}',
        b'{"keys": 1}',
        b"a" * 64,
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJx4ZZ8vYqVzTgCVf4fYVfXvHh3C8n0yDk7mDnS0Z2rq me\n",
        b"x" * 70_000,
    ],
)
def test_a_file_that_holds_no_key_is_one_sentence(tmp_path: Path, content: bytes):
    path = tmp_path / "file"
    path.write_bytes(content)

    with pytest.raises(ConfigurationError, match="file"):
        read_keys(path, ALGORITHMS)


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="cannot read"):
        read_keys(tmp_path / "nothing", ALGORITHMS)


@pytest.mark.parametrize("form", ["ssh", "DER"])
@pytest.mark.parametrize("algorithm", ["EdDSA", "ES256", "RS256"])
def test_a_public_key_in_another_form_is_never_taken_for_a_secret(
    tmp_path: Path, issuer: Issuer, algorithm: str, form: str
):
    path = tmp_path / "key"
    path.write_bytes(public_bytes(issuer, algorithm, form))

    with pytest.raises(ConfigurationError):
        read_keys(path, ALGORITHMS)


def test_a_key_for_an_algorithm_that_is_not_wanted_is_refused(tmp_path: Path):
    path = tmp_path / "secret"
    path.write_text("0123456789abcdef0123456789abcdef")

    with pytest.raises(ConfigurationError, match="HS256, which jwt_algorithms"):
        read_keys(path, ("EdDSA",))


def test_a_published_secret_is_none(issuer: Issuer):
    (jwk,) = issuer.jwks("HS256")["keys"]

    with pytest.raises(WeakKey, match="published"):
        from_jwk(jwk, is_published=True)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=50),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


# From RFC 8037 and RFC 7517, and a secret.
JWKS: dict[str, dict[str, Any]] = {
    "EdDSA": {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    },
    "ES256": {
        "kty": "EC",
        "crv": "P-256",
        "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
        "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
    },
    "HS256": {"kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T"},
}
changed = st.dictionaries(
    st.sampled_from("kty crv x y n e k d p q alg use key_ops kid".split()),
    st.sampled_from(
        ["OKP", "EC", "RSA", "oct", "Ed25519", "P-256", "AQAB", "A" * 43, "sig"]
    )
    | json_values,
    max_size=3,
)


@given(
    base=st.sampled_from([{}, *JWKS.values()]),
    changed=changed,
    is_published=st.booleans(),
)
def test_any_jwk_is_a_key_or_is_refused(
    base: dict[str, Any], changed: dict[str, Any], is_published: bool
):
    jwk = base | changed
    try:
        key = from_jwk(jwk, is_published=is_published)
    except WeakKey:
        return

    assert jwk["kty"] == JWKS[key.algorithm]["kty"]
    assert jwk.get("alg", key.algorithm) == key.algorithm
    assert not (is_published and key.is_secret)
    assert key.verifies(b"content", b"signature") is False


@pytest.mark.parametrize(("algorithm", "jwk"), JWKS.items())
def test_a_jwk_is_for_the_one_algorithm_of_its_type(
    algorithm: str, jwk: dict[str, Any]
):
    assert from_jwk(jwk).algorithm == algorithm


@given(content=st.binary(max_size=100) | st.text(max_size=100).map(str.encode))
def test_any_file_is_keys_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
):
    path = tmp_path_factory.getbasetemp() / "any file"
    path.write_bytes(content)

    try:
        keys = list(read_keys(path, ALGORITHMS))
    except ConfigurationError:
        keys = []

    assert all(key.algorithm == "HS256" for key in keys)
