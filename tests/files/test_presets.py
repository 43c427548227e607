"""Presets: a stream with nothing but a preset and its channels reads what the sender's project documents.

Where a payload or topic comes from stands beside it; samples are short and as documented.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_rnn.errors import ConfigError
from edge_rnn.files.config import parse_config
from edge_rnn.files.presets import PRESET_NAMES
from edge_rnn.service.pipeline_build import _sources
from edge_rnn.stream.topics import Routes
from tests.support.payloads import metric, sparkplug

ARRIVAL = 1_700_000_000_000_000_000
MS = 10**6


class Reader:
    """The way of a message through a configuration of one stream, without a model."""

    def __init__(self, folder: Path, text: str) -> None:
        (folder / "m.safetensors").write_bytes(b"")
        text = f'[[stream]]\nname = "s"\nmodel = "m.safetensors"\n{text}'
        (self.stream,) = parse_config(text, folder / "c.toml", {}).streams
        order = tuple(range(len(self.stream.channels)))
        templates, self.decoders = _sources(self.stream, order, 65536)
        self.routes = Routes({"s": templates})
        self.filters = self.routes.subscriptions

    def read(self, topic: str, payload: str | bytes) -> list[tuple[str, int, dict[str, float]]]:
        data = payload if isinstance(payload, bytes) else payload.encode()
        found = []
        for route in self.routes.match(topic):
            for m in self.decoders[route.extractor].decode(topic, data, route.stream, ARRIVAL):
                names = [self.stream.channels[c].name for c in m.channels]
                found.append((m.stream, m.time_ns, dict(zip(names, m.values, strict=True))))
        return found


@pytest.fixture
def reader(tmp_path):
    return lambda text: Reader(tmp_path, text)


def test_zigbee2mqtt(reader) -> None:
    made = reader('preset = "zigbee2mqtt"\nchannels = [{ name = "temperature" }, { name = "humidity" }]')
    assert made.filters == ("zigbee2mqtt/+",)
    # https://www.zigbee2mqtt.io/guide/usage/mqtt_topics_and_messages.html: WSDCGQ01LM, RTCGQ01LM, LED1545G12.
    assert made.read("zigbee2mqtt/0x00158d0001", '{"temperature": 27.34, "humidity": 44.72}') == [
        ("s/0x00158d0001", ARRIVAL, {"temperature": 27.34, "humidity": 44.72})
    ]
    assert made.read("zigbee2mqtt/pir", '{"occupancy": true}') == []
    assert made.read("zigbee2mqtt/bulb", '{"state": "ON", "brightness": 215, "color_temp": 325}') == []
    assert made.read("zigbee2mqtt/bridge/state", "online") == []
    assert made.read("zigbee2mqtt/pir/availability", "online") == []
    # https://github.com/Koenkk/zigbee-herdsman-converters/issues/1020: a device with last_seen as ISO 8601.
    made = reader(
        'preset = "zigbee2mqtt"\nchannels = [{ name = "power" }, { name = "temperature" }]\n'
        'time = { path = "last_seen", unit = "iso8601" }'
    )
    payload = """{"power":0,"consumption":0.32,"temperature":16,"linkquality":34,
      "last_seen":"2020-02-26T20:44:09+01:00","state_left":"OFF","state_right":"OFF"}"""
    assert made.read("zigbee2mqtt/switch", payload) == [
        ("s/switch", 1_582_746_249 * 10**9, {"power": 0.0, "temperature": 16.0})
    ]


def test_tasmota(reader) -> None:
    made = reader(
        'preset = "tasmota"\nchannels = [{ name = "AM2301.Temperature" },\n'
        '{ name = "rh", path = "AM2301.Humidity" }]'
    )
    assert made.filters == ("tele/+/SENSOR",)
    # https://github.com/robertklep/name.klep.sonoff/issues/6: log of a Sonoff TH16 with Tasmota.
    payload = '{"Time":"2018-03-02T18:25:03","AM2301":{"Temperature":22.6,"Humidity":32.4},"TempUnit":"C"}'
    assert made.read("tele/TH16/SENSOR", payload) == [
        ("s/TH16", ARRIVAL, {"AM2301.Temperature": 22.6, "rh": 32.4})
    ]
    assert made.read("tele/TH16/STATE", '{"Time":"2018-03-02T18:25:02","Vcc":3.151}') == []
    assert made.read("tele/door/SENSOR", '{"Time":"2018.02.15 01:00:50","Switch1":"OFF"}') == []


def test_esphome(reader) -> None:
    made = reader('preset = "esphome"\nchannels = [{ name = "temperature" }, { name = "humidity" }]')
    # https://esphome.io/components/mqtt: <topic_prefix>/<component_type>/<name>/state, payload a plain
    # number.
    assert made.filters == ("+/sensor/temperature/state", "+/sensor/humidity/state")
    assert made.read("livingroom/sensor/temperature/state", "21.60") == [
        ("s/livingroom", ARRIVAL, {"temperature": 21.6})
    ]
    assert made.read("livingroom/sensor/humidity/state", "45.2")[0][2] == {"humidity": 45.2}
    ((_, _, values),) = made.read("livingroom/sensor/humidity/state", "nan")
    assert values["humidity"] != values["humidity"]
    other = reader(
        'preset = "esphome"\ntopic = "home/{room}/{channel}"\nchannels = [{ name = "t" }, { name = "h" }]'
    )
    assert other.filters == ("home/+/t", "home/+/h")


def test_shelly(reader) -> None:
    made = reader(
        'preset = "shelly"\nchannels = [{ name = "switch:0.apower" },\n'
        '{ name = "t", path = "params[\\"switch:0\\"].temperature.tC" }]'
    )
    assert made.filters == ("+/events/rpc",)
    # https://shelly-api-docs.shelly.cloud/gen2/General/Notifications: examples 1 and 2 (only what has
    # changed).
    button = """{"src":"shellypro4pm-f008d1d8b8b8","dst":"user_1","method":"NotifyStatus","params":
      {"ts":1631186545.04,"switch:0":{"id":0,"output":true,"source":"button"}}}"""
    cloud = """{"src":"shellypro4pm-f008d1d8b8b8","dst":"user_1","method":"NotifyStatus","params":
      {"ts":1624348482.25,"cloud":{"connected":false}}}"""
    assert made.read("shellypro4pm-f008d1d8b8b8/events/rpc", button) == []
    assert made.read("shellypro4pm-f008d1d8b8b8/events/rpc", cloud) == []
    # The same frame with attributes of the component `Switch` (apower in W, temperature.tC in deg C).
    power = button.replace('"output":true', '"apower":8.9,"temperature":{"tC":45.7,"tF":114.3}')
    assert made.read("shellypro4pm-f008d1d8b8b8/events/rpc", power) == [
        ("s/shellypro4pm-f008d1d8b8b8", 1_631_186_545_040 * MS, {"switch:0.apower": 8.9, "t": 45.7})
    ]
    partly = button.replace('"output":true', '"apower":9.1')
    assert made.read("x/events/rpc", partly)[0][2] == {"switch:0.apower": 9.1}


def test_rtl_433(reader) -> None:
    made = reader('preset = "rtl_433"\nchannels = [{ name = "temperature_C" }, { name = "humidity" }]')
    assert made.filters == ("rtl_433/+/events",)
    # Fields as in https://triq.org/rtl_433/DATA_FORMAT.html (time, model, id, temperature_C, humidity, mic).
    payload = """{"time":"2020-12-22 09:50:03","model":"LaCrosse-TX","id":34,
      "temperature_C":0.1,"humidity":91,"mic":"PARITY"}"""
    assert made.read("rtl_433/pi/events", payload) == [
        ("s/pi/LaCrosse-TX/34", ARRIVAL, {"temperature_C": 0.1, "humidity": 91.0})
    ]
    assert (
        made.read(
            "rtl_433/pi/events", '{"time":"2020-12-22 09:50:03","model":"Generic-Remote","id":1,"cmd":27}'
        )
        == []
    )
    timed = reader(
        'preset = "rtl_433"\nchannels = [{ name = "temperature_C" }]\ntime = { path = "time", unit = "s" }'
    )
    # -M time:unix
    unix = '{"time":1608630603,"model":"Acurite-Tower","id":"A","temperature_C":3}'
    assert timed.read("rtl_433/pi/events", unix) == [
        ("s/pi/Acurite-Tower/A", 1_608_630_603 * 10**9, {"temperature_C": 3.0})
    ]


def test_homie(reader) -> None:
    made = reader('preset = "homie"\nchannels = [{ name = "engine/temperature" }, { name = "wheels/angle" }]')
    # https://homieiot.github.io/specification: homie/super-car/engine/temperature, payloads are plain text,
    # "All messages MUST be sent as retained, UNLESS stated otherwise".
    assert made.filters == ("homie/+/engine/temperature", "homie/+/wheels/angle")
    assert made.stream.retained
    assert made.read("homie/super-car/engine/temperature", "21.5") == [
        ("s/super-car", ARRIVAL, {"engine/temperature": 21.5})
    ]
    assert made.read("homie/super-car/engine/temperature/$unit", "°C") == []
    five = reader('preset = "homie"\ntopic = "homie/5/{device}/{channel}"\nchannels = [{ name = "a/b" }]')
    assert five.filters == ("homie/5/+/a/b",)


def test_senml(reader) -> None:
    made = reader(
        'preset = "senml"\ntopic = "plant/{device}"\nchannels = [{ name = "voltage" },\n'
        '{ name = "i", path = "current" }]'
    )
    # RFC 8428, section 5.1.2.
    payload = """[{"bn":"urn:dev:ow:10e2073a01080063:","n":"voltage","u":"V","v":120.1},
      {"n":"current","u":"A","v":1.2}]"""
    assert made.read("plant/7", payload) == [("s/7", ARRIVAL, {"voltage": 120.1, "i": 1.2})]


def test_sparkplug(reader) -> None:
    made = reader('preset = "sparkplug"\nchannels = [{ name = "Temperature" }, { name = "Motor/Speed" }]')
    assert made.filters == ("spBv1.0/+/+/+/#",)
    # Topics and payloads as in the Sparkplug 3.0 specification, sections 4.1 and 6.4.
    node = sparkplug(metric(0, name="bdSeq", datatype=8), time_ms=1000)
    assert made.read("spBv1.0/plant/NBIRTH/edge", node) == []
    birth = sparkplug(
        metric(20.5, name="Temperature", alias=1, datatype=10),
        metric(9, name="Motor/Speed", alias=2, datatype=3),
        seq=1, time_ms=2000,
    )  # fmt: skip
    assert made.read("spBv1.0/plant/DBIRTH/edge/press", birth) == [
        ("s/plant/edge/press", 2000 * MS, {"Temperature": 20.5, "Motor/Speed": 9.0})
    ]
    data = sparkplug(metric(21.5, alias=1), seq=2, time_ms=3000)
    assert made.read("spBv1.0/plant/DDATA/edge/press", data) == [
        ("s/plant/edge/press", 3000 * MS, {"Temperature": 21.5})
    ]


def test_what_a_stream_says_itself_stands(reader) -> None:
    made = reader(
        'preset = "tasmota"\ntopic = "home/{device}/tele/SENSOR"\nformat = "msgpack"\npartial = false\n'
        'channels = [{ name = "t", path = "A.T" }]\ntime = { path = "Time", unit = "iso8601" }'
    )
    assert made.filters == ("home/+/tele/SENSOR",)
    assert (made.stream.format, made.stream.partial) == ("msgpack", False)


def test_an_unknown_preset_is_named_with_the_list(reader) -> None:
    with pytest.raises(ConfigError) as caught:
        reader('preset = "tasmoto"\ntopic = "a"\nchannels = [{ name = "t" }]')
    text = str(caught.value)
    assert 'stream[0].preset: expected one of "none", "zigbee2mqtt", "tasmota"' in text
    assert 'did you mean "tasmota"?' in text
    assert all(name in text for name in PRESET_NAMES)


def test_senml_has_no_topic_of_its_own(reader) -> None:
    with pytest.raises(ConfigError, match="topic: missing"):
        reader('preset = "senml"\nchannels = [{ name = "t" }]')


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('format = "binary"\nchannels = [{ name = "a" }]', "layout: missing"),
        ('format = "binary"\nlayout = "hh"\nchannels = [{ name = "a" }]', "layout: expected a byte order"),
        (
            'format = "binary"\nlayout = "<h"\nchannels = [{ name = "a" }, { name = "b" }]',
            "expected at least 2 numbers",
        ),
        ('layout = "<h"\nchannels = [{ name = "a" }]', 'layout: expected only with format = "binary"'),
        ('each = "r"\nchannels = [{ name = "a" }]', "time: missing; several readings"),
        (
            'each = "r..x"\ntime = { path = "t" }\nchannels = [{ name = "a" }]',
            "each: expected the path of an array",
        ),
        (
            'format = "csv"\neach = "r"\ntime = { column = 0 }\nchannels = [{ name = "a", column = 1 }]',
            'each: expected "lines"',
        ),
        ('format = "number"\neach = "r"\nchannels = [{ name = "a" }]', "each: expected only with format"),
        ('key = "id"\nchannels = [{ name = "a" }]', "key: expected a list of paths"),
        ('key = ["a", 1]\nchannels = [{ name = "a" }]', "key: expected a list of paths"),
        ('key = ["a[x]"]\nchannels = [{ name = "a" }]', "key: expected a list of paths"),
        ('format = "csv"\nkey = ["a"]\nchannels = [{ name = "a" }]', "key: expected only with format"),
        ('format = "senml"\nkey = ["n"]\nchannels = [{ name = "a" }]', 'key: expected a list of "bn"'),
        (
            'format = "senml"\ntime = { path = "t" }\nchannels = [{ name = "a" }]',
            'time: "senml" carries its own times',
        ),
        ('rebirth = false\nchannels = [{ name = "a" }]', "rebirth: expected only with"),
        ('format = "csv"\npartial = true\nchannels = [{ name = "a" }]', "partial: expected only with"),
        ('format = "sparkplug"\nchannels = [{ name = "a", column = 1 }]', "column: expected only with"),
    ],
)
def test_contradictions_are_named(reader, text, expected) -> None:
    with pytest.raises(ConfigError) as caught:
        reader(f'topic = "a/b"\n{text}')
    assert expected in str(caught.value)


@pytest.mark.parametrize("format_", ["cbor", "senml-cbor", "sparkplug"])
def test_a_format_whose_package_is_missing_is_named_before_anything_starts(
    reader, monkeypatch, format_
) -> None:
    monkeypatch.setattr("edge_rnn.files.config_payload.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"format: .* needs a package; install it: pip install 'edge-rnn\["):
        reader(f'topic = "a/b"\nformat = "{format_}"\nchannels = [{{ name = "a" }}]')


def test_a_sender_named_in_the_payload_counts_for_loops(reader) -> None:
    with pytest.raises(ConfigError, match="matches this daemon's own output"):
        reader('topic = "+/+/{a}/+/+"\nkey = ["x"]\nchannels = [{ name = "a" }]')
