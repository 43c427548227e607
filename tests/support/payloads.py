"""Hostile payloads over all formats: mutants of good ones, for fuzzing decoders.

    for case in hostile(n=1_000_000, seed=1):
        case.decoder.decode(case.topic, case.payload, "group/key", ARRIVAL_NS)

may raise `DecodeError` and nothing else, gives messages that the engine takes, and each in bounded time.
"""

from __future__ import annotations

import json
import math
import random
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec

from edge_rnn.service.codec import Decoder, Field, TimeField, decoder
from edge_rnn.stream.types import Message

ARRIVAL_NS = 1_700_000_000_000_000_000
TOKENS = (
    b"NaN",
    b"Infinity",
    b"1e999",
    b"9" * 400,
    b"[" * 300,
    b"{" * 50,
    b"null",
    b"true",
    b'"',
    b"\\u0000",
    b"-",
    b",",
    b";",
    b"\t",
    b"\n",
    b"\x00",
    b"\xff",
    "١".encode(),
    b"1_0",
    b"e",
    b".",
    b"0x",
    b"inf",
    b"]",
    b"}",
    b":",
    b"Z",
    b'"bver":11',
    b'"x_":1',
    b"\xc1",
    b"\xd8\x1c",
    b"\xd8\x1d\x00",
    b"\x9f",
    b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x81" * 100,
    b"\xf9\x7e\x00",
    b"\xfb\x7f\xf0\x00\x00\x00\x00\x00\x00",
    b"\x12\xff\xff\xff\xff\x0f",
    b"\xc7\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\x7f\xf0\x00\x00",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80",
)


@dataclass(frozen=True)
class Case:
    """One payload of one format."""

    name: str
    decoder: Decoder
    topic: str
    payload: bytes


@dataclass(frozen=True)
class Seed:
    """A decoder and good payloads for it, each with its topic."""

    decoder: Decoder
    payloads: tuple[tuple[str, bytes], ...]


def mutate(data: bytes, source: random.Random) -> bytes:
    """One to four changes: tokens, cuts, flips, repeats."""
    out = bytearray(data)
    for _ in range(source.randint(1, 4)):
        at = source.randrange(len(out) + 1)
        match source.randrange(6):
            case 0:
                out[at:at] = source.choice(TOKENS)
            case 1:
                del out[at : at + source.randint(1, 6)]
            case 2:
                out[at : at + 1] = bytes([source.randrange(256)])
            case 3:
                piece = out[at : at + source.randint(1, 12)]
                out[at:at] = piece * source.randint(1, 20)
            case 4:
                del out[at:]
            case _:
                if out:
                    spot = source.randrange(len(out))
                    out[spot] ^= 1 << source.randrange(8)
    return bytes(out)


def check(messages: list[Message]) -> None:
    """What every decoder promises of what it gives."""
    before = -1
    for message in messages:
        assert message.values
        assert {type(value) for value in message.values} == {float}
        assert len(message.channels) == len(message.values) == len(set(message.channels))
        assert type(message.time_ns) is int
        assert before <= message.time_ns < 2**63
        assert message.time_ns >= 0
        assert message.stream.startswith("press/a")
        assert len(message.stream.encode()) <= 1024
        before = message.time_ns


def metric(value: float | int | None = None, **fields: object) -> bytes:
    """One Sparkplug metric, written by hand: name, alias, timestamp, datatype, and a value by its type."""
    out = b""
    if "name" in fields:
        name = str(fields["name"]).encode()
        out += b"\x0a" + varint(len(name)) + name
    for label, tag in (
        ("alias", 0x10),
        ("timestamp", 0x18),
        ("datatype", 0x20),
        ("historical", 0x28),
        ("null", 0x38),
    ):
        if label in fields:
            out += bytes([tag]) + varint(int(fields[label]))  # type: ignore[call-overload]
    if type(value) is float:
        out += b"\x69" + struct.pack("<d", value)
    elif type(value) is bool:
        out += b"\x70" + varint(int(value))
    elif type(value) is int:
        out += b"\x50" + varint(value % 2**32)
    elif type(value) is str:
        out += b"\x7a" + varint(len(value)) + value.encode()
    return out


