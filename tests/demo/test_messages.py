"""The watcher reads what the daemon writes: made here by the daemon's own code."""

from __future__ import annotations

import numpy as np

from edge_rnn.demo.messages import read_event, read_score
from edge_rnn.detect.verdict import Fault, Verdict
from edge_rnn.service.outputs import Outputs
from edge_rnn.stream.types import Event

NAMES = ("vibration", "temperature", "pressure")


def outputs() -> Outputs:
    return Outputs("edge-rnn", 0, {"pumps": NAMES})


def verdict(status: str, alarm: bool, share: tuple[float, ...], faults: tuple[Fault, ...] = ()) -> Verdict:
    return Verdict(
        stream="pumps/pump1", time_ns=1_700_000_000_123_456_789, step=7, status=status, alarm=alarm,
        score=12.5, threshold=np.nan if status == "warming" else 10.0, share=np.array(share),
        residual=np.zeros(3), expected=np.array([2.5, np.nan, 7.0]), faults=faults,
    )  # fmt: skip


def test_a_score() -> None:
    score, _ = outputs().verdict(verdict("anomaly", True, (0.1, 0.2, 0.7)))
    assert score is not None
    seen = read_score("pump1", score[1], 5)
    assert (seen.pump, seen.time_ns, seen.received_ns) == ("pump1", 1_700_000_000_123_456_789, 5)
    assert (seen.status, seen.score, seen.threshold) == ("anomaly", 12.5, 10.0)
    assert dict(seen.expected) == {"vibration": 2.5, "temperature": None, "pressure": 7.0}
    assert seen.blamed == {"pressure"}


def test_a_score_without_threshold_and_one_with_a_fault() -> None:
    warming, _ = outputs().verdict(verdict("warming", False, (0.1, 0.2, 0.7)))
    assert warming is not None
    seen = read_score("pump1", warming[1], 5)
    assert seen.threshold is None
    assert seen.blamed == frozenset()
    faulty, _ = outputs().verdict(verdict("fault", False, (np.nan,) * 3, (Fault(2, "stuck"),)))
    assert faulty is not None
    assert read_score("pump1", faulty[1], 5).blamed == {"pressure"}


def test_events() -> None:
    event = Event(
        type="open", id="abc", stream="pumps/pump1", kind="anomaly", start_ns=1, time_ns=2, end_ns=None,
        score=3.0, threshold=1.0, peak=3.0, peak_ns=2, shares=(("pressure", 0.934), ("vibration", 0.066)),
    )  # fmt: skip
    seen = read_event("pump1", outputs().event(event)[1], 9)
    assert (seen.pump, seen.id, seen.type, seen.kind, seen.received_ns) == (
        "pump1",
        "abc",
        "open",
        "anomaly",
        9,
    )
    assert seen.reason == "pressure 93 %"
    stuck = Event(
        type="close", id="abc", stream="pumps/pump1", kind="stuck", start_ns=1, time_ns=2, end_ns=2,
        score=np.nan, threshold=np.nan, peak=np.nan, peak_ns=2, shares=(("pressure", np.nan),),
    )  # fmt: skip
    assert read_event("pump1", outputs().event(stuck)[1], 9).reason == "pressure"
