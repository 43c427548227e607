"""Home Assistant, commands, sinks, records and reloads with a real broker, as users have them."""

from __future__ import annotations

import gzip
import json
import math
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from edge_rnn.detect.detector import Detector
from edge_rnn.files.load import load
from edge_rnn.files.model_file import save
from edge_rnn.files.readings import read_table
from tests.support.daemon import (
    START_NS,
    DaemonProcess,
    DaemonThread,
    gru_model,
    payload,
    uninterrupted,
    write_config,
)
from tests.support.mosquitto import Mosquitto
from tests.support.mqtt_peer import Peer, wait_for
from tests.support.payloads import metric, sparkplug

TOPIC = "plant/7/all"
CONFIG = "homeassistant/device/er_press/config"


@pytest.fixture
def broker(tmp_path):
    with Mosquitto(tmp_path) as running:
        yield running


def say(peer: Peer, *numbers: int, fault: bool = False) -> None:
    """Send readings and wait until they are scored."""
    for number in numbers:
        peer.send(TOPIC, payload(number, fault=fault))
    last = START_NS + numbers[-1] * 10**9
    wait_for(
        lambda: any(json.loads(s)["time_ns"] == last for s in peer.on("er/press/7/score")[-3:]),
        f"score {last}",
    )


def test_home_assistant_is_told_again_on_its_birth_and_devices_go_with_the_table(broker, tmp_path) -> None:
    config = write_config(tmp_path, broker.port, stream="[homeassistant]")
    with Peer(broker.port, "er/#", "homeassistant/#") as peer, DaemonThread(config) as running:
        running.subscribed()
        say(peer, 0)
        found = json.loads(wait_for(lambda: peer.on(CONFIG), "the announcement")[-1])
        assert set(found["cmps"]) >= {name for name in found["cmps"] if name.startswith("press_7")}
        assert len(found["cmps"]) == 3
        assert found["availability"] == [{"topic": "er/status"}]
        count = len(peer.on(CONFIG))
        peer.send("homeassistant/status", "online")
        wait_for(lambda: len(peer.on(CONFIG)) > count, "the announcement on birth")
        with Peer(broker.port, CONFIG) as late:
            wait_for(lambda: late.on(CONFIG), "the retained announcement")
        write_config(tmp_path, broker.port)
        running.daemon.reload()
        wait_for(lambda: peer.on(CONFIG)[-1] == b"", "the removal")
    with Peer(broker.port, CONFIG) as late:
        time.sleep(0.3)
        assert late.on(CONFIG) == []


def test_a_device_whose_table_went_while_the_daemon_was_down_is_removed(broker, tmp_path) -> None:
    config = write_config(tmp_path, broker.port, stream="[homeassistant]")
    with Peer(broker.port, "er/#", "homeassistant/#") as peer:
        with DaemonThread(config) as running:
            running.subscribed()
            say(peer, 0)
            wait_for(lambda: peer.on(CONFIG), "the announcement")
        with DaemonThread(write_config(tmp_path, broker.port)):
            wait_for(lambda: peer.on(CONFIG)[-1] == b"", "the removal")


ACL = """\
user operator
topic readwrite #
user guest
topic readwrite er/#
topic deny er/command
topic readwrite plant/#
"""


