"""MessagePack, CBOR, SenML, Sparkplug B, binary records, and several readings in one payload."""

from __future__ import annotations

import json
import math
import struct
import sys

import msgspec
import pytest

from edge_rnn.errors import ConfigError, DecodeError
from edge_rnn.service.codec import Decoder, Field, TimeField, decoder
from edge_rnn.stream.types import Message
from tests.support.payloads import cbor, metric, sparkplug

ARRIVAL = 1_700_000_000_000_000_000
S = 1_000_000_000


def read(made: Decoder, payload: bytes, topic: str = "t") -> list[Message]:
    return made.decode(topic, payload, "press/a", ARRIVAL)


def refused(made: Decoder, payload: bytes, topic: str = "t") -> str:
    with pytest.raises(DecodeError) as caught:
        made.decode(topic, payload, "press/a", ARRIVAL)
    assert str(caught.value).isprintable()
    return str(caught.value)


def rows(messages: list[Message]) -> list[tuple[int, dict[int, float]]]:
    return [(m.time_ns, dict(zip(m.channels, m.values, strict=True))) for m in messages]


ENCODE = {"json": lambda value: json.dumps(value).encode(), "msgpack": msgspec.msgpack.encode, "cbor": cbor}
DOCUMENTS = pytest.mark.parametrize("format_", sorted(ENCODE))


# ---- documents


@DOCUMENTS
def test_one_document_reads_the_same_in_every_format(format_) -> None:
    made = decoder(format_, (Field(0, "a.b[1]"), Field(2, "c")), TimeField("ts", unit="ms"))
    document = {"a": {"b": [0, 1.5]}, "c": -3, "ts": 1_700_000_000_123, "name": "x", "on": True}
    assert rows(read(made, ENCODE[format_](document))) == [(1_700_000_000_123_000_000, {0: 1.5, 2: -3.0})]
    missing = ENCODE[format_]({**document, "c": None})
    assert rows(read(made, missing)) == [(1_700_000_000_123_000_000, {0: 1.5})]


@DOCUMENTS
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (True, "expected a number, got a boolean"),
        ("1", "expected a number, got text"),
        ({}, "expected a number, got an object"),
        ([], "expected a number, got an array"),
    ],
)
def test_what_is_no_number_is_refused_in_every_format(format_, value, reason) -> None:
    made = decoder(format_, (Field(0, "a"), Field(1, "b")))
    assert reason in refused(made, ENCODE[format_]({"a": value, "b": 1}))
    assert "expected" in refused(made, ENCODE[format_]({"a": 1})[:-1])


@pytest.mark.parametrize("format_", ["msgpack", "cbor"])
def test_binary_documents_carry_nan_to_the_guard(format_) -> None:
    (message,) = read(decoder(format_, (Field(0, "a"),)), ENCODE[format_]({"a": math.nan}))
    assert math.isnan(message.values[0])


@DOCUMENTS
def test_an_array_of_readings_leaves_in_the_order_of_their_times(format_) -> None:
    made = decoder(format_, (Field(0, "v"),), TimeField("t", unit="s"), each="data.points")
    points = [{"t": 30, "v": 3}, {"t": 10, "v": 1}, {"t": 20, "v": None}, {"t": 25, "v": 2.5}]
    found = read(made, ENCODE[format_]({"data": {"points": points}}))
    assert rows(found) == [(10 * S, {0: 1.0}), (25 * S, {0: 2.5}), (30 * S, {0: 3.0})]
    assert "expected an array of readings at 'data.points'" in refused(made, ENCODE[format_]({"data": {}}))
    bad = [{"t": 1, "v": 1}, {"t": 2, "v": "x"}]
    assert "expected a number" in refused(made, ENCODE[format_]({"data": {"points": bad}}))


def test_an_array_can_be_the_document_and_its_elements_arrays() -> None:
    made = decoder("json", (Field(0, "[1]"), Field(1, "[2]")), TimeField("[0]", unit="ms"), each="$")
    assert rows(read(made, b"[[1000, 1, 2], [2000, 3, 4]]")) == [(S, {0: 1, 1: 2}), (2 * S, {0: 3, 1: 4})]


