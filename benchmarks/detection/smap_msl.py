"""SMAP and MSL: events, strictly causal, never without the share of time in alarm.

    python -m benchmarks.detection.smap_msl FOLDER      (labeled_anomalies.csv, smap_msl_{train,test}_f32.npz)

Precision, recall and F1 count sequences as telemanom does; sequences with at most `merge` rows between them
count as one, which is a way of counting and changes no alarm. Rows have no times: a minute each is invented,
so false alarms a day are only to be compared with one another. A channel reported as stuck is a report: it
counts as an alarm while it lasts, in every measure.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.detection import command, recordings
from benchmarks.detection.recordings import Recording
from benchmarks.detection.running import Said
from benchmarks.detection.smap_setting import SMAP_MSL
from edge_rnn.evaluate import events
from edge_rnn.evaluate.intervals import flags_of, merged, runs

MEASURES = ("event precision", "event recall", "event F1", "in alarm %")


def _lasting(said: Said) -> NDArray[np.bool_]:
    """(T,) bool: the alarm; a row of which nothing was said, as it did not come, is in the one before it."""
    spoken = said.alarm | ~np.isnan(said.score)
    last = np.maximum.accumulate(np.where(spoken, np.arange(len(spoken)), 0))
    return said.alarm[last]


def board(channels: Sequence[Recording], said: Sequence[Said]) -> dict[str, float]:
    """telemanom's counting."""
    total = events.SequenceCounts()
    on = rows = 0
    for channel, one in zip(channels, said, strict=True):
        alarm = _lasting(one)
        if SMAP_MSL.merge:
            alarm = flags_of(merged(runs(alarm), SMAP_MSL.merge), len(alarm))
        total += events.sequences(alarm, channel.events)
        on, rows = on + int(np.sum(alarm)), rows + len(alarm)
    return {
        "event precision": total.precision, "event recall": total.recall, "event F1": total.f1,
        "in alarm %": 100 * on / rows,
    }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    args = command.arguments(__doc__, argv)
    settings = SMAP_MSL
    command.run(
        "smap_msl", "SMAP and MSL (events; causal)", recordings.smap_msl(args.folder, settings.columns),
        settings, board, MEASURES, args, damaged=("event F1",),
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
