"""Functions that C libraries compute with different last bits, made of +, -, x, / and comparisons alone.

Each is a fixed sequence of float64 operations, rounded one by one, on numbers taken apart by their bits; so a
detector that uses them gives the same bits on every machine, and in C. Errors, relative where the value is
above 1, else absolute (tests/detect/test_arithmetic.py): ln, log10 1e-15, root 5e-16, sine, cosine 2e-15; exp
2e-14 for |x| <= 50.

    ln x       x = m 2^k, sqrt(1/2) <= m < sqrt(2);  f = (m - 1) / (m + 1);  ln m = 2 (f + f^3/3 + ... +
    f^21/21) exp x      x = (k + r) ln 2, |r| <= 1/2;  e^(r ln 2) by its Taylor polynomial of degree 13
    root x     Newton's iteration from a guess that halves the exponent
    sine p     of a full turn's part p:  folded to an eighth of a turn, Taylor polynomials of degree 15 and 16
"""

from __future__ import annotations

import numpy as np

from edge_rnn.core.jit import inlined, jit

LN2 = 0.6931471805599453
LOG10_2 = 0.3010299956639812
LOG10_E = 0.4342944819032518
ROOT_HALF = 0.7071067811865476
TAU = 6.283185307179586
_MANTISSA = (1 << 52) - 1
_ONE = 1023 << 52
# 1.5 * 2^52: added and taken away again, it rounds to a whole number.
_ROUND = 6755399441055744.0


@inlined
def exponent(x: float) -> int:
    """k of x = m 2^k, 1 <= m < 2, for x > 0; -1023 for 0 and numbers below 2.3e-308."""
    return (int(np.float64(x).view(np.int64)) >> 52) - 1023


@jit
def ln(x: float) -> float:
    """The natural logarithm of a normal number x > 0."""
    bits = np.int64(np.float64(x).view(np.int64))
    k = (bits >> 52) - 1023
    m = np.int64((bits & _MANTISSA) | _ONE).view(np.float64) * 0.5  # 1/2 <= m < 1
    k += 1
    if m < ROOT_HALF:
        m = m + m
        k -= 1
    f = (m - 1.0) / (m + 1.0)
    s = f * f
    total = 1.0 / 21.0
    for n in range(19, 0, -2):
        total = total * s
        total = total + 1.0 / n
    total = total * f
    return k * LN2 + (total + total)


@jit
def log10(x: float) -> float:
    """The decimal logarithm of a normal number x > 0."""
    return ln(x) * LOG10_E


@jit
def exp(x: float) -> float:
    """e to the power of x, |x| <= 700."""
    t = x / LN2
    k = (t + _ROUND) - _ROUND
    r = (t - k) * LN2
    total = 1.0
    for n in range(13, 0, -1):
        total = total * r
        total = total / n
        total = total + 1.0
    scale = np.int64((np.int64(k) + 1023) << 52).view(np.float64)
    return total * scale


@jit
def root(x: float) -> float:
    """The square root of a normal number x > 0; 0 for 0."""
    if x <= 0.0:
        return 0.0
    guess = np.int64((np.int64(np.float64(x).view(np.int64)) >> 1) + (np.int64(1023) << 51)).view(np.float64)
    for _ in range(5):
        guess = 0.5 * (guess + x / guess)
    return guess


@jit
def sine(part: float) -> float:
    """The sine of `part` of a full turn, 0 <= part < 1."""
    sign = 1.0
    if part >= 0.5:
        part = part - 0.5
        sign = -1.0
    if part > 0.25:
        part = 0.5 - part
    if part <= 0.125:
        x = part * TAU
        s = x * x
        total = 1.0
        for n in range(14, 0, -2):
            total = total * s
            total = total / (n * (n + 1))
            total = 1.0 - total
        return sign * (x * total)
    x = (0.25 - part) * TAU
    s = x * x
    total = 1.0
    for n in range(15, 0, -2):
        total = total * s
        total = total / (n * (n + 1))
        total = 1.0 - total
    return sign * total


@jit
def cosine(part: float) -> float:
    """The cosine of `part` of a full turn, 0 <= part < 1."""
    shifted = part + 0.25
    return sine(shifted - 1.0) if shifted >= 1.0 else sine(shifted)
