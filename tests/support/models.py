"""Small models for tests, from a seed: every cell, biases or none, projection, head, all sections."""

from __future__ import annotations

import numpy as np

from edge_rnn.core.detector_spec import AlarmSpec, DetectorSpec, GuardSpec, ScorerSpec, ThresholdSpec
from edge_rnn.core.model import (
    GATES,
    Activation,
    Cell,
    Input,
    Linear,
    Model,
    Recurrent,
    RestState,
    Scaler,
    SelfTest,
)
from edge_rnn.core.reference import Reference


def layer(
    rng: np.random.Generator, cell: Cell, inputs: int, hidden: int, *, bias: bool = True, projection: int = 0
) -> Recurrent:
    """One layer with PyTorch's default initialisation."""
    bound = hidden**-0.5
    rows = GATES[cell] * hidden

    def draw(*shape: int) -> np.ndarray:
        return rng.uniform(-bound, bound, shape).astype(np.float32)

    return Recurrent(
        cell,
        draw(rows, inputs),
        draw(rows, projection or hidden),
        draw(rows) if bias else None,
        draw(rows) if bias else None,
        draw(projection, hidden) if projection else None,
    )


def linear(
    rng: np.random.Generator, inputs: int, outputs: int, activation: Activation = "none", *, bias: bool = True
) -> Linear:
    """One head layer with PyTorch's default initialisation."""
    bound = inputs**-0.5
    weight = rng.uniform(-bound, bound, (outputs, inputs)).astype(np.float32)
    return Linear(
        weight, rng.uniform(-bound, bound, outputs).astype(np.float32) if bias else None, activation
    )


def recorded(model: Model, rng: np.random.Generator, steps: int = 16) -> SelfTest:
    """A self-test as an export would record it, from the float64 reference."""
    x = rng.normal(size=(steps, model.input_size)).astype(np.float32)
    return SelfTest(x, Reference(model).run(x).astype(np.float32), 1e-5)


def forecaster(seed: int = 0, channels: int = 2, hidden: int = 3) -> Model:
    """A forecast model with every section of a model file filled."""
    rng = np.random.default_rng(seed)
    layers = (
        layer(rng, "lstm", channels, hidden, projection=hidden - 1),
        layer(rng, "gru", hidden - 1, hidden, bias=False),
    )
    head = (linear(rng, hidden, 4, "relu"), linear(rng, 4, channels, bias=False))
    rest = RestState(
        h=tuple(rng.normal(size=r.output_size).astype(np.float32) for r in layers),
        c=(rng.normal(size=hidden).astype(np.float32), None),
    )
    detector = DetectorSpec(
        period_ns=10**9,
        guard=GuardSpec(low=(None,) * channels, high=(1e6 / 3,) * channels, gap_ns=5 * 10**9),
        residual_scale=tuple(rng.uniform(0.1, 1, channels)),
        scorers=(
            ScorerSpec(
                kind="mewma",
                source="residual",
                rate=0.1,
                center=tuple(rng.normal(size=channels)),
                precision=tuple(np.eye(channels).ravel() / 3),
            ),
        ),
        threshold=ThresholdSpec(kind="quantile", value=float(rng.uniform(5, 9))),
        alarm=AlarmSpec(needed=2, window=3),
    )
    bare = Model(
        layers=layers,
        head=head,
        name="pump",
        inputs=tuple(Input(f"sensor {i}", "m/s²") for i in range(channels)),
        scaler=Scaler(rng.normal(size=channels) * 1e5, rng.uniform(1e-3, 2, channels)),
        detector=detector,
        rest_state=rest,
        activation_ranges=(0.9, 1.0),
        provenance={"trained_on": "made-up data", "epochs": 3, "card": {"rmse": 0.1, "notes": ["a", None]}},
    )
    return with_self_test(bare, rng)


def with_self_test(model: Model, rng: np.random.Generator) -> Model:
    """The same model with recorded steps."""
    fields = {name: getattr(model, name) for name in Model.__slots__}
    return Model(**{**fields, "self_test": recorded(model, rng)})
