"""The configuration file: what it means, every problem at once, secrets that never show."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from edge_rnn.errors import ConfigError
from edge_rnn.files.config import (
    Config,
    Secret,
    StreamConfig,
    channel_order,
    echo,
    load_config,
    parse_config,
)
from edge_rnn.files.config_mqtt import default_client_id

SECOND = 1_000_000_000

MINIMAL = """
[[stream]]
name = "press"
model = "press.safetensors"
topic = "plant/{site}/{machine}/data"
channels = [{ name = "vib" }]
"""

FULL = """
[mqtt]
host = "broker.example"
port = 8884
protocol = "3.1.1"
client_id = "press-7"
keepalive = "30s"
username = "press"
password_file = "secret"
qos = 0
reconnect_min = "2s"
reconnect_max = "1m"
session_expiry = "1h"
receive_maximum = 50
max_payload = 1024

[mqtt.tls]
ca = "ca.pem"
cert = "device.pem"
key = "device.key"

[output]
base = "site/edge"
score_every = "10s"

[store]
path = "state/press.db"
commit_every = "500ms"
backup_every = "0s"
sync = "normal"
keep_events = 50
max_outbox = 100

[log]
level = "debug"
format = "json"

[health]
every = "1m"

[[stream]]
name = "press"
model = "press.safetensors"
format = "json"
channels = [
    { name = "vib", topic = "plant/{machine}/vib", path = "rms" },
    { name = "temp", topic = "plant/{machine}/temp", path = "sensors.temp[0]", max_age = "30s" },
]
time = { path = "ts", unit = "ms" }
on = "vib"
silent_after = "5m"
gap = "1h"
max_streams = 16
retained = true

[[stream]]
name = "room"
model = "press.safetensors"
format = "csv"
topic = "room/{id}"
channels = [{ name = "a", column = 2 }, { name = "b", column = 3 }]
time = { column = 0, unit = "iso8601" }
on = "every"
every = "1s"
timeout = "2.5s"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("press.safetensors", "ca.pem", "device.pem", "device.key"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "secret").write_text("canary-secret\n")
    return tmp_path


def parse(folder: Path, text: str, environ: dict[str, str] | None = None) -> Config:
    return parse_config(text, folder / "edge.toml", environ or {})


def problems(folder: Path, text: str, environ: dict[str, str] | None = None) -> list[str]:
    """The lines of the error, without the file's path."""
    with pytest.raises(ConfigError) as caught:
        parse(folder, text, environ)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{folder / 'edge.toml'}:") for line in lines)
    return [line.removeprefix(f"{folder / 'edge.toml'}") for line in lines]


def with_mqtt(lines: str) -> str:
    return f"[mqtt]\n{lines}\n{MINIMAL}"


def with_stream(lines: str, channels: str = '[{ name = "vib" }]') -> str:
    return (
        '[[stream]]\nname = "press"\nmodel = "press.safetensors"\ntopic = "plant/{machine}/data"\n'
        f"channels = {channels}\n{lines}\n"
    )


def test_minimal_file_has_documented_defaults(folder: Path) -> None:
    config = parse(folder, MINIMAL)
    assert (config.mqtt.host, config.mqtt.port, config.mqtt.protocol, config.mqtt.qos) == (
        "localhost",
        1883,
        "5",
        1,
    )
    assert config.mqtt.password is None
    assert config.mqtt.tls is None
    assert config.mqtt.keepalive_s == 20
    assert (config.mqtt.reconnect_min_ns, config.mqtt.reconnect_max_ns) == (SECOND, 30 * SECOND)
    assert config.output.base == "edge-rnn"
    assert config.output.score_every_ns == 0
    assert config.store.path == folder / "edge-rnn.db"
    assert (config.store.commit_every_ns, config.store.sync) == (SECOND, "full")
    assert (config.log.level, config.log.format) == ("info", "text")
    assert config.health.every_ns == 30 * SECOND
    (stream,) = config.streams
    assert stream.model == folder / "press.safetensors"
    assert (stream.on, stream.format, stream.time, stream.max_streams) == ("any", "json", None, 1000)
    assert stream.retained is False
    (channel,) = stream.channels
    assert (channel.name, channel.topic, channel.path) == ("vib", "plant/{site}/{machine}/data", "vib")
    assert channel.max_age_ns is None


