"""Real servers of others on loopback, for tests of any folder: Redis, alone or in numbers, and Postgres.

Each lives in a directory of its own for as long as its `with` block, and keeps its port when it comes back.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import ClassVar, Self

import redis
from ports import free_port

START_SECONDS = 30.0
PATIENCE_SECONDS = 30.0
ATTEMPTS = 20
SLOTS = 16384


class Process:
    """A program that listens on one port."""

    def __init__(self) -> None:
        # Not pytest's: those are closed to the accounts of other users.
        self.directory = Path(tempfile.mkdtemp(prefix="collab-"))
        self.log = self.directory / "log"
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._user: str | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "it runs"
        return self._process.pid

    def command(self) -> list[str]:
        raise NotImplementedError

    def is_ready(self) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        """Returns when it answers; on the same port as before if it had one."""
        for _ in range(1 if self.port else ATTEMPTS):
            had_port, self.port = self.port, self.port or free_port()
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    self.command(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.directory,
                    user=self._user,
                    group=self._user and pwd.getpwnam(self._user).pw_gid,
                    extra_groups=[] if self._user else None,
                    start_new_session=True,
                )
            if wait_for(
                lambda: self._has_ended() or self.is_ready(), seconds=START_SECONDS
            ):
                if not self._has_ended():
                    return
            self.kill()
            self.port = had_port  # another took the port in between
        raise AssertionError(f"it did not start: {self.log.read_text()[-2000:]}")

    def _has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def kill(self) -> None:
        """SIGKILL, with the processes it has started itself."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGSTOP: its port takes connections and nothing answers."""
        os.killpg(self.pid, signal.SIGSTOP)

    def cont(self) -> None:
        os.killpg(self.pid, signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        """Wait until it has ended."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            if number is signal.SIGKILL:
                os.killpg(self.pid, number)
            else:
                self._process.send_signal(number)
        self._process.wait(PATIENCE_SECONDS)
        self._process = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *reason: object) -> None:
        self.close()

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


class Redis(Process):
    """One redis-server: without persistence unless `aof` says how often it is written through (always, everysec, no)."""

    def __init__(
        self,
        *,
        aof: str = "",
        maxmemory: str = "",
        policy: str = "noeviction",
        password: str = "",
        options: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.aof, self.maxmemory, self.policy = aof, maxmemory, policy
        self.password, self.options = password, tuple(options)

    @property
    def url(self) -> str:
        """Without the password: that is given in another way."""
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        aof = ("--appendfsync", self.aof) if self.aof else ()
        limit = ("--maxmemory", self.maxmemory) if self.maxmemory else ()
        password = ("--requirepass", self.password) if self.password else ()
        return [
            "redis-server",
            *("--port", str(self.port), "--bind", "127.0.0.1"),
            *("--dir", str(self.directory), "--save", ""),
            *("--appendonly", "yes" if self.aof else "no", *aof),
            *("--maxmemory-policy", self.policy, *limit, *password),
            *("--enable-debug-command", "yes", *self.options),
        ]

    @contextmanager
    def client(self, *, is_decoded: bool = True) -> Iterator[redis.Redis]:
        """A plain client, past any proxy."""
        with redis.Redis(
            port=self.port,
            password=self.password or None,
            socket_timeout=5,
            decode_responses=is_decoded,
        ) as client:
            yield client

    def is_ready(self) -> bool:
        try:
            with self.client() as client:
                return int(client.info("server")["process_id"]) == self.pid
        except redis.RedisError:
            return False

    def do(self, *words: str | int) -> object:
        """One command, and its answer."""
        with self.client() as client:
            return client.execute_command(*words)

    def flush(self) -> None:
        self.do("FLUSHALL")

    def restart(self, *, is_empty: bool = False) -> None:
        """Kill it and start it again, with what it had written or with nothing."""
        self.kill()
        if is_empty:
            shutil.rmtree(self.directory / "appendonlydir", ignore_errors=True)
            (self.directory / "dump.rdb").unlink(missing_ok=True)
        self.start()


class _Sentinel(Redis):
    """Watches the primary of a `Sentinels`."""

    def __init__(self, service: str, primary: Redis, password: str) -> None:
        super().__init__(password=password)
        self.service, self.primary = service, primary

    def command(self) -> list[str]:
        settings = self.directory / "sentinel.conf"
        if not settings.exists():  # it writes down there what it learns
            lines = [
                f"port {self.port}",
                "bind 127.0.0.1",
                f"dir {self.directory}",
                f"sentinel monitor {self.service} 127.0.0.1 {self.primary.port} 2",
                f"sentinel down-after-milliseconds {self.service} 1000",
                f"sentinel failover-timeout {self.service} 3000",
            ]
            if self.password:  # with which they speak to each other, too
                lines.append(f'requirepass "{self.password}"')
            if word := self.primary.password:
                lines.append(f'sentinel auth-pass {self.service} "{word}"')
            settings.write_text("\n".join(lines) + "\n")
        return ["redis-server", str(settings), "--sentinel"]

    def start(self) -> None:
        if not self.port:
            (self.directory / "sentinel.conf").unlink(missing_ok=True)
        super().start()


class Sentinels:
    """A primary with one follower, and three sentinels that put the follower in its place."""

    service = "primary"

    def __init__(self, *, sentinel_password: str = "", **options: str) -> None:
        self._options, self._password = options, sentinel_password
        self._stack = ExitStack()
        self.nodes: list[Redis] = []
        self.sentinels: list[Redis] = []

    @property
    def url(self) -> str:
        places = ",".join(f"127.0.0.1:{one.port}" for one in self.sentinels)
        return f"redis+sentinel://{places}/{self.service}"

    @property
    def primary(self) -> Redis:
        """Whom the sentinels call the primary now."""
        answer = self.sentinels[0].do(
            "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service
        )
        assert isinstance(answer, (list, tuple))
        return next(one for one in self.nodes if one.port == int(answer[1]))

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            first = stack.enter_context(Redis(**self._options))
            follows = ["--replicaof", f"127.0.0.1 {first.port}"]
            if first.password:
                follows += ["--masterauth", first.password]
            second = stack.enter_context(Redis(**self._options, options=follows))
            self.nodes = [first, second]
            for _ in range(3):
                self.sentinels.append(
                    stack.enter_context(_Sentinel(self.service, first, self._password))
                )
            assert wait_for(self._is_ready), "the sentinels did not find each other"
            self._stack = stack.pop_all()
        return self

    def _is_ready(self) -> bool:
        return follows(self.nodes[1]) and all(
            "slaves=1,sentinels=3" in info(one, "sentinel") for one in self.sentinels
        )

    def __exit__(self, *reason: object) -> None:
        self._stack.close()


class Cluster:
    """A Redis Cluster of three primaries that share the slots; with a follower each when asked."""

    def __init__(self, *, has_followers: bool = False, **options: str) -> None:
        self._count = 6 if has_followers else 3
        self._options = options
        self._stack = ExitStack()
        self.nodes: list[Redis] = []

    @property
    def url(self) -> str:
        places = ",".join(f"127.0.0.1:{one.port}" for one in self.nodes)
        return f"redis+cluster://{places}"

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for _ in range(self._count):
                self.nodes.append(stack.enter_context(self._node()))
            self._join()
            self._stack = stack.pop_all()
        return self

    def _node(self) -> Redis:
        return Redis(
            **self._options,
            options=(
                *("--cluster-enabled", "yes", "--cluster-node-timeout", "1000"),
                *("--cluster-port", str(free_port())),
                # A follower of a few seconds may take over, and the others go on without it.
                *("--cluster-replica-validity-factor", "0"),
                *("--cluster-require-full-coverage", "no"),
            ),
        )

    def _join(self) -> None:
        first, primaries = self.nodes[0], self.nodes[:3]
        for number, node in enumerate(self.nodes):
            node.do("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for number, node in enumerate(primaries):
            start, end = SLOTS * number // 3, SLOTS * (number + 1) // 3 - 1
            node.do("CLUSTER", "ADDSLOTSRANGE", start, end)
        bus = first.options[first.options.index("--cluster-port") + 1]
        for node in self.nodes[1:]:
            node.do("CLUSTER", "MEET", "127.0.0.1", first.port, bus)
        count = f"cluster_known_nodes:{self._count}"
        assert self._all_say("cluster_state:ok", count), "the cluster did not form"
        for number, node in enumerate(self.nodes[3:]):
            primary = str(primaries[number].do("CLUSTER", "MYID"))
            node.do("CLUSTER", "REPLICATE", primary)
        assert wait_for(lambda: all(follows(node) for node in self.nodes[3:])), (
            "a follower did not follow"
        )

    def home(self, slot: int) -> Redis:
        """Who takes the writes of this slot, as the first says that answers."""
        for node in self.nodes:
            with contextlib.suppress(redis.RedisError):
                shares = node.do("CLUSTER", "SLOTS")
                assert isinstance(shares, list)
                for start, end, (_, port, *_), *_ in shares:
                    if start <= slot <= end:
                        return next(each for each in self.nodes if each.port == port)
        raise AssertionError(f"nobody has slot {slot}")

    def follower(self, primary: Redis) -> Redis:
        """Of one of the first three, as they began."""
        return self.nodes[self.nodes.index(primary) + 3]

    def _all_say(self, *lines: str) -> bool:
        def check() -> bool:
            said = [str(node.do("CLUSTER", "INFO")) for node in self.nodes]
            return all(line in one for one in said for line in lines)

        return wait_for(check)

    def __exit__(self, *reason: object) -> None:
        self._stack.close()


class Postgres(Process):
    """One PostgreSQL, run by an ordinary account, for it refuses to be root."""

    _fresh: ClassVar[Path | None] = None

    def __init__(self, *, options: Sequence[str] = ()) -> None:
        super().__init__()
        self.options = tuple(options)
        self._bin = newest_postgres()
        self._databases = 0
        if os.geteuid() == 0:
            self._user = ordinary_account()
            shutil.chown(self.directory, self._user)

    @property
    def dsn(self) -> str:
        return self._dsn("postgres")

    def _dsn(self, database: str) -> str:
        return f"postgresql://collab@127.0.0.1:{self.port}/{database}"

    def new_dsn(self) -> str:
        """Of an empty database of one's own."""
        self._databases += 1
        name = f"test{self._databases}"
        self._run("createdb", *self._where(), name)
        return self._dsn(name)

    def command(self) -> list[str]:
        return [
            str(self._bin / "postgres"),
            *("-D", str(self.directory / "data"), "-p", str(self.port)),
            *("-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="),
            *self.options,
        ]

    def start(self) -> None:
        data = self.directory / "data"
        if not data.exists():
            if type(self)._fresh is None:
                type(self)._fresh = self._make_fresh()
            # As it was made, with its owner.
            subprocess.run(["cp", "-a", type(self)._fresh, data], check=True)
        super().start()

    def _make_fresh(self) -> Path:
        """What `initdb` makes, once for all of a process: a copy of it takes a fraction of the work."""
        folder = Path(tempfile.mkdtemp(prefix="collab-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        if self._user:
            shutil.chown(folder, self._user)
        self._run(
            "initdb",
            *("-D", str(folder / "data"), "-U", "collab", "--no-sync"),
            *("--auth", "trust", "--encoding", "UTF8", "--locale", "C.UTF-8"),
        )
        return folder / "data"

    def stop(self) -> None:
        """SIGSTOP: its port takes connections and nothing answers, not even where there was one."""
        self._signal(signal.SIGSTOP)

    def cont(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        """Each connection has a process, in a group of its own."""
        os.kill(self.pid, number)
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        for pid in map(int, children.split()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop_immediately(self) -> None:
        """As `pg_ctl stop -m immediate`: no checkpoint, every connection is cut."""
        self._end(signal.SIGQUIT)

    def close(self) -> None:
        """By itself it also waits for the processes it has started."""
        if self._process is not None:
            self.cont()
            self.stop_immediately()
        super().close()

    def restart(self) -> None:
        """Fast, and orderly."""
        self._end(signal.SIGINT)
        self.start()

    def sql(self, statement: str) -> str:
        """One statement by psql, and what it prints."""
        return self._run("psql", "-qAt", *self._where(), "-c", statement, "postgres")

    def is_ready(self) -> bool:
        """It writes its state down as the eighth line of this file."""
        try:
            lines = (self.directory / "data" / "postmaster.pid").read_text().split("\n")
        except FileNotFoundError:
            return False
        return len(lines) > 7 and (lines[0], lines[7].strip()) == (
            str(self.pid),
            "ready",
        )

    def _where(self) -> tuple[str, ...]:
        return ("-h", "127.0.0.1", "-p", str(self.port), "-U", "collab")

    def _run(self, program: str, *arguments: str) -> str:
        done = subprocess.run(
            [str(self._bin / program), *arguments],
            capture_output=True,
            text=True,
            cwd=self.directory,
            user=self._user,
            timeout=60,
        )
        assert done.returncode == 0, f"{program}: {done.stderr}"
        return done.stdout.strip()


def newest_postgres() -> Path:
    """The folder of its programs, which Debian keeps off the PATH."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"),
        key=lambda program: float(program.parent.parent.name),
    )
    assert found, "PostgreSQL is not installed: run make setup"
    return found[-1].parent


def ordinary_account() -> str:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def follows(node: Redis) -> bool:
    """Whether it is in step with its primary."""
    return "master_link_status:up" in info(node, "replication")


def info(node: Redis, section: str) -> str:
    """What `INFO` says, as lines."""
    with node.client() as client:
        answer = client.info(section)
    return "\n".join(
        f"{key}:{value}"
        if not isinstance(value, dict)
        else f"{key}:{','.join(f'{name}={one}' for name, one in value.items())}"
        for key, value in answer.items()
    )


def wait_for(check: Callable[[], bool], *, seconds: float = PATIENCE_SECONDS) -> bool:
    """Whether something that another process does comes true in time."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
