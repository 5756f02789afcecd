"""What a log line never shows."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
