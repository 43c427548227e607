"""Reading and writing in batches is paho, only faster: held against the stock client, byte for byte."""

from __future__ import annotations

import io
import os
import random
import ssl
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge_rnn.service import mqtt, mqtt_batch
from edge_rnn.service.delivery import Delivery
from edge_rnn.service.mqtt_batch import BatchClient, probe
from tests.service.test_mqtt_security import certificates
from tests.support import need, torture
from tests.support.link import BOTH, make, run
from tests.support.mosquitto import Mosquitto
from tests.support.mqtt_peer import Peer

MUTANTS = 10_000


class Wire:
    """A socket whose incoming bytes are given, cut as they are; keeps what is sent."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = deque(piece for piece in pieces if piece)
        self.sent = b""

    def recv(self, size: int) -> bytes:
        if not self.pieces:
            raise BlockingIOError
        piece = self.pieces.popleft()
        if len(piece) > size:
            self.pieces.appendleft(piece[size:])
        return piece[:size]

    def send(self, data: bytes) -> int:
        self.sent += data
        return len(data)

    def close(self) -> None:
        self.pieces.clear()


FRESH = {
    "command": 0, "have_remaining": 0, "remaining_count": [], "remaining_mult": 1, "remaining_length": 0,
    "to_process": 0, "pos": 0,
}  # fmt: skip


class Side:
    """A client of one kind, used again for every stream of bytes."""

    def __init__(self, kind: type, five: bool) -> None:
        self.client: Any = kind(
            CallbackAPIVersion.VERSION2,
            client_id="x",
            protocol=MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311,
            manual_ack=True,
        )
        self.seen: list[tuple] = []
        self.client.on_message = self._one
        if kind is BatchClient:
            self.client.batched = self._many

    def _one(self, _client: object, _data: object, m: Any) -> None:
        try:
            topic = m.topic
        except UnicodeDecodeError:
            topic = ""
        self.seen.append((topic, bytes(m.payload), m.qos, bool(m.retain), m.mid, bool(m.dup)))

    def _many(self, messages: list[Delivery]) -> None:
        self.seen += [(m.topic, m.payload, m.qos, m.retained, m.mid, m.dup) for m in messages]

    def run(self, pieces: list[bytes]) -> tuple[list[tuple], object, bytes]:
        """Messages in order, how it ended, what was written."""
        client, wire, self.seen = self.client, Wire(pieces), []
        client._in_packet = {**FRESH, "remaining_count": [], "packet": bytearray()}
        client._in_messages.clear()
        client._out_packet.clear()
        client._state = (
            2 if not hasattr(paho, "_ConnectionState") else paho._ConnectionState.MQTT_CS_CONNECTED
        )
        if isinstance(client, BatchClient):
            client._data, client._at, client._rest, client._skip = b"", 0, b"", 0
        client._sock = wire
        end: object = 0
        try:
            more = True
            while more and client._sock is not None:
                # Once more at the end: stock paho may have all bytes of a packet and look at them only then.
                more = bool(wire.pieces)
                rc = client.loop_read()
                # Stock paho may say that there is no connection where it has just been ended in order.
                if rc > 0 and rc != paho.MQTT_ERR_NO_CONN:
                    end = int(rc)
                    break
        except Exception as error:  # noqa: BLE001 - the kind of it is compared
            end = type(error).__name__
        finally:
            client._sock = None
        return self.seen, end, wire.sent


def length(size: int) -> bytes:
    found = bytearray()
    while True:
        found.append(size & 127 | (128 if size > 127 else 0))
        size >>= 7
        if not size:
            return bytes(found)


def publish(rng: random.Random, five: bool) -> bytes:
    qos = rng.choice([0, 0, 0, 1, 1, 2])
    topic = rng.choice([b"a", b"plant/7/all", b"x" * 200, b"\xff\xfe", "ü/µ".encode(), b"", b"a\0b"])
    body = len(topic).to_bytes(2, "big") + topic
    if qos:
        body += rng.randrange(65536).to_bytes(2, "big")
    if five:
        body += properties(rng)
    body += rng.randbytes(rng.choice([0, 1, 5, 80, 130, 300, 20_000]))
    header = 0x30 | qos << 1 | rng.randrange(2) | (rng.randrange(2) << 3)
    return bytes([header]) + length(len(body)) + body


def properties(rng: random.Random) -> bytes:
    found = Properties(PacketTypes.PUBLISH)
    if rng.random() < 0.3:
        found.MessageExpiryInterval = 7
    if rng.random() < 0.2:
        found.UserProperty = ("k", "v" * rng.choice([1, 200]))
    if rng.random() < 0.1:
        found.ContentType = "json"
    return bytes(found.pack())


def other(rng: random.Random) -> bytes:
    """Packets that paho alone deals with."""
    kinds = ["d000", "40020007", "62020007", "9003000100", "b0020001", "e000"]
    return bytes.fromhex(rng.choice(kinds))


def stream(rng: random.Random, five: bool) -> bytes:
    return b"".join(
        publish(rng, five) if rng.random() < 0.8 else other(rng) for _ in range(rng.randrange(1, 7))
    )


def mutated(rng: random.Random, data: bytes) -> bytes:
    found = bytearray(data)
    for _ in range(rng.choice([0, 1, 1, 2, 4])):
        # Most of what matters is near the beginning of a packet.
        at = min(rng.randrange(len(found)), rng.randrange(len(found)))
        match rng.randrange(5):
            case 0:
                found[at] = rng.randrange(256)
            case 1:
                found[at] ^= 1 << rng.randrange(8)
            case 2:
                del found[at : at + rng.randrange(1, 4)]
            case 3:
                found[at:at] = rng.choice([b"\xff", b"\x80", b"\0", b"\xff\xff\xff\xff\x7f", b"\x36\x80"])
            case _:
                del found[at + 1 :]
        if not found:
            return b"\x30"
    return bytes(found)


def cut(rng: random.Random, data: bytes) -> list[bytes]:
    most = rng.choice([1, 3, 50, 5000, len(data)]) if len(data) < 3000 else rng.choice([500, 5000, len(data)])
    pieces, at = [], 0
    while at < len(data):
        step = rng.randrange(1, most + 1)
        pieces.append(data[at : at + step])
        at += step
    return pieces


@pytest.mark.parametrize("five", [False, True])
def test_any_bytes_give_the_same_messages_answers_and_errors_as_stock_paho(five) -> None:
    rng = random.Random(f"batch {five}")
    stock, batch = Side(paho.Client, five), Side(BatchClient, five)
    ends: dict[object, int] = {}
    messages = 0
    for number in range(MUTANTS):
        data = stream(rng, five)
        if number % 4:
            data = mutated(rng, data)
        pieces = cut(rng, data)
        expected = stock.run(pieces)
        got = batch.run(pieces)
        if got[1] == 2 != expected[1]:
            # A packet of kind 0, which there is not: stock paho waits for its end before it says so, or, if
            # it comes in pieces, reads its middle as a packet.
            expected = stock.run([data])
            waiting = stock.client._in_packet
            assert expected[1] == 2 or (waiting["have_remaining"] and not waiting["command"])
            expected = (expected[0], 2, expected[2])
        assert got == expected, (number, data[:200])
        ends[expected[1]] = ends.get(expected[1], 0) + 1
        messages += len(expected[0])
    # Nothing here is compared in vain: messages come, and streams end in more than one way.
    assert messages > MUTANTS
    assert min(ends[0], ends[2]) > MUTANTS / 10


def test_whole_packets_are_taken_without_paho() -> None:
    side = Side(BatchClient, five=False)
    side.client.on_message = None
    rng = random.Random(5)
    packets = [
        p for p in (publish(rng, five=False) for _ in range(400)) if not p[0] & 4 and b"\0\0" not in p[:6]
    ]
    known = side.run(packets)[0]
    assert len(known) == len(packets) > 150


def test_a_payload_far_too_large_is_passed_over_and_delivered_cut_so_that_it_is_refused() -> None:
    for qos in (0, 1):
        side = Side(BatchClient, five=False)
        side.client.max_payload = 1000
        body = b"\0\1a" + (b"\1\2" if qos else b"") + b"z" * 5_000_000
        data = bytes([0x30 | qos << 1]) + length(len(body)) + body + b"\x30\x04\0\1bc"
        pieces = [data[i : i + 4001] for i in range(0, len(data), 4001)]
        seen, end, _ = side.run(pieces)
        assert end == 0
        assert [(t, len(p), q) for t, p, q, *_ in seen] == [("a", 1001, qos), ("b", 1, 0)]
        assert seen[0][4] == (0x102 if qos else 0)
        assert len(side.client._head) == 0
        assert side.client.oversized == 1


def test_arrival_times_of_a_batch_rise_and_none_is_given_twice() -> None:
    from edge_rnn.service.clock import Arrival, Clock

    side = Side(BatchClient, five=False)
    times: list[int] = []
    side.client.batched = lambda messages: times.extend(m.arrival_ns for m in messages)
    side.client.arrival = Arrival(Clock(lambda: 0.0, lambda: 1000))
    packet = b"\x30\x04\0\1bc"
    side.run([packet * 5 + b"\xd0\x00" + packet * 3, packet])
    assert len(times) == 9
    assert times == sorted(set(times))
    assert side.client.arrival.next_ns() > times[-1]


# ---- the probe


def test_this_paho_passes_the_probe() -> None:
    assert [probe(4), probe(5)] == ["", ""]


@pytest.mark.parametrize("name", ["_packet_read", "_packet_queue"])
def test_a_paho_without_a_name_is_not_used(name) -> None:
    other = type(
        "Other", (BatchClient,), {name: property(lambda _self: (_ for _ in ()).throw(AttributeError(name)))}
    )
    assert name in probe(4, other)


def test_a_paho_that_reads_or_writes_otherwise_is_not_used() -> None:
    class Deaf(BatchClient):
        def _packet_read(self) -> Any:
            return super()._packet_read() and 0

        def _hand_over(self, data: bytes, at: int) -> tuple[int, int]:
            return 0, len(data)

    class Mute(BatchClient):
        def _packet_queue(self, *arguments: Any, **options: Any) -> Any:
            return 0

    assert probe(4, Deaf)
    assert probe(5, Mute)


def test_a_failed_probe_means_stock_paho_and_is_said(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(mqtt, "probe", lambda _version: "this paho has no _packet_read")
    out = io.StringIO()
    with Mosquitto(tmp_path) as broker, Peer(broker.port) as peer:
        link = make(broker.port, "a", out=out)
        assert link.reader == "paho"
        run(link, lambda _: link.subscribed)
        peer.send("a", b"1")
        assert [m.payload for m in run(link, lambda m: m)] == [b"1"]
        assert link.publish_batch([("b", b"1"), ("b", b"2")]) == 2
        link.close([])
    assert "packets are read one by one, which is slower: this paho has no _packet_read" in out.getvalue()


# ---- with a real broker


@BOTH
@pytest.mark.parametrize("reader", ["auto", "batch", "paho"])
def test_batches_out_arrive_whole_in_order_and_acknowledgements_count(tmp_path, protocol, reader) -> None:
    sizes = [0, 1, 100, 127, 128, 16_000, 16_384, 60_000, 300_000, 5]
    with Mosquitto(tmp_path) as broker, Peer(broker.port, "out") as peer:
        link = make(broker.port, "in", protocol=protocol, reader=reader, receive_maximum=10)
        assert link.reader == ("paho" if reader == "paho" else "batch")
        run(link, lambda _: link.subscribed)
        assert link.publish_batch([("out", bytes([65 + i]) * n) for i, n in enumerate(sizes)]) == len(sizes)
        # Ten are on their way at most, so fifty need acknowledgements.
        for i in range(50):
            peer.post("in", str(i))
        got = run(link, lambda m: len(m) == 50 and len(peer.messages) == len(sizes))
        assert [int(m.payload) for m in got] == list(range(50))
        link.close([])
    assert [payload for _, payload, _ in peer.messages] == [bytes([65 + i]) * n for i, n in enumerate(sizes)]


@BOTH
def test_batches_over_tls(tmp_path, protocol) -> None:
    from edge_rnn.files.config_types import TlsConfig

    certificates(tmp_path)
    listener = [
        f"cafile {tmp_path}/ca.pem",
        f"certfile {tmp_path}/server.pem",
        f"keyfile {tmp_path}/server.key",
    ]
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    with (
        Mosquitto(tmp_path, listener=listener) as broker,
        Peer(broker.port, "out", host="localhost", tls=context) as peer,
    ):
        link = make(
            broker.port, "in", protocol=protocol, host="localhost", tls=TlsConfig(ca=tmp_path / "ca.pem")
        )
        assert link.reader == "batch"
        run(link, lambda _: link.subscribed)
        for i in range(300):
            peer.post("in", f"{i}".ljust(1000))
        got = run(link, lambda m: len(m) == 300)
        assert [int(m.payload) for m in got] == list(range(300))
        big = [("out", bytes([65 + i]) * 50_000) for i in range(10)]
        link.publish_batch(big)
        run(link, lambda _: len(peer.messages) == 10)
        link.close([])
    assert [(t, p) for t, p, _ in peer.messages] == big


# ---- other versions of paho


@pytest.mark.torture
@pytest.mark.parametrize("version", ["2.0.0", "2.1.0"])
def test_with_an_older_paho(tmp_path, version) -> None:
    """The tests of this file again, with the oldest supported paho in a folder of its own."""
    start = time.monotonic()
    folder = tmp_path / "paho"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder)]
    done = subprocess.run([*command, f"paho-mqtt=={version}"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"paho-mqtt {version} cannot be installed here: {done.stderr.strip()[-200:]}")
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    names = ["test_mqtt_batch.py", "test_mqtt.py"]
    tests = [str(Path(__file__).with_name(name)) for name in names]
    show = "import paho.mqtt; print(paho.mqtt.__version__)"
    found = subprocess.run(
        [sys.executable, "-c", show], env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == version
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", *tests],
        env=environment, cwd=need.ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert "passed" in done.stdout
    figure = f"{2 * MUTANTS:,} streams of packets like stock paho; {done.stdout.strip().splitlines()[-1]}"
    torture.record(
        f"reading in batches on paho {version}", "two test files", figure, time.monotonic() - start
    )


def test_the_name_of_the_module_under_test_is_the_one_in_use() -> None:
    assert mqtt.BatchClient is mqtt_batch.BatchClient
