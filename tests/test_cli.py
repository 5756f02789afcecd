"""The commands on a data directory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from processes import ROOT
from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText


def collab(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "collab", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def data(tmp_path: Path) -> str:
    return str(tmp_path / "data")


def test_a_text_goes_in_and_comes_out(data: str, tmp_path: Path) -> None:
    file = tmp_path / "in.txt"
    file.write_text("Grüße, 世界 🌍\n")

    done = collab("import", "r", str(file), "--text", "content", "--data", data)

    assert done.returncode == 0, done.stderr
    assert collab("export", "r", "--data", data).stdout == "Grüße, 世界 🌍\n"


def test_a_text_never_begins_a_room_that_exists(data: str, tmp_path: Path) -> None:
    file = tmp_path / "in.txt"
    file.write_text("x")
    collab("import", "r", str(file), "--text", "content", "--data", data)

    done = collab("import", "r", str(file), "--text", "content", "--data", data)

    assert done.returncode == 2
    assert "exists" in done.stderr
    assert collab("export", "r", "--data", data).stdout == "x"


def test_an_update_round_trips_with_every_type(data: str, tmp_path: Path) -> None:
    doc: Doc = Doc()
    doc["text"] = Text("hi")
    doc["map"] = Map({"n": 1, "deep": Map({"k": [1, 2]})})
    doc["list"] = Array([1, "two", None, True])
    doc["page"] = XmlFragment([XmlElement("p", {}, [XmlText("para")])])
    file = tmp_path / "in.bin"
    file.write_bytes(doc.get_update())
    collab("import", "r", str(file), "--data", data)

    shown = json.loads(collab("export", "r", "--format", "json", "--data", data).stdout)
    out = tmp_path / "out.bin"
    collab("export", "r", "--format", "update", "--output", str(out), "--data", data)
    copy: Doc = Doc()
    copy.apply_update(out.read_bytes())

    assert shown == {
        "text": "hi",
        "map": {"n": 1, "deep": {"k": [1, 2]}},
        "list": [1, "two", None, True],
        "page": "<p>para</p>",
    }
    assert str(copy.get("text", type=Text)) == "hi"


def test_the_same_import_twice_brings_nothing_new(data: str, tmp_path: Path) -> None:
    doc: Doc = Doc()
    doc["text"] = Text("hi")
    file = tmp_path / "in.bin"
    file.write_bytes(doc.get_update())
    collab("import", "r", str(file), "--data", data)

    done = collab("import", "r", str(file), "--data", data)

    assert (done.returncode, done.stdout) == (0, "r: nothing new\n")


def test_hostile_bytes_are_refused_with_a_sentence(data: str, tmp_path: Path) -> None:
    file = tmp_path / "in.bin"
    file.write_bytes(b"\xff" * 100)

    done = collab("import", "r", str(file), "--data", data)

    assert done.returncode == 1
    assert done.stderr == (
        "collab: this is no Yjs update that can be taken (number); say --text ROOT for plain text\n"
    )


def test_inspect_lists_rooms_and_tells_about_one(data: str, tmp_path: Path) -> None:
    file = tmp_path / "in.txt"
    file.write_text("x")
    for room in ("a", "b"):
        collab("import", room, str(file), "--text", "content", "--data", data)

    rooms = json.loads(collab("inspect", "--json", "--data", data).stdout)
    one = json.loads(collab("inspect", "a", "--json", "--data", data).stdout)

    assert [room["room"] for room in rooms] == ["a", "b"]
    assert one["position"] == 1
    assert one["roots"] == {"content": "text"}


def test_rooms_of_a_tenant_are_apart(data: str, tmp_path: Path) -> None:
    file = tmp_path / "in.txt"
    for tenant in ("", "acme"):
        file.write_text(f"of {tenant or 'nobody'}")
        done = collab(
            *("import", "r", str(file), "--text", "t", "--tenant", tenant, "--json"),
            *("--data", data),
        )
        assert json.loads(done.stdout) == {
            "room": "r",
            "tenant": tenant,
            "position": 1,
            "is_changed": True,
        }

    rooms = json.loads(collab("inspect", "--json", "--data", data).stdout)
    theirs = collab("inspect", "--tenant", "acme", "--data", data).stdout
    one = collab("inspect", "r", "--tenant", "acme", "--json", "--data", data).stdout

    assert [(room["tenant"], room["room"]) for room in rooms] == [
        ("acme", "r"),
        ("", "r"),
    ]
    assert "r of tenant acme" in theirs
    assert "1 rooms" in theirs
    assert json.loads(one)["tenant"] == "acme"
    assert collab("export", "r", "--data", data).stdout == "of nobody"
    exported = collab("export", "r", "--tenant", "acme", "--data", data)
    assert exported.stdout == "of acme"


def test_a_room_is_exported_as_it_was(data: str, tmp_path: Path) -> None:
    doc: Doc = Doc()
    text = doc.get("text", type=Text)
    file = tmp_path / "in.bin"
    for word in ("one ", "two ", "three"):
        text += word
        file.write_bytes(doc.get_update())
        collab("import", "r", str(file), "--data", data)

    exported = [
        collab("export", "r", "--at", at, "--data", data).stdout for at in "0123"
    ]
    beyond = collab("export", "r", "--at", "4", "--data", data)

    assert exported == ["one two three", "one ", "one two ", "one two three"]
    assert beyond.returncode == 2
    assert "ends at position 3" in beyond.stderr


def test_where_nothing_can_be_written_is_named(data: str, tmp_path: Path) -> None:
    file = tmp_path / "in.txt"
    file.write_text("hi")
    collab("import", "r", str(file), "--text", "text", "--data", data)

    exported = collab("export", "r", "--output", str(tmp_path), "--data", data)
    made = collab(
        *("key", "create", "--principal", "ada", "--room", "r=read"),
        *("--data", str(file / "data")),
    )

    assert (exported.returncode, made.returncode) == (1, 2)
    assert exported.stderr == f"collab: cannot write {tmp_path}: Is a directory\n"
    assert made.stderr == f"collab: cannot make {file / 'data'}: Not a directory\n"


def test_rich_text_is_exported_as_markdown(data: str, tmp_path: Path) -> None:
    doc: Doc = Doc()
    doc["text"] = Text("plain bold")
    doc["text"].format(6, 10, {"bold": True})
    file = tmp_path / "in.bin"
    file.write_bytes(doc.get_update())
    collab("import", "r", str(file), "--data", data)

    done = collab("export", "r", "--format", "markdown", "--data", data)

    assert done.stdout.strip() == "plain **bold**"


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["export", "r"], 2, "no data directory"),
        (["inspect"], 2, "no data directory"),
        (["import", "r", "/nonexistent"], 2, "cannot read /nonexistent"),
    ],
)
def test_what_is_missing_is_named(
    data: str, arguments: list[str], code: int, word: str
) -> None:
    done = collab(*arguments, "--data", data)

    assert done.returncode == code
    assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_room_is_named(data: str, tmp_path: Path) -> None:
    file = tmp_path / "in.txt"
    file.write_text("x")
    collab("import", "a", str(file), "--text", "content", "--data", data)

    done = collab("export", "nope", "--data", data)

    assert done.returncode == 1
    assert "no room nope" in done.stderr
