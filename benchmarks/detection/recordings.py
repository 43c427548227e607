"""The public sets as recordings: rows, labels, events, and which rows training may see."""

from __future__ import annotations

import ast
import csv
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_rnn.evaluate.intervals import Intervals, flags_of, runs
from edge_rnn.evaluate.nab import probation
from edge_rnn.files.readings import Table, read_table

MINUTE_NS = 60_000_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """One file or channel of a set.

    table: all rows that are streamed, times as recorded. events: labelled rows as (first, last + 1).
    train: the table to train and calibrate on. start: the first row that is judged.
    group: for tables.
    """

    name: str
    group: str
    table: Table
    events: Intervals
    train: Table
    start: int

    @property
    def labels(self) -> NDArray[np.bool_]:
        """(T,) bool."""
        return flags_of(self.events, len(self.table))

    def judged_events(self) -> Intervals:
        """Events that do not end before the first judged row."""
        return [(max(a, self.start) - self.start, b - self.start) for a, b in self.events if b > self.start]


def head(table: Table, rows: int) -> Table:
    """The first `rows` rows, those that the engine would drop (times that do not rise) left out."""
    keep = rising(table.times_ns[:rows])
    return replace(
        table, times_ns=table.times_ns[:rows][keep], values=np.ascontiguousarray(table.values[:rows][keep]),
        labels=None, notes=(),
    )  # fmt: skip


def rising(times_ns: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Rows whose time is later than all before them: those the engine takes."""
    if not len(times_ns):
        return np.zeros(0, np.bool_)
    newest = np.maximum.accumulate(times_ns)
    return np.concatenate([[True], times_ns[1:] > newest[:-1]])


def skab(folder: Path) -> list[Recording]:
    """SKAB (waico/SKAB, GPL-3.0: read in place): the first 400 rows of a file train its model."""
    found = []
    for path in sorted([*folder.glob("other/*.csv"), *folder.glob("valve*/*.csv")]):
        table = read_table(path, labels="anomaly", delimiter=";")
        assert table.labels is not None
        name = f"{path.parent.name}/{path.name}"
        found.append(Recording(name, path.parent.name, table, runs(table.labels), head(table, 400), 400))
    return _some(found, folder, "other/*.csv and valve*/*.csv")


def nab(folder: Path) -> list[Recording]:
    """NAB (numenta/NAB, MIT): the probation, 15 % of a file and at most 750 rows, trains its model."""
    labels = folder / "labels" / "combined_windows.json"
    windows = json.loads(labels.read_text()) if labels.is_file() else {}
    found = []
    for path in sorted((folder / "data").glob("*/*.csv")):
        name = f"{path.parent.name}/{path.name}"
        if name not in windows:
            continue
        table = read_table(path, strict=False)
        start = probation(len(table))
        # As the board does it: by row of equal time, the first one where a time stands there twice.
        at = {time: row for row, time in reversed(list(enumerate(table.times_ns.tolist())))}
        events = [(at[_ns(a)], at[_ns(b)] + 1) for a, b in windows[name]]
        found.append(Recording(name, path.parent.name, table, events, head(table, start), start))
    return _some(found, folder, "data/*/*.csv and labels/combined_windows.json")


def _ns(text: str) -> int:
    moment = datetime.fromisoformat(text).replace(tzinfo=UTC)
    return int(moment.timestamp()) * 10**9 + moment.microsecond * 1000


def smap_msl(folder: Path, columns: str = "telemetry") -> list[Recording]:
    """SMAP and MSL (khundman/telemanom): own training array for each channel, one row a minute (invented).

    columns: `telemetry` takes column 0 alone, `commands` also the command columns that change in training.
    """
    label_file = folder / "labeled_anomalies.csv"
    found: dict[str, Recording] = {}
    if label_file.is_file():
        with (
            np.load(folder / "smap_msl_train_f32.npz") as one,
            np.load(folder / "smap_msl_test_f32.npz") as two,
        ):
            train, test = dict(one), dict(two)
        for row in csv.DictReader(label_file.read_text().splitlines()):
            name = row["chan_id"]
            # One channel stands in the list twice, with the same rows.
            events = [(int(a), int(b) + 1) for a, b in ast.literal_eval(row["anomaly_sequences"])]
            before, after = train[name].astype(np.float64), test[name].astype(np.float64)
            keep = [0]
            if columns == "commands":
                keep += [c for c in range(1, before.shape[1]) if before[:, c].min() < before[:, c].max()]
            channels = tuple("telemetry" if c == 0 else f"command{c}" for c in keep)
            table, fit = _minutes(after[:, keep], channels), _minutes(before[:, keep], channels)
            found[name] = Recording(name, row["spacecraft"], table, sorted(set(events)), fit, 0)
    return _some(
        [found[name] for name in sorted(found)], folder, "labeled_anomalies.csv and smap_msl_*_f32.npz"
    )


def _minutes(values: NDArray[np.float64], channels: tuple[str, ...]) -> Table:
    times = np.arange(len(values), dtype=np.int64) * MINUTE_NS
    return Table(times, np.ascontiguousarray(values), channels, None, "row")


def merlion(folder: Path) -> list[Recording]:
    """Merlion's synthetic files (salesforce/Merlion, BSD-3): the first 30 % of a file trains its model."""
    found = []
    for path in sorted(folder.glob("*_anomaly.csv")):
        table = read_table(path, labels="anomaly")
        assert table.labels is not None
        start = len(table) * 3 // 10
        kind = path.stem.removesuffix("_anomaly").rsplit("_", 1)[1]
        found.append(Recording(path.stem, kind, table, runs(table.labels), head(table, start), start))
    return _some(found, folder, "*_anomaly.csv")


def merlion_sizes(folder: Path, recording: Recording) -> list[float]:
    """The size of each event's first change against the clean base, in spreads of the base's noise.

    The noise is the spread of the base's differences over the square root of 2. This is used to say which
    events count, never by a detector.
    """
    base = read_table(folder / f"{recording.name.removesuffix(f'_{recording.group}_anomaly')}.csv").values[
        :, 0
    ]
    injected = recording.table.values[:, 0] - base
    noise = float(np.diff(base).std()) / 2**0.5
    jump = np.abs(np.diff(injected, prepend=0.0))
    return [float(jump[a]) / noise for a, _ in recording.events]


def _some(found: Sequence[Recording], folder: Path, what: str) -> list[Recording]:
    if not found:
        raise SystemExit(f"{folder}: expected {what}, found none; give the folder of the data set")
    return list(found)


def digest_of(table: Table) -> str:
    """What the rows of a table are, for the cache of trained networks."""
    text = hashlib.sha256(repr(table.channels).encode())
    for part in (table.times_ns, table.values):
        text.update(np.ascontiguousarray(part).tobytes())
    return text.hexdigest()
