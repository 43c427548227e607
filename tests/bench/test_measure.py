"""A whole run, short: what is measured, that it is private, and that its JSON comes back."""

from __future__ import annotations

import getpass
import json
import re
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_rnn import cli
from edge_rnn.bench import inputs, start
from edge_rnn.bench.inputs import BUNDLED, fixed_inputs, golden_hash, output_hash, raw_readings
from edge_rnn.bench.measure import Options, measure
from edge_rnn.bench.path import ReadingPath
from edge_rnn.bench.report import Report, decode, encode
from edge_rnn.core.digest import weights_digest
from edge_rnn.detect.detector import Detector
from edge_rnn.errors import EdgeRnnError
from edge_rnn.files.load import load
from edge_rnn.files.model_file import save
from tests.support import need
from tests.support.models import forecaster

SHORT = Options(seconds=0.05, rates=(100.0,), streams=(1, 3), start=False)


@pytest.fixture(scope="module")
def report() -> Report:
    return measure(options=SHORT)


def test_the_bundled_model_is_measured_and_gives_the_golden_bits(report) -> None:
    assert report.network.bundled
    assert report.output.sha256 == report.output.golden
    assert report.step.latency.calls == sum(report.step.histogram.counts) > 100
    assert report.path is not None
    assert [p.hz for p in report.paced] == [100.0]
    assert report.paced[0].late.calls == 5
    assert [r.streams for r in report.rates] == [1, 3]
    assert all(r.path_per_s > 0 and r.detector_per_s > 0 for r in report.rates)
    assert report.environment.numeric in "FU"
    assert report.environment.emulation == []
    assert report.energy_per_step_j is None


def test_a_report_comes_back_from_its_json(report) -> None:
    assert decode(encode(report), "x.json") == report


def test_a_report_names_no_person_host_or_folder(report) -> None:
    text = encode(report).decode()
    folders = {str(Path.home()), str(need.ROOT), str(BUNDLED)} - {"/"}
    assert [f for f in folders if f in text] == []
    for name in (socket.gethostname(), getpass.getuser()):
        # As a word: a short name may be part of another one, as "vm" of "llvmlite".
        assert re.search(rf"\b{re.escape(name)}\b", text) is None


@pytest.mark.parametrize("numeric", ["F", "U"])
@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_the_bundled_models_bits_are_golden_in_every_width(numeric, lanes) -> None:
    model = load(BUNDLED)
    stored = golden_hash(weights_digest(model), numeric)
    assert stored is not None, "the bundled model has changed: run python -m edge_rnn.bench.inputs"
    assert output_hash(model, numeric, lanes) == stored


def test_the_fixed_inputs_are_the_generators_numbers() -> None:
    xs = fixed_inputs(500, 3)
    assert xs.dtype == np.float32
    assert np.abs(xs).max() < 2
    assert xs.std() > 1
    np.testing.assert_array_equal(xs[:10].ravel()[:20], fixed_inputs(20, 1).ravel())
    np.testing.assert_array_equal(xs * 2**22, np.round(xs * 2**22))
    model = load(BUNDLED)
    scaled = (raw_readings(model, xs) - model.scaler.mean) / model.scaler.std
    np.testing.assert_allclose(scaled, xs, atol=1e-5)


def test_the_path_gives_the_detectors_scores() -> None:
    model = load(BUNDLED)
    readings = raw_readings(model, fixed_inputs(60, 3))
    path, detector = ReadingPath(BUNDLED, model, streams=2), Detector(model)
    for i, values in enumerate(readings):
        deliveries = [path.delivery(values, i, s) for s in (0, 1)]
        published = dict(path.take(*deliveries))
        verdict = detector.step(values, deliveries[0].arrival_ns)
        for s in (0, 1):
            said = json.loads(published[f"edge-rnn/bench/s{s}/score"])
            assert said["score"] == (verdict.score if np.isfinite(verdict.score) else None)
            assert said["n"] == verdict.step
    assert np.isfinite(verdict.score)


def test_a_model_without_a_detector_is_only_stepped(tmp_path) -> None:
    model = replace(forecaster(), detector=None)
    save(model, tmp_path / "m.safetensors")
    report = measure(tmp_path / "m.safetensors", SHORT)
    assert report.path is None
    assert report.rates == []
    assert not report.network.bundled
    assert report.output.golden is None
    assert report.paced[0].latency.calls == 5
    assert decode(encode(report), "x") == report


def test_a_start_that_fails_says_why(tmp_path) -> None:
    (tmp_path / "m.safetensors").write_bytes(b"no model")
    with pytest.raises(EdgeRnnError, match=r"process that measures a start failed: .*not a model file"):
        start.starts(tmp_path / "m.safetensors")


def test_the_command_prints_json_and_a_table(capsys) -> None:
    short = ["--seconds", "0.02", "--rates", "100", "--streams", "2", "--no-start"]
    assert cli.main(["bench", *short, "--json"]) == 0
    assert decode(capsys.readouterr().out.encode(), "stdout").rates[0].streams == 2
    assert cli.main(["bench", str(BUNDLED), *short]) == 0
    said = capsys.readouterr().out
    for word in ("p99.9", "100 Hz: wakes late", "equals the golden one", "decode to encode"):
        assert word in said


def test_the_command_draws_a_picture(tmp_path, capsys) -> None:
    need.module("matplotlib")
    picture = tmp_path / "out.png"
    short = ["--seconds", "0.02", "--rates", "100", "--streams", "2", "--no-start"]
    assert cli.main(["bench", *short, "--plot", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert cli.main(["bench", *short, "--plot", str(tmp_path / "no" / "out.png")]) == 65
    assert "cannot be written" in capsys.readouterr().err


def test_other_bits_end_with_an_error_after_the_report(monkeypatch, capsys) -> None:
    monkeypatch.setattr(inputs, "STEPS", 10)
    monkeypatch.setattr("edge_rnn.bench.measure.STEPS", 10)
    assert cli.main(["bench", "--seconds", "0.02", "--rates", "100", "--streams", "1", "--no-start"]) == 70
    said = capsys.readouterr()
    assert "DIFFERS" in said.out
    assert "computes other bits" in said.err


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (["--seconds", "0"], "--seconds: expected more than 0", 78),
        (["--seconds", "nan"], "--seconds: expected more than 0", 78),
        (["--rates", "1,x"], "--rates: expected numbers above 0", 78),
        (["--rates", "0"], "--rates: expected numbers above 0", 78),
        (["--streams", "1.5"], "--streams: expected whole numbers above 0", 78),
        (["--streams", "inf"], "--streams: expected whole numbers above 0", 78),
        (["--plot", "out.pdf"], "--plot: expected a file ending in .png", 78),
        (["missing.safetensors"], "missing.safetensors: cannot be read", 78),
    ],
)
def test_wrong_options_are_said_clearly(words, said, code, capsys) -> None:
    assert cli.main(["bench", *words]) == code
    assert capsys.readouterr().err.startswith(f"edge-rnn bench: {said}")
