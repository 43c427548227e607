"""Small models with a detector section, made from a seed."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from edge_rnn.core.detector_spec import DetectorSpec, ScorerSpec, ThresholdSpec
from edge_rnn.core.model import Cell, Linear, Model, Recurrent, Scaler

GATES = {"rnn_tanh": 1, "rnn_relu": 1, "lstm": 4, "gru": 3}
SECOND = 1_000_000_000


def scorer(
    channels: int, kind: str = "ewma_z", source: str = "residual", seed: int = 0, **more: Any
) -> ScorerSpec:
    """A scorer with a random center and a positive definite precision."""
    rng = np.random.default_rng(seed)
    center = rng.normal(size=channels) * 0.1
    if kind == "mewma":
        root = rng.normal(size=(channels, channels)) * 0.4 + np.eye(channels)
        precision = (root @ root.T).ravel()
    else:
        precision = rng.uniform(0.5, 3.0, channels)
    values: dict[str, Any] = {"kind": kind, "source": source, "rate": 0.2, "unit": 1.5} | more
    return ScorerSpec(center=tuple(center.tolist()), precision=tuple(precision.tolist()), **values)


def spec(channels: int, **more: Any) -> DetectorSpec:
    """A detector with one scorer and a fixed threshold; `more` replaces sections."""
    values: dict[str, Any] = {
        "warmup": 3,
        "scorers": (scorer(channels),),
        "threshold": ThresholdSpec(kind="fixed", value=4.0),
    }
    return DetectorSpec(**(values | more))


def model(
    channels: int = 3,
    detector: DetectorSpec | None = None,
    cell: Cell = "gru",
    hidden: int = 5,
    seed: int = 0,
    outputs: int | None = None,
    scaled: bool = True,
    features: tuple[str, ...] = (),
) -> Model:
    """A one-layer network with random weights."""
    rng = np.random.default_rng(seed)
    g, o = GATES[cell], channels if outputs is None else outputs

    def weights(*shape: int) -> np.ndarray:
        return (rng.uniform(-1, 1, shape) / np.sqrt(hidden)).astype(np.float32)

    layer = Recurrent(
        cell,
        weights(g * hidden, channels + len(features)),
        weights(g * hidden, hidden),
        weights(g * hidden),
        weights(g * hidden),
    )
    scaler = Scaler(rng.normal(size=channels) * 10, rng.uniform(0.5, 4, channels)) if scaled else None
    return Model(
        layers=(layer,), head=(Linear(weights(o, hidden), weights(o)),), scaler=scaler,
        detector=spec(channels) if detector is None else detector, features=features,
    )  # fmt: skip


def readings(count: int, of: Model, seed: int = 0, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Times (T,) one second apart and readings (T, C) around the scaler's mean."""
    rng = np.random.default_rng(seed)
    mean, std = (0.0, 1.0) if of.scaler is None else (of.scaler.mean, of.scaler.std)
    x = rng.normal(size=(count, of.input_size)) * spread * std + mean
    return np.arange(count, dtype=np.int64) * SECOND, x


def replaced(of: DetectorSpec, **more: Any) -> DetectorSpec:
    """`of` with some fields replaced."""
    return msgspec.structs.replace(of, **more)
