"""Public data through the whole product: trained, sent over a real broker, scored by the daemon, judged."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import real_input
from tests.support import need
from tests.support.mosquitto import Mosquitto


def test_skab_is_detected_better_than_the_published_lstm(tmp_path: Path) -> None:
    """Thresholds from training rows only; 0.74 is the best published LSTM (SKAB's board, LSTM-AE)."""
    folder = need.data("skab")
    need.torch()
    recordings = real_input.skab(folder)
    with Mosquitto(tmp_path) as broker:
        report = real_input.run(recordings, "127.0.0.1", broker.port)
    sys.stdout.write("\n" + real_input.table(report) + "\n")
    assert report.scored == report.readings == sum(len(r.table) for r in recordings)
    ours, baseline, always = report.lines
    assert ours.f1 >= 0.74
    assert ours.f1 > always.f1
    assert baseline.f1 > always.f1
    assert ours.far < 0.4
    assert ours.found >= 0.9 * ours.events


def test_every_window_of_nabs_ambient_temperature_raises_an_alarm(tmp_path: Path) -> None:
    folder = need.data("nab")
    need.torch()
    recordings = real_input.nab(folder)
    with Mosquitto(tmp_path) as broker:
        report = real_input.run(recordings, "127.0.0.1", broker.port)
    sys.stdout.write("\n" + real_input.table(report) + "\n")
    assert report.scored == report.readings
    ours = report.lines[0]
    assert ours.found == ours.events == 2
    assert ours.false_alarms <= 3
