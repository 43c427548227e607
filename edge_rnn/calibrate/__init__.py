"""From recorded readings to a detector's numbers, without torch: on the device as in training.

    rows = [(times_ns, X), ...]                 contiguous recordings in which nothing was wrong
    condition = conditioning(rows, options)
    scaler = scaling(rows, condition.trend)
    ...                                         train a network on what `condition` makes of the rows
    model = calibrate_detector(model, rows, unseen_from)
    baseline = without_network(model)           the same detector with the network's part off

No function here takes labels.
"""

from edge_rnn.calibrate.fit import (
    Options,
    calibrate_detector,
    conditioning,
    fit_detector,
    limits,
    without_network,
)
from edge_rnn.calibrate.rows import Recording
from edge_rnn.calibrate.statistics import drifting, longest_runs, period, scaling, silent_limit, stuck_limits

__all__ = [
    "Options",
    "Recording",
    "calibrate_detector",
    "conditioning",
    "drifting",
    "fit_detector",
    "limits",
    "longest_runs",
    "period",
    "scaling",
    "silent_limit",
    "stuck_limits",
    "without_network",
]
