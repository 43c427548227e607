"""`edge-rnn replay`: recorded data through the very same engine as the daemon, faster than real time."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edge_rnn.commands.replay_integer import BACKENDS, compare, prepared
from edge_rnn.commands.replay_run import Alarm, Judgement, Replay, alarms, judge, replay
from edge_rnn.errors import DataError, ModelFileError
from edge_rnn.files.load import load
from edge_rnn.files.readings import read_table

_PLOTS = (".png", ".html")
_SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `edge-rnn replay`."""
    parser.epilog = """\
example:
  edge-rnn replay pump.safetensors monday.csv --labels anomaly --plot monday.html"""
    parser.add_argument("model", metavar="MODEL", help="model file with a detector")
    parser.add_argument("data", metavar="DATA.csv", help="CSV with a header, or NDJSON")
    parser.add_argument("--time", metavar="COLUMN", help="the time column; default: found by name or content")
    parser.add_argument(
        "--channels",
        metavar="A,B,...",
        help="columns for the model's inputs, in their order; default: columns of the inputs' names",
    )
    parser.add_argument(
        "--labels", metavar="COLUMN", help="0/1 column to compare the alarms with; never an input"
    )
    parser.add_argument("--delimiter", metavar="C", help="one character, or tab; default: found")
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        default="float",
        help="the network's arithmetic: float, or the integers of an export with --type w8a16",
    )
    parser.add_argument(
        "--calibrate",
        metavar="DATA.csv",
        help="with w8a16: normal data that ranges and rounding are fitted to; default: what the model knows",
    )
    parser.add_argument("--library", metavar="DIR", help="run the code that edge-rnn build wrote there")
    parser.add_argument("--plot", metavar="FILE", help="draw to FILE.png or FILE.html")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.add_argument("--events", action="store_true", help="print every event as well")


def run(args: argparse.Namespace) -> int:
    """Replay and print the summary."""
    plot = None if args.plot is None else Path(args.plot)
    if plot is not None and plot.suffix.lower() not in _PLOTS:
        raise DataError(f"--plot: expected a file ending in .png or .html, got {args.plot!r}")
    model = load(args.model)
    if model.detector is None:
        raise ModelFileError(
            f"{args.model}: no detector section, so there are no verdicts to replay; "
            "train a detector with edge-rnn train"
        )
    names = [i.name for i in model.inputs]
    columns = names
    if args.channels is not None:
        columns = [c.strip() for c in args.channels.split(",")]
        if len(columns) != len(names):
            raise DataError(
                f"--channels: expected {len(names)} column(s) for {', '.join(names)}, got {len(columns)}"
            )
    table = read_table(args.data, args.time, columns, args.labels, args.delimiter, min_rows=1, strict=False)
    if args.calibrate is not None and args.backend != "w8a16":
        raise DataError("--calibrate: is for --backend w8a16 only; leave it out or choose that backend")
    if args.library is not None and args.backend == "w8a16":
        raise DataError("--library: holds no integer network; leave it out with --backend w8a16")
    report = None
    if args.backend == "w8a16":
        quantized = prepared(model, args.calibrate, columns, args.time)
        exact = replay(model, table)
        with _progress(len(table)) as advance:
            result = replay(model, table, advance, quantized)
        report = compare(model, quantized, exact, result)
    else:
        with _progress(len(table)) as advance:
            result = replay(model, table, advance, library=args.library)
    judgement = None if table.labels is None else judge(result.alarm, table.labels)
    if plot is not None:
        from edge_rnn.commands.replay_plot import draw

        draw(plot, result, names, f"{Path(args.data).name} · {model.name}")
    if args.json:
        summary = _summary(result, judgement, events=args.events)
        if report is not None:
            summary["w8a16"] = report.as_json()
        sys.stdout.write(json.dumps(_clean(summary), allow_nan=False) + "\n")
    else:
        lines = _lines(result, judgement, events=args.events)
        lines += [] if report is None else report.lines()
        sys.stdout.write("\n".join(lines) + "\n")
        if plot is not None:
            sys.stdout.write(f"plot      {plot}\n")
    return 0


