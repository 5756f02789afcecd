"""What the documents hold that is made from the code: reference tables, and the playground's snippets.

Run it to write them; `tests/test_documented.py` and `tests/test_readme.py` compare.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from collab import errors  # noqa: E402
from collab.audit.audit import EVENTS  # noqa: E402
from collab.metrics import Metrics  # noqa: E402
from collab.settings import Settings  # noqa: E402


def settings() -> str:
    """Every setting; its flag, variable and TOML key follow from the name."""
    return table(
        ("setting", "default", "meaning"),
        (
            (f"`{name}`", quoted(shown(field.default)), field.description)
            for name, field in Settings.model_fields.items()
        ),
    )


def quoted(text: str) -> str:
    return f"`{text}`" if text else ""


def shown(default: object) -> str:
    match default:
        case None:
            return ""
        case bool():
            return str(default).lower()
        case float() if default.is_integer():
            return str(int(default))
        case tuple():
            return "[" + ", ".join(map(str, default)) + "]"
        case _:
            return str(default)


def metrics() -> str:
    """Every metric as `/metrics` names it."""
    return table(
        ("metric", "meaning"), ((f"`{name}`", meaning) for name, meaning in exposed())
    )


def exposed() -> Iterator[tuple[str, str]]:
    """Name and help of every metric, with the label where it has one."""
    registered: Any = Metrics()
    for name, counter in vars(registered).items():
        if isinstance(counter, dict) and name != "gauges":
            # A labelled metric shows its labels only once it has a sample.
            counter[("…", "…") if name == "requests" else "…"] += 1
    for family in registered.collect():
        suffix = "_total" if family.type == "counter" else ""
        labels = sorted(
            {label for sample in family.samples for label in sample.labels} - {"le"}
        )
        shape = "{" + ",".join(labels) + "}" if labels else ""
        yield (
            family.name + suffix + shape,
            family.documentation
            + (" (histogram)" if family.type == "histogram" else ""),
        )


def events() -> str:
    """Every event of the audit log."""
    return table(
        ("event", "meaning"),
        ((f"`{name}`", meaning) for name, meaning in EVENTS.items()),
    )


def error_codes() -> str:
    """Every error a peer can meet, by close code."""
    found = sorted(
        family(errors.CollabError),
        key=lambda error: (error.close_code < 4000, error.close_code, error.code),
    )
    return table(
        ("close", "code", "HTTP", "means", "come back?"),
        (
            (
                error.close_code,
                f"`{error.code}`",
                error.http_status,
                first_line(error),
                advice(error.close_code),
            )
            for error in found
        ),
    )


def family(error: type[errors.CollabError]) -> Iterator[type[errors.CollabError]]:
    """The class and all below it."""
    yield error
    for child in error.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from family(child)


def first_line(error: type[errors.CollabError]) -> str:
    if error is errors.CollabError:
        return "A bug of the server: it is in its log, with a traceback."
    return " ".join((error.__doc__ or "").split("\n\n")[0].split())


def advice(close_code: int) -> str:
    """What a client should do after this code."""
    if close_code == 4429:
        return "not before the reason says"
    if 4400 <= close_code <= 4499 or close_code in (1002, 1003, 1009):
        return "not until something changes"
    return "later"


def rules() -> str:
    """The words of `collab_refusals_total{rule}`: every constant given to Refused or TooLarge."""
    words: set[str] = set()
    for path in (ROOT / "collab").rglob("*.py"):
        if "sdk" in path.parts:  # its Refused is another
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("Refused", "TooLarge")
            ):
                words |= {
                    word.value for word in node.args if isinstance(word, ast.Constant)
                }
    return ", ".join(f"`{word}`" for word in sorted(words)) + "\n"


def clients() -> str:
    """The stock clients that were tried, as `tests/compat/table.py` writes them from the tests."""
    lines = (
        (ROOT / "tests" / "compat" / "TABLE.md").read_text().splitlines(keepends=True)
    )
    return "".join(line for line in lines if line.startswith("|"))


def table(head: tuple[str, ...], rows: Iterator[tuple[object, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |\n"
        for line in lines
    )


def modules() -> str:
    """Every module with its job, as it says itself."""
    package = ROOT / "collab"
    return table(
        ("module", "job"),
        (
            (f"`{path.relative_to(package)}`", job(path))
            for path in sorted(package.rglob("*.py"))
            if path.name != "__init__.py"
        ),
    )


def job(path: Path) -> str:
    """The first sentence of a module."""
    said = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(said.split("\n\n")[0].split())


TABLES: dict[str, tuple[str, Callable[[], str]]] = {
    "modules": ("ARCHITECTURE.md", modules),
    "settings": ("deploy/README.md", settings),
    "metrics": ("deploy/README.md", metrics),
    "events": ("deploy/README.md", events),
    "errors": ("PROTOCOL.md", error_codes),
    "rules": ("PROTOCOL.md", rules),
    "clients": ("README.md", clients),
}


def snippet(name: str) -> str:
    """A snippet of the playground, made out for the room that it opens first."""
    text = (ROOT / "client-js" / "src" / "page" / "snippets" / name).read_text()
    return text.replace("SOCKET_ADDRESS", "ws://127.0.0.1:8000/ws").replace(
        "ROOM_PATH", "playground"
    )


SNIPPETS = {"browser": "browser.js.txt", "python": "python.py.txt"}


def between(name: str) -> re.Pattern[str]:
    """Where in a document the table stands."""
    return re.compile(
        rf"(?<=<!-- {name}, from the code by `make fix` -->\n\n).*?(?=\n<!-- end of {name} -->)",
        re.DOTALL,
    )


def main() -> None:
    """Write every table into its document."""
    for name, (document, make) in TABLES.items():
        path = ROOT / document
        written, count = between(name).subn(
            lambda _, make=make: make(), path.read_text()
        )
        if count != 1:
            sys.exit(f"{document} has no place for the table of {name}")
        path.write_text(written)
    readme = ROOT / "README.md"
    for name, file in SNIPPETS.items():
        block = re.compile(
            rf"(<!-- example: {name} -->\n```\w+\n).*?(?=```)", re.DOTALL
        )
        readme.write_text(
            block.sub(
                lambda match, file=file: match[1] + snippet(file), readme.read_text()
            )
        )


if __name__ == "__main__":
    main()
