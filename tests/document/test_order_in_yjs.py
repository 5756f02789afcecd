"""The order of characters and anchors into it, beside Yjs: the same texts, the same places, after random edits."""

from __future__ import annotations

from pathlib import Path

import pytest
from positions import compare, recorded

EDITS = 6000  # `make bench ARGS="anchors"` makes 100,000


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut"])
def test_texts_and_places_are_those_of_yjs(tmp_path: Path, cut: bool) -> None:
    path = recorded(tmp_path / "edits.jsonl", seed=1 + cut, edits=EDITS, cut=cut)

    compared = compare(path)

    assert compared.made == EDITS // 100 * 20
    assert compared.found > EDITS // 2
    assert compared.orphans > EDITS // 20
    assert compared.snapshots == EDITS // 2000
