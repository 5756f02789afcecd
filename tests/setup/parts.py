"""The parts that are not Python's: npm packages from their lock files, and system packages from apt."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from environment import (
    SetupFailed,
    clean_environment,
    command,
    digest,
    is_current,
    only_one,
    step,
)

OLDEST_NODE = 20

# apt would start the services it installs; exit code 101 of this file forbids it.
POLICY = Path("/usr/sbin/policy-rc.d")
_INSTALL = """
set -e
policy="$1"
shift
if [ ! -e "$policy" ]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\\nexit 101\\n' > "$policy"
  chmod +x "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -q -o DPkg::Lock::Timeout=300 update
apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@"
"""


def require_node() -> None:
    """Node is a precondition: Debian's own is too old, so we do not choose where it comes from."""
    needed = f"Node {OLDEST_NODE} or newer with npm is needed for the tests"
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise SetupFailed(
            f"{needed} and {'node' if node is None else 'npm'} is not on the PATH: install it from nodejs.org."
        )
    version = subprocess.run(
        [node, "--version"], capture_output=True, text=True
    ).stdout.strip()
    major = re.match(r"v(\d+)", version)
    if major is None or int(major[1]) < OLDEST_NODE:
        raise SetupFailed(
            f"{needed} and {node} is {version or 'not working'}: install a newer one from nodejs.org."
        )


def npm_packages(folder: Path, lock: Path) -> None:
    """`npm ci` when the package's lock file has changed; our own lock is elsewhere, for npm removes its folder whole."""
    modules = folder / "node_modules"
    stamp = modules / ".stamp"
    expected = digest(
        (folder / "package-lock.json").read_bytes(),
        (folder / "package.json").read_bytes(),
    )
    if is_current(stamp, expected):
        return
    with only_one(lock):
        if is_current(stamp, expected):
            return
        with step(f"npm ci in {folder.name}"):
            command(
                ["npm", "ci", "--include=dev", "--no-audit", "--no-fund"],
                cwd=folder,
                env=clean_environment(os.environ),
            )
        stamp.write_text(expected)


def missing_packages(programs: Mapping[str, Sequence[str]]) -> list[str]:
    """What to install for these programs (program → Debian packages); SetupFailed where only a person can."""
    missing = [
        package
        for program, packages in programs.items()
        if shutil.which(program) is None
        for package in packages
    ]
    if missing and (as_root() is None or shutil.which("apt-get") is None):
        raise SetupFailed(_advice(missing))
    return missing


def system_packages(
    programs: Mapping[str, Sequence[str]], policy: Path = POLICY
) -> None:
    """Install what is missing of these programs, as root or by sudo without a password."""
    missing = missing_packages(programs)
    if not missing:
        return
    with step(f"apt-get install {' '.join(missing)}"):
        command(
            [*(as_root() or ()), "sh", "-c", _INSTALL, "sh", str(policy), *missing],
            cwd=Path("/"),
            env=os.environ,
        )
    if any(shutil.which(program) is None for program in programs):
        raise SetupFailed(_advice(missing))


def _advice(missing: Sequence[str]) -> str:
    return f"The tests need {', '.join(missing)}: install with `apt install {' '.join(missing)}`."


def as_root() -> Sequence[str] | None:
    """What to put before a command so that root runs it; None when we may not."""
    if os.geteuid() == 0:
        return ()
    sudo = shutil.which("sudo")
    if (
        sudo
        and subprocess.run([sudo, "-n", "true"], capture_output=True).returncode == 0
    ):
        return (sudo, "-n")
    return None
