"""One `[[stream]]` of the configuration: where its values come from and when a sample leaves.

The topic templates of one stream must have the same `{fields}`, because together they are the key that
decides which state a value belongs to. A template that matches one of the daemon's own output topics is
refused: the daemon would feed on its own scores.

A `preset` gives the defaults of what the stream leaves out (`presets.py`). `{channel}` in the stream's topic
is replaced by each channel's name, for senders with a topic per value.

A mistake must not hide others: what compares keys uses every key that is fine by itself, whatever the rest
of the stream is like. So `read_stream` hands back the usable parts of a stream that is not usable as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, get_args

import msgspec

from edge_rnn.errors import ConfigError
from edge_rnn.files.config_payload import (
    COLUMNS,
    DOCUMENTS,
    NAMED,
    PATH,
    PATH_HELP,
    STEP,
    clock_limit_of,
    each_of,
    key_of,
    layout_of,
    need,
    only,
    partial_of,
    rebirth_of,
    sequence_of,
    time_of,
)
from edge_rnn.files.config_types import (
    PAYLOAD_FORMATS,
    ChannelConfig,
    LibraryUnfit,
    PayloadFormat,
    StreamConfig,
)
from edge_rnn.files.config_walk import Problems, Table, describe, nearest
from edge_rnn.files.presets import CHANNEL, PRESET_NAMES, PRESETS, Preset
from edge_rnn.stream.topics import Template

MAX_CHANNELS: Final = 4096
# A stream remembers the time of so many changes for each of what may flap.
MOST_CHANGES: Final = 600
MODES: Final = ("any", "all", "every")
OUTPUTS: Final = ("score", "event", "state")
_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}"


Examine = Callable[[Path, str, tuple[str, ...] | None], list[tuple[str, str]]]
"""A closer look at a stream's model: (file, stream's name, names of the channels if all are usable) to
problems, each with the key of the stream it belongs to."""


@dataclass(frozen=True, slots=True)
class StreamParts:
    """What is usable of a stream: its name (else ""), its templates by key path, all of it (else None).

    more: how many levels payloads may add to its streams' ids.
    """

    path: str
    name: str
    templates: dict[str, Template]
    config: StreamConfig | None
    more: int = 0


def read_stream(table: Table, base: Path, examine: Examine | None = None) -> StreamParts:
    """The stream in `table`; problems are noted. `base` is where relative paths start."""
    name = table.text("name", "", what='a name such as "press" (letters, digits, _ - .)', pattern=_NAME)
    table.required("name", 'a name such as "press"')
    table.required("model", "the path of the model file")
    chosen = table.choice("preset", "none", PRESET_NAMES)
    preset = PRESETS[chosen]
    payload = table.choice("format", preset.format, PAYLOAD_FORMATS)
    need(table, payload)
    topic = table.text("topic", preset.topic, what='a topic template such as "plant/{machine}/vibration"')
    channels, templates = _channels(table, payload, topic, preset)
    mode = table.text("on", "any", what='"any", "all", "every" or the name of a channel')
    names = [channel.name for channel in channels]
    named = bool(names) and all(
        table.problems.clean(table.at(f"channels[{i}].name")) for i in range(len(names))
    )
    if mode not in MODES and mode not in names and named and table.problems.clean(table.at("on")):
        known = ", ".join(f'"{word}"' for word in (*MODES, *names[:8]))
        table.note("on", f"expected {known}, got {describe(mode)}{nearest(mode, (*MODES, *names))}")
    model = _model(table, base)
    if examine is not None and table.has("model") and table.problems.clean(table.at("model")):
        for key, text in examine(model, name, tuple(names) if named else None):
            table.note(key, text)
    time = time_of(table, payload, preset)
    stream = StreamConfig(
        name=name,
        model=model,
        channels=channels,
        preset=None if chosen == "none" else chosen,
        format=payload,
        time=time,
        sequence=sequence_of(table, payload),
        each=each_of(table, payload),
        key=key_of(table, payload, preset),
        partial=partial_of(table, payload, preset),
        layout=layout_of(table, payload, channels),
        rebirth=rebirth_of(table, payload),
        on=mode,
        every_ns=table.duration("every", None, 1_000_000),
        timeout_ns=table.duration("timeout", None),
        silent_after_ns=table.duration("silent_after", None),
        silent_intervals=table.integer("silent_intervals", 20, 0, 10_000),
        clock_limit_ns=clock_limit_of(table, timed=time is not None or payload in NAMED),
        flapping=table.integer("flapping", 20, 0, MOST_CHANGES),
        gap_ns=table.duration("gap", None),
        max_streams=table.integer("max_streams", 1000, 1, 1_000_000),
        retained=table.boolean("retained", default=preset.retained),
        library=_library(table, base),
        library_unfit=table.choice("library_unfit", "compile", get_args(LibraryUnfit)),
    )
    if table.problems.clean(table.at("on")):
        if mode == "every" and not table.has("every"):
            table.note("every", 'missing; on = "every" needs an interval, such as every = "1s"')
        if mode != "every" and table.has("every"):
            table.note("every", f'expected only with on = "every", got it with on = {describe(mode)}')
        if mode not in ("all", "every") and table.has("timeout"):
            table.note(
                "timeout", f'expected only with on = "all" or "every", got it with on = {describe(mode)}'
            )
    if stream.each is not None and stream.time is None and table.problems.clean(table.at("time")):
        table.note("time", "missing; several readings in one payload need a time each")
    table.close()
    return StreamParts(
        path=table.path,
        name=name if table.problems.clean(table.at("name")) else "",
        templates=templates,
        config=stream if table.problems.clean(table.path) else None,
        more=len(stream.key) + (payload == "sparkplug"),
    )


def reject_loops(streams: Sequence[StreamParts], base: str, problems: Problems) -> None:
    """Note every template that matches a topic this daemon publishes itself; one a stream."""
    own = [f"{base}/status", f"{base}/health"]
    for stream in streams:
        if stream.name and stream.templates:
            template = next(iter(stream.templates.values()))
            for count in range(len(template.fields), len(template.fields) + stream.more + 1):
                keys = "".join(f"/{i}" for i in range(count))
                own += [f"{base}/{stream.name}{keys}/{output}" for output in OUTPUTS]
    for stream in streams:
        for path, template in stream.templates.items():
            hit = next((topic for topic in own if template.match(topic) is not None), None)
            if hit is not None:
                problems.note(
                    path,
                    f"{describe(template.text)} matches this daemon's own output {describe(hit)}; "
                    "write more fixed levels, or another output.base",
                )
                break


def unique_names(streams: Sequence[StreamParts], problems: Problems) -> None:
    """Note every name that an earlier stream has."""
    seen: dict[str, str] = {}
    for stream in streams:
        if stream.name and seen.setdefault(stream.name, stream.path) != stream.path:
            text = f'expected another name than {seen[stream.name]}, got "{stream.name}"'
            problems.note(f"{stream.path}.name", text)


def _library(table: Table, base: Path) -> Path | None:
    text = table.text("library", None, what="the directory that edge-rnn build wrote")
    if text is None and table.has("library_unfit"):
        table.note("library_unfit", "expected only beside `library`; remove it, or name the library")
    return None if text is None else base / text


def _model(table: Table, base: Path) -> Path:
    text = table.text("model", None, what="the path of the model file")
    if text is None:
        return base
    path = base / text
    try:
        found = path.is_file()
    except OSError:
        found = False
    if not found:
        table.note("model", f"expected a model file, got no such file: {path}")
    return path


def _channels(
    table: Table, payload: PayloadFormat, topic: str | None, preset: Preset
) -> tuple[tuple[ChannelConfig, ...], dict[str, Template]]:
    """The channels, and the usable templates by the paths of the keys they stand at."""
    templates: dict[str, Template] = {}
    apart = topic is not None and CHANNEL in topic
    shared = None if topic is None or apart else _template(table, topic)
    if not table.required("channels", 'channels = [{ name = "..." }, ...], one for each input of the model'):
        return (), {} if shared is None else {table.at("topic"): shared}
    tables = table.tables("channels")
    if not 0 < len(tables) <= MAX_CHANNELS:
        if table.problems.clean(table.at("channels")):
            table.note("channels", f"expected 1 to {MAX_CHANNELS} channels, got {len(tables)}")
        return (), templates
    if table.has("topic") and all(entry.has("topic") for entry in tables):
        table.note("topic", "never used, because every channel has its own topic; remove it")
    channels = []
    # For each channel the key its template stands at.
    keys = []
    for i, entry in enumerate(tables):
        shares = not entry.has("topic")
        channel = _channel(
            entry, i, payload, topic, preset, missing=shares and topic is None and not table.has("topic")
        )
        key = table.at("topic") if shares else entry.at("topic")
        if shares and apart:
            # A topic of its own for each channel, by its name.
            key = entry.at("topic")
            channel = msgspec.structs.replace(channel, topic=channel.topic.replace(CHANNEL, channel.name))
            if entry.problems.clean(entry.at("name")) and (found := _template(entry, channel.topic)):
                templates[key] = found
        elif not shares and table.problems.clean(key) and (found := _template(entry, channel.topic)):
            templates[key] = found
        elif shares and shared is not None:
            templates[key] = shared
        channels.append(channel)
        keys.append(key)
    _agree(table, channels, payload, [templates.get(key) for key in keys])
    return tuple(channels), templates


def _template(table: Table, text: str) -> Template | None:
    """The template at the table's key `topic`, or None if it is none, which is noted."""
    try:
        return Template(text)
    except ConfigError as error:
        table.note("topic", str(error))
        return None


