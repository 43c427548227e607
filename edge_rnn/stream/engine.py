"""Readings in, verdicts out: the one path that the daemon, `edge-rnn replay` and every adapter share.

`feed` takes readings in order of arrival. Each goes to its stream's assembler; the vectors that leave it are
collected and judged in one compiled call per group, in order, so a batch costs one call and gives the bits of
one reading at a time. Verdicts come back in the order in which their vectors left. `tick` does what only time
can do: it closes vectors that have waited too long and reports streams that have fallen silent.

The engine reads no clock and does no input or output: `now_ns` is given, on one scale for the life of a state
(a saved state holds arrival times), and events are collected for `take_events`. The state of every stream is
a row of bytes (`changed`, `load`); streams that are loaded go on bit for bit, half-built vectors and open
events included. Three things are promised, and tested: streams do not influence each other, it does not
matter how readings are cut into calls, and a saved and loaded engine equals one that was never stopped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import numpy as np

from edge_rnn.core.jit import Numeric
from edge_rnn.detect import guard
from edge_rnn.detect.verdict import STATUSES, Verdict
from edge_rnn.errors import ConfigError, SnapshotError
from edge_rnn.stream.assemble import (
    ACTIVE_AT,
    EMITTED,
    INTERVAL,
    KNOWN,
    LEARNED,
    NEVER,
    NEWEST,
    QUIET,
    TIME_LIMIT,
    USED,
)
from edge_rnn.stream.burst import FEW, Burst, Judged, assemble
from edge_rnn.stream.columns import Columns, Lanes
from edge_rnn.stream.events import FAULTS, OPEN
from edge_rnn.stream.group import Group
from edge_rnn.stream.states import StreamTable, Tap
from edge_rnn.stream.types import Counters, Event, Message, Numbered, Reading
from edge_rnn.stream.verdicts import explained, silence, standing, step

__all__ = ["Engine", "Group"]

_MOST_WAITING = 4096
_FAULT = STATUSES.index("fault")


class Engine:
    """All streams of all groups; belongs to one thread.

    Args:
        groups: with distinct names.
        numeric: see `DetectorTable`.
        alive_since_ns: silence is counted from here at the earliest, so that a program that was down does not
            blame the sensors; on the scale of `now_ns`.

    Attributes:
        counters: what has happened so far.

    Raises:
        ConfigError: two groups with one name.
        ModelFileError: a model without detector section.

    Everything is compiled by the constructor.
    """

    def __init__(
        self, groups: Sequence[Group], numeric: Numeric = "auto", alive_since_ns: int = NEVER
    ) -> None:
        names = [g.name for g in groups]
        if len(set(names)) != len(names):
            raise ConfigError(f"stream names: expected distinct ones, got {', '.join(names)}")
        self.counters = Counters()
        self._groups = {g.name: g for g in groups}
        self._tables = {
            g.name: StreamTable(
                g.judged_model(),
                g.assembly,
                g.max_streams,
                self.counters,
                g.rise,
                g.update_ns,
                g.watch,
                numeric,
                g.quantized,
                g.library,
            )
            for g in groups
        }
        self._alive_since = alive_since_ns
        self._slots: dict[str, tuple[StreamTable, int, int]] = {}
        self._lanes: dict[str, Lanes] = {}
        self._order: list[StreamTable] = []
        self._events: list[Event] = []
        self._gone: set[str] = set()

    def __len__(self) -> int:
        return len(self._slots)

    def show(self, tap: Tap | None) -> None:
        """Show every vector that is judged from now on, with its verdict, to `tap`; None ends that."""
        for table in self._tables.values():
            table.tap = tap

    def has(self, stream: str) -> bool:
        """Whether a stream has a state."""
        return stream in self._slots

    def streams(self) -> list[str]:
        """The ids of all streams with a state."""
        return list(self._slots)

    def feed(self, readings: Iterable[Reading | Message], now_ns: int) -> list[Verdict]:
        """Take readings in order of arrival; returns the verdicts of all vectors that left, in order.

        A `Message` is what arrived together. Readings that come twice, late, too far ahead, or for a group
        that does not exist are dropped and counted.

        Raises:
            ValueError: a channel the model does not have; readings before it are taken.
        """
        verdicts: list[Verdict] = []
        slots, counters = self._slots, self.counters
        try:
            for reading in readings:
                channels: tuple[int, ...]
                values: Sequence[float]
                if isinstance(reading, Message):
                    stream, channels, time_ns, values = reading
                else:
                    stream, channel, time_ns, value = reading
                    channels, values = (channel,), (value,)
                counters.readings += len(channels)
                slot = slots.get(stream) or self._admit(stream, now_ns, verdicts)
                if slot is None:
                    counters.unknown += len(channels)
                    continue
                table, row, ahead = slot
                if not -TIME_LIMIT < time_ns <= min(now_ns + ahead, TIME_LIMIT - 1):
                    kept = self._unusual(table, row, reading, channels, values, now_ns)
                    if not kept:
                        continue
                    channels, values = kept
                table.check_channels(channels, values)
                batch = table.batch
                before = batch.size
                if not table.assembler.add(row, channels, time_ns, values, now_ns, batch):
                    continue
                table.uses += 1
                table.assembler.use(row, table.uses)
                table.changed.add(row)
                if batch.size > before:
                    self._order += [table] * (batch.size - before)
                    if len(self._order) >= _MOST_WAITING:
                        self._judge(verdicts)
        finally:
            self._judge(verdicts)
        return verdicts

    def judge(
        self, messages: Iterable[tuple[str, tuple[int, ...], int, Sequence[float]]], now_ns: int
    ) -> list[Judged]:
        """`feed` for many messages, with the verdicts as arrays, one call of the detector per group.

        The verdicts of a stream, and the samples of a group, are in order; groups follow one another. State,
        counters and events are those that `feed` gives.

        Args:
            messages: each as a `Message`; the channels as the model has them.
        """
        found: list[Judged] = []
        slots, counters, highest = self._slots, self.counters, TIME_LIMIT - 1
        try:
            for message in messages:
                stream, channels, time_ns, values = message
                slot = slots.get(stream)
                if slot is None:
                    # A stream that is forgotten for this one may have messages that wait.
                    table_of = self._tables.get(stream.split("/", 1)[0])
                    if table_of is not None and table_of.is_full():
                        before = len(found)
                        self._judge_bursts(found, now_ns)
                        for judged in found[before:]:
                            # Its rows are about to get other streams.
                            _ = judged.streams
                    slot = self._admit(stream, now_ns, [])
                    if slot is None:
                        counters.readings += len(channels)
                        counters.unknown += len(channels)
                        continue
                table, row, ahead = slot
                if not -TIME_LIMIT < time_ns <= min(now_ns + ahead, highest):
                    kept = self._unusual(table, row, message, channels, values, now_ns)
                    if not kept:
                        counters.readings += len(channels)
                        continue
                    counters.readings += len(channels) - len(kept[0])
                    channels, values = kept
                burst = table.burst
                burst.rows.append(row)
                burst.times_ns.append(time_ns)
                burst.values.append(values)
                burst.channels.append(channels)
                if channels != table.whole:
                    burst.whole = False
        finally:
            self._judge_bursts(found, now_ns)
        return found

    def _unusual(
        self,
        table: StreamTable,
        row: int,
        message: Sequence[object],
        channels: tuple[int, ...],
        values: Sequence[float],
        now_ns: int,
    ) -> tuple[tuple[int, ...], Sequence[float]] | None:
        """Channels and values of a message with a time out of bounds, or a number; None: it is dropped.

        Numbered messages all come here: their streams' slots allow no time at all.
        """
        time_ns = int(message[2])  # type: ignore[call-overload]
        latest = min(now_ns + self._groups[str(message[0]).split("/", 1)[0]].max_ahead_ns, TIME_LIMIT - 1)
        if not -TIME_LIMIT < time_ns <= latest:
            if time_ns < 0:
                self.counters.late += len(channels)
            else:
                self.counters.ahead += len(channels)
            self._refuse(table, row, channels, time_ns, now_ns, late=True)
            return None
        if not isinstance(message, Numbered):
            return channels, values
        repeated = table.watch.repeats(row, channels, message.number)
        self.counters.duplicate += sum(repeated)
        if not any(repeated):
            return channels, values
        self._refuse(table, row, channels, time_ns, now_ns, late=False)
        left = [
            pair
            for pair, again in zip(zip(channels, values, strict=True), repeated, strict=True)
            if not again
        ]
        return (tuple(c for c, _ in left), [v for _, v in left]) if left else None

    def _refuse(
        self,
        table: StreamTable,
        row: int,
        channels: tuple[int, ...],
        time_ns: int,
        now_ns: int,
        *,
        late: bool,
    ) -> None:
        """Tell who watches clocks, behind what the messages before have told: the last reading counts."""
        if table.watch.rules.clock_limit_ns and table.burst.rows:
            self._assemble(table, now_ns)
        table.refuse(row, channels, time_ns, late=late)

    def prepare_columns(self) -> None:
        """Compile, or load from the cache, what `judge_columns` runs; it needs Numba."""
        from edge_rnn.stream.columns_loop import note, take

        self._lanes = {
            name: Lanes(table, take().machine_code, note().machine_code)
            for name, table in self._tables.items()
            if table.assembler.is_immediate()
            and self._groups[name].quantized is None
            and not self._groups[name].numbered
        }

    def takes_columns(self, group: str) -> bool:
        """Whether this group's messages may come to `judge_columns`."""
        return group in self._lanes

    def judge_columns(self, columns: Columns, now_ns: int) -> list[Judged]:
        """`judge` for messages in columns, all of a group that `takes_columns`; with the same results."""
        found: list[Judged] = []
        table, lanes = self._tables[columns.group], self._lanes[columns.group]
        latest = min(now_ns + self._groups[columns.group].max_ahead_ns, TIME_LIMIT - 1)
        n, channels, counters = len(columns.block), table.assembler.channels, self.counters
        lanes.begin(columns, now_ns, latest)
        index = 0
        while (index := lanes.take(index)) < n:
            lane, time_ns, values = columns.message(index, channels)
            if lanes.rows[lane] < 0:
                stream = columns.streams[lane]
                slot = self._slots.get(stream)
                if slot is None:
                    if table.is_full():
                        self._judge_lanes(found, columns.group)
                        for judged in found[-1:]:
                            # Its rows are about to get other streams.
                            _ = judged.streams
                    slot = self._admit(stream, now_ns, [])
                assert slot is not None
                lanes.learn(lane, slot[1])
            else:
                row = int(lanes.rows[lane])
                if not -TIME_LIMIT < time_ns <= latest:
                    message = Message(columns.streams[lane], table.whole, time_ns, values)
                    self._unusual(table, row, message, table.whole, values, now_ns)
                elif table.assembler.add(row, table.whole, time_ns, values, now_ns, table.batch):
                    table.uses += 1
                    table.assembler.use(row, table.uses)
                    table.changed.add(row)
                index += 1
            lanes.look()
        late, ahead_of_us = lanes.dropped
        counters.readings += n * channels
        counters.late += late * channels
        counters.ahead += ahead_of_us * channels
        self._judge_lanes(found, columns.group)
        return found

    def _judge_lanes(self, found: list[Judged], group: str) -> None:
        """Step what `judge_columns` has put together."""
        table = self._tables[group]
        if not table.batch.size:
            return
        self.counters.samples += table.batch.size
        rows, out, told, *addresses = self._lanes[group].step()
        judged = Judged(table, group, rows, out, partial(explained, table), addresses)
        found.append(judged)
        if told is not None or table.watch.made:
            for index in sorted({*table.watch.made, *([] if told is None else told.tolist())}):
                self._follow(table, int(rows[index]), judged.verdict(index), index)

    def _judge_bursts(self, found: list[Judged], now_ns: int) -> None:
        """Assemble and step what the messages so far have brought, group by group."""
        for name, table in self._tables.items():
            if table.burst.rows:
                self._assemble(table, now_ns)
            n = table.batch.size
            if not n:
                continue
            rows = table.batch.rows[:n].copy()
            self.counters.samples += n
            open_before = table.tracker.marks[rows, OPEN] | table.tracker.marks[rows, FAULTS]
            judged = Judged(table, name, rows, table.step(), partial(explained, table))
            found.append(judged)
            out = judged.records
            told = (out["alarm"] != 0) | (out["status"] == _FAULT) | (open_before != 0)
            if told.any() or table.watch.made:
                # Whatever opens here may close here: every verdict of such a stream is looked at.
                for index in sorted({*table.watch.made, *np.flatnonzero(np.isin(rows, rows[told])).tolist()}):
                    self._follow(table, int(judged.rows[index]), judged.verdict(index), index)

    def _assemble(self, table: StreamTable, now_ns: int) -> None:
        burst, table.burst = table.burst, Burst()
        n, counters = len(burst.rows), self.counters
        if n >= FEW and assemble(table.assembler, burst, now_ns, table.uses + 1, table.batch):
            table.uses += n
            table.changed.update(burst.rows)
            counters.readings += n * table.assembler.channels
            return
        assembler, batch = table.assembler, table.batch
        for row, channels, time_ns, values in zip(
            burst.rows, burst.channels, burst.times_ns, burst.values, strict=True
        ):
            counters.readings += len(channels)
            table.check_channels(channels, values)
            if assembler.add(row, channels, time_ns, values, now_ns, batch):
                table.uses += 1
                assembler.use(row, table.uses)
                table.changed.add(row)

    def tick(self, now_ns: int, clock_ns: int | None = None) -> list[Verdict]:
        """Close vectors that have waited too long; report streams that are silent or whose clock is wrong.

        A stream whose clock is found wrong, or right again, or which has stopped flapping, gives one verdict.
        A silent stream gives one verdict, with status `fault`, when it falls silent; nothing is stepped.

        Args:
            clock_ns: what times of readings are held against, where `now_ns` does not follow the clock.
        """
        verdicts: list[Verdict] = []
        for table in self._tables.values():
            for row in sorted(
                table.assembler.close_due(now_ns, table.taken), key=lambda r: str(table.ids[r])
            ):
                before = table.batch.size
                table.assembler.close(row, now_ns, table.batch)
                table.changed.add(row)
                self._order += [table] * (table.batch.size - before)
        self._judge(verdicts)
        for name, table in self._tables.items():
            verdicts += self._watch(table, now_ns, now_ns if clock_ns is None else clock_ns)
            verdicts += self._silent(name, table, now_ns)
        return verdicts

    def take_events(self) -> list[Event]:
        """The events since the last call, in order."""
        events, self._events = self._events, []
        return events

    def changed(self) -> list[tuple[str, bytes]]:
        """Id and state of every stream that has changed since the last call."""
        found: list[tuple[str, bytes]] = []
        for table in self._tables.values():
            found += [(str(table.ids[row]), table.dump(row)) for row in sorted(table.changed)]
            table.changed.clear()
        return found

    def states(self) -> list[tuple[str, bytes]]:
        """Id and state of every stream, changed or not; for a full copy."""
        return [(stream, table.dump(row)) for stream, (table, row, _) in self._slots.items()]

    def removed(self) -> list[str]:
        """Ids of the streams forgotten since the last call that have not come back."""
        gone = [stream for stream in self._gone if stream not in self._slots]
        self._gone.clear()
        return sorted(gone)

    def forget(self, stream: str) -> bool:
        """Forget a stream; its open events are closed. Returns whether it was there."""
        slot = self._slots.pop(stream, None)
        if slot is None:
            return False
        closed = slot[0].drop(stream)
        self.counters.events += len(closed)
        self._events += closed
        self._gone.add(stream)
        return True

    def hand_over(self, stream: str, fresh: Engine) -> None:
        """Forget a stream that starts cold in `fresh`: what is wrong with its sender stays open there.

        Its clock and its flapping have nothing to do with the model, other events close.
        """
        slot = self._slots.get(stream)
        if slot is not None:
            table, row, _ = slot
            active_ns = int(table.assembler.marks[row, ACTIVE_AT])
            if table.watch.has_open[row] and fresh._take_over(stream, table.watch.dump(row), active_ns):
                table.watch.reset(row)
        self.forget(stream)

    def _take_over(self, stream: str, watched: bytes, active_ns: int) -> bool:
        name = stream.split("/", 1)[0]
        table = self._tables.get(name)
        if table is None or stream in self._slots or table.is_full():
            return False
        row = table.admit(stream, active_ns)
        if not table.watch.take_over(row, watched):
            table.drop(stream)
            return False
        self._slots[stream] = (table, row, self._ahead(name))
        table.uses += 1
        table.assembler.use(row, table.uses)
        table.changed.add(row)
        return True

    def is_open(self, event: str) -> bool:
        """Whether an event of this id is open."""
        return any(
            event == one
            for table in self._tables.values()
            for row in np.flatnonzero(table.taken & table.has_open()).tolist()
            for one in table.open_ids(row)
        )

    def remember(self, streams: Iterable[str]) -> dict[str, bytes | None]:
        """The states of these streams, None where there is none; for `put_back`."""
        found: dict[str, bytes | None] = {}
        for stream in streams:
            slot = self._slots.get(stream)
            found[stream] = None if slot is None else slot[0].dump(slot[1])
        return found

    def put_back(self, states: Mapping[str, bytes | None]) -> None:
        """Undo a call that has raised and touched these streams alone; what it began is forgotten."""
        self._drop_waiting()
        for stream, blob in states.items():
            slot = self._slots.pop(stream, None)
            if slot is not None:
                slot[0].drop(stream)
            if blob is not None:
                self.load(stream, blob)
                table, row, _ = self._slots[stream]
                table.changed.add(row)

    def clear(self) -> None:
        """Forget all streams and what is under way, without events: as after the constructor."""
        self._drop_waiting()
        for stream, (table, _, _) in self._slots.items():
            table.drop(stream)
        self._slots.clear()
        self._gone.clear()

    def _drop_waiting(self) -> None:
        for table in self._tables.values():
            table.burst = Burst()
            table.batch.size = 0
        self._order.clear()
        self._events.clear()

    def load(self, stream: str, blob: bytes) -> None:
        """Bring a stream to a state that `changed` gave, here or in another process.

        Raises:
            SnapshotError: it does not fit this engine; the stream starts cold, all else is unchanged.
        """
        name = stream.split("/", 1)[0]
        table = self._tables.get(name)
        if table is None:
            raise SnapshotError(
                f"stream {stream!r}: there is no group {name!r} in the configuration any more"
            )
        if stream in self._slots:
            raise SnapshotError(
                f"stream {stream!r}: it has a state already; load states before the first reading"
            )
        if table.is_full():
            raise SnapshotError(
                f"stream {stream!r}: group {name!r} is full ({table.max_streams}); raise its max_streams"
            )
        row = table.load(stream, blob)
        self._slots[stream] = (table, row, self._ahead(name))
        table.uses = max(table.uses, int(table.assembler.marks[row, USED]))

    def _admit(
        self, stream: str, now_ns: int, verdicts: list[Verdict]
    ) -> tuple[StreamTable, int, int] | None:
        """A slot for a stream not seen before; None where its group does not exist."""
        name = stream.split("/", 1)[0]
        table = self._tables.get(name)
        if table is None:
            return None
        if table.is_full():
            # Its samples may wait in the batch, under the row that is about to be given away.
            self._judge(verdicts)
            self.forget(table.oldest())
            self.counters.evicted += 1
        slot = (table, table.admit(stream, now_ns), self._ahead(name))
        self._slots[stream] = slot
        return slot

    def _ahead(self, name: str) -> int:
        """How far ahead a time may lie to go the short way; see `_unusual`."""
        group = self._groups[name]
        return -(2**63) if group.numbered else group.max_ahead_ns

    def _judge(self, verdicts: list[Verdict]) -> None:
        """Step all samples that wait and append their verdicts in the order the samples left."""
        order, self._order = self._order, []
        if not order:
            return
        self.counters.samples += len(order)
        pending = {id(table): enumerate(step(table)) for table in self._tables.values() if table.batch.size}
        for table in order:
            index, (row, verdict) = next(pending[id(table)])
            verdicts.append(verdict)
            self._follow(table, row, verdict, index)

    def _follow(self, table: StreamTable, row: int, verdict: Verdict, index: int) -> None:
        """What the verdict of this number in its batch leads to."""
        if table.watch.made:
            self._take(table.watch.made.pop(index, []))
        events = table.tracker.follow(row, verdict)
        if events:
            self.counters.events += len(events)
            self._events += events

    def _take(self, events: list[Event]) -> None:
        """Events of a watch."""
        for event in events:
            if event.type == "open":
                self.counters.clock += event.kind == "clock"
                self.counters.flapping += event.kind == "flapping"
        self.counters.events += len(events)
        self._events += events

    def _watch(self, table: StreamTable, now_ns: int, clock_ns: int) -> list[Verdict]:
        marks = table.assembler.marks
        told, changed = table.watch.tick(
            now_ns, clock_ns, table.assembler.times, marks[:, ACTIVE_AT], table.taken, table.ids
        )
        table.changed.update(changed)
        found: list[Verdict] = []
        for row, events in told:
            self._take(events)
            found.append(standing(table, row))
        return found

    def _silent(self, name: str, table: StreamTable, now_ns: int) -> list[Verdict]:
        rules, group = table.detector.plan.spec.guard, self._groups[name]
        marks = table.assembler.marks
        if rules.silent_after_ns:
            limits = np.full(len(marks), rules.silent_after_ns)
        elif group.silent_intervals:
            # Learned: so many intervals of the stream's own; whoever has sent too little is not blamed.
            limits = np.maximum(group.silent_intervals * marks[:, INTERVAL], group.silent_least_ns)
            limits[marks[:, KNOWN] < LEARNED] = TIME_LIMIT
        else:
            return []
        # Whoever sends what must be refused is not silent.
        active = np.maximum(marks[:, ACTIVE_AT], table.watch.heard_ns())
        rows = np.flatnonzero(table.taken & (marks[:, QUIET] == 0) & (active < now_ns - limits))
        found: list[Verdict] = []
        for row in sorted(rows.tolist(), key=lambda r: str(table.ids[r])):
            since = max(int(active[row]), self._alive_since)
            quiet = np.flatnonzero(table.assembler.flags[row] != guard.FRESH)
            limit = int(limits[row])
            if not limit < now_ns - since or not quiet.size:
                continue
            marks[row, QUIET] = 1
            newest = max(int(marks[row, NEWEST]), int(marks[row, EMITTED]))
            verdict = silence(table, row, newest + limit, quiet)
            self.counters.silent += 1
            table.changed.add(row)
            self._follow(table, row, verdict, -1)
            found.append(verdict)
        return found
