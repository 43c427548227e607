"""`edge-rnn evaluate`: honest numbers beside simple rules, a page that stands alone, a line for mistakes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

import edge_rnn
from edge_rnn.cli import main
from edge_rnn.commands import evaluate_run
from edge_rnn.core.model import Input
from edge_rnn.demo.pumps import clean_readings
from edge_rnn.evaluate import events, rows
from edge_rnn.files.readings import read_table
from tests.support import need

MODEL = need.ROOT / "edge_rnn" / "demo" / "pump.safetensors"
PERIOD = 50_000_000
ROWS, SURGE, MISSED, FALSE = 900, (400, 460), (600, 640), (750, 800)
T0 = 1_714_557_600_000_000_000


@pytest.fixture(scope="module")
def pump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pump whose surge is labelled, a label without a surge, and a surge without a label."""
    path = tmp_path_factory.mktemp("pump") / "pump.csv"
    lines = ["time,vibration,temperature,pressure,bad"]
    for i, (vibration, temperature, pressure) in enumerate(clean_readings(ROWS, seed=5).tolist()):
        surge = 1.5 * any(a <= i < b for a, b in (SURGE, FALSE))
        label = int(any(a <= i < b for a, b in (SURGE, MISSED)))
        lines.append(f"{T0 + i * PERIOD},{vibration!r},{temperature!r},{pressure + surge!r},{label}")
    path.write_text("\n".join(lines) + "\n")
    return path


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main(["evaluate", *map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_what_is_found_missed_and_false(pump, capsys):
    code, out, err = call(capsys, MODEL, pump, "--labels", "bad", "--rows", 200, "--json")
    assert (code, err) == (0, "")
    got = json.loads(out)
    first, second = got["events"]
    assert 0 <= first["delay_rows"] <= 10
    assert first["start_ns"] == T0 + SURGE[0] * PERIOD
    assert first["end_ns"] == T0 + (SURGE[1] - 1) * PERIOD
    assert second["found_ns"] is None
    assert len(got["false_alarms"]) == 1
    assert abs(got["false_alarms"][0]["start_ns"] - (T0 + FALSE[0] * PERIOD)) <= 10 * PERIOD
    model, *others = got["detectors"]
    assert (model["events"], model["found"], model["false_alarms"]) == (2, 1, 1)
    assert {d["name"] for d in others} == {
        "same detector, no network", "no-RNN MEWMA (defaults)", "persistence", "always on"
    }  # fmt: skip
    always = others[-1]
    assert (always["found"], always["share_in_alarm"], always["far"]) == (2, 1.0, 1.0)
    assert "point" not in out


def test_the_numbers_are_those_of_the_measures(pump, capsys):
    table = read_table(pump, labels="bad", channels=["vibration", "temperature", "pressure"])
    assert table.labels is not None
    detector = edge_rnn.Detector(edge_rnn.load(MODEL))
    alarm = detector.run(table.times_ns, table.values)["alarm"] == 1
    _, out, _ = call(capsys, MODEL, pump, "--labels", "bad", "--rows", 200, "--json")
    model = json.loads(out)["detectors"][0]
    counted = rows.count(alarm[200:], table.labels[200:])
    found = events.count(alarm[200:], table.labels[200:], table.times_ns[200:])
    assert model["f1"] == counted.f1
    assert model["far"] == counted.far
    assert model["false_alarms_per_day"] == found.false_per_day
    assert model["median_delay_rows"] == found.median_delay_rows


def test_the_text(pump, capsys):
    code, out, _ = call(capsys, MODEL, pump, "--labels", "bad", "--rows", 200)
    assert code == 0
    assert "rows      700 judged of 900" in out
    table = next(line for line in out.splitlines() if "VUS-PR" in line)
    assert "in alarm" in table
    assert re.search(r"^found .*after \d+ row", out, re.MULTILINE)
    assert re.search(r"^missed +2024-05-01T10:00:30Z to 2024-05-01T10:00:31.950Z$", out, re.MULTILINE)
    assert re.search(r"^false +2024-05-01T", out, re.MULTILINE)


def test_labels_from_files_are_labels_of_the_column(pump, tmp_path, capsys):
    spans = [[T0 + a * PERIOD, T0 + (b - 1) * PERIOD] for a, b in (SURGE, MISSED)]
    windows = tmp_path / "windows.json"
    windows.write_text(json.dumps({"elsewhere.csv": [], "pump.csv": spans}))
    stretches = tmp_path / "stretches.csv"
    stretches.write_text("start,end\n" + "\n".join(f"{a},{b}" for a, b in spans))
    told = [
        call(capsys, MODEL, pump, "--labels", source, "--json")[1] for source in ("bad", windows, stretches)
    ]
    assert len({json.dumps(json.loads(text)["detectors"]) for text in told}) == 1
    later = [T0 + 10**15, T0 + 10**15 + 1]
    windows.write_text(json.dumps([*spans, later]))
    assert "1 labelled stretch(es) meet no row" in call(capsys, MODEL, pump, "--labels", windows)[1]


def test_training_rows_elsewhere(pump, capsys):
    _, out, _ = call(capsys, MODEL, pump, "--labels", "bad", "--train", pump, "--json")
    got = {d["name"]: d for d in json.loads(out)["detectors"]}
    assert got["persistence"]["limit"] == "training rows"
    assert "no-RNN MEWMA (defaults)" in got
    _, out, _ = call(capsys, MODEL, pump, "--labels", "bad", "--json")
    got = {d["name"]: d for d in json.loads(out)["detectors"]}
    assert got["persistence"]["limit"] == "in alarm as long as the model"
    assert got["persistence"]["share_in_alarm"] == pytest.approx(got["pump"]["share_in_alarm"], abs=0.005)


def test_the_page_stands_alone_and_shows_every_event(pump, tmp_path, capsys):
    page = tmp_path / "pump.html"
    code, out, _ = call(capsys, MODEL, pump, "--labels", "bad", "--rows", 200, "--html", page)
    assert code == 0
    assert f"page      {page}" in out
    text = page.read_text()
    assert "delimiter" in out
    assert "delimiter" not in text
    assert "false/day is extrapolated: only " in out
    assert not re.search(r"(src|href)=|url\(|@import|https?://(?!www\.w3\.org/2000/svg)", text)
    for kind in ("found", "missed", "false"):
        assert len(re.findall(rf'class="tag"[^>]*>{kind}</span>', text)) == 1, kind
    pictures = re.findall(r"<svg .*?</svg>", text, re.DOTALL)
    assert len(pictures) == 4
    for picture in pictures:
        tree = ET.fromstring(picture)
        lines = tree.findall("{http://www.w3.org/2000/svg}polyline")
        assert lines
        for line in lines:
            assert "nan" not in line.attrib["points"]
    # Per event each of the three channels with its forecast, and the score.
    assert pictures[1].count("<text") == 4 * 3


def test_names_cannot_break_the_page(pump, tmp_path, capsys):
    import dataclasses

    evil = "</svg><script>alert(1)</script>"
    model = edge_rnn.load(MODEL)
    model = dataclasses.replace(model, inputs=(Input(evil), *model.inputs[1:]))
    edge_rnn.save(model, tmp_path / "m.safetensors")
    page = tmp_path / "p.html"
    words = ["--channels", "vibration,temperature,pressure", "--labels", "bad", "--html", page]
    assert call(capsys, tmp_path / "m.safetensors", pump, *words)[0] == 0
    assert "<script" not in page.read_text()


def test_what_cannot_work_is_one_line(pump, tmp_path, capsys):
    empty = tmp_path / "w.json"
    empty.write_text(json.dumps([[T0 + 10**15, T0 + 10**15]]))
    bare = tmp_path / "bare.csv"
    bare.write_text("vibration,temperature,pressure,bad\n1,2,3,0\n1,2,3,1\n")
    bad: list[tuple[list[Any], int, str]] = [
        ([MODEL, pump, "--labels", "baad"], 65, "did you mean 'bad'?"),
        ([MODEL, pump, "--labels", tmp_path / "none.json"], 65, "cannot be read"),
        ([MODEL, pump, "--labels", empty], 65, "meets a row of the data"),
        ([MODEL, pump, "--labels", "vibration"], 65, "is the label column and is never an input"),
        ([MODEL, bare, "--labels", "bad"], 65, "no time column found"),
        ([MODEL, pump, "--labels", "bad", "--rows", 900], 65, "--rows: expected fewer than the 900 rows"),
        ([MODEL, pump, "--labels", "bad", "--rows", -1], 78, "--rows: expected a number of rows, got -1"),
        ([MODEL, pump, "--labels", "bad", "--channels", "pressure"], 65, "expected 3 column(s)"),
        ([MODEL, pump, "--labels", "bad", "--html", tmp_path], 78, "--html"),
        ([pump, pump, "--labels", "bad"], 78, "not a model file"),
    ]
    for words, code, said in bad:
        got, out, err = call(capsys, *words)
        assert (got, out) == (code, ""), err
        assert err.startswith("edge-rnn evaluate: ")
        assert err.count("\n") == 1, err
        assert said in err


def test_a_model_without_detector(tmp_path, pump, capsys):
    import dataclasses

    edge_rnn.save(dataclasses.replace(edge_rnn.load(MODEL), detector=None), tmp_path / "m.safetensors")
    code, _, err = call(capsys, tmp_path / "m.safetensors", pump, "--labels", "bad")
    assert code == 78
    assert "no detector section" in err


def test_nothing_labelled_is_said(pump, capsys):
    code, out, _ = call(capsys, MODEL, pump, "--labels", "bad", "--rows", 640)
    assert code == 0
    assert "no row that is judged is labelled" in out
    assert "0/0" in out


def test_rows_out_of_order_are_dropped_and_never_look_ahead(pump):
    table = read_table(pump, labels="bad", channels=["vibration", "temperature", "pressure"])
    assert table.labels is not None
    found = evaluate_run.evaluate(edge_rnn.load(MODEL), table, table.labels, start=200)
    half = read_table(pump, labels="bad", channels=["vibration", "temperature", "pressure"])
    import dataclasses

    part = dataclasses.replace(half, times_ns=half.times_ns[:500], values=half.values[:500])
    early = evaluate_run.evaluate(edge_rnn.load(MODEL), part, table.labels[:500], start=200)
    assert np.array_equal(early.result.score, found.result.score[:500], equal_nan=True)
    assert np.array_equal(early.result.alarm, found.result.alarm[:500])
