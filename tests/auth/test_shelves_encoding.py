"""Records as JSON that others can write to as well."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collab.auth.permissions import READ, Grant
from collab.auth.records import Granted, Key, Record, Revocation
from collab.auth.shelves.encoding import (
    Decoder,
    decode,
    encode,
    encode_name,
    next_version,
)
from collab.errors import StoreCorrupt

KEY = Key("ck_0", "ci", grants=(Grant("notes", READ),), hash=bytes(32))
ACTING = replace(KEY, role="reviewer", on_behalf_of="ada")
GRANTED = Granted("", "ada", Grant("notes", READ), 1.0, inf)
REVOCATION = Revocation("", "token", "jti", 1.0, 2.0)

json = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 1 << 40) | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


def test_versions_grow_and_never_come_twice() -> None:
    first, other = next_version(""), next_version("")

    assert first != other
    assert first.startswith("1-")
    assert next_version(first).startswith("2-")


def test_what_a_newer_version_has_added_is_passed_over() -> None:
    body = orjson.dumps(orjson.loads(encode(REVOCATION)) | {"later": 1})

    assert decode(encode_name(REVOCATION), body) == REVOCATION
    assert decode(b'["later","x"]', b"{}") is None


@pytest.mark.parametrize("acts", [{"role": "reviewer"}, {"on_behalf_of": "ada"}])
def test_a_key_that_acts_for_somebody_is_none_for_who_knows_nothing_of_that(
    acts: dict[str, str],
) -> None:
    acting = replace(KEY, **acts)  # type: ignore[arg-type]  # which fields, the parameters say

    kind, *rest = orjson.loads(encode_name(acting))

    assert kind not in ("key", "grant", "revocation")  # what they take in
    assert rest == ["ck_0"]
    assert decode(encode_name(acting), encode(acting)) == acting


def test_a_key_of_before_says_neither_role_nor_for_whom() -> None:
    body = orjson.loads(encode(KEY))
    del body["role"], body["on_behalf_of"]

    assert decode(b'["key","ck_0"]', orjson.dumps(body)) == KEY


@pytest.mark.parametrize("record", [KEY, ACTING, GRANTED, REVOCATION])
def test_a_record_under_the_name_of_another_is_not_believed(record: Record) -> None:
    other = encode_name(Key("ck_1", "ci"))

    with pytest.raises(StoreCorrupt):
        decode(other, encode(record))


@pytest.mark.parametrize(
    ("record", "field", "said"),
    [
        (KEY, "hash", "00"),
        (KEY, "hash", 5),
        (KEY, "principal", "anonymous"),
        (KEY, "kind", "god"),
        (KEY, "grants", [["notes", 64, False]]),
        (KEY, "grants", [["team", 1, True]]),
        (KEY, "grants", [["notes", 1.0, False]]),
        (KEY, "tenant", "a\x1fb"),
        (KEY, "role", "reviewer"),
        (KEY, "on_behalf_of", "ada"),
        (ACTING, "role", "a\nb"),
        (ACTING, "role", 5),
        (ACTING, "on_behalf_of", "anonymous"),
        (ACTING, "on_behalf_of", None),
        (KEY, "created", "now"),
        (KEY, "created", True),
        (GRANTED, "grant", []),
        (GRANTED, "expires", []),
        (REVOCATION, "kind", "all"),
        (REVOCATION, "subject", "x" * 257),
    ],
)
def test_a_record_that_none_of_us_has_written_is_not_believed(
    record: Record, field: str, said: object
) -> None:
    body = orjson.dumps(orjson.loads(encode(record)) | {field: said})

    with pytest.raises(StoreCorrupt):
        decode(encode_name(record), body)


@given(name=st.binary() | json.map(orjson.dumps), body=st.binary())
def test_no_bytes_are_worse_than_not_believed(name: bytes, body: bytes) -> None:
    try:
        decode(name, body)
    except StoreCorrupt:
        pass


@given(field=st.sampled_from(sorted(orjson.loads(encode(KEY)))), said=json)
def test_no_field_is_worse_than_not_believed(field: str, said: object) -> None:
    body = orjson.dumps(orjson.loads(encode(KEY)) | {field: said})

    try:
        found = decode(encode_name(KEY), body)
    except StoreCorrupt:
        return

    assert isinstance(found, Key)
    assert encode_name(found) == encode_name(KEY)
    assert decode(encode_name(found), encode(found)) == found


def test_what_has_not_changed_is_not_decoded_again() -> None:
    decoder = Decoder()
    first = decoder.decode([(encode_name(r), encode(r)) for r in (KEY, REVOCATION)])
    later = REVOCATION._replace(expires=3.0)

    second = decoder.decode(
        [(encode_name(r), encode(r)) for r in (KEY, later, GRANTED)]
    )
    third = decoder.decode([])

    assert first == [KEY, REVOCATION]
    assert second == [KEY, later, GRANTED]
    assert second[0] is first[0]
    assert third == []
