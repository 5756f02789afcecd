"""Every setting, with its default and meaning; the only reader of the environment and of the TOML file.

Order: command line over environment (`COLLAB_…`) over TOML over default. Below the edges, functions take plain
arguments and never see `Settings`.
"""

from __future__ import annotations

import ipaddress
import json
import os
import tomllib
import typing
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from collab.errors import ConfigurationError

PREFIX = "COLLAB_"


class Settings(BaseModel):
    """Frozen and checked once, at start."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Where
    host: str = Field(
        "127.0.0.1",
        description="Address to listen on. Anything but loopback needs access control.",
    )
    port: int = Field(
        8000, ge=0, le=65535, description="Port to listen on; 0 picks a free one."
    )
    data: Path = Field(
        Path("data"),
        description="Directory of the SQLite store, the audit log and what access control knows.",
    )
    store: Literal["auto", "sqlite", "memory", "postgres", "redis"] = Field(
        "auto",
        description="Where updates are kept; memory keeps nothing. auto: Postgres when postgres is set, else Redis when "
        "redis is, else SQLite, which one process alone may use.",
    )

    # Many replicas
    redis: str = Field(
        "",
        description="Redis that all replicas share: redis://, rediss:// (TLS), redis+sentinel://host:port,…/service, "
        "redis+cluster://host:port,…",
    )
    redis_password_file: Path | None = Field(
        None,
        description="File of the password for Redis; a user stands in its address.",
    )
    redis_sentinel_password_file: Path | None = Field(
        None, description="File of the password for the sentinels, where they want one."
    )
    redis_ca: Path | None = Field(
        None, description="PEM file of those who issue Redis' certificate."
    )
    redis_certificate: Path | None = Field(
        None, description="PEM file of the certificate shown to Redis."
    )
    redis_key: Path | None = Field(
        None, description="PEM file of the private key of redis_certificate."
    )
    postgres: str = Field(
        "",
        description="Postgres that all replicas share, such as postgresql://collab@db/collab.",
    )
    postgres_password_file: Path | None = Field(
        None, description="File of the password for Postgres."
    )
    cluster: str = Field(
        "collab",
        pattern="^[a-z0-9-]{1,40}$",
        description="Name of the replicas that belong together; begins every key in Redis.",
    )
    cluster_key_file: Path | None = Field(
        None,
        description="File of a secret, 32 bytes or more: messages between replicas are signed with it, others dropped.",
    )
    workers: int = Field(
        1,
        ge=1,
        le=64,
        description="Replicas on this machine, behind one port; more than one need redis.",
    )

    # Start-up safety
    insecure_no_auth: bool = Field(
        False,
        description="Serve beyond this machine without access control. Anyone who reaches the port may edit.",
    )
    allowed_hosts: tuple[str, ...] = Field(
        (),
        description="Host names accepted in the Host header, beside localhost, 127.0.0.1 and [::1].",
    )
    allowed_origins: tuple[str, ...] = Field(
        (),
        description="Origins accepted from browsers, such as https://app.example.com, beside our own address.",
    )

    trusted_proxies: tuple[str, ...] = Field(
        (),
        description="Addresses or networks of your proxies, such as 10.0.0.0/8: only they are believed who a client is.",
    )
    proxy_header: Literal["x-forwarded-for", "forwarded"] = Field(
        "x-forwarded-for",
        description="The header in which your proxies name the client. The other one is ignored.",
    )

    # TLS
    tls_certificate: Path | None = Field(
        None,
        description="PEM file of the certificate and those between it and its root. Serves https and wss alone.",
    )
    tls_key: Path | None = Field(
        None, description="PEM file of the certificate's private key."
    )
    tls_client_ca: Path | None = Field(
        None, description="PEM file of those who issue client certificates."
    )
    tls_client: Literal["off", "optional", "required"] = Field(
        "off", description="Whether clients are asked for a certificate."
    )

    # Who is let in
    auth: tuple[Literal["jwt", "keys", "webhook", "certificates"], ...] = Field(
        (),
        description="Who is asked, in this order, what a token is worth: jwt, keys, webhook; or certificates, for TLS "
        "clients without a token. None: this machine only.",
    )
    jwt_keys: Path | None = Field(
        None,
        description="File of the keys that sign tokens: a JWK, a JWKS, a PEM public key, or a secret for HS256.",
    )
    jwt_jwks_url: str = Field(
        "",
        description="Where the keys that sign tokens are published, instead of a file.",
    )
    jwt_algorithms: tuple[Literal["EdDSA", "ES256", "RS256", "HS256"], ...] = Field(
        ("EdDSA", "ES256", "RS256", "HS256"),
        min_length=1,
        description="Algorithms that a token may be signed with; a key is for one of them only.",
    )
    jwt_audience: str = Field(
        "", description="What `aud` must be or hold; not looked at when empty."
    )
    jwt_issuer: str = Field(
        "", description="What `iss` must be; not looked at when empty."
    )
    webhook_url: str = Field(
        "", description="Your own backend, asked for each room what a token is worth."
    )
    webhook_secret_file: Path | None = Field(
        None,
        description="File of the secret, 32 bytes or more, that signs what the backend is asked.",
    )
    webhook_seconds: float = Field(
        2.0, gt=0, le=10, description="How long the backend may take to answer."
    )
    webhook_cache_seconds: float = Field(
        5.0,
        ge=1,
        le=30,
        description="How long an answer of the backend holds; it is asked again before that for who is there.",
    )
    allow_private_backends: bool = Field(
        False,
        description="Let the names in jwt_jwks_url and webhook_url lead into your own network.",
    )
    allow_query_token: bool = Field(
        False,
        description="Take a token from ?token= in an address too, where logs and histories keep it. Tickets may always.",
    )

    # Durability
    durability: Literal["eager", "strict"] = Field(
        "eager",
        description="eager: others see an edit at once, its author is told after the commit; strict: all wait.",
    )
    commit_window_ms: float = Field(
        6.0,
        ge=0,
        le=1000,
        description="At most one commit in this time (with a store that replicas share 1 ms at most); a first edit after a pause goes at once.",
    )
    deleted_room_seconds: float = Field(
        604_800.0,
        ge=0,
        description="So long a deleted room can be restored; then its content is removed.",
    )
    binding: Literal["off", "audit", "enforce"] = Field(
        "audit",
        description="New content under another member's client id: ignored, counted and logged, or refused.",
    )

    # Rooms
    idle_room_seconds: float = Field(
        60.0, ge=0, description="How long a room without members stays in memory."
    )
    compact_rows: int = Field(
        1000, ge=1, description="Updates after a checkpoint that call for the next one."
    )
    compact_bytes: int = Field(
        262_144,
        ge=1,
        description="Bytes after a checkpoint that call for the next one.",
    )
    drain_notice_seconds: float = Field(
        0.0,
        ge=0,
        le=600,
        description="For how long after SIGTERM /readyz says no while all else goes on, until load balancers have noticed.",
    )
    drain_seconds: float = Field(
        20.0, ge=0, description="Over how long SIGTERM spreads the closing of sockets."
    )

    # Limits
    max_message_bytes: int = Field(
        1_048_576, ge=1024, description="Largest WebSocket message taken from a client."
    )
    max_update_bytes: int = Field(
        524_288, ge=1024, description="Largest single update."
    )
    max_stash_bytes: int = Field(
        1_048_576,
        ge=1024,
        description="Bytes of a room that may wait for what is missing.",
    )
    max_document_bytes: int = Field(
        52_428_800, ge=1024, description="Largest document, in encoded bytes."
    )
    max_outbox_bytes: int = Field(
        1_048_576,
        ge=4096,
        description="Unsent bytes of one socket before its updates are held back and resynced.",
    )
    slow_member_seconds: float = Field(
        5.0, gt=0, description="How long a full outbox may stay full."
    )
    max_awareness_bytes: int = Field(
        4096, ge=64, description="Largest presence state of one client."
    )
    max_awareness_clients: int = Field(
        4, ge=1, description="Client ids one connection may announce in one room."
    )
    messages_per_second: float = Field(
        100.0,
        gt=0,
        description="Messages of one socket before its reading is slowed; five seconds' worth may burst.",
    )
    bytes_per_second: float = Field(
        1_048_576.0,
        gt=0,
        description="Bytes of one socket before its reading is slowed; five seconds' worth may burst.",
    )
    max_rooms_per_socket: int = Field(
        100, ge=1, description="Documents one Hocuspocus socket may open."
    )
    max_members_per_room: int = Field(1000, ge=1, description="Members of one room.")
    max_sockets: int = Field(20_000, ge=1, description="Open sockets of this process.")
    max_sockets_per_address: int = Field(
        200,
        ge=0,
        description="Open sockets of one client address (an IPv6 network of 64 bits); 0 is no bound, as for loopback.",
    )
    max_sockets_per_principal: int = Field(
        50, ge=0, description="Open sockets of one principal; 0 is no bound."
    )
    max_sockets_per_tenant: int = Field(
        5000, ge=0, description="Open sockets of one tenant; 0 is no bound."
    )
    messages_per_second_per_principal: float = Field(
        500.0,
        ge=0,
        description="Messages of all sockets of one principal before their reading is slowed; 0 is no bound.",
    )
    messages_per_second_per_tenant: float = Field(
        5000.0,
        ge=0,
        description="Messages of all sockets of one tenant before their reading is slowed; 0 is no bound.",
    )
    requests_per_second_per_principal: float = Field(
        200.0,
        ge=0,
        description="Requests to the API by one principal; five seconds' worth may burst. 0 is no bound.",
    )
    requests_per_second_per_address: float = Field(
        400.0,
        ge=0,
        description="Requests and handshakes of one client address; 0 is no bound, as for loopback.",
    )
    auth_failures_per_minute: int = Field(
        600,
        ge=0,
        description="Different bad credentials of one client address, after which it is refused; 0 is no bound.",
    )
    max_streams: int = Field(
        1000, ge=1, description="Open streams of events over HTTP."
    )
    max_streams_per_principal: int = Field(
        20, ge=0, description="Open streams of one principal; 0 is no bound."
    )
    agent_operations_per_second: float = Field(
        50.0,
        ge=0,
        description="Updates of an agent, or of a member in a turn, in one room; thirty seconds' worth at once. More is "
        "refused, and ends the turn. 0 is no bound.",
    )
    agent_characters_per_minute: int = Field(
        1_000_000,
        ge=0,
        description="Characters that an agent, or a member in a turn, may insert in one room; a minute's worth at once. "
        "0 is no bound.",
    )
    max_agent_document_share: float = Field(
        0.8,
        gt=0,
        le=1,
        description="How full agents may make a document, of max_document_bytes; the rest is left to people.",
    )
    handshake_seconds: float = Field(
        10.0, gt=0, description="Time to say what must be said first."
    )
    idle_seconds: float = Field(
        60.0,
        gt=0,
        description="Close a socket that has not said anything, not even a pong.",
    )

    # Operation
    audit_log: str = Field(
        "auto",
        description="File of the audit log; auto: audit.jsonl in the data directory once there is access control; "
        "empty: none.",
    )
    log_format: Literal["console", "json"] = Field(
        "console", description="How log lines look."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severity that is logged."
    )
    child_processes: int = Field(
        1, ge=1, le=16, description="Child processes for compaction and verification."
    )
    demo: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Whether the playground's demo agent, a child process of the server, can be sent for. auto: where only "
        "this machine reaches the server, without access control and TLS.",
    )

    @property
    def audit_path(self) -> Path | None:
        """Where the audit log is; None when there is none."""
        if self.audit_log != "auto":
            return Path(self.audit_log) if self.audit_log else None
        is_kept = self.store_kind != "memory" and bool(self.auth)
        return self.data / "audit.jsonl" if is_kept else None

    @property
    def store_kind(self) -> Literal["sqlite", "memory", "postgres", "redis"]:
        """Where updates are kept, once `auto` is decided."""
        if self.store != "auto":
            return self.store
        if self.postgres:
            return "postgres"
        return "redis" if self.redis else "sqlite"

    @property
    def has_demo(self) -> bool:
        """Whether the demo agent can be sent for, once `auto` is decided."""
        if self.demo != "auto":
            return self.demo == "on"
        return self.is_loopback and not self.auth and self.tls_certificate is None

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def load(
    flags: dict[str, Any], toml_file: Path | None = None, *, is_server: bool = True
) -> Settings:
    """Settings from flags, environment and file; ConfigurationError names the setting that is wrong.

    Who only looks for the rooms is not asked how they would be served.
    """
    said = {**_file(toml_file), **_environment(), **flags}
    try:
        settings = Settings.model_validate(said)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"setting {name}: {first['msg']}") from None
    if is_server:
        _check_access(settings)
        _check_tls(settings)
    _check_replicas(settings)
    return settings


def _file(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    if not path.is_file():
        raise ConfigurationError(f"there is no settings file {path}")
    try:
        return tomllib.loads(path.read_bytes().decode())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"settings cannot be read: {error}") from None


def _environment() -> dict[str, Any]:
    """What variables say; one of a setting that holds several values is a JSON list."""
    said: dict[str, Any] = {}
    for name, field in Settings.model_fields.items():
        value = os.environ.get(PREFIX + name.upper())
        if value is None:
            continue
        said[name] = value
        if typing.get_origin(field.annotation) is tuple:
            try:
                said[name] = json.loads(value)
            except ValueError:
                raise ConfigurationError(
                    f'setting {name}: {PREFIX}{name.upper()} is not a JSON list, such as ["a", "b"]'
                ) from None
    return said


def _check_replicas(settings: Settings) -> None:
    kind = settings.store_kind
    try:
        is_shown = bool(urlsplit(settings.postgres).password)
    except ValueError:
        is_shown = False  # whoever connects says what is wrong with it
    if is_shown:
        raise ConfigurationError(
            "postgres: a password does not belong in the address, which others can see: say --postgres-password-file"
        )
    for needed in ("redis", "postgres"):
        if kind == needed and not getattr(settings, needed):
            raise ConfigurationError(
                f"store {needed} needs its address: say --{needed}"
            )
    if settings.workers > 1 and not settings.redis:
        raise ConfigurationError(
            "several workers need --redis, by which they hear of each other's edits"
        )
    if settings.workers > 1 and kind not in ("postgres", "redis"):
        raise ConfigurationError(
            f"several workers need a store that they share, and {kind} belongs to one process: say --store redis or --postgres"
        )
    for name in settings.model_fields_set:
        kind_of_setting = name.partition("_")[0]
        if (
            kind_of_setting in ("redis", "postgres")
            and getattr(settings, name)
            and not getattr(settings, kind_of_setting)
        ):
            raise ConfigurationError(
                f"{name} is set, but nobody looks at it: say --{kind_of_setting}"
            )


def _check_tls(settings: Settings) -> None:
    if bool(settings.tls_certificate) != bool(settings.tls_key):
        raise ConfigurationError("tls_certificate and tls_key go together")
    if settings.demo == "on" and settings.tls_certificate:
        raise ConfigurationError(
            "demo on: the agent comes over the loopback, for which tls_certificate is not made; "
            "end TLS at a proxy, or leave demo off"
        )
    if (settings.tls_client == "off") != (settings.tls_client_ca is None):
        raise ConfigurationError(
            "tls_client_ca and tls_client (optional or required) go together"
        )
    if settings.tls_client_ca and not settings.tls_certificate:
        raise ConfigurationError("tls_client_ca needs tls_certificate and tls_key")
    if "certificates" in settings.auth and not settings.tls_client_ca:
        raise ConfigurationError(
            "auth certificates needs tls_client_ca and tls_client, or no client shows one"
        )
    for network in settings.trusted_proxies:
        try:
            ipaddress.ip_network(network)
        except ValueError:
            raise ConfigurationError(
                f"trusted_proxies: {network!r} is neither an address nor a network"
            ) from None


def _check_access(settings: Settings) -> None:
    auth = settings.auth
    if not (settings.is_loopback or auth or settings.insecure_no_auth):
        raise ConfigurationError(
            f"refusing to listen on {settings.host} without access control: anyone who reaches the port could edit. "
            "Name who is asked with --auth, listen on 127.0.0.1, or say --insecure-no-auth if that is what you want."
        )
    if auth and settings.insecure_no_auth:
        raise ConfigurationError("auth and insecure_no_auth contradict each other")
    if len(set(auth)) < len(auth):
        raise ConfigurationError(f"auth names one of {', '.join(auth)} twice")
    if "jwt" in auth and bool(settings.jwt_keys) == bool(settings.jwt_jwks_url):
        raise ConfigurationError(
            "auth jwt needs the keys that sign tokens: either jwt_keys, a file, or jwt_jwks_url"
        )
    if "webhook" in auth and not (
        settings.webhook_url and settings.webhook_secret_file
    ):
        raise ConfigurationError(
            "auth webhook needs webhook_url and webhook_secret_file"
        )
    # Whoever sets one of these and forgets `auth` would believe that it is looked at.
    for name in settings.model_fields_set:
        kind = name.partition("_")[0]
        if kind in ("jwt", "webhook") and kind not in auth and getattr(settings, name):
            raise ConfigurationError(
                f"{name} is set, but nobody looks at it: say --auth {kind}"
            )
