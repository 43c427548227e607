"""Safetensors: what the package writes is read exactly, limits hold, and what we write the package reads."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from edge_rnn.errors import ModelFileError
from edge_rnn.files.safetensors_file import (
    ITEM_SIZES,
    bfloat16_to_float32,
    check,
    looks_like_safetensors,
    read_tensors,
    write_tensors,
)
from tests.support import need
from tests.support.hostile_files import safetensors as build


@given(
    shapes=st.dictionaries(st.text(max_size=8), st.lists(st.integers(0, 4), max_size=4), max_size=5),
    dtype=st.sampled_from(["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "?"]),
    metadata=st.dictionaries(st.text(max_size=4), st.text(max_size=9), max_size=3),
    seed=st.integers(0, 99),
)
def test_what_the_package_writes_is_read_exactly(shapes, dtype, metadata, seed) -> None:
    rng = np.random.default_rng(seed)
    shapes.pop("__metadata__", None)
    tensors = {name: rng.integers(0, 2, shape).astype(dtype) for name, shape in shapes.items()}
    data = safetensors.numpy.save(tensors, metadata=metadata or None)
    found, facts = read_tensors(data, "m")
    assert facts == metadata
    assert set(found) == set(tensors)
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert found[name].tobytes() == tensor.tobytes()


def test_every_allowed_type_is_read_and_bfloat16_widened_exactly() -> None:
    for dtype, size in ITEM_SIZES.items():
        data = build({"a": {"dtype": dtype, "shape": [2], "data_offsets": [0, 2 * size]}}, bytes(2 * size))
        tensors, _ = read_tensors(data, "m")
        assert tensors["a"].tolist() == [0, 0], dtype
    bits = np.array([0x0000, 0x8000, 0x3F80, 0xC040, 0x7F7F, 0x0001], np.uint16)
    assert bfloat16_to_float32(bits).tolist() == [
        0.0,
        -0.0,
        1.0,
        -3.0,
        3.3895313892515355e38,
        9.183549615799121e-41,
    ]


def test_bfloat16_as_torch_has_it() -> None:
    torch = need.torch()
    values = torch.randn(1000).bfloat16()
    bits = values.view(torch.int16).numpy().view(np.uint16)
    assert bfloat16_to_float32(bits).tobytes() == values.float().numpy().tobytes()


def test_what_we_write_the_package_reads_and_equal_arguments_give_equal_bytes() -> None:
    tensors = {"b": np.arange(6, dtype=np.float32).reshape(2, 3).T, "a": np.ones(3, np.float32)}
    data = write_tensors(tensors, {"k": "v"})
    assert data == write_tensors(dict(reversed(tensors.items())), {"k": "v"})
    theirs = safetensors.numpy.load(data)
    assert all(np.array_equal(theirs[name], tensor) for name, tensor in tensors.items())


def test_the_limits_themselves_are_allowed() -> None:
    many = {f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(4096)}
    assert len(check(build(many), "m").tensors) == 4096
    padded = json.dumps({"__metadata__": {"a": ""}})
    padded = padded + " " * (1_000_000 - len(padded))
    assert check(build(padded.encode()), "m").metadata == {"a": ""}
    with pytest.raises(ModelFileError, match="at most 1000000"):
        check(build(padded.encode() + b" "), "m")


def test_sniffing_needs_a_length_that_fits_and_a_brace() -> None:
    data = build({}, b"")
    assert looks_like_safetensors(data)
    assert not looks_like_safetensors(data[:9])
    assert not looks_like_safetensors(b"{}" + bytes(20))
    assert not looks_like_safetensors(build({}, length=99))
