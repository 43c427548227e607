"""The formats of w8a16: int8 weights, int16 activations, an integer recurrence.

    input      x_q = round_half_even(float32(x * input_scale)), int16, saturated at +-32767
    v          bias + (((W_x x_q) m_x) >> 16) + (((W_h h_q) m_h) >> 16), m_x, m_h int16, sums exact;
               Q`bits` (2^bits is 1) where an activation follows; for rnn_relu in steps of its h
    tanh       table of 257 int16, a line drawn between two entries, Q`bits` to Q15 (32768 is 1); for v < 0
               all bits of v and of the result are inverted, so it rounds down everywhere
    sigmoid    2^14 + ((tanh(v / 2) + 1) >> 1), Q15, 0..32768
    rnn_tanh   h = tanh(v), Q15
    rnn_relu   h = v limited to 0..32767
    lstm       c = ((f c + 2^14) >> 15) + ((i g + 2^7) >> 8), int32 in Q22, limited to -2^30..2^30-1 (+-256)
               h = (o tanh(c) + 2^14) >> 15, Q15; a projection: (W_r h) m_r shifted, limited
    gru        n = tanh(v_x + ((r v_h + 2^14) >> 15)), v_x and v_h the parts of v, each with a bias; h =
               ((32768 - z) 512 n + z h + 2^14) >> 15, int32 in Q24; products read h as (h + 2^8) >> 9,
               limited to -32768..32767
    Linear     float32(W h_q) * scale + bias, each operation rounded; then the activation, class U

h of a layer is worth `h_scale` per step: 2^-15 where |h| <= 1, else 3 times the largest
value seen / 32767.

**No overflow**, checked by `quantize.py` for every row, by name: the sums W_x x_q and W_h h_q below 2^31 (at
most 127 * 32768 * K), v below 2^30. All else is bounded by the formats: i, f, o, r, z in 0..32768, tanh and
h_q in -32768..32767, so i g, o tanh, v_x + r v_h and c + i g stay below 2^31, and a sum times m, f c, r v_h,
(1 - z) n, z h below 2^46 in 64 bits.

`bits` is the finest of 8..18 in which all m fit int16 and no v can overflow. The scale of a row's int8
weights is chosen as a multiple of what m = 1 stands for, so m is exact.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.model import Activation, Cell, Float32, Model

LARGEST = 32767
UNIT = 1 << 15
TABLE_SIZE = 257
CELL_BITS, GRU_BITS = 22, 24

Int8 = NDArray[np.int8]
Int32 = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class IntegerLayer:
    """One recurrent layer; G gates, H units, I inputs, P outputs, rows as in PyTorch.

    w_x int8 (G*H, I), w_h int8 (G*H, P); m_x, m_h (G*H,), 0..32767, and bias (G*H,), all int32; for a gru the
    bias is (4*H,): r, z, b_in, b_hn; bits: the format of v; w_r int8 (P, H), m_r int32 (P,), shift_r: the
    projection's; h_scale: what one step of h is worth.
    """

    cell: Cell
    w_x: Int8
    w_h: Int8
    m_x: Int32
    m_h: Int32
    bias: Int32
    bits: int
    h_scale: float
    w_r: Int8 | None = None
    m_r: Int32 | None = None
    shift_r: int = 1

    @property
    def input_size(self) -> int:
        """I."""
        return int(self.w_x.shape[1])

    @property
    def output_size(self) -> int:
        """P, the size of h."""
        return int(self.w_h.shape[1])

    @property
    def hidden_size(self) -> int:
        """H."""
        return self.output_size if self.w_r is None else int(self.w_r.shape[1])


@dataclass(frozen=True, slots=True, eq=False)
class IntegerLinear:
    """weight int8 (O, P); scale, bias float32 (O,); the activation that follows in float32."""

    weight: Int8
    scale: Float32
    bias: Float32
    activation: Activation


@dataclass(frozen=True, slots=True, eq=False)
class Quantized:
    """A model in integers.

    model: the one it was made of; input_scale: float32 (I,), steps per unit of model space; layers; head:
    None where the output is the top layer's h.
    """

    model: Model
    input_scale: Float32
    layers: tuple[IntegerLayer, ...]
    head: IntegerLinear | None

    @property
    def digest(self) -> str:
        """Hex sha-256 of all constants: equal digests give equal outputs, on every machine."""
        digest = hashlib.sha256(b"w8a16-2\n" + self.input_scale.astype("<f4").tobytes())
        for layer in self.layers:
            digest.update(f"{layer.cell} {layer.bits} {layer.shift_r} {layer.h_scale.hex()}\n".encode())
            for tensor in (
                layer.w_x, layer.w_h, layer.m_x, layer.m_h, layer.bias, layer.w_r, layer.m_r
            ):  # fmt: skip
                digest.update(b"-" if tensor is None else repr(tensor.shape).encode() + _bytes(tensor))
        if self.head is not None:
            digest.update(self.head.activation.encode() + repr(self.head.weight.shape).encode())
            for part in (self.head.weight, self.head.scale, self.head.bias):
                digest.update(_bytes(part))
        return digest.hexdigest()


def _bytes(tensor: NDArray[np.generic]) -> bytes:
    return tensor.astype(tensor.dtype.newbyteorder("<")).tobytes()


def tanh_table() -> Int32:
    """tanh at i / 32, i = 0..256, in Q15, (257,).

    Between two entries a straight line is drawn, which lies below the curve by up to 1/8 of the second
    difference; half of that is added to the entries, so the error is +-4.8e-5 instead of 0..9.5e-5.
    """
    t = np.tanh(np.arange(TABLE_SIZE) / 32.0)
    lifted = t + 2 * t * (1 - t * t) / (16 * 32.0**2)
    table: Int32 = np.minimum(np.rint(lifted * UNIT), LARGEST).astype(np.int32)
    return table
