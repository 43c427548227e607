"""The daemon's TOML file -> `Config`, or one `ConfigError` that lists every problem in it.

`parse_config` walks the parsed document section by section (`config_walk.Table` notes what does not fit
and goes on), then checks what one key says against what another says, and only at the end either returns
the frozen structs of `config_types` or raises with all lines. A line reads

    pump.toml:12: stream[0].channels[2].max_age: expected a duration such as "500ms", ..., got "30 sec"

Cross checks run only on values that were fine by themselves, so that one mistake gives one line.

Secrets never stand in the file, see `config_secrets`. `echo` gives a configuration back as it could stand in
a file, with every default spelled out, and with `***` for the password.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from edge_rnn.errors import ConfigError
from edge_rnn.files.config_mqtt import read_mqtt
from edge_rnn.files.config_outlets import (
    read_commands,
    read_homeassistant,
    read_record,
    read_reload,
    read_sinks,
)
from edge_rnn.files.config_secrets import secret_file
from edge_rnn.files.config_stream import Examine, StreamParts, read_stream, reject_loops, unique_names
from edge_rnn.files.config_types import (
    EVENT_SHAPES,
    LOG_FORMATS,
    LOG_LEVELS,
    SYNCS,
    ChannelConfig,
    Config,
    HealthConfig,
    HttpConfig,
    LogConfig,
    MqttConfig,
    OutputConfig,
    Secret,
    StoreConfig,
    StreamConfig,
    TimeConfig,
    TlsConfig,
)
from edge_rnn.files.config_walk import UNITS_NS, Problems, Table, describe, duration_text, key_lines, nearest

__all__ = [
    "ChannelConfig", "Config", "HealthConfig", "HttpConfig", "LogConfig", "MqttConfig", "OutputConfig",
    "Secret", "StoreConfig", "StreamConfig", "TimeConfig", "TlsConfig", "channel_order", "echo",
    "load_config", "parse_config", "store_path",
]  # fmt: skip

MAX_BYTES: Final = 1 << 20
NO_DETECTOR: Final = (
    "this model has no detector section, so it gives no verdicts; make one with edge-rnn train, "
    "or export_model(detector=...)"
)
# Eight bytes of a length below 16 MiB, then a JSON object.
_SAFETENSORS: Final = re.compile(rb".{3}\0{5}\{", re.DOTALL)
_SECOND: Final = UNITS_NS["s"]
# Formats whose readings carry their times without being told where.
_TIMED: Final = ("senml", "senml-cbor", "sparkplug")


def load_config(
    path: str | Path, environ: Mapping[str, str] = os.environ, examine: Examine | None = None
) -> Config:
    """Read a configuration file; relative paths in it are relative to its folder.

    Args:
        path: the file.
        environ: the environment.
        examine: looks closer at the models, see `parse_config`.

    Raises:
        ConfigError: with every problem, one a line.
    """
    return parse_config(_text_of(path), path, environ, examine)


def store_path(path: str | Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Where the database of a configuration is, for who only reads that: no other table, no secret is looked
    at.

    Raises:
        ConfigError: no configuration, or a wrong `[store]`.
    """
    root, _ = _document(_text_of(path), path)
    store = _store(_section(root, "store"), _base(path), environ)
    if root.problems:
        root.problems.fail()
    return store.path


def _text_of(path: str | Path) -> str:
    try:
        with Path(path).open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: expected a configuration file, got: {reason}") from None
    if _SAFETENSORS.match(raw) or raw.startswith((b"PK\x03\x04", b"\x80")) or raw[257:262] == b"ustar":
        raise ConfigError(f"{path}: this is a model file; expected a configuration (.toml) that names it")
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{path}: expected a configuration of at most {MAX_BYTES} bytes, got more")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: expected UTF-8 text, got byte 0x{raw[error.start]:02x} at {error.start}"
        ) from None


def parse_config(
    text: str,
    where: str | Path,
    environ: Mapping[str, str] = os.environ,
    examine: Examine | None = None,
) -> Config:
    """Parse a configuration's text; `where` is its path: named in messages, base of relative paths.

    Files that it names (model, certificates, password) must exist; the password file is read. `examine`, if
    given, is asked about each stream whose model file is there; what it finds is listed with the rest.

    Raises:
        ConfigError: with every problem, one a line.
    """
    root, document = _document(text, where)
    problems = root.problems
    base = _base(where)

    store = _store(_section(root, "store"), base, environ)
    mqtt = read_mqtt(_section(root, "mqtt"), base, environ, store.path)
    output = _output(_section(root, "output"))
    log = _log(_section(root, "log"))
    health = _health(_section(root, "health"))
    http = _http(_section(root, "http"))
    homeassistant = read_homeassistant(root.table("homeassistant"))
    commands = read_commands(root.table("commands"), output.base)
    sinks = read_sinks(root, environ, lambda table, key: secret_file(table, key, base))
    record = read_record(root.table("record"), base, store.path)
    reload = read_reload(root.table("reload"))
    streams: list[StreamParts] = []
    if root.required("stream", "at least one [[stream]]"):
        tables = root.tables("stream")
        streams = [read_stream(table, base, examine) for table in tables]
        if not streams and problems.clean("stream"):
            root.note("stream", "expected at least one [[stream]], got none")
    unique_names(streams, problems)
    reject_loops(streams, output.base, problems)
    if isinstance(document.get("mqtt"), dict) and "delivery" in document["mqtt"]:
        _timed(streams, root, mqtt)
    root.close()
    if problems:
        problems.fail()
    return Config(
        source=str(where),
        mqtt=mqtt,
        output=output,
        store=store,
        log=log,
        health=health,
        http=http,
        streams=tuple(stream.config for stream in streams if stream.config is not None),
        homeassistant=homeassistant,
        commands=commands,
        sinks=sinks,
        record=record,
        reload=reload,
    )


