"""A moment of the daemon, for whoever shows it: metrics and readiness over HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


class Latest(NamedTuple):
    """The latest verdict of a stream, as far as metrics tell it."""

    stream: str
    status: str
    score: float
    threshold: float
    time_ns: int
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """A moment of the daemon.

    counters: part (daemon, engine, broker, store) -> an object with integer fields, or a mapping; gauges:
    name -> value; latest: the streams; problems: why it is not ready, empty if it is; stalled_s: seconds
    since the data path last went round.
    """

    counters: dict[str, Any]
    gauges: dict[str, float]
    latest: list[Latest]
    problems: list[str]
    stalled_s: float
