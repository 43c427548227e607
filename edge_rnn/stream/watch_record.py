"""What a watch over clocks, flapping and numbers remembers of one stream, and its events; see `watch.py`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from edge_rnn.stream.assemble import NEVER, TIME_LIMIT
from edge_rnn.stream.events import MAX_SHARES, event_id
from edge_rnn.stream.types import Event

Change = Literal["open", "update", "close"]
# In `wrong` and `flaps`: 1, it is so now; this, it was so during the event that is open.
OVER: Final = 2
# Places in `head`: of each fault whether it is open, since when, and its worst (ns of offset; changes a
# minute times 1000); the clock when a refused reading was heard last, and when it was looked at last.
CLOCK_OPEN, CLOCK_START, CLOCK_WORST, FLAP_OPEN, FLAP_START, FLAP_WORST, HEARD, LOOKED, HEAD = range(9)
_FAR: Final = 2 * TIME_LIMIT - 1


@dataclass(frozen=True, slots=True)
class WatchRules:
    """What is watched; nothing by default.

    clock_limit_ns: how far times may be from the clock; 0: clocks are not watched.
    alarm: changes of the alarm in a minute that are still fine; 0: not watched.
    channels: the same for each channel's value; empty: none is watched.
    numbered: whether messages carry a sequence.
    """

    clock_limit_ns: int = 0
    alarm: int = 0
    channels: tuple[int, ...] = ()
    numbered: bool = False

    @property
    def items(self) -> tuple[tuple[int, int], ...]:
        """What may flap: (channel, limit), channel -1 is the alarm."""
        watched = tuple((c, limit) for c, limit in enumerate(self.channels) if limit)
        return (((-1, self.alarm),) if self.alarm else ()) + watched


def record_dtype(rules: WatchRules, c: int) -> np.dtype[np.void]:
    """The record of one stream of c channels; its size is a multiple of 8 bytes, `head` comes first.

    With clocks: seen i8 (C,), the newest time at the last look; refused i8 (C,), the time of a reading that
    was refused since, and late u1 (C,), whether for being late; since i8 (C,), from when on it has been
    wrong, first and offset i8 (C,), by how much then and now; wrong u1 (C,). With K items that may flap: ring
    i8 (K, longest limit + 1), times of the last changes, newest first; last f8 (K,), the value; flaps u1
    (K,). With numbers: sequence i8 (C,).
    """
    fields: list[tuple[str, str, tuple[int, ...]]] = [("head", "<i8", (HEAD,))]
    k = len(rules.items)
    if rules.clock_limit_ns:
        fields += [(name, "<i8", (c,)) for name in ("seen", "refused", "since", "first", "offset")]
    if k:
        longest = max(limit for _, limit in rules.items)
        fields += [("ring", "<i8", (k, longest + 1)), ("last", "<f8", (k,))]
    if rules.numbered:
        fields += [("sequence", "<i8", (c,))]
    if rules.clock_limit_ns:
        fields += [("late", "u1", (c,)), ("wrong", "u1", (c,))]
    if k:
        fields += [("flaps", "u1", (k,))]
    sizes = [int(kind[-1]) * math.prod(shape) for _, kind, shape in fields]
    return np.dtype(
        {
            "names": [name for name, _, _ in fields],
            "formats": [(kind, shape) for _, kind, shape in fields],
            "offsets": [sum(sizes[:place]) for place in range(len(sizes))],
            "itemsize": (sum(sizes) + 7) // 8 * 8,
        }
    )


def fresh_record(rules: WatchRules, c: int) -> NDArray[np.void]:
    """(1,): a stream of which nothing was seen."""
    fresh = np.zeros(1, record_dtype(rules, c))
    for name in fresh.dtype.names or ():
        if name in ("seen", "refused", "since", "ring", "sequence"):
            fresh[name] = NEVER
        elif name == "last":
            # Of a value nothing is known; an alarm is off at first.
            fresh[name] = [0.0 if channel < 0 else math.nan for channel, _ in rules.items]
    fresh["head"][0, [HEARD, LOOKED]] = NEVER
    return fresh


def is_sound(rules: WatchRules, record: NDArray[np.void]) -> bool:
    """Whether a watch could have left such a record (1,)."""
    names = record.dtype.names or ()
    times = [record[n][0].ravel() for n in ("seen", "refused", "since", "ring") if n in names]
    return bool(
        is_head(record["head"][0])
        and all(((t == NEVER) | (np.abs(t) < _FAR)).all() for t in times)
        and all((np.abs(record[n][0]) < _FAR).all() for n in ("first", "offset") if n in names)
        and all(record[n].max() <= OVER for n in ("late", "wrong", "flaps") if n in names)
        and ("last" not in names or not np.isinf(record["last"]).any())
        and (not rules.alarm or record["last"][0, 0] in (0.0, 1.0))
    )


def is_head(head: NDArray[np.int64]) -> bool:
    """Whether a watch could have left such a head."""
    return bool(
        ((head == NEVER) | (np.abs(head) < _FAR)).all()
        and head[CLOCK_OPEN] in (0, 1)
        and head[FLAP_OPEN] in (0, 1)
        and (head[[CLOCK_START, CLOCK_WORST, FLAP_START, FLAP_WORST]] != NEVER).all()
        and head[FLAP_WORST] >= 0
    )


def fault_event(
    stream: str,
    kind: str,
    change: Change,
    start_ns: int,
    time_ns: int,
    numbers: tuple[float, float, float],
    channels: Sequence[str],
) -> Event:
    """The event of a fault that has numbers: score, threshold and peak; `channels` are to blame."""
    score, threshold, peak = numbers
    return Event(
        type=change,
        id=event_id(stream, kind, start_ns),
        stream=stream,
        kind=kind,
        start_ns=start_ns,
        time_ns=time_ns,
        end_ns=time_ns if change == "close" else None,
        score=float(score),
        threshold=float(threshold),
        peak=float(peak),
        peak_ns=start_ns,
        shares=tuple((name, math.nan) for name in channels[:MAX_SHARES]),
    )
