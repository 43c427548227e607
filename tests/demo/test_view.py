"""The demo's picture fits every terminal and shows what matters; its plain lines say the same."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_rnn.demo.ledger import Ledger, SeenEvent, SeenScore
from edge_rnn.demo.pumps import CHANNELS, PERIOD_NS, Plant, plan_faults, pump_names
from edge_rnn.demo.view import Board, LineView, draw, level_blocks, trace_blocks

BEGIN = 1_700_000_000_000_000_000


def board(pumps: int = 4, steps: int = 200, score: float = 0.4) -> Board:
    names = pump_names(pumps)
    faults = plan_faults(names, 30, 0)
    ledger = Ledger(faults)
    ledger.begin(BEGIN)
    out = Board(names, 30, ledger, "some pumps")
    plant = Plant(names, 0)
    for step in range(steps):
        for pump, values in plant.step():
            now = BEGIN + step * PERIOD_NS
            ledger.add_sent(pump, now)
            out.add_reading(pump, values)
            expected = {channel.name: float(v) for channel, v in zip(CHANNELS, values, strict=True)}
            seen = SeenScore(pump, now, now + 2_000_000, "normal", score, 1.0, expected)
            ledger.add_score(seen)
            out.add_score(seen)
    out.elapsed = steps / 20
    return out


def alarm(out: Board, fault: int, type: str = "open") -> SeenEvent:  # noqa: A002
    injected = out.ledger.faults[fault]
    when = BEGIN + injected.start * PERIOD_NS + 50_000_000
    kind = "silent" if injected.channel is None else "anomaly"
    shares = () if injected.channel is None else ((CHANNELS[injected.channel].name, 0.93),)
    event = SeenEvent(injected.pump, f"{fault}", type, kind, when, shares)
    out.ledger.add_event(event)
    out.add_event(event)
    return event


@settings(max_examples=60)
@given(
    pumps=st.integers(1, 50), steps=st.integers(0, 40), width=st.integers(20, 200), height=st.integers(5, 60)
)
def test_the_picture_fits_whatever_the_terminal(pumps: int, steps: int, width: int, height: int) -> None:
    lines = draw(board(pumps, steps), width, height)
    assert 1 <= len(lines) <= height
    assert all(line.cell_len <= width for line in lines)


@pytest.mark.parametrize(("width", "height"), [(100, 30), (80, 24)])
def test_four_pumps_show_all_that_matters_in_a_usual_terminal(width: int, height: int) -> None:
    shown = board()
    alarm(shown, 0)
    text = "\n".join(line.plain for line in draw(shown, width, height))
    for pump in pump_names(4):
        assert pump in text
    assert text.count("vibration") == text.count("temperature") == 4
    assert text.count("expected") == 12
    assert text.count("0.4 of   1.0") == 4
    assert "2,400 sent 2,400 scored" in text
    assert "10/30 s" in text
    assert "p50 2.0 p99 2.0 ms" in text
    assert "1 of 4 injected faults found" in text
    assert "anomaly  opens" in text
    assert "injected: spike" in text


def test_the_newest_readings_are_in_the_picture_and_the_traces_say_what_they_span() -> None:
    shown = board()
    for pump in shown.pumps:
        shown.add_reading(pump, (99.0, 99.0, 99.0))
    lines = [line.plain for line in draw(shown, 80, 24)]
    assert all(line.endswith("█") for line in lines if "expected" in line)
    assert "the last 3.5 s" in lines[2]
    assert "█ at or above" in lines[2]
    assert max(map(len, lines)) <= 80


def test_while_it_waits_the_picture_moves_and_counts() -> None:
    shown = board(steps=0)
    shown.note = "compiling"
    seen = set()
    for shown.waited in (0.0, 0.1, 3.2):
        seen.add(draw(shown, 80, 24)[1].plain)
    assert len(seen) == 3
    assert any(" 3 s: compiling" in line for line in seen)


def test_an_alarm_that_follows_from_a_stuck_sensor_says_so() -> None:
    shown = board()
    fault = next(f for f in shown.ledger.faults if f.kind == "stuck")
    when = BEGIN + fault.start * PERIOD_NS + 50_000_000
    own = SeenEvent(fault.pump, "a", "open", "stuck", when, (("pressure", None),))
    other = SeenEvent(fault.pump, "b", "open", "anomaly", when, (("vibration", 0.8),))
    for event in (own, other):
        shown.ledger.add_event(event)
        shown.add_event(event)
    text = "\n".join(line.plain for line in draw(shown, 80, 24))
    assert "injected: stuck" in text
    assert "follows: stuck pressure" in text


def test_many_pumps_get_one_line_each() -> None:
    text = "\n".join(line.plain for line in draw(board(12), 80, 24))
    assert all(f"{pump} " in text for pump in pump_names(12))
    assert "vibration" not in text


def test_before_the_first_score_the_picture_says_so() -> None:
    text = "\n".join(line.plain for line in draw(board(steps=0), 80, 24))
    assert text.count("no score yet") == 4


def test_a_silent_pump_is_shown_as_silent_until_it_speaks_again() -> None:
    shown = board()
    event = alarm(shown, 3)
    assert shown.pumps[event.pump].status == "silent"
    shown.add_score(SeenScore(event.pump, BEGIN, BEGIN, "normal", 0.1, 1.0))
    assert shown.pumps[event.pump].status == "normal"


def test_blocks_rise_with_the_level_and_are_full_from_the_threshold_on() -> None:
    levels = [0.0, 0.005, 0.02, 0.05, 0.1, 0.3, 0.9, 1.0, 50.0]
    blocks = level_blocks(levels)
    assert list(blocks) == sorted(blocks)
    assert blocks[0] == "▁"
    assert blocks[-3:] == "▇██"
    assert trace_blocks([-5, 0, 0.5, 1, 9], 0, 1) == "▁▁▅██"


def test_plain_lines_tell_alarms_and_progress_once() -> None:
    shown, out = board(), io.StringIO()
    with LineView(shown, out) as view:
        shown.note = "starting"
        view.show()
        view.show()
        shown.waited = 5.1
        view.show()
        view.show()
        shown.note = ""
        view.show()
        alarm(shown, 0)
        view.show()
        false = SeenEvent("pump1", "x", "open", "anomaly", BEGIN, (("vibration", 0.5),))
        shown.ledger.add_event(false)
        view.show()
    pump = shown.ledger.faults[0].pump
    assert out.getvalue().splitlines() == [
        "demo: starting",
        "demo: still waiting, 5 s",
        "demo: 10 of 30 s: 2400 sent, 2400 scored",
        f"demo: {pump}: anomaly (pressure 93 %), injected: spike",
        "demo: pump1: anomaly (vibration 50 %), a false alarm",
    ]
