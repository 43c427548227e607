"""A detector beside the rules that need none, on labelled rows: the numbers of `edge-rnn evaluate`.

Every line is causal: the detector is the daemon's engine over the recorded rows, the others are

    same detector, no network   the scorers of the readings alone, as the model file has them
    no-RNN MEWMA                the default rule fitted to given training rows, where there are any
    seasonal naive / persistence, and an alarm that is always on

Rows the model was trained on are streamed (the state needs them) and not judged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge_rnn.calibrate import Options, calibrate_detector, without_network
from edge_rnn.commands.replay_run import Replay, replay
from edge_rnn.core.model import Model
from edge_rnn.errors import EdgeRnnError, ModelFileError
from edge_rnn.evaluate import events
from edge_rnn.evaluate.measures import Measures, measure
from edge_rnn.evaluate.naive import matched_alarm, naive, season_rows
from edge_rnn.files.readings import Table

__all__ = ["Evaluation", "Line", "evaluate"]

ALWAYS_ON = "always on"


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """One detector: its name, its measures, and how its limit was found."""

    name: str
    measures: Measures
    limit: str


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Everything that was found out.

    result: the detector's replay of all rows. start: the first judged row. labels: (T,) bool. matched: events
    and false alarms, row numbers of the whole table. lines: the detector first. notes: for people.
    """

    result: Replay
    start: int
    labels: NDArray[np.bool_]
    matched: events.Matched
    lines: tuple[Line, ...]
    notes: tuple[str, ...]

    @property
    def model(self) -> Measures:
        """The measures of the detector that was asked about."""
        return self.lines[0].measures


def evaluate(
    model: Model,
    table: Table,
    labels: NDArray[np.bool_],
    *,
    start: int = 0,
    train: Table | None = None,
    tail: int = 0,
    gap: int = 0,
    progress: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Replay `table` and measure against `labels` (T,).

    Args:
        start: the first so many rows were trained on: not judged, and simple rules are fitted to them.
        train: other rows that were trained on, for the same purpose.
        tail, gap: rows, how events are counted, see `edge_rnn.evaluate.events.match`.
    """
    result = replay(model, table, progress)
    times = np.maximum.accumulate(table.times_ns)
    cut = slice(start, None)
    notes: list[str] = []

    def line(name: str, alarm: NDArray[np.bool_], score: NDArray[np.float64] | None, limit: str) -> Line:
        judged = None if score is None else score[cut]
        return Line(name, measure(alarm[cut], judged, labels[cut], times[cut], tail=tail, gap=gap), limit)

    lines = [line(model.name or "model", result.alarm, result.score, "the model file's")]
    share = lines[0].measures.events.share
    spec = model.detector
    if spec is not None and any(s.source == "residual" for s in spec.scorers):
        try:
            bare = replay(without_network(model), table)
            lines.append(line("same detector, no network", bare.alarm, bare.score, "the model file's"))
        except ModelFileError:
            notes.append("no line without the network: none of the detector's scorers looks at the readings")
    known = _rising(table, start) if start else train
    if known is not None:
        try:
            plain = calibrate_detector(
                model, [(known.times_ns, known.values)], None, Options(residual_factor=0.0)
            )
            said = replay(plain, table)
            lines.append(line("no-RNN MEWMA (defaults)", said.alarm, said.score, "training rows"))
        except EdgeRnnError as error:
            notes.append(f"no line for MEWMA: {error}")
    lines.append(_naive_line(table, start, train, share, line))
    lines.append(line(ALWAYS_ON, np.ones(len(table), np.bool_), None, "none"))
    inner = events.match(result.alarm[cut], labels[cut], tail, gap)
    matched = events.Matched(
        tuple((a + start, b + start, None if f is None else f + start) for a, b, f in inner.events),
        tuple((a + start, b + start) for a, b in inner.false),
    )
    return Evaluation(result, start, labels, matched, tuple(lines), tuple(notes))


def _rising(table: Table, rows: int) -> Table:
    """The first rows, without those the engine drops because their time does not rise."""
    times = table.times_ns[:rows]
    keep = np.concatenate([[True], times[1:] > np.maximum.accumulate(times)[:-1]])
    return replace(table, times_ns=times[keep], values=np.ascontiguousarray(table.values[:rows][keep]))


def _naive_line(
    table: Table,
    start: int,
    train: Table | None,
    share: float,
    line: Callable[[str, NDArray[np.bool_], NDArray[np.float64] | None, str], Line],
) -> Line:
    """Seasonal naive, or persistence where the rows to fit to do not hold two days."""
    if start:
        said = naive(table.values, start, season_rows(table.times_ns, start))
        return line(said.name, said.alarm, said.score, "training rows")
    if train is not None:
        rows = len(train)
        said = naive(np.concatenate([train.values, table.values]), rows, season_rows(train.times_ns, rows))
        return line(said.name, said.alarm[rows:], said.score[rows:], "training rows")
    rows = len(table)
    said = naive(table.values, rows, season_rows(table.times_ns, rows))
    return line(said.name, matched_alarm(said.score, share), said.score, "in alarm as long as the model")