def _channel(
    table: Table, index: int, payload: PayloadFormat, topic: str | None, preset: Preset, *, missing: bool
) -> ChannelConfig:
    table.required("name", "the name of a model input")
    name = table.text("name", "", what="the name of a model input", pattern=r".{1,128}")
    if name in MODES:
        table.note("name", f'expected another name: "{name}" has a meaning of its own in `on`')
    template = table.text("topic", topic, what="a topic template")
    if missing:
        table.note("topic", "missing; expected a topic template here, or one `topic` for the whole stream")
    path, column = None, None
    if payload in DOCUMENTS:
        path = _document_path(table, name, preset)
    elif payload in NAMED:
        path = table.text("path", name, what="the name of a measurement there", pattern=r"[^\x00]{1,256}")
    elif table.has("path"):
        table.note(
            "path", f'expected only with a format of named values such as "json", got it with "{payload}"'
        )
    if only(table, "column", payload, COLUMNS) or payload in COLUMNS:
        column = table.integer("column", index, 0, 100_000)
    channel = ChannelConfig(
        name=name,
        topic=template or "",
        path=path,
        column=column,
        max_age_ns=table.duration("max_age", None),
        flapping=table.integer("flapping", 0, 0, MOST_CHANGES),
    )
    table.close()
    return channel


