"""The values that pass between the rooms of `stream/` and out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_rnn.detect.verdict import Fault, Verdict

__all__ = ["Counters", "Event", "Fault", "Message", "Numbered", "Reading", "Sample", "Verdict"]


class Reading(NamedTuple):
    """One value of one channel of one stream.

    stream: id of the stream, `<group>` or `<group>/<key>/<key>...` with escaped keys (see `topics.py`);
    channel: index among the model's inputs; time_ns: event time, integer nanoseconds since 1970 UTC;
    value: the raw reading (NaN is allowed: the guard judges it).
    """

    stream: str
    channel: int
    time_ns: int
    value: float


class Message(NamedTuple):
    """Values of several channels of one stream that arrived together (one payload, one row of a file).

    With `on = "any"` a message makes one input vector; the same values as separate `Reading`s would make
    one vector each. channels: distinct indices among the model's inputs; values: as many raw readings.
    Give the same `channels` tuple with every message of a topic: it is compared, not copied.
    """

    stream: str
    channels: tuple[int, ...]
    time_ns: int
    values: Sequence[float]


class Numbered(Message):
    """A message that its sender has numbered: `number` rises from one to the next of a stream.

    It tells repeats apart where times cannot; see `watch.py`.
    """

    number: int

    @classmethod
    def of(cls, message: Message, number: int) -> Numbered:
        """The message with its number."""
        made = cls(*message)
        made.number = number
        return made


class Sample(NamedTuple):
    """One input vector, ready for the detector: values (C,) float64, present (C,) bool."""

    stream: str
    time_ns: int
    values: NDArray[np.float64]
    present: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Event:
    """A change of an alarm or a fault of one stream: it opens, is updated, or closes.

    id: the same for the whole life of the alarm, and the same again if it is made twice from the same
        readings (stream, kind and start time), so that a repeat is harmless.
    kind: `anomaly`, or the fault's kind (`missing`, `non-finite`, `range`, `stuck`, `silent`, `flapping`,
        `clock`).
    start_ns, peak_ns, end_ns: event times; end_ns is None until `close`.
    score, threshold: at this moment; peak: the highest score so far (NaN for a fault). For `clock` they are
        seconds: how far the times are ahead (< 0: behind), what is still fine, and the largest so far; for
        `flapping` changes a minute.
    shares: (channel name, share) at the peak, largest first; for a fault the faulty channels, share NaN.
    """

    type: Literal["open", "update", "close"]
    id: str
    stream: str
    kind: str
    start_ns: int
    time_ns: int
    end_ns: int | None
    score: float
    threshold: float
    peak: float
    peak_ns: int
    shares: tuple[tuple[str, float], ...]


@dataclass(slots=True)
class Counters:
    """What an engine has done since it was made; one thread writes, others may read.

    readings: values given to it; samples: vectors judged; duplicate, late: readings dropped because their
    channel has a reading of the same, or a later, time; ahead: dropped because their time lies too far in the
    future; unknown: of a stream whose group does not exist; timeouts: vectors closed by a timeout; evicted:
    streams forgotten because there were too many; silent, clock, flapping: streams that fell silent, whose
    clock was found wrong, that began to flap; events: events made.
    """

    readings: int = 0
    samples: int = 0
    duplicate: int = 0
    late: int = 0
    ahead: int = 0
    unknown: int = 0
    timeouts: int = 0
    evicted: int = 0
    silent: int = 0
    clock: int = 0
    flapping: int = 0
    events: int = 0

    def add(self, other: Counters) -> None:
        """Go on from where another engine's have stopped."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))
