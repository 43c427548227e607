"""The other side of a test over MQTT: an ordinary client that publishes and collects."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion


def wait_for(condition: Callable[[], Any], what: str, timeout: float = 30.0) -> Any:
    """Poll until `condition` is true and give its value; fail with `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"not within {timeout} s: {what}")


class Peer:
    """Publishes with `send`, keeps every (topic, payload, retained) that comes in `messages`."""

    def __init__(self, port: int, *filters: str, protocol: int = 5, **options: Any) -> None:
        self.messages: list[tuple[str, bytes, bool]] = []
        self._filters = filters
        self._ready = threading.Event()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            protocol=MQTTProtocolVersion.MQTTv5 if protocol == 5 else MQTTProtocolVersion.MQTTv311,
        )
        if "username" in options:
            self._client.username_pw_set(options["username"], options["password"])
        if "tls" in options:
            self._client.tls_set_context(options["tls"])
        self._client.max_inflight_messages_set(500)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = lambda _c, _u, m: self.messages.append((m.topic, m.payload, m.retain))
        self._client.reconnect_delay_set(1, 1)
        self._client.connect(options.get("host", "127.0.0.1"), port)
        self._client.loop_start()
        assert self._ready.wait(20), "the test's own client could not connect"

    def _on_connect(self, client: paho.Client, *_: Any) -> None:
        if self._filters:
            client.subscribe([(name, 1) for name in self._filters])
        else:
            self._ready.set()

    def send(self, topic: str, payload: bytes | str, *, qos: int = 1, retain: bool = False) -> None:
        """Publish; returns when the broker has it (QoS 1) or it is written (QoS 0)."""
        self.post(topic, payload, qos=qos, retain=retain).wait_for_publish(30)

    def post(self, topic: str, payload: bytes | str, *, qos: int = 1, retain: bool = False) -> Any:
        """Publish without waiting."""
        return self._client.publish(topic, payload, qos, retain)

    def on(self, topic: str) -> list[bytes]:
        """Payloads of one topic so far."""
        return [payload for name, payload, _ in self.messages if name == topic]

    def close(self) -> None:
        """Disconnect and end the client's thread."""
        self._client.disconnect()
        self._client.loop_stop()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
