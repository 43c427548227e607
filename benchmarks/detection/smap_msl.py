"""SMAP and MSL: events, strictly causal, never without the share of time in alarm.

    python -m benchmarks.detection.smap_msl FOLDER      (labeled_anomalies.csv, smap_msl_{train,test}_f32.npz)

Precision, recall and F1 count sequences as telemanom does; sequences with at most `merge` rows between them
count as one, which is a way of counting and changes no alarm. Rows have no times: a minute each is invented,
so false alarms a day are only to be compared with one another.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from benchmarks.detection import command, recipes, recordings
from benchmarks.detection.recordings import Recording
from benchmarks.detection.running import Said
from edge_rnn.evaluate import events
from edge_rnn.evaluate.intervals import flags_of, merged, runs

MEASURES = ("event precision", "event recall", "event F1", "in alarm %")


def board(channels: Sequence[Recording], said: Sequence[Said]) -> dict[str, float]:
    """telemanom's counting."""
    total = events.SequenceCounts()
    on = rows = 0
    for channel, one in zip(channels, said, strict=True):
        alarm = one.alarm
        if recipes.SMAP_MSL.merge:
            alarm = flags_of(merged(runs(alarm), recipes.SMAP_MSL.merge), len(alarm))
        total += events.sequences(alarm, channel.events)
        on, rows = on + int(np.sum(alarm)), rows + len(alarm)
    return {
        "event precision": total.precision, "event recall": total.recall, "event F1": total.f1,
        "in alarm %": 100 * on / rows,
    }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    args = command.arguments(__doc__, argv)
    settings = recipes.SMAP_MSL
    command.run(
        "smap_msl", "SMAP and MSL (events; causal)", recordings.smap_msl(args.folder, settings.columns),
        settings, board, MEASURES, args,
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
