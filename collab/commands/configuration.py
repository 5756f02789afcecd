"""`collab check`: a verdict on each setting that can be wrong, without starting a server; `serve` warns by the same."""

from __future__ import annotations

import ipaddress
import os
import resource
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import typer

from collab.commands.base import EXIT_FOUND, show_json
from collab.errors import ConfigurationError
from collab.settings import Settings

State = Literal["ok", "warning", "refuse"]

EXPIRY_DAYS = 14
MIN_FREE_BYTES = 1 << 30
MIN_FREE_PART = 0.05
# What `stat -f` calls them; on these an fsync keeps nothing, or locks cannot be relied on.
IN_MEMORY = {"tmpfs", "ramfs", "devtmpfs", "rootfs"}
REMOTE = {"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph"}
SLOW_COMMIT_MS = 250


class Verdict(NamedTuple):
    """What is to be said of a setting: what is wrong, and what to do."""

    setting: str
    state: State
    sentence: str


def ok(setting: str, sentence: str) -> Verdict:
    return Verdict(setting, "ok", sentence)


def warning(setting: str, sentence: str) -> Verdict:
    return Verdict(setting, "warning", sentence)


def refuse(setting: str, sentence: str) -> Verdict:
    return Verdict(setting, "refuse", sentence)


def verdicts(settings: Settings) -> Iterator[Verdict]:
    """All of them, in the order of the settings' table. Reads files, asks no network."""
    yield from _reach(settings)
    yield from _tls(settings)
    yield from _tokens(settings)
    yield from _backends(settings)
    yield from _keeping(settings)
    yield from _limits(settings)
    yield from _audit(settings)


def _reach(settings: Settings) -> Iterator[Verdict]:
    if settings.is_loopback:
        yield ok("host", "only this machine can connect")
    elif settings.auth:
        yield ok("host", "whoever connects from elsewhere needs a credential")
    else:
        yield warning(
            "insecure_no_auth",
            "anyone who reaches the port may read and edit every room; say who is asked with auth",
        )
    for network in settings.trusted_proxies:
        if ipaddress.ip_network(network).num_addresses > 1 << 24:
            yield warning(
                "trusted_proxies",
                f"{network} is more than your proxies: any client in it may claim any address; name them alone",
            )
    for origin in settings.allowed_origins:
        parts = urlsplit(origin)
        if parts.scheme == "http" and not _is_local(parts.hostname or ""):
            yield warning(
                "allowed_origins",
                f"{origin} can be forged by who sits on the way to the browser; serve it over https",
            )


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _tls(settings: Settings) -> Iterator[Verdict]:
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate is None or key is None:
        if settings.is_loopback or settings.trusted_proxies:
            return
        yield warning(
            "tls_certificate",
            "tokens and documents cross the network in the clear; set tls_certificate and tls_key, or put a proxy "
            "that ends TLS in front and name it in trusted_proxies",
        )
        return
    yield from _secret_file("tls_key", key)
    try:
        days = (_expiry(certificate, key) - time.time()) / 86_400
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None)
        yield refuse(
            "tls_certificate",
            f"{certificate} and {key} cannot be used together: {reason or error}; name a PEM certificate and its key",
        )
        return
    if days <= 0:
        yield refuse("tls_certificate", f"{certificate} has expired; renew it")
    elif days < EXPIRY_DAYS:
        yield warning(
            "tls_certificate",
            f"{certificate} expires in {days:.0f} days; renew it, no restart is needed",
        )
    else:
        yield ok("tls_certificate", f"good for {days:.0f} days")
    if settings.tls_client_ca is not None:
        yield from _client_ca(settings.tls_client_ca)


def _client_ca(path: Path) -> Iterator[Verdict]:
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror
        yield refuse(
            "tls_client_ca", f"{path} cannot be used: {reason}; name a PEM certificate"
        )
    else:
        yield ok("tls_client_ca", "who shows a certificate is checked against it")


