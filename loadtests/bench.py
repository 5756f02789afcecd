"""The benchmark: this server and its peers in the same rounds on the same machine, with a verdict for every target.

    python loadtests/bench.py [scenario …] [--quick] [--json FILE [--markdown FILE]] [--peers none|all]

A server runs on one core, the load client on another; what counts are ratios within one run, medians over rounds.
loadtests/README.md says what each scenario does, BENCHMARKS.md what was measured last.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

import client
import report
from scenarios import SCENARIOS, Bench
from servers import OURS, PEERS, Unavailable, cores, install


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "scenario", nargs="*", help=f"some of: {' '.join(SCENARIOS)} (all of them)"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one short round of each: shows the order, not the size",
    )
    parser.add_argument(
        "--rounds", type=int, help="rounds of each comparison (3; 1 with --quick)"
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write figures and verdicts there; scenarios that are not run stay in it",
    )
    parser.add_argument(
        "--markdown",
        type=Path,
        metavar="FILE",
        help="with --json: put all of them between the marks of this file",
    )
    parser.add_argument(
        "--peers",
        choices=("none", "all"),
        default="all",
        help="compare, or measure this server alone",
    )
    parser.add_argument(
        "--command",
        help="another server in our place: its command with {port} and {folder}",
    )
    parser.add_argument(
        "--path", help="with --command: what stands before the room's name"
    )
    chosen = parser.parse_args(words)
    unknown = [name for name in chosen.scenario if name not in SCENARIOS]
    if unknown:
        parser.error(
            f"no such scenario: {', '.join(unknown)}; there are {', '.join(SCENARIOS)}"
        )
    return chosen


def main(words: list[str]) -> int:
    """Run what was asked for; 1 when something was lost, 2 when something could not be run."""
    chosen = _arguments(words)
    ours = OURS
    if chosen.command:
        ours = replace(
            OURS, command=tuple(chosen.command.split()), path=chosen.path or OURS.path
        )
    kinds = (ours, *(PEERS if chosen.peers == "all" else ()))
    try:
        core, load_core = cores()
        os.sched_setaffinity(0, {load_core})
        client.binary()
        for kind in kinds:
            install(kind)
    except Unavailable as error:
        sys.stderr.write(f"bench: {error}\n")
        return 2
    rounds = chosen.rounds or (1 if chosen.quick else 3)
    bench = Bench(kinds, chosen.quick, rounds, core, load_core)
    found: dict[str, report.Record] = {}
    failed = False
    for name in chosen.scenario or SCENARIOS:
        _say(f"\n{name} – {SCENARIOS[name].__doc__}")
        bench.others, bench.lost = [], []
        try:
            SCENARIOS[name](bench)
        except Unavailable as error:
            _say(f"  not measured: {error}")
            failed = True
            continue
        found[name] = report.record(bench, name)
        _say(report.text(found[name]))
    if chosen.json:
        whole = report.merge(chosen.json, found)
        if chosen.markdown:
            report.write_markdown(chosen.markdown, whole)
    if failed:
        return 2
    return 1 if any(one["lost"] for one in found.values()) else 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
