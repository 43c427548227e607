"""The third side of the parity triangle: the C runtime gives the Numba kernels' bits, class F and U."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import firmware_export
from edge_rnn.core import fields as p
from edge_rnn.core.layout import StateLayout, padded
from edge_rnn.core.model import Activation, Cell, Linear, Model, Recurrent
from edge_rnn.core.pack import pack
from edge_rnn.core.stepper import Stepper
from tests.support import need

RUNTIME = Path(firmware_export.__file__).parent / "runtime"
WARNINGS = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror", "-ffp-contract=off"]
Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], ctypes.CDLL]:
    """Compile the runtime for a numeric class and an optimisation level."""
    gcc = need.program("gcc")
    folder = tmp_path_factory.mktemp("runtime")

    def build(numeric: str, level: str) -> ctypes.CDLL:
        target = folder / f"{numeric}{level}.so"
        fused = ["-DERN_FUSED=1", "-march=native"] if numeric == "F" else ["-DERN_FUSED=0"]
        source = str(RUNTIME / "edge_rnn_step.c")
        subprocess.run(
            [gcc, *WARNINGS, *fused, level, "-shared", "-fPIC", "-o", str(target), source], check=True
        )
        return ctypes.CDLL(str(target))

    return build


def _pointer(values: Floats, offset: int = 0) -> ctypes.c_void_p:
    return ctypes.c_void_p(values.ctypes.data + 4 * offset)


class CStepper:
    """The plan of a model packed for one lane, walked in Python; all arithmetic is the C runtime's."""

    def __init__(self, model: Model, library: ctypes.CDLL) -> None:
        self.packed = pack(model, 1)
        self.library = library
        self.row = StateLayout(model).rest(model)

    def _layer(self, record: list[int], x: Floats) -> Floats:
        w = _pointer(self.packed.weights, record[p.WEIGHTS])
        n_h, hidden = record[p.UNITS_OUT], record[p.HIDDEN]
        h = self.row[record[p.H] : record[p.H] + padded(n_h)]
        old, new = h.copy(), np.zeros(padded(hidden), np.float32)
        head = (w, _pointer(x), record[p.ROWS], _pointer(old))
        if record[p.CELL] == p.LSTM:
            c = _pointer(self.row, record[p.C])
            self.library.ern_lstm(*head, n_h, c, _pointer(new), hidden)
        elif record[p.CELL] == p.GRU:
            self.library.ern_gru(*head, n_h, _pointer(new))
        else:
            self.library.ern_rnn(*head, n_h, _pointer(new), int(record[p.CELL] == p.RNN_RELU))
        if record[p.PROJECTION] >= 0:
            projection = _pointer(self.packed.weights, record[p.PROJECTION])
            self.library.ern_dense(projection, _pointer(new), hidden, n_h, _pointer(h))
        else:
            h[:] = new
        return h

    def step(self, x: Floats) -> Floats:
        plan = [int(v) for v in self.packed.plan]
        value = np.zeros(padded(x.size), np.float32)
        value[: x.size] = x
        at, rows = p.HEADER, x.size
        for _ in range(plan[p.LAYERS]):
            record = plan[at : at + p.LAYER]
            value, rows = self._layer(record, value), record[p.UNITS_OUT]
            at += p.LAYER
        for _ in range(plan[p.LINEARS]):
            record = plan[at : at + p.LINEAR]
            y = np.zeros(padded(record[p.COLUMNS]), np.float32)
            dense = _pointer(self.packed.weights, record[p.DENSE])
            self.library.ern_dense(dense, _pointer(value), rows, record[p.COLUMNS], _pointer(y))
            self.library.ern_activate(record[p.ACTIVATION], _pointer(y), record[p.COLUMNS])
            value, rows = y, record[p.COLUMNS]
            at += p.LINEAR
        return value[: plan[p.OUTPUTS]].copy()


def _model(
    rng: np.random.Generator, cells: list[tuple[Cell, int, int]], head: list[tuple[int, Activation]]
) -> Model:
    def values(*shape: int) -> Floats:
        return (rng.uniform(-1.5, 1.5, shape) / np.sqrt(shape[-1])).astype(np.float32)

    size, layers = 3, []
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


MODELS: dict[str, tuple[list[tuple[Cell, int, int]], list[tuple[int, Activation]]]] = {
    "rnn_tanh": ([("rnn_tanh", 7, 0)], [(1, "none")]),
    "rnn_relu": ([("rnn_relu", 33, 0)], [(5, "relu")]),
    "lstm": ([("lstm", 20, 0)], [(4, "none")]),
    "lstm, two layers": ([("lstm", 16, 0), ("lstm", 9, 0)], [(17, "tanh")]),
    "lstm with projection": ([("lstm", 33, 5), ("lstm", 20, 17)], [(3, "sigmoid")]),
    "gru": ([("gru", 20, 0)], [(16, "relu"), (3, "none")]),
    "gru, three layers": ([("gru", 5, 0), ("gru", 17, 0), ("gru", 1, 0)], []),
    "mixed, softmax": ([("gru", 12, 0), ("lstm", 18, 0)], [(19, "softmax")]),
}


@pytest.mark.parametrize("level", ["-O2", "-O3"])
@pytest.mark.parametrize("numeric", ["F", "U"])
@pytest.mark.parametrize("name", MODELS)
def test_c_and_numba_give_the_same_bits(
    name: str, numeric: str, level: str, library: Callable[[str, str], ctypes.CDLL]
) -> None:
    rng = np.random.default_rng(len(name))
    model = _model(rng, *MODELS[name])
    xs = (rng.standard_normal((300, 3)) * 2).astype(np.float32)
    ours = Stepper(model, numeric="F" if numeric == "F" else "U").run(xs)
    c = CStepper(model, library(numeric, level))
    theirs = np.array([c.step(x) for x in xs])
    assert np.ptp(ours) > 0.01
    assert ours.view(np.uint32).tolist() == theirs.view(np.uint32).tolist()
