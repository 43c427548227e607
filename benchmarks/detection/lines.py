"""Tables of results: a line for each detector, a median and a range over seeds for each measure."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.detection.recipes import Settings
from benchmarks.detection.recordings import Recording
from benchmarks.detection.running import Said
from edge_rnn.evaluate import events, rows
from edge_rnn.evaluate.affiliation import affiliation
from edge_rnn.evaluate.vus import vus_pr

HERE = Path(__file__).parent
RESULTS = HERE / "results"
Board = Callable[[Sequence[Recording], Sequence[Said]], dict[str, float]]


@dataclass(slots=True)
class Line:
    """One detector: a value of each measure for each seed (one for a detector without seeds)."""

    detector: str
    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, measures: dict[str, float]) -> None:
        """The measures of one more seed."""
        for name, value in measures.items():
            self.values.setdefault(name, []).append(value)


def common(recordings: Sequence[Recording], said: Sequence[Said], settings: Settings) -> dict[str, float]:
    """The measures beside every board's: rows and events pooled, curves averaged over files."""
    pooled, found = rows.RowCounts(0, 0, 0, 0), events.EventCounts()
    volumes, near = [], []
    for recording, one in zip(recordings, said, strict=True):
        cut = slice(recording.start, None)
        alarm, labels = one.alarm[cut], recording.labels[cut]
        times = np.maximum.accumulate(recording.table.times_ns)[cut]
        pooled += rows.count(alarm, labels)
        found += events.count(alarm, recording.judged_events(), times, settings.tail, settings.gap)
        if labels.any() and not labels.all():
            volumes.append(vus_pr(one.score[cut], labels, settings.buffer))
            near.append(affiliation(alarm, labels).f1)
    return {
        "F1": pooled.f1, "FAR %": 100 * pooled.far, "MAR %": 100 * pooled.mar,
        "in alarm %": 100 * found.share, "events found %": 100 * found.recall,
        "false alarms a day": found.false_per_day, "median delay, rows": found.median_delay_rows,
        "VUS-PR": _mean(volumes), "affiliation F1": _mean(near),
    }  # fmt: skip


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def table(lines: Sequence[Line], measures: Sequence[str]) -> str:
    """A Markdown table."""
    head = "| detector | " + " | ".join(measures) + " |"
    text = [head, "|---" * (len(measures) + 1) + "|"]
    text += [
        f"| {line.detector} | " + " | ".join(_cell(line.values.get(m, [])) for m in measures) + " |"
        for line in lines
    ]
    return "\n".join(text)


def _cell(values: Sequence[float]) -> str:
    known = [v for v in values if np.isfinite(v)]
    if not known:
        return "–"
    middle = float(np.median(known))
    if _number(min(known)) == _number(max(known)):
        return _number(middle)
    return f"{_number(middle)} ({_number(min(known))} – {_number(max(known))})"


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 2 else f"{value:.1f}"


def write(
    name: str, recordings: Sequence[Recording], settings: Settings, lines: Sequence[Line],
    board: Sequence[str], facts: dict[str, Any],
) -> Path:  # fmt: skip
    """Store one set's results as JSON and make RESULTS.md anew from all there are."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    document = {
        "set": name, "date": datetime.now(UTC).strftime("%Y-%m-%d"), "machine": platform.machine(),
        "python": platform.python_version(), "files": [r.name for r in recordings],
        "rows": sum(len(r.table) for r in recordings),
        "events": sum(len(r.judged_events()) for r in recordings),
        "settings": _stated(settings),
        "compared": list(settings.compared), "board": list(board), "facts": facts,
        "lines": [_plain(asdict(line)) for line in lines],
    }  # fmt: skip
    path.write_text(json.dumps(_plain(document), indent=1, allow_nan=False) + "\n")
    from benchmarks.detection import report

    report.make()
    return path


def _stated(settings: Settings) -> dict[str, Any]:
    """The settings as text, without what has a place of its own."""
    names = [name for name in settings.__slots__ if name not in ("compared", "others")]
    found = {name: getattr(settings, name) for name in names}
    return {name: v if isinstance(v, int | float | str) else repr(v) for name, v in found.items()}


def _plain(value: Any) -> Any:
    """The same without NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return value
