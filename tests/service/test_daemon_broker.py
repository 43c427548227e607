"""The daemon on a thread with a real mosquitto: everything that is published, and what brokers do to it."""

from __future__ import annotations

import json
import subprocess
import time
from itertools import pairwise

import pytest

from edge_rnn.errors import ConfigError, CredentialsError, ModelFileError
from tests.service.test_mqtt_security import certificates
from tests.support import need
from tests.support.daemon import (
    START_NS,
    STEP_NS,
    DaemonThread,
    gru_model,
    payload,
    reading,
    uninterrupted,
    write_config,
)
from tests.support.mosquitto import Mosquitto, free_port
from tests.support.mqtt_peer import Peer, wait_for

TOPIC = "plant/7/all"


@pytest.fixture
def broker(tmp_path):
    with Mosquitto(tmp_path) as running:
        yield running


def health(peer: Peer) -> dict:
    return json.loads(peer.on("er/health")[-1])


@pytest.mark.parametrize(("protocol", "qos"), [("5", 1), ("5", 0), ("3.1.1", 1), ("3.1.1", 0)])
def test_readings_become_scores_states_events_status_and_health(broker, tmp_path, protocol, qos) -> None:
    config = write_config(tmp_path, broker.port, protocol=protocol, qos=qos)
    payloads = [payload(i, fault=40 <= i < 43) for i in range(60)]
    with Peer(broker.port, "er/#") as peer:
        with DaemonThread(config) as running:
            running.subscribed()
            for text in payloads:
                peer.send(TOPIC, text, qos=qos)
            wait_for(lambda: len(peer.on("er/press/7/score")) == 60, "scores")
            wait_for(lambda: len(peer.on("er/press/7/event")) == 2, "events")
            wait_for(lambda: health(peer)["daemon"]["events"] == 2, "health")
            said = health(peer)
        wait_for(lambda: peer.on("er/status") == [b"online", b"offline"], "offline")
    scores = peer.on("er/press/7/score")
    assert scores == uninterrupted(config, TOPIC, payloads)
    last = json.loads(scores[45])
    assert last["time_ns"] == START_NS + 45 * STEP_NS
    assert last["n"] == 46
    assert set(last["expected"]) == {"vib", "temp"}
    states = [json.loads(s)["status"] for s in peer.on("er/press/7/state")]
    assert states == ["warming", "normal", "anomaly", "clearing", "normal"]
    opened, closed = (json.loads(e) for e in peer.on("er/press/7/event"))
    assert (opened["type"], closed["type"]) == ("open", "close")
    assert opened["id"] == closed["id"]
    assert opened["start_ns"] == START_NS + 40 * STEP_NS
    assert closed["end_ns"] > closed["peak_ns"] >= closed["start_ns"]
    assert next(iter(opened["shares"])) == "vib"
    assert said["status"] == "running"
    assert said["daemon"]["messages"] == said["daemon"]["verdicts"] == 60
    assert said["daemon"]["errors"] == said["broker"]["callback_errors"] == 0
    with Peer(broker.port, "er/#") as late:
        wait_for(lambda: len(late.messages) >= 3, "retained messages")
        time.sleep(0.2)
        assert sorted(topic for topic, _, retained in late.messages if retained) == [
            "er/health", "er/press/7/state", "er/status",
        ]  # fmt: skip


def test_a_restart_continues_bit_for_bit(broker, tmp_path) -> None:
    config = write_config(tmp_path, broker.port)
    payloads = [payload(i, fault=i in (30, 71)) for i in range(90)]
    with Peer(broker.port, "er/press/#") as peer:
        for part in (payloads[:31], payloads[31:60], payloads[60:]):
            total = len(peer.on("er/press/7/score")) + len(part)
            with DaemonThread(config) as running:
                running.subscribed()
                for text in part:
                    peer.send(TOPIC, text)
                wait_for(lambda n=total: len(peer.on("er/press/7/score")) == n, "scores")
    assert peer.on("er/press/7/score") == uninterrupted(config, TOPIC, payloads)
    events = [json.loads(e) for e in peer.on("er/press/7/event")]
    assert [e["type"] for e in events] == ["open", "close"] * 2
    assert events[0]["id"] == events[1]["id"]  # opened before the first restart, closed after it


