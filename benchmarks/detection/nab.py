"""NAB: its own scoring, (a) one threshold for all files chosen on their labels, (b) alarms by rule.

    python -m benchmarks.detection.nab FOLDER      (FOLDER has data/ and labels/; numenta/NAB, MIT)

(a) takes the verdicts' score, in units of the file's own threshold, as the board takes a detector's score.
(b) takes the row in which an alarm opens as a detection; no label is used.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks.detection import command, recipes, recordings
from benchmarks.detection.recordings import Recording
from benchmarks.detection.running import Said
from edge_rnn.evaluate import nab

MEASURES = ("(a) standard", "(a) low FP", "(a) low FN", "(b) standard", "(b) low FP", "(b) low FN")


def board(files: Sequence[Recording], said: Sequence[Said]) -> dict[str, float]:
    """Final scores of the three profiles."""
    scores = [nab.File(one.score, r.events) for r, one in zip(files, said, strict=True)]
    opened = [(one.opened, r.events) for r, one in zip(files, said, strict=True)]
    best = [nab.optimize(scores, profile).score for profile in nab.PROFILES]
    rule = [nab.score_detections(opened, profile).score for profile in nab.PROFILES]
    return dict(zip(MEASURES, best + rule, strict=True))


def main(argv: Sequence[str] | None = None) -> int:
    args = command.arguments(__doc__, argv)
    command.run(
        "nab", "NAB ((a) threshold chosen on the labels, as its board does; (b) by rule)",
        recordings.nab(args.folder), recipes.NAB, board, MEASURES, args,
        damaged=("(a) standard", "(b) standard"),
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
