"""Runs checks one after the other and sums them up in a table and one closing line."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from environment import ROOT, clean_environment, say

MAX_AGAIN = 3


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


def run_all(checks: Sequence[Check]) -> int:
    """Each check, whether those before it passed or not: one run shows all that is wrong. Returns the exit code."""
    return report([run(check) for check in checks])


def run(check: Check) -> Result:
    """Run one check with its output in view; what fails among few of many, once more."""
    result = once(check)
    return (
        again(check, result) if check.runner == "pytest" and result.failed else result
    )


def once(check: Check) -> Result:
    """Run one check."""
    say(f"\n── {check.title}\n")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report"
        started = time.monotonic()
        code = subprocess.run(
            [*map(str, check.command), *report_flags(check.runner, path)],
            cwd=check.cwd,
            env=environment(os.environ),
            stdin=subprocess.DEVNULL,
        ).returncode
        seconds = time.monotonic() - started
        passed, failed, skipped = count(check.runner, path, code)
    # A runner that ran no test, or died on the way, has failed whatever it reports.
    if (not passed and not failed) or (code and not failed):
        failed = 1
    return Result(check.title, seconds, passed, failed, skipped)


def again(check: Check, first: Result) -> Result:
    """Run a few that failed once more, one after the other: machines are shared, and the report says which it was.

    As CPython's own test runner does. More than a few are no accident and are not tried.
    """
    if first.failed > MAX_AGAIN:
        return first
    alone = (
        *check.command,
        "--last-failed",
        "--last-failed-no-failures=none",
        "-n",
        "0",
    )
    second = once(check._replace(title=f"{check.title} that failed", command=alone))
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


def report(results: Sequence[Result]) -> int:
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
    say(f"{'':<18}{'':<28}{sum(result.seconds for result in results):>13.1f} s\n")
    say(
        f"{passed} passed, {failed} failed"
        + (f", {skipped} skipped" if skipped else "")
        + "\n"
    )
    return 1 if failed else 0
