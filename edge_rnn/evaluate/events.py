"""Event by event: what was found, how late, and what was raised for nothing.

An event counts as found if an alarm is on at some time from its first row to `tail` rows after its last one.
A false alarm is a stretch of alarm that touches no event and no tail. Two counts are never given apart: an
alarm that is always on finds every event, so the share of time in alarm and the false alarms a day stand
beside the recall.

The delay of a found event runs from its first row to the first row of alarm inside it; an alarm that was on
before the event has delay 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_rnn.evaluate.intervals import Flags, Intervals, flags_of, merged, ratio, runs

_DAY_NS = 86_400e9


@dataclass(frozen=True, slots=True)
class EventCounts:
    """Counts of one or more recordings.

    labelled, found: events. false: stretches of alarm that touch no event. rows, rows_in_alarm: judged rows.
    days: time judged. delay_rows, delay_ns: of each found event.
    """

    labelled: int = 0
    found: int = 0
    false: int = 0
    rows: int = 0
    rows_in_alarm: int = 0
    days: float = 0.0
    delay_rows: tuple[int, ...] = ()
    delay_ns: tuple[int, ...] = ()

    def __add__(self, other: EventCounts) -> EventCounts:
        return EventCounts(
            self.labelled + other.labelled, self.found + other.found, self.false + other.false,
            self.rows + other.rows, self.rows_in_alarm + other.rows_in_alarm, self.days + other.days,
            self.delay_rows + other.delay_rows, self.delay_ns + other.delay_ns,
        )  # fmt: skip

    @property
    def recall(self) -> float:
        """Found events of all; NaN where nothing is labelled."""
        return ratio(self.found, self.labelled)

    @property
    def share(self) -> float:
        """The part of the judged rows in alarm."""
        return ratio(self.rows_in_alarm, self.rows)

    @property
    def false_per_day(self) -> float:
        """False alarms a day of recorded time; NaN without time."""
        return ratio(self.false, self.days)

    @property
    def median_delay_rows(self) -> float:
        """Median delay of the found events in rows; NaN where none was found."""
        return float(np.median(self.delay_rows)) if self.delay_rows else float("nan")

    @property
    def median_delay_ns(self) -> float:
        """The same in nanoseconds."""
        return float(np.median(self.delay_ns)) if self.delay_ns else float("nan")


@dataclass(frozen=True, slots=True)
class Matched:
    """Which event and which stretch of alarm is which.

    events: (first, last + 1, row of the first alarm or None) of each labelled event, in order.
    false: stretches of alarm that touch no event and no tail.
    """

    events: tuple[tuple[int, int, int | None], ...]
    false: tuple[tuple[int, int], ...]


def match(alarm: Flags, labels: Flags | Sequence[tuple[int, int]], tail: int = 0, gap: int = 0) -> Matched:
    """Match stretches of alarm (T,) with events.

    Args:
        alarm: (T,) bool.
        labels: (T,) bool, or events as (first, last + 1) in order.
        tail: rows behind an event in which an alarm still counts as finding it.
        gap: labelled stretches with at most so many rows between them are one event.
    """
    stretches = merged(runs(labels) if isinstance(labels, np.ndarray) else list(labels), gap)
    rows = len(alarm)
    on = np.append(np.flatnonzero(alarm), rows)
    events: list[tuple[int, int, int | None]] = []
    for a, b in stretches:
        first = int(on[np.searchsorted(on, a)])
        events.append((a, b, first if first < min(b + tail, rows) else None))
    near = flags_of([(a, b + tail) for a, b in stretches], rows)
    false = tuple((a, b) for a, b in runs(alarm) if not near[a:b].any())
    return Matched(tuple(events), false)


def count(
    alarm: Flags,
    labels: Flags | Sequence[tuple[int, int]],
    times_ns: NDArray[np.int64],
    tail: int = 0,
    gap: int = 0,
) -> EventCounts:
    """Count events of one recording; arguments as in `match`, times_ns (T,) rising."""
    matched = match(alarm, labels, tail, gap)
    delays = [
        (first - a, int(times_ns[first] - times_ns[a])) for a, _, first in matched.events if first is not None
    ]
    span = int(times_ns[-1] - times_ns[0]) if len(times_ns) > 1 else 0
    # The last row lasts as long as the usual one.
    usual = float(np.median(np.diff(times_ns))) if len(times_ns) > 1 else 0.0
    return EventCounts(
        labelled=len(matched.events),
        found=len(delays),
        false=len(matched.false),
        rows=len(alarm),
        rows_in_alarm=int(alarm.sum()),
        days=(span + usual) / _DAY_NS,
        delay_rows=tuple(rows for rows, _ in delays),
        delay_ns=tuple(ns for _, ns in delays),
    )


@dataclass(frozen=True, slots=True)
class SequenceCounts:
    """telemanom's counts of sequences; add them to pool channels. Never given without the share in alarm."""

    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __add__(self, other: SequenceCounts) -> SequenceCounts:
        return SequenceCounts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def precision(self) -> float:
        """tp / (tp + fp); NaN without an alarm."""
        return ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """tp / (tp + fn)."""
        return ratio(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float:
        """The harmonic mean of both."""
        return ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)


def sequences(alarm: Flags, events: Intervals) -> SequenceCounts:
    """Hundman et al., "Detecting spacecraft anomalies using LSTMs", KDD 2018, section 4.2, of one channel.

    A predicted sequence that overlaps no labelled one is one FP, a labelled one that is overlapped one TP,
    else one FN. Overlapping labels stay apart, as in `labeled_anomalies.csv`.
    """
    found = sum(bool(alarm[a:b].any()) for a, b in events)
    inside = flags_of(events, len(alarm))
    false = sum(not inside[a:b].any() for a, b in runs(alarm))
    return SequenceCounts(found, false, len(events) - found)
