"""Weights of two bytes beside those of four: `Stepper.run` with "f16" and "f32", and how far outputs differ.

`speed.py --only f16` prints it.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import numpy as np

from benchmarks.conftest import forecaster
from benchmarks.many import cpu_time
from edge_rnn import Stepper


@dataclass(frozen=True, slots=True)
class HalfRow:
    """ns a step (medians), ratio of the rounds (median, quartiles), largest difference of an output."""

    network: str
    f32: float
    f16: float
    ratio: float
    quartiles: tuple[float, float]
    difference: float


def measure_half(cell: str, shape: tuple[int, int, int], rounds: int) -> HalfRow:
    """Both for one network, taking turns; on the thread's CPU clock."""
    model = forecaster(cell, *shape)
    full, half = Stepper(model), Stepper(model, weights="f16")
    size = sum(y.w_ih.size + y.w_hh.size for y in model.layers)
    xs = np.random.default_rng(1).standard_normal((max(50, int(1e8 / size)), shape[0])).astype(np.float32)
    apart = float(np.abs(full.run(xs) - half.run(xs)).max())
    if not 0 < apart < 0.1:
        raise RuntimeError(f"outputs differ by {apart}: no figures")
    calls = (lambda: full.run(xs), lambda: half.run(xs))
    times = [tuple(cpu_time(call, 1) / len(xs) for call in calls) for _ in range(rounds)]
    ratios = [b / a for a, b in times]
    first, _, third = statistics.quantiles(ratios, n=4)
    a, b = (statistics.median(column) for column in zip(*times, strict=True))
    name = f"{cell.upper()} {'/'.join(map(str, shape))}"
    return HalfRow(name, a, b, statistics.median(ratios), (first, third), apart)


def half_table(rows: list[HalfRow]) -> str:
    """The rows as a Markdown table."""
    lines = [
        '| network | "f32" ns | "f16" ns | ratio (quartiles) | outputs differ by |',
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.network} | {r.f32:,.0f} | {r.f16:,.0f} "
        f"| {r.ratio:.2f} ({r.quartiles[0]:.2f}-{r.quartiles[1]:.2f}) | {r.difference:.0e} |"
        for r in rows
    ]
    return "\n".join(lines)
