"""One stream's detector state as bytes, and back.

    offset  bytes
    0       4     "ERDS"
    4       2     version, 1
    6       1     numeric class that wrote it, "F" or "U": a note; the other class may go on with it
    7       1     0
    8       32    digest of the network's weights
    40      32    digest of the layout of the state
    72      32    digest of the detector's constants and the scaler
    104     4     size of the body
    108     n     body: core f4, detect f8, marks i8, little-endian, without gaps
    108+n   4     CRC-32 of all before it

A state is accepted only if all three digests are the model's, the checksum holds, every number is finite and
every counter within its range, so a restored row cannot lead the compiled code outside its memory.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_rnn.detect import fields as at
from edge_rnn.detect.alarm import CLEARING
from edge_rnn.detect.plan import Plan
from edge_rnn.errors import SnapshotError

MAGIC: Final = b"ERDS"
VERSION: Final = 1
_HEAD: Final = struct.Struct("<4sHcB32s32s32sI")
_REMEDY = "start this stream cold, or use the model that wrote it"


class OtherModelError(SnapshotError):
    """The state is sound, but of another network or detector."""


def dump(plan: Plan, row: np.void, fused: bool) -> bytes:
    """The bytes of one record of `plan.dtype`."""
    body = b"".join(row[name].tobytes() for name in ("core", "detect", "marks"))
    digests = (plan.weights_digest, plan.layout_digest, plan.detector_digest)
    head = _HEAD.pack(
        MAGIC, VERSION, b"F" if fused else b"U", 0, *(bytes.fromhex(d) for d in digests), len(body)
    )
    content = head + body
    return content + struct.pack("<I", zlib.crc32(content))


def load(plan: Plan, content: bytes) -> NDArray[np.void]:
    """The record (1,) of `plan.dtype` in `content`.

    Raises:
        SnapshotError: it is damaged, of another version, or (`OtherModelError`) of another network, layout or
            detector.
    """
    if len(content) < _HEAD.size + 4 or content[:4] != MAGIC:
        raise SnapshotError(
            f"snapshot: expected one of a detector, got {len(content)} other bytes; {_REMEDY}"
        )
    if zlib.crc32(content[:-4]) != int.from_bytes(content[-4:], "little"):
        raise SnapshotError(f"snapshot: the checksum does not fit, it is damaged; {_REMEDY}")
    _, version, numeric, zero, weights, layout, detector, size = _HEAD.unpack_from(content)
    if version != VERSION or numeric not in (b"F", b"U") or zero:
        raise SnapshotError(f"snapshot: expected version {VERSION}, got {version}; {_REMEDY}")
    for what, got, expected in (
        ("weights", weights, plan.weights_digest),
        ("state layout", layout, plan.layout_digest),
        ("detector section", detector, plan.detector_digest),
    ):
        if got.hex() != expected:
            raise OtherModelError(
                f"snapshot: expected the {what} {expected[:12]}, got {got.hex()[:12]}: it is another's; "
                f"{_REMEDY}"
            )
    sizes = [plan.dtype[name].itemsize for name in ("core", "detect", "marks")]
    if size != sum(sizes) or len(content) != _HEAD.size + size + 4:
        raise SnapshotError(f"snapshot: expected {sum(sizes)} bytes of state, got {size}; {_REMEDY}")
    row = np.zeros(1, plan.dtype)
    start = _HEAD.size
    for name, length in zip(("core", "detect", "marks"), sizes, strict=True):
        kind = plan.dtype[name].base
        row[name][0] = np.frombuffer(content, kind, length // kind.itemsize, start)
        start += length
    _check(plan, row)
    return row


def _check(plan: Plan, row: NDArray[np.void]) -> None:
    """Refuse numbers the detector could not have written."""
    core, detect, marks = row["core"][0], row["detect"][0], row["marks"][0]
    if not np.isfinite(core).all() or not np.isfinite(detect).all() or core[plan.layout.padding()].any():
        raise SnapshotError(f"snapshot: it holds numbers that are not finite; {_REMEDY}")
    window = plan.spec.threshold.window if plan.spec.threshold.kind == "dspot" else 0
    counter = 2**62
    limits = {
        at.STEPS: counter, at.WARM: max(plan.spec.warmup, plan.spec.alarm.rebase), at.SPOKEN: 1,
        at.PHASE: CLEARING,
        at.HISTORY: (1 << plan.spec.alarm.window) - 1, at.CLEARING_STEPS: counter,
        at.REFRACTORY: plan.spec.alarm.refractory, at.FROZEN: counter, at.RING_AT: max(window - 1, 0),
        at.RING_FILL: window, at.COUNT: counter, at.EXCESSES: counter,
    }  # fmt: skip
    general = at.MARKS_HEAD + at.CHANNEL_MARKS * plan.channels
    if plan.general:
        severest = 1 + len(plan.spec.alarm.severity)
        limits |= {
            general + at.AGE: counter, general + at.HAS_BEFORE: 1, general + at.PEAK_AGE: counter,
            general + at.TOO_HIGH: 1, general + at.CLOSED: 1, general + at.SEVERITY: severest,
        }  # fmt: skip
        if plan.spec.alarm.recovery > 0:
            limits |= {
                general + at.OPENER: len(plan.spec.scorers) - 1, general + at.OPEN_STEPS: counter,
                general + at.REBASE_LEFT: plan.spec.alarm.rebase,
            }  # fmt: skip
        if plan.spec.alarm.relevel > 0:
            left = int(plan.record["marks_more_at"][0]) + int(plan.record["relevel_at"][0])
            limits[left] = plan.spec.alarm.relevel
        if any(plan.spec.condition.trend):
            first = int(plan.record["trend_at"][0]) + at.TREND_COUNT_AT * plan.channels
            counts = detect[first : first + plan.channels]
            if (counts < 0).any() or (counts != np.floor(counts)).any():
                raise SnapshotError(f"snapshot: a counter is out of its range; {_REMEDY}")
    heads_fit = all(0 <= marks[k] <= limit for k, limit in limits.items())
    channels = marks[at.MARKS_HEAD : general].reshape(at.CHANNEL_MARKS, plan.channels).copy()
    channels[at.HEARD_AT] = 0
    counts_fit = (channels >= 0).all() and (channels <= counter).all() and channels[at.LEVELLED_AT].max() <= 1
    if not heads_fit or not counts_fit:
        raise SnapshotError(f"snapshot: a counter is out of its range; {_REMEDY}")
