"""Faults of a stream that no single reading shows: its clock is wrong, or a state flaps.

**Clock.** For streams with times of their own. Once a tick, each channel's newest time is set against the
clock: what has been accepted since the last tick, or else what was refused. It is wrong if it is further away
than `clock_limit_ns`, or if everything was refused as late. Wrong for `HOLD_NS` without a right reading in
between is the fault `clock`; the first right reading ends it. So a sender whose clock jumps back, and of whom
nothing is judged any more, is not silent but wrong, and by how much is told. A backlog that is being worked
off is no wrong clock: an offset that shrinks faster than time passes starts the wait anew.

**Flapping.** Something that has states (a channel such as a switch or a valve, by its values; the alarm
itself) changes more than `n` times in a minute of event time. It ends when a minute holds at most half as
many, or when the stream has sent nothing for a minute. The detector judges on; its verdicts say `fault`
meanwhile.

**Sequence.** For streams whose messages are numbered, the last number of each channel: a number that is not
higher is a repeat, unless it is lower by `RESTART` or more: then the sender counts anew.

Like all that decides the future this is a record a stream (`Watch.dtype`), part of its saved state. Flapping
is a matter of readings alone; the clock's faults begin and end with ticks. Neither is in the model, nor in
what is exported from it. Verdicts are marked, and events made, here; see `events.py` for the others.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_rnn.detect.guard import FRESH
from edge_rnn.detect.verdict import FAULT_KINDS, STATUSES
from edge_rnn.stream.assemble import NEVER, TIME_LIMIT
from edge_rnn.stream.events import event_id
from edge_rnn.stream.types import Event
from edge_rnn.stream.watch_record import (
    CLOCK_OPEN,
    CLOCK_START,
    CLOCK_WORST,
    FLAP_OPEN,
    FLAP_START,
    FLAP_WORST,
    HEAD,
    HEARD,
    LOOKED,
    OVER,
    Change,
    WatchRules,
    fault_event,
    fresh_record,
    is_head,
    is_sound,
)

__all__ = ["HOLD_NS", "MINUTE_NS", "RESTART", "Watch", "WatchRules"]

MINUTE_NS: Final = 60 * 10**9
HOLD_NS: Final = 60 * 10**9
RESTART: Final = 100_000
CLOCK, FLAPPING = FAULT_KINDS.index("clock"), FAULT_KINDS.index("flapping")
_FAULT: Final = STATUSES.index("fault")
_DIGEST: Final = 8


class Watch:
    """The records of all streams of one group.

    Args:
        names: the model's input names.
        capacity: number of streams.

    Attributes:
        made: events that `judge` has made, by the index of their verdict; whoever follows it takes them.
    """

    def __init__(self, names: Sequence[str], capacity: int, rules: WatchRules) -> None:
        self.rules = rules
        self.made: dict[int, list[Event]] = {}
        self._names = tuple(names)
        self._items = rules.items
        self.fresh = fresh_record(rules, len(names))
        self.dtype = self.fresh.dtype
        layout = repr((self.dtype.descr, self._items, self._names))
        self._layout = hashlib.blake2s(layout.encode(), digest_size=_DIGEST).digest()
        self.records = np.repeat(self.fresh, capacity)
        # Rows with something open, and rows whose alarm was on at their last verdict.
        self._marked = 0
        self._alarming = 0

    def grow(self, capacity: int) -> None:
        """Make room for `capacity` streams."""
        wider = np.repeat(self.fresh, capacity)
        wider[: len(self.records)] = self.records
        self.records = wider

    def close_all(self, row: int, stream: str, time_ns: int) -> list[Event]:
        """Close what is open, the stream is being forgotten; `time_ns` of its last verdict."""
        head = self.records["head"][row]
        events: list[Event] = []
        if head[FLAP_OPEN]:
            events.append(self._flapping(row, stream, "close", max(time_ns, int(head[FLAP_START])), math.nan))
        if head[CLOCK_OPEN]:
            events.append(self._clock(row, stream, "close", max(int(head[LOOKED]), int(head[CLOCK_START]))))
        self.reset(row)
        return events

    def open_ids(self, row: int, stream: str) -> list[str]:
        """Ids of the events that are open."""
        head = self.records["head"][row].tolist()
        kinds = (("clock", CLOCK_OPEN, CLOCK_START), ("flapping", FLAP_OPEN, FLAP_START))
        return [event_id(stream, kind, head[start]) for kind, is_open, start in kinds if head[is_open]]

    @property
    def is_busy(self) -> bool:
        """Whether `judge` has to look at verdicts even if no alarm is on in any of them."""
        return bool(self._marked or self._alarming or any(self.rules.channels))

    @property
    def has_open(self) -> NDArray[np.bool_]:
        """bool (capacity,): rows with an open event."""
        head = self.records["head"]
        found: NDArray[np.bool_] = (head[:, CLOCK_OPEN] | head[:, FLAP_OPEN]) != 0
        return found

    def _is_open(self, row: int) -> bool:
        head = self.records["head"][row]
        return bool(head[CLOCK_OPEN] or head[FLAP_OPEN])

    def _is_alarming(self, row: int) -> bool:
        return bool(self.rules.alarm) and bool(self.records["last"][row, 0])

    # ---- saved states

    def dump(self, row: int) -> bytes:
        """The row as bytes."""
        record: bytes = self.records[row].tobytes()
        return self._layout + record

    def load(self, row: int, saved: bytes) -> bool:
        """Bring a fresh row to what `dump` gave; False if it could not have given that.

        With other rules what was seen is forgotten, and only what is open is known: it ends by the rules
        there are now. No bytes at all leave the row fresh.
        """
        if not saved:
            return True
        if saved[:_DIGEST] == self._layout and len(saved) == _DIGEST + self.dtype.itemsize:
            record = np.frombuffer(saved, self.dtype, 1, _DIGEST)
            if not is_sound(self.rules, record):
                return False
            self.records[row] = record[0]
        elif len(saved) >= _DIGEST + 8 * HEAD and saved[:_DIGEST] != self._layout:
            head = np.frombuffer(saved, "<i8", HEAD, _DIGEST)
            if not is_head(head):
                return False
            self.records["head"][row] = head
        else:
            return False
        self._marked += self._is_open(row)
        self._alarming += self._is_alarming(row)
        return True

    def reset(self, row: int) -> None:
        """Forget a row without events."""
        self._marked -= self._is_open(row)
        self._alarming -= self._is_alarming(row)
        self.records[row] = self.fresh[0]

    def take_over(self, row: int, saved: bytes) -> bool:
        """As `load` for a stream that starts cold otherwise: nothing has been read or judged here yet."""
        if not self.load(row, saved):
            return False
        self._alarming -= self._is_alarming(row)
        for name in {"seen", "last"}.intersection(self.dtype.names or ()):
            self.records[name][row] = self.fresh[name][0]
        return True

    # ---- numbers

    def repeats(self, row: int, channels: Sequence[int], number: int) -> list[bool]:
        """Of each channel, whether the message of this number has been heard; if not, now it has."""
        last = self.records["sequence"][row]
        found = []
        for channel in channels:
            before = int(last[channel])
            repeated = before != NEVER and before - RESTART < number <= before
            if not repeated:
                last[channel] = number
            found.append(repeated)
        return found

    # ---- verdicts

    def refuse(self, row: int, channels: Sequence[int], time_ns: int, *, late: bool) -> None:
        """Readings that were dropped because of their time: late (or far ahead), or a repeat of the last.

        Only where clocks are watched.
        """
        for channel in channels:
            self.records["refused"][row, channel] = max(-TIME_LIMIT + 1, min(time_ns, TIME_LIMIT - 1))
            self.records["late"][row, channel] = late

    def judge(
        self,
        rows: NDArray[np.int64],
        streams: Sequence[str | None],
        out: NDArray[np.void],
        x: NDArray[np.float64],
        present: NDArray[np.uint8],
    ) -> bool:
        """Follow verdicts (n,) in order and mark those of streams that flap or whose clock is wrong.

        Args:
            rows: i8 (n,); streams: ids by row; out: verdict records, changed in place; x f8, present u1, both
                (n, C).

        Returns:
            Whether there is anything in `made`, or any verdict was marked.
        """
        self.made = {}
        if not (self._items or self._marked):
            return False
        looked: set[int] = set()
        changes: dict[int, list[int]] = {}
        for item, (channel, _) in enumerate(self._items):
            if channel < 0:
                if not (self._alarming or out["alarm"].any()):
                    continue
                values, valid = out["alarm"].astype(np.float64), None
            else:
                values = x[:, channel]
                valid = (present[:, channel] == FRESH) & np.isfinite(values)
            self._find_changes(item, rows, values, valid, changes)
        looked.update(rows[index] for index in changes)
        if self._marked:
            looked.update(rows[self.has_open[rows]].tolist())
        if not looked:
            return False
        times = out["time_ns"]
        for index in np.flatnonzero(np.isin(rows, list(looked))).tolist():
            row = int(rows[index])
            self._follow(row, str(streams[row]), index, int(times[index]), changes.get(index, ()))
            self._mark(row, index, out)
        return True

    def _find_changes(
        self,
        item: int,
        rows: NDArray[np.int64],
        values: NDArray[np.float64],
        valid: NDArray[np.bool_] | None,
        changes: dict[int, list[int]],
    ) -> None:
        last = self.records["last"][:, item]
        differs = values != last[rows]
        if valid is not None:
            differs &= valid
        if not differs.any():
            return
        # Those that differ from what was before the first of them: now one after the other.
        concerned = np.isin(rows, rows[differs])
        if valid is not None:
            concerned &= valid
        for index in np.flatnonzero(concerned).tolist():
            row, value = rows[index], values[index]
            before = last[row]
            if value != before:
                last[row] = value
                if valid is None:
                    self._alarming += 1 if value else -1
                if before == before:  # noqa: PLR0124 - NaN: nothing was known
                    changes.setdefault(index, []).append(item)

    def _follow(self, row: int, stream: str, index: int, time_ns: int, changed: Sequence[int]) -> None:
        """One verdict of a stream that flaps or may begin to."""
        if not self._items:
            self._settle_flapping(row, stream, index, time_ns, joined=False)
            return
        ring, flaps = self.records["ring"][row], self.records["flaps"][row]
        joined = False
        for item in changed:
            limit = self._items[item][1]
            mine = ring[item]
            mine[1 : limit + 1] = mine[:limit].copy()
            mine[0] = time_ns
            oldest = int(mine[limit])
            if oldest != NEVER and time_ns - oldest < MINUTE_NS:
                rate = 60_000.0 * limit * 10**9 / max(1, time_ns - oldest)
                head = self.records["head"][row]
                if not head[FLAP_OPEN]:
                    head[FLAP_WORST] = 0
                head[FLAP_WORST] = max(int(head[FLAP_WORST]), int(min(rate, 1e15)))
                joined = joined or not flaps[item]
                flaps[item] = 1
        for item in np.flatnonzero(flaps == 1).tolist():
            if time_ns >= self._end_of(ring, item):
                flaps[item] = OVER
        self._settle_flapping(row, stream, index, time_ns, joined=joined)

    def _end_of(self, ring: NDArray[np.int64], item: int) -> int:
        """From this event time on a minute holds at most half of what is fine."""
        return int(ring[item, self._items[item][1] // 2]) + MINUTE_NS

    def _settle_flapping(self, row: int, stream: str, index: int, time_ns: int, *, joined: bool) -> None:
        head = self.records["head"][row]
        flapping = bool(self._items) and bool((self.records["flaps"][row] == 1).any())
        event: Event | None = None
        if flapping and not head[FLAP_OPEN]:
            self._marked += not head[CLOCK_OPEN]
            head[FLAP_OPEN], head[FLAP_START] = 1, time_ns
            event = self._flapping(row, stream, "open", time_ns, head[FLAP_WORST] / 1000)
        elif flapping and joined:
            event = self._flapping(row, stream, "update", time_ns, head[FLAP_WORST] / 1000)
        elif head[FLAP_OPEN] and not flapping:
            event = self._flapping(row, stream, "close", time_ns, math.nan)
            head[FLAP_OPEN] = 0
            if self._items:
                self.records["flaps"][row] = 0
            self._marked -= not head[CLOCK_OPEN]
        if event is not None:
            self.made.setdefault(index, []).append(event)

    def marks(self, row: int) -> list[tuple[int, int]]:
        """(channel, fault) of what is open now; for the alarm, all channels."""
        head = self.records["head"][row]
        found: dict[int, int] = {}
        every = range(len(self._names))
        if head[FLAP_OPEN] and self._items:
            for item in np.flatnonzero(self.records["flaps"][row] == 1).tolist():
                channel = self._items[item][0]
                found.update(dict.fromkeys(every if channel < 0 else (channel,), FLAPPING))
        if head[CLOCK_OPEN] and self.rules.clock_limit_ns:
            found.update(dict.fromkeys(np.flatnonzero(self.records["wrong"][row] == 1).tolist(), CLOCK))
        return sorted(found.items())

    def _mark(self, row: int, index: int, out: NDArray[np.void]) -> None:
        """What the guard says of a channel comes first."""
        faults = out["fault"][index]
        for channel, kind in self.marks(row):
            out["status"][index] = _FAULT
            if not faults[channel]:
                faults[channel] = kind

    # ---- ticks

    def heard_ns(self) -> NDArray[np.int64]:
        """i8 (capacity,): the clock when a reading was last heard that was refused; NEVER: none was."""
        found: NDArray[np.int64] = self.records["head"][:, HEARD]
        return found

    def tick(
        self,
        now_ns: int,
        clock_ns: int,
        times: NDArray[np.int64],
        active_at: NDArray[np.int64],
        taken: NDArray[np.bool_],
        streams: Sequence[str | None],
    ) -> tuple[list[tuple[int, list[Event]]], list[int]]:
        """Look at the clocks, and end the flapping of streams that send no more.

        Args:
            now_ns: on the scale of arrivals; clock_ns: what times are held against.
            times: i8 (capacity, C): event time of each channel's newest value; active_at: i8 (capacity,): the
                clock at each stream's last sample; taken: rows in use; streams: ids by row.

        Returns:
            Rows whose faults have changed, with their events; and all rows whose records have.
        """
        touched = self._look_at_clocks(now_ns, clock_ns, times, taken) if self.rules.clock_limit_ns else []
        wanted = self.has_open if self._marked else np.zeros(len(taken), np.bool_)
        if touched:
            wanted |= (self.records["wrong"] == 1).any(axis=1)
        concerned: list[int] = np.flatnonzero(wanted & taken).tolist() if touched or self._marked else []
        told: list[tuple[int, list[Event]]] = []
        changed = set(touched)
        for row in sorted(concerned, key=lambda row: str(streams[row])):
            stream = str(streams[row])
            self.made = {}
            self._settle_clock(row, stream, now_ns)
            head = self.records["head"][row]
            if head[FLAP_OPEN] and (not self._items or now_ns - int(active_at[row]) > MINUTE_NS):
                end = int(head[FLAP_START])
                if self._items:
                    flaps = self.records["flaps"][row]
                    ends = [
                        self._end_of(self.records["ring"][row], item)
                        for item in np.flatnonzero(flaps == 1).tolist()
                    ]
                    end = max([end, *ends])
                    flaps[flaps == 1] = OVER
                self._settle_flapping(row, stream, 0, end, joined=False)
            events = [event for made in self.made.values() for event in made]
            if events:
                told.append((row, events))
                changed.add(row)
        self.made = {}
        return told, sorted(changed)

    def _look_at_clocks(
        self, now_ns: int, clock_ns: int, times: NDArray[np.int64], taken: NDArray[np.bool_]
    ) -> list[int]:
        records, limit = self.records, self.rules.clock_limit_ns
        fresh = times != records["seen"]
        refused = records["refused"] != NEVER
        rows = np.flatnonzero((fresh | refused).any(axis=1) & taken)
        if not rows.size:
            return []
        fresh, refused = fresh[rows], refused[rows]
        heard = fresh | refused
        moments = np.where(fresh, times[rows], np.where(refused, records["refused"][rows], clock_ns))
        # A channel that was never heard has no time that could be fresh.
        heard &= moments != NEVER
        offsets = np.where(heard, moments, clock_ns) - clock_ns
        far = np.abs(offsets) > limit
        wrong = heard & (far | (~fresh & (records["late"][rows] != 0)))
        right = heard & ~wrong
        since, first = records["since"][rows], records["first"][rows]
        waits = since != NEVER
        passed = now_ns - np.where(waits, since, now_ns)
        drains = waits & (np.abs(offsets) < np.abs(first) - passed)
        begins = wrong & (~waits | drains)
        since[right] = NEVER
        since[begins], first[begins] = now_ns, offsets[begins]
        flags = records["wrong"][rows]
        flags[right & (flags == 1)] = OVER
        flags[wrong & ~begins & (passed >= HOLD_NS)] = 1
        records["since"][rows], records["first"][rows], records["wrong"][rows] = since, first, flags
        records["offset"][rows] = np.where(heard, offsets, records["offset"][rows])
        records["seen"][rows], records["refused"][rows], records["late"][rows] = times[rows], NEVER, 0
        records["head"][rows[refused.any(axis=1)], HEARD] = now_ns
        records["head"][rows, LOOKED] = now_ns
        found: list[int] = rows.tolist()
        return found

    def _settle_clock(self, row: int, stream: str, now_ns: int) -> None:
        head = self.records["head"][row]
        wrong = bool(self.rules.clock_limit_ns) and bool((self.records["wrong"][row] == 1).any())
        made: list[Event] = []
        if wrong:
            offset = self._offset(row)
            if not head[CLOCK_OPEN]:
                self._marked += not head[FLAP_OPEN]
                head[CLOCK_OPEN], head[CLOCK_START], head[CLOCK_WORST] = 1, now_ns, offset
                made.append(self._clock(row, stream, "open", now_ns))
            elif abs(offset) > 2 * abs(int(head[CLOCK_WORST])):
                # A clock that stands still, for one.
                head[CLOCK_WORST] = offset
                made.append(self._clock(row, stream, "update", now_ns))
        elif head[CLOCK_OPEN]:
            made.append(self._clock(row, stream, "close", now_ns))
            head[CLOCK_OPEN] = 0
            if self.rules.clock_limit_ns:
                self.records["wrong"][row] = 0
            self._marked -= not head[FLAP_OPEN]
        if made:
            self.made[0] = made

    def _offset(self, row: int) -> int:
        """The largest offset of the channels whose clock is wrong, ns; > 0: ahead."""
        offsets = self.records["offset"][row][self.records["wrong"][row] == 1].tolist()
        return max(offsets, key=abs, default=0)

    # ---- events

    def _clock(self, row: int, stream: str, change: Change, now_ns: int) -> Event:
        head = self.records["head"][row]
        channels: list[int] = []
        offset = math.nan
        if self.rules.clock_limit_ns:
            channels = np.flatnonzero(self.records["wrong"][row]).tolist()
            if change != "close":
                offset = self._offset(row) / 1e9
        numbers = offset, self.rules.clock_limit_ns / 1e9, int(head[CLOCK_WORST]) / 1e9
        named = [self._names[c] for c in channels]
        return fault_event(stream, "clock", change, int(head[CLOCK_START]), now_ns, numbers, named)

    def _flapping(self, row: int, stream: str, change: Change, time_ns: int, rate: float) -> Event:
        head = self.records["head"][row]
        flags = self.records["flaps"][row] if self._items else np.zeros(0, np.uint8)
        open_ = [self._items[item] for item in np.flatnonzero(flags).tolist()]
        limit = min((limit for _, limit in open_), default=math.nan)
        numbers = rate, limit, int(head[FLAP_WORST]) / 1000
        named = [self._names[channel] for channel, _ in open_ if channel >= 0]
        return fault_event(stream, "flapping", change, int(head[FLAP_START]), time_ns, numbers, named)
