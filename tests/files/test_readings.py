"""Reading recorded tables: what users bring, what they get, and one clear line for everything else."""

import random
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_rnn.errors import DataError
from edge_rnn.files import time_column
from edge_rnn.files.readings import Table, read_table
from tests.support import need

CSV = """ts,vib,temp,anomaly
2024-05-01 10:00:00,1.5,20,0
2024-05-01 10:00:01,2.5,21,1
2024-05-01 10:00:02,3.5,22,0
"""
T0 = int(datetime(2024, 5, 1, 10, tzinfo=UTC).timestamp()) * 10**9


@pytest.fixture
def write(tmp_path: Path):
    def _write(text: str | bytes, name: str = "data.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return _write


def error(path: Path, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        read_table(path, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_plain_csv(write) -> None:
    table = read_table(write(CSV), labels="anomaly")
    assert table.channels == ("vib", "temp")
    assert table.times_ns.tolist() == [T0, T0 + 10**9, T0 + 2 * 10**9]
    assert table.times_ns.dtype == np.int64
    assert table.values.tolist() == [[1.5, 20.0], [2.5, 21.0], [3.5, 22.0]]
    assert table.labels is not None
    assert table.labels.tolist() == [False, True, False]
    assert table.time_column == "ts"
    assert len(table) == 3
    assert any("taken as UTC" in n for n in table.notes)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_delimiters_and_line_ends_are_found(write, delimiter: str, newline: str) -> None:
    path = write(CSV.replace(",", delimiter).replace("\n", newline))
    assert read_table(path).values.shape == (3, 2)


def test_decimal_comma_does_not_win_as_delimiter(write) -> None:
    path = write("ts;a\n2024-05-01;1,5\n2024-05-02;2,5\n")
    message = error(path)
    assert "line 2" in message
    assert "write decimals with a point" in message


def test_delimiter_as_given(write) -> None:
    path = write(CSV.replace(",", "!"))
    assert read_table(path, delimiter="!").values.shape == (3, 2)
    assert read_table(write(CSV.replace(",", "\t")), delimiter="tab").values.shape == (3, 2)


def test_channels_are_taken_in_the_order_asked_for(write) -> None:
    table = read_table(write(CSV), channels=["temp", "vib"])
    assert table.channels == ("temp", "vib")
    assert table.values[0].tolist() == [20.0, 1.5]


def test_a_label_column_is_never_an_input_by_default(write) -> None:
    text = CSV.replace("vib", "Changepoint")
    table = read_table(write(text))
    assert table.channels == ("temp",)
    assert sum("label by its name" in n for n in table.notes) == 2
    assert read_table(write(text), labels="anomaly").channels == ("temp",)


def test_label_column_as_channel_is_refused(write) -> None:
    assert "never an input" in error(write(CSV), labels="anomaly", channels=["vib", "anomaly"])


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["0", "1", "0"], [0, 1, 0]),
        (["0.0", "1.0", "1"], [0, 1, 1]),
        (["false", "True", "FALSE"], [0, 1, 0]),
        (["no", "yes", "no"], [0, 1, 0]),
    ],
)
def test_label_spellings(write, cells: list[str], expected: list[int]) -> None:
    rows = "".join(f"{i},{i},{c}\n" for i, c in enumerate(cells))
    table = read_table(write("time,x,l\n" + rows), labels="l")
    assert table.labels is not None
    assert table.labels.astype(int).tolist() == expected


def test_a_label_that_is_no_label(write) -> None:
    message = error(write("time,x,l\n0,1,0\n1,1,maybe\n"), labels="l")
    assert "line 3" in message
    assert "'maybe'" in message


@pytest.mark.parametrize("cell", ["", "NaN", "nan", "NA", "null", " "])
def test_missing_cells_are_nan_and_said(write, cell: str) -> None:
    table = read_table(write(f"time,x,y\n0,1,2\n1,{cell},3\n"))
    assert np.isnan(table.values[1, 0])
    assert table.values[1, 1] == 3
    assert any(n.startswith("1 missing value") for n in table.notes)


def test_text_columns_are_left_out_and_said(write) -> None:
    table = read_table(write("time,x,site\n0,1,rome\n1,2,oslo\n"))
    assert table.channels == ("x",)
    assert any("'site' holds no numbers" in n for n in table.notes)


