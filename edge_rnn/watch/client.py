"""An MQTT client that only looks: a session of its own that leaves nothing behind at the broker.

`Visitor` connects with a client id of its own, never a daemon's, and a session that ends with the connection,
unless a `session` is asked for by name; visiting once more under that `name` removes it.
Messages are kept by paho's network thread in a queue and handed out by `messages`; the queue is bounded, and
what does not fit is counted (`dropped`), because a wildcard on a busy broker brings more than anyone reads.
"""

from __future__ import annotations

import contextlib
import queue
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge_rnn.errors import CredentialsError, EdgeRnnError
from edge_rnn.files.config_types import MqttConfig
from edge_rnn.service import tls

MOST_WAITING = 200_000
_CONNECT_S = 10.0
_KEPT_S = 60
_BAD_CREDENTIALS = (134, 135)


class Heard(NamedTuple):
    """A message: `at` is the monotonic time of its arrival in seconds, `time_ns` the wall clock's."""

    topic: str
    payload: bytes
    qos: int
    retained: bool
    at: float
    time_ns: int


class Visitor:
    """A connected client while the `with` block lasts.

    Args:
        config: the broker and the account; client id, session and QoS of it are not used.
        topics: (filter, QoS) to subscribe to.
        name: the client id; random by default.
        session: instead of `name`: a client id whose session the broker keeps for a minute.

    Attributes:
        dropped: messages that came faster than they were taken.
        limits: what an MQTT 5 broker said about itself, by the property's name.

    Raises:
        CredentialsError: the broker refuses the account.
        EdgeRnnError: no connection, or a subscription was refused.
    """

    def __init__(
        self,
        config: MqttConfig,
        topics: Sequence[tuple[str, int]] = (),
        *,
        name: str | None = None,
        session: str | None = None,
    ) -> None:
        self.dropped = 0
        self.limits: dict[str, int] = {}
        self._config = config
        self._topics = list(topics)
        self._queue: queue.Queue[Heard] = queue.Queue(MOST_WAITING)
        self._ready = threading.Event()
        self._problem: EdgeRnnError | None = None
        self._kept = session is not None
        self._five = five = config.protocol == "5"
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            session or name or f"edge-rnn-look-{secrets.token_hex(4)}",
            clean_session=None if five else not self._kept,
            protocol=MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
        )
        client.connect_timeout = _CONNECT_S
        if config.username is not None:
            client.username_pw_set(
                config.username, None if config.password is None else config.password.reveal()
            )
        if config.tls is not None:
            client.tls_set_context(tls.context(config.tls))
        client.on_socket_open = _without_delay
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect
        self._client = client

    @property
    def where(self) -> str:
        """The broker's address, for messages."""
        return f"{self._config.host}:{self._config.port}"

    def __enter__(self) -> Self:
        config = self._config
        try:
            if self._five:
                properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
                properties.SessionExpiryInterval = _KEPT_S if self._kept else 0
                self._client.connect(
                    config.host, config.port, config.keepalive_s, clean_start=not self._kept,
                    properties=properties,
                )  # fmt: skip
            else:
                self._client.connect(config.host, config.port, config.keepalive_s)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise EdgeRnnError(
                f"no connection to the broker at {self.where}: {reason}; check its host and port"
            ) from None
        self._client.loop_start()
        if not self._ready.wait(_CONNECT_S):
            self._problem = EdgeRnnError(
                f"{self.where}: connected, but no MQTT broker answered within {_CONNECT_S:g} s"
            )
        if self._problem is not None:
            self._close()
            raise self._problem
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        with contextlib.suppress(Exception):
            self._client.disconnect()
        self._client.loop_stop()

    @property
    def socket(self) -> socket.socket | None:
        """The connection's socket, to ask for its options."""
        stream: Any = self._client.socket()
        return stream if isinstance(stream, socket.socket) else None

    def subscribe(self, topics: Sequence[tuple[str, int]]) -> None:
        """Subscribe to more (filter, QoS), and wait for the broker's answer.

        Raises:
            EdgeRnnError: refused, or no answer.
        """
        self._ready.clear()
        self._client.subscribe(list(topics))
        if not self._ready.wait(_CONNECT_S):
            raise EdgeRnnError(f"{self.where}: no answer to a subscription within {_CONNECT_S:g} s")
        if self._problem is not None:
            raise self._problem

    def publish(self, topic: str, payload: bytes, qos: int = 0, *, wait: bool = True) -> None:
        """Send a message; with QoS 1, unless told not to `wait`, return when the broker has it.

        Raises:
            EdgeRnnError: the connection is gone, or the broker did not confirm.
        """
        told = self._client.publish(topic, payload, qos)
        if qos and wait:
            with contextlib.suppress(RuntimeError, ValueError):
                told.wait_for_publish(_CONNECT_S)
            if not told.is_published():
                raise EdgeRnnError(f"{self.where}: a message was not confirmed within {_CONNECT_S:g} s")
        elif not qos and told.rc != paho.MQTT_ERR_SUCCESS:
            raise EdgeRnnError(f"{self.where}: a message could not be sent: {paho.error_string(told.rc)}")

    def messages(self, seconds: float) -> Iterator[Heard]:
        """What comes in during the next `seconds`, as it comes.

        Raises:
            EdgeRnnError: the connection was lost.
        """
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                yield self._queue.get(timeout=min(left, 0.5))
            except queue.Empty:
                if self._problem is not None:
                    raise self._problem from None

    def waiting(self) -> list[Heard]:
        """All that has come in by now, without waiting."""
        found: list[Heard] = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self._queue.get_nowait())
        if not found and self._problem is not None:
            raise self._problem
        return found

    # Called in paho's thread.

    def _on_connect(
        self, client: paho.Client, _data: object, _flags: object, reason: ReasonCode, properties: Any
    ) -> None:
        if reason.is_failure:
            kind = CredentialsError if reason.value in _BAD_CREDENTIALS else EdgeRnnError
            self._problem = kind(f"the broker at {self.where} refuses the connection: {reason}")
            self._ready.set()
            return
        for name in ("ReceiveMaximum", "MaximumPacketSize", "MaximumQoS", "TopicAliasMaximum"):
            value = getattr(properties, name, None)
            if isinstance(value, int):
                self.limits[name] = value
        if self._topics:
            client.subscribe(self._topics)
        else:
            self._ready.set()

    def _on_subscribe(
        self, _client: object, _data: object, _mid: int, reasons: list[ReasonCode], _properties: object
    ) -> None:
        if any(reason.is_failure for reason in reasons):
            self._problem = EdgeRnnError(
                f"the broker at {self.where} refuses a subscription ({reasons[0]}); check its access rules"
            )
        self._ready.set()

    def _on_message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        heard = Heard(
            message.topic, bytes(message.payload), message.qos, message.retain, time.monotonic(),
            time.time_ns(),
        )  # fmt: skip
        try:
            self._queue.put_nowait(heard)
        except queue.Full:
            self.dropped += 1

    def _on_disconnect(
        self, _client: object, _data: object, _flags: object, reason: ReasonCode, _p: object
    ) -> None:
        if reason.is_failure and self._problem is None:
            self._problem = EdgeRnnError(f"the connection to the broker at {self.where} was lost: {reason}")
        self._ready.set()


def _without_delay(_client: object, _data: object, stream: object) -> None:
    # Nagle's algorithm would hold a small message back for up to 40 ms.
    if isinstance(stream, socket.socket):
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
