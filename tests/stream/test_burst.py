"""A burst judged as arrays is the same as its messages one after the other: verdicts, states, events."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest

from edge_rnn.stream.assemble import Assembly
from edge_rnn.stream.burst import FEW
from edge_rnn.stream.engine import Engine, Group
from edge_rnn.stream.types import Message
from tests.support.daemon import gru_model, reading

START = 1_763_700_000_000_000_000
SECOND = 10**9
WHOLE = (0, 1)
GROUPS = [
    Group("any", gru_model(), Assembly()),
    Group("all", gru_model(seed=2), Assembly(on="all", timeout_ns=3 * SECOND), max_streams=3),
    Group("lead", gru_model(seed=3), Assembly(on="temp", max_age_ns=(2 * SECOND, 0))),
    Group("bins", gru_model(seed=4), Assembly(on="every", every_ns=2 * SECOND)),
]
WATCHED = [
    dataclasses.replace(
        group,
        clock_limit_ns=20 * SECOND,
        max_ahead_ns=30 * SECOND,
        flapping=2,
        flapping_channels=(0, 3),
        silent_intervals=5,
        silent_least_ns=SECOND,
    )
    for group in GROUPS
]


def engines(groups: list[Group] = GROUPS) -> tuple[Engine, Engine]:
    return Engine(groups), Engine(groups)


def same(one: Engine, two: Engine) -> None:
    assert dict(one.states()) == dict(two.states())
    assert sorted(one.changed()) == sorted(two.changed())
    assert one.counters == two.counters
    assert one.removed() == two.removed()


def by_stream(verdicts) -> dict[str, list[tuple]]:
    found: dict[str, list[tuple]] = {}
    for v in verdicts:
        numbers = np.concatenate([v.share, v.residual, v.expected, [v.score, v.threshold]]).tobytes()
        found.setdefault(v.stream, []).append((v.time_ns, v.step, v.status, v.alarm, v.faults, numbers))
    return found


def messages(rng: random.Random, count: int, clean: bool) -> list[Message]:
    """Of a few streams; unless `clean` with parts, repeats, late ones, NaN and unknown groups among them."""
    clocks: dict[str, int] = {}
    found = []
    for _ in range(count):
        stream = f"{rng.choice(['any', 'all', 'lead', 'bins'])}/{rng.randrange(4)}"
        clocks[stream] = clocks.get(stream, START) + rng.choice([1, SECOND // 2, SECOND])
        index = (clocks[stream] - START) // SECOND
        values = list(reading(index, fault=rng.random() < 0.1).values())
        time_ns, channels = clocks[stream], WHOLE
        if not clean:
            match rng.randrange(12):
                case 0:
                    time_ns -= rng.choice([0, 1, 5 * SECOND])
                case 1:
                    channels, values = (0,), values[:1]
                case 2:
                    channels, values = (1, 0), values[::-1]
                case 3:
                    values[rng.randrange(2)] = float("nan")
                case 4:
                    stream = "nobody/1"
                case 5:
                    time_ns = rng.choice([-1, START * 2, -(2**62)])
        found.append(Message(stream, channels, time_ns, values))
    return found


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_a_burst_equals_its_messages_one_by_one(clean, seed) -> None:
    rng = random.Random(seed)
    plain, burst = engines()
    sent = messages(rng, 600, clean)
    at, expected, got, opened = 0, [], [], 0
    while at < len(sent):
        n = rng.choice([1, 3, 60, 200])
        now = START + (at + n) * SECOND
        expected += plain.feed(sent[at : at + n], now)
        for judged in burst.judge(sent[at : at + n], now):
            assert len(judged) == len(judged.records)
            got += judged.verdicts()
        told = [dataclasses.replace(e, score=0, threshold=0, peak=0, shares=()) for e in plain.take_events()]
        heard = [dataclasses.replace(e, score=0, threshold=0, peak=0, shares=()) for e in burst.take_events()]
        assert sorted(map(repr, heard)) == sorted(map(repr, told))
        opened += len(told)
        same(plain, burst)
        at += n
    assert by_stream(got) == by_stream(expected)
    assert opened > 5
    assert plain.counters.evicted


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_watched_streams_remember_the_same_of_a_burst_as_of_its_messages(clean, seed) -> None:
    rng = random.Random(seed)
    plain, burst = engines(WATCHED)
    sent = messages(rng, 600, clean)
    at, now = 0, START + SECOND
    while at < len(sent):
        part = sent[at : at + rng.choice([1, 2, 7, 60])]
        at += len(part)
        now = follow(rng, now, part)
        judged = burst.judge(part, now)
        assert by_stream(v for j in judged for v in j.verdicts()) == by_stream(plain.feed(part, now))
        if rng.random() < 0.5:
            now += rng.choice([1, 30, 70]) * SECOND
            assert by_stream(burst.tick(now)) == by_stream(plain.tick(now))
        assert sorted(map(repr, burst.take_events())) == sorted(map(repr, plain.take_events()))
        same(plain, burst)
    assert plain.counters.flapping
    assert plain.counters.clock or clean


def follow(rng: random.Random, now: int, part: list[Message]) -> int:
    """The clock, which is never set back: most times are near it, some are far ahead."""
    newest = max((m.time_ns for m in part if m.time_ns < 2 * START - SECOND), default=now)
    return max(now, newest - rng.choice([0, 0, 25, 40]) * SECOND)


def test_whole_bursts_take_the_short_way(monkeypatch) -> None:
    engine = Engine(GROUPS[:1])
    table = engine._tables["any"]
    monkeypatch.setattr(table.assembler, "add", lambda *_: pytest.fail("message by message"))
    for turn in range(3):
        sent = [
            Message(f"any/{i % 5}", WHOLE, START + (turn * 20 + i) * SECOND, [1.0, 20.0]) for i in range(20)
        ]
        (judged,) = engine.judge(sent, START + 10**12)
        assert len(judged) == 20 > FEW
        assert judged.streams == [m.stream for m in sent]
    assert engine.counters.samples == 60
    assert engine.counters.readings == 120


def test_a_refused_message_leaves_nothing_behind() -> None:
    engine = Engine(GROUPS[:1])
    with pytest.raises(ValueError, match=r"channels: expected 0\.\.1"):
        engine.judge([Message("any/1", (0, 7), START, [1.0, 2.0])], START)
    (judged,) = engine.judge([Message("any/1", WHOLE, START, [1.0, 2.0])], START)
    assert len(judged) == 1