def sparkplug(*metrics: bytes, seq: int | None = 0, time_ms: int | None = 1_700_000_000_000) -> bytes:
    """A Sparkplug payload of metrics."""
    out = b"" if time_ms is None else b"\x08" + varint(time_ms)
    for one in metrics:
        out += b"\x12" + varint(len(one)) + one
    return out if seq is None else out + b"\x18" + varint(seq)


def varint(number: int) -> bytes:
    """Protobuf's variable-length integer."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(out) + bytes([number])


def cbor(value: object) -> bytes:
    """`value` as CBOR."""
    import cbor2

    return bytes(cbor2.dumps(value))


DOCUMENT = {"ts": 1_763_700_000.125, "v": {"rms": -1.5e-3, "unit": "g"}, "w": [12, None, True]}
BATCH = {
    "id": "pump/7",
    "r": [{"ts": 1_763_700_002, "rms": 1.5, "t": 3}, {"ts": 1_763_700_001, "rms": 2, "t": None}],
}
PACK = [
    {
        "bn": "urn:dev:ow:10e2073a0108006:",
        "bt": 1.276020076001e9,
        "bu": "A",
        "bver": 5,
        "n": "voltage",
        "u": "V",
        "v": 120.1,
    },
    {"n": "current", "t": -5, "v": 1.2},
    {"n": "current", "t": -4, "v": 1.3},
    {"n": "current", "v": 1.7},
]


def seeds() -> Mapping[str, Seed]:
    """For every format, in its variants, a new decoder and good payloads."""
    plain = (Field(0, "v.rms"), Field(1, "w[0]"))
    time = TimeField("ts")
    topic = "plant/a"
    node, device = "spBv1.0/g/{}/n", "spBv1.0/g/{}/n/d"
    labels = {"bver": -1, "bn": -2, "bt": -3, "bu": -4, "bv": -5, "bs": -6, "n": 0, "u": 1, "v": 2, "t": 6}
    in_cbor = [{labels[name]: value for name, value in record.items()} for record in PACK]

    def seed(made: Decoder, *payloads: bytes) -> Seed:
        return Seed(made, tuple((topic, payload) for payload in payloads))

    def batch(format_: str) -> Decoder:
        fields = (Field(0, "rms"), Field(1, "t"))
        return decoder(format_, fields, time, each="r", key=("id",), partial=True)  # type: ignore[arg-type]

    return {
        "json": seed(
            decoder("json", plain, time),
            b'{"ts": 1763700000.125, "v": {"rms": -1.5e-3, "unit": "g"}, "w": [12, null, true]}',
            b'{"ts": "2026-01-31T12:00:00.123456789+02:00", "v": {"rms": NaN}, "w": [1]}',
            json.dumps({"ts": 1763700000123, "v": {"rms": 1e300}, "w": [[1]], "n": {"o": [{}]}}).encode(),
        ),
        "json quick": seed(
            decoder("json", (Field(0, "v.rms"), Field(1, "t")), time),
            b'{"ts": 1763700000.125, "v": {"rms": -1.5e-3, "unit": "g"}, "t": 12, "w": [{"x": "\\u00e9"}]}',
            b'{"t": 18446744073709551616, "v": {"rms": 1}, "ts": "2026-01-31T12:00:00Z"}',
        ),
        "json batch": seed(batch("json"), json.dumps(BATCH).encode(), b"{}"),
        "number": seed(decoder("number", (Field(0),)), b"-12.75e-3\r\n", b" nan ", b"+0.0", b"-Infinity"),
        "csv": seed(
            decoder("csv", (Field(0, column=1), Field(1, column=2)), TimeField(column=0)),
            b"1763700000,1.5,-2e3",
            b"2026-01-31 12:00:00;1.5;;x",
            b"1763700000123456789\tnan\t7\r\n",
        ),
        "csv lines": seed(
            decoder("csv", (Field(0, column=1),), TimeField(column=0), each="lines"),
            b"1763700002,1.5\n1763700001,-2e3\r\n\n1763700003,\n",
        ),
        "msgpack": seed(
            decoder("msgpack", plain, time),
            msgspec.msgpack.encode(DOCUMENT),
            msgspec.msgpack.encode({**DOCUMENT, "x": msgspec.msgpack.Ext(5, b"abc"), "y": b"\x00" * 20}),
        ),
        "msgpack batch": seed(batch("msgpack"), msgspec.msgpack.encode(BATCH)),
        "cbor": seed(decoder("cbor", plain, time), cbor(DOCUMENT), b"\xd9\xd9\xf7" + cbor(DOCUMENT)),
        "cbor batch": seed(batch("cbor"), cbor(BATCH)),
        "binary": seed(
            decoder(
                "binary",
                (Field(0, column=1), Field(1, column=3)),
                TimeField(column=0, unit="s"),
                layout="<Ihhf",
            ),
            struct.pack("<Ihhf", 1_763_700_000, -5, 7, 1.25),
            struct.pack("<Ihhf", 1_763_700_000, 5, 7, math.nan),
        ),
        "binary records": seed(
            decoder(
                "binary", (Field(0, column=1),), TimeField(column=0, unit="ms"), layout=">Qd", each="records"
            ),
            struct.pack(">QdQd", 1_763_700_000_002, 1.0, 1_763_700_000_001, 2.0),
        ),
        "senml": seed(
            decoder("senml", (Field(0, "voltage"), Field(1, "urn:dev:ow:10e2073a0108006:current"))),
            json.dumps(PACK).encode(),
            b'[{"n":"voltage","v":120.1}]',
            b'[{"bn":"d:","bv":20,"n":"voltage","s":4}]',
        ),
        "senml key": seed(
            decoder("senml", (Field(0, "voltage"), Field(1, "current")), key=("bn",)),
            json.dumps(PACK).encode(),
        ),
        "senml-cbor": seed(decoder("senml-cbor", (Field(0, "voltage"), Field(1, "current"))), cbor(in_cbor)),
        "sparkplug": Seed(
            decoder("sparkplug", (Field(0, "T"), Field(1, "Motor/Speed")), tail=True),
            (
                (
                    node.format("NBIRTH"),
                    sparkplug(
                        metric(0, name="bdSeq", datatype=8), metric(1.5, name="T", alias=1, datatype=10)
                    ),
                ),
                (node.format("NDATA"), sparkplug(metric(2.5, alias=1), seq=1)),
                (
                    device.format("DBIRTH"),
                    sparkplug(metric(-5, name="Motor/Speed", alias=7, datatype=3), seq=2),
                ),
                (
                    device.format("DDATA"),
                    sparkplug(metric(-6, alias=7, timestamp=5), metric(4, alias=7, timestamp=6), seq=3),
                ),
                (device.format("DDEATH"), sparkplug(seq=4)),
                (node.format("NDEATH"), sparkplug(metric(0, name="bdSeq", datatype=8), seq=None)),
                ("spBv1.0/g/NCMD/n", b"\x00"),
            ),
        ),
    }


def hostile(n: int, seed: int | str = 0, names: tuple[str, ...] = ()) -> Iterator[Case]:
    """`n` mutants over all formats (or those of `names`), the same for the same seed; decoders are kept."""
    source = random.Random(f"hostile {seed}")
    kinds = [(name, one) for name, one in seeds().items() if not names or name in names]
    for number in range(n):
        name, one = kinds[number % len(kinds)]
        topic, payload = one.payloads[number // len(kinds) % len(one.payloads)]
        # One in fifty as it is, so that decoders with a memory get on.
        yield Case(name, one.decoder, topic, mutate(payload, source) if source.randrange(50) else payload)