def test_infinity_is_kept_for_the_guard(write) -> None:
    assert read_table(write("time,x\n0,inf\n1,2\n")).values[0, 0] == np.inf


def test_quotes_byte_order_mark_blank_lines_and_unnamed_index(write) -> None:
    text = '\ufeff,"a;b"\n\n"2024-05-01 00:00:00","1.5"\n2024-05-02 00:00:00,2\n\n'
    table = read_table(write(text))
    assert table.time_column == "column 1"
    assert table.channels == ("a;b",)
    assert table.values.ravel().tolist() == [1.5, 2.0]


# --- times


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1714557600", "1714557601"], [T0, T0 + 10**9]),
        (["1714557600.25", "1714557600.5"], [T0 + 250_000_000, T0 + 500_000_000]),
        (["1714557600000", "1714557600001"], [T0, T0 + 10**6]),
        (["1714557600000000", "1714557600000001"], [T0, T0 + 10**3]),
        (["1714557600000000000", "1714557600000000001"], [T0, T0 + 1]),
        (["2024-05-01T10:00:00Z", "2024-05-01T10:00:00.5Z"], [T0, T0 + 500_000_000]),
        (["2024-05-01T12:00:00+02:00", "2024-05-01T11:00:01+01:00"], [T0, T0 + 10**9]),
        (["2024-05-01T05:30:00-0430", "2024-05-01 10:00:01 UTC"], [T0, T0 + 10**9]),
        (["2024-05-01 10:00:00.000000001", "2024-05-01 10:00:00.12"], [T0 + 1, T0 + 120_000_000]),
        (["2024-05-01 10:00", "2024-05-01 10:01"], [T0, T0 + 60 * 10**9]),
        (["2024-05-01", "2024-05-02"], [T0 - 36_000 * 10**9, T0 + 50_400 * 10**9]),
        (["1714557600123456789.", "1714557600123456790"], [T0 + 123456789, T0 + 123456790]),
        (["0", "1"], [0, 10**9]),
    ],
)
def test_time_formats(write, cells: list[str], expected: list[int]) -> None:
    table = read_table(write("time,x\n" + "".join(f"{c},1\n" for c in cells)))
    assert table.times_ns.tolist() == expected


def test_a_fraction_of_a_second_is_exact(write) -> None:
    table = read_table(write("time,x\n1700000000.123456789,1\n1700000000.123456790,1\n"))
    assert table.times_ns.tolist() == [1700000000123456789, 1700000000123456790]


@given(st.integers(-(2**62), 2**62), st.sampled_from([0, 3, 6, 9]))
def test_iso_times_agree_with_numpy(ns: int, digits: int) -> None:
    whole = ns // 10 ** (9 - digits) * 10 ** (9 - digits)
    text = str(np.datetime64(whole, "ns"))[: 19 + (digits + 1 if digits else 0)]
    form = time_column.guess([text])
    assert form is not None
    assert time_column.parse([text], form).tolist() == [whole]


def test_the_format_holds_for_the_whole_column(write) -> None:
    rows = [f"2024-05-01 10:{i // 60:02}:{i % 60:02},1" for i in range(150)]
    rows[140] = "1714557600,1"
    message = error(write("time,x\n" + "\n".join(rows)))
    assert "line 142" in message
    assert "ISO 8601" in message


def test_zones_must_not_come_and_go(write) -> None:
    rows = [f"2024-05-01 10:{i // 60:02}:{i % 60:02}Z,1" for i in range(150)]
    rows[149] = rows[149].replace("Z", "")
    message = error(write("time,x\n" + "\n".join(rows)))
    assert "with a zone" in message


@pytest.mark.parametrize(
    ("cells", "word"),
    [
        (["2024-02-30", "2024-03-01"], "no such date"),
        (["2024-05-01 25:00:00", "2024-05-02"], "no such date"),
        (["1500-01-01", "1500-01-02"], "outside 1678 to 2261"),
        (["9999-01-01", "9999-01-02"], "outside 1678 to 2261"),
        (["99999999999", "1"], "outside 1678 to 2261"),
        (["01/02/2024 10:00", "02/02/2024 10:00"], "is not a time"),
        (["soon", "later"], "is not a time"),
        (["", ""], "is not a time"),
    ],
)
def test_times_that_are_none(write, cells: list[str], word: str) -> None:
    path = write("time,x\n" + "".join(f"{c},1\n" for c in cells))
    assert word in error(path, time="time")


