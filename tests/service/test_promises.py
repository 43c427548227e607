"""What a bad day brings: hostile payloads, clocks that jump, disks that fail, floods, the end in mid-work."""

from __future__ import annotations

import errno
import json
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from edge_rnn.errors import DecodeError, StoreError
from edge_rnn.files.config import load_config
from edge_rnn.service.pipeline_build import build
from edge_rnn.stream.types import Message
from tests.service.test_daemon import Bench
from tests.service.test_delivery import compare, stepped
from tests.support import torture
from tests.support.daemon import START_NS, STEP_NS, DaemonProcess, DaemonThread, payload, write_config
from tests.support.mosquitto import Mosquitto
from tests.support.mqtt_peer import Peer, wait_for
from tests.support.payloads import ARRIVAL_NS, check, hostile

YEAR_S = 365 * 86_400
TOPIC = "plant/7/all"


# ---- hostile payloads, through decoder and engine


def assault(folder: Path, count: int, seed: int) -> tuple[int, int, float]:
    """Payloads refused, samples judged, seconds of the slowest payload; all states stay finite."""
    config = load_config(write_config(folder, 1, stream="max_streams = 300"))
    engine = build(config, START_NS).engine
    refused = judged = 0
    slowest = 0.0
    for number, case in enumerate(hostile(count, seed=seed), 1):
        start = time.thread_time()
        try:
            messages = case.decoder.decode(case.topic, case.payload, f"press/a{number // 50}", ARRIVAL_NS)
        except DecodeError:
            refused += 1
            messages = []
        check(messages)
        judged += len(engine.feed(messages, START_NS * 2))
        slowest = max(slowest, time.thread_time() - start)
        if number % 1000 == 0 or number == count:
            judged += len(engine.tick(START_NS * 2))
            for stream in engine.streams():
                table, row, _ = engine._slots[stream]
                assert np.isfinite(table.detector.states[row]["core"]).all(), stream
                # Times only rise: a stream that has seen a late one would refuse what comes.
                engine.forget(stream)
            engine.take_events()
            engine.changed()
            engine.removed()
    # A stream that comes later scores as if nothing had been.
    fresh = build(config, START_NS).engine
    for index in range(20):
        (found,), (expected,) = (e.feed(calm(index), START_NS * 2) for e in (engine, fresh))
        assert found.status == expected.status
        assert np.array_equal(found.score, expected.score, equal_nan=True)
        assert np.array_equal(found.expected, expected.expected, equal_nan=True)
    return refused, judged, slowest


def calm(index: int) -> list[Message]:
    """An ordinary message of a stream of its own."""
    values = json.loads(payload(index))
    return [Message("press/fresh", (0, 1), values["ts"], (values["vib"], values["temp"]))]


def test_hostile_payloads_leave_every_state_finite(tmp_path) -> None:
    refused, judged, slowest = assault(tmp_path, 10_000, seed=3)
    assert refused > 1000
    assert judged > 300
    assert slowest < 2


@pytest.mark.torture
@pytest.mark.timeout(7200)
def test_torture_1_000_000_hostile_payloads(tmp_path) -> None:
    start = time.monotonic()
    refused, judged, slowest = assault(tmp_path, 1_000_000, seed=33)
    assert slowest < 2
    torture.record(
        "hostile payloads, all formats, decoder and engine", "1,000,000",
        f"{refused:,} refused, {judged:,} judged; 0 stray exceptions, states finite, "
        f"slowest {slowest * 1000:.0f} ms of CPU",
        time.monotonic() - start,
    )  # fmt: skip


# ---- clocks


@pytest.mark.parametrize("own_times", [True, False])
def test_a_clock_that_jumps_by_years_costs_no_reading(bench, tmp_path, monkeypatch, own_times) -> None:
    if not own_times:
        forget_times(monkeypatch)
    b = bench(commit_every="1s", mqtt='delivery = "at-least-once"')
    sent = 0
    for years in (0, 30, -60, 31, 0):
        b.jump += years * YEAR_S * 10**9
        for _ in range(5):
            b.link.bring(payload(sent))
            b.turn(1.0)
            sent += 1
        assert len(b.topics("/score")) == sent, years
        assert len(b.link.acked) == sent, years
    times = [json.loads(s)["time_ns"] for s in b.topics("/score")]
    assert times == sorted(set(times))
    if own_times:
        assert times == [START_NS + i * STEP_NS for i in range(sent)]
    assert json.loads(b.daemon.health())["clock_ahead_s"] >= 0
    assert b.daemon.counters.errors == 0
    assert b.daemon.counters.commit_failures == 0


