"""Imports point down: a module imports only from lower floors, and its own folder."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent / "collab"

FLOORS = {
    "__main__": 11,
    "cli": 10,
    "commands": 9,
    "server": 8,
    "replica": 7,
    "replicas": 6,
    "room": 5,
    "rendering": 5,
    "history": 5,
    "sdk": 5,
    "outbox": 4,
    "journal": 4,
    "audit": 4,
    "compaction": 4,
    "exclusion": 4,
    "awareness": 3,
    "document": 3,
    "protocol": 2,
    "store": 2,
    "bus": 2,
    "auth": 2,
    "connection": 1,
    "settings": 1,
    "names": 1,
    "turns": 1,
    "metrics": 1,
    "logs": 1,
    "errors": 0,
    "": 0,
}


def place(module: str) -> str:
    """`collab.store.sqlite` stands in `store`."""
    return module.split(".")[1] if "." in module else ""


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {
                f"{node.module}.{alias.name}"
                for alias in node.names
                if node.module == "collab"
            }
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] == "collab"}


def wrong(path: Path, names: set[str]) -> list[str]:
    here = path.relative_to(ROOT.parent).with_suffix("")
    own = here.parts[1].removesuffix(".py") if len(here.parts) > 1 else ""
    own = "" if own == "__init__" else own
    return [
        f"{here} imports {name}"
        for name in names
        # `import collab` gives the client's names to whoever asks for them.
        if (own, place(name)) != ("", "sdk")
        and place(name) != own
        and FLOORS.get(place(name), 99) >= FLOORS.get(own, -1)
    ]


def test_imports_point_down() -> None:
    found = [
        line
        for path in sorted(ROOT.rglob("*.py"))
        for line in wrong(path, imports(path))
    ]

    assert found == []


def test_every_module_has_a_floor() -> None:
    names = {
        path.relative_to(ROOT).parts[0].removesuffix(".py")
        for path in ROOT.rglob("*.py")
    }

    assert {name for name in names if name != "__init__"} <= FLOORS.keys()


def test_an_upward_import_is_found() -> None:
    assert wrong(ROOT / "room.py", {"collab.server.app"}) == [
        "collab/room imports collab.server.app"
    ]


def test_only_the_document_and_the_sdk_import_pycrdt() -> None:
    users = {
        path.relative_to(ROOT).parts[0]
        for path in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if (
            isinstance(node, ast.Import)
            and any(alias.name.split(".")[0] == "pycrdt" for alias in node.names)
        )
        or (
            isinstance(node, ast.ImportFrom)
            and (node.module or "").split(".")[0] == "pycrdt"
        )
    }

    assert users <= {"document", "sdk"}


def test_a_server_does_not_load_the_client() -> None:
    program = "import sys, collab.cli, collab.server.app; print(*sys.modules)"

    loaded = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT.parent,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()

    assert not [module for module in loaded if module.startswith("collab.sdk")]