@DOCUMENTS
def test_a_sender_named_in_the_payload_is_part_of_the_stream(format_) -> None:
    made = decoder(format_, (Field(0, "v"),), key=("model", "id"))
    (message,) = read(made, ENCODE[format_]({"model": "Acme/TX#", "id": 34, "v": 1}))
    assert message.stream == "press/a/Acme%2FTX%23/34"
    for bad in ({"model": "x", "v": 1}, {"model": "", "id": 1, "v": 1}, {"model": True, "id": 1, "v": 1}):
        assert "key: expected" in refused(made, ENCODE[format_](bad))
    assert "at most 1024 bytes" in refused(made, ENCODE[format_]({"model": "é" * 900, "id": 1, "v": 1}))


def test_a_key_may_stand_beside_the_array_or_in_its_elements() -> None:
    made = decoder("json", (Field(0, "v"),), TimeField("t", unit="s"), each="r", key=("id",))
    payload = {"id": "outer", "r": [{"t": 1, "v": 1}, {"t": 2, "v": 2, "id": "inner"}]}
    assert [m.stream for m in read(made, json.dumps(payload).encode())] == ["press/a/outer", "press/a/inner"]


@DOCUMENTS
def test_partial_takes_a_document_without_the_fields_as_no_reading(format_) -> None:
    made = decoder(format_, (Field(0, "a.b"), Field(1, "c")), TimeField("t", unit="s"), partial=True)
    assert read(made, ENCODE[format_]({"event": "button"})) == []
    assert rows(read(made, ENCODE[format_]({"c": 2, "t": 5}))) == [(5 * S, {1: 2.0})]
    assert "expected a number" in refused(made, ENCODE[format_]({"c": "x", "t": 5}))


@pytest.mark.parametrize(
    "payload",
    [
        b"\xd8\x1c\x81\xd8\x1d\x00",  # an array that holds itself
        b"\xa1\x61a\x01\x00",  # something after the item
        b"\xa1\x01\x02",  # a key that is no text
        b"\x81" * 100,
        b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"\xa1\x61a\xc4\x82\x1a\x7f\xff\xff\xff\x01",  # 1e2147483647
        b"\xa1\x61a\xc2\x58\xff" + b"\xff" * 255,  # an integer of 255 bytes
        b"",
    ],
)
def test_cbor_refusals(payload) -> None:
    refused(decoder("cbor", (Field(0, "a"),)), payload)


def test_cbor_numbers_in_all_their_forms_and_no_objects_of_tags() -> None:
    made = decoder("cbor", (Field(0, "a"),))
    for written, value in (
        (b"\xf9\x3e\x00", 1.5),
        (b"\xfa\x3f\xc0\x00\x00", 1.5),
        (b"\x18\x64", 100.0),
        (b"\x38\x63", -100.0),
        (b"\xc4\x82\x21\x19\x6a\xb3", 273.15),
        (b"\xc2\x49\x01" + b"\x00" * 8, 2.0**64),
        (b"\xc1\x05", 5.0),
    ):
        assert read(made, b"\xa1\x61a" + written)[0].values == [value]
    # A regular expression of the sender's stays text.
    assert "expected a number, got text" in refused(made, b"\xa1\x61a\xd8\x23\x61(")


# ---- SenML: the examples of RFC 8428, section 5, and its rules


VOLTAGE = "urn:dev:ow:10e2073a01080063:voltage"


def senml(*paths: str, **options: object) -> Decoder:
    fields = tuple(Field(i, path) for i, path in enumerate(paths))
    return decoder("senml", fields, **options)  # type: ignore[arg-type]


def test_senml_single_datapoint_of_section_5_1_1() -> None:
    made = senml("urn:dev:ow:10e2073a01080063")
    payload = b'[{"n":"urn:dev:ow:10e2073a01080063","u":"Cel","v":23.1}]'
    assert rows(read(made, payload)) == [(ARRIVAL, {0: 23.1})]


def test_senml_multiple_datapoints_of_section_5_1_2() -> None:
    payload = b"""[
     {"bn":"urn:dev:ow:10e2073a01080063:","n":"voltage","u":"V","v":120.1},
     {"n":"current","u":"A","v":1.2}]"""
    for names in (("voltage", "current"), (VOLTAGE, "urn:dev:ow:10e2073a01080063:current")):
        assert rows(read(senml(*names), payload)) == [(ARRIVAL, {0: 120.1, 1: 1.2})]
    payload = b"""[
     {"bn":"urn:dev:ow:10e2073a0108006:","bt":1.276020076001e+09,"bu":"A","bver":5,
      "n":"voltage","u":"V","v":120.1},
     {"n":"current","t":-5,"v":1.2}, {"n":"current","t":-4,"v":1.3}, {"n":"current","t":-3,"v":1.4},
     {"n":"current","t":-2,"v":1.5}, {"n":"current","t":-1,"v":1.6}, {"n":"current","v":1.7}]"""
    base = 1_276_020_076_001_000_000
    found = rows(read(senml("voltage", "current"), payload))
    assert found == [(base - (5 - i) * S, {1: v}) for i, v in enumerate((1.2, 1.3, 1.4, 1.5, 1.6))] + [
        (base, {0: 120.1, 1: 1.7})
    ]


