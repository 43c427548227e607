"""Messages in columns are the same as one after the other: verdicts, states, events, counters."""

from __future__ import annotations

import random

import numpy as np
import pytest

from edge_rnn.stream.columns import Columns
from edge_rnn.stream.engine import Engine, Group
from edge_rnn.stream.types import Message
from tests.stream.test_burst import GROUPS, SECOND, START, WATCHED, WHOLE, by_stream, follow, messages, same

STREAMS = [f"{group}/{key}" for group in ("any", "all", "lead") for key in range(4)]


def engines(groups: list[Group] = GROUPS) -> tuple[Engine, Engine]:
    two = Engine(groups)
    two.prepare_columns()
    return Engine(groups), two


def columns(group: str, part: list[Message], generation: int = 0) -> Columns:
    # A word more than is needed, as where another group has more channels.
    block = np.zeros((len(part), 5), np.int64)
    block[:, 0] = [STREAMS.index(m.stream) for m in part]
    block[:, 1] = [m.time_ns for m in part]
    block[:, 2:4] = np.array([m.values for m in part], np.float64).view(np.int64)
    return Columns(group, STREAMS, generation, block)


def is_column(message: Message) -> bool:
    return message.channels == WHOLE and message.stream in STREAMS


def test_groups_that_wait_for_an_interval_take_no_columns() -> None:
    _, engine = engines()
    assert [engine.takes_columns(group.name) for group in GROUPS] == [True, True, True, False]
    assert not Engine(GROUPS).takes_columns("any")


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize(
    ("seed", "watched"), [*((n, False) for n in range(6)), *((n, True) for n in range(6))]
)
def test_columns_equal_their_messages_one_by_one(clean, seed, watched) -> None:
    rng = random.Random(seed)
    plain, quick = engines(WATCHED if watched else GROUPS)
    sent = messages(rng, 900, clean)
    now, at, taken = START + (SECOND if watched else 10**12), 0, 0
    while at < len(sent):
        part = sent[at : at + rng.choice([1, 2, 7, 60, 200])]
        at += len(part)
        if watched:
            now = follow(rng, now, part)
        # A group's messages go one way in one go; what has no column goes the old way before them.
        seen: dict[str, list[tuple]] = {}
        for group in ("any", "all", "lead", "bins", "nobody"):
            own = [m for m in part if m.stream.split("/")[0] == group]
            rest = [m for m in own if not is_column(m)]
            whole = [m for m in own if is_column(m)]
            expected = by_stream([*plain.feed(rest, now), *plain.feed(whole, now)])
            seen = by_stream(v for j in quick.judge(rest, now) for v in j.verdicts())
            if quick.takes_columns(group) and whole:
                found = quick.judge_columns(columns(group, whole, generation=at // 500), now)
                taken += sum(map(len, found))
            else:
                found = quick.judge(whole, now)
            for stream, verdicts in by_stream(v for j in found for v in j.verdicts()).items():
                seen.setdefault(stream, []).extend(verdicts)
            assert seen == expected
            a, b = plain.take_events(), quick.take_events()
            assert {e.id for e in a} == {e.id for e in b}
            assert len(a) == len(b)
        same(plain, quick)
        now += 10**9
        if watched and rng.random() < 0.5:
            now += rng.choice([1, 30, 70]) * SECOND
            assert by_stream(quick.tick(now)) == by_stream(plain.tick(now))
            assert sorted(map(repr, quick.take_events())) == sorted(map(repr, plain.take_events()))
    assert taken > 100
    assert not watched or plain.counters.flapping


def test_many_streams_of_a_full_group_each_evict_another() -> None:
    plain, quick = engines()
    rng = random.Random(1)
    part = [
        Message(f"all/{rng.randrange(4)}", WHOLE, START + i * 10**9, (1.0 + i % 3 / 10, 20.0))
        for i in range(400)
    ]
    for at in range(0, 400, 50):
        expected = by_stream(plain.feed(part[at : at + 50], START + 10**12))
        found = quick.judge_columns(columns("all", part[at : at + 50]), START + 10**12)
        assert by_stream(v for j in found for v in j.verdicts()) == expected
        assert [s for j in found for s in j.streams] == [m.stream for m in part[at : at + 50]]
    assert plain.counters.evicted == quick.counters.evicted > 50
    same(plain, quick)
