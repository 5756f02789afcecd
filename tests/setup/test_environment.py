"""The environment is built once, from the lock file, whatever the machine's settings say."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import environment
import pytest

BUILD = "import sys; from pathlib import Path; from environment import python_environment; print(python_environment(Path(sys.argv[1]), 'requirements.txt'))"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout without dependencies, in a folder with a space in its name."""
    root = tmp_path / "a checkout"
    root.mkdir()
    (root / "requirements.txt").write_text("# nothing\n")
    return root


def start(root: Path, **settings: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, root],
        cwd=Path(environment.__file__).parent,
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_two_starts_at_once_build_one_environment_whatever_pip_is_told(
    checkout: Path, tmp_path: Path
) -> None:
    settings = {
        "PIP_USER": "1",
        "PIP_REQUIRE_VIRTUALENV": "1",
        "PIP_TARGET": str(tmp_path / "elsewhere"),
        "PYTHONPATH": "",
    }

    starts = [start(checkout, **settings), start(checkout, **settings)]
    outputs = [process.communicate()[0] for process in starts]

    assert [process.returncode for process in starts] == [0, 0], outputs
    assert sum("making .venv" in output for output in outputs) == 1
    assert sum("installing requirements.txt" in output for output in outputs) == 1
    assert (checkout / ".venv" / "bin" / "python").exists()
    assert not (tmp_path / "elsewhere").exists()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout whose environment is complete, for tests that leave it so."""
    root = tmp_path_factory.mktemp("built")
    (root / "requirements.txt").write_text("# nothing\n")
    environment.python_environment(root, "requirements.txt")
    return root


def test_nothing_is_done_again_while_the_lock_file_stays_the_same(
    built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.python_environment(built, "requirements.txt")

    assert capsys.readouterr().out == ""


def test_a_changed_lock_file_is_installed_into_the_same_environment(
    built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = built / "requirements.txt"
    lock.write_text(lock.read_text() + "# still nothing\n")

    environment.python_environment(built, "requirements.txt")

    assert "making .venv" not in (output := capsys.readouterr().out)
    assert "installing requirements.txt" in output


def test_an_environment_that_does_not_run_is_made_again(
    built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python = built / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python3")

    environment.python_environment(built, "requirements.txt")

    assert "making .venv" in capsys.readouterr().out
    assert subprocess.run([python, "-c", ""]).returncode == 0


def test_an_install_that_fails_shows_what_pip_said_and_is_tried_again(
    built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (built / "wrong.txt").write_text("not a requirement\n")

    for _ in range(2):
        with pytest.raises(environment.SetupFailed, match="Invalid requirement"):
            environment.python_environment(built, "wrong.txt")

    assert capsys.readouterr().out.count("installing wrong.txt …") == 2


def test_a_missing_venv_module_is_one_sentence(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ensurepip", None)

    with pytest.raises(
        environment.SetupFailed, match=r"apt install python3-venv"
    ) as failure:
        environment.python_environment(checkout, "requirements.txt")

    assert "\n" not in str(failure.value)


def test_an_old_python_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    monkeypatch.setattr(shutil, "which", lambda name: None)

    with pytest.raises(environment.SetupFailed, match=r"3\.11 or newer") as failure:
        environment.require_python()

    assert "\n" not in str(failure.value)
