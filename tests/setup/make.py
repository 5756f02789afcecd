"""What the verbs of the Makefile do: `make.py VERB ARGS…`. Standard library only."""

from __future__ import annotations

import os
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

from environment import (
    ROOT,
    SetupFailed,
    clean_environment,
    python_environment,
    require_python,
)
from parts import missing_packages, npm_packages, require_node, system_packages
from suite import Check, run_all

RUN, TEST = "requirements.txt", "requirements-test.txt"
NPM_FOLDERS = ("client-js", "tests/compat")
NPM_LOCK = ROOT / ".venv" / ".npm.lock"
# Twice the cores of a small machine: half of what the tests do is to wait for servers and for time to pass.
PROCESSES = "4"
PROGRAMS = {  # program → Debian packages
    "chromium-headless-shell": ("chromium-headless-shell",),
    # For the load client, and for a disk that fails on demand.
    "cc": ("gcc", "libc6-dev"),
    "redis-server": ("redis-server",),
    "haproxy": ("haproxy",),
    "nginx": ("nginx",),
    "faketime": ("faketime",),
    "ip": ("iproute2",),  # for cables to pull, where the account may
    "pg_ctlcluster": ("postgresql",),  # whose own programs are not on the PATH
}
FAST = (
    "tests/protocol",
    "tests/document",
    "tests/store/test_contract.py",
    *(
        f"tests/test_{name}.py"
        for name in ("awareness", "outbox", "room", "journal", "floors", "documented")
    ),
)


def run(*arguments: str) -> NoReturn:
    """The server from this checkout."""
    become(python_environment(ROOT, RUN), "-m", "collab", "serve", *arguments)


def setup() -> int:
    """Everything that `test` needs; what only a person can install is asked for first."""
    require_node()
    missing_packages(PROGRAMS)
    with ThreadPoolExecutor() as pool:
        steps: list[Future[Any]] = [
            pool.submit(system_packages, PROGRAMS),
            pool.submit(python_environment, ROOT, TEST),
            pool.submit(node_packages),
        ]
    for each in steps:
        each.result()
    return 0


def node_packages() -> None:
    """Those of every folder that has some."""
    for folder in NPM_FOLDERS:
        npm_packages(ROOT / folder, NPM_LOCK)


def test() -> int:
    """All there is."""
    setup()
    python = python_environment(ROOT, TEST)
    pytest = (python, "-m", "pytest", "-q", "--durations=10")
    npm = ("npm", "--silent")
    client = ROOT / "client-js"
    tests = (*pytest, "-n", PROCESSES, "--dist", "worksteal")
    return run_all(
        [Check("Python tests", tests, runner="pytest")],
        [
            Check(
                "browser tests", (*npm, "run", "test:browser"), client, runner="vitest"
            ),
            *looks(python),
            Check("TypeScript", (*npm, "run", "check"), client),
            Check("TypeScript tests", (*npm, "test"), client, runner="vitest"),
            Check("fresh bundle", (*npm, "run", "build:check"), client),
        ],
    )


def check() -> int:
    """Lint, types and the tests that start neither a server nor a browser."""
    python = python_environment(ROOT, TEST)
    fast: tuple[str | Path, ...] = (
        python,
        "-m",
        "pytest",
        "-q",
        "-n",
        "2",
        "-m",
        "not slow",
        *FAST,
    )
    return run_all([*looks(python), Check("fast tests", fast, runner="pytest")])


def looks(python: Path) -> list[Check]:
    """What judges the Python code without running it."""
    return [
        Check("format", (python, "-m", "ruff", "format", "--check")),
        Check("lint", (python, "-m", "ruff", "check")),
        Check("types", (python, "-m", "mypy")),
    ]


def fix() -> int:
    """Mend what the linters can, format, and write the generated tables of the documents."""
    python = python_environment(ROOT, TEST)
    require_node()
    npm_packages(ROOT / "client-js", NPM_LOCK)
    return run_all(
        [
            Check("tables", (python, "tests/tables.py")),
            Check("blocking", (python, "tests/blocking.py")),
            Check("lint", (python, "-m", "ruff", "check", "--fix")),
            Check("format", (python, "-m", "ruff", "format")),
            Check("TypeScript", ("npm", "--silent", "run", "fix"), ROOT / "client-js"),
        ]
    )


def fuzz(*arguments: str) -> NoReturn:
    """Mutated updates through the guard into native code."""
    become(python_environment(ROOT, TEST), "tests/fuzz/run.py", *arguments)


def bench(*arguments: str) -> NoReturn:
    """Us and our peers on this machine."""
    become(python_environment(ROOT, TEST), "loadtests/bench.py", *arguments)


def load(*arguments: str) -> NoReturn:
    """Many users at once, with a verdict."""
    become(python_environment(ROOT, TEST), "loadtests/swarm.py", *arguments)


def faults(*arguments: str) -> NoReturn:
    """Real servers through real faults, with many seeds; written down in FAULTS.md."""
    setup()
    become(
        python_environment(ROOT, TEST),
        *("tests/faults/play.py", "--report", "FAULTS.md", *arguments),
    )


def become(python: Path, *arguments: str) -> NoReturn:
    """Replace this process, so that signals reach the program itself."""
    os.chdir(ROOT)
    os.execve(python, [str(python), *arguments], clean_environment(os.environ))


VERBS = {
    verb.__name__: verb
    for verb in (run, setup, test, check, fix, fuzz, bench, load, faults)
}

if __name__ == "__main__":
    try:
        require_python()
        sys.exit(VERBS[sys.argv[1]](*sys.argv[2:]))
    except SetupFailed as failure:
        sys.exit(str(failure))
    except KeyboardInterrupt:
        sys.exit(130)
