"""The assembler once more, as a reader would write it down: lists and dictionaries, no record, no tricks."""

from __future__ import annotations

from dataclasses import dataclass, field

from edge_rnn.stream.assemble import Assembly

Emitted = tuple[int, tuple[float | None, ...], tuple[int, ...]]


@dataclass
class NaiveStream:
    """One stream; `out` holds (time, values, presence) with presence 0 absent, 1 new, 2 held."""

    assembly: Assembly
    names: list[str]
    period_ns: int = 0
    values: dict[int, float] = field(default_factory=dict)
    times: dict[int, int] = field(default_factory=dict)
    new: set[int] = field(default_factory=set)
    last_sample: int | None = None
    first: int | None = None
    waiting_since: int | None = None
    arrived_at: int = 0
    started: bool = False
    interval: int | None = None
    out: list[Emitted] = field(default_factory=list)
    late: int = 0
    duplicate: int = 0

    def take(self, channels: tuple[int, ...], time_ns: int, values: list[float], now_ns: int) -> None:
        on, every = self.assembly.on, self.assembly.every_ns
        if on == "every" and self.interval is not None and time_ns // every < self.interval:
            self.late += len(channels)
            return
        taken = {}
        for channel, value in zip(channels, values, strict=True):
            if channel in self.times and time_ns == self.times[channel]:
                self.duplicate += 1
            elif channel in self.times and time_ns < self.times[channel]:
                self.late += 1
            else:
                taken[channel] = value
        if not taken:
            return
        if on == "every":
            if self.waiting_since is not None and time_ns // every > self.interval:
                self.close_interval()
            self.interval = time_ns // every
        if on == "all" and self.waiting_since is not None and time_ns - self.waiting_since >= self.wait:
            self.emit(max(self.times.values()))
        if self.first is None:
            self.first = time_ns
        if self.waiting_since is None:
            self.waiting_since, self.arrived_at = time_ns, now_ns
        for channel, value in taken.items():
            self.values[channel], self.times[channel] = value, time_ns
            self.new.add(channel)
        newest = max(self.times.values())
        if on == "all":
            if len(self.new) == len(self.names):
                self.emit(newest)
        elif on != "every" and (on == "any" or self.names.index(on) in taken) and self.may_start(newest):
            self.emit(newest)

    def tick(self, now_ns: int) -> None:
        on = self.assembly.on
        if self.waiting_since is None or now_ns - self.arrived_at < self.wait:
            return
        if on == "every":
            self.close_interval()
            self.interval += 1
        elif on == "all":
            self.emit(max(self.times.values()))
        elif not self.started:
            self.started = True
            if on == "any":
                self.emit(max(self.times.values()))

    @property
    def wait(self) -> int:
        return self.assembly.wait_ns(self.period_ns)

    def close_interval(self) -> None:
        end = (self.interval + 1) * self.assembly.every_ns
        if self.may_start(end):
            self.emit(end)
        self.waiting_since = None

    def may_start(self, time_ns: int) -> bool:
        if len(self.times) == len(self.names) or time_ns - self.first >= self.wait:
            self.started = True
        return self.started

    def emit(self, time_ns: int) -> None:
        if self.last_sample is not None:
            time_ns = max(time_ns, self.last_sample + 1)
        ages = self.assembly.max_age_ns or (0,) * len(self.names)
        presence = []
        for channel, age in enumerate(ages):
            if channel not in self.times or (age and time_ns - self.times[channel] > age):
                presence.append(0)
            else:
                presence.append(1 if channel in self.new else 2)
        values = tuple(self.values.get(c) for c in range(len(self.names)))
        self.out.append((time_ns, values, tuple(presence)))
        self.last_sample = time_ns
        self.new.clear()
        self.waiting_since = None
