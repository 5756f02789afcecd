"""What clients of `collab.v1` alone say: it comes back as it was said, and any other bytes cost a named error."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collab.errors import InvalidMessage
from collab.protocol import yjs
from collab.protocol.messages import BeginTurn, CancelTurn, Renewal
from collab.protocol.varint import encode_string
from collab.turns import About

ids = st.from_regex(r"[A-Za-z0-9._~-]{1,64}", fullmatch=True)
names = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)


@given(id=ids, reason=st.text(st.characters(min_codepoint=32, exclude_categories=("Cs", "Cc")), max_size=60))  # fmt: skip
def test_a_turn_is_read_as_it_was_said(id: str, reason: str) -> None:
    said = yjs.decode_v1(yjs.turn(id, json.dumps({"reason": reason})))

    assert said == BeginTurn(id, About(reason=reason))


@given(id=ids, principal=names)
def test_a_cancel_is_read_as_it_was_said(id: str, principal: str) -> None:
    assert yjs.decode_v1(yjs.cancel(id, principal)) == CancelTurn(id, principal)


@given(kind=st.sampled_from([yjs.TOKEN, yjs.TURN, yjs.CANCEL]), rest=st.binary())
def test_any_bytes_are_a_message_or_are_refused(kind: int, rest: bytes) -> None:
    try:
        said = yjs.decode_v1(bytes((kind,)) + rest)
    except InvalidMessage:
        return

    assert isinstance(said, (Renewal, BeginTurn, CancelTurn))


@given(id=ids, cut=st.integers(0, 200))
def test_a_turn_that_is_cut_short_is_refused(id: str, cut: int) -> None:
    frame = yjs.turn(id, '{"task": "x"}')

    with pytest.raises(InvalidMessage):
        yjs.decode_v1(frame[: 1 + cut % (len(frame) - 1)])


@pytest.mark.parametrize("size", [2049, 100_000])
def test_more_than_2_kib_of_a_turn_is_refused(size: int) -> None:
    with pytest.raises(InvalidMessage):
        yjs.decode_v1(b"\x73" + encode_string("t1") + encode_string(" " * size))


@pytest.mark.parametrize("frame", [b"", b"\x00\x00\x01\x00", b"\x74", b"\x6f", b"\xff"])
def test_what_others_say_is_left_to_others(frame: bytes) -> None:
    assert yjs.decode_v1(frame) is None
