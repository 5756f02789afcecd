"""The file of the audit log: it hangs together, across processes, crashes and files that were moved away."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collab.audit.chain import MAX_TEXT, NOTHING, Chain, Happening, note, read_head
from collab.audit.verdict import Damage, judge

Lines = list[bytes]


def happening(event: str = "join", **details: Any) -> Happening:
    return Happening(1_700_000_000.5, event, "ada", "acme", "notes", details)


def write(data: Path, *happenings: Happening) -> Path:
    path = data / "audit.jsonl"
    with Chain(data, path) as chain:
        chain.append(happenings)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_tells_who_did_what_where_and_when(tmp_path: Path) -> None:
    path = write(tmp_path, happening(address="192.0.2.1"))

    first, second = read(path)

    assert first["event"] == "begin"
    assert first["details"] == {"previous": NOTHING}
    assert second | {"hash": ""} == {
        "seq": 2,
        "time": "2023-11-14T22:13:20.500Z",
        "event": "join",
        "principal": "ada",
        "tenant": "acme",
        "room": "notes",
        "details": {"address": "192.0.2.1"},
        "hash": "",
    }


def test_a_hash_is_counted_over_the_hash_before_and_the_bytes_of_the_line(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, happening())

    first, second = path.read_bytes().splitlines()
    body, _, rest = second.rpartition(b',"hash":"')

    before = json.loads(first)["hash"].encode()
    assert rest[:64].decode() == hashlib.sha256(before + body + b"}").hexdigest()


def test_the_next_process_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    write(tmp_path, happening(), happening())
    path = write(tmp_path, happening("leave"))

    found = judge([path], read_head(tmp_path))

    assert (found.lines, found.broken) == (4, None)
    assert found.head.hash == read(path)[-1]["hash"]


def test_two_writers_at_once_make_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    script = (
        "from pathlib import Path; import sys\n"
        "from collab.audit.chain import Chain, Happening\n"
        "data = Path(sys.argv[1])\n"
        "with Chain(data, data / 'audit.jsonl') as chain:\n"
        "    for n in range(50):\n"
        "        chain.append((Happening(0.0, 'join', sys.argv[2]),))\n"
    )

    writers = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path), name])
        for name in ("ada", "ben")
    ]
    codes = [writer.wait(60) for writer in writers]

    found = judge([path], read_head(tmp_path))
    assert codes == [0, 0]
    assert (found.lines, found.broken) == (101, None)


def test_a_file_that_was_moved_away_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with Chain(tmp_path, path) as chain:
        chain.append((happening(),))
        path.rename(tmp_path / "audit.jsonl.1")
        chain.append((happening("leave"),))
    path.rename(tmp_path / "audit.jsonl.2")
    write(tmp_path, happening())
    files = [path, tmp_path / "audit.jsonl.1", tmp_path / "audit.jsonl.2"]

    whole = judge(files, read_head(tmp_path))
    newest = judge(files[:1], read_head(tmp_path))

    assert (whole.lines, whole.broken) == (6, None)
    assert [Path(file).name for file in whole.files] == [
        "audit.jsonl.1",
        "audit.jsonl.2",
        "audit.jsonl",
    ]
    assert (newest.first, newest.lines, newest.broken) == (5, 2, None)
    assert newest.previous == judge(files[1:]).head.hash


@given(cut=st.integers(1, 150))
def test_a_torn_last_line_is_closed_with_one_that_vouches_for_it(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    data = tmp_path_factory.mktemp("torn")
    path = write(data, happening(), happening())
    kept = path.read_bytes()
    with path.open("ab") as file:
        file.write(kept.splitlines()[1][:cut])

    write(data, happening("leave"))

    found = judge([path], read_head(data))
    assert path.read_bytes().startswith(kept)
    assert (found.torn, found.broken) == (1, None)
    assert [
        line["event"] for line in map(json.loads, path.read_bytes().splitlines()[-2:])
    ] == ["torn", "leave"]


def test_a_last_line_that_lacks_only_its_end_is_kept(tmp_path: Path) -> None:
    path = write(tmp_path, happening())
    path.write_bytes(path.read_bytes()[:-1])

    write(tmp_path, happening())

    found = judge([path], read_head(tmp_path))
    assert (found.lines, found.torn, found.broken) == (3, 0, None)


def test_lines_that_reached_the_file_before_a_crash_but_not_the_head_are_gone_on_from(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, happening())
    head = (tmp_path / "audit.head").read_bytes()
    write(tmp_path, happening())
    (tmp_path / "audit.head").write_bytes(head)

    write(tmp_path, happening())

    found = judge([path], read_head(tmp_path))
    assert (found.lines, found.broken) == (4, None)


def test_what_does_not_fit_into_the_file_is_not_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "audit.jsonl"

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    with Chain(tmp_path, path) as chain:
        before = path.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr("os.fdatasync", full)
            with pytest.raises(OSError, match="No space"):
                chain.append((happening(),))
        between = path.read_bytes()
        chain.append((happening(),))

    assert between == before
    assert judge([path], read_head(tmp_path)).broken is None


def test_a_value_is_cut_and_never_stops_a_line(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        happening(text="x" * 1000, odd="\ud800", huge=1 << 80, path=Path("/a")),
        happening(many=["y" * 200] * 200),
        happening(text="x" * 1000, odd="\ud800", path=Path("/a")),
    )

    _, huge, long, plain = read(path)

    assert huge["details"] == {"cut": 0}
    assert list(long["details"]) == ["cut"]
    assert plain["details"] == {
        "text": "x" * MAX_TEXT,
        "odd": "\\ud800",
        "path": "/a",
    }


@pytest.mark.parametrize(
    ("shown", "written"),
    [
        ("ck_12ab.c2VjcmV0", "ck_12ab…"),
        ("tk_c2VjcmV0c2VjcmV0", "tk_…"),
        ("eyJhbGci.eyJzdWIi.c2ln", "eyJ…"),
        ("notes", "notes"),
    ],
)
def test_a_token_that_somebody_names_is_not_written(
    tmp_path: Path, shown: str, written: str
) -> None:
    path = write(tmp_path, happening("revoke", token=shown))

    assert read(path)[-1]["details"] == {"token": written}


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    path = write(tmp_path, happening())

    assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "audit.head").stat().st_mode & 0o777 == 0o600


def test_a_command_writes_its_line_only_where_there_is_an_audit_log(
    tmp_path: Path,
) -> None:
    note(tmp_path, "backup")
    assert list(tmp_path.iterdir()) == []
    path = write(tmp_path)

    note(tmp_path, "backup", room="notes", file="b.tar")

    line = read(path)[-1]
    assert (line["event"], line["principal"]) == ("backup", "operator")
    assert (line["room"], line["details"]["file"]) == ("notes", "b.tar")


# Tampering


def tampered(data: Path, change: Callable[[Lines], Lines]) -> tuple[Path, Path]:
    """A log of ten lines, and a copy with a change."""
    path = write(data, *(happening(number=number) for number in range(9)))
    copy = data / "copy.jsonl"
    lines = change(path.read_bytes().splitlines(keepends=True))
    copy.write_bytes(b"".join(lines))
    return path, copy


@given(line=st.integers(0, 9), at=st.floats(0, 0.999), byte=st.integers(0, 255))
def test_a_changed_byte_is_found_where_it_is(
    tmp_path_factory: pytest.TempPathFactory, line: int, at: float, byte: int
) -> None:
    def change(lines: Lines) -> Lines:
        text = bytearray(lines[line][:-1])
        place = int(at * len(text))
        text[place] = byte if byte != text[place] and byte != 10 else text[place] ^ 1
        lines[line] = bytes(text).replace(b"\n", b" ") + b"\n"
        return lines

    path, copy = tampered(tmp_path_factory.mktemp("edited"), change)
    if path.read_bytes() == copy.read_bytes():
        return
    found = judge([copy])

    assert found.broken is not None
    # A first line that no longer says "begin 1" may be taken for the begin of a later file: then the next one is wrong.
    assert found.broken.line in ({1, 2} if line == 0 else {line + 1})


@given(first=st.integers(1, 8), count=st.integers(1, 3))
def test_removed_lines_are_found_where_they_were(
    tmp_path_factory: pytest.TempPathFactory, first: int, count: int
) -> None:
    last = min(first + count, 9)  # one line stays behind them
    _, copy = tampered(
        tmp_path_factory.mktemp("removed"),
        lambda lines: lines[:first] + lines[last:],
    )

    found = judge([copy])

    assert found.broken is not None
    assert (found.broken.kind, found.broken.line) == (Damage.REMOVED, first + 1)


@given(source=st.integers(0, 9), place=st.integers(1, 10))
def test_an_inserted_line_is_found_where_it_is(
    tmp_path_factory: pytest.TempPathFactory, source: int, place: int
) -> None:
    _, copy = tampered(
        tmp_path_factory.mktemp("inserted"),
        lambda lines: [*lines[:place], lines[source], *lines[place:]],
    )

    found = judge([copy])

    # A copy right before or after its original looks the same.
    expected = place + 2 if place == source else place + 1
    assert found.broken is not None
    assert (found.broken.kind, found.broken.line) == (Damage.INSERTED, expected)


@given(
    pair=st.tuples(st.integers(1, 9), st.integers(1, 9)).filter(lambda p: p[0] < p[1])
)
def test_lines_in_another_order_are_found(
    tmp_path_factory: pytest.TempPathFactory, pair: tuple[int, int]
) -> None:
    one, other = pair

    def swap(lines: Lines) -> Lines:
        lines[one], lines[other] = lines[other], lines[one]
        return lines

    _, copy = tampered(tmp_path_factory.mktemp("reordered"), swap)
    found = judge([copy])

    assert found.broken is not None
    assert (found.broken.kind, found.broken.line) == (Damage.REORDERED, one + 1)


@given(kept=st.integers(0, 9), part=st.integers(0, 60))
def test_a_cut_off_tail_is_found_by_the_head(
    tmp_path_factory: pytest.TempPathFactory, kept: int, part: int
) -> None:
    data = tmp_path_factory.mktemp("truncated")
    path, _ = tampered(data, lambda lines: lines)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:kept]) + lines[kept][:part])

    found = judge([path], read_head(data))

    assert found.broken is not None
    assert (found.broken.kind, found.broken.line) == (Damage.TRUNCATED, kept)


def test_a_tail_cut_off_under_a_writer_is_missed_for_ever(tmp_path: Path) -> None:
    path, _ = tampered(tmp_path, lambda lines: lines)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:5]))

    write(tmp_path, happening("leave"))

    found = judge([path], read_head(tmp_path))
    assert found.broken is not None
    assert (found.broken.kind, found.broken.line) == (Damage.REMOVED, 6)


def test_garbage_is_judged_and_never_trips_the_judge(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"\xff\n[]\nnull\n{}\n" + b'{"seq":1e999}\n{"seq":"x"}\n')

    found = judge([path])

    assert found.broken is not None
    assert found.broken.line == 1
