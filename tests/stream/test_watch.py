"""Faults that no single reading shows: a wrong clock, and states that flap; repeats known by their number."""

from __future__ import annotations

import dataclasses
import random
import struct
import zlib

import numpy as np
import pytest

from edge_rnn.errors import SnapshotError
from edge_rnn.stream.assemble import Assembly
from edge_rnn.stream.engine import Engine, Group
from edge_rnn.stream.states import _HEAD
from edge_rnn.stream.types import Message, Numbered
from tests.stream.scripts import ASSEMBLIES, groups, play, script
from tests.support.daemon import gru_model, reading

START = 1_763_700_000_000_000_000
SECOND = 10**9
MINUTE = 60 * SECOND


def engine(**changes) -> Engine:
    return Engine([Group("g", gru_model(), **{"clock_limit_ns": 10 * MINUTE, **changes})])


def message(index: int, time_ns: int, **values: float) -> Message:
    return Message("g/1", (0, 1), time_ns, list({**reading(index), **values}.values()))


def run(one: Engine, seconds: range, offset_ns: int = 0) -> list:
    """A message and a tick a second; all verdicts."""
    found = []
    for i in seconds:
        now = START + i * SECOND
        found += one.feed([message(i, now + offset_ns)], now)
        found += one.tick(now)
    return found


def told(one: Engine, kind: str) -> list:
    return [event for event in one.take_events() if event.kind == kind]


# ---- clocks


@pytest.mark.parametrize("offset_s", [-3600, 1800, 86_000])
def test_times_far_from_the_clock_are_a_fault_that_names_how_far(offset_s) -> None:
    one = engine()
    run(one, range(5))
    calm = run(one, range(5, 60), offset_s * SECOND) if offset_s > 0 else []
    assert all(v.status != "fault" for v in calm)
    assert told(one, "clock") == []
    found = run(one, range(60, 200), offset_s * SECOND)
    assert {f.kind for v in found[-10:] for f in v.faults} == {"clock"} or offset_s < 0
    (opened,) = told(one, "clock")
    assert (opened.type, opened.threshold) == ("open", 600)
    assert opened.score == opened.peak == pytest.approx(offset_s, abs=2)
    assert {name for name, _ in opened.shares} == {"vib", "temp"}
    assert one.counters.clock == 1


def test_a_clock_that_jumps_back_is_wrong_not_silent_and_its_fault_ends_when_times_are_right_again() -> None:
    one = engine(silent_after_ns=30 * SECOND)
    run(one, range(40))
    for i in range(40, 300):
        now = START + i * SECOND
        # Everything is late: nothing is judged any more.
        assert one.feed([message(i, now - 7200 * SECOND)], now) == []
        for verdict in one.tick(now):
            assert {f.kind for f in verdict.faults} == {"clock"}
            assert verdict.status == "fault"
    (opened,) = one.take_events()
    assert (opened.kind, opened.type) == ("clock", "open")
    assert opened.score == pytest.approx(-7200, abs=1)
    assert one.counters.late == 2 * 260
    assert one.counters.silent == 0
    last = run(one, range(300, 303))
    closed = one.take_events()[-1]
    assert (closed.type, closed.id) == ("close", opened.id)
    assert last[-1].status != "fault"
    assert last[-1].faults == ()


def test_a_small_jump_back_is_told_as_well_while_readings_are_late() -> None:
    one = engine()
    run(one, range(40))
    run(one, range(40, 150), -300 * SECOND)
    (opened,) = told(one, "clock")
    assert opened.score == pytest.approx(-300, abs=1)


def test_a_clock_that_stands_still_is_told_once_it_is_far_off() -> None:
    one = engine()
    for i in range(800):
        now = START + i * SECOND
        one.feed([message(i, START)], now)
        one.tick(now)
    found = told(one, "clock")
    assert [e.type for e in found] == ["open"]
    assert -700 < found[0].score < -599