def test_senml_relative_time_of_section_5_1_3() -> None:
    payload = b"""[{"bn":"urn:dev:ow:10e2073a01080063","bt":1.320067464e+09,"bu":"%RH","v":20},
      {"t":60,"v":20.3}, {"t":120,"v":20.7}, {"t":180,"v":21.2}]"""
    found = rows(read(senml("urn:dev:ow:10e2073a01080063"), payload))
    assert [t for t, _ in found] == [1_320_067_464 * S + i * 60 * S for i in range(4)]
    assert [v[0] for _, v in found] == [20.0, 20.3, 20.7, 21.2]
    assert rows(read(senml("a"), b'[{"n":"a","v":1,"t":-10},{"n":"a","v":2}]')) == [
        (ARRIVAL - 10 * S, {0: 1.0}),
        (ARRIVAL, {0: 2.0}),
    ]


def test_senml_base_value_and_records_without_a_value() -> None:
    assert rows(read(senml("a", "b"), b'[{"bv":20,"n":"a","v":1.5},{"n":"b"}]')) == [
        (ARRIVAL, {0: 21.5, 1: 20.0})
    ]
    assert read(senml("a"), b'[{"n":"a","s":12}]') == []


def test_senml_in_cbor_of_section_6() -> None:
    # The pack of section 6 in CBOR labels: bn, bt, bu, bver, n, u, v, t.
    pack = [
        {
            -2: "urn:dev:ow:10e2073a0108006:",
            -3: 1276020076.001,
            -4: "A",
            -1: 5,
            0: "voltage",
            1: "V",
            2: 120.1,
        },
        {0: "current", 6: -5, 2: 1.2},
        {0: "current", 2: 1.7},
    ]
    made = decoder("senml-cbor", (Field(0, "voltage"), Field(1, "current")))
    base = 1_276_020_076_001_000_000
    assert rows(read(made, cbor(pack))) == [(base - 5 * S, {1: 1.2}), (base, {0: 120.1, 1: 1.7})]


def test_senml_packs_of_several_devices_need_the_key() -> None:
    payload = b'[{"bn":"dev1:","n":"t","v":1},{"bn":"dev2:","n":"t","v":2}]'
    assert 'set key = ["bn"]' in refused(senml("t"), payload)
    assert [(m.stream, m.values) for m in read(senml("t", key=("bn",)), payload)] == [
        ("press/a/dev1:", [1.0]),
        ("press/a/dev2:", [2.0]),
    ]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"{}", "expected a SenML pack"),
        (b"[1]", "expected SenML records"),
        (b'[{"n":"a","v":"1"}]', "expected a number, got text"),
        (b'[{"n":"a","vb":true}]', "expected a number, got a boolean"),
        (b'[{"n":"a","vs":"x"}]', "expected a number, got text"),
        (b'[{"n":"a","v":1,"vb":true}]', "expected one value"),
        (b'[{"n":"a","v":1,"x_":1}]', "must be understood"),
        (b'[{"bver":11,"n":"a","v":1}]', "at most 10"),
        (b'[{"n":"","v":1}]', "expected a SenML name"),
        (b'[{"n":"-a","v":1}]', "expected a SenML name"),
        (b'[{"n":"b","v":1}]', "expected a record of a"),
        (b'[{"n":"a","v":1,"t":1e300}]', "expected seconds"),
        (b"[]", "expected a record of a"),
    ],
)
def test_senml_refusals(payload, reason) -> None:
    assert reason in refused(senml("a"), payload)


# ---- binary


