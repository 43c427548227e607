"""What the demo shows while it runs: a live picture in a terminal, or a line now and then without one.

`Board` holds the last few seconds of every pump as plain values; `draw` turns it into lines that fit a
terminal of a given size; `LiveView` and `LineView` put them where they belong. Each pump looks like this:

    pump1  anomaly      score ▁▁▁▁▁▁▂▇█   41.2 of 12.8
      vibration     2.41 mm/s   expected   2.39   ▁▂▃▅▇██▇▅▃▂▁
      temperature  51.20 °C     expected  51.13   ▂▂▃▃▄▅▅▆▆▆▅▅
      pressure      8.10 bar    expected   6.92   ▁▂▄▇██▇▅▂▁▁█

In the score's line a full block is at or above the threshold; readings of a channel that is to blame for the
pump's alarm are red. Where the terminal is too low for all pumps, each gets the first line only.
"""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, Self, TextIO, TypeVar

from edge_rnn.demo.ledger import Ledger, SeenEvent, SeenScore
from edge_rnn.demo.pumps import CHANNELS, DECIMALS, RATE_HZ, InjectedFault

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

T = TypeVar("T")

_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_BEATS: Final = 2  # in one column of a trace: a calm pace, and 3.5 s of life in a terminal of 80 columns
_BESIDE: Final = 45  # columns of a pump's line that are not its trace
_SPINNER: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_COLUMNS: Final = 240
_ALARMING: Final = frozenset({"anomaly", "clearing", "fault"})
_STYLE: Final = {
    "waiting": "dim",
    "warming": "cyan",
    "normal": "green",
    "pending": "yellow",
    "anomaly": "bold red",
    "clearing": "yellow",
    "fault": "bold magenta",
    "silent": "bold magenta",
}
# What each channel's trace spans from bottom to top; a healthy pump stays inside.
_SPANS: Final = ((1.0, 5.2), (47.5, 57.5), (5.8, 8.4))


@dataclass(slots=True)
class PumpState:
    """The last seconds of one pump, newest last, in columns of `_BEATS` beats.

    traces: newest reading of each channel; levels: highest score in units of the threshold, and whether there
    was an alarm; blamed: the channels that raised it. beats, judged: how many readings and scores came.
    """

    status: str = "waiting"
    values: tuple[float, ...] = ()
    expected: Mapping[str, float | None] = field(default_factory=dict)
    score: float | None = None
    threshold: float | None = None
    traces: tuple[deque[float], ...] = field(
        default_factory=lambda: tuple(deque(maxlen=_COLUMNS) for _ in CHANNELS)
    )
    levels: deque[tuple[float, bool]] = field(default_factory=lambda: deque(maxlen=_COLUMNS))
    blamed: deque[frozenset[str]] = field(default_factory=lambda: deque(maxlen=_COLUMNS))
    beats: int = 0
    judged: int = 0


class Board:
    """What there is to see.

    Args:
        pumps: names.
        seconds: length of the run.
        ledger: the run's account, read when drawing.
        about: one line on what is running.

    Attributes:
        note: what the run waits for, or ""; waited: for how many seconds already.
    """

    def __init__(self, pumps: Sequence[str], seconds: float, ledger: Ledger, about: str) -> None:
        self.pumps = {pump: PumpState() for pump in pumps}
        self.seconds, self.ledger, self.about = seconds, ledger, about
        self.elapsed = 0.0
        self.note, self.waited = "", 0.0
        self.events: deque[SeenEvent] = deque(maxlen=50)
        self._open: dict[str, dict[str, str]] = {pump: {} for pump in pumps}

    def add_reading(self, pump: str, values: Sequence[float]) -> None:
        """A pump has sent `values` (3,)."""
        state = self.pumps[pump]
        state.values = tuple(float(v) for v in values)
        for trace, value in zip(state.traces, state.values, strict=True):
            if state.beats % _BEATS:
                trace.pop()
            trace.append(value)
        state.beats += 1

    def add_score(self, score: SeenScore) -> None:
        """The daemon has judged a reading."""
        state = self.pumps.get(score.pump)
        if state is None:
            return
        # That a pump is silent is said by an event and by a score; its next reading ends it.
        if not (score.status == "fault" and "silent" in self._open[score.pump].values()):
            state.status = score.status
        state.expected, state.score, state.threshold = score.expected, score.score, score.threshold
        level, alarming, blamed = 0.0, score.status in _ALARMING, score.blamed
        if score.score is not None and score.threshold:
            level = score.score / score.threshold
        if state.judged % _BEATS:
            before, was_alarming = state.levels.pop()
            level, alarming = max(level, before), alarming or was_alarming
            blamed |= state.blamed.pop()
        state.levels.append((level, alarming))
        state.blamed.append(blamed)
        state.judged += 1

    def add_event(self, event: SeenEvent) -> None:
        """The daemon has said that an alarm opened or closed."""
        if event.type != "update":
            self.events.append(event)
        if (state := self.pumps.get(event.pump)) is None:
            return
        kinds = self._open[event.pump]
        if event.type == "close":
            kinds.pop(event.id, None)
        else:
            kinds[event.id] = event.kind
        if "silent" in kinds.values():
            state.status = "silent"


