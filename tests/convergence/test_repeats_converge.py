"""Whatever comes once more, in whatever form, is taken for a repeat; what a copied client writes never is."""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from random import Random

import pytest
from converging import Stream, load, record, shuffled
from pycrdt import Doc, Text, merge_updates

from collab.document.document import Document
from collab.errors import ClientIdConflict


def again(stream: Stream) -> int:
    """How much of a session is refused, where each update comes twice in disorder, once more, and within others."""
    document = Document(binding="off")
    for update in shuffled(stream.updates, stream.seed, repeated=True):
        document.apply(update, "ada")
    doc: Doc = Doc()
    for update in document.snapshot(), *document.gate.waiting():
        doc.apply_update(update)
    merged = [
        reduce(merge_updates, stream.updates[start : start + 9])
        for start in range(0, len(stream.updates), 5)
    ]
    wholes = [doc.get_update(), document.snapshot()]
    for number, update in enumerate([*stream.updates, *merged, *wholes]):
        document.apply(update, "bob", precise=number % 2 == 1)
    return document.copies


def test_no_repeat_is_taken_for_a_copy(streams: list[Stream]) -> None:
    assert sum(len(stream.updates) for stream in streams) > 15_000
    assert [stream.seed for stream in streams if again(stream)] == []


def test_no_repeat_that_cuts_a_character_is_taken_for_a_copy(tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl"
    record(path, first_seed=1000, streams=40, cut=True)

    assert [stream.seed for stream in load(path) if again(stream)] == []


@pytest.mark.parametrize("seed", range(20))
def test_a_copy_that_types_on_is_always_refused(seed: int) -> None:
    chance, document = Random(seed), Document()
    one, copy = Doc(client_id=seed + 1), Doc(client_id=seed + 1)
    refused = False
    for words in ("ab", "cde", "fg"):
        for doc, whose in ((one, words), (copy, words.upper())):
            text = doc.get("text", type=Text)
            before = doc.get_state()
            for letter in whose:
                text.insert(chance.randrange(len(str(text)) + 1), letter)
            update = doc.get_update(before)
            try:
                document.apply(update, "ada")
            except ClientIdConflict:
                refused = True
                assert doc is copy

    assert refused
    assert document.copies == 3
    assert document.snapshot() == one.get_update()
