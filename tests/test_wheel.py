"""What `pip install .` gives: the same server, playground included, from any directory."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import httpx2
import pytest
from processes import eventually

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "collab" / "server" / "pages"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that has the wheel; its dependencies are those of these tests."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "--python",
            python,
            "install",
            "--quiet",
            "--no-deps",
            "--no-index",
            wheel,
        ],
        check=True,
    )
    found = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    )
    Path(found.stdout.strip(), "ours.pth").write_text(sysconfig.get_path("purelib"))
    return python.parent


@pytest.fixture
def server(installed: Path, tmp_path: Path) -> Iterator[str]:
    """The address of an installed server that runs far from the checkout."""
    process = subprocess.Popen(
        [installed / "collab", "serve", "--port", "0", "--data", tmp_path / "data"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process, process.stdout:
        for line in process.stdout:
            if address := re.search(r"http://127\.0\.0\.1:\d+", line):
                yield address[0]
                break
        else:
            pytest.fail("the server did not say where it listens")
        process.terminate()
        assert process.wait(30) == 0


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    assert {name.split("/")[0] for name in names} == {
        "collab",
        "collab-0.1.0.dist-info",
    }
    assert {"collab/py.typed", "collab-0.1.0.dist-info/licenses/LICENSE"} <= set(names)


def test_every_file_of_the_playground_is_in_the_wheel(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    assert {f"collab/server/pages/{path.name}" for path in PAGES.iterdir()} <= set(
        names
    )


def test_the_installed_command_knows_its_version(
    installed: Path, tmp_path: Path
) -> None:
    said = subprocess.run(
        [installed / "collab", "--version"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    ).stdout

    assert "0.1.0" in said


def test_the_installed_server_serves_the_playground(server: str) -> None:
    wanted = json.loads((PAGES / "manifest.json").read_text())["files"]

    served = {
        name: urlopen(f"{server}/static/{name}").read()
        for name in wanted
        if name != "index.html"
    }

    assert urlopen(server).read() == (PAGES / "index.html").read_bytes()
    assert served == {name: (PAGES / name).read_bytes() for name in served}


def test_the_installed_server_has_a_demo_agent(server: str) -> None:
    room = f"{server}/v1/rooms/r"
    with httpx2.Client() as client:
        client.post(f"{server}/v1/rooms", json={"name": "r"})
        came = client.post(f"{server}/playground/agent?room=r").status_code
        seen = eventually(
            lambda: bool(client.get(f"{room}/presence").json()["clients"])
        )

    assert (came, seen) == (202, True)