def test_a_sender_that_jumped_too_far_ahead_is_named_although_nothing_of_it_is_taken() -> None:
    one = engine()
    found = run(one, range(100), 30 * 86_400 * SECOND)
    (opened,) = told(one, "clock")
    assert opened.score == pytest.approx(30 * 86_400, abs=1)
    assert [v.status for v in found] == ["fault"]


def test_a_backlog_that_is_worked_off_is_no_wrong_clock() -> None:
    one = engine()
    # Three hours of readings in three minutes.
    for i in range(180):
        now = START + i * SECOND
        for k in range(60):
            one.feed([message(i, START - 3 * 3600 * SECOND + (i * 60 + k) * SECOND)], now)
        one.tick(now)
    assert told(one, "clock") == []


def test_one_channel_of_a_sender_of_its_own_is_blamed_alone() -> None:
    one = engine()
    for i in range(120):
        now = START + i * SECOND
        one.feed(
            [
                Message("g/1", (0,), now, [1.0]),
                Message("g/1", (1,), now - (7200 if i > 20 else 0) * SECOND, [20.0]),
            ],
            now,
        )
        one.tick(now)
    (opened,) = told(one, "clock")
    assert [name for name, _ in opened.shares] == ["temp"]
    (verdict,) = one.feed([Message("g/1", (0,), START + 120 * SECOND, [1.0])], START + 120 * SECOND)
    assert [(f.channel, f.kind) for f in verdict.faults] == [(1, "clock")]


def test_without_the_rule_nothing_is_said_and_nothing_changes() -> None:
    one, other = engine(clock_limit_ns=0), Engine([Group("g", gru_model())])
    found = run(one, range(200), -3600 * SECOND)
    assert all(v.status != "fault" for v in found)
    expected = run(other, range(200), -3600 * SECOND)
    assert [v.score for v in found[10:]] == [v.score for v in expected[10:]]
    assert one.take_events() == other.take_events() == []


# ---- flapping


def toggles(one: Engine, count: int, pause_s: float, begin: int = 0, ticks: bool = True) -> list:
    """`count` messages, each with the other value of the switch."""
    found = []
    for i in range(count):
        now = START + begin + round(i * pause_s * SECOND)
        found += one.feed([message(i, now, temp=float(i % 2))], now)
        if ticks:
            found += one.tick(now)
    return found


def test_a_channel_that_changes_more_often_than_is_fine_flaps_until_it_does_so_half_as_often() -> None:
    one = engine(flapping_channels=(0, 6))
    # Six changes a minute are fine.
    assert all(not v.faults for v in toggles(one, 60, 10.0))
    begin = 700 * SECOND
    found = toggles(one, 30, 5.0, begin)
    faulty = [bool(v.faults) for v in found]
    assert faulty == sorted(faulty)
    assert {(f.channel, f.kind) for v in found for f in v.faults} == {(1, "flapping")}
    (opened,) = told(one, "flapping")
    assert (opened.type, opened.threshold, opened.shares[0][0]) == ("open", 6, "temp")
    assert opened.score == pytest.approx(12, rel=0.2)
    # Slower, but more than half: it goes on. Then half: it ends.
    assert toggles(one, 20, 60 / 4, 850 * SECOND)[-1].faults
    assert told(one, "flapping") == []
    assert not toggles(one, 20, 60 / 3, 1150 * SECOND)[-1].faults
    (closed,) = told(one, "flapping")
    assert (closed.type, closed.id, closed.shares[0][0]) == ("close", opened.id, "temp")
    assert closed.peak >= opened.peak
    assert one.counters.flapping == 1


def test_a_switch_that_stops_sending_does_not_flap_for_ever() -> None:
    one = engine(flapping_channels=(0, 6))
    toggles(one, 20, 1.0)
    assert [e.type for e in told(one, "flapping")] == ["open"]
    assert one.tick(START + 60 * SECOND) == []
    (verdict,) = one.tick(START + 90 * SECOND)
    assert verdict.status != "fault"
    assert verdict.faults == ()
    assert [e.type for e in told(one, "flapping")] == ["close"]


