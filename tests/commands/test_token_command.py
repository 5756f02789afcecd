"""`collab token`: what it prints opens a real server, and what no server would take it does not print."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import ROOT, Server, close_code
from websockets.asyncio.client import connect

from collab.auth.base import Credential
from collab.auth.permissions import PRESENCE, READ, WRITE
from collab.auth.signing import ALGORITHMS, FileKeys, read_keys
from collab.auth.tokens import Tokens


def token(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "collab", "token", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "key.json"
    assert token("--new-key", path).returncode == 0
    return path


@pytest.mark.anyio
async def test_a_printed_token_says_what_was_asked_for(key: Path):
    done = token(
        *("--sub", "alice", "--room", "notes", "--write", "--prefix", "team-a/=read"),
        *("--tenant", "acme", "--name", "Alice", "--kind", "agent"),
        *("--expires", "15m", "--key", key),
    )

    assert done.returncode == 0, done.stderr
    tokens = Tokens(FileKeys(read_keys(key, ALGORITHMS)))
    principal = await tokens.verify(Credential(done.stdout.strip()), "notes")
    assert principal is not None
    assert (principal.id, principal.tenant, principal.name, principal.kind) == (
        "alice",
        "acme",
        "Alice",
        "agent",
    )
    assert principal.operations("notes") == READ | WRITE | PRESENCE
    assert principal.operations("team-a/x") == READ
    assert 800 < principal.expires - time.time() <= 900
    assert principal.token


@pytest.mark.anyio
async def test_a_token_for_an_agent_says_on_whose_behalf_it_acts(key: Path):
    done = token(
        *("--sub", "alice", "--room", "notes", "--act", "reviewer"),
        *("--name", "Reviewer", "--role", "executor", "--key", key),
    )

    assert done.returncode == 0, done.stderr
    tokens = Tokens(FileKeys(read_keys(key, ALGORITHMS)))
    principal = await tokens.verify(Credential(done.stdout.strip()), "notes")
    assert principal is not None
    assert principal.stamp == {
        "id": "reviewer",
        "name": "Reviewer",
        "kind": "agent",
        "role": "executor",
        "on_behalf_of": "alice",
    }


def test_a_key_is_made_for_its_owner_only_and_signs_at_once(tmp_path: Path):
    path = tmp_path / "key.json"

    done = token("--new-key", path, "--sub", "alice", "--prefix", "", "--json")

    assert path.stat().st_mode & 0o777 == 0o600
    found = json.loads(done.stdout)
    assert found["claims"]["prefixes"] == {"": ["read", "presence"]}
    assert found["token"].count(".") == 2


def test_a_secret_signs_too(tmp_path: Path):
    path = tmp_path / "secret"
    path.write_text("0123456789abcdef0123456789abcdef")

    done = token("--sub", "alice", "--room", "notes", "--key", path)

    assert done.returncode == 0, done.stderr
    assert "0123456789abcdef" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--room", "notes"),
        ("--sub", "alice"),
        ("--sub", "alice", "--room", ""),
        ("--sub", "alice", "--prefix", "team"),
        ("--sub", "alice", "--room", "notes=own"),
        ("--sub", "alice", "--room", "notes", "--expires", "25h"),
        ("--sub", "alice", "--room", "notes", "--expires", "0"),
        ("--sub", "alice", "--room", "notes", "--expires", "soon"),
        ("--sub", "a\x1fb", "--room", "notes"),
    ],
)
def test_what_no_server_would_take_is_a_sentence(key: Path, arguments: tuple[str, ...]):
    done = token(*arguments, "--key", key)

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("collab: ")
    assert "Traceback" not in done.stderr


def test_a_key_is_needed(key: Path, tmp_path: Path):
    without = token("--sub", "alice", "--room", "notes")
    written_over = token("--new-key", key)

    assert (without.returncode, written_over.returncode) == (2, 2)
    assert "--key" in without.stderr
    assert "cannot write" in written_over.stderr


@pytest.mark.anyio
async def test_a_printed_token_opens_a_real_server(
    serve: Callable[..., Server], key: Path
):
    server = serve("--auth", "jwt", "--jwt-keys", str(key))
    done = token("--sub", "alice", "--room", "notes", "--key", key)
    headers = {"authorization": f"Bearer {done.stdout.strip()}"}

    async with connect(
        f"{server.address}/ws/notes", additional_headers=headers
    ) as socket:
        await socket.send(b"\x00\x00\x01\x00")  # what have you?
        assert (await socket.recv())[:2] == b"\x00\x01"
    async with connect(
        f"{server.address}/ws/other", additional_headers=headers
    ) as socket:
        assert await close_code(socket) == 4403
    async with connect(f"{server.address}/ws/notes") as socket:
        assert await close_code(socket) == 4401
    assert done.stdout.strip() not in server.logs()


@pytest.mark.anyio
async def test_a_link_brings_the_token_where_no_server_is_sent_it(key: Path):
    done = token(
        *("--sub", "alice", "--room", "my notes", "--key", key),
        *("--link", "http://127.0.0.1:8000/"),
    )

    page, _, shown = done.stdout.strip().partition("#token=")
    assert page == "http://127.0.0.1:8000/?room=my%20notes"
    tokens = Tokens(FileKeys(read_keys(key, ALGORITHMS)))
    assert await tokens.verify(Credential(shown), "my notes") is not None


@pytest.mark.anyio
async def test_the_public_half_of_a_key_checks_what_it_signs_and_signs_nothing(
    tmp_path: Path,
) -> None:
    key, half = tmp_path / "key.json", tmp_path / "public.json"

    made = token("--new-key", key, "--public")
    again = token("--key", key, "--public")
    half.write_text(made.stdout)
    signed = token("--sub", "alice", "--room", "notes", "--key", key).stdout.strip()
    refused = token("--sub", "alice", "--room", "notes", "--key", half)

    assert made.returncode == 0, made.stderr
    assert made.stdout == again.stdout
    assert json.loads(key.read_text())["d"] not in made.stdout
    principal = await Tokens(FileKeys(read_keys(half, ALGORITHMS))).verify(
        Credential(signed), "notes"
    )
    assert principal is not None
    assert (refused.returncode, refused.stdout) == (2, "")


def test_a_secret_has_no_public_half(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("0123456789abcdef0123456789abcdef")

    done = token("--key", path, "--public")

    assert done.returncode == 2
    assert "no public half" in done.stderr
    assert "0123456789" not in done.stdout + done.stderr
