"""Sparkplug B: metrics by name, or by an alias that a birth has given them.

Topics are `spBv1.0/<group>/<type>/<node>[/<device>]`.

A channel's `path` is a metric's name. One decoder follows all edge nodes of its route:

* NBIRTH and DBIRTH name all metrics with alias, data type and present value: names and types are kept, the
  values are readings. NDATA and DDATA bring what has changed, by alias or name;
* NDEATH forgets the node's births (unless its bdSeq is that of an older session), DDEATH the device's. What
  comes from them before the next birth is refused; that nothing comes is for the stream's `silent_after` to
  say;
* an alias or a type that no birth has told (this daemon started later than the node), or a gap in the
  sequence number `seq` (0 to 255, over all messages of a node), asks the node for a rebirth (`rebirth`): a
  command on `spBv1.0/<group>/NCMD/<node>`, at most one a node in 30 s of arrival time. After a gap the
  readings are taken all the same: an alias keeps its meaning until the next birth.

A payload is one reading, with the payload's time. If it holds a metric more than once (a node that was
offline sends what it kept, as "historical"), each metric counts at its own time: readings older than what the
stream has seen are late and dropped, as everywhere. What is known of births is not part of the streams'
state: after a restart the rebirth brings it back.

Topics end in `/#` to see nodes and devices alike: the device then is one more level of the stream's id.
"""

from __future__ import annotations

from edge_rnn.errors import ConfigError, DecodeError
from edge_rnn.service.codecs.base import MAX_BYTES, Decoder, Field, TimeField, in_order, substream
from edge_rnn.service.codecs.sparkplug_payload import Metric, Payload, payload_reader
from edge_rnn.stream.types import Message

MAX_NODES = 1000
MAX_KEPT = 100_000
MAX_REQUESTS = 100
_PAUSE_NS = 30 * 10**9
_MS = 10**6
_DATA = ("NBIRTH", "NDATA", "DBIRTH", "DDATA")
_COMMANDS = ("NCMD", "DCMD", "STATE")


class _Node:
    """What the births of one edge node have told: per device ("" is the node itself) its wanted metrics."""

    __slots__ = ("asked_ns", "bd_seq", "born", "names", "seq", "types")

    def __init__(self) -> None:
        self.names: dict[int, tuple[str, str]] = {}
        self.types: dict[tuple[str, str], int] = {}
        self.born: set[str] = set()
        self.seq: int | None = None
        self.bd_seq: int | None = None
        self.asked_ns: int | None = None

    def forget(self, device: str | None) -> None:
        """Forget one device's birth, or with None everything."""
        if device is None:
            self.names.clear()
            self.types.clear()
            self.born.clear()
            self.seq = None
            return
        self.names = {alias: at for alias, at in self.names.items() if at[0] != device}
        self.types = {at: kind for at, kind in self.types.items() if at[0] != device}
        self.born.discard(device)


