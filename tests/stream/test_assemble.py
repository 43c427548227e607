"""Several channels to vectors: against a plain twin on random input, and each rule by an example."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_rnn.errors import ConfigError
from edge_rnn.stream.assemble import Assembler, Assembly, Batch
from edge_rnn.stream.types import Counters
from tests.stream.naive import NaiveStream

NAMES = ["a", "b", "c"]
S = 10**9


class Bench:
    """One stream on an assembler, one row of several."""

    def __init__(self, assembly: Assembly, names: list[str] = NAMES, period_ns: int = 0) -> None:
        self.counters = Counters()
        self.assembler = Assembler(assembly, names, 4, self.counters, period_ns)
        self.batch = Batch(len(names), 1)
        self.taken = np.array([False, False, True, False])

    def add(self, channels: int | tuple[int, ...], time_s: float, *values: float, now: float = 0) -> bool:
        where = (channels,) if isinstance(channels, int) else channels
        return self.assembler.add(2, where, round(time_s * S), list(values), round(now * S), self.batch)

    def tick(self, now: float) -> list[int]:
        due = self.assembler.close_due(round(now * S), self.taken)
        for row in due:
            self.assembler.close(row, round(now * S), self.batch)
        return due

    def take(self) -> list[tuple[float, list[float | None], str]]:
        """(seconds, values with None for absent, presence as text) of what has left, then nothing."""
        b, found = self.batch, []
        for i in range(b.size):
            assert b.rows[i] == 2
            present = b.present[i].tolist()
            values = [None if p == 0 else v for p, v in zip(present, b.x[i].tolist(), strict=True)]
            found.append((b.times_ns[i] / S, values, "".join("-nh"[p] for p in present)))
        b.size = 0
        return found


ASSEMBLIES = st.one_of(
    st.builds(
        Assembly,
        on=st.sampled_from(["any", "all", "a", "c"]),
        timeout_ns=st.sampled_from([0, 1, 3, 10]),
        max_age_ns=st.sampled_from([(), (0, 2, 0), (5, 1, 3)]),
    ),
    st.builds(
        Assembly,
        on=st.just("every"),
        every_ns=st.sampled_from([1, 2, 5]),
        timeout_ns=st.sampled_from([0, 1, 7]),
        max_age_ns=st.sampled_from([(), (4, 0, 2)]),
    ),
)
ACTIONS = st.lists(
    st.tuples(
        st.integers(0, 2),  # the clock moves on
        st.one_of(
            st.none(),  # a tick
            st.tuples(
                st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True).map(tuple),
                st.integers(-4, 4),
                st.booleans(),
            ),
        ),
    ),
    max_size=60,
)


@settings(max_examples=600)
@given(ASSEMBLIES, ACTIONS)
def test_it_does_what_its_plain_twin_does(assembly: Assembly, actions: list[Any]) -> None:
    bench, twin = Bench(assembly, period_ns=1), NaiveStream(assembly, NAMES, 1)
    # Waits of seconds would never be reached by times of nanoseconds.
    if not assembly.timeout_ns and assembly.on != "every":
        bench.assembler._timeout = 10**18
    now = base = 1000
    for number, (wait, what) in enumerate(actions):
        now += wait
        if what is None:
            before = len(twin.out)
            twin.tick(now)
            for row in bench.assembler.close_due(now, bench.taken):
                bench.assembler.close(row, now, bench.batch)
            assert len(twin.out) >= before
            continue
        channels, shift, moves = what
        base += 2 if moves else 0
        values = [float(number * 10 + c) for c in channels]
        twin.take(channels, base + shift, values, now)
        bench.assembler.add(2, channels, base + shift, values, now, bench.batch)
    b = bench.batch
    assert b.size == len(twin.out)
    for i, (time_ns, values, presence) in enumerate(twin.out):
        assert b.times_ns[i] == time_ns
        assert tuple(b.present[i].tolist()) == presence
        for value, got, is_there in zip(values, b.x[i].tolist(), presence, strict=True):
            assert not is_there or got == value
    assert (bench.counters.late, bench.counters.duplicate) == (twin.late, twin.duplicate)
    # Nothing has touched the rows beside it.
    fresh = bench.assembler.fresh[0].tobytes()
    assert all(bench.assembler.records[r].tobytes() == fresh for r in (0, 1, 3))


def test_any() -> None:
    bench = Bench(Assembly())
    assert bench.add(0, 1, 10)
    assert bench.add(1, 1, 20)
    assert bench.take() == []
    bench.add(2, 2, 30)
    assert bench.take() == [(2, [10, 20, 30], "nnn")]
    bench.add(1, 3, 21)
    bench.add((0, 2), 4, 11, 31)
    assert bench.take() == [(3, [10, 21, 30], "hnh"), (4, [11, 21, 31], "nhn")]


def test_any_waits_for_a_slow_channel_only_so_long_by_event_time() -> None:
    bench = Bench(Assembly(timeout_ns=10 * S))
    bench.add((0, 1), 1, 10, 20)
    bench.add((0, 1), 10.9, 11, 21)
    assert bench.take() == []
    bench.add((0, 1), 11, 12, 22)
    bench.add((0, 1), 12, 13, 23)
    assert bench.take() == [(11, [12, 22, None], "nn-"), (12, [13, 23, None], "nn-")]


def test_any_waits_for_a_slow_channel_only_so_long_by_the_clock() -> None:
    bench = Bench(Assembly(timeout_ns=10 * S))
    bench.add(0, 1, 10, now=100)
    assert bench.tick(109.9) == []
    assert bench.tick(110) == [2]
    assert bench.take() == [(1, [10, None, None], "n--")]
    assert bench.tick(500) == []
    bench.add(1, 3, 20, now=500)
    assert bench.take() == [(3, [10, 20, None], "hn-")]


def test_a_value_too_old_is_absent() -> None:
    bench = Bench(Assembly(max_age_ns=(0, 5 * S, 0)))
    bench.add((0, 1, 2), 1, 10, 20, 30)
    bench.add(0, 6, 11)
    bench.add(0, 6.5, 12)
    assert bench.take()[1:] == [(6, [11, 20, 30], "nhh"), (6.5, [12, None, 30], "n-h")]


def test_a_leading_channel() -> None:
    bench = Bench(Assembly(on="b"))
    bench.add((0, 2), 1, 10, 30)
    bench.add(1, 2, 20)
    bench.add(0, 3, 11)
    bench.add(0, 4, 12)
    assert bench.take() == [(2, [10, 20, 30], "nnn")]
    bench.add((1, 0), 5, 21, 13)
    assert bench.take() == [(5, [13, 21, 30], "nnh")]


def test_a_leading_channel_that_repeats_itself_leads_nothing() -> None:
    bench = Bench(Assembly(on="b"))
    bench.add((0, 1, 2), 1, 10, 20, 30)
    assert len(bench.take()) == 1
    assert bench.add((1, 2), 1, 20, 30) is False
    assert bench.add((0, 1), 0.5, 1, 1) is False
    assert bench.take() == []
    assert (bench.counters.duplicate, bench.counters.late) == (2, 2)


def test_all() -> None:
    bench = Bench(Assembly(on="all", timeout_ns=3 * S))
    bench.add(0, 1, 10)
    bench.add(0, 1.5, 11)
    bench.add(2, 2, 30)
    assert bench.take() == []
    bench.add(1, 1.7, 20)
    assert bench.take() == [(2, [11, 20, 30], "nnn")]


def test_all_closes_by_a_later_reading_and_by_the_clock() -> None:
    bench = Bench(Assembly(on="all", timeout_ns=3 * S))
    bench.add((0, 1, 2), 1, 10, 20, 30)
    bench.add((0, 1), 2, 11, 21, now=50)
    bench.add(0, 5, 12, now=51)
    assert bench.take()[1:] == [(2, [11, 21, 30], "nnh")]
    assert bench.tick(53.9) == []
    assert bench.tick(54) == [2]
    assert bench.take() == [(5, [12, 21, 30], "nhh")]
    assert bench.counters.timeouts == 2


def test_every() -> None:
    bench = Bench(Assembly(on="every", every_ns=2 * S))
    bench.add((0, 1, 2), 0.5, 10, 20, 30)
    bench.add(0, 1.5, 11)
    assert bench.take() == []
    bench.add(0, 2, 12)
    assert bench.take() == [(2, [11, 20, 30], "nnn")]
    # Late for the interval, though not for its own channel.
    assert bench.add(1, 1.9, 99) is False
    assert bench.counters.late == 1
    # An empty interval gives nothing: the detector sees the pause.
    bench.add(1, 9, 21)
    assert bench.take() == [(4, [12, 20, 30], "nhh")]


def test_every_closes_by_the_clock_and_then_refuses_what_is_late() -> None:
    bench = Bench(Assembly(on="every", every_ns=2 * S, timeout_ns=5 * S))
    bench.add((0, 1, 2), 0.5, 10, 20, 30, now=100)
    assert bench.tick(104) == []
    assert bench.tick(105) == [2]
    assert bench.take() == [(2, [10, 20, 30], "nnn")]
    assert bench.add(0, 1.9, 11) is False
    assert bench.tick(200) == []
    assert bench.add(0, 3, 12)
    bench.add(0, 4, 13)
    assert bench.take() == [(4, [12, 20, 30], "nhh")]


def test_channels_may_cross_and_times_still_rise() -> None:
    bench = Bench(Assembly())
    bench.add((0, 1, 2), 5, 10, 20, 30)
    bench.add(1, 7, 21)
    bench.add(0, 6, 11)
    bench.add(2, 7, 31)
    found = bench.take()
    assert [values for _, values, _ in found[1:]] == [[10, 21, 30], [11, 21, 30], [11, 21, 31]]
    times = [round(t * S) for t, _, _ in found]
    assert times == [5 * S, 7 * S, 7 * S + 1, 7 * S + 2]


def test_nan_is_passed_on() -> None:
    bench = Bench(Assembly())
    bench.add((0, 1, 2), 1, math.nan, math.inf, 3)
    ((_, values, present),) = bench.take()
    assert math.isnan(values[0])
    assert values[1] == math.inf
    assert present == "nnn"


def test_defaults_of_the_timeout() -> None:
    assert Assembly().wait_ns() == 60 * S
    assert Assembly().wait_ns(60 * S) == 600 * S
    assert Assembly(on="all").wait_ns() == 5 * S
    assert Assembly(on="all").wait_ns(60 * S) == 60 * S
    assert Assembly(on="every", every_ns=S).wait_ns(60 * S) == 2 * S
    assert Assembly(on="b", timeout_ns=7).wait_ns(60 * S) == 7


@pytest.mark.parametrize(
    ("assembly", "word"),
    [
        (Assembly(on="evry"), "did you mean 'every'"),
        (Assembly(on="d"), "expected any, all, every or a channel's name, got 'd'"),
        (Assembly(on="every"), "every: expected an interval"),
        (Assembly(on="any", every_ns=5), "every: expected an interval"),
        (Assembly(max_age_ns=(1,)), "max_age: expected 3 or none"),
        (Assembly(max_age_ns=(-1, 0, 0)), "max_age"),
        (Assembly(timeout_ns=-1), "timeout"),
        (Assembly(timeout_ns=2**63), "timeout"),
    ],
)
def test_rules_that_contradict_each_other(assembly: Assembly, word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Bench(assembly)
    assert word in str(caught.value)
