"""What a worker and a coordinator tell Prometheus: read when it is asked for, and nothing waits for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from miiii_search.errors import MiiiiSearchError
from miiii_search.study.study import StudyCounts
from miiii_search.study.trials import counts_by_name

if TYPE_CHECKING:
    from prometheus_client.core import Metric as Family


logger = logging.getLogger(__name__)


SILENT_SECONDS_HELP = "Seconds since the last access to the database that succeeded"
"""Help text of `miiii_database_silent_seconds`, which workers and coordinators have."""


@dataclass(frozen=True)
class Metric:
    """A name with its value, or with one a state."""

    name: str
    help: str
    value: float | Mapping[str, float]
    is_total: bool = False
    """Whether it only grows."""


@dataclass
class WorkerCounters:
    """What a worker has done since its start. Written by its own threads, read by any."""

    lane_epochs: int = 0
    device_seconds: float = 0.0
    wrote_at: float = field(default_factory=time.monotonic)
    """When reports were last written or leases renewed, by `time.monotonic`."""
    _held: int = 0
    _since: float = field(default_factory=time.monotonic)

    def hold(self, devices: int) -> None:
        """So many devices are held from now on."""
        now = time.monotonic()
        self.device_seconds += self._held * (now - self._since)
        self._held, self._since = devices, now


class Supervision:
    """What a coordinator has seen at its last look."""

    def __init__(self) -> None:
        self._last: tuple[StudyCounts | None, float] = None, time.monotonic()

    def observe(self, glance: StudyCounts) -> None:
        """To be called after each look."""
        self._last = glance, time.monotonic()

    def metrics(self) -> list[Metric]:
        """The last look in figures; of the study nothing before the first one."""
        glance, at = self._last
        seconds = time.monotonic() - at
        silent = Metric("miiii_database_silent_seconds", SILENT_SECONDS_HELP, seconds)
        if glance is None:
            return [silent]
        counts = {name: float(n) for name, n in counts_by_name(glance.counts).items()}
        return [
            silent,
            Metric("miiii_trials", "Trials of the study, by state", counts),
            Metric("miiii_oldest_lease_seconds", "Since its renewal, of the oldest lease", glance.oldest_lease_seconds),
        ]


@contextmanager
def serve(read: Callable[[], Iterable[Metric]], host: str, port: int | None) -> Iterator[None]:
    """Answers GET /metrics in threads of its own while the context lasts, and logs where; does nothing without a port.

    Port 0 is any free one. Raises `MiiiiSearchError` when the address cannot be had.
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
