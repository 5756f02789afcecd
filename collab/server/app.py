"""Settings → application → server: where every part is made and handed to the others."""

from __future__ import annotations

import asyncio
import gc
import hmac
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext, suppress
from math import ceil
from types import FrameType
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import ASGIApp

import collab
from collab import logs
from collab.audit.audit import Audit
from collab.auth.authority import Authority
from collab.auth.base import Verifier
from collab.auth.certificates import Certificates
from collab.auth.failures import Failures
from collab.auth.keys import Keys
from collab.auth.registry import Registry
from collab.auth.tickets import Tickets
from collab.bus.base import Bus
from collab.bus.memory import MemoryBus
from collab.errors import CollabError, ConfigurationError
from collab.metrics import Metrics
from collab.replica import Replica
from collab.server import banner, playground
from collab.server.access import Access
from collab.server.demo import Demo
from collab.server.http import Http
from collab.server.later import Later
from collab.server.limits import Limits
from collab.server.ops import Ops
from collab.server.origins import Origins
from collab.server.proxies import Proxies, Trusted
from collab.server.responses import answer_error
from collab.server.rooms import Rooms
from collab.server.shelves import make_endpoint, make_shelf
from collab.server.socket import Socket
from collab.server.sockets import Sockets
from collab.server.tls import Tls
from collab.server.upgrade import Upgrade
from collab.server.verifiers import make_tokens, make_webhook
from collab.server.worker import Figures, Worker
from collab.settings import Settings
from collab.store.base import Store
from collab.store.memory import MemoryStore
from collab.store.sqlite import SqliteStore

MIN_KEY_BYTES = 32
# Of a store that replicas share: one commit gathers while the one before is on its way, and others wait to hear of it.
SHARED_WINDOW_MS = 1.0
TLS_SECONDS = 5.0  # to begin a TLS connection, and to end it
HANDSHAKES_SECONDS = 2.0  # that a drain waits for handshakes under way
RETURN_MILLISECONDS = 1000  # in which who is closed comes back to another replica
QUIET_SECONDS = 2.0  # that a drain waits for everything to be logged
GOODBYES_SECONDS = 0.05  # between two groups that are closed
GOODBYES_PER_SECOND = 100.0  # a few sockets need no long window to close in
API_SECONDS = 2.0  # after the start, unless a request needs it before

log = logs.logger(__name__)


def make_store(settings: Settings) -> Store:
    if settings.store_kind == "memory":
        return MemoryStore(deleted_room_seconds=settings.deleted_room_seconds)
    if settings.store_kind == "redis":
        # Heavy, and only for who has one.
        from collab.store.redis.store import RedisStore

        return RedisStore(
            make_endpoint(settings),
            cluster=settings.cluster,
            window_seconds=min(settings.commit_window_ms, SHARED_WINDOW_MS) / 1000,
            deleted_room_seconds=settings.deleted_room_seconds,
        )
    if settings.store_kind == "postgres":
        return _postgres(settings)
    return SqliteStore(
        settings.data,
        window_seconds=settings.commit_window_ms / 1000,
        deleted_room_seconds=settings.deleted_room_seconds,
    )


def _postgres(settings: Settings) -> Store:
    """Raises ConfigurationError where the extra is not installed."""
    try:
        from collab.store.postgres.store import PostgresStore
    except ModuleNotFoundError as error:
        if error.name != "asyncpg":
            raise
        raise ConfigurationError(
            "the store in Postgres needs the package asyncpg: install collab[postgres]"
        ) from None
    return PostgresStore(
        settings.postgres,
        password_file=settings.postgres_password_file,
        window_seconds=min(settings.commit_window_ms, SHARED_WINDOW_MS) / 1000,
        deleted_room_seconds=settings.deleted_room_seconds,
    )


def make_audit(settings: Settings, metrics: Metrics) -> Audit:
    return Audit(settings.data, settings.audit_path, metrics=metrics)


