"""What a daemon counts, in the text format of Prometheus (OpenMetrics' predecessor, version 0.0.4).

Labels have few values: operations, errnos, classes of errors, phases. Never a name that an image, a registry
or a user has made. `prometheus_client` writes the text; it is imported when somebody reads it first.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from layerfs.status import BUCKETS, Fetching, Requests, Serving, Status, padded

if TYPE_CHECKING:
    from prometheus_client.core import Metric


class _Collected:
    """What `prometheus_client` asks for the metrics of one moment."""

    def __init__(self, metrics: "Iterator[Metric]") -> None:
        self._metrics = metrics

    def collect(self) -> "Iterator[Metric]":
        return self._metrics


def exposition(about: Status) -> bytes:
    """Return the text of one moment of a mount."""
    return padded(_text(_of_mount(about)) + b"#")


def exposition_of_server(about: Serving) -> bytes:
    """Return the text of one moment of a server; it repeats nothing of the mount that it is beside."""
    return _text(_of_server(about))


def _text(metrics: "Iterator[Metric]") -> bytes:
    from prometheus_client import exposition as library

    collected: Any = _Collected(metrics)  # duck-typed there
    return library.generate_latest(collected)


def _of_mount(about: Status) -> "Iterator[Metric]":
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    yield from _of_process(about.version, about.platform, about.started)
    yield from _of_fetcher(about)
    yield CounterMetricFamily("layerfs_evicted_bytes", "Removed to keep to limits.", value=about.removed)
    yield _counter("layerfs_evictions", "Things among it that images need.", "kind", about.evicted)
    if about.store_size:
        yield GaugeMetricFamily("layerfs_store_bytes", "That it takes.", value=about.store_size)
    yield GaugeMetricFamily("layerfs_disk_bytes", "Of the disk that the store is on.", value=about.disk_size)
    yield GaugeMetricFamily("layerfs_disk_free_bytes", "Of them free.", value=about.disk_free)
    yield from _requests(about.requests)


def _of_server(about: Serving) -> "Iterator[Metric]":
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    if about.process is not None:
        yield from _of_process(*about.process)
    if about.fetching is not None:
        yield from _of_fetcher(about.fetching)
    yield GaugeMetricFamily("layerfs_serve_connections", "That are open.", value=about.connections)
    yield CounterMetricFamily(
        "layerfs_serve_refused_connections", "That were one too many.", value=about.refused
    )
    answers = CounterMetricFamily("layerfs_serve_answers", "To other nodes.", labels=["kind", "status"])
    for (kind, status), count in sorted(about.answers.items()):
        answers.add_metric([kind, str(status)], count)
    yield answers
    yield CounterMetricFamily("layerfs_serve_sent_bytes", "Of bodies.", value=about.sent)


def _of_process(version: str, platform: str, started: float) -> "Iterator[Metric]":
    from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily

    yield InfoMetricFamily(
        "layerfs_build", "Of the daemon.", value={"version": version, "platform": platform}
    )
    yield GaugeMetricFamily("layerfs_start_time_seconds", "When it began to serve.", value=started)


def _of_fetcher(about: Fetching) -> "Iterator[Metric]":
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    yield GaugeMetricFamily("layerfs_waiting", "Callers whose need is not met yet.", value=about.waiting)
    queue = GaugeMetricFamily("layerfs_underway", "Blobs that are worked on.", labels=["phase"])
    for phase in ("queued", "downloading", "extracting", "verifying"):
        queue.add_metric([phase], sum(one.phase == phase for one in about.fetching))
    yield queue
    yield CounterMetricFamily("layerfs_fetched_blobs", "Blobs that were fetched.", value=about.fetched)
    yield CounterMetricFamily("layerfs_fetched_bytes", "Their bytes, compressed.", value=about.fetched_bytes)
    yield _counter("layerfs_received_bytes", "That came over the network.", "source", about.received)
    yield CounterMetricFamily(
        "layerfs_mirror_fallbacks",
        "Mirrors that gave nothing, so that the next was asked.",
        value=about.fallbacks,
    )
    layers = CounterMetricFamily("layerfs_layers", "Layers that were wanted.", labels=["level", "result"])
    for one in about.layers:
        layers.add_metric([one.level, one.result], one.count)
    yield layers
    yield CounterMetricFamily(
        "layerfs_bell_files", "That containers opened before they were here.", value=about.rung
    )
    yield _counter("layerfs_worker_deaths", "Processes that ended by themselves.", "worker", about.deaths)
    yield _counter(
        "layerfs_failures", "Work that failed, by the class of the error.", "error", about.failures
    )


def _counter(name: str, text: str, label: str, counts: Mapping[str, int]) -> "Metric":
    """Return a counter for each value of one label."""
    from prometheus_client.core import CounterMetricFamily

    counter = CounterMetricFamily(name, text, labels=[label])
    for value, count in sorted(counts.items()):
        counter.add_metric([value], count)
    return counter


def _requests(requests: tuple[Requests, ...]) -> "Iterator[Metric]":
    from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

    asked = CounterMetricFamily("layerfs_requests", "Of the kernel.", labels=["operation"])
    failed = CounterMetricFamily(
        "layerfs_request_errors", "Requests that were answered with an errno.", labels=["operation", "errno"]
    )
    waits = HistogramMetricFamily(
        "layerfs_request_wait_seconds",
        "How long requests took that could not be answered at once.",
        labels=["operation"],
    )
    for one in requests:
        asked.add_metric([one.operation], one.asked)
        for name, count in sorted(one.failed.items()):
            failed.add_metric([one.operation, name], count)
        waits.add_metric([one.operation], list(_cumulated(one.waits)), one.seconds)
    yield from (asked, failed, waits)


def _cumulated(waits: tuple[int, ...]) -> Iterator[tuple[str, float]]:
    """Yield the upper bound of each bucket, and how many were no longer than that."""
    total = 0
    for bound, count in zip((*map(str, BUCKETS), "+Inf"), waits, strict=True):
        total += count
        yield bound, total
