"""The broker connection: paho-mqtt under a loop of our own. The only file that knows paho.

`Connection.turn(timeout)` is one turn: connect if due, wait for the socket, read what is there, write what is
left, keep alive; it returns the messages that came. Everything happens on the caller's thread, but for one
thing: `reconnect()` (name lookup, TCP, TLS handshake) blocks for seconds, so it runs on a short-lived helper
thread, and the client is not touched until it is done. So a dead broker never holds up ticks, commits, the
watchdog or a shutdown.

What goes wrong, and what happens (each row is a test):

* an exception in a callback would end paho's own thread or leave its parser in the middle of a packet. Here
  every callback is wrapped: caught, counted, logged once a kind. An exception out of paho itself drops the
  connection and connects anew;
* a broker that lost its sessions says "session present" = 0 and sends nothing: so every connect subscribes;
* acknowledgements belong to the connection their message came over: after a reconnect the broker sends the
  unacknowledged ones again, and old packet ids mean other messages. `Delivery.epoch` tells them apart;
* a slow broker makes outgoing packets pile up: beyond `MAX_UNSENT` scores are dropped and counted;
* what is read ahead is bounded: a turn takes `MAX_INBOX` messages and what one more receive call brings, the
  rest waits in the socket and then at the broker. Pings go on all the while.

Pauses between attempts: `reconnect_min` to twice that, at random, for the first `PATIENT_S` seconds; then
growing to `reconnect_max`. A connection that holds for less than `STABLE_S` does not count as one, unless the
broker could not be reached before it: two daemons with one client id would throw each other out every second
for ever. Not every broker tells them why, so after `QUICK_LOSSES` losses within `QUICK_S` of connecting the
log says what it may be.

Failed attempts are thinned in the log (see `logs.py`) until the next connection. The loss of a connection is
told, as the connection was; from the third quick loss on both are thinned, too, until a connection holds.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import select
import socket
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge_rnn.errors import CredentialsError
from edge_rnn.files.config_types import MqttConfig
from edge_rnn.service import tls
from edge_rnn.service.clock import Arrival, Clock
from edge_rnn.service.delivery import Delivery
from edge_rnn.service.logs import Log
from edge_rnn.service.mqtt_batch import BatchClient, probe
from edge_rnn.service.wire.swath import Arrived, Swath, expanded

if TYPE_CHECKING:
    from edge_rnn.service.wire.sources import Sources

__all__ = ["Connection", "Delivery", "LinkCounters", "new_client", "pause"]

MAX_INBOX = 1000
MAX_INBOX_REALTIME = 50_000
MAX_UNSENT = 2000
MAX_UNSENT_BYTES = 1 << 20
MAX_IN_FLIGHT = 20
PATIENT_S = 180.0
STABLE_S = 10.0
QUICK_S = 30.0
QUICK_LOSSES = 3
_HEADS = 65_536
# The first two bytes of an acknowledgement: its kind, and that a packet's number follows.
_PUBACK = b"\x40\x02"
_CONNACK_S = 10.0
# Not every system has it.
_offer_core: Callable[[], None] = getattr(os, "sched_yield", lambda: None)
# More messages than this in a turn are a flood.
_MANY = 8
# How often paho looks whether it is time for a ping.
_MISC_S = 0.1
_CONNECT_S = 5.0
_OTHER_CLIENT = "another client with the id "
# Kinds of the thinned lines about a connection that does not hold.
_FLAPPING = ("quick loss", "quick connect")
_OWN_ID = "give each daemon its own mqtt.client_id"
_BAD_CREDENTIALS = (134, 135)
_TAKEN_OVER = 142
_UNSUPPORTED_VERSION = 132


@dataclass(slots=True)
class LinkCounters:
    """What happened on the connection since the start.

    bad_topics: messages whose topic is no UTF-8; oversized: too large to be kept; dropped: publications.
    """

    connects: int = 0
    disconnects: int = 0
    failed_attempts: int = 0
    received: int = 0
    received_bytes: int = 0
    bad_topics: int = 0
    oversized: int = 0
    published: int = 0
    dropped: int = 0
    refused: int = 0
    callback_errors: int = 0

    def as_dict(self) -> dict[str, int]:
        """For the health message."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