def make_replica(
    settings: Settings,
    store: Store,
    metrics: Metrics,
    audit: Audit,
    bus: Bus | None = None,
) -> Replica:
    return Replica(
        store,
        metrics,
        durability=settings.durability,
        binding=settings.binding,
        idle_room_seconds=settings.idle_room_seconds,
        compact_rows=settings.compact_rows,
        compact_bytes=settings.compact_bytes,
        max_update_bytes=settings.max_update_bytes,
        max_stash_bytes=settings.max_stash_bytes,
        max_document_bytes=settings.max_document_bytes,
        max_awareness_bytes=settings.max_awareness_bytes,
        max_awareness_clients=settings.max_awareness_clients,
        max_members_per_room=settings.max_members_per_room,
        child_processes=settings.child_processes,
        audit=audit,
        bus=bus,
        cluster_key=_cluster_key(settings),
    )


def make_bus(settings: Settings, metrics: Metrics) -> Bus | None:
    """None where nobody else can have the rooms; raises ConfigurationError."""
    if not settings.redis:
        if settings.store_kind != "postgres":
            return None
        log.warning(
            "without redis another replica would hear of edits within half a minute only"
        )
        return MemoryBus()
    from collab.bus.redis import RedisBus

    return RedisBus(make_endpoint(settings), cluster=settings.cluster, metrics=metrics)


def _cluster_key(settings: Settings) -> bytes | None:
    """Of this cluster alone: what one cluster says is nothing in another that has the same file. Raises ConfigurationError."""
    path = settings.cluster_key_file
    if path is None:
        return None
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise ConfigurationError(
            f"cluster_key_file cannot be read: {error.strerror}"
        ) from None
    if len(key) < MIN_KEY_BYTES:
        raise ConfigurationError(
            f"cluster_key_file holds less than {MIN_KEY_BYTES} bytes: make one with `openssl rand -hex 32`"
        )
    return hmac.digest(key, f"cluster:{settings.cluster}".encode(), "sha256")


def make_limits(settings: Settings, metrics: Metrics) -> Limits:
    for name in Settings.model_fields:
        if name.startswith("max_") or "_per_" in name:
            metrics.limits[name] = getattr(settings, name)
    return Limits(
        metrics,
        max_sockets_per_principal=settings.max_sockets_per_principal,
        max_sockets_per_tenant=settings.max_sockets_per_tenant,
        max_sockets_per_address=settings.max_sockets_per_address,
        messages_per_second_per_principal=settings.messages_per_second_per_principal,
        messages_per_second_per_tenant=settings.messages_per_second_per_tenant,
        requests_per_second_per_principal=settings.requests_per_second_per_principal,
        requests_per_second_per_address=settings.requests_per_second_per_address,
        max_streams=settings.max_streams,
        max_streams_per_principal=settings.max_streams_per_principal,
        agent_operations_per_second=settings.agent_operations_per_second,
        agent_characters_per_minute=settings.agent_characters_per_minute,
        max_agent_document_share=settings.max_agent_document_share,
        key_of=Trusted(settings.trusted_proxies).key_of,
    )


def make_tls(settings: Settings, metrics: Metrics) -> Tls | None:
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    return Tls(
        settings.tls_certificate,
        settings.tls_key,
        client_ca=settings.tls_client_ca,
        client=settings.tls_client,
        metrics=metrics,
    )


def make_registry(settings: Settings) -> Registry:
    return Registry(make_shelf(settings))


def make_tickets(settings: Settings, replica: Replica) -> Tickets:
    """Good at every replica that shares the bus."""
    bus = None if replica.relay is None else replica.relay.bus
    if settings.redis and settings.auth and settings.cluster_key_file is None:
        log.warning(
            "without cluster_key_file whoever can write to redis can speak as a replica, and make tickets for anybody"
        )
    return Tickets(bus, key=_cluster_key(settings))


