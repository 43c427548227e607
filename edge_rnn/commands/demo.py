"""`edge-rnn demo`: the first look at everything, and a check that it works on this machine.

In a terminal the run is a live picture; elsewhere, and with --json, progress goes to stderr line by line. The
closing summary goes to stdout. Exit code 0 only if every injected fault was found and no reading was lost,
otherwise 1.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from edge_rnn.demo.ledger import Summary
from edge_rnn.demo.pumps import shortest_run
from edge_rnn.demo.session import Options, play
from edge_rnn.demo.view import Board, LineView, LiveView, View
from edge_rnn.errors import ConfigError

_MOST_PUMPS = 50
_LONGEST_S = 3600.0
_FAILED = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `edge-rnn demo`."""
    defaults = Options()
    parser.epilog = """\
Starts a broker on a free port of this machine alone, simulated pumps that publish to it, and the
daemon with a bundled model; puts a spike, a drift, a stuck and a silent sensor in; and counts what is
found. Leaves no file behind. Exit code 0 only if every fault was found and no reading was lost."""
    parser.add_argument(
        "--seconds", type=_seconds, metavar="S",
        help=f"length of the run, start-up not counted (default: {defaults.seconds:g}, with few pumps 30)",
    )  # fmt: skip
    parser.add_argument(
        "--pumps",
        type=_pumps,
        default=defaults.pumps,
        metavar="N",
        help="number of pumps (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=_seed, default=defaults.seed, metavar="N",
        help="another seed gives other readings and other faulty pumps (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--save", type=Path, metavar="FOLDER",
        help="run nothing: write recordings of the pumps (pump.csv and normal.csv in order, other.csv with "
        "labelled faults) to try train, replay, evaluate and calibrate on",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def run(args: argparse.Namespace) -> int:
    """Run the demo and print its summary, or save recordings."""
    if args.save is not None:
        return _save(args.save, as_json=args.json)
    shortest = shortest_run(args.pumps)
    seconds = max(shortest, Options().seconds) if args.seconds is None else args.seconds
    if seconds < shortest:
        raise ConfigError(
            f"--seconds: expected at least {shortest:g} to see all faults on {args.pumps} pump(s), "
            f"got {seconds:g}"
        )
    in_terminal = sys.stdout.isatty() and not args.json and os.environ.get("TERM", "dumb") != "dumb"

    def make_view(board: Board) -> View:
        return LiveView(board) if in_terminal else LineView(board)

    # A demo that is told to end, or whose terminal is closed, ends its daemon first (but not under nohup).
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, _terminated) for number in numbers}
    try:
        summary = play(Options(args.pumps, seconds, args.seed), make_view)
    except KeyboardInterrupt:
        sys.stderr.write("demo: stopped\n")
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if args.json:
        print(json.dumps({"seed": args.seed, "pumps": args.pumps, **summary.as_json()}, indent=2))
    else:
        print("\n".join(closing_lines(summary)))
    return 0 if summary.passed else _FAILED


def _save(folder: Path, *, as_json: bool) -> int:
    from edge_rnn.demo.recordings import save

    paths = [str(path) for path in save(folder)]
    print(json.dumps({"files": paths}, indent=2) if as_json else "\n".join(paths))
    return 0


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= _LONGEST_S:
        raise argparse.ArgumentTypeError(f"expected seconds up to {_LONGEST_S:g}, got {text}")
    return value


def _pumps(text: str) -> int:
    value = int(text)
    if not 1 <= value <= _MOST_PUMPS:
        raise argparse.ArgumentTypeError(f"expected 1 to {_MOST_PUMPS}, got {text}")
    return value


def _seed(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected 0 or more, got {text}")
    return value


def _terminated(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def closing_lines(summary: Summary) -> list[str]:
    """The summary for people, one line each."""
    lines = [
        f"readings      {summary.sent:,} sent, {summary.scored:,} scored, {summary.lost:,} lost"
        + (f", {summary.repeated:,} scored twice" if summary.repeated else ""),
        f"faults        {len(summary.faults)} injected, {summary.found} found",
    ]
    for report in summary.faults:
        fault = report.fault
        what = f"  {fault.kind:<7} {fault.pump:<7} {report.channel:<12}"
        if report.event is None or report.delay_s is None:
            lines.append(f"{what} NOT FOUND")
        else:
            reason = f" ({report.event.reason})" if report.event.reason else ""
            lines.append(f"{what} found after {report.delay_s:5.2f} s by {report.event.kind}{reason}")
    lines.append(f"false alarms  {len(summary.false_alarms)}")
    lines += [f"  {event.kind} on {event.pump} {event.reason}".rstrip() for event in summary.false_alarms]
    if ms := summary.latency_ms:
        times = f"p50 {ms['p50']:.1f} ms, p99 {ms['p99']:.1f} ms"
        lines.append(f"latency       {times}, from publish to score received")
    passed = "every fault found, nothing lost"
    lines.append(f"result        {passed if summary.passed else 'FAILED: not ' + passed}")
    return lines
