"""Anchors as Yjs writes them, and what hostile bytes and JSON do: InvalidMessage and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collab.document.anchor import Anchor, Id, Side
from collab.errors import InvalidMessage

ids = st.builds(Id, st.integers(0, (1 << 53) - 1), st.integers(0, (1 << 31) - 1))
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
associations = st.integers(-(1 << 31) + 1, (1 << 31) - 1)
WRITTEN = [  # by encodeRelativePosition and relativePositionToJSON of Yjs 13.6
    (
        "0088c5f1d50c0500",
        {
            "tname": "text",
            "item": {"client": 3401343624, "clock": 5},
            "assoc": 0,
        },
    ),
    ("01047465787441", {"tname": "text", "assoc": -1}),
    ("02010700", {"type": {"client": 1, "clock": 7}, "assoc": 0}),
]
BAD_JSON: list[Any] = [
    None,
    [],
    "text",
    7,
    {},
    {"assoc": 0},
    {"item": None, "type": None, "tname": None, "assoc": 0},
    {"item": {"client": 1}, "assoc": 0},
    {"item": {"client": -1, "clock": 0}},
    {"item": {"client": 1, "clock": 1 << 31}},
    {"item": {"client": 1 << 53, "clock": 0}},
    {"item": {"client": True, "clock": 0}},
    {"item": {"client": 1.5, "clock": 0}},
    {"item": [1, 2]},
    {"type": "text"},
    {"tname": 5},
    {"tname": "x" * 257},
    {"tname": "\ud800"},
    {"tname": "text", "assoc": "left"},
    {"tname": "text", "assoc": 1.5},
    {"tname": "text", "assoc": True},
    {"tname": "text", "assoc": 1 << 31},
]
BAD_BYTES = [
    "",
    "00",
    "0001",
    "03",
    "0104746578",
    "0104ffffffff00",
    "01047465787400" + "00",  # something follows
    "0001ffffffffffffff1f00",  # a clock beyond all
    "00ffffffffffffff7f0000",
    "0104746578748000",  # a padded side
    "01047465787480ffffffff7f",
]


@pytest.mark.parametrize(("encoded", "written"), WRITTEN)
def test_an_anchor_of_yjs_is_read_and_written_again(
    encoded: str, written: dict[str, Any]
) -> None:
    anchor = Anchor.decode(bytes.fromhex(encoded))

    assert anchor.encode().hex() == encoded
    assert Anchor.from_json(written).to_json() == written
    assert Anchor.from_json(written).encode().hex() == encoded


@given(item=st.none() | ids, root=st.none() | names | ids, association=associations)
def test_what_is_written_is_read_again(
    item: Id | None, root: str | Id | None, association: int
) -> None:
    if item is None and root is None:
        return
    anchor = Anchor(item, root, association)

    decoded = Anchor.decode(anchor.encode())
    parsed = Anchor.from_json(json.loads(json.dumps(anchor.to_json())))

    assert parsed == anchor
    assert decoded == Anchor(item, None if item else root, association)
    assert parsed.side is (Side.LEFT if association < 0 else Side.RIGHT)


@pytest.mark.parametrize("encoded", BAD_BYTES)
def test_bytes_that_are_no_anchor_are_refused(encoded: str) -> None:
    with pytest.raises(InvalidMessage):
        Anchor.decode(bytes.fromhex(encoded))


@pytest.mark.parametrize("written", BAD_JSON, ids=lambda written: ascii(written)[:60])
def test_json_that_is_no_anchor_is_refused(written: Any) -> None:
    with pytest.raises(InvalidMessage):
        Anchor.from_json(written)


def test_an_anchor_of_nothing_cannot_be_written() -> None:
    with pytest.raises(InvalidMessage):
        Anchor().encode()


def test_an_anchor_of_yjs_before_it_had_sides_is_held_from_the_right() -> None:
    assert Anchor.decode(b"\x01\x04text") == Anchor(None, "text", Side.RIGHT)


@given(st.binary(max_size=40))
def test_any_bytes_are_an_anchor_or_refused(encoded: bytes) -> None:
    try:
        anchor = Anchor.decode(encoded)
    except InvalidMessage:
        return

    assert Anchor.decode(anchor.encode()) == anchor


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["client", "clock", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(
    st.dictionaries(
        st.sampled_from(["item", "type", "tname", "assoc", "other"]), values
    )
    | values
)
def test_any_json_is_an_anchor_or_refused(written: Any) -> None:
    try:
        anchor = Anchor.from_json(written)
    except InvalidMessage:
        return

    assert Anchor.from_json(anchor.to_json()) == anchor
