"""`collab check`: what is wrong with the settings, and what to do."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from processes import Server
from test_cli import collab

from collab.commands.configuration import Verdict, shown, verdicts
from collab.settings import Settings, load


def found(setting: str, **flags: Any) -> list[Verdict]:
    return [each for each in verdicts(load(flags)) if each.setting == setting]


def states(setting: str, **flags: Any) -> list[str]:
    return [each.state for each in found(setting, **flags)]


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file with a good secret that only its owner reads."""
    path = tmp_path / "secret"
    path.write_bytes(os.urandom(48).hex().encode())
    path.chmod(0o600)
    return path


@pytest.fixture
def tls(tmp_path: Path) -> dict[str, Path]:
    return certificate(tmp_path, "tls", days=90)


def certificate(folder: Path, name: str, *, days: float) -> dict[str, Path]:
    issued = trustme.CA().issue_cert(
        "localhost", not_after=datetime.now(UTC) + timedelta(days=days)
    )
    paths = {
        "tls_certificate": folder / f"{name}.pem",
        "tls_key": folder / f"{name}.key",
    }
    issued.private_key_pem.write_to_path(str(paths["tls_key"]))
    for blob in issued.cert_chain_pems:
        blob.write_to_path(str(paths["tls_certificate"]), append=True)
    paths["tls_key"].chmod(0o600)
    return paths


def test_the_defaults_are_refused_by_nobody(tmp_path: Path) -> None:
    done = collab("check", "--json", "--data", str(tmp_path / "data"))

    said = json.loads(done.stdout)
    assert done.returncode == 0
    assert "refuse" not in {each["state"] for each in said["verdicts"]}
    assert said["settings"].keys() == Settings.model_fields.keys()


def test_no_access_control_beyond_loopback_is_warned_of() -> None:
    assert states("insecure_no_auth", host="0.0.0.0", insecure_no_auth=True) == [
        "warning"
    ]


def test_settings_that_contradict_each_other_are_a_wrong_configuration() -> None:
    done = collab("check", "--host", "0.0.0.0")

    assert (done.returncode, done.stdout) == (2, "")
    assert "--auth" in done.stderr


def test_a_short_secret_is_refused_by_check_and_by_serve(tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.write_text("hunter2")
    flags = ("--auth", "jwt", "--jwt-keys", str(short), "--data", str(tmp_path / "d"))

    checked, served = collab("check", *flags), collab("serve", "--port", "0", *flags)

    assert (checked.returncode, served.returncode) == (3, 2)
    assert "less than 32 bytes" in checked.stdout
    assert "less than 32 bytes" in served.stderr
    assert "hunter2" not in checked.stdout + served.stderr


def test_a_file_of_keys_that_is_not_there_is_named(tmp_path: Path) -> None:
    (said,) = found("jwt_keys", auth=("jwt",), jwt_keys=tmp_path / "keys")

    assert (said.state, said.sentence) == (
        "refuse",
        f"cannot read {tmp_path / 'keys'}: No such file or directory; name a file of keys that can be used",
    )


@pytest.mark.parametrize(("mode", "expected"), [(0o600, 1), (0o640, 1), (0o644, 2)])
def test_a_secret_that_everybody_reads_is_warned_of(
    secret: Path, mode: int, expected: int
) -> None:
    secret.chmod(mode)

    said = found("jwt_keys", auth=("jwt",), jwt_keys=secret)

    # One is for HS256 itself.
    assert [each.state for each in said] == ["warning"] * expected
    assert any("chmod 600" in each.sentence for each in said) == (expected == 2)


@pytest.mark.parametrize(
    ("setting", "flags"),
    [
        ("jwt_audience", {}),
        ("allow_query_token", {"allow_query_token": True}),
        ("binding", {"binding": "off"}),
        ("audit_log", {"audit_log": ""}),
        ("tls_certificate", {"host": "0.0.0.0"}),
        ("max_sockets_per_principal", {"host": "::", "max_sockets_per_principal": 0}),
        ("trusted_proxies", {"trusted_proxies": ("0.0.0.0/0",)}),
        ("allowed_origins", {"allowed_origins": ("http://app.example.com",)}),
        ("allow_private_backends", {"allow_private_backends": True}),
        ("store", {"store": "memory"}),
        ("commit_window_ms", {"commit_window_ms": 1000}),
        ("max_sockets", {"max_sockets": 100_000_000}),
    ],
)
def test_what_weakens_the_server_is_warned_of(
    secret: Path, tmp_path: Path, setting: str, flags: dict[str, Any]
) -> None:
    flags = {"auth": ("jwt",), "jwt_keys": secret, "data": tmp_path, **flags}

    assert states(setting, **flags) == ["warning"]


@pytest.mark.parametrize(
    ("url", "state"),
    [
        ("http://login.example.com/jwks", "warning"),
        ("https://login.example.com/jwks", "ok"),
        ("http://127.0.0.1:9000/jwks", "ok"),
    ],
)
def test_keys_are_fetched_in_private(url: str, state: str) -> None:
    assert states("jwt_jwks_url", auth=("jwt",), jwt_jwks_url=url) == [state]


def test_a_good_certificate_is_said_to_be_good(tls: dict[str, Path]) -> None:
    assert states("tls_certificate", **tls) == ["ok"]


@pytest.mark.parametrize(("days", "state"), [(-1, "refuse"), (3, "warning")])
def test_a_certificate_that_ends_is_told_of(
    tmp_path: Path, days: float, state: str
) -> None:
    assert states("tls_certificate", **certificate(tmp_path, "old", days=days)) == [
        state
    ]


def test_a_key_of_another_certificate_is_refused(
    tmp_path: Path, tls: dict[str, Path]
) -> None:
    other = certificate(tmp_path, "other", days=90)

    assert states("tls_certificate", **{**tls, "tls_key": other["tls_key"]}) == [
        "refuse"
    ]


def test_a_tls_key_that_everybody_reads_is_warned_of(tls: dict[str, Path]) -> None:
    tls["tls_key"].chmod(0o644)

    assert states("tls_key", **tls) == ["warning"]


def test_a_directory_in_memory_is_warned_of() -> None:
    if not Path("/dev/shm").is_dir():
        pytest.skip("this machine has no filesystem in memory")

    assert any(
        "in memory" in each.sentence for each in found("data", data=Path("/dev/shm/x"))
    )


def test_a_directory_that_everybody_reads_is_warned_of(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)

    assert "warning" in states("data", data=tmp_path)


def test_an_audit_log_that_cannot_be_written_is_refused(
    secret: Path, tmp_path: Path
) -> None:
    path = tmp_path / "nowhere" / "audit.jsonl"

    assert states("audit_log", audit_log=str(path), data=tmp_path) == ["refuse"]


def test_a_password_in_an_address_is_masked() -> None:
    settings = Settings(jwt_jwks_url="https://ada:hunter2@example.com/jwks")

    assert shown(settings)["jwt_jwks_url"] == "https://…@example.com/jwks"


def test_serve_says_the_same_warnings_when_it_starts(serve: Any, secret: Path) -> None:
    server: Server = serve("--auth", "jwt", "--jwt-keys", str(secret))

    lines = [json.loads(line) for line in server.logs().splitlines()]

    assert "jwt_audience" in {line.get("setting") for line in lines}