def test_commands_are_for_those_the_broker_lets_write_there(tmp_path) -> None:
    acl = tmp_path / "acl"
    acl.write_text(ACL + "user daemon\ntopic readwrite #\n")
    with Mosquitto(tmp_path, extra=[f"acl_file {acl}"]) as broker:
        config = write_config(
            tmp_path, broker.port, mqtt='username = "daemon"\n', stream="[commands]\n", commit_every="1h"
        )
        with (
            Peer(broker.port, "er/#", username="operator", password=None) as boss,
            Peer(broker.port, "er/#", username="guest", password=None) as guest,
            DaemonThread(config) as running,
        ):
            running.subscribed()
            replies: list[dict] = []

            def ask(**command) -> dict:
                boss.send("er/command", json.dumps(command))
                wait_for(lambda: len(boss.on("er/command/reply")) > len(replies), f"the reply to {command}")
                replies.append(json.loads(boss.on("er/command/reply")[-1]))
                return replies[-1]

            say(boss, *range(10))
            generation = running.daemon.running.store.generation
            assert ask(command="commit", id="1")["id"] == "1"
            assert replies[-1]["ok"]
            assert running.daemon.running.store.generation > generation
            assert not ask(command="explode")["ok"]
            guest.send("er/command", json.dumps({"command": "commit", "id": "guest"}))

            assert ask(command="mute", stream="press/7", **{"for": "1h"})["ok"]
            say(boss, 10, 11, fault=True)
            state = json.loads(boss.on("er/press/7/state")[-1])
            assert state["alarm"]
            assert boss.on("er/press/7/event") == []
            assert ask(command="unmute", stream="press/7")["ok"]
            (opened,) = wait_for(lambda: boss.on("er/press/7/event"), "the event after the mute")
            assert json.loads(opened)["type"] == "open"

            assert ask(command="acknowledge", event=json.loads(opened)["id"])["ok"]
            assert ask(command="reset", stream="press/7")["ok"]
            wait_for(lambda: len(boss.on("er/press/7/event")) == 2, "the close of a reset stream")
            assert json.loads(boss.on("er/press/7/event")[-1])["type"] == "close"
            say(boss, 20)
            assert json.loads(boss.on("er/press/7/score")[-1])["n"] == 1
            assert ask(command="reload")["ok"]
            wait_for(lambda: "the new configuration is in use" in running.log_text.getvalue(), "the reload")
            # A retained command is not carried out, now or at the next connection.
            boss.send("er/command", json.dumps({"command": "commit", "id": "kept"}), retain=True)
            assert all(reply["id"] not in ("guest", "kept") for reply in replies)
            wait_for(
                lambda: len(guest.on("er/command/reply")) == len(boss.on("er/command/reply")), "both to hear"
            )
            assert len(boss.on("er/command/reply")) <= len(replies) + 1


def test_without_the_table_there_is_no_command_topic(broker, tmp_path) -> None:
    config = write_config(tmp_path, broker.port)
    with Peer(broker.port, "er/#") as peer, DaemonThread(config) as running:
        running.subscribed()
        peer.send("er/command", '{"command": "commit"}')
        say(peer, 0)
        assert peer.on("er/command/reply") == []


def rows(folder: Path) -> list[dict]:
    found = []
    for path in sorted(folder.rglob("*.*")):
        text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        found += [json.loads(line) for line in text.splitlines()]
    return found


def test_events_go_to_sinks_in_the_shape_that_was_asked_for(broker, tmp_path) -> None:
    out = tmp_path / "events"
    code = f"import sys; open({str(out)!r}, 'a').write(sys.stdin.read() + chr(10))"
    sink = f'[[sink]]\nname = "file"\ncommand = {json.dumps([sys.executable, "-c", code])}\n'
    config = write_config(tmp_path, broker.port, stream=sink)
    config.write_text(config.read_text().replace("[output]", '[output]\nevents = "before-after"'))
    with Peer(broker.port, "er/#") as peer, DaemonThread(config) as running:
        running.subscribed()
        say(peer, *range(10))
        say(peer, 10, 11, fault=True)
        say(peer, *range(12, 20))
        wait_for(lambda: out.exists() and len(out.read_text().splitlines()) == 2, "two calls of the command")
        wait_for(lambda: len(peer.on("er/press/7/event")) == 2, "two messages")
        wait_for(
            lambda: running.daemon.running.outlets.health()["sinks"]["file"]["delivered"] == 2, "the counter"
        )
    assert [line.encode() for line in out.read_text().splitlines()] == peer.on("er/press/7/event")
    first, last = (json.loads(e) for e in peer.on("er/press/7/event"))
    assert (first["type"], first["before"], first["after"]["end_time"]) == ("new", None, None)
    assert (last["type"], last["before"]) == ("end", first["after"])
    assert last["after"]["end_time"] > last["after"]["start_time"]