def test_every_key_arrives(folder: Path) -> None:
    config = parse(folder, FULL)
    mqtt = config.mqtt
    assert (mqtt.host, mqtt.port, mqtt.protocol, mqtt.client_id) == (
        "broker.example",
        8884,
        "3.1.1",
        "press-7",
    )
    assert (mqtt.keepalive_s, mqtt.username, mqtt.qos) == (30, "press", 0)
    assert mqtt.password is not None
    assert mqtt.password.reveal() == "canary-secret"
    assert mqtt.tls is not None
    assert (mqtt.tls.ca, mqtt.tls.cert) == (folder / "ca.pem", folder / "device.pem")
    assert (mqtt.tls.key, mqtt.tls.insecure) == (folder / "device.key", False)
    assert (mqtt.reconnect_min_ns, mqtt.reconnect_max_ns) == (2 * SECOND, 60 * SECOND)
    assert (mqtt.session_expiry_ns, mqtt.receive_maximum, mqtt.max_payload) == (3600 * SECOND, 50, 1024)
    assert (config.output.base, config.output.score_every_ns) == ("site/edge", 10 * SECOND)
    assert config.store.path == folder / "state/press.db"
    assert (config.store.commit_every_ns, config.store.backup_every_ns) == (SECOND // 2, 0)
    assert (config.store.sync, config.store.keep_events, config.store.max_outbox) == ("normal", 50, 100)
    assert (config.log.level, config.log.format, config.health.every_ns) == ("debug", "json", 60 * SECOND)
    press, room = config.streams
    assert [channel.path for channel in press.channels] == ["rms", "sensors.temp[0]"]
    assert press.channels[1].max_age_ns == 30 * SECOND
    assert press.time is not None
    assert (press.time.path, press.time.column, press.time.unit) == ("ts", None, "ms")
    assert (press.on, press.silent_after_ns, press.gap_ns) == ("vib", 300 * SECOND, 3600 * SECOND)
    assert (press.max_streams, press.retained) == (16, True)
    assert [(channel.path, channel.column) for channel in room.channels] == [(None, 2), (None, 3)]
    assert room.time is not None
    assert (room.time.column, room.time.unit) == (0, "iso8601")
    assert (room.on, room.every_ns, room.timeout_ns) == ("every", SECOND, SECOND * 5 // 2)


def test_configuration_is_frozen(folder: Path) -> None:
    config = parse(folder, MINIMAL)
    with pytest.raises(AttributeError):
        config.mqtt.port = 1  # type: ignore[misc]


def test_tls_changes_the_default_port(folder: Path) -> None:
    assert parse(folder, with_mqtt("tls = {}")).mqtt.port == 8883


def test_load_reads_a_file_and_resolves_against_its_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "edge.toml").write_text(MINIMAL)
    monkeypatch.chdir(folder.parent)
    config = load_config(Path(folder.name) / "edge.toml", {})
    assert config.streams[0].model == folder / "press.safetensors"
    assert config.store.path == folder / "edge-rnn.db"


def test_all_problems_come_at_once_with_path_line_and_remedy(folder: Path) -> None:
    text = """[mqtt]
hots = "localhost"
port = "1883"
[store]
commit_every = "1 sec"
[[stream]]
name = "press"
model = "press.safetensors"
topic = "plant/{machine}/vib"
chanels = []
channels = [
    { name = "vib" },
    { name = "temp", path = "t" },
    { name = "rpm", max_age = 30, path = "r" },
]
on = "vibb"
[[stream]]
name = "press"
model = "nowhere.safetensors"
"""
    assert problems(folder, text) == [
        ':2: mqtt.hots: unknown key; did you mean "host"?',
        ':3: mqtt.port: expected a whole number from 1 to 65535, got "1883"',
        ':5: store.commit_every: expected a duration such as "500ms", "30s", "5m" or "1h", got "1 sec"',
        ':10: stream[0].chanels: unknown key; did you mean "channels"?',
        (
            ':11: stream[0].channels[2].max_age: expected a duration such as "500ms", "30s", "5m" or "1h", '
            'got 30 (a number needs its unit: "30s"?)'
        ),
        (
            ':16: stream[0].on: expected "any", "all", "every", "vib", "temp", "rpm", got "vibb"; '
            'did you mean "vib"?'
        ),
        (
            ':17: stream[1].channels: missing; expected channels = [{ name = "..." }, ...], '
            "one for each input of the model"
        ),
        ':18: stream[1].name: expected another name than stream[0], got "press"',
        f":19: stream[1].model: expected a model file, got no such file: {folder / 'nowhere.safetensors'}",
    ]


PROBLEMS = [
    (
        with_mqtt("qos = 2"),
        ":2: mqtt.qos: expected a whole number from 0 to 1, got 2",
    ),
    (
        with_mqtt("qos = true"),
        ":2: mqtt.qos: expected a whole number from 0 to 1, got true",
    ),
    (
        with_mqtt("port = 70000"),
        ":2: mqtt.port: expected a whole number from 1 to 65535, got 70000",
    ),
    (
        with_mqtt('host = ""'),
        ':2: mqtt.host: expected a host name or address, got ""',
    ),
    (
        with_mqtt('host = "a b"'),
        ':2: mqtt.host: expected a host name or address, got "a b"',
    ),
    (
        with_mqtt('protocol = "4"'),
        ':2: mqtt.protocol: expected one of "5", "3.1.1", got "4"',
    ),
    (
        with_mqtt("protocol = 5"),
        ':2: mqtt.protocol: expected one of "5", "3.1.1", got 5',
    ),
    (
        with_mqtt("tls = 1"),
        ":2: mqtt.tls: expected a table, got 1",
    ),
    (
        with_mqtt('tls = { cert = "device.pem" }'),
        ":2: mqtt.tls.key: missing; expected together with cert",
    ),
    (
        with_mqtt('tls = { ca = "ca.pem", insecure = true }'),
        ":2: mqtt.tls.insecure: expected false where ca is given: without the check ca has no use",
    ),
    (
        with_mqtt('keepalive = "1500ms"'),
        ':2: mqtt.keepalive: expected whole seconds, got "1500ms"',
    ),
    (
        with_mqtt('keepalive = "1d"'),
        ':2: mqtt.keepalive: expected a duration from "1s" to "65535s", got "1d"',
    ),
    (
        with_mqtt('reconnect_min = "10s"\nreconnect_max = "5s"'),
        ':3: mqtt.reconnect_max: expected at least reconnect_min = "10s", got "5s"',
    ),
    (
        with_mqtt("username = 1"),
        ":2: mqtt.username: expected an account name, got 1",
    ),
    (
        f'[output]\nbase = "a/#"\n{MINIMAL}',
        ':2: output.base: expected topic levels without wildcards or empty levels, got "a/#"',
    ),
    (
        f'[store]\nsync = "off"\n{MINIMAL}',
        ':2: store.sync: expected one of "full", "normal", got "off"',
    ),
    (
        f'[log]\nlevel = "warn"\n{MINIMAL}',
        (
            ':2: log.level: expected one of "debug", "info", "warning", "error", got "warn"; did you '
            'mean "warning"?'
        ),
    ),
    (
        f"[log]\nlevel = 3\n{MINIMAL}",
        ':2: log.level: expected one of "debug", "info", "warning", "error", got 3',
    ),
    (
        f"log = []\n{MINIMAL}",
        ":1: log: expected a table, got an array",
    ),
    (
        f"[health]\nevery = 2020-01-01\n{MINIMAL}",
        (
            ':2: health.every: expected a duration such as "500ms", "30s", "5m" or "1h", got the '
            "date or time 2020-01-01"
        ),
    ),
    (
        f"[helth]\n{MINIMAL}",
        ':1: helth: unknown key; did you mean "health"?',
    ),
    (
        "",
        ": stream: missing; expected at least one [[stream]]",
    ),
    (
        "stream = []",
        ":1: stream: expected at least one [[stream]], got none",
    ),
    (
        "stream = 1",
        ":1: stream: expected an array of tables, got 1",
    ),
    (
        "stream = [1]",
        ":1: stream[0]: expected a table, got 1",
    ),
    (
        with_stream('on = "every"'),
        ':1: stream[0].every: missing; on = "every" needs an interval, such as every = "1s"',
    ),
    (
        with_stream('every = "1s"'),
        ':6: stream[0].every: expected only with on = "every", got it with on = "any"',
    ),
    (
        with_stream('on = "vib"\ntimeout = "1s"'),
        ':7: stream[0].timeout: expected only with on = "all" or "every", got it with on = "vib"',
    ),
    (
        with_stream('on = "vibb"'),
        ':6: stream[0].on: expected "any", "all", "every", "vib", got "vibb"; did you mean "vib"?',
    ),
    (
        with_stream("max_streams = 0"),
        ":6: stream[0].max_streams: expected a whole number from 1 to 1000000, got 0",
    ),
    (
        with_stream('retained = "no"'),
        ':6: stream[0].retained: expected true or false, got "no"',
    ),
    (
        with_stream("", "[]"),
        ":5: stream[0].channels: expected 1 to 4096 channels, got 0",
    ),
    (
        with_stream("", "[{}]"),
        ":5: stream[0].channels[0].name: missing; expected the name of a model input",
    ),
    (
        with_stream("", '[{ name = "all" }]'),
        (':5: stream[0].channels[0].name: expected another name: "all" has a meaning of its own in `on`'),
    ),
    (
        with_stream("", '[{ name = "a" }, { name = "a", path = "b" }]'),
        ':5: stream[0].channels[1].name: expected another name than channels[0], got "a"',
    ),
    (
        with_stream("", '[{ name = "a" }, { name = "b", path = "a" }]'),
        ":5: stream[0].channels[1]: expected another topic, path or column than channels[0]",
    ),
    (
        with_stream("", '[{ name = "a", path = "x..y" }]'),
        (
            ':5: stream[0].channels[0].path: expected a path in the payload such as "rms" or '
            '"sensors.temp[0]", got "x..y"'
        ),
    ),
    (
        with_stream("", '[{ name = "a" }, { name = "b", topic = "plant/{site}/x" }]'),
        (
            ":5: stream[0].channels[1].topic: expected the same fields as the channels before "
            "({machine}), got {site}"
        ),
    ),
    (
        with_stream("", '[{ name = "a", topic = "plant/{machine}/x" }]'),
        ":4: stream[0].topic: never used, because every channel has its own topic; remove it",
    ),
    (
        with_stream("", '[{ name = "a", column = 1 }]'),
        ':5: stream[0].channels[0].column: expected only with format = "csv" or "binary", got it with "json"',
    ),
    (
        with_stream('format = "number"', '[{ name = "a", path = "b" }]'),
        (
            ':5: stream[0].channels[0].path: expected only with a format of named values such as "json", '
            'got it with "number"'
        ),
    ),
    (
        with_stream('format = "number"', '[{ name = "a" }, { name = "b" }]'),
        (
            ":5: stream[0].channels[1]: expected another topic, path or column than channels[0]; a "
            "plain number is one value, so give each channel its topic"
        ),
    ),
    (
        with_stream('format = "number"\ntime = { path = "ts" }'),
        ':7: stream[0].time: a plain number has no time; leave it out, or use format = "json"',
    ),
    (
        with_stream("time = {}"),
        ":6: stream[0].time.path: missing; expected a path that holds the time",
    ),
    (
        with_stream('format = "csv"\ntime = { column = 1, path = "ts" }'),
        ':7: stream[0].time.path: expected only with format = "json"',
    ),
    (
        with_stream('time = { path = "ts", unit = "min" }'),
        (':6: stream[0].time.unit: expected one of "auto", "s", "ms", "us", "ns", "iso8601", got "min"'),
    ),
    (
        MINIMAL.replace('topic = "plant/{site}/{machine}/data"', ""),
        (
            ":6: stream[0].channels[0].topic: missing; expected a topic template here, or one "
            "`topic` for the whole stream"
        ),
    ),
    (
        MINIMAL.replace("plant/{site}/{machine}/data", "{a}/status"),
        (
            ':5: stream[0].topic: "{a}/status" matches this daemon\'s own '
            'output "edge-rnn/status"; write more fixed levels, or another output.base'
        ),
    ),
    (
        MINIMAL + MINIMAL,
        ':9: stream[1].name: expected another name than stream[0], got "press"',
    ),
]


@pytest.mark.parametrize(("text", "expected"), PROBLEMS)
def test_one_problem_gives_one_line(folder: Path, text: str, expected: str) -> None:
    assert problems(folder, text) == [expected]


def test_a_template_may_not_match_another_streams_output(folder: Path) -> None:
    text = with_stream("").replace("{machine}", "x") + MINIMAL.replace('"press"', '"b"').replace(
        "plant/{site}/{machine}/data", "{a}/{b}/score"
    )
    (line,) = problems(folder, text)
    assert line.startswith(':11: stream[1].topic: "{a}/{b}/score" matches this daemon\'s own output')
    assert '"edge-rnn/press/score"' in line
    assert parse(folder, '[output]\nbase = "other/base"\n' + text)


def test_a_topic_of_the_stream_that_cannot_be_used_is_one_problem_of_the_stream(folder: Path) -> None:
    """And it hides neither a wrong `on` nor a second stream's name."""
    bad = with_stream('on = "foo"', '[{ name = "a" }, { name = "b" }]').replace("{machine}", "{a}/{a}")
    assert "{a}/{a}" in bad
    first, second, third = problems(folder, bad + MINIMAL)
    assert first.startswith(":4: stream[0].topic: topic template ")
    assert "field {a} stands there twice" in first
    assert second.startswith(":6: stream[0].on: expected ")
    assert "stream[1].name: expected another name than stream[0]" in third


def test_a_bad_topic_of_one_channel_does_not_hide_what_the_others_contradict(folder: Path) -> None:
    channels = (
        '{ name = "a", topic = "x/{" }, { name = "b" }, { name = "b" }, { name = "c", topic = "q/{w}" }'
    )
    found = problems(folder, with_stream("", f"[{channels}]"))
    assert [line.split(": ")[1] for line in found] == [
        "stream[0].channels[0].topic", "stream[0].channels[2].name", "stream[0].channels[3].topic",
    ]  # fmt: skip


@pytest.mark.parametrize("size", [4, 2 << 20])
def test_a_model_file_is_called_one(folder: Path, size: int) -> None:
    header = b'{"w":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}' % (size, size)
    file = folder / "pump.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes([0xFF]) * size)
    with pytest.raises(ConfigError, match="this is a model file; expected a configuration") as caught:
        load_config(file)
    assert str(caught.value).count("\n") == 0


def test_a_template_that_cannot_be_used_names_its_channel(folder: Path) -> None:
    (line,) = problems(folder, with_stream("", '[{ name = "vib", topic = "a/{x/b" }, { name = "b" }]'))
    assert line.startswith(":5: stream[0].channels[0].topic: ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[mqtt\n", ":1: expected TOML, got: "),
        ("a = 1\na = 2\n", ":2: expected TOML, got: "),
        ("a = " + "9" * 5000, ": expected TOML, got a number or a nesting beyond all measure"),
        ("a = " + "[" * 100_000, ": expected TOML, got a number or a nesting beyond all measure"),
    ],
)
def test_broken_toml(folder: Path, text: str, expected: str) -> None:
    (line,) = problems(folder, text)
    assert line.startswith(expected)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "expected a configuration file, got: No such file or directory"),
        (b"a = \xff", "expected UTF-8 text, got byte 0xff at 4"),
        (b"#" * (1 << 20) + b"#", "expected a configuration of at most 1048576 bytes, got more"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, content: bytes | None, expected: str) -> None:
    path = tmp_path / "edge.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value) == f"{path}: {expected}"


