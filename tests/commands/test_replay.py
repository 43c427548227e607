"""`edge-rnn replay`: the same verdicts as the library, an honest summary, pictures that stand alone."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edge_rnn
from edge_rnn.cli import main
from edge_rnn.commands import replay_plot
from edge_rnn.commands.replay_run import alarms, judge, replay, runs
from edge_rnn.core.detector_spec import AlarmSpec, GuardSpec, ThresholdSpec
from edge_rnn.core.model import Input, Model
from edge_rnn.detect.detector import Detector
from edge_rnn.files.readings import Table, read_table
from edge_rnn.stream.types import Event
from tests.detect.models import SECOND, model, spec
from tests.support import need

NAMES = ("flow", "temp </script>", "level")
T0 = 1_714_557_600 * SECOND
ROWS = 400


def detector_model(**guard: Any) -> Model:
    rules = GuardSpec(**{"stuck_after": (5, 5, 5), "silent_after_ns": 30 * SECOND} | guard)
    made = model(
        3,
        spec(
            3,
            warmup=5,
            guard=rules,
            threshold=ThresholdSpec(kind="quantile", value=5.0),
            alarm=AlarmSpec(clear_hold=3),
        ),
    )
    return dataclasses.replace(made, name="plant", inputs=tuple(Input(n) for n in NAMES))


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, np.ndarray]:
    """A model and a labelled CSV with a surge (rows 100-119), a stuck sensor (200-219), a pause (300)."""
    folder = tmp_path_factory.mktemp("plant")
    made = detector_model()
    assert made.scaler is not None
    edge_rnn.save(made, folder / "plant.safetensors")
    rng = np.random.default_rng(3)
    z = 0.2 * rng.normal(size=(ROWS, 3))
    z[100:120, 0] += 30
    values = made.scaler.mean + z * made.scaler.std
    values[200:220, 2] = values[200, 2]
    times = T0 + np.arange(ROWS) * SECOND
    times[300:] += 100 * SECOND
    labels = np.zeros(ROWS, int)
    labels[95:118] = 1
    rows = [
        f"{t / 1e9:.0f},{a!r},{b!r},{c!r},{label}"
        for t, (a, b, c), label in zip(times.tolist(), values.tolist(), labels, strict=True)
    ]
    path = folder / "plant.csv"
    path.write_text(f"time,{','.join(NAMES)},bad\n" + "\n".join(rows) + "\n")
    return folder / "plant.safetensors", path, values


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main(["replay", *map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def strict_json(text: str) -> Any:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_the_engine_gives_the_bits_of_the_library(plant) -> None:
    _, data, _ = plant
    table = read_table(data, channels=NAMES)
    made = detector_model()
    result = replay(made, table)
    expected = Detector(made).run(table.times_ns, table.values)
    assert result.judged.all()
    for name in ("score", "threshold", "expected"):
        assert getattr(result, name).tobytes() == expected[name].tobytes()
    assert (result.status == expected["status"]).all()
    assert (result.alarm == expected["alarm"]).all()
    assert result.alarm.any()
    assert not result.alarm.all()


def test_a_model_without_a_detector_is_refused_before_the_data_is_read(tmp_path, capsys) -> None:
    edge_rnn.save(dataclasses.replace(detector_model(), detector=None), tmp_path / "steps.safetensors")
    assert main(["replay", str(tmp_path / "steps.safetensors"), "no-such.csv"]) == 78
    assert "steps.safetensors: no detector section, so there are no verdicts" in capsys.readouterr().err


def test_a_configuration_is_not_taken_for_a_broken_model(tmp_path, capsys) -> None:
    config = tmp_path / "pump.toml"
    config.write_text('[[stream]]\nname = "pump"\n')
    assert main(["replay", str(config), "no-such.csv"]) == 78
    assert "pump.toml: this is a configuration; expected a model file" in capsys.readouterr().err


def test_the_summary(plant, capsys) -> None:
    model_file, data, _ = plant
    code, out, err = call(capsys, model_file, data, "--labels", "bad")
    assert code == 0
    assert err == ""
    assert "rows      400, 2024-05-01T10:00:00Z to 2024-05-01T10:08:19Z" in out
    assert re.search(r"samples   400 in \d+\.\d\d s \([\d,]+ samples/s, [\d,]+ times real time\)", out)
    assert re.search(r"2024-05-01T10:01:4\dZ to 2024-05-01T10:0\d:\d\dZ  peak .* flow \d+%", out)
    assert "stuck: temp" not in out
    assert "stuck: level" in out
    assert "silent: flow, temp </script>, level" in out
    assert "1 of 1 labelled event(s) found, 0 false alarm(s)" in out


def test_json(plant, capsys) -> None:
    model_file, data, _ = plant
    code, out, err = call(capsys, model_file, data, "--labels", "bad", "--json", "--events")
    assert (code, err, out.count("\n")) == (0, "", 1)
    summary = strict_json(out)
    assert summary["rows"] == summary["samples"] == ROWS
    assert summary["labels"]["found"] == 1
    assert 0 < summary["labels"]["f1"] <= 1
    assert summary["counters"]["silent"] == 1
    assert [f["kind"] for f in summary["faults"]] == ["stuck", "silent"]
    assert summary["faults"][1]["start_ns"] == T0 + (299 + 30) * SECOND
    alarm = summary["alarms"][0]
    assert T0 + 100 * SECOND <= alarm["start_ns"] <= alarm["peak_ns"] < alarm["end_ns"]
    assert next(iter(alarm["shares"])) == "flow"
    assert sum(alarm["shares"].values()) == pytest.approx(1)
    assert {"open", "close"} <= {e["type"] for e in summary["events"]}
    # A fault has no score: null, never NaN.
    assert all(e["peak"] is None for e in summary["events"] if e["kind"] == "stuck")


def test_without_labels_and_without_alarms(tmp_path, capsys) -> None:
    edge_rnn.save(detector_model(), tmp_path / "m.safetensors")
    (tmp_path / "d.csv").write_text("time,a,b,c\n" + "".join(f"{i},{i % 3},1.{i},2.{i}\n" for i in range(4)))
    code, out, _ = call(
        capsys, tmp_path / "m.safetensors", tmp_path / "d.csv", "--channels", "a,b,c", "--json"
    )
    assert code == 0
    summary = strict_json(out)
    assert summary["labels"] is None
    assert summary["alarms"] == []
    code, out, _ = call(
        capsys, tmp_path / "m.safetensors", tmp_path / "d.csv", "--channels", "a,b,c", "--events"
    )
    assert "alarms    0" in out
    assert "events    0" in out


def test_rows_that_come_twice_late_or_incomplete() -> None:
    made = detector_model()
    values = np.random.default_rng(0).normal(size=(6, 3))
    values[2] = np.nan
    values[3, 1] = np.nan
    times = np.array([0, 1, 2, 3, 3, 1], np.int64) * SECOND + T0
    result = replay(made, Table(times, values, NAMES, None, "time"))
    # The second row at 3 s brings the value the first one lacked: a sample of its own, shown at that time.
    assert result.judged.tolist() == [True, True, False, True, False, False]
    assert result.counters.samples == 4
    assert result.counters.duplicate == 2
    assert result.counters.late == 3
    assert np.isnan(result.score[2])


def test_judge() -> None:
    alarm = np.array([0, 1, 1, 0, 0, 1, 0, 0, 1, 0], bool)
    label = np.array([0, 0, 1, 1, 0, 0, 0, 1, 0, 0], bool)
    found = judge(alarm, label)
    assert (found.f1, found.precision, found.recall) == (2 / 7, 1 / 4, 1 / 3)
    assert (found.far, found.mar) == (3 / 7, 2 / 3)
    assert (found.labelled, found.found, found.false_alarms) == (2, 1, 2)
    nothing = judge(np.zeros(3, bool), np.zeros(3, bool))
    assert np.isnan([nothing.f1, nothing.precision, nothing.recall, nothing.mar]).all()
    assert nothing.far == 0
    perfect = judge(label, label)
    assert (perfect.f1, perfect.far, perfect.mar, perfect.found, perfect.false_alarms) == (1, 0, 0, 2, 0)


def test_runs() -> None:
    assert runs(np.array([1, 1, 0, 1], bool)) == [(0, 2), (3, 4)]
    assert runs(np.zeros(0, bool)) == []


def test_alarms_put_events_together() -> None:
    def event(kind: str, at: int, peak: float, threshold: float) -> Event:
        return Event(
            kind,
            "1",
            "replay",
            "anomaly",
            5,
            at,
            at if kind == "close" else None,
            peak,
            threshold,
            peak,
            at,
            (),
        )  # type: ignore[arg-type]

    found = alarms([event("open", 5, 1.0, 0.5), event("update", 6, 3.0, 0.6), event("close", 9, 3.0, 0.7)])
    assert len(found) == 1
    assert (found[0].start_ns, found[0].end_ns, found[0].peak, found[0].threshold) == (5, 9, 3.0, 0.5)


# --- pictures


def test_png(plant, tmp_path, capsys) -> None:
    need.module("matplotlib")
    model_file, data, _ = plant
    path = tmp_path / "out.PNG"
    code, out, err = call(capsys, model_file, data, "--labels", "bad", "--plot", path)
    assert (code, err) == (0, "")
    assert str(path) in out
    picture = path.read_bytes()
    assert picture.startswith(b"\x89PNG\r\n")
    assert len(picture) > 20_000


def page_data(page: str) -> Any:
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)
    assert script is not None
    data = re.search(r"^const D = (.*);$", script[1], re.MULTILINE)
    assert data is not None
    return strict_json(data[1])


def test_html_stands_alone(plant, tmp_path, capsys, monkeypatch) -> None:
    # No matplotlib is needed for it.
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    model_file, data, values = plant
    path = tmp_path / "out.html"
    code, _, err = call(capsys, model_file, data, "--labels", "bad", "--plot", path)
    assert (code, err) == (0, "")
    page = path.read_text(encoding="utf-8")
    assert not re.search(r"https?://|src=|<link|@import|url\(", page)
    # The channel named </script> ends nothing.
    assert page.count("</script>") == 1
    shown = page_data(page)
    assert shown["title"] == "plant.csv · plant"
    assert [c["name"] for c in shown["channels"]] == list(NAMES)
    np.testing.assert_allclose(shown["channels"][0]["reading"], values[:, 0], rtol=1e-5)
    assert len(shown["t"]) == len(shown["score"]) == ROWS
    assert shown["score"][0] is None
    assert [s["name"] for s in shown["spans"]] == ["labelled", "fault", "alarm"]
    assert shown["spans"][0]["at"] == [[T0 / 1e6 + 95_000, T0 / 1e6 + 117_000]]
    assert "{{" not in page


def test_a_long_recording_is_thinned_without_losing_its_peaks() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=100_001)
    values[[777, 54_321]] = [50.0, -50.0]
    values[1000:2000] = np.nan
    when, what = replay_plot._envelope(np.arange(100_001), values)
    assert len(when) <= 2 * 1601
    assert (np.diff(when) >= 0).all()
    assert np.nanmax(what) == 50.0
    assert np.nanmin(what) == -50.0
    assert set(when[what == 50.0]) == {777}


def test_a_long_page_keeps_the_highest_scores(tmp_path) -> None:
    rows = 70_001
    made = detector_model()
    assert made.scaler is not None
    z = 0.2 * np.random.default_rng(5).normal(size=(rows, 3))
    z[54_321] += 40
    table = Table(np.arange(rows) * SECOND, made.scaler.mean + z * made.scaler.std, NAMES, None, "time")
    result = replay(made, table)
    replay_plot.draw(tmp_path / "a.html", result, list(NAMES), "t")
    shown = page_data((tmp_path / "a.html").read_text())
    assert len(shown["t"]) <= replay_plot.MOST_POINTS + 2
    assert max(s for s in shown["score"] if s is not None) == float(f"{np.nanmax(result.score):.6g}")
    assert shown["t"][-1] == (rows - 1) * 1000


def test_of_many_channels_the_worst_are_drawn(tmp_path) -> None:
    made = model(40, spec(40, warmup=0))
    assert made.scaler is not None
    z = 0.2 * np.random.default_rng(5).normal(size=(200, 40))
    z[150:, 33] += 30
    values = made.scaler.mean + z * made.scaler.std
    names = [i.name for i in made.inputs]
    result = replay(made, Table(np.arange(200) * SECOND, values, tuple(names), None, "time"))
    replay_plot.draw(tmp_path / "a.html", result, names, "t")
    shown = [c["name"] for c in page_data((tmp_path / "a.html").read_text())["channels"]]
    assert len(shown) == replay_plot.MOST_CHANNELS
    assert "x33" in shown


# --- the terminal, and what goes wrong


def test_progress_goes_to_a_terminal_only(plant, capsys, monkeypatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    code, out, _ = call(capsys, *plant[:2], "--json")
    assert code == 0
    strict_json(out)
    assert "rows" in terminal.getvalue()


def test_errors_are_one_line_with_an_exit_code(plant, tmp_path, capsys) -> None:
    model_file, data, _ = plant
    still = tmp_path / "still.safetensors"
    edge_rnn.save(dataclasses.replace(detector_model(), detector=None), still)
    (tmp_path / "other.csv").write_text("time,flwo,level\n0,1,2\n1,2,3\n")
    cases: list[tuple[list[object], int, str]] = [
        ([model_file, data, "--plot", "a.svg"], 65, ".png or .html"),
        ([model_file, tmp_path / "none.csv"], 65, "cannot be read"),
        ([model_file, tmp_path / "other.csv"], 65, "no such column 'flow'; did you mean 'flwo'"),
        ([model_file, data, "--labels", "badd"], 65, "did you mean 'bad'"),
        ([model_file, data, "--channels", "flow"], 65, "expected 3 column(s)"),
        ([model_file, data, "--labels", "flow"], 65, "never an input"),
        ([model_file, data, "--delimiter", "ab"], 65, "delimiter"),
        ([model_file, data, "--plot", tmp_path / "no" / "a.html"], 65, "cannot be written"),
        ([still, data], 78, "no detector section"),
        ([data, data], 78, "plant.csv"),
    ]
    for words, expected, text in cases:
        code, out, err = call(capsys, *words)
        assert (code, out) == (expected, ""), words
        assert text in err
        assert err.count("\n") == 1, err


def test_a_png_without_matplotlib_names_the_extra(plant, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err = call(capsys, *plant[:2], "--plot", tmp_path / "a.png")
    assert code == 69
    assert "edge-rnn[plot]" in err


@pytest.mark.parametrize("suffix", ["png", "html"])
def test_one_row_or_constant_values_can_be_drawn(tmp_path, suffix: str) -> None:
    if suffix == "png":
        need.module("matplotlib")
    made = detector_model()
    for rows in (1, 3):
        table = Table(np.arange(rows) * SECOND, np.zeros((rows, 3)), NAMES, np.zeros(rows, bool), "time")
        replay_plot.draw(tmp_path / f"a.{suffix}", replay(made, table), list(NAMES), "title")
        assert (tmp_path / f"a.{suffix}").stat().st_size > 1000
