"""Models for the export's tests: every cell, shape and activation, and detectors that use every rule."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.detector_spec import (
    AlarmSpec,
    ConditionSpec,
    DetectorSpec,
    GuardSpec,
    ScorerSpec,
    ThresholdSpec,
)
from edge_rnn.core.model import Activation, Cell, Linear, Model, Recurrent, RestState, Scaler

Floats = NDArray[np.float32]
Numeric = Literal["F", "U"]


def network(
    seed: int, cells: list[tuple[Cell, int, int]], head: list[tuple[int, Activation]], inputs: int = 3
) -> Model:
    """Layers of (cell, units, projection) and Linears of (outputs, activation) with lively weights."""
    rng = np.random.default_rng(seed)

    def values(*shape: int) -> Floats:
        return (rng.uniform(-1.5, 1.5, shape) / np.sqrt(shape[-1])).astype(np.float32)

    size, layers = inputs, []
    for cell, hidden, projection in cells:
        gates = {"lstm": 4, "gru": 3}.get(cell, 1) * hidden
        out = projection or hidden
        layers.append(
            Recurrent(
                cell,
                values(gates, size),
                values(gates, out),
                values(gates),
                values(gates),
                values(projection, hidden) if projection else None,
            )
        )
        size = out
    linears = []
    for outputs, activation in head:
        linears.append(Linear(values(outputs, size), values(outputs), activation))
        size = outputs
    return Model(tuple(layers), tuple(linears))


NETWORKS: dict[str, tuple[list[tuple[Cell, int, int]], list[tuple[int, Activation]]]] = {
    "rnn_tanh": ([("rnn_tanh", 7, 0)], [(1, "none")]),
    "rnn_relu": ([("rnn_relu", 33, 0)], [(5, "relu")]),
    "both rnns": ([("rnn_relu", 5, 0), ("rnn_tanh", 16, 0)], []),
    "lstm": ([("lstm", 20, 0)], [(4, "none")]),
    "lstm, one unit": ([("lstm", 1, 0)], [(2, "sigmoid"), (1, "none")]),
    "lstm, two layers": ([("lstm", 16, 0), ("lstm", 9, 0)], [(17, "tanh")]),
    "lstm with projection": ([("lstm", 33, 5), ("lstm", 20, 17)], [(3, "sigmoid")]),
    "gru": ([("gru", 20, 0)], [(16, "relu"), (3, "none")]),
    "gru, three layers": ([("gru", 5, 0), ("gru", 17, 0), ("gru", 1, 0)], []),
    "mixed, softmax": ([("gru", 12, 0), ("lstm", 18, 0)], [(7, "relu"), (5, "tanh"), (19, "softmax")]),
}

SECOND = 10**9


def _scorers(rng: np.random.Generator, c: int, *kinds: tuple[str, str]) -> tuple[ScorerSpec, ...]:
    found = []
    for kind, source in kinds:
        a = rng.normal(size=(c, c)) * 0.3
        precision = (a @ a.T + np.eye(c)).ravel() if kind == "mewma" else rng.uniform(0.5, 2, c)
        center = tuple((rng.normal(size=c) * 0.01).tolist())
        rate = float(rng.uniform(0.1, 1))
        found.append(
            ScorerSpec(
                kind=kind,  # type: ignore[arg-type]
                source=source,  # type: ignore[arg-type]
                rate=rate,
                center=center,
                precision=tuple(precision.tolist()),
                unit=float(rng.uniform(1, 9)),
            )
        )
    return tuple(found)


def detectors() -> dict[str, Model]:
    """Detectors whose rules, together, are all there are."""
    rng = np.random.default_rng(7)
    rest = RestState(h=((rng.normal(size=8) * 0.3).astype(np.float32),), c=(None,))
    scaler = Scaler(rng.normal(size=3) * 100, rng.uniform(0.1, 9, 3))
    gru = replace(network(3, [("gru", 8, 0)], [(3, "none")]), scaler=scaler, rest_state=rest)
    full = DetectorSpec(
        kind="forecast",
        warmup=5,
        guard=GuardSpec(
            low=(None, -500.0, -500.0),
            high=(500.0, None, 500.0),
            stuck_after=(3, 0, 5),
            silent_after_ns=4 * SECOND,
            gap_ns=20 * SECOND,
            on_gap="reset",
            on_missing="predict",
            max_missing=4,
        ),
        condition=ConditionSpec(
            drift=(True, False, True), drift_rate=0.05, drift_rate_in_alarm=0.01, clip=4.0
        ),
        residual_scale=tuple(rng.uniform(0.3, 2, 3).tolist()),
        scorers=_scorers(rng, 3, ("mewma", "residual"), ("ewma_z", "input")),
        threshold=ThresholdSpec(kind="dspot_ewma", value=0.6, rate=0.04, initial=0.3, max_freeze=25),
        alarm=AlarmSpec(needed=2, window=4, clear_ratio=0.8, clear_hold=2, refractory=3),
    )
    plain = DetectorSpec(
        kind="forecast",
        warmup=3,
        scorers=_scorers(rng, 3, ("mewma", "residual")),
        threshold=ThresholdSpec(kind="quantile", value=0.7),
    )
    lstm = replace(network(5, [("lstm", 9, 4), ("lstm", 6, 0)], [(3, "tanh")]), scaler=scaler)
    summed = DetectorSpec(
        kind="reconstruct",
        warmup=4,
        guard=GuardSpec(stuck_after=(2, 2, 2), max_missing=2, gap_ns=20 * SECOND),
        scorers=_scorers(rng, 3, ("ewma_z", "residual"), ("ewma_z", "input")),
        combine="sum",
        threshold=ThresholdSpec(kind="fixed", value=1.2, max_freeze=40),
        alarm=AlarmSpec(needed=3, window=62, clear_hold=1),
    )
    classes = replace(network(9, [("rnn_tanh", 12, 0)], [(4, "softmax")]), scaler=scaler)
    classify = DetectorSpec(
        kind="classify",
        warmup=2,
        guard=GuardSpec(silent_after_ns=4 * SECOND, low=(-300.0,) * 3),
        condition=ConditionSpec(drift=(True, True, False)),
        threshold=ThresholdSpec(kind="dspot_ewma", value=0.2, initial=0.2, max_freeze=30),
        alarm=AlarmSpec(needed=1, window=1, clear_ratio=1.0),
        alarm_class=2,
    )
    # Weights that grow: the outputs leave the numbers, and the stream must come back.
    growing = network(11, [("rnn_relu", 6, 0)], [(3, "none")])
    layer = replace(growing.layers[0], w_hh=np.full((6, 6), 3.0, np.float32))
    return {
        "full": replace(gru, detector=full),
        "plain": replace(gru, detector=plain),
        "reconstruct": replace(lstm, detector=summed),
        "classify": replace(classes, detector=classify),
        "diverging": replace(growing, layers=(layer,), detector=plain),
    }


def stream(
    model: Model, steps: int, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.uint8]]:
    """Raw readings with everything a device meets: bursts, NaN, infinities, absent and held channels,
    values that stand still, slow drift, pauses."""
    rng = np.random.default_rng(seed)
    c = model.input_size
    mean, std = (0.0, 1.0) if model.scaler is None else (model.scaler.mean, model.scaler.std)
    x = rng.normal(size=(steps, c)) * 0.5 + np.sin(np.arange(steps)[:, None] / 17 + np.arange(c))
    x += np.cumsum(rng.normal(size=(steps, c)) * 0.01, axis=0)
    for start in rng.integers(0, steps, steps // 60):
        x[start : start + rng.integers(1, 60), rng.integers(c)] += rng.normal() * 6
    for start in rng.integers(0, steps, steps // 80):
        length, channel = rng.integers(2, 9), rng.integers(c)
        x[start : start + length, channel] = x[start, channel]
    readings = x * std + mean
    odd = rng.random((steps, c))
    readings[odd < 0.01] = np.nan
    readings[odd > 0.997] = np.inf
    present = rng.choice([0, 1, 2], p=[0.02, 0.95, 0.03], size=(steps, c)).astype(np.uint8)
    for start in rng.integers(0, steps, steps // 100):
        present[start : start + rng.integers(1, 10), rng.integers(c)] = 0
    present[rng.random(steps) < 0.005] = 0
    pauses = np.where(rng.random(steps) < 0.01, rng.integers(2, 40, steps), 1)
    times = np.cumsum(pauses * SECOND + rng.integers(0, 1000, steps)).astype(np.int64)
    return times, readings, present


def any_detector(seed: int) -> Model:
    """A network and a detector with each rule on or off as the seed has it."""
    rng = np.random.default_rng(seed)
    c = int(rng.integers(1, 6))

    def maybe() -> bool:
        return bool(rng.random() < 0.5)

    def limits(limit: float) -> tuple[float | None, ...]:
        return tuple(None if maybe() else limit for _ in range(c)) if maybe() else ()

    kind = ("forecast", "reconstruct", "classify")[rng.integers(3)]
    outputs = c if kind != "classify" else int(rng.integers(1, 5))
    cell: Cell = ("lstm", "gru", "rnn_tanh")[rng.integers(3)]  # type: ignore[assignment]
    model = network(seed, [(cell, int(rng.integers(1, 20)), 0)], [(outputs, "none")], inputs=c)
    kinds = [
        (("mewma", "ewma_z")[rng.integers(2)], ("residual", "input")[rng.integers(2)])
        for _ in range(rng.integers(1, 4) if kind != "classify" else 0)
    ]
    window = int(rng.integers(1, 63))
    spec = DetectorSpec(
        kind=kind,  # type: ignore[arg-type]
        warmup=int(rng.integers(0, 9)),
        guard=GuardSpec(
            low=limits(-30.0),
            high=limits(30.0),
            stuck_after=tuple(rng.integers(0, 5, c).tolist()) if maybe() else (),
            silent_after_ns=3 * SECOND if maybe() else 0,
            gap_ns=15 * SECOND if maybe() else 0,
            on_gap="reset" if maybe() else "hold",
            on_missing="predict" if kind == "forecast" and maybe() else "hold",
            max_missing=int(rng.choice([0, 2, 5])),
        ),
        condition=ConditionSpec(
            drift=tuple(maybe() for _ in range(c)) if maybe() else (),
            clip=float(rng.uniform(1, 10)),
            drift_rate_in_alarm=float(rng.choice([0, 0.02])),
        ),
        residual_scale=tuple(rng.uniform(0.2, 2, c).tolist()) if maybe() else (),
        scorers=_scorers(rng, c, *kinds),
        combine="sum" if maybe() else "max",
        threshold=ThresholdSpec(
            kind=("fixed", "quantile", "dspot_ewma")[rng.integers(3)],  # type: ignore[arg-type]
            value=float(rng.uniform(0.2, 2)),
            rate=float(rng.uniform(0.01, 0.5)),
            initial=float(rng.uniform(0, 1)),
            max_freeze=int(rng.choice([0, 10, 40])),
        ),
        alarm=AlarmSpec(
            needed=int(rng.integers(1, min(window, 4) + 1)),
            window=window,
            clear_ratio=float(rng.uniform(0.3, 1)),
            clear_hold=int(rng.integers(0, 5)),
            refractory=int(rng.integers(0, 9)),
        ),
        alarm_class=int(rng.integers(0, outputs)),
    )
    scaler = Scaler(rng.normal(size=c) * 5, rng.uniform(0.1, 9, c)) if maybe() else None
    return replace(model, scaler=scaler, detector=spec)
