"""What makes a load test fail, and what its table says."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "loadtests"))

import targets

ROW = targets.Row(count=100, failed=0, at={50: 4.0, 95: 8.0, 99: 12.0}, greatest=13.0)
ROWS = {"connect": ROW, "initial_sync": ROW, "saved": ROW}


def shortcomings(
    rows: dict[str, targets.Row] = ROWS,
    *asked: targets.Target,
    failed: int = 0,
    max_failures: int = 0,
) -> list[str]:
    return targets.shortcomings(rows, asked, failed=failed, max_failures=max_failures)


def test_a_run_without_failures_or_targets_passes() -> None:
    assert shortcomings() == []


def test_each_percentile_of_each_event_has_a_flag() -> None:
    parser = argparse.ArgumentParser()
    targets.add_arguments(parser)

    options = parser.parse_args(["--p99-saved-ms", "50", "--p50-initial-sync-ms", "9"])

    assert targets.chosen(options) == [("initial_sync", 50, 9), ("saved", 99, 50)]


def test_a_target_is_reached_or_named() -> None:
    reached, missed = targets.Target("saved", 99, 12), targets.Target("saved", 95, 7.5)

    assert shortcomings(ROWS, reached, missed) == [
        "target missed: p95 of saved ≤ 7.5 ms"
    ]


def test_a_target_is_missed_when_nothing_was_measured() -> None:
    target = targets.Target("propagation", 50, 1000)

    assert shortcomings(ROWS, target) == ["target missed: p50 of propagation ≤ 1000 ms"]


def test_a_target_is_missed_when_everything_failed() -> None:
    failed = {**ROWS, "saved": ROW._replace(failed=100)}

    found = shortcomings(failed, targets.Target("saved", 50, 1000))

    assert "target missed: p50 of saved ≤ 1000 ms" in found


def test_a_run_in_which_nothing_was_saved_fails() -> None:
    rows = {"connect": ROW, "initial_sync": ROW}

    assert shortcomings(rows) == ["nothing was measured: saved"]


def test_failures_count_beyond_those_that_are_put_up_with() -> None:
    assert shortcomings(failed=3, max_failures=3) == []
    assert shortcomings(failed=4, max_failures=3) == ["4 failures, 3 allowed"]


def test_the_table_shows_what_happened_and_what_was_asked() -> None:
    rows = {**ROWS, "connection": ROW}
    asked = [targets.Target("saved", 99, 12), targets.Target("reconnect", 99, 5000)]

    lines = targets.table(rows, asked).splitlines()

    assert lines[3].split()[:7] == ["saved", "100", "0", "4", "8", "12", "13"]
    assert lines[3].endswith("reached: p99 ≤ 12")
    assert lines[4].endswith("MISSED: p99 ≤ 5000")
    assert lines[5].startswith("connection ")
    assert "propagation" not in "".join(lines)
