"""Log lines: one an event, nothing in them but printable text, no secrets, no floods."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_rnn.files.config_types import Secret
from edge_rnn.service.clock import Clock
from edge_rnn.service.logs import Log

WALL = 1_769_860_800_123_456_789  # 2026-01-31T12:00:00.123456789Z


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def clock(self) -> Clock:
        return Clock(lambda: self.now, lambda: WALL)


def lines(level="debug", format_="text", moving: Time | None = None):
    out = io.StringIO()
    return Log(level, format_, out, (moving or Time()).clock()), out


def test_a_text_line() -> None:
    journal, out = lines()
    journal.info("mqtt", "connected to localhost:1883", session_present=False)
    assert out.getvalue() == (
        "2026-01-31T12:00:00.123Z info mqtt: connected to localhost:1883 session_present=False\n"
    )


def test_a_json_line() -> None:
    journal, out = lines(format_="json")
    journal.error("store", 'a "text"\nof two lines', count=3, ratio=0.5, none=None)
    assert json.loads(out.getvalue()) == {
        "time": "2026-01-31T12:00:00.123Z", "level": "error", "event": "store",
        "text": 'a "text"\nof two lines', "count": 3, "ratio": 0.5, "none": None,
    }  # fmt: skip
    assert out.getvalue().count("\n") == 1


@pytest.mark.parametrize(("level", "written"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_less_important_lines_are_left_out(level, written) -> None:
    journal, out = lines(level)
    for call in (journal.debug, journal.info, journal.warning, journal.error):
        call("e", "t")
    assert out.getvalue().count("\n") == written


@given(st.text(), st.text(), st.sampled_from(["text", "json"]))
def test_any_text_stays_on_one_printable_line(text: str, value: str, format_) -> None:
    journal, out = lines(format_=format_)
    journal.info("event", text, field=value)
    assert out.getvalue().endswith("\n")
    assert out.getvalue()[:-1].isprintable()
    if format_ == "json":
        assert json.loads(out.getvalue())["text"] == text


@pytest.mark.parametrize("format_", ["text", "json"])
def test_a_secret_shows_as_stars(format_) -> None:
    journal, out = lines(format_=format_)
    journal.info("mqtt", f"options {[Secret('canary')]}", password=Secret("canary"))
    assert "canary" not in out.getvalue()
    assert out.getvalue().count("***") == 2


def test_floods_are_thinned_to_the_first_and_one_a_minute_with_the_count() -> None:
    moving = Time()
    journal, out = lines(moving=moving)
    for _ in range(100):
        journal.limited("warning", "decode", "press", "refused")
        journal.limited("warning", "decode", "pump", "refused")
        moving.now += 0.5
    moving.now += 60
    journal.limited("warning", "decode", "press", "refused")
    text = out.getvalue()
    assert text.count("\n") == 3
    assert text.splitlines()[0].endswith("refused (repeats are summed up once a minute)")
    assert text.endswith("refused (100 more since)\n")


def test_the_last_of_a_burst_are_summed_up_without_another_one() -> None:
    moving = Time()
    journal, out = lines(moving=moving)
    for i in range(40):
        journal.limited("warning", "decode", "press", f"refused {i}", repeats="later", stream=i)
    moving.now += 59.9
    journal.sum_up()
    assert out.getvalue().count("\n") == 1
    assert "refused 0 (later) stream=0\n" in out.getvalue()
    moving.now += 0.2
    for _ in range(3):
        journal.sum_up()
    assert out.getvalue().count("\n") == 2
    assert out.getvalue().endswith("warning decode: refused 39 (39 more since) stream=39\n")


def test_what_is_settled_is_not_summed_up_and_its_next_line_is_a_first() -> None:
    moving = Time()
    journal, out = lines(moving=moving)
    journal.limited("warning", "mqtt", "down", "cannot connect")
    journal.limited("warning", "mqtt", "down", "cannot connect")
    journal.settled("mqtt", "down")
    moving.now += 61
    journal.sum_up()
    assert out.getvalue().count("\n") == 1
    journal.limited("warning", "mqtt", "down", "cannot connect")
    assert out.getvalue().count("repeats are summed up") == 2


def test_kinds_without_number_do_not_grow_the_log() -> None:
    journal, _ = lines()
    for i in range(5000):
        journal.limited("warning", "decode", str(i), "refused")
    assert len(journal._kinds) <= 1000


def test_a_closed_stream_does_not_disturb() -> None:
    journal, out = lines()
    out.close()
    journal.error("e", "t")


def test_stderr_is_looked_up_when_a_line_is_written(capsys) -> None:
    Log().info("e", "t")
    assert capsys.readouterr().err.endswith(" info e: t\n")
