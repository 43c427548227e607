"""The demo's bookkeeping: what was sent, what came back, which fault was found by which event.

Pure arithmetic on what it is told; times are integer nanoseconds since 1970. It trusts nothing but what
travelled over MQTT: a reading counts as scored when its score message has come back, and a fault as found
when an event message about that pump opened while the fault was there or shortly after.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from edge_rnn.demo.pumps import CHANNELS, PERIOD_NS, FaultName, InjectedFault

# After a fault its consequences may still raise alarms: the sensor jumps back, a silent pump starts anew.
GRACE_NS: Final = 3_000_000_000

_RECENT: Final = 500

# The events that count as finding a fault. A stuck sensor disagrees with what the model expects before it has
# repeated itself often enough to be called stuck.
_FINDS: Final[Mapping[FaultName, frozenset[str]]] = {
    "spike": frozenset({"anomaly"}),
    "drift": frozenset({"anomaly"}),
    "stuck": frozenset({"stuck", "anomaly"}),
    "silent": frozenset({"silent"}),
}


@dataclass(frozen=True, slots=True)
class SeenScore:
    """One score message: the pump it is about, its reading's event time, when it came, and what it says.

    blamed: the channels that raise the alarm: with a fault, or with at least half of the score.
    """

    pump: str
    time_ns: int
    received_ns: int
    status: str
    score: float | None
    threshold: float | None
    expected: Mapping[str, float | None] = field(default_factory=dict)
    blamed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class SeenEvent:
    """One event message: `type` open, update or close; `channels` with their shares, largest first."""

    pump: str
    id: str
    type: str
    kind: str
    received_ns: int
    channels: tuple[tuple[str, float | None], ...] = ()

    @property
    def reason(self) -> str:
        """The channel to blame and its share, such as "pressure 93 %"; "" where the whole pump is."""
        if not self.channels or self.kind == "silent":
            return ""
        name, share = self.channels[0]
        # Where channels hang together, one may speak against the alarm (share < 0) and another reach over 1.
        return name if share is None else f"{name} {100 * min(share, 1):.0f} %"


@dataclass(frozen=True, slots=True)
class FaultReport:
    """What became of one injected fault: the event that found it and how long that took, or None."""

    fault: InjectedFault
    event: SeenEvent | None
    delay_s: float | None

    @property
    def channel(self) -> str:
        """Name of the faulty channel; "all" for the whole pump."""
        return "all" if self.fault.channel is None else CHANNELS[self.fault.channel].name


@dataclass(frozen=True, slots=True)
class Summary:
    """The closing account. Readings are single values: three for each message of a pump."""

    seconds: float
    sent: int
    scored: int
    repeated: int
    faults: tuple[FaultReport, ...]
    false_alarms: tuple[SeenEvent, ...]
    latency_ms: Mapping[str, float]

    @property
    def lost(self) -> int:
        """Readings whose score never came."""
        return self.sent - self.scored

    @property
    def found(self) -> int:
        """Injected faults that an event found."""
        return sum(report.event is not None for report in self.faults)

    @property
    def passed(self) -> bool:
        """Every injected fault found and nothing lost."""
        return self.sent > 0 and self.lost == 0 and self.found == len(self.faults)

    def as_json(self) -> dict[str, Any]:
        """The summary as plain values for `--json`."""
        return {
            "passed": self.passed,
            "seconds": round(self.seconds, 2),
            "readings": {
                "sent": self.sent, "scored": self.scored, "lost": self.lost, "repeated": self.repeated,
            },
            "injected": len(self.faults),
            "found": self.found,
            "faults": [
                {
                    "kind": report.fault.kind,
                    "pump": report.fault.pump,
                    "channel": report.channel,
                    "found": report.event is not None,
                    "event": None if report.event is None else report.event.kind,
                    "reason": None if report.event is None else report.event.reason,
                    "delay_s": None if report.delay_s is None else round(report.delay_s, 3),
                }
                for report in self.faults
            ],
            "false_alarms": len(self.false_alarms),
            "latency_ms": {name: round(value, 3) for name, value in self.latency_ms.items()},
        }  # fmt: skip


class Ledger:
    """Collects one run.

    Args:
        faults: those injected.
    """

    def __init__(self, faults: Sequence[InjectedFault]) -> None:
        self.faults = tuple(faults)
        self.begin_ns = 0
        self.sent: set[tuple[str, int]] = set()
        self.scored: dict[tuple[str, int], int] = {}
        self.repeated = 0
        self._recent: deque[int] = deque(maxlen=_RECENT)
        self.opened: list[SeenEvent] = []

    def begin(self, now_ns: int) -> None:
        """The first beat is sent at `now_ns`."""
        self.begin_ns = now_ns

    def add_sent(self, pump: str, time_ns: int) -> None:
        """A message of `pump` leaves; its event time is the moment it is sent."""
        self.sent.add((pump, time_ns))

    def add_score(self, score: SeenScore) -> None:
        """A score message has come. That of a silent pump answers no reading and counts nowhere."""
        key = (score.pump, score.time_ns)
        if key in self.scored:
            self.repeated += 1
        elif key in self.sent:
            self.scored[key] = score.received_ns - score.time_ns
            self._recent.append(self.scored[key])

    def add_event(self, event: SeenEvent) -> None:
        """An event message has come; one that was sent again counts once."""
        if event.type == "open" and all(event.id != known.id for known in self.opened):
            self.opened.append(event)

    @property
    def complete(self) -> bool:
        """Whether a score has come for everything sent so far."""
        return len(self.scored) == len(self.sent)

    def fault_at(self, pump: str, now_ns: int) -> InjectedFault | None:
        """The fault of `pump` that is there, or whose consequences are, at `now_ns`: the latest of them."""
        there = [f for f in self.faults if f.pump == pump and self._from(f) <= now_ns < self._until(f)]
        return max(there, key=lambda fault: fault.start, default=None)

    def reports(self) -> tuple[FaultReport, ...]:
        """What is known of each injected fault by now."""
        return tuple(self._report(fault) for fault in self.faults)

    def false_alarms(self) -> tuple[SeenEvent, ...]:
        """Events that opened on a pump without a fault."""
        return tuple(e for e in self.opened if self.fault_at(e.pump, e.received_ns) is None)

    def latency_ms(self) -> dict[str, float]:
        """p50, p99 and max from sending a reading to receiving its score; empty without scores."""
        return _quantiles(self.scored.values())

    def recent_latency_ms(self) -> dict[str, float]:
        """The same of the last few seconds' scores."""
        return _quantiles(self._recent)

    def summary(self, seconds: float) -> Summary:
        """The account of a run of `seconds`."""
        return Summary(
            seconds=seconds,
            sent=len(CHANNELS) * len(self.sent),
            scored=len(CHANNELS) * len(self.scored),
            repeated=len(CHANNELS) * self.repeated,
            faults=self.reports(),
            false_alarms=self.false_alarms(),
            latency_ms=self.latency_ms(),
        )

    def _from(self, fault: InjectedFault) -> int:
        return self.begin_ns + fault.start * PERIOD_NS

    def _until(self, fault: InjectedFault) -> int:
        return self.begin_ns + fault.end * PERIOD_NS + GRACE_NS

    def _report(self, fault: InjectedFault) -> FaultReport:
        for event in self.opened:
            if event.kind in _FINDS[fault.kind] and self.fault_at(event.pump, event.received_ns) is fault:
                return FaultReport(fault, event, (event.received_ns - self._from(fault)) / 1e9)
        return FaultReport(fault, None, None)


def _quantiles(nanoseconds: Collection[int]) -> dict[str, float]:
    values = np.fromiter(nanoseconds, np.float64, len(nanoseconds)) / 1e6
    if values.size == 0:
        return {}
    p50, p99 = np.percentile(values, (50, 99))
    return {"p50": float(p50), "p99": float(p99), "max": float(values.max())}
