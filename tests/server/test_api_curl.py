"""The examples of PROTOCOL.md, by curl alone against a real server."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest
from processes import ROOT, Server

SECTION = (ROOT / "PROTOCOL.md").read_text().partition("## Documents over HTTP")[2]


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_a_document_is_edited_read_and_followed_by_curl(server: Server) -> None:
    found = re.search(r"```sh\n(.*?)```", SECTION, re.DOTALL)
    assert found is not None
    script = found[1].replace("http://127.0.0.1:8000", server.url)
    script = script.replace("curl -N", "curl --max-time 2 -N").replace(
        "curl ", "curl -sS "
    )
    script = re.sub(r"\n(?=curl)", "\necho\n", script)

    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=30, check=False
    )

    saved, text, patched, document, *events = done.stdout.strip().splitlines()
    assert json.loads(saved)["position"] == 1
    assert text == "Hello 🌍"
    assert json.loads(patched)["position"] == 2
    assert json.loads(document) == {"text": text, "todos": [{"title": "Write"}]}
    assert [line for line in events if line.startswith("id: ")] == ["id: 1", "id: 2"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_an_edit_is_credited_taken_back_and_brought_again_by_curl(
    server: Server,
) -> None:
    section = (ROOT / "PROTOCOL.md").read_text().partition("## History over HTTP")[2]
    found = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert found is not None
    script = found[1].replace("http://127.0.0.1:8000", server.url)
    script = re.sub(r"\n(?=curl)", "\necho\n", script).replace("curl ", "curl -sS ")

    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=30, check=False
    )

    lines = [json.loads(line) for line in done.stdout.strip().splitlines()]
    _, _, blame, changes, activity, before, undone, redone = lines
    spans = [(span["start"], span["end"]) for span in blame["spans"]]
    assert spans[-1][1] == len("Hello everybody")
    (change,) = changes["changes"]
    author = changes["authors"][change["author"]]
    assert (author["turn"], author["reason"]) == ("t1", "greet better")
    assert len(activity["entries"]) == 2
    assert before == {"text": "Hello world"}
    assert undone["changed"] is redone["changed"] is True