@asynccontextmanager
async def make_authority(
    settings: Settings, metrics: Metrics, registry: Registry, tickets: Tickets
) -> AsyncIterator[Authority]:
    """The verifiers in the order of the setting. Raises ConfigurationError for a key that must not be used."""
    async with AsyncExitStack() as stack:
        verifiers: list[Verifier] = [tickets] if settings.auth else []
        for kind in settings.auth:
            match kind:
                case "certificates":
                    verifiers.append(Certificates())
                case "keys":
                    verifiers.append(Keys(registry))
                case "jwt":
                    tokens = make_tokens(settings, metrics)
                    verifiers.append(await stack.enter_async_context(tokens))
                case "webhook":
                    webhook = make_webhook(settings, metrics)
                    tickets.lender = await stack.enter_async_context(webhook)
                    verifiers.append(tickets.lender)
        failures = Failures(
            metrics,
            per_minute=settings.auth_failures_per_minute,
            key_of=Trusted(settings.trusted_proxies).key_of,
        )
        yield Authority(verifiers, registry, failures=failures)


def make_sockets(
    settings: Settings,
    replica: Replica,
    metrics: Metrics,
    access: Access,
    limits: Limits,
) -> Sockets:
    return Sockets(
        replica,
        metrics,
        access,
        limits,
        max_message_bytes=settings.max_message_bytes,
        max_outbox_bytes=settings.max_outbox_bytes,
        slow_member_seconds=settings.slow_member_seconds,
        messages_per_second=settings.messages_per_second,
        bytes_per_second=settings.bytes_per_second,
        max_rooms_per_socket=settings.max_rooms_per_socket,
        max_sockets=settings.max_sockets,
        handshake_seconds=settings.handshake_seconds,
        idle_seconds=settings.idle_seconds,
    )


def make_api(
    settings: Settings, replica: Replica, sockets: Sockets, metrics: Metrics
) -> Later:
    """All of /v1, whose models alone take as long to build as the rest of the start."""

    def make() -> ASGIApp:
        from collab.server.api.dispatch import Api
        from collab.server.api.drafts import Drafts
        from collab.server.api.presence import Guests
        from collab.server.api.routes import ROUTES

        return Api(
            ROUTES,
            access=sockets.access,
            limits=sockets.limits,
            replica=replica,
            metrics=metrics,
            guests=Guests(),
            drafts=Drafts(),
            max_body_bytes=settings.max_message_bytes,
        )

    return Later("/v1", make)


def _make_docs() -> ASGIApp:
    from collab.server.api.docs import make_docs  # heavy: see `make_api`
    from collab.server.api.routes import ROUTES

    return make_docs(ROUTES)


def make_demo(
    settings: Settings, access: Access, limits: Limits, listening: socket.socket
) -> Demo | None:
    if not settings.has_demo:
        return None
    host, port = listening.getsockname()[:2]
    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return Demo(access, limits, f"http://{f'[{near}]' if ':' in near else near}:{port}")


def make_app(
    settings: Settings,
    replica: Replica,
    sockets: Sockets,
    api: Later,
    figures: Figures | None = None,
    demo: Demo | None = None,
) -> Starlette:
    figures = figures or Figures(sockets.metrics.registry(), None)
    trusted = Trusted(settings.trusted_proxies)
    return Starlette(
        routes=[
            *playground.routes(),
            *(demo.routes() if demo is not None else ()),
            *Ops(replica, figures, sockets.access).routes(),
            api,
            Later("/docs", _make_docs),
            *Rooms(sockets).routes(),
        ],
        middleware=[
            Middleware(Proxies, trusted=trusted, header=settings.proxy_header),
            Middleware(
                Origins,
                allowed_hosts=settings.allowed_hosts,
                allowed_origins=settings.allowed_origins,
                any_host=not settings.is_loopback,
            ),
        ],
        exception_handlers={CollabError: answer_error},
    )


