"""What the daemon knows of itself, as Prometheus metrics.

`DaemonMetrics` is a collector: at each scrape it reads the daemon's counters anew, and the latest verdict of
every stream is added; nothing is counted twice, and the data path does nothing for it. The samples of streams
are written here, not by the client library, which needs 5 us for each: a thousand streams would be 20 ms of
the interpreter. All runs on the HTTP server's thread. What it reads are plain attributes that one thread
writes, and copies of dictionaries, so a scrape may see a counter of this moment beside one of the moment
before, never a torn one.

Metrics (all begin with `edge_rnn_`):

    <counter>_total                      of daemon, engine, broker (the connection) and store, see `health.py`
    score, score_threshold {stream}      the latest verdict; absent while there is no score
    status {stream, status}              1 for the status a stream has
    fault {stream, kind}                 1 for each kind of fault a stream has: silent, clock, stuck...
    reading_time_seconds {stream}        event time of the latest verdict
    up, blind, lag_seconds, quiet_seconds, uptime_seconds, streams, outbox, unacknowledged, info {version}
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from edge_rnn import __version__
from edge_rnn.service.facts import Facts, Latest

_PREFIX = "edge_rnn"


class DaemonMetrics(Collector):
    """See the module; `facts` gives the daemon's present moment."""

    def __init__(self, facts: Callable[[], Facts]) -> None:
        self._facts = facts

    def collect(self) -> Iterator[Metric]:
        """The metric families of this moment."""
        facts = self._facts()
        for part, counters in facts.counters.items():
            fields = counters if isinstance(counters, dict) else asdict(counters)
            for name, value in fields.items():
                yield CounterMetricFamily(f"{_PREFIX}_{part}_{name}", f"{part}: {name}", value=value)
        for name, value in facts.gauges.items():
            yield GaugeMetricFamily(f"{_PREFIX}_{name}", name.replace("_", " "), value=value)
        yield InfoMetricFamily(_PREFIX, "the daemon", value={"version": __version__})


def exposition(facts: Callable[[], Facts]) -> Callable[[], bytes]:
    """A function that gives the metrics in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(DaemonMetrics(facts))
    return lambda: generate_latest(registry) + _of_streams(facts().latest)


def _of_streams(latest: Iterable[Latest]) -> bytes:
    score: list[str] = []
    limit: list[str] = []
    status: list[str] = []
    time: list[str] = []
    fault: list[str] = []
    for one in latest:
        name = one.stream.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        if math.isfinite(one.score):
            score.append(f'edge_rnn_score{{stream="{name}"}} {one.score!r}\n')
            limit.append(f'edge_rnn_score_threshold{{stream="{name}"}} {one.threshold!r}\n')
        status.append(f'edge_rnn_status{{status="{one.status}",stream="{name}"}} 1\n')
        fault += [f'edge_rnn_fault{{kind="{kind}",stream="{name}"}} 1\n' for kind in one.faults]
        time.append(f'edge_rnn_reading_time_seconds{{stream="{name}"}} {one.time_ns / 1e9!r}\n')
    families = (
        ("score", "latest score of a stream", score),
        ("score_threshold", "a score above it is too high", limit),
        ("status", "1 for the status a stream has", status),
        ("fault", "1 for each kind of fault a stream has", fault),
        ("reading_time_seconds", "event time of the latest verdict", time),
    )
    parts: list[str] = []
    for name, text, lines in families:
        parts += [f"# HELP edge_rnn_{name} {text}\n# TYPE edge_rnn_{name} gauge\n", *lines]
    return "".join(parts).encode("utf-8", "replace")