def _document_path(table: Table, name: str, preset: Preset) -> str | None:
    # A name such as "temp.in" is one key of a flat payload, not two steps, unless the sender nests its
    # values.
    plain = name if re.fullmatch(STEP, name) else f'["{name}"]'
    if preset.dotted and re.fullmatch(PATH, preset.prefix + name):
        plain = preset.prefix + name
    if '"' in name and not table.has("path"):
        table.note("path", "missing; the name holds a quotation mark and cannot be the path")
    return table.text("path", plain, what=PATH_HELP, pattern=PATH)


def _agree(
    table: Table,
    channels: Sequence[ChannelConfig],
    payload: PayloadFormat,
    templates: Sequence[Template | None],
) -> None:
    """Note channels that contradict each other: names, sources, and fields of the templates."""
    usable = [table.problems.clean(table.at(f"channels[{i}]")) for i in range(len(channels))]
    fields: frozenset[str] | None = None
    names: dict[str, int] = {}
    sources: dict[tuple[object, ...], int] = {}
    for i, (channel, template) in enumerate(zip(channels, templates, strict=True)):
        at = f"channels[{i}]"
        if table.problems.clean(table.at(f"{at}.name")) and names.setdefault(channel.name, i) != i:
            first = names[channel.name]
            table.note(
                f"{at}.name", f"expected another name than channels[{first}], got {describe(channel.name)}"
            )
            continue
        first = sources.setdefault((channel.topic, channel.path, channel.column), i) if usable[i] else i
        if first != i:
            hint = (
                "; a plain number is one value, so give each channel its topic" if payload == "number" else ""
            )
            table.note(at, f"expected another topic, path or column than channels[{first}]{hint}")
        if template is None:
            continue
        found = frozenset(template.fields)
        if fields is None:
            fields = found
        elif found != fields:
            table.note(
                f"{at}.topic",
                f"expected the same fields as the channels before ({_listed(fields)}), got {_listed(found)}",
            )


def _listed(fields: frozenset[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in sorted(fields)) or "none"
