"""SIGKILL at every step of deleting, restoring, trimming and purging, of a backup and its restore: before or after, never between."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from writers import ROOT

ALL = ["one", "two", "three"]


def runs(what: str, place: Path) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "upkeep.py"), what, str(place)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


# What was acknowledged last → how the room may stand then
STATES = {
    "": {"live", "deleted"},
    "deleted": {"deleted", "live"},
    "restored": {"live"},
    "attributed": {"live"},
    "trimmed": {"live"},
    "remembered": {"live", "gone"},
    "purged": {"gone"},
    "tidied": {"gone"},
}


def test_a_crash_leaves_a_room_whole_or_gone(tmp_path: Path) -> None:
    found = runs("store", tmp_path)

    assert len(found) > 20
    seen = set()
    for run in found:
        last = run["acknowledged"][-1] if run["acknowledged"] else ""
        seen.add((last, run["state"]))
        assert run["faults"] == []
        assert run["state"] in STATES[last], run
        if run["state"] == "gone":
            assert (run["epoch"], run["rows"]) == ("", 0)
            assert run["is_remembered"]
            continue
        assert (run["epoch"], run["title"]) == ("e1", "Notes")
        held = run["checkpoint"] or 0
        content = [*ALL, "four"][: run["position"]]
        assert run["tail"] == content[held:]
        assert run["passed"] == 0, "no landmark is without the row that came next"
        assert (run["attributed"] or 0) in (held, held - 1)
        if last in ("attributed", "trimmed", "remembered"):
            assert run["attributed"] == 3
        assert run["position"] >= (4 if last == "remembered" else 3)
        assert run["is_remembered"] or last != "remembered"
    assert {("", "deleted"), ("deleted", "live"), ("remembered", "gone")} <= seen


def test_a_crash_leaves_the_older_backup_or_the_newer(tmp_path: Path) -> None:
    runs_of_backup(tmp_path)

    found = runs("backup", tmp_path)

    assert len(found) > 5
    assert found[0]["digest"] != found[-1]["digest"]
    for run in found:
        assert run["faults"] == []
        assert run["tail"] == ALL


def test_a_crash_leaves_what_was_there_or_the_whole_backup(tmp_path: Path) -> None:
    made = runs_of_backup(tmp_path)

    found = runs("restore", tmp_path)

    assert len(found) > 20
    kinds = set()
    for run in found:
        kinds.add(run["epoch"] == "e1")
        assert run["faults"] == []
        assert run["tail"] == (ALL if run["epoch"] == "e1" else made)
        if run["acknowledged"]:
            assert run["epoch"] != "e1"
    assert kinds == {True, False}


def runs_of_backup(place: Path) -> list[str]:
    """A directory that holds more than its backup; what the backup holds."""
    program = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import upkeep
from collab.commands import maintenance
from collab.commands.progress import Progress
from collab.store.sqlite import SqliteStore
async def less(data):
    async with SqliteStore(data) as store:
        await upkeep.append(store, 1, b"one")
place = Path(sys.argv[1])
asyncio.run(less(place / "less"))
maintenance._backup(place / "less", place / "backup", Progress(False))
"""
    subprocess.run(
        [sys.executable, "-c", program, str(place), str(Path(__file__).parent)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        check=True,
        timeout=60,
    )
    return ["one"]
