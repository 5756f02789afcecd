"""The way to Redis, for store and bus: one server, behind Sentinel, or a Cluster; every command ends in two seconds."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self
from urllib.parse import unquote, urlsplit

from redis.asyncio import ConnectionPool, Redis, RedisCluster, SSLConnection
from redis.asyncio.cluster import ClusterNode, PipelineCommand
from redis.asyncio.connection import Connection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    SlotNotCoveredError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.maint_notifications import MaintNotificationsConfig

from collab.errors import CollabError, ConfigurationError

COMMAND_SECONDS = 2.0  # in total, whatever happens below
_CONNECT_SECONDS = 1.0
_SOCKET_SECONDS = 1.8  # a little less than the total, so that the library says why
_SENTINEL_SECONDS = 0.5  # of each, so that the third is still asked in time
MAX_IN_FLIGHT = 32  # commands of one client; the others wait for a place
MAX_WAIT_SECONDS = 10.0  # for one, while Redis answers others
_MAX_CONNECTIONS = 2 * MAX_IN_FLIGHT  # with those that listen
_OLDEST_VERSION = 7


class _SentinelsRefuse(RedisConnectionError):
    """None of them has told who the primary is, and not for want of an answer."""


# uvloop raises a RuntimeError at who writes to a connection that was reset while nobody used it.
_FAULTS = (RedisError, RedisClusterException, OSError, TimeoutError, RuntimeError)

_REDIRECTIONS = 3  # of a key that moves to another node
_ELSEWHERE = (
    RedisConnectionError,
    RedisTimeoutError,
    ClusterDownError,
    MasterDownError,
    ReadOnlyError,
    OSError,
    RuntimeError,
)
_SAID: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    (_SentinelsRefuse, "the sentinels of Redis do not accept our password"),
    (
        (AuthenticationError, AuthorizationError),
        "Redis does not accept our user and password",
    ),
    (NoPermissionError, "Redis does not let us do this"),
    (OutOfMemoryError, "Redis is out of memory"),
    (ReadOnlyError, "this Redis follows another one and takes no writes"),
    (BusyLoadingError, "Redis is still loading"),
    (
        (ClusterDownError, SlotNotCoveredError, AskError, TryAgainError),
        "the Redis Cluster is not whole",
    ),
    ((TimeoutError, RedisTimeoutError), "Redis does not answer in time"),
    (
        (RedisConnectionError, RedisClusterException, OSError, RuntimeError),
        "Redis cannot be reached",
    ),
)
_CODES = {
    "NOREPLICAS": "too few follow it (min-replicas-to-write)",
    "MISCONF": "it cannot write to its disk",
    "BUSY": "it is busy with a script",
}

# In what Redis says when a key is of another type, or a script stumbles over its value.
_FOREIGN = ("WRONGTYPE", "user_script:", "ID specified in XADD", "not an integer")

_SCHEMES: dict[str, Literal["single", "sentinel", "cluster"]] = {
    "redis": "single",
    "redis+sentinel": "sentinel",
    "redis+cluster": "cluster",
}
_PORTS = {"single": 6379, "sentinel": 26379, "cluster": 6379}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where Redis is, and who we are there."""

    kind: Literal["single", "sentinel", "cluster"]
    places: tuple[tuple[str, int], ...]
    service: str = ""  # what the sentinels call it
    database: int = 0
    user: str = ""
    password: str = field(default="", repr=False)
    sentinel_password: str = field(default="", repr=False)
    is_secure: bool = False
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def __str__(self) -> str:
        return ",".join(f"{host}:{port}" for host, port in self.places)


