"""`edge-rnn evaluate`: a detector against labels, beside rules that need none, and a page of every event."""

from __future__ import annotations

import argparse
import difflib
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_rnn.commands.evaluate_run import Evaluation, Line, evaluate
from edge_rnn.commands.replay import _progress
from edge_rnn.errors import ConfigError, DataError, ModelFileError
from edge_rnn.files.labels import flags, read_windows
from edge_rnn.files.load import load
from edge_rnn.files.readings import Table, read_table

_SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `edge-rnn evaluate`."""
    parser.epilog = """\
Labels are a column of DATA with 0 and 1, or a file: a CSV with the columns start and end, a JSON list of
[start, end], or NAB's combined_windows.json. An event is found if an alarm is on between its first and its
last row (--tail lets it come later). Beside the detector stand the same one without its network, simple
rules, and an alarm that is always on.

example:
  edge-rnn evaluate pump.safetensors monday.csv --labels anomaly --rows 5000 --html monday.html"""
    add = parser.add_argument
    add("model", metavar="MODEL", help="model file with a detector")
    add("data", metavar="DATA", help="CSV with a header, or NDJSON")
    add(
        "--labels",
        required=True,
        metavar="LABELS",
        help="a column of DATA, or a CSV or JSON file of stretches",
    )
    add(
        "--rows",
        type=int,
        default=0,
        metavar="N",
        help="the model was trained on the first N rows: not judged",
    )
    add("--train", metavar="DATA", help="what the model was trained on; simple rules are fitted to it")
    add("--time", metavar="COLUMN", help="the time column; default: found by name or content")
    add("--channels", metavar="A,B,...", help="columns for the model's inputs; default: their names")
    add("--delimiter", metavar="C", help="one character, or tab; default: found")
    add(
        "--tail",
        type=int,
        default=0,
        metavar="ROWS",
        help="an alarm so many rows behind an event finds it, too",
    )
    add("--gap", type=int, default=0, metavar="ROWS", help="events at most so many rows apart are one")
    add("--json", action="store_true", help="print everything as JSON")
    add("--html", metavar="FILE", help="write a page with a picture of every event: found, missed, false")


def run(args: argparse.Namespace) -> int:
    """Replay, measure, print, and write the page."""
    for name, value in (("--rows", args.rows), ("--tail", args.tail), ("--gap", args.gap)):
        if value < 0:
            raise ConfigError(f"{name}: expected a number of rows, got {value}")
    page = None if args.html is None else Path(args.html)
    if page is not None and (page.is_dir() or not page.parent.is_dir()):
        raise ConfigError(f"--html: expected a file in a folder that exists, got {args.html}")
    model = load(args.model)
    if model.detector is None:
        raise ModelFileError(
            f"{args.model}: no detector section, so there is nothing to evaluate; "
            "train a detector with edge-rnn train"
        )
    names = [i.name for i in model.inputs]
    columns = names if args.channels is None else [c.strip() for c in args.channels.split(",")]
    if len(columns) != len(names):
        raise DataError(
            f"--channels: expected {len(names)} column(s) for {', '.join(names)}, got {len(columns)}"
        )
    table, labels, notes = _labelled(args, columns)
    if args.rows >= len(table):
        raise DataError(f"--rows: expected fewer than the {len(table)} rows of {args.data}, got {args.rows}")
    if not labels[args.rows :].any():
        notes.append("no row that is judged is labelled: there is nothing to find, only false alarms")
    train = None if args.train is None else read_table(args.train, args.time, columns, None, args.delimiter)
    with _progress(len(table)) as advance:
        found = evaluate(
            model, table, labels, start=args.rows, train=train, tail=args.tail, gap=args.gap, progress=advance
        )
    notes += found.notes
    judged = found.model.events
    if judged.false and judged.days < 1:
        notes.append(f"false/day is extrapolated: only {duration(judged.days * 86_400e9)} were judged")
    if page is not None:
        from edge_rnn.commands.evaluate_page import write

        # How the file was read is for the terminal; the page is for those who did not read it.
        plain = [note for note in notes if not note.startswith("delimiter ")]
        write(page, found, names, f"{Path(args.data).name} · {model.name}", plain)
    if args.json:
        sys.stdout.write(json.dumps(_clean(_summary(found, notes)), allow_nan=False) + "\n")
    else:
        lines = _lines(found, notes)
        lines += [] if page is None else [f"page      {page}"]
        sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _labelled(args: argparse.Namespace, columns: list[str]) -> tuple[Table, NDArray[np.bool_], list[str]]:
    """The data, its labels, and notes; a label file is only looked for where no column has that name."""
    given = Path(args.labels)
    if given.suffix.lower() in (".csv", ".json") or given.is_file():
        table = read_table(args.data, args.time, columns, None, args.delimiter, strict=False)
        labels, outside = flags(read_windows(given, args.data), table.times_ns, given.name)
        notes = list(table.notes)
        if outside:
            notes.append(f"{outside} labelled stretch(es) meet no row of the data and are left out")
        return table, labels, notes
    try:
        table = read_table(args.data, args.time, columns, args.labels, args.delimiter, strict=False)
    except DataError as error:
        if "no such label column" in str(error):
            near = difflib.get_close_matches(given.name, [p.name for p in given.parent.glob("*")], n=1)
            hint = f"; did you mean the file {near[0]}?" if near else ""
            raise DataError(f"--labels: {error}; and there is no file {args.labels}{hint}") from None
        raise
    assert table.labels is not None
    return table, table.labels, list(table.notes)


def _summary(found: Evaluation, notes: list[str]) -> dict[str, Any]:
    times = found.result.table.times_ns

    def when(row: int) -> int:
        return int(times[min(row, len(times) - 1)])

    return {
        "rows": len(found.result.table),
        "first_judged_row": found.start,
        "events": [
            {"start_ns": when(a), "end_ns": when(b - 1), "found_ns": None if f is None else when(f),
             "delay_rows": None if f is None else f - a}
            for a, b, f in found.matched.events
        ],
        "false_alarms": [{"start_ns": when(a), "end_ns": when(b - 1)} for a, b in found.matched.false],
        "detectors": [_numbers(line) for line in found.lines],
        "notes": notes,
    }  # fmt: skip


def _numbers(line: Line) -> dict[str, Any]:
    m = line.measures
    return {
        "name": line.name, "limit": line.limit,
        "f1": m.rows.f1, "precision": m.rows.precision, "recall": m.rows.recall, "far": m.rows.far,
        "mar": m.rows.mar, "events": m.events.labelled, "found": m.events.found,
        "false_alarms": m.events.false, "false_alarms_per_day": m.events.false_per_day,
        "median_delay_seconds": m.events.median_delay_ns / 1e9,
        "median_delay_rows": m.events.median_delay_rows, "share_in_alarm": m.events.share,
        "vus_pr": m.vus_pr, "affiliation_precision": m.affiliation_precision,
        "affiliation_recall": m.affiliation_recall, "affiliation_f1": m.affiliation_f1,
        "range_f1": m.range_f1,
    }  # fmt: skip


def _clean(value: Any) -> Any:
    """The same without NaN, which JSON does not have: null instead."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    return [_clean(item) for item in value] if isinstance(value, list | tuple) else value