def test_an_alarm_that_goes_on_and_off_flaps() -> None:
    one, calm = engine(flapping=6), engine()
    found = []
    for i in range(120):
        now = START + i * SECOND
        value = 200.0 if i > 20 and i % 6 < 2 else 1.0
        found += one.feed([message(i, now, vib=value)], now)
        calm.feed([message(i, now, vib=value)], now)
    changes = sum(e.kind == "anomaly" and e.type != "update" for e in calm.take_events())
    assert changes > 10
    (opened,) = told(one, "flapping")
    assert (opened.threshold, opened.shares) == (6, ())
    assert {(f.channel, f.kind) for f in found[-1].faults} == {(0, "flapping"), (1, "flapping")}
    # The detector goes on below it.
    assert any(v.alarm for v in found[-6:])


def test_a_value_that_is_held_or_missing_is_no_change() -> None:
    one = engine(flapping_channels=(0, 2))
    for i in range(100):
        now = START + i * SECOND
        one.feed([Message("g/1", (0,), now, [1.0])], now)
        one.feed([Message("g/1", (0, 1), now + 1, [1.0, float("nan") if i % 2 else 20.0])], now)
    assert told(one, "flapping") == []


# ---- it is part of the state


def watched(assembly: Assembly) -> list[Group]:
    rules = {"clock_limit_ns": 2 * SECOND, "flapping": 4}
    press, other = groups(assembly)
    return [
        dataclasses.replace(press, flapping_channels=(3, 0, 2), **rules),
        dataclasses.replace(other, flapping_channels=(0, 2), **rules),
    ]


@pytest.mark.parametrize("mode", list(ASSEMBLIES))
def test_any_cut_and_any_restart_give_the_same_faults(mode) -> None:
    kinds: set[str] = set()
    for seed in range(3):
        blocks = script(seed, blocks=80)
        whole = Engine(watched(ASSEMBLIES[mode]))
        expected = play(whole, blocks)
        kinds |= {e.kind for e in expected.events}
        cut = play(Engine(watched(ASSEMBLIES[mode])), blocks, random.Random(seed))
        assert cut.bits() == expected.bits()
        first, second = Engine(watched(ASSEMBLIES[mode])), Engine(watched(ASSEMBLIES[mode]))
        half = random.Random(seed).randrange(20, 60)
        before = play(first, blocks[:half])
        for stream, blob in first.states():
            second.load(stream, blob)
        after = play(second, blocks[half:])
        assert [*before.bits()[0], *after.bits()[0]] == expected.bits()[0]
        assert [*before.bits()[1], *after.bits()[1]] == expected.bits()[1]
        assert sorted(second.states()) == sorted(whole.states())
    assert {"flapping", "clock"} <= kinds


