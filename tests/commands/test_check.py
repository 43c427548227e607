"""`edge-rnn check`: ok or every problem, one a line, for a configuration and for a model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edge_rnn
from edge_rnn.cli import main
from edge_rnn.core.model import SelfTest
from tests.support import models
from tests.support import torch_files as tf

CONFIG = """
[mqtt]
host = "localhost"

[[stream]]
name = "pump"
model = "pump.safetensors"
topic = "plant/{machine}/vib"
channels = [{ name = "sensor 0", path = "a" }, { name = "sensor 1", path = "b" }]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    edge_rnn.save(models.forecaster(), "pump.safetensors")
    return tmp_path


def test_a_good_model_is_ok(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "pump.safetensors"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("pump.safetensors: model, lstm 2 -> 2")
    assert out.endswith("self-test of 16 steps passed: ok\n")
    assert main(["check", "pump.safetensors", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) | {"network": ""} == {
        "file": "pump.safetensors", "kind": "model", "ok": True, "problems": [], "network": "",
        "self_test": "self-test of 16 steps passed",
    }  # fmt: skip


def test_weights_are_models_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "net.pt").write_bytes(tf.torch_file(tf.small_arrays()))
    assert main(["check", "net.pt"]) == 0
    assert "gru 2 -> 2, linear 2 -> 1, no self-test: ok" in capsys.readouterr().out


def test_a_model_with_a_wrong_self_test_is_a_problem(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = models.forecaster()
    assert model.self_test is not None
    y = model.self_test.y + np.float32(0.1)
    edge_rnn.save(replace(model, self_test=SelfTest(model.self_test.x, y)), "wrong")
    assert main(["check", "wrong"]) == 78
    assert "edge-rnn check: wrong: self-test: step" in capsys.readouterr().err
    assert main(["check", "wrong", "--json"]) == 78
    result = json.loads(capsys.readouterr().out)
    assert not result["ok"]
    assert len(result["problems"]) == 1
    assert result["problems"][0].startswith("wrong: self-test")


def test_a_good_configuration_and_its_models_are_ok(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "pump.toml").write_text(CONFIG)
    assert main(["check", "pump.toml"]) == 0
    assert capsys.readouterr().out == "pump.toml: configuration, 1 stream, 1 model: ok\n"


def test_all_problems_of_a_configuration_are_listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "pump.toml").write_text(CONFIG.replace("host =", "hots =").replace("topic =", "topc ="))
    assert main(["check", "pump.toml"]) == 78
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 2
    assert any("hots" in line for line in lines)
    assert any("topc" in line for line in lines)
    assert all(line.startswith("edge-rnn check: ") for line in lines)
    assert main(["check", "pump.toml", "--json"]) == 78
    result = json.loads(capsys.readouterr().out)
    assert [f"edge-rnn check: {text}" for text in result["problems"]] == lines
    assert result["kind"] == "configuration"


def test_problems_of_every_stream_s_model_are_listed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edge_rnn.save(replace(models.forecaster(), detector=None), "bare.safetensors")
    stream = CONFIG[CONFIG.index("[[stream]]") :]
    text = CONFIG.replace('"sensor 1"', '"sensor 9"')
    text += stream.replace('"pump"', '"second"').replace("pump.safetensors", "damaged.safetensors")
    text += stream.replace('"pump"', '"third"').replace("pump.safetensors", "bare.safetensors")
    (folder / "damaged.safetensors").write_bytes(b"\0damaged")
    (folder / "pump.toml").write_text(text)
    assert main(["check", "pump.toml"]) == 78
    err = capsys.readouterr().err
    assert 'the model has no input "sensor 9"' in err
    assert "damaged.safetensors: not a model file" in err
    assert "stream[2].model: bare.safetensors: this model has no detector section" in err


def test_mistakes_of_every_sort_come_in_one_pass_in_the_order_of_lines(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong key, a bad topic, a wrong `on`, a wrong channel, a second name, a file that is no model."""
    (folder / "no.safetensors").write_bytes(b"\0no model")
    text = (
        CONFIG.replace("host", "hots").replace("{machine}/vib", "{a}/{a}").replace('"sensor 1"', '"sensr 1"')
    )
    text += 'on = "foo"\n' + CONFIG[CONFIG.index("[[stream]]") :].replace("pump.saf", "no.saf")
    (folder / "pump.toml").write_text(text)
    assert main(["check", "pump.toml"]) == 78
    lines = capsys.readouterr().err.splitlines()
    places = [line.removeprefix("edge-rnn check: pump.toml:").split(": ")[:2] for line in lines]
    assert places == [
        ["3", "mqtt.hots"], ["8", "stream[0].topic"], ["9", "stream[0].channels"],
        ["9", "stream[0].channels"], ["10", "stream[0].on"], ["12", "stream[1].name"],
        ["13", "stream[1].model"],
    ]  # fmt: skip
    assert 'the model has no input "sensr 1"; did you mean "sensor 1"?' in lines[2]
    assert "not a model file" in lines[-1]


def test_a_model_without_a_detector_is_the_one_problem(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edge_rnn.save(replace(models.forecaster(), detector=None), "pump.safetensors")
    (folder / "pump.toml").write_text(CONFIG.replace("sensor", "other"))
    for verb in ("check", "run"):
        assert main([verb, "pump.toml"]) == 78
        (line,) = (text for text in capsys.readouterr().err.splitlines() if " info start: " not in text)
        assert "this model has no detector section, so it gives no verdicts" in line


def test_run_says_what_a_model_file_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "pump.safetensors"]) == 78
    assert capsys.readouterr().err == (
        "edge-rnn run: pump.safetensors: this is a model file; "
        "expected a configuration (.toml) that names it\n"
    )


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("m.bin", b"hello = 1\n", "neither a model file nor a configuration"),
        ("m.bin", b"\0hello", "not a model file"),
        ("m.bin", b"", "empty"),
        ("m.toml", b"\0\xff", "UTF-8"),
        ("m.toml", b"= 1", "m.toml"),
    ],
)
def test_other_files(name, content, expected, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / name).write_bytes(content)
    assert main(["check", name]) == 78
    assert expected in capsys.readouterr().err


def test_a_missing_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "nowhere.safetensors"]) == 78
    assert main(["check", "nowhere.toml"]) == 78
    assert capsys.readouterr().err.count("No such file") == 2


def test_a_wildcard_that_mixes_senders_is_a_warning(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = "all senders of 'plant/+/vib' are one stream; a {name} in place of + gives each its own"
    mixed = CONFIG.replace("{machine}", "+")
    for text, warned in ((CONFIG, False), (mixed, True), (mixed.replace("+/vib", "{site}/+"), False)):
        (folder / "pump.toml").write_text(text)
        assert main(["check", "pump.toml"]) == 0
        out, err = capsys.readouterr()
        assert out.endswith("1 stream, 1 model: ok\n")
        assert err == (f'edge-rnn check: warning: stream "pump": {told}\n' if warned else "")
        assert main(["check", "pump.toml", "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert said.get("warnings", []) == ([f'stream "pump": {told}'] if warned else [])
    (folder / "pump.toml").write_text(mixed.replace("[[stream]]", '[[stream]]\nkey = ["id"]'))
    assert main(["check", "pump.toml"]) == 0
    assert capsys.readouterr().err == ""
