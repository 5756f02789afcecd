"""Writes TABLE.md: which stock clients were tried, and in what. `python tests/compat/table.py` brings it up to date."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = map(str, Path(__file__).resolve().parents[1:3])

import test_client_echo as echo  # noqa: E402
import test_client_failing_disk as failing  # noqa: E402
import test_client_hocuspocus as hocuspocus  # noqa: E402
import test_client_pairs as pairs  # noqa: E402
import test_client_restart as restart  # noqa: E402
import test_client_rights as rights  # noqa: E402
import test_client_silence as silence  # noqa: E402
import test_client_ysweet as ysweet  # noqa: E402
from driving import HERE, Driver  # noqa: E402
from kinds import KINDS  # noqa: E402

TABLE = HERE / "TABLE.md"

Test = Callable[..., Any]

COLUMNS: dict[str, tuple[Test, ...]] = {
    "edits with all others": (
        pairs.test_two_clients_agree_on_what_they_write_at_the_same_time,
    ),
    "offline edits": (pairs.test_what_is_written_apart_meets_again,),
    "presence": (
        pairs.test_each_sees_the_other_come_go_and_return,
        pairs.test_a_crowd_of_one_kind_sees_everybody,
        pairs.test_one_who_reconnects_takes_nobody_elses_presence_away,
    ),
    "a silent minute": (
        silence.test_every_client_stays_connected_through_a_minute_of_silence,
    ),
    "restart and kill": (
        restart.test_every_client_comes_back_after_a_restart,
        restart.test_what_was_called_saved_survives_a_kill,
    ),
    "saved means on disk": (
        echo.test_own_edits_come_back_only_after_the_commit,
        hocuspocus.test_unsynced_changes_clear_only_after_the_commit,
        ysweet.test_local_changes_clear_only_after_the_commit,
    ),
    "tokens and readers": (
        rights.test_a_ticket_in_the_address_opens_one_socket,
        rights.test_a_token_that_is_not_good_opens_nothing,
        rights.test_a_reader_reads_and_what_it_writes_reaches_nobody,
    ),
    "full disk": (failing.test_nothing_is_called_saved_while_the_disk_is_full,),
}

SAVED = {
    "y-websocket": "its own edits come back (4.x: `sync-status`)",
    "hocuspocus": "`hasUnsyncedChanges`",
    "y-sweet": "`hasLocalChanges`",
}


def kinds_of(test: Test) -> set[str]:
    """The clients a test is about: those it is parametrized with, or all of them, or the one its module is for."""
    marks = [
        mark for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"
    ]
    named = {
        kind
        for mark in marks
        for row in mark.args[1]
        for kind in (row if isinstance(row, tuple) else (row,))
        if kind in KINDS
    }
    return named or ({"y-sweet"} if test.__module__ == ysweet.__name__ else set(KINDS))


def row(kind: str, package: dict[str, str]) -> list[str]:
    family = kind if kind == "y-sweet" else kind.rsplit("-", 1)[0]
    tried = [
        "yes" if any(kind in kinds_of(test) for test in tests) else "–"
        for tests in COLUMNS.values()
    ]
    return [f"`{package['name']}`", package["version"], *tried, SAVED[family]]


def render(installed: dict[str, dict[str, str]]) -> str:
    """The table, for the packages that are installed."""
    head = ["client", "version", *COLUMNS, "how it learns what is saved"]
    lines = [head, ["---"] * len(head), *(row(kind, installed[kind]) for kind in KINDS)]
    return (
        "<!-- Written by tests/compat/table.py from the tests themselves. -->\n"
        + "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
        + "\nUnmodified npm packages in Node against a live server, every one with every other in one room.\n"
    )


def main() -> None:
    driver = Driver()
    driver.start()
    TABLE.write_text(render(driver.do("installed")))
    driver.stop()


if __name__ == "__main__":
    main()
