"""Recordings of the demo's pumps: faults where the labels say, and nothing is overwritten."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from edge_rnn import cli
from edge_rnn.core.model import Input
from edge_rnn.demo.pumps import CHANNELS, RATE_HZ
from edge_rnn.demo.recordings import ROWS, faulty
from edge_rnn.detect.detector import Detector
from edge_rnn.files.load import load
from edge_rnn.files.readings import read_table

MODEL = Path(__file__).parents[2] / "edge_rnn" / "demo" / "pump.safetensors"


def names(channels: tuple[Input, ...]) -> tuple[str, ...]:
    return tuple(channel.name for channel in channels)


def test_three_files_are_written_and_listed(tmp_path: Path, capsys) -> None:
    assert cli.main(["demo", "--save", str(tmp_path / "data"), "--json"]) == 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert [Path(name).name for name in files] == ["pump.csv", "normal.csv", "other.csv"]
    tables = [read_table(name, labels="fault" if "other" in name else None) for name in files]
    assert all(table.channels == names(CHANNELS) for table in tables)
    assert [len(table) for table in tables[:2]] == [ROWS, ROWS]
    values, marks = faulty()
    assert np.array_equal(tables[2].values, values)
    assert tables[2].labels is not None
    assert np.array_equal(tables[2].labels, marks)
    assert not np.array_equal(tables[0].values, tables[1].values)
    # One after the other, so that they can be told apart and put together.
    assert tables[0].times_ns[-1] < tables[1].times_ns[0] < tables[2].times_ns[0]


def test_the_bundled_detector_finds_each_labelled_fault(tmp_path: Path) -> None:
    cli.main(["demo", "--save", str(tmp_path)])
    table = read_table(tmp_path / "other.csv", labels="fault")
    verdicts = Detector(load(MODEL)).run(table.times_ns, table.values)
    found = (verdicts["alarm"] != 0) | (verdicts["fault"] != 0).any(axis=1)
    assert table.labels is not None
    edges = np.flatnonzero(np.diff(table.labels.astype(int), prepend=0, append=0)).reshape(-1, 2)
    assert len(edges) == 3
    assert all(found[start : end + RATE_HZ].any() for start, end in edges)
    healthy = read_table(tmp_path / "normal.csv")
    verdicts = Detector(load(MODEL)).run(healthy.times_ns, healthy.values)
    assert not verdicts["alarm"].any()
    assert not verdicts["fault"].any()


def test_nothing_is_overwritten(tmp_path: Path, capsys) -> None:
    mine = tmp_path / "normal.csv"
    mine.write_text("mine")
    assert cli.main(["demo", "--save", str(tmp_path)]) == 78
    assert "normal.csv: is there already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["normal.csv"]
    assert mine.read_text() == "mine"
    (tmp_path / "file").write_text("")
    assert cli.main(["demo", "--save", str(tmp_path / "file" / "data")]) == 78
    assert "cannot be written" in capsys.readouterr().err
