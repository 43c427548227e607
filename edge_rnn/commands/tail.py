"""`edge-rnn tail`: all streams of a running daemon, live, what needs a person first.

It listens to what the daemon publishes and needs no access to the device. In a terminal it draws a table that
follows; with `--json`, or into a pipe, it writes one score a line.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING

from edge_rnn.commands.broker_options import add_broker_options, broker_of
from edge_rnn.errors import ConfigError, printable
from edge_rnn.files.config_types import MqttConfig
from edge_rnn.files.config_walk import parse_duration
from edge_rnn.watch.board import TRACE, Board, Line
from edge_rnn.watch.client import Visitor

if TYPE_CHECKING:
    from rich.console import Group
    from rich.text import Text

_BLOCKS = " ▁▂▃▄▅▆▇█"
_DRAWS_A_SECOND = 4
_FOREVER_S = 10 * 365 * 86400.0
_STYLES = {
    "waiting": "dim", "warming": "cyan", "normal": "green", "pending": "yellow", "anomaly": "bold red",
    "clearing": "yellow", "fault": "bold magenta",
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `edge-rnn tail`."""
    parser.epilog = """\
examples:
  edge-rnn tail pump.toml
  edge-rnn tail --broker plant.example:1883 --base edge-rnn
  edge-rnn tail pump.toml --json --for 10s | jq .score

Ctrl-C ends it."""
    parser.add_argument("config", metavar="CONFIG.toml", nargs="?", help="the daemon's configuration")
    add_broker_options(parser)
    parser.add_argument("--base", metavar="TOPIC", help="first level(s) of the daemon's topics")
    parser.add_argument("--for", metavar="TIME", dest="length", help='end after so long, such as "30s"')
    parser.add_argument("--json", action="store_true", help="one score a line as JSON, no table")


def run(args: argparse.Namespace) -> int:
    """Follow until Ctrl-C, or for `--for`; 0."""
    broker, base = _source(args)
    seconds = _FOREVER_S
    if args.length is not None:
        nanoseconds = parse_duration(args.length)
        if nanoseconds is None:
            raise ConfigError(f'--for: expected a duration such as "30s", got {printable(args.length)!r}')
        seconds = nanoseconds / 1e9
    board = Board(base)
    with Visitor(broker, [(f"{base}/#", 0)]) as visitor:
        try:
            if args.json or not sys.stdout.isatty():
                _write(visitor, board, seconds)
            else:
                _follow(visitor, board, seconds)
        except KeyboardInterrupt:
            return 0
    return 0


def _source(args: argparse.Namespace) -> tuple[MqttConfig, str]:
    if args.config is None:
        return broker_of(args), args.base or "edge-rnn"
    if args.broker is not None:
        raise ConfigError("expected either CONFIG.toml or --broker, got both")
    from edge_rnn.files.config import load_config

    config = load_config(args.config)
    return config.mqtt, args.base or config.output.base


def _write(visitor: Visitor, board: Board, seconds: float) -> None:
    for heard in visitor.messages(seconds):
        score = board.take(heard.topic, heard.payload, heard.at)
        if score is not None:
            sys.stdout.write(json.dumps(score, ensure_ascii=False) + "\n")
            sys.stdout.flush()


def _follow(visitor: Visitor, board: Board, seconds: float) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console()
    end = time.monotonic() + seconds
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while (now := time.monotonic()) < end:
            for heard in visitor.waiting():
                board.take(heard.topic, heard.payload, heard.at)
            live.update(draw(board, visitor.where, console.width, console.height, now), refresh=True)
            time.sleep(min(1 / _DRAWS_A_SECOND, end - now))
    console.print(f"{len(board.lines)} stream(s), {board.scores:,} score(s)", style="dim")


def draw(board: Board, where: str, width: int, height: int, now: float) -> Group:
    """The picture for a terminal of `width` and `height`.

    Args:
        where: the broker's address.
        now: monotonic seconds.
    """
    from rich.console import Group
    from rich.text import Text

    lines = board.sorted()
    longest = max((len(printable(line.stream)) for line in lines), default=6)
    name = min(max(longest, 6), max(12, width // 3))
    room = max(0, height - 4)
    head = Text(no_wrap=True, overflow="ellipsis")
    head.append(" edge-rnn tail ", "bold white on blue")
    states = {
        None: ("daemon: not heard of", "yellow"),
        True: ("online", "green"),
        False: ("offline", "bold red"),
    }
    text, style = states[board.online]
    head.append(f"  {where}  ", "dim")
    head.append(text, style)
    alarms = sum(line.alarm for line in lines)
    faults = sum(line.status == "fault" for line in lines)
    head.append(f"  {len(lines)} streams  ", "bold")
    head.append(f"{alarms} in alarm", "bold red" if alarms else "dim")
    head.append("  ")
    head.append(f"{faults} faulty", "bold magenta" if faults else "dim")
    columns = Text(
        f"{'stream':<{name}}  {'status':<8} {'score':>8} {'of':>8}  {'age':>5}  trace",
        style="dim",
        no_wrap=True,
    )
    body = [_row(line, name, width, now) for line in lines[:room]]
    if not lines:
        body = [Text("nothing heard yet: is the daemon running, and is this its base topic?", "yellow")]
    if len(lines) > room:
        body[-1:] = [Text(f"... and {len(lines) - room + 1} more", "dim")]
    return Group(head, Text(), columns, *body)


def _row(line: Line, name: int, width: int, now: float) -> Text:
    from rich.text import Text

    text = Text(no_wrap=True, overflow="ellipsis")
    shown = printable(line.stream)
    text.append(f"{shown if len(shown) <= name else '…' + shown[-name + 1 :]:<{name}}  ")
    status = printable(line.status)[:8]
    text.append(f"{status:<8} ", _STYLES.get(line.status, "bold"))
    hot = line.level > 1
    text.append(f"{_short(line.score):>8}", "bold red" if hot else "bold")
    text.append(f" {_short(line.threshold):>8}  ", "dim")
    age = now - line.heard
    text.append(f"{_age(age):>5}  ", "yellow" if 60 < age < float("inf") else "dim")
    used = name + 2 + 9 + 17 + 2 + 7
    columns = max(0, min(TRACE, (width - used) // 2))
    for level in list(line.trace)[-columns:] if columns else []:
        step = min(8, max(1, int(min(level, 1.0) * 8)))
        text.append(_BLOCKS[step], "red" if level > 1 else "blue")
    text.append(" " * (columns - min(columns, len(line.trace))))
    if line.reasons:
        text.append(f"  {printable(line.reasons)}", "red" if line.alarm else "magenta")
    return text


def _short(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if abs(value) < 1e6 else f"{value:.1e}"


def _age(seconds: float) -> str:
    if seconds == float("inf"):
        return "-"
    for limit, unit, size in ((100, "s", 1), (6000, "m", 60), (360000, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds / 86400:.0f}d"
