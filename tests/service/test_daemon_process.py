"""`edge-rnn run` as a process: signals, crashes, reloads, exit codes. Real mosquitto, real kill -9."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import subprocess

import pytest

from tests.support import need
from tests.support.daemon import DaemonProcess, payload, uninterrupted, write_config
from tests.support.mosquitto import Mosquitto
from tests.support.mqtt_peer import Peer, wait_for

TOPIC = "plant/7/all"


@pytest.fixture
def broker(tmp_path):
    with Mosquitto(tmp_path) as running:
        yield running


def test_sigterm_commits_acknowledges_says_offline_and_exits_zero(broker, tmp_path) -> None:
    config = write_config(tmp_path, broker.port, commit_every="1h")
    with Peer(broker.port, "er/#") as peer, DaemonProcess(config) as daemon:
        wait_for(lambda: peer.on("er/status") == [b"online"], "online", 120)
        for i in range(20):
            peer.send(TOPIC, payload(i))
        wait_for(lambda: len(peer.on("er/press/7/score")) == 20, "scores")
        code, seconds = daemon.end()
        assert code == 0, daemon.log
        # The promise is 2 s; the interpreter's own end is in this figure, and other work on the machine.
        assert seconds < 10
        wait_for(lambda: peer.on("er/status") == [b"online", b"offline"], "offline")
        assert "stopped in order" in daemon.log
        assert "Traceback" not in daemon.log
    with sqlite3.connect(tmp_path / "state.db") as database:
        assert database.execute("SELECT stream FROM states").fetchall() == [("press/7",)]
    database.close()
    # Acknowledged: the broker has nothing left for this client.
    with Peer(broker.port, "er/#") as peer, DaemonProcess(config) as daemon:
        daemon.wait_log("session_present=True")
        peer.send(TOPIC, payload(20))
        wait_for(lambda: peer.on("er/press/7/score"), "a score")
        assert json.loads(peer.on("er/press/7/score")[0])["n"] == 21
        assert daemon.end(signal.SIGINT)[0] == 0


def test_kill_9_loses_nothing_and_steps_nothing_twice(broker, tmp_path) -> None:
    """QoS 1, MQTT 5: killed again and again while readings come; scores as if nothing had happened."""
    config = write_config(tmp_path, broker.port, commit_every="50ms")
    payloads = [payload(i, fault=i in (150, 151)) for i in range(400)]
    source = random.Random(9)
    with Peer(broker.port, "er/press/#") as peer, Peer(broker.port, "er/status") as watcher:
        sent = 0
        for _ in range(3):
            with DaemonProcess(config) as daemon:
                online = len(watcher.on("er/status"))
                wait_for(lambda n=online: len(watcher.on("er/status")) > n, "online", 120)
                stop = sent + source.randint(60, 110)
                while sent < stop:
                    peer.send(TOPIC, payloads[sent])
                    sent += 1
                daemon.end(signal.SIGKILL)
            # The will; and more readings while nobody is there.
            wait_for(lambda: watcher.on("er/status")[-1] == b"offline", "the will")
            for _ in range(10):
                peer.send(TOPIC, payloads[sent])
                sent += 1
        with DaemonProcess(config) as daemon:
            while sent < len(payloads):
                peer.send(TOPIC, payloads[sent])
                sent += 1
            expected = uninterrupted(config, TOPIC, payloads)
            wait_for(lambda: peer.on("er/press/7/score")[-1:] == expected[-1:], "the last score", 120)
            assert daemon.end()[0] == 0
    scores = peer.on("er/press/7/score")
    # A score may be published twice (before and after a crash), never differently.
    assert set(scores) == set(expected)
    assert [s for i, s in enumerate(scores) if s not in scores[:i]] == expected
    events = [json.loads(e) for e in peer.on("er/press/7/event")]
    assert {(e["type"], e["id"]) for e in events} == {("open", events[0]["id"]), ("close", events[0]["id"])}


def test_sighup_takes_a_valid_configuration_and_keeps_running_on_an_invalid_one(broker, tmp_path) -> None:
    config = write_config(tmp_path, broker.port)
    with Peer(broker.port, "er/#", "neu/#") as peer, DaemonProcess(config) as daemon:
        wait_for(lambda: peer.on("er/status") == [b"online"], "online", 120)
        for i in range(10):
            peer.send(TOPIC, payload(i))
        wait_for(lambda: len(peer.on("er/press/7/score")) == 10, "scores")
        good = config.read_text()

        config.write_text(good.replace('name = "vib"', 'name = "vbi"').replace("qos = 1", "qos = 7"))
        daemon.send(signal.SIGHUP)
        daemon.wait_log("refused, the running configuration stays")
        assert "qos" in daemon.log
        peer.send(TOPIC, payload(10))
        wait_for(lambda: len(peer.on("er/press/7/score")) == 11, "a score under the old configuration")

        write_config(tmp_path, broker.port, topic="hall/{machine}/all")
        daemon.send(signal.SIGHUP)
        daemon.wait_log("the new configuration is in use")
        peer.send(TOPIC, payload(11))
        wait_for(
            lambda: peer.send("hall/7/all", payload(11)) or len(peer.on("er/press/7/score")) >= 12,
            "new topic",
        )
        assert json.loads(peer.on("er/press/7/score")[11])["n"] == 12  # the state went on

        write_config(tmp_path, broker.port, base="neu")
        daemon.send(signal.SIGHUP)
        daemon.wait_log("the new configuration is in use", 2)
        wait_for(lambda: peer.on("neu/status") == [b"online"], "online under the new base")
        # Offline, then nothing at all: what is retained below the old base goes with it.
        wait_for(lambda: peer.on("er/status")[-2:] == [b"offline", b""], "the old base is left")
        peer.send(TOPIC, payload(12))
        wait_for(lambda: peer.on("neu/press/7/score"), "a score under the new base")
        assert json.loads(peer.on("neu/press/7/score")[0])["n"] == 13
        assert daemon.end()[0] == 0
        assert "Traceback" not in daemon.log


def test_exit_codes_name_what_only_a_human_can_mend(tmp_path) -> None:
    accounts = tmp_path / "accounts"
    subprocess.run([need.program("mosquitto_passwd"), "-b", "-c", str(accounts), "a", "b"], check=True)
    with Mosquitto(tmp_path, anonymous=False, extra=[f"password_file {accounts}"]) as broker:
        config = write_config(tmp_path, broker.port)
        with DaemonProcess(config) as daemon:
            assert daemon.process.wait(120) == 77
            assert "refused the credentials" in daemon.log
        good = config.read_text()
        for text in (good.replace("[store]", "[stoer]"), good.replace('"temp"', '"tmep"'), "junk"):
            config.write_text(text)
            with DaemonProcess(config) as daemon:
                assert daemon.process.wait(120) == 78
        assert "Traceback" not in daemon.log
