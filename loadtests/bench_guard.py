"""What guard and gate cost per update, beside native code's own work.

    python loadtests/bench_guard.py [--rounds 5] [--json FILE]

CPU time per update: pieces of 200 updates are timed, and of each piece the median over the rounds counts, so that what
else the machine does at times counts little. `best` is the same with the quickest of each piece. The traces are those
of `../shared/data` when they are there, else generated ones.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from statistics import median
from time import process_time
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "fuzz")]

from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText  # noqa: E402
from valid import Stream, traces  # noqa: E402

from collab.document.gate import Gate  # noqa: E402
from collab.protocol.guard import check  # noqa: E402
from collab.protocol.statevector import state_vector  # noqa: E402
from collab.protocol.structs import scan  # noqa: E402

TARGET = 1.5  # µs for a keystroke of either trace
PIECE = 200
BOUNDS = {"max_bytes": 1 << 30, "max_updates": 1 << 30}


def guarded(updates: Stream) -> list[float]:
    """Guard and gate, as a document calls them: the time of each piece."""
    gate = Gate(**BOUNDS)
    known, advance = gate.known, gate.advance
    times = []
    for piece in pieces(updates):
        began = process_time()
        for update in piece:
            runs = check(update, known)
            if runs is None:
                gate.admit(update)
            else:
                advance(runs)
        times.append(process_time() - began)
    return times


def applied(updates: Stream) -> list[float]:
    """Native code: the time of each piece."""
    apply = Doc().apply_update
    times = []
    for piece in pieces(updates):
        began = process_time()
        for update in piece:
            apply(update)
        times.append(process_time() - began)
    return times


def pieces(updates: Stream) -> list[Stream]:
    return [updates[start : start + PIECE] for start in range(0, len(updates), PIECE)]


def per_update(
    run: Callable[[Stream], list[float]], updates: Stream, rounds: int
) -> tuple[float, float]:
    """Microseconds, median and best."""
    times = list(zip(*(run(updates) for _ in range(rounds)), strict=True))
    median_, best = (
        round(sum(map(choose, times)) / len(updates) * 1e6, 2)
        for choose in (median, min)
    )
    return median_, best


def made_by(edit: Callable[[Doc[Any]], None]) -> Stream:
    doc: Doc[Any] = Doc(client_id=0x9E3779B1)
    updates: Stream = []
    subscription = doc.observe(lambda event: updates.append(event.update))
    edit(doc)
    doc.unobserve(subscription)
    return updates


def paragraphs(doc: Doc[Any]) -> None:
    """Typing as a rich-text editor does: in a text inside an element inside the root."""
    chance = Random(1)
    body = doc.get("body", type=XmlFragment)
    for _ in range(50):
        body.children.append(XmlElement("paragraph", {}, [XmlText("")]))
        text = body.children[chance.randrange(len(body.children))].children[0]
        for _ in range(60):
            text.insert(chance.randrange(len(str(text)) + 1), "x")


def cells(doc: Doc[Any]) -> None:
    """Values set in maps inside an array."""
    rows: Array[Map[Any]] = doc.get("rows", type=Array)
    for index in range(40):
        rows.append(Map())
        for column in range(25):
            rows[index][f"column {column}"] = column


def entries(doc: Doc[Any]) -> None:
    """Values set in a map that is a root."""
    root = doc.get("map", type=Map)
    for index in range(3000):
        root[f"key {index % 40}"] = f"value {index}"


def emoji(doc: Doc[Any]) -> None:
    """Typing in a text that begins with a character outside the basic plane."""
    text = doc.get("text", type=Text)
    text += "😀"
    for _ in range(3000):
        text += "x"


def pasted(length: int) -> Callable[[Doc[Any]], None]:
    def edit(doc: Doc[Any]) -> None:
        text = doc.get("text", type=Text)
        for _ in range(max(20, 300_000 // length)):
            text += "x" * length

    return edit


def rows(rounds: int, folder: Path) -> Iterator[dict[str, Any]]:
    for name, stream in traces(folder):
        updates = stream[:60_000]
        yield row(f"keystroke of {name}", updates, rounds, TARGET)
        if name == "friendsforever":
            shuffled = list(updates)
            Random(1).shuffle(shuffled)
            yield row(f"the same, all out of order ({name})", shuffled, rounds)
    for what, edit in {
        "keystroke in nested rich text": paragraphs,
        "keystroke in a text with an emoji": emoji,
        "entry of a root map": entries,
        "entry of a nested map": cells,
        "insertion of 64 characters": pasted(64),
        "insertion of 1,024 characters": pasted(1024),
        "insertion of 16,384 characters": pasted(16384),
    }.items():
        yield row(what, made_by(edit), rounds)


def row(
    what: str, updates: Stream, rounds: int, target: float | None = None
) -> dict[str, Any]:
    ours, best = per_update(guarded, updates, rounds)
    native, _ = per_update(applied, updates, rounds)
    size = sum(map(len, updates)) / len(updates)
    return {
        "what": what,
        "updates": len(updates),
        "bytes": round(size, 1),
        "guard_and_gate_us": ours,
        "best_us": best,
        "apply_us": native,
        "ratio": round(ours / native, 2),
        "target_us": target,
        "reached": None if target is None else ours <= target,
    }


def document(rounds: int, folder: Path) -> dict[str, Any]:
    """A whole document as one update: read by the guard, applied, and looked through when a room is loaded."""
    *_, (name, stream) = traces(folder)
    doc: Doc[Any] = Doc()
    for update in stream:
        doc.apply_update(update)
    snapshot, vector = doc.get_update(), state_vector(doc.get_state())
    gate = Gate(max_bytes=0)
    calls: dict[str, Callable[[], object]] = {
        "guard_ms": lambda: scan(snapshot),
        "apply_ms": lambda: Doc().apply_update(snapshot),
        "load_gate_ms": lambda: gate.load(snapshot, vector),
    }
    times = {}
    for key, call in calls.items():
        taken = []
        for _ in range(rounds):
            began = process_time()
            call()
            taken.append(process_time() - began)
        times[key] = round(median(taken) * 1e3, 2)
    return {"what": f"document of {name}", "bytes": len(snapshot), **times}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    say(f"{'update':<46}{'count':>7}{'bytes':>9}{'guard+gate µs':>15}{'best':>7}{'apply µs':>10}{'ratio':>7}")  # fmt: skip
    measured = []
    with tempfile.TemporaryDirectory() as folder:
        for line in rows(options.rounds, Path(folder)):
            measured.append(line)
            mark = {None: "", True: "  reached", False: "  MISSED"}[line["reached"]]
            say(f"{line['what']:<46}{line['updates']:>7}{line['bytes']:>9}{line['guard_and_gate_us']:>15}{line['best_us']:>7}{line['apply_us']:>10}{line['ratio']:>7}{mark}")  # fmt: skip
        whole = document(options.rounds, Path(folder))
    say(f"{whole['what']}, {whole['bytes']} bytes: guard {whole['guard_ms']} ms, apply {whole['apply_ms']} ms, gate at load {whole['load_gate_ms']} ms")  # fmt: skip
    if options.json:
        report = {"target_us": TARGET, "updates": measured, "document": whole}
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if all(line["reached"] is not False for line in measured) else 1


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