def _document(text: str, where: str | Path) -> tuple[Table, dict[str, Any]]:
    try:
        document: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
        place = f"{where}:{at[1]}" if at else str(where)
        raise ConfigError(f"{place}: expected TOML, got: {error}") from None
    except (ValueError, RecursionError):
        # A number of thousands of digits, or thousands of nested brackets.
        raise ConfigError(f"{where}: expected TOML, got a number or a nesting beyond all measure") from None
    return Table(Problems(str(where), key_lines(text)), "", document), document


def _base(where: str | Path) -> Path:
    """What relative paths in a configuration are relative to."""
    return Path(os.path.abspath(Path(where).parent))  # noqa: PTH100  (resolve() would follow links)


def channel_order(stream: StreamConfig, inputs: Sequence[str]) -> tuple[int, ...]:
    """For each channel of the stream, its index among the model's inputs.

    Raises:
        ConfigError: a name has no partner on the other side.
    """
    names = [channel.name for channel in stream.channels]
    lines = unmatched(stream.name, names, inputs)
    if lines:
        raise ConfigError("\n".join(lines))
    return tuple(inputs.index(name) for name in names)


def unmatched(stream: str, names: Sequence[str], inputs: Sequence[str]) -> list[str]:
    """One line for each channel's name and each of the model's inputs that has no partner."""
    lines = [
        f'stream "{stream}": the model has no input {describe(name)}{nearest(name, inputs)}'
        for name in names
        if name not in inputs
    ]
    return lines + [
        f'stream "{stream}": expected a channel for the model\'s input {describe(name)}, got none'
        for name in inputs
        if name not in names
    ]


def echo(config: Config) -> dict[str, Any]:
    """The configuration as plain values for logs: keys and texts as in a file, secrets as `***`."""
    plain = msgspec.to_builtins(config, enc_hook=str)
    plain["stream"] = plain.pop("streams")
    plain["sink"] = plain.pop("sinks")
    result = _spell(plain)
    assert isinstance(result, dict)
    return result


def _spell(value: object) -> object:
    """Durations as texts under their TOML names, absent values left out."""
    if isinstance(value, dict):
        spelled: dict[str, object] = {}
        for key, entry in value.items():
            if key.endswith("_ns") and isinstance(entry, int):
                spelled[key[:-3]] = duration_text(entry)
            elif key == "keepalive_s" and isinstance(entry, int):
                spelled["keepalive"] = duration_text(entry * _SECOND)
            elif entry is not None:
                spelled[key] = _spell(entry)
        return spelled
    return [_spell(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def _section(root: Table, key: str) -> Table:
    return root.table(key) or Table(root.problems, key, {})


def _timed(streams: Sequence[StreamParts], root: Table, mqtt: MqttConfig) -> None:
    """Repeats are known by their times: without them nobody can promise that none is stepped twice."""
    if mqtt.delivery != "exactly-once-state":
        return
    for index, stream in enumerate(streams):
        config = stream.config
        if config is not None and _has_neither(config):
            root.note(
                f"stream[{index}].time",
                'missing; delivery = "exactly-once-state" knows a repeat by its time, or by a sequence; name '
                'one of them, or set mqtt.delivery = "at-least-once"',
            )


def _has_neither(stream: StreamConfig) -> bool:
    return stream.time is None and stream.sequence is None and stream.format not in _TIMED


def _output(table: Table) -> OutputConfig:
    base = table.text("base", "edge-rnn", what="the first level(s) of a topic")
    if re.search(r"[+#{}]|^\$|^/|/$|//", base) or len(base) > 256:
        table.note("base", f"expected topic levels without wildcards or empty levels, got {describe(base)}")
        base = "edge-rnn"
    config = OutputConfig(
        base=base,
        score_every_ns=table.duration("score_every", 0, 0),
        events=table.choice("events", "plain", EVENT_SHAPES),
    )
    table.close()
    return config


def _store(table: Table, base: Path, environ: Mapping[str, str]) -> StoreConfig:
    # systemd gives a colon-separated list where a unit has several state directories.
    state = environ.get("STATE_DIRECTORY", "").split(":")[0]
    text = table.text("path", None, what="the path of the database")
    path = base / text if text is not None else Path(state or base, "edge-rnn.db")
    config = StoreConfig(
        path=path,
        commit_every_ns=table.duration("commit_every", _SECOND, UNITS_NS["ms"], UNITS_NS["h"]),
        backup_every_ns=table.duration("backup_every", UNITS_NS["h"], 0),
        sync=table.choice("sync", "full", SYNCS),
        keep_events=table.integer("keep_events", 10_000, 0, 1_000_000),
        max_outbox=table.integer("max_outbox", 10_000, 1, 1_000_000),
    )
    table.close()
    return config


def _log(table: Table) -> LogConfig:
    config = LogConfig(
        level=table.choice("level", "info", LOG_LEVELS), format=table.choice("format", "text", LOG_FORMATS)
    )
    table.close()
    return config


def _health(table: Table) -> HealthConfig:
    config = HealthConfig(every_ns=table.duration("every", 30 * _SECOND, _SECOND))
    table.close()
    return config


def _http(table: Table) -> HttpConfig:
    what = 'an address and a port such as "127.0.0.1:9464"'
    listen = table.text("listen", None, what=what)
    if listen is not None:
        match = re.fullmatch(r"(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9_.\-]{1,255}):([0-9]{1,5})", listen)
        if match is None or int(match[2]) > 65535:
            table.note("listen", f"expected {what}, got {describe(listen)}")
            listen = None
    table.close()
    return HttpConfig(listen=listen)
