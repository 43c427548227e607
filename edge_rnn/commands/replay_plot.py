"""The picture of a replay: readings, what the model expected, score and threshold, alarms, faults, labels.

A `.png` is drawn by matplotlib. An `.html` needs nothing but this file: one page that holds the numbers and
draws them itself, with zoom and values under the pointer; it loads nothing from anywhere.

Long recordings are thinned so that nothing worth seeing goes: per pixel column the smallest and the largest
value (PNG), or per stretch the row with the highest score (HTML).
"""

from __future__ import annotations

import html
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_rnn.commands.replay_run import Replay, alarms, runs
from edge_rnn.errors import DataError, MissingExtraError

__all__ = ["draw"]

MOST_CHANNELS = 12
MOST_POINTS = 20_000
_COLUMNS = 1600
_TEMPLATE = "replay_page.html"
READING, EXPECTED, SCORE, LIMIT = "#1f4e79", "#e07b00", "#333333", "#c00000"
ALARM, FAULT, LABEL = "#d62728", "#9467bd", "#2ca02c"

Spans = list[tuple[int, int]]


def draw(path: Path, result: Replay, names: list[str], title: str) -> None:
    """Draw `result` to `path` (.png or .html).

    Args:
        names: the model's input names.
        title: for people.

    Raises:
        MissingExtraError: a .png without matplotlib.
        DataError: the file cannot be written.
    """
    shown = _channels(result, len(names))
    try:
        if path.suffix.lower() == ".html":
            path.write_text(_page(result, names, shown, title), encoding="utf-8")
        else:
            _png(path, result, names, shown, title)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from None


def _channels(result: Replay, channels: int) -> list[int]:
    """The channels to draw, in the model's order: all, or those whose error rose most above usual."""
    if channels <= MOST_CHANNELS:
        return list(range(channels))
    error = np.abs(np.nan_to_num(result.table.values - result.expected))
    rise = error.max(axis=0) / np.maximum(np.median(error, axis=0), 1e-12)
    return sorted(np.argsort(-rise, kind="stable")[:MOST_CHANNELS].tolist())


def _label_spans(result: Replay) -> Spans:
    labels = result.table.labels
    return [] if labels is None else _spans(result.table.times_ns, labels)


def _spans(times: NDArray[np.int64], flags: NDArray[np.bool_]) -> Spans:
    return [(int(times[a]), int(times[b - 1])) for a, b in runs(flags)]


def _event_spans(result: Replay, *, anomalies: bool) -> Spans:
    end = int(result.table.times_ns.max())
    return [
        (a.start_ns, end if a.end_ns is None else a.end_ns)
        for a in alarms(result.events)
        if (a.kind == "anomaly") == anomalies
    ]


