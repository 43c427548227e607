"""SKAB, pooled over the labelled development files: default settings, no label ever looked at in training.

Protocol of the board: per file one model from its first 400 rows, every later row is scored, predictions of
all files are pooled. The floor is the best published LSTM on these data (LSTM autoencoder, F1 0.74).
"""

from __future__ import annotations

import sys

import numpy as np
import pytest

from edge_rnn.calibrate import without_network
from tests.support import need
from tests.training.scoring import count, in_alarm, skab_files

TRAIN_ROWS = 400
FLOOR = 0.74


def test_the_defaults_reach_the_best_published_lstm(capsys):
    need.torch()
    files = skab_files(need.data("skab"))
    if not files:
        pytest.skip("no labelled SKAB file in the data folder")
    from edge_rnn.training.data import read_tables
    from edge_rnn.training.fit import train

    labels, alarms, baseline = [], [], []
    for path in files:
        (table,) = read_tables([path], labels=["anomaly", "changepoint"])
        assert len(table.channels) == 8
        model = train(table, rows=TRAIN_ROWS)
        labels.append(table.labels[TRAIN_ROWS:])
        alarms.append(in_alarm(model, table)[TRAIN_ROWS:])
        baseline.append(in_alarm(without_network(model), table)[TRAIN_ROWS:])
    truth = np.concatenate(labels)
    found = count(np.concatenate(alarms), truth)
    with capsys.disabled():
        sys.stdout.write(f"\nSKAB, {len(files)} files, {truth.size} rows, {truth.mean():.1%} anomalous\n")
        sys.stdout.write(f"  all-ones   {count(np.ones_like(truth), truth)}\n")
        sys.stdout.write(f"  no RNN     {count(np.concatenate(baseline), truth)}\n")
        sys.stdout.write(f"  default    {found}\n")
    assert found.f1 >= FLOOR
    # An alarm that is always on has F1 0.70 here: the floor alone would prove little.
    assert found.far < 0.5
