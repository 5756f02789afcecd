"""What a token or a backend says: every shape that is not the agreed one is refused, in words that hold nothing of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collab.auth.claims import Unfit, grants, operations, parse, person, seconds
from collab.auth.permissions import READ, WRITE, Grant, Principal

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(content=st.binary(max_size=200) | json_values.map(json.dumps).map(str.encode))
def test_any_bytes_are_an_object_or_are_refused(content: bytes):
    try:
        found: Any = parse(content)
    except Unfit:
        return

    assert type(found) is dict
    json.dumps(found, ensure_ascii=False).encode()


@given(
    claims=st.dictionaries(
        st.sampled_from("sub name kind tenant role act".split()), json_values
    )
)
def test_anybody_is_a_principal_or_is_refused(claims: dict[str, Any]):
    try:
        found = person(claims, "sub")
    except Unfit:
        return

    principal = Principal(**found)
    assert 0 < len(principal.id.encode()) <= 256
    assert principal.kind in ("human", "agent", "service")


names = st.sampled_from(["", "a", "a/", "a/b", "*", "/", "..", "a\x1fb"]) | st.text(
    max_size=8
)
allowed = st.lists(st.sampled_from(["read", "write"]), max_size=3)


@given(
    claims=st.dictionaries(
        st.sampled_from(["rooms", "prefixes"]),
        st.dictionaries(names, allowed, max_size=2) | json_values,
    )
)
def test_any_rights_are_grants_or_are_refused(claims: dict[str, Any]):
    try:
        found = grants(claims)
    except Unfit:
        return

    said = [
        (name, operations(may, "a claim"), is_prefix)
        for claim, is_prefix in (("rooms", False), ("prefixes", True))
        for name, may in claims.get(claim, {}).items()
    ]
    assert said == list(found)
    for name, _, is_prefix in found:
        assert name or is_prefix
        assert not is_prefix or name == "" or name.endswith("/")
        assert "\x1f" not in name


def test_rooms_are_exact_and_prefixes_are_not():
    found = grants({"rooms": {"a": ["read"]}, "prefixes": {"b/": ["write"], "": []}})

    assert found == (
        Grant("a", READ),
        Grant("b/", WRITE, is_prefix=True),
        Grant("", 0, is_prefix=True),
    )


@pytest.mark.parametrize(
    "value", [True, "1", None, [], {}, float("inf"), float("nan"), 10**400, 1e12]
)
def test_only_a_number_is_a_time(value: Any):
    with pytest.raises(Unfit, match="exp"):
        seconds({"exp": value}, "exp")


def test_a_time_that_is_not_there_is_none():
    assert seconds({}, "exp") is None


@pytest.mark.parametrize(
    "names", [None, "read", {"read": 1}, [1], ["own"], ["*"], [["read"]]]
)
def test_only_a_list_of_names_is_operations(names: Any):
    with pytest.raises(Unfit, match="rooms"):
        operations(names, "rooms")


def test_what_is_said_of_a_bad_claim_holds_nothing_of_it():
    for claims in (
        {"sub": "se\x00cret"},
        {"sub": "a", "kind": "secret"},
        {"sub": "a", "tenant": "se\x1fcret"},
    ):
        with pytest.raises(Unfit) as refused:
            person(claims, "sub")

        assert "secret" not in str(refused.value)
        assert "cret" not in str(refused.value)