def test_bad_payloads_are_counted_and_said_once_and_nothing_dies(broker, tmp_path) -> None:
    config = write_config(tmp_path, broker.port, topic="plant/{machine}/+")
    with Peer(broker.port, "er/#") as peer, DaemonThread(config) as running:
        running.subscribed()
        for i in range(50):
            peer.post("plant/7/all", payload(i))
            peer.post("plant/7/all", ["", "ON", "{", "[[[[", '{"ts": 1}', "\x1b[31m", '{"vib": true}'][i % 7])
        peer.send("plant/7/all", "x" * 100_000)
        peer.send("plant/7/all", payload(50))
        wait_for(lambda: len(peer.on("er/press/7/score")) == 51, "scores")
        wait_for(
            lambda: health(peer)["store"]["unacknowledged"] == 0 and health(peer)["daemon"]["refused"] > 49,
            "",
        )
        assert health(peer)["daemon"]["refused"] == 51
        # Once for each kind, however often it came.
        assert 4 <= running.log_text.getvalue().count("payload refused") <= 7
        assert "topic 'plant/7/all'" in running.log_text.getvalue()
        assert "\x1b" not in running.log_text.getvalue()


def test_retained_messages_are_ignored_unless_asked_for(broker, tmp_path) -> None:
    with Peer(broker.port, "er/#") as peer:
        peer.send("plant/7/all", payload(0), retain=True)
        for text, expected in (("", 0), ("retained = true", 1)):
            folder = tmp_path / f"r{expected}"
            folder.mkdir()
            config = write_config(folder, broker.port, stream=text, protocol="3.1.1")
            with DaemonThread(config) as running:
                counters = running.daemon.counters
                wait_for(lambda c=counters: c.messages == 1, "the retained message")
                wait_for(lambda c=counters: c.verdicts + c.retained_ignored == 1, "its end")
            assert counters.verdicts == expected


def test_broker_killed_and_back_data_and_retained_topics_come_again(broker, tmp_path) -> None:
    config = write_config(tmp_path, broker.port)
    with Peer(broker.port, "er/#") as peer, DaemonThread(config) as running:
        running.subscribed()
        for i in range(10):
            peer.send(TOPIC, payload(i))
        wait_for(lambda: len(peer.on("er/press/7/score")) == 10, "scores")
        broker.kill()
        broker.start()
        # This broker has kept nothing: neither session nor retained messages.
        with Peer(broker.port, "er/#") as second:
            wait_for(lambda: second.on("er/status")[-1:] == [b"online"], "online")
            running.subscribed()
            wait_for(lambda: second.on("er/press/7/state"), "the state, published again")
            for i in range(10, 20):
                second.send(TOPIC, payload(i))
            wait_for(lambda: len(second.on("er/press/7/score")) == 10, "scores after the broker is back")
            assert health(second)["broker"]["connects"] == 2


def test_the_daemon_starts_without_a_broker_and_connects_when_it_comes(tmp_path) -> None:
    port = free_port()
    config = write_config(tmp_path, port)
    with DaemonThread(config) as running:
        wait_for(lambda: "trying again in" in running.log_text.getvalue(), "a line about the broker")
        assert f"broker 127.0.0.1:{port}: cannot connect (Connection refused)" in running.log_text.getvalue()
        broker = Mosquitto(tmp_path)
        broker.port = port
        with broker, Peer(port, "er/#") as peer:
            running.subscribed()
            peer.send(TOPIC, payload(0))
            wait_for(lambda: peer.on("er/press/7/score"), "a score")


def test_events_wait_for_the_broker_and_come_in_order(broker, tmp_path) -> None:
    """What was committed while the broker was away is in the outbox, over a restart of the daemon too."""
    config = write_config(tmp_path, broker.port, commit_every="20ms")
    with DaemonThread(config) as running, Peer(broker.port, "er/status") as peer:
        wait_for(lambda: peer.on("er/status") == [b"online"], "online")
        store = running.daemon.running.store
        engine = running.daemon.running.pipeline.engine
        assert store.waiting() == 0
        broker.kill()
        wait_for(lambda: not running.daemon.running.link.connected, "the loss")
        # Readings that came in before the loss; fed by hand because there is no broker to bring them.
        for i in range(60):
            for message in running.daemon.running.pipeline.take(
                _delivery(i), running.daemon.counters, running.daemon._log
            ):
                running.daemon._intake.emit(engine.feed([message], START_NS * 2))
        wait_for(lambda: store.waiting() == 2, "the outbox")
    with DaemonThread(config):
        broker.start()
        with Peer(broker.port, "er/press/7/event") as second:
            wait_for(lambda: len(second.messages) == 2, "the events")
            assert [json.loads(e)["type"] for e in second.on("er/press/7/event")] == ["open", "close"]