def test_a_folder_or_an_impossible_name_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        load_config(tmp_path)
    with pytest.raises(ConfigError, match="null byte"):
        load_config("a\0b")


# --- secrets -----------------------------------------------------------------------------------------


def test_a_password_in_the_file_is_refused_and_not_repeated(folder: Path) -> None:
    (line,) = problems(folder, with_mqtt('password = "canary-secret"'))
    assert line.startswith(":2: mqtt.password: a password does not belong into this file")
    assert "password_file" in line
    assert "password_env" in line
    assert "canary" not in line


@pytest.mark.parametrize(
    "lines",
    [
        'pasword = "canary-secret"',
        'host = "mqtt://me:canary-secret@broker"',
        'password_env = "canary-secret"',
        '"canary-secret" = 1',
    ],
)
def test_misplaced_secrets_are_not_repeated_unless_they_are_keys(folder: Path, lines: str) -> None:
    text = "\n".join(problems(folder, with_mqtt(lines)))
    assert ("canary" in text) == lines.startswith('"')


def test_password_from_a_file_loses_one_line_end_only(folder: Path) -> None:
    (folder / "secret").write_text(" pass word \r\n")
    config = parse(folder, with_mqtt('username = "u"\npassword_file = "secret"'))
    assert config.mqtt.password == Secret(" pass word ")


