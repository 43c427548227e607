"""From a survey to the text of a configuration that `edge-rnn check` accepts.

Each group of topics becomes a `[[stream]]`. Without a model its channels are all numbers seen, and `model`
names a file that has to be trained first. With a model the channels are its inputs, found by name among the
fields; groups that lack one are left out and named in a comment.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from edge_rnn.errors import printable
from edge_rnn.files.config_types import MqttConfig
from edge_rnn.files.config_walk import duration_text
from edge_rnn.watch.survey import GroupSeen, Survey

_SECOND = 1_000_000_000
_NO_MODEL = "model.safetensors"
_SHOWN_OTHER = 8
# Readings that stay away for so many of their usual intervals are missed, but never for less than this.
_SILENT_TIMES, _SILENT_LEAST_S = 10, 1.0


def propose(
    survey: Survey, broker: MqttConfig, model: str = _NO_MODEL, inputs: Sequence[str] | None = None
) -> str:
    """The text of a configuration; without any group it holds only comments beside `[mqtt]`.

    Args:
        survey: what was heard.
        broker: where; a password is never written, only where to put it.
        model: path of the model, as it is to stand in the file.
        inputs: the model's input names, or None if there is no model yet.
    """
    lines = [
        "# Proposed by edge-rnn init from what the broker carried; read it before you use it.",
        "# edge-rnn check lists what does not fit, edge-rnn run starts the daemon.",
        "",
        *_mqtt(broker),
    ]
    groups = survey.groups()
    left = []
    for group in groups:
        channels = _all_channels(group) if inputs is None else _channels_of(group, inputs)
        if isinstance(channels, str):
            left.append(f"# {group.template}: left out, no field for {channels}")
        else:
            lines += ["", *_stream(group, channels, model, trained=inputs is not None)]
    if not groups:
        lines += ["", "# Nothing was heard that holds a number. Listen longer, or to other topics."]
    if left:
        lines += ["", *left]
    if survey.other:
        some = list(survey.other.items())[:_SHOWN_OTHER]
        lines += ["", "# Not understood (neither JSON with numbers, nor a number, nor CSV):"]
        lines += [f"#   {printable(topic)}" for topic, _ in some]
        if len(survey.other) > len(some):
            lines.append(f"#   and {len(survey.other) - len(some)} more")
    return "\n".join(lines) + "\n"


def _mqtt(broker: MqttConfig) -> list[str]:
    lines = ["[mqtt]", f"host = {_text(broker.host)}"]
    if broker.port != (1883 if broker.tls is None else 8883):
        lines.append(f"port = {broker.port}")
    if broker.protocol != "5":
        lines.append(f"protocol = {_text(broker.protocol)}")
    if broker.username is not None:
        lines += [f"username = {_text(broker.username)}", 'password_env = "MQTT_PASSWORD"']
    if broker.tls is not None:
        lines += ["", "[mqtt.tls]"]
        if broker.tls.ca is not None:
            lines.append(f"ca = {_text(str(broker.tls.ca))}")
    return lines


def _all_channels(group: GroupSeen) -> list[tuple[str, str, float]]:
    """(name, field, last value), with names as short as they can be without being equal."""
    short = [_word(field.rsplit(".", 1)[-1]) for field, _ in group.fields]
    chosen = []
    for (field, value), name in zip(group.fields, short, strict=True):
        if group.format == "csv":
            chosen.append((f"column{field}", field, value))
        else:
            chosen.append((name if short.count(name) == 1 else _word(field), field, value))
    return chosen


def _channels_of(group: GroupSeen, inputs: Sequence[str]) -> list[tuple[str, str, float]] | str:
    """The channels for a model's inputs, or the first input that no field is named like."""
    chosen = []
    for name in inputs:
        fields = [(f, v) for f, v in group.fields if f == name or f.rsplit(".", 1)[-1] == name]
        if not fields:
            fields = [(f, v) for f, v in group.fields if _word(f).lower().endswith(_word(name).lower())]
        if not fields:
            return name
        field, value = fields[0]
        chosen.append((name, field, value))
    return chosen


def _stream(
    group: GroupSeen, channels: list[tuple[str, str, float]], model: str, *, trained: bool
) -> list[str]:
    rate = "once" if group.interval is None else f"every {_span(group.interval)}"
    lines = [
        f"# {group.streams} stream(s), {group.messages} message(s) heard, {rate}",
        "[[stream]]",
        f"name = {_text(group.name)}",
        f"model = {_text(model)}" + ("" if trained else "   # train one first: edge-rnn train --help"),
    ]
    if group.format != "number":
        lines.append(f"topic = {_text(group.template)}")
    if group.format != "json":
        lines.append(f"format = {_text(group.format)}")
    if group.time_path is not None:
        place = f"column = {group.time_path}" if group.format == "csv" else f"path = {_text(group.time_path)}"
        lines.append(f"time = {{ {place}, unit = {_text(group.time_unit)} }}")
    lines.append("channels = [")
    for name, field, value in channels:
        parts = [f"name = {_text(name)}"]
        if group.format == "number":
            parts.append(f"topic = {_text(f'{group.template}/{field}' if group.template else field)}")
        elif group.format == "csv":
            parts.append(f"column = {field}")
        elif field != name:
            parts.append(f"path = {_text(field)}")
        lines.append(f"  {{ {', '.join(parts)} }},   # last: {value:g}")
    lines.append("]")
    if group.format == "number" and len(channels) > 1:
        lines.append('on = "all"   # a vector leaves when every channel has a new value')
        lines.append(f"timeout = {_text(_duration(3 * (group.interval or 10.0)))}")
    if group.interval is not None:
        quiet = max(_SILENT_LEAST_S, _SILENT_TIMES * group.interval)
        lines.append(f"silent_after = {_text(_duration(quiet))}")
    return lines


def _duration(seconds: float) -> str:
    """A duration of one or two digits, not shorter than asked for."""
    steps = ((1.0, 0.1), (10.0, 1.0), (60.0, 5.0), (600.0, 60.0))
    step = next((step for size, step in steps if seconds <= size), 600.0)
    rounded = -(-seconds // step) * step
    return duration_text(round(rounded * 10) * (_SECOND // 10))


def _span(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.3g} s"


def _word(field: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "_", field).strip("_") or "value"


def _text(value: str) -> str:
    """A TOML basic string; JSON's escapes are TOML's, but for the character DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