def test_the_record_has_every_reading_once_over_kill_9(broker, tmp_path) -> None:
    config = write_config(tmp_path, broker.port, stream="[record]\nmax_file_mb = 1", commit_every="300ms")
    payloads = [payload(i, fault=i in (30, 71)) for i in range(200)]
    with Peer(broker.port, "er/press/#") as peer:
        for part, how in ((payloads[:120], signal.SIGKILL), (payloads[120:], signal.SIGTERM)):
            with DaemonProcess(config) as running:
                running.wait_log("connected to")
                if how is signal.SIGKILL:
                    time.sleep(0.5)
                for text in part:
                    peer.send(TOPIC, text)
                wanted = START_NS + (payloads.index(part[-1])) * 10**9
                wait_for(
                    lambda w=wanted: any(json.loads(s)["time_ns"] == w for s in peer.on("er/press/7/score")),
                    "the last score",
                )
                running.end(how)
    found = rows(tmp_path / "record")
    assert [row["time_ns"] for row in found] == [START_NS + i * 10**9 for i in range(200)]
    scores = [json.loads(s) for s in uninterrupted(config, TOPIC, payloads)]
    assert [row["verdict"]["score"] for row in found] == [s["score"] for s in scores]
    assert [row["verdict"]["status"] for row in found] == [s["status"] for s in scores]
    assert [row["vib"] for row in found] == [json.loads(p)["vib"] for p in payloads]
    # And read again as a table, the detector gives the same scores.
    again = []
    detector = Detector(load(tmp_path / "press.safetensors"))
    for path in sorted((tmp_path / "record").rglob("*.ndjson")):
        table = read_table(path)
        again += detector.run(table.times_ns, table.values)["score"].tolist()
    assert [None if math.isnan(score) else score for score in again] == [
        row["verdict"]["score"] for row in found
    ]


def test_a_new_model_file_is_taken_without_losing_a_reading(broker, tmp_path) -> None:
    config = write_config(tmp_path, broker.port, stream='[reload]\nwatch = "1s"')
    file = tmp_path / "press.safetensors"
    with Peer(broker.port, "er/#") as peer, DaemonThread(config) as running:
        running.subscribed()
        sent = 0

        def until(text: str, count: int) -> None:
            nonlocal sent
            deadline = time.monotonic() + 60
            while running.log_text.getvalue().count(text) < count:
                assert time.monotonic() < deadline, running.log_text.getvalue()
                peer.send(TOPIC, payload(sent))
                sent += 1
                time.sleep(0.02)

        for _ in range(10):
            peer.send(TOPIC, payload(sent))
            sent += 1
        # The same network, written anew: streams go on.
        model = gru_model()
        save(model, file.with_suffix(".new"))
        os.utime(file.with_suffix(".new"), ns=(1, 1))
        file.with_suffix(".new").replace(file)
        until("the new configuration is in use", 1)
        # A half file is refused, and the running one stays.
        whole = file.read_bytes()
        file.write_bytes(whole[:-100])
        until("refused, the running configuration stays", 1)
        # Another network: its streams start cold, and that is said.
        save(gru_model(seed=2), file)
        until("the new configuration is in use", 2)
        until("starts cold", 1)
        for _ in range(10):
            peer.send(TOPIC, payload(sent))
            sent += 1
        wait_for(lambda: len(peer.on("er/press/7/score")) == sent, f"{sent} scores")
    scores = [json.loads(s) for s in peer.on("er/press/7/score")]
    assert [s["time_ns"] for s in scores] == [START_NS + i * 10**9 for i in range(sent)]
    steps = [s["n"] for s in scores]
    cold = steps.index(1, 1)
    assert steps[:cold] == list(range(1, cold + 1))
    assert steps[cold:] == list(range(1, sent - cold + 1))


def test_another_base_leaves_nothing_retained_below_the_old_one(broker, tmp_path) -> None:
    config = write_config(tmp_path, broker.port)
    with Peer(broker.port, "er/#", "other/#", "third/#") as peer:
        with DaemonThread(config) as running:
            running.subscribed()
            say(peer, *range(8))
            write_config(tmp_path, broker.port, base="other")
            running.daemon.reload()
            wait_for(lambda: peer.on("other/status"), "the new base")
            peer.send(TOPIC, payload(8))
            wait_for(lambda: peer.on("other/press/7/state"), "the state below the new base")
            wait_for(lambda: peer.on("er/health")[-1] == b"", "the removal")
        with DaemonThread(write_config(tmp_path, broker.port, base="third")) as running:
            running.subscribed()
            wait_for(lambda: peer.on("other/health")[-1] == b"", "the removal after a restart")
    with Peer(broker.port, "er/#", "other/#", "third/#") as late:
        wait_for(lambda: late.on("third/status"), "what is retained")
        time.sleep(0.3)
        assert {topic.split("/")[0] for topic, _, _ in late.messages} == {"third"}


