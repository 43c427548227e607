"""The daemon's TOML file -> `Config`, or one `ConfigError` that lists every problem in it.

`parse_config` walks the parsed document section by section (`config_walk.Table` notes what does not fit
and goes on), then checks what one key says against what another says, and only at the end either returns
the frozen structs of `config_types` or raises with all lines. A line reads

    pump.toml:12: stream[0].channels[2].max_age: expected a duration such as "500ms", ..., got "30 sec"

Cross checks run only on values that were fine by themselves, so that one mistake gives one line.

Secrets never stand in the file: a password comes from `password_file`, from the environment variable named
by `password_env`, or from the systemd credential `mqtt_password`. It is a `Secret` from the moment it is
read. `echo` gives a configuration back as it could stand in a file, with every default spelled out, and
with `***` for the password.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import tomllib
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from edge_rnn.errors import ConfigError
from edge_rnn.files.config_outlets import (
    read_commands,
    read_homeassistant,
    read_record,
    read_reload,
    read_sinks,
)
from edge_rnn.files.config_stream import Examine, StreamParts, read_stream, reject_loops, unique_names
from edge_rnn.files.config_types import (
    DELIVERIES,
    EVENT_SHAPES,
    LOG_FORMATS,
    LOG_LEVELS,
    PROTOCOLS,
    READERS,
    SYNCS,
    ChannelConfig,
    Config,
    Delivery,
    HealthConfig,
    HttpConfig,
    LogConfig,
    MqttConfig,
    OutputConfig,
    Protocol,
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
    "load_config", "parse_config",
]  # fmt: skip

MAX_BYTES: Final = 1 << 20
NO_DETECTOR: Final = (
    "this model has no detector section, so it gives no verdicts; make one with edge-rnn train, "
    "or export_model(detector=...)"
)
_MACHINE_IDS: Final = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
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
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: expected UTF-8 text, got byte 0x{raw[error.start]:02x} at {error.start}"
        ) from None
    return parse_config(text, path, environ, examine)


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
    try:
        document: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
        place = f"{where}:{at[1]}" if at else str(where)
        raise ConfigError(f"{place}: expected TOML, got: {error}") from None
    except (ValueError, RecursionError):
        # A number of thousands of digits, or thousands of nested brackets.
        raise ConfigError(f"{where}: expected TOML, got a number or a nesting beyond all measure") from None
    problems = Problems(str(where), key_lines(text))
    root = Table(problems, "", document)
    base = Path(os.path.abspath(Path(where).parent))  # noqa: PTH100  (resolve() would follow links)

    store = _store(_section(root, "store"), base, environ)
    mqtt = _mqtt(_section(root, "mqtt"), base, environ, store.path)
    output = _output(_section(root, "output"))
    log = _log(_section(root, "log"))
    health = _health(_section(root, "health"))
    http = _http(_section(root, "http"))
    homeassistant = read_homeassistant(root.table("homeassistant"))
    commands = read_commands(root.table("commands"), output.base)
    sinks = read_sinks(root, environ, lambda table, key: _secret_file(table, key, base))
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


def _path(table: Table, key: str, base: Path, what: str) -> Path | None:
    """An existing file, made absolute; None if there is no such key or file (which is noted)."""
    text = table.text(key, None, what=f"the path of {what}")
    if text is None:
        return None
    path = base / text
    try:
        if path.is_file():
            return path
    except OSError as error:
        table.note(key, f"expected {what}, got {describe(str(path))}: {error.strerror}")
        return None
    table.note(key, f"expected {what}, got no such file: {path}")
    return None


def _mqtt(table: Table, base: Path, environ: Mapping[str, str], store: Path) -> MqttConfig:
    inner = table.table("tls")
    tls = None if inner is None else _tls(inner, base)
    host = _host(table)
    protocol = table.choice("protocol", "5", PROTOCOLS)
    username = table.text("username", None, what="an account name")
    password = _password(table, base, environ, username)
    plaintext = table.boolean("allow_plaintext_password", default=False)
    if table.problems.clean(table.at("host"), table.at("tls")) and password is not None:
        if tls is None and not plaintext and not _is_local(host):
            table.note(
                "tls",
                f"missing; the password would go to {describe(host)} unencrypted; add [mqtt.tls], "
                "or allow_plaintext_password = true if the network is trusted",
            )
        if username is None and protocol == "3.1.1":
            table.note("username", "missing; MQTT 3.1.1 has no password without an account name")
    low = table.duration("reconnect_min", _SECOND, UNITS_NS["ms"] * 100)
    high = table.duration("reconnect_max", max(30 * _SECOND, low), UNITS_NS["ms"] * 100)
    if low > high and table.problems.clean(table.at("reconnect_min"), table.at("reconnect_max")):
        table.note(
            "reconnect_max",
            f'expected at least reconnect_min = "{duration_text(low)}", got "{duration_text(high)}"',
        )
    keepalive = table.duration("keepalive", 20 * _SECOND, _SECOND, 65535 * _SECOND)
    if keepalive % _SECOND:
        table.note("keepalive", f'expected whole seconds, got "{duration_text(keepalive)}"')
    qos = table.integer("qos", 1, 0, 1)
    expiry = table.duration("session_expiry", 24 * UNITS_NS["h"], 0)
    delivery = _delivery(table, protocol, qos, expiry)
    config = MqttConfig(
        host=host,
        port=table.integer("port", 1883 if tls is None else 8883, 1, 65535),
        protocol=protocol,
        client_id=table.text("client_id", None, what="a client id") or default_client_id(store),
        keepalive_s=keepalive // _SECOND,
        username=username,
        password=password,
        qos=0 if delivery == "realtime" else qos,
        tls=tls,
        reconnect_min_ns=low,
        reconnect_max_ns=high,
        session_expiry_ns=expiry,
        receive_maximum=table.integer("receive_maximum", 1000, 1, 65535),
        delivery=delivery,
        reader=table.choice("reader", "auto", READERS),
        max_payload=table.integer("max_payload", 65536, 16, 1 << 24),
    )
    table.close()
    return config


def _delivery(table: Table, protocol: Protocol, qos: int, expiry_ns: int) -> Delivery:
    """`delivery`, and whether protocol and qos can keep what it promises."""
    most: Delivery = "realtime" if qos == 0 else "exactly-once-state" if protocol == "5" else "at-least-once"
    delivery = table.choice("delivery", most, DELIVERIES)
    if not table.has("delivery"):
        return delivery
    if not table.problems.clean(table.at("delivery"), table.at("qos"), table.at("protocol")):
        return delivery
    if delivery == "realtime" and table.has("qos") and qos == 1:
        table.note("qos", 'expected 0 with delivery = "realtime", got 1; leave it out, or promise more')
    elif delivery != "realtime" and qos == 0:
        table.note("qos", f'expected 1 with delivery = "{delivery}", got 0; leave it out')
    elif delivery == "exactly-once-state" and protocol != "5":
        table.note(
            "delivery",
            f'expected protocol = "5" with "exactly-once-state", got "{protocol}"; '
            'MQTT 3.1.1 can promise "at-least-once"',
        )
    elif delivery == "exactly-once-state" and expiry_ns == 0:
        table.note(
            "session_expiry", 'expected more than "0s" with delivery = "exactly-once-state": the broker must '
            "keep what this client has not acknowledged",
        )  # fmt: skip
    return delivery


def _timed(streams: Sequence[StreamParts], root: Table, mqtt: MqttConfig) -> None:
    """Repeats are known by their times: without them nobody can promise that none is stepped twice."""
    if mqtt.delivery != "exactly-once-state":
        return
    for index, stream in enumerate(streams):
        config = stream.config
        if config is not None and config.time is None and config.format not in _TIMED:
            root.note(
                f"stream[{index}].time",
                'missing; delivery = "exactly-once-state" knows a repeat by its time; name it, or set '
                'mqtt.delivery = "at-least-once"',
            )


def _host(table: Table) -> str:
    what = "a host name or address"
    host = table.text("host", "localhost", what=what)
    if "@" in host or "/" in host:
        # Such a text may carry a password, so it is not repeated.
        table.note("host", f"expected {what} without a scheme or an account, got a URL")
    elif not re.fullmatch(r"[A-Za-z0-9_.:%\-]{1,255}", host):
        table.note("host", f"expected {what}, got {describe(host)}")
    else:
        return host
    return "localhost"


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _tls(table: Table, base: Path) -> TlsConfig:
    config = TlsConfig(
        ca=_path(table, "ca", base, "a file of trusted certificates"),
        cert=_path(table, "cert", base, "this device's certificate"),
        key=_path(table, "key", base, "the certificate's private key"),
        insecure=table.boolean("insecure", default=False),
    )
    if table.has("cert") != table.has("key"):
        missing, there = ("key", "cert") if table.has("cert") else ("cert", "key")
        table.note(missing, f"missing; expected together with {there}")
    if config.insecure and table.has("ca"):
        table.note("insecure", "expected false where ca is given: without the check ca has no use")
    table.close()
    return config


def _password(table: Table, base: Path, environ: Mapping[str, str], username: str | None) -> Secret | None:
    remedy = 'put it into a file and name it: password_file = "mqtt_password", or use password_env'
    table.forbid("password", f"a password does not belong into this file; {remedy}")
    if table.has("password_file") and table.has("password_env"):
        table.note("password_env", "expected either password_file or password_env, got both")
        return None
    name = table.text("password_env", None, what="the name of an environment variable")
    if name is not None:
        # The name is not repeated: someone may have written the password itself here.
        if not environ.get(name):
            table.note("password_env", "expected a variable of the environment, got one that is not set")
            return None
        return _secret(table, "password_env", environ[name])
    if table.has("password_file"):
        file = _path(table, "password_file", base, "a file that holds the password")
        return None if file is None else _read_secret(table, "password_file", file)
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    if credentials and username is not None and (path := Path(credentials, "mqtt_password")).is_file():
        return _read_secret(table, "password_file", path)
    return None


def _secret_file(table: Table, key: str, base: Path) -> Secret | None:
    """The secret in the file that the key names."""
    file = _path(table, key, base, "a file that holds the secret")
    return None if file is None else _read_secret(table, key, file)


def _read_secret(table: Table, key: str, path: Path) -> Secret | None:
    try:
        with path.open("rb") as file:
            text = file.read(4097).decode("utf-8")
    except OSError as error:
        table.note(key, f"expected a readable file, got {path}: {error.strerror}")
        return None
    except UnicodeDecodeError:
        table.note(key, f"expected UTF-8 text in {path}, got other bytes")
        return None
    return _secret(table, key, text.removesuffix("\n").removesuffix("\r"))


def _secret(table: Table, key: str, text: str) -> Secret | None:
    if not 0 < len(text) <= 4096 or "\n" in text or "\0" in text:
        table.note(key, "expected a password of one line of 1 to 4096 characters, got something else")
        return None
    return Secret(text)


def default_client_id(store: Path, machine_ids: Sequence[Path] = _MACHINE_IDS) -> str:
    """`edge-rnn-` and 12 hex digits that stay the same for this machine and this store.

    The machine's id is hashed, never shown; the host name is no part of it. The store's path is, because
    two clients with one id throw each other out for ever, and two daemons of one machine cannot share a
    store.
    """
    machine = ""
    for path in machine_ids:
        try:
            machine = path.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            continue
        if machine:
            break
    seed = f"edge-rnn\0{machine or uuid.getnode()}\0{store}"
    return f"edge-rnn-{hashlib.sha256(seed.encode('utf-8', 'surrogateescape')).hexdigest()[:12]}"


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
