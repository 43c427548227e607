"""Verdicts of the quantised network on the labelled SKAB development files agree with the float network's."""

from __future__ import annotations

import numpy as np
import pytest

from edge_rnn.detect.detector import Detector
from edge_rnn.detect.integer import IntegerDetector, quantize_on
from tests.support import need

TRAIN_ROWS = 400


def test_verdicts_agree_on_skab() -> None:
    need.torch()
    folder = need.data("skab")
    files = sorted(path for part in ("other", "valve2") for path in (folder / part).glob("*.csv"))
    if not files:
        pytest.skip("no labelled SKAB file in the data folder")
    from edge_rnn.training.data import read_tables
    from edge_rnn.training.fit import train

    same, alarms = [], []
    for path in files[::6]:
        (table,) = read_tables([path], labels=["anomaly", "changepoint"])
        model = train(table, rows=TRAIN_ROWS)
        exact = Detector(model).run(table.times_ns, table.values)
        ours = IntegerDetector(quantize_on(model, table.values[:TRAIN_ROWS])).run(
            table.times_ns, table.values
        )
        same.append((ours["status"] == exact["status"]) & (ours["alarm"] == exact["alarm"]))
        alarms.append(exact["alarm"])
    assert np.concatenate(alarms).any()
    assert np.concatenate(same).mean() >= 0.999