def test_password_from_the_environment(folder: Path) -> None:
    text = with_mqtt('username = "u"\npassword_env = "BROKER_PASSWORD"')
    config = parse(folder, text, {"BROKER_PASSWORD": "canary-secret"})
    assert config.mqtt.password == Secret("canary-secret")
    assert problems(folder, text) == [
        ":3: mqtt.password_env: expected a variable of the environment, got one that is not set"
    ]


def test_password_from_the_systemd_credential_if_there_is_an_account(folder: Path) -> None:
    (folder / "mqtt_password").write_text("canary-secret")
    environ = {"CREDENTIALS_DIRECTORY": str(folder)}
    assert parse(folder, with_mqtt('username = "u"'), environ).mqtt.password == Secret("canary-secret")
    assert parse(folder, MINIMAL, environ).mqtt.password is None
    with_file = with_mqtt('username = "u"\npassword_file = "secret"')
    (folder / "secret").write_text("of the file")
    assert parse(folder, with_file, environ).mqtt.password == Secret("of the file")


def test_two_sources_of_a_password_are_refused(folder: Path) -> None:
    lines = problems(folder, with_mqtt('password_file = "secret"\npassword_env = "P"'), {"P": "x"})
    assert lines == [":3: mqtt.password_env: expected either password_file or password_env, got both"]


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines\n", b"a\0b", b"\xff\xfe", b"x" * 5000])
def test_password_files_that_hold_no_password(folder: Path, content: bytes) -> None:
    (folder / "secret").write_bytes(content)
    (line,) = problems(folder, with_mqtt('username = "u"\npassword_file = "secret"'))
    assert line.startswith(":3: mqtt.password_file: expected")