def pause(down_s: float, shortest: float, longest: float, chance: float) -> float:
    """Seconds until the next attempt, after `down_s` without a connection; `chance` is uniform in [0, 1)."""
    if down_s < PATIENT_S:
        return min(longest, shortest * (1 + chance))
    ceiling = min(longest, 2 * shortest * 2 ** min(30.0, (down_s - PATIENT_S) / 60))
    return ceiling * (1 + chance) / 2


class _Attempt:
    """One run of `reconnect()` on its helper thread; `done` is set last."""

    __slots__ = ("abandoned", "done", "error")

    def __init__(self) -> None:
        self.done = False
        self.abandoned = False
        self.error: Exception | None = None


def new_client(config: MqttConfig) -> paho.Client:
    """A client for `[mqtt]`, with its session kept by the broker and acknowledgements left to us.

    It reads and writes in batches if the configuration does not forbid it and paho's insides are as expected.
    """
    five = config.protocol == "5"
    version = MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311
    batches = config.reader != "paho" and not probe(version)
    client = (BatchClient if batches else paho.Client)(
        CallbackAPIVersion.VERSION2,
        client_id=config.client_id,
        clean_session=None if five else False,
        protocol=version,
        reconnect_on_failure=False,
        manual_ack=True,
    )
    client.connect_timeout = _CONNECT_S
    client.max_inflight_messages_set(MAX_IN_FLIGHT)
    if config.username is not None:
        client.username_pw_set(config.username, None if config.password is None else config.password.reveal())
    if config.tls is not None:
        client.tls_set_context(tls.context(config.tls))
    if five:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = min(2**32 - 1, config.session_expiry_ns // 10**9)
        properties.ReceiveMaximum = config.receive_maximum
        # The broker then drops a larger packet instead of sending it; the topic and headers need some room.
        properties.MaximumPacketSize = config.max_payload + 70_000
        client.connect_async(
            config.host, config.port, config.keepalive_s, clean_start=False, properties=properties
        )
    else:
        client.connect_async(config.host, config.port, config.keepalive_s)
    return client


def _on_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="mqtt-connect", daemon=True).start()


