"""`edge-rnn replay --backend w8a16`: verdicts of the quantised model, and an honest comparison."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import edge_rnn
from edge_rnn.cli import main
from edge_rnn.detect.integer import IntegerDetector, quantize_on
from tests.detect.models import SECOND, model, spec

T0 = 1_714_557_600 * SECOND


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, np.ndarray]:
    """A model and a CSV with a surge."""
    folder = tmp_path_factory.mktemp("w8a16")
    made = model(3, spec(3, warmup=5))
    edge_rnn.save(made, folder / "m.safetensors")
    assert made.scaler is not None
    rng = np.random.default_rng(3)
    z = rng.normal(size=(500, 3))
    z[200:215, 0] += 40
    values = made.scaler.mean + z * made.scaler.std
    lines = ["time," + ",".join(i.name for i in made.inputs)]
    lines += [
        f"{(T0 + t * SECOND) // 10**9}," + ",".join(map(repr, row.tolist())) for t, row in enumerate(values)
    ]
    (folder / "d.csv").write_text("\n".join(lines) + "\n")
    return folder / "m.safetensors", folder / "d.csv", values


def test_summary_and_report(files: tuple[Path, Path, np.ndarray], capsys: pytest.CaptureFixture[str]) -> None:
    model_file, data, values = files
    code = main(
        ["replay", str(model_file), str(data), "--backend", "w8a16", "--calibrate", str(data), "--json"]
    )
    assert code == 0
    summary = json.loads(capsys.readouterr().out)
    report = summary["w8a16"]
    assert report["verdicts"] == 500
    assert report["agreement"] > 0.99
    assert 0 < report["rms_share"] < report["max_share"] < 0.1
    made = edge_rnn.load(model_file)
    quantized = quantize_on(made, values)
    assert report["digest"] == quantized.digest
    verdicts = IntegerDetector(quantized).run(T0 + np.arange(500) * SECOND, values)
    peaks = [a["peak"] for a in summary["alarms"]]
    assert peaks
    assert set(peaks) <= set(verdicts["score"].tolist())


def test_text_names_the_constants(
    files: tuple[Path, Path, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    model_file, data, _ = files
    assert main(["replay", str(model_file), str(data), "--backend", "w8a16"]) == 0
    out = capsys.readouterr().out
    assert "w8a16     constants" in out
    assert "of their standard deviation" in out


def test_calibration_without_the_backend_is_refused(
    files: tuple[Path, Path, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    model_file, data, _ = files
    assert main(["replay", str(model_file), str(data), "--calibrate", str(data)]) == 65
    assert "--calibrate" in capsys.readouterr().err


def test_calibration_data_with_a_missing_channel_is_refused(
    files: tuple[Path, Path, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model_file, data, _ = files
    short = tmp_path / "short.csv"
    short.write_text(
        "\n".join(",".join(line.split(",")[:3]) for line in data.read_text().splitlines()) + "\n"
    )
    options = ["--backend", "w8a16", "--calibrate", str(short)]
    assert main(["replay", str(model_file), str(data), *options]) == 65
    assert "short.csv" in capsys.readouterr().err
