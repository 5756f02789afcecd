"""What the audit log tells: `audit verify`, `audit show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from collab.commands.base import EXIT_FOUND, AsJson, Data, group, show_json
from collab.errors import ConfigurationError

audit = group("audit", "The audit log: is it whole, and what does it tell.")

Files = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Files of one log, those moved away too; the one of the data directory when none is named."
    ),
]


@audit.command("verify")
def verify(
    files: Files = None,
    noted: Annotated[
        str, typer.Option(help="A head that was noted before: it must be in the chain.")
    ] = "",
    json: AsJson = False,
    data: Data = Path("data"),
) -> None:
    """Walk the chain of hashes. Exits with 3 and names the first line that does not fit. Works beside a server."""
    from collab.audit.chain import read_head
    from collab.audit.verdict import judge

    # First the head, then the file: a server may add lines in between, and never takes any away.
    head = read_head(data)
    chosen = _files(files, data)
    writes = head is not None and any(
        file.absolute() == Path(head.path) for file in chosen
    )
    found = judge(chosen, head if writes else None, noted=noted)
    broken = found.broken
    if json:
        show_json(
            {
                "is_whole": broken is None,
                "files": found.files,
                "lines": found.lines,
                "first_seq": found.first,
                "goes_on_from": found.previous,
                "last_seq": found.head.seq,
                "head": found.head.hash,
                "torn_lines": found.torn,
                "unfinished_bytes": found.unfinished,
                "broken": None
                if broken is None
                else {**broken._asdict(), "kind": str(broken.kind)},
            }
        )
    else:
        typer.echo(f"lines {found.first} to {found.head.seq} hold")
        if found.torn:
            typer.echo(f"torn by a crash, and said so: {found.torn}")
        if found.unfinished:
            typer.echo(f"the last line is not finished: {found.unfinished} bytes")
        typer.echo(f"head  {found.head.hash}")
        if broken is not None:
            where = f"at {broken.file} line {broken.line}: "
            typer.echo(
                "BROKEN: rewritten, the noted head is not in it"
                if broken.kind == "rewritten"
                else f"BROKEN {where}{broken.kind} (expected number {broken.seq})"
            )
    if broken is not None:
        raise typer.Exit(EXIT_FOUND)


@audit.command("show")
def show(
    files: Files = None,
    room: Annotated[str, typer.Option(help="Only this room.")] = "",
    principal: Annotated[str, typer.Option(help="Only this principal.")] = "",
    event: Annotated[str, typer.Option(help="Only this event.")] = "",
    since: Annotated[
        str, typer.Option(help="Only from this time on, such as 2026-11-22T10.")
    ] = "",
    json: AsJson = False,
    data: Data = Path("data"),
) -> None:
    """Lines that match, oldest first; with --json as they stand in the file, one object a line."""
    from collab.audit.verdict import events

    wanted = {"room": room, "event": event}
    for line in events(_files(files, data)):
        said = {name: str(line.get(name, "")) for name in ("time", "event", "room")}
        if any(value and said[name] != value for name, value in wanted.items()):
            continue
        if said["time"] < since or (principal and principal not in _principals(line)):
            continue
        if json:
            typer.echo(orjson.dumps(line).decode())
        else:
            details = orjson.dumps(line.get("details")).decode()
            typer.echo(
                f"{said['time']}  {said['event']:15} {line.get('principal', '')!s:24} {said['room']:24} {details}"
            )


def _principals(line: dict[str, Any]) -> set[str]:
    """Who a line is about: who did it, to whom, and all whose edits it counts."""
    told = line.get("details")
    details = told if isinstance(told, dict) else {}
    authors = (str(run[0]) for run in details.get("by", ()))
    return {str(line.get("principal")), str(details.get("subject")), *authors}


def _files(files: list[Path] | None, data: Path) -> list[Path]:
    from collab.audit.chain import read_head

    if files:
        return files
    head = read_head(data)
    if head is None or not head.path:
        raise ConfigurationError(
            f"{data} has no audit log; name its directory with --data, or the files"
        )
    return [Path(head.path)]