def _envelope(
    times: NDArray[np.int64], values: NDArray[np.float64], columns: int = _COLUMNS
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """At most two points a column, its smallest and its largest value; NaN where a column has none."""
    if times.size <= 2 * columns:
        return times, values
    size = -(-times.size // columns)
    pad = -times.size % size
    blocks = np.concatenate([values, np.full(pad, np.nan)]).reshape(-1, size)
    rows = np.arange(len(blocks))
    low = np.where(np.isnan(blocks), np.inf, blocks).argmin(axis=1)
    high = np.where(np.isnan(blocks), -np.inf, blocks).argmax(axis=1)
    pairs = np.sort(np.stack([low, high], axis=1), axis=1) + (rows * size)[:, None]
    at = np.minimum(pairs.ravel(), times.size - 1)
    return times[at], values[at]


def _is_wide(score: NDArray[np.float64], threshold: NDArray[np.float64]) -> bool:
    """Whether scores need a logarithmic axis to show the threshold as well as the peaks."""
    known, limits = score[np.isfinite(score)], threshold[np.isfinite(threshold)]
    return bool(known.size and limits.size and known.max() > 20 * np.median(limits) > 0)


def _png(path: Path, result: Replay, names: list[str], shown: list[int], title: str) -> None:
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:
        raise MissingExtraError(
            "a .png plot needs matplotlib: pip install 'edge-rnn[plot]'; a .html plot needs nothing"
        ) from None
    from matplotlib import dates
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    style = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6}
    with mpl.rc_context(style):
        height = 1.25 * len(shown) + 2.9
        figure = Figure(figsize=(13, height), dpi=110)
        FigureCanvasAgg(figure)
        ratios = [1.0] * len(shown) + [1.7]
        axes = figure.subplots(len(ratios), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
        times = result.table.times_ns

        def plot(axis: Any, values: NDArray[np.float64], color: str, width: float) -> None:
            when, what = _envelope(times, values)
            axis.plot(when.astype("M8[ns]"), what, color=color, lw=width, solid_joinstyle="round")

        for axis, channel in zip(axes, shown, strict=False):
            plot(axis, result.expected[:, channel], EXPECTED, 0.9)
            plot(axis, result.table.values[:, channel], READING, 0.8)
            axis.set_ylabel(_short(names[channel]), rotation=0, ha="right", va="center")
            _limit_view(axis, result.table.values[:, channel])
            axis.tick_params(labelsize=7, length=2)
        score = axes[-1]
        plot(score, result.score, SCORE, 0.8)
        plot(score, result.threshold, LIMIT, 1.0)
        score.set_ylabel("score", rotation=0, ha="right", va="center")
        score.tick_params(labelsize=7, length=2)
        if _is_wide(result.score, result.threshold):
            score.set_yscale("log")
            known = result.score[np.isfinite(result.score) & (result.score > 0)]
            score.set_ylim(max(float(np.quantile(known, 0.02)), 1e-12), None)
        spans = [
            (_label_spans(result), LABEL, 0.10, "labelled"),
            (_event_spans(result, anomalies=False), FAULT, 0.25, "fault"),
            (_event_spans(result, anomalies=True), ALARM, 0.20, "alarm"),
        ]
        # A span of one row must still be seen.
        least = max(int((times.max() - times.min()) // 700), 1)
        handles: list[Any] = [
            Line2D([], [], color=READING, label="reading"),
            Line2D([], [], color=EXPECTED, label="expected"),
            Line2D([], [], color=SCORE, label="score"),
            Line2D([], [], color=LIMIT, label="threshold"),
        ]
        for where, color, alpha, label in spans:
            for start, end in where:
                edges = np.array([start, max(end, start + least)]).astype("M8[ns]")
                for axis in axes:
                    axis.axvspan(*edges, color=color, alpha=alpha, lw=0)
                    if label == "labelled":
                        # A strip on top, so that an alarm in front of it does not hide it.
                        axis.axvspan(*edges, ymin=0.94, color=color, alpha=0.8, lw=0)
            if where:
                handles.append(Patch(color=color, alpha=alpha + 0.2, lw=0, label=f"{label} ({len(where)})"))
        locator = dates.AutoDateLocator()
        score.xaxis.set_major_locator(locator)
        score.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
        score.margins(x=0.005)
        figure.align_ylabels(axes)
        score.set_xlabel("UTC", loc="left", fontsize=8)
        heading = figure.suptitle(
            title, x=0.01, y=1 - 0.08 / height, ha="left", va="top", fontsize=11, fontweight="bold"
        )
        legend = figure.legend(
            handles=handles, loc="upper right", ncols=len(handles), frameon=False, fontsize=8,
            bbox_to_anchor=(0.995, 1 - 0.02 / height),
        )  # fmt: skip
        for above in (heading, legend):
            above.set_in_layout(False)
        figure.tight_layout(rect=(0, 0, 1, 1 - 0.35 / height), h_pad=0.3)
        figure.savefig(path, metadata={"Software": None})


def _limit_view(axis: Any, values: NDArray[np.float64]) -> None:
    """Show the readings; an expected value far outside must not flatten them."""
    known = values[np.isfinite(values)]
    if known.size:
        low, high = float(known.min()), float(known.max())
        margin = 0.08 * (high - low) or max(abs(high) * 0.05, 1.0)
        axis.set_ylim(low - margin, high + margin)


def _short(name: str) -> str:
    return name if len(name) <= 22 else name[:21] + "…"


def _page(result: Replay, names: list[str], shown: list[int], title: str) -> str:
    at = _thin(result)
    table = result.table

    def numbers(values: NDArray[np.float64]) -> list[float | None]:
        return [float(f"{v:.6g}") if math.isfinite(v) else None for v in values[at].tolist()]

    data = {
        "title": title,
        # Milliseconds: a JavaScript number holds them exactly.
        "t": [t / 1e6 for t in table.times_ns[at].tolist()],
        "rows": len(table),
        "channels": [
            {
                "name": names[c],
                "reading": numbers(table.values[:, c]),
                "expected": numbers(result.expected[:, c]),
            }
            for c in shown
        ],
        "score": numbers(result.score),
        "threshold": numbers(result.threshold),
        "log": _is_wide(result.score, result.threshold),
        "spans": [
            {"name": name, "color": color, "at": [[a / 1e6, b / 1e6] for a, b in where]}
            for name, color, where in (
                ("labelled", LABEL, _label_spans(result)),
                ("fault", FAULT, _event_spans(result, anomalies=False)),
                ("alarm", ALARM, _event_spans(result, anomalies=True)),
            )
        ],
        "colors": {"reading": READING, "expected": EXPECTED, "score": SCORE, "threshold": LIMIT},
    }
    # A name such as "</script>" must not end the script it stands in.
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    parts = {"title": html.escape(title), "data": text}
    page = (Path(__file__).parent / _TEMPLATE).read_text(encoding="utf-8")
    return re.sub(r"\{\{(title|data)\}\}", lambda m: parts[m[1]], page)


def _thin(result: Replay) -> NDArray[np.intp]:
    """Rows to show: all, or for each stretch its first row and the one with the highest score."""
    rows = len(result.table)
    if rows <= MOST_POINTS:
        return np.arange(rows)
    size = -(-2 * rows // MOST_POINTS)
    starts = np.arange(0, rows, size)
    score = np.concatenate([result.score, np.full(-rows % size, np.nan)]).reshape(-1, size)
    best = np.where(np.isnan(score), -np.inf, score).argmax(axis=1) + starts
    return np.unique(np.concatenate([starts, best, [rows - 1]]))
