"""Several channels, each with its own pace, to input vectors.

A stream's channels may come from several topics. The assembler keeps the newest value of each channel and
decides when a vector leaves (`Assembly.on`):

    any         with every message. Before every channel has been seen once, nothing leaves until `timeout_ns`
                has passed since the stream's first reading; after that, what is unseen is absent.
    a channel   with every reading of that channel, the others as they stand; same rule at the start
    all         when every channel has a new value, or `timeout_ns` after the first new one (event time of a
                later reading, or the clock of `close_due`): then the others are held
    every       once for each interval of `every_ns` of event time that has readings, with each channel's last
                value in it. It closes with a reading of a later interval, or `timeout_ns` after its first
                reading by the clock of `close_due`. The sample's time is the end of the interval.

A value in a sample is new, held (older, repeated) or absent (never seen, or older than the channel's maximum
age); the guard judges these differently, see `detect/guard.py`. NaN is passed on for the guard to judge.

Time is event time, and order is kept per channel: a reading not later than the last one of its channel is
dropped and counted, as `duplicate` if the time is equal, else as `late`. With that, a message delivered twice
is stepped once. Readings of different channels may cross: a sample's time is the newest event time among its
values, and at least 1 ns after the stream's last sample. Pauses are not filled: the detector sees the time.

Nothing here reads a clock: `now_ns` is given. Everything that decides the future is in one record per stream
(`record_dtype`), so half-built vectors survive a restart. The records are read one number at a time, through
memoryviews, which costs a third of indexing an array.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_rnn.detect.guard import ABSENT, FRESH, HELD
from edge_rnn.errors import ConfigError
from edge_rnn.stream.types import Counters

__all__ = ["NEVER", "Assembler", "Assembly", "Batch", "record_dtype"]

# Event times lie within +-2**62 ns (1823 to 2116), so that sums of two of them stay in 64 bits.
NEVER = -(2**63)
TIME_LIMIT = 2**62
_SECOND = 10**9
DAY = 86_400 * _SECOND

# Places in `marks`. Times: newest reading, last sample, first reading of all, first new value that waits and
# when that arrived; whether the start is over; the open interval; counts of channels seen and new; when the
# stream gave its last sample (or appeared), by the clock. The engine's own: a rising number of use, and
# whether the silence since the last sample has been reported. The learned interval between two samples, 0
# before the second one, and how many intervals it was learned from (counted up to LEARNED).
(
    NEWEST, EMITTED, FIRST, OPENED, OPENED_AT, STARTED, BIN, SEEN, NEW, USED, ACTIVE_AT, QUIET, INTERVAL,
    KNOWN, MARKS,
) = range(15)  # fmt: skip
_ANY, _LEADER, _ALL, _EVERY = range(4)
LEARNED = 32


@dataclass(frozen=True, slots=True)
class Assembly:
    """When a vector leaves and how long a value holds.

    on: `any`, `all`, `every`, or the name of a channel.
    every_ns: the interval, for `every` alone.
    timeout_ns: see the module; 0 takes a default, see `wait_ns`.
    max_age_ns: per channel the age from which a held value is absent; 0 = no limit; empty = none has one.
    """

    on: str = "any"
    every_ns: int = 0
    timeout_ns: int = 0
    max_age_ns: tuple[int, ...] = field(default=())

    def check(self, names: Sequence[str]) -> None:
        """Check against the model's input names; `ConfigError` if it does not fit."""
        if self.on not in ("any", "all", "every") and self.on not in names:
            import difflib

            close = difflib.get_close_matches(self.on, [*names, "any", "all", "every"], n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"on: expected any, all, every or a channel's name, got {self.on!r}{hint}")
        if (self.on == "every") != (self.every_ns > 0):
            raise ConfigError(
                f"every: expected an interval above 0 with on = every alone, got {self.every_ns}"
            )
        if len(self.max_age_ns) not in (0, len(names)):
            raise ConfigError(f"max_age: expected {len(names)} or none, got {len(self.max_age_ns)}")
        for name, value in (("every", self.every_ns), ("timeout", self.timeout_ns)):
            if not 0 <= value < TIME_LIMIT:
                raise ConfigError(f"{name}: expected 0 to {TIME_LIMIT} ns, got {value}")
        if not all(0 <= age < TIME_LIMIT for age in self.max_age_ns):
            raise ConfigError(f"max_age: expected 0 to {TIME_LIMIT} ns, got {self.max_age_ns}")

    def wait_ns(self, period_ns: int = 0) -> int:
        """The timeout in force; `period_ns` is the model's sampling period, 0 if unknown.

        Defaults: two intervals for `every`; for `all` a period and at least 5 s (the devices of one scan);
        otherwise ten periods and at least 60 s (a slow channel's first reading).
        """
        if self.timeout_ns:
            return self.timeout_ns
        if self.on == "every":
            return 2 * self.every_ns
        return max(5 * _SECOND, period_ns) if self.on == "all" else max(60 * _SECOND, 10 * period_ns)


