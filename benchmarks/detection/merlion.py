"""Merlion synthetic: trained on the first 30 % of each file; every event is to be found, false alarms rare.

    python -m benchmarks.detection.merlion FOLDER      (salesforce/Merlion, data/synthetic_anomaly, BSD-3)

An event is found if an alarm is on from its start to 20 rows after its end; labels at most 20 rows apart are
one event; a false alarm is a stretch of alarm that touches no event and no such tail. Rows behind the first
30 % are judged. A level event counts from 1.5 spreads of the noise on; trend labels, single rows whose slope
changes by less than the noise, are reported and not part of the target.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.detection import command, recordings
from benchmarks.detection.lines import Board
from benchmarks.detection.merlion_setting import MERLION
from benchmarks.detection.recordings import Recording
from benchmarks.detection.running import Said
from edge_rnn.evaluate import events
from edge_rnn.evaluate.intervals import merged

KINDS = ("spike", "dip", "shock", "level", "trend")
LEAST_LEVEL = 1.5
MEASURES = (
    *(f"{kind} found %" for kind in KINDS),
    "most false alarms in a file",
    "false alarms",
    "in alarm %",
)


def board_of(folder: Path, files: Sequence[Recording]) -> Board:
    """The board, with the sizes of level steps read from the folder's clean bases."""
    settings = MERLION
    small = {
        r.name: {e for e, size in zip(r.events, recordings.merlion_sizes(folder, r), strict=True)
                 if r.group == "level" and size < LEAST_LEVEL}
        for r in files
    }  # fmt: skip

    def board(chosen: Sequence[Recording], said: Sequence[Said]) -> dict[str, float]:
        found = dict.fromkeys(KINDS, 0)
        labelled = dict.fromkeys(KINDS, 0)
        false = []
        for recording, one in zip(chosen, said, strict=True):
            alarm = one.alarm[recording.start :]
            matched = events.match(alarm, recording.judged_events(), settings.tail, settings.gap)
            # The events are joined before they count; one counts if any of its parts does.
            large = [e for e in recording.events if e not in small[recording.name] and e[1] > recording.start]
            spans = merged([(max(a, recording.start), b) for a, b in large], settings.gap)
            hits = events.match(one.alarm, spans, settings.tail).events
            if recording.group in found:
                labelled[recording.group] += len(hits)
                found[recording.group] += sum(first is not None for *_, first in hits)
            false.append(len(matched.false))
        parts = {f"{k} found %": 100 * found[k] / labelled[k] for k in KINDS if labelled[k]}
        return parts | {"most false alarms in a file": max(false), "false alarms": float(sum(false))}

    return board


def main(argv: Sequence[str] | None = None) -> int:
    args = command.arguments(__doc__, argv)
    files = recordings.merlion(args.folder)
    board = board_of(args.folder, files)
    command.run(
        "merlion", "Merlion synthetic (trained on the first 30 % of each file)", files, MERLION,
        board, MEASURES, args,
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
