"""The image, the compose file and the manifests: taken by their linters, and in agreement with each other and the code.

Each check is shown a fault of its kind that it must find.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

import httpx2
import pytest
import yaml
from looking import (
    Pod,
    compose_faults,
    health_check,
    image_faults,
    kubernetes_faults,
    manifests,
    may_reach,
    variables_of,
)
from processes import ROOT, Server
from proxying import Haproxy
from services import Process

BIN = Path(sys.executable).parent
DEPLOY = ROOT / "deploy"
YAMLLINT = "{extends: default, rules: {line-length: {max: 130}}}"
KUBERNETES = "1.34.0"


class Fault(NamedTuple):
    """A change to one file, and what has to be said about it."""

    file: str
    old: str
    new: str
    finding: str


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of deploy/, to be spoilt."""
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    shutil.copy(ROOT / ".dockerignore", tmp_path)
    return tmp_path / "deploy"


def plant(folder: Path, fault: Fault) -> None:
    file = folder / fault.file
    text = file.read_text()
    assert fault.old in text, f"{fault.file} has no {fault.old}"
    file.write_text(text.replace(fault.old, fault.new, 1))


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False
    )


# Linters of others


def hadolint(deploy: Path) -> subprocess.CompletedProcess[str]:
    return run(BIN / "hadolint", deploy / "Dockerfile")


def compose_schema(deploy: Path) -> subprocess.CompletedProcess[str]:
    schema = ("--builtin-schema", "vendor.compose-spec")
    return run(BIN / "check-jsonschema", *schema, deploy / "compose.yaml")


def kubernetes_schema(deploy: Path) -> subprocess.CompletedProcess[str]:
    files = sorted((deploy / "kubernetes" / "base").glob("*.yaml"))
    meant = [file for file in files if file.name != "kustomization.yaml"]
    return run(BIN / "kubernetes-validate", "--strict", "-k", KUBERNETES, *meant)


def yamllint(deploy: Path) -> subprocess.CompletedProcess[str]:
    return run(BIN / "yamllint", "--strict", "-d", YAMLLINT, deploy)


Linter = Callable[[Path], subprocess.CompletedProcess[str]]
DEPLOYMENT = "kubernetes/base/deployment.yaml"
LINTED: list[tuple[Linter, Fault]] = [
    (hadolint, Fault("Dockerfile", "python:3.11-slim-bookworm\n", "python\n", "DL3006")),
    (hadolint, Fault("Dockerfile", "COPY collab collab", "ADD collab collab", "DL3020")),
    (hadolint, Fault("Dockerfile", 'CMD ["serve"]', "CMD serve", "DL3025")),
    (compose_schema, Fault("compose.yaml", "read_only: true", "readonly: true", "readonly")),
    (compose_schema, Fault("compose.yaml", "pids_limit: 64", "pids_limit: [64]", "pids_limit")),
    (kubernetes_schema, Fault(DEPLOYMENT, "minReadySeconds", "minReadySecond", "minReadySecond")),
    (kubernetes_schema, Fault(DEPLOYMENT, "containerPort: 8000", "containerPort: http", "not of type")),
    (yamllint, Fault(DEPLOYMENT, "  selector:", "   selector:", "syntax")),
    (yamllint, Fault("compose.yaml", "name: collab\n", "name: collab\nname: twice\n", "duplication")),
]  # fmt: skip


@pytest.mark.parametrize(
    "linter", [hadolint, compose_schema, kubernetes_schema, yamllint]
)
def test_a_linter_has_nothing_to_say(linter: Linter) -> None:
    found = linter(DEPLOY)

    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize(("linter", "fault"), LINTED)
def test_a_linter_finds_a_fault(copied: Path, linter: Linter, fault: Fault) -> None:
    plant(copied, fault)

    found = linter(copied)

    assert found.returncode != 0
    assert fault.finding in found.stdout + found.stderr


# Our own


Look = Callable[[Path], Iterator[str]]