HEAD = ("found", "false/day", "delay", "in alarm", "F1", "FAR", "MAR", "VUS-PR", "affil. F1")


def cells(line: Line) -> tuple[str, ...]:
    """The cells of one line under `HEAD`."""
    m = line.measures
    return (
        f"{m.events.found}/{m.events.labelled}", number(m.events.false_per_day, 1),
        duration(m.events.median_delay_ns), percent(m.events.share), number(m.rows.f1), percent(m.rows.far),
        percent(m.rows.mar), number(m.vus_pr), number(m.affiliation_f1),
    )  # fmt: skip


def number(value: float, digits: int = 3) -> str:
    """A number, or a dash where there is none."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def percent(value: float) -> str:
    """A share in percent."""
    return "-" if math.isnan(value) else f"{100 * value:.1f} %"


def duration(nanoseconds: float) -> str:
    """A time for people."""
    if math.isnan(nanoseconds):
        return "-"
    seconds = nanoseconds / 1e9
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def _lines(found: Evaluation, notes: list[str]) -> list[str]:
    table = found.result.table
    judged = len(table) - found.start
    labelled = int(found.labels[found.start :].sum())
    lines = [f"note      {note}" for note in notes]
    lines += [
        f"rows      {judged} judged of {len(table)}; {labelled} labelled",
        "",
    ]
    rows = [("", *HEAD), *((line.name, *cells(line)) for line in found.lines)]
    widths = [max(len(row[c]) for row in rows) for c in range(len(rows[0]))]
    lines += [
        row[0].ljust(widths[0])
        + "".join("  " + cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]
    lines.append("")
    times = table.times_ns
    for word, spans in (
        ("found", [(a, b, f - a) for a, b, f in found.matched.events if f is not None]),
        ("missed", [(a, b, None) for a, b, f in found.matched.events if f is None]),
        ("false", [(a, b, None) for a, b in found.matched.false]),
    ):
        for a, b, delay in spans[:_SHOWN]:
            span = f"{stamp(int(times[a]))} to {stamp(int(times[b - 1]))}"
            lines.append(f"{word:<9} {span}" + ("" if delay is None else f"  after {delay} row(s)"))
        lines += [f"{word:<9} ... and {len(spans) - _SHOWN} more"] * (len(spans) > _SHOWN)
    return lines


def stamp(time_ns: int) -> str:
    """UTC, to the second, or to the millisecond where there is a fraction."""
    return f"{np.datetime64(time_ns, 'ns').astype('M8[ms]' if time_ns % 10**9 else 'M8[s]')}Z"