def jumps(folder: Path, count: int, seed: int) -> tuple[int, int]:
    """Readings scored and starts of the daemon, through `count` jumps of the wall clock; none is lost."""
    source = random.Random(seed)
    made = Bench(folder, commit_every="1s", mqtt='delivery = "at-least-once"')
    sent = starts = wall = 0
    for number in range(1, count + 1):
        # Years, a step of NTP, hours of sleep, or a clock that creeps back: between 1982 and 2114.
        step = source.choice((YEAR_S * source.uniform(-60, 60), source.uniform(-2, 2), 7200, -0.001))
        wall = max(-100 * YEAR_S * 10**9, min(wall + int(step * 1e9), 32 * YEAR_S * 10**9))
        made.jump = wall
        before = len(made.topics("/score"))
        few = source.randint(1, 5)
        for _ in range(few):
            made.link.bring(payload(sent))
            made.turn(source.choice((0.0, 0.2, 1.0)))
            sent += 1
        made.turn(1.1)
        scores = [json.loads(text) for text in made.topics("/score")[before:]]
        assert not any(score["alarm"] for score in scores), (number, scores)
        # A pause of years may be said to be one, beside the readings.
        assert sum(score["status"] != "fault" for score in scores) == few, (number, step, scores)
        assert made.daemon.counters.errors == made.daemon.counters.commit_failures == 0
        if number % 40 == 0 or number == count:
            scores = [json.loads(text) for text in made.topics("/score")]
            times = [score["time_ns"] for score in scores if score["status"] != "fault"]
            assert times == sorted(set(times))
            assert len(made.link.acked) == len(times)
            assert stepped(folder) == sent
            made.close()
            if number < count:
                made = Bench(folder, commit_every="1s", mqtt='delivery = "at-least-once"')
                starts += 1
    return sent, starts


def test_random_jumps_of_the_clock_cost_no_reading_and_open_no_alarm(tmp_path, monkeypatch) -> None:
    forget_times(monkeypatch)
    assert jumps(tmp_path, 90, seed=1)[1] == 2


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_torture_10_000_jumps_of_the_clock(tmp_path, monkeypatch) -> None:
    start = time.monotonic()
    forget_times(monkeypatch)
    sent, starts = jumps(tmp_path, 10_000, seed=11)
    torture.record(
        "clock jumps", "10,000, of years, seconds, hours of sleep",
        f"{sent:,} readings without a time of their own, {starts} starts: 0 lost, no alarm, times rise",
        time.monotonic() - start,
    )  # fmt: skip


