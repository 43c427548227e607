"""`edge-rnn inspect`: the card tells the truth, compiled code is checked, the gates are drawn."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edge_rnn
from edge_rnn.cli import main
from edge_rnn.commands.gate_plot import gate_history, model_space
from edge_rnn.commands.model_card import architecture, card, on_this_machine
from edge_rnn.core.digest import weights_digest
from edge_rnn.core.jit import target
from edge_rnn.core.model import Input, Model, Scaler, SelfTest
from edge_rnn.core.stepper import Stepper
from edge_rnn.errors import ModelFileError
from edge_rnn.files.readings import Table
from tests.support import models, need

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    edge_rnn.save(models.forecaster(), "pump.safetensors")
    return tmp_path


def write_data(path: Path, names: list[str], rows: int = 40) -> None:
    lines = [",".join(["ts", *names])]
    lines += [
        ",".join([str(1_700_000_000 + i), *(f"{np.sin(i + j):.4f}" for j in range(len(names)))])
        for i in range(rows)
    ]
    path.write_text("\n".join(lines) + "\n")


def test_the_card_as_json_tells_what_the_model_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "pump.safetensors", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    model = models.forecaster()
    assert facts["file"] == "pump.safetensors"
    assert facts["file_bytes"] == (folder / "pump.safetensors").stat().st_size
    assert facts["architecture"] == "lstm 2 -> 2, gru 2 -> 3, linear 3 -> 4 relu, linear 4 -> 2"
    assert facts["inputs"] == [{"name": i.name, "unit": i.unit} for i in model.inputs]
    assert facts["size"]["parameters"] == model.parameters
    assert facts["size"]["macs_per_step"] == model.macs
    assert facts["size"]["weights_bytes"] == 4 * model.parameters
    assert facts["size"]["state_bytes"] == 64 * 4  # h, c, h and y, padded to 16 numbers each
    assert facts["size"]["stream_bytes"] > 64 * 4
    assert facts["digests"]["weights"] == weights_digest(model)
    assert facts["machine"]["numeric"] == ("F" if target().fused else "U")
    assert facts["machine"]["lanes"] in (4, 8, 16)
    assert 0 <= facts["machine"]["self_test_deviation"] <= facts["self_test"]["tolerance"]
    assert facts["self_test"]["steps"] == 16
    assert facts["detector"]["threshold"]["kind"] == "quantile"
    assert facts["provenance"] == model.provenance


def test_the_card_for_people_has_all_of_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "pump.safetensors"]) == 0
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line != line.rstrip()] == []
    assert "notices:" not in out
    for text in (
        "pump", "lstm 2 -> 2", "sensor 0 [m/s²]", "parameters", "multiply-adds", "class ", "16 steps",
        "largest deviation here", "forecast", "mewma of the residual", "2 of 3 above", "trained_on",
        weights_digest(models.forecaster())[:40],
    ):  # fmt: skip
        assert text in out, text


def test_a_model_without_detector_or_self_test_says_so(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = replace(models.forecaster(), detector=None, self_test=None, scaler=None, provenance={})
    edge_rnn.save(bare, "bare")
    assert main(["inspect", "bare"]) == 0
    out = capsys.readouterr().out
    assert "gives no verdicts" in out
    assert "none recorded" in out
    assert card(bare)["detector"] is None


def test_texts_in_a_file_cannot_speak_to_the_terminal(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = replace(
        models.forecaster(),
        name="evil\x1b[2J",
        inputs=(Input("[bold]a[/]", "\x07"), Input("b\nweights  forged")),
        provenance={"note\x1b": "\x1b]0;title\x07", "lines": "a\nb"},
    )
    edge_rnn.save(model, "evil")
    assert main(["inspect", "evil"]) == 0
    out = capsys.readouterr().out
    assert all(c.isprintable() or c == "\n" for c in out)
    assert "[bold]a[/]" in out


def test_compiled_code_that_does_not_reproduce_the_self_test_is_an_error() -> None:
    model = models.forecaster()
    assert model.self_test is not None
    wrong = replace(model, self_test=SelfTest(model.self_test.x, model.self_test.y + np.float32(0.01)))
    with pytest.raises(ModelFileError, match=r"self-test: step \d+, output \d"):
        on_this_machine(wrong, "m")


def test_the_architecture_in_one_line() -> None:
    rng = np.random.default_rng(0)
    layers = (models.layer(rng, "lstm", 5, 64), models.layer(rng, "lstm", 64, 64))
    assert architecture(Model(layers, (models.linear(rng, 64, 1),))) == "lstm 5 -> 64 -> 64, linear 64 -> 1"


# --- the gates ---


def test_the_gates_are_drawn(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    need.module("matplotlib")
    write_data(folder / "data.csv", ["sensor 1", "other", "sensor 0"])
    words = [
        "inspect",
        "pump.safetensors",
        "--gates",
        "data.csv",
        "-o",
        "gates.png",
        "--start",
        "5",
        "--rows",
        "20",
    ]
    assert main(words) == 0
    assert capsys.readouterr().out == "gates.png: 20 readings, 7 gates of 2 layers\n"
    assert (folder / "gates.png").read_bytes().startswith(PNG)


def test_columns_can_be_chosen_and_every_cell_drawn(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    need.module("matplotlib")
    rng = np.random.default_rng(0)
    layers = (
        models.layer(rng, "rnn_relu", 1, 4),
        models.layer(rng, "rnn_tanh", 4, 40),
        models.layer(rng, "gru", 40, 1),
    )
    edge_rnn.save(Model(layers, name="_$odd$ name"), "m")
    write_data(folder / "data.csv", ["vib"])
    assert main(["inspect", "m", "--gates", "data.csv", "-o", "g.svg", "--channels", "vib"]) == 0
    assert "40 readings, 5 gates of 3 layers" in capsys.readouterr().out
    assert "<svg" in (folder / "g.svg").read_text()[:800]


def test_the_history_is_what_the_stepper_shows_step_by_step() -> None:
    model = replace(models.forecaster(), rest_state=None)
    x = np.random.default_rng(1).normal(size=(12, 2))
    history = gate_history(model, x)
    stepper = Stepper(model)
    for t, row in enumerate(x):
        shown = stepper.gates(row)
        stepper.step(row)
        for layer, gates in enumerate(shown):
            assert list(gates) == list(history[layer])
            for name, values in gates.items():
                assert np.abs(history[layer][name][t] - values).max() < 1e-5


def test_readings_are_scaled_and_missing_ones_held() -> None:
    model = replace(models.forecaster(), scaler=Scaler(np.array([10.0, 0.0]), np.array([2.0, 1.0])))
    values = np.array([[np.nan, 1.0], [14.0, np.nan], [np.nan, 3.0], [6.0, np.nan]])
    table = Table(np.arange(4, dtype=np.int64), values, ("a", "b"), None, "t")
    assert model_space(model, table).tolist() == [[0.0, 1.0], [2.0, 1.0], [2.0, 3.0], [-2.0, 3.0]]


@pytest.mark.parametrize(
    ("words", "expected", "code"),
    [
        (["--gates", "data.csv"], "belong together", 78),
        (["-o", "x.png"], "belong together", 78),
        (["--gates", "data.csv", "-o", "x.png", "--rows", "1"], "--rows >= 2", 78),
        (["--gates", "data.csv", "-o", "x.png", "--start", "39"], "more than 40 rows", 65),
        (["--gates", "data.csv", "-o", "x.png", "--rows", "20001"], "at most 20000", 78),
        (["--gates", "data.csv", "-o", "x.png", "--channels", "sensor 0"], "the model has 2 inputs", 78),
        (["--gates", "data.csv", "-o", "x.png", "--channels", "sensor 0,nix"], "nix", 65),
        (["--gates", "data.csv", "-o", "x.txt.nothing"], "cannot be written", 78),
        (["--gates", "data.csv", "-o", "no/x.png"], "cannot be written", 78),
        (["--gates", "missing.csv", "-o", "x.png"], "missing.csv", 65),
    ],
)
def test_mistakes_are_one_line(
    words, expected, code, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    need.module("matplotlib")
    write_data(folder / "data.csv", ["sensor 0", "sensor 1"])
    assert main(["inspect", "pump.safetensors", *words]) == code
    err = capsys.readouterr().err
    assert expected in err
    assert len(err.splitlines()) == 1


def test_without_matplotlib_the_extra_is_named(
    folder: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_data(folder / "data.csv", ["sensor 0", "sensor 1"])
    for name in [m for m in sys.modules if m.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["inspect", "pump.safetensors", "--gates", "data.csv", "-o", "x.png"]) == 69
    assert "pip install 'edge-rnn[plot]'" in capsys.readouterr().err
