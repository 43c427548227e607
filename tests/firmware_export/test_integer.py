"""w8a16 in C and in Python: the same integers and the same words of output, step after step."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edge_rnn.core.integer_kernel import IntegerPacked
from edge_rnn.core.integer_step import IntegerStepper
from edge_rnn.core.integers import Quantized
from edge_rnn.core.quantize import quantize
from firmware_export.c_text import select, template
from firmware_export.integer_source import Packing, integer_network, network_fields
from tests.core import zoo
from tests.support import need

STRICT = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror", "-ffp-contract=off"]
BUILDS = {
    "gcc -Os": ("gcc", ["-Os"]), "gcc -O2": ("gcc", ["-O2"]), "gcc -O3": ("gcc", ["-O3", "-march=native"]),
    "clang -O2": ("clang", ["-O2"]), "clang -O3": ("clang", ["-O3"]),
}  # fmt: skip
MODELS = {
    "rnn_tanh": {"cell": "rnn_tanh", "hidden": 9},
    "rnn_tanh, two layers": {"cell": "rnn_tanh", "hidden": 16, "layers": 2},
    "rnn_relu": {"cell": "rnn_relu", "hidden": 16},
    "rnn_relu, two layers": {"cell": "rnn_relu", "hidden": 9, "layers": 2},
    "lstm": {"cell": "lstm", "hidden": 32},
    "lstm, two layers": {"cell": "lstm", "hidden": 16, "layers": 2},
    "lstm, projection": {"cell": "lstm", "hidden": 17, "proj": 5, "layers": 2},
    "gru": {"cell": "gru", "hidden": 32, "rest": True},
    "gru, two layers": {"cell": "gru", "hidden": 15, "layers": 2, "bias": False},
    "gru, three layers, tanh": {"cell": "gru", "hidden": 6, "layers": 3, "head": [(3, "tanh")]},
    "lstm, sigmoid": {"cell": "lstm", "hidden": 6, "head": [(3, "sigmoid")]},
    "rnn_relu, relu": {"cell": "rnn_relu", "hidden": 6, "head": [(3, "relu")]},
    "no head": {"cell": "gru", "hidden": 6, "head": []},
}


class _All(dict[str, bool]):
    """Features of the float template: off but for those set."""

    def __missing__(self, key: str) -> bool:
        return False


def _program(quantized: Quantized, packing: Packing = "plain") -> str:
    text = integer_network(quantized, packing)
    state = "".join(f"    {kind} {name}[{size}];\n" for kind, name, size in network_fields(quantized))
    a = text.activations
    features = _All(
        TANH=bool(a & {"tanh", "sigmoid"}), GATE="sigmoid" in a, TANH_ALL="tanh" in a,
        SIGMOID_ALL="sigmoid" in a,
    )  # fmt: skip
    floats = select(template("edge_rnn_step.c"), features) if a else ""
    inputs, outputs = quantized.model.input_size, quantized.model.output_size
    run = f"""
void ern_run(ern_state *s, const float *xs, float *ys, int32_t steps);
void ern_run(ern_state *s, const float *xs, float *ys, int32_t steps)
{{
    int32_t t;

    for (t = 0; t < steps; t++) {{
        ern_network(s, &xs[t * {inputs}], &ys[t * {outputs}]);
    }}
}}
"""
    return f"#include <stdint.h>\n\ntypedef struct {{\n{state}}} ern_state;\n\n{floats}\n{text.code}{run}"


def _state(quantized: Quantized, words: np.ndarray) -> np.ndarray:
    packed = IntegerPacked(quantized)
    dtype = np.dtype(
        [
            (name, {"int16_t": "<i2", "int32_t": "<i4"}[kind], size)
            for kind, name, size in network_fields(quantized)
        ]
    )
    record = np.zeros(1, dtype)
    for i, place in enumerate(packed.layout.layers):
        record[f"h{i}"][0] = words[place.h_offset :][: place.h_size]
        if place.c_size:
            record[f"c{i}"][0] = words[place.c_offset :][: place.c_size]
    return record


@pytest.mark.parametrize("name", MODELS)
def test_c_and_python_give_the_same_words_over_10000_steps(name: str, tmp_path: Path) -> None:
    model = zoo.model(**MODELS[name], seed=4)
    rng = np.random.default_rng(8)
    quantized = quantize(model, rng.standard_normal((400, model.input_size)))
    xs = rng.standard_normal((10_000, model.input_size)).astype(np.float32)
    xs[5000:5100] *= 100  # beyond the calibrated range: saturated
    xs[5100:5200] *= np.float32(1e30)
    stepper = IntegerStepper(quantized)
    first = _state(quantized, stepper.state)
    expected = stepper.run(xs)
    assert np.ptp(expected) > 0.01
    source = tmp_path / "model.c"
    source.write_text(_program(quantized))
    for title, (compiler, flags) in BUILDS.items():
        target = tmp_path / f"{title.replace(' ', '')}.so"
        command = [
            need.program(compiler),
            *STRICT,
            *flags,
            "-shared",
            "-fPIC",
            "-o",
            str(target),
            str(source),
        ]
        subprocess.run(command, check=True)
        state, ys = first.copy(), np.zeros_like(expected)
        library = ctypes.CDLL(str(target))
        library.ern_run(*(ctypes.c_void_p(a.ctypes.data) for a in (state, xs, ys)), len(xs))
        assert np.count_nonzero(ys.view(np.uint32) != expected.view(np.uint32)) == 0, title
        assert state.tobytes() == _state(quantized, stepper.state).tobytes(), title


@pytest.mark.parametrize("name", MODELS)
def test_no_undefined_behaviour(name: str, tmp_path: Path) -> None:
    """A program of its own under the sanitizers, which end it at the first fault."""
    model = zoo.model(**MODELS[name], seed=5)
    rng = np.random.default_rng(9)
    quantized = quantize(model, rng.standard_normal((400, model.input_size)))
    xs = rng.standard_normal((10_000, model.input_size)).astype(np.float32)
    xs[5000:5200] *= np.float32(1e30)
    stepper = IntegerStepper(quantized)
    first, expected = _state(quantized, stepper.state), stepper.run(xs)
    (tmp_path / "in.bin").write_bytes(first.tobytes() + xs.tobytes())
    main = f"""
#include <stdio.h>
static ern_state s;
static float xs[{xs.size}];
static float ys[{expected.size}];
int main(void)
{{
    FILE *in = fopen("in.bin", "rb");
    FILE *out = fopen("out.bin", "wb");
    if (fread(&s, sizeof s, 1, in) != 1u || fread(xs, sizeof xs, 1, in) != 1u) {{
        return 2;
    }}
    ern_run(&s, xs, ys, {len(xs)});
    return (fwrite(ys, sizeof ys, 1, out) == 1u && fclose(out) == 0) ? 0 : 3;
}}
"""
    (tmp_path / "model.c").write_text(_program(quantized) + main)
    flags = ["-O1", "-fsanitize=undefined,address", "-fno-sanitize-recover=all", "-o", "model", "model.c"]
    subprocess.run([need.program("gcc"), *STRICT, *flags], check=True, cwd=tmp_path)
    subprocess.run([str(tmp_path / "model")], check=True, cwd=tmp_path)
    assert (tmp_path / "out.bin").read_bytes() == expected.tobytes()