def endpoint(
    address: str,
    *,
    password_file: Path | None = None,
    sentinel_password_file: Path | None = None,
    ca: Path | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
) -> Endpoint:
    """From the settings. Raises ConfigurationError, which never repeats the address: a password may stand in it."""
    try:
        found = _endpoint(address, ca, certificate, key)
    except (ValueError, KeyError):
        raise ConfigurationError(
            "redis: expected redis://host:port/0, rediss:// with TLS, redis+sentinel://host:port,host:port/service"
            " or redis+cluster://host:port,host:port"
        ) from None
    if sentinel_password_file is not None and found.kind != "sentinel":
        raise ConfigurationError(
            "redis_sentinel_password_file is for sentinels, and the address names none: say redis+sentinel://"
        )
    return replace(
        found,
        password=_read_password(password_file, "redis_password_file"),
        sentinel_password=_read_password(
            sentinel_password_file, "redis_sentinel_password_file"
        ),
    )


def _endpoint(
    address: str,
    ca: Path | None,
    certificate: Path | None,
    key: Path | None,
) -> Endpoint:
    parts = urlsplit(address)
    is_secure = parts.scheme.startswith("rediss")
    kind = _SCHEMES[parts.scheme.replace("rediss", "redis", 1)]
    user, _, hosts = parts.netloc.rpartition("@")
    if ":" in user:
        raise ConfigurationError(
            "redis: a password does not belong in the address, which others can see: say --redis-password-file"
        )
    if parts.query or parts.fragment:
        raise ValueError
    places = tuple(_place(one, _PORTS[kind]) for one in hosts.split(","))
    path = unquote(parts.path.lstrip("/"))
    if (kind == "single" and len(places) > 1) or (kind == "sentinel") != (
        bool(path) and not path.isdigit()
    ):
        raise ValueError
    if kind == "cluster" and path not in ("", "0"):
        raise ConfigurationError("redis: a Redis Cluster has only database 0")
    if not is_secure and (ca or certificate or key):
        raise ConfigurationError(
            "redis: there are certificates, but the address is not one with TLS: say rediss://"
        )
    if bool(certificate) != bool(key):
        raise ConfigurationError("redis_certificate and redis_key go together")
    for file in (ca, certificate, key):
        if file is not None and not file.is_file():
            raise ConfigurationError(f"redis: there is no file {file}")
    return Endpoint(
        kind,
        places,
        service=path if kind == "sentinel" else "",
        database=int(path or 0) if kind == "single" else 0,
        user=unquote(user),
        is_secure=is_secure,
        ca=ca,
        certificate=certificate,
        key=key,
    )


def _place(text: str, port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname or parts.path:
        raise ValueError
    return parts.hostname, parts.port or port


def _read_password(file: Path | None, setting: str) -> str:
    if file is None:
        return ""
    try:
        password = file.read_text().strip()
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{setting} cannot be read: {getattr(error, 'strerror', error)}"
        ) from None
    if not password:
        raise ConfigurationError(f"{setting} is empty")
    return password


