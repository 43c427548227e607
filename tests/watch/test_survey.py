"""What is heard becomes the streams a person would write down, and a configuration that is valid."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_rnn.errors import ConfigError
from edge_rnn.files.config import parse_config
from edge_rnn.files.config_types import Config, MqttConfig, Secret, TlsConfig
from edge_rnn.files.model_file import save
from edge_rnn.watch.propose import propose
from edge_rnn.watch.survey import MOST_TOPICS, Survey
from tests.support.daemon import gru_model

_MODEL = "model.safetensors"


def heard(*messages: tuple[str, object], rounds: int = 4, every: float = 2.0) -> Survey:
    """Each message in turn, `rounds` times, `every` seconds apart."""
    survey = Survey(["edge-rnn"])
    for turn in range(rounds):
        for topic, payload in messages:
            data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
            survey.take(topic, data, retained=False, at=turn * every)
    return survey


def as_config(survey: Survey, folder: Path) -> Config:
    """The proposal, read by the daemon's own reader, with a model file to be found."""
    save(gru_model(), folder / _MODEL)
    text = propose(survey, MqttConfig(host="broker", port=1884))
    return parse_config(text, folder / "proposed.toml", {})


def test_objects_of_one_shape_become_one_stream_with_a_placeholder(tmp_path: Path) -> None:
    reading = {"ts": 1_763_700_000_123, "vib": 1.5, "motor": {"temp": [20.5, 21.0]}, "ok": True, "id": "x"}
    survey = heard(("plant/p1/all", reading), ("plant/p2/all", reading), ("other/p1/all", {"level": 3}))
    first, second = survey.groups()
    assert (first.template, first.streams, first.messages) == ("plant/{level2}/all", 2, 8)
    assert first.interval == 2.0
    assert dict(first.fields) == {"vib": 1.5, "motor.temp[0]": 20.5, "motor.temp[1]": 21.0}
    assert (first.time_path, first.time_unit) == ("ts", "ms")
    assert second.template == "other/p1/all"
    config = as_config(survey, tmp_path)
    assert [s.name for s in config.streams] == ["plant", "other"]
    assert config.mqtt.port == 1884
    stream = config.streams[0]
    assert stream.time is not None
    assert (stream.time.path, stream.time.unit) == ("ts", "ms")
    assert [c.path or c.name for c in stream.channels] == ["vib", "motor.temp[0]", "motor.temp[1]"]
    assert stream.silent_after_ns == 20_000_000_000


def test_numbers_are_channels_of_the_machine_above_them(tmp_path: Path) -> None:
    survey = heard(*((f"hall/m{m}/{c}", b"4.25") for m in (1, 2, 3) for c in ("vib", "temp")))
    (group,) = survey.groups()
    assert (group.template, group.streams) == ("hall/{level2}", 3)
    stream = as_config(survey, tmp_path).streams[0]
    assert stream.format == "number"
    assert [c.topic for c in stream.channels] == ["hall/{level2}/vib", "hall/{level2}/temp"]
    assert stream.on == "all"


def test_lines_of_csv_are_columns_with_their_time(tmp_path: Path) -> None:
    survey = heard(("log/a", b"2026-05-01T10:00:00Z;1.5;-3"), ("log/b", b"2026-05-01T10:00:00Z;1.5;-4"))
    stream = as_config(survey, tmp_path).streams[0]
    assert stream.format == "csv"
    assert [c.column for c in stream.channels] == [1, 2]
    assert stream.time is not None
    assert (stream.time.column, stream.time.unit) == (0, "iso8601")


def test_a_model_chooses_the_channels_and_leaves_out_what_lacks_one(tmp_path: Path) -> None:
    full, partial = {"press_temp": 20, "rms.vib": 1, "noise": 2}, {"vib": 1}
    survey = heard(("a/x", full), ("b/x", partial))
    text = propose(survey, MqttConfig(), _MODEL, ["vib", "temp"])
    assert "# b/x: left out, no field for temp" in text
    document = tomllib.loads(text)
    assert [s["topic"] for s in document["stream"]] == ["a/x"]
    assert document["stream"][0]["channels"] == [
        {"name": "vib", "path": '["rms.vib"]'},
        {"name": "temp", "path": "press_temp"},
    ]


def test_what_is_not_understood_is_named_and_what_is_ours_ignored() -> None:
    survey = heard(("cam/1", b"\xff\xd8\x00"), ("cam/2", b"hello world"), ("edge-rnn/a/score", {"score": 1}))
    survey.take("$SYS/uptime", b"12", retained=False, at=0.0)
    assert survey.groups() == []
    assert set(survey.other) == {"cam/1", "cam/2"}
    text = propose(survey, MqttConfig())
    assert "Nothing was heard that holds a number" in text
    assert "cam/2" in text
    with pytest.raises(ConfigError, match="at least one"):
        parse_config(text, "proposed.toml", {})


def test_a_retained_message_shows_a_field_but_no_rate() -> None:
    survey = Survey()
    survey.take("a/b", b"5", retained=True, at=0.0)
    survey.take("a/b", b"6", retained=False, at=0.1)
    (group,) = survey.groups()
    assert (group.messages, group.interval) == (1, None)


def test_a_password_is_never_written() -> None:
    broker = MqttConfig(host="b", username="me", password=Secret("sesame"), tls=TlsConfig(), port=8883)
    text = propose(heard(("a/b", b"1")), broker)
    assert "sesame" not in text
    assert 'password_env = "MQTT_PASSWORD"' in text
    assert "[mqtt.tls]" in text


def test_a_flood_of_topics_is_bounded() -> None:
    survey = Survey()
    for i in range(MOST_TOPICS + 50):
        survey.take(f"t/{i}", b"1", retained=False, at=0.0)
    assert survey.topics == MOST_TOPICS
    assert survey.untold == 50


_LEVEL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/+#\0"), max_size=6)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
_PAYLOAD = (
    st.binary(max_size=20)
    | _JSON.map(lambda v: json.dumps(v).encode())
    | st.floats().map(lambda v: str(v).encode())
)


@given(st.lists(st.tuples(st.lists(_LEVEL, min_size=1, max_size=4), _PAYLOAD), max_size=12))
def test_whatever_is_heard_the_proposal_is_toml_that_names_every_group(messages: list) -> None:
    survey = Survey()
    for at, (levels, payload) in enumerate(messages):
        topic = "/".join(levels)
        if topic and not topic.startswith("$"):
            survey.take(topic, payload, retained=False, at=float(at))
    document = tomllib.loads(propose(survey, MqttConfig()))
    groups = survey.groups()
    assert len(document.get("stream", [])) == len(groups)
    names = [s["name"] for s in document.get("stream", [])]
    assert len(set(names)) == len(names)
