"""Row by row: the outlier protocol of SKAB (Katser & Kozitsin, "Skoltech Anomaly Benchmark", 2020).

Counts of several files are pooled by adding them before any ratio is taken, as the board does.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_rnn.evaluate.intervals import Flags, ratio


@dataclass(frozen=True, slots=True)
class RowCounts:
    """Rows by alarm and label: hit, false, missed, quiet; add them to pool files."""

    hit: int
    false: int
    missed: int
    quiet: int

    def __add__(self, other: RowCounts) -> RowCounts:
        return RowCounts(
            self.hit + other.hit, self.false + other.false,
            self.missed + other.missed, self.quiet + other.quiet,
        )  # fmt: skip

    @property
    def precision(self) -> float:
        """The part of the rows in alarm that is labelled; NaN without an alarm."""
        return ratio(self.hit, self.hit + self.false)

    @property
    def recall(self) -> float:
        """The part of the labelled rows that is in alarm; NaN without labels."""
        return ratio(self.hit, self.hit + self.missed)

    @property
    def f1(self) -> float:
        """TP / (TP + (FP + FN) / 2)."""
        return ratio(2 * self.hit, 2 * self.hit + self.false + self.missed)

    @property
    def far(self) -> float:
        """False alarm rate FP / (FP + TN), a fraction."""
        return ratio(self.false, self.false + self.quiet)

    @property
    def mar(self) -> float:
        """Missed alarm rate FN / (FN + TP), a fraction."""
        return ratio(self.missed, self.missed + self.hit)

    @property
    def share(self) -> float:
        """The part of all rows in alarm."""
        return ratio(self.hit + self.false, self.hit + self.false + self.missed + self.quiet)


def count(alarm: Flags, labels: Flags) -> RowCounts:
    """Count rows of alarm (T,) and labels (T,)."""
    hit = int((alarm & labels).sum())
    false = int(alarm.sum()) - hit
    missed = int(labels.sum()) - hit
    return RowCounts(hit, false, missed, len(alarm) - hit - false - missed)
