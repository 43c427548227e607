"""SKAB, outlier protocol of its board: first 400 rows train, one model a file, rows behind them pooled.

    python -m benchmarks.detection.skab FOLDER      (FOLDER has other/ and valve2/; waico/SKAB, GPL-3.0)

The threshold comes from training rows alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks.detection import command, recipes, recordings
from benchmarks.detection.recordings import Recording
from benchmarks.detection.running import Said

MEASURES = ("F1", "FAR %", "MAR %")


def board(_recordings: Sequence[Recording], _said: Sequence[Said]) -> dict[str, float]:
    """F1, FAR and MAR are among the measures that every set has."""
    return {}


def main(argv: Sequence[str] | None = None) -> int:
    args = command.arguments(__doc__, argv)
    title = "SKAB (outliers; threshold from training rows only)"
    command.run("skab", title, recordings.skab(args.folder), recipes.SKAB, board, MEASURES, args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
