"""paho's client, reading and writing many packets at a time.

paho reads a packet in three or more system calls, builds objects and takes locks for each; that is most of
what a message costs. `BatchClient` receives what the socket has in one call and takes PUBLISH packets of QoS
0 and 1 out of it. **All other bytes are still paho's to judge**: its own parser is given them through its own
receive function. That holds for every other kind of packet, for a PUBLISH whose end has not come yet, and for
one that is malformed in any way (a topic longer than the packet, QoS 3, a length of five bytes, bad
properties), so errors are paho's errors. What is taken and what is handed over leave in the order of arrival.

An MQTT 3.1.1 broker cannot be told how large a packet may be. A PUBLISH far beyond `max_payload` is read past
without being kept: it is delivered with the first bytes of its payload, one more than a decoder accepts, so
it is refused, counted and acknowledged like any payload that is too large.

On the way out, `write_batch` puts packets that are joined already (acknowledgements, publications of QoS 0)
in paho's queue as one entry: one system call for all of them. They are declared as an acknowledgement, which
is the kind of packet after whose writing paho does nothing more.

This leans on names of paho that are not public. `probe` tries them on a socket pair with packets cut in all
places; if anything is different from what is expected, the reason is returned and the stock client is used.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge_rnn.service.delivery import Delivery

if TYPE_CHECKING:
    from edge_rnn.service.wire.sources import Sources
    from edge_rnn.service.wire.swath import Arrived

RECEIVE: Final = 1 << 17
"""Most bytes of one receive call, so an inbox never grows by more packets than fit in there."""
CHUNK: Final = 1 << 16
_HEAD_ROOM: Final = 70_000
_SHORT: Final = 1024
# Room for what is left of a packet when the next bytes come: less than a short one.
_REST: Final = 2048
_TOPICS: Final = 65_536
_PROPERTIES: Final = 256
_PUBACK: Final = 0x40
_NEEDED: Final = (
    "_in_packet", "_packet_read", "_loop_rc_handle", "_packet_queue", "_out_packet", "_sock",
    "_msgtime_mutex", "_protocol", "_last_msg_out",
)  # fmt: skip
# What paho's keepalive looks at, in its versions.
_HEARD: Final = ("_last_bytes_received", "_last_msg_in")


class Times(Protocol):
    """Gives times of arrival; see `clock.Arrival`."""

    def next_ns(self) -> int:
        """The moment now, later than every one before."""

    def skip(self, count: int) -> None:
        """So many nanoseconds after the latest one are taken, too."""


class _Wall:
    def next_ns(self) -> int:
        return time.time_ns()

    def skip(self, count: int) -> None:
        pass


class BatchClient(paho.Client):
    """See the module. `batched` takes the messages of one receive call, in order.

    Attributes:
        batched: called with what was taken, before anything later is handed to paho.
        arrival: gives times of arrival; messages of one receive call are 1 ns apart.
        epoch: goes into each `Delivery`.
        max_payload: a larger one is cut, see the module.
        oversized, bad_topics: counts.
        drained: the last receive call left nothing behind it, for all one can know.
        sources: takes usual messages as columns; None takes them one by one.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.batched: Callable[[list[Arrived]], None] = lambda _messages: None
        self.arrival: Times = _Wall()
        self.epoch = 0
        self.max_payload = 1 << 28
        self.oversized = 0
        self.bad_topics = 0
        self.drained = False
        self.sources: Sources | None = None
        buffer = np.zeros(RECEIVE + _REST, np.uint8)
        self._view, self._address = memoryview(buffer.data), buffer.ctypes.data
        self._data = b""
        self._at = 0
        self._rest = b""
        self._skip = 0
        self._head = bytearray()
        self._names: dict[bytes, str] = {}
        self._good_properties: set[bytes] = set()
        super().__init__(*arguments, **options)
        self._heard = next((name for name in _HEARD if hasattr(self, name)), "")

    def reconnect(self) -> MQTTErrorCode:
        """As paho's; what was left of the last connection is forgotten."""
        self._data, self._at, self._rest, self._skip = b"", 0, b"", 0
        self._head.clear()
        return super().reconnect()

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:
        """Receive once, and deal with all whole packets in it."""
        del max_packets
        if self._sock is None:
            return MQTTErrorCode.MQTT_ERR_NO_CONN
        rest, view = len(self._rest), self._view
        view[:rest] = self._rest
        stream: Any = self._sock
        plain = type(stream) is socket.socket
        try:
            if plain:
                size = stream.recv_into(view[rest : rest + RECEIVE])
            else:
                # TLS: paho knows what its answers mean.
                data = super()._sock_recv(RECEIVE)
                size = len(data)
                view[rest : rest + size] = data
        except BlockingIOError:
            return MQTTErrorCode.MQTT_ERR_SUCCESS
        except OSError:
            return self._loop_rc_handle(MQTTErrorCode.MQTT_ERR_CONN_LOST)
        if not size:
            return self._loop_rc_handle(MQTTErrorCode.MQTT_ERR_CONN_LOST)
        self.drained = plain and size < RECEIVE
        with self._msgtime_mutex:
            setattr(self, self._heard, time.monotonic())
        rc = self._take(rest + size)
        return self._loop_rc_handle(MQTTErrorCode(rc)) if rc > 0 else MQTTErrorCode.MQTT_ERR_SUCCESS

    def write_batch(self, data: bytes | memoryview) -> int:
        """Write whole packets as far as the socket takes them and queue the rest; paho's return code.

        Behind what waits already they wait, too, and in order. `data` may be used again afterwards.
        """
        stream = self._sock
        if not self._out_packet and type(stream) is socket.socket:
            try:
                sent = stream.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                return int(self._loop_rc_handle(MQTTErrorCode.MQTT_ERR_CONN_LOST))
            if sent:
                with self._msgtime_mutex:
                    self._last_msg_out = time.monotonic()
            if sent == len(data):
                return 0
            data = data[sent:]
        data = bytes(data)
        rc = 0
        # A part that is not written at once is copied at every further attempt: keep the parts small.
        for at in range(0, len(data), CHUNK):
            rc = int(self._packet_queue(_PUBACK, data[at : at + CHUNK], 0, 1))
        return rc

    def unsent(self) -> int:
        """Bytes in paho's queue that are not written yet."""
        return sum(entry["to_process"] for entry in self._out_packet) if self._out_packet else 0

    def is_behind(self, limit: int) -> bool:
        """Whether more than `limit` bytes are not written yet."""
        queue = self._out_packet
        # No packet of a batch is longer than a chunk; so few need no count.
        return len(queue) * CHUNK > limit and self.unsent() > limit

    # paho's parser asks this for its bytes.
    def _sock_recv(self, bufsize: int) -> bytes:
        at = self._at
        found = self._data[at : at + bufsize]
        if not found:
            raise BlockingIOError
        self._at = at + len(found)
        return found

    def _hand_over(self, data: bytes, at: int) -> tuple[int, int]:
        """Let paho read a packet, or its beginning, from `data[at:]`: its error or 0, and where it ended."""
        self._data, self._at = data, at
        try:
            rc = int(self._packet_read())
            return max(rc, 0), self._at
        finally:
            self._data = b""

    def _take(self, end: int) -> int:
        """All packets in the buffer up to `end`; the return code of what ended the connection, else 0."""
        self._rest = b""
        found: list[Arrived] = []
        at = first = taken = 0
        if self.sources is not None and not (self._in_packet["command"] or self._skip):
            first, most = self.arrival.next_ns(), self.max_payload + _HEAD_ROOM
            swath = self.sources.take(self._view, self._address, end, 0, most, first, self.epoch)
            if swath is not None:
                found.append(swath)
                at, taken = swath.stop, swath.count
            if at == end:
                self._flush(found, taken)
                return 0
        return self._split(bytes(self._view[:end]), at, found, first, taken)

    def _split(self, data: bytes, at: int, found: list[Arrived], first: int, taken: int) -> int:
        """`_take` from `at` on: what was found before, the first one's time of arrival, how many they are."""
        end = len(data)
        # A packet that paho has begun is paho's to finish.
        while at < end and (self._in_packet["command"] or self._skip):
            if self._skip:
                at = self._pass_over(data, at)
                continue
            rc, at = self._hand_over(data, at)
            if rc or self._sock is None:
                return rc
        five = self._protocol == MQTTProtocolVersion.MQTTv5
        most, names, good, epoch = (
            self.max_payload + _HEAD_ROOM,
            self._names,
            self._good_properties,
            self.epoch,
        )
        append, new, sources, tried = found.append, tuple.__new__, self.sources, at
        while at < end:
            if sources is not None and at != tried:
                if not first:
                    first = self.arrival.next_ns()
                swath = sources.take(self._view, self._address, end, at, most, first + taken, epoch)
                if swath is not None:
                    at = swath.stop
                    taken += swath.count
                    found.append(swath)
                    if at >= end:
                        break
            header = data[at]
            begin = at + 2
            size = data[at + 1] if begin <= end else -1
            if size > 127:
                size &= 127
                shift = 7
                while True:
                    if begin >= end or shift > 21:
                        size = -1 if begin >= end else -2
                        break
                    byte = data[begin]
                    begin += 1
                    size |= (byte & 127) << shift
                    shift += 7
                    if byte < 128:
                        break
            stop = begin + size
            if size == -1:
                self._rest = data[at:]
                break
            if not header and size >= 0:
                # No such packet; and paho, which takes a 0 for "nothing read yet", would lose its place.
                if stop <= end or size > _SHORT:
                    self._flush(found, taken)
                    return int(MQTTErrorCode.MQTT_ERR_PROTOCOL)
                self._rest = data[at:]
                break
            # 0x30 to 0x3B without QoS 2: bits 1 and 2 are the QoS.
            if header & 0xF4 == 0x30:
                if size > most:
                    self._skip = stop - at
                    self._flush(found, taken)
                    found, first, taken = [], 0, 0
                    append = found.append
                    at = self._pass_over(data, at)
                    continue
                if size > 2 and stop <= end:
                    body = begin + 2 + (data[begin] << 8 | data[begin + 1])
                    name = data[begin + 2 : body]
                    mid = 0
                    fits = True
                    if header & 2:
                        if body + 2 <= stop:
                            mid = data[body] << 8 | data[body + 1]
                        body += 2
                    if five:
                        if body < stop:
                            length = data[body]
                            body += 1
                            if length:
                                fits = length < 128 and body + length <= stop
                                if fits and data[body : body + length] not in good:
                                    fits = self._accepts(data[body - 1 : body + length])
                                body += length
                        else:
                            fits = False
                    if fits and body <= stop and (name or five):
                        topic = names.get(name)
                        if topic is None:
                            topic = self._name(name)
                        if not first:
                            first = self.arrival.next_ns()
                        now = first + taken
                        taken += 1
                        qos, kept, again = header >> 1 & 1, header & 1 == 1, header & 8 == 8
                        append(new(Delivery, (topic, data[body:stop], qos, kept, now, mid, epoch, again)))
                        at = stop
                        continue
            self._flush(found, taken)
            # The time, too, where nothing was found: paho's message gets a later one.
            found, first, taken = [], 0, 0
            append = found.append
            rc, at = self._hand_over(data, at)
            if rc:
                return rc
            # A callback may have closed the connection.
            if self._sock is None:
                return 0
            # Or it was the answer to CONNECT: what a kept session brings comes in the same read.
            epoch = self.epoch
        self._flush(found, taken)
        return 0

    def _flush(self, found: list[Arrived], taken: int) -> None:
        if found:
            self.arrival.skip(taken - 1)
            self.batched(found)

    def _name(self, raw: bytes) -> str:
        """The topic as text; empty, and counted, where it is none: no route matches it."""
        try:
            topic = raw.decode()
        except UnicodeDecodeError:
            self.bad_topics += 1
            return ""
        if len(raw) <= 512:
            if len(self._names) >= _TOPICS:
                self._names.clear()
            self._names[raw] = topic
        return topic

    def _accepts(self, block: bytes) -> bool:
        """Whether paho accepts these properties (length first); a device sends the same ones always."""
        try:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            _, used = properties.unpack(block)  # type: ignore[no-untyped-call]
        except Exception:  # noqa: BLE001 - whatever is wrong with them, paho shall say it
            return False
        if used != len(block):
            return False
        if len(self._good_properties) >= _PROPERTIES:
            self._good_properties.clear()
        self._good_properties.add(block[1:])
        return True

    def _pass_over(self, data: bytes, at: int) -> int:
        """Read past a PUBLISH that is too large; its beginning is kept, and delivered at its end."""
        piece = data[at : at + self._skip]
        room = self.max_payload + _HEAD_ROOM + 6 - len(self._head)
        if room > 0:
            self._head += piece[:room]
        self._skip -= len(piece)
        if not self._skip:
            head = bytes(self._head)
            self._head.clear()
            self.oversized += 1
            begin = 2
            while head[begin - 1] > 127:
                begin += 1
            name = head[begin + 2 : begin + 2 + (head[begin] << 8 | head[begin + 1])]
            body = begin + 2 + len(name)
            mid = 0
            if head[0] & 2:
                mid = head[body] << 8 | head[body + 1]
                body += 2
            # Properties, if there are any, are left in: nothing of this payload is used.
            message = Delivery(
                self._name(name), head[body : body + self.max_payload + 1], head[0] >> 1 & 1,
                head[0] & 1 == 1, self.arrival.next_ns(), mid, self.epoch, head[0] & 8 == 8,
            )  # fmt: skip
            self.batched([message])
        return at + len(piece)


