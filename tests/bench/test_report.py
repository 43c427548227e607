"""Reports made elsewhere: read back strictly, whatever somebody did to them."""

from __future__ import annotations

import json
import random

import pytest

from edge_rnn.bench.measure import Options, measure
from edge_rnn.bench.report import MAX_BYTES, decode, encode
from edge_rnn.errors import DataError

MUTANTS = 20_000


@pytest.fixture(scope="module")
def content() -> bytes:
    return encode(measure(options=Options(seconds=0.02, rates=(200.0,), streams=(1,), start=False)))


def test_mutants_are_read_or_refused_with_one_line(content) -> None:
    rng, refused = random.Random(5), list[str]()
    for _ in range(MUTANTS):
        data = bytearray(content)
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(data))
            kind = rng.randrange(4)
            if kind == 0:
                data[at] = rng.randrange(256)
            elif kind == 1:
                del data[at : at + rng.randrange(1, 30)]
            elif kind == 2:
                data[at:at] = rng.choice([b"-1", b"null", b"1e999", b"[", b"}", b'"', b"\xff", b"0", b",{}"])
            else:
                data[at] = data[rng.randrange(len(data))]
        try:
            again = decode(bytes(data), "board.json")
        except DataError as error:
            refused.append(str(error))
        else:
            assert decode(encode(again), "again") == again
    assert len(refused) > MUTANTS // 4
    assert [said for said in refused if not said.startswith("board.json: ") or "\n" in said] == []


def changed(content: bytes, path: str, value: object) -> bytes:
    document = json.loads(content)
    inner = document
    *way, last = path.split(".")
    for key in way:
        inner = inner[int(key)] if isinstance(inner, list) else inner[key]
    inner[last] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("version", 2, "version"),
        ("extra", 1, "unknown field"),
        ("environment.user", "someone", "unknown field"),
        ("step.latency.p50_ns", -1, r"\$.step.latency.p50_ns"),
        ("step.latency.p50_ns", "1", r"\$.step.latency.p50_ns"),
        ("step.latency.p50_ns", 1e18, "step: expected finite times in rising order"),
        ("paced.0.late.max_ns", 0, "paced at 200 Hz, late: expected finite times in rising order"),
        ("path.histogram.counts", [1], "path.histogram: expected rising edges"),
        ("output.sha256", "abc", "output.sha256"),
        ("date", "today", "date"),
        ("environment.cpu", "x" * 300, "environment.cpu"),
    ],
)
def test_a_report_that_cannot_be_is_refused(content, path, value, said) -> None:
    with pytest.raises(DataError, match=said):
        decode(changed(content, path, value), "board.json")


def test_a_huge_file_is_refused_unread() -> None:
    with pytest.raises(DataError, match="expected at most"):
        decode(b" " * (MAX_BYTES + 1), "board.json")
