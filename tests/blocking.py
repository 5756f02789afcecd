"""Writes collab/sdk/blocking.pyi: what the blocking client looks like to a type checker, from the asynchronous one.

.venv/bin/python tests/blocking.py    # after a change to what an agent, a document or a turn can do
"""

from __future__ import annotations

import ast
import copy
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
SDK = ROOT / "collab" / "sdk"
STUB = SDK / "blocking.pyi"

# Class, the module that holds it, and attributes that are set when it is made.
FACES: dict[str, tuple[str, dict[str, str]]] = {
    "Agent": (
        "agent",
        {"base_url": "str", "name": "str", "kind": "Kind", "role": "str"},
    ),
    "Doc": ("doc", {"provider": "Provider"}),
    "Turn": (
        "turn",
        {
            "id": "str",
            "record": "TurnRecord | None",
        },
    ),
    "SectionEdit": ("turn", {}),
    "Changes": ("changes", {}),
    "History": ("history", {}),
    "Provider": ("provider", {"room": "str"}),
}
# What belongs to the loop's thread, or is there for other parts of the client.
HIDDEN = {
    "Agent": set(),
    "Doc": {"raw", "begin", "end"},
    "Turn": {"check", "done", "pace", "point", "show", "working"},
    "SectionEdit": set(),
    "Changes": {"aclose"},
    "History": set(),
    "Provider": {
        *("cancel_turn", "doc", "heard", "leave", "observe", "run", "send", "turn"),
    },
}
Method = ast.FunctionDef | ast.AsyncFunctionDef

_WORD = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")


class Module:
    """One module of the client, and where the names in it come from."""

    def __init__(self, name: str) -> None:
        self.tree = ast.parse((SDK / f"{name}.py").read_text())
        self.names: dict[str, str] = {}  # name → the module to import it from
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    self.names[alias.asname or alias.name] = node.module
        for node in self.tree.body:
            for defined in _defined(node):
                self.names[defined] = f"collab.sdk.{name}"

    def methods(self, of: str) -> Iterator[tuple[Module, Method]]:
        """Those of a class and of its bases within the client, each with its own module."""
        found = next(
            node
            for node in self.tree.body
            if isinstance(node, ast.ClassDef) and node.name == of
        )
        for node in found.body:
            if isinstance(node, Method):
                yield self, node
        for base in found.bases:
            origin = self.names.get(ast.unparse(base), "")
            if origin.startswith("collab.sdk."):
                yield from module(origin.rpartition(".")[2]).methods(ast.unparse(base))


@cache
def module(name: str) -> Module:
    return Module(name)


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return []


def blocking(annotation: str) -> str:
    """What stands for a type of the asynchronous client."""
    annotation = annotation.replace("AsyncIterable", "Iterable")
    annotation = annotation.replace("AsyncIterator", "Iterator")
    return _WORD.sub(
        lambda word: f"Blocking{word[0]}" if word[0] in FACES else word[0], annotation
    )


class Stub:
    """The text of the stub while it grows, and what it must import."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.origins: dict[str, str] = {}
        self.imports: dict[str, set[str]] = {
            "collections.abc": {"Awaitable", "Callable"},
            "types": {"TracebackType"},
            "typing": {"Self", "TypeVar"},
        }

    def note(self, annotation: str, module: Module) -> str:
        """Import what it names, under another name where two modules call different things the same."""

        def known(word: re.Match[str]) -> str:
            name = word[0]
            if name in ("Iterable", "Iterator"):
                self.imports["collections.abc"].add(name)
            if name not in module.names:
                return name
            origin = module.names[name]
            taken = self.origins.setdefault(name, origin) != origin
            shown = f"{origin.rpartition('.')[2].title()}{name}" if taken else name
            self.imports.setdefault(origin, set()).add(
                f"{name} as {shown}" if taken else name
            )
            return shown

        return _WORD.sub(known, annotation)

    def face(self, name: str) -> None:
        home, attributes = FACES[name]
        self.lines += ["", "", f"class Blocking{name}:"]
        for attribute, kind in attributes.items():
            shown = self.note(blocking(kind), module(home))
            self.lines.append(f"    {attribute}: {shown}")
        core = self.note(name, module(home))
        self.lines.append(
            f"    def run(self, function: Callable[[{core}], T | Awaitable[T]]) -> T: ..."
        )
        for where, method in module(home).methods(name):
            self.method(name, method, where)

    def method(
        self,
        face: str,
        method: Method,
        module: Module,
    ) -> None:
        name = method.name
        if name == "__aenter__":
            self.lines += [
                "    def __enter__(self) -> Self: ...",
                "    def __exit__(self, kind: type[BaseException] | None,"
                " error: BaseException | None, traceback: TracebackType | None)"
                " -> None: ...",
            ]
        elif name == "__anext__":
            assert method.returns is not None
            item = self.note(blocking(ast.unparse(method.returns)), module)
            self.imports["collections.abc"].add("Iterator")
            self.lines.append(f"    def __iter__(self) -> Iterator[{item}]: ...")
        elif not name.startswith("_") and name not in HIDDEN[face]:
            for decorator in method.decorator_list:
                self.lines.append(f"    @{ast.unparse(decorator)}")
            given = self.given(copy.deepcopy(method.args), module, face)
            self.lines.append(f"    def {name}({given})")
            assert method.returns is not None, name
            gives = self.note(blocking(ast.unparse(method.returns)), module)
            self.lines[-1] += f" -> {gives}: ..."

    def given(self, arguments: ast.arguments, module: Module, core: str) -> str:
        for argument in (*arguments.args, *arguments.kwonlyargs):
            if argument.annotation is not None:
                shown = blocking(ast.unparse(argument.annotation))
                # Functions are called on the loop's thread, with what lives there.
                shown = shown.replace("[[Self]", f"[[{core}]")
                shown = self.note(shown, module)
                argument.annotation = ast.parse(shown, mode="eval").body
        for defaults in (arguments.defaults, arguments.kw_defaults):
            defaults[:] = [
                None if default is None else ast.Constant(...) for default in defaults
            ]
        return ast.unparse(arguments)

    def text(self) -> str:
        head = [
            '"""The blocking client for type checkers: written by tests/blocking.py."""',
            "",
        ]
        for module, names in sorted(self.imports.items()):
            head.append(f"from {module} import {', '.join(sorted(names))}")
        return "\n".join([*head, "", 'T = TypeVar("T")', *self.lines, ""])


def written() -> str:
    """What the stub must say."""
    stub = Stub()
    for name in FACES:
        stub.face(name)
    return stub.text()


def shape(source: str) -> str:
    """What a stub means, in whatever order it imports."""
    tree = ast.parse(source)
    imports = sorted(
        f"{node.module}.{alias.name}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    )
    rest = [node for node in tree.body if not isinstance(node, ast.ImportFrom)]
    return "\n".join([*imports, *(ast.dump(node) for node in rest)])


def main() -> None:
    STUB.write_text(written())
    for arguments in (("check", "-q", "--select", "I", "--fix"), ("format", "-q")):
        ruff = Path(sys.executable).parent / "ruff"
        subprocess.run([ruff, *arguments, STUB], check=True)


if __name__ == "__main__":
    main()