@pytest.mark.parametrize("host", ["broker.example", "192.168.1.2", "::2", "localhost.example"])
def test_a_password_over_plaintext_is_refused_beyond_this_machine(folder: Path, host: str) -> None:
    lines = f'host = "{host}"\nusername = "u"\npassword_file = "secret"'
    (line,) = problems(folder, with_mqtt(lines))
    assert line.startswith(f':1: mqtt.tls: missing; the password would go to "{host}" unencrypted')
    assert parse(folder, with_mqtt(lines + "\nallow_plaintext_password = true")).mqtt.password is not None
    assert parse(folder, with_mqtt(lines + "\ntls = {}")).mqtt.password is not None


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "::1", "LOCALHOST"])
def test_a_password_over_plaintext_is_fine_on_this_machine(folder: Path, host: str) -> None:
    lines = f'host = "{host}"\nusername = "u"\npassword_file = "secret"'
    assert parse(folder, with_mqtt(lines)).mqtt.password is not None


def test_mqtt_3_needs_an_account_for_a_password(folder: Path) -> None:
    (line,) = problems(folder, with_mqtt('protocol = "3.1.1"\npassword_file = "secret"'))
    assert line == ":1: mqtt.username: missing; MQTT 3.1.1 has no password without an account name"


def test_a_secret_shows_as_stars_everywhere(folder: Path) -> None:
    secret = Secret("canary-secret")
    assert repr(secret) == str(secret) == f"{secret}" == "***"
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    config = parse(folder, FULL)
    for text in (repr(config), str(config), json.dumps(echo(config))):
        assert "canary" not in text
        assert "***" in text
    assert Secret("a") != Secret("b")
    assert hash(Secret("a")) == hash(Secret("a"))


