"""Where settings come from, and what is not accepted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from collab.errors import ConfigurationError
from collab.settings import load


def test_the_default_is_this_machine_only() -> None:
    settings = load({})

    assert settings.is_loopback
    assert (settings.host, settings.port, settings.data) == (
        "127.0.0.1",
        8000,
        Path("data"),
    )


def test_flags_go_before_the_environment_and_that_before_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "collab.toml"
    file.write_text("port = 1\nidle_seconds = 10.0\nlog_level = 'error'\n")
    monkeypatch.setenv("COLLAB_PORT", "2")
    monkeypatch.setenv("COLLAB_IDLE_SECONDS", "20")

    settings = load({"port": 3}, file)

    assert (settings.port, settings.idle_seconds, settings.log_level) == (
        3,
        20.0,
        "error",
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_access_control(host: str) -> None:
    assert load({"host": host}).is_loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.com", ""])
def test_any_other_address_must_be_asked_for_in_so_many_words(host: str) -> None:
    with pytest.raises(ConfigurationError, match="--insecure-no-auth"):
        load({"host": host})

    assert load({"host": host, "insecure_no_auth": True}).host == host


def test_an_unknown_key_in_the_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "collab.toml"
    file.write_text("prot = 1\n")

    with pytest.raises(ConfigurationError, match="prot"):
        load({}, file)


def test_the_file_is_utf_8_wherever_the_server_runs(tmp_path: Path) -> None:
    file = tmp_path / "collab.toml"
    file.write_bytes("data = '/srv/entwürfe'".encode())
    program = f"from collab.settings import load; print(ascii(load({{}}, __import__('pathlib').Path({str(file)!r})).data))"

    done = subprocess.run(
        [sys.executable, "-X", "utf8=0", "-c", program],
        env={"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0"},
        capture_output=True,
        text=True,
    )

    assert "entw\\xfcrfe" in done.stdout, done.stderr


def test_a_file_that_does_not_parse_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "collab.toml"
    file.write_text("port = ")

    with pytest.raises(ConfigurationError, match="settings cannot be read"):
        load({}, file)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load({}).port = 1  # type: ignore[misc]


JWT = {"auth": ("jwt",), "jwt_keys": Path("keys.json")}
WEBHOOK = {
    "auth": ("webhook",),
    "webhook_url": "http://127.0.0.1:1/",
    "webhook_secret_file": Path("secret"),
}


@pytest.mark.parametrize("flags", [JWT, WEBHOOK, {"auth": ("keys",)}])
def test_with_access_control_any_address_may_be_listened_on(
    flags: dict[str, Any],
) -> None:
    assert load({"host": "0.0.0.0", **flags}).auth == flags["auth"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"auth": ("jwt",)}, "jwt_keys, a file, or jwt_jwks_url"),
        (JWT | {"jwt_jwks_url": "https://x/"}, "jwt_keys, a file, or jwt_jwks_url"),
        ({"auth": ("jwt", "jwt"), "jwt_keys": Path("k")}, "twice"),
        ({"auth": ("password",)}, "auth"),
        ({"auth": ("webhook",)}, "webhook_url and webhook_secret_file"),
        ({"auth": ("webhook",), "webhook_url": "http://x/"}, "webhook_secret_file"),
        (JWT | {"insecure_no_auth": True}, "contradict"),
        (JWT | {"jwt_algorithms": ()}, "jwt_algorithms"),
        (JWT | {"jwt_algorithms": ("HS512",)}, "jwt_algorithms"),
        (JWT | {"jwt_algorithms": ("none",)}, "jwt_algorithms"),
        ({"jwt_keys": Path("k")}, "say --auth jwt"),
        ({"jwt_audience": "a"}, "say --auth jwt"),
        (JWT | {"webhook_url": "http://x/"}, "say --auth webhook"),
        (WEBHOOK | {"webhook_cache_seconds": 0.1}, "webhook_cache_seconds"),
        (WEBHOOK | {"webhook_cache_seconds": 3600.0}, "webhook_cache_seconds"),
        (WEBHOOK | {"webhook_seconds": 60.0}, "webhook_seconds"),
    ],
)
def test_access_control_that_nobody_can_mean_is_one_sentence(
    flags: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        load(flags)


def test_a_variable_with_several_values_is_a_json_list(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLLAB_ALLOWED_HOSTS", '["a.example", "b.example"]')

    assert load({}).allowed_hosts == ("a.example", "b.example")


@pytest.mark.parametrize("value", ["a.example,b.example", "", "3"])
def test_a_variable_with_several_values_that_is_no_list_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("COLLAB_ALLOWED_HOSTS", value)

    with pytest.raises(ConfigurationError, match="setting allowed_hosts"):
        load({})


def test_a_file_that_is_not_text_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "collab.toml"
    file.write_bytes(b"\xff\xfe")

    with pytest.raises(ConfigurationError, match="settings cannot be read"):
        load({}, file)


KEYS = {"auth": ("keys",)}
TLS = {"tls_certificate": Path("c"), "tls_key": Path("k")}


@pytest.mark.parametrize(
    ("flags", "has_demo"),
    [
        ({}, True),
        ({"demo": "off"}, False),
        (KEYS, False),
        (KEYS | {"demo": "on"}, True),
        ({"host": "0.0.0.0", "insecure_no_auth": True}, False),
        ({"host": "0.0.0.0", "insecure_no_auth": True, "demo": "on"}, True),
        (TLS, False),
    ],
)
def test_the_demo_agent_comes_by_itself_only_to_a_server_of_one_machine(
    flags: dict[str, Any], has_demo: bool
) -> None:
    assert load(flags).has_demo == has_demo


def test_the_demo_agent_does_not_come_over_tls() -> None:
    with pytest.raises(ConfigurationError, match="demo on"):
        load(TLS | {"demo": "on"})
