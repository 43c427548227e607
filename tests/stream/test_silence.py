"""A stream is silent after so many of its own intervals: learned, saved, and cleared by the next reading."""

from __future__ import annotations

import random

import pytest

from edge_rnn.stream.assemble import INTERVAL, KNOWN, LEARNED
from edge_rnn.stream.engine import Engine, Group
from edge_rnn.stream.types import Message
from tests.support.daemon import gru_model, reading

START = 1_763_700_000_000_000_000
SECOND = 10**9


def engine(**changes) -> Engine:
    return Engine([Group("g", gru_model(), silent_intervals=5, silent_least_ns=SECOND, **changes)])


def at(index: int, time_ns: int) -> Message:
    return Message("g/1", (0, 1), time_ns, list(reading(index).values()))


def marks(one: Engine):
    table, row, _ = one._slots["g/1"]
    return table.assembler.marks[row]


@pytest.mark.parametrize("period", [SECOND // 10, SECOND, 600 * SECOND])
def test_the_interval_is_learned_and_pauses_do_not_move_it(period) -> None:
    one, source, now = engine(), random.Random(1), START
    for i in range(300):
        # One pause in twenty is a hundred times as long.
        now += int(period * source.uniform(0.8, 1.2)) * (100 if i % 20 == 19 else 1)
        one.feed([at(i, now)], now)
    assert marks(one)[KNOWN] == LEARNED
    assert 0.7 * period < marks(one)[INTERVAL] < 1.5 * period


def test_silence_opens_after_the_learned_time_and_ends_with_the_next_reading() -> None:
    one, now = engine(), START
    for i in range(60):
        now += 10 * SECOND
        one.feed([at(i, now)], now)
    one.take_events()
    interval = int(marks(one)[INTERVAL])
    assert one.tick(now + 5 * interval) == []
    (verdict,) = one.tick(now + 5 * interval + SECOND)
    assert verdict.status == "fault"
    assert {fault.kind for fault in verdict.faults} == {"silent"}
    (opened,) = one.take_events()
    assert (opened.type, opened.kind) == ("open", "silent")
    assert one.tick(now + 500 * SECOND) == []
    # What was learned and what is open is saved with the stream.
    other = engine()
    for stream, blob in one.states():
        other.load(stream, blob)
    other.feed([at(60, now + 600 * SECOND)], now + 600 * SECOND)
    (closed,) = [e for e in other.take_events() if e.kind == "silent"]
    assert (closed.type, closed.id) == ("close", opened.id)


def test_a_stream_that_has_sent_little_and_one_without_the_rule_are_not_blamed() -> None:
    few, off = engine(), Engine([Group("g", gru_model())])
    for i in range(20):
        few.feed([at(i, START + i * SECOND)], START + i * SECOND)
    for i in range(200):
        off.feed([at(i, START + i * SECOND)], START + i * SECOND)
    assert few.tick(START + 10**15) == off.tick(START + 10**15) == []


def test_a_limit_that_is_given_counts_and_not_the_learned_one() -> None:
    one = engine(silent_after_ns=1000 * SECOND)
    for i in range(100):
        one.feed([at(i, START + i * SECOND)], START + i * SECOND)
    assert one.tick(START + 900 * SECOND) == []
    assert len(one.tick(START + 1200 * SECOND)) == 1
