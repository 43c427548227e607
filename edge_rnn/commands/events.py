"""`edge-rnn events`: the history of alarms and faults, from the daemon's database.

The database is read beside the running daemon, which is not disturbed. A table for people, or one JSON object
a line (`--json`), or CSV (`--csv`), each for the same choice of events, newest first.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import re
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_rnn.detect.verdict import FAULT_KINDS
from edge_rnn.errors import ConfigError, printable
from edge_rnn.files.config_walk import nearest, parse_duration
from edge_rnn.files.text import length_text, offset_text
from edge_rnn.files.time_column import BadTimeError, guess, parse
from edge_rnn.service.store_history import EventFilter, read_history
from edge_rnn.stream.types import Event

if TYPE_CHECKING:
    from rich.text import Text

_SECOND = 1_000_000_000
_COLUMNS = (
    "id", "stream", "kind", "start", "end", "start_ns", "end_ns", "duration_s", "peak", "peak_time",
    "peak_ns", "threshold", "shares",
)  # fmt: skip
_RIGHT, _KIND = (1, 4, 5), 3
_WHEN = 'a duration back from now ("2h", "7d") or a time ("2026-05-01 10:00")'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `edge-rnn events`."""
    parser.epilog = """\
examples:
  edge-rnn events pump.toml --since 1d
  edge-rnn events pump.toml --open
  edge-rnn events edge-rnn.db --stream 'pumps/*' --kind anomaly --csv > alarms.csv"""
    parser.add_argument("source", metavar="SOURCE", help="the daemon's configuration (.toml) or its database")
    parser.add_argument("--stream", metavar="PATTERN", help="only these streams; * and ? stand for any text")
    parser.add_argument(
        "--kind",
        metavar="KIND",
        help=f"anomaly, fault (any), or one of {', '.join(FAULT_KINDS[1:])}",
    )
    parser.add_argument("--since", metavar="WHEN", help=f"not ended before: {_WHEN}")
    parser.add_argument("--until", metavar="WHEN", help="not begun after")
    parser.add_argument("--open", action="store_true", help="only those that have not ended")
    parser.add_argument("--limit", type=int, default=50, metavar="N", help="newest N (default: 50); 0: all")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object a line")
    form.add_argument("--csv", action="store_true", help="CSV with a header")


def run(args: argparse.Namespace) -> int:
    """Print the events chosen; 0, also if there are none."""
    if args.limit < 0:
        raise ConfigError(f"--limit: expected 0 or more, got {args.limit}")
    kinds = ("anomaly", "fault", *FAULT_KINDS[1:])
    if args.kind is not None and args.kind not in kinds:
        hint = nearest(args.kind, kinds)
        raise ConfigError(f"--kind: expected one of {', '.join(kinds)}, got {printable(args.kind)!r}{hint}")
    chosen = EventFilter(
        stream=args.stream,
        kind=args.kind,
        since_ns=_moment(args.since, "--since"),
        until_ns=_moment(args.until, "--until"),
        running=args.open,
        limit=args.limit or None,
    )
    events, damaged = read_history(_database(args.source), chosen)
    if args.json:
        sys.stdout.writelines(json.dumps(_plain(e), ensure_ascii=False) + "\n" for e in events)
    elif args.csv:
        _write_csv(events)
    else:
        _draw(events)
    if damaged:
        sys.stderr.write(f"edge-rnn events: {damaged} row(s) have a wrong checksum and are left out\n")
    return 0


def _database(source: str) -> Path:
    if not source.lower().endswith(".toml"):
        return Path(source)
    from edge_rnn.files.config import store_path

    # Not all of the configuration: who looks at the history need not have the daemon's secrets.
    return store_path(source)


