"""The Sparkplug B payload (protobuf): the fields a reader of metrics needs, and the request for a rebirth.

The message types are described here, field numbers as in the specification (Sparkplug 3.0, 6.4); what is not
named (data sets, templates, properties) is skipped by the parser. The `protobuf` package (extra `sparkplug`)
does the reading: one wheel of 0.35 MB without dependencies, against a parser of our own to keep safe.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from edge_rnn.errors import ConfigError, DecodeError

REBIRTH = "Node Control/Rebirth"
_OPTIONAL = 1
_REPEATED = 3
# Types of protobuf's descriptor: double, float, uint64, message, uint32, bool, string.
_DOUBLE, _FLOAT, _UINT64, _BOOL, _STRING, _MESSAGE, _UINT32 = 1, 2, 4, 8, 9, 11, 13
_METRIC = (
    ("name", 1, _STRING), ("alias", 2, _UINT64), ("timestamp", 3, _UINT64), ("datatype", 4, _UINT32),
    ("is_historical", 5, _BOOL), ("is_null", 7, _BOOL),
)  # fmt: skip
_VALUE = (
    ("int_value", 10, _UINT32), ("long_value", 11, _UINT64), ("float_value", 12, _FLOAT),
    ("double_value", 13, _DOUBLE), ("boolean_value", 14, _BOOL), ("string_value", 15, _STRING),
)  # fmt: skip
# Data types 1 to 4 are signed, of so many bits; 5 to 8 and 13 (a time) unsigned, 9 and 10 floats, 11 boolean.
_SIGNED = {1: 8, 2: 16, 3: 32, 4: 64}


class Metric(NamedTuple):
    """One metric; absent fields are None. `kind` names the value's field, or is empty where there is none."""

    name: str | None
    alias: int | None
    time_ms: int | None
    datatype: int
    null: bool
    kind: str
    value: Any

    def number(self, datatype: int, name: str) -> float:
        """The value as float64, an integer read as `datatype` says; `DecodeError` if it is no number."""
        if self.kind in ("float_value", "double_value"):
            return float(self.value)
        if self.kind not in ("int_value", "long_value"):
            raise DecodeError(
                f"{name}: expected a number, got {self.kind.removesuffix('_value') or 'another type'}"
            )
        bits = _SIGNED.get(datatype, 0)
        value = int(self.value)
        if not bits:
            return float(value)
        # Negative numbers stand there as the unsigned number with the same bits, of 32 or of their own width.
        value &= (1 << bits) - 1
        return float(value - (1 << bits) if value >> (bits - 1) else value)


class Payload(NamedTuple):
    """One payload; absent fields are None."""

    time_ms: int | None
    seq: int | None
    metrics: list[Metric]


def payload_reader() -> tuple[Callable[[bytes], Payload], Callable[[int], bytes]]:
    """What reads a payload, and what writes a request for a rebirth at a time in ms.

    Raises:
        ConfigError: the package protobuf is not installed.
    """
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory
    except ImportError:
        raise ConfigError(
            "format sparkplug: expected the package protobuf, got none; install it: pip install "
            "'edge-rnn[sparkplug]'"
        ) from None
    file = descriptor_pb2.FileDescriptorProto(
        name="edge_rnn_sparkplug.proto", package="edge_rnn", syntax="proto2"
    )
    metric = file.message_type.add(name="Metric")
    metric.oneof_decl.add(name="value")
    for name, number, kind in _METRIC:
        metric.field.add(name=name, number=number, type=kind, label=_OPTIONAL)
    for name, number, kind in _VALUE:
        metric.field.add(name=name, number=number, type=kind, label=_OPTIONAL, oneof_index=0)
    body = file.message_type.add(name="Payload")
    body.field.add(name="timestamp", number=1, type=_UINT64, label=_OPTIONAL)
    body.field.add(name="metrics", number=2, type=_MESSAGE, label=_REPEATED, type_name=".edge_rnn.Metric")
    body.field.add(name="seq", number=3, type=_UINT64, label=_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    kind_of_payload: Any = message_factory.GetMessageClass(pool.FindMessageTypeByName("edge_rnn.Payload"))

    def read(data: bytes) -> Payload:
        try:
            found = kind_of_payload.FromString(data)
            return Payload(
                time_ms=found.timestamp if found.HasField("timestamp") else None,
                seq=found.seq if found.HasField("seq") else None,
                metrics=[_metric(one) for one in found.metrics],
            )
        except (message.DecodeError, UnicodeDecodeError, ValueError) as error:
            raise DecodeError(
                f"expected a Sparkplug B payload, got something else ({str(error)[:60]})"
            ) from None

    def rebirth(time_ms: int) -> bytes:
        request = kind_of_payload(timestamp=time_ms)
        request.metrics.add(name=REBIRTH, timestamp=time_ms, datatype=11, boolean_value=True)
        return bytes(request.SerializeToString())

    return read, rebirth


def _metric(one: Any) -> Metric:
    kind = one.WhichOneof("value") or ""
    return Metric(
        name=one.name if one.HasField("name") else None,
        alias=one.alias if one.HasField("alias") else None,
        time_ms=one.timestamp if one.HasField("timestamp") else None,
        datatype=one.datatype,
        null=one.is_null,
        kind=kind,
        value=getattr(one, kind) if kind else None,
    )
