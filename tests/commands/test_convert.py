"""`edge-rnn convert`: weights in, a model file out; what was taken for granted is said."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import edge_rnn
from edge_rnn.cli import main
from edge_rnn.core.model import Input
from tests.support import models
from tests.support import torch_files as tf


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "press.pt"
    path.write_bytes(tf.torch_file(tf.small_arrays()))
    return path


def test_the_common_case_needs_no_option(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "press.pt", "-o", "pump.safetensors"]) == 0
    out, err = capsys.readouterr()
    assert "gru 2 -> 2, linear 2 -> 1" in out
    assert "written: pump.safetensors" in out
    assert "notice: the linear layer was taken without an activation" in err
    model = edge_rnn.load("pump.safetensors")
    assert model.name == "pump"
    assert model.self_test is not None
    assert len(model.self_test.x) >= 16
    assert np.array_equal(model.layers[0].w_ih, tf.small_arrays()["gru.weight_ih_l0"])


def test_options_reach_the_file_and_notices_go(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["convert", "press.pt", "-o", "m.safetensors", "--inputs", "vib:mm/s,temp", "--head", "fc:tanh"]
    assert main([*words, "--name", "press 7", "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    facts = json.loads(out)
    assert facts["name"] == "press 7"
    assert facts["notices"] == []
    model = edge_rnn.load("m.safetensors")
    assert model.inputs == (Input("vib", "mm/s"), Input("temp"))
    assert model.head[0].activation == "tanh"


def test_what_was_ignored_is_in_the_provenance(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrays = tf.small_arrays() | {"decoder.weight": np.ones((2, 2), np.float32)}
    Path("more.pt").write_bytes(tf.torch_file(arrays))
    assert main(["convert", "more.pt", "-o", "m.safetensors", "--ignore", "decoder"]) == 0
    assert edge_rnn.load("m.safetensors").provenance["ignored"] == ["decoder"]
    assert main(["convert", "press.pt", "-o", "n.safetensors"]) == 0
    assert "ignored" not in edge_rnn.load("n.safetensors").provenance
    capsys.readouterr()
    assert main(["inspect", "m.safetensors"]) == 0
    assert "ignored: decoder" in capsys.readouterr().out


def test_the_same_weights_give_the_same_bytes(weights: Path) -> None:
    assert main(["convert", "press.pt", "-o", "a.safetensors", "--name", "x"]) == 0
    assert main(["convert", "press.pt", "-o", "b.safetensors", "--name", "x"]) == 0
    assert Path("a.safetensors").read_bytes() == Path("b.safetensors").read_bytes()


def test_the_old_format_is_read_on_request_and_said(
    weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights.write_bytes(tf.legacy_arrays(tf.small_arrays()))
    assert main(["convert", "press.pt", "-o", "m"]) == 78
    assert "--allow-legacy" in capsys.readouterr().err
    assert not Path("m").exists()
    assert main(["convert", "press.pt", "-o", "m", "--allow-legacy"]) == 0
    assert "notice: press.pt: old torch format without a checksum" in capsys.readouterr().err


def test_a_one_gate_cell_is_said_to_be_taken_as_tanh(
    weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = {k: v[:2] if k.startswith("gru") else v for k, v in tf.small_arrays().items()}
    weights.write_bytes(tf.torch_file(arrays))
    assert main(["convert", "press.pt", "-o", "m"]) == 0
    assert "taken as rnn_tanh; if it uses relu: --cell rnn_relu" in capsys.readouterr().err
    assert main(["convert", "press.pt", "-o", "m", "--cell", "rnn_relu"]) == 0
    assert "rnn_tanh" not in capsys.readouterr().err
    assert edge_rnn.load("m").layers[0].cell == "rnn_relu"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["missing.pt", "-o", "m"], "missing.pt: cannot be read: No such file"),
        (["press.pt", "-o", "press.pt"], "is SOURCE itself"),
        (["press.pt", "-o", "no/folder/m"], "cannot be written"),
        (["press.pt", "-o", "m", "--inputs", "a,b,c"], "expected 2 \\(the first layer's\\), got 3"),
        (["press.pt", "-o", "m", "--key", "model"], "no dict called 'model'"),
        (["press.pt", "-o", "m", "--ignore", "nothing"], "called 'nothing'"),
        (["press.pt", "-o", "m", "--cell", "lstm"], "the shapes say gru"),
        (["press.pt", "-o", "m", "--head", "fc9:none"], "no such module 'fc9'"),
        (["press.pt", "-o", "m", "--head", "fc:swish"], "expected NAME or NAME:ACTIVATION .* got 'fc:swish'"),
        (["press.pt", "-o", "m", "--max-bytes", "10"], "more than the limit of 10"),
        (["press.pt", "-o", "m", "--name", "/root/x"], "never holds a path"),
        (["model.st", "-o", "m"], "model.st: a model file already, there is nothing to convert"),
    ],
)
def test_mistakes_end_with_one_line_and_78(
    words: list[str], expected: str, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edge_rnn.save(models.forecaster(), "model.st")
    assert main(["convert", *words]) == 78
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("edge-rnn convert: ")
    assert re.search(expected, err), err
    assert not Path("m").exists()


def test_a_head_without_an_activation_has_none(weights: Path) -> None:
    assert main(["convert", "press.pt", "-o", "m", "--head", "fc"]) == 0
    assert [linear.activation for linear in edge_rnn.load("m").head] == ["none"]


def test_weights_whose_outputs_explode_are_refused(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrays = {k: abs(v[:2]) * 1e6 if k.startswith("gru") else v for k, v in tf.small_arrays().items()}
    weights.write_bytes(tf.torch_file(arrays))
    assert main(["convert", "press.pt", "-o", "m", "--cell", "rnn_relu"]) == 78
    assert "overflow within 16 steps" in capsys.readouterr().err
