"""npm's and apt's parts: only when missing or changed, never by starting a service, and in a sentence when impossible."""

from __future__ import annotations

import os
from pathlib import Path

import parts
import pytest
from environment import SetupFailed


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that comes first on the PATH."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def script(path: Path, *lines: str) -> None:
    path.write_text("\n".join(("#!/bin/sh", *lines, "")))
    path.chmod(0o755)


@pytest.fixture
def package(tmp_path: Path, programs: Path) -> Path:
    """An npm package, and an npm that notes each of its runs."""
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "package.json").write_text("{}")
    (folder / "package-lock.json").write_text("{}")
    script(
        programs / "npm",
        "rm -rf node_modules",
        "mkdir node_modules",
        f'echo "$@" >> "{tmp_path}/runs"',
    )
    return folder


def test_npm_installs_once_for_one_lock_file(package: Path, tmp_path: Path) -> None:
    for _ in range(2):
        parts.npm_packages(package, tmp_path / "npm.lock")

    assert (tmp_path / "runs").read_text() == "ci --include=dev --no-audit --no-fund\n"


def test_npm_installs_again_when_the_lock_file_changes(
    package: Path, tmp_path: Path
) -> None:
    parts.npm_packages(package, tmp_path / "npm.lock")
    (package / "package-lock.json").write_text('{"lockfileVersion": 3}')

    parts.npm_packages(package, tmp_path / "npm.lock")

    assert len((tmp_path / "runs").read_text().splitlines()) == 2


def test_an_old_node_is_one_sentence(programs: Path) -> None:
    script(programs / "node", "echo v18.20.4")
    script(programs / "npm")

    with pytest.raises(SetupFailed, match=r"Node 20 or newer .* v18\.20\.4") as failure:
        parts.require_node()

    assert "\n" not in str(failure.value)


def test_a_node_that_is_missing_is_one_sentence(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(programs))

    with pytest.raises(SetupFailed, match="node is not on the PATH"):
        parts.require_node()


def test_a_missing_program_is_installed_without_starting_services(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = tmp_path / "policy-rc.d"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    script(
        programs / "apt-get",
        'case "$*" in *" install "*) ;; *) exit 0 ;; esac',
        f'"{policy}"; echo "policy says $?" > "{tmp_path}/seen"',
        f'printf "#!/bin/sh\\n" > "{programs}/some-server"',
        f'chmod +x "{programs}/some-server"',
    )

    parts.system_packages({"some-server": ("some-package",)}, policy)

    assert (tmp_path / "seen").read_text() == "policy says 101\n"
    assert not policy.exists()


def test_a_missing_program_is_one_sentence_when_we_may_not_install(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    script(programs / "sudo", "exit 1")

    with pytest.raises(SetupFailed, match="apt install some-package") as failure:
        parts.system_packages({"some-server-that-is-missing": ("some-package",)})

    assert "\n" not in str(failure.value)


def test_what_is_there_is_not_installed(programs: Path) -> None:
    script(programs / "apt-get", "exit 1")
    script(programs / "some-server")

    parts.system_packages({"some-server": ("some-package",)})