class Script:
    """What Redis does in one step; sent by its hash, and whole only to a server that does not know it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class Call(NamedTuple):
    """A script with its keys, which all have the same hash tag, and its arguments."""

    script: Script
    keys: Sequence[str]
    arguments: Sequence[str | bytes | int]


Command = Sequence[str | bytes | float]


class ForeignContent(Exception):
    """A key does not hold what we put there: somebody else has written to it."""


class _Lone:
    """One server, alone or whom the sentinels call the primary."""

    def __init__(self, redis: Any, sentinel: Any = None) -> None:
        self._redis, self._sentinel = redis, sentinel

    async def look(self) -> None:
        """There is nothing to know."""

    def primaries(self) -> list[Any]:
        return [self._redis]

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        """In one go; what each answers or why it failed. Raises when none was answered."""
        pipeline = self._redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        answers: list[Any] = await pipeline.execute(raise_on_error=False)
        return answers

    async def close(self) -> None:
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()
        if self._sentinel is not None:
            await self._sentinel.aclose()


class _Sentinels(Sentinel):
    """They are asked once a failover, so nobody keeps connections to them."""

    async def discover_master(self, service_name: str) -> Any:
        try:
            return await super().discover_master(service_name)
        except MasterNotFoundError as error:
            if AuthenticationError.__name__ in str(error):
                raise _SentinelsRefuse from None
            raise
        finally:
            for one in self.sentinels:
                await one.connection_pool.disconnect(inuse_connections=False)


class _Nodes:
    """The nodes of a Cluster. One that is dead fails for its own keys alone.

    The library's own client gives up for all nodes when one is gone, and asks a dead one what commands there are.
    """

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self._is_known = False  # who has which slots

    async def look(self) -> None:
        if not self._is_known:
            await self._cluster.nodes_manager.initialize()
            self._is_known = True

    def primaries(self) -> list[Any]:
        found: list[Any] = self._cluster.get_primaries()
        return found

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        """To each node in this order; what each command answers or why it failed."""
        answers: list[Any] = [None] * len(commands)
        left = list(range(len(commands)))
        for _ in range(_REDIRECTIONS):
            await self._send(commands, left, answers)
            left = [at for at in left if isinstance(answers[at], AskError)]
            if not left:
                break
        return answers

    async def _send(
        self, commands: Sequence[Command], which: Sequence[int], answers: list[Any]
    ) -> None:
        parts: dict[str, tuple[Any, list[PipelineCommand]]] = {}
        for at in which:
            try:
                node, is_asking = await self._node(commands[at], answers[at])
            except SlotNotCoveredError as error:
                self._is_known, answers[at] = False, error
                continue
            _, queue = parts.setdefault(node.name, (node, []))
            if is_asking:  # on the same connection, just before
                queue.append(PipelineCommand(-1, "ASKING"))
            queue.append(PipelineCommand(at, *commands[at]))
        await asyncio.gather(
            *(self._ask(node, queue, answers) for node, queue in parts.values())
        )

    async def _node(self, command: Command, answer: Any) -> tuple[Any, bool]:
        """Who has the key now, and whether only this once."""
        manager = self._cluster.nodes_manager
        if isinstance(answer, MovedError):  # which is an AskError
            await manager.move_slot(answer)
        elif isinstance(answer, AskError):
            node = manager.get_node(host=answer.host, port=answer.port)
            if node is not None:
                return node, True
            self._is_known = False
        key = command[3] if command[0] == "EVALSHA" else command[1]
        return manager.get_node_from_slot(self._cluster.keyslot(key)), False

    async def _ask(
        self, node: Any, queue: Sequence[PipelineCommand], answers: list[Any]
    ) -> None:
        try:
            await node.execute_pipeline(queue)
        except _FAULTS as error:
            for each in queue:
                each.result = error
        except asyncio.CancelledError:
            self._is_known = False
            raise
        for each in queue:
            if each.position >= 0:
                answers[each.position] = each.result
            if isinstance(each.result, _ELSEWHERE):
                self._is_known = False

    async def close(self) -> None:
        await self._cluster.nodes_manager.aclose()
        await self._cluster.nodes_manager.aclose("startup_nodes")


class _Places:
    """So many commands at a time. Who waits does so while Redis answers others, and fails with the first that it does not."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        await self._enter()
        try:
            yield
        finally:
            self._leave()

    async def _enter(self) -> None:
        if self._free:
            self._free -= 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                await place
        except BaseException:
            if place.done() and not place.cancelled() and place.exception() is None:
                self._leave()  # it came too late
            raise

    def _leave(self) -> None:
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._free += 1

    def fail(self) -> None:
        """Redis does not answer: send away all who wait."""
        waiting, self._waiting = self._waiting, deque()
        for place in waiting:
            if not place.done():
                place.set_exception(TimeoutError())