@pytest.mark.parametrize("cell", ["1e999999", "1e-999999", "9" * 5000, "1." + "0" * 5000])
def test_monstrous_numbers_as_times_end_in_an_error_or_a_time(write, cell: str) -> None:
    rows = "".join(f"{i},1\n" for i in range(120))
    path = write(f"time,x\n{rows}{cell},1\n")
    assert "line 122" in error(path)


def test_times_must_rise(write) -> None:
    again = write(CSV.replace("10:00:02", "10:00:01"))
    assert "line 4" in error(again)
    assert "the same as" in error(again)
    back = write(CSV.replace("10:00:02", "09:00:00"))
    assert "lies before" in error(back)
    assert len(read_table(back, strict=False)) == 3


# --- errors


def test_unknown_names_get_a_proposal(write) -> None:
    path = write(CSV)
    assert "did you mean 'vib'" in error(path, channels=["vibe"])
    assert "did you mean 'temp'" in error(path, channels=["TEMP"])
    assert "did you mean 'ts'" in error(path, time="tss")
    assert "no such label column 'anomly'; did you mean 'anomaly'" in error(path, labels="anomly")
    assert "columns: ts, vib, temp, anomaly" in error(path, channels=["zzzz"])


def test_errors_name_the_line(write) -> None:
    message = error(write(CSV.replace("2.5", "2.5 mm/s")))
    assert message.startswith("data.csv, line 3, column 'vib': expected a number, got '2.5 mm/s'")


@pytest.mark.parametrize("cell", ["1_000", "\u0661", "0x10", "1,5", "--1", "#REF!"])
def test_what_is_no_number_here(write, cell: str) -> None:
    assert "line 3" in error(write(f'time;x\n0;1\n1;"{cell}"\n'))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "empty"),
        ("\n \n", "empty"),
        ("time,x\n", "expected rows after the header"),
        ("time,x\n0,1\n", "at least 2 rows, got 1"),
        ("1,2\n3,4\n", "expected a header"),
        ("time,x,x\n0,1,2\n", "more than once"),
        ("time,x\n0,1\n1\n", "line 3: expected 2 cell(s)"),
        ("time,x\n0,1\n1,2,3\n", "line 3: expected 2 cell(s)"),
        ('time,x\n0,"1\n', "not CSV"),
        ("a,b\n1,2\n2,3\n", "no time column found"),
        ("time,site\n0,rome\n1,oslo\n", "no column with numbers"),
        (b"time,x\n0,\xff\n", "UTF-8"),
        (b"\x1f\x8b\x08\x00\x99,x\n", "UTF-8"),
    ],
)
def test_files_that_cannot_be_used(write, text: str | bytes, word: str) -> None:
    assert word in error(write(text))


def test_options_that_cannot_be_used(write) -> None:
    path = write(CSV)
    assert "delimiter" in error(path, delimiter="")
    assert "delimiter" in error(path, delimiter="ab")
    assert "delimiter" in error(path, delimiter="1")
    assert "distinct" in error(path, channels=["vib", "vib"])
    assert "at least one" in error(path, channels=[])
    assert "time column and cannot" in error(path, time="ts", channels=["ts"])


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert "cannot be read" in error(tmp_path / "none.csv")
    assert "cannot be read" in error(tmp_path)


# --- Parquet


def parquet(tmp_path: Path, **columns: object) -> Path:
    arrow = need.module("pyarrow")
    path = tmp_path / "table.parquet"
    need.module("pyarrow.parquet").write_table(arrow.table(columns), path)
    return path


def test_parquet_gives_what_the_same_csv_gives(tmp_path: Path) -> None:
    arrow = need.module("pyarrow")
    times = [1_763_700_000_123_456_789 + i * 10**9 for i in range(5)]
    path = parquet(
        tmp_path,
        when=arrow.array(times, arrow.timestamp("ns", "UTC")),
        vib=[0.1, None, 1e-300, float("nan"), 2.0],
        count=arrow.array([1, 2, 3, 4, 2**53], arrow.int64()),
        label=[True, False, False, True, True],
        place=["a", "b", "a", "b", "a"],
        deep=[[1], [2], [3], [4], [5]],
    )
    table = read_table(path, time="when", labels="label")
    assert table.channels == ("vib", "count")
    assert table.times_ns.tolist() == times
    np.testing.assert_array_equal(table.values[:, 0], [0.1, np.nan, 1e-300, np.nan, 2.0])
    assert table.values[-1, 1] == 2.0**53
    assert table.labels is not None
    assert table.labels.tolist() == [True, False, False, True, True]
    assert "Parquet" in table.notes
    assert "column 'deep' is nested and is left out" in table.notes