@contextmanager
def _progress(rows: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr where that is a terminal, else nothing."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("replay", BarColumn(), MofNCompleteColumn(), "rows", TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("replay", total=rows)
        yield lambda done: bar.update(task, completed=done)


def _summary(result: Replay, judgement: Judgement | None, *, events: bool) -> dict[str, Any]:
    found = alarms(result.events)
    summary: dict[str, Any] = {
        "rows": len(result.table),
        "samples": result.counters.samples,
        "seconds": result.seconds,
        "samples_per_second": result.counters.samples / result.seconds if result.seconds else None,
        "start_ns": int(result.table.times_ns.min()),
        "end_ns": int(result.table.times_ns.max()),
        "alarms": [_entry(a) for a in found if a.kind == "anomaly"],
        "faults": [_entry(a) for a in found if a.kind != "anomaly"],
        "labels": None if judgement is None else asdict(judgement),
        "counters": asdict(result.counters),
        "notes": list(result.table.notes),
    }
    if events:
        summary["events"] = [asdict(e) for e in result.events]
    return summary


def _entry(alarm: Alarm) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "kind": alarm.kind,
        "start": _when(alarm.start_ns),
        "end": None if alarm.end_ns is None else _when(alarm.end_ns),
        "start_ns": alarm.start_ns,
        "end_ns": alarm.end_ns,
    }
    if alarm.kind != "anomaly":
        return entry | {"channels": [name for name, _ in alarm.shares]}
    return entry | {
        "peak": alarm.peak,
        "peak_ns": alarm.peak_ns,
        "threshold": alarm.threshold,
        "shares": dict(alarm.shares),
    }


def _clean(value: Any) -> Any:
    """The same without NaN and infinities, which JSON does not have: null instead."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    return [_clean(item) for item in value] if isinstance(value, (list, tuple)) else value


def _when(time_ns: int) -> str:
    """UTC, to the second, or to the millisecond where there is a fraction."""
    moment = np.datetime64(time_ns, "ns")
    return f"{moment.astype('M8[ms]' if time_ns % 10**9 else 'M8[s]')}Z"


def _lines(result: Replay, judgement: Judgement | None, *, events: bool) -> list[str]:
    table, counters = result.table, result.counters
    span = int(table.times_ns.max()) - int(table.times_ns.min())
    rate = counters.samples / result.seconds if result.seconds else 0.0
    speed = f"{rate:,.0f} samples/s"
    if result.seconds and span:
        speed += f", {span / 1e9 / result.seconds:,.0f} times real time"
    lines = [f"note      {note}" for note in table.notes]
    lines += [
        f"rows      {len(table)}, {_when(int(table.times_ns.min()))} to {_when(int(table.times_ns.max()))}",
        f"samples   {counters.samples} in {result.seconds:.2f} s ({speed})",
    ]
    if counters.duplicate or counters.late:
        lines.append(
            f"dropped   {counters.duplicate} reading(s) with a time that was there already, "
            f"{counters.late} out of order"
        )
    found = alarms(result.events)
    anomalies = [a for a in found if a.kind == "anomaly"]
    faults = [a for a in found if a.kind != "anomaly"]
    lines.append(f"alarms    {len(anomalies)}")
    for alarm in anomalies[:_SHOWN]:
        top = ", ".join(f"{name} {share:.0%}" for name, share in alarm.shares[:3] if share >= 0.01)
        lines.append(
            f"  {_span(alarm)}  peak {alarm.peak:.4g} (threshold {alarm.threshold:.4g})"
            + (f"  {top}" * bool(top))
        )
    lines += [f"  ... and {len(anomalies) - _SHOWN} more"] * (len(anomalies) > _SHOWN)
    lines.append(f"faults    {len(faults)}")
    lines += [
        f"  {_span(fault)}  {fault.kind}: {', '.join(name for name, _ in fault.shares)}"
        for fault in faults[:_SHOWN]
    ]
    lines += [f"  ... and {len(faults) - _SHOWN} more"] * (len(faults) > _SHOWN)
    if judgement is not None:
        j = judgement
        rows = f"F1 {_number(j.f1)}, precision {_number(j.precision)}, recall {_number(j.recall)}"
        lines += [
            f"labels    {rows}, FAR {_percent(j.far)}, MAR {_percent(j.mar)}",
            f"          {j.found} of {j.labelled} labelled event(s) found, {j.false_alarms} false alarm(s)",
        ]
    if events:
        lines.append(f"events    {len(result.events)}")
        lines += [f"  {_when(e.time_ns)}  {e.type:<6}  {e.kind:<10}  {e.id}" for e in result.events]
    return lines


def _span(alarm: Alarm) -> str:
    end = "still on at the end" if alarm.end_ns is None else _when(alarm.end_ns)
    return f"{_when(alarm.start_ns)} to {end}"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f} %"
