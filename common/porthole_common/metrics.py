# SPDX-License-Identifier: Apache-2.0
"""What the daemons measure: the name, the help and the labels of every metric. The only import of prometheus_client.

Why one list: the names are a contract with dashboards and alert rules, and each is in ``doc/source/metrics.rst``. The
modules that do the work import a metric from here and count. :mod:`porthole_common.metrics_server` serves the list.

* A counter or a histogram costs its caller about a microsecond, and a lock that is held for less.
* A :class:`Computed` metric costs nothing until a scrape: then its sources are read.
* A label has few values, which the code names. No label holds a user, a token, an address or an instance.

A new metric is one line at the end of this file; ``on`` says who serves it.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from porthole_common.log import get_logger

LOG = get_logger(__name__)
# Who serves a metric: the daemons by name, and a standalone, which is all of them without a broker.
DAEMONS = ("api", "compute", "consoleauth", "novncproxy")
STANDALONE = "standalone"
EVERYWHERE = (*DAEMONS, STANDALONE)
API, COMPUTE, CONSOLEAUTH, NOVNCPROXY = ((daemon, STANDALONE) for daemon in DAEMONS)
# From an answer within one site to the deadlines of a call and of a dial.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# From a turn of an idle loop to the watchdog's time.
_LAG_SECONDS = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_REGISTRIES = {server: CollectorRegistry() for server in EVERYWHERE}

Family = GaugeMetricFamily | CounterMetricFamily
Metric = TypeVar("Metric", bound=Collector)
# ``(values of the labels, number)`` each.
Samples = Iterable[tuple[Sequence[str], float]]
Source = Callable[[], Samples]

# Called once a second by the thread that serves the metrics, in a process that serves them; each returns at once.
SAMPLERS: list[Callable[[], None]] = []

# The second series of each counter would say when it was made, as process_start_time_seconds does.
disable_created_metrics()  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Definition:
    """A metric as ``doc/source/metrics.rst`` has it: counter, gauge or histogram, its labels, and who serves it."""

    kind: str
    labels: tuple[str, ...]
    on: tuple[str, ...]


# By name.
DEFINITIONS: dict[str, Definition] = {}


class Computed(Collector):
    """A metric that is read at each scrape, in the thread that serves the metrics.

    Several sources add up. The samples of a source that fails are missing from that scrape, and the log says why.
    """

    def __init__(self, family: type[Family], name: str, text: str, labels: Sequence[str]) -> None:
        self._family, self._name, self._text, self._labels = family, name, text, labels
        self._lock = threading.Lock()
        self._sources: tuple[Source, ...] = ()

    def add_source(self, source: Source) -> None:
        """Read ``source`` at each scrape from now on."""
        with self._lock:
            self._sources += (source,)

    def remove_source(self, source: Source) -> None:
        """Do not read it any more. Harmless when it was not added."""
        with self._lock:
            self._sources = tuple(each for each in self._sources if each != source)

    def describe(self) -> Iterable[Family]:
        """Return the metric without a value."""
        return [self._build()]

    def _build(self) -> Family:
        return self._family(self._name, self._text, labels=self._labels)

    def collect(self) -> Iterable[Family]:
        """Return the metric with its values."""
        sums: dict[tuple[str, ...], float] = {}
        for source in self._sources:
            try:
                for labels, number in source():
                    sums[tuple(labels)] = sums.get(tuple(labels), 0.0) + number
            except Exception:
                LOG.exception("Metric not read", metric=self._name)
        family = self._build()
        for values, number in sums.items():
            family.add_metric(values, number)
        return [family]


def render(server: str) -> bytes:
    """Return all metrics of ``server``, one of :data:`EVERYWHERE`, in Prometheus' text format 0.0.4."""
    return generate_latest(_REGISTRIES[server])


def _register(metric: Metric, kind: str, on: Sequence[str], name: str, labels: Sequence[str]) -> Metric:
    DEFINITIONS[name] = Definition(kind, tuple(labels), tuple(on))
    for server in on:
        _REGISTRIES[server].register(metric)
    return metric


def _counter(on: Sequence[str], name: str, text: str, *labels: str) -> Counter:
    return _register(Counter(name, text, labels, registry=None), "counter", on, name, labels)


def _histogram(on: Sequence[str], name: str, text: str, *labels: str, buckets: Sequence[float] = _SECONDS) -> Histogram:
    histogram = Histogram(name, text, labels, buckets=buckets, registry=None)
    return _register(histogram, "histogram", on, name, labels)


def _gauge(on: Sequence[str], name: str, text: str, *labels: str) -> Computed:
    return _register(Computed(GaugeMetricFamily, name, text, labels), "gauge", on, name, labels)


def _computed_counter(on: Sequence[str], name: str, text: str, *labels: str) -> Computed:
    return _register(Computed(CounterMetricFamily, name, text, labels), "counter", on, name, labels)


# The process (porthole_common.process_measures). The names are those that every exporter has.
BUILD_INFO = _gauge(EVERYWHERE, "porthole_build_info", "1, with the version of Porthole.", "version")
CPU_SECONDS = _computed_counter(EVERYWHERE, "process_cpu_seconds_total", "User and system CPU time in seconds.")
RESIDENT_BYTES = _gauge(EVERYWHERE, "process_resident_memory_bytes", "Resident memory in bytes.")
OPEN_FDS = _gauge(EVERYWHERE, "process_open_fds", "Open file descriptors.")
MAX_FDS = _gauge(EVERYWHERE, "process_max_fds", "Most file descriptors that the process may open.")
START_TIME = _gauge(EVERYWHERE, "process_start_time_seconds", "Start of the process, in seconds since 1970.")

