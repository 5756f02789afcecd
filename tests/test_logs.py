"""How a log line looks, and what it never shows."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest
from logged import capture_logs

from collab import logs

PROGRAM = """
from collab import logs
logs.configure(log_format={form!r}, level="debug")
def handle(token):
    raise ValueError("a bug")
try:
    handle("sec" + "ret")
except ValueError:
    logs.logger("x").exception("a bug met a request")
"""


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_traceback_shows_no_values_of_variables(form: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(form=form)],
        capture_output=True,
        text=True,
        check=True,
    )

    assert "ValueError: a bug" in done.stderr
    assert "secret" not in done.stderr


def say(
    capsys: pytest.CaptureFixture[str],
    form: str,
    *,
    worker: int | None = None,
    **values: object,
) -> str:
    logs.configure(log_format=form, level="info", worker=worker)
    logs.logger("collab.x").warning("a room is slow", **values)
    return capsys.readouterr().err


def test_a_json_line_holds_the_sentence_and_the_values_beside_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = json.loads(say(capsys, "json", worker=2, room="a\nb", seconds=1.5))

    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "a room is slow",
        "level": "warning",
        "logger": "collab.x",
        "room": "a\nb",
        "seconds": 1.5,
        "worker": 2,
    }


def test_a_value_cannot_say_what_the_line_says_itself(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = json.loads(say(capsys, "json", event="another", level="debug"))

    assert (line["event"], line["level"]) == ("a room is slow", "warning")


@pytest.mark.parametrize("value", ["a\nb", "\x1b[2J", "a b", "a=b", "'", ""])
def test_a_value_cannot_begin_a_line_of_its_own_nor_pass_for_another(
    capsys: pytest.CaptureFixture[str], value: str
) -> None:
    said = say(capsys, "console", room=value)

    assert said.endswith(f"a room is slow [collab.x] room={value!r}\n")
    assert said.count("\n") == 1


def test_a_word_stands_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    said = say(capsys, "console", worker=1, room="team/plan", rows=3)

    assert said.endswith(
        "[warning ] a room is slow [collab.x] room=team/plan rows=3 worker=1\n"
    )


def test_what_is_below_the_level_is_not_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure(log_format="console", level="error")

    logs.logger("collab.x").warning("a room is slow")

    assert capsys.readouterr().err == ""


def test_lines_of_the_standard_library_look_like_ours(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure(log_format="json", level="info")

    logging.getLogger("asyncio").warning("took %s seconds", 3)

    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["logger"]) == ("took 3 seconds", "asyncio")


def test_whom_we_ask_is_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(log_format="console", level="debug")

    logging.getLogger("httpx2").info("GET https://example.com/?token=secret")

    assert capsys.readouterr().err == ""


def test_a_test_sees_lines_of_every_level() -> None:
    with capture_logs() as lines:
        logs.logger("collab.x").debug("a room is open", members=1)

    assert lines == [{"event": "a room is open", "log_level": "debug", "members": 1}]
