"""Updates taken in part by part give the document that the whole gives, here and in Yjs."""

from __future__ import annotations

from functools import reduce
from pathlib import Path

import pytest
from converging import Stream, deliver, end_of, shown_by_yjs
from pycrdt import Array, Doc, Text, merge_updates

from collab.protocol.division import divide
from collab.protocol.guard import Known, check
from collab.protocol.statevector import state_vector
from collab.protocol.structs import scan


def wholes(streams: list[Stream]) -> list[bytes]:
    """Each session as one update: all that its updates hold, or what is left of it in a document."""
    return [
        reduce(merge_updates, stream.updates)
        if stream.seed % 2
        else deliver(stream.updates)[0].get_update()
        for stream in streams
    ]


def structs(update: bytes) -> int:
    found = scan(update)
    return sum(run.last - run.first for run in found.runs) + len(found.deletes)


@pytest.mark.parametrize(("most", "bound"), [(1 << 20, 1), (1 << 20, 7), (160, 1000)])
def test_each_part_is_ready_and_all_of_them_are_the_whole(
    streams: list[Stream], most: int, bound: int
) -> None:
    wrong = []

    for stream, whole in zip(streams, wholes(streams), strict=True):
        parts = divide(whole, max_bytes=most, max_structs=bound, max_ranges=bound)
        doc: Doc = Doc()
        known = Known()
        for part in parts:
            ready = len(part) <= most and structs(part) <= bound
            ready &= check(part, known) is not None
            doc.apply_update(part)
            known.update(state_vector(doc.get_state()))
            if not ready:
                wrong.append(stream.seed)
        if end_of(doc) != end_of(deliver([whole])[0]):
            wrong.append(stream.seed)

    assert wrong == []


def test_yjs_shows_the_same_after_all_parts(
    streams: list[Stream], tmp_path: Path
) -> None:
    some = wholes(streams)[:80]

    shown = shown_by_yjs([[whole] for whole in some], tmp_path)
    in_parts = shown_by_yjs(
        [divide(whole, max_bytes=160, max_structs=5, max_ranges=5) for whole in some],
        tmp_path,
    )

    assert in_parts == shown


def test_long_texts_and_lists_are_cut_as_yjs_cuts_them(tmp_path: Path) -> None:
    """Between other people's characters, after a prefix that is there already, with pairs and with deletions."""
    first: Doc = Doc(client_id=1)
    text, array = first.get("text", type=Text), first.get("array", type=Array)
    text += "()"
    array.extend(["first", "last"])
    before = first.get_update()
    second: Doc = Doc(client_id=2)
    second.apply_update(before)
    theirs = second.get("text", type=Text)
    theirs.insert(1, "aé😀" * 700, {"bold": True})
    second.get("array", type=Array)[1:1] = [{"n": n, "s": "é" * 9} for n in range(300)]
    del theirs[491:911]  # bytes: between two characters
    more = second.get_update(first.get_state())
    whole = second.get_update()

    parts = divide(more, max_bytes=120)
    all_parts = divide(whole, max_bytes=120)
    for part in parts:
        first.apply_update(part)
    shown = shown_by_yjs([[whole], all_parts, [before, *parts]], tmp_path)

    assert len(parts) > 40
    assert max(map(len, parts + all_parts)) <= 120
    assert end_of(first) == end_of(second)
    assert shown[1] == shown[2] == shown[0]


def test_parts_are_right_where_all_of_a_text_is_one_struct(tmp_path: Path) -> None:
    doc: Doc = Doc(client_id=1)
    doc.get("text", type=Text).insert(0, "😀" * 5000)
    whole = doc.get_update()

    parts = divide(whole, max_bytes=1001)

    shown = shown_by_yjs([[whole], parts], tmp_path)
    assert len(parts) == 21
    assert shown[1] == shown[0]