def test_bursts_give_the_faults_of_messages_one_by_one() -> None:
    single, burst = engine(flapping_channels=(0, 6)), engine(flapping_channels=(0, 6))
    source = random.Random(3)
    expected, found, index = [], [], 0
    for block in range(60):
        now = START + block * 20 * SECOND
        size = source.choice((1, 5, 40))
        lag = -3600 * SECOND if 20 < block < 30 else 0
        some = [
            message(index + k, now + lag + k * SECOND // 3, temp=float(source.random() < 0.3))
            for k in range(size)
        ]
        index += size
        for one in some:
            expected += single.feed([one], now)
        found += [v for judged in burst.judge(some, now) for v in judged.verdicts()]
        expected += single.tick(now)
        found += burst.tick(now)
    assert [(v.time_ns, v.status, v.faults) for v in found] == [
        (v.time_ns, v.status, v.faults) for v in expected
    ]
    events = [repr(e) for e in single.take_events()]
    assert [repr(e) for e in burst.take_events()] == events
    assert any("flapping" in e for e in events)
    assert any("clock" in e for e in events)
    assert single.states() == burst.states()


def test_a_forgotten_stream_closes_what_is_open() -> None:
    one = engine(flapping_channels=(0, 6))
    toggles(one, 40, 1.0)
    for i in range(40, 150):
        one.feed([message(i, START - 7200 * SECOND)], START + i * SECOND)
        one.tick(START + i * SECOND)
    ids = {e.id for e in one.take_events() if e.type == "open"}
    # The flapping has ended with the samples.
    assert one.is_open(next(name for name in ids if "-clock-" in name))
    assert one.forget("g/1")
    assert {e.kind for e in one.take_events() if e.type == "close" and e.id in ids} >= {"clock"}
    assert not any(one.is_open(name) for name in ids)
    one.feed([message(0, START + 300 * SECOND)], START + 300 * SECOND)
    assert one.feed([message(1, START + 301 * SECOND)], START + 301 * SECOND)[0].faults == ()


def test_what_is_wrong_with_a_sender_outlives_the_model_that_its_stream_started_with() -> None:
    one, fresh = (engine(flapping_channels=(0, 6)) for _ in range(2))
    toggles(one, 20, 1.0)
    (opened,) = told(one, "flapping")
    one.hand_over("g/1", fresh)
    assert told(one, "flapping") == []
    assert not one.has("g/1")
    assert fresh.is_open(opened.id)
    ((stream, blob),) = fresh.changed()
    again = engine(flapping_channels=(0, 6))
    again.load(stream, blob)
    for other in (fresh, again):
        assert toggles(other, 1, 1.0, 20 * SECOND)[0].faults
        assert told(other, "flapping") == []
        other.tick(START + 60 * SECOND)
        other.tick(START + 90 * SECOND)
        (closed,) = told(other, "flapping")
        assert (closed.type, closed.id, closed.shares[0][0]) == ("close", opened.id, "temp")
        assert other.counters.flapping == 0


def test_a_stream_that_cannot_be_handed_over_or_has_nothing_open_is_forgotten_as_ever() -> None:
    one, quiet = (engine(flapping_channels=(0, 6)) for _ in range(2))
    toggles(one, 20, 1.0)
    run(quiet, range(5))
    (opened,) = told(one, "flapping")
    elsewhere = Engine([Group("h", gru_model())])
    one.hand_over("g/1", elsewhere)
    assert [(e.type, e.id) for e in told(one, "flapping")] == [("close", opened.id)]
    quiet.hand_over("g/1", elsewhere)
    assert len(elsewhere) == len(one) == len(quiet) == 0


def test_other_rules_after_a_restart_end_what_they_do_not_know() -> None:
    one = engine(flapping_channels=(0, 6))
    toggles(one, 40, 1.0)
    for i in range(40, 150):
        one.feed([message(i, START - 7200 * SECOND)], START + i * SECOND)
        one.tick(START + i * SECOND)
    opened = {e.id for e in one.take_events() if e.type == "open" and e.kind != "anomaly"}
    ((stream, blob),) = one.states()
    for rules in ({"clock_limit_ns": 0}, {"flapping": 3}, {"flapping_channels": (2, 2)}):
        other = engine(**rules)
        other.load(stream, blob)
        other.tick(START + 151 * SECOND)
        still = {e.id for e in other.take_events() if e.type == "close"}
        assert still <= opened
        assert still
        assert not any(other.is_open(name) for name in still)


def as_version_1(stream: str, blob: bytes) -> bytes:
    """The same row as the first version wrote it: without a watch."""
    magic, version, zero, layout, *sizes = _HEAD.unpack_from(blob)
    assert version == 2
    body = _HEAD.pack(magic, 1, zero, layout, *sizes) + blob[_HEAD.size : _HEAD.size + sum(sizes)]
    return body + struct.pack("<I", zlib.crc32(body, zlib.crc32(stream.encode())))


# What the first version wrote before the parts of such a row: magic, version, layout, sizes.
OLD = (
    "4552535401000000535c4e26c432cf619bd430842f5aa964cb72bb540790356bb9e1a5b7e9cb5968100200009800000008010000"
)


def test_a_state_of_the_first_version_goes_on() -> None:
    one, other = engine(flapping=4), engine(flapping=4)
    run(one, range(11))
    ((stream, blob),) = one.states()
    old = as_version_1(stream, blob)
    assert old[: _HEAD.size].hex() == OLD
    other.load(stream, old)
    expected, found = run(one, range(11, 40)), run(other, range(11, 40))
    assert [(v.step, v.score) for v in found] == [(v.step, v.score) for v in expected]
    with pytest.raises(SnapshotError):
        engine().load(stream, old[:-5] + old[-4:])


def test_mutated_watches_are_refused_or_can_be_lived_with() -> None:
    one = engine(flapping=4, flapping_channels=(2, 2))
    toggles(one, 60, 1.0)
    run(one, range(60, 100), -3600 * SECOND)
    ((stream, blob),) = one.states()
    begin = _HEAD.size + sum(_HEAD.unpack_from(blob)[4:])
    source, accepted = random.Random(9), 0
    other = engine(flapping=4, flapping_channels=(2, 2))
    for _ in range(1000):
        body = bytearray(blob[:-4])
        for _ in range(source.choice((1, 1, 3))):
            at = begin + source.randrange(len(body) - begin)
            if source.random() < 0.5:
                body[at] ^= 1 << source.randrange(8)
            else:
                at = min(at, len(body) - 8)
                body[at : at + 8] = struct.pack("<q", source.choice((0, -1, 2**62, -(2**63), 2**63 - 1, 5)))
        body += struct.pack("<I", zlib.crc32(body, zlib.crc32(stream.encode())))
        try:
            other.load(stream, bytes(body))
        except SnapshotError:
            continue
        accepted += 1
        other.feed([message(1, START + 500 * SECOND)], START + 500 * SECOND)
        other.tick(START + 501 * SECOND)
        other.take_events()
        assert other.states()
        other.forget(stream)
    assert 50 < accepted < 990


# ---- numbers


def numbered(index: int, number: int, time_ns: int, channels: tuple[int, ...] = (0, 1)) -> Message:
    values = list(reading(index).values())
    return Numbered.of(Message("g/1", channels, time_ns, [values[c] for c in channels]), number)


def test_a_number_that_was_heard_is_a_repeat_whatever_its_time() -> None:
    one = engine(numbered=True, clock_limit_ns=0)
    now = START
    for i in range(10):
        now += SECOND
        assert len(one.feed([numbered(i, 100 + i, now)], now)) == 1
    for i in range(10):
        now += SECOND
        assert one.feed([numbered(i, 100 + i, now)], now) == []
    assert one.counters.duplicate == 20
    # Of one channel only, and each channel by itself.
    assert len(one.feed([numbered(1, 110, now, (0,)), numbered(1, 110, now, (1,))], now)) == 2
    assert one.feed([numbered(1, 110, now + 5, (1,))], now) == []


def test_times_need_not_rise_where_there_are_numbers() -> None:
    one = engine(numbered=True, clock_limit_ns=0)
    verdicts = one.feed([numbered(i, i, START) for i in range(20)], START)
    assert [v.step for v in verdicts] == list(range(1, 21))
    assert [v.time_ns - START for v in verdicts] == list(range(20))
    burst = engine(numbered=True, clock_limit_ns=0)
    (judged,) = burst.judge([numbered(i, i, START) for i in range(20)], START)
    assert [v.time_ns for v in judged.verdicts()] == [v.time_ns for v in verdicts]
    assert burst.states() == one.states()


def test_numbers_are_part_of_the_state_and_may_begin_anew() -> None:
    one, other = engine(numbered=True), engine(numbered=True)
    one.feed([numbered(0, 5_000_000, START)], START)
    for stream, blob in one.states():
        other.load(stream, blob)
    assert other.feed([numbered(0, 5_000_000, START + 1)], START) == []
    assert len(other.feed([numbered(0, 0, START + 2)], START)) == 1
    assert other.feed([numbered(0, 0, START + 3)], START) == []


def test_a_numbered_message_far_ahead_is_dropped_and_its_number_is_not_taken() -> None:
    one = engine(numbered=True)
    assert one.feed([numbered(0, 7, START + 10**17)], START) == []
    assert one.counters.ahead == 2
    assert len(one.feed([numbered(0, 7, START)], START)) == 1
    assert np.isfinite(one.states()[0][1][0])
