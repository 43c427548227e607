"""The engine's edges: what is dropped, forgotten, silent, saved; each counted and said."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pytest

from edge_rnn.core.detector_spec import GuardSpec, ThresholdSpec
from edge_rnn.detect.detector import Detector
from edge_rnn.errors import ConfigError, ModelFileError, SnapshotError
from edge_rnn.stream.assemble import TIME_LIMIT, Assembly
from edge_rnn.stream.engine import Engine, Group
from edge_rnn.stream.types import Message, Reading
from tests.detect.models import SECOND, model, readings, spec
from tests.stream.scripts import MODEL, OTHER

ALL = (0, 1, 2)
CALM = [0.0, 1.0, 2.0]
SILENT = model(3, spec(3, guard=GuardSpec(silent_after_ns=10 * SECOND)))


def rows(stream: str, seconds: list[float], values: list[float] = CALM) -> list[Message]:
    return [Message(stream, ALL, round(s * SECOND), values) for s in seconds]


def test_a_message_gives_the_verdict_of_the_library() -> None:
    times, x = readings(200, MODEL)
    engine = Engine([Group("g", MODEL)])
    verdicts = engine.feed(
        [Message("g", ALL, int(t), row) for t, row in zip(times, x.tolist(), strict=True)], int(times[-1])
    )
    expected = Detector(MODEL).run(times, x)
    assert [v.score for v in verdicts if not math.isnan(v.score)] == [
        s for s in expected["score"].tolist() if not math.isnan(s)
    ]
    assert np.array_equal([v.expected for v in verdicts], expected["expected"], equal_nan=True)
    assert [v.step for v in verdicts] == list(range(1, 201))
    assert {v.stream for v in verdicts} == {"g"}


def test_several_readings_of_one_message_are_one_sample() -> None:
    engine = Engine([Group("g", MODEL)])
    engine.feed(rows("g", [1]), 0)
    together = engine.feed([Message("g", ALL, 2 * SECOND, CALM)], 0)
    apart = engine.feed([Reading("g", c, 3 * SECOND, 1.0) for c in ALL], 0)
    assert (len(together), len(apart)) == (1, 3)


def test_verdicts_of_several_groups_come_in_the_order_of_their_samples() -> None:
    engine = Engine([Group("a", MODEL), Group("b", OTHER)])
    messages = [
        Message("a" if i % 3 else "b", ALL if i % 3 else (0, 1), i * SECOND, CALM if i % 3 else CALM[:2])
        for i in range(1, 60)
    ]
    verdicts = engine.feed(messages, 0)
    assert [v.time_ns for v in verdicts] == [m.time_ns for m in messages]
    assert [v.stream for v in verdicts] == [m.stream for m in messages]


def test_a_feed_larger_than_one_batch() -> None:
    engine = Engine([Group("g", MODEL)])
    verdicts = engine.feed(rows("g", [float(i) for i in range(10_000)]), 0)
    assert [v.step for v in verdicts] == list(range(1, 10_001))


def test_unknown_groups_are_counted() -> None:
    engine = Engine([Group("g", MODEL)])
    assert engine.feed([*rows("h/x", [1]), Reading("", 0, 1, 1.0), Reading("gg", 0, 1, 1.0)], 0) == []
    assert (engine.counters.unknown, engine.counters.readings, len(engine)) == (5, 5, 0)


def test_times_far_ahead_are_dropped_and_do_no_harm() -> None:
    engine = Engine([Group("g", MODEL, max_ahead_ns=60 * SECOND)])
    now = 1000 * SECOND
    assert len(engine.feed(rows("g", [1000]), now)) == 1
    assert engine.feed(rows("g", [1060.5, 9_000_000_000]), now) == []
    assert engine.counters.ahead == 6
    assert len(engine.feed(rows("g", [1060, 1061]), now + SECOND)) == 2


def test_times_that_no_clock_gives_are_dropped() -> None:
    engine = Engine([Group("g", MODEL)])
    for time_ns in (2**80, TIME_LIMIT, -TIME_LIMIT, -(2**80)):
        assert engine.feed([Message("g", ALL, time_ns, CALM)], TIME_LIMIT - 1) == []
    assert (engine.counters.ahead, engine.counters.late) == (6, 6)
    assert len(engine.feed([Message("g", ALL, TIME_LIMIT - 1, CALM)], TIME_LIMIT - 1)) == 1
    (blob,) = engine.changed()
    other = Engine([Group("g", MODEL)])
    other.load(*blob)


@pytest.mark.parametrize(
    ("reading", "word"),
    [
        (Reading("g", 3, 5 * SECOND, 1.0), "expected 0..2"),
        (Reading("g", -1, 5 * SECOND, 1.0), "expected 0..2"),
        (Message("g", (0, 0), 5 * SECOND, (1.0, 2.0)), "distinct"),
        (Message("g", (), 5 * SECOND, ()), "at least one"),
        (Message("g", (0, 1), 5 * SECOND, (1.0,)), "values: expected 2, got 1"),
    ],
)
def test_a_wrong_channel_is_the_callers_mistake_and_leaves_the_state_whole(
    reading: Reading | Message, word: str
) -> None:
    engine, straight = Engine([Group("g", MODEL)]), Engine([Group("g", MODEL)])
    with pytest.raises(ValueError, match=re.escape(word)):
        engine.feed([*rows("g", [1, 2]), reading], 0)
    straight.feed(rows("g", [1, 2]), 0)
    assert engine.states() == straight.states()
    assert len(engine.feed(rows("g", [6]), 0)) == 1


# --- too many streams


def test_the_least_recently_used_stream_goes() -> None:
    engine = Engine([Group("g", MODEL, max_streams=2)])
    for stream, second in (("g/a", 1), ("g/b", 2), ("g/a", 3), ("g/c", 4)):
        engine.feed(rows(stream, [second]), second * SECOND)
    assert sorted(engine.streams()) == ["g/a", "g/c"]
    assert engine.counters.evicted == 1
    assert engine.removed() == ["g/b"]
    assert engine.removed() == []
    (verdict,) = engine.feed(rows("g/b", [5]), 5 * SECOND)
    assert verdict.step == 1
    assert sorted(engine.streams()) == ["g/b", "g/c"]


def test_a_stream_that_is_back_is_not_removed() -> None:
    engine = Engine([Group("g", MODEL, max_streams=1)])
    engine.feed(rows("g/a", [1]), 0)
    engine.feed(rows("g/b", [1]), 0)
    engine.feed(rows("g/a", [2]), 0)
    assert engine.removed() == ["g/b"]
    assert [s for s, _ in engine.changed()] == ["g/a"]


def test_a_flood_of_streams_keeps_memory_and_every_verdict() -> None:
    engine = Engine([Group("g", MODEL, max_streams=5)])
    verdicts = engine.feed([m for i in range(500) for m in rows(f"g/{i}", [1, 2])], 0)
    assert [v.step for v in verdicts] == [1, 2] * 500
    assert [v.stream for v in verdicts][::2] == [f"g/{i}" for i in range(500)]
    assert len(engine) == 5
    assert engine.counters.evicted == 495


def test_an_open_alarm_of_a_forgotten_stream_is_closed() -> None:
    loud = model(3, spec(3, warmup=0, threshold=ThresholdSpec(kind="fixed", value=1e-9)))
    engine = Engine([Group("g", loud, max_streams=1)])
    engine.feed(rows("g/a", [1, 2, 3]), 0)
    (opened,) = engine.take_events()
    engine.feed(rows("g/b", [9]), 0)
    (closed,) = engine.take_events()
    assert (closed.type, closed.id, closed.end_ns) == ("close", opened.id, 3 * SECOND)
    assert engine.counters.events == 2
    assert engine.forget("g/b") is True
    assert engine.forget("g/b") is False
    assert len(engine) == 0


# --- silence


def test_a_silent_stream_is_a_fault_once() -> None:
    engine = Engine([Group("g", SILENT)])
    engine.feed(rows("g/a", [1, 2]) + rows("g/b", [1, 2]), 100 * SECOND)
    assert engine.tick(110 * SECOND) == []
    engine.feed(rows("g/b", [9]), 110 * SECOND)
    (verdict,) = engine.tick(110 * SECOND + 1)
    assert (verdict.stream, verdict.status, verdict.time_ns, verdict.step) == ("g/a", "fault", 12 * SECOND, 2)
    assert [(f.channel, f.kind) for f in verdict.faults] == [(0, "silent"), (1, "silent"), (2, "silent")]
    assert math.isnan(verdict.score)
    (event,) = engine.take_events()
    assert (event.type, event.kind, event.start_ns) == ("open", "silent", 12 * SECOND)
    assert engine.tick(115 * SECOND) == []
    engine.feed(rows("g/a", [30]), 116 * SECOND)
    (event,) = engine.take_events()
    assert (event.type, event.kind, event.end_ns) == ("close", "silent", 30 * SECOND)
    assert engine.counters.silent == 1
    assert len(engine.tick(130 * SECOND)) == 2


def test_a_silent_leading_channel_is_named() -> None:
    engine = Engine([Group("g", SILENT, Assembly(on="x1"))])
    engine.feed(rows("g", [1]), 0)
    for second in range(2, 12):
        engine.feed([Message("g", (0, 2), second * SECOND, [1.0, 2.0])], second * SECOND)
    (verdict,) = engine.tick(12 * SECOND)
    assert [f.channel for f in verdict.faults] == [1]


def test_silence_is_not_counted_from_before_the_program_lived() -> None:
    first = Engine([Group("g", SILENT)])
    first.feed(rows("g", [1]), 1 * SECOND)
    second = Engine([Group("g", SILENT)], alive_since_ns=1000 * SECOND)
    second.load(*first.changed()[0])
    assert second.tick(1005 * SECOND) == []
    assert len(second.tick(1011 * SECOND)) == 1


def test_a_clock_that_goes_back_silences_nobody() -> None:
    engine = Engine([Group("g", SILENT)])
    engine.feed(rows("g", [1]), 1000 * SECOND)
    assert engine.tick(1 * SECOND) == []
    assert engine.tick(-(2**62)) == []


def test_the_groups_limits_take_the_place_of_the_models() -> None:
    engine = Engine([Group("g", SILENT, silent_after_ns=2 * SECOND, gap_ns=5 * SECOND)])
    engine.feed(rows("g", [1, 2, 3, 4, 5]), 5 * SECOND)
    assert len(engine.tick(8 * SECOND)) == 1
    # The gap resets: warming again.
    assert [v.status for v in engine.feed(rows("g", [20]), 9 * SECOND)] == ["warming"]
    quiet = Engine([Group("g", SILENT, silent_after_ns=0)])
    quiet.feed(rows("g", [1]), 0)
    assert quiet.tick(10**18) == []


def test_a_tick_closes_what_waits() -> None:
    engine = Engine([Group("g", MODEL, Assembly(on="all", timeout_ns=2 * SECOND))])
    engine.feed([Reading("g", 0, SECOND, 1.0)], 50 * SECOND)
    assert engine.tick(51 * SECOND) == []
    (verdict,) = engine.tick(52 * SECOND)
    assert verdict.time_ns == SECOND
    assert [(f.channel, f.kind) for f in verdict.faults] == [(1, "missing"), (2, "missing")]
    assert [s for s, _ in engine.changed()] == ["g"]


# --- states


def test_only_changed_rows_are_saved() -> None:
    engine = Engine([Group("g", MODEL)])
    engine.feed(rows("g/a", [1]) + rows("g/b", [1]), 0)
    assert [s for s, _ in engine.changed()] == ["g/a", "g/b"]
    assert engine.changed() == []
    engine.feed(rows("g/b", [2]), 0)
    assert [s for s, _ in engine.changed()] == ["g/b"]
    # What is dropped changes nothing, so it need not be written.
    engine.feed(rows("g/b", [2, 1]), 0)
    assert engine.changed() == []
    assert [s for s, _ in engine.states()] == ["g/a", "g/b"]


def blob_of(group: Group, stream: str = "g") -> bytes:
    engine = Engine([group])
    engine.feed(rows(stream, [1, 2, 3]), 0)
    return dict(engine.changed())[stream]


def test_a_state_that_does_not_fit_is_refused_and_nothing_changes() -> None:
    good = blob_of(Group("g", MODEL))
    renamed = tuple(dataclasses.replace(i, name=f"y{n}") for n, i in enumerate(MODEL.inputs))
    cases = {
        "another assembly": blob_of(Group("g", MODEL, Assembly(on="every", every_ns=SECOND))),
        "other channels": blob_of(Group("g", dataclasses.replace(MODEL, inputs=renamed))),
        "weights": blob_of(Group("g", model(3, MODEL.detector, seed=9))),
        "detector section": blob_of(Group("g", MODEL, gap_ns=99 * SECOND)),
        "checksum": blob_of(Group("g", MODEL), "g/other"),
        "0 other bytes": b"",
        "damaged": good[:-1] + bytes([good[-1] ^ 1]),
        "state of a stream": b"SQLite format 3\0" + good,
    }
    engine = Engine([Group("g", MODEL)])
    for word, blob in cases.items():
        with pytest.raises(SnapshotError) as caught:
            engine.load("g", blob)
        assert word in str(caught.value), word
        assert "\n" not in str(caught.value)
        assert len(engine) == 0
    engine.load("g", good)
    assert engine.states() == [("g", good)]


def test_a_state_without_a_place_is_refused() -> None:
    engine = Engine([Group("g", MODEL, max_streams=1)])
    with pytest.raises(SnapshotError, match="no group 'h'"):
        engine.load("h/x", blob_of(Group("g", MODEL)))
    engine.load("g", blob_of(Group("g", MODEL)))
    with pytest.raises(SnapshotError, match="has a state already"):
        engine.load("g", blob_of(Group("g", MODEL)))
    with pytest.raises(SnapshotError, match="max_streams"):
        engine.load("g/b", blob_of(Group("g", MODEL), "g/b"))


@pytest.mark.parametrize(
    ("make", "error", "word"),
    [
        (lambda: Group("", MODEL), ConfigError, "stream name"),
        (lambda: Group("a/b", MODEL), ConfigError, "stream name"),
        (lambda: Group("g", MODEL, max_streams=0), ConfigError, "max_streams"),
        (lambda: Group("g", MODEL, Assembly(on="nobody")), ConfigError, "stream 'g': on: expected"),
        (lambda: Engine([Group("g", MODEL), Group("g", OTHER)]), ConfigError, "distinct"),
        (lambda: Engine([Group("g", dataclasses.replace(MODEL, detector=None))]), ModelFileError, "detector"),
    ],
)
def test_groups_that_cannot_be(make, error: type[Exception], word: str) -> None:
    with pytest.raises(error, match=word):
        make()
