"""Embedded broker, clients and sensors over real MQTT on loopback."""

from __future__ import annotations

import json
import sys
import threading
import time
from queue import SimpleQueue

import pytest

from edge_rnn.demo.broker import EmbeddedBroker
from edge_rnn.demo.clients import DemoClient
from edge_rnn.demo.pumps import CHANNELS, Plant, pump_names
from edge_rnn.demo.sensors import Sensors
from edge_rnn.errors import EdgeRnnError, MissingExtraError
from tests.support import need


@pytest.fixture
def broker():
    need.module("amqtt")
    with EmbeddedBroker() as running:
        yield running


def test_every_reading_of_the_sensors_arrives_once_and_in_order(broker) -> None:
    steps, names = 100, pump_names(3)
    heard: SimpleQueue[tuple[str, bytes, int]] = SimpleQueue()
    sent: list[tuple[str, int, list[float]]] = []
    watcher = DemoClient(
        broker.host, broker.port, "watcher", ["pumps/#"], lambda *message: heard.put(message)
    )
    with watcher, DemoClient(broker.host, broker.port, "sensors") as publisher:
        sensors = Sensors(
            Plant(names, 1), steps, publisher.publish,
            lambda pump, now, values: sent.append((pump, now, values.tolist())), period_ns=2_000_000,
        )  # fmt: skip
        sensors.start()
        got = [heard.get(timeout=20) for _ in range(steps * len(names))]
        sensors.stop()
    assert heard.empty()
    assert not sensors.running
    assert len(sent) == steps * len(names)
    for (pump, time_ns, values), (topic, payload, received_ns) in zip(sent, got, strict=True):
        assert topic == f"pumps/{pump}/readings"
        assert json.loads(payload) == {
            "time": time_ns, **dict(zip([channel.name for channel in CHANNELS], values, strict=True)),
        }  # fmt: skip
        assert received_ns >= time_ns


def test_nothing_is_left_running_when_the_broker_ends(broker) -> None:
    before = {thread.name for thread in threading.enumerate()}
    assert "demo-broker" in before
    broker.__exit__(None, None, None)
    assert "demo-broker" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(EdgeRnnError, match=f"no connection to the demo's broker at 127.0.0.1:{broker.port}"):
        DemoClient(broker.host, broker.port, "late").__enter__()


def test_two_brokers_run_side_by_side(broker) -> None:
    with EmbeddedBroker() as second:
        assert second.port != broker.port


def test_a_broker_that_cannot_start_says_so(monkeypatch) -> None:
    need.module("amqtt")
    monkeypatch.setattr("edge_rnn.demo.broker._free_port", lambda: 1 << 20)
    with pytest.raises(EdgeRnnError, match=r"the demo's broker on 127\.0\.0\.1 does not start: "):
        EmbeddedBroker().__enter__()


def test_without_amqtt_the_message_names_the_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "amqtt", None)
    monkeypatch.setitem(sys.modules, "amqtt.broker", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'edge-rnn\[demo\]'"):
        EmbeddedBroker()


def test_sensors_keep_the_beat_and_stop_when_told() -> None:
    times: list[int] = []
    sensors = Sensors(
        Plant(pump_names(1), 1), 10_000, lambda topic, payload: None,
        lambda pump, now, values: times.append(time.monotonic_ns()), period_ns=5_000_000,
    )  # fmt: skip
    begin = time.monotonic_ns()
    sensors.start()
    time.sleep(0.2)
    sensors.stop()
    elapsed = time.monotonic_ns() - begin
    # Never ahead of the beat; how far behind depends on the machine.
    assert 1 <= len(times) <= elapsed / 5_000_000 + 1


def test_sensors_that_never_started_can_be_stopped() -> None:
    Sensors(Plant(pump_names(1), 1), 1, lambda *_: None, lambda *_: None).stop()
