"""Provoke the faults of the table for real, in their long form, and write down what came of it.

    python tests/faults/play.py [--seeds 3] [--first-seed 1] [--only F6 …] [--short] [--processes 1] [--json FILE [--keep]] [--report FAULTS.md]

A line for each run. With --keep the JSON file goes on from what is in it, and so does the report. Exits with 1 when anything was violated; the directory of such a run is kept, and its seed is in its line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import shlex
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE.parent), str(HERE)]

from fault_table import EVERY  # noqa: E402
from ledger import Violation  # noqa: E402
from scenario import Result  # noqa: E402

from collab import logs  # noqa: E402

Job = tuple[str, int, bool]


def main() -> int:
    options = parsed()
    signal.signal(signal.SIGTERM, leave)
    names = [
        name
        for name in EVERY
        if not options.only or any(name.startswith(one) for one in options.only)
    ]
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    # Every fault once before any comes again: a run that is ended has looked at all of them.
    jobs = [(name, seed, not options.short) for seed in seeds for name in names]
    results = kept(options, jobs)
    context = multiprocessing.get_context("spawn")
    with context.Pool(options.processes, maxtasksperchild=1) as pool:
        for number, result in enumerate(pool.imap_unordered(run, jobs), 1):
            results.append(result)
            say(f"{number:4}/{len(jobs)} {line(result)}")
            write(options, results, list(EVERY))
        # Leaving the block ends whoever is still there by a signal, in the midst of its own end.
        pool.close()
        pool.join()
    return 1 if any(result.violations for result in results) else 0


def kept(options: argparse.Namespace, jobs: Sequence[Job]) -> list[Result]:
    """Of an earlier run, what this one does not look at again."""
    if not options.keep or not options.json.exists():
        return []
    again = {(name, seed) for name, seed, _ in jobs}
    earlier = [Result.of_json(one) for one in json.loads(options.json.read_text())]
    return [one for one in earlier if (one.scenario, one.seed) not in again]


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--report", type=Path)
    return parser.parse_args()


def run(job: Job) -> Result:
    """One scenario with one seed, in a process of its own."""
    name, seed, is_long = job
    signal.signal(signal.SIGTERM, leave)  # that servers are ended too
    logs.configure(log_format="console", level="error")
    directory = Path(tempfile.mkdtemp(prefix="collab-faults-"))
    try:
        result = asyncio.run(EVERY[name].run(directory, seed=seed, is_long=is_long))
    except BaseException:
        result = Result(name, seed)
        result.violations.append(Violation("harness", traceback.format_exc()[-2000:]))
    if result.violations:
        result.notes["kept in"] = str(directory)
    else:
        shutil.rmtree(directory, ignore_errors=True)
    return result


def leave(*_: object) -> None:
    sys.exit(1)


def line(result: Result) -> str:
    words = (
        f"{'bad ' if result.violations else 'good'} {result.scenario:24} seed {result.seed}  "
        f"{result.acked:6} saved {result.lost} lost {result.doubled} twice  "
        f"converged {result.converge_seconds:5.2f} s  logged {result.logged_seconds:5.2f} s  took {result.seconds:5.1f} s"
    )
    return "\n".join(
        [words, *(f"       {one.check} {one.sentence}" for one in result.violations)]
    )


def write(
    options: argparse.Namespace, results: Sequence[Result], names: Sequence[str]
) -> None:
    """After every run, so that what was done is there when somebody ends it."""
    if options.json:
        found = [result.to_json() for result in results]
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.report:
        options.report.write_text(report(results, names))


def report(results: Sequence[Result], names: Sequence[str]) -> str:
    """FAULTS.md."""
    rows = [
        "| fault | what is done | runs | seeds | acknowledged edits | lost | twice | worst time to converge | worst time to logged |",
        "| --- | --- | --: | --- | --: | --: | --: | --: | --: |",
    ]
    remarks: list[str] = []
    for name in names:
        mine = [result for result in results if result.scenario == name]
        if mine:
            rows.append(row(name, mine))
            remarks += [
                f"- **{name}**, seed {one.seed}: lost {one.notes['lost']}"
                for one in mine
                if "lost" in one.notes
            ]
    bad = [
        f"- **{one.scenario}**, seed {one.seed}: {violation.check} {violation.sentence.splitlines()[-1]}"
        for one in results
        for violation in one.violations
    ]
    saved, lost = sum(r.acked for r in results), sum(r.lost for r in results)
    return TEXT.format(
        table="\n".join(rows),
        remarks="\n".join(remarks) or "None.",
        bad="\n".join(bad) or "None.",
        command=command(sys.argv[1:]),
        machine=machine(),
        runs=len(results),
        saved=f"{saved:,}",
        lost=lost,
        twice=sum(r.doubled for r in results),
    )


def command(arguments: Sequence[str]) -> str:
    """How the report is made again; where it goes is nobody's business."""
    rest = list(arguments)
    for flag in ("--report", "--json"):
        if flag in rest:
            at = rest.index(flag)
            del rest[at : at + 2]
    return f'make faults ARGS="{shlex.join(rest)}"' if rest else "make faults"


def row(name: str, mine: Sequence[Result]) -> str:
    seeds = sorted(result.seed for result in mine)
    shown = f"{seeds[0]}–{seeds[-1]}" if len(seeds) > 1 else str(seeds[0])
    cells: list[Any] = [
        name,
        EVERY[name].fault,
        len(mine),
        shown,
        f"{sum(result.acked for result in mine):,}",
        sum(result.lost for result in mine),
        sum(result.doubled for result in mine),
        f"{max(result.converge_seconds for result in mine):.1f} s",
        f"{max(result.logged_seconds for result in mine):.1f} s",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, Python {platform.python_version()}"


TEXT = """# Faults

What was broken on purpose, with real processes, and what became of the edits that clients had been told are saved. Written by
`{command}` on {machine}.

Clients type tokens into a text, a map and an array, take some of them out again, and keep a ledger of what was acknowledged;
it is outside the system. After the faults fresh readers (Yjs in Node, pycrdt) look through every replica, and one into the store.
**Lost** is a token that was acknowledged and is not there; **twice** a token that is there twice, or in part, or that nobody wrote.
*Time to converge* counts from the moment the fault is over until everybody sees the same; *time to logged* from an edit to its
acknowledgement, the time of the fault and of coming back included. `/single` is one process with SQLite, `/postgres` several replicas on Postgres with
Redis between them, `/redis` several with Redis as the store too. In `stock` the clients are those of npm, y-websocket 1 to 4 and
Hocuspocus 2 to 4, spread over three replicas by HAProxy; saved is what they call so: no unsynced changes, their own edit echoed.

{runs} runs, {saved} acknowledged edits, {lost} lost, {twice} twice.

{table}

## Losses that the level of the acknowledgement allows

{remarks}

## What the checks found

{bad}
"""


def say(words: str) -> None:
    sys.stdout.write(words + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
