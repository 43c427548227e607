"""Hostile bytes, faults inside callbacks, a paho that raises: nothing ends the loop."""

from __future__ import annotations

import contextlib
import io
import random
import socket
import threading
import time
from types import SimpleNamespace

import pytest
from paho.mqtt.enums import MQTTErrorCode

from edge_rnn.errors import CredentialsError
from edge_rnn.service.mqtt import MAX_UNSENT, Connection
from tests.support.link import BOTH, make, run
from tests.support.mosquitto import Mosquitto
from tests.support.mqtt_peer import Peer


@pytest.fixture
def broker(tmp_path):
    with Mosquitto(tmp_path) as running:
        yield running


class Hostile:
    """Accepts connections and answers each with the next prepared bytes, then hangs up."""

    def __init__(self, answers: list[bytes]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._answers = answers
        self.served = 0
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        for answer in self._answers:
            connection, _ = self._listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.settimeout(5)
                connection.recv(4096)
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(4096):
                    pass
            self.served += 1

    def close(self) -> None:
        self._thread.join(30)
        self._listener.close()


CONNACK = {"5": b"\x20\x03\x00\x00\x00", "3.1.1": b"\x20\x02\x00\x00"}
GOOD = {
    "5": b"\x32\x0a\x00\x03a/b\x00\x07\x00xy\x40\x02\x00\x01\xd0\x00",
    "3.1.1": b"\x32\x09\x00\x03a/b\x00\x07xy\x40\x02\x00\x01\xd0\x00",
}


@BOTH
def test_fuzz_hostile_bytes_from_the_broker_never_end_the_loop(protocol) -> None:
    source = random.Random(f"hostile {protocol}")
    answers = []
    for _ in range(120):
        data = bytearray(CONNACK[protocol] + GOOD[protocol] * 3)
        for _ in range(source.randint(1, 5)):
            at = source.randrange(len(data))
            match source.randrange(3):
                case 0:
                    data[at] = source.randrange(256)
                case 1:
                    del data[at : at + source.randint(1, 4)]
                case _:
                    data[at:at] = source.randbytes(source.randint(1, 8))
        answers.append(bytes(data))
    server = Hostile(answers)
    link = make(server.port, "a/#", protocol=protocol, reconnect_min_ns=1_000_000, reconnect_max_ns=1_000_000)
    got = 0
    deadline = time.monotonic() + 60
    while server.served < len(answers):
        assert time.monotonic() < deadline, f"{server.served} of {len(answers)}"
        try:
            messages = link.turn(0.02)
        except CredentialsError:
            link._fatal = None  # a mutated CONNACK may say so
            continue
        got += len(messages)
        link.ack(messages)
    assert got > 20, "no message got past the mutations: the test no longer tests"
    assert link.counters.connects > 20
    link.close([])
    server.close()


@BOTH
@pytest.mark.parametrize("reader", ["auto", "paho"])
def test_messages_that_come_in_one_read_with_the_answer_to_connect_are_acknowledged(protocol, reader) -> None:
    """A session that was kept is sent at once; unacknowledged, it would fill the window in the end."""
    present = bytearray(CONNACK[protocol])
    present[2] = 1
    publish = GOOD[protocol][: 2 + GOOD[protocol][1]]
    heard = bytearray()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(bytes(present) + publish)
            while piece := connection.recv(4096):
                heard.extend(piece)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        link = make(listener.getsockname()[1], "a/#", protocol=protocol, reader=reader)
        try:
            run(link, lambda _: b"\x40\x02\x00\x07" in heard, 10)
        finally:
            link.close([], 0.1)
            thread.join(10)


def test_an_exception_in_a_callback_is_counted_logged_and_survived(broker, monkeypatch) -> None:
    """F4c: under paho's own thread the first one would end everything, unseen."""
    out = io.StringIO()
    link = make(broker.port, "a", out=out, reader="paho")
    run(link, lambda _: link.subscribed)
    arrival = link._arrival

    def broken() -> int:
        raise RuntimeError("boom")

    monkeypatch.setattr(link, "_arrival", SimpleNamespace(next_ns=broken))
    with Peer(broker.port) as peer:
        for _ in range(3):
            peer.send("a", b"1", qos=0)
        run(link, lambda _: link.counters.callback_errors == 3)
        monkeypatch.setattr(link, "_arrival", arrival)
        peer.send("a", b"2")
        assert [m.payload for m in run(link, lambda m: m)] == [b"2"]
    assert out.getvalue().count("boom") == 1
    assert link.connected
    link.close([])


class FakeClient:
    """Enough of paho to be told what to do: `reconnect` fails or connects, `publish` queues."""

    def __init__(self, fail: Exception | None = None) -> None:
        self.fail = fail
        self.pair = socket.socketpair()
        self.sent = 0
        self.open = False

    def __getattr__(self, name: str):
        return lambda *_, **__: None

    def reconnect(self) -> None:
        if self.fail:
            raise self.fail
        self.open = True

    def socket(self):
        return self.pair[0] if self.open else None

    def want_write(self) -> bool:
        return False

    def publish(self, *_):
        self.sent += 1
        return SimpleNamespace(rc=MQTTErrorCode.MQTT_ERR_SUCCESS, mid=self.sent)

    def loop_read(self) -> int:
        raise KeyError("a bug inside paho")

    def loop_misc(self) -> int:
        return 0

    def close(self) -> None:
        for end in self.pair:
            end.close()

    def subscribe(self, _) -> tuple[int, int]:
        return (0, 1)


def faked(client: FakeClient, out: io.StringIO) -> Connection:
    return make(1, "a", out=out, make_client=lambda _: client, spawn=lambda work: work())


def test_any_error_of_an_attempt_is_a_line_and_another_attempt() -> None:
    out = io.StringIO()
    client = FakeClient(RuntimeError("odd"))
    link = faked(client, out)
    link.turn(0)
    link.turn(0)
    assert link.counters.failed_attempts == 1
    assert "cannot connect (RuntimeError('odd'))" in out.getvalue()
    link.close([])
    client.close()


def test_scores_are_dropped_and_counted_when_the_broker_does_not_read() -> None:
    client = FakeClient()
    link = faked(client, io.StringIO())
    link.turn(0)
    link.turn(0)
    client.on_connect(
        client, None, SimpleNamespace(session_present=False), SimpleNamespace(is_failure=False), None
    )
    assert all(link.publish("x", b"y") for _ in range(MAX_UNSENT))
    assert link.publish("x", b"y") is False
    assert client.sent == MAX_UNSENT
    assert link.counters.dropped == 1
    client.on_publish(client, None, 1, SimpleNamespace(is_failure=False), None)
    assert link.publish("x", b"y") is True
    link.close([])
    client.close()


def test_an_exception_out_of_paho_drops_the_connection_and_connects_anew() -> None:
    out = io.StringIO()
    client = FakeClient()
    link = faked(client, out)
    link.turn(0)
    link.turn(0)
    client.pair[1].send(b"x")
    link.turn(0.1)
    assert link.counters.callback_errors == 1
    assert link.counters.failed_attempts == 1
    assert "KeyError" in out.getvalue()
    assert link.turn(0) == []
    link.close([])
    client.close()
