"""Every metric, declared once. Plain integers on the hot path, turned into Prometheus samples when scraped.

Never a label per room, member or user: the number of series must not grow with use.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from math import inf

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector


class Histogram:
    """Fixed buckets; `observe` costs a bisect and two additions."""

    __slots__ = ("bounds", "counts", "help", "name", "total")

    def __init__(self, name: str, help: str, bounds: tuple[float, ...]) -> None:
        self.name, self.help, self.bounds = name, help, bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def family(self) -> HistogramMetricFamily:
        buckets, running = [], 0
        for bound, count in zip((*self.bounds, "+Inf"), self.counts, strict=True):
            running += count
            buckets.append((str(bound), float(running)))
        return HistogramMetricFamily(
            self.name, self.help, buckets=buckets, sum_value=self.total
        )


_TIME = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)
_SHORT = (0.000002, 0.000005, 0.00001, 0.00002, 0.00005, 0.0001, 0.001, 0.01, 0.1, 1.0)

COUNTERS = {
    "updates": "Updates that changed a document.",
    "repeats": "Updates that brought nothing new.",
    "deliveries": "Updates handed to the socket of a member, the author's echo included.",
    "received_bytes": "Bytes of messages received from clients.",
    "connections": "Sockets accepted.",
    "awareness_messages": "Presence messages received.",
    "denied_updates": "Updates of members who may only read; nobody has looked into them.",
    "withheld_updates": "Updates of agents and turns that were not taken: stopped, taken over, over budget, too much deleted.",
    "denied_presence": "Presence messages of members who may not be seen; dropped.",
    "logged_updates": "Updates committed to the store.",
    "commits": "Group commits.",
    "append_failures": "Commits that failed and were tried again.",
    "outbox_overflows": "Times a member fell behind and its queued updates were dropped for a resync.",
    "resyncs": "State-vector differences sent to members that had fallen behind.",
    "slow_closes": "Members closed since they did not read.",
    "quarantines": "Rooms taken out of service since their log could not be opened.",
    "rebuilds": "Documents rebuilt from their log after native code failed.",
    "gate_mismatches": "Times a document's state vector was not what the gate had counted. Must stay zero.",
    "client_id_conflicts": "New content under a client id that belongs to another member.",
    "client_id_copies": "Updates of clients that are copies of others, with something else at ids that are used: refused, or found in what another replica has let in.",
    "compactions": "Checkpoints written.",
    "compaction_failures": "Checkpoints that were not written since verification or the child process failed.",
    "audit_lines": "Lines written to the audit log.",
    "audit_lost": "Audit events that were not kept, since too many waited. A line says how many.",
    "worker_restarts": "Times that the worker in this one's place has ended unasked, and was replaced.",
    "throttles": "Times the reading of a socket was slowed since it sent too much.",
    "bus_published": "Entries that the bus has taken.",
    "bus_received": "Entries and words heard on the bus, this replica's own included.",
    "bus_round_trips": "Questions to Redis on behalf of the bus; one for all that leaves at once.",
    "bus_dropped": "Entries and words given up, since too much waited for the bus or it refused them. Documents are then compared.",
    "bus_foreign": "What was found on the bus and no replica had written; dropped.",
    "bus_gaps": "Times entries of the bus were missed and read from its stream.",
    "bus_exchanges": "Times a room was compared with the store and all replicas, since the stream could not say what it missed.",
    "bus_refused": "Messages from other replicas that were not understood or not taken in.",
    "divergences": "Rooms in which two replicas differ and nothing has helped. Must stay zero.",
    "restatements": "Whole documents logged again since the store had lost a part.",
    "tls_failures": "TLS handshakes that failed.",
    "tls_reloads": "Times changed TLS files were taken into use.",
    "tls_reload_failures": "Times changed TLS files could not be used; the ones before are still served.",
}

GAUGES = {
    "rooms": "Rooms in memory.",
    "members": "Members in all rooms.",
    "sockets": "Open sockets.",
    "worker_up": "1; 0 for one of several workers that does not answer with its figures.",
    "replicas": "Replicas that live, this one included.",
    "bus_up": "1 while messages between replicas pass, as far as is known; 0 without a bus too.",
    "bus_queued_bytes": "Bytes of entries that wait for the bus.",
    "unsaved_seconds": "Age of the oldest update that is not yet logged.",
    "unsaved_updates": "Updates that are not yet logged.",
    "stashed_bytes": "Bytes that wait for what is missing, over all rooms.",
    "tls_certificate_seconds": "Until the server's certificate expires; endless without TLS.",
    "streams": "Open streams of events over HTTP.",
    "rights_age_seconds": "Since keys, grants and revocations were last known to be those that are kept; 0 without access control.",
    "loop_lag_seconds": "How late the event loop ran a timer, last measured.",
}


class Metrics(Collector):
    """The counters of one process. Attributes are declared by the tables above: `metrics.updates += 1`."""

    def __init__(self) -> None:
        self.updates = self.repeats = self.deliveries = self.received_bytes = (
            self.connections
        ) = 0
        self.awareness_messages = self.logged_updates = self.commits = (
            self.append_failures
        ) = 0
        self.outbox_overflows = self.resyncs = self.slow_closes = self.quarantines = (
            self.rebuilds
        ) = 0
        self.gate_mismatches = self.client_id_conflicts = self.client_id_copies = 0
        self.compactions = self.compaction_failures = 0
        self.denied_updates = self.denied_presence = self.withheld_updates = 0
        self.worker_restarts = 0
        self.throttles = self.audit_lines = self.audit_lost = 0
        self.tls_failures = self.tls_reloads = self.tls_reload_failures = 0
        self.bus_published = self.bus_received = self.bus_round_trips = 0
        self.bus_dropped = self.bus_foreign = 0
        self.bus_gaps = self.bus_exchanges = self.bus_refused = 0
        self.divergences = self.restatements = 0
        self.refusals: Counter[str] = Counter()  # by rule: a closed set of words
        self.closes: Counter[str] = Counter()  # by error code
        self.refused_requests: Counter[str] = Counter()  # by HTTP status
        # By route of the API, as its table has it, and class of status.
        self.requests: Counter[tuple[str, str]] = Counter()
        self.limited: Counter[str] = Counter()  # by limit: a closed set of words
        self.backend_questions: Counter[str] = Counter()  # by outcome: likewise
        self.bus_failures: Counter[str] = Counter()  # by reason: a closed set of words
        self.limits: defaultdict[str, float] = defaultdict(float)  # what each is set to
        self.logged = Histogram(
            "collab_logged_seconds",
            "Time from an update's arrival to its commit.",
            _TIME,
        )
        self.apply = Histogram(
            "collab_apply_seconds",
            "Time to guard and apply one update (one in 64).",
            _SHORT,
        )
        self.gauges: dict[str, Callable[[], float]] = {
            "worker_up": lambda: 1,
            "tls_certificate_seconds": lambda: inf,
            "replicas": lambda: 1,
        }

    def collect(self) -> Iterable[Metric]:
        for name, help in COUNTERS.items():
            yield CounterMetricFamily(f"collab_{name}", help, value=getattr(self, name))
        for name, help in GAUGES.items():
            yield GaugeMetricFamily(
                f"collab_{name}", help, value=self.gauges.get(name, float)()
            )
        for name, help, label, counter in (
            (
                "refusals",
                "Updates, vectors and presence states refused by the guard, by rule.",
                "rule",
                self.refusals,
            ),
            (
                "closes",
                "Sockets closed by the server, by error code.",
                "code",
                self.closes,
            ),
            (
                "refused_requests",
                "HTTP requests and upgrades refused before they reached a room, by status.",
                "status",
                self.refused_requests,
            ),
            (
                "limited",
                "Times somebody was refused or made to wait by a limit on principals, tenants or addresses.",
                "limit",
                self.limited,
            ),
            (
                "bus_failures",
                "Times the bus failed or refused, by reason.",
                "reason",
                self.bus_failures,
            ),
            (
                "backend_questions",
                "Questions to the webhook and to where keys are published, answered or failed.",
                "outcome",
                self.backend_questions,
            ),
        ):
            family = CounterMetricFamily(f"collab_{name}", help, labels=[label])
            for value, count in sorted(counter.items()):
                family.add_metric([value], count)
            yield family
        answers = CounterMetricFamily(
            "collab_requests",
            "Requests to the API, by route and class of status.",
            labels=["route", "status"],
        )
        for labels, count in sorted(self.requests.items()):
            answers.add_metric(labels, count)
        yield answers
        limits = GaugeMetricFamily(
            "collab_limit", "What each limit is set to; 0 is no bound.", labels=["name"]
        )
        for name, most in sorted(self.limits.items()):
            limits.add_metric([name], most)
        yield limits
        yield self.logged.family()
        yield self.apply.family()

    def registry(self) -> CollectorRegistry:
        registry = CollectorRegistry()
        registry.register(self)
        return registry
