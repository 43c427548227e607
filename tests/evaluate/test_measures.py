"""The measures are the authors': their published examples, and numbers their code gave (golden.json)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge_rnn.evaluate import events, naive, rows
from edge_rnn.evaluate.affiliation import affiliation, zones
from edge_rnn.evaluate.intervals import flags_of, merged, runs
from edge_rnn.evaluate.measures import measure
from edge_rnn.evaluate.ranges import range_based
from edge_rnn.evaluate.vus import vus_pr
from tests.evaluate.make_golden import CASES, case

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())
SECOND = 1_000_000_000
flags = arrays(np.bool_, st.integers(2, 60))


def bits(text: str) -> np.ndarray:
    return np.array([c == "1" for c in text])


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda g: f"seed{g['seed']}")
def test_equal_to_the_authors_code(golden):
    labels, score, alarm = case(golden["seed"], golden["rows"], golden["events"])
    assert labels.any()
    labels, alarm = labels.astype(bool), alarm.astype(bool)
    near, ranges = affiliation(alarm, labels), range_based(alarm, labels)
    assert vus_pr(score, labels, golden["buffer"]) == pytest.approx(golden["vus_pr"], abs=1e-12)
    assert near.precision == pytest.approx(golden["affiliation_precision"], abs=1e-12)
    assert near.recall == pytest.approx(golden["affiliation_recall"], abs=1e-12)
    assert ranges.precision == pytest.approx(golden["range_precision"], abs=1e-12)
    assert ranges.recall == pytest.approx(golden["range_recall"], abs=1e-12)


def test_all_golden_cases_are_there():
    assert [(g["seed"], g["rows"], g["events"], g["buffer"]) for g in GOLDEN] == list(CASES)


def test_affiliation_example_of_the_paper():
    """Huet et al., section 4: 180 minutes, three events; the numbers are in the authors' tests."""
    minute = 60
    truth = [(0, 10 * minute), (50 * minute, 70 * minute), (170 * minute, 175 * minute)]
    said = [
        (5 * minute, 6 * minute), (7 * minute, 10 * minute), (11 * minute, 12 * minute),
        (40 * minute, 60 * minute), (115 * minute, 130 * minute), (135 * minute, 140 * minute),
        (165 * minute, 170 * minute),
    ]  # fmt: skip
    each = zones(said, truth, 180 * minute)
    assert each[1][0] == pytest.approx(0.672222222, abs=1e-8)
    assert each[1][1] == pytest.approx(0.944444444, abs=1e-8)


def test_affiliation_at_its_ends():
    truth = flags_of([(20, 30), (60, 62)], 100)
    whole = affiliation(truth, truth)
    assert (whole.precision, whole.recall, whole.f1) == (1.0, 1.0, 1.0)
    silent = affiliation(np.zeros(100, bool), truth)
    assert np.isnan(silent.precision)
    assert (silent.recall, silent.f1) == (0.0, 0.0)
    assert np.isnan(affiliation(truth, np.zeros(100, bool)).f1)
    near, far = flags_of([(31, 32)], 100), flags_of([(99, 100)], 100)
    assert affiliation(near, truth).precision > affiliation(far, truth).precision


@given(flags, st.integers(0, 20))
def test_vus_orders_scores(labels, seed):
    if labels.all() or not labels.any():
        assert np.isnan(vus_pr(np.zeros(len(labels)), labels, 4))
        return
    noise = np.random.default_rng(seed).random(len(labels))
    perfect, random = vus_pr(labels + 0.0, labels, 4), vus_pr(noise, labels, 4)
    assert 0.0 <= random <= 1.0 + 1e-12
    assert perfect >= random - 1e-12
    assert vus_pr(np.where(noise > 0.5, noise, np.nan), labels, 4) >= 0.0


def test_rows_by_hand():
    one = rows.count(bits("0110"), bits("0011"))
    assert (one.hit, one.false, one.missed, one.quiet) == (1, 1, 1, 1)
    assert (one.f1, one.precision, one.recall, one.far, one.mar, one.share) == (0.5, 0.5, 0.5, 0.5, 0.5, 0.5)
    both = one + rows.count(bits("1111"), bits("1111"))
    assert (both.f1, both.mar) == (2 * 5 / (2 * 5 + 2), 1 / 6)
    assert np.isnan(rows.count(bits("00"), bits("00")).f1)


