"""Builds `.venv` from a lock file, when the lock has changed. Standard library only: it runs before anything is there."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parents[2]
OLDEST = (3, 11)
NEWER = ("python3.14", "python3.13", "python3.12", "python3.11")

# What would send pip's packages past the environment, or refuse to fill it.
_MISLEADING = {
    "PIP_TARGET",
    "PIP_PREFIX",
    "PIP_ROOT",
    "PIP_REQUIRE_VIRTUALENV",
    "PIP_PYTHON",
    "PYTHONHOME",
    "PYTHONPATH",
    "VIRTUAL_ENV",
    "__PYVENV_LAUNCHER__",
}


class SetupFailed(Exception):
    """The message is one sentence saying what to do about it."""


def say(line: str, output: TextIO | None = None) -> None:
    """Print at once, or write into this file, so that a slow step is announced before it starts."""
    output = output or sys.stdout
    output.write(line)
    output.flush()


@contextmanager
def step(title: str) -> Iterator[None]:
    """Announce a step, and say how long it took; others may go on beside it."""
    say(f"{title} …\n")
    started = time.monotonic()
    try:
        yield
    except BaseException:
        say(f"{title}: failed\n")
        raise
    say(f"{title}: {time.monotonic() - started:.1f} s\n")


def command(
    arguments: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str]
) -> None:
    """Run quietly; show all of its output when it fails."""
    done = subprocess.run(
        [str(argument) for argument in arguments],
        cwd=cwd,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if done.returncode:
        raise SetupFailed(
            f"{done.stdout.rstrip()}\n{Path(arguments[0]).name} failed; its output stands above."
        )


def require_python() -> None:
    """Go on with a Python that is new enough, or say what to install."""
    # Linters take this for dead code; it is there for whoever has an older Python.
    if sys.version_info < OLDEST:
        for name in NEWER:
            found = shutil.which(name)
            if found:
                os.execv(found, [found, *sys.argv])
        raise SetupFailed(
            f"Python 3.11 or newer is needed and python3 is {sys.version.split()[0]}: "
            "install a newer one, then run `make PYTHON=/path/to/python3.11 …`."
        )


def require_venv() -> None:
    """Debian packs the modules that make an environment apart from Python."""
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        raise SetupFailed(
            "Python's venv module is missing: install it, on Debian with `apt install python3-venv`."
        ) from None


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without what would keep pip from filling `.venv`; index and proxy settings stay."""
    kept = {name: value for name, value in environ.items() if name not in _MISLEADING}
    # A configuration file may say these too; a variable set to nothing-doing wins over it.
    return kept | {
        "PIP_USER": "0",
        "PIP_REQUIRE_VIRTUALENV": "0",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
    }


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Hold this lock file, so that two starts at once do the work once."""
    path.parent.mkdir(exist_ok=True)
    with open(path, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with step("waiting for another start that is setting this up"):
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def digest(*parts: bytes) -> str:
    """What a stamp file holds: it differs as soon as one part does."""
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def is_current(stamp: Path, expected: str) -> bool:
    """Whether the stamp says that this very set-up has been completed."""
    return stamp.is_file() and stamp.read_text() == expected


def python_environment(root: Path, lock: str) -> Path:
    """The path of the Python that has everything in the lock file; builds or completes `.venv` when it lacks something."""
    folder = root / ".venv"
    python = folder / "bin" / "python"
    requirements = root / lock
    expected = digest(requirements.read_bytes(), bytes(sys.version_info[:2]))
    stamp = folder / f".{requirements.stem}.stamp"
    if is_current(stamp, expected) and python.exists():
        return python

    require_venv()
    env = clean_environment(os.environ)
    with only_one(folder / ".lock"):
        if is_current(stamp, expected) and python.exists():
            return python
        if not works(python):
            with step("making .venv"):
                empty(folder)
                command([sys.executable, "-m", "venv", folder], cwd=root, env=env)
        with step(f"installing {lock}"):
            command(
                [
                    python,
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    "--require-hashes",
                    "--only-binary=:all:",
                    "-r",
                    requirements,
                ],
                cwd=root,
                env=env,
            )
        stamp.write_text(expected)
    return python


def works(python: Path) -> bool:
    """Whether this environment is of the Python that runs us and has pip: a system upgrade leaves others behind."""
    if not python.exists():
        return False
    probe = f"import sys, pip; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    return subprocess.run([python, "-c", probe], capture_output=True).returncode == 0


def empty(folder: Path) -> None:
    """Remove what is in the folder, but for the locks: somebody holds them."""
    for entry in folder.iterdir():
        if entry.name.endswith("lock"):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
