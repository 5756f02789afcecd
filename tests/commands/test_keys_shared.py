"""The commands for keys, grants and revocations where many replicas share them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from services import Postgres, Redis

from collab.auth.permissions import READ, Principal
from collab.auth.registry import Registry
from collab.auth.shelves.base import Shelf
from collab.auth.shelves.postgres import PostgresShelf
from collab.auth.shelves.redis import RedisShelf
from collab.cli import main
from collab.connection import endpoint

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with Redis(password="secret") as server:
        yield server


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["collab", *arguments])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        return (code, *capsys.readouterr())

    return run


@pytest.fixture
def password(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_text("secret\n")
    return file


@pytest.mark.parametrize("kind", ["redis", "postgres"])
def test_what_a_command_says_is_what_every_replica_reads(
    kind: str, run: Run, tmp_path: Path, password: Path, request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue(kind)
    shelf: Shelf
    if kind == "redis":
        way = ["--redis", server.url, "--redis-password-file", str(password)]
        way += ["--cluster", "said"]
        shelf = RedisShelf(endpoint(server.url, password_file=password), "said")
    else:
        dsn = server.new_dsn()
        way, shelf = ["--postgres", dsn], PostgresShelf(dsn)
    way += ["--data", str(tmp_path / "data")]
    code, key, _ = run(
        *("key", "create", "--principal", "ci", "--room", "notes=read", *way)
    )
    assert code == 0

    with Registry(shelf) as registry:
        holder = registry.holder(key.strip())
        assert holder is not None
        assert run("grant", "add", "ada", "--room", "notes=read", *way)[0] == 0
        assert run("revoke", "ci", *way)[0] == 0
        registry.refresh()

        assert registry.is_revoked(holder)
        assert registry.granted(Principal("ada"), "notes") == READ
    listed = run("key", "list", "--json", *way)[1]
    assert json.loads(listed)[0]["revoked"] is not None
    assert key.strip().partition(".")[2] not in listed
    lines = (tmp_path / "data" / "audit.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == [
        *("begin", "key.create", "grant", "revoke")
    ]


def test_where_the_replicas_are_may_stand_in_the_environment_or_a_file(
    run: Run,
    tmp_path: Path,
    password: Path,
    redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(
        f'redis_password_file = "{password}"\ncluster = "written"\nhost = "0.0.0.0"\n'
    )
    monkeypatch.setenv("COLLAB_REDIS", redis.url)
    monkeypatch.setenv("COLLAB_DATA", str(tmp_path / "data"))

    code, _, _ = run("grant", "add", "ada", "--room", "r=read", "--config", str(file))

    assert code == 0
    with Registry(
        RedisShelf(endpoint(redis.url, password_file=password), "written")
    ) as registry:
        assert len(registry.grants()) == 1


def test_a_list_needs_no_data_directory_where_the_records_are_elsewhere(
    run: Run, tmp_path: Path, password: Path, redis: Redis
) -> None:
    data = tmp_path / "none"

    code, out, _ = run(
        *("key", "list", "--json", "--redis", redis.url, "--data", str(data)),
        *("--redis-password-file", str(password), "--cluster", "nobody"),
    )

    assert (code, json.loads(out)) == (0, [])
    assert not data.exists()


@pytest.mark.parametrize(
    ("way", "code"),
    [
        (("--redis", "redis://127.0.0.1:1/0"), 1),
        (("--postgres", "postgresql://collab@127.0.0.1:1/x"), 1),
        (("--postgres", "postgresql://collab:hush@127.0.0.1:1/x?y=z"), 2),
        (("--postgres", "postgresql://collab@127.0.0.1:1/x?y=z"), 1),
        (("--redis", "http://user:hush@nowhere"), 2),
        (("--postgres", "nonsense hush"), 2),
        (("--store", "memory"), 2),
        (("--store", "redis"), 2),
    ],
)
def test_what_cannot_be_reached_is_one_sentence(
    run: Run, tmp_path: Path, way: tuple[str, ...], code: int
) -> None:
    done = run("revoke", "ada", *way, "--data", str(tmp_path / "data"))

    assert done[0] == code
    assert done[2].startswith("collab: ")
    assert len(done[2].splitlines()) == 1
    assert "hush" not in done[2]
    assert not (tmp_path / "data").exists()


def test_a_wrong_password_is_said_to_be_one(
    run: Run, tmp_path: Path, redis: Redis
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("other")

    done = run("key", "list", "--redis", redis.url, "--redis-password-file", str(wrong))

    assert done[0] == 2
    assert "password" in done[2]
    assert "other" not in done[2]
