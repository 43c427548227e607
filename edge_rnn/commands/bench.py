"""`edge-rnn bench`: what the runtime does on this machine: a table, a picture, or JSON.

The JSON of a run on a board is what `benchmarks/device.py` of the repository collects.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edge_rnn.bench.inputs import BUNDLED
from edge_rnn.bench.measure import Options, measure
from edge_rnn.bench.report import Conditions, Latency, Report, encode
from edge_rnn.errors import ConfigError, EdgeRnnError

if TYPE_CHECKING:
    from rich.table import Table

_LONGEST_S = 3600.0
_MOST_HZ = 1e5
_MOST_STREAMS = 100_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `edge-rnn bench`."""
    parser.epilog = """\
  edge-rnn bench pump.safetensors --plot pump.png
  edge-rnn bench pump.safetensors --library pump-library

The second measures the code that edge-rnn build compiled ahead of time, and its start without a compiler; the
outputs must have the same hash either way."""
    parser.add_argument("model", metavar="MODEL", nargs="?", help="model file; default: the demo's")
    parser.add_argument(
        "--library", metavar="DIR", help="measure the code of a library that edge-rnn build made"
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="for each measurement; default 2")
    parser.add_argument(
        "--rates", default="1,10,100", metavar="HZ,...", help="paced readings; default 1,10,100"
    )
    parser.add_argument("--streams", default="1,8,64,512", metavar="N,...", help="default 1,8,64,512")
    parser.add_argument("--no-start", action="store_true", help="do not measure starts (they take longest)")
    parser.add_argument("--plot", metavar="OUT.png", help="draw the histograms of the latencies")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> int:
    """Measure and print; wrong output bits end with exit code 70, after the report."""
    plot = None if args.plot is None else Path(args.plot)
    if plot is not None and plot.suffix.lower() != ".png":
        raise ConfigError(f"--plot: expected a file ending in .png, got {args.plot!r}")
    if not 0 < args.seconds <= _LONGEST_S:
        raise ConfigError(f"--seconds: expected more than 0, at most {_LONGEST_S:g}, got {args.seconds}")
    options = Options(
        seconds=args.seconds,
        rates=_numbers("--rates", args.rates, _MOST_HZ),
        streams=tuple(int(n) for n in _numbers("--streams", args.streams, _MOST_STREAMS, whole=True)),
        start=not args.no_start,
        library=None if args.library is None else Path(args.library),
    )
    report = measure(BUNDLED if args.model is None else Path(args.model), options, _say)
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    if args.json:
        sys.stdout.write(encode(report).decode())
    else:
        _show(report)
    if plot is not None:
        from edge_rnn.commands.bench_plot import draw

        draw(plot, report)
        if not args.json:
            sys.stdout.write(f"plot  {plot}\n")
    if report.output.golden not in (None, report.output.sha256):
        raise EdgeRnnError(
            f"outputs: expected the hash {report.output.golden}, got {report.output.sha256}: "
            "this machine computes other bits; please report it, with the output of --json"
        )
    return 0


def _numbers(option: str, text: str, most: float, *, whole: bool = False) -> tuple[float, ...]:
    kind = "whole numbers" if whole else "numbers"
    what = f"{option}: expected {kind} above 0, at most {most:g}"
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"{what}, with commas, got {text!r}") from None
    if not all(0 < n <= most and (n == math.floor(n) or not whole) for n in found):
        raise ConfigError(f"{what}, with commas, got {text!r}")
    return found


