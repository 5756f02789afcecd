"""Random edits of Yjs users, and an order of ours beside them: the same texts, the same places."""

from __future__ import annotations

import json
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collab.document.anchor import Anchor, Id, Orphaned, Place, Root, Side
from collab.document.order import Order
from collab.errors import AnchorNotFound

HERE = Path(__file__).parent
PACKAGES = HERE.parents[1] / "client-js" / "node_modules"


@dataclass
class Compared:
    """How much was compared."""

    updates: int = 0
    texts: int = 0
    made: int = 0
    found: int = 0
    orphans: int = 0
    snapshots: int = 0


def recorded(path: Path, *, seed: int, edits: int, cut: bool = False) -> Path:
    """Have Yjs users edit; `cut`: also between the halves of surrogate pairs."""
    assert (PACKAGES / "yjs").is_dir(), "Yjs is missing: run npm ci in client-js"
    command = ["node", HERE / "positions.mjs", PACKAGES, str(seed), str(edits), path]
    subprocess.run([*command, *(["cut"] if cut else [])], check=True)
    return path


def root_of(named: Any) -> Root:
    return named if isinstance(named, str) else Id(**named)


def lead(order: Order, anchor: Anchor) -> Place | Orphaned | None:
    try:
        return order.resolve(anchor)
    except AnchorNotFound:
        return None


def expected(leads: dict[str, Any]) -> Place | Orphaned:
    kind = Orphaned if leads["orphaned"] else Place
    return kind(root_of(leads["root"]), leads["index"])


def compare_places(order: Order, check: dict[str, Any], so_far: Compared) -> None:
    for named, text in check["texts"]:
        root = root_of(named)
        assert order.text(root) == text
        assert order.length(root) == len(text)
        so_far.texts += 1
    for named, length in check["lengths"]:
        assert order.length(root_of(named)) == length
    for each in check["made"]:
        encoded = b64decode(each["bytes"])
        root = root_of(each["root"])
        anchor = order.anchor(root, each["index"], Side(each["assoc"]))
        assert anchor.encode() == encoded
        assert anchor.to_json() == each["json"]
        assert order.resolve(anchor) == Place(root, each["index"])
        so_far.made += 1
    for each in check["found"]:
        anchor = Anchor.decode(b64decode(each["bytes"]))
        found, leads = lead(order, anchor), each["leads"]
        assert found == lead(order, Anchor.from_json(each["json"]))
        if leads is None:  # Yjs has thrown away what it was in; we may not have yet
            assert not isinstance(found, Place)
        else:
            assert found == expected(leads)
            so_far.orphans += leads["orphaned"]
        so_far.found += 1


def compare(path: Path) -> Compared:
    """Play what was recorded into an order. AssertionError where it is not as Yjs has it."""
    order, so_far = Order(), Compared()
    check: dict[str, Any] = {}
    for line in lines(path):
        if "update" in line:
            order.apply(b64decode(line["update"]))
            so_far.updates += 1
        elif "snapshot" in line:
            again = Order.of(b64decode(line["snapshot"]))
            assert again.vector() == order.vector()
            compare_places(again, check, Compared())
            so_far.snapshots += 1
        else:
            check = line
            compare_places(order, check, so_far)
    return so_far


def lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open() as file:
        for line in file:
            yield json.loads(line)
