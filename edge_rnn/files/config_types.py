"""The daemon's configuration as frozen values; every field says its TOML key's meaning, unit and default.

Durations are whole nanoseconds here (`..._ns`) and texts such as "30s" in the file. Paths are absolute:
`config.py` has resolved them against the folder of the configuration file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal, get_args

import msgspec

Protocol = Literal["5", "3.1.1"]
PayloadFormat = Literal[
    "json", "number", "csv", "msgpack", "cbor", "senml", "senml-cbor", "sparkplug", "binary"
]
LibraryUnfit = Literal["compile", "refuse"]
Reader = Literal["auto", "batch", "paho"]
Delivery = Literal["realtime", "at-least-once", "exactly-once-state"]
TimeUnit = Literal["auto", "s", "ms", "us", "ns", "iso8601"]
Sync = Literal["full", "normal"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["text", "json"]
EventShape = Literal["plain", "before-after"]
EventType = Literal["open", "update", "close"]
RecordFormat = Literal["ndjson", "csv"]
READERS: Final[tuple[Reader, ...]] = get_args(Reader)
DELIVERIES: Final[tuple[Delivery, ...]] = get_args(Delivery)
PROTOCOLS: Final[tuple[Protocol, ...]] = get_args(Protocol)
PAYLOAD_FORMATS: Final[tuple[PayloadFormat, ...]] = get_args(PayloadFormat)
TIME_UNITS: Final[tuple[TimeUnit, ...]] = get_args(TimeUnit)
SYNCS: Final[tuple[Sync, ...]] = get_args(Sync)
LOG_LEVELS: Final[tuple[LogLevel, ...]] = get_args(LogLevel)
LOG_FORMATS: Final[tuple[LogFormat, ...]] = get_args(LogFormat)
EVENT_SHAPES: Final[tuple[EventShape, ...]] = get_args(EventShape)
EVENT_TYPES: Final[tuple[EventType, ...]] = get_args(EventType)
RECORD_FORMATS: Final[tuple[RecordFormat, ...]] = get_args(RecordFormat)

_SECOND = 1_000_000_000
_MINUTE = 60 * _SECOND
_HOUR = 60 * _MINUTE


class Secret:
    """A text that shows as `***` wherever it is printed, logged or formatted; `reveal()` gives it away."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The secret itself, for the one place that sends it."""
        return self._text

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> str:
        raise TypeError("a secret is not pickled")


class TlsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`[mqtt.tls]`: encryption of the connection; the table's presence turns it on (TLS 1.2 or newer)."""

    ca: Path | None = None
    """Certificates to trust (PEM); default: those of the system."""
    cert: Path | None = None
    """This device's certificate (PEM), together with `key`."""
    key: Path | None = None
    """The private key of `cert` (PEM)."""
    insecure: bool = False
    """True skips the check of certificate and host name; anyone on the way can then read along."""


class MqttConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`[mqtt]`: the connection to the broker."""

    host: str = "localhost"
    """Name or address of the broker, without a scheme."""
    port: int = 1883
    """TCP port; default 1883, or 8883 with TLS."""
    protocol: Protocol = "5"
    """MQTT version."""
    client_id: str = ""
    """Name of this client at the broker; default `edge-rnn-` and a short id made of the machine's."""
    keepalive_s: int = 20
    """`keepalive`: longest silence before a ping, whole seconds; default "20s"."""
    username: str | None = None
    """Account at the broker; default none."""
    password: Secret | None = None
    """From `password_file`, `password_env`, or `$CREDENTIALS_DIRECTORY/mqtt_password`; never in the file."""
    qos: int = 1
    """QoS of the subscriptions: 1 (nothing accepted by the broker is lost) or 0."""
    tls: TlsConfig | None = None
    """Encryption, or None for a plain connection."""
    reconnect_min_ns: int = _SECOND
    """`reconnect_min`: pause between attempts in the first minutes without a broker; default "1s"."""
    reconnect_max_ns: int = 30 * _SECOND
    """`reconnect_max`: the pause grows up to this afterwards; default "30s"."""
    session_expiry_ns: int = 24 * _HOUR
    """`session_expiry`: how long an MQTT 5 broker keeps readings for this client while it is away; "24h"."""
    receive_maximum: int = 1000
    """Unacknowledged messages an MQTT 5 broker may send ahead; they wait for the store's next commit."""
    delivery: Delivery = "exactly-once-state"
    """What is promised for readings, see the README; default: the most that protocol and qos allow."""
    reader: Reader = "auto"
    """batch: packets are read in batches where paho allows it; auto: and usual messages go through compiled
    passes, which take a first start some seconds more; paho: one by one, by paho alone, much slower."""
    max_payload: int = 65536
    """Largest payload that is read, bytes; a larger one is counted and dropped."""


class OutputConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`[output]`: what is published."""

    base: str = "edge-rnn"
    """First level(s) of every output topic."""
    score_every_ns: int = 0
    """`score_every`: shortest time between two scores of one stream; default "0s": every score."""
    events: EventShape = "plain"
    """Shape of event messages: plain, or `before-after` like Frigate's, with start and end time."""


class StoreConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`[store]`: the database of states, outgoing events and event history."""

    path: Path
    """The database; default `edge-rnn.db` in `$STATE_DIRECTORY`, else beside the configuration."""
    commit_every_ns: int = _SECOND
    """`commit_every`: time between two commits; longer spares flash, readings wait for their PUBACK; "1s"."""
    backup_every_ns: int = _HOUR
    """`backup_every`: time between two checked copies of the database; "0s" for none; default "1h"."""
    sync: Sync = "full"
    """full: a commit survives a power cut; normal: it survives a crash of the program."""
    keep_events: int = 10_000
    """Newest events kept in the history."""
    max_outbox: int = 10_000
    """Most events that wait for the broker; beyond it the oldest are dropped and counted."""


class LogConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`[log]`: lines on stderr."""

    level: LogLevel = "info"
    """Least important lines to write."""
    format: LogFormat = "text"
    """One line a record: text, or JSON."""


class HealthConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`[health]`: the retained health message."""

    every_ns: int = 30 * _SECOND
    """`every`: time between two health messages; default "30s"."""


class HttpConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`[http]`: metrics and health over HTTP; off by default."""

    listen: str | None = None
    """Address and port, such as "127.0.0.1:9464" or "[::]:9464"; default none: no server."""

    def address(self) -> tuple[str, int] | None:
        """Host and port, or None."""
        if self.listen is None:
            return None
        host, _, port = self.listen.rpartition(":")
        return host.removeprefix("[").removesuffix("]"), int(port)


class HomeAssistantConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`[homeassistant]`: device discovery; the table's presence turns it on."""

    prefix: str = "homeassistant"
    """Home Assistant's discovery prefix; its birth message is expected on `<prefix>/status`."""
    max_streams: int = 100
    """Most streams of one group that are announced; each has three entities."""


class CommandsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`[commands]`: the command topic; the table's presence turns it on."""

    topic: str
    """Where commands are expected; replies go to `<topic>/reply`. Default: `<output.base>/command`."""


class SinkConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One `[[sink]]`: where events go beside MQTT, a webhook or a command."""

    name: str
    """For logs and health."""
    webhook: str | None = None
    """URL that each event is posted to, as JSON."""
    command: tuple[str, ...] = ()
    """Program and arguments; each event is its standard input, as JSON. No shell."""
    events: tuple[EventType, ...] = ("open", "close")
    """Which changes of an alarm or fault are told."""
    streams: tuple[str, ...] = ()
    """Only streams whose id matches one of these patterns (`*`, `?`); default: all."""
    secret: Secret | None = None
    """Signs a webhook's bodies, from `secret_file` or `secret_env`; default: no signature."""
    timeout_ns: int = 10 * _SECOND
    """`timeout`: longest time one attempt may take."""
    retry_for_ns: int = 0
    """`retry_for`: how long an event is tried again; default "5m" for a webhook, "0s" for a command."""
    queue: int = 100
    """Most events that wait; beyond it the oldest is dropped and counted."""


class RecordConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`[record]`: readings as they were scored, with verdicts; the table's presence turns it on."""

    path: Path
    """Folder of the files; default `record` beside the database."""
    format: RecordFormat = "ndjson"
    """One JSON object a line, or CSV."""
    gzip: bool = True
    """Whether full files are compressed."""
    max_file_bytes: int = 16 << 20
    """`max_file_mb`: a file that has grown so large is closed, and the next one begun."""
    max_total_bytes: int = 1 << 30
    """`max_total_mb`: beyond it the oldest files go."""


class ReloadConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`[reload]`: when this file is read again without being asked to."""

    watch_ns: int = 0
    """`watch`: how often this file and the models are looked at for changes; default "0s": never."""


class ChannelConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One of `stream.channels`: where one input of the model comes from."""

    name: str
    """Name of the model's input."""
    topic: str
    """Topic template; default: the stream's `topic`."""
    path: str | None = None
    """json, msgpack, cbor: where the value is in the payload, as `a.b[0]["c.d"]`; senml, sparkplug: the
    name there. Default: the channel's name."""
    column: int | None = None
    """csv, binary: column of the value, from 0; default: the channel's place among the channels."""
    max_age_ns: int | None = None
    """`max_age`: an older value counts as missing; default: no limit."""
    flapping: int = 0
    """A channel with states, such as a switch: more changes of its value in a minute are a fault; 0: any."""


class TimeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`stream.time`: where a payload holds its event time."""

    path: str | None = None
    """json, msgpack, cbor: where the time is in the payload."""
    column: int | None = None
    """csv, binary: column of the time, from 0."""
    unit: TimeUnit = "auto"
    """Since 1970 UTC in s, ms, us or ns, or iso8601 text; default auto: found from the first value."""


class SequenceConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`stream.sequence`: where a payload holds the number that rises from one to the next."""

    path: str | None = None
    """json, msgpack, cbor: where the number is in the payload."""
    column: int | None = None
    """csv, binary: column of the number, from 0."""


class StreamConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One `[[stream]]`: a model and the topics that feed it; one state per key of the topic template."""

    name: str
    """First level of the stream ids; letters, digits, `_`, `-`, `.`."""
    model: Path
    """The model file."""
    channels: tuple[ChannelConfig, ...]
    """One for each input of the model, in any order (`channel_order` matches them)."""
    preset: str | None = None
    """Where the defaults of this stream come from, see `presets.py`."""
    format: PayloadFormat = "json"
    """How payloads are written, see `service/codecs`."""
    layout: str | None = None
    """binary: the numbers of a payload as a format of Python's struct, such as "<Ihhf"."""
    each: str | None = None
    """Several readings in a payload: the path of their array, "lines" (csv) or "records" (binary)."""
    key: tuple[str, ...] = ()
    """Paths of what names the sender in the payload; each is one more level of the stream's id."""
    partial: bool = False
    """Whether a payload with none of the channels is no reading, rather than refused."""
    rebirth: bool = True
    """sparkplug: whether to ask nodes for their births when one is missing."""
    time: TimeConfig | None = None
    """Event time in the payload; default: the time of arrival."""
    sequence: SequenceConfig | None = None
    """The sender's own number of a reading: what comes twice is known by it; default: by its time."""
    on: str = "any"
    """A sample leaves on `any` value, when `all` are new, at `every` interval, or with the named channel."""
    every_ns: int | None = None
    """`every`: the interval of `on = "every"`."""
    timeout_ns: int | None = None
    """`timeout`: for `all` and `every`, how long an incomplete sample waits; default: see the assembler."""
    silent_after_ns: int | None = None
    """`silent_after`: no data for this long is a fault; default: what the model file says."""
    silent_intervals: int = 20
    """Where no `silent_after` is known: silent after so many of a stream's own intervals; 0: never."""
    clock_limit_ns: int = 10 * _MINUTE
    """`clock_limit`: times of its own that are further from this machine's clock, for a minute, are a fault;
    "0s": never; default "10m"."""
    flapping: int = 20
    """An alarm that goes on and off more often in a minute is a fault (each counts); 0: never."""
    gap_ns: int | None = None
    """`gap`: after a pause longer than this a stream starts cold; default: what the model file says."""
    max_streams: int = 1000
    """Most keys with a state at one time; beyond it the least recently used one goes, counted."""
    retained: bool = False
    """Whether retained messages count as readings; they are old, and come again at each connect."""
    library: Path | None = None
    """The folder `edge-rnn build` wrote for this model; default: the functions are compiled here."""
    library_unfit: LibraryUnfit = "compile"
    """A library that does not fit model, CPU or version: `compile` after all, or `refuse` to start."""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """A whole configuration file."""

    source: str
    """The file it came from, for messages."""
    mqtt: MqttConfig
    output: OutputConfig
    store: StoreConfig
    log: LogConfig
    health: HealthConfig
    http: HttpConfig = HttpConfig()
    streams: tuple[StreamConfig, ...]
    homeassistant: HomeAssistantConfig | None = None
    commands: CommandsConfig | None = None
    sinks: tuple[SinkConfig, ...] = ()
    record: RecordConfig | None = None
    reload: ReloadConfig = ReloadConfig()