def _delivery(index: int):
    from edge_rnn.service.mqtt import Delivery

    return Delivery(TOPIC, payload(index, fault=index == 40).encode(), 0, False, START_NS * 2, 0, 1)


def test_password_from_a_file_and_tls_from_the_configuration(tmp_path) -> None:
    certificates(tmp_path)
    accounts = tmp_path / "accounts"
    subprocess.run(
        [need.program("mosquitto_passwd"), "-b", "-c", str(accounts), "pump", "canary"], check=True
    )
    (tmp_path / "secret").write_text("canary\n")
    (tmp_path / "secret").chmod(0o600)
    listener = [
        f"cafile {tmp_path}/ca.pem",
        f"certfile {tmp_path}/server.pem",
        f"keyfile {tmp_path}/server.key",
    ]
    with Mosquitto(
        tmp_path, listener=listener, anonymous=False, extra=[f"password_file {accounts}"]
    ) as broker:
        lines = 'username = "pump"\npassword_file = "secret"\n[mqtt.tls]\nca = "ca.pem"\n'
        config = write_config(tmp_path, broker.port, host="localhost", mqtt=lines)
        with DaemonThread(config) as running:
            wait_for(lambda: running.daemon.running.link.connected, "the connection")
            report = running.daemon.health()
            assert json.loads(report)["broker"]["verified"] is True
        assert b"canary" not in report
        assert "canary" not in running.log_text.getvalue()
        (tmp_path / "secret").write_text("wrong\n")
        with DaemonThread(config) as refused:
            wait_for(lambda: refused.error, "the refusal")
        assert isinstance(refused.error, CredentialsError)


def test_a_model_that_does_not_fit_is_an_error_before_anything_is_subscribed(broker, tmp_path) -> None:
    config = write_config(tmp_path, broker.port)
    text = config.read_text()
    config.write_text(text.replace('{ name = "temp" }', '{ name = "tmep" }'))
    with DaemonThread(config) as running:
        pass
    assert isinstance(running.error, ConfigError)
    assert 'did you mean "temp"' in str(running.error)
    (tmp_path / "press.safetensors").write_bytes(b"junk")
    config.write_text(text)
    with DaemonThread(config) as running:
        pass
    assert isinstance(running.error, ModelFileError)
    assert "er-daemon" not in broker.log


def test_a_state_of_another_model_is_set_aside_and_the_stream_starts_cold(broker, tmp_path) -> None:
    config = write_config(tmp_path, broker.port)
    with Peer(broker.port, "er/#") as peer:
        with DaemonThread(config) as running:
            running.subscribed()
            for i in range(10):
                peer.send(TOPIC, payload(i))
            wait_for(lambda: len(peer.on("er/press/7/score")) == 10, "scores")
        (tmp_path / "press.safetensors").unlink()
        config = write_config(tmp_path, broker.port, model=gru_model(seed=2))
        with DaemonThread(config) as running:
            peer.send(TOPIC, payload(10))
            wait_for(lambda: len(peer.on("er/press/7/score")) == 11, "a score")
            assert json.loads(peer.on("er/press/7/score")[-1])["n"] == 1
            assert "starts cold" in running.log_text.getvalue()


def test_readings_without_a_time_of_their_own_get_the_arrival_time(broker, tmp_path) -> None:
    config = write_config(tmp_path, broker.port)
    config.write_text(config.read_text().replace('time = { path = "ts", unit = "ns" }\n', ""))
    with Peer(broker.port, "er/#") as peer, DaemonThread(config) as running:
        running.subscribed()
        start = time.time_ns()
        for i in range(30):
            peer.post(TOPIC, json.dumps(reading(i)))
        wait_for(lambda: len(peer.on("er/press/7/score")) == 30, "scores")
        times = [json.loads(s)["time_ns"] for s in peer.on("er/press/7/score")]
        assert all(a < b for a, b in pairwise(times))
        assert start <= times[0] <= times[-1] <= time.time_ns()
