"""Payloads: what is a reading, what is refused, and that nothing else can happen."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_rnn.errors import ConfigError, DecodeError
from edge_rnn.service.codec import Decoder, Field, TimeField, decoder, escape, parse_path
from edge_rnn.service.codecs.json_document import JsonDecoder
from edge_rnn.stream.types import Message
from tests.support.payloads import ARRIVAL_NS, check, hostile, seeds

ARRIVAL = 1_700_000_000_000_000_000


def values(made: Decoder, payload: bytes) -> dict[int, float]:
    messages = made.decode("plant/a", payload, "press/a", ARRIVAL)
    assert len(messages) <= 1
    return {c: v for m in messages for c, v in zip(m.channels, m.values, strict=True)}


def refused(made: Decoder, payload: bytes) -> str:
    with pytest.raises(DecodeError) as caught:
        made.decode("plant/a", payload, "press/a", ARRIVAL)
    text = str(caught.value)
    assert text.startswith("topic 'plant/a': ")
    assert "payload " in text
    assert "\n" not in text
    assert text.isprintable()
    return text


JSON = decoder("json", (Field(0, "rms"), Field(2, "axes[1].temp")))
NUMBER = decoder("number", (Field(1),))
CSV = decoder("csv", (Field(0, column=1), Field(1, column=3)))


def test_json_fields_become_values_of_their_channels() -> None:
    payload = b'{"rms": 1.5, "axes": [{}, {"temp": 20}]}'
    first = JSON.decode("plant/a", payload, "press/a", ARRIVAL)
    assert first == [Message("press/a", (0, 2), ARRIVAL, [1.5, 20.0])]
    assert JSON.decode("plant/a", payload, "press/a", ARRIVAL + 1)[0].channels is first[0].channels


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b'{"rms": null, "axes": [0, {"temp": 3}]}', {2: 3.0}),
        (b'{"rms": 1}', {0: 1.0}),
        (b'{"rms": 1, "axes": []}', {0: 1.0}),
        (b'{"rms": 1, "axes": null}', {0: 1.0}),
        (b'{"rms": null}', {}),
    ],
)
def test_json_null_or_absent_field_is_a_missing_channel(payload: bytes, expected: dict[int, float]) -> None:
    assert values(JSON, payload) == expected


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_json_spelled_non_finite_numbers_reach_the_guard(word: str) -> None:
    found = values(JSON, f'{{"rms": {word}, "axes": []}}'.encode())
    assert not math.isfinite(found[0])


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b'{"rms": true}', "rms: expected a number, got a boolean"),
        (b'{"rms": "1.5"}', "rms: expected a number, got text"),
        (b'{"rms": [1]}', "rms: expected a number, got an array"),
        (b'{"rms": {}}', "rms: expected a number, got an object"),
        (b'{"rms": 1e999}', "expected JSON"),
        (b'{"rms": 1' + b"0" * 400 + b"}", "expected"),
        (
            b'{"speed": 1}',
            "expected at least one of the fields rms, axes[1].temp, got an object with 'speed'",
        ),
        (b"[1, 2]", "expected at least one of the fields"),
        (b"3", "got a document of type int"),
        (b"", "expected JSON"),
        (b"{", "expected JSON"),
        (b"\xff\xfe", "expected JSON"),
        (b'{"rms": 1_000}', "expected JSON"),
        ('{"rms": ١}'.encode(), "expected JSON"),
        (b"[" * 60_000, "nested too deeply"),
        (b'{"a":' * 10_000 + b"NaN", "nested too deeply"),
        (b"NaN" + b"[" * 60_000, "expected JSON"),
        (b" " * 65_537, "expected at most 65536 bytes, got 65537"),
    ],
)
def test_json_refusals(payload: bytes, reason: str) -> None:
    assert reason in refused(JSON, payload)


def test_the_document_itself_can_be_the_value() -> None:
    assert values(decoder("json", (Field(0),)), b" 21.5 ") == {0: 21.5}
    assert values(decoder("json", (Field(0, "[1]"),)), b"[1, 2]") == {0: 2.0}


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("", ()),
        ("$", ()),
        ("$.a", ("a",)),
        ("a.b", ("a", "b")),
        ("a[0][12].b", ("a", 0, 12, "b")),
        ("[3]", (3,)),
        ('a["b.c"].d', ("a", "b.c", "d")),
        ("Größe.x y", ("Größe", "x y")),
    ],
)
def test_paths(text: str, path: tuple[str | int, ...]) -> None:
    assert parse_path(text) == path


@pytest.mark.parametrize(
    "text", [".", ".a", "a..b", "a.", "a[", "a[x]", "a[-1]", "a]", "[1]a", 'a["', "a[1234567]"]
)
def test_bad_paths_are_config_errors(text: str) -> None:
    with pytest.raises(ConfigError, match="expected names and indexes"):
        parse_path(text)


@pytest.mark.parametrize(
    ("payload", "value"),
    [
        (b"21.5", 21.5),
        (b" -1e3\r\n", -1000.0),
        (b"+.5", 0.5),
        (b"7.", 7.0),
        (b"inf", math.inf),
        (b"-Infinity", -math.inf),
    ],
)
def test_plain_numbers(payload: bytes, value: float) -> None:
    assert values(NUMBER, payload) == {1: value}


def test_plain_nan_reaches_the_guard() -> None:
    for text in (b"nan", b"NaN", b"-nan"):
        assert math.isnan(values(NUMBER, text)[1])


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b" ",
        b"1_000",
        "١٢".encode(),
        "１".encode(),
        b"0x10",
        b"1,5",
        b"1 2",
        b"ON",
        b"true",
        b"1e999",
        b"--1",
        b"e5",
        b".",
        b"+",
        b"1\x00",
        b"\xa01",
        b"1" * 65,
        b"nano",
        b"infin",
        b"1e",
        b"1\n2",
    ],
)
def test_plain_numbers_refused(payload: bytes) -> None:
    refused(NUMBER, payload)


def test_csv_columns_count_from_zero_and_separators_are_found() -> None:
    for line in (b"x,1.5,y,-2\r\n", b"x; 1.5 ;y;-2", b"x\t1.5\ty\t-2"):
        assert values(CSV, line) == {0: 1.5, 1: -2.0}


def test_csv_empty_cell_is_a_missing_channel() -> None:
    assert values(CSV, b"a,,b,2") == {1: 2.0}


def test_tabs_at_the_ends_of_a_line_are_empty_cells() -> None:
    assert values(CSV, b"\t1.5\ty\t-2\r\n") == {0: 1.5, 1: -2.0}
    assert values(CSV, b"x\t1.5\ty\t") == {0: 1.5}


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"a,1,b", "expected a column 3 (counted from 0), got 3 columns"),
        (b"a,1,b,c", "column 3: expected a plain number"),
        (b"a,1,b,2\na,1,b,2", "expected one line, got several"),
        (b'a,"1",b,2', "column 1: expected a plain number"),
        (b"", "expected a column 1"),
    ],
)
def test_csv_refusals(payload: bytes, reason: str) -> None:
    assert reason in refused(CSV, payload)


@pytest.mark.parametrize(
    ("format_", "fields", "time_field"),
    [("number", (Field(0), Field(1)), None), ("number", (Field(0),), TimeField()), ("json", (), None)],
)
def test_what_a_format_cannot_hold_is_a_config_error(format_, fields, time_field) -> None:
    with pytest.raises(ConfigError):
        decoder(format_, fields, time_field)


def test_a_message_shows_the_first_bytes_escaped() -> None:
    text = refused(NUMBER, b"\x1b[31mred\n" + b"x" * 100)
    assert "'\\x1b[31mred\\n" in text
    assert text.endswith("... (109 bytes)")
    assert escape(b"ab") == "'ab'"


def test_a_hostile_topic_is_escaped() -> None:
    with pytest.raises(DecodeError) as caught:
        NUMBER.decode("a/\x1b[0m\u202e", b"x", "s", ARRIVAL)
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_finite_double_survives_every_format(value: float) -> None:
    text = repr(value).encode()
    assert values(NUMBER, text) == {1: value}
    assert values(decoder("json", (Field(0, "a"),)), b'{"a":' + text + b"}") == {0: value}
    assert values(CSV, b",".join([b"", text, b"", text])) == {0: value, 1: value}


@given(st.binary(max_size=200))
def test_any_bytes_give_readings_or_a_decode_error(payload: bytes) -> None:
    for made in (JSON, NUMBER, CSV, TIMED_JSON, TIMED_CSV):
        try:
            made.decode("t", payload, "s", ARRIVAL)
        except DecodeError as refusal:
            _check_text(refusal)


TIMED_JSON = decoder("json", (Field(0, "v.rms"), Field(1, "w[0]")), TimeField("ts"))
TIMED_CSV = decoder("csv", (Field(0, column=1), Field(1, column=2)), TimeField(column=0, unit="auto"))

MUTANTS = 20_000


def _check_text(refusal: DecodeError) -> None:
    assert str(refusal).isprintable()
    assert len(str(refusal)) < 1000


@pytest.mark.parametrize("name", sorted(seeds()))
def test_fuzz_mutants_give_readings_or_a_decode_error(name: str) -> None:
    accepted = rejected = 0
    slowest = 0.0
    for case in hostile(MUTANTS, seed="codec", names=(name,)):
        start = time.thread_time()
        try:
            messages = case.decoder.decode(case.topic, case.payload, "press/a", ARRIVAL_NS)
        except DecodeError as refusal:
            rejected += 1
            _check_text(refusal)
        else:
            accepted += 1
            check(messages)
        slowest = max(slowest, time.thread_time() - start)
    assert accepted > 250, "the fuzz no longer reaches what lies behind the parser"
    assert rejected > 500
    assert slowest < 1.0


def test_the_quick_way_of_json_decides_as_the_long_way_does() -> None:
    made = decoder("json", (Field(0, "v.rms"), Field(1, "t")), TimeField("ts"))
    assert isinstance(made, JsonDecoder)
    quick = 0
    for case in hostile(MUTANTS, seed="quick", names=("json quick",)):
        assert made.quick is not None
        try:
            made.quick(case.payload)
        except (ValueError, RecursionError):
            continue
        try:
            slow = super(JsonDecoder, made)._messages("t", case.payload, "press/a", ARRIVAL)
        except DecodeError:
            # Text that is not UTF-8, where nobody asked for it: the quick way does not look there.
            try:
                case.payload.decode()
            except UnicodeDecodeError:
                continue
            slow = []
        try:
            assert made.decode("t", case.payload, "press/a", ARRIVAL) == slow
        except DecodeError:
            assert slow == []
        quick += 1
    assert quick > 250
