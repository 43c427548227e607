"""Labels as people keep them: stretches in CSV or JSON, NAB's file, a 0/1 table; else one clear error."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from edge_rnn.errors import DataError
from edge_rnn.files.labels import flags, read_windows

SECOND = 1_000_000_000
NOON = int(np.datetime64("2024-05-01T12:00", "ns").astype(np.int64))
TWO = [(NOON, NOON + 60 * SECOND), (NOON + 120 * SECOND, NOON + 120 * SECOND)]


def read(tmp_path, text, name="labels.csv", data="pump.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_windows(path, data)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "start,end\n2024-05-01 12:00,2024-05-01 12:01\n2024-05-01 12:02,2024-05-01 12:02\n"),
        ("a.csv", "i;Begin;stop\n2;2024-05-01T12:02;2024-05-01T12:02\n1;2024-05-01T12:00;2024-05-01T12:01\n"),
        ("a.csv", f"start,end\n{NOON},{NOON + 60 * SECOND}\n{NOON + 120 * SECOND},{NOON + 120 * SECOND}\n"),
        ("a.csv", "time,anomaly\n" + "".join(f"2024-05-01 12:0{i},{f}\n" for i, f in enumerate("11010"))),
        ("a.json", '[["2024-05-01 12:00", "2024-05-01 12:01"], ["2024-05-01 12:02", "2024-05-01 12:02"]]'),
        ("a.json", '[{"start": 1714564800, "end": 1714564860}, {"from": 1714564920, "to": 1714564920}]'),
        ("a.json", '{"x/pump.csv": [], "pump.csv": [[1714564800, 1714564860], [1714564920, 1714564920]]}'),
    ],
)  # fmt: skip
def test_the_forms(tmp_path, name, text):
    got = read(tmp_path, text, name)
    assert got[0] == TWO[0]
    assert len(got) == 2


def test_nabs_file_chooses_by_the_end_of_the_path(tmp_path):
    document = {"a/x.csv": [["2014-04-01 00:00:00.000000", "2014-04-01 01:00:00.000000"]], "b/x.csv": []}
    for folder, stretches in (("a", 1), ("b", 0)):
        assert len(read(tmp_path, json.dumps(document), "w.json", f"/data/{folder}/x.csv")) == stretches


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "", "got an empty file"),
        ("a.csv", "a,b\n1,2\n", "expected columns start and end"),
        ("a.csv", "start,end\nyesterday,today\n", "not times"),
        ("a.csv", "start,end\n2024-05-01,2024-05-02\n2024-05-01,soon\n", "line 3: expected ISO 8601"),
        ("a.csv", "start,end\n2024-05-02,2024-05-01\n", "line 2: the end 2024-05-01T00:00:00Z lies before"),
        ("a.csv", "start,end\n2024-05-02\n", "line 2: expected 2 columns, got 1"),
        (
            "a.csv",
            "time,anomaly\n2024-05-02,maybe\n",
            "line 2, column 'anomaly': expected 0 or 1, got 'maybe'",
        ),
        ("a.csv", b"\xff\xfe\x00", "expected UTF-8"),
        ("a.json", "{", "not JSON"),
        ("a.json", '{"other.csv": []}', "no entry for pump.csv"),
        ("a.json", '{"pump.csv": 3}', "expected a list of [start, end], got int"),
        ("a.json", "[[1]]", "stretch 0: expected [start, end]"),
        ("a.json", "[[true, false]]", "stretch 0: expected [start, end]"),
        ("a.json", "[" * 100_000, "not JSON"),
    ],
)
def test_what_is_no_label_file_is_one_line(tmp_path, name, text, said):
    with pytest.raises(DataError) as caught:
        read(tmp_path, text, name)
    message = str(caught.value)
    assert said in message
    assert message.startswith(name)
    assert "\n" not in message


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_windows(tmp_path / "none.csv", "x.csv")


def test_flags_of_rows():
    times = NOON + np.arange(5) * 30 * SECOND
    labels, outside = flags(TWO, times, "w.csv")
    assert labels.tolist() == [True, True, True, False, True]
    assert outside == 0
    later = (NOON + 10**15, NOON + 10**15)
    assert flags([TWO[0], later], times, "w.csv")[1] == 1
    assert not flags([], times, "w.csv")[0].any()
    with pytest.raises(DataError, match="meets a row of the data"):
        flags([later], times, "w.csv")


def test_damaged_files_give_typed_errors_only(tmp_path):
    """20,000 mutants of the forms above: a list of stretches or a `DataError`, nothing else."""
    seeds = [
        b"start,end\n2024-05-01 12:00,2024-05-01 12:01\n2024-05-01 12:02:00.5,2024-05-01 12:03\n",
        b"time;anomaly\n1714564800;0\n1714564860;1\n1714564920;1\n",
        b'{"pump.csv": [["2024-05-01T12:00Z", "2024-05-01T12:01Z"], {"start": 1, "end": 2e9}]}',
    ]
    rng = random.Random(5)
    path = tmp_path / "labels.json"
    read_any = refused = 0
    for i in range(20_000):
        text = bytearray(seeds[i % len(seeds)])
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(text))
            kind = rng.randrange(3)
            if kind == 0:
                text[at] = rng.choice(b'0129-:.,;"[]{}\n\t eE\x00\xff')
            elif kind == 1:
                del text[at : at + rng.randint(1, 6)]
            else:
                text[at:at] = rng.choice([b"9" * 30, b"[", b"null", b"1e999", b'"', b"\r\n", b"NaN"])
            text = text or bytearray(b" ")
        path.write_bytes(text)
        try:
            windows = read_windows(path if i % 3 == 2 else path.rename(tmp_path / "labels.csv"), "pump.csv")
            assert all(a <= b for a, b in windows)
            read_any += 1
        except DataError:
            refused += 1
        path = tmp_path / "labels.json"
    assert read_any > 300
    assert refused > 1000