class Client:
    """Commands to Redis. An async context manager; it connects when it must, so entering does not need Redis.

    Each call ends in `COMMAND_SECONDS`, with nothing tried again inside, and raises `unavailable` for whatever may be
    better later; in a crowd it may first wait for its turn, as long as Redis answers the others. Who gives up takes the connection along, so no answer is taken for that of another command.
    """

    def __init__(self, endpoint: Endpoint, *, unavailable: type[CollabError]) -> None:
        self.endpoint = endpoint
        self._unavailable = unavailable
        self._places = _Places(MAX_IN_FLIGHT)
        self._way: _Lone | _Nodes

    async def __aenter__(self) -> Self:
        self._way = _connect(self.endpoint)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._way.close()

    async def check(self) -> None:
        """Whether Redis takes us. Raises ConfigurationError when it never will, and `unavailable`."""
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                await self._way.look()
                nodes = self._way.primaries()
                found = [await node.execute_command("INFO", "server") for node in nodes]
        except _FAULTS as error:
            fault = _never(error)
            if fault:
                raise ConfigurationError(fault) from None
            raise self._translate(error) from None
        for version in (str(each["redis_version"]) for each in found):
            if int(version.partition(".")[0]) < _OLDEST_VERSION:
                raise ConfigurationError(
                    f"redis: version {version} is too old, {_OLDEST_VERSION}.0 is needed"
                )

    async def run(self, *command: str | bytes | float) -> Any:
        """One command, whose first argument is its key, and its answer."""
        async with self._limited():
            (answer,) = await self._way.send([command])
            if isinstance(answer, Exception):
                raise answer
            return answer

    async def run_on_primaries(self, *command: str | int) -> list[Any]:
        """The same to every node that takes writes, and what each answers."""
        async with self._limited():
            return [
                await node.execute_command(*command) for node in self._way.primaries()
            ]

    async def config(self, *names: str) -> list[dict[str, str]] | None:
        """What each node that takes writes is set to; None where that is kept from us."""
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                await self._way.look()
                return [
                    await node.execute_command("CONFIG GET", *names)
                    for node in self._way.primaries()
                ]
        except _FAULTS as error:
            is_kept = isinstance(error, NoPermissionError) or "unknown command" in str(
                error
            )
            if not is_kept:
                raise self._translate(error) from None
            return None

    async def scan(self, pattern: str) -> AsyncIterator[list[str]]:
        """The keys of all nodes that have such names, in portions; one may come twice."""
        async with self._limited():
            nodes = self._way.primaries()
        for node in nodes:
            cursor = 0
            while True:
                async with self._limited():
                    cursor, keys = await node.execute_command(
                        "SCAN", cursor, "MATCH", pattern, "COUNT", 1000
                    )
                yield [key.decode() for key in keys]
                if not int(cursor):
                    break

    async def call(
        self, script: Script, keys: Sequence[str], *arguments: str | bytes | int
    ) -> Any:
        """One script, and what it returns. Raises ForeignContent too."""
        (answer,) = await self.call_all([Call(script, keys, arguments)])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def call_all(self, calls: Sequence[Call]) -> list[Any]:
        """In one go and in this order over one connection (of a Cluster: one for each node).

        What a call returns, or why it failed: ForeignContent or `unavailable`. Raises `unavailable` when that holds for
        all; then nobody knows which of them were carried out.
        """
        commands = [
            ("EVALSHA", call.script.sha, len(call.keys), *call.keys, *call.arguments)
            for call in calls
        ]
        async with self._limited():
            answers = await self._way.send(commands)
            unknown = [
                at for at, one in enumerate(answers) if isinstance(one, NoScriptError)
            ]
            if unknown:
                for text in {calls[at].script.text for at in unknown}:
                    await self._teach(text)
                again = await self._way.send([commands[at] for at in unknown])
                for at, answer in zip(unknown, again, strict=True):
                    answers[at] = answer
        return [
            self._translate(one) if isinstance(one, Exception) else one
            for one in answers
        ]

    async def _teach(self, text: str) -> None:
        """A node that is away learns it when it is asked again."""
        nodes = self._way.primaries()
        taught = await asyncio.gather(
            *(node.execute_command("SCRIPT LOAD", text) for node in nodes),
            return_exceptions=True,
        )
        faults = [one for one in taught if isinstance(one, BaseException)]
        if len(faults) == len(taught):
            raise faults[0]

    @asynccontextmanager
    async def _limited(self) -> AsyncIterator[None]:
        try:
            async with self._places.one():
                try:
                    async with asyncio.timeout(COMMAND_SECONDS):
                        await self._way.look()
                        yield
                except (TimeoutError, RedisTimeoutError):
                    self._places.fail()
                    raise
        except _FAULTS as error:
            raise self._translate(error) from None

    def _translate(self, error: Exception) -> Exception:
        """What a peer may be told: nothing of addresses or scripts."""
        text = str(error).partition(" script: ")[0]
        if isinstance(error, ResponseError) and any(sign in text for sign in _FOREIGN):
            return ForeignContent(text)
        for kinds, said in _SAID:
            if isinstance(error, kinds):
                return self._unavailable(said)
        code = text.split()[0] if text else ""
        return self._unavailable(f"Redis refuses: {_CODES.get(code, code)}")


