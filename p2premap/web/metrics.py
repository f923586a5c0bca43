"""What Prometheus reads: numbers of the node that serves, by its conventions. No label has an id of a job or a task.

See https://prometheus.io/docs/practices/naming/: base units, `_total` for what only grows. The library is imported when
somebody asks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from starlette.responses import Response

from p2premap import __version__
from p2premap.control.nodes import GetStatus, ListNodes, Nodes, NodeView, Status
from p2premap.tasks.job import Outcome
from p2premap.web.endpoints import Call, Endpoint, Media
from p2premap.web.service import Service

if TYPE_CHECKING:
    from prometheus_client import Metric

STATES: Final = ("alive", "stalled", "suspect", "dead", "left")


class _Number(NamedTuple):
    """One of `Status.counters` under its name here. `grows`: it is a counter, and none that goes down."""

    counter: str
    name: str
    text: str
    grows: bool = True


NUMBERS: Final = (
    _Number("executor.processes", "worker_processes", "Worker processes alive.", False),
    _Number("executor.processes_started", "worker_processes_started", "Worker processes started."),
    _Number("stager.fetched", "fetches", "Inputs and results brought from other nodes."),
    _Number("stager.fetched_bytes", "fetched_bytes", "Bytes of these."),
    _Number("stager.fetching", "fetches_running", "Being brought now.", False),
    _Number("stager.lost", "fetches_lost", "Wanted, and to be had from nobody."),
    _Number("ledger.transactions", "ledger_transactions", "Transactions of the ledger on this disk."),
    _Number("ledger.writes", "ledger_writes", "Writes in these."),
    _Number("ledger.failed", "ledger_failures", "Writes that the disk refused."),
    _Number("ledger.waiting", "ledger_waiting", "Writes that wait for the disk.", False),
    _Number("driver.steps", "core_steps", "Events that the core has taken."),
    _Number("driver.waiting", "core_waiting", "Events that wait for it.", False),
    _Number("driver.stalls", "core_stalls", "Times that this process stood still."),
    _Number("driver.dropped", "core_dropped", "Datagrams that were dropped as there were too many."),
    _Number("core.refused_messages", "refused_messages", "Messages of members that made no sense."),
    _Number("gossip.counters.probes", "gossip_probes", "Members asked whether they are there."),
    _Number("gossip.counters.probes_failed", "gossip_probes_failed", "Of these, without an answer in time."),
    _Number("gossip.counters.suspicions", "gossip_suspicions", "Members that this node began to suspect."),
    _Number("gossip.counters.refutations", "gossip_refutations", "Times that this node had to say that it lives."),
    _Number("gossip.counters.deaths", "gossip_deaths", "Members that were declared dead."),
    _Number("gossip.dials", "gossip_dials_running", "Connections to members that are being tried.", False),
    _Number("gossip.doubts", "gossip_doubts", "Members that are in doubt.", False),
    _Number("transport.links.up", "links", "Links to members.", False),
    _Number("jobs.led", "jobs_led", "Jobs that this node leads and that are not over.", False),
    _Number("jobs.kept", "jobs_kept", "Jobs of which this node keeps the ledger.", False),
)


async def get_metrics(call: Call) -> Response:
    """What Prometheus reads."""
    from prometheus_client.exposition import choose_encoder

    daemon = call.web.daemon
    status = await daemon.ask(lambda n: GetStatus(request=n), Status)
    views = (await daemon.ask(lambda n: ListNodes(request=n), Nodes)).views
    encode, media = choose_encoder(call.request.headers.get("accept", ""))
    return Response(encode(_Collected(list(_metrics(call.web, status, views)))), media_type=media)


class _Collected:
    """Stands where the library expects a registry."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        """All of them."""
        return self._metrics


def _metrics(web: Service, status: Status, views: Iterable[NodeView]) -> Iterator[Metric]:
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

    me = status.me
    node = {"name": me.name, "node": me.node.hex(), "cluster": status.cluster}
    info = {"version": __version__, "python": me.python, **node}
    yield InfoMetricFamily("p2premap", "This node.", value=info)
    states = Counter(view.state for view in views)
    nodes = GaugeMetricFamily("p2premap_nodes", "Members, as this node sees them.", labels=["state"])
    for state in STATES:
        nodes.add_metric([state], states[state])
    yield nodes
    attempts = CounterMetricFamily("p2premap_attempts", "Attempts that ended here.", labels=["outcome"])
    for outcome in Outcome:
        attempts.add_metric([outcome.name.lower()], status.counters.get(f"executor.attempts.{outcome.value}", 0))
    yield attempts
    for number in NUMBERS:
        family = CounterMetricFamily if number.grows else GaugeMetricFamily
        yield family(f"p2premap_{number.name}", number.text, value=status.counters.get(number.counter, 0))
    for name, text, value in (
        ("slots", "Worker processes that this node offers.", me.slots),
        ("slots_busy", "Of these, at work.", me.busy),
        ("machine_cpus", "CPUs of this machine.", me.cpus),
        ("machine_cpu_busy_ratio", "Part of them in use, by anybody.", me.load),
        ("machine_memory_bytes", "Memory of this machine.", me.memory_bytes),
        ("machine_memory_free_bytes", "Of it, what programs could still take.", me.memory_free_bytes),
        ("kept_bytes", "Results and inputs on this disk, where there is a limit.", status.kept_bytes),
        ("kept_bytes_limit", "The limit; 0: none.", status.kept_bytes_max),
        ("warnings", "Sentences that a person should read.", len(status.warnings)),
        ("key_epoch", "How many secrets the cluster has had.", status.key_epoch),
        ("http_followers", "Streams of events that are open.", web.hub.followers),
        ("http_downloads", "Downloads that go on.", web.downloads),
    ):
        yield GaugeMetricFamily(f"p2premap_{name}", text, value=value)
    yield CounterMetricFamily("p2premap_http_refused", "Requests of whoever may not.", value=web.refused())


ENDPOINTS: Final = [
    Endpoint("GET", "/metrics", get_metrics, "What Prometheus reads.", {200: Media("text/plain")}),
]