def level_blocks(levels: Sequence[float]) -> str:
    """One block for each score in units of its threshold: full from 1 on, and only then."""
    return "".join(_BLOCKS[-1 if level >= 1 else max(0, math.floor(level * 7))] for level in levels)


def trace_blocks(values: Sequence[float], low: float, high: float) -> str:
    """One block for each value between `low` and `high`."""
    return "".join(_BLOCKS[max(0, min(7, math.floor((value - low) / (high - low) * 8)))] for value in values)


def _last(values: Iterable[T], width: int) -> list[T]:
    return list(values)[-width:] if width > 0 else []


def _columns(width: int) -> int:
    """Columns of a trace in a terminal so wide."""
    return max(8, width - _BESIDE)


def _number(value: float | None, decimals: int, width: int) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:{width}.{decimals}f}"


def _score_line(pump: str, state: PumpState, width: int) -> Text:
    from rich.text import Text

    style = _STYLE.get(state.status, "white")
    line = Text(no_wrap=True)
    line.append(f" {pump:<7}", "bold")
    line.append(f"{'●' if state.status != 'waiting' else '○'} {state.status:<9}", style)
    columns = _columns(width)
    levels = _last(state.levels, columns)
    line.append(" score ", "dim")
    line.append("·" * (columns - len(levels)), "bright_black")
    for level, alarming in levels:
        colour = "red" if level >= 1 else "yellow" if alarming or level > 0.6 else "green"
        line.append(level_blocks([level]), colour)
    if state.score is None or state.threshold is None:
        line.append(f"{'no score yet' if state.status in ('waiting', 'warming') else '':>18}", "dim")
    else:
        line.append(f"{state.score:9.1f}", style)
        line.append(f" of {state.threshold:5.1f}", "dim")
    return line


def _channel_line(index: int, state: PumpState, width: int) -> Text:
    from rich.text import Text

    channel, decimals = CHANNELS[index], min(2, DECIMALS[index])
    value = state.values[index] if state.values else None
    expected = state.expected.get(channel.name)
    line = Text(no_wrap=True)
    line.append(f"   {channel.name:<12}", "")
    line.append(_number(value, decimals, 6), "bold")
    line.append(f" {channel.unit:<5}", "dim")
    line.append(" expected", "dim")
    line.append(_number(expected, decimals, 6), "cyan")
    columns = _columns(width)
    values = _last(state.traces[index], columns)
    # Scores follow readings by milliseconds, so the newest reading may have none yet.
    blamed = _last(state.blamed, len(values))
    blamed = [frozenset()] * (len(values) - len(blamed)) + blamed
    line.append("  ")
    line.append(" " * (columns - len(values)))
    low, high = _SPANS[index]
    for one, names in zip(values, blamed, strict=True):
        line.append(trace_blocks([one], low, high), "red" if channel.name in names else "blue")
    return line


