"""The summary counts what ran, and takes a runner that ran nothing for a failure."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import suite

PYTEST = (
    sys.executable,
    "-m",
    "pytest",
    "-q",
    "-p",
    "no:cacheprovider",
    "-c",
    "/dev/null",
)


@pytest.fixture
def tests(tmp_path: Path) -> Path:
    folder = tmp_path / "some tests"
    folder.mkdir()
    return folder


def test_a_run_ends_with_the_line_that_counts_all_tests(
    tests: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tests / "test_a.py").write_text(
        "import pytest\n"
        "def test_good(): pass\n"
        "def test_bad(): assert False\n"
        "@pytest.mark.skip(reason='no such disk')\n"
        "def test_left_out(): pass\n"
    )

    code = suite.run_all(
        [
            suite.Check("lint", (sys.executable, "-c", "")),
            suite.Check("tests", PYTEST, tests, runner="pytest"),
        ]
    )

    output = capfd.readouterr().out
    assert code == 1
    assert output.endswith("\n2 passed, 1 failed, 1 skipped\n")
    assert "skipped test_left_out: no such disk" in output


def test_a_run_in_which_all_is_well_succeeds(capfd: pytest.CaptureFixture[str]) -> None:
    code = suite.run_all([suite.Check("lint", (sys.executable, "-c", ""))])

    assert code == 0
    assert capfd.readouterr().out.endswith("\n1 passed, 0 failed\n")


def test_rows_of_checks_run_side_by_side_and_each_is_shown_whole(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    waits = (
        "import pathlib, time\n"
        "print('begins')\n"
        "while not pathlib.Path('there').exists(): time.sleep(0.01)\n"
        "print('ends')\n"
    )
    makes = "import pathlib; print('between'); pathlib.Path('there').touch()"

    code = suite.run_all(
        [suite.Check("waits", (sys.executable, "-c", waits), tmp_path)],
        [
            suite.Check("makes", (sys.executable, "-c", makes), tmp_path),
            suite.Check("bad", (sys.executable, "-c", "raise SystemExit(1)")),
        ],
    )

    output = capfd.readouterr().out
    assert code == 1
    assert output.startswith("\n── waits\n\nbegins\nends\n\n── makes\n\nbetween\n")
    assert output.endswith("\n2 passed, 1 failed\n")


def test_a_runner_without_tests_has_failed(tests: Path) -> None:
    result = suite.once(suite.Check("tests", PYTEST, tests, runner="pytest"))

    assert (result.passed, result.failed) == (0, 1)


def test_a_runner_that_dies_before_its_report_has_failed(tests: Path) -> None:
    result = suite.once(
        suite.Check(
            "tests", (sys.executable, "-c", "raise SystemExit(3)"), runner="vitest"
        )
    )

    assert (result.passed, result.failed) == (0, 1)


def test_the_report_of_vitest_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "report"
    path.write_text(
        json.dumps(
            {
                "numPassedTests": 7,
                "numFailedTests": 0,
                "numPendingTests": 1,
                "numTodoTests": 0,
                "numFailedTestSuites": 0,
            }
        )
    )

    assert suite.count("vitest", path, 0) == (7, 0, ["in vitest"])


# What vitest would do: two files, of which one fails at first; of files that are named, only those.
VITEST = """
import json, pathlib, sys
seen = pathlib.Path("seen")
is_bad = not seen.exists()
seen.touch()
named = [each for each in sys.argv if each.endswith(".ts")]
(path,) = [each[len("--outputFile.json="):] for each in sys.argv if each.startswith("--outputFile")]
found = {"a.ts": "failed" if is_bad else "passed", "b.ts": "passed"}
found = {name: found[name] for name in named or found}
bad = list(found.values()).count("failed")
pathlib.Path(path).write_text(json.dumps({
    "numPassedTests": len(found) - bad, "numFailedTests": bad, "numPendingTests": 0, "numTodoTests": 0,
    "testResults": [{"name": name, "status": status} for name, status in found.items()],
}))
print("ran", *found)
sys.exit(bad)
"""


def test_a_file_of_vitest_in_which_something_failed_is_run_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = (sys.executable, "-c", VITEST)

    code = suite.run_all([suite.Check("tests", command, tmp_path, runner="vitest")])

    output = capfd.readouterr().out
    assert code == 0
    assert "ran a.ts b.ts\n" in output
    assert "ran a.ts\n" in output
    assert output.endswith("\n2 passed, 0 failed\n")


def test_checks_do_not_see_the_settings_of_a_server_in_this_shell() -> None:
    seen = suite.environment({"COLLAB_PORT": "9000", "LANG": "C.UTF-8"})

    assert "COLLAB_PORT" not in seen
    assert seen["LANG"] == "C.UTF-8"


def test_the_servers_of_the_tests_compile_what_they_import_once() -> None:
    seen = suite.environment({"PYTHONDONTWRITEBYTECODE": "1"})

    assert "PYTHONDONTWRITEBYTECODE" not in seen


FLAKY = (
    "from pathlib import Path\n"
    "HERE = Path(__file__).parent\n"
    "def test_good(): pass\n"
    "def test_flaky():\n"
    "    seen = HERE / 'seen'\n"
    "    before, _ = seen.exists(), seen.touch()\n"
    "    assert before\n"
)
CACHING = (*PYTEST[:4], "-c", "/dev/null", "--rootdir")


def test_what_fails_beside_others_is_run_again_alone_and_the_report_says_so(
    tests: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tests / "test_a.py").write_text(FLAKY)
    command = (*CACHING, str(tests), str(tests))

    code = suite.run_all([suite.Check("tests", command, tests, runner="pytest")])

    output = capfd.readouterr().out
    assert code == 0
    assert output.endswith("\n2 passed, 0 failed\n")
    assert "1 failed beside others and passed alone" in output


def test_what_fails_alone_too_has_failed(
    tests: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tests / "test_a.py").write_text(FLAKY + "def test_bad(): assert False\n")
    command = (*CACHING, str(tests), str(tests))

    code = suite.run_all([suite.Check("tests", command, tests, runner="pytest")])

    assert code == 1
    assert "passed alone" not in capfd.readouterr().out


def test_what_failed_before_the_runner_was_interrupted_is_not_all_there_is(
    tests: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    interrupted = "def test_last(): raise KeyboardInterrupt\n"
    (tests / "test_a.py").write_text(FLAKY + interrupted)
    command = (*CACHING, str(tests), str(tests))

    code = suite.run_all([suite.Check("tests", command, tests, runner="pytest")])

    assert code == 1
    assert "that failed" not in capfd.readouterr().out


def test_more_than_a_few_are_no_accident(
    tests: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bad = "".join(f"def test_{n}(): assert False\n" for n in range(suite.MAX_AGAIN + 1))
    (tests / "test_a.py").write_text(bad)
    command = (*CACHING, str(tests), str(tests))

    code = suite.run_all([suite.Check("tests", command, tests, runner="pytest")])

    assert code == 1
    assert "that failed" not in capfd.readouterr().out
