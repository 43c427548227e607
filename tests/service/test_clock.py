"""Arrival times: strictly rising whatever the wall clock does, and honest distances."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_rnn.service.clock import Arrival, Clock

STEP = st.tuples(
    st.floats(0, 1000), st.one_of(st.floats(-1, 1), st.sampled_from([0.0, -3.2e8, 3.2e8, -3600.0, 3600.0]))
)


class Times:
    def __init__(self, wall_ns: int) -> None:
        self.monotonic_s = 0.0
        self.wall = wall_ns

    def clock(self) -> Clock:
        return Clock(lambda: self.monotonic_s, lambda: self.wall)


@given(st.lists(STEP, max_size=30))
def test_arrival_times_rise_strictly_over_any_clock_steps(steps) -> None:
    times = Times(10**18)
    arrival = Arrival(times.clock())
    given_out = [arrival.next_ns()]
    for passed, jump in steps:
        times.monotonic_s += passed
        times.wall += int((passed + jump) * 1e9)
        given_out.append(arrival.next_ns())
        assert given_out[-1] > given_out[-2]
        assert arrival.ahead_ns >= 0


def test_a_clock_set_back_keeps_the_distances_true() -> None:
    times = Times(10**18)
    arrival = Arrival(times.clock())
    start = arrival.next_ns()
    times.wall -= 3600 * 10**9
    for i in range(1, 11):
        times.monotonic_s += 1
        times.wall += 10**9
        assert arrival.next_ns() == start + i * 10**9
    assert arrival.ahead_ns == 3600 * 10**9


def test_a_restart_does_not_go_back_either() -> None:
    times = Times(10**18)
    assert Arrival(times.clock(), 10**18 + 5).next_ns() > 10**18 + 5