def base(deploy: Path) -> Iterator[str]:
    return kubernetes_faults(deploy / "kubernetes" / "base")


LOOKS: tuple[Look, ...] = (image_faults, compose_faults, base)
BASE = "kubernetes/base"
FAULTS: list[tuple[Look, Fault]] = [
    (image_faults, Fault("Dockerfile", "install --require-hashes -r deploy/req", "install -r deploy/req", "not by hash")),
    (image_faults, Fault("Dockerfile", "USER 10001:10001", "USER collab", "no number, or root")),
    (image_faults, Fault("Dockerfile", "USER 10001:10001", "USER 0:0", "no number, or root")),
    (image_faults, Fault("Dockerfile", "ENTRYPOINT [\"collab\"]", "ENTRYPOINT collab", "starts a shell")),
    (image_faults, Fault("Dockerfile", 'CMD ["serve"]', 'CMD ["check"]', "`collab serve`")),
    (image_faults, Fault("Dockerfile", "STOPSIGNAL SIGTERM", "STOPSIGNAL SIGINT", "SIGTERM")),
    (image_faults, Fault("Dockerfile", "'/healthz'", "'/health'", "health check")),
    (image_faults, Fault("Dockerfile", 'image.version="0.1.0"', 'image.version="0.0.9"', "another version")),
    (image_faults, Fault("Dockerfile", "COLLAB_DATA=", "COLLAB_DATA_DIR=", "COLLAB_DATA_DIR is no setting")),
    (image_faults, Fault("Dockerfile", "COPY pyproject.toml", "COPY uv.lock pyproject.toml", "uv.lock")),
    (image_faults, Fault("Dockerfile", "RUN install -d", "RUN apt-get install gcc && install -d", "installs something")),
    (image_faults, Fault("Dockerfile", "COPY deploy/requirements.txt", "COPY collab collab\nCOPY deploy/requirements.txt", "everything again")),
    (image_faults, Fault("../.dockerignore", "!README.md\n", "", "README.md")),
    (image_faults, Fault("../.dockerignore", "!README.md\n", "!README.md\n!data\n", "data")),
    (compose_faults, Fault("compose.yaml", "read_only: true", "read_only: false", "may write into its root")),
    (compose_faults, Fault("compose.yaml", "cap_drop: [ALL]", "cap_drop: []", "keeps capabilities")),
    (compose_faults, Fault("compose.yaml", "no-new-privileges:true", "seccomp:unconfined", "become more")),
    (compose_faults, Fault("compose.yaml", "COLLAB_JWT_KEYS", "COLLAB_JWT_KEY", "COLLAB_JWT_KEY is no setting")),
    (compose_faults, Fault("compose.yaml", '\'["jwt", "keys"]\'', "jwt", "refuses its settings")),
    (compose_faults, Fault("compose.yaml", 'S: \'["172.30.77.2"]\'', 'S: \'["172.30.77.3"]\'', "does not believe the proxy")),
    (compose_faults, Fault("compose.yaml", "subnet: 172.30.77.0/24", "subnet: 172.30.78.0/24", "not in its network")),
    (compose_faults, Fault("compose.yaml", "[redis-password, cluster-key, jwt-keys]", "[redis-password, cluster-key]", "has no /run/secrets/jwt-keys")),
    (compose_faults, Fault("compose.yaml", "networks: [store]", "networks: [store, clients]", "reaches Redis")),
    (compose_faults, Fault("compose.yaml", "networks: [store]", "networks: [stores]", "stores")),
    (compose_faults, Fault("compose.yaml", "internal: true", "internal: false", "reaches the world")),
    (compose_faults, Fault("compose.yaml", "    networks: [store]", "    networks: [store]\n    ports: ['6379:6379']", "past the proxy")),
    (compose_faults, Fault("compose.yaml", "--appendfsync always", "--appendfsync no", "before it has written")),
    (compose_faults, Fault("compose.yaml", "- replica2:/data", "- replica1:/data", "one data directory")),
    (compose_faults, Fault("compose.yaml", "stop_grace_period: 40s", "stop_grace_period: 10s", "while it drains")),
    (compose_faults, Fault("compose.yaml", "127.0.0.1:8080:8080", "127.0.0.1:8080:80", "published port")),
    (compose_faults, Fault("compose.yaml", "redis:7.2-bookworm", "redis:latest", "no version")),
    (compose_faults, Fault("proxy/haproxy.cfg", "replica2 replica2:8000", "replica2 replica3:8000", "the proxy knows")),
    (base, Fault(f"{BASE}/kustomization.yaml", "  - redis.yaml\n", "", "redis.yaml is listed")),
    (base, Fault(f"{BASE}/kustomization.yaml", "newTag: 0.1.0", "newTag: 0.0.9", "another version")),
    (base, Fault(f"{BASE}/kustomization.yaml", "--from-literal=cluster-key", "--from-literal=key", "no cluster-key")),
    (base, Fault(f"{BASE}/settings.env", "COLLAB_IDLE_ROOM_SECONDS", "COLLAB_IDLE_SECOND", "COLLAB_IDLE_SECOND is no setting")),
    (base, Fault(f"{BASE}/settings.env", "COLLAB_AUTH=", "# COLLAB_AUTH=", "refuses its settings")),
    (base, Fault(f"{BASE}/settings.env", "collab/jwt-keys.json", "collab/jwt.json", "not mounted")),
    (base, Fault(f"{BASE}/settings.env", "redis:6379", "redis:6380", "at no Service")),
    (base, Fault(f"{BASE}/settings.env", "DRAIN_SECONDS=20", "DRAIN_SECONDS=50", "while it drains")),
    (base, Fault(f"{BASE}/settings.env", "NOTICE_SECONDS=5", "NOTICE_SECONDS=40", "while it drains")),
    (base, Fault(DEPLOYMENT, "path: /readyz", "path: /ready", "asks for /ready")),
    (base, Fault(DEPLOYMENT, "port: http\n            periodSeconds: 2", "port: web\n            periodSeconds: 2", "no port of its own")),
    (base, Fault(DEPLOYMENT, "livenessProbe", "liveProbe", "has no livenessProbe")),
    (base, Fault(DEPLOYMENT, "  selector:\n    matchLabels:\n      app.kubernetes.io/name: collab", "  selector:\n    matchLabels:\n      app: collab", "select its own pods")),
    (base, Fault(DEPLOYMENT, "automountServiceAccountToken: false", "automountServiceAccountToken: true", "given a token")),
    (base, Fault(DEPLOYMENT, "enableServiceLinks: false", "enableServiceLinks: true", "variables by every Service")),
    (base, Fault(DEPLOYMENT, "runAsNonRoot: true", "runAsNonRoot: false", "may be root")),
    (base, Fault(DEPLOYMENT, "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "more than it must")),
    (base, Fault(DEPLOYMENT, "type: RuntimeDefault", "type: Unconfined", "call anything")),
    (base, Fault(DEPLOYMENT, "memory: 2Gi", "ephemeral-storage: 2Gi", "no limits")),
    (base, Fault(DEPLOYMENT, "maxUnavailable: 0", "maxUnavailable: 1", "before there is another")),
    (base, Fault(DEPLOYMENT, "  minReadySeconds", "  replicas: 2\n  minReadySeconds", "the autoscaler did")),
    (base, Fault(DEPLOYMENT, "name: collab-settings", "name: settings", "does not get its settings")),
    (base, Fault(DEPLOYMENT, "mountPath: /data", "mountPath: /var/data", "not where the image has it")),
    (base, Fault(DEPLOYMENT, "            - name: tmp\n", "            - name: temporary\n", "no volume, or not mounted")),
    (base, Fault(DEPLOYMENT, "secretName: collab-secrets", "secretName: secrets", "nobody is told")),
    (base, Fault(DEPLOYMENT, "whenUnsatisfiable: ScheduleAnyway\n          labelSelector:\n            matchLabels:\n              app.kubernetes.io/name: collab", "whenUnsatisfiable: ScheduleAnyway\n          labelSelector:\n            matchLabels:\n              app.kubernetes.io/name: colab", "are others")),
    (base, Fault(f"{BASE}/services.yaml", "clusterIP: None", "clusterIP: ''", "no SRV records")),
    (base, Fault(f"{BASE}/services.yaml", "targetPort: http", "targetPort: web", "leads to no port")),
    (base, Fault(f"{BASE}/services.yaml", "selector:\n    app.kubernetes.io/name: collab", "selector:\n    app.kubernetes.io/name: colab", "nobody is behind")),
    (base, Fault(f"{BASE}/redis.yaml", "serviceName: redis", "serviceName: collab", "no headless Service")),
    (base, Fault(f"{BASE}/redis.yaml", "image: redis:7.2-bookworm", "image: redis", "no version")),
    (base, Fault(f"{BASE}/network-policies.yaml", "- port: redis", "- port: 6380", "about no port")),
    (base, Fault(f"{BASE}/network-policies.yaml", "app.kubernetes.io/name: redis\n      ports", "app.kubernetes.io/name: radis\n      ports", "about no pods")),
    (base, Fault(f"{BASE}/disruption-budget.yaml", "app.kubernetes.io/name: collab", "app.kubernetes.io/name: colab", "of no pods")),
    (base, Fault(f"{BASE}/autoscaler.yaml", "kind: Deployment", "kind: StatefulSet", "scales nothing")),
    (base, Fault(f"{BASE}/autoscaler.yaml", "minReplicas: 2", "minReplicas: 1", "not enough")),
]  # fmt: skip


@pytest.mark.parametrize("look", LOOKS)
def test_the_files_agree_with_each_other_and_with_the_code(look: Look) -> None:
    assert list(look(DEPLOY)) == []


@pytest.mark.parametrize(
    ("look", "fault"), FAULTS, ids=[fault.finding for _, fault in FAULTS]
)
def test_a_disagreement_is_found(copied: Path, look: Look, fault: Fault) -> None:
    plant(copied, fault)

    found = list(look(copied))

    assert any(fault.finding in each for each in found), found


# Who reaches whom


SERVER, REDIS = [Pod({"app.kubernetes.io/name": name}) for name in ("collab", "redis")]
AGENT = Pod({"collab-client": "agent"})
INGRESS = Pod({"collab-client": "ingress"}, "edge", **{"collab-client": "ingress"})
STRANGER = Pod({"app": "something"})
FOREIGN_AGENT = Pod({"collab-client": "agent"}, "elsewhere")
SAME_LABEL_ELSEWHERE = Pod({"collab-client": "ingress"}, "elsewhere")
DNS = Pod({"k8s-app": "kube-dns"}, "kube-system")
REACHED = (
    (AGENT, SERVER, "http", True),
    (INGRESS, SERVER, "http", True),
    (SERVER, REDIS, "redis", True),
    (SERVER, DNS, 53, True),
    (AGENT, DNS, 53, True),
    (STRANGER, SERVER, "http", False),
    (FOREIGN_AGENT, SERVER, "http", False),
    (SAME_LABEL_ELSEWHERE, SERVER, "http", False),
    (SERVER, SERVER, "http", False),
    (AGENT, REDIS, "redis", False),
    (INGRESS, REDIS, "redis", False),
    (STRANGER, REDIS, "redis", False),
    (REDIS, SERVER, "http", False),
    (SERVER, STRANGER, 443, False),
    (AGENT, STRANGER, 443, False),
    (FOREIGN_AGENT, STRANGER, 443, False),
)  # fmt: skip


def reached(deploy: Path) -> list[bool]:
    policies = [
        each
        for each in manifests(deploy / "kubernetes" / "base")
        if each["kind"] == "NetworkPolicy"
    ]
    return [may_reach(policies, *way) for *way, _ in REACHED]


def test_agents_and_the_ingress_reach_the_server_and_the_server_alone_reaches_redis() -> (
    None
):
    assert reached(DEPLOY) == [way[-1] for way in REACHED]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  name: nothing\nspec:\n  podSelector: {}", "  name: nothing\nspec:\n  podSelector: {matchLabels: {a: b}}"),
        ("collab-client: agent\n        - podSelector", "collab-client: agent\n          namespaceSelector: {}\n        - podSelector"),
        ("          namespaceSelector:\n            matchLabels:\n              collab-client: ingress", "          namespaceSelector: {}"),
        ("              app.kubernetes.io/name: collab\n      ports:\n        - port: redis", "              app.kubernetes.io/part-of: collab\n      ports:\n        - port: redis"),
        ("k8s-app: kube-dns", "k8s-app: dns"),
    ],
)  # fmt: skip
def test_a_policy_that_lets_others_in_is_found(
    copied: Path, old: str, new: str
) -> None:
    plant(copied, Fault(f"{BASE}/network-policies.yaml", old, new, ""))

    assert reached(copied) != [way[-1] for way in REACHED]