def test_two_models_and_two_senders_in_one_daemon(broker, tmp_path) -> None:
    save(gru_model(seed=5), tmp_path / "second.safetensors")
    second = """
[[stream]]
name = "oven"
model = "second.safetensors"
preset = "tasmota"
channels = [{ name = "vib", path = "A.V" }, { name = "temp", path = "A.T" }]
"""
    config = write_config(tmp_path, broker.port, stream=second)
    with Peer(broker.port, "er/#") as peer, DaemonThread(config) as running:
        running.subscribed()
        peer.send("tele/oven1/SENSOR", '{"Time":"2026-01-01T00:00:00","A":{"V":1.0,"T":20.5}}')
        peer.send("tele/oven1/SENSOR", '{"Time":"2026-01-01T00:00:10","Switch1":"OFF"}')
        say(peer, 0, 1)
        wait_for(lambda: len(peer.on("er/oven/oven1/score")) == 1, "a score of the second model")
        health = json.loads(running.daemon.health())
    assert health["models"]["press"]["weights"] != health["models"]["oven"]["weights"]
    assert health["daemon"]["refused"] == 0


def test_a_sparkplug_node_is_asked_for_its_birth_and_then_read(broker, tmp_path) -> None:
    plug = """
[[stream]]
name = "plug"
model = "press.safetensors"
preset = "sparkplug"
channels = [{ name = "vib", path = "Vib/RMS" }, { name = "temp", path = "Temp" }]
"""
    config = write_config(tmp_path, broker.port, stream=plug)
    with Peer(broker.port, "er/plug/#", "spBv1.0/+/NCMD/#") as peer, DaemonThread(config) as running:
        running.subscribed()
        data = [
            sparkplug(metric(1.0, alias=1), metric(20.0, alias=2), seq=i, time_ms=10**12 + i)
            for i in range(9)
        ]
        peer.send("spBv1.0/plant/DDATA/edge/pump", data[7], qos=0)
        request = wait_for(lambda: peer.on("spBv1.0/plant/NCMD/edge"), "the request for a birth")
        assert b"Node Control/Rebirth" in request[0]
        peer.send("spBv1.0/plant/NBIRTH/edge", sparkplug(metric(0, name="bdSeq", datatype=8)), qos=0)
        births = [
            metric(1.0, name="Vib/RMS", alias=1, datatype=10),
            metric(20.0, name="Temp", alias=2, datatype=10),
        ]
        peer.send("spBv1.0/plant/DBIRTH/edge/pump", sparkplug(*births, seq=1, time_ms=10**12 + 1), qos=0)
        for i in range(2, 5):
            peer.send("spBv1.0/plant/DDATA/edge/pump", data[i], qos=0)
        scores = wait_for(
            lambda: (found := peer.on("er/plug/plant/edge/pump/score")) and len(found) == 4 and found,
            "four scores",
        )
        assert [json.loads(s)["time_ns"] for s in scores] == [(10**12 + i) * 10**6 for i in range(1, 5)]
        assert len(peer.on("spBv1.0/plant/NCMD/edge")) == 1


def test_sighup_at_any_moment_of_the_start_ends_nothing(broker, tmp_path) -> None:
    config = write_config(tmp_path, broker.port)
    with DaemonProcess(config) as running:
        status = Path(f"/proc/{running.process.pid}/status")

        def guarded() -> bool:
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
            return bool((int(fields["SigCgt"], 16) | int(fields["SigIgn"], 16)) & 1)

        wait_for(guarded, "SIGHUP to be guarded against")
        while "models loaded" not in running.log:
            assert running.process.poll() is None, running.log
            running.send(signal.SIGHUP)
            time.sleep(0.05)
        running.wait_log("connected to")
        code, _ = running.end()
        assert code == 0
