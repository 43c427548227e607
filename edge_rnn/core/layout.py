"""Where everything is in one stream's core state row.

A row is float32. Per layer, bottom first: `h` (output_size numbers), then for an lstm `c`
(hidden_size), then after the last layer `y` (the last outputs). Each field is padded with +0 to a
multiple of 16 numbers (64 bytes), whatever the machine's vector width is: so a row has the same
bytes on a 16-lane server, an 8-lane board and in C, and a snapshot is one copy of it. The kernels
keep the padding at +0.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.model import Float32, Model

PAD = 16
_ALIGNMENT = 64


def padded(size: int) -> int:
    """`size` rounded up to a multiple of 16."""
    return -(-size // PAD) * PAD


def aligned(rows: int, columns: int) -> Float32:
    """A float32 array (rows, columns) of +0 that starts at a multiple of 64 bytes."""
    buffer = np.zeros(rows * columns * 4 + _ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % _ALIGNMENT
    return buffer[start : start + rows * columns * 4].view(np.float32).reshape(rows, columns)


def address(array: NDArray[np.generic]) -> int:
    """Where the array's numbers are; the caller keeps the array alive (half the time of `.ctypes.data`)."""
    where: int = array.__array_interface__["data"][0]
    return where


@dataclass(frozen=True, slots=True)
class LayerFields:
    """Offsets and sizes (numbers, not bytes) of one layer's state; c is (0, 0) where there is none."""

    h_offset: int
    h_size: int
    c_offset: int
    c_size: int


class StateLayout:
    """The fields of one core row of `model`; the same for all machines.

    Attributes:
        layers: one `LayerFields` per layer, bottom first.
        y_offset, y_size: the last outputs.
        core_size: numbers in a row, a multiple of 16.
        digest: hex; two models with the same digest have rows of the same meaning.
    """

    __slots__ = ("core_size", "digest", "layers", "y_offset", "y_size")

    def __init__(self, model: Model) -> None:
        offset = 0
        layers = []
        for layer in model.layers:
            h_offset, offset = offset, offset + padded(layer.output_size)
            c_offset = c_size = 0
            if layer.cell == "lstm":
                c_size = layer.hidden_size
                c_offset, offset = offset, offset + padded(c_size)
            layers.append(LayerFields(h_offset, layer.output_size, c_offset, c_size))
        self.layers: tuple[LayerFields, ...] = tuple(layers)
        self.y_offset = offset
        self.y_size = model.output_size
        self.core_size = offset + padded(self.y_size)
        # Written out, never a `repr`: files carry this digest, so no renaming may change it.
        facts = ["core-row-1"]
        for layer, f in zip(model.layers, layers, strict=True):
            facts.append(f"{layer.cell} {f.h_offset} {f.h_size} {f.c_offset} {f.c_size}")
        facts.append(f"y {self.y_offset} {self.y_size} {self.core_size}")
        self.digest = hashlib.sha256("\n".join(facts).encode()).hexdigest()

    def h(self, row: Float32, layer: int) -> Float32:
        """View of layer's h in `row` (..., core_size) -> (..., h_size)."""
        f = self.layers[layer]
        return row[..., f.h_offset : f.h_offset + f.h_size]

    def c(self, row: Float32, layer: int) -> Float32:
        """View of an lstm layer's c in `row` (..., core_size) -> (..., c_size)."""
        f = self.layers[layer]
        return row[..., f.c_offset : f.c_offset + f.c_size]

    def y(self, row: Float32) -> Float32:
        """View of the last outputs in `row` (..., core_size) -> (..., y_size)."""
        return row[..., self.y_offset : self.y_offset + self.y_size]

    def rest(self, model: Model) -> Float32:
        """A row (core_size,) at rest: the model's rest_state, or zeros; y is 0."""
        row = np.zeros(self.core_size, np.float32)
        if model.rest_state is not None:
            for index, (h, c) in enumerate(zip(model.rest_state.h, model.rest_state.c, strict=True)):
                self.h(row, index)[:] = h
                if c is not None:
                    self.c(row, index)[:] = c
        return row

    def padding(self) -> NDArray[np.bool_]:
        """Mask (core_size,) of the numbers that are padding and always +0."""
        mask = np.ones(self.core_size, np.bool_)
        for f in self.layers:
            mask[f.h_offset : f.h_offset + f.h_size] = False
            mask[f.c_offset : f.c_offset + f.c_size] = False
        mask[self.y_offset : self.y_offset + self.y_size] = False
        return mask
