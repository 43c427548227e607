"""Durations, line numbers, and the parser under 20,000 mutants: only `ConfigError` may come out."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_rnn.errors import ConfigError
from edge_rnn.files.config import echo, load_config, parse_config
from edge_rnn.files.config_walk import UNITS_NS, describe, duration_text, key_lines, parse_duration

from .test_config import FULL, MINIMAL


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("500ms", 500_000_000),
        ("30s", 30_000_000_000),
        ("5m", 300_000_000_000),
        ("1h", 3_600_000_000_000),
        ("2d", 172_800_000_000_000),
        ("1.5s", 1_500_000_000),
        ("0.1ms", 100_000),
        ("7us", 7_000),
        ("1ns", 1),
        ("0s", 0),
    ],
)
def test_durations(text: str, ns: int) -> None:
    assert parse_duration(text) == ns


@pytest.mark.parametrize(
    "text",
    ["", "s", "1", "1 s", "-1s", "1S", "1e3s", "1.s", ".5s", "1.5ns", "١s", "1s\n", "1h30m", "9" * 13 + "s"],
)
def test_what_is_not_a_duration(text: str) -> None:
    assert parse_duration(text) is None


@given(st.integers(0, 10**18))
def test_a_duration_reads_back_from_its_text(ns: int) -> None:
    # The text holds at most 12 digits, so only numbers that some unit can hold.
    text = duration_text(ns)
    assert parse_duration(text) == (ns if len(text.rstrip("nusmhd")) <= 12 else None)


@given(st.text(max_size=8))
def test_only_durations_parse(text: str) -> None:
    ns = parse_duration(text)
    assert ns is None or any(text.endswith(unit) for unit in UNITS_NS)


def test_lines_of_keys_tables_and_multi_line_values() -> None:
    text = '''a = 1
"quoted" = 2
[one]
b = """
[not.a.table]
c = 1
"""
d = [ # comment ]
  { b = "]" },
]
e = 1
[[many]]
f.g = 1
[many.inner]
h = 'a # b'
[[many]]
f = "x\\"[" # [
g = 1
'''
    assert key_lines(text) == {
        "a": 1, "one": 3, "one.b": 4, "one.d": 8, "one.e": 11, "many[0]": 12, "many[0].f": 13,
        "many[0].f.g": 13, "many[0].inner": 14, "many[0].inner.h": 15, "many[1]": 16, "many[1].f": 17,
        "many[1].g": 18,
    }  # fmt: skip


def test_found_values_are_shown_short_and_printable() -> None:
    assert describe("x" * 100) == '"' + "x" * 47 + '…"'.replace("…", "…")
    assert describe("a\x1b[2J") == '"a\\u001b[2J"'
    assert describe(10**40) == "a number of more than 18 digits"
    assert describe(float("nan")) == "nan"


TOKENS = [
    "[", "]", "[[", "]]", "{", "}", "=", ",", ".", '"', "'", '"""', "'''", "#", "\n", "\r", "\t", "\0",
    "\x1b", "true", "nan", "inf", "-inf", "1e999", "-1", "0", "18446744073709551616", "9" * 5000, "0x7f",
    "2020-01-01", "07:32:00", "2020-13-45T99:99:99Z", "[[stream]]", "[stream]", "[mqtt.tls]",
    "stream = 1", '"\\u0000"', "é", "\u2028", "\ufeff", "{}/{x}", "{x}", "+", "#/a", "$SYS",
    "password = 'x'", "[" * 2000, "a." * 500, '"' + "x" * 2000 + '"', "/", "..", "/dev/null", "\x85",
    "\U0010ffff",
]  # fmt: skip


VALUES = [
    *(
        "true",
        "nan",
        "inf",
        "-1",
        "0",
        "7",
        "1e999",
        "9" * 4000,
        "2020-01-01",
        "07:32:00",
        "[]",
        "{}",
        "[[[]]]",
    ),
    *(
        '""',
        '"x"',
        '"1s"',
        '"0s"',
        '"any"',
        '"every"',
        '"csv"',
        '"number"',
        '"a/{x}/{x}"',
        '"#"',
        '"{}"',
        '"a/{b"',
    ),
    *(
        "[1, 2]",
        '{ name = "a" }',
        '[{ name = "a" }]',
        '"\\u0000"',
        '"\\U0010ffff"',
        '"é/{ü}"',
        '"/"',
        '"../.."',
    ),
    *(
        '[{ name = "a", topic = "x/{y}" }, { name = "b", topic = "x" }]',
        '"{a}/{b}/score"',
        '"' + "a/" * 500 + '"',
    ),
]


def mutate(text: str, rng: random.Random) -> str:
    for _ in range(rng.choice((1, 1, 2, 4))):
        size = len(text)
        i, j = sorted((rng.randint(0, size), rng.randint(0, size)))
        kind = rng.randrange(10)
        if kind == 0:
            text = text[:i] + rng.choice(TOKENS) + text[i:]
        elif kind == 1:
            text = text[:i] + text[min(j, i + 20) :]
        elif kind == 2:
            text = text[:i] + chr(rng.randrange(256)) + text[i + 1 :]
        elif kind == 3:
            text = text[:i] + text[i : i + 40] + text[i:]
        elif kind >= 6 and "=" in text:
            # A value becomes another value: this gets past the TOML parser.
            lines = text.split("\n")
            k = rng.choice([n for n, line in enumerate(lines) if "=" in line])
            lines[k] = lines[k].split("=")[0] + "= " + rng.choice(VALUES)
            text = "\n".join(lines)
        elif kind == 4:
            lines = text.split("\n")
            a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
            lines[a], lines[b] = lines[b], lines[a]
            text = "\n".join(lines)
        else:
            words = text.split('"')
            k = rng.randrange(len(words))
            words[k] = rng.choice([*TOKENS, *words])
            text = '"'.join(words)
    return text


@pytest.mark.parametrize("seed", range(4))
def test_mutants_give_a_config_or_a_config_error(tmp_path: Path, seed: int) -> None:
    for name in ("press.safetensors", "ca.pem", "device.pem", "device.key"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "secret").write_text("canary-secret\n")
    rng = random.Random(seed)
    where, accepted, past_toml, canary = tmp_path / "edge.toml", 0, 0, 0
    for _ in range(5_000):
        text = mutate(FULL if rng.random() < 0.7 else MINIMAL, rng)
        try:
            config = parse_config(text, where, {})
        except ConfigError as error:
            message = str(error)
            lines = message.split("\n")
            assert all(line.startswith(str(where)) for line in lines), message
            past_toml += "expected TOML" not in message
            canary += "canary" in message
            assert message.replace("\n", "").isprintable(), repr(message)
        else:
            accepted += 1
            canary += "canary" in str(echo(config))
    assert canary == 0
    # The run is worth something only if many mutants reach the walk and some are fine.
    assert past_toml > 1000
    assert accepted > 200


@pytest.mark.parametrize("seed", range(2))
def test_mutants_of_bytes_give_a_config_or_a_config_error(tmp_path: Path, seed: int) -> None:
    path, rng, refused = tmp_path / "edge.toml", random.Random(seed), 0
    for _ in range(500):
        raw = bytearray(FULL.encode())
        for _ in range(rng.randint(1, 8)):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        path.write_bytes(raw)
        try:
            load_config(path, {})
        except ConfigError:
            refused += 1
    assert refused == 500  # the files it names are not there
