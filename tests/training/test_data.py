"""Training data: what is used, what is held back, and one clear line for what cannot be trained on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_rnn.errors import DataError
from edge_rnn.files.readings import Table
from edge_rnn.training.data import MIN_ROWS, held_back_from, held_back_share, prepare, read_tables, seconds

SECOND = 10**9


def table(rows=200, channels=2, start=0, period=SECOND, labels=None, seed=0):
    values = np.random.default_rng(seed).standard_normal((rows, channels))
    times = start + period * np.arange(rows, dtype=np.int64)
    names = tuple("abcdefgh"[:channels])
    return Table(times, values, names, labels, "t")


def write(path, rows=150, header="t,a,b,anomaly,note", line="{t},{a},{b},0,x"):
    rng = np.random.default_rng(1)
    lines = [
        line.format(t=f"2024-05-01 10:{i // 60:02}:{i % 60:02}", a=rng.normal(), b=rng.normal())
        for i in range(rows)
    ]
    path.write_text("\n".join([header, *lines]))
    return path


def test_labels_are_never_inputs(tmp_path):
    path = write(tmp_path / "a.csv")
    assert read_tables([path])[0].channels == ("a", "b")
    named = read_tables([path], labels=["anomaly"])[0]
    assert named.channels == ("a", "b")
    assert named.labels is not None
    with pytest.raises(DataError, match="'anomaly' is a label column and never an input"):
        read_tables([path], channels=["a", "anomaly"])


def test_a_label_column_of_another_name_is_kept_out(tmp_path):
    path = write(tmp_path / "a.csv", header="t,a,fault,stage", line="{t},{a},0,1")
    assert read_tables([path], labels=["fault", "stage"])[0].channels == ("a",)
    with pytest.raises(DataError, match="'fault' is a label column and never an input"):
        read_tables([path], labels=["fault"], channels=["a", "fault"])
    with pytest.raises(DataError, match="no such label column 'stagge'"):
        read_tables([path], labels=["fault", "stagge"])
    with pytest.raises(DataError, match="no such label column 'faul'"):
        read_tables([path], labels=["faul"])
    only = write(tmp_path / "b.csv", header="t,one,two", line="{t},0,1")
    with pytest.raises(DataError, match="only label columns hold numbers"):
        read_tables([only], labels=["one", "two"])


def test_files_must_have_the_same_channels(tmp_path):
    one = write(tmp_path / "one.csv")
    two = write(tmp_path / "two.csv", header="t,a,c,anomaly,note")
    with pytest.raises(
        DataError, match=r"two\.csv: expected the channels of the first file \(a, b\), got a, c"
    ):
        read_tables([one, two])
    assert len(read_tables([one, two], channels=["a"])) == 2
    with pytest.raises(DataError, match="at least one file"):
        read_tables([])


def test_gaps_cut_and_are_reported():
    one = table(100)
    times = one.times_ns.copy()
    times[60:] += 100 * SECOND
    data = prepare([Table(times, one.values, one.channels, None, "t"), table(80, start=500 * SECOND)])
    assert [len(s) for s in data.stretches] == [60, 40, 80]
    assert data.period_ns == SECOND
    assert any("1 gap(s) longer than 10 periods, the longest 1.68 min" in note for note in data.notes)


def test_short_stretches_are_left_out():
    one = table(150)
    times = one.times_ns.copy()
    times[140:] += 100 * SECOND
    data = prepare([Table(times, one.values, one.channels, None, "t")])
    assert [len(s) for s in data.stretches] == [140]
    assert any("10 row(s) in stretches too short" in note for note in data.notes)


def test_first_rows_only_and_labelled_rows_are_said():
    labels = np.zeros(300, bool)
    labels[110:130] = True
    labels[200:] = True
    data = prepare([table(300, labels=labels)], rows=120)
    assert data.rows == 120
    assert data.labelled == 10
    assert any("10 row(s) to train on are labelled anomalous" in note for note in data.notes)
    assert prepare([table(120)]).labelled is None


def changed(column, value, rows=slice(None)):
    one = table(200)
    one.values[rows, column] = value
    return one


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (list, "at least one table"),
        (lambda: [table(MIN_ROWS - 1)], f"expected at least {MIN_ROWS} rows to train on, got {MIN_ROWS - 1}"),
        (lambda: [changed(1, 5.0)], r"channel 'b' is always 5 in the rows to train on.*--channels"),
        (lambda: [changed(0, np.nan)], "channel 'a' has no readings at all"),
        (lambda: [changed(0, np.inf)], "channel 'a' has no readings at all"),
        (lambda: [changed(0, np.nan, slice(10, None))], r"channel 'a' has 10 reading\(s\) in 200 rows"),
        (lambda: [table(200), table(200, channels=1)], "the same channels in all tables"),
    ],
)
def test_what_cannot_be_trained_on(make, match):
    with pytest.raises(DataError, match=match) as caught:
        prepare(make())
    assert "\n" not in str(caught.value)


def test_too_few_rows_asked_for_and_times_that_fall():
    with pytest.raises(DataError, match=f"rows: expected at least {MIN_ROWS}"):
        prepare([table(500)], rows=20)
    one = table(200)
    with pytest.raises(DataError, match="rise strictly"):
        prepare([Table(one.times_ns[::-1].copy(), one.values, one.channels, None, "t")])


def test_uneven_times_say_what_to_do():
    one = table(120)
    # Every fifth row comes a minute late: no stretch is long enough.
    times = one.times_ns + 60 * SECOND * (np.arange(120) // 5)
    with pytest.raises(DataError, match="even period"):
        prepare([Table(times, one.values, one.channels, None, "t")])


@given(st.lists(st.integers(100, 20_000), min_size=1, max_size=4))
def test_the_tail_of_each_stretch_is_held_back(lengths):
    data = prepare([table(n, start=i * 10**6 * SECOND, seed=i) for i, n in enumerate(lengths)])
    starts = held_back_from(data)
    assert len(starts) == len(lengths)
    for stretch, start in zip(data.stretches, starts, strict=True):
        assert 0.19 * len(stretch) < len(stretch) - start < 0.41 * len(stretch)


def test_the_held_back_share_falls_with_the_rows():
    shares = [held_back_share(n) for n in (100, 1000, 3000, 10_000, 10**6)]
    assert shares[0] == shares[1] == 0.4
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == 0.2


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [(250_000_000, "250 ms"), (SECOND, "1 s"), (300 * SECOND, "5 min"), (7200 * SECOND, "2 h"),
     (3600 * SECOND, "60 min"), (302_400 * SECOND, "3.5 d"), (1000, "0.001 ms")],
)  # fmt: skip
def test_durations_for_people(nanoseconds, text):
    assert seconds(nanoseconds) == text
