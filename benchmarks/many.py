"""Many streams beside OpenBLAS, and the detector beside the step it is made around; `speed.py` prints both.

`StepperBatch.step` is set beside `x @ W` alone, NumPy's float32 product of the same shapes without
activations, head or state, and beside the same rows one after the other. `speed.py` gives OpenBLAS one
thread. Times are of the thread's CPU clock, so other work on the machine does not enter, but what it does to
the caches does.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from unittest import mock

import numpy as np

from benchmarks.conftest import forecaster
from edge_rnn import Detector, Stepper, StepperBatch
from edge_rnn.core import batch as batch_module
from edge_rnn.core.detector_spec import AlarmSpec, DetectorSpec, ScorerSpec, ThresholdSpec
from edge_rnn.core.model import Model, Scaler
from edge_rnn.detect.detector import DetectorTable

NEVER = 2**62


def cpu_time(call: Callable[[], object], count: int) -> float:
    """Mean ns of `count` calls on the thread's CPU clock."""
    start = time.thread_time_ns()
    for _ in range(count):
        call()
    return (time.thread_time_ns() - start) / count


@dataclass(frozen=True, slots=True)
class BatchRow:
    """ns per stream (medians): the batch, its rows one by one, the product alone; median ratios of rounds."""

    network: str
    streams: int
    batch: float
    one_by_one: float
    product: float
    to_product: float
    to_one_by_one: float


def measure_batch(cell: str, shape: tuple[int, int, int], streams: int, rounds: int) -> BatchRow:
    """One network and number of streams, contenders taking turns; their bits are compared first."""
    model = forecaster(cell, *shape)
    batch = StepperBatch(model, streams)
    with mock.patch.object(batch_module, "fewest_ready", return_value=NEVER):
        rows = StepperBatch(model, streams)
    rng = np.random.default_rng(1)
    xs = rng.standard_normal((streams, shape[0])).astype(np.float32)
    if batch.step(xs).tobytes() != rows.step(xs).tobytes():
        raise RuntimeError("tiles and rows differ: no figures")
    factors = [np.ascontiguousarray(np.hstack([y.w_ih, y.w_hh]).T) for y in model.layers]
    inputs = [rng.standard_normal((streams, w.shape[0])).astype(np.float32) for w in factors]
    outputs = [np.empty((streams, w.shape[1]), np.float32) for w in factors]

    def product() -> None:
        for x, w, y in zip(inputs, factors, outputs, strict=True):
            np.matmul(x, w, out=y)

    count = max(1, int(3e6 / (streams * sum(w.size for w in factors) / 30 + 300)))
    times: list[tuple[float, ...]] = []
    for _ in range(rounds):
        calls = (lambda: batch.step(xs), lambda: rows.step(xs), product)
        times.append(tuple(cpu_time(call, count) / streams for call in calls))
    ours, single, alone = (statistics.median(column) for column in zip(*times, strict=True))
    return BatchRow(
        f"{cell.upper()} {'/'.join(map(str, shape))}", streams, ours, single, alone,
        statistics.median(a / c for a, _, c in times), statistics.median(a / b for a, b, _ in times),
    )  # fmt: skip


def detecting(cell: str, shape: tuple[int, int, int]) -> Model:
    """A forecaster with one MEWMA scorer over all channels, full covariance."""
    channels = shape[0]
    rng = np.random.default_rng(0)
    root = rng.normal(size=(channels, channels)) * 0.4 + np.eye(channels)
    scorer = ScorerSpec(
        kind="mewma", source="residual", rate=0.2, unit=1e6, center=(0.0,) * channels,
        precision=tuple((root @ root.T).ravel().tolist()),
    )  # fmt: skip
    spec = DetectorSpec(
        warmup=3, scorers=(scorer,), threshold=ThresholdSpec(kind="fixed", value=4.0), alarm=AlarmSpec()
    )
    scaler = Scaler(np.zeros(channels), np.ones(channels))
    return replace(forecaster(cell, *shape), scaler=scaler, detector=spec)


@dataclass(frozen=True, slots=True)
class DetectorRow:
    """ns per reading (medians) and what stands on top of the step.

    run: the network's step inside a call. table: the detector, one stream, inside a call. streams: 256 in a
    call. advance, step: from Python. The rest are medians of the rounds' differences.
    """

    network: str
    run: float
    table: float
    streams: float
    advance: float
    step: float
    table_over_run: float
    streams_over_run: float
    advance_over_table: float
    advance_over_run: float


def measure_detector(cell: str, shape: tuple[int, int, int], rounds: int, count: int = 2000) -> DetectorRow:
    """One network with a detector around it."""
    model, many = detecting(cell, shape), 256
    stepper, detector, slow = Stepper(model), Detector(model), Detector(model)
    xs = np.random.default_rng(1).standard_normal((count, shape[0]))
    inputs = xs.astype(np.float32)
    tables = [DetectorTable(model, n) for n in (1, many)]
    outs = [np.zeros(n, tables[0].verdict_dtype) for n in (count, many)]
    rows = [np.zeros(count, np.int64), np.arange(many)]
    present = np.ones(xs.shape, np.uint8)
    clocks = [np.arange(count), np.zeros(many, np.int64)]
    now = 0

    def in_table(k: int) -> None:
        clocks[k] += 10**9
        n = len(rows[k])
        tables[k].step_rows(rows[k], clocks[k], xs[:n], present[:n], outs[k])

    def advance() -> None:
        for t in range(now, now + count):
            detector.advance(t)

    def nothing() -> None:
        for t in range(now, now + count):  # noqa: B007
            pass

    def step() -> None:
        x = xs[0]
        for t in range(now, now + count // 8):
            slow.step(x, t)

    times: list[tuple[float, ...]] = []
    for _ in range(rounds):
        times.append(
            (
                cpu_time(lambda: stepper.run(inputs), 1) / count,
                cpu_time(lambda: in_table(0), 1) / count,
                cpu_time(lambda: in_table(1), 8) / many,
                (cpu_time(advance, 1) - cpu_time(nothing, 1)) / count,
                cpu_time(step, 1) / (count // 8),
            )
        )
        now += count
    run, table, streams, one, verdict = (statistics.median(column) for column in zip(*times, strict=True))
    over = [(a - r, b - r, c - a, c - r) for r, a, b, c, _ in times]
    return DetectorRow(
        f"{cell.upper()} {'/'.join(map(str, shape))}", run, table, streams, one, verdict,
        *(statistics.median(column) for column in zip(*over, strict=True)),
    )  # fmt: skip


def batch_table(rows: list[BatchRow]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| network | streams | batch ns | product alone ns | batch / product | batch / one by one |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.network} | {r.streams:,} | {r.batch:,.0f} | {r.product:,.0f} | {r.to_product:.2f} "
        f"| {r.to_one_by_one:.2f} |"
        for r in rows
    ]
    return "\n".join(lines)


def detector_table(rows: list[DetectorRow]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| network | run ns | in a call | 256 streams | over run | `advance` | over it | over run | `step` |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.network} | {r.run:,.0f} | {r.table:,.0f} | {r.streams:,.0f} | {r.table_over_run:+,.0f}, "
        f"{r.streams_over_run:+,.0f} | {r.advance:,.0f} | {r.advance_over_table:+,.0f} "
        f"| {r.advance_over_run:+,.0f} | {r.step:,.0f} |"
        for r in rows
    ]
    return "\n".join(lines)
