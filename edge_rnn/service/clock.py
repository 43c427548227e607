"""The only clocks of the daemon, so that tests can hold them still.

Intervals (ticks, commits, pauses) come from the monotonic clock. Readings without a time of their own get the
moment of arrival from `Arrival`: the wall clock, but strictly rising. A wall clock that is set back would
otherwise make every following reading "late" until it has caught up; here arrival times go on from where they
were, at the pace of the monotonic clock, until the wall clock is ahead again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """`monotonic` in seconds, from an arbitrary start; `wall_ns` in nanoseconds since 1970 UTC."""

    monotonic: Callable[[], float] = time.monotonic
    wall_ns: Callable[[], int] = time.time_ns


class Arrival:
    """Strictly rising arrival times in ns since 1970; none is at or before `floor_ns`."""

    __slots__ = ("_clock", "_last", "_last_monotonic")

    def __init__(self, clock: Clock, floor_ns: int = 0) -> None:
        self._clock = clock
        self._last = floor_ns
        self._last_monotonic = clock.monotonic()

    @property
    def last_ns(self) -> int:
        """The latest moment given out; kept in the store, so that a restart does not go back either."""
        return self._last

    @property
    def ahead_ns(self) -> int:
        """How far arrival times are ahead of the wall clock: > 0 after it was set back."""
        return max(0, self._last - self._clock.wall_ns())

    def next_ns(self) -> int:
        """The moment now, later than every one before."""
        now = self._clock.monotonic()
        passed = int((now - self._last_monotonic) * 1e9)
        wall = self._clock.wall_ns()
        self._last = wall if wall > self._last else self._last + max(1, passed)
        self._last_monotonic = now
        return self._last

    def skip(self, count: int) -> None:
        """The next `count` nanoseconds after the latest moment are given out, too."""
        self._last += count


class Timer:
    """Due every `seconds` of the monotonic clock; 0 = never."""

    __slots__ = ("next", "seconds")

    def __init__(self, seconds: float, now: float) -> None:
        self.seconds = seconds
        self.next = now + seconds

    def due(self, now: float) -> bool:
        """Whether it is due; if so, the next time is set."""
        if not self.seconds or now < self.next:
            return False
        self.next = now + self.seconds
        return True