# --- echo, ids, channels -----------------------------------------------------------------------------


def test_echo_spells_a_file_out_with_all_defaults(folder: Path) -> None:
    plain = echo(parse(folder, FULL))
    assert plain["mqtt"]["keepalive"] == "30s"
    assert plain["mqtt"]["password"] == "***"
    assert plain["mqtt"]["tls"]["ca"] == str(folder / "ca.pem")
    assert plain["store"]["commit_every"] == "500ms"
    assert plain["stream"][1]["timeout"] == "2500ms"
    assert plain["stream"][0]["channels"][1] == {
        "name": "temp",
        "topic": "plant/{machine}/temp",
        "path": "sensors.temp[0]",
        "max_age": "30s",
        "flapping": 0,
    }
    assert plain["stream"][0]["clock_limit"] == "10m"
    assert json.loads(json.dumps(plain)) == plain


def test_the_unit_of_times_is_found_unless_it_is_given(folder: Path) -> None:
    config = parse(folder, MINIMAL + 'time = { path = "ts" }\n')
    (stream,) = config.streams
    assert stream.time is not None
    assert stream.time.unit == "auto"


def test_store_goes_into_the_state_directory_of_systemd(folder: Path) -> None:
    config = parse(folder, MINIMAL, {"STATE_DIRECTORY": "/var/lib/edge-rnn:/var/lib/other"})
    assert config.store.path == Path("/var/lib/edge-rnn/edge-rnn.db")