def forget_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readings get the time of their arrival: the configuration names no time in them."""
    text = Bench.__init__.__globals__["write_config"]

    def without(folder: Path, port: int, **changes: str) -> Path:
        file: Path = text(folder, port, **changes)
        file.write_text(file.read_text().replace('time = { path = "ts", unit = "ns" }\n', ""))
        return file

    monkeypatch.setitem(Bench.__init__.__globals__, "write_config", without)


# ---- disks


def test_input_output_errors_at_random_lose_no_reading_and_no_event(bench, monkeypatch) -> None:
    b = bench(commit_every="1s")
    source, store = random.Random(4), b.daemon.running.store
    commit, failed = store.commit, 0

    def flaky(work) -> int:
        nonlocal failed
        if source.random() < 0.6:
            failed += 1
            raise StoreError(f"nothing was committed: {errno.errorcode[errno.EIO]}: disk I/O error")
        return commit(work)

    monkeypatch.setattr(store, "commit", flaky)
    for i in range(60):
        b.link.bring(payload(i, fault=i in (30, 31)))
        b.turn(1.5)
        # What is acknowledged is in the store.
        assert len(b.link.acked) <= i + 1
        if b.link.acked:
            assert stepped(b.config.parent) >= len(b.link.acked)
    monkeypatch.setattr(store, "commit", commit)
    b.turn(2)
    assert failed > 10
    assert len(b.topics("/score")) == len(b.link.acked) == stepped(b.config.parent) == 60
    assert [json.loads(data)["type"] for _, data in b.link.sure.values()] == ["open", "close"]


def test_a_slow_disk_delays_acknowledgements_and_nothing_else(bench, monkeypatch) -> None:
    b = bench(commit_every="1s", health="60s")
    store = b.daemon.running.store
    commit = store.commit

    def slow(work) -> int:
        b.now += 8
        return commit(work)

    monkeypatch.setattr(store, "commit", slow)
    for i in range(30):
        b.link.bring(payload(i))
        b.turn(0.5)
        assert len(b.topics("/score")) == i + 1
    b.turn(2)
    assert len(b.link.acked) == 30
    assert b.daemon.counters.errors == 0
    assert json.loads(b.daemon.health())["status"] == "running"


# ---- a flood of what a broker has retained


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_flood_of_retained_messages_makes_no_stream_and_holds_nothing_up(tmp_path, protocol) -> None:
    extra = ["max_queued_messages 0"]
    with Mosquitto(tmp_path, extra=extra, log=False) as broker, Peer(broker.port, "er/+/+/score") as peer:
        last = None
        for i in range(3000):
            last = peer.post(f"plant/{i}/all", payload(i), retain=True)
        assert last is not None
        last.wait_for_publish(60)
        config = write_config(tmp_path, broker.port, protocol=protocol)
        with DaemonThread(config) as running:
            running.subscribed()
            peer.send("plant/live/all", payload(0))
            wait_for(lambda: peer.on("er/press/live/score"), "the live stream's score", 60)
            assert len(running.daemon.running.pipeline.engine) == 1
            assert running.daemon.counters.errors == 0
        assert {topic for topic, _, _ in peer.messages} == {"er/press/live/score"}


# ---- the end in mid-work


def ends(folder: Path, readings: int, count: int, seed: int) -> list[float]:
    """Seconds from SIGTERM to the end, `count` times while `readings` come; nothing lost, nothing twice."""
    source, streams, took = random.Random(seed), 4, []
    with Mosquitto(folder, extra=["max_queued_messages 0"], log=False) as broker:
        more = 'delivery = "exactly-once-state"\nreceive_maximum = 500'
        config = write_config(folder, broker.port, mqtt=more, commit_every="1h", score_every="1h")
        with Peer(broker.port) as peer, Peer(broker.port, "er/status") as watcher:
            sent, last = 0, None
            for stop in [*sorted(source.sample(range(readings // 4, readings), count)), readings]:
                with DaemonProcess(config) as daemon:
                    online = len(watcher.on("er/status"))
                    wait_for(lambda n=online: b"online" in watcher.on("er/status")[n:], "online", 120)
                    while sent < stop:
                        last = peer.post(f"plant/{sent % streams}/all", payload(sent // streams))
                        sent += 1
                    if stop == readings:
                        assert last is not None
                        last.wait_for_publish(60)
                        # Half of what a client may hold unacknowledged makes a commit; the rest waits.
                        wait_for(lambda: stepped(folder) + 250 > readings, "most readings", 120)
                    code, seconds = daemon.end(signal.SIGTERM)
                    assert code == 0, daemon.log
                    assert "Traceback" not in daemon.log
                    took.append(seconds)
        # One more start takes what the broker still held: with it every reading is in the states, once.
        before = daemon.log.count("session_present=")
        with DaemonProcess(config) as daemon:
            wait_for(lambda: daemon.log.count("session_present=") > before, "the session", 120)
            assert daemon.end()[0] == 0
    compare(config, folder, readings, streams)
    return took


def test_sigterm_with_a_full_pipeline_acknowledges_only_what_is_in_the_snapshot(tmp_path) -> None:
    # How long it takes is recorded by the long version.
    assert len(ends(tmp_path, readings=3000, count=1, seed=2)) == 2


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_torture_50_times_sigterm_with_a_full_pipeline(tmp_path) -> None:
    start = time.monotonic()
    took = ends(tmp_path, readings=100_000, count=50, seed=22)
    torture.record(
        "SIGTERM with a full pipeline", "51 ends during 100,000 readings",
        f"exit 0, states bit-identical, {np.median(took):.2f} s median, {max(took):.2f} s longest",
        time.monotonic() - start,
    )  # fmt: skip
