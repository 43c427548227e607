"""From verdicts to events: one life, one id, few messages."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from edge_rnn.detect.verdict import Fault, Verdict
from edge_rnn.stream.events import CLEAN, MAX_SHARES, Tracker, event_id
from edge_rnn.stream.types import Event

S = 10**9
NAMES = ["a", "b", "c"]


class Bench:
    """Verdicts of one stream, one a second."""

    def __init__(self, rise: float = 1.5, pause_s: int = 3, names: Sequence[str] = NAMES) -> None:
        self.tracker = Tracker(names, 3, rise, pause_s * S)
        self.channels = len(names)
        self.now = 0

    def step(
        self, score: float = 0.0, alarm: bool = False, faults: tuple[Fault, ...] = (), **more: object
    ) -> list[Event]:
        self.now += 1
        share = np.zeros(self.channels)
        share[: min(3, self.channels)] = (0.2, 0.7, 0.1)[: self.channels]
        nothing = np.full(self.channels, math.nan)
        values = {"share": share, "residual": nothing, "expected": nothing} | more
        verdict = Verdict("g/x", self.now * S, self.now, "normal", alarm, score, 2.0, faults=faults, **values)  # type: ignore[arg-type]
        return self.tracker.follow(1, verdict)


def brief(events: list[Event]) -> list[tuple[str, str]]:
    return [(e.type, e.kind) for e in events]


def test_the_life_of_an_anomaly() -> None:
    bench = Bench()
    assert bench.step(1) == []
    (opened,) = bench.step(4, alarm=True)
    assert (opened.type, opened.kind, opened.start_ns, opened.end_ns) == ("open", "anomaly", 2 * S, None)
    assert (opened.score, opened.threshold, opened.peak, opened.peak_ns) == (4, 2, 4, 2 * S)
    assert opened.shares == (("b", 0.7), ("a", 0.2), ("c", 0.1))
    # A higher peak, but the pause is not over; then it is told, though the score is lower again.
    assert bench.step(9, alarm=True, share=np.array([0.1, 0.1, 0.8])) == []
    assert bench.step(5, alarm=True) == []
    (update,) = bench.step(3, alarm=True)
    assert (update.type, update.score, update.peak, update.peak_ns) == ("update", 3, 9, 3 * S)
    assert update.shares[0] == ("c", 0.8)
    # Not risen enough since.
    assert bench.step(13, alarm=True) == []
    assert bench.step(13, alarm=True) == []
    assert bench.step(13, alarm=True) == []
    (closed,) = bench.step(1)
    assert (closed.type, closed.start_ns, closed.end_ns, closed.time_ns) == ("close", 2 * S, 9 * S, 9 * S)
    assert closed.peak == 13
    assert opened.id == update.id == closed.id == event_id("g/x", "anomaly", 2 * S)
    assert bench.step(1) == []
    (again,) = bench.step(4, alarm=True)
    assert again.id != opened.id
    assert again.peak == 4


def test_a_long_alarm_is_a_handful_of_messages() -> None:
    bench = Bench(pause_s=10)
    events = [e for i in range(1000) for e in bench.step(3 + i * 0.01, alarm=True)]
    assert events[0].type == "open"
    # From 3 to 13 by steps of 1.5: three of them.
    assert brief(events[1:]) == [("update", "anomaly")] * 3
    assert bench.step(0)[0].type == "close"


def test_the_score_may_be_unknown_behind_a_fault() -> None:
    bench = Bench(pause_s=0)
    bench.step(4, alarm=True)
    stuck = (Fault(1, "stuck"),)
    assert brief(bench.step(math.nan, alarm=True, faults=stuck)) == [("open", "stuck")]
    (update,) = bench.step(40, alarm=True, faults=stuck)
    assert (update.type, update.kind, update.peak) == ("update", "anomaly", 40)


def test_one_fault_event_for_all_channels_of_a_kind() -> None:
    bench = Bench()
    (opened,) = bench.step(faults=(Fault(2, "stuck"),))
    assert (opened.type, opened.kind, [n for n, _ in opened.shares]) == ("open", "stuck", ["c"])
    assert math.isnan(opened.peak)
    assert math.isnan(opened.shares[0][1])
    assert bench.step(faults=(Fault(2, "stuck"),)) == []
    (joined,) = bench.step(faults=(Fault(2, "stuck"), Fault(0, "stuck")))
    assert (joined.type, joined.id, [n for n, _ in joined.shares]) == ("update", opened.id, ["a", "c"])
    # One of them is well again: that is no news.
    assert bench.step(faults=(Fault(0, "stuck"),)) == []
    assert bench.step(faults=(Fault(0, "stuck"), Fault(2, "stuck"))) == []
    for _ in range(CLEAN - 1):
        assert bench.step() == []
    (closed,) = bench.step()
    assert (closed.type, closed.id) == ("close", opened.id)
    assert (closed.end_ns, closed.time_ns) == (6 * S, (5 + CLEAN) * S)


def test_a_flapping_sensor_is_one_event() -> None:
    bench = Bench()
    events = [e for i in range(100) for e in bench.step(faults=(Fault(0, "missing"),) if i % 3 == 0 else ())]
    assert brief(events) == [("open", "missing")]
    events = [e for _ in range(5) for e in bench.step()]
    assert brief(events) == [("close", "missing")]
    assert events[0].end_ns == 101 * S


def test_kinds_live_side_by_side() -> None:
    bench = Bench()
    both = (Fault(0, "range"), Fault(1, "missing"), Fault(2, "range"))
    events = bench.step(5, alarm=True, faults=both)
    assert brief(events) == [("open", "missing"), ("open", "range"), ("open", "anomaly")]
    assert [n for n, _ in events[1].shares] == ["a", "c"]


def test_silence_ends_with_the_first_reading() -> None:
    bench = Bench()
    assert brief(bench.step(faults=tuple(Fault(c, "silent") for c in range(3)))) == [("open", "silent")]
    (closed,) = bench.step()
    assert (closed.type, closed.end_ns) == ("close", 2 * S)


def test_what_is_open_is_closed_when_a_stream_is_forgotten() -> None:
    bench = Bench()
    opened = bench.step(5, alarm=True, faults=(Fault(0, "stuck"),))
    out = np.zeros(1, [("step", "<i8"), ("time_ns", "<i8")])
    out["time_ns"] = 7 * S
    bench.tracker.note(np.array([1]), out)
    closed = bench.tracker.close_all(1, "g/x")
    assert brief(closed) == [("close", "stuck"), ("close", "anomaly")]
    assert [e.id for e in closed] == [e.id for e in opened]
    assert {e.end_ns for e in closed} == {7 * S}
    assert not bench.tracker.records[1].tobytes().strip(b"\0")
    assert bench.tracker.close_all(1, "g/x") == []


def test_shares_of_very_many_channels_are_cut() -> None:
    bench = Bench(names=[f"x{i}" for i in range(100)])
    (opened,) = bench.step(5, alarm=True)
    assert len(opened.shares) == MAX_SHARES
    assert opened.shares[0] == ("x1", 0.7)


@pytest.mark.parametrize(
    "other", [("g/y", "anomaly", 5), ("g/x", "stuck", 5), ("g/x", "anomaly", 6), ("g", "anomaly", 5)]
)
def test_ids_tell_events_apart_and_repeat(other: tuple[str, str, int]) -> None:
    assert event_id("g/x", "anomaly", 5) == event_id("g/x", "anomaly", 5)
    assert event_id(*other) != event_id("g/x", "anomaly", 5)
    assert event_id(*other).isascii()
