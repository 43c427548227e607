"""What is published: valid JSON whatever the numbers and names, the same doubles back, thinned as asked."""

from __future__ import annotations

import dataclasses
import json
import math
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_rnn.detect.verdict import Fault, Verdict
from edge_rnn.service.health import DaemonCounters, encode
from edge_rnn.service.outputs import Outputs, iso, isos
from edge_rnn.stream.types import Event

S = 10**9
NAMES = {"press": ("vib", 'a"b\\c\n', "Größe")}
ANY = st.floats(allow_nan=True, allow_infinity=True)


def verdict(
    time_ns=5 * S, status="normal", score=1.0, numbers=(0.1, 0.2, 0.7), stream="press/7", **more
) -> Verdict:
    array = np.array(numbers)
    return Verdict(
        stream=stream, time_ns=time_ns, step=3, status=status, alarm=more.get("alarm", False), score=score,
        threshold=more.get("threshold", 2.0), share=array, residual=array, expected=array,
        faults=more.get("faults", ()),
    )  # fmt: skip


def strictly(payload: bytes) -> dict:
    def refuse(word: str) -> float:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(payload.decode("utf-8"), parse_constant=refuse)


def make(every_ns: int = 0) -> Outputs:
    return Outputs("er", every_ns, NAMES)


@given(ANY, ANY, st.tuples(ANY, ANY, ANY), st.integers(0, 2**62))
def test_scores_are_json_and_give_the_same_doubles_back(score, threshold, numbers, time_ns) -> None:
    made, _ = make().verdict(verdict(time_ns, score=score, threshold=threshold, numbers=numbers))
    topic, payload = made
    said = strictly(payload)
    assert topic == "er/press/7/score"
    assert said["time_ns"] == time_ns

    def same(found: float | None, value: float) -> bool:
        return found is None if not math.isfinite(value) else found == value

    assert same(said["score"], score)
    assert same(said["threshold"], threshold)
    assert list(said["expected"]) == list(NAMES["press"])
    assert all(same(said["shares"][n], v) for n, v in zip(NAMES["press"], numbers, strict=True))


def test_a_score_says_how_sure_how_severe_and_which_scorer() -> None:
    names = NAMES["press"]
    told = dataclasses.replace(
        verdict(1 * S),
        probability=0.75,
        band=np.arange(1.0, 1.0 + len(names)),
        scorer="input mewma",
        severity=2,
    )
    made, _ = make().verdict(told)
    said = strictly(made[1])
    assert (said["probability"], said["scorer"], said["severity"]) == (0.75, "input mewma", 2)
    assert said["bands"] == {name: 1.0 + i for i, name in enumerate(names)}
    made, _ = make().verdict(verdict(2 * S))
    assert strictly(made[1])["probability"] is None


@given(st.integers(0, 2**62))
def test_iso_times_are_exact(time_ns) -> None:
    text = iso(time_ns)
    seconds, _, rest = text.removesuffix("Z").partition(".")
    whole = int(datetime.fromisoformat(seconds).replace(tzinfo=UTC).timestamp())
    assert whole * S + int(rest.ljust(9, "0") or 0) == time_ns


def test_state_is_published_when_status_alarm_or_faults_change() -> None:
    out = make()
    steps = [
        (verdict(1 * S), True),
        (verdict(2 * S), False),
        (verdict(3 * S, status="anomaly", alarm=True), True),
        (verdict(4 * S, status="fault", alarm=True, faults=(Fault(1, "stuck"),)), True),
        (verdict(5 * S, status="fault", alarm=True, faults=(Fault(1, "stuck"),)), False),
        (verdict(6 * S, status="fault", alarm=True, faults=(Fault(2, "range"),)), True),
        (verdict(7 * S), True),
    ]
    for given_verdict, published in steps:
        _, state = out.verdict(given_verdict)
        assert (state is not None) == published
        if state is not None:
            said = strictly(state[1])
            assert state[0] == "er/press/7/state"
            assert said["status"] == given_verdict.status
            assert said["alarm"] == given_verdict.alarm
            assert said["faults"] == {NAMES["press"][f.channel]: f.kind for f in given_verdict.faults}


def test_states_are_there_to_be_published_again_until_forgotten() -> None:
    out = make()
    out.verdict(verdict(stream="press/7"))
    out.verdict(verdict(stream="press/8", status="anomaly"))
    assert [topic for topic, _ in out.states()] == ["er/press/7/state", "er/press/8/state"]
    assert out.forget("press/7") == ("er/press/7/state", b"")
    assert [topic for topic, _ in out.states()] == ["er/press/8/state"]


def test_scores_are_thinned_by_event_time_but_never_a_change_of_status() -> None:
    out = make(10 * S)
    published = [
        out.verdict(verdict(t * S, status="anomaly" if 23 <= t < 26 else "normal"))[0] is not None
        for t in range(40)
    ]
    assert [t for t, p in enumerate(published) if p] == [0, 10, 20, 23, 26, 36]


def test_events_have_id_start_peak_end_and_shares() -> None:
    shares = (("vib", 0.75), ('a"b\\c\n', math.nan))
    event = Event(
        "close", "7-anomaly-ab", "press/7", "anomaly", 1 * S, 9 * S, 9 * S, math.nan, 2.0, 8.5, 4 * S, shares
    )
    topic, payload = make().event(event)
    said = strictly(payload)
    assert topic == "er/press/7/event"
    assert said["shares"] == {"vib": 0.75, 'a"b\\c\n': None}
    assert (said["start_ns"], said["peak_ns"], said["end_ns"]) == (1 * S, 4 * S, 9 * S)
    assert said["end"] == "1970-01-01T00:00:09Z"
    assert (said["score"], said["peak_score"]) == (None, 8.5)
    opened = Event("open", "i", "press", "stuck", 0, 0, None, math.nan, math.nan, math.nan, 0, ())
    assert strictly(make().event(opened)[1])["end"] is None


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_health_has_no_number_that_json_lacks(value) -> None:
    said = strictly(encode({"a": value, "b": {"c": value, "d": 1}, "counters": DaemonCounters(messages=3)}))
    assert said["a"] is None
    assert said["b"] == {"c": None, "d": 1}
    assert said["counters"]["messages"] == 3


def test_times_of_a_burst_are_written_as_each_alone() -> None:
    at = 1_763_700_000 * 10**9
    steps = (0, 1, 10**3, 10**6, 5, 10**9, 10**9 + 120_000, -(10**9), 86_400 * 10**9, -at, 7 - at)
    together = isos(at + step for step in steps)
    assert together == [iso(at + step) for step in steps]
    assert together[:4] == [
        "2025-11-21T04:40:00Z", "2025-11-21T04:40:00.000000001Z", "2025-11-21T04:40:00.000001Z",
        "2025-11-21T04:40:00.001Z",
    ]  # fmt: skip
    assert together[-2:] == ["1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000000007Z"]