def test_default_client_id_is_stable_short_and_tells_nothing(tmp_path: Path) -> None:
    machine, other, absent = tmp_path / "id", tmp_path / "id2", tmp_path / "none"
    machine.write_text("0123456789abcdef0123456789abcdef\n")
    other.write_text("1123456789abcdef0123456789abcdef\n")
    store = Path("/var/lib/edge-rnn/edge-rnn.db")
    first = default_client_id(store, (absent, machine))
    assert first == default_client_id(store, (machine,))
    assert first.startswith("edge-rnn-")
    assert len(first) == len("edge-rnn-") + 12
    assert "0123456789" not in first
    assert first != default_client_id(store, (other,))
    assert first != default_client_id(Path("/elsewhere.db"), (machine,))
    assert len(default_client_id(store, (absent,))) == len(first)


def test_default_client_id_is_used(folder: Path) -> None:
    config = parse(folder, MINIMAL)
    assert config.mqtt.client_id == default_client_id(config.store.path)


def stream_of(folder: Path, channels: str) -> StreamConfig:
    return parse(folder, with_stream("", channels)).streams[0]


def test_channels_find_their_inputs_in_any_order(folder: Path) -> None:
    stream = stream_of(folder, '[{ name = "b" }, { name = "c" }, { name = "a" }]')
    assert channel_order(stream, ("a", "b", "c")) == (1, 2, 0)