def test_binary_records_by_their_layout() -> None:
    made = decoder(
        "binary", (Field(1, column=1), Field(0, column=3)), TimeField(column=0, unit="s"), layout="<Ixbhf"
    )
    payload = struct.pack("<Ixbhf", 1_763_700_000, -5, 7, 1.25)
    assert rows(read(made, payload)) == [(1_763_700_000 * S, {1: -5.0, 0: 1.25})]
    assert "expected 12 bytes, got 11" in refused(made, payload[:-1])
    several = decoder(
        "binary", (Field(0, column=1),), TimeField(column=0, unit="s"), layout=">Bd", each="records"
    )
    payload = struct.pack(">BdBdBd", 3, 3.0, 1, 1.0, 2, math.inf)
    assert rows(read(several, payload)) == [(1 * S, {0: 1.0}), (2 * S, {0: math.inf}), (3 * S, {0: 3.0})]
    assert "a multiple of it" in refused(several, payload[:-1])
    assert "a multiple of it" in refused(several, b"")


@pytest.mark.parametrize(
    "layout", ["", "h", "@h", "=h", "<", "<s", "<4s", "<P", "<?", "<hx h", "<x", "<9999999d", "<é"]
)
def test_layouts_that_are_none(layout) -> None:
    with pytest.raises(ConfigError, match="layout"):
        decoder("binary", (Field(0),), layout=layout)


def test_a_layout_must_have_the_columns() -> None:
    with pytest.raises(ConfigError, match="at least 3 numbers"):
        decoder("binary", (Field(0, column=2),), layout="<hh")


def test_csv_lines_are_readings() -> None:
    made = decoder("csv", (Field(0, column=1),), TimeField(column=0, unit="s"), each="lines")
    assert rows(read(made, b"20;2\r\n10;1\n\n30;\n")) == [(10 * S, {0: 1.0}), (20 * S, {0: 2.0})]
    assert "line 1: column 1" in refused(made, b"1,1\n2,x")


# ---- Sparkplug B

NODE, DEVICE = "spBv1.0/plant/{}/edge", "spBv1.0/plant/{}/edge/pump"
FLOAT, DOUBLE, INT16, INT32, INT64, UINT64 = 9, 10, 2, 3, 4, 8
T0 = 1_700_000_000_000


@pytest.fixture
def plug() -> Decoder:
    return decoder("sparkplug", (Field(0, "Temp"), Field(1, "Motor/Speed")), tail=True)


def birth(plug: Decoder) -> None:
    assert read(plug, sparkplug(metric(0, name="bdSeq", datatype=UINT64)), NODE.format("NBIRTH")) == []
    body = sparkplug(
        metric(20.5, name="Temp", alias=4, datatype=DOUBLE),
        metric(-7, name="Motor/Speed", alias=5, datatype=INT32),
        metric(True, name="Running", alias=6, datatype=11),
        seq=1,
        time_ms=T0,
    )
    (message,) = read(plug, body, DEVICE.format("DBIRTH"))
    assert message == Message("press/a/pump", (0, 1), T0 * 10**6, [20.5, -7.0])


def test_sparkplug_births_give_aliases_and_values(plug) -> None:
    birth(plug)
    body = sparkplug(metric(-300, alias=5), metric(True, alias=6), seq=2, time_ms=T0 + 1)
    assert read(plug, body, DEVICE.format("DDATA")) == [
        Message("press/a/pump", (1,), (T0 + 1) * 10**6, [-300.0])
    ]
    assert read(plug, sparkplug(metric(alias=4, null=1), seq=3), DEVICE.format("DDATA")) == []
    assert plug.requests == []


@pytest.mark.parametrize(
    ("datatype", "written", "value"),
    [
        (1, 0xFB, -5.0),
        (1, 2**32 - 5, -5.0),
        (INT16, 2**16 - 5, -5.0),
        (INT32, 2**32 - 5, -5.0),
        (7, 2**32 - 5, 4294967291.0),
    ],
)
def test_sparkplug_integers_are_read_as_their_type_says(plug, datatype, written, value) -> None:
    body = sparkplug(metric(written, name="Temp", datatype=datatype))
    assert read(plug, body, NODE.format("NBIRTH"))[0].values == [value]


def test_sparkplug_data_before_a_birth_asks_for_one_and_not_all_the_time(plug) -> None:
    body = sparkplug(metric(5, alias=4), seq=9)
    for _ in range(3):
        assert "expected a birth" in refused(plug, body, DEVICE.format("DDATA"))
    ((topic, payload),) = plug.requests
    assert topic == "spBv1.0/plant/NCMD/edge"
    assert b"Node Control/Rebirth" in payload
    plug.requests.clear()
    later = ARRIVAL + 31 * S
    with pytest.raises(DecodeError):
        plug.decode(DEVICE.format("DDATA"), body, "press/a", later)
    assert len(plug.requests) == 1


