"""Scores of verdicts against labels, and the public files they are taken on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.model import Model
from edge_rnn.detect.detector import Detector
from edge_rnn.files.readings import Table


@dataclass(frozen=True)
class Counts:
    """Rows: anomalous and in alarm (tp), normal and in alarm (fp), and so on."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def f1(self) -> float:
        return self.tp / (self.tp + (self.fp + self.fn) / 2)

    @property
    def far(self) -> float:
        """False alarm rate."""
        return self.fp / (self.fp + self.tn)

    @property
    def mar(self) -> float:
        """Missed alarm rate."""
        return self.fn / (self.fn + self.tp)

    def __str__(self) -> str:
        return f"F1 {self.f1:.3f}, FAR {self.far:.1%}, MAR {self.mar:.1%}"


def count(alarm: NDArray[np.bool_], label: NDArray[np.bool_]) -> Counts:
    return Counts(
        int((alarm & label).sum()), int((alarm & ~label).sum()),
        int((~alarm & label).sum()), int((~alarm & ~label).sum()),
    )  # fmt: skip


def in_alarm(model: Model, table: Table) -> NDArray[np.bool_]:
    """Per row whether the alarm is on, the whole table read as one stream from a cold start."""
    return np.asarray(Detector(model).run(table.times_ns, table.values)["alarm"] == 1)


def runs(alarm: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """(first, last) row of each alarm."""
    edges = np.flatnonzero(np.diff(np.r_[False, alarm, False].astype(np.int8)))
    for start, stop in edges.reshape(-1, 2):
        yield int(start), int(stop) - 1


def skab_files(folder: Path) -> list[Path]:
    """The labelled development files, in a fixed order."""
    return sorted(p for part in ("other", "valve2") for p in (folder / part).glob("*.csv"))