def _head(board: Board, width: int) -> list[Text]:
    from rich.text import Text

    share = min(1.0, board.elapsed / board.seconds) if board.seconds else 1.0
    bar = max(10, width // 4)
    done = round(share * bar)
    top = Text(no_wrap=True)
    top.append(" edge-rnn demo ", "bold white on blue")
    top.append(f"  {board.about}", "dim")
    ledger = board.ledger
    count = len(CHANNELS)
    second = Text(no_wrap=True)
    second.append(" " + "━" * done, "blue")
    second.append("━" * (bar - done), "bright_black")
    second.append(f" {min(board.elapsed, board.seconds):3.0f}/{board.seconds:.0f} s", "bold")
    legend = Text(no_wrap=True, style="dim")
    legend.append(f" traces: the last {_columns(width) * _BEATS / RATE_HZ:.1f} s")
    legend.append(" · score: its value of the threshold; █ at or above it")
    if board.note:
        turn = _SPINNER[int(board.waited * 10) % len(_SPINNER)]
        second.append(f" {turn} {board.waited:2.0f} s: {board.note}", "yellow")
        return [top, second, legend]
    second.append(f"  {count * len(ledger.sent):,} sent {count * len(ledger.scored):,} scored", "")
    latency = ledger.recent_latency_ms()
    if latency:
        second.append(f"  p50 {latency['p50']:.1f} p99 {latency['p99']:.1f} ms", "dim")
    return [top, second, legend]


def _cause(fault: InjectedFault | None, event: SeenEvent) -> str:
    """Why an alarm opened, as far as the demo knows what it has put in."""
    if fault is None:
        return "a false alarm"
    if fault.kind == "stuck" and event.kind == "anomaly" and fault.channel is not None:
        # The network forecasts each channel from all: with one that is wrong, the others' forecasts are off.
        name = CHANNELS[fault.channel].name
        if event.channels and event.channels[0][0] != name:
            return f"follows: stuck {name}"
    return f"injected: {fault.kind}"


def _event_line(board: Board, event: SeenEvent) -> Text:
    from rich.text import Text

    line = Text(no_wrap=True)
    seconds = (event.received_ns - board.ledger.begin_ns) / 1e9
    line.append(f" {seconds:6.1f} s  ", "dim")
    line.append(f"{event.pump:<7}")
    if event.type == "open":
        line.append(f"{event.kind:<8} opens ", _STYLE.get(event.kind, "bold magenta"))
    else:
        line.append(f"{event.kind:<8} closes", "green")
    line.append(f"  {event.reason:<18}", "bold" if event.type == "open" else "dim")
    if event.type == "open":
        fault = board.ledger.fault_at(event.pump, event.received_ns)
        line.append(f"  {_cause(fault, event)}", "red" if fault is None else "dim")
    return line


def draw(board: Board, width: int, height: int) -> list[Text]:
    """The whole picture as at most `height` lines of at most `width` columns."""
    from rich.text import Text

    lines = _head(board, width)
    pumps = len(board.pumps)
    block = 1 + len(CHANNELS)
    alarms = 4
    room = height - len(lines) - alarms
    detailed = room >= pumps * block
    spaced = room >= pumps * (block + 1) + 1
    for pump, state in board.pumps.items():
        if spaced:
            lines.append(Text())
        lines.append(_score_line(pump, state, width))
        if detailed:
            lines.extend(_channel_line(i, state, width) for i in range(len(CHANNELS)))
    left = height - len(lines)
    if spaced:
        lines.append(Text())
        left -= 1
    if left > 1:
        title = Text(no_wrap=True)
        found = sum(report.event is not None for report in board.ledger.reports())
        title.append(" alarms", "bold")
        title.append(f"   {found} of {len(board.ledger.faults)} injected faults found", "dim")
        lines.append(title)
        lines.extend(_event_line(board, event) for event in list(board.events)[-(left - 1) :])
    for line in lines:
        line.truncate(width)
    return lines[:height]


class View(Protocol):
    """Where the board is shown; used as a context manager around the run."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self) -> None:
        """Show the board as it is now."""


class LiveView:
    """The picture, redrawn in place on the terminal's second screen."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._live: Live | None = None

    def __enter__(self) -> Self:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(), screen=True, auto_refresh=False, transient=True)
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)
            self._live = None

    def show(self) -> None:
        """Redraw, fitted to the terminal's size of this moment."""
        from rich.console import Group

        if self._live is not None:
            size = self._live.console.size
            self._live.update(Group(*draw(self._board, size.width, size.height)), refresh=True)


class LineView:
    """Progress as plain lines: each alarm as it comes, and the counts every few seconds."""

    def __init__(self, board: Board, out: TextIO | None = None, every_s: float = 5.0) -> None:
        self._board = board
        self._out = sys.stderr if out is None else out
        self._every_s = every_s
        self._next_s = self._next_wait_s = 0.0
        self._note = ""
        self._events = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self) -> None:
        """Say what is new."""
        board, ledger = self._board, self._board.ledger
        if board.note != self._note:
            self._note = board.note
            if board.note:
                self._line(board.note)
                self._next_wait_s = self._every_s
        if board.note and board.waited >= self._next_wait_s:
            self._next_wait_s += self._every_s
            self._line(f"still waiting, {board.waited:.0f} s")
        opened = ledger.opened[self._events :]
        self._events += len(opened)
        for event in opened:
            fault = ledger.fault_at(event.pump, event.received_ns)
            reason = f" ({event.reason})" if event.reason else ""
            self._line(f"{event.pump}: {event.kind}{reason}, {_cause(fault, event)}")
        if not board.note and board.elapsed >= self._next_s:
            self._next_s = board.elapsed - board.elapsed % self._every_s + self._every_s
            count = len(CHANNELS)
            sent, scored = count * len(ledger.sent), count * len(ledger.scored)
            self._line(f"{board.elapsed:.0f} of {board.seconds:.0f} s: {sent} sent, {scored} scored")

    def _line(self, text: str) -> None:
        self._out.write(f"demo: {text}\n")
        self._out.flush()