class Connection:
    """One connection to one broker, from its first attempt until `close`.

    Args:
        config: `[mqtt]`.
        filters: subscriptions; the value says whether retained messages are wanted.
        will: (topic, payload), published retained by the broker when this client vanishes.
        arrival: gives each message its time of arrival.

    Raises:
        ConfigError: a certificate or key file cannot be used.
    """

    def __init__(
        self,
        config: MqttConfig,
        filters: Mapping[str, bool],
        will: tuple[str, bytes],
        log: Log,
        *,
        arrival: Arrival,
        clock: Clock | None = None,
        make_client: Callable[[MqttConfig], Any] = new_client,
        spawn: Callable[[Callable[[], None]], None] = _on_thread,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.counters = LinkCounters()
        self.epoch = 0
        self.connected = False
        self.subscribed = False
        self.session_present = False
        self._config = config
        self._filters = dict(filters)
        self._gone: list[str] = []
        self._log = log
        self._clock = clock or Clock()
        self._arrival = arrival
        self._spawn = spawn
        self._chance = chance
        self._where = f"{config.host}:{config.port}"
        self._inbox: list[Arrived] = []
        self._waiting = 0
        self._many = False
        self._delivered: list[int] = []
        self._sure: dict[int, int] = {}
        self._in_flight_limit = MAX_IN_FLIGHT
        self._unsent = 0
        self._events = 0
        self._fatal: CredentialsError | None = None
        self._attempt: _Attempt | None = None
        self._next_attempt = self._clock.monotonic()
        self._down_since = self._next_attempt
        self._opened = self._up_since = self._misc_at = 0.0
        self._open = False
        self._quick_losses = 0
        self._complaints: set[str] = set()
        self._client = make_client(config)
        self._batches = isinstance(self._client, BatchClient)
        self.reader = "batch" if self._batches else "paho"
        """What reads the socket: packets in batches, or paho as it comes."""
        self._heads: dict[str, bytes] = {}
        # In real time old messages are skipped, so all that is there must be seen.
        self._most = MAX_INBOX_REALTIME if config.delivery == "realtime" else MAX_INBOX
        self._bad_by_paho = 0
        self._away = self._was_away = False
        self._renewed = 0
        if self._batches:
            self._client.arrival = arrival
            self._client.max_payload = config.max_payload
            self._client.batched = self._on_batch
        elif config.reader != "paho" and make_client is new_client:
            version = MQTTProtocolVersion.MQTTv5 if config.protocol == "5" else MQTTProtocolVersion.MQTTv311
            self._log.warning("mqtt", f"packets are read one by one, which is slower: {probe(version)}")
        self._client.will_set(will[0], will[1], qos=1, retain=True)
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.settimeout(0)
        self._wake_write.settimeout(0)
        self._poll = select.poll()
        self._polled = (-2, False)
        for name in (
            "on_connect", "on_disconnect", "on_message", "on_publish", "on_subscribe", "on_socket_open"
        ):  # fmt: skip
            setattr(self._client, name, self._guarded(name, getattr(self, f"_{name}")))

    # ---- for the daemon

    def scan_with(self, sources: Sources | None) -> None:
        """What takes usual messages as columns, from the next turn on; without it none come so."""
        if self._batches:
            self._client.sources = sources

    def turn(self, timeout: float) -> list[Arrived]:
        """Up to `timeout` seconds of waiting, then all that is there, in order; never more than MAX_INBOX.

        Raises:
            CredentialsError: the broker refused user name or password before it ever accepted them.
        """
        if self._many:
            # In a flood whoever waits for this core goes first: what the broker still has to send then comes
            # in one piece, and costs a part of what it would in many. A lone message is not held up.
            _offer_core()
        self._advance()
        stream = self._stream()
        wait = max(0.0, timeout if self._open or self._attempt else min(timeout, self._until_attempt()))
        if stream is None:
            self._wait(None, wait, writing=False)
        else:
            pending = isinstance(stream, ssl.SSLSocket) and stream.pending() > 0
            writing = self._client.want_write()
            readable, writable = self._wait(stream, 0.0 if pending else wait, writing=writing)
            if readable or pending:
                self._use("read", self._read)
            if self._open and (writable or (readable and self._client.want_write())):
                self._use("write", self._client.loop_write)
            now = self._clock.monotonic()
            if self._open and now >= self._misc_at:
                self._misc_at = now + _MISC_S
                self._use("keepalive", self._client.loop_misc)
            if self._open and not self.connected and self._clock.monotonic() - self._opened > _CONNACK_S:
                self._lost(f"no answer to CONNECT; is this an MQTT broker?{self._tls_hint()}")
        if self._fatal is not None:
            raise self._fatal
        self._many = self._waiting >= _MANY
        inbox, self._inbox, self._waiting = self._inbox, [], 0
        return inbox

    def wake(self) -> None:
        """End the wait of a running `turn`; may be called from any thread or signal handler."""
        with contextlib.suppress(OSError):
            self._wake_write.send(b"\0")

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> bool:
        """Send once (QoS 0); False, and counted, if there is no connection or too much is waiting for it."""
        if self._batches:
            return self.publish_batch([(topic, payload)], retain=retain) == 1
        if not self.connected or self._unsent >= MAX_UNSENT:
            self.counters.dropped += 1
            return False
        self._unsent += 1
        rc = self._use("publish", lambda: self._client.publish(topic, payload, 0, retain).rc)
        if rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self.counters.dropped += 1
            return False
        self.counters.published += 1
        return True

    def publish_batch(self, messages: Sequence[tuple[str, bytes]], *, retain: bool = False) -> int:
        """`publish` for many, in one write; how many of them."""
        if not self._batches:
            return sum(self.publish(topic, payload, retain=retain) for topic, payload in messages)
        client = self._client
        if not self.connected or client.is_behind(MAX_UNSENT_BYTES):
            self.counters.dropped += len(messages)
            return 0
        heads, first = self._heads, 0x31 if retain else 0x30
        parts: list[bytes] = []
        for topic, payload in messages:
            head = heads.get(topic) or self._head(topic)
            size = len(head) + len(payload)
            if size < 128:
                parts += (bytes((first, size)), head, payload)
            elif size < 16384:
                parts += (bytes((first, size & 127 | 128, size >> 7)), head, payload)
            else:
                parts += (bytes((first,)), _length(size), head, payload)
        rc = self._use("publish", lambda: client.write_batch(b"".join(parts)))
        if rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self.counters.dropped += len(messages)
            return 0
        self.counters.published += len(messages)
        return len(messages)

    def publish_packets(self, packets: memoryview, count: int) -> int:
        """`publish_batch` for packets that are joined already; only where `reader` is "batch"."""
        client = self._client
        if not self.connected or client.is_behind(MAX_UNSENT_BYTES):
            self.counters.dropped += count
            return 0
        if self._use("publish", lambda: client.write_batch(packets)) != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self.counters.dropped += count
            return 0
        self.counters.published += count
        return count

    def _head(self, topic: str) -> bytes:
        """A PUBLISH packet's topic (and, in MQTT 5, its properties: none)."""
        raw = topic.encode()
        head = len(raw).to_bytes(2, "big") + raw + (b"\0" if self._config.protocol == "5" else b"")
        if len(self._heads) >= _HEADS:
            self._heads.clear()
        self._heads[topic] = head
        return head

    def window(self) -> int:
        """How many more `publish_sure` may be in flight now."""
        return max(0, self._in_flight_limit - len(self._sure)) if self.connected else 0

    def publish_sure(self, key: int, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Send until acknowledged (QoS 1); `key` is in `take_delivered` then. Only while `window()` > 0."""

        def send() -> int:
            info = self._client.publish(topic, payload, 1, retain)
            self._sure[info.mid] = key
            return int(info.rc)

        self._use("publish", send)
        self.counters.published += 1

    def take_delivered(self) -> list[int]:
        """Keys of `publish_sure` that the broker has acknowledged since the last call."""
        delivered, self._delivered = self._delivered, []
        return delivered

    def ack(self, messages: Sequence[Arrived]) -> None:
        """Acknowledge messages, in their order; those of an earlier connection are skipped."""
        if self._batches:
            data = b"".join(
                message.acks if type(message) is Swath else _PUBACK + message.mid.to_bytes(2, "big")  # type: ignore[union-attr]
                for message in messages
                if message.qos and message.epoch == self.epoch
            )
            if data and self.connected:
                self._use("ack", lambda: self._client.write_batch(data))
            return
        for message in expanded(messages):
            if message.qos and message.epoch == self.epoch and self.connected:
                self._use("ack", partial(self._client.ack, message.mid, 1))

    def set_filters(self, filters: Mapping[str, bool]) -> None:
        """Other subscriptions from now on: the new ones first, then the old ones go."""
        self._gone = [name for name in {*self._filters, *self._gone} if name not in filters]
        self._filters = dict(filters)
        if self.connected:
            self._use("subscribe", self._subscribe)

    def renew(self, why: str) -> None:
        """Subscribe again; or, if that has been done since the last connect, connect anew and do it then."""
        if not self.connected:
            return
        if self._renewed == self.epoch:
            self._lost(why)
        else:
            self._renewed = self.epoch
            self._use("subscribe", self._subscribe)

    def close(self, last: list[tuple[str, bytes]], timeout: float = 1.0) -> None:
        """Publish `last` retained, say goodbye and close; gives up after `timeout` seconds.

        Goodbye is said only when the broker has acknowledged `last`: it is sure then, even if the next
        connection of the same client overtakes this one's last packets. Without it, the will speaks.
        """
        if self._attempt is not None:
            self._attempt.abandoned = True
        deadline = self._clock.monotonic() + timeout
        if self.connected:
            for topic, payload in last:
                self.publish_sure(-1, topic, payload, retain=True)
            self._flush(deadline, lambda: -1 not in self._sure.values())
        if self.connected and -1 not in self._sure.values():
            self._open = False  # what follows is no loss
            self._use("disconnect", self._client.disconnect)
            self._flush(deadline, lambda: not self._client.want_write())
        self._open = self.connected = False
        self._close_socket()
        self._wake_read.close()
        self._wake_write.close()

    def _flush(self, deadline: float, done: Callable[[], bool]) -> None:
        """Read and write until `done`, or the connection or the time is at its end; what comes is let go."""
        while not done() and (stream := self._stream()) is not None:
            left = deadline - self._clock.monotonic()
            if left <= 0:
                return
            readable, writable = self._wait(stream, left, writing=self._client.want_write())
            self._inbox.clear()
            self._waiting = 0
            if readable:
                self._use("read", self._read)
            if writable and self._stream() is not None:
                self._use("write", self._client.loop_write)

    # ---- connecting

    def _until_attempt(self) -> float:
        return max(0.0, self._next_attempt - self._clock.monotonic())

    def _stream(self) -> Any:
        """The open socket, or None; while the helper thread works the client is not ours to ask."""
        return None if self._attempt is not None else self._client.socket()

    def _advance(self) -> None:
        """Start an attempt that is due, or take over one that is done."""
        if self._attempt is None and not self._open and self._clock.monotonic() >= self._next_attempt:
            self._attempt = attempt = _Attempt()
            self._spawn(lambda: self._connect(attempt))
        if self._attempt is not None and self._attempt.done:
            error = self._attempt.error
            self._attempt = None
            if error is None:
                self._open = True
                self._opened = self._clock.monotonic()
            else:
                self._failed(_explain(error, tls=self._config.tls is not None))

    def _connect(self, attempt: _Attempt) -> None:
        try:
            self._client.reconnect()
        except Exception as error:  # noqa: BLE001 - whatever it is, it must reach the loop, not end a thread
            attempt.error = error
        attempt.done = True
        if attempt.abandoned:
            self._close_socket()
        self.wake()

    def _failed(self, why: str, *, was_connected: bool = False) -> None:
        now = self._clock.monotonic()
        self.counters.failed_attempts += 1
        if self._fatal is not None:
            # There is no other attempt: `_fatal` is raised in the loop, and says what to do.
            self._log.error("mqtt", f"broker {self._where}: {why}")
            return
        shortest, longest = self._config.reconnect_min_ns / 1e9, self._config.reconnect_max_ns / 1e9
        wait = pause(now - self._down_since, shortest, longest, self._chance())
        self._next_attempt = now + wait
        text = f"broker {self._where}: {why}; trying again in {wait:.1f} s"
        if was_connected and self._quick_losses >= QUICK_LOSSES:
            self._log.limited("warning", "mqtt", _FLAPPING[0], text)
            return
        if was_connected:
            self._log.warning("mqtt", text)
            return
        self._away = True
        self._complaints.add(why)
        repeats = "and so on until it succeeds; repeats are summed up once a minute"
        self._log.limited("warning", "mqtt", why, text, repeats=repeats)

    def _lost(self, why: str) -> None:
        """The connection is gone, for whatever reason; called more than once for one loss."""
        if not self._open:
            return
        now = self._clock.monotonic()
        self._open = self.subscribed = False
        was_connected = self.connected
        if was_connected:
            self.connected = False
            self.counters.disconnects += 1
            held = now - self._up_since
            if held >= STABLE_S or self._was_away:
                self._down_since = now
            self._quick_losses += 1
            if held >= QUICK_S:
                self._quick_losses = 0
                for kind in _FLAPPING:
                    self._log.settled("mqtt", kind)
            if self._quick_losses >= QUICK_LOSSES and _OTHER_CLIENT not in why:
                why = (
                    f"{why}, {self._quick_losses} times within {QUICK_S:.0f} s of connecting; perhaps "
                    f"{_OTHER_CLIENT}{self._config.client_id!r} connects, too: {_OWN_ID}"
                )
        self._unsent = 0
        self._close_socket()
        self._failed(why, was_connected=was_connected)

    def _close_socket(self) -> None:
        stream = self._client.socket()
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()

    def _wait(self, stream: Any, seconds: float, *, writing: bool) -> tuple[bool, bool]:
        """Until something happens: whether `stream` can be read and, if that is asked, written."""
        number = -1 if stream is None else stream.fileno()
        wanted = (number, writing)
        if wanted != self._polled:
            # Made anew when anything changes: a closed socket's number may be another's already.
            self._poll = select.poll()
            self._poll.register(self._wake_read, select.POLLIN)
            if number >= 0:
                self._poll.register(number, select.POLLIN | (select.POLLOUT if writing else 0))
            self._polled = wanted
        if number < 0 and stream is not None:
            # The socket was closed under us: reading it tells paho.
            return True, False
        readable = writable = False
        # Rounded up: a moment too early would be a turn for nothing.
        for found, events in self._poll.poll(math.ceil(seconds * 1000)):
            if found == number:
                readable = bool(events & ~select.POLLOUT)
                writable = bool(events & select.POLLOUT)
            else:
                with contextlib.suppress(OSError):
                    self._wake_read.recv(4096)
        return readable, writable

    def _use(self, what: str, work: Callable[[], Any]) -> int:
        """Run a call into paho; a result or an exception that means "lost" ends this connection, not us."""
        try:
            rc = int(work())
        except Exception as error:  # noqa: BLE001 - a parser's bug must not end the loop
            self.counters.callback_errors += 1
            self._log.limited("error", "mqtt", f"{what} {type(error).__name__}", f"{what}: {error!r}")
            self._lost(f"the connection was dropped after an error ({type(error).__name__})")
            return int(MQTTErrorCode.MQTT_ERR_UNKNOWN)
        if self._client.socket() is None:
            self._lost("connection lost" if self.connected else self._early())
        return rc

    def _early(self) -> str:
        hint = '; does it speak MQTT 5? If not, set mqtt.protocol = "3.1.1"'
        hint = hint if self._config.protocol == "5" else ""
        return f"connection closed before it was accepted{hint}{self._tls_hint()}"

    def _tls_hint(self) -> str:
        return "" if self._config.tls is not None else "; if this is its TLS port, add [mqtt.tls]"

    def _read(self) -> int:
        while self._waiting < self._most:
            before = self._events
            rc = self._client.loop_read()
            if rc != MQTTErrorCode.MQTT_ERR_SUCCESS or before == self._events:
                return int(rc)
            if self._batches and self._client.drained:
                break
        return 0

    # ---- paho's callbacks

    def _guarded(self, name: str, work: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: object) -> None:
            self._events += 1
            try:
                work(*arguments[2:])
            except Exception as error:  # noqa: BLE001 - see the module docstring
                self.counters.callback_errors += 1
                self._log.limited("error", "mqtt", f"{name} {type(error).__name__}", f"{name}: {error!r}")

        return call

    def _on_batch(self, messages: list[Arrived]) -> None:
        self._events += 1
        self._inbox += messages
        counters, number, size = self.counters, 0, 0
        for message in messages:
            if type(message) is Swath:
                number += message.count
                size += message.payload_bytes
            else:
                number += 1
                size += len(message[1])  # type: ignore[index]
        self._waiting += number
        counters.received += number
        counters.received_bytes += size
        counters.oversized = self._client.oversized
        counters.bad_topics = self._client.bad_topics + self._bad_by_paho

    def _on_socket_open(self, stream: socket.socket) -> None:
        # Nagle's algorithm would hold a small packet back until the last one is acknowledged: up to 40 ms.
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _on_connect(self, flags: Any, reason: ReasonCode, properties: Properties | None) -> None:
        if reason.is_failure:
            self._refused(reason)
            return
        self.epoch += 1
        if self._batches:
            self._client.epoch = self.epoch
        self.connected = True
        self.session_present = bool(flags.session_present)
        self._was_away, self._away = self._away, False
        self._up_since = self._clock.monotonic()
        for complaint in self._complaints:
            self._log.settled("mqtt", complaint)
        self._complaints.clear()
        self.counters.connects += 1
        self._in_flight_limit = min(MAX_IN_FLIGHT, getattr(properties, "ReceiveMaximum", MAX_IN_FLIGHT))
        say = self._log.info
        if self._quick_losses >= QUICK_LOSSES:
            say = partial(self._log.limited, "info", kind=_FLAPPING[1])
        say(
            "mqtt", text=f"connected to {self._where}", protocol=self._config.protocol,
            client_id=self._config.client_id, session_present=self.session_present,
        )  # fmt: skip
        self._subscribe()

    def _refused(self, reason: ReasonCode) -> None:
        if reason.value in _BAD_CREDENTIALS and self.counters.connects == 0:
            self._fatal = CredentialsError(
                f"broker {self._where} refused the credentials ({reason}): expected a user and password it "
                f"knows, got username {self._config.username!r}; {account_advice(self._config)}"
            )
            self._lost("credentials refused")
        elif reason.value == _UNSUPPORTED_VERSION:
            self._lost('broker does not speak this MQTT version; set mqtt.protocol = "3.1.1"')
        else:
            self._lost(f"connection refused: {reason}")

    def _subscribe(self) -> int:
        qos = self._config.qos
        if self._config.protocol == "5":
            # Not our own outputs (noLocal), and stored messages only where a stream wants them, once.
            wanted: list[Any] = [
                (name, SubscribeOptions(qos, noLocal=True, retainHandling=1 if retained else 2))
                for name, retained in self._filters.items()
            ]
        else:
            wanted = [(name, qos) for name in self._filters]
        rc = int(self._client.subscribe(wanted)[0]) if wanted else 0
        if self._gone:
            # A kept session keeps old subscriptions, too, also those of an earlier configuration.
            self._client.unsubscribe(self._gone)
        return rc

    def _on_subscribe(self, _mid: int, reasons: list[ReasonCode], _properties: object) -> None:
        self.subscribed = True
        for name, reason in zip(self._filters, reasons, strict=False):
            if reason.is_failure:
                self.counters.refused += 1
                text = f"broker {self._where} refuses to subscribe {name!r}: {reason}; check its access rules"
                self._log.limited("error", "mqtt", f"subscribe {name}", text)

    def _on_disconnect(self, _flags: Any, reason: ReasonCode, _properties: object) -> None:
        if reason.value == _TAKEN_OVER:
            self._lost(f"{_OTHER_CLIENT}{self._config.client_id!r} has connected; {_OWN_ID}")
        elif not self.connected:
            self._lost(self._early())
        else:
            self._lost(f"connection lost ({reason})")

    def _on_message(self, message: paho.MQTTMessage) -> None:
        self.counters.received += 1
        self.counters.received_bytes += len(message.payload)
        try:
            topic = message.topic
        except UnicodeDecodeError:
            # Acknowledged, or the broker would wait for it for ever; a route cannot match it.
            self._bad_by_paho += 1
            self.counters.bad_topics += 1
            topic = ""
        self._waiting += 1
        self._inbox.append(
            Delivery(
                topic, bytes(message.payload), message.qos, message.retain, self._arrival.next_ns(),
                message.mid, self.epoch, message.dup,
            )
        )  # fmt: skip

    def _on_publish(self, mid: int, reason: ReasonCode, _properties: object) -> None:
        key = self._sure.pop(mid, None)
        if key is None:
            self._unsent = max(0, self._unsent - 1)
            return
        if reason.is_failure:
            # A refusal is final (access rules, quota): sending it again would get the same answer.
            self.counters.refused += 1
            text = f"broker {self._where} refuses an event: {reason}; check its access rules"
            self._log.limited("error", "mqtt", f"publish {reason}", text)
        self._delivered.append(key)


def _length(size: int) -> bytes:
    """A packet's length as MQTT writes it: seven bits a byte, lowest first."""
    found = bytearray()
    while size > 127:
        found.append(size & 127 | 128)
        size >>= 7
    found.append(size)
    return bytes(found)


def account_advice(config: MqttConfig) -> str:
    """What to do about an account that a broker refuses."""
    if config.username is None:
        return "set mqtt.username and mqtt.password_file"
    if config.password is None:
        return "set mqtt.password_file or mqtt.password_env"
    return "correct the name or the password, or add the account at the broker"


def _explain(error: Exception, *, tls: bool) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message}); set mqtt.tls.ca to its authority"
    tls_port = "is mqtt.port the broker's TLS port?"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason or error}); {tls_port}"
    if isinstance(error, socket.gaierror):
        return f"unknown host ({error.strerror})"
    if isinstance(error, TimeoutError):
        return f"no answer (timeout){f'; with [mqtt.tls] set, {tls_port}' if tls else ''}"
    if tls and isinstance(error, ConnectionResetError | ConnectionAbortedError | BrokenPipeError):
        why = f"the broker hung up on TLS ({error.strerror or error})"
        return f"{why}; {tls_port} If it has none, remove [mqtt.tls]"
    if isinstance(error, OSError):
        return f"cannot connect ({error.strerror or error})"
    return f"cannot connect ({error!r})"