# What runs inside


def test_the_image_asks_a_server_whether_it_lives(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    python, *words = health_check((DEPLOY / "Dockerfile").read_text())
    monkeypatch.setenv("COLLAB_PORT", str(server.port))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")

    alive = run(sys.executable, *words)
    server.kill()
    dead = run(sys.executable, *words)

    assert python == "python"
    assert alive.returncode == 0, alive.stderr
    assert dead.returncode == 1


def test_the_probes_are_answered(server: Server) -> None:
    text = (DEPLOY / DEPLOYMENT).read_text()
    paths = set(re.findall(r"path: (/\w+z)$", text, re.MULTILINE))

    answers = {}
    for path in paths:
        with urlopen(server.url + path) as answer:
            answers[path] = answer.status

    assert answers == {"/healthz": 200, "/readyz": 200}


class Shell(Process):
    """The command of a Redis container, with the directories and the port of a test in it."""

    def __init__(self, script: str, secret: str) -> None:
        super().__init__()
        (self.directory / "password").write_text("correct-horse\n")
        self.script = (
            script.replace("$$", "$")
            .replace("/tmp/", f"{self.directory}/")
            .replace(secret, str(self.directory / "password"))
            .replace("--dir /data", f"--dir {self.directory}")
        )

    def command(self) -> list[str]:
        return [
            "sh",
            "-ec",
            f"{self.script.rstrip()} --port {self.port} --bind 127.0.0.1",
        ]

    def say(self, *words: str) -> str:
        password = "correct-horse"
        found = run(
            "redis-cli",
            "-p",
            str(self.port),
            "--no-auth-warning",
            "-a",
            password,
            *words,
        )
        return found.stdout.strip()

    def is_ready(self) -> bool:
        return self.say("ping") == "PONG"


def scripts() -> dict[str, tuple[str, str]]:
    """The script of each Redis, and where it finds its password."""
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    (redis,) = [
        each for each in manifests(DEPLOY / BASE) if each["kind"] == "StatefulSet"
    ]
    (container,) = redis["spec"]["template"]["spec"]["containers"]
    return {
        "compose": (
            compose["services"]["redis"]["command"][-1],
            "/run/secrets/redis-password",
        ),
        "kubernetes": (container["command"][-1], "/run/secrets/redis/redis-password"),
    }


@pytest.mark.parametrize("where", ["compose", "kubernetes"])
def test_the_shipped_redis_wants_its_password_and_writes_before_it_answers(
    where: str,
) -> None:
    script, secret = scripts()[where]
    with Shell(script, secret) as redis:
        stranger = run("redis-cli", "-p", str(redis.port), "ping")
        settings = [
            redis.say("config", "get", name).split()[-1]
            for name in ("appendonly", "appendfsync", "maxmemory-policy")
        ]
        arguments = Path(f"/proc/{redis.pid}/cmdline").read_text()

    assert "NOAUTH" in stranger.stdout
    assert settings == ["yes", "always", "noeviction"]
    assert "horse" not in arguments


def test_the_settings_of_the_compose_file_make_one_server_of_two_replicas(
    serve: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    collab = (sys.executable, "-m", "collab")
    key = tmp_path / "signing-key"
    made = run(*collab, "token", "--new-key", key, "--public")
    (tmp_path / "jwt-keys").write_text(made.stdout)
    claims = ("--sub", "ada", "--room", "notes", "--write")
    token = run(*collab, "token", "--key", key, *claims).stdout.strip()
    (tmp_path / "redis-password").write_text("correct-horse\n")
    (tmp_path / "cluster-key").write_text("0123456789abcdef" * 4 + "\n")
    with Shell(*scripts()["compose"]) as redis:
        for name, value in compose["services"]["replica1"]["environment"].items():
            here = value.replace("/run/secrets", str(tmp_path))
            here = here.replace("//redis:6379", f"//127.0.0.1:{redis.port}")
            monkeypatch.setenv(name, here)
        first, second = serve(), serve()

        edit = {"splices": [{"root": "text", "index": 0, "insert": "hello"}]}
        signed = {"Authorization": f"Bearer {token}"}
        with Haproxy([first.port, second.port]) as proxy:
            document = "/v1/rooms/notes/document"
            stranger = httpx2.get(proxy.url + document)
            edited = httpx2.patch(first.url + document, json=edit, headers=signed)
            read = [
                httpx2.get(f"{one.url}{document}?format=text", headers=signed).text
                for one in (second, proxy)
            ]
        ready = httpx2.get(f"{second.url}/readyz").json()

    assert stranger.status_code == 401
    assert edited.status_code == 200
    assert read == ["hello", "hello"]
    assert ready == {"status": "ready", "reasons": []}


def test_the_password_of_redis_is_where_the_server_reads_it() -> None:
    variables = variables_of(DEPLOY / BASE)
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    inside = compose["services"]["replica1"]["environment"]

    assert variables["COLLAB_REDIS_PASSWORD_FILE"].endswith("/redis-password")
    assert inside["COLLAB_REDIS_PASSWORD_FILE"] == scripts()["compose"][1]


# The lock files of the image


def pins(file: Path) -> dict[str, list[str]]:
    """Each requirement with its hashes."""
    found: dict[str, list[str]] = {}
    for line in file.read_text().splitlines():
        if match := re.match(r"([\w.-]+==\S+)", line):
            found[match[1]] = hashes = []
        elif match := re.match(r"    --hash=(\S+)", line):
            hashes.append(match[1])
    return found


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-build.txt"])
def test_the_image_installs_what_is_tested_here(name: str) -> None:
    locked = pins(DEPLOY / name)
    tested = pins(ROOT / "requirements.txt") | pins(ROOT / "requirements-test.txt")

    assert {pin: sorted(locked[pin]) for pin in locked} == {
        pin: sorted(tested.get(pin, [])) for pin in locked
    }
    assert all(locked.values())


def test_the_image_has_everything_that_the_server_needs_and_the_driver_of_postgres() -> (
    None
):
    locked, needed = pins(DEPLOY / "requirements.txt"), pins(ROOT / "requirements.txt")

    assert {pin.partition("==")[0] for pin in locked.keys() - needed.keys()} == {
        "asyncpg"
    }
    assert needed.keys() <= locked.keys()


def test_the_proxy_in_compose_reads_the_tested_file() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())

    (mounted,) = compose["services"]["proxy"]["volumes"]
    check = compose["services"]["proxy"]["healthcheck"]["test"]

    assert mounted.startswith("./proxy/haproxy.cfg:")
    assert json.dumps(check).count("8080") == 1
