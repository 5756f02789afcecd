"""Tokens at the verifier: what is good, and every row J of the catalogue that is not."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from forging import (
    AUDIENCE,
    FORGERIES,
    ISSUER,
    Forgery,
    Issuer,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from collab.auth.base import Credential
from collab.auth.permissions import HISTORY, PRESENCE, READ, WRITE, Principal
from collab.auth.signing import (
    ALGORITHMS,
    FileKeys,
    SigningKey,
    from_jwk,
    make_key,
    read_keys,
)
from collab.auth.tokens import Tokens, mint
from collab.errors import Unauthenticated
from collab.turns import About


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture(scope="module")
def tokens(issuer: Issuer) -> Tokens:
    return verifier(issuer)


def verifier(issuer: Issuer, /, **options: Any) -> Tokens:
    keys = [from_jwk(jwk) for jwk in issuer.jwks()["keys"]]
    return Tokens(FileKeys(keys), **{"audience": AUDIENCE, "issuer": ISSUER} | options)


async def ask(tokens: Tokens, token: str) -> Principal | None:
    return await tokens.verify(Credential(token), "notes")


@pytest.mark.anyio
@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_good_token_of_each_algorithm_is_taken(
    issuer: Issuer, tokens: Tokens, algorithm: str
):
    token = issuer.sign({}, issuer.claims(sub=algorithm), algorithm)

    principal = await ask(tokens, token)

    assert principal is not None
    assert principal.id == algorithm


@pytest.mark.anyio
@pytest.mark.parametrize(
    "forgery", FORGERIES, ids=lambda each: f"{each.row} {each.name}"
)
async def test_a_forged_token_is_refused(
    issuer: Issuer, tokens: Tokens, forgery: Forgery
):
    token = forgery.make(issuer)

    with pytest.raises(Unauthenticated, match="this token is not valid here"):
        await ask(tokens, token)


@pytest.mark.anyio
async def test_the_claims_say_who_it_is(issuer: Issuer, tokens: Tokens):
    expires = int(time.time()) + 60
    token = issuer.token(
        sub="user|7",
        name="Ada 👩‍💻",
        kind="agent",
        tenant="acme",
        jti="t-1",
        exp=expires,
        rooms={"notes": ["read", "write"]},
        prefixes={"team-a/": ["read", "presence", "history"]},
    )

    principal = await ask(tokens, token)

    assert principal is not None
    assert (principal.id, principal.tenant, principal.kind) == (
        "user|7",
        "acme",
        "agent",
    )
    assert (principal.token, principal.expires) == ("t-1", expires)
    assert principal.stamp == {"id": "user|7", "name": "Ada 👩‍💻", "kind": "agent"}
    assert principal.operations("notes") == READ | WRITE
    assert principal.operations("team-a/x") == READ | PRESENCE | HISTORY
    assert principal.operations("team-ax") == 0


@pytest.mark.anyio
async def test_whoever_acts_is_the_principal_on_behalf_of_the_subject(
    issuer: Issuer, tokens: Tokens
):
    token = issuer.token(
        sub="ada",
        name="Ada",
        role="executor",
        act={"sub": "reviewer", "name": "Reviewer", "act": {"sub": "ignored"}},
    )

    principal = await ask(tokens, token)

    assert principal is not None
    assert principal.stamp == {
        "id": "reviewer",
        "name": "Reviewer",
        "kind": "agent",
        "role": "executor",
        "on_behalf_of": "ada",
    }
    assert principal.about == About("Reviewer", "agent", "ada", "executor")


@pytest.mark.anyio
@pytest.mark.parametrize(
    "wrong",
    [
        {"act": []},
        {"act": "reviewer"},
        {"act": {}},
        {"act": {"sub": ""}},
        {"act": {"sub": 7}},
        {"act": {"sub": "anonymous"}},
        {"act": {"sub": "a", "kind": "god"}},
        {"act": {"sub": "a", "name": "\x00"}},
        {"role": 5},
        {"role": "r" * 257},
        {"role": "\n"},
        {"act": {"sub": "a"}, "sub": ""},
    ],
    ids=str,
)
async def test_a_wrong_actor_or_role_makes_the_token_worthless(
    issuer: Issuer, tokens: Tokens, wrong: dict[str, object]
):
    token = issuer.token(**wrong)

    with pytest.raises(Unauthenticated):
        await ask(tokens, token)


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["*", "a*", "room1", "room[0-9]", ".*", "team/*"])
async def test_the_name_of_a_room_is_never_a_pattern(
    issuer: Issuer, tokens: Tokens, name: str
):
    token = issuer.token(rooms={name: ["read"]}, prefixes=None)

    principal = await ask(tokens, token)

    assert principal is not None
    assert principal.operations(name) == READ
    for other in ("notes", "a", "ab", "room10", "room", "team/x", "team/"):
        assert principal.operations(other) == 0


@pytest.mark.anyio
@pytest.mark.parametrize(
    "typ", ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt"]
)
async def test_both_classes_of_token_are_taken_in_any_case(
    issuer: Issuer, tokens: Tokens, typ: str
):
    assert await ask(tokens, issuer.sign({"typ": typ}, issuer.claims())) is not None


@pytest.mark.anyio
async def test_ours_may_be_one_of_several_audiences(issuer: Issuer, tokens: Tokens):
    assert await ask(tokens, issuer.token(aud=["other", AUDIENCE])) is not None


@pytest.mark.anyio
async def test_without_a_setting_audience_and_issuer_are_not_looked_at(issuer: Issuer):
    tokens = verifier(issuer, audience="", issuer="")

    assert await ask(tokens, issuer.token(aud=None, iss=None)) is not None


@pytest.mark.anyio
@pytest.mark.parametrize("header", [{"jku": "http://127.0.0.1:1/"}, {"x5c": ["MIIB"]}])
async def test_where_a_token_says_its_key_is_makes_no_difference(
    issuer: Issuer, tokens: Tokens, header: dict[str, Any]
):
    assert await ask(tokens, issuer.sign(header, issuer.claims())) is not None


@pytest.mark.anyio
async def test_a_clock_that_is_a_little_ahead_is_forgiven(
    issuer: Issuer, tokens: Tokens
):
    ahead = time.time() + 50

    principal = await ask(tokens, issuer.token(iat=ahead, nbf=ahead))

    assert principal is not None
    assert principal.issued <= time.time()


@pytest.mark.anyio
@pytest.mark.parametrize("token", ["", "ck_1.secret", "tk_secret", "abc", "a.b"])
async def test_what_is_no_token_of_this_kind_is_for_another_verifier(
    tokens: Tokens, token: str
):
    assert await ask(tokens, token) is None


@pytest.mark.anyio
async def test_a_token_without_a_key_id_is_tried_with_all_keys_of_its_algorithm(
    issuer: Issuer, tokens: Tokens
):
    token = issuer.sign({"kid": None}, issuer.claims(), "ES256")

    assert await ask(tokens, token) is not None


@pytest.mark.anyio
async def test_a_key_without_an_id_fits_any(tmp_path: Path, issuer: Issuer):
    path = tmp_path / "key.pem"
    path.write_bytes(issuer.keys["RS256"].material.as_pem(private=False))
    tokens = Tokens(FileKeys(read_keys(path, ALGORITHMS)))

    token = issuer.sign(
        {"kid": "whatever the login calls it"}, issuer.claims(), "RS256"
    )

    assert await ask(tokens, token) is not None


# Verified once


class Counting:
    """Keys that count how often one is looked for."""

    def __init__(self, keys: Sequence[SigningKey]) -> None:
        self.keys, self.asked = FileKeys(keys), 0
        self.is_withdrawn = False

    async def find(self, id: str, algorithm: str) -> Sequence[SigningKey]:
        self.asked += 1
        return [] if self.is_withdrawn else await self.keys.find(id, algorithm)

    def holds(self, thumbprint: str) -> bool:
        return not self.is_withdrawn and self.keys.holds(thumbprint)


@pytest.mark.anyio
async def test_a_token_is_verified_once_and_not_for_each_room(issuer: Issuer):
    keys = Counting([issuer.keys["EdDSA"]])
    tokens, token = Tokens(keys), issuer.token()

    found = {await tokens.verify(Credential(token), room) for room in ("a", "b", "c")}

    assert len(found) == 1
    assert keys.asked == 1


@pytest.mark.anyio
async def test_a_verified_token_ends_in_time(issuer: Issuer):
    now = [time.time()]
    tokens, token = verifier(issuer, clock=lambda: now[0]), issuer.token()
    assert await ask(tokens, token) is not None

    now[0] += 601

    with pytest.raises(Unauthenticated):
        await ask(tokens, token)


@pytest.mark.anyio
async def test_a_verified_token_ends_with_its_key(issuer: Issuer):
    keys = Counting([issuer.keys["EdDSA"]])
    tokens, token = Tokens(keys), issuer.token()
    assert await ask(tokens, token) is not None

    keys.is_withdrawn = True

    with pytest.raises(Unauthenticated):
        await ask(tokens, token)


@pytest.mark.anyio
async def test_only_so_many_verified_tokens_are_kept(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("collab.auth.tokens.MAX_VERIFIED", 2)
    keys = Counting([issuer.keys["EdDSA"]])
    tokens = Tokens(keys)
    first, second, third = (issuer.token(sub=name) for name in "abc")

    for token in (first, second, first, third, first):
        await ask(tokens, token)

    assert keys.asked == 3
    await ask(tokens, second)
    assert keys.asked == 4


# Any bytes


@pytest.mark.anyio
@settings(deadline=None, max_examples=200)
@given(text=st.text(max_size=200))
async def test_no_text_does_more_than_be_refused(issuer: Issuer, text: str):
    tokens = verifier(issuer)

    assert await outcome(tokens, text) is None


@pytest.mark.anyio
@settings(deadline=None, max_examples=300)
@given(at=st.integers(0, 2_000), with_=st.binary(max_size=4), cut=st.integers(0, 4))
async def test_no_change_to_a_good_token_leaves_it_good(
    issuer: Issuer, tokens: Tokens, at: int, with_: bytes, cut: int
):
    good = issuer.token(sub="fuzzed")
    at %= len(good)
    changed = good[:at] + with_.decode("latin-1") + good[at + cut :]

    assert changed == good or await outcome(tokens, changed) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.mark.anyio
@settings(deadline=None, max_examples=300)
@given(
    claims=st.dictionaries(
        st.sampled_from(
            "sub exp nbf iat aud iss jti kind name tenant rooms prefixes".split()
        ),
        json_values,
        max_size=4,
    ),
    header=st.dictionaries(
        st.sampled_from(["alg", "typ", "kid", "crit", "b64", "jku", "jwk", "cty"]),
        json_values,
        max_size=2,
    ),
)
async def test_signed_nonsense_is_refused_or_is_a_principal(
    issuer: Issuer, tokens: Tokens, claims: dict[str, Any], header: dict[str, Any]
):
    token = issuer.sign(header, issuer.claims() | claims)

    principal = await outcome(tokens, token)

    assert principal is None or json.dumps(principal.stamp)


async def outcome(tokens: Tokens, token: str) -> Principal | None:
    try:
        return await ask(tokens, token)
    except Unauthenticated:
        return None


@pytest.mark.anyio
async def test_a_minted_token_is_taken(tmp_path: Path):
    key = make_key(tmp_path / "key.json")
    tokens = Tokens(FileKeys([key]))

    principal = await ask(tokens, mint(key, {"sub": "a", "exp": time.time() + 60}))

    assert principal is not None
    assert principal.grants == ()
