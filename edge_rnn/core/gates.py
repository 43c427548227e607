"""What the gates do: the activations of one step, away from the hot path.

The kernels never store a gate. They are computed again here by the float64 reference, from a copy of
the state, so looking costs nothing while nobody looks and never changes a stream.
"""

from __future__ import annotations

from edge_rnn.core.layout import StateLayout
from edge_rnn.core.model import Float32, Model
from edge_rnn.core.reference import Gates, Reference

__all__ = ["Gates", "gate_activations"]


def gate_activations(model: Model, layout: StateLayout, row: Float32, x: Float32) -> list[Gates]:
    """Per layer the gates the reading x (I,) gives from the state `row` (core_size,); neither changes."""
    reference = Reference(model)
    indices = range(len(model.layers))
    reference.set_state(
        tuple(layout.h(row, i) for i in indices),
        tuple(layout.c(row, i) if model.layers[i].cell == "lstm" else None for i in indices),
    )
    return reference.gates(x)