def _expiry(certificate: Path, key: Path) -> float:
    """When it ends, in seconds since 1970. Raises OSError or ValueError, ssl.SSLError among them."""
    import ssl

    from cryptography import x509

    def password() -> str:
        raise ValueError("the key has a password")

    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password)
    first = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
    return first.not_valid_after_utc.timestamp()


def _secret_file(setting: str, path: Path) -> Iterator[Verdict]:
    """Nothing when only its owner, or its group, can read it."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        yield refuse(setting, f"{path} cannot be read: {error.strerror}")
        return
    if mode & stat.S_IROTH:
        yield warning(
            setting, f"everybody on this machine can read {path}; chmod 600 {path}"
        )


def _tokens(settings: Settings) -> Iterator[Verdict]:
    if settings.allow_query_token:
        yield warning(
            "allow_query_token",
            "tokens in addresses end up in logs and histories; let browsers get a ticket from POST /v1/tickets instead",
        )
    if "jwt" not in settings.auth:
        return
    if settings.jwt_keys is not None:
        yield from _jwt_keys(settings, settings.jwt_keys)
    if not settings.jwt_audience:
        yield warning(
            "jwt_audience",
            "a token that your login made for another service is taken here too; set what aud must be",
        )
    if settings.jwt_jwks_url and not settings.jwt_issuer:
        yield warning("jwt_issuer", "say whose tokens are taken: set what iss must be")


def _jwt_keys(settings: Settings, path: Path) -> Iterator[Verdict]:
    from collab.auth.signing import read_keys

    try:
        keys = read_keys(path, settings.jwt_algorithms)
    except ConfigurationError as error:
        yield refuse("jwt_keys", f"{error}; name a file of keys that can be used")
        return
    if any(key.is_secret for key in keys):
        yield from _secret_file("jwt_keys", path)
    if any(key.algorithm == "HS256" for key in keys):
        yield warning(
            "jwt_keys",
            "whoever can verify an HS256 token can make one; beyond a trial use EdDSA, ES256 or RS256",
        )
    elif any(key.is_secret for key in keys):
        yield warning(
            "jwt_keys",
            f"{path} holds a private key, with which tokens are made; a server needs its public half alone",
        )
    else:
        yield ok("jwt_keys", f"{len(keys)} public keys")


def _backends(settings: Settings) -> Iterator[Verdict]:
    for setting, kind in (("jwt_jwks_url", "jwt"), ("webhook_url", "webhook")):
        url = getattr(settings, setting)
        if not url or kind not in settings.auth:
            continue
        parts = urlsplit(url)
        if parts.scheme == "https" or _is_local(parts.hostname or ""):
            yield ok(setting, "asked in private")
        else:
            yield warning(
                setting,
                f"{parts.scheme} can be answered by who sits on the way, who may then let in anybody; use https",
            )
    if settings.webhook_secret_file is not None and "webhook" in settings.auth:
        from collab.auth.signing import read_secret

        try:
            read_secret(settings.webhook_secret_file)
        except ConfigurationError as error:
            yield refuse("webhook_secret_file", f"{error}; give 32 random bytes")
        else:
            yield from _secret_file("webhook_secret_file", settings.webhook_secret_file)
    if settings.allow_private_backends:
        yield warning(
            "allow_private_backends",
            "whoever controls the names in jwt_jwks_url or webhook_url leads this server into your network; "
            "write addresses instead",
        )


def _keeping(settings: Settings) -> Iterator[Verdict]:
    if settings.store_kind == "memory":
        yield warning("store", "memory keeps nothing: a restart loses every document")
        return
    folder = _existing(settings.data)
    if not os.access(folder, os.W_OK | os.X_OK):
        yield refuse("data", f"{folder} cannot be written; choose another directory")
        return
    mode = settings.data.stat().st_mode if settings.data.is_dir() else 0
    if mode & (stat.S_IROTH | stat.S_IXOTH):
        yield warning(
            "data",
            f"everybody on this machine can look into {settings.data}, where all documents are; "
            f"chmod 700 {settings.data}",
        )
    kind = _filesystem(folder)
    if kind in IN_MEMORY:
        yield warning(
            "data", f"{folder} is in memory ({kind}): a restart loses it; use a disk"
        )
    elif kind in REMOTE:
        yield warning(
            "data",
            f"{folder} is on {kind}, where SQLite's locks cannot be relied on; use a disk",
        )
    else:
        yield ok("data", f"every commit is written through to {kind or 'the disk'}")
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    if free < min(MIN_FREE_BYTES, MIN_FREE_PART * disk.f_blocks * disk.f_frsize):
        yield warning(
            "data",
            f"{free >> 20} MB are left on the disk of {folder}; rooms become read-only when it is full",
        )
    if settings.commit_window_ms > SLOW_COMMIT_MS:
        yield warning(
            "commit_window_ms",
            f"an edit is confirmed up to {settings.commit_window_ms:g} ms late, and lost by a crash before that",
        )


def _existing(path: Path) -> Path:
    """The directory, or where it would be made."""
    path = path.absolute()
    return path if path.is_dir() else next(up for up in path.parents if up.is_dir())


def _filesystem(path: Path) -> str:
    """The kind of filesystem, where the system says so."""
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return ""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in lines:
        mount, _, rest = line.partition(" - ")
        if mount.split()[2] == wanted:
            return rest.split()[0]
    return ""


def _limits(settings: Settings) -> Iterator[Verdict]:
    if not settings.is_loopback:
        unbounded = [
            name
            for name in Settings.model_fields
            if (name.startswith("max_") or "_per_" in name)
            and getattr(settings, name) == 0
        ]
        for name in unbounded:
            yield warning(name, "0 is no bound: one client may take all there is")
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)  # `serve` takes all it may
    if files not in (resource.RLIM_INFINITY, -1) and files < settings.max_sockets:
        yield warning(
            "max_sockets",
            f"the system allows this process {files} open files, and each socket is one; raise LimitNOFILE or ulimit -n",
        )
    if settings.auth and settings.binding == "off":
        yield warning(
            "binding",
            "a member may write under another's client id, and documents then differ for good; use audit or enforce",
        )


def _audit(settings: Settings) -> Iterator[Verdict]:
    path = settings.audit_path
    if path is None:
        if settings.auth:
            yield warning(
                "audit_log", "nobody will be able to say later who did what; set a file"
            )
        return
    target = path if path.exists() else _existing(path.parent)
    if path.parent != settings.data and not path.parent.is_dir():
        yield refuse("audit_log", f"there is no directory {path.parent}; make it")
    elif not os.access(target, os.W_OK) or path.is_dir():
        yield refuse("audit_log", f"{path} cannot be written; change its owner")
    elif path.exists() and path.stat().st_mode & stat.S_IROTH:
        yield warning(
            "audit_log",
            f"everybody on this machine can read {path}; chmod 600 {path}",
        )
    else:
        yield ok("audit_log", f"{path}; note the head that `collab audit verify` shows")


def worst(found: list[Verdict]) -> State:
    states: tuple[State, ...] = ("refuse", "warning", "ok")
    return next(
        (state for state in states if any(each.state == state for each in found)), "ok"
    )


def shown(settings: Settings) -> dict[str, Any]:
    """The settings as they are in effect. Secrets are in files, and a URL's password is masked."""
    return {name: _masked(getattr(settings, name)) for name in Settings.model_fields}


def _masked(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, str) and "://" in value and "@" in value:
        parts = urlsplit(value)
        return parts._replace(netloc="…@" + parts.netloc.rpartition("@")[2]).geturl()
    return value


def report(settings: Settings, *, json: bool) -> None:
    """Print the verdicts; exits with 3 when a server would refuse to start."""
    found = list(verdicts(settings))
    if json:
        show_json(
            {
                "verdict": worst(found),
                "verdicts": [each._asdict() for each in found],
                "settings": shown(settings),
            }
        )
    else:
        for each in found:
            typer.echo(f"{each.state:8} {each.setting:24} {each.sentence}")
        typer.echo(f"\n{worst(found)}")
    if worst(found) == "refuse":
        raise typer.Exit(EXIT_FOUND)
