"""What `doctor` says of fields that no message has, from payloads alone."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import pytest

from edge_rnn.service.codec import Field, PayloadError, TimeField, decoder
from edge_rnn.service.mqtt import Delivery
from edge_rnn.stream.topics import Routes, Template
from edge_rnn.stream.types import Message
from edge_rnn.watch.fields import Fields

A = Field(0, "a")


@pytest.mark.parametrize(
    ("format_", "field", "payload", "more", "level", "text", "remedy"),
    [
        (
            "json", Field(1, "b.Temp"), b'{"a":1,"b":{"temp":2}}', {}, "fail",
            "g: the field 'b.Temp' of channel 'two' is in 0 of 3 messages, which have a, b.temp",
            'did you mean path = "b.temp"?',
        ),
        (
            "json", Field(1, "vib"), b'{"a":1,"vibration":2}', {}, "fail",
            "g: the field 'vib' of channel 'two' is in 0 of 3 messages, which have a, vibration",
            'did you mean path = "vibration"?',
        ),
        (
            "json", Field(1, "b"), b'{"a":1}', {}, "warn",
            "g: the field 'b' of channel 'two' is in 0 of 3 messages, which have a",
            "correct the channel's path, column or topic",
        ),
        (
            "json", Field(1, "b"), b'{"a":1,"b":null}', {}, "warn",
            "g: the field 'b' of channel 'two' has no value in any of 3 messages",
            "correct the channel's path, column or topic",
        ),
        (
            "json", Field(1, "b"), b'{"r":[{"a":1,"bb":2}]}', {"each": "r"}, "fail",
            "g: the field 'b' of channel 'two' is in 0 of 3 messages, which have a, bb",
            'did you mean path = "bb"?',
        ),
        (
            "senml", Field(1, "b"), b'[{"n":"a","v":1}]', {}, "warn",
            "g: the field 'b' of channel 'two' is in 0 of 3 messages",
            "correct the channel's path, column or topic",
        ),
        ("json", Field(1, "b"), b'{"a":1,"b":2}', {}, None, "", ""),
        # Refused for its time, which is said elsewhere.
        ("json", Field(1, "b"), b'{"a":1,"b":2}', {"time": TimeField("ts")}, None, "", ""),
    ],
)  # fmt: skip
def test_a_field_that_is_nowhere_is_named(
    format_: Any,
    field: Field,
    payload: bytes,
    more: dict[str, Any],
    level: str | None,
    text: str,
    remedy: str,
) -> None:
    decoding = decoder(format_, (A, field), **more)
    pipeline: Any = SimpleNamespace(
        routes=Routes({"g": [Template("a/{x}")]}),
        decoders={"g": [decoding]},
        models={"g": SimpleNamespace(inputs=("one", "two"))},
    )
    fields = Fields(pipeline)
    for _ in range(3):
        messages: list[Message] = []
        with contextlib.suppress(PayloadError):
            messages = decoding.decode("a/1", payload, "g/1", 1)
        fields.take(Delivery("a/1", payload, 0, False, 1, 0, 0), messages)
    found = [(f.level, f.text, f.remedy) for f in fields.judge(5.0)]
    assert found == ([] if level is None else [(level, text, remedy)])
