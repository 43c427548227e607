"""Readings that their sender has numbered: repeats are known where times cannot tell them."""

from __future__ import annotations

import json
import struct

import pytest

from edge_rnn.errors import ConfigError, DecodeError
from edge_rnn.service.codec import Field, decoder
from edge_rnn.stream.types import Numbered
from tests.service.test_daemon import Bench
from tests.support.daemon import reading

FIELDS = (Field(0, "vib", 0), Field(1, "temp", 1))
PLACE = Field(-1, "n", 2)


@pytest.mark.parametrize(
    ("form", "payload", "options"),
    [
        ("json", b'{"vib": 1, "temp": 2, "n": 7}', {}),
        ("json", b'{"vib": 1, "temp": 2, "n": 7.0}', {}),
        ("csv", b"1,2,7", {}),
        ("binary", struct.pack("<ffI", 1, 2, 7), {"layout": "<ffI"}),
    ],
)
def test_each_format_gives_the_number_with_the_values(form, payload, options) -> None:
    made = decoder(form, FIELDS, sequence=PLACE, **options)
    (found,) = made.decode("t", payload, "g/1", 5)
    assert isinstance(found, Numbered)
    assert (*found[:3], list(found.values), found.number) == ("g/1", (0, 1), 5, [1.0, 2.0], 7)
    # There is no shorter way that would lose it.
    assert getattr(made, "quick", None) is None
    assert getattr(made, "names", None) is None


@pytest.mark.parametrize("bad", ["true", "null", '"7"', "7.5", "1e300", "[7]", str(2**62)])
def test_what_is_no_number_is_refused(bad) -> None:
    with pytest.raises(DecodeError, match="sequence"):
        decoder("json", FIELDS, sequence=PLACE).decode("t", f'{{"vib": 1, "n": {bad}}}'.encode(), "g", 5)
    with pytest.raises(DecodeError, match="sequence"):
        decoder("json", FIELDS, sequence=PLACE).decode("t", b'{"vib": 1}', "g", 5)


def test_a_cell_that_is_no_number_is_refused() -> None:
    for cell in ("", "-1", "x", "1.5", "9" * 70):
        with pytest.raises(DecodeError, match="sequence"):
            decoder("csv", FIELDS, sequence=PLACE).decode("t", f"1,2,{cell}".encode(), "g", 5)


@pytest.mark.parametrize("form", ["number", "senml"])
def test_a_format_without_a_place_for_it_is_refused(form) -> None:
    with pytest.raises(ConfigError, match="sequence"):
        decoder(form, FIELDS[:1], sequence=PLACE)
    with pytest.raises(ConfigError, match="column 2"):
        decoder("binary", FIELDS, layout="<ff", sequence=PLACE)


def numbered(index: int) -> str:
    return json.dumps({"n": index, **reading(index)})


def test_what_a_broker_sends_again_after_a_crash_is_stepped_once_without_any_time(
    tmp_path, monkeypatch
) -> None:
    text = Bench.__init__.__globals__["write_config"]

    def by_number(folder, port, **changes):
        file = text(folder, port, mqtt='delivery = "exactly-once-state"', **changes)
        timed = 'time = { path = "ts", unit = "ns" }'
        assert timed in file.read_text()
        file.write_text(file.read_text().replace(timed, 'sequence = { path = "n" }'))
        return file

    monkeypatch.setitem(Bench.__init__.__globals__, "write_config", by_number)
    b = Bench(tmp_path, commit_every="1h")
    for i in range(30):
        b.link.bring(numbered(i))
        b.turn(1)
    assert b.daemon.commit()
    steps = [json.loads(s)["n"] for s in b.topics("/score")]
    assert steps == list(range(1, 31))
    # Committed, and killed before anything more: the broker has not heard of the last ten.
    b.close()
    second = Bench(tmp_path, commit_every="1h")
    second.link.bring(*(numbered(i) for i in range(20, 35)))
    second.turn(1)
    assert [json.loads(s)["n"] for s in second.topics("/score")] == [31, 32, 33, 34, 35]
    assert second.daemon.running.pipeline.engine.counters.duplicate == 20
    assert second.daemon.commit()
    assert len(second.link.acked) == 15
    second.close()