def test_events_by_hand():
    times = np.arange(12) * SECOND
    labels, alarm = bits("001100011000"), bits("100100000110")
    got = events.count(alarm, labels, times, tail=2)
    # The second event is found by the alarm that comes within two rows of its end; the first row is false.
    assert (got.labelled, got.found, got.false, got.delay_rows) == (2, 2, 1, (1, 2))
    assert got.delay_ns == (SECOND, 2 * SECOND)
    assert got.days == 12 / 86_400
    assert got.false_per_day == pytest.approx(86_400 / 12)
    assert events.count(alarm, labels, times).found == 1
    assert events.count(alarm, labels, times).false == 2
    together = events.count(alarm, labels, times, gap=3)
    assert (together.labelled, together.found) == (1, 1)
    total = got + together
    assert (total.labelled, total.recall, total.median_delay_rows) == (3, 1.0, 1.0)


def test_an_alarm_that_is_always_on_finds_all_and_says_its_share():
    labels = bits("0010010")
    on = np.ones(7, bool)
    got = events.count(on, labels, np.arange(7) * SECOND)
    assert (got.recall, got.share, got.false) == (1.0, 1.0, 0)
    assert got.median_delay_rows == 0.0
    assert events.sequences(on, runs(labels)).f1 == 1.0
    nothing = events.count(~on, labels, np.arange(7) * SECOND)
    assert nothing.recall == 0.0
    assert np.isnan(nothing.median_delay_rows)


def test_sequences_of_telemanom():
    """Overlap counts each labelled sequence; a run over two of them hits both and is no false alarm."""
    got = events.sequences(bits("0111100001"), [(1, 2), (4, 6), (7, 8)])
    assert (got.tp, got.fp, got.fn) == (2, 1, 1)
    assert got.f1 == pytest.approx(2 * 2 / (2 * 2 + 2))
    assert (got + got).f1 == got.f1


@given(flags)
def test_intervals_go_round(some):
    assert np.array_equal(flags_of(runs(some), len(some)), some)
    assert merged(runs(some), 0) == runs(some)
    assert len(merged(runs(some), len(some))) <= 1


@given(flags, flags)
def test_matching_loses_no_stretch(alarm, labels):
    n = min(len(alarm), len(labels))
    alarm, labels = alarm[:n], labels[:n]
    matched = events.match(alarm, labels)
    assert [(a, b) for a, b, _ in matched.events] == runs(labels)
    touching = [r for r in runs(alarm) if labels[r[0] : r[1]].any()]
    assert sorted([*touching, *matched.false]) == runs(alarm)
    for a, b, first in matched.events:
        assert (first is not None) == alarm[a:b].any()


def test_naive_rules_see_what_they_should():
    rng = np.random.default_rng(4)
    day = np.tile(np.sin(np.arange(24) / 24 * 2 * np.pi) * 10, 20)[:, None] + 0.1 * rng.standard_normal(
        (480, 1)
    )
    day[300] += 5.0
    day[310] = np.nan
    seasonal = naive.naive(day, 120, 24)
    assert seasonal.alarm[300]
    assert seasonal.alarm[324], "the same step a season later"
    assert np.isnan(seasonal.score[:24]).all()
    assert np.isfinite(seasonal.score[24:]).all()
    assert runs(seasonal.alarm) == [(300, 301), (324, 325)]
    assert naive.naive(day, 120).name == "persistence"
    hours = np.arange(480) * 3600 * SECOND
    assert naive.season_rows(hours, 120) == 24
    assert naive.season_rows(hours, 40) == 1
    assert naive.season_rows(hours[:1], 1) == 1


def test_a_naive_rule_never_looks_ahead():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((200, 3))
    whole, part = naive.naive(x, 50, 7), naive.naive(x[:120], 50, 7)
    assert np.array_equal(whole.score[:120], part.score, equal_nan=True)
    assert np.array_equal(whole.alarm[:120], part.alarm)


def test_matched_alarm_is_on_as_long_as_asked():
    score = np.array([np.nan, *range(100)])
    assert naive.matched_alarm(score, 0.1).sum() == 10
    assert naive.matched_alarm(score, 0.0).sum() == 0
    assert naive.matched_alarm(score, 1.0).all()
    assert not naive.matched_alarm(np.full(3, np.nan), 0.5).any()


def test_measure_is_the_parts():
    labels, alarm = bits("0001110000"), bits("0000110001")
    times = np.arange(10) * SECOND
    got = measure(alarm, None, labels, times, buffer=4)
    assert got.rows == rows.count(alarm, labels)
    assert got.events == events.count(alarm, labels, times)
    assert got.affiliation_f1 == affiliation(alarm, labels).f1
    assert got.range_f1 == range_based(alarm, labels).f1
    assert got.vus_pr == vus_pr(alarm + 0.0, labels, 4)
