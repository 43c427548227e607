"""What well-known senders publish, as defaults of a `[[stream]]`: `preset = "tasmota"`.

A preset fills the keys that a stream leaves out: the topic, the format, how a channel's name becomes its
topic or path, and a few more. Whatever the stream says itself stands. Times: a preset takes the sender's own
time only where that is sure to be UTC; Tasmota and rtl_433 write local time without a zone by default, so
their readings have the time of arrival unless the stream sets `time`.

| preset | topic | a channel called `a.b` | else |
|---|---|---|---|
| zigbee2mqtt | `zigbee2mqtt/{device}` | field `a.b` of a flat JSON object | partial |
| tasmota | `tele/{device}/SENSOR` | field `b` of the sensor `a` | partial |
| esphome | `{device}/sensor/a.b/state` | a topic of its own, a plain number | |
| shelly | `{device}/events/rpc` | `params.a.b` (`switch:0.apower`), time `params.ts` | partial |
| rtl_433 | `rtl_433/{receiver}/events` | field `a.b`; `key = ["model", "id"]` | partial |
| homie | `homie/{device}/a.b` | a topic of its own (`node/property`), a plain number | retained |
| senml | (to be given) | a record's name, with or without its base name | partial |
| sparkplug | `spBv1.0/{group}/+/{node}/#` | a metric's name | |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from edge_rnn.files.config_types import PayloadFormat, TimeConfig

PresetName = Literal[
    "none", "zigbee2mqtt", "tasmota", "esphome", "shelly", "rtl_433", "homie", "senml", "sparkplug"
]
PRESET_NAMES: Final[tuple[PresetName, ...]] = get_args(PresetName)
CHANNEL: Final = "{channel}"
"""In a topic: replaced by each channel's name, which so gets a topic of its own."""


@dataclass(frozen=True, slots=True)
class Preset:
    """Defaults of a stream.

    topic: the template, `{channel}` in it for a topic a channel; empty where the sender has no convention.
    prefix, dotted: a channel's path is the prefix and its name; dotted: dots in the name are steps.
    """

    format: PayloadFormat = "json"
    topic: str | None = None
    prefix: str = ""
    dotted: bool = False
    key: tuple[str, ...] = ()
    time: TimeConfig | None = None
    partial: bool = False
    retained: bool = False


PRESETS: Final[dict[PresetName, Preset]] = {
    "none": Preset(),
    "zigbee2mqtt": Preset(topic="zigbee2mqtt/{device}", partial=True),
    "tasmota": Preset(topic="tele/{device}/SENSOR", dotted=True, partial=True),
    "esphome": Preset(format="number", topic="{device}/sensor/{channel}/state"),
    "shelly": Preset(
        topic="{device}/events/rpc",
        prefix="params.",
        dotted=True,
        time=TimeConfig(path="params.ts", unit="s"),
        partial=True,
    ),
    "rtl_433": Preset(topic="rtl_433/{receiver}/events", key=("model", "id"), partial=True),
    # Homie keeps every value retained, and says nothing again that has not changed.
    "homie": Preset(format="number", topic="homie/{device}/{channel}", retained=True),
    "senml": Preset(format="senml", partial=True),
    "sparkplug": Preset(format="sparkplug", topic="spBv1.0/{group}/+/{node}/#"),
}