def _connect(place: Endpoint) -> _Lone | _Nodes:
    options: dict[str, Any] = {
        "username": place.user or None,
        "password": place.password or None,
        "protocol": 3,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": _SOCKET_SECONDS,
        "socket_connect_timeout": _CONNECT_SECONDS,
        "max_connections": _MAX_CONNECTIONS,
        "driver_info": None,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    secure: dict[str, Any] = {}
    if place.is_secure:
        secure = {
            "ssl_ca_certs": str(place.ca) if place.ca else None,
            "ssl_certfile": str(place.certificate) if place.certificate else None,
            "ssl_keyfile": str(place.key) if place.key else None,
        }
    match place.kind:
        case "cluster":
            cluster = RedisCluster(
                startup_nodes=[ClusterNode(*each) for each in place.places],
                require_full_coverage=False,  # the rooms elsewhere go on
                ssl=place.is_secure,
                **options,
                **secure,
            )
            return _Nodes(cluster)
        case "sentinel":
            timeouts = {"socket_timeout", "socket_connect_timeout"}
            theirs = dict.fromkeys(timeouts, _SENTINEL_SECONDS)
            shared = {"retry", "protocol", "driver_info", "maint_notifications_config"}
            sentinel = _Sentinels(  # type: ignore[no-untyped-call]  # untyped in redis-py
                place.places,
                sentinel_kwargs={
                    **{name: options[name] for name in shared},
                    **theirs,
                    "password": place.sentinel_password or None,
                    "ssl": place.is_secure,
                    **secure,
                },
            )
            primary = sentinel.master_for(
                place.service, ssl=place.is_secure, **options, **secure
            )
            return _Lone(primary, sentinel)
        case "single":
            host, port = place.places[0]
            pool = ConnectionPool(
                connection_class=SSLConnection if place.is_secure else Connection,
                host=host,
                port=port,
                db=place.database,
                **options,
                **secure,
            )
            return _Lone(Redis(connection_pool=pool))


def _never(error: BaseException) -> str:
    """Why it will not get better by itself; "" where it may."""
    chain: BaseException | None = error
    while chain is not None:
        match chain:
            case AuthenticationError() | AuthorizationError():
                return "redis: it does not accept our user and password: see redis_password_file, and the user in its address"
            case _SentinelsRefuse():
                return "redis: its sentinels do not accept our password: see redis_sentinel_password_file"
            case NoPermissionError():
                return f"redis: our user lacks a permission: {chain}; deploy/README.md lists what it needs"
        if "certificate verify failed" in str(chain).lower():
            return "redis: its certificate is not from whom redis_ca names, or for another host"
        if isinstance(chain, RedisClusterException) and "not enabled" in str(chain):
            return "redis: it is no Redis Cluster: say redis:// instead of redis+cluster://"
        chain = chain.__cause__ or chain.__context__
    return ""
