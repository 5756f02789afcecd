"""What no schema knows about the files in deploy/: that they agree with each other and with the code.

Each function takes a folder laid out as deploy/ is, and returns what is wrong, in sentences.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml
from processes import ROOT

import collab
from collab import settings
from collab.errors import ConfigurationError
from collab.server.ops import Ops
from collab.settings import Settings

Manifest = dict[str, Any]

# Besides drain_seconds: what was let in a moment ago, the last commits, the connections that are left.
END_SECONDS = 10
ROUTES = {route.path for route in object.__new__(Ops).routes()}
SECRETS = "/run/secrets/"


def settings_faults(variables: dict[str, str]) -> Iterator[str]:
    """Whether the server knows these and takes them together."""
    for name in variables:
        if name.removeprefix("COLLAB_").lower() not in Settings.model_fields:
            yield f"{name} is no setting"
    with pytest.MonkeyPatch.context() as environment:
        for name, value in variables.items():
            environment.setenv(name, value)
        try:
            settings.load({})
        except ConfigurationError as error:
            yield f"the server refuses its settings: {error}"


def drain_seconds(variables: dict[str, str]) -> float:
    """What a server needs at most between SIGTERM and its end."""
    parts = ("COLLAB_DRAIN_NOTICE_SECONDS", "COLLAB_DRAIN_SECONDS")
    return sum(float(variables[part]) for part in parts) + END_SECONDS


# The image


class Step:
    """One instruction of a Dockerfile."""

    def __init__(self, text: str) -> None:
        self.kind, _, rest = text.partition(" ")
        self.text = re.sub(r"\s*\\\n\s*", " ", rest.strip())

    @property
    def words(self) -> list[str]:
        """Those of the exec form; none when it is not one."""
        try:
            found = json.loads(self.text.removeprefix("CMD ").strip())
        except json.JSONDecodeError:
            return []
        return found if isinstance(found, list) else []


def stages(dockerfile: str) -> list[list[Step]]:
    """The instructions from each FROM to the next."""
    text = re.sub(r"^\s*#.*\n", "", dockerfile, flags=re.MULTILINE)
    steps = [
        Step(found[0])
        for found in re.finditer(r"^[A-Z]+ (?:.*\\\n)*.*$", text, re.MULTILINE)
    ]
    made: list[list[Step]] = []
    for step in steps:
        if step.kind == "FROM":
            made.append([])
        made[-1].append(step)
    return made


def health_check(dockerfile: str) -> list[str]:
    """The words of the image's own check."""
    (found,) = [step for step in stages(dockerfile)[-1] if step.kind == "HEALTHCHECK"]
    return Step(f"CMD {found.text[found.text.index('CMD') :]}").words


