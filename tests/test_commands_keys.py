"""The commands for keys, grants and revocations, as their user meets them."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from collab.auth.permissions import READ, WRITE, Principal
from collab.auth.registry import Registry
from collab.auth.shelves.sqlite import FILE, SqliteShelf
from collab.cli import main


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Done]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def run(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """A command on the test's data directory."""

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["collab", *arguments, "--data", str(data)])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return Done(code, out, err)

    return run


@pytest.fixture
def made(run: Run) -> dict[str, Any]:
    """A key of ci."""
    found: dict[str, Any] = run(
        "key", "create", "--principal", "ci", "--room", "notes=read,write", "--json"
    ).json
    return found


def test_a_key_is_shown_once_and_never_again(run: Run) -> None:
    done = run("key", "create", "--principal", "ci", "--room", "notes=read")
    secret = done.out.strip().partition(".")[2]

    assert done.code == 0
    assert done.out.startswith("ck_")
    assert len(secret) == 43
    assert secret not in run("key", "list").out
    assert secret not in run("key", "list", "--json").out


def test_a_key_says_whose_it_is_and_what_it_may(run: Run) -> None:
    made = run(
        *("key", "create", "--json", "--principal", "bot", "--tenant", "acme"),
        *("--kind", "agent", "--name", "Scribe", "--days", "2"),
        *(
            "--room",
            "a=b=read, write",
            "--prefix",
            "team/=presence",
            "--prefix",
            "=read",
        ),
    ).json

    assert made["grants"] == [
        {"room": "a=b", "operations": ["read", "write"]},
        {"prefix": "team/", "operations": ["presence"]},
        {"prefix": "", "operations": ["read"]},
    ]
    assert (made["tenant"], made["kind"], made["name"]) == ("acme", "agent", "Scribe")
    assert made["expires"] - made["created"] == pytest.approx(2 * 86_400)


def test_a_key_without_end_is_asked_for_in_so_many_words(run: Run) -> None:
    limited = run("key", "create", "--json", "--principal", "ci", "--room", "r=read")
    endless = run(
        "key",
        "create",
        "--json",
        "--principal",
        "ci",
        "--room",
        "r=read",
        "--days",
        "0",
    )

    assert limited.json["expires"] is not None
    assert endless.json["expires"] is None


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), "--room"),
        (("--room", "notes"), "notes=read,write"),
        (("--room", "notes=fly"), "fly"),
        (("--room", "notes=*"), "'*'"),
        (("--room", "r=read", "--days", "-1"), "days"),
    ],
)
def test_a_key_that_makes_no_sense_is_refused_with_the_reason(
    run: Run, arguments: tuple[str, ...], named: str
) -> None:
    done = run("key", "create", "--principal", "ci", *arguments)

    assert done.code == 2
    assert named in done.err
    assert "Traceback" not in done.err
    assert run("key", "list", "--json").out in ("", "[]\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--prefix", "team=read"),
        ("--room", "=read"),
        ("--room", "a\nb=read"),
        ("--room", "notes="),
    ],
)
def test_a_grant_for_no_room_is_refused(run: Run, arguments: tuple[str, ...]) -> None:
    done = run("key", "create", "--principal", "ci", *arguments)

    assert done.code == 1
    assert done.err.startswith("collab: ")


def test_a_key_says_what_it_does_and_for_whom(run: Run) -> None:
    made = run(
        *("key", "create", "--json", "--principal", "bot", "--kind", "agent"),
        *("--role", "reviewer", "--on-behalf-of", "ada", "--room", "notes=read"),
    ).json

    (listed,) = run("key", "list", "--json").json
    assert (made["role"], made["on_behalf_of"]) == ("reviewer", "ada")
    assert listed == {name: made[name] for name in listed}
    assert "bot, agent, reviewer, on behalf of ada" in run("key", "list").out


@pytest.mark.parametrize(
    ("flag", "value", "why"),
    [
        ("--role", "a\nb", "a role must not hold control characters"),
        ("--role", "x" * 257, "a role must not be longer than 256 bytes"),
        ("--role", " ", "a role must not be empty or blank"),
        ("--on-behalf-of", "a\x1fb", "must not hold control characters"),
        ("--on-behalf-of", "x" * 257, "must not be longer than 256 bytes"),
        ("--on-behalf-of", "anonymous", "anonymous is nobody's id"),
    ],
)
def test_a_role_or_person_that_is_none_is_refused(
    run: Run, flag: str, value: str, why: str
) -> None:
    done = run("key", "create", "--principal", "b", "--room", "r=read", flag, value)

    assert done.code == 1
    assert why in done.err
    assert run("key", "list", "--json").json == []


def test_the_list_fits_a_terminal(run: Run) -> None:
    run(
        *("key", "create", "--principal", "reviewer@agents.example.com"),
        *("--tenant", "acme", "--name", "The Reviewer", "--role", "monitor"),
        *("--on-behalf-of", "ada@example.com", "--prefix", "=read,presence"),
        *("--prefix", "reports/2026/=read,write,presence,history"),
    )

    lines = run("key", "list").out.splitlines()

    assert max(map(len, lines)) <= 80
    assert [line[:3] for line in lines[1:]] == ["   "] * (len(lines) - 1)


def test_the_list_shows_whose_a_key_is_and_what_it_may(
    run: Run, made: dict[str, Any]
) -> None:
    who, may, until = run("key", "list").out.splitlines()

    assert who == f"{made['id']}  ci, service"
    assert may.strip() == "may notes read,write"
    assert until.strip().startswith("until 20")
    assert run("key", "list", "--tenant", "acme", "--json").json == []
    assert run("key", "list", "--tenant", "", "--json").json[0]["id"] == made["id"]


