"""Which updates and state vectors may come near native code, and what the guard learns of them."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pycrdt import Array, Doc, Map, Text

from collab.errors import InvalidMessage, Refused, TooLarge
from collab.protocol.guard import Known, check, reach
from collab.protocol.rewriting import encode
from collab.protocol.statevector import encode_state_vector, state_vector
from collab.protocol.structs import (
    MAX_CLIENT,
    MAX_CLOCK,
    MAX_NESTING,
    MAX_RANGES,
    MAX_STRUCTS,
    scan,
)
from collab.protocol.varint import encode_bytes, encode_string, encode_varint

NOTHING = b"\x00\x00"


def update(*sections: bytes, deletes: bytes = b"\x00") -> bytes:
    return encode_varint(len(sections)) + b"".join(sections) + deletes


def section(client: int, clock: int, *structs: bytes, count: int = -1) -> bytes:
    head = (len(structs) if count < 0 else count, client, clock)
    return b"".join(map(encode_varint, head)) + b"".join(structs)


def deletes(*ranges: tuple[int, int, int]) -> bytes:
    """One section for each range (client, clock, length)."""
    parts = [
        encode_varint(client) + b"\x01" + b"".join(map(encode_varint, (clock, length)))
        for client, clock, length in ranges
    ]
    return encode_varint(len(parts)) + b"".join(parts)


def at_root(kind: int, content: bytes, root: str = "t") -> bytes:
    return bytes((kind, 1)) + encode_string(root) + content


def inside(client: int, clock: int, kind: int, content: bytes) -> bytes:
    """A struct whose parent is named by its id."""
    return bytes((kind, 0)) + encode_varint(client) + encode_varint(clock) + content


def after(client: int, clock: int, kind: int = 4, content: bytes = b"\x01x") -> bytes:
    """A struct with a left neighbour."""
    return bytes((kind | 128,)) + encode_varint(client) + encode_varint(clock) + content


def before(client: int, clock: int) -> bytes:
    return b"\x44" + encode_varint(client) + encode_varint(clock) + b"\x01x"


def alone(*structs: bytes) -> bytes:
    """An update of one client that nobody knows yet."""
    return update(section(5, 0, *structs))


def value(encoded: bytes) -> bytes:
    return alone(at_root(8, b"\x01" + encoded))


def nested(opening: bytes, levels: int) -> bytes:
    return value(opening * levels + b"\x7e")


def embed(json: bytes) -> bytes:
    return alone(at_root(5, encode_bytes(json)))


LEGAL = {
    "nothing": NOTHING,
    "a text": alone(at_root(4, encode_string("hé😀"))),
    "text behind a text": alone(at_root(4, b"\x01a"), after(5, 0)),
    "text before a text": alone(at_root(4, b"\x01a"), before(5, 0)),
    "garbage": alone(b"\x00\x07"),
    "a hole": update(section(5, 0, b"\x0a\x07", after(5, 6))),
    "what was deleted": alone(at_root(1, b"\x03")),
    "bytes": alone(at_root(3, b"\x02ab")),
    "an embed": embed(b'{"a": [1, "]"]}'),
    "a format": alone(at_root(6, encode_string("bold") + encode_string("true"))),
    "every kind of value": value(
        b"\x75\x0b\x7f\x7e\x7d\x41\x7c\0\0\0\0\x7b" + bytes(8) + b"\x7a" + bytes(8)
        + b"\x79\x78\x77\x01a\x76\x01\x01k\x7e\x74\x01a"
    ),
    "an array in a map": alone(
        bytes((39, 1)) + encode_string("m") + encode_string("key") + b"\x00",
        inside(5, 0, 8, b"\x01\x7e"),
    ),
    "an element": alone(at_root(7, b"\x03" + encode_string("p"))),
    "a subdocument": alone(at_root(9, encode_string("guid") + b"\x76\x00")),
    "values as deep as allowed": nested(b"\x75\x01", MAX_NESTING),
    "json as deep as allowed": embed(b"[" * MAX_NESTING + b"]" * MAX_NESTING),
    "brackets in a string are no depth": embed(b'"' + b"[" * 100 + b'"'),
    "the largest client": update(section(MAX_CLIENT - 1, 0, at_root(4, b"\x01a"))),
    "client zero": update(section(0, 0, at_root(4, b"\x01a"))),
    "the longest root name": alone(at_root(4, b"\x01a", "n" * 256)),
    "odd root names": alone(at_root(4, b"\x01a", "__proto__"), at_root(4, b"\x01a", "\0")),
    "a deletion": update(deletes=deletes((5, 0, 3), (6, 1, 1))),
}  # fmt: skip

HOSTILE = {
    # S7
    "empty": (b"", "truncated"),
    "one byte": (b"\x00", "truncated"),
    "three zeros": (b"\x00\x00\x00", "trailing bytes"),
    # S8, S9, S10
    "2^28 clients": (b"\x80\x80\x80\x80\x01", "count"),
    "2^40 clients": (encode_varint(2**40) + b"\x00", "number"),
    "2^31 structs": (b"\x01" + encode_varint(2**31) + b"\x05\x00\x00", "count"),
    "2^40 structs": (b"\x01" + encode_varint(2**40) + b"\x05\x00\x00", "section"),
    "2^26 keys": (value(b"\x76" + encode_varint(2**26)), "count"),
    "an array of 2^40": (value(b"\x75" + encode_varint(2**40)), "number"),
    "2^26 values": (alone(at_root(8, encode_varint(2**26))), "count"),
    "2^28 deleted clients": (b"\x00\x80\x80\x80\x80\x01", "count"),
    "2^28 deleted ranges": (b"\x00\x01\x05\x80\x80\x80\x80\x01", "count"),
    # S11
    "arrays 65 deep": (nested(b"\x75\x01", 65), "nesting"),
    "arrays 30,000 deep": (nested(b"\x75\x01", 30_000), "nesting"),
    "objects 65 deep": (nested(b"\x76\x01\x01k", 65), "nesting"),
    "json 65 deep": (embed(b"[" * 65 + b"]" * 65), "nesting"),
    "json 30,000 deep": (embed(b'{"a":' * 30_000), "nesting"),
    # S13, S14, S15
    "garbage of 2^32 - 1": (alone(b"\x00" + encode_varint(2**32 - 1)), "clock"),
    "a hole of 2^31": (update(section(5, 0, b"\x0a" + encode_varint(2**31), after(5, 0))), "clock"),
    "deleted length of 2^31": (alone(at_root(1, encode_varint(2**31))), "clock"),
    "a clock over all": (update(section(5, MAX_CLOCK - 1, at_root(4, b"\x01a"))), "clock"),
    "a keystroke over all": (update(section(5, MAX_CLOCK - 1, after(5, 3))), "clock"),
    "a deletion past all": (update(deletes=deletes((5, MAX_CLOCK - 1, 1))), "deleted range"),
    "a deletion of nothing": (update(deletes=deletes((5, 1, 0))), "deleted range"),
    "a keystroke that deletes past all": (
        update(section(5, 1, after(5, 0)), deletes=deletes((5, MAX_CLOCK - 1, 1))), "deleted range"),
    "a keystroke that deletes nothing": (
        update(section(5, 1, after(5, 0)), deletes=deletes((5, 0, 0))), "deleted range"),
    "two deletions, one of nothing": (update(deletes=deletes((5, 1, 1), (6, 1, 0))), "deleted range"),
    "zero garbage": (alone(b"\x00\x00"), "empty struct"),
    "zero deleted": (alone(at_root(1, b"\x00")), "empty struct"),
    "zero values": (alone(at_root(8, b"\x00")), "empty struct"),
    "an empty text": (alone(at_root(4, b"\x00")), "empty struct"),
    "a section of nothing": (b"\x01\x00\x05\x00\x00", "empty section"),
    # S18
    "behind itself": (alone(after(5, 0)), "self reference"),
    "behind a later one": (update(section(5, 3, after(5, 4))), "self reference"),
    "before itself": (alone(before(5, 0)), "self reference"),
    "between itself": (alone(b"\xc4\x05\x00\x05\x00\x01x"), "self reference"),
    "in itself": (alone(inside(5, 0, 7, b"\x00")), "self reference"),
    "in a later one": (alone(inside(5, 9, 7, b"\x00")), "self reference"),
    # S20
    "a client of 2^53": (update(section(MAX_CLIENT, 0, at_root(4, b"\x01a"))), "client id"),
    "behind a client of 2^53": (alone(after(MAX_CLIENT, 0)), "client id"),
    "a client of nine bytes": (update(section(2**60, 0, at_root(4, b"\x01a"))), "section"),
    "a deleted client of 2^53": (update(deletes=deletes((MAX_CLIENT, 0, 1))), "client id"),
    "a client twice": (update(section(5, 0, at_root(4, b"\x01a")), section(5, 1, at_root(4, b"\x01a"))), "client twice"),
    # S22
    "a move": (alone(at_root(11, b"\x00\x05\x00")), "kind"),
    "an unknown kind": (alone(at_root(12, b"\x01")), "kind"),
    "kind 31": (alone(at_root(31, b"\x01")), "kind"),
    "old json": (alone(at_root(2, b"\x01" + encode_string("1"))), "kind"),
    "a weak link": (alone(at_root(7, b"\x07\x00")), "type"),
    "a hook": (alone(at_root(7, b"\x05" + encode_string("h"))), "type"),
    "type 300": (alone(at_root(7, encode_varint(300))), "type"),
    "garbage with a neighbour": (update(section(5, 1, b"\x80\x05\x00\x01")), "kind"),
    "garbage with a key": (alone(b"\x20\x01"), "empty struct"),
    "an unknown address": (alone(b"\x04\x02\x01t\x01a"), "parent"),
    # S23
    "json that is none": (embed(b"{{{"), "json"),
    "json cut short": (embed(b'{"a":'), "json"),
    "not a number": (embed(b"NaN"), "json"),
    "half a surrogate pair in json": (embed(b'"\\ud83d"'), "json"),
    "undefined": (embed(b"undefined"), "json"),
    "no json": (embed(b""), "json"),
    "a bad format": (alone(at_root(6, encode_string("bold") + encode_string("tru"))), "json"),
    "an unknown value": (value(b"\x60"), "value"),
    "a number of ten bytes": (value(b"\x7d" + b"\xff" * 9 + b"\x01"), "number"),
    # strings
    "no utf-8": (alone(at_root(4, b"\x02\xff\xff")), "utf-8"),
    "half a surrogate pair": (alone(at_root(4, b"\x03\xed\xa0\xbd")), "utf-8"),
    "a root name without utf-8": (alone(b"\x04\x01\x01\xff\x01a"), "utf-8"),
    "a value without utf-8": (value(b"\x77\x01\xff"), "utf-8"),
    # spelling
    "a padded clock": (b"\x01\x01\x05\x80\x00" + at_root(4, b"\x01a") + b"\x00", "section"),
    "a padded client": (b"\x01\x01\x85\x00\x00" + at_root(4, b"\x01a") + b"\x00", "section"),
    "a padded length": (alone(b"\x00\x81\x00"), "number"),
    # S21, as Yjs wrote them
    "version 2 of nothing": (bytes.fromhex("00000000000001000000000000"), "trailing bytes"),
    "version 2": (
        bytes.fromhex(
            "00000245010200040007040081008400270c0674686c6f6d6b41000241000101010001020104000105010101"
        ), "trailing bytes"),
}  # fmt: skip

TOO_LARGE = {
    "a root name of 257 bytes": (alone(at_root(4, b"\x01a", "n" * 257)), "root name"),
    "a root name of 1 MB": (alone(at_root(4, b"\x01a", "n" * 10**6)), "root name"),
    "a key of 1 MB": (
        alone(b"\x28\x01\x01m" + encode_string("k" * 10**6) + b"\x01\x7e"),
        "name",
    ),
    "a format of 1 MB": (
        alone(at_root(6, encode_string("k" * 10**6) + b"\x01" + b"1")),
        "name",
    ),
    "a tag of 1 MB": (alone(at_root(7, b"\x03" + encode_string("k" * 10**6))), "name"),
    "1 M deleted ranges": (
        b"\x00\x01\x05" + encode_varint(10**6) + b"\x01\x01" * 10**6,
        "deleted ranges",
    ),
    "1 M structs": (
        update(section(5, 0, b"\x00\x01" * 10**6, count=10**6)),
        "structs",
    ),
}


@pytest.mark.parametrize("legal", LEGAL.values(), ids=LEGAL.keys())
def test_what_is_legal_passes_and_native_code_takes_it(legal: bytes) -> None:
    doc: Doc[object] = Doc()

    found = scan(legal)
    doc.apply_update(legal)

    if all(run.clock == 0 for run in found.runs):
        reached = {run.client: run.end for run in found.runs}
        assert state_vector(doc.get_state()) == reached


@pytest.mark.parametrize(("hostile", "rule"), HOSTILE.values(), ids=HOSTILE.keys())
def test_what_breaks_a_rule_is_refused(hostile: bytes, rule: str) -> None:
    with pytest.raises(Refused) as caught:
        check(hostile, Known({5: 1 << 30, 6: 9}))

    assert not isinstance(caught.value, TooLarge)
    assert caught.value.rule == rule


@pytest.mark.parametrize(("huge", "rule"), TOO_LARGE.values(), ids=TOO_LARGE.keys())
def test_what_is_over_a_limit_is_too_large(huge: bytes, rule: str) -> None:
    with pytest.raises(TooLarge) as caught:
        check(huge, Known())

    assert caught.value.rule == rule


@pytest.mark.parametrize("legal", LEGAL.values(), ids=LEGAL.keys())
def test_an_update_cut_anywhere_is_refused(legal: bytes) -> None:
    for end in range(len(legal)):
        with pytest.raises(Refused):
            scan(legal[:end])


@pytest.mark.parametrize("legal", LEGAL.values(), ids=LEGAL.keys())
def test_an_update_with_more_behind_it_is_refused(legal: bytes) -> None:
    with pytest.raises(Refused):
        scan(legal + b"\x00")


def test_the_counts_at_the_limits_pass() -> None:
    structs = update(section(5, 0, b"\x00\x01" * MAX_STRUCTS, count=MAX_STRUCTS))
    ranges = b"\x00\x01\x05" + encode_varint(MAX_RANGES) + b"\x01\x01" * MAX_RANGES

    assert scan(structs).runs[0].end == MAX_STRUCTS
    assert len(scan(ranges).deletes) == MAX_RANGES


@given(st.binary(max_size=60))
@example(b"\x01\x01\x05\x00\x04\x01\x01t\xff")
def test_random_bytes_raise_nothing_but_invalid_message(noise: bytes) -> None:
    for read in (lambda: check(noise, Known({5: 3})), lambda: state_vector(noise)):
        try:
            read()
        except InvalidMessage:
            pass


@given(st.data())
def test_a_damaged_update_raises_nothing_but_invalid_message(
    data: st.DataObject,
) -> None:
    damaged = bytearray(data.draw(st.sampled_from(list(LEGAL.values()))))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))

    try:
        check(bytes(damaged), Known({5: 3}))
    except InvalidMessage:
        pass


# What an update brings


def test_nothing_brings_nothing() -> None:
    assert check(NOTHING, Known()) == []


def test_a_clock_counts_utf_16() -> None:
    [run] = scan(alone(at_root(4, encode_string("aé語😀")))).runs

    assert run[:3] == (5, 0, 5)


def test_a_hole_makes_two_runs() -> None:
    found = scan(
        update(
            section(
                5,
                0,
                at_root(4, b"\x02ab"),
                b"\x0a\x03",
                after(5, 1),
                after(5, 5),
            )
        )
    )

    assert [run[:3] for run in found.runs] == [(5, 0, 2), (5, 5, 7)]
    assert [(run.first, run.last) for run in found.runs] == [(0, 1), (2, 4)]


def test_a_hole_at_the_end_brings_nothing() -> None:
    assert scan(alone(b"\x0a\x03")).runs == []


def test_references_to_others_and_deletions_are_found() -> None:
    found = scan(
        update(
            section(5, 0, b"\xc4\x06\x02\x07\x03\x01x", inside(8, 1, 4, b"\x01x")),
            deletes=deletes((6, 1, 2)),
        )
    )

    assert [need[4:] for need in found.needs] == [(6, 3), (7, 4), (8, 2)]
    assert found.deletes == [(6, 1, 3)]
    assert not found.is_plain


def test_runs_written_again_are_the_same_update() -> None:
    whole = update(
        section(5, 2, after(6, 0), b"\x0a\x03", after(5, 5)),
        section(6, 0, at_root(4, b"\x01a")),
        deletes=deletes((5, 0, 1), (7, 3, 2)),
    )
    found = scan(whole)

    assert encode(whole, found.runs, found.deletes) == whole


# Whether it can be integrated now


@pytest.mark.parametrize(
    ("what", "ready"),
    [
        (update(section(5, 3, after(5, 2))), True),
        (update(section(5, 2, after(5, 1))), True),  # known in part
        (update(section(5, 4, after(5, 3))), False),
        (update(section(5, 3, after(6, 8))), True),
        (update(section(5, 3, after(6, 9))), False),
        (update(section(5, 3, b"\xc4\x05\x02\x06\x08\x01x")), True),
        (update(section(5, 3, b"\xc4\x05\x02\x06\x09\x01x")), False),
        (update(section(5, 3, b"\xc4\x06\x08\x05\x02\x01x")), True),
        (update(section(5, 3, after(5, 2, content=b"\x05hello"))), True),
        (update(section(5, 4, after(5, 2, content=b"\x05hello"))), False),
        (update(section(5, 3, after(6, 9, content=b"\x05hello"))), False),
        (update(section(5, 3, inside(6, 9, 4, b"\x01a"))), False),
        (update(section(5, 3, after(5, 2)), deletes=deletes((5, 3, 1))), True),
        (update(section(5, 3, after(5, 2)), deletes=deletes((5, 3, 2))), False),
        (update(section(5, 3, after(5, 2)), deletes=deletes((6, 8, 1))), True),
        (update(section(5, 3, after(5, 2)), deletes=deletes((6, 8, 2))), False),
        (update(deletes=deletes((6, 0, 9))), True),
        (update(deletes=deletes((6, 0, 10))), False),
        (update(deletes=deletes((6, 0, 9), (5, 0, 3))), True),
        (update(deletes=deletes((6, 0, 9), (5, 0, 4))), False),
        (update(section(7, 0, at_root(4, b"\x01a"))), True),
        (update(section(7, 0, after(5, 2)), section(8, 0, after(7, 0))), True),
        (update(section(8, 0, after(7, 0)), section(7, 0, after(5, 2))), True),
        (update(section(8, 0, after(7, 1)), section(7, 0, after(5, 2))), False),
        (update(section(8, 0, after(7, 0)), section(7, 0, after(8, 0))), False),
        (update(section(7, 0, b"\x0a\x02", after(7, 1))), False),
        (update(section(5, 0, b"\x0a\x03", after(5, 2))), True),
    ],
)
def test_an_update_is_ready_when_all_it_refers_to_is_known(
    what: bytes, ready: bool
) -> None:
    runs = check(what, Known({5: 3, 6: 9}))

    assert (runs is not None) == ready
    assert runs is None or runs == [run[:3] for run in scan(what).runs]


def test_clients_that_wait_for_each_other_get_as_far_as_they_can() -> None:
    known = {9: 1}
    found = scan(
        update(
            section(5, 0, after(9, 0), after(6, 0), after(6, 2)),
            section(6, 0, after(5, 0), after(5, 1), after(5, 2)),
        )
    )

    reached = reach(found, known)

    assert [(at, stop and stop[4:]) for at, stop in reached] == [(2, (6, 3)), (2, (5, 3))]  # fmt: skip


# Reads askew: what the guard proves must be what native code reads

CONTENTS = {
    "deleted": (1, b"\x03"),
    "old json": (2, b"\x01" + encode_string("1")),
    "bytes": (3, b"\x03abc"),
    "text": (4, encode_string("a😀é")),
    "embed": (5, encode_string('{"a":[1]}')),
    "format": (6, encode_string("b") + encode_string("true")),
    "two values": (8, b"\x02\x7d\x41\x77\x01x"),
    "subdocument": (9, encode_string("guid") + b"\x76\x00"),
    "move": (11, b"\x00\x05\x00"),
    **{f"type {kind}": (7, bytes((kind,))) for kind in range(9)},
    **{f"type {kind} named": (7, bytes((kind,)) + b"\x01p") for kind in range(9)},
    **{
        f"value {tag} and {rest.hex()}": (8, bytes((1, tag)) + rest)
        for tag in range(112, 128)
        for rest in (b"", b"\x00", b"\x01\x00", b"\x40", bytes(4), bytes(8))
    },
}
ADDRESSES = {
    "at a root": lambda kind: bytes((kind, 1)) + b"\x01t",
    "at a root by key": lambda kind: bytes((kind | 32, 1)) + b"\x01t\x01k",
    "inside": lambda kind: bytes((kind, 0)) + b"\x05\x00",
    "inside by key": lambda kind: bytes((kind | 32, 0)) + b"\x05\x00\x01k",
    "behind": lambda kind: bytes((kind | 128,)) + b"\x05\x00",
    "behind with a key's mark": lambda kind: bytes((kind | 160,)) + b"\x05\x00",
    "before": lambda kind: bytes((kind | 64,)) + b"\x05\x00",
    "between": lambda kind: bytes((kind | 192,)) + b"\x05\x00\x05\x00",
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS.keys())
def test_native_code_reads_what_the_guard_read(content: tuple[int, bytes]) -> None:
    """A kind that the two read differently would carry unproven bytes past the guard."""
    kind, body = content
    for address in ADDRESSES.values():
        struct = address(kind) + body
        sentinel = at_root(4, b"\x02zz", "end")
        whole = alone(at_root(7, b"\x00", "a"), struct, sentinel)
        doc: Doc[object] = Doc()

        try:
            [run] = scan(whole).runs
        except Refused:
            continue
        doc.apply_update(whole)

        assert state_vector(doc.get_state()) == {5: run.end}
        assert str(doc.get("end", type=Text)) == "zz"


def test_old_json_and_hooks_are_read_askew_by_native_code() -> None:
    """Why they are refused; when this fails, yrs reads them right and they may be let in."""
    one_text_too_many = alone(at_root(2, b"\x01" + encode_string("1") * 2))
    hook_without_a_name = alone(at_root(7, b"\x05"), at_root(4, b"\x01a", "end"))

    for askew in (one_text_too_many, hook_without_a_name):
        doc: Doc[object] = Doc()
        doc.apply_update(askew)

        assert state_vector(doc.get_state()) == {5: 2}


# State vectors


def test_equal_vectors_have_equal_bytes() -> None:
    entries = [(7, 1), (MAX_CLIENT - 1, 5), (300, 2**31 - 1), (0, 3)]

    encoded = {encode_state_vector(dict(order)) for order in permutations(entries)}

    assert len(encoded) == 1
    assert state_vector(encoded.pop()) == dict(entries)


@given(
    st.dictionaries(
        st.integers(0, MAX_CLIENT - 1), st.integers(1, MAX_CLOCK - 1), max_size=200
    )
)
def test_a_vector_comes_back(vector: dict[int, int]) -> None:
    assert state_vector(encode_state_vector(vector)) == vector


def test_a_client_never_heard_of_is_left_out() -> None:
    assert encode_state_vector({5: 0}) == b"\x00"


def test_native_code_and_the_guard_read_the_same_vector() -> None:
    doc: Doc[object] = Doc(client_id=77)
    doc.get("t", type=Text).insert(0, "é😀")

    assert state_vector(doc.get_state()) == {77: 3}
    assert doc.get_update(encode_state_vector({77: 3})) == NOTHING


@pytest.mark.parametrize(
    ("hostile", "rule"),
    [
        (b"", "truncated"),
        (b"\x80", "truncated"),
        (b"\x01", "count"),
        (b"\x01\x05", "state vector"),
        (encode_varint(2**40) + b"\x05\x01", "number"),
        (b"\x80\x80\x80\x80\x01\x05\x01", "count"),
        (b"\x02\x05\x01\x05\x02", "client twice"),
        (b"\x01\x05" + encode_varint(2**53), "state vector"),
        (b"\x01\x05" + encode_varint(2**31), "clock"),
        (b"\x01" + encode_varint(2**53) + b"\x01", "client id"),
        (b"\x01\x05\x01\x00", "trailing bytes"),
        (b"\x01\x05\x81\x00", "state vector"),
        (b"\x80\x00", "number"),
    ],
)
def test_a_bad_state_vector_is_refused(hostile: bytes, rule: str) -> None:
    with pytest.raises(Refused) as caught:
        state_vector(hostile)

    assert caught.value.rule == rule


# Nested shared types


def made_by(edit: object) -> list[bytes]:
    """The updates of one author's edits."""
    doc: Doc[object] = Doc(client_id=7)
    updates: list[bytes] = []
    subscription = doc.observe(lambda event: updates.append(event.update))
    edit(doc)  # type: ignore[operator]
    doc.unobserve(subscription)
    return updates


