"""The guard and the gate before a document of a program."""

from __future__ import annotations

from typing import Any

import pytest
from members import text
from pycrdt import Doc, Map, Text

from collab.errors import CollabError
from collab.sdk.mirror import REMOTE, Mirror, merged

# Arrays in arrays: native code reads them by recursion.
DEEP = b"\x01\x01\x01\x00\x28\x01\x01a\x01k\x01" + b"\x75\x01" * 5000 + b"\x7f\x00"


def mirrored(doc: Doc[Any] | None = None) -> tuple[Mirror, list[bytes]]:
    changes: list[bytes] = []
    return Mirror(doc if doc is not None else Doc(), changes.append), changes


def updates_of(*pieces: str) -> tuple[Doc[Any], list[bytes]]:
    doc: Doc[Any] = Doc()
    updates: list[bytes] = []
    doc.observe(lambda event: updates.append(event.update))
    for piece in pieces:
        text(doc).insert(len(str(text(doc)).encode()), piece)
    return doc, updates


def test_local_changes_are_told_and_remote_ones_are_not() -> None:
    mirror, changes = mirrored()
    _, updates = updates_of("remote")

    mirror.apply(updates[-1])
    text(mirror.doc).insert(0, "local ")

    assert len(changes) == 1
    other: Doc[Any] = Doc()
    other.apply_update(updates[-1])
    other.apply_update(changes[0])
    assert str(text(other)) == "local remote"


def test_a_remote_change_has_an_origin_of_its_own() -> None:
    mirror, _ = mirrored()
    origins: list[Any] = []
    shared = text(mirror.doc)
    shared.observe(lambda event, transaction: origins.append(transaction.origin))
    _, updates = updates_of("remote")

    mirror.apply(updates[-1])
    shared.insert(0, "local")

    assert origins == [REMOTE, None]


def test_what_comes_too_early_waits() -> None:
    mirror, _ = mirrored()
    _, updates = updates_of("a", "b", "c")

    for update in reversed(updates):
        mirror.apply(update)

    assert str(text(mirror.doc)) == "abc"


def test_the_gate_knows_of_local_changes() -> None:
    mirror, changes = mirrored()
    text(mirror.doc).insert(0, "mine 😀")
    text(mirror.doc).insert(0, "before ")
    other: Doc[Any] = Doc()
    for change in changes:
        other.apply_update(change)
    answers: list[bytes] = []
    other.observe(lambda event: answers.append(event.update))

    text(other).insert(len(str(text(other)).encode()), "!")
    mirror.apply(answers[0])

    assert str(text(mirror.doc)) == "before mine 😀!"


def test_a_local_change_unblocks_what_waits_for_it() -> None:
    source, updates = updates_of("a", "b")
    mirror, _ = mirrored()
    mirror.apply(updates[1])

    mirror.doc.apply_update(updates[0])  # by another way than the server
    text(source).insert(2, "c")
    mirror.apply(updates[2])

    assert str(text(mirror.doc)) == "abc"


def test_a_document_with_content_of_its_own_goes_on() -> None:
    source, updates = updates_of("a", "😀", "b")
    doc: Doc[Any] = Doc()
    doc.apply_update(source.get_update())
    mirror, _ = mirrored(doc)

    text(source).insert(1, "x")
    mirror.apply(updates[-1])

    assert str(text(doc)) == "ax😀b"


@pytest.mark.parametrize(
    "update",
    [
        b"",
        b"\x00",
        b"\xff" * 40,
        b"\x01\x01\x01\x00\xff",
        b"\x01\xff\xff\xff\xff\x0f\x01\x00",
        b"\x00\x00\x00",
        DEEP,
    ],
)
def test_hostile_bytes_are_refused_before_native_code_sees_them(update: bytes) -> None:
    mirror, _ = mirrored()
    text(mirror.doc).insert(0, "whole")

    with pytest.raises(CollabError):
        mirror.apply(update)

    assert str(text(mirror.doc)) == "whole"


@pytest.mark.parametrize("vector", [b"", b"\x01", b"\xff\xff\xff\xff\xff", b"\x00\x00"])
def test_hostile_state_vectors_are_refused(vector: bytes) -> None:
    mirror, _ = mirrored()

    with pytest.raises(CollabError):
        mirror.diff(vector)


def test_a_remote_change_inside_a_transaction_of_the_program_joins_it() -> None:
    mirror, changes = mirrored()
    _, updates = updates_of("remote")

    with mirror.doc.transaction(origin="mine"):
        text(mirror.doc).insert(0, "local ")
        mirror.apply(updates[-1])

    assert str(text(mirror.doc)) in ("local remote", "remotelocal ")
    assert changes


def test_a_closed_mirror_tells_nothing() -> None:
    mirror, changes = mirrored()

    mirror.close()
    text(mirror.doc).insert(0, "alone")

    assert changes == []


def test_several_updates_become_one() -> None:
    source, updates = updates_of("a", "b", "😀")
    source.get("map", type=Map)["key"] = Text("value")

    other: Doc[Any] = Doc()
    other.apply_update(merged(updates))

    assert other.get_state() == source.get_state()
    assert merged(updates[:1]) == updates[0]
