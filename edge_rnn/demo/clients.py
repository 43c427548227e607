"""The demo's own MQTT clients: ordinary paho, on the far side of the broker from the daemon.

One class serves the sensors, which publish, and the watcher, which listens to what the daemon says. Its
network loop runs in paho's thread; `on_message` is called there and must do no more than keep what it gets.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge_rnn.errors import EdgeRnnError

_CONNECT_S = 10.0

OnMessage = Callable[[str, bytes, int], None]


class DemoClient:
    """A client connected to the demo's broker while the `with` block lasts.

    Args:
        host, port: the broker.
        name: client id.
        topics: filters to subscribe to, QoS 0.
        on_message: called in the network thread with (topic, payload, time of arrival in ns since 1970).

    Raises:
        EdgeRnnError: no connection or no subscription within ten seconds.
    """

    def __init__(
        self,
        host: str,
        port: int,
        name: str,
        topics: Sequence[str] = (),
        on_message: OnMessage | None = None,
    ) -> None:
        self._address = (host, port)
        self._topics = list(topics)
        self._ready = threading.Event()
        client = paho.Client(CallbackAPIVersion.VERSION2, name, protocol=MQTTProtocolVersion.MQTTv311)
        client.on_socket_open = _without_delay
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        if on_message is not None:
            handle = on_message

            def received(_client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
                handle(message.topic, bytes(message.payload), time.time_ns())

            client.on_message = received
        self._client = client

    def __enter__(self) -> Self:
        host, port = self._address
        try:
            self._client.connect(host, port)
        except OSError as error:
            raise EdgeRnnError(f"no connection to the demo's broker at {host}:{port}: {error}") from error
        self._client.loop_start()
        if not self._ready.wait(_CONNECT_S):
            self._close()
            raise EdgeRnnError(f"the demo's broker at {host}:{port} does not answer")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, topic: str, payload: bytes) -> None:
        """Send one message, QoS 0, from any thread."""
        self._client.publish(topic, payload)

    def _on_connect(
        self,
        client: paho.Client,
        _data: object,
        _flags: paho.ConnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            return
        if self._topics:
            client.subscribe([(topic, 0) for topic in self._topics])
        else:
            self._ready.set()

    def _on_subscribe(
        self,
        _client: paho.Client,
        _data: object,
        _message_id: int,
        _reasons: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        self._ready.set()


def _without_delay(_client: paho.Client, _data: object, sock: object) -> None:
    # Nagle's algorithm would hold a small message back for up to 40 ms.
    if isinstance(sock, socket.socket):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