def test_channels_and_inputs_that_do_not_match_are_all_named(folder: Path) -> None:
    stream = stream_of(folder, '[{ name = "vib" }, { name = "tmp" }]')
    with pytest.raises(ConfigError) as caught:
        channel_order(stream, ("vib", "temp"))
    assert str(caught.value).splitlines() == [
        'stream "press": the model has no input "tmp"; did you mean "temp"?',
        'stream "press": expected a channel for the model\'s input "temp", got none',
    ]


# --- faults of a whole stream, and numbers of readings -----------------------------------------------


def test_clocks_are_watched_where_readings_have_times_of_their_own(folder: Path) -> None:
    (timed,) = parse(folder, with_stream('time = { path = "ts" }')).streams
    (bare,) = parse(folder, with_stream("")).streams
    assert (timed.clock_limit_ns, bare.clock_limit_ns) == (600 * SECOND, 0)
    assert (timed.flapping, timed.channels[0].flapping) == (20, 0)
    (off,) = parse(folder, with_stream('time = { path = "ts" }\nclock_limit = "0s"\nflapping = 0')).streams
    assert (off.clock_limit_ns, off.flapping) == (0, 0)
    (line,) = problems(folder, with_stream('clock_limit = "1m"'))
    assert "clock_limit: expected only where readings carry a time of their own" in line
    (line,) = problems(folder, with_stream("", '[{ name = "vib", flapping = 601 }]'))
    assert "channels[0].flapping" in line


def test_a_sequence_says_where_it_is_and_formats_without_one_refuse_it(folder: Path) -> None:
    (stream,) = parse(folder, with_stream('sequence = { path = "n" }')).streams
    assert stream.sequence is not None
    assert stream.sequence.path == "n"
    (line,) = problems(folder, with_stream('format = "number"\nsequence = { path = "n" }'))
    assert 'sequence: "number" has no place for a number of one\'s own; leave it out' in line
    (line,) = problems(folder, with_stream('format = "senml"\nsequence = { path = "n" }'))
    assert '"senml" has no place' in line
    for lines in ("sequence = { column = 1 }", 'format = "csv"\nsequence = { path = "n" }'):
        found = problems(folder, with_stream(lines))
        assert any("sequence." in line and "expected only with format" in line for line in found)


def test_a_sequence_or_time_that_is_no_table_shows_one(folder: Path) -> None:
    (line,) = problems(folder, with_stream('sequence = "n"'))
    assert line.endswith('stream[0].sequence: expected a table such as { path = "n" }, got "n"')
    (line,) = problems(folder, with_stream('time = "ts"'))
    assert line.endswith('stream[0].time: expected a table such as { path = "ts" }, got "ts"')


def test_exactly_once_by_name_needs_a_time_or_a_sequence(folder: Path) -> None:
    head = '[mqtt]\ndelivery = "exactly-once-state"\n'
    (line,) = problems(folder, head + with_stream(""))
    assert "knows a repeat by its time, or by a sequence" in line
    config = parse(folder, head + with_stream('sequence = { path = "n" }'))
    assert config.mqtt.delivery == "exactly-once-state"
