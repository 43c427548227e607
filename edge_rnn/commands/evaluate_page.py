"""The page of `edge-rnn evaluate`: one HTML file with a table, an overview and a picture of every event.

Pictures are SVG inside the page; nothing is loaded from anywhere. Lines are thinned to at most two points a
pixel column (smallest and largest), so no spike goes. An event's picture shows its rows with as many on
either side, each channel with what was expected of it, and score against threshold below.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_rnn.commands.evaluate import HEAD, cells, duration, stamp
from edge_rnn.commands.evaluate_run import Evaluation
from edge_rnn.errors import DataError
from edge_rnn.evaluate.intervals import runs

__all__ = ["write"]

MOST_EVENTS = 60
MOST_CHANNELS = 8
_WIDTH, _PLOT, _LEFT, _GAP = 560, 54, 120, 8
_COLORS = {"found": "#1a7f37", "missed": "#c2410c", "false": "#b91c1c"}
_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2328; margin: 2rem auto; max-width: 78rem;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
p { margin: .3rem 0; } .quiet { color: #59636e; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #d1d9e0; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } tbody tr:first-child { font-weight: 600; }
.wide { overflow-x: auto; }
.events { display: grid; grid-template-columns: repeat(auto-fill, minmax(36rem, 1fr)); gap: 1rem; }
figure { margin: 0; border: 1px solid #d1d9e0; border-radius: 6px; padding: .6rem; }
figcaption { margin-bottom: .3rem; } svg { display: block; width: 100%; height: auto; }
.tag { color: #fff; border-radius: 4px; padding: .05rem .45rem; font-size: .85rem; margin-right: .4rem; }
.key { display: inline-block; width: 1.4rem; height: .65rem; margin: 0 .3rem 0 1rem; }
"""
_KEYS = (
    ("#1f4e79", "reading"), ("#e07b00", "expected"), ("#333333", "score"), ("#c00000", "threshold"),
    ("#cfe8d5", "labelled"), ("#f6c7c7", "alarm"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Picture:
    """One event: its kind, the rows to mark, the rows to show, and the text above."""

    kind: str
    span: tuple[int, int]
    shown: tuple[int, int]
    text: str


def write(path: Path, found: Evaluation, names: list[str], title: str, notes: list[str]) -> None:
    """Write the page.

    Raises:
        DataError: the file cannot be written.
    """
    try:
        path.write_text(_page(found, names, title, notes), encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from None


def _page(found: Evaluation, names: list[str], title: str, notes: list[str]) -> str:
    times = found.result.table.times_ns
    pictures = _pictures(found)
    counts = {kind: sum(p.kind == kind for p in pictures) for kind in _COLORS}
    shown = pictures[:MOST_EVENTS]
    keys = "".join(f'<span class="key" style="background:{c}"></span>{name}' for c, name in _KEYS)
    m = found.model.events
    parts = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1>",
        (
            f'<p class="quiet">{stamp(int(times[found.start]))} to {stamp(int(times[-1]))}, '
            f"{len(times) - found.start:,} rows judged of {len(times):,}</p>"
        ),
        (
            f"<p>{m.found} of {m.labelled} event(s) found, {counts['missed']} missed, {counts['false']} "
            f"false alarm(s); in alarm {100 * m.share:.1f} % of the time.</p>"
        ),
        *(f'<p class="quiet">{html.escape(note)}</p>' for note in notes),
        "<h2>Beside simple rules</h2>",
        _table(found),
        '<p class="quiet">"found" means little without "in alarm": an alarm that is always on finds all.</p>',
        f"<h2>All of it</h2><p>{keys}</p>",
        _overview(found),
        "<h2>Every event</h2>",
    ]
    if len(pictures) > len(shown):
        parts.append(f"<p>The first {len(shown)} of {len(pictures)} are drawn.</p>")
    if not pictures:
        parts.append("<p>Nothing was labelled and no alarm was raised.</p>")
    parts += ['<div class="events">', *(_figure(found, names, p) for p in shown), "</div></html>"]
    return "\n".join(parts)


def _pictures(found: Evaluation) -> list[_Picture]:
    """Missed events and false alarms first: they are what one looks for."""
    rows = len(found.labels)
    times = found.result.table.times_ns

    def picture(kind: str, a: int, b: int, more: str) -> _Picture:
        around = max(b - a, 40)
        text = f"{stamp(int(times[a]))} to {stamp(int(times[b - 1]))}, {b - a} row(s){more}"
        return _Picture(kind, (a, b), (max(0, a - around), min(rows, b + around)), text)

    events = found.matched.events
    return [
        *(picture("missed", a, b, "") for a, b, first in events if first is None),
        *(picture("false", a, b, "") for a, b in found.matched.false),
        *(
            picture(
                "found", a, b, f", alarm after {first - a} row(s), {duration(float(times[first] - times[a]))}"
            )
            for a, b, first in events
            if first is not None
        ),
    ]


def _table(found: Evaluation) -> str:
    head = "".join(f"<th>{html.escape(text)}</th>" for text in ("", *HEAD))
    body = "".join(
        f"<tr><td>{html.escape(line.name)}</td>"
        + "".join(f"<td>{cell}</td>" for cell in cells(line))
        + "</tr>"
        for line in found.lines
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _overview(found: Evaluation) -> str:
    """Score and threshold of all rows, labels and alarms behind."""
    frame = _Frame((0, len(found.labels)), 1100, 90)
    score = _panel(frame, 0, "score", _score_lines(found, (0, len(found.labels))), limit=True)
    marks = _bands(frame, found, 1)
    unjudged = ""
    if found.start:
        right = frame.x(found.start)
        unjudged = f'<rect x="{_LEFT}" y="0" width="{right - _LEFT:.1f}" height="90" fill="#f0f0f0"/>'
    return _svg(1100, 90, unjudged + marks + score)


def _figure(found: Evaluation, names: list[str], picture: _Picture) -> str:
    a, b = picture.shown
    channels = _channels(found, picture)
    frame = _Frame(picture.shown, _WIDTH, _PLOT)
    height = (len(channels) + 1) * (_PLOT + _GAP)
    panels = []
    for n, c in enumerate(channels):
        lines = [
            ("#e07b00", found.result.expected[a:b, c]),
            ("#1f4e79", found.result.table.values[a:b, c]),
        ]
        panels.append(_panel(frame, n * (_PLOT + _GAP), names[c], lines))
    panels.append(
        _panel(frame, len(channels) * (_PLOT + _GAP), "score", _score_lines(found, picture.shown), limit=True)
    )
    left = len(names) - len(channels)
    more = f'<span class="quiet"> {left} more channel(s) not drawn</span>' if left else ""
    return (
        '<figure><figcaption><span class="tag" '
        f'style="background:{_COLORS[picture.kind]}">{picture.kind}</span>'
        f"{picture.text}{more}</figcaption>"
        + _svg(_WIDTH, height, _bands(frame, found, len(panels)) + "".join(panels))
        + "</figure>"
    )


def _channels(found: Evaluation, picture: _Picture) -> list[int]:
    """All channels, or those whose error is largest in the event against the rest."""
    count = found.result.table.values.shape[1]
    if count <= MOST_CHANNELS:
        return list(range(count))
    error = np.abs(np.nan_to_num(found.result.table.values - found.result.expected))
    a, b = picture.span
    rise = error[a:b].max(axis=0) / np.maximum(np.median(error, axis=0), 1e-12)
    return sorted(np.argsort(-rise, kind="stable")[:MOST_CHANNELS].tolist())


Lines = list[tuple[str, NDArray[np.float64]]]


def _score_lines(found: Evaluation, shown: tuple[int, int]) -> Lines:
    a, b = shown
    return [("#333333", found.result.score[a:b]), ("#c00000", found.result.threshold[a:b])]


@dataclass(frozen=True, slots=True)
class _Frame:
    """Rows to pixels."""

    shown: tuple[int, int]
    width: int
    height: int

    def x(self, row: float) -> float:
        a, b = self.shown
        return _LEFT + (row - a) / max(b - a, 1) * (self.width - _LEFT)


def _bands(frame: _Frame, found: Evaluation, panels: int) -> str:
    """Labelled rows and rows in alarm, behind all panels; a strip of each on top stays visible."""
    a, b = frame.shown
    height = panels * (frame.height + _GAP) - _GAP if panels > 1 else frame.height
    bands, strips = [], []
    for flags, color, strip, y in (
        (found.labels, "#cfe8d5", "#1a7f37", 0),
        (found.result.alarm, "#f6c7c7", "#d62728", 4),
    ):
        for first, stop in runs(flags[a:b]):
            x = frame.x(a + first)
            width = max(frame.x(a + stop) - x, 1.5)
            place = f'<rect x="{x:.1f}" width="{width:.1f}"'
            bands.append(f'{place} y="0" height="{height}" fill="{color}" fill-opacity=".6"/>')
            strips.append(f'{place} y="{y}" height="4" fill="{strip}"/>')
    return "".join([*bands, *strips])


def _panel(frame: _Frame, top: int, name: str, lines: Lines, *, limit: bool = False) -> str:
    """One small plot: its name and range on the left, its lines on the right."""
    low, high = _range(lines, limit=limit)
    height = frame.height
    short = name if len(name) <= 15 else name[:14] + "…"
    left = f'<text x="{_LEFT - 8}" text-anchor="end"'
    small = f'{left} font-size="9" fill="#59636e"'
    text = [
        f'{left} y="{top + height / 2 + 4:.0f}" font-size="12">{html.escape(short)}</text>',
        f'{small} y="{top + 12}">{high:.4g}</text>{small} y="{top + height - 2}">{low:.4g}</text>',
        f'<rect x="{_LEFT}" y="{top}" width="{frame.width - _LEFT}" height="{height}" ',
        'fill="none" stroke="#d1d9e0"/>',
    ]
    text += [
        f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.1"/>'
        for color, values in lines
        for points in _points(frame, top, values, low, high)
    ]
    return "".join(text)


def _range(lines: Lines, *, limit: bool) -> tuple[float, float]:
    """What to show: for readings their own range (an expected value may leave it), for scores from 0."""
    kept = [values for _, values in lines] if limit else [lines[-1][1]]
    known = np.concatenate([v[np.isfinite(v)] for v in kept])
    if not known.size:
        return 0.0, 1.0
    low, high = float(known.min()), float(known.max())
    if limit:
        # A peak far above the threshold is cut off, or the threshold could not be seen.
        limits = lines[-1][1][np.isfinite(lines[-1][1])]
        low, high = min(low, 0.0), min(high, 12.0 * float(np.median(limits))) if limits.size else high
    margin = 0.05 * (high - low) or max(abs(high) * 0.05, 1e-6)
    return low - (0.0 if limit else margin), high + margin


def _points(frame: _Frame, top: int, values: NDArray[np.float64], low: float, high: float) -> list[str]:
    """Poly-lines of the finite stretches of values, thinned and cut off at the panel's edges."""
    rows, y = _thinned(values, frame.width - _LEFT)
    scaled = top + frame.height * (1.0 - (np.clip(y, low, high) - low) / (high - low))
    result = []
    for a, b in runs(np.isfinite(y)):
        xs = [frame.x(frame.shown[0] + float(r) + 0.5) for r in rows[a:b]]
        pairs = [f"{x:.1f},{v:.1f}" for x, v in zip(xs, scaled[a:b].tolist(), strict=True)]
        if len(pairs) == 1:
            pairs.append(f"{xs[0] + 1:.1f},{scaled[a]:.1f}")
        result.append(" ".join(pairs))
    return result


def _thinned(values: NDArray[np.float64], columns: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """At most two rows a pixel column, its smallest and its largest value."""
    size = -(-len(values) // columns)
    if size <= 2:
        return np.arange(len(values)), values
    pad = -len(values) % size
    blocks = np.concatenate([values, np.full(pad, np.nan)]).reshape(-1, size)
    low = np.where(np.isnan(blocks), np.inf, blocks).argmin(axis=1)
    high = np.where(np.isnan(blocks), -np.inf, blocks).argmax(axis=1)
    pairs = np.sort(np.stack([low, high], axis=1), axis=1) + (np.arange(len(blocks)) * size)[:, None]
    at = np.minimum(pairs.ravel(), len(values) - 1)
    return at, values[at]


def _svg(width: int, height: int, content: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" '
        f'font-family="system-ui, sans-serif">{content}</svg>'
    )
