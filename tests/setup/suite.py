"""Runs checks, some of them side by side, and sums them up in a table and one closing line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import NamedTuple, TextIO
from xml.etree import ElementTree

from environment import ROOT, clean_environment, say

MAX_AGAIN = 8  # one in a thousand
LAST_FAILED = ("--last-failed", "--last-failed-no-failures=none", "-n", "0")


class Check(NamedTuple):
    """One command. It counts as one test, unless its runner (pytest or vitest) leaves a report of them."""

    title: str
    command: Sequence[str | Path]
    cwd: Path = ROOT
    runner: str = ""


class Result(NamedTuple):
    """What a check came to."""

    title: str
    seconds: float
    passed: int
    failed: int
    skipped: Sequence[str] = ()
    alone: int = 0  # of the passed: failed beside others, and passed alone
    files: Sequence[str] = ()  # in which something failed, where a runner knows no more
    is_whole: bool = True  # it came to its end: all that could fail has been tried


def run_all(in_view: Sequence[Check], *beside: Sequence[Check]) -> int:
    """All checks, whether those before them passed or not: one run shows all that is wrong. Returns the exit code.

    The rows of checks run side by side, each one after the other; what is beside shows its output when what is in view
    has ended. What failed is tried again after all of them.
    """
    started = time.monotonic()
    checks = list(chain(in_view, *beside))
    with ThreadPoolExecutor(1 + len(beside)) as pool, ExitStack() as stack:
        outputs = [
            stack.enter_context(tempfile.TemporaryFile("a+", errors="replace"))
            for _ in beside
        ]
        rows = [
            pool.submit(row_of, row, output)
            for row, output in zip(beside, outputs, strict=True)
        ]
        results = row_of(in_view)
        for row, output in zip(rows, outputs, strict=True):
            results += row.result()
            output.seek(0)
            shutil.copyfileobj(output, sys.stdout)
    results = [
        again(check, result) for check, result in zip(checks, results, strict=True)
    ]
    return report(results, time.monotonic() - started)


def row_of(checks: Sequence[Check], output: TextIO | None = None) -> list[Result]:
    """One after the other."""
    return [once(check, output) for check in checks]


def once(
    check: Check, output: TextIO | None = None, only: Sequence[str] = ()
) -> Result:
    """Run one check, or only what is named of it; what it prints goes to this file, else it is in view."""
    say(f"\n── {check.title}\n\n", output)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report"
        started = time.monotonic()
        code = subprocess.run(
            [*map(str, check.command), *report_flags(check.runner, path), *only],
            cwd=check.cwd,
            env=environment(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        ).returncode
        seconds = time.monotonic() - started
        passed, failed, skipped = count(check.runner, path, code)
        bad = failed_files(path) if check.runner == "vitest" and failed else ()
    # A runner that ran no test, or died on the way, has failed whatever it reports.
    is_whole = code in (0, 1)
    if (not passed and not failed) or (code and not failed):
        failed = 1
    return Result(
        check.title, seconds, passed, failed, skipped, files=bad, is_whole=is_whole
    )


def again(check: Check, first: Result) -> Result:
    """Run a few that failed once more, one after the other: machines are shared, and the report says which it was.

    As CPython's own test runner does. More than a few are no accident and are not tried.
    """
    if check.runner == "pytest":
        only: Sequence[str] = LAST_FAILED
    else:
        only = first.files
    if not only or not first.is_whole or not 0 < first.failed <= MAX_AGAIN:
        return first
    second = once(check._replace(title=f"{check.title} that failed"), only=only)
    better = min(first.failed, second.passed) if not second.failed else 0
    return first._replace(
        seconds=first.seconds + second.seconds,
        passed=first.passed + better,
        failed=first.failed - better,
        alone=better,
    )


def report_flags(runner: str, path: Path) -> Sequence[str]:
    """What makes a runner write its report to this path."""
    if runner == "pytest":
        return (f"--junitxml={path}",)
    if runner == "vitest":
        return (
            "--",
            "--reporter=default",
            "--reporter=json",
            f"--outputFile.json={path}",
        )
    return ()


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What the tests see: none of this shell's settings for a server of its own.

    Nor what keeps Python from storing compiled modules: hundreds of servers would compile them each for itself.
    """
    return {
        name: value
        for name, value in clean_environment(environ).items()
        if not name.startswith("COLLAB_") and name != "PYTHONDONTWRITEBYTECODE"
    }


def count(runner: str, path: Path, code: int) -> tuple[int, int, Sequence[str]]:
    """Passed, failed, and why the skipped ones were, from what the runner wrote."""
    if not runner:
        return int(code == 0), int(code != 0), ()
    if not path.is_file():
        return 0, 1, ()
    if runner == "vitest":
        summary = json.loads(path.read_text())
        skipped = summary["numPendingTests"] + summary["numTodoTests"]
        return (
            summary["numPassedTests"],
            summary["numFailedTests"]
            + summary.get("numFailedTestSuites", 0) * (not summary["numFailedTests"]),
            ["in vitest"] * skipped,
        )
    cases = list(ElementTree.parse(path).iter("testcase"))
    bad = [
        case
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]
    left = [
        f"{case.get('name')}: {reason.get('message')}"
        for case in cases
        for reason in case.iter("skipped")
    ]
    return len(cases) - len(bad) - len(left), len(bad), left


def failed_files(path: Path) -> Sequence[str]:
    """Those that vitest wrote down as failed."""
    if not path.is_file():
        return ()
    found = json.loads(path.read_text())["testResults"]
    return [each["name"] for each in found if each["status"] == "failed"]


def report(results: Sequence[Result], seconds: float) -> int:
    """Print the table and the closing line."""
    say("\n")
    for result in results:
        verdict = "failed" if result.failed else "ok"
        say(
            f"{result.title:<18}{verdict:<8}{result.passed:>6} passed{result.failed:>4} failed{result.seconds:>8.1f} s\n"
        )
        for reason in result.skipped:
            say(f"{'':<18}skipped {reason}\n")
        if result.alone:
            say(
                f"{'':<18}{result.alone} failed beside others and passed alone: see above\n"
            )
    passed = sum(result.passed for result in results)
    failed = sum(result.failed for result in results)
    skipped = sum(len(result.skipped) for result in results)
    say(f"{'':<18}{'in all':<28}{seconds:>13.1f} s\n")
    say(
        f"{passed} passed, {failed} failed"
        + (f", {skipped} skipped" if skipped else "")
        + "\n"
    )
    return 1 if failed else 0