def test_a_parquet_file_is_known_by_its_content(tmp_path: Path) -> None:
    path = parquet(tmp_path, ts=[1_763_700_000, 1_763_700_001], x=[1.0, 2.0])
    other = tmp_path / "readings.csv"
    other.write_bytes(path.read_bytes())
    assert len(read_table(other)) == 2
    assert "this is Parquet, which has none" in error(other, delimiter=";")


def test_errors_of_parquet_name_the_row(tmp_path: Path) -> None:
    path = parquet(tmp_path, ts=[1_763_700_000, 1_763_700_001, 1_763_700_001], x=["1", "2", "3"])
    assert "line 3, column 'ts'" in error(path)
    path = parquet(tmp_path, ts=[1_763_700_000, 1_763_700_001], x=["1", "two"])
    assert "line 2, column 'x': expected a number, got 'two'" in error(path, channels=["x"])


def test_damaged_parquet_is_one_error_whatever_is_hit(tmp_path: Path) -> None:
    """Mutants of a small file: a table or a `DataError`, nothing else."""
    rows = 50
    whole = parquet(tmp_path, ts=[1_763_700_000 + i for i in range(rows)], x=[i / 7 for i in range(rows)])
    data = whole.read_bytes()
    rng = np.random.default_rng(3)
    mutant = tmp_path / "mutant.parquet"
    said: list[str] = []
    for _ in range(400):
        changed = bytearray(data)
        for place in rng.integers(4, len(data), rng.integers(1, 4)):
            changed[place] = rng.integers(256)
        if rng.random() < 0.2:
            del changed[int(rng.integers(4, len(data))) :]
        mutant.write_bytes(changed)
        try:
            read_table(mutant)
        except DataError as found:
            said.append(str(found))
    assert len(said) > 100
    assert not any("\n" in line for line in said)


# --- NDJSON


def test_ndjson(write) -> None:
    text = (
        '{"ts": 1714557600000, "sensors": {"vib": 1.5, "temp": 20}, "anomaly": false}\n\n'
        '{"ts": 1714557601000, "sensors": {"vib": "2.5", "temp": null}, "anomaly": true}\n'
        '{"ts": 1714557602000, "sensors": {"temp": 22}}\n'
    )
    for name in ("data.ndjson", "data.jsonl", "data.txt"):
        path = write(text.replace("22}", '22}, "anomaly": 0'), name)
        table = read_table(path, labels="anomaly")
        assert table.channels == ("sensors.vib", "sensors.temp")
        assert table.times_ns.tolist() == [T0, T0 + 10**9, T0 + 2 * 10**9]
        np.testing.assert_array_equal(table.values, [[1.5, 20], [2.5, np.nan], [np.nan, 22]])
        assert table.labels is not None
        assert table.labels.tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('{"time": 1, "x": 1}\n{"time": 2,\n', "line 2: not JSON"),
        ('{"time": 1, "x": 1}\n[1]\n', "line 2: expected one JSON object"),
        ("{}\n{}\n", "at least one key"),
        ('{"time": 1, "x": 1}\n{"time": 2, "x": [1]}\n', "line 2, column 'x'"),
        ('{"time": 1, "x": 1}\n{"time": 2, "x": true}\n', "line 2, column 'x'"),
        ('{"time": 1, "x": 1}\n{"x": 1}\n', "line 2, column 'time'"),
        ('{"time": 1, "x": 1}\n{"time": 2, "x": ' + '{"a":' * 5000 + "1" + "}" * 5001, "line 2"),
    ],
)
def test_ndjson_errors(write, text: str, word: str) -> None:
    assert word in error(write(text, "d.ndjson"))


def test_ndjson_has_no_delimiter(write) -> None:
    assert "NDJSON" in error(write('{"time": 1}\n'), delimiter=";")


