"""What streams of one kind share: the model, how channels become vectors, and what is watched beside them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import msgspec

from edge_rnn.core.backend import LibraryLike
from edge_rnn.core.integers import Quantized
from edge_rnn.core.model import Model
from edge_rnn.errors import ConfigError
from edge_rnn.stream.assemble import Assembly
from edge_rnn.stream.watch import WatchRules

__all__ = ["Group"]

_DAY = 86_400 * 10**9


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Streams that share a model and the way their channels are assembled.

    name: first level of the streams' ids; no `/`, `+`, `#`.
    model: with a detector section.
    assembly: when a vector leaves.
    max_streams: most streams at one time; beyond it the least recently used one is forgotten.
    silent_after_ns, gap_ns: in place of the model's own; None keeps them. A gap given here resets the stream.
    silent_intervals, silent_least_ns: where neither gives a limit: a stream is silent after so many of its
        own intervals, which it learns, and at least so long; 0 = never.
    max_ahead_ns: a reading whose time lies further ahead of the clock is dropped: it would make all later
        ones of its channel late.
    clock_limit_ns: a stream whose times are further from the clock has the fault `clock`; 0 = never. For
        streams with times of their own.
    flapping: changes of the alarm in a minute that are still fine; 0 = any number. flapping_channels: the
        same for each channel's value; empty = none is watched.
    numbered: messages are `Numbered`: a number that has been heard is a repeat, whatever its time.
    rise, update_ns: an open anomaly is told again when its score has risen by this factor, at most once in
        this much event time.
    quantized: the model's network in integers, to be judged in its place; such streams have no snapshots.
    library: where the compiled functions come from, see `DetectorTable`; None compiles them here.
    """

    name: str
    model: Model
    assembly: Assembly = field(default_factory=Assembly)
    max_streams: int = 1000
    silent_after_ns: int | None = None
    gap_ns: int | None = None
    silent_intervals: int = 0
    silent_least_ns: int = 60 * 10**9
    max_ahead_ns: int = _DAY
    clock_limit_ns: int = 0
    flapping: int = 0
    flapping_channels: tuple[int, ...] = ()
    numbered: bool = False
    rise: float = 1.5
    update_ns: int = 10 * 10**9
    quantized: Quantized | None = None
    library: LibraryLike | None = None

    def __post_init__(self) -> None:
        if not self.name or set("/+#\0") & set(self.name):
            raise ConfigError(f"stream name: expected text without / + # and NUL, got {self.name!r}")
        if self.max_streams < 1:
            raise ConfigError(
                f"stream {self.name!r}: max_streams: expected at least 1, got {self.max_streams}"
            )
        try:
            self.assembly.check([i.name for i in self.model.inputs])
        except ConfigError as error:
            raise ConfigError(f"stream {self.name!r}: {error}") from None

    @property
    def watch(self) -> WatchRules:
        """What is watched beside readings."""
        return WatchRules(self.clock_limit_ns, self.flapping, self.flapping_channels, self.numbered)

    def judged_model(self) -> Model:
        """The model with this group's limits in its guard."""
        spec = self.model.detector
        if spec is None or (self.silent_after_ns is None and self.gap_ns is None):
            return self.model
        rules = spec.guard
        if self.silent_after_ns is not None:
            rules = msgspec.structs.replace(rules, silent_after_ns=self.silent_after_ns)
        if self.gap_ns is not None:
            rules = msgspec.structs.replace(rules, gap_ns=self.gap_ns, on_gap="reset")
        return dataclasses.replace(self.model, detector=msgspec.structs.replace(spec, guard=rules))
