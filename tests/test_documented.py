"""What an operator or the writer of a client can meet is written down, and as the code has it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tables

from collab import errors
from collab.protocol import guard, yjs
from collab.settings import Settings

ROOT = Path(__file__).parents[1]


REFERENCE = {
    path: (ROOT / path).read_text()
    for path in ("ARCHITECTURE.md", "PROTOCOL.md", "README.md", "deploy/README.md")
}
ALL = (ROOT / "SECURITY.md").read_text() + "".join(REFERENCE.values())


@pytest.mark.parametrize("name", tables.TABLES)
def test_the_tables_of_the_documents_are_as_the_code_has_it(name: str) -> None:
    document, make = tables.TABLES[name]

    written = tables.between(name).search(REFERENCE[document])

    assert written is not None, f"{document} has no place for {name}"
    assert written[0] == make(), (
        f"run `make fix`: the table of {name} in {document} is out of date"
    )


def test_every_module_says_its_job_in_a_line() -> None:
    silent = [
        str(path)
        for path in (ROOT / "collab").rglob("*.py")
        if path.name != "__init__.py" and not tables.job(path)
    ]

    assert silent == []


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_written_down(name: str) -> None:
    assert f"| `{name}` |" in REFERENCE["deploy/README.md"]


@pytest.mark.parametrize("name", [name for name, _ in tables.exposed()])
def test_every_metric_is_written_down(name: str) -> None:
    assert f"| `{name}` |" in REFERENCE["deploy/README.md"]


@pytest.mark.parametrize(
    "error", list(tables.family(errors.CollabError)), ids=lambda error: error.__name__
)
def test_every_error_and_its_close_code_are_written_down(
    error: type[errors.CollabError],
) -> None:
    assert (
        f"| {error.close_code} | `{error.code}` | {error.http_status} |"
        in REFERENCE["PROTOCOL.md"]
    )


def test_every_variable_in_the_documents_is_a_setting() -> None:
    named = set(re.findall(r"COLLAB_([A-Z_]+[A-Z])", ALL))

    assert {name.lower() for name in named} <= Settings.model_fields.keys()


def test_every_link_between_the_documents_leads_somewhere() -> None:
    dead = []
    for document in [*ROOT.glob("*.md"), *ROOT.glob("*/README.md")]:
        text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
            path, _, anchor = target.partition("#")
            found = (document.parent / path) if path else document
            if not found.exists() or (
                anchor and anchor not in anchors(found.read_text())
            ):
                dead.append(f"{document.name}: {target}")

    assert dead == []


def anchors(text: str) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in headings
    }


def test_the_keystroke_written_out_in_the_protocol_is_one() -> None:
    lines = re.findall(
        r"^    ((?:[0-9a-f]{2} )+) {2}", REFERENCE["PROTOCOL.md"], flags=re.MULTILINE
    )

    (message,) = yjs.decode(bytes.fromhex("".join(lines)))

    assert isinstance(message, yjs.Update)
    assert guard.check(message.update, guard.Known()) == [(1, 0, 1)]


def test_every_flag_that_the_documents_give_to_serve_is_a_setting() -> None:
    texts = [ALL, (ROOT / "deploy" / "systemd" / "collab.service").read_text()]

    given = set(
        re.findall(
            r"--([a-z-]+)",
            " ".join(re.findall(r"collab serve .*|ARGS=\".*", "\n".join(texts))),
        )
    )

    assert {"port", "data"} <= given
    assert {flag.replace("-", "_") for flag in given} <= Settings.model_fields.keys()