def _canned(five: bool) -> tuple[bytes, list[Delivery], list[bytes]]:
    """A stream of packets, what must come out of it in batches, and what paho must get."""
    none = b"\0" if five else b""
    one = b"\x31" + bytes([5 + len(none)]) + b"\0\1a" + none + b"xy"
    two = b"\x3a" + bytes([6 + len(none)]) + b"\0\1b\1\2" + none + b"z"
    # QoS 2 is paho's: it answers with PUBREC.
    other = b"\x34" + bytes([6 + len(none)]) + b"\0\1c\0\7" + none + b"w"
    first = Delivery("a", b"xy", 0, retained=True, arrival_ns=0, mid=0, epoch=3)
    second = Delivery("b", b"z", 1, retained=False, arrival_ns=0, mid=0x102, epoch=3, dup=True)
    expected = [first, second, first]
    return one + two + other + one, expected, [b"\x50\x02\0\7"]


@functools.cache
def probe(protocol: int, base: type = BatchClient) -> str:
    """Why reading in batches cannot be used with this paho; empty if it can."""
    try:
        return _tried(protocol, base)
    except Exception as error:  # noqa: BLE001 - an unknown paho may do anything; the answer is the same
        return f"a trial failed ({error!r:.120})"


def _plain(base: type, protocol: int = 4) -> Any:
    return base(
        CallbackAPIVersion.VERSION2,
        client_id="probe",
        protocol=MQTTProtocolVersion(protocol),
        manual_ack=True,
        reconnect_on_failure=False,
    )


