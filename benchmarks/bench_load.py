"""The time to read models: our file (with its self-test and without), plain safetensors, a state dict.

pytest benchmarks/bench_load.py --benchmark-enable --benchmark-only
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from benchmarks.conftest import forecaster
from edge_rnn import Model
from edge_rnn.bench.inputs import BUNDLED
from edge_rnn.core.pack import pack
from edge_rnn.files.load import load
from edge_rnn.files.model_file import save
from edge_rnn.files.state_dict import load_state_dict


def state_dict(model: Model) -> dict[str, np.ndarray]:
    """The model's tensors under PyTorch's names."""
    tensors = {}
    for i, layer in enumerate(model.layers):
        parts = {
            "weight_ih": layer.w_ih,
            "weight_hh": layer.w_hh,
            "bias_ih": layer.b_ih,
            "bias_hh": layer.b_hh,
        }
        for name, tensor in parts.items():
            tensors[f"rnn.{name}_l{i}"] = tensor
    return tensors | {"head.weight": model.head[0].weight, "head.bias": model.head[0].bias}


@pytest.fixture(params=[("gru", 4, 32, 1), ("lstm", 16, 128, 2)], ids=str)
def model(request) -> Model:
    return forecaster(*request.param)


@pytest.mark.parametrize("self_test", [True, False], ids=["self-test", "no self-test"])
def test_bundled_model(benchmark, self_test) -> None:
    assert benchmark(load, BUNDLED, self_test=self_test).detector is not None


def test_model_file(benchmark, model, tmp_path: Path) -> None:
    save(model, tmp_path / "model.safetensors")
    assert benchmark(load, tmp_path / "model.safetensors").macs == model.macs


def test_plain_safetensors(benchmark, model, tmp_path: Path) -> None:
    save_file(state_dict(model), tmp_path / "plain.safetensors")
    assert benchmark(load, tmp_path / "plain.safetensors", cell=model.layers[0].cell).macs == model.macs


def test_state_dict(benchmark, model) -> None:
    tensors = state_dict(model)
    assert benchmark(load_state_dict, tensors, cell=model.layers[0].cell).macs == model.macs


def test_pack(benchmark, model) -> None:
    assert benchmark(pack, model, 8).lanes == 8
