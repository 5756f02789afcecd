"""The benchmark: this server and its peers in the same rounds on the same machine, with a verdict for every target.

    python loadtests/bench.py [scenario …] [--quick] [--json FILE] [--peers none|all]

A server runs on one core, the load client on another; what counts are ratios within one run, medians over rounds.
loadtests/README.md says what each scenario does, BENCHMARKS.md what was measured last.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median

import client
import traces
from scenarios import SCENARIOS, Bench, Figures, short
from servers import OURS, PEERS, Unavailable, cores, install


def _table(figures: Figures) -> str:
    """Medians, with the least and the greatest of the rounds behind them."""
    names = list(next(iter(figures.values())))
    rows = [["", *names]]
    for server, measures in figures.items():
        cells = []
        for name in names:
            values = measures[name]
            spread = (
                f" ({short(min(values))}–{short(max(values))})"
                if len(values) > 1
                else ""
            )
            cells.append(
                short(median(values)) + (spread if values[0] == values[0] else "")
            )
        rows.append([server, *cells])
    widths = [max(len(row[column]) for row in rows) for column in range(len(names) + 1)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    )


def machine() -> dict[str, str | int | float]:
    """What kind of machine this is: figures mean little without it."""
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        "",
    )
    node = (
        subprocess.run(
            ["node", "--version"], capture_output=True, text=True
        ).stdout.strip()
        if _has_node()
        else "none"
    )
    return {
        "processor": model,
        "cores": os.cpu_count() or 0,
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "node": node,
        "trace": traces.source(),
    }


def _has_node() -> bool:
    return any(
        (Path(folder) / "node").exists()
        for folder in os.environ.get("PATH", "").split(os.pathsep)
    )


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
        "--json", type=Path, metavar="FILE", help="write figures and verdicts there too"
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
    """Run what was asked for; 1 when a run lost something, 2 when the benchmark could not run."""
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
        bench = Bench(
            kinds,
            chosen.quick,
            chosen.rounds or (1 if chosen.quick else 3),
            core,
            load_core,
        )
        about = machine()
        _say(
            f"{about['processor']}, {about['cores']} cores, {about['system']}, {about['trace']} trace"
        )
        for name in chosen.scenario or SCENARIOS:
            _say(f"\n{name} – {SCENARIOS[name].__doc__}")
            SCENARIOS[name](bench)
            _say(_table(bench.figures[name]))
            for target in bench.targets:
                if target.scenario == name:
                    _say(f"  {target}")
    except Unavailable as error:
        sys.stderr.write(f"bench: {error}\n")
        return 2
    disturbance = median(bench.others) if bench.others else 0.0
    _say(
        f"\nThe server's core was {disturbance:.0%} busy with other work (median of {bench.runs} runs)."
    )
    for line in bench.lost:
        _say(f"LOST     {line}")
    if chosen.json:
        report = {
            "machine": about,
            "quick": bench.is_quick,
            "rounds": bench.rounds,
            "others": disturbance,
            "figures": bench.figures,
            "targets": [
                asdict(target) | {"is_reached": target.is_reached}
                for target in bench.targets
            ],
            "lost": bench.lost,
        }
        chosen.json.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    return 1 if bench.lost else 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
