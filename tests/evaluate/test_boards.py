"""The four commands of benchmarks/detection on a sliver of each set, where the data is there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.detection import lines, recipes, recordings, report, robust, smap_msl
from benchmarks.detection.recordings import Recording, head, rising
from benchmarks.detection.running import Said, always_on, naive_of
from edge_rnn.evaluate.intervals import flags_of
from edge_rnn.files.readings import Table
from tests.support import need

MINUTE = 60_000_000_000


def recording(rows: int = 400, seed: int = 0) -> Recording:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, 2))
    x[300:330] += 8.0
    table = Table(np.arange(rows, dtype=np.int64) * MINUTE, x, ("a", "b"), None, "time")
    return Recording("one.csv", "group", table, [(300, 330)], head(table, 200), 200)


def test_rows_that_do_not_rise_are_left_out():
    times = np.array([1, 2, 2, 5, 3, 6])
    assert rising(times).tolist() == [True, True, False, True, False, True]
    assert rising(times[:0]).size == 0


def test_a_recording_counts_its_judged_part():
    one = recording()
    assert one.labels.sum() == 30
    assert one.judged_events() == [(100, 130)]
    assert len(one.train) == 200
    part = Recording("x", "g", one.table, [(150, 210), (20, 40)], one.train, 200)
    assert part.judged_events() == [(0, 10)]


def test_trivial_lines_are_what_they_say():
    one = recording()
    on = lines.common([one], always_on([one]), recipes.Settings())
    assert (on["in alarm %"], on["events found %"], on["MAR %"]) == (100.0, 100.0, 0.0)
    assert on["F1"] == pytest.approx(2 * 30 / (2 * 30 + 170))
    simple = lines.common([one], naive_of([one]), recipes.Settings())
    assert simple["events found %"] == 100.0
    assert simple["in alarm %"] < 20
    perfect = Said(flags_of([(300, 330)], 400) + 0.0, flags_of([(300, 330)], 400))
    assert lines.common([one], [perfect], recipes.Settings())["F1"] == 1.0
    assert np.flatnonzero(perfect.opened).tolist() == [300]


def test_a_row_that_did_not_come_is_in_the_alarm_before_it():
    one = recording()
    alarm = flags_of([(290, 340)], 400)
    said = Said(np.where(alarm, 2.0, 0.5), alarm)
    whole = smap_msl.board([one], [said])
    gone = np.arange(1, 400, 7)
    said.score[gone], said.alarm[gone] = np.nan, False
    assert smap_msl.board([one], [said]) == whole
    assert whole["event F1"] == 1.0


@pytest.mark.parametrize("damage", robust.DAMAGES.values(), ids=lambda d: d.__name__)
def test_damage_leaves_the_training_part_alone_and_knows_its_rows(damage):
    one = recording()
    table, origin = damage(one, np.random.default_rng(3))
    assert len(table) == len(origin)
    first = origin < 200
    assert np.array_equal(table.times_ns[first], one.table.times_ns[:200])
    assert np.array_equal(table.values[first], one.table.values[:200])
    assert (np.diff(table.times_ns) >= 0).all()
    same = np.isclose(table.values, one.table.values[origin]) | np.isnan(table.values)
    assert same.all()
    changed = len(table) != len(one.table) or (table.times_ns != one.table.times_ns).any()
    assert changed or np.isnan(table.values).sum() == 60


def test_the_report_repeats_what_was_stored(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(report, "HERE", tmp_path)
    line = lines.Line("both")
    for value in (0.8, 0.9, 0.85):
        line.add({"F1": value, "VUS-PR": float("nan")})
    settings = recipes.Settings(compared=("a against b: b",))
    lines.write(
        "skab", [recording()], settings, [line], ["F1"], {"title": "T", "Seeds": "3", "List": ["x: 1"]}
    )
    text = (tmp_path / "RESULTS.md").read_text()
    for piece in ("## T", "0.850 (0.800 – 0.900)", "* a against b: b", "one.csv", "* x: 1", "– |"):
        assert piece in text
    stored = json.loads((tmp_path / "results" / "skab.json").read_text())
    assert stored["lines"][0]["values"]["VUS-PR"] == [None, None, None]


def test_stored_results_have_what_the_page_needs():
    """RESULTS.md in the tree is what the stored JSON files make."""
    if not any(lines.RESULTS.glob("*.json")):
        pytest.fail("no stored results")
    for path in lines.RESULTS.glob("*.json"):
        document = json.loads(path.read_text())
        assert document["files"]
        assert document["compared"]
        assert "point" not in " ".join(document["board"])
        assert document["files"][0] in (report.HERE / "RESULTS.md").read_text()


SETS = (("skab", "skab"), ("nab", "nab"), ("smap_msl", "smap_msl"), ("merlion", "merlion_synth"))


@pytest.mark.parametrize(("name", "folder"), SETS)
def test_a_sliver_of_each_board(name: str, folder: str, tmp_path: Path, capsys, monkeypatch):
    """One file, one seed, two epochs: the whole path from the data's folder to the table."""
    need.torch()
    data = need.data(folder)
    from dataclasses import replace
    from importlib import import_module

    module = import_module(f"benchmarks.detection.{name}")
    # A long setting has a module of its own, from which the command takes it by name.
    holder = module if hasattr(module, name.upper()) else recipes
    chosen = getattr(holder, name.upper())
    quick = replace(chosen, recipe=replace(chosen.recipe, epochs=2, hidden=min(chosen.recipe.hidden, 8)))
    monkeypatch.setattr(holder, name.upper(), quick)
    before = {p: p.stat().st_mtime_ns for p in lines.RESULTS.glob("*")}
    words = [str(data), "--only", "1", "--seeds", "1", "--quick", "--cache", str(tmp_path)]
    assert module.main(words) == 0
    out = capsys.readouterr().out
    for detector in ("as set", "seasonal naive", "always on"):
        assert f"| {detector}" in out
    assert "VUS-PR" in out
    assert list(tmp_path.glob("*.safetensors")), "the network is kept"
    assert {p: p.stat().st_mtime_ns for p in lines.RESULTS.glob("*")} == before


@pytest.mark.parametrize(("name", "folder"), SETS)
def test_the_sets_are_read_as_they_are(name: str, folder: str):
    found = getattr(recordings, name)(need.data(folder))
    assert len({r.name for r in found}) == len(found) >= 10
    for one in found:
        assert len(one.train) >= 100
        assert all(0 <= a < b <= len(one.table) for a, b in one.events)


def test_a_folder_without_the_set_is_said(tmp_path):
    for name, _ in SETS:
        with pytest.raises(SystemExit, match="found none"):
            getattr(recordings, name)(tmp_path)


def test_what_was_said_of_damaged_rows_finds_its_place():
    """A row that came twice counts as it came first; one that did not come says nothing."""
    heard = Said(np.array([0.1, 0.2, np.nan, 0.4]), np.array([False, True, False, True]))
    placed = robust._placed(heard, np.array([0, 2, 2, 4]), 5)
    np.testing.assert_array_equal(placed.score, [0.1, np.nan, 0.2, np.nan, 0.4])
    assert placed.alarm.tolist() == [False, False, True, False, True]
    assert (
        robust._change([(70.0, 69.0), (70.0, 71.5), (70.0, 66.0)])
        == "70.0 -> 69.0 (-1.0, draws -4.0 to +1.5)"
    )
