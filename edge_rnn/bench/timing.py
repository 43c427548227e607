"""Latency call by call, paced calls, rates.

Every call is timed on its own with the monotonic clock; the clock's own cost is measured beside it and never
taken off. `prepare(i)` makes what call i needs outside the timed part. Garbage collection stays on, as it is
where the code is used: the longest times belong to the answer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_rnn.bench.report import Histogram, Latency

T = TypeVar("T")
Times = NDArray[np.int64]

WARM_UP: Final = 200
MOST_CALLS: Final = 2_000_000
_BINS_PER_DECADE: Final = 24


def each(prepare: Callable[[int], T], call: Callable[[T], object], seconds: float) -> Times:
    """ns of each call, one after the other for about `seconds`, at least one, after a warm-up."""
    clock = time.perf_counter_ns
    for i in range(WARM_UP):
        call(prepare(i))
    found: list[int] = []
    end = clock() + int(seconds * 1e9)
    now = 0
    while (now < end and len(found) < MOST_CALLS) or not found:
        argument = prepare(WARM_UP + len(found))
        before = clock()
        call(argument)
        now = clock()
        found.append(now - before)
    return np.array(found, np.int64)


def paced(
    prepare: Callable[[int], T], call: Callable[[T], object], hz: float, count: int
) -> tuple[Times, Times]:
    """`count` calls, one due every 1/hz seconds: ns by which each began late, ns each took.

    The process sleeps in between, so caches and clock frequency are what a waiting device has.
    """
    clock = time.perf_counter_ns
    late, took = np.empty(count, np.int64), np.empty(count, np.int64)
    start = clock() + int(1e9 / hz)
    for i in range(count):
        argument = prepare(i)
        due = start + int(i * 1e9 / hz)
        while (left := due - clock()) > 0:
            time.sleep(left / 1e9)
        before = clock()
        call(argument)
        took[i] = clock() - before
        late[i] = before - due
    return late, took


def per_second(call: Callable[[], object], units: int, seconds: float, rounds: int = 5) -> float:
    """Units a second, the median of `rounds` of calls that take about `seconds` together."""
    clock = time.perf_counter_ns
    call()
    rates = []
    for _ in range(rounds):
        calls, start = 0, clock()
        end = start + int(seconds * 1e9 / rounds)
        while clock() < end or not calls:
            call()
            calls += 1
        rates.append(calls * units * 1e9 / (clock() - start))
    return float(np.median(rates))


def clock_overhead() -> float:
    """ns between two readings of the clock with nothing in between, the median of 1,000."""
    clock = time.perf_counter_ns
    pairs = [(clock(), clock()) for _ in range(1000)]
    return float(np.median([after - before for before, after in pairs]))


def latency(times: Times) -> Latency:
    """Quantiles of times, each a time that occurred; null where there are too few for one."""
    ordered = np.sort(times)

    def quantile(q: float) -> float:
        return float(ordered[math.ceil(q * (len(ordered) - 1))])

    return Latency(
        calls=len(ordered),
        p50_ns=quantile(0.5),
        p90_ns=quantile(0.9),
        p99_ns=quantile(0.99) if len(ordered) >= 100 else None,
        p999_ns=quantile(0.999) if len(ordered) >= 1000 else None,
        max_ns=float(ordered[-1]),
    )


def histogram(times: Times) -> Histogram:
    """Counts in bins that are equally wide on a logarithmic axis and hold all times."""
    low = math.floor(_BINS_PER_DECADE * math.log10(max(int(times.min()), 1)))
    high = math.floor(_BINS_PER_DECADE * math.log10(max(int(times.max()), 1))) + 1
    edges = 10.0 ** (np.arange(low, high + 1) / _BINS_PER_DECADE)
    place = np.searchsorted(edges, times, side="right") - 1
    counts = np.bincount(np.clip(place, 0, len(edges) - 2), minlength=len(edges) - 1)
    return Histogram(edges_ns=edges.tolist(), counts=counts.tolist())
