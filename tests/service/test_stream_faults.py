"""A wrong clock and a flapping alarm as the daemon tells them: state, event, log, metrics, health."""

from __future__ import annotations

import json

import pytest

from edge_rnn.service.metrics import exposition
from tests.service.test_daemon import Bench, wait_reload
from tests.support.daemon import START_NS, gru_model, payload, write_config

RIGHT = -START_NS - 100 * 10**9
"""What brings the bench's wall clock to the times of `payload`."""


@pytest.fixture
def bench(tmp_path):
    made: list[Bench] = []

    def make(**changes) -> Bench:
        made.append(Bench(tmp_path, **changes))
        return made[-1]

    yield make
    for one in made:
        if one.daemon.running.store._connection is not None:
            one.close()


def test_a_sender_whose_clock_jumps_back_is_told_everywhere_and_so_is_its_end(bench) -> None:
    b = bench(clock_limit="10m", commit_every="100ms", health="60s", stream='silent_after = "20s"')
    b.jump = RIGHT
    for i in range(10):
        b.link.bring(payload(i))
        b.turn(1)
    # Two hours back: nothing is judged any more, yet nothing is silent.
    for i in range(10, 90):
        b.link.bring(payload(i - 7200))
        b.turn(1)
    (opened,) = [json.loads(d) for topic, d in b.link.sure.values() if topic == "er/press/7/event"]
    assert (opened["type"], opened["kind"], opened["threshold"]) == ("open", "clock", 600.0)
    assert opened["score"] == pytest.approx(-7200, abs=2)
    state = json.loads(b.topics("/state")[-1])
    assert (state["status"], state["faults"]) == ("fault", {"vib": "clock", "temp": "clock"})
    (line,) = (text for text in b.log.getvalue().splitlines() if "warning fault: " in text)
    assert "its times are 2 h behind this machine's clock" in line
    assert "stream=press/7" in line
    b.link.subscribed = True
    text = exposition(b.daemon.facts)().decode()
    assert 'edge_rnn_fault{kind="clock",stream="press/7"} 1' in text
    assert "edge_rnn_engine_clock_total 1.0" in text
    assert json.loads(b.daemon.health())["engine"]["clock"] == 1
    # And over a restart.
    b.close()
    b = bench(clock_limit="10m", commit_every="100ms", health="60s", stream='silent_after = "20s"')
    b.now, b.jump = 200.0, RIGHT
    b.link.bring(payload(100))
    b.turn(1)
    b.turn(1)
    told = [json.loads(d) for topic, d in b.link.sure.values() if topic == "er/press/7/event"]
    assert [(e["type"], e["id"]) for e in told if e["kind"] == "clock"][-1] == ("close", opened["id"])
    assert json.loads(b.topics("/state")[-1])["faults"] == {}
    b.link.subscribed = True
    assert 'kind="clock"' not in exposition(b.daemon.facts)().decode()


def test_a_clock_that_is_wrong_stays_so_over_a_reload_with_another_model(bench, tmp_path) -> None:
    b = bench(clock_limit="10m", commit_every="100ms", health="60s", stream='silent_after = "20s"')
    b.jump = RIGHT
    for i in range(90):
        b.link.bring(payload(i - 7200 * (i >= 10)))
        b.turn(1)
    before = json.loads(b.daemon.health())["engine"]
    (tmp_path / "press.safetensors").unlink()
    write_config(
        tmp_path, 1, model=gru_model(seed=5), clock_limit="10m", commit_every="100ms", health="60s",
        stream='silent_after = "20s"',
    )  # fmt: skip
    wait_reload(b)
    lines = b.log.getvalue().splitlines()
    (line,) = (text for text in lines if "starts cold" in text)
    assert "starts cold: the model has changed" in line
    assert "snapshot" not in line
    (line,) = (text for text in lines if "the new configuration is in use" in text)
    assert line.endswith("kept=0 cold=1")
    assert json.loads(b.daemon.health())["engine"] == before
    for i in range(90, 180):
        b.link.bring(payload(i - 7200))
        b.turn(1)
    assert json.loads(b.topics("/score")[-1])["status"] == "fault"

    def told() -> list[tuple[str, str]]:
        found = [json.loads(d) for topic, d in b.link.sure.values() if topic == "er/press/7/event"]
        return [(e["type"], e["id"]) for e in found if e["kind"] == "clock"]

    ((first, name),) = told()
    assert first == "open"
    after = json.loads(b.daemon.health())["engine"]
    assert (after["clock"], after["samples"]) == (1, before["samples"] + 90)
    # And over a restart of what was handed over.
    assert [s for s, _ in b.daemon.running.store.load_states()] == ["press/7"]
    b.link.bring(payload(180))
    b.turn(1)
    b.turn(1)
    assert told() == [("open", name), ("close", name)]


def test_an_alarm_that_flaps_is_a_fault_with_its_rate(bench) -> None:
    b = bench(commit_every="100ms", health="60s", stream="flapping = 6")
    for i in range(120):
        b.link.bring(payload(i, fault=i > 20 and i % 6 < 2))
        b.turn(0.2)
    told = [json.loads(d) for d in b.topics("/state")]
    assert any(set(s["faults"].values()) == {"flapping"} for s in told)
    events = b.daemon.running.store.events()
    (flaps,) = [e for e in events if e.kind == "flapping"]
    assert (flaps.threshold, flaps.shares) == (6, ())
    assert flaps.peak > 6
    assert "the alarm changes" in b.log.getvalue()
