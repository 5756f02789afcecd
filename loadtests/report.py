"""What a run of the benchmark found: as a table to read, as JSON to keep, and as the figures in BENCHMARKS.md."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import traces
from scenarios import SCENARIOS, Bench, Figures, short

BEGIN, END = (
    "<!-- figures: written by loadtests/bench.py -->",
    "<!-- end of figures -->",
)

Record = dict[str, Any]  # one scenario: JSON


def machine() -> dict[str, str | int]:
    """What kind of machine this is: figures mean little without it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return {
        "processor": (models or ["unknown"])[0],
        "cores": os.cpu_count() or 0,
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "node": _node(),
        "trace": traces.source(),
    }


def _node() -> str:
    if shutil.which("node") is None:
        return "none"
    done = subprocess.run(["node", "--version"], capture_output=True, text=True)
    return done.stdout.strip().lstrip("v")


def record(bench: Bench, name: str) -> Record:
    """Everything about one scenario that has just run."""
    return {
        "about": SCENARIOS[name].__doc__,
        "rounds": bench.rounds,
        "quick": bench.is_quick,
        "others": median(bench.others) if bench.others else 0.0,
        "figures": bench.figures[name],
        "targets": [
            asdict(target) | {"is_reached": target.is_reached, "text": str(target)}
            for target in bench.targets
            if target.scenario == name
        ],
        "lost": bench.lost,
    }


def text(found: Record) -> str:
    """One scenario for the terminal."""
    rows = _rows(found["figures"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    lines += [f"  {target['text']}" for target in found["targets"]]
    lines += [f"  LOST     {line}" for line in found["lost"]]
    lines.append(f"  (other work on the server's core: {found['others']:.0%})")
    return "\n".join(line.rstrip() for line in lines)


def _rows(figures: Figures) -> list[list[str]]:
    """Medians, with the least and the greatest of the rounds behind them."""
    names = list(next(iter(figures.values())))
    rows = [["", *names]]
    for server, measures in figures.items():
        rows.append([server, *(_cell(measures[name]) for name in names)])
    return rows


def _cell(values: list[float]) -> str:
    middle = median(values)
    if len(values) == 1 or middle != middle:
        return short(middle)
    return f"{short(middle)} ({short(min(values))}–{short(max(values))})"


def merge(path: Path, found: dict[str, Record]) -> Record:
    """Write these scenarios into a JSON file; those that were not run again stay as they were."""
    kept = json.loads(path.read_text())["scenarios"] if path.exists() else {}
    scenarios = {
        name: (kept | found)[name] for name in SCENARIOS if name in kept | found
    }
    whole = {"machine": machine(), "scenarios": scenarios}
    path.write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n")
    return whole


def write_markdown(path: Path, whole: Record) -> None:
    """Put the figures between the two marks of a Markdown file; the words around them stay."""
    before, _, rest = path.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    path.write_text(f"{before}{BEGIN}\n\n{_markdown(whole)}\n{END}{after}")


def _markdown(whole: Record) -> str:
    kind = whole["machine"]
    lines = [
        f"{kind['processor']}, {kind['cores']} cores, {kind['system']}, Python {kind['python']}, Node {kind['node']}, "
        f"{kind['trace']} trace.",
        "",
        "| scenario | target | measured | bar | |",
        "|---|---|---:|---:|---|",
    ]
    for name, found in whole["scenarios"].items():
        for target in found["targets"]:
            bar = f"{'≥' if target['is_least'] else '≤'} {short(target['bound'])}{target['unit']}"
            verdict = "reached" if target["is_reached"] else "**missed**"
            lines.append(
                f"| {name} | {target['what']} | {short(target['value'])}{target['unit']} | {bar} | {verdict} |"
            )
    for name, found in whole["scenarios"].items():
        runs = "one short round" if found["quick"] else f"{found['rounds']} rounds"
        noise = f"other work had {found['others']:.0%} of the server's core"
        lines += ["", f"### {name}", "", f"{found['about']} ({runs}; {noise}.)", ""]
        head, *rows = _rows(found["figures"])
        lines.append(f"| {' | '.join(head)} |".replace("|  |", "| |"))
        lines.append("|---|" + "---:|" * (len(head) - 1))
        lines += [f"| {' | '.join(row)} |" for row in rows]
        lines += [f"\nLost: {line}" for line in found["lost"]]
    return "\n".join(lines) + "\n"
