"""Recorded tables to training rows: contiguous stretches, checked, with a report of what was found.

A network that carries its state must never be led over a gap or from one file into the next as if nothing
had happened. Every file is therefore cut where time jumps, and each stretch is trained and judged on its
own. The last part of every stretch is held back from training: the early stop looks at its first half, and
scorers and thresholds are calibrated on all of it, because residuals on rows the network has learned are
too small (a threshold from them alarms all day).

What makes a detector silently wrong is an error here, with the remedy in the message: a channel that never
changes, a channel without readings, label columns among the inputs, too few rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_rnn.errors import DataError
from edge_rnn.files.readings import LABEL_NAMES, Table, read_table

# The guard of a trained detector starts afresh after the same pause.
GAP_PERIODS = 10
MIN_ROWS = 100
MIN_STRETCH = 24
TEST_FROM = 5000
TEST_SHARE = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """Contiguous rows: times_ns (T,) int64 rising, values (T, C) float64, NaN where missing."""

    times_ns: NDArray[np.int64]
    values: NDArray[np.float64]

    def __len__(self) -> int:
        return int(self.times_ns.size)


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """What there is to train on.

    channels: C names. stretches: the rows. period_ns: the usual time between two rows (median).
    labelled: rows that a label column calls anomalous, or None where there was no such column.
    notes: what was found, one line each, for people.
    """

    channels: tuple[str, ...]
    stretches: tuple[Stretch, ...]
    period_ns: int
    labelled: int | None
    notes: tuple[str, ...]

    @property
    def rows(self) -> int:
        """All rows."""
        return sum(len(stretch) for stretch in self.stretches)

    @property
    def values(self) -> NDArray[np.float64]:
        """All rows (T, C), stretch behind stretch."""
        return np.concatenate([stretch.values for stretch in self.stretches])


def read_tables(
    paths: Sequence[str | Path],
    *,
    time: str | None = None,
    channels: Sequence[str] | None = None,
    labels: Sequence[str] = (),
    delimiter: str | None = None,
) -> list[Table]:
    """Read CSV or NDJSON files that all have the same channels; label columns are never among them.

    Args:
        paths: the files.
        time, channels, delimiter: as in `read_table`; `channels` None takes every column with numbers.
        labels: label columns. The first is read (to say how many rows it calls anomalous), all are kept
            out of the channels, and so is every column that is a label by its name.

    Raises:
        DataError: a file cannot be read, a label column does not exist or is asked for as a channel, or
            the files' channels differ.
    """
    tables: list[Table] = []
    for name in channels or ():
        if name in labels or name.casefold() in LABEL_NAMES:
            raise DataError(
                f"channel {name!r} is a label column and never an input; leave it out of --channels"
            )
    for path in paths:
        file = Path(path).name
        table = read_table(path, time, channels, labels[0] if labels else None, delimiter)
        keep = [i for i, name in enumerate(table.channels) if name not in labels]
        for name in labels[1:]:
            if channels is None and name not in table.channels and name.casefold() not in LABEL_NAMES:
                raise DataError(
                    f"{file}: no such label column {name!r}; columns: {', '.join(table.channels)}"
                )
        if not keep:
            raise DataError(f"{file}: only label columns hold numbers; nothing is left to train on")
        names = tuple(table.channels[i] for i in keep)
        if tables and names != tables[0].channels:
            raise DataError(
                f"{file}: expected the channels of the first file ({', '.join(tables[0].channels)}), "
                f"got {', '.join(names)}; name the ones to use with --channels"
            )
        tables.append(
            Table(
                times_ns=table.times_ns,
                values=np.ascontiguousarray(table.values[:, keep]),
                channels=names,
                labels=table.labels,
                time_column=table.time_column,
                notes=tuple(f"file {len(tables) + 1}: {note}" for note in table.notes),
            )
        )
    if not tables:
        raise DataError("expected at least one file to train on, got none")
    return tables


def prepare(tables: Sequence[Table], rows: int | None = None) -> TrainingData:
    """Cut tables into contiguous stretches and check that they can be trained on.

    Args:
        tables: with the same channels.
        rows: use only the first so many rows of each table.

    Raises:
        DataError: too few rows, or a channel that never changes or has no readings.
    """
    if not tables:
        raise DataError("expected at least one table to train on, got none")
    channels = tables[0].channels
    for table in tables:
        if table.channels != channels:
            raise DataError(f"expected the same channels in all tables ({channels}), got {table.channels}")
        if table.times_ns.size > 1 and not (np.diff(table.times_ns) > 0).all():
            raise DataError("expected times that rise strictly; sort the rows by time and drop repeated ones")
    if rows is not None and rows < MIN_ROWS:
        raise DataError(f"rows: expected at least {MIN_ROWS} to train on, got {rows}")
    cut = [(t.times_ns[:rows], t.values[:rows]) for t in tables]
    steps = np.concatenate([np.diff(times) for times, _ in cut])
    total = sum(times.size for times, _ in cut)
    if total < MIN_ROWS:
        raise DataError(f"expected at least {MIN_ROWS} rows to train on, got {total}; record for longer")
    period = max(1, int(np.median(steps)))
    stretches, left_out, longest = [], 0, 0
    for times, values in cut:
        breaks = np.flatnonzero(np.diff(times) > GAP_PERIODS * period) + 1
        longest = max([longest, *np.diff(times)[breaks - 1].tolist()])
        edges = [0, *breaks.tolist(), times.size]
        for start, stop in pairwise(edges):
            if stop - start < MIN_STRETCH:
                left_out += stop - start
            else:
                stretches.append(Stretch(times[start:stop], values[start:stop]))
    kept = sum(len(stretch) for stretch in stretches)
    if kept < MIN_ROWS:
        raise DataError(
            f"expected at least {MIN_ROWS} rows in stretches of {MIN_STRETCH} without a gap, got {kept} of "
            f"{total}; the usual period is {seconds(period)} and a gap is longer than {GAP_PERIODS} of them: "
            "bring the readings to an even period first"
        )
    notes = [note for table in tables for note in table.notes]
    gaps = sum(int((np.diff(times) > GAP_PERIODS * period).sum()) for times, _ in cut)
    if gaps:
        notes.append(
            f"{gaps} gap(s) longer than {GAP_PERIODS} periods, the longest {seconds(longest)}: "
            f"{len(stretches)} stretches, {left_out} row(s) in stretches too short to use"
        )
    marked = [t.labels[:rows].sum() for t in tables if t.labels is not None]
    labelled = int(sum(marked)) if marked else None
    if labelled:
        notes.append(
            f"{labelled} row(s) to train on are labelled anomalous: the model will take them for normal; "
            "train on a part without (--rows)"
        )
    data = TrainingData(channels, tuple(stretches), period, labelled, tuple(notes))
    _check_channels(data)
    return data


def _check_channels(data: TrainingData) -> None:
    values = data.values
    finite = np.isfinite(values)
    for i, name in enumerate(data.channels):
        seen = values[finite[:, i], i]
        if seen.size == 0:
            raise DataError(f"channel {name!r} has no readings at all; leave it out (--channels)")
        if seen.size < MIN_ROWS // 2:
            raise DataError(
                f"channel {name!r} has {seen.size} reading(s) in {len(values)} rows; expected at least "
                f"{MIN_ROWS // 2}: leave it out (--channels) or record for longer"
            )
        if seen.min() == seen.max():
            raise DataError(
                f"channel {name!r} is always {seen[0]:g} in the rows to train on, so what is normal for it "
                "cannot be learned; leave it out (--channels) or train on rows in which it changes"
            )


def held_back_share(rows: int) -> float:
    """The share of each stretch that is not trained on: 0.4 up to 1,000 rows, 0.2 from 10,000 on.

    The fewer rows, the larger the share: a covariance of the residuals needs a few hundred of them.
    """
    return float(np.interp(np.log10(max(rows, 1)), [3, 4], [0.4, 0.2]))


def held_back_from(data: TrainingData) -> list[int]:
    """Per stretch its first held-back row: what lies before is trained on."""
    share = held_back_share(data.rows)
    return [round(len(stretch) * (1 - share)) for stretch in data.stretches]


def without_test(data: TrainingData) -> tuple[TrainingData, list[int | None]]:
    """The rows to learn and calibrate from, and per stretch of `data` where its test part begins.

    From `TEST_FROM` rows on the last tenth of the recording's longest stretch is kept out of everything, so
    that alarms are counted on rows that set no threshold. With fewer rows each is needed, and there is none.
    """
    starts: list[int | None] = [None] * len(data.stretches)
    if data.rows < TEST_FROM:
        return data, starts
    longest = max(range(len(data.stretches)), key=lambda i: len(data.stretches[i]))
    stretch = data.stretches[longest]
    at = round(len(stretch) * (1 - TEST_SHARE))
    starts[longest] = at
    stretches = list(data.stretches)
    stretches[longest] = Stretch(stretch.times_ns[:at], stretch.values[:at])
    return replace(data, stretches=tuple(stretches)), starts


def seconds(nanoseconds: int) -> str:
    """A duration for people: `250 ms`, `1 s`, `5 min`, `2 h`, `3.5 d`."""
    value = nanoseconds / 1e9
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if value >= size * (1.5 if unit != "s" else 1):
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e3:.3g} ms"
