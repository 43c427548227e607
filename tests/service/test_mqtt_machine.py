"""A machine for the connection: a broker that vanishes, refuses, hangs and forgets, and a clock that is ours.

The client is the real one, over real sockets, with both readers and both versions of MQTT. The broker is a
model that reads and writes packets, and strict: packet numbers begin at 1 with each connection, so an
acknowledgement that belongs to an earlier one would hit another message, and is a failure. Whatever has
happened, when the broker is back the connection is, too, within its longest pause: subscribed, with every
message delivered again that was not acknowledged, and every publication acknowledged to its owner once.
"""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from edge_rnn.files.config_types import MqttConfig
from edge_rnn.service.clock import Clock
from edge_rnn.service.mqtt import MAX_IN_FLIGHT, Delivery, new_client
from tests.support import torture
from tests.support.link import make

FILTERS = ("a/#", "b/+")
LONGEST_S = 30.0
AT_ONCE = 50
SLOW_S = 11.0
"""Longer than an answer to CONNECT is waited for."""


class Broker:
    """One session of one client: what it has subscribed, what waits for it, what it has published."""

    def __init__(self, protocol: str) -> None:
        self.none = b"\0" if protocol == "5" else b""
        self.up = True
        self.hangs = False
        self.refuses = False
        self.session: set[str] | None = None
        self.waiting: list[int] = []
        self.sent: dict[int, int] = {}
        self.taken: list[int] = []
        self.published: list[bytes] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.line: socket.socket | None = None
        self.lines = 0
        self.accepted = False
        self.heard = b""
        self.last = 0

    def connect(self) -> socket.socket:
        """The client's end of a new connection; an older one of the same client ends."""
        if not self.up:
            raise ConnectionRefusedError(111, "Connection refused")
        self.cut()
        near = socket.create_connection(self.listener.getsockname())
        self.line, _ = self.listener.accept()
        self.line.setblocking(False)
        self.lines += 1
        return near

    def cut(self) -> None:
        """The connection ends from this side, and what it has not heard yet with it."""
        if self.line is not None:
            self.line.close()
        self.line, self.accepted, self.heard, self.last = None, False, b"", 0
        self.sent.clear()

    def close(self) -> None:
        self.cut()
        self.listener.close()

    def publish(self, number: int) -> bool:
        """A message for the client; False if nobody asked for it."""
        if not self.session:
            return False
        self.waiting.append(number)
        self.work()
        return True

    def work(self) -> None:
        """Read what the client has sent, answer it, and send what waits, all in one piece."""
        line = self.line
        if line is None or self.hangs:
            return
        gone = False
        try:
            while piece := line.recv(65536):
                self.heard += piece
            gone = True
        except BlockingIOError:
            pass
        except OSError:
            gone = True
        answer = b"".join(self.answers()) + b"".join(self.messages())
        try:
            line.sendall(answer)
        except OSError:
            gone = True
        if gone or (answer and not self.accepted):
            self.cut()

    def answers(self) -> Iterator[bytes]:
        """An answer to each whole packet that was heard."""
        while len(self.heard) > 1:
            size, begin, shift = 0, 1, 0
            while True:
                byte = self.heard[begin]
                size, begin, shift = size | (byte & 127) << shift, begin + 1, shift + 7
                if byte < 128:
                    break
            assert len(self.heard) >= begin + size, "half a packet"
            kind, body = self.heard[0], self.heard[begin : begin + size]
            self.heard = self.heard[begin + size :]
            yield self.answer(kind, body)

    def messages(self) -> Iterator[bytes]:
        """What waits and has not been sent over this connection, as far as the client may hold it."""
        for number in self.waiting if self.accepted else ():
            if len(self.sent) < AT_ONCE and number not in self.sent.values():
                self.last += 1
                self.sent[self.last] = number
                yield self.packet(
                    0x32, b"\0\3a/1" + self.last.to_bytes(2, "big") + self.none + b"%d" % number
                )

    def answer(self, kind: int, body: bytes) -> bytes:
        """What a broker says to a packet."""
        match kind >> 4:
            case 1:
                if self.refuses:
                    return self.packet(0x20, bytes((0, 136 if self.none else 3)) + self.none)
                present = self.session is not None
                self.session, self.accepted = self.session or set(), True
                return self.packet(0x20, bytes((present, 0)) + self.none)
            case 3:
                at = 2 + int.from_bytes(body[:2], "big")
                payload = body[at + 2 + len(self.none) :]
                if payload not in self.published:
                    self.published.append(payload)
                return self.packet(0x40, body[at : at + 2])
            case 4:
                mid = int.from_bytes(body[:2], "big")
                assert mid in self.sent, f"packet {mid} is acknowledged, not one of {sorted(self.sent)}"
                number = self.sent.pop(mid)
                self.waiting.remove(number)
                self.taken.append(number)
                return b""
            case 8:
                assert self.session is not None
                at, found = 2 + len(self.none), 0
                while at < len(body):
                    end = at + 2 + int.from_bytes(body[at : at + 2], "big")
                    self.session.add(body[at + 2 : end].decode())
                    at, found = end + 1, found + 1
                return self.packet(0x90, body[:2] + self.none + b"\1" * found)
            case 12:
                return self.packet(0xD0, b"")
            case _:
                assert kind == 0xE0, f"a packet of kind {kind:#x}"
                return b""

    def packet(self, kind: int, body: bytes) -> bytes:
        return bytes((kind, len(body))) + body