def record_dtype(channels: int) -> np.dtype[np.void]:
    """The assembler's record of one stream; its size is a multiple of 8 bytes.

    values f8 (C,): newest value; times i8 (C,): its event time, NEVER before the first; marks i8; flags u1
    (C,): ABSENT (never seen), FRESH (new since the last sample) or HELD.
    """
    c = (channels,)
    return np.dtype(
        {
            "names": ["values", "times", "marks", "flags"],
            "formats": [("<f8", c), ("<i8", c), ("<i8", (MARKS,)), ("u1", c)],
            "offsets": [0, 8 * channels, 16 * channels, 16 * channels + 8 * MARKS],
            "itemsize": 16 * channels + 8 * MARKS + (channels + 7) // 8 * 8,
        }
    )


class Batch:
    """Samples on their way to the detector: what `DetectorTable.step_rows` takes, and room for its answers.

    rows i8 (n,), times_ns i8 (n,), x f8 (n, C), present u1 (n, C); the first `size` of each are in use.
    """

    __slots__ = ("present", "rows", "size", "times_ns", "x")

    def __init__(self, channels: int, capacity: int = 64) -> None:
        self.size = 0
        self.rows: NDArray[np.int64] = np.zeros(capacity, np.int64)
        self.times_ns: NDArray[np.int64] = np.zeros(capacity, np.int64)
        self.x: NDArray[np.float64] = np.zeros((capacity, channels))
        self.present: NDArray[np.uint8] = np.zeros((capacity, channels), np.uint8)

    def push(
        self, row: int, time_ns: int, values: NDArray[np.float64], flags: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        """Take one sample; returns its place in `present` for a last correction."""
        at = self.size
        if at == len(self.rows):
            self.double()
        self.rows[at] = row
        self.times_ns[at] = time_ns
        self.x[at] = values
        present: NDArray[np.uint8] = self.present[at]
        present[:] = flags
        self.size = at + 1
        return present

    def extend(
        self, rows: NDArray[np.int64], times_ns: NDArray[np.int64], x: NDArray[np.float64], flag: int
    ) -> None:
        """Take many samples at once, all of whose values have one flag."""
        at, end = self.size, self.size + len(rows)
        while end > len(self.rows):
            self.double()
        self.rows[at:end] = rows
        self.times_ns[at:end] = times_ns
        self.x[at:end] = x
        self.present[at:end] = flag
        self.size = end

    def double(self) -> None:
        """Make room for as many again."""
        for name in ("rows", "times_ns", "x", "present"):
            old = getattr(self, name)
            setattr(self, name, np.concatenate([old, np.zeros_like(old)]))


def _tell_nobody(row: int, channels: Sequence[int], time_ns: int, *, late: bool) -> None:
    pass


class Assembler:
    """The half-built vectors of all streams of one group, one record each.

    Args:
        assembly: the rules, checked.
        names: the model's input names.
        capacity: number of streams.
        counters: where dropped readings and timeouts are counted.
        period_ns: the model's sampling period, 0 if unknown.
    """

    def __init__(
        self,
        assembly: Assembly,
        names: Sequence[str],
        capacity: int,
        counters: Counters,
        period_ns: int = 0,
    ) -> None:
        assembly.check(names)
        self.channels = len(names)
        self.counters = counters
        modes = {"any": _ANY, "all": _ALL, "every": _EVERY}
        # A channel may be called "any"; its rank is below the mode's, as the configuration says.
        self._mode = modes.get(assembly.on, _LEADER)
        self._leader = names.index(assembly.on) if self._mode == _LEADER else -1
        self.every_ns = assembly.every_ns
        # Whether messages are numbered, so that their times need not rise.
        self.numbered = False
        # Told of readings that are dropped because of their times; see `watch.Watch.refuse`.
        self.refuse: Callable[..., None] = _tell_nobody
        self._timeout = min(assembly.wait_ns(period_ns), TIME_LIMIT)
        ages = np.array([age or TIME_LIMIT for age in assembly.max_age_ns], np.int64)
        self._ages = ages if (ages < TIME_LIMIT).any() else None
        self._all_channels = tuple(range(self.channels))
        self.fresh = np.zeros(1, record_dtype(self.channels))
        self.fresh["times"] = NEVER
        for mark in (NEWEST, EMITTED, FIRST, OPENED, BIN):
            self.fresh["marks"][0, mark] = NEVER
        self.records = np.repeat(self.fresh, capacity)
        self._look()

    def _look(self) -> None:
        records = self.records
        self.values: NDArray[np.float64] = records["values"]
        self.times: NDArray[np.int64] = records["times"]
        self.marks: NDArray[np.int64] = records["marks"]
        self.flags: NDArray[np.uint8] = records["flags"]
        self._u1 = memoryview(records.view(np.uint8).data)
        self._f8 = self._u1.cast("d")
        self._i8 = self._u1.cast("q")
        self._stride = records.dtype.itemsize // 8

    def grow(self, capacity: int) -> None:
        """Make room for `capacity` streams."""
        # Not np.concatenate: it gives a record without its padding, another layout.
        wider = np.repeat(self.fresh, capacity)
        wider[: len(self.records)] = self.records
        self.records = wider
        self._look()

    def add(
        self,
        row: int,
        channels: tuple[int, ...],
        time_ns: int,
        values: Sequence[float],
        now_ns: int,
        out: Batch,
    ) -> bool:
        """Take values that arrived together; what becomes complete is pushed to `out`.

        Returns whether any value was accepted (else nothing has changed).
        """
        i8, c = self._i8, self.channels
        base = row * self._stride
        marks = base + 2 * c
        if self._mode == _EVERY and i8[marks + BIN] > time_ns // self.every_ns:
            self.counters.late += len(channels)
            self.refuse(row, channels, time_ns, late=True)
            return False
        if time_ns <= i8[marks + NEWEST] and self.numbered:
            # What is a repeat is known by its number, and has not come so far.
            time_ns = max(time_ns, 1 + max(i8[base + c + channel] for channel in channels))
        if time_ns <= i8[marks + NEWEST]:
            channels, values = self._in_time(row, base + c, channels, time_ns, values)
            if not channels:
                return False
        # What is due because of this reading leaves before it is taken.
        if self._mode == _EVERY:
            self._open_interval(row, marks, time_ns, now_ns, out)
        elif self._mode == _ALL and NEVER < i8[marks + OPENED] <= time_ns - self._timeout:
            self.counters.timeouts += 1
            self._emit(row, marks, i8[marks + NEWEST], now_ns, out)
        if i8[marks + FIRST] == NEVER:
            i8[marks + FIRST] = time_ns
        if i8[marks + OPENED] == NEVER:
            i8[marks + OPENED] = time_ns
            i8[marks + OPENED_AT] = now_ns
        if len(channels) == c and channels == self._all_channels:
            self.values[row] = values
            self.times[row] = time_ns
            self.flags[row] = FRESH
            i8[marks + SEEN] = i8[marks + NEW] = c
        else:
            self._take(base, marks, channels, time_ns, values)
        i8[marks + NEWEST] = max(i8[marks + NEWEST], time_ns)
        if self._mode == _ANY or (self._mode == _LEADER and self._leader in channels):
            if self._has_started(marks, i8[marks + NEWEST]):
                self._emit(row, marks, i8[marks + NEWEST], now_ns, out)
        elif self._mode == _ALL and i8[marks + NEW] == c:
            self._emit(row, marks, i8[marks + NEWEST], now_ns, out)
        return True

    def learn(self, marks: int, passed_ns: int) -> None:
        """Move a stream's interval towards the one that has just passed; `marks` is the place of its marks.

        One step up or down, by a sixteenth (a quarter at first), whatever the distance: so it settles at the
        median, and no pause, however long, moves it further than a reading.
        """
        i8 = self._i8
        interval, known = i8[marks + INTERVAL], i8[marks + KNOWN]
        if not known:
            interval = min(passed_ns, DAY)
        else:
            step = max(1, interval >> (4 if known == LEARNED else 2))
            interval = min(interval + step, DAY) if passed_ns > interval else max(1, interval - step)
        i8[marks + INTERVAL] = interval
        i8[marks + KNOWN] = min(known + 1, LEARNED)

    def learn_all(self, rows: NDArray[np.int64], times_ns: NDArray[np.int64]) -> None:
        """`learn` for samples that follow what is in the records: rows, with rising times for each row."""
        i8, stride, offset, learn = self._i8, self._stride, 2 * self.channels, self.learn
        last: dict[int, int] = {}
        for row, time_ns in zip(rows.tolist(), times_ns.tolist(), strict=True):
            marks = row * stride + offset
            before = last.get(row)
            if before is None:
                before = i8[marks + EMITTED]
            if before != NEVER:
                learn(marks, time_ns - before)
            last[row] = time_ns

    def is_immediate(self) -> bool:
        """Whether a message with all channels leaves as a sample at once."""
        return self._mode != _EVERY

    def has_start(self) -> bool:
        """Whether the first sample waits for all channels, so that its leaving is noted."""
        return self._mode in (_ANY, _LEADER)

    def use(self, row: int, number: int) -> None:
        """Note that a stream has been used: `number` rises from use to use over all streams."""
        self._i8[row * self._stride + 2 * self.channels + USED] = number

    def close_due(self, now_ns: int, taken: NDArray[np.bool_]) -> list[int]:
        """Rows among `taken` (bool, capacity) whose waiting values have reached the timeout at `now_ns`."""
        opened = self.marks[:, OPENED] != NEVER
        if self._mode in (_ANY, _LEADER):
            opened &= self.marks[:, STARTED] == 0
        rows = np.flatnonzero(opened & taken)
        due: list[int] = rows[self.marks[rows, OPENED_AT] <= now_ns - self._timeout].tolist()
        return due

    def close(self, row: int, now_ns: int, out: Batch) -> None:
        """Let a row of `close_due` go."""
        marks = row * self._stride + 2 * self.channels
        self.counters.timeouts += 1
        if self._mode == _EVERY:
            following = self._i8[marks + BIN] + 1
            if self._has_started(marks, following * self.every_ns):
                self._emit(row, marks, following * self.every_ns, now_ns, out)
            self._i8[marks + OPENED] = NEVER
            self._i8[marks + BIN] = following
            return
        self._i8[marks + STARTED] = 1
        if self._mode != _LEADER:
            self._emit(row, marks, self._i8[marks + NEWEST], now_ns, out)

    def _in_time(
        self, row: int, times: int, channels: tuple[int, ...], time_ns: int, values: Sequence[float]
    ) -> tuple[tuple[int, ...], Sequence[float]]:
        """The channels, and their values, that have not been heard at or after `time_ns`."""
        i8 = self._i8
        kept: list[int] = []
        taken: list[float] = []
        for channel, value in zip(channels, values, strict=True):
            last = i8[times + channel]
            if time_ns > last:
                kept.append(channel)
                taken.append(value)
            else:
                late = time_ns < last
                self.counters.late += late
                self.counters.duplicate += not late
                self.refuse(row, (channel,), time_ns, late=late)
        return tuple(kept), taken

    def _take(
        self, base: int, marks: int, channels: tuple[int, ...], time_ns: int, values: Sequence[float]
    ) -> None:
        f8, i8, u1, c = self._f8, self._i8, self._u1, self.channels
        flags = 8 * (marks + MARKS)
        for channel, value in zip(channels, values, strict=True):
            f8[base + channel] = value
            i8[base + c + channel] = time_ns
            flag = u1[flags + channel]
            if flag != FRESH:
                u1[flags + channel] = FRESH
                i8[marks + NEW] += 1
                if flag == ABSENT:
                    i8[marks + SEEN] += 1

    def _open_interval(self, row: int, marks: int, time_ns: int, now_ns: int, out: Batch) -> None:
        """Close the interval before the one of `time_ns`, if it has readings."""
        i8 = self._i8
        interval = time_ns // self.every_ns
        if i8[marks + OPENED] != NEVER and i8[marks + BIN] < interval:
            end = (i8[marks + BIN] + 1) * self.every_ns
            if self._has_started(marks, end):
                self._emit(row, marks, end, now_ns, out)
            i8[marks + OPENED] = NEVER
        i8[marks + BIN] = interval

    def _has_started(self, marks: int, time_ns: int) -> bool:
        """Whether samples may leave: every channel has been seen, or the first reading is long ago."""
        i8 = self._i8
        if not i8[marks + STARTED]:
            if i8[marks + SEEN] < self.channels and time_ns - i8[marks + FIRST] < self._timeout:
                return False
            i8[marks + STARTED] = 1
        return True

    def _emit(self, row: int, marks: int, time_ns: int, now_ns: int, out: Batch) -> None:
        i8 = self._i8
        before = i8[marks + EMITTED]
        time_ns = max(time_ns, before + 1)
        if before != NEVER:
            self.learn(marks, time_ns - before)
        flags = self.flags[row]
        present = out.push(row, time_ns, self.values[row], flags)
        if self._ages is not None:
            present[self.times[row] < time_ns - self._ages] = ABSENT
        if i8[marks + SEEN] == self.channels:
            flags[:] = HELD
        else:
            flags[flags == FRESH] = HELD
        i8[marks + EMITTED] = time_ns
        i8[marks + ACTIVE_AT] = now_ns
        i8[marks + QUIET] = 0
        i8[marks + NEW] = 0
        i8[marks + OPENED] = NEVER