def _spare_the_collector() -> None:
    """Python's cycle collector goes over everything that lives, again and again: a third of a busy server's time.

    What the start has made lives as long as the process, and an update makes no cycles.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


class Server(uvicorn.Server):
    """uvicorn's server, which on a signal first drains: logs everything, then closes sockets one after the other."""

    def __init__(
        self,
        config: uvicorn.Config,
        settings: Settings,
        replica: Replica,
        sockets: Sockets,
        listening: socket.socket,
        tls: Tls | None,
        worker: Worker | None,
    ) -> None:
        super().__init__(config)
        self._listening, self._tls, self._worker = listening, tls, worker
        self._has_retired = False
        self._settings, self._replica, self._sockets = settings, replica, sockets
        self._loop = asyncio.get_running_loop()
        self._signals = 0
        self._draining: asyncio.Task[None] | None = None
        sockets.connections = self.server_state.connections

    def _make_protocol(self, _loop: Any = None) -> asyncio.Protocol:
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]  # as uvicorn does
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            _loop=_loop,
        )
        return made

    async def listen(self, context: ssl.SSLContext | None) -> None:
        """Take new connections with this context alone; those that are there go on with theirs.

        Each time on a copy of one listening socket, so that nobody is turned away in between.
        """
        if self.should_exit or self._has_retired:
            return
        made = await self._loop.create_server(
            self._make_protocol,
            sock=self._listening.dup(),
            backlog=self.config.backlog,
            ssl=context,
            ssl_handshake_timeout=TLS_SECONDS if context else None,
            ssl_shutdown_timeout=TLS_SECONDS if context else None,
        )
        before, self.servers = self.servers, [made]
        for server in before:
            server.close()

    async def startup(self, sockets: Any = None) -> None:
        _spare_the_collector()
        self.lifespan.state["metrics"] = (
            self._sockets.metrics
        )  # for the protocol classes that uvicorn makes
        self.lifespan.state["max_body_bytes"] = self._settings.max_message_bytes
        await super().startup([])
        await self.listen(self._tls.context if self._tls else None)
        if self._worker is None:
            banner.show(self._listening, is_secure=self._tls is not None)
        else:
            self._worker.begin(self.retire)

    def retire(self) -> None:
        """Let go of the port, where another listens, and drain."""
        self._has_retired = True
        for server in self.servers:
            server.close()
        self._listening.close()
        if self._signals == 0:
            self.handle_exit(signal.SIGTERM, None)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains, the second ends at once."""
        if self._signals == 0 and self.started:
            self._loop.call_soon_threadsafe(self._begin_drain)
        else:
            self.should_exit = self.force_exit = True
        self._signals += 1

    def _begin_drain(self) -> None:
        self._draining = self._loop.create_task(self._drain())

    async def _drain(self) -> None:
        log.info("draining", sockets=len(self._sockets))
        self._replica.audit.record("drain")
        self._replica.is_leaving = True
        try:
            if not self._has_retired:
                await asyncio.sleep(self._settings.drain_notice_seconds)
            # While people type there may be no quiet moment.
            with suppress(TimeoutError):
                async with asyncio.timeout(QUIET_SECONDS):
                    await self._replica.drain()
            await self._settle_handshakes()
            await self._part(list(self._sockets))
        finally:
            self.should_exit = True

    async def _part(self, sockets: Sequence[Socket]) -> None:
        """Tell everybody, and close one after the other; whatever each has said is logged and acknowledged before."""
        window = min(self._settings.drain_seconds, len(sockets) / GOODBYES_PER_SECOND)
        # Alone, this one must have ended before there is anywhere to go; with others, nobody need wait for that.
        has_others = self._has_retired or self._replica.has_others
        retry = RETURN_MILLISECONDS if has_others else int(window * 1000) + 500
        for each in sockets:
            each.notify("drain", retry)
        begun, closed = self._loop.time(), 0
        while closed < len(sockets):
            await asyncio.sleep(min(GOODBYES_SECONDS, window))
            passed = self._loop.time() - begun
            due = ceil(len(sockets) * passed / window) if window else len(sockets)
            group = sockets[closed:due]
            await self._replica.acknowledge(
                {member.room for each in group for member in each.members()}
            )
            for each in group:
                each.goodbye()
            closed += len(group)

    async def _settle_handshakes(self) -> None:
        """Who was let in before the drain becomes a socket first, so that it is told like all others."""
        connections = self.server_state.connections
        for _ in range(int(HANDSHAKES_SECONDS / 0.01)):
            if not any(isinstance(each, Upgrade) for each in connections):
                return
            await asyncio.sleep(0.01)


async def serve(settings: Settings, worker: Worker | None = None) -> None:
    """Run until a signal. Raises StoreLocked, StoreCorrupt or ConfigurationError when it cannot start."""
    metrics = Metrics()
    tls = make_tls(settings, metrics)
    if worker is None:
        listening = _listen(settings.host, settings.port)
    else:
        listening = worker.listening
        metrics.worker_restarts = worker.restarts
    async with (
        _audited(settings, metrics) as audit,
        make_replica(
            settings, make_store(settings), metrics, audit, make_bus(settings, metrics)
        ) as replica,
        make_registry(settings) as registry,
        make_authority(
            settings, metrics, registry, tickets := make_tickets(settings, replica)
        ) as authority,
        Figures(metrics.registry(), worker) as figures,
    ):
        access = Access(
            authority,
            replica,
            registry=registry,
            tickets=tickets,
            allow_query_token=settings.allow_query_token,
        )
        limits = make_limits(settings, metrics)
        sockets = make_sockets(settings, replica, metrics, access, limits)
        demo = make_demo(settings, access, limits, listening)
        api = make_api(settings, replica, sockets, metrics)
        config = uvicorn.Config(
            make_app(settings, replica, sockets, api, figures, demo),
            host=settings.host,
            port=settings.port,
            http=Http,
            ws=Upgrade,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=2048,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=5,
        )
        server = Server(config, settings, replica, sockets, listening, tls, worker)
        audit.record("start", version=collab.__version__)
        loop = asyncio.get_running_loop()
        beat = loop.create_task(sockets.beat())
        watch = loop.create_task(access.watch())
        _heed_hangups(tls, server)
        reloading = loop.create_task(_reload(tls, server))
        loading = loop.create_task(_load(api))
        try:
            async with demo or nullcontext():
                await server.serve(sockets=[listening])
        finally:
            beat.cancel()
            watch.cancel()
            reloading.cancel()
            loading.cancel()


async def _load(api: Later) -> None:
    """So that the first request need not wait for it; not at once, when all come back who were here before."""
    await asyncio.sleep(API_SECONDS)
    await api.load()
    _spare_the_collector()


async def _reload(tls: Tls | None, server: Server) -> None:
    if tls is not None:
        await tls.watch(server.listen)


def _heed_hangups(tls: Tls | None, server: Server) -> None:
    """SIGHUP reads the TLS files again, if there are any. Where there is a terminal it says that this is gone."""

    def heed() -> None:
        if is_in_terminal:
            server.handle_exit(signal.SIGHUP, None)
        elif tls is not None:
            tls.reload()

    if sys.platform != "win32":
        is_in_terminal = sys.stdin is not None and sys.stdin.isatty()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, heed)


@asynccontextmanager
async def _audited(settings: Settings, metrics: Metrics) -> AsyncIterator[Audit]:
    """The audit log, which sees the last member leave."""
    with make_audit(settings, metrics) as audit:
        yield audit
        audit.record("stop")


def _listen(host: str, port: int) -> socket.socket:
    """Bound before anything else is opened, so that a taken port is one sentence."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {host} port {port}: {error.strerror or error}; choose another with --port"
        ) from None


def run(settings: Settings, worker: Worker | None = None) -> None:
    """`serve` on uvloop where there is one, with as many open files as the system allows."""
    if sys.platform == "win32":
        asyncio.run(serve(settings, worker))
    else:
        import resource

        import uvloop

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        uvloop.run(serve(settings, worker))
