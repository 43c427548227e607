"""Snapshots: what is damaged or another model's is refused, with one error that names it."""

from __future__ import annotations

import hashlib
import struct
import zlib

import numpy as np
import pytest

from edge_rnn import Model, Stepper
from edge_rnn.core.digest import weights_digest
from edge_rnn.core.layout import StateLayout
from edge_rnn.errors import SnapshotError
from tests.core.zoo import bits, model, readings

HEADER = struct.calcsize("<8sHBBIQ32s32s")


def sealed(body: bytes) -> bytes:
    return body + struct.pack("<I", zlib.crc32(body))


def changed(data: bytes, offset: int, values: bytes) -> bytes:
    """`data` with other bytes at `offset` and a checksum that fits."""
    body = data[:-4]
    return sealed(body[:offset] + values + body[offset + len(values) :])


@pytest.fixture
def stepper():
    stepper = Stepper(model("lstm", 3, 7, seed=1))
    stepper.run(readings(5, 3))
    return stepper


def test_a_snapshot_of_the_other_class_and_width_loads(stepper) -> None:
    for numeric in ("F", "U"):
        saved = Stepper(stepper.model, numeric, lanes=4)
        saved.run(readings(5, 3))
        other = Stepper(stepper.model, "U" if numeric == "F" else "F", lanes=8)
        other.restore(saved.snapshot())
        assert bits(other.get_state().h) == bits(saved.get_state().h)
        assert other.steps == 5


def test_a_snapshot_outlives_name_and_origin_of_its_model(stepper) -> None:
    renamed = Model(stepper.model.layers, stepper.model.head, name="other", provenance={"by": "hand"})
    other = Stepper(renamed)
    other.restore(stepper.snapshot())
    assert other.snapshot() == stepper.snapshot()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s: b"", "expected a stepper's snapshot, got 0 other bytes"),
        (lambda s: b"x" + s[1:], "expected a stepper's snapshot"),
        (lambda s: s[:50], "expected a stepper's snapshot, got 50 other bytes"),
        (lambda s: s[:-1], "checksum does not match"),
        (lambda s: s[:200] + bytes([s[200] ^ 1]) + s[201:], "checksum does not match"),
        (lambda s: changed(s, 8, b"\x02\x00"), "expected version 1, got 2"),
        (lambda s: changed(s, 10, b"X"), "expected a row of 48 numbers"),
        (lambda s: changed(s, 12, b"\x07\0\0\0"), "expected a row of 48 numbers"),
        (lambda s: sealed(s[:-4] + b"\0\0\0\0"), "expected a row of 48 numbers"),
        (lambda s: changed(s, HEADER + 4 * 7, b"\1"), "expected zeros between the fields"),
        (lambda s: changed(s, HEADER, struct.pack("<f", float("nan"))), "expected finite numbers"),
        (lambda s: Stepper(model("gru", 3, 7, seed=1)).snapshot(), "model of another shape"),
        (
            lambda s: Stepper(model("lstm", 3, 7, seed=2)).snapshot(),
            "another training of a model of this shape",
        ),
        (
            lambda s: Stepper(model("lstm", 4, 7, seed=1)).snapshot(),
            "another training of a model of this shape",
        ),
    ],
)
def test_what_is_no_snapshot_of_this_model_is_refused(stepper, make, message) -> None:
    before = stepper.snapshot()
    with pytest.raises(SnapshotError, match=message):
        stepper.restore(make(before))
    assert stepper.snapshot() == before


def test_no_mutant_gets_through_unseen(stepper) -> None:
    """Sealed mutants either load as a state or give the one typed error; nothing else happens."""
    good = stepper.snapshot()
    rng = np.random.default_rng(5)
    refused = 0
    for _ in range(20_000):
        body = bytearray(good[:-4])
        for _ in range(rng.integers(1, 4)):
            body[rng.integers(len(body))] = rng.integers(256)
        cut = int(rng.integers(len(body))) if rng.random() < 0.2 else len(body)
        try:
            stepper.restore(sealed(bytes(body[:cut])))
        except SnapshotError:
            refused += 1
    assert 5_000 < refused < 20_000
    stepper.restore(good)
    assert stepper.snapshot() == good


def test_the_weights_digest_sees_every_part_and_nothing_else() -> None:
    def variants():
        base = {"cell": "lstm", "inputs": 3, "hidden": 7, "layers": 2, "outputs": 2}
        for change in (
            {}, {"seed": 1}, {"cell": "gru"}, {"layers": 1}, {"bias": False}, {"proj": 2}, {"outputs": 3},
            {"head": [(2, "relu")]}, {"head": []},
        ):  # fmt: skip
            yield model(**{**base, **change})
        yield model(cell="rnn_tanh", layers=1)
        yield model(cell="rnn_relu", layers=1)

    assert len({weights_digest(m) for m in variants()}) == 11
    named = model()
    assert weights_digest(Model(named.layers, named.head, name="other")) == weights_digest(named)
    # Fixed for ever: snapshots and model files in the field carry it.
    assert weights_digest(fixed_model()) == FIXED_WEIGHTS
    assert StateLayout(fixed_model()).digest == FIXED_LAYOUT
    assert hashlib.sha256(b"core-row-1\nlstm 0 2 16 3\ny 32 2 48").hexdigest() == FIXED_LAYOUT


def fixed_model() -> Model:
    base = model("lstm", 2, 3, proj=2, head=[(2, "softmax")])
    layer = base.layers[0]
    filled = {
        name: np.arange(getattr(layer, name).size, dtype=np.float32).reshape(getattr(layer, name).shape) / 8
        for name in ("w_ih", "w_hh", "b_ih", "b_hh", "w_hr")
    }
    head = base.head[0]
    return Model(
        (type(layer)("lstm", **filled),),
        (type(head)(np.eye(2, dtype=np.float32), np.ones(2, np.float32), "softmax"),),
    )


FIXED_WEIGHTS = "320865c8937adde0b55852a6b3c01abc1078902dcd26911e524f9ad144e8f766"
FIXED_LAYOUT = "ef6000c3365163499b70229e8b119bf9823e414696e5e0383998005c5216dae3"


def test_a_network_that_has_overflowed_is_called_that() -> None:
    network = model("rnn_relu", 3, 7, scale=1e6)
    stepper = Stepper(network)
    stepper.run(np.ones((20, 3)))
    assert not np.isfinite(stepper.hidden()).all()
    with pytest.raises(SnapshotError, match="expected finite numbers"):
        Stepper(network).restore(stepper.snapshot())


def test_a_snapshot_in_any_kind_of_bytes_is_read(stepper) -> None:
    saved = stepper.snapshot()
    for data in (bytearray(saved), memoryview(saved)):
        other = Stepper(stepper.model)
        other.restore(data)
        assert other.snapshot() == saved
