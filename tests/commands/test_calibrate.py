"""`edge-rnn calibrate`: other thresholds and scaling, same weights, without torch, whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import edge_rnn
from edge_rnn.cli import main
from edge_rnn.core.digest import weights_digest
from edge_rnn.demo.pumps import clean_readings
from tests.support import need

MODEL = need.ROOT / "edge_rnn" / "demo" / "pump.safetensors"
PERIOD = 50_000_000
T0 = 1_714_557_600_000_000_000
# A pump whose sensors have another offset and gain.
GAIN, OFFSET = np.array([3.0, 1.8, 1.0]), np.array([1.0, 32.0, 0.0])


def table(path: Path, rows: int = 1500, seed: int = 7, surge: slice = slice(0, 0)) -> Path:
    x = np.array(clean_readings(rows, seed=seed)) * GAIN + OFFSET
    x[surge, 2] += 1.5
    lines = [f"{T0 + i * PERIOD},{a!r},{b!r},{c!r}" for i, (a, b, c) in enumerate(x.tolist())]
    path.write_text("time,vibration,temperature,pressure\n" + "\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    return table(tmp_path_factory.mktemp("device") / "week.csv")


def call(capsys, *words):
    code = main(["calibrate", *map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_device_with_other_sensors_is_quiet_again_and_still_sees(device, tmp_path, capsys):
    output = tmp_path / "new.safetensors"
    code, out, err = call(capsys, MODEL, device, "-o", output, "--json")
    assert (code, err) == (0, "")
    said = json.loads(out)
    assert said["before"]["share_in_alarm"] > 0.2
    assert said["after"]["share_in_alarm"] < 0.01
    old, new = edge_rnn.load(MODEL), edge_rnn.load(output)
    assert weights_digest(new) == weights_digest(old)
    assert new.scaler is not None
    assert old.scaler is not None
    assert np.allclose(new.scaler.std / old.scaler.std, GAIN, rtol=0.25)
    assert new.provenance["calibrated"] == {
        "rows": 1500, "first": "2024-05-01T10:00:00Z", "last": "2024-05-01T10:01:14Z"
    }  # fmt: skip
    other = table(tmp_path / "other.csv", seed=11, surge=slice(800, 860))
    x = np.loadtxt(other, delimiter=",", skiprows=1)
    alarm = edge_rnn.Detector(new).run(x[:, 0].astype(np.int64), x[:, 1:])["alarm"] == 1
    assert alarm[800:860].any()
    assert alarm[:800].mean() < 0.02


def test_what_is_kept(device, tmp_path, capsys):
    output = tmp_path / "new.safetensors"
    assert call(capsys, MODEL, device, "-o", output, "--keep-scaling", "--keep-guard")[0] == 0
    old, new = edge_rnn.load(MODEL), edge_rnn.load(output)
    assert new.scaler is not None
    assert old.scaler is not None
    assert np.array_equal(new.scaler.mean, old.scaler.mean)
    assert new.detector is not None
    assert old.detector is not None
    assert new.detector.guard == old.detector.guard
    assert new.detector.condition == old.detector.condition
    assert new.detector.alarm == old.detector.alarm
    assert [s.source for s in new.detector.scorers] == [s.source for s in old.detector.scorers]
    assert [s.unit for s in new.detector.scorers] != [s.unit for s in old.detector.scorers]


def test_the_text_says_what_changed(device, tmp_path, capsys):
    code, out, _ = call(capsys, MODEL, device, "-o", tmp_path / "new.safetensors")
    assert code == 0
    for word in ("channel   vibration: mean", "spread", "threshold", "before", "after", "written"):
        assert word in out


def test_fewer_alarms_a_day_is_a_higher_threshold(device, tmp_path, capsys):
    values = []
    for per_day in (5000, 50, 0.5):
        output = tmp_path / "new.safetensors"
        assert call(capsys, MODEL, device, "-o", output, "--alarms-per-day", per_day)[0] == 0
        spec = edge_rnn.load(output).detector
        assert spec is not None
        values.append(spec.threshold.value)
    assert values == sorted(values)
    assert values[0] < values[-1]


def test_quantile_moves_the_units(device, tmp_path, capsys):
    units = []
    for quantile in (0.9, 0.999):
        output = tmp_path / "new.safetensors"
        assert call(capsys, MODEL, device, "-o", output, "--quantile", quantile)[0] == 0
        spec = edge_rnn.load(output).detector
        assert spec is not None
        units.append(spec.scorers[0].unit)
    assert units[0] < units[1]


def test_in_place(device, tmp_path, capsys):
    own = tmp_path / "pump.safetensors"
    own.write_bytes(MODEL.read_bytes())
    assert call(capsys, own, device, "-o", own)[0] == 0
    assert own.read_bytes() != MODEL.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["pump.safetensors"]


def test_a_model_that_fails_its_self_test_takes_no_place(device, tmp_path, capsys, monkeypatch):
    from edge_rnn.commands import calibrate
    from edge_rnn.errors import ModelFileError

    def refuse(path):
        raise ModelFileError(f"{path}: self-test")

    real = calibrate.load
    monkeypatch.setattr(calibrate, "load", lambda path: real(path) if Path(path) == MODEL else refuse(path))
    old = tmp_path / "old.safetensors"
    old.write_bytes(b"of yesterday")
    code, out, err = call(capsys, MODEL, device, "-o", old)
    assert (code, out) == (78, "")
    assert "self-test" in err
    assert old.read_bytes() == b"of yesterday"
    assert list(tmp_path.iterdir()) == [old]


def test_what_cannot_work_is_one_line(device, tmp_path, capsys):
    flat = tmp_path / "flat.csv"
    flat.write_text(
        "time,vibration,temperature,pressure\n"
        + "\n".join(f"{T0 + i * PERIOD},{i % 7},3,{i % 5}" for i in range(300))
    )
    short = table(tmp_path / "short.csv", rows=40)
    output = tmp_path / "new.safetensors"
    plain = tmp_path / "plain.safetensors"
    edge_rnn.save(dataclasses.replace(edge_rnn.load(MODEL), detector=None), plain)
    before = sorted(tmp_path.iterdir())
    bad = [
        ([MODEL, flat, "-o", output], 65, "channel 'temperature' is always 3"),
        ([MODEL, short, "-o", output], 65, "expected at least"),
        ([MODEL, device, "-o", output, "--quantile", 1.5], 78, "--quantile"),
        ([MODEL, device, "-o", output, "--alarms-per-day", -1], 78, "--alarms-per-day"),
        ([MODEL, device, "-o", output, "--alarms-per-day", 900_000], 78, "more than every second reading"),
        ([MODEL, device, "-o", device], 78, "would be overwritten"),
        ([MODEL, device, "-o", tmp_path / "no" / "m"], 78, "--output"),
        ([MODEL, device, "-o", output, "--channels", "vibration"], 65, "expected 3 column(s)"),
        ([MODEL, tmp_path / "none.csv", "-o", output], 65, "cannot be read"),
        ([plain, device, "-o", output], 78, "no detector section"),
        ([device, device, "-o", output], 78, "not a model file"),
    ]
    for words, code, said in bad:
        got, out, err = call(capsys, *words)
        assert (got, out) == (code, ""), err
        assert err.startswith("edge-rnn calibrate: ")
        assert err.count("\n") == 1, err
        assert said in err
        assert sorted(tmp_path.iterdir()) == before


def test_it_needs_no_torch(device, tmp_path):
    words = ["calibrate", str(MODEL), str(device), "-o", str(tmp_path / "new.safetensors")]
    code = (
        f"import sys; sys.modules['torch'] = None\nfrom edge_rnn.cli import main\nsys.exit(main({words!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "new.safetensors").is_file()


def test_too_few_readings_for_what_is_asked_are_said_with_how_many_it_takes(device, tmp_path, capsys):
    output = tmp_path / "new.safetensors"
    said = {}
    for words in (("--alarms-per-day", 0.5), ("--alarms-per-day", 50_000), ("--quantile", 0.999), ()):
        code, out, _ = call(capsys, MODEL, device, "-o", output, "--json", *words)
        assert code == 0
        said[words] = json.loads(out)["warnings"]
    # Four alarms at half an alarm a day take 8 days.
    (few,) = said["--alarms-per-day", 0.5]
    assert few == (
        "1,500 rows (1 min 15 s) are too few to see 0.5 alarm(s) a day, so the threshold is an estimate from "
        "the tail of the scores; 13,824,000 rows (8 d) would show it"
    )
    assert said["--quantile", 0.999][0].endswith(
        "see quantile 0.999, so the threshold is not sure; 4,000 rows (3 min 20 s) would show it"
    )
    assert said["--alarms-per-day", 50_000] == said[()] == []
    _, out, _ = call(capsys, MODEL, device, "-o", output, "--alarms-per-day", 0.5)
    assert "\nwarning   1,500 rows" in out


def test_readings_that_were_in_alarm_when_recorded_are_left_out_and_said(tmp_path, capsys):
    plain = table(tmp_path / "plain.csv", surge=slice(700, 760))
    head, *rows = plain.read_text().splitlines()
    recorded = tmp_path / "recorded.csv"
    lines = [f"{row},normal,{int(700 <= i < 760)}" for i, row in enumerate(rows)]
    recorded.write_text("\n".join([f"{head},verdict.status,verdict.alarm", *lines]) + "\n")
    found = {}
    for file, words in ((plain, ()), (recorded, ("--keep-alarms",)), (recorded, ())):
        code, out, _ = call(capsys, MODEL, file, "-o", tmp_path / "new.safetensors", "--json", *words)
        assert code == 0
        found[file.name, words] = json.loads(out)
    assert found["recorded.csv", ()]["data"]["rows"] == 1440
    assert found["recorded.csv", ()]["warnings"][0] == (
        "60 row(s) were in alarm when they were recorded and are left out (--keep-alarms)"
    )
    kept = found["recorded.csv", ("--keep-alarms",)]
    assert kept["data"]["rows"] == 1500
    assert kept["warnings"][0] == "60 row(s) were in alarm when they were recorded and are taken as normal"
    assert kept["channels"] == found["plain.csv", ()]["channels"]
    assert kept["channels"] != found["recorded.csv", ()]["channels"]


def test_old_faults_among_the_readings_are_said(tmp_path, capsys):
    file = table(tmp_path / "week.csv")
    lines = file.read_text().splitlines()
    for i in range(500, 540):
        lines[i] = ",".join([*lines[i].split(",")[:2], "", lines[i].split(",")[3]])
    file.write_text("\n".join(lines) + "\n")
    code, out, _ = call(capsys, MODEL, file, "-o", tmp_path / "new.safetensors", "--json")
    assert code == 0
    (warning,) = json.loads(out)["warnings"]
    assert warning.startswith(
        "the detector as it is finds a faulty channel (stuck, out of range, missing) in 4"
    )
