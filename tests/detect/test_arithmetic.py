"""Own functions against the mathematical ones; compiled and plain Python give the same bits."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from edge_rnn.detect import arithmetic, charts, tails
from tests.detect import general_twin as plain

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("name", "truth", "x", "error"),
    [
        ("ln", math.log, np.exp(RNG.uniform(-700, 700, 5000)), 1e-15),
        ("ln", math.log, RNG.uniform(0.2, 5.0, 5000), 1e-15),
        ("log10", math.log10, np.exp(RNG.uniform(-700, 700, 5000)), 1e-15),
        ("exp", math.exp, RNG.uniform(-50, 50, 5000), 2e-14),
        ("root", math.sqrt, np.exp(RNG.uniform(-600, 600, 5000)), 5e-16),
        ("sine", lambda p: math.sin(2 * math.pi * p), RNG.uniform(0, 1, 5000), 2e-15),
        ("cosine", lambda p: math.cos(2 * math.pi * p), RNG.uniform(0, 1, 5000), 2e-15),
    ],
)
def test_close_to_the_function_and_the_same_bits_in_python(name, truth, x, error) -> None:
    compiled, python = getattr(arithmetic, name), getattr(plain, name)
    got = np.array([compiled(v) for v in x])
    expected = np.array([truth(v) for v in x])
    np.testing.assert_array_less(np.abs(got - expected), error * np.maximum(np.abs(expected), 1.0) + 1e-300)
    assert [python(float(v)) for v in x] == got.tolist()


def test_exact_places() -> None:
    assert arithmetic.ln(1.0) == 0.0
    assert arithmetic.exp(0.0) == 1.0
    assert [arithmetic.root(v) for v in (0.0, 1.0, 4.0, 2.25)] == [0.0, 1.0, 2.0, 1.5]
    assert [arithmetic.sine(v) for v in (0.0, 0.25, 0.5, 0.75)] == [0.0, 1.0, 0.0, -1.0]
    assert [arithmetic.cosine(v) for v in (0.0, 0.25, 0.5, 0.75)] == [1.0, 0.0, -1.0, 0.0]


@pytest.mark.parametrize("bits", [0, 1, 2, 3])
def test_bins_are_equal_parts_of_an_octave(bits: int) -> None:
    parts = 2**bits
    for low, octaves in ((-16, 32), (0, 2), (-3, 5)):
        edges = [math.ldexp(1 + j / parts, low + k) for k in range(octaves) for j in range(parts)]
        bins = parts * octaves
        for place, edge in enumerate(edges):
            assert tails.bin_of(edge, low, bins, bits) == place
            assert tails.bin_of(math.nextafter(edge, 0.0), low, bins, bits) == max(place - 1, 0)
        assert tails.bin_of(0.0, low, bins, bits) == 0
        assert tails.bin_of(1e300, low, bins, bits) == bins - 1


def test_the_tree_counts_what_is_at_least_as_high() -> None:
    tree, counts = np.zeros(1 + 20), np.zeros(20)
    for place in RNG.integers(0, 20, 500).tolist():
        tails.add(tree, place)
        counts[place] += 1
        for at in (0, 7, 19):
            n = counts.sum()
            p = (Fraction(int(counts[at:].sum())) + Fraction(1, 2)) / Fraction(int(n) + 1)
            expected = 0.0 if n < 10 else -math.log10(p)
            assert tails.surprise(tree, at) == pytest.approx(expected, abs=1e-14)


def test_a_table_is_continuous_falling_and_never_zero() -> None:
    scores, parts = np.array([0.5, 2.0, 3.0]), np.array([0.5, 0.1, 0.02])
    x = np.linspace(0, 50, 5001)
    p = np.array([tails.exceeded(v, scores, parts) for v in x])
    assert p[0] == 1.0
    assert (np.diff(p) < 0).all()
    assert (np.abs(np.diff(p)) < 0.011).all()
    assert tails.exceeded(2.0, scores, parts) == 0.1
    assert tails.exceeded(6.0, scores, parts) == 0.01
    assert tails.exceeded(1e12, scores, parts) > 0
    assert tails.exceeded(-1.0, scores, parts) == 1.0


def test_the_normal_tail() -> None:
    for t in np.linspace(0.01, 8.0, 200):
        expected = -math.log10(0.5 * math.erfc(t / math.sqrt(2)))
        assert charts.surprise(t) == pytest.approx(expected, abs=0.003)
    assert charts.surprise(1e3) == 50.0


def test_the_tail_estimate_equals_the_one_with_library_functions() -> None:
    from edge_rnn.detect.thresholds import tail_value

    for _ in range(200):
        y = RNG.pareto(RNG.uniform(2, 8), 60)
        arguments = (1.5, 3000.0, 60.0, float(y.sum()), float((y * y).sum()), 10 ** RNG.uniform(-6, -2.5))
        assert tails.tail_value(*arguments) == pytest.approx(tail_value(*arguments), rel=1e-12)