# Threads (porthole_common.pools).
BUSY_THREADS = _gauge(EVERYWHERE, "porthole_pool_busy_threads", "Threads of a pool that are at work.", "pool")
MAX_THREADS = _gauge(EVERYWHERE, "porthole_pool_max_threads", "Most threads that a pool may have.", "pool")
WAITING_JOBS = _gauge(EVERYWHERE, "porthole_pool_waiting_jobs", "Jobs that wait for a thread of a pool.", "pool")

# The bus.
RPC_CALL_SECONDS = _histogram(
    EVERYWHERE,
    "porthole_rpc_call_seconds",
    "Time of an RPC call until its answer; an error of the far side is an answer.",
    "topic",
    "method",
)
RPC_FAILURES = _counter(
    EVERYWHERE,
    "porthole_rpc_failures_total",
    "RPC calls and messages that failed: timeout (no answer in time), broker (no broker), remote (a fault there).",
    "topic",
    "method",
    "cause",
)
RPC_HANDLER_SECONDS = _histogram(
    EVERYWHERE, "porthole_rpc_handler_seconds", "Time that this daemon took to answer an RPC call.", "method"
)
BROKER_CONNECTED = _gauge(
    DAEMONS, "porthole_broker_connected", "1 while the daemon is subscribed to its topics at a message broker, else 0."
)
BROKERS_UNUSABLE = _gauge(
    DAEMONS, "porthole_brokers_unusable", "Message brokers of transport_url that the daemon found to be unusable."
)

# The proxy.
SESSIONS = _gauge(NOVNCPROXY, "porthole_sessions", "Open consoles.", "door", "mode")
SESSIONS_LIMIT = _gauge(NOVNCPROXY, "porthole_sessions_limit", "Most open consoles: [novncproxy] max_sessions.")
SESSIONS_ENDED = _counter(
    NOVNCPROXY, "porthole_sessions_ended_total", "Consoles that ended, by close code of the WebSocket.", "door", "code"
)
OPENINGS = _counter(
    NOVNCPROXY,
    "porthole_openings_total",
    "Requests for a console: opened, refused, or lost (the client left before its answer).",
    "door",
    "outcome",
)
OPENING_STAGE_SECONDS = _histogram(
    NOVNCPROXY,
    "porthole_opening_stage_seconds",
    "Time of a stage of an opening: check (the token), validate (the instance), dial (the VNC server).",
    "stage",
)
REFUSALS = _counter(
    NOVNCPROXY,
    "porthole_refusals_total",
    "Requests that were refused, by reason and HTTP status.",
    "door",
    "reason",
    "status",
)
RELAYED_BYTES = _computed_counter(
    NOVNCPROXY, "porthole_relayed_bytes_total", "Bytes of consoles that were relayed.", "door", "direction"
)
LOOP_LAG_SECONDS = _histogram(
    NOVNCPROXY,
    "porthole_loop_lag_seconds",
    "Time that a call waits for the event loop, sampled once a second.",
    buckets=_LAG_SECONDS,
)
CERTIFICATE_EXPIRY = _gauge(
    NOVNCPROXY,
    "porthole_certificate_expiry_timestamp_seconds",
    "End of a certificate that the proxy uses, in seconds since 1970: doors, or vnc_client (to VNC servers).",
    "certificate",
)
WORKER_UP = _gauge(
    ("novncproxy", "api"), "porthole_worker_up", "1 for a process that has answered this scrape, else 0.", "worker"
)

# consoleauth.
TOKENS_AUTHORIZED = _counter(CONSOLEAUTH, "porthole_tokens_authorized_total", "Tokens that were made.", "console_type")
TOKENS_REVOKED = _counter(CONSOLEAUTH, "porthole_tokens_revoked_total", "Tokens that were revoked.", "reason")
TOKEN_CHECKS = _counter(
    CONSOLEAUTH, "porthole_token_checks_total", "Tokens that were checked: accepted, refused, or failed.", "outcome"
)
STORE_FAILURES = _counter(
    CONSOLEAUTH, "porthole_token_store_failures_total", "RPC calls that the token store has failed.", "method"
)

# compute.
HYPERVISOR_UP = _gauge(COMPUTE, "porthole_hypervisor_up", "1 while the hypervisor answers, else 0.")
INSTANCES = _gauge(COMPUTE, "porthole_instances", "Instances of this host.", "state")
INVENTORY_PUBLISHED = _gauge(
    COMPUTE,
    "porthole_inventory_published_timestamp_seconds",
    "Time of the last inventory that a broker took, in seconds since 1970.",
)
REVOCATIONS_PENDING = _gauge(COMPUTE, "porthole_revocations_pending", "Instances whose tokens are still to be revoked.")

# The api.
HTTP_REQUEST_SECONDS = _histogram(
    API, "porthole_http_request_seconds", "Time of a request of the API.", "method", "status"
)
INVENTORY_AGE = _gauge(
    API, "porthole_inventory_age_seconds", "Time since the last inventory of a compute host.", "host"
)