class SparkplugDecoder(Decoder):
    """See the module.

    Args:
        rebirth: whether to ask for births.
        tail: whether the topic ends in `/#`, so that the device is a level to add to the stream's id.
    """

    def __init__(
        self,
        fields: tuple[Field, ...],
        time: TimeField | None = None,
        max_bytes: int = MAX_BYTES,
        *,
        rebirth: bool = True,
        tail: bool = False,
    ) -> None:
        super().__init__(fields, time, max_bytes)
        if time is not None:
            raise ConfigError("format sparkplug: its payloads carry their times; remove 'time'")
        self._read, self._request = payload_reader()
        self._places = {field.path: place for place, field in enumerate(fields)}
        self._rebirth = rebirth
        self._tail = tail
        self._nodes: dict[tuple[str, str], _Node] = {}

    def _messages(self, topic: str, payload: bytes, stream: str, arrival_ns: int, /) -> list[Message]:
        levels = topic.split("/")
        if not 4 <= len(levels) <= 5:
            raise DecodeError("expected a topic spBv1.0/<group>/<type>/<node> or .../<node>/<device>")
        kind, device = levels[2], levels[4] if len(levels) == 5 else ""
        if kind in _COMMANDS:
            return []
        known = (levels[1], levels[3])
        body = self._read(payload)
        node = self._node(known)
        if kind in ("NDEATH", "DDEATH"):
            self._die(node, kind, device, body)
            return []
        if kind not in _DATA or (kind[0] == "D") != bool(device):
            raise DecodeError(
                f"expected a message of type {', '.join(_DATA)}, NDEATH or DDEATH, got {kind[:20]!a}"
            )
        if kind == "NBIRTH":
            node.forget(None)
            node.bd_seq = _bd_seq(body)
        # Without the node's own messages in sight, numbers are missing all the time.
        missed = self._missed(node, body.seq) and self._tail
        if kind.endswith("BIRTH"):
            self._born(node, device, body.metrics)
        if missed:
            self._ask(known, levels[0], node, arrival_ns)
        rows, unknown = self._rows(node, device, body, arrival_ns)
        if unknown and not missed:
            self._ask(known, levels[0], node, arrival_ns)
        if unknown and device not in node.born:
            raise DecodeError(
                f"expected a birth of this {'device' if device else 'node'} before its data, got none yet"
            )
        if device and self._tail:
            stream = substream(stream, [device])
        messages: list[Message] = []
        for time_ns, row in rows.items():
            messages += self._message(stream, row, time_ns)
        return in_order(messages)

    def _node(self, known: tuple[str, str]) -> _Node:
        node = self._nodes.pop(known, None) or _Node()
        # Newest last: the one unheard of for longest goes when there are too many.
        self._nodes[known] = node
        if len(self._nodes) > MAX_NODES:
            del self._nodes[next(iter(self._nodes))]
        return node

    @staticmethod
    def _die(node: _Node, kind: str, device: str, body: Payload) -> None:
        if kind == "DDEATH":
            node.forget(device)
            node.seq = None if body.seq is None else body.seq
            return
        told = _bd_seq(body)
        if told is None or node.bd_seq is None or told == node.bd_seq:
            node.forget(None)

    @staticmethod
    def _missed(node: _Node, seq: int | None) -> bool:
        """Whether messages of this node are missing before the one with `seq`."""
        before, node.seq = node.seq, seq
        return before is not None and seq is not None and seq not in (before, (before + 1) % 256)

    def _born(self, node: _Node, device: str, metrics: list[Metric]) -> None:
        node.forget(device)
        node.born.add(device)
        for metric in metrics:
            if metric.name is None:
                continue
            if metric.name in self._places:
                node.types[device, metric.name] = metric.datatype
                if metric.alias is not None:
                    node.names[metric.alias] = (device, metric.name)
        # Only what is asked for is kept, so that births of large plants, or invented ones, do not fill the
        # memory.
        kept = sum(len(one.names) + len(one.born) for one in self._nodes.values())
        while kept > MAX_KEPT:
            oldest = self._nodes.pop(next(iter(self._nodes)))
            kept -= len(oldest.names) + len(oldest.born)

    def _rows(
        self, node: _Node, device: str, body: Payload, arrival_ns: int
    ) -> tuple[dict[int, list[float | None]], bool]:
        """Values by time; and whether a metric was left out because no birth has told what it is."""
        found: list[tuple[int, float, int | None]] = []
        unknown = False
        for metric in body.metrics:
            name = metric.name
            if name is None:
                at = None if metric.alias is None else node.names.get(metric.alias)
                if at is None or at[0] != device:
                    unknown = unknown or device not in node.born
                    continue
                name = at[1]
            place = self._places.get(name)
            if place is None or metric.null:
                continue
            datatype = metric.datatype or node.types.get((device, name), 0)
            if not datatype and metric.kind in ("int_value", "long_value"):
                unknown = True
                continue
            found.append((place, metric.number(datatype, name[:80]), metric.time_ms))
        whole = _moment(body.time_ms, arrival_ns)
        apart = len({place for place, _, _ in found}) < len(found)
        rows: dict[int, list[float | None]] = {}
        for place, value, time_ms in found:
            time_ns = _moment(time_ms, whole) if apart else whole
            rows.setdefault(time_ns, [None] * len(self.fields))[place] = value
        return rows, unknown

    def _ask(self, known: tuple[str, str], namespace: str, node: _Node, arrival_ns: int) -> None:
        """Ask the node for a rebirth, if that has not been done just now."""
        recently = node.asked_ns is not None and 0 <= arrival_ns - node.asked_ns < _PAUSE_NS
        if not self._rebirth or recently or len(self.requests) >= MAX_REQUESTS:
            return
        node.asked_ns = arrival_ns
        self.requests.append((f"{namespace}/{known[0]}/NCMD/{known[1]}", self._request(arrival_ns // _MS)))


def _moment(time_ms: int | None, otherwise_ns: int) -> int:
    if time_ms is None:
        return otherwise_ns
    if time_ms * _MS >= 2**63:
        raise DecodeError("timestamp: expected milliseconds since 1970, before 2262")
    return time_ms * _MS


def _bd_seq(body: Payload) -> int | None:
    for metric in body.metrics:
        if metric.name == "bdSeq" and metric.kind in ("int_value", "long_value"):
            return int(metric.value)
    return None