def _tried(protocol: int, base: type) -> str:
    stream, expected, answers = _canned(protocol == MQTTProtocolVersion.MQTTv5)
    for cut in range(1, len(stream) + 1):
        client = _plain(base, protocol)
        for name in _NEEDED:
            if not hasattr(client, name):
                return f"this paho has no {name}"
        if not client._heard:
            return f"this paho has no {_HEARD[0]}"
        here, there = socket.socketpair()
        try:
            here.settimeout(0)
            there.settimeout(1)
            got: list[Delivery] = []
            by_paho: list[Delivery] = []
            client.batched = got.extend
            client.on_message = lambda _c, _u, m, to=by_paho: to.append(
                Delivery(m.topic, bytes(m.payload), m.qos, bool(m.retain), 0, m.mid, 3, bool(m.dup))
            )
            client.epoch = 3
            client._sock = here
            for at in range(0, len(stream), cut):
                there.sendall(stream[at : at + cut])
                if client.loop_read() != MQTTErrorCode.MQTT_ERR_SUCCESS:
                    return "a packet was refused"
            # A packet in pieces goes through paho, so both ways together must give all, each in order.
            seen = [message._replace(arrival_ns=0) for message in got] + by_paho
            if sorted(seen) != sorted(expected) or (cut == len(stream) and by_paho):
                return "packets were read wrongly"
            client.write_batch(b"\x40\x02\0\1\x40\x02\0\2")
            written = b"".join([*answers, b"\x40\x02\0\1\x40\x02\0\2"])
            if there.recv(64) != written or client.unsent():
                return "packets were written wrongly"
        finally:
            client._sock = None
            for end in (here, there):
                with contextlib.suppress(OSError):
                    end.close()
    return ""