def test_rows_beyond_one_block(write) -> None:
    n = 70_000
    rows = [f"{i},{i}.5" for i in range(n)]
    table = read_table(write("time,x\n" + "\n".join(rows)))
    assert table.values[:, 0].tolist() == [i + 0.5 for i in range(n)]
    assert table.times_ns[-1] == (n - 1) * 10**9
    rows[69_000] = "69000,x"
    assert "line 69002" in error(write("time,x\n" + "\n".join(rows)))


# --- any bytes at all

SEEDS = [
    CSV.encode(),
    CSV.replace(",", ";").replace("\n", "\r\n").encode(),
    b'time,"a b",label\n1714557600.5,1e3,0\n1714557601.25,-2,1\n1714557602,nan,0\n',
    b"\xef\xbb\xbfdatetime,x\n2024-05-01T10:00:00.5+02:00,1\n2024-05-01T10:00:01.5+02:00,2\n",
    b'{"ts": "2024-05-01 10:00:00", "v": {"a": 1}, "anomaly": 0}\n{"ts": "2024-05-01 10:00:01", "v": 2}\n',
]
TOKENS = [
    b"", b",", b";", b"\t", b'"', b'""', b"\n", b"\r", b"\x00", b"\xff", b"\xc3", b"nan", b"1e999", b"-",
    b"{", b"}", b"[", b"2024-13-01", b"NaT", b"now", b"9" * 30, b"1e400000",
    b"\xe2\x80\xa8", b"_", b"\xef\xbb\xbf",
    b"Infinity", b"0001-01-01", b"+99:99", b"time", b"anomaly",
]  # fmt: skip


def mutate(rng: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(out) + 1)
        end = min(len(out), at + rng.choice((0, 0, 1, 2, 8, 30)))
        kind = rng.randrange(4)
        if kind == 0:
            out[at:end] = rng.choice(TOKENS)
        elif kind == 1 and at < len(out):
            out[at] = rng.randrange(256)
        elif kind == 2:
            out[at:at] = out[at:end] * rng.randint(1, 3)
        else:
            del out[at:end]
    return bytes(out)


def test_mutated_files_give_a_table_or_a_data_error(tmp_path: Path) -> None:
    rng = random.Random(7)
    path = tmp_path / "mutant"
    good, refused = 0, []
    for i in range(20_000):
        path.write_bytes(mutate(rng, SEEDS[i % len(SEEDS)]))
        labels = "anomaly" if i % 2 else None
        try:
            table = read_table(path, labels=labels)
        except DataError as problem:
            refused.append(str(problem))
        else:
            good += 1
            check(table)
    # Both ends of the road were really travelled.
    assert good > 1000
    assert len(refused) > 5000
    assert not any("\n" in message for message in refused)


def check(table: Table) -> None:
    rows = len(table)
    assert table.values.shape == (rows, len(table.channels))
    assert rows >= 2
    assert (np.diff(table.times_ns) > 0).all()
    assert table.labels is None or table.labels.shape == (rows,)


@settings(max_examples=50)
@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=True), min_size=2, max_size=30),
    st.sampled_from([",", ";", "\t", "|"]),
)
def test_written_floats_come_back_bit_for_bit(tmp_path_factory, values: list[float], delimiter: str) -> None:
    path = tmp_path_factory.mktemp("readings") / "a.csv"
    rows = "".join(f"{i}{delimiter}{v!r}\n" for i, v in enumerate(values))
    path.write_text(f"time{delimiter}x\n{rows}")
    assert read_table(path).values[:, 0].tobytes() == np.array(values).tobytes()


# --- public data, as it is published


def test_skab_files_are_read_as_they_are() -> None:
    files = sorted(need.data("skab").glob("other/*.csv"))
    assert files
    for file in files:
        table = read_table(file, labels="anomaly")
        assert table.values.shape == (len(table), 8)
        assert not {"anomaly", "changepoint", "datetime"} & set(table.channels)
        assert table.labels is not None
        assert 0 < table.labels.sum() < len(table)
        assert np.median(np.diff(table.times_ns)) == 10**9


def test_nab_is_read_as_it_is() -> None:
    (file,) = need.data("nab").glob("**/realKnownCause/ambient_temperature_system_failure.csv")
    table = read_table(file)
    assert table.channels == ("value",)
    assert len(table) == 7267