def _say(what: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[Kmeasuring {what} ...")
        sys.stderr.flush()


# --- for people ------------------------------------------------------------------------------------------


def duration(ns: float | None) -> str:
    """A time with three digits and the unit that suits it; "-" for none."""
    if ns is None:
        return "-"
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= 0.9995 * size:
            value = ns / size
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"
    return f"{ns:.0f} ns"


def _show(report: Report) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for table in (_facts(report), _latencies(report), _rates(report), _starts(report)):
        if table is not None:
            console.print(table)
    e = report.environment
    if e.virtual or e.emulation:
        why = "; ".join(e.emulation) or "a virtual machine shares its processor with others"
        console.print(Text(f"note  {why}: times may vary from run to run"))


def _facts(report: Report) -> Table:
    from rich.table import Table

    e, n, o = report.environment, report.network, report.output
    versions = ", ".join(f"{name} {version}" for name, version in e.versions.items())
    hash_ = {None: "no golden one is stored for this model", o.sha256: "equals the golden one"}
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, text in (
        ("processor", f"{e.cpu}, {e.cores} core(s), {e.machine}" + ", virtual" * e.virtual),
        ("board", e.board or "none named"),
        ("clock", _clock(report)),
        ("code", f"{e.backend} for {e.target}, class {e.numeric}, {e.lanes} lanes"),
        ("versions", versions),
        ("model", f"{', '.join(n.layers)}; {n.macs:,} multiply-adds a step" + ", bundled" * n.bundled),
        ("outputs", f"sha256 {o.sha256[:16]}..., {hash_.get(o.golden, 'DIFFERS from the golden one')}"),
    ):
        table.add_row(name, text)
    return table


def _clock(report: Report) -> str:
    def said(c: Conditions) -> str:
        parts = [f"{max(c.mhz):,.0f} MHz"] if c.mhz else []
        parts += [f"{c.temperature_c:.0f} °C"] if c.temperature_c is not None else []
        parts += [f"load {c.load:g}"] if c.load is not None else []
        return ", ".join(parts) or "unknown"

    governor = ", ".join(report.environment.governors) or "not told"
    throttled = report.after.throttled or "not told"
    before, after = said(report.before), said(report.after)
    return f"governor {governor}; before {before}; after {after}; throttled {throttled}"


def _latencies(report: Report) -> Table:
    from rich.table import Table

    table = Table(title="latency", title_justify="left", title_style="bold")
    table.add_column("")
    for head in ("calls", "p50", "p90", "p99", "p99.9", "max"):
        table.add_column(head, justify="right", no_wrap=True)
    rows: list[tuple[str, Latency]] = [("step", report.step.latency)]
    if report.path is not None:
        rows.append(("reading", report.path.latency))
    for paced in report.paced:
        rows.append((f"{paced.hz:g} Hz: wakes late", paced.late))
        rows.append((f"{paced.hz:g} Hz: {'reading' if report.path else 'step'}", paced.latency))
    for name, row in rows:
        times = (row.p50_ns, row.p90_ns, row.p99_ns, row.p999_ns, row.max_ns)
        table.add_row(name, f"{row.calls:,}", *map(duration, times))
    own = duration(report.environment.clock_overhead_ns)
    table.caption = f"reading: decode, judge, encode; the clock's own {own} a call are included"
    return table


def _rates(report: Report) -> Table | None:
    from rich.table import Table

    if not report.rates:
        return None
    table = Table(title="readings a second, all streams together", title_justify="left", title_style="bold")
    for head in ("streams", "decode to encode", "judge alone"):
        table.add_column(head, justify="right")
    for rate in report.rates:
        table.add_row(f"{rate.streams:,}", f"{rate.path_per_s:,.0f}", f"{rate.detector_per_s:,.0f}")
    return table


def _starts(report: Report) -> Table | None:
    from rich.table import Table

    if report.start is None:
        return None
    table = Table(title="start of a new process", title_justify="left", title_style="bold")
    table.add_column("")
    for head in ("imported", "ready", "first score", "memory", "at its peak"):
        table.add_column(head, justify="right")
    named = (("cold", report.start.cold), ("warm", report.start.warm))
    for name, start in named:
        table.add_row(
            name, *(duration(ms * 1e6) for ms in (start.imported_ms, start.ready_ms, start.first_score_ms)),
            f"{start.rss_kib / 1024:.0f} MiB", f"{start.peak_rss_kib / 1024:.0f} MiB",
        )  # fmt: skip
    return table
