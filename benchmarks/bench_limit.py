"""The side-by-side runner works, wherever there is a compiler; what it measures is nobody's business here."""

from __future__ import annotations

import json

import pytest

from benchmarks import many, speed
from tests.support import need


def test_the_limit_is_measured_beside_run_and_step(tmp_path, capsys, monkeypatch) -> None:
    need.program("gcc")
    monkeypatch.setattr(speed, "SHAPES", [(1, 16, 1), (3, 20, 2)])
    assert speed.main(["--rounds", "3", "--only", "limit", "--json", str(tmp_path / "speed.json")]) == 0
    report = json.loads((tmp_path / "speed.json").read_text())
    assert [row["network"] for row in report["rows"]] == [
        "LSTM 1/16/1", "LSTM 3/20/2", "GRU 1/16/1", "GRU 3/20/2",
    ]  # fmt: skip
    for row in report["rows"]:
        assert row["limit"] > 0
        assert (row["run_ratio"] is None) == (row["share"] < speed.REACHED)
    assert len(capsys.readouterr().out.splitlines()) == 7


def test_two_bytes_a_weight_are_measured_beside_four(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(speed, "LARGE", [])
    assert speed.main(["--rounds", "3", "--only", "f16", "--json", str(tmp_path / "speed.json")]) == 0
    rows = json.loads((tmp_path / "speed.json").read_text())["f16"]
    assert [row["network"] for row in rows] == ["LSTM 8/64/1", "GRU 8/64/1"]
    assert all(0 < row["difference"] < 1e-3 and row["f16"] > 0 for row in rows)
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_batches_are_measured_beside_the_product_alone(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(speed, "BATCHES", [(2, 20, 2)])
    monkeypatch.setattr(speed, "STREAMS", (2, 65))
    assert speed.main(["--rounds", "3", "--only", "batch", "--json", str(tmp_path / "speed.json")]) == 0
    report = json.loads((tmp_path / "speed.json").read_text())
    assert set(report) == {"batch", "environment"}
    assert [row["streams"] for row in report["batch"]] == [2, 65] * 3
    assert all(row["batch"] > 0 and row["product"] > 0 for row in report["batch"])
    assert len(capsys.readouterr().out.splitlines()) == 9


def test_a_detector_is_measured_beside_its_step(capsys) -> None:
    row = many.measure_detector("gru", (2, 16, 1), rounds=3, count=400)
    assert row.advance > 0
    assert row.table > 0
    assert "GRU 2/16/1" in many.detector_table([row])
    assert capsys.readouterr().out == ""


def test_a_limit_that_does_not_reach_the_machine_gives_no_ratio() -> None:
    row = speed.Row("LSTM 1/16/1", 50.0, 0.5, 70.0, None, None, 270.0, 200.0)
    assert "| - |" in speed.table([row])
    slow = speed.Limit(product=100.0, reading=50.0, size=400, fma=50.0)
    assert slow.share == pytest.approx(0.5)
    busy = speed.Limit(product=100.0, reading=50.0, size=20_000, fma=50.0)
    assert busy.share == pytest.approx(1.0)


def test_no_compiler_is_said_clearly(monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    assert speed.main([]) == 1
    assert "expected no-such-compiler on the path; install gcc, or set CC" in capsys.readouterr().err
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\necho 'cannot compile' >&2; exit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    assert speed.main([]) == 1
    assert "cannot compile" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        speed.main(["--rounds", "1"])
