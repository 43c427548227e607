"""When many streams are stepped in tiles (tiles.py), and the memory that takes."""

from __future__ import annotations

import math
from bisect import bisect_left

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core import fields as at
from edge_rnn.core.layout import address, aligned, padded
from edge_rnn.core.model import Cell, Model
from edge_rnn.core.pack import pack

# The time of a full tile, in that of as many single steps; up to 16, 32, 64 and more units. Measured
# (benchmarks/SPEED.md) at 16 and 8 lanes; 4 lanes, which no target chooses by itself, take the column of 8.
_TILE: dict[int, dict[Cell, tuple[float, ...]]] = {
    16: {
        "lstm": (0.82, 0.92, 0.68, 0.52),
        "gru": (0.69, 0.88, 0.65, 0.55),
        "rnn_tanh": (0.58, 0.63, 0.66, 0.55),
        "rnn_relu": (0.58, 0.63, 0.66, 0.55),
    },
    8: {
        "lstm": (0.91, 0.91, 0.74, 0.70),
        "gru": (0.87, 0.91, 0.78, 0.74),
        "rnn_tanh": (0.70, 0.70, 0.68, 0.65),
        "rnn_relu": (0.70, 0.70, 0.68, 0.65),
    },
}


def streams(lanes: int) -> int:
    """Streams of a tile: as many vectors of them as leave room for four gates' sums in the registers."""
    return 4 * lanes if lanes == 16 else 2 * lanes


def fewest_ready(model: Model, lanes: int) -> int:
    """From how many ready streams on a tile takes less time than the same rows one by one.

    A tile costs the same however many of its places are taken. Of the layers the last one to gain counts.
    """
    shares = _TILE[16 if lanes == 16 else 8]
    return max(
        math.ceil(streams(lanes) * shares[y.cell][bisect_left((16, 32, 64), y.hidden_size)])
        for y in model.layers
    )


class Tiles:
    """Memory for the tiles of one batch: the model packed unit by unit, and the scratch of one tile.

    Args:
        model: the network.
        lanes: the vectors' width.
        rows: rows of the state table.
        fewest: from how many ready rows on a tile is used.
    """

    def __init__(self, model: Model, lanes: int, rows: int, fewest: int) -> None:
        packed, size = pack(model, 1), streams(lanes)
        layers = (max(y.input_size, y.hidden_size, y.output_size) for y in model.layers)
        widest = max(model.output_size, *layers)
        area = padded(widest) * size
        scratch, spare = aligned(5, area), aligned(1, packed.layout.core_size)
        places, stamps = np.zeros(size, np.int64), np.zeros(rows, np.int64)
        # The head alone is a model without layers, whose readings are the top layer's h.
        top = packed.layout.layers[-1]
        linears = at.HEADER + at.LAYER * len(model.layers)
        head = np.concatenate([packed.plan[: at.HEADER], packed.plan[linears:]])
        head[at.LAYERS], head[at.INPUTS] = 0, top.h_size
        self._kept = (packed, scratch, spare, places, stamps, head)
        self._words = {
            at.FEWEST: fewest, at.STAMPS_AT: address(stamps), at.TILE_PLAN_AT: address(packed.plan),
            at.TILE_WEIGHTS_AT: address(packed.weights), at.TILE_HEAD_AT: address(head),
            at.TILE_TOP: top.h_offset, at.TILE_ROWS: address(places), at.TILE_SPARE: address(spare),
            at.TILE_SCRATCH: address(scratch), at.TILE_AREA: area,
        }  # fmt: skip

    def write(self, words: NDArray[np.int64]) -> None:
        """Put the addresses into the arguments of `many`; this object must outlive their use."""
        for word, value in self._words.items():
            words[word] = value
