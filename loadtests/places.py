"""Anchors: whether they lead where those of Yjs lead, over many random edits; and what the order behind them costs."""

from __future__ import annotations

import gc
import sys
import tempfile
from pathlib import Path
from random import Random
from statistics import median
from time import process_time
from typing import TYPE_CHECKING, Any

import traces
from pycrdt import Doc, Text

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "document")]

from positions import Compared, compare, recorded  # noqa: E402  # found by the line above

from collab.document.anchor import Side  # noqa: E402  # likewise
from collab.document.order import Order  # noqa: E402  # likewise

if TYPE_CHECKING:
    from scenarios import Bench

EDITS = 100_000
SESSION = (
    10_000  # edits after which Yjs begins anew: it gets slow among what it has deleted
)
ASKED = 5_000
KEYSTROKES = 5_000
LEAST_ROUNDS = 5  # they take a second


def anchors(bench: Bench) -> None:
    """Anchors held against Yjs over 100,000 random edits in mixed scripts; what the order of a long text costs."""
    edits = SESSION if bench.is_quick else EDITS
    costs = _costs(bench.rounds)  # first: with few objects to be swept meanwhile
    compared, wrong = _against_yjs(edits)
    found = {
        "edits": [float(edits)],
        "places compared": [float(compared)],
        "mismatches": [float(wrong)],
        **costs,
    }
    bench.figures["anchors"] = {bench.ours.name: found}
    bench.aim("anchors", f"sessions of {SESSION:,} edits that differ", wrong, 0)
    for measure, bound, unit in (
        ("build ms", 60, " ms"),
        ("keystroke µs", 200, " µs"),
        ("anchor µs", 200, " µs"),
        ("resolve µs", 200, " µs"),
        ("spans ms", 50, " ms"),
    ):
        bench.aim("anchors", measure, median(found[measure]), bound, unit=unit)


def _against_yjs(edits: int) -> tuple[int, int]:
    """How many places were compared, and how many sessions differ; every second one cuts surrogate pairs."""
    places = wrong = 0
    with tempfile.TemporaryDirectory(prefix="collab-bench-") as folder:
        for seed in range(edits // SESSION):
            path = Path(folder) / "edits.jsonl"
            recorded(path, seed=100 + seed, edits=SESSION, cut=seed % 2 == 1)
            try:
                so_far = compare(path)
            except AssertionError:
                wrong, so_far = wrong + 1, Compared()
            places += so_far.made + so_far.found
    return places, wrong


def _costs(rounds: int) -> dict[str, list[float]]:
    """The order of the document that all edits end in, built from its snapshot; then asked, and typed into."""
    doc: Doc[Any] = Doc()
    doc.apply_update(traces.document().path.read_bytes())
    snapshot = doc.get_update()
    typed = _typing(doc)
    found: dict[str, list[float]] = {}
    for _ in range(max(rounds, LEAST_ROUNDS)):
        for measure, value in _once(snapshot, typed).items():
            found.setdefault(measure, []).append(value)
    return found


def _once(snapshot: bytes, typed: list[bytes]) -> dict[str, float]:
    chance = Random(1)
    gc.collect()
    begun = process_time()
    order = Order.of(snapshot)
    length = order.length(traces.ROOT)  # it counts when it is first asked
    built = process_time() - begun
    gc.collect()  # the whole process is swept now and then: that is not the price of whatever comes next
    places = [chance.randrange(length + 1) for _ in range(ASKED)]
    sides = chance.choices(list(Side), k=ASKED)
    begun = process_time()
    held = [order.anchor(traces.ROOT, *each) for each in zip(places, sides, strict=True)]  # fmt: skip
    anchoring = process_time() - begun
    begun = process_time()
    for anchor in held:
        order.resolve(anchor)
    resolving = process_time() - begun
    begun = process_time()
    order.spans(traces.ROOT)
    spanning = process_time() - begun
    begun = process_time()
    for update in typed:
        order.apply(update)
    typing = process_time() - begun
    return {
        "build ms": built * 1e3,
        "anchor µs": anchoring / ASKED * 1e6,
        "resolve µs": resolving / ASKED * 1e6,
        "spans ms": spanning * 1e3,
        "keystroke µs": typing / len(typed) * 1e6,
    }


def _typing(doc: Doc[Any]) -> list[bytes]:
    """Keystrokes in runs all over a text, some of them backspaces; its characters are taken for ASCII."""
    chance, updates = Random(2), list[bytes]()
    subscription = doc.observe(lambda event: updates.append(event.update))
    text = doc.get(traces.ROOT, type=Text)
    length = len(text)
    place = 0
    for _ in range(KEYSTROKES):
        if chance.random() < 0.03:
            place = chance.randint(0, length)
        if place and chance.random() < 0.1:
            place -= 1
            length -= 1
            del text[place : place + 1]
        else:
            text.insert(place, chance.choice("etaoin shrdlu"))
            place += 1
            length += 1
    doc.unobserve(subscription)
    return updates
