"""Metrics of a worker and of a coordinator, read at each request. Nothing waits for Prometheus.

The collector is written here, because the gauges of `prometheus_client` with `set_function` do not suffice: counters
have no such function, and a coordinator has no counts of trials before its first poll.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from miiii_search.errors import MiiiiSearchError
from miiii_search.storage.records import StudyCounts
from miiii_search.study.trials import counts_by_name

if TYPE_CHECKING:
    from prometheus_client.core import Metric as Family


logger = logging.getLogger(__name__)


SILENT_SECONDS_HELP = "Seconds since the database accepted a worker's write or answered a coordinator"
"""Help text of `miiii_database_silent_seconds`, which workers and coordinators have."""


@dataclass(frozen=True)
class Metric:
    """A metric with its value."""

    name: str
    """Name, without the suffix `_total` of a counter."""
    help: str
    """Help text."""
    value: float | Mapping[str, float]
    """The value, or a mapping from the label `state` to values."""
    is_total: bool = False
    """Whether it is a counter, which never decreases. Otherwise it is a gauge."""


@dataclass
class WorkerCounters:
    """Totals of a worker since its start. Its own threads update them, and any thread may read them."""

    lane_epochs: int = 0
    """Epochs that all lanes have trained."""
    device_seconds: float = 0.0
    """Seconds that devices were held, times their number."""
    wrote_at: float = field(default_factory=time.monotonic)
    """Time at which reports were last written or leases renewed, in seconds of `time.monotonic`."""
    _held: int = 0
    _since: float = field(default_factory=time.monotonic)

    def hold(self, devices: int) -> None:
        """Record that the worker holds this number of devices from now on."""
        now = time.monotonic()
        self.device_seconds += self._held * (now - self._since)
        self._held, self._since = devices, now


class CoordinatorMetrics:
    """Metrics of a coordinator, as of its last poll."""

    def __init__(self) -> None:
        self._last: tuple[StudyCounts | None, float] = None, time.monotonic()

    def update(self, counts: StudyCounts) -> None:
        """Replace the counts, after each poll."""
        self._last = counts, time.monotonic()

    def read(self) -> list[Metric]:
        """Return the metrics. Before the first poll, there are none of the study."""
        counts, at = self._last
        seconds = time.monotonic() - at
        silent = Metric("miiii_database_silent_seconds", SILENT_SECONDS_HELP, seconds)
        if counts is None:
            return [silent]
        by_state = {name: float(n) for name, n in counts_by_name(counts.counts).items()}
        return [
            silent,
            Metric("miiii_trials", "Trials of the study, by state", by_state),
            Metric(
                "miiii_oldest_lease_seconds",
                "Seconds since the renewal of the lease that was renewed least recently",
                counts.oldest_lease_seconds,
            ),
        ]


@contextmanager
def serve(read: Callable[[], Iterable[Metric]], host: str, port: int | None) -> Iterator[None]:
    """Serve metrics over HTTP at `/metrics`, in threads of their own, and log the address. A context manager.

    Args:
        read: Returns the current metrics. Called at each request.
        host: Address to listen on.
        port: Port to listen on; 0 is any free one. Without a port, nothing is served.

    Raises:
        MiiiiSearchError: The address is not available.
    """
    if port is None:
        yield
        return
    from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
    from prometheus_client.registry import Collector

    class Reader(Collector):
        def collect(self) -> Iterator[Family]:
            yield from map(_family, read())

    registry = CollectorRegistry()
    registry.register(Reader())
    ProcessCollector(registry=registry)
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise MiiiiSearchError(
            f"cannot serve metrics on port {port} of `{host}` ({error.strerror}): choose another port with "
            "--metrics-port (0: any free one) or another address with --metrics-host"
        ) from None
    logger.info(f"metrics: http://{f'[{host}]' if ':' in host else host}:{server.server_port}/metrics")
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _family(metric: Metric) -> Family:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    kind = CounterMetricFamily if metric.is_total else GaugeMetricFamily
    if not isinstance(metric.value, Mapping):
        return kind(metric.name, metric.help, value=metric.value)
    family = kind(metric.name, metric.help, labels=["state"])
    for state, value in metric.value.items():
        family.add_metric([state], value)
    return family
