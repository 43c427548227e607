"""The demo's account: only what came back counts, and only the right event finds a fault."""

from __future__ import annotations

import pytest

from edge_rnn.demo.ledger import GRACE_NS, Ledger, SeenEvent, SeenScore
from edge_rnn.demo.pumps import PERIOD_NS, InjectedFault

BEGIN = 1_700_000_000_000_000_000
MS = 1_000_000
SPIKE = InjectedFault("spike", "pump1", 2, start=100, steps=4)
SILENT = InjectedFault("silent", "pump2", None, start=200, steps=60)


def at(step: float) -> int:
    return BEGIN + round(step * PERIOD_NS)


def event(kind: str, pump: str, when: int, *, id: str = "a", type: str = "open") -> SeenEvent:  # noqa: A002
    return SeenEvent(pump, id, type, kind, when, (("pressure", 0.93),) if kind == "anomaly" else ())


def ledger(*faults: InjectedFault) -> Ledger:
    out = Ledger(faults)
    out.begin(BEGIN)
    return out


def score(pump: str, time_ns: int, after_ms: int = 1) -> SeenScore:
    return SeenScore(pump, time_ns, time_ns + after_ms * MS, "normal", 0.1, 1.0)


def test_a_run_where_all_is_well_passes() -> None:
    book = ledger(SPIKE, SILENT)
    for step in range(100):
        book.add_sent("pump1", at(step))
        book.add_score(score("pump1", at(step), after_ms=1 + step))
    book.add_event(event("anomaly", "pump1", at(101), id="a"))
    book.add_event(event("silent", "pump2", at(221), id="b"))
    summary = book.summary(30.0)
    assert summary.passed
    assert (summary.sent, summary.scored, summary.lost) == (300, 300, 0)
    assert [report.delay_s for report in summary.faults] == pytest.approx([0.05, 1.05])
    assert summary.false_alarms == ()
    assert summary.latency_ms == pytest.approx({"p50": 50.5, "p99": 99.01, "max": 100.0})


def test_one_lost_reading_fails_the_run() -> None:
    book = ledger()
    book.add_sent("pump1", at(1))
    book.add_sent("pump1", at(2))
    book.add_score(score("pump1", at(1)))
    assert not book.complete
    assert not book.summary(30.0).passed
    assert book.summary(30.0).lost == 3
    book.add_score(score("pump1", at(2)))
    assert book.complete
    assert book.summary(30.0).passed


def test_a_score_that_comes_twice_counts_once_and_is_told() -> None:
    book = ledger()
    book.add_sent("pump1", at(1))
    for _ in range(2):
        book.add_score(score("pump1", at(1)))
    assert (book.summary(1.0).scored, book.summary(1.0).repeated) == (3, 3)


def test_a_score_that_answers_no_reading_makes_up_for_no_lost_one() -> None:
    book = ledger()
    book.add_sent("pump1", at(1))
    book.add_score(score("pump1", at(7)))
    assert not book.complete
    assert (book.summary(1.0).scored, book.summary(1.0).lost) == (0, 3)


def test_a_run_without_readings_does_not_pass() -> None:
    assert not ledger().summary(1.0).passed
    assert ledger().summary(1.0).latency_ms == {}


@pytest.mark.parametrize(
    ("seen", "found", "false_alarms"),
    [
        (event("anomaly", "pump1", at(100)), True, 0),
        (event("anomaly", "pump1", at(104) + GRACE_NS - 1), True, 0),
        (event("anomaly", "pump1", at(99)), False, 1),
        (event("anomaly", "pump1", at(104) + GRACE_NS), False, 1),
        (event("anomaly", "pump3", at(101)), False, 1),
        (event("silent", "pump1", at(101)), False, 0),
        (event("anomaly", "pump1", at(101), type="update"), False, 0),
        (event("anomaly", "pump1", at(101), type="close"), False, 0),
    ],
    ids=["at once", "last moment", "before", "too late", "another pump", "another kind", "update", "close"],
)
def test_which_event_finds_a_fault(seen: SeenEvent, found: bool, false_alarms: int) -> None:
    book = ledger(SPIKE)
    book.add_event(seen)
    assert [report.event is not None for report in book.reports()] == [found]
    assert len(book.false_alarms()) == false_alarms


def test_a_silent_pump_is_found_by_nothing_but_silence() -> None:
    book = ledger(SILENT)
    book.add_event(event("anomaly", "pump2", at(230)))
    assert book.summary(1.0).found == 0
    book.add_event(event("silent", "pump2", at(231), id="b"))
    assert book.summary(1.0).found == 1


def test_an_event_that_is_sent_again_counts_once() -> None:
    book = ledger()
    for when in (at(5), at(6)):
        book.add_event(event("anomaly", "pump1", when, id="same"))
    assert len(book.false_alarms()) == 1


def test_of_two_faults_whose_times_touch_the_later_one_gets_the_event() -> None:
    later = InjectedFault("drift", "pump1", 1, start=110, steps=80)
    book = ledger(SPIKE, later)
    book.add_event(event("anomaly", "pump1", at(120)))
    assert [report.event is not None for report in book.reports()] == [False, True]


def test_the_json_form_holds_the_promised_fields() -> None:
    book = ledger(SPIKE, SILENT)
    book.add_sent("pump1", at(1))
    book.add_score(score("pump1", at(1), after_ms=2))
    book.add_event(event("anomaly", "pump1", at(101)))
    said = book.summary(30.0).as_json()
    assert said["readings"] == {"sent": 3, "scored": 3, "lost": 0, "repeated": 0}
    assert (said["injected"], said["found"], said["false_alarms"], said["passed"]) == (2, 1, 0, False)
    assert said["latency_ms"] == {"p50": 2.0, "p99": 2.0, "max": 2.0}
    assert said["faults"][0] == {
        "kind": "spike", "pump": "pump1", "channel": "pressure", "found": True, "event": "anomaly",
        "reason": "pressure 93 %", "delay_s": 0.05,
    }  # fmt: skip
    assert said["faults"][1]["channel"] == "all"
    assert said["faults"][1]["event"] is None