class ReconnectMachine(RuleBasedStateMachine):
    """A connection, its broker, and an application that acknowledges when it likes."""

    @initialize(
        protocol=st.sampled_from(["5", "3.1.1"]),
        reader=st.sampled_from(["auto", "paho"]),
        chance=st.floats(0, 0.999),
    )
    def begin(self, protocol: str, reader: str, chance: float) -> None:
        self.now = 1000.0
        self.broker = Broker(protocol)
        self.connecting: list[Callable[[], None]] = []
        self.attempts: list[float] = []
        self.link = make(
            1, *FILTERS, out=io.StringIO(), protocol=protocol, reader=reader,
            reconnect_min_ns=10**9, reconnect_max_ns=int(LONGEST_S * 1e9),
            make_client=self.client, spawn=self.connecting.append, chance=lambda: chance,
            clock=Clock(lambda: self.now, lambda: 10**18 + int(self.now * 1e9)),
        )  # fmt: skip
        self.held: list[Delivery] = []
        self.acked: set[int] = set()
        self.expected: list[int] = []
        self.lost: set[int] = set()
        self.keys: list[int] = []
        self.delivered: list[int] = []

    def client(self, config: MqttConfig) -> Any:
        client = new_client(config)
        client._create_socket = self.broker.connect
        return client

    def teardown(self) -> None:
        if hasattr(self, "link"):
            try:
                self.settle()
            finally:
                self.broker.cut()
                self.link.close([], 0)
                self.broker.close()

    # ---- the application

    @rule()
    def turn(self) -> None:
        self.broker.work()
        new = self.link.turn(0)
        self.broker.work()
        for epoch in {message.epoch for message in new}:
            numbers = [int(message.payload) for message in new if message.epoch == epoch]
            assert numbers == sorted(numbers), "out of order"
        self.held += new
        self.delivered += self.link.take_delivered()
        assert len(set(self.delivered)) == len(self.delivered)

    @rule(seconds=st.sampled_from([0.1, 1.0, 2.5, 11.0, 40.0, 400.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.turn()

    @rule(count=st.integers(1, 5))
    def acknowledge(self, count: int) -> None:
        """In the order of arrival, as the daemon does; also what an earlier connection brought."""
        done, self.held = self.held[:count], self.held[count:]
        self.acked |= {int(message.payload) for message in done}
        self.link.ack(done)
        self.broker.work()

    @rule()
    def send(self) -> None:
        if self.link.window():
            self.keys.append(len(self.keys))
            self.link.publish_sure(self.keys[-1], "out", b"%d" % self.keys[-1])

    @rule()
    def connect(self) -> None:
        """The thread that connects has finished."""
        if self.connecting:
            self.attempts.append(self.now)
            self.connecting.pop()()
            self.turn()

    @rule()
    def renew(self) -> None:
        self.link.renew("silence")

    # ---- the broker

    @rule(count=st.integers(1, 4))
    def publish(self, count: int) -> None:
        for _ in range(count):
            number = len(self.expected) + len(self.lost)
            if self.broker.publish(number):
                self.expected.append(number)
            else:
                self.lost.add(number)

    @rule()
    def cut(self) -> None:
        self.broker.cut()

    @rule()
    def down(self) -> None:
        self.broker.cut()
        self.broker.up = False

    @rule(forgets=st.booleans())
    def up(self, forgets: bool) -> None:
        if not self.broker.up and forgets:
            # It has lost its sessions, and with them what waited.
            self.lost |= set(self.broker.waiting)
            self.expected = [number for number in self.expected if number not in self.broker.waiting]
            self.broker.waiting.clear()
            self.broker.session = None
        self.broker.up = True

    @rule(refuses=st.booleans())
    def refuse(self, refuses: bool) -> None:
        self.broker.refuses = refuses

    @rule()
    def hang(self) -> None:
        self.broker.hangs = True

    @rule()
    def go_on(self) -> None:
        self.broker.hangs = False
        self.broker.work()

    # ---- what holds

    @invariant()
    def never_breaks_a_promise(self) -> None:
        if not hasattr(self, "link"):
            return
        assert self.link.counters.callback_errors == 0
        assert len(self.connecting) <= 1, "two attempts at a time"
        assert 0 <= self.link.window() <= MAX_IN_FLIGHT
        assert self.link.subscribed <= self.link.connected
        assert set(self.broker.taken) <= self.acked, "acknowledged before the application did"
        assert all(b - a >= 1.0 for a, b in zip(self.attempts, self.attempts[1:], strict=False)), "a storm"

    @rule()
    def settle(self) -> None:
        """The broker is well again: so is the connection, within its longest pause."""
        self.up(forgets=False)
        self.refuse(refuses=False)
        self.go_on()
        # What an attempt that is under way met before, it may still bring; and a daemon turns all the time.
        for seconds in (0, SLOW_S, LONGEST_S):
            self.now += seconds
            for _ in range(3):
                self.turn()
                self.connect()
        self.until(lambda: self.link.connected and self.link.subscribed, "no connection")
        assert self.broker.session == set(FILTERS)
        while self.broker.waiting:
            self.until(lambda: self.held or not self.broker.waiting, "a message that waits is never brought")
            self.acknowledge(len(self.held))
        self.until(lambda: sorted(self.delivered) == self.keys, "a publication that is never sure")
        assert sorted(self.broker.taken) == self.expected
        assert sorted(self.broker.published) == sorted(b"%d" % key for key in self.keys)

    def until(self, condition: Callable[[], Any], what: str) -> None:
        """Turn, with its clock still, until what is under way has arrived."""
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline, what
            self.connect()
            self.turn()


TestReconnect = ReconnectMachine.TestCase
TestReconnect.settings = settings(
    max_examples=100,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    # A promise that is broken is waited for: making the example smaller would take for ever.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_torture_5_000_lives_of_a_connection() -> None:
    start = time.monotonic()
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        ReconnectMachine, settings=settings(TestReconnect.settings, max_examples=5000, stateful_step_count=50)
    )
    torture.record(
        "reconnect, model-based", "5,000 machines of up to 50 steps",
        "always back within the longest pause, no acknowledgement astray, each publication sure once",
        time.monotonic() - start,
    )  # fmt: skip
