"""Quantiles, histograms and pacing, without a judgement on how long anything takes."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge_rnn.bench import timing
from edge_rnn.commands.bench import duration

TIMES = arrays(np.int64, st.integers(1, 3000), elements=st.integers(0, 10**12))


@given(TIMES)
def test_quantiles_occur_rise_and_need_enough_calls(times) -> None:
    found = timing.latency(times)
    known = [
        t for t in (found.p50_ns, found.p90_ns, found.p99_ns, found.p999_ns, found.max_ns) if t is not None
    ]
    assert known == sorted(known)
    assert set(known) <= set(times.tolist())
    assert found.max_ns == times.max()
    assert np.mean(times <= found.p90_ns) >= 0.9
    assert (found.p99_ns is None) == (len(times) < 100)
    assert (found.p999_ns is None) == (len(times) < 1000)


@given(TIMES)
def test_a_histogram_holds_every_time_in_its_bin(times) -> None:
    found = timing.histogram(times)
    assert sum(found.counts) == len(times)
    assert len(found.edges_ns) == len(found.counts) + 1
    edges = np.array(found.edges_ns)
    assert np.all(np.diff(edges) > 0)
    for edge, below in zip(edges[1:-1], np.cumsum(found.counts), strict=False):
        assert np.sum(times < edge) == below


def test_calls_are_prepared_in_order_and_timed_once() -> None:
    prepared: list[int] = []
    called: list[int] = []

    def prepare(i: int) -> int:
        prepared.append(i)
        return i

    times = timing.each(prepare, called.append, 0.01)
    assert called == prepared == list(range(timing.WARM_UP + len(times)))
    assert len(times) >= 1
    assert (times >= 0).all()


def test_paced_calls_never_begin_early() -> None:
    begun: list[int] = []
    late, took = timing.paced(lambda i: i, lambda _: begun.append(time.perf_counter_ns()), 200, 5)
    assert late.shape == took.shape == (5,)
    assert (late >= 0).all()
    assert begun[-1] - begun[0] >= 4 * 10**9 / 200 - late[0]


def test_rates_count_units() -> None:
    calls: list[int] = []
    assert timing.per_second(lambda: calls.append(1), 7, 0.005) > 0
    assert len(calls) >= 6
    assert timing.clock_overhead() >= 0


@pytest.mark.parametrize(
    ("ns", "said"),
    [
        (None, "-"), (0, "0 ns"), (70.4, "70 ns"), (999.0, "999 ns"), (1170, "1.17 µs"), (55_000, "55.0 µs"),
        (204_400, "204 µs"), (999_700, "1.00 ms"), (11.5e9, "11.5 s"), (200e9, "200 s"),
    ],
)  # fmt: skip
def test_a_duration_has_three_digits(ns, said) -> None:
    assert duration(ns) == said
