"""Fuzz the guard and the gate in front of native code.

    python tests/fuzz/run.py [--mutants 200000] [--seed N] [--processes 2] [--json FILE]
    python tests/fuzz/run.py --replay SEED:NUMBER

First every valid update goes through: the keystrokes of two editing traces and the sessions of Yjs users. None may be
refused. Then mutants of them go through, in child processes with limits: no panic, no death, no silence, and the gate
knows exactly what the document knows. A failure names its seed and its mutant; --replay shows that mutant's bytes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]

from harness import Job, fuzz, mutant  # noqa: E402
from subject import Subject  # noqa: E402
from valid import Stream, excerpts, traces, write, yjs_streams  # noqa: E402

STREAMS = 400
JOB = 5000  # mutants


def main() -> int:
    options = parsed()
    with tempfile.TemporaryDirectory() as folder:
        if options.replay:
            seed, _, number = options.replay.partition(":")
            corpus = write_corpus(Path(folder), 8000)[0]
            say(json.dumps(mutant(Job(int(seed), JOB), int(number), corpus), indent=2))
            return 0
        report = everything(options, Path(folder))
    say(json.dumps(report, indent=2))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 1 if report["failures"] or report["valid"]["refused"] else 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--replay", metavar="SEED:NUMBER")
    return parser.parse_args()


def everything(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    started = time.monotonic()
    corpus, valid = write_corpus(folder)
    say(f"valid updates: {valid['updates']}, of them refused: {valid['refused']}")
    outcomes: Counter[str] = Counter()
    failures = []
    results = fuzz(
        corpus,
        seed=options.seed,
        mutants=options.mutants,
        processes=options.processes,
        job_size=JOB,
    )
    for result in results:
        outcomes += result.outcomes
        if result.failure:
            failures.append({"seed": result.seed, **result.failure})
            say(f"FAILED, replay with --replay {result.seed}:{result.failure['number']}: {result.failure}")  # fmt: skip
        say(f"seed {result.seed}: {outcomes.total()} mutants, {time.monotonic() - started:.0f} s")  # fmt: skip
    return {
        "seed": options.seed,
        "mutants": outcomes.total(),
        "outcomes": dict(outcomes.most_common()),
        "failures": failures,
        "valid": valid,
        "seconds": round(time.monotonic() - started, 1),
    }


def write_corpus(folder: Path, edits: int | None = None) -> tuple[Path, dict[str, int]]:
    """The streams that are mutated, and what became of all the valid updates themselves."""
    streams: list[tuple[str, Stream]] = []
    valid = {"updates": 0, "refused": 0}
    for name, stream in yjs_streams(folder, STREAMS):
        streams.append((name, stream))
        judge(stream, valid)
    for name, stream in traces(folder, edits):
        streams += excerpts(name, stream)
        if edits is None:
            judge(stream, valid)
    return write(folder / "corpus.jsonl", streams), valid


def judge(stream: Stream, valid: dict[str, int]) -> None:
    """Count the updates of a stream, and those that do not get through."""
    subject = Subject()
    outcomes = Counter(subject.feed(update) for update in stream)
    valid["updates"] += len(stream)
    valid["refused"] += len(stream) - outcomes["applied"] - outcomes["waits"]
    valid["refused"] += len(subject.gate) + bool(subject.final_problem())


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