def take(update: bytes, known: Known) -> None:
    for client, _, end in check(update, known) or ():
        known[client] = end


def test_types_nested_too_deep_are_too_large_whether_sent_at_once_or_one_by_one() -> (
    None
):
    def dig(doc: Doc[object]) -> None:
        hole: Array = doc.get("a", type=Array)
        for _ in range(131):
            hole.append(Array())
            hole = hole[0]

    updates = made_by(dig)
    known = Known()

    for each in updates[:129]:
        take(each, known)

    with pytest.raises(TooLarge) as caught:
        take(updates[129], known)
    assert caught.value.rule == "type nesting"
    doc: Doc[object] = Doc()
    for each in updates:
        doc.apply_update(each)
    with pytest.raises(TooLarge):
        check(doc.get_update(), Known())


def test_a_keystroke_lies_as_deep_as_its_neighbour() -> None:
    def write(doc: Doc[object]) -> None:
        text = Text()
        doc.get("m", type=Map)["text"] = text
        text += "a"
        text += "b"

    known = Known()
    for each in made_by(write):
        take(each, known)

    assert [known.depths.at(7, clock) for clock in range(3)] == [0, 1, 1]


def test_a_flat_document_has_no_depths() -> None:
    def write(doc: Doc[object]) -> None:
        doc.get("t", type=Text).insert(0, "hello")
        doc.get("m", type=Map)["a"] = Array()

    known = Known()
    for each in made_by(write):
        take(each, known)

    assert known == {7: 6}
    assert not known.depths


