"""One stream's core state as bytes, and back.

Little-endian: magic "EDGERNNS", version u16, numeric class u8 ("F" or "U"), 0 u8, size of the row in
numbers u32, steps u64, weights digest 32 bytes, layout digest 32 bytes, the row as float32, crc32 of
all before it u32. The numeric class is a note: a state may continue in the other class. The row's
bytes do not depend on the machine's vector width, so a snapshot moves between machines.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

from edge_rnn.core.layout import StateLayout
from edge_rnn.core.model import Float32
from edge_rnn.errors import SnapshotError

_MAGIC = b"EDGERNNS"
_VERSION = 1
_HEADER = struct.Struct("<8sHBBIQ32s32s")
_CRC = struct.Struct("<I")


def write_snapshot(row: Float32, steps: int, fused: bool, weights: str, layout: StateLayout) -> bytes:
    """The bytes of one core row; `weights` is the weights' hex digest."""
    header = _HEADER.pack(
        _MAGIC, _VERSION, ord("F" if fused else "U"), 0, layout.core_size, steps,
        bytes.fromhex(weights), bytes.fromhex(layout.digest),
    )  # fmt: skip
    body = header + row.astype("<f4").tobytes()
    return body + _CRC.pack(zlib.crc32(body))


def read_snapshot(data: bytes, weights: str, layout: StateLayout) -> tuple[Float32, int]:
    """Row (core_size,) and steps of a snapshot.

    Raises:
        SnapshotError: it is damaged, of another version, or of another model.
    """
    if len(data) < _HEADER.size + _CRC.size or data[: len(_MAGIC)] != _MAGIC:
        raise SnapshotError(f"snapshot: expected a stepper's snapshot, got {len(data)} other bytes")
    _, version, numeric, _, size, steps, of_weights, of_layout = _HEADER.unpack_from(data)
    if version != _VERSION:
        raise SnapshotError(f"snapshot: expected version {_VERSION}, got {version}; start from reset()")
    body, (crc,) = data[: -_CRC.size], _CRC.unpack(data[-_CRC.size :])
    if zlib.crc32(body) != crc:
        raise SnapshotError("snapshot: the checksum does not match, it is damaged; start from reset()")
    if of_layout.hex() != layout.digest:
        raise SnapshotError(
            f"snapshot: expected the state layout {layout.digest[:12]} (cells and sizes of this model), "
            f"got {of_layout.hex()[:12]}; it belongs to a model of another shape"
        )
    if of_weights.hex() != weights:
        raise SnapshotError(
            f"snapshot: expected the weights {weights[:12]}, got {of_weights.hex()[:12]}; it belongs to "
            "another training of a model of this shape, start from reset()"
        )
    if (
        numeric not in (ord("F"), ord("U"))
        or size != layout.core_size
        or len(body) != _HEADER.size + 4 * size
    ):
        raise SnapshotError(f"snapshot: expected a row of {layout.core_size} numbers, got {len(data)} bytes")
    row = np.frombuffer(body, "<f4", offset=_HEADER.size).astype(np.float32)
    # First: a network that has overflowed leaves NaN between the fields, too.
    if not np.isfinite(row).all():
        raise SnapshotError("snapshot: expected finite numbers, got others; start from reset()")
    if (row[layout.padding()].view(np.uint32) != 0).any():
        raise SnapshotError("snapshot: expected zeros between the fields, got others; it is damaged")
    return row, steps
