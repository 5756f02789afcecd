"""Whole documents typed by real clients through the server: everybody ends with the text their authors had."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from editing_traces import NAMES, ancestry, concurrent, find, load, sequential
from replaying import play, read

sys.path.append(str(Path(__file__).parents[1] / "compat"))
from serving import Server, serve

HERE = Path(__file__).parent
# One person does not type this fast: without the bound on rate the server would, rightly, slow them down.
FAST = ("--messages-per-second", "100000", "--bytes-per-second", "100000000")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serve(tmp_path / "data", *FAST) as started:
        yield started


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", NAMES)
def test_a_trace_typed_in_node_ends_as_its_authors_had_it(
    server: Server, tmp_path: Path, name: str
) -> None:
    path = find(name, tmp_path)

    done = subprocess.run(
        ["node", str(HERE / "replay.mjs"), server.url, name, str(path)],
        capture_output=True,
        text=True,
        timeout=170,
    )

    assert done.returncode == 0, done.stderr[-4000:]
    seen = json.loads(done.stdout)
    assert [kind for kind, is_equal in seen["held"] if not is_equal] == []
    assert seen["closes"] == []
    assert server.export(name).removesuffix("\n") == load(path)[
        "endContent"
    ].removesuffix("\n")


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", NAMES)
def test_a_trace_typed_in_python_ends_as_its_authors_had_it(
    server: Server, tmp_path: Path, name: str
) -> None:
    path = find(name, tmp_path)
    trace = load(path)

    texts = asyncio.run(play(server.url, name, trace))

    assert [text == trace["endContent"] for text in texts] == [True] * len(texts)
    server.kill()
    server.start()
    assert asyncio.run(read(server.url, name)) == trace["endContent"]
    assert server.export(name).removesuffix("\n") == trace["endContent"].removesuffix(
        "\n"
    )


def test_a_generated_trace_ends_in_what_its_edits_make() -> None:
    trace = sequential(edits=500)

    text = ""
    for txn in trace["txns"]:
        for at, removed, inserted in txn["patches"]:
            text = text[:at] + inserted + text[at + removed :]

    assert text == trace["endContent"]


def test_a_generated_concurrent_trace_has_two_authors_who_hear_of_each_other() -> None:
    trace = concurrent(edits=500)

    assert {txn["agent"] for txn in trace["txns"]} == {0, 1}
    assert any(ancestry(trace))