def test_sparkplug_a_gap_in_the_sequence_asks_for_a_rebirth_and_keeps_the_reading(plug) -> None:
    birth(plug)
    for seq, requests in ((2, 0), (3, 0), (5, 1), (6, 1), (6, 1)):
        assert len(read(plug, sparkplug(metric(1.0, alias=4), seq=seq), DEVICE.format("DDATA"))) == 1
        assert len(plug.requests) == requests


def test_sparkplug_the_sequence_turns_over_at_255(plug) -> None:
    birth(plug)
    for seq in [*range(2, 256), 0, 1]:
        read(plug, sparkplug(metric(1.0, alias=4), seq=seq), DEVICE.format("DDATA"))
    assert plug.requests == []


def test_sparkplug_deaths_end_what_a_birth_has_told(plug) -> None:
    birth(plug)
    assert read(plug, sparkplug(seq=2), DEVICE.format("DDEATH")) == []
    assert "expected a birth of this device" in refused(
        plug, sparkplug(metric(1, alias=4), seq=3), DEVICE.format("DDATA")
    )
    birth(plug)
    # The death of an older session, late: the node lives.
    assert (
        read(plug, sparkplug(metric(7, name="bdSeq", datatype=UINT64), seq=None), NODE.format("NDEATH")) == []
    )
    assert read(plug, sparkplug(metric(1.0, alias=4), seq=2), DEVICE.format("DDATA"))
    assert (
        read(plug, sparkplug(metric(0, name="bdSeq", datatype=UINT64), seq=None), NODE.format("NDEATH")) == []
    )
    refused(plug, sparkplug(metric(1.0, alias=4), seq=3), DEVICE.format("DDATA"))


def test_sparkplug_kept_readings_come_with_their_own_times(plug) -> None:
    birth(plug)
    body = sparkplug(
        metric(2.0, alias=4, timestamp=T0 + 20, historical=1),
        metric(1.0, alias=4, timestamp=T0 + 10, historical=1),
        metric(9, alias=5, timestamp=T0 + 10),
        seq=2,
        time_ms=T0 + 30,
    )
    assert rows(read(plug, body, DEVICE.format("DDATA"))) == [
        ((T0 + 10) * 10**6, {0: 1.0, 1: 9.0}),
        ((T0 + 20) * 10**6, {0: 2.0}),
    ]


def test_sparkplug_commands_and_other_topics(plug) -> None:
    assert read(plug, b"\xff\xff", NODE.format("NCMD")) == []
    assert read(plug, b"\xff\xff", DEVICE.format("DCMD")) == []
    assert "expected a topic" in refused(plug, b"", "spBv1.0/plant/NDATA")
    assert "expected a message of type" in refused(plug, b"", NODE.format("DDATA"))
    assert "expected a Sparkplug B payload" in refused(plug, b"\xff\xff", NODE.format("NDATA"))
    assert "expected a number, got boolean" in refused(
        plug, sparkplug(metric(True, name="Temp", datatype=11)), NODE.format("NBIRTH")
    )


def test_sparkplug_metrics_with_names_need_no_birth(plug) -> None:
    body = sparkplug(metric(3.5, name="Temp"), seq=77, time_ms=None)
    assert read(plug, body, NODE.format("NDATA")) == [Message("press/a", (0,), ARRIVAL, [3.5])]
    assert plug.requests == []


def test_sparkplug_memory_is_bounded(plug) -> None:
    for number in range(3000):
        read(plug, sparkplug(metric(1.0, name="Temp", alias=number)), f"spBv1.0/g/DBIRTH/n{number}/d")
    assert len(plug._nodes) == 1000  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("format_", "module", "extra"),
    [
        ("cbor", "cbor2", "cbor"),
        ("senml-cbor", "cbor2", "cbor"),
        ("sparkplug", "google.protobuf", "sparkplug"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(monkeypatch, format_, module, extra) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"pip install 'edge-rnn\[{extra}\]'"):
        decoder(format_, (Field(0, "a"),))


@pytest.mark.parametrize(
    ("format_", "options"),
    [
        ("senml", {"time": TimeField("t")}),
        ("senml", {"key": ("n",)}),
        ("sparkplug", {"time": TimeField("t")}),
        ("binary", {}),
    ],
)
def test_what_a_format_cannot_hold(format_, options) -> None:
    with pytest.raises(ConfigError):
        decoder(format_, (Field(0, "a"),), **options)