def image_faults(deploy: Path) -> Iterator[str]:
    """Of the Dockerfile and of what the builder gets to see."""
    everything = stages((deploy / "Dockerfile").read_text())
    build, final = everything[0], everything[-1]
    last = {step.kind: step for step in final}
    for step in (step for stage in everything for step in stage):
        if step.kind == "FROM" and not re.match(r"\S+:\S*\d", step.text):
            yield f"{step.text} names no version"
        for command in step.text.split("&&") if step.kind == "RUN" else ():
            if " install " in command and "pip" in command:
                if "--require-hashes" not in command and "--no-index" not in command:
                    yield f"not by hash: {command.strip()}"
    for step in final:
        if step.kind == "RUN" and re.search(
            r"\b(apt|apt-get|pip|npm|curl)\b", step.text
        ):
            yield f"the last stage installs something: {step.text}"
    if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", last["USER"].text):
        yield "its user is no number, or root"
    for kind in ("ENTRYPOINT", "CMD"):
        if not last[kind].words:
            yield f"{kind} starts a shell, which gets the signals"
    if last["ENTRYPOINT"].words + last["CMD"].words != ["collab", "serve"]:
        yield "it does not run `collab serve`"
    if last["STOPSIGNAL"].text != "SIGTERM":
        yield "it is not stopped by SIGTERM"
    check = last["HEALTHCHECK"].text
    if "curl" in check or "wget" in check or "'/healthz'" not in check:
        yield "its health check is not one by Python of /healthz"
    for label in ("title", "description", "version", "revision", "licenses"):
        if f"org.opencontainers.image.{label}=" not in last["LABEL"].text:
            yield f"it has no label {label}"
    if f'version="{collab.__version__}"' not in last["LABEL"].text:
        yield "its label names another version"
    if "PYTHONDONTWRITEBYTECODE=1" not in last["ENV"].text:
        yield "it writes beside its code"
    variables = dict(re.findall(r"(COLLAB_[A-Z_]+)=(\S+)", last["ENV"].text))
    yield from settings_faults(variables | {"COLLAB_AUTH": '["keys"]'})
    copied = [
        source
        for step in build
        if step.kind == "COPY"
        for source in step.text.split()[:-1]
    ]
    if copied.index("deploy/requirements.txt") > copied.index("collab"):
        yield "a change of the code installs everything again"
    allowed = [
        line[1:]
        for line in (deploy.parent / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    if set(allowed) != set(copied):
        yield f"the builder sees {sorted(set(allowed) ^ set(copied))}, or does not"
    for source in copied:
        if not (ROOT / source).exists():
            yield f"there is no {source}"


# Compose


def compose_faults(deploy: Path) -> Iterator[str]:
    """Of the compose file, beside the proxy's configuration that it mounts."""
    made = yaml.safe_load((deploy / "compose.yaml").read_text())
    proxy = (deploy / "proxy" / "haproxy.cfg").read_text()
    services = made["services"]
    replicas = {name: each for name, each in services.items() if "build" in each}
    for name, each in services.items():
        if not each.get("read_only"):
            yield f"{name} may write into its root"
        if each.get("cap_drop") != ["ALL"]:
            yield f"{name} keeps capabilities"
        if "no-new-privileges:true" not in each.get("security_opt", []):
            yield f"{name} may become more"
        if name not in replicas and "healthcheck" not in each:
            yield f"nobody looks whether {name} works"
        if not re.fullmatch(r"\S+:\d[\w.-]*", each["image"]):
            yield f"{each['image']} names no version"
        if name != "proxy" and "ports" in each:
            yield f"{name} is reached past the proxy"
        for kind, used in (
            ("services", each.get("depends_on", {})),
            ("networks", each.get("networks", {})),
            ("secrets", each.get("secrets", [])),
            ("volumes", [at.partition(":")[0] for at in each.get("volumes", [])]),
        ):
            for one in used:
                if one not in made[kind] and not (deploy / one).is_file():
                    yield f"{name} uses {one}, which is none of the {kind}"
    if set(services["redis"]["networks"]) & set(services["proxy"]["networks"]):
        yield "the proxy reaches Redis"
    if not made["networks"]["store"]["internal"]:
        yield "Redis reaches the world"
    if "--appendonly yes --appendfsync always" not in services["redis"]["command"][-1]:
        yield "Redis answers before it has written"
    address = services["proxy"]["networks"]["clients"]["ipv4_address"]
    (network,) = made["networks"]["clients"]["ipam"]["config"]
    if ip_address(address) not in ip_network(network["subnet"]):
        yield "the proxy's address is not in its network"
    behind = dict(re.findall(r"^ +server \S+ ([\w.-]+):(\d+)", proxy, re.MULTILINE))
    if behind != dict.fromkeys(replicas, "8000"):
        yield f"the proxy knows {sorted(behind)}, and there are {sorted(replicas)}"
    (listens,) = re.findall(r"^ +bind :(\d+)", proxy, re.MULTILINE)
    (published,) = services["proxy"]["ports"]
    if published.rpartition(":")[2] != listens:
        yield "the published port is not the proxy's"
    if len({tuple(each["volumes"]) for each in replicas.values()}) < len(replicas):
        yield "two replicas have one data directory"
    for name, each in replicas.items():
        variables = each["environment"]
        yield from settings_faults(variables)
        if json.loads(variables["COLLAB_TRUSTED_PROXIES"]) != [address]:
            yield f"{name} does not believe the proxy"
        for value in variables.values():
            if (
                value.startswith(SECRETS)
                and value.removeprefix(SECRETS) not in each["secrets"]
            ):
                yield f"{name} has no {value}"
        if "redis://redis:6379" not in variables["COLLAB_REDIS"]:
            yield f"{name} looks for Redis elsewhere"
        grace = int(each["stop_grace_period"].removesuffix("s"))
        if grace < drain_seconds(variables):
            yield f"{name} is killed while it drains"


# Kubernetes


def manifests(base: Path) -> list[Manifest]:
    """All that the kustomization lists."""
    listed = yaml.safe_load((base / "kustomization.yaml").read_text())["resources"]
    return [
        document
        for name in listed
        if (base / name).exists()
        for document in yaml.safe_load_all((base / name).read_text())
    ]


def variables_of(base: Path) -> dict[str, str]:
    lines = (base / "settings.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and line[0] != "#")


def is_part(part: dict[str, Any], whole: dict[str, Any]) -> bool:
    return part.items() <= whole.items()


class Workload:
    """A Deployment or StatefulSet, and the pods that it makes."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.name: str = manifest["metadata"]["name"]
        template = manifest["spec"]["template"]
        self.labels: dict[str, str] = template["metadata"]["labels"]
        self.pod: dict[str, Any] = template["spec"]
        (self.container,) = self.pod["containers"]
        self.ports = {
            each["name"]: each["containerPort"] for each in self.container["ports"]
        }


def kubernetes_faults(base: Path) -> Iterator[str]:
    """Of all manifests together."""
    documents = manifests(base)
    kustomization = yaml.safe_load((base / "kustomization.yaml").read_text())
    workloads = [
        Workload(each)
        for each in documents
        if each["kind"] in ("Deployment", "StatefulSet")
    ]
    services = {
        each["metadata"]["name"]: each["spec"]
        for each in documents
        if each["kind"] == "Service"
    }
    yield from _listed(base, kustomization)
    for each in workloads:
        yield from _workload_faults(each, kustomization)
    yield from _service_faults(services, workloads)
    for document in documents:
        yield from _reference_faults(document, workloads, services)
    (server,) = [each for each in workloads if each.name == "collab"]
    yield from _server_faults(server, variables_of(base), services)
    yield from _secret_faults(base, workloads)


def _listed(base: Path, kustomization: Manifest) -> Iterator[str]:
    generated = [
        file for each in kustomization["configMapGenerator"] for file in each["envs"]
    ]
    listed = {"kustomization.yaml", *kustomization["resources"], *generated}
    there = {file.name for file in base.iterdir()}
    for name in sorted(listed ^ there):
        yield f"{name} is listed and not there, or there and not listed"


def _workload_faults(each: Workload, kustomization: Manifest) -> Iterator[str]:
    pod, container = each.pod, each.container
    security, inside = (
        pod.get("securityContext", {}),
        container.get("securityContext", {}),
    )
    if not is_part(each.manifest["spec"]["selector"]["matchLabels"], each.labels):
        yield f"{each.name} does not select its own pods"
    if pod.get("automountServiceAccountToken") is not False:
        yield f"{each.name} is given a token"
    if pod.get("enableServiceLinks") is not False:
        yield f"{each.name} is given variables by every Service"
    if not security.get("runAsNonRoot") or not security.get("runAsUser"):
        yield f"{each.name} may be root"
    if security.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield f"{each.name} may call anything"
    if inside != {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }:
        yield f"{each.name} may do more than it must"
    for kind in ("requests", "limits"):
        if set(container["resources"].get(kind, {})) != {"cpu", "memory"}:
            yield f"{each.name} has no {kind}"
    tags = {image["name"]: image["newTag"] for image in kustomization["images"]}
    image = container["image"]
    if image not in tags and not re.fullmatch(r"\S+:\d[\w.-]*", image):
        yield f"{image} names no version"
    if tags.get(image, collab.__version__) != collab.__version__:
        yield f"{image} is of another version"
    claims = each.manifest["spec"].get("volumeClaimTemplates", [])
    volumes = {one["name"] for one in pod["volumes"]} | {
        one["metadata"]["name"] for one in claims
    }
    mounted = {one["name"] for one in container["volumeMounts"]}
    if volumes != mounted:
        yield f"{each.name}: {sorted(volumes ^ mounted)} is no volume, or not mounted"
    for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
        probe = container.get(kind)
        if probe is None:
            yield f"{each.name} has no {kind}"
        elif "httpGet" in probe:
            if probe["httpGet"]["port"] not in each.ports:
                yield f"{each.name}: {kind} asks at no port of its own"
            if probe["httpGet"]["path"] not in ROUTES:
                yield f"{each.name}: {kind} asks for {probe['httpGet']['path']}"


def _service_faults(
    services: dict[str, Manifest], workloads: list[Workload]
) -> Iterator[str]:
    for name, service in services.items():
        behind = [
            each for each in workloads if is_part(service["selector"], each.labels)
        ]
        if not behind:
            yield f"nobody is behind the Service {name}"
        for port in service["ports"]:
            if any(port["targetPort"] not in each.ports for each in behind):
                yield f"the Service {name} leads to no port"
    headless = services["collab-replicas"]
    if headless.get("clusterIP") != "None" or not headless["ports"][0].get("name"):
        yield "there are no SRV records of the replicas"


def _reference_faults(
    document: Manifest, workloads: list[Workload], services: dict[str, Manifest]
) -> Iterator[str]:
    kind, spec = document["kind"], document.get("spec", {})
    names = {(each.manifest["kind"], each.name) for each in workloads}
    if kind == "StatefulSet":
        if services.get(spec["serviceName"], {}).get("clusterIP") != "None":
            yield f"{spec['serviceName']} is no headless Service"
    elif kind == "Deployment":
        for one in spec["template"]["spec"]["topologySpreadConstraints"]:
            labels = spec["template"]["metadata"]["labels"]
            if not is_part(one["labelSelector"]["matchLabels"], labels):
                yield "the pods that are spread are others"
        if spec["strategy"]["rollingUpdate"]["maxUnavailable"] != 0:
            yield "a roll-out takes a replica away before there is another"
        if "replicas" in spec:
            yield "each apply undoes what the autoscaler did"
    elif kind == "PodDisruptionBudget":
        if not any(
            is_part(spec["selector"]["matchLabels"], each.labels) for each in workloads
        ):
            yield "the disruption budget is of no pods"
    elif kind == "HorizontalPodAutoscaler":
        target = spec["scaleTargetRef"]
        if (target["kind"], target["name"]) not in names:
            yield "the autoscaler scales nothing"
        if spec["minReplicas"] < 2:
            yield "one replica is not enough"
    elif kind == "NetworkPolicy":
        yield from _policy_faults(document, workloads)


def _policy_faults(document: Manifest, workloads: list[Workload]) -> Iterator[str]:
    name, spec = document["metadata"]["name"], document["spec"]
    selectors = [
        (spec["podSelector"], port)
        for rule in spec.get("ingress", [])
        for port in rule["ports"]
    ]
    selectors += [
        (peer.get("podSelector", {}), port)
        for rule in spec.get("egress", [])
        for peer in rule["to"]
        for port in rule["ports"]
    ]
    for selector, port in selectors:
        labels = selector.get("matchLabels", {})
        if "app.kubernetes.io/name" not in labels:
            continue
        meant = [each for each in workloads if is_part(labels, each.labels)]
        if not meant:
            yield f"the policy {name} is about no pods"
        if any(port["port"] not in each.ports for each in meant):
            yield f"the policy {name} is about no port"


def _server_faults(
    server: Workload, variables: dict[str, str], services: dict[str, Manifest]
) -> Iterator[str]:
    yield from settings_faults(variables | {"COLLAB_HOST": "0.0.0.0"})
    mounts = {one["name"]: one["mountPath"] for one in server.container["volumeMounts"]}
    files = {
        f"{mounts[volume['name']]}/{item['path']}"
        for volume in server.pod["volumes"]
        for item in volume.get("secret", {}).get("items", [])
    }
    for name, value in variables.items():
        if value.startswith(SECRETS) and value not in files:
            yield f"{name} is a file that is not mounted"
    host, port = re.findall(r"redis://([\w.-]+):(\d+)", variables["COLLAB_REDIS"])[0]
    if host not in services or services[host]["ports"][0]["port"] != int(port):
        yield "Redis is at no Service"
    (source,) = server.container["envFrom"]
    if source != {"configMapRef": {"name": "collab-settings"}}:
        yield "the server does not get its settings"
    if server.pod["terminationGracePeriodSeconds"] < drain_seconds(variables):
        yield "the server is killed while it drains"
    if mounts.get("data") != "/data":
        yield "the data directory is not where the image has it"


def _secret_faults(base: Path, workloads: list[Workload]) -> Iterator[str]:
    told = (base / "kustomization.yaml").read_text()
    made = set(re.findall(r"--from-(?:file|literal)=([\w.-]+)", told))
    for each in workloads:
        for volume in each.pod["volumes"]:
            secret = volume.get("secret")
            if secret is None:
                continue
            if f"secret generic {secret['secretName']} " not in told:
                yield f"nobody is told to make the secret {secret['secretName']}"
            for item in secret["items"]:
                if item["key"] not in made:
                    yield f"the secret has no {item['key']}"


class Pod:
    """Where traffic comes from or goes to, as policies see it."""

    def __init__(
        self, labels: dict[str, str], namespace: str = "collab", **about: str
    ) -> None:
        self.labels, self.namespace = labels, namespace
        self.about = {"kubernetes.io/metadata.name": namespace, **about}


def may_reach(
    policies: list[Manifest], source: Pod, target: Pod, port: str | int
) -> bool:
    """What the policies of the namespace `collab` come to, as Kubernetes defines them."""
    return all(
        _lets(policies, here, there, port, kind)
        for here, there, kind in (
            (source, target, "Egress"),
            (target, source, "Ingress"),
        )
    )


def _lets(
    policies: list[Manifest], here: Pod, there: Pod, port: str | int, kind: str
) -> bool:
    """Whether traffic of one direction passes at one of its two ends."""
    about = [
        each["spec"]
        for each in policies
        if here.namespace == "collab"
        and kind in each["spec"]["policyTypes"]
        and is_part(each["spec"]["podSelector"].get("matchLabels", {}), here.labels)
    ]
    side = "from" if kind == "Ingress" else "to"
    return not about or any(
        any(_is_meant(peer, there) for peer in rule[side])
        and port in [each["port"] for each in rule["ports"]]
        for spec in about
        for rule in spec.get(kind.lower(), [])
    )


def _is_meant(peer: Manifest, pod: Pod) -> bool:
    namespaces = peer.get("namespaceSelector")
    if namespaces is None:
        is_there = pod.namespace == "collab"
    else:
        is_there = is_part(namespaces.get("matchLabels", {}), pod.about)
    return is_there and is_part(
        peer.get("podSelector", {}).get("matchLabels", {}), pod.labels
    )