def test_a_revoked_key_is_good_for_nothing(
    run: Run, made: dict[str, Any], data: Path
) -> None:
    done = run("key", "revoke", made["id"])

    assert done.code == 0
    with Registry(SqliteShelf(data / FILE)) as registry:
        holder = registry.holder(made["key"])
        assert holder is not None
        assert registry.is_revoked(holder)
    assert "revoked" in run("key", "list").out


def test_rotation_gives_a_new_key_and_keeps_the_old_for_a_while(
    run: Run, made: dict[str, Any], data: Path
) -> None:
    new = run("key", "rotate", made["id"], "--overlap-hours", "1", "--json").json

    with Registry(SqliteShelf(data / FILE)) as registry:
        old = registry.holder(made["key"])
        assert old is not None
        assert not registry.is_revoked(old)
        assert registry.holder(new["key"]) is not None
        assert old.expires < new["created"] + 3601
    assert f"replaced by {new['id']}" in run("key", "list").out


@pytest.mark.parametrize("verb", ["revoke", "rotate"])
def test_an_unknown_key_is_an_error(run: Run, made: dict[str, Any], verb: str) -> None:
    done = run("key", verb, "ck_0000000000000000")

    assert done.code == 1
    assert "no such key" in done.err


def test_grants_are_added_listed_and_removed(run: Run, data: Path) -> None:
    added = run(
        "grant", "add", "ada", "--room", "notes=read,write", "--prefix", "team/=read"
    )

    assert added.code == 0
    with Registry(SqliteShelf(data / FILE)) as registry:
        assert registry.granted(Principal("ada"), "notes") == READ | WRITE
        assert registry.granted(Principal("ada"), "team/x") == READ
    assert len(run("grant", "list", "--principal", "ada", "--json").json) == 2
    assert run("grant", "list", "--principal", "eve", "--json").json == []
    assert run("grant", "remove", "ada", "--room", "notes").code == 0
    assert run("grant", "remove", "ada", "--prefix", "team/").code == 0
    assert run("grant", "list", "--json").json == []


def test_of_several_grants_all_are_made_or_none(run: Run) -> None:
    done = run("grant", "add", "ada", "--room", "notes=read", "--prefix", "team=read")

    assert done.code == 1
    assert "a prefix ends in a slash" in done.err
    assert run("grant", "add", "bob", "--room", "notes=read").code == 0
    assert run("grant", "list", "--principal", "ada", "--json").json == []


def test_a_grant_that_is_not_there_cannot_be_removed(run: Run, data: Path) -> None:
    data.mkdir()

    assert run("grant", "remove", "ada", "--room", "notes").code == 1
    assert run("grant", "remove", "ada").code == 2
    assert run("grant", "remove", "ada", "--room", "a", "--prefix", "a/").code == 2


def test_a_principal_is_revoked_with_its_keys_and_restored(
    run: Run, made: dict[str, Any]
) -> None:
    revoked = run("revoke", "ci", "--json")
    listed = run("revoke", "--list", "--json")
    restored = run("revoke", "ci", "--undo", "--json")

    assert revoked.json == {
        "principal": "ci",
        "tenant": None,
        "revoked": True,
        "keys": 1,
    }
    assert [each["principal"] for each in listed.json] == ["ci"]
    assert restored.json["keys"] == 1
    assert run("revoke", "--list", "--json").json == []
    assert run("key", "list", "--json").json[0]["revoked"] is None


def test_a_token_is_revoked_by_its_id_in_every_tenant_or_in_one(
    run: Run, data: Path
) -> None:
    data.mkdir()

    everywhere = run("revoke", "--token", "jti-1", "--days", "30")
    in_one = run("revoke", "--token", "jti-2", "--tenant", "acme")

    assert (everywhere.code, in_one.code) == (0, 0)
    with Registry(SqliteShelf(data / FILE)) as registry:
        assert registry.is_revoked(Principal("ada", token="jti-1"))
        assert registry.is_revoked(Principal("ada", "acme", token="jti-2"))
        assert not registry.is_revoked(Principal("ada", token="jti-2"))
        longest = max(each.expires - each.made for each in registry.revocations())
        assert longest == pytest.approx(30 * 86_400)
    assert "jti-1" in run("revoke", "--list").out
    assert run("revoke", "--token", "jti-1", "--undo").code == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("revoke",), 2),
        (("revoke", "ada", "--token", "x"), 2),
        (("revoke", "ada", "--undo"), 1),
        (("revoke", "anonymous"), 1),
        (("revoke", "ada", "--days", "-1"), 2),
    ],
)
def test_a_revocation_says_whom(
    run: Run, data: Path, arguments: tuple[str, ...], code: int
) -> None:
    data.mkdir()

    done = run(*arguments)

    assert done.code == code
    assert done.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("key", "list"),
        ("key", "revoke", "x"),
        ("grant", "list"),
        ("revoke", "ada"),
        ("revoke", "--list"),
    ],
)
def test_a_directory_that_is_not_there_is_not_made_by_mistake(
    run: Run, data: Path, arguments: tuple[str, ...]
) -> None:
    done = run(*arguments)

    assert done.code == 2
    assert str(data) in done.err
    assert not data.exists()


def test_a_secret_that_is_handed_in_by_mistake_is_not_repeated(
    run: Run, made: dict[str, Any]
) -> None:
    done = run("revoke", "--token", made["key"])

    assert done.code == 0
    assert made["key"].partition(".")[2] not in done.out + done.err
    assert run("key", "list", "--json").json[0]["revoked"] is not None


def test_the_file_is_for_its_owner_alone(run: Run, made: object, data: Path) -> None:
    assert stat.S_IMODE((data / FILE).stat().st_mode) == 0o600