def _moment(text: str | None, option: str) -> int | None:
    """Nanoseconds since 1970 of a duration back from now, or of a time."""
    if text is None:
        return None
    back = parse_duration(text)
    if back is not None:
        return time.time_ns() - back
    form = guess([text])
    # A bare number would be a time in 1970, which nobody means.
    if form is None or re.fullmatch(r"\d{1,8}", text):
        raise ConfigError(f"{option}: expected {_WHEN}, got {printable(text)!r}")
    try:
        return int(parse([text], form)[0])
    except BadTimeError as error:
        raise ConfigError(f"{option}: expected {_WHEN}, got {printable(text)!r}: {error}") from None


def _iso(time_ns: int | None) -> str | None:
    if time_ns is None:
        return None
    seconds, rest = divmod(time_ns, _SECOND)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{rest // 1_000_000:03d}Z"


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _plain(event: Event) -> dict[str, Any]:
    return {
        "id": event.id,
        "stream": event.stream,
        "kind": event.kind,
        "start": _iso(event.start_ns),
        "end": _iso(event.end_ns),
        "start_ns": event.start_ns,
        "end_ns": event.end_ns,
        "duration_s": None if event.end_ns is None else (event.end_ns - event.start_ns) / _SECOND,
        "peak": _number(event.peak),
        "peak_time": _iso(event.peak_ns),
        "peak_ns": event.peak_ns,
        "threshold": _number(event.threshold),
        "shares": {name: _number(share) for name, share in event.shares},
    }


def _write_csv(events: list[Event]) -> None:
    writer = csv.DictWriter(sys.stdout, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for event in events:
        row = _plain(event)
        row["shares"] = " ".join(
            name if s is None else f"{name}={s:.3f}" for name, s in row["shares"].items()
        )
        writer.writerow(row)


def _draw(events: list[Event]) -> None:
    from rich.console import Console

    console = Console()
    if not events:
        console.print("no events")
        return
    for line in _lines(events):
        console.print(line, soft_wrap=True)
    running = sum(e.end_ns is None for e in events)
    console.print(f"{len(events)} event(s), {running} still open; times in UTC", style="dim")


def _lines(events: list[Event]) -> Iterator[Text]:
    """A heading and a line an event, in columns as wide as they need to be."""
    from rich.text import Text

    rows = [("start", "lasted", "stream", "kind", "peak", "limit", "because of"), *map(_row, events)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for number, row in enumerate(rows):
        cells = [
            f"{cell:>{width}}" if column in _RIGHT else f"{cell:<{width}}"
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        line = Text("  ".join(cells).rstrip(), "bold" if number == 0 else "")
        if number:
            event = events[number - 1]
            start = sum(widths[:_KIND]) + 2 * _KIND
            style = (
                "dim" if event.end_ns is not None else "bold red" if event.kind == "anomaly" else "magenta"
            )
            line.stylize(style, start, start + len(event.kind))
        yield line


def _row(event: Event) -> tuple[str, ...]:
    lasted = "open" if event.end_ns is None else length_text((event.end_ns - event.start_ns) / _SECOND)
    return (
        (_iso(event.start_ns) or "")[:19].replace("T", " "), lasted,
        printable(event.stream) or "(the daemon)", event.kind, _told(event, event.peak),
        _told(event, event.threshold), printable(_reasons(event)),
    )  # fmt: skip


def _told(event: Event, value: float) -> str:
    """A peak or limit in the unit of the event's kind."""
    if event.kind == "clock" and math.isfinite(value):
        return f"{'-' if value < 0 else ''}{length_text(abs(value))}"
    return _figure(value)


def _figure(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else ""


def _reasons(event: Event) -> str:
    """What is to blame, in the words of the event's kind."""
    blamed = ", ".join(
        name if math.isnan(share) else f"{name} {share:.0%}"
        for name, share in event.shares[:3]
        if not share <= 0
    )
    if event.kind == "clock" and math.isfinite(event.peak):
        return f"{offset_text(event.peak)} the clock: {blamed}"
    if event.kind == "flapping":
        return f"{blamed or 'the alarm'}, {_figure(event.peak)} changes a minute"
    return blamed
