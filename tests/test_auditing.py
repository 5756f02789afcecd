"""`collab audit`, and what other commands leave in the audit log."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from processes import ROOT
from test_cli import collab


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """With an audit log of four lines."""
    data = tmp_path / "data"
    text = tmp_path / "in.txt"
    text.write_text("secret words")
    flags = ("--data", str(data))
    collab("key", "create", "--principal", "bot", "--room", "notes=read", *flags)
    collab("import", "notes", str(text), "--text", "content", *flags)
    collab("export", "notes", *flags)
    return data


def test_commands_write_down_what_they_do_and_no_secret(data: Path) -> None:
    lines = [
        json.loads(line) for line in (data / "audit.jsonl").read_text().splitlines()
    ]

    assert [line["event"] for line in lines] == [
        "begin",
        "key.create",
        "room.import",
        "room.export",
    ]
    assert "secret" not in (data / "audit.jsonl").read_text()
    assert "ck_" not in (data / "audit.jsonl").read_text()


def test_a_backup_and_a_restore_are_written_down(data: Path, tmp_path: Path) -> None:
    flags, copy = ("--data", str(data)), str(tmp_path / "copy")
    for words in (("compact",), ("repair",), ("backup", copy), ("restore", copy)):
        replace = ("--replace",) if words[0] == "restore" else ()
        collab(*words, *replace, *flags)

    done = collab("audit", "verify", "--json", *flags)

    lines = [
        json.loads(line) for line in (data / "audit.jsonl").read_text().splitlines()
    ]
    assert [line["event"] for line in lines[4:]] == [
        "room.compact",
        "room.repair",
        "backup",
        "restore",
    ]
    assert json.loads(done.stdout)["is_whole"]


def test_verify_says_how_far_the_chain_holds(data: Path) -> None:
    done = collab("audit", "verify", "--json", "--data", str(data))

    found = json.loads(done.stdout)
    last = json.loads((data / "audit.jsonl").read_text().splitlines()[-1])
    assert (done.returncode, found["is_whole"], found["broken"]) == (0, True, None)
    assert (found["lines"], found["head"]) == (4, last["hash"])


def test_verify_names_the_first_line_that_was_tampered_with(data: Path) -> None:
    path = data / "audit.jsonl"
    path.write_text(path.read_text().replace('"bot"', '"eve"'))

    shown = collab("audit", "verify", "--data", str(data))
    as_json = collab("audit", "verify", "--json", "--data", str(data))

    assert (shown.returncode, as_json.returncode) == (3, 3)
    assert f"BROKEN at {path} line 2: edited" in shown.stdout
    assert json.loads(as_json.stdout)["broken"] == {
        "kind": "edited",
        "file": str(path),
        "line": 2,
        "seq": 2,
    }


def test_verify_misses_a_head_that_was_noted(data: Path) -> None:
    flags = ("--json", "--data", str(data))
    noted = json.loads(collab("audit", "verify", *flags).stdout)["head"]
    collab("export", "notes", "--data", str(data))

    whole = collab("audit", "verify", "--noted", noted, *flags)
    (data / "audit.head").unlink()
    (data / "audit.jsonl").unlink()
    collab("key", "create", "--principal", "eve", "--room", "x=read", *flags[1:])
    forged = collab("audit", "verify", "--noted", noted, *flags)

    assert (whole.returncode, forged.returncode) == (0, 3)
    assert json.loads(forged.stdout)["broken"]["kind"] == "rewritten"


def test_verify_misses_a_tail_that_was_cut_off(data: Path) -> None:
    path = data / "audit.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))

    done = collab("audit", "verify", "--data", str(data))

    assert done.returncode == 3
    assert "truncated" in done.stdout


def test_the_program_in_the_documents_finds_what_we_find(data: Path) -> None:
    text = (ROOT / "deploy" / "README.md").read_text()
    found = re.search(r"<!-- example: verify -->\n```python\n(.*?)```", text, re.DOTALL)
    assert found is not None
    path = data / "audit.jsonl"
    with path.open("a") as file:
        file.write('{"seq":')
    collab("export", "notes", "--data", str(data))
    command = [sys.executable, "-c", found[1], str(path)]

    whole = subprocess.run(command, capture_output=True, text=True, check=False)
    path.write_text(path.read_text().replace('"bot"', '"eve"'))
    broken = subprocess.run(command, capture_output=True, text=True, check=False)

    last = json.loads(path.read_text().splitlines()[-1])
    assert (whole.returncode, whole.stdout.strip()) == (0, last["hash"])
    assert broken.returncode == 1


def test_show_picks_lines(data: Path) -> None:
    done = collab(
        "audit", "show", "--room", "notes", "--event", "room.export", "--json",
        "--data", str(data),
    )  # fmt: skip

    (line,) = map(json.loads, done.stdout.splitlines())
    assert line["details"]["format"] == "text"


def test_a_directory_without_an_audit_log_is_said_so(tmp_path: Path) -> None:
    done = collab("audit", "verify", "--data", str(tmp_path))

    assert (done.returncode, done.stdout) == (2, "")
    assert "no audit log" in done.stderr
