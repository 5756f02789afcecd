"""What `make faults` writes down."""

from __future__ import annotations

import json

from ledger import Violation
from play import command, line, report
from scenario import Result


def test_a_report_has_a_row_for_each_fault_and_says_what_was_violated() -> None:
    good = Result("F1/single", 1, acked=1200, converge_seconds=1.26, logged_seconds=2.0)
    other = Result("F1/single", 2, acked=800, converge_seconds=0.5, logged_seconds=3.0)
    bad = Result(
        "F5/redis", 1, acked=10, lost=2, violations=[Violation("C2", "gone", 2)]
    )

    text = report([good, other, bad], ["F1/single", "F5/redis"])

    assert "| F1/single | SIGKILL of the only process, mid-write | 2 | 1–2 | 2,000 | 0 | 0 | 1.3 s | 3.0 s |" in text  # fmt: skip
    assert "3 runs, 2,010 acknowledged edits, 2 lost, 0 twice." in text
    assert "- **F5/redis**, seed 1: C2 gone" in text


def test_a_loss_that_its_level_allows_is_told_apart() -> None:
    allowed = Result("F5/redis", 3, lost=1, notes={"lost": "1: because"})

    assert "- **F5/redis**, seed 3: lost 1: because" in report([allowed], ["F5/redis"])


def test_a_line_names_the_seed_with_which_a_failure_comes_again() -> None:
    bad = Result("F5/redis", 7, violations=[Violation("C1", "they differ")])

    assert line(bad).startswith("bad  F5/redis")
    assert "seed 7" in line(bad)
    assert "C1 they differ" in line(bad)


def test_the_command_does_not_say_where_a_report_went() -> None:
    assert command(["--report", "FAULTS.md"]) == "make faults"
    assert command(["--seeds", "3", "--json", "x"]) == 'make faults ARGS="--seeds 3"'


def test_a_result_comes_back_from_a_file() -> None:
    bad = Result("F5/redis", 7, acked=3, violations=[Violation("C1", "they differ")])

    assert Result.of_json(json.loads(json.dumps(bad.to_json()))) == bad