# Surrogate pairs


def emoji_at(client: int, clock: int) -> bytes:
    return update(section(client, clock, at_root(4, encode_string("a😀b"))))


@pytest.mark.parametrize(
    "cutting",
    [
        update(section(6, 0, after(5, 1))),
        update(section(6, 0, before(5, 2))),
        update(section(6, 0, b"\xc4\x05\x00\x05\x02\x01x")),
        update(section(6, 0, after(5, 1, content=b"\x05hello"))),
        update(deletes=deletes((5, 0, 2))),
        update(deletes=deletes((5, 2, 1))),
        update(deletes=deletes((5, 0, 1), (5, 2, 1))),
        update(section(6, 0, after(5, 3)), deletes=deletes((5, 2, 1))),
        update(section(6, 0, at_root(4, encode_string("😀")), after(6, 0))),
        update(
            section(6, 0, at_root(4, encode_string("😀"))), deletes=deletes((6, 1, 1))
        ),
    ],
)
def test_an_update_that_cuts_a_surrogate_pair_is_left_to_the_gate(
    cutting: bytes,
) -> None:
    known = Known()
    take(emoji_at(5, 0), known)

    assert check(cutting, known) is None


@pytest.mark.parametrize(
    "around",
    [
        update(section(6, 0, after(5, 0))),
        update(section(6, 0, after(5, 2))),
        update(section(6, 0, b"\xc4\x05\x00\x05\x01\x01x")),
        update(section(6, 0, after(5, 0), after(5, 2))),
        update(deletes=deletes((5, 1, 2))),
        update(deletes=deletes((5, 0, 4), (5, 3, 1))),
        update(section(6, 0, after(5, 3)), deletes=deletes((5, 1, 2))),
        emoji_at(5, 0),
    ],
)
def test_an_update_around_a_surrogate_pair_is_ready(around: bytes) -> None:
    known = Known()
    take(emoji_at(5, 0), known)

    assert check(around, known) is not None


def test_pairs_of_an_update_that_was_not_applied_are_forgotten() -> None:
    known = Known()
    take(emoji_at(5, 0), known)
    for client in range(10, 99):
        check(emoji_at(client, 0), known)

    known.settle()

    assert list(known.pairs) == [5]
    assert list(known.pairs[5]) == [2]
