"""NAB, the office temperature before and while its system fails: one channel, hourly, ten months.

Every labelled window must raise an alarm that opens inside it; at most three alarms may open elsewhere.
"""

from __future__ import annotations

import json
import sys

import numpy as np

from edge_rnn.calibrate import without_network
from tests.support import need
from tests.training.scoring import in_alarm, runs

FILE = "realKnownCause/ambient_temperature_system_failure.csv"
TRAIN_ROWS = 2000
MOST_FALSE = 3


def test_every_window_raises_an_alarm_and_few_others_do(capsys):
    need.torch()
    folder = need.data("nab")
    from edge_rnn.training.data import read_tables
    from edge_rnn.training.fit import train

    (table,) = read_tables([folder / "data" / FILE])
    texts = json.loads((folder / "labels" / "combined_windows.json").read_text())[FILE]
    windows = [[int(np.datetime64(t.replace(" ", "T"), "ns").astype(np.int64)) for t in w] for w in texts]
    assert len(windows) == 2
    assert windows[0][0] > table.times_ns[TRAIN_ROWS], "the training rows must lie before the first failure"
    model = train(table, rows=TRAIN_ROWS)

    def judge(judged):
        opened = [int(table.times_ns[start]) for start, _ in runs(in_alarm(judged, table))]
        found = [any(a <= t <= b for t in opened) for a, b in windows]
        return found, [t for t in opened if not any(a <= t <= b for a, b in windows)]

    found, false = judge(model)
    plain, plain_false = judge(without_network(model))
    with capsys.disabled():
        sys.stdout.write(f"\nNAB ambient temperature: windows found {found}, false alarms {len(false)}\n")
        sys.stdout.write(f"  no RNN: windows found {plain}, false alarms {len(plain_false)}\n")
    assert all(found)
    assert len(false) <= MOST_FALSE
