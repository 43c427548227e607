"""The latest of every stream, from what a daemon publishes; `edge-rnn tail` draws it.

`Board.take` reads one message of the daemon's and keeps what is newest. Streams are sorted by what needs a
person first: alarms and faults, then by score in units of the threshold. Nothing here knows a broker or a
terminal.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

TRACE = 40
MOST_STREAMS = 100_000
_ENDINGS = ("score", "state", "event")


@dataclass(slots=True)
class Line:
    """One stream: status, last score and threshold, what is to blame, a trace of score / threshold."""

    stream: str
    status: str = "waiting"
    alarm: bool = False
    score: float | None = None
    threshold: float | None = None
    shares: dict[str, float] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    scores: int = 0
    heard: float = -math.inf
    trace: deque[float] = field(default_factory=lambda: deque(maxlen=TRACE))

    @property
    def level(self) -> float:
        """Score in units of the threshold; 0 while there is none."""
        if self.score is None or not self.threshold:
            return 0.0
        return self.score / self.threshold

    @property
    def reasons(self) -> str:
        """What is to blame: faulty channels, else the largest shares while something is wrong."""
        if self.faults:
            return ", ".join(f"{name} {kind}" for name, kind in list(self.faults.items())[:3])
        if not self.alarm and self.level < 1:
            return ""
        largest = sorted(self.shares.items(), key=lambda pair: -pair[1])[:2]
        return ", ".join(f"{name} {share:.0%}" for name, share in largest if share > 0)


class Board:
    """The streams of one daemon.

    Args:
        base: the first level(s) of its topics.

    Attributes:
        lines: by stream; online: what the daemon's status topic said, None before; unread: messages that are
        none of the daemon's; health: the last health message.
    """

    def __init__(self, base: str) -> None:
        self.lines: dict[str, Line] = {}
        self.online: bool | None = None
        self.health: dict[str, Any] = {}
        self.events: deque[dict[str, Any]] = deque(maxlen=20)
        self.scores = 0
        self.unread = 0
        self._base = base + "/"

    def take(self, topic: str, payload: bytes, now: float) -> dict[str, Any] | None:
        """Note one message; the score it holds with its stream, or None.

        Args:
            topic, payload: as they came.
            now: monotonic seconds.
        """
        rest = topic.removeprefix(self._base)
        if rest == topic:
            return None
        if rest == "status":
            self.online = payload == b"online"
            return None
        stream, _, ending = rest.rpartition("/")
        if rest != "health" and (ending not in _ENDINGS or not stream):
            return None
        if ending == "state" and not payload:
            self.lines.pop(stream, None)
            return None
        try:
            document = json.loads(payload)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            self.unread += 1
            return None
        if rest == "health":
            self.health = document
            return None
        if ending == "event":
            self.events.append(document)
            return None
        if stream not in self.lines and len(self.lines) >= MOST_STREAMS:
            self.unread += 1
            return None
        line = self.lines.setdefault(stream, Line(stream))
        self._note(line, document)
        if ending == "state":
            return None
        line.heard = now
        line.scores += 1
        self.scores += 1
        line.score, line.threshold = _number(document.get("score")), _number(document.get("threshold"))
        line.shares = _numbers(document.get("shares"))
        line.trace.append(line.level)
        return {"stream": stream, **document}

    @staticmethod
    def _note(line: Line, document: dict[str, Any]) -> None:
        line.status = str(document.get("status", "unknown"))
        line.alarm = document.get("alarm") is True
        faults = document.get("faults")
        line.faults = {str(k): str(v) for k, v in faults.items()} if isinstance(faults, dict) else {}

    def sorted(self, key: Callable[[Line], Any] | None = None) -> list[Line]:
        """All lines, those that need a person first; `key` sorts otherwise."""
        return sorted(self.lines.values(), key=key or _urgency)


def _urgency(line: Line) -> tuple[int, float, str]:
    rank = 0 if line.alarm else 1 if line.status == "fault" else 2
    return rank, -line.level, line.stream


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _numbers(value: object) -> dict[str, float]:
    if not isinstance(value, dict):
        return {}
    return {str(k): float(v) for k, v in value.items() if isinstance(v, int | float)}
