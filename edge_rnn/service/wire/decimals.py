"""Numbers between float64 and decimal text, inside jitted code: exact in both directions.

Reading follows Eisel and Lemire ("Number Parsing at a Gigabyte per Second", Software: Practice and Experience
51, 2021): one or two 64-bit products with a table of powers of five. Writing follows Giulietti's Schubfach
("The Schubfach way to render doubles", 2020): the shortest decimal that reads as the same float64, and of
these the nearest. The tables are computed here from Python's integers.

The text of a number is the one msgspec writes: 12.5, 3.0, 0.000125, 1e16, 1.25e-7; NaN and infinities: null.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.jit import inlined, jit
from edge_rnn.core.wide import bits_of, float_of, high_product, leading_zeros

Bytes = NDArray[np.uint8]
Word = Any
"""A uint64 in compiled code; mixed with an int64 it would become a float64."""
U8 = np.uint64

LONGEST: Final = 24
"""Most bytes of a written number."""
LEAST_POWER: Final = -290
MOST_POWER: Final = 280
"""Decimal exponents beyond these are not read here: nothing between them is subnormal or infinite."""
_LEAST_FIVE, _LEAST_TEN = -342, -292


def _fives() -> NDArray[np.uint64]:
    """The upper 128 bits of 5**q, or of its inverse, for q of -342 to 308: (651, 2), high and low."""
    found = []
    for q in range(_LEAST_FIVE, 309):
        power = 5 ** abs(q)
        if q >= 0:
            shift = power.bit_length() - 128
            value = power >> shift if shift >= 0 else power << -shift
        else:
            z = (power - 1).bit_length()
            value = (1 << (z + 127 if q >= -27 else 2 * z + 128)) // power + 1
            value >>= max(0, value.bit_length() - 128)
        found.append((value >> 64, value & (2**64 - 1)))
    return np.array(found, np.uint64)


def _tens() -> NDArray[np.uint64]:
    """10**k as 128 bits and a power of two, rounded up, for k of -292 to 324: (617, 2), high and low."""
    found = []
    for k in range(_LEAST_TEN, 325):
        power = 10 ** abs(k)
        if k >= 0:
            shift = power.bit_length() - 128
            value = -(-power >> shift) if shift >= 0 else power << -shift
        else:
            # 2**(length + 127) / power is between 2**127 and 2**128.
            value = -(-(1 << (power.bit_length() + 127)) // power)
            value = -(-value >> max(0, value.bit_length() - 128))
        found.append((value >> 64, value & (2**64 - 1)))
    return np.array(found, np.uint64)


_FIVES: Final = _fives()
_TENS: Final = _tens()
_PAIRS: Final = np.frombuffer("".join(f"{i:02d}" for i in range(100)).encode(), np.uint8).copy()

_ONE, _TWO, _THREE, _FOUR, _TEN, _FORTY = U8(1), U8(2), U8(3), U8(4), U8(10), U8(40)
_ZERO, _HUNDRED, _MOST = U8(0), U8(100), U8(2**64 - 1)
_LOW_9 = U8(511)
_HIDDEN, _FRACTION, _CARRY = U8(1 << 52), U8((1 << 52) - 1), U8(2 << 52)
_63, _52, _9 = U8(63), U8(52), U8(9)
_E4, _E8 = U8(10**4), U8(10**8)
_POWERS: Final = np.array([10**i for i in range(20)], np.uint64)


@inlined
def read(digits: Word, power: int) -> float:
    """digits * 10**power, rightly rounded; digits uint64 above 0, power from LEAST_POWER to MOST_POWER."""
    zeros = leading_zeros(digits)
    w = digits << zeros
    five = power - _LEAST_FIVE
    low, high = w * _FIVES[five, 0], high_product(w, _FIVES[five, 0])
    if high & _LOW_9 == _LOW_9:
        more = high_product(w, _FIVES[five, 1])
        low += more
        if more > low:
            high += _ONE
    upper = high >> _63
    shift = upper + _9
    mantissa = high >> shift
    exponent = ((217706 * power) >> 16) + 63 + np.int64(upper) - np.int64(zeros) + 1023
    if low <= _ONE and -4 <= power <= 23 and mantissa & _THREE == _ONE and mantissa << shift == high:
        mantissa &= ~_ONE
    mantissa += mantissa & _ONE
    mantissa >>= _ONE
    if mantissa >= _CARRY:
        mantissa = _HIDDEN
        exponent += 1
    return float_of((mantissa & _FRACTION) | U8(exponent) << _52)  # type: ignore[no-any-return]


@inlined
def _scaled(high: Word, low: Word, c: Word) -> Word:
    """c times the 128-bit number, its upper 64 bits; the last bit is 1 where anything below is left."""
    x1 = high_product(low, c)
    y0, y1 = high * c, high_product(high, c)
    y0 += x1
    if y0 < x1:
        y1 += _ONE
    return y1 | U8(y0 > _ONE)


@inlined
def shortest(bits: Word) -> tuple[Word, Any]:
    """Digits and power of ten of a finite float64 above 0 (its bits, without sign)."""
    fraction: Word = bits & _FRACTION
    biased: Any = np.int64(bits >> _52)
    if biased:
        c, q = fraction | _HIDDEN, biased - 1075
        if -53 < q <= 0 and c & ((_ONE << U8(-q)) - _ONE) == _ZERO:
            return c >> U8(-q), 0
    else:
        c, q = fraction, -1074
    odd = c & _ONE
    closer = fraction == _ZERO and biased > 1
    k = (q * 1262611 - (524031 if closer else 0)) >> 22
    h = U8(q + ((-k * 1741647) >> 19) + 1)
    high, low = _TENS[-k - _LEAST_TEN, 0], _TENS[-k - _LEAST_TEN, 1]
    middle = c << _TWO
    lower = _scaled(high, low, (middle - (_ONE if closer else _TWO)) << h) + odd
    value = _scaled(high, low, middle << h)
    upper = _scaled(high, low, (middle + _TWO) << h) - odd
    s = value >> _TWO
    if s >= _TEN:
        sp = s // _TEN
        below, above = lower <= _FORTY * sp, _FORTY * sp + _FORTY <= upper
        if below != above:
            return sp + U8(above), k + 1
    below, above = lower <= s << _TWO, (s << _TWO) + _FOUR <= upper
    if below != above:
        return s + U8(above), k
    half = (s << _TWO) + _TWO
    return s + U8(value > half or (value == half and s & _ONE != _ZERO)), k


@inlined
def _put_pair(out: Bytes, at: Any, pair: Word) -> None:
    place = np.int64(pair) * 2
    out[at], out[at + 1] = _PAIRS[place], _PAIRS[place + 1]


@jit
def _put_digits(out: Bytes, end: Any, digits: Word) -> None:
    """Write a uint64 so that it ends before `end`."""
    while digits >= _E8:
        rest = digits // _E8
        eight = digits - rest * _E8
        digits = rest
        # Two halves of two pairs: four divisions that need not wait for one another.
        left = eight // _E4
        right = eight - left * _E4
        first, third = left // _HUNDRED, right // _HUNDRED
        _put_pair(out, end - 8, first)
        _put_pair(out, end - 6, left - first * _HUNDRED)
        _put_pair(out, end - 4, third)
        _put_pair(out, end - 2, right - third * _HUNDRED)
        end -= 8
    while digits >= _HUNDRED:
        rest = digits // _HUNDRED
        end -= 2
        _put_pair(out, end, digits - rest * _HUNDRED)
        digits = rest
    if digits >= _TEN:
        _put_pair(out, end - 2, digits)
    else:
        out[end - 1] = 48 + digits


@inlined
def _count_digits(digits: Word) -> Any:
    """How many decimal digits a uint64 above 0 has; 1 for 0."""
    bits = np.int64(64) - np.int64(leading_zeros(digits | _ONE))
    count = (bits * 1233) >> 12  # log10(2), a little less
    return count + 1 if digits >= _POWERS[count] else max(count, 1)


@inlined
def put_integer(out: Bytes, at: Any, value: Any) -> Any:
    """Write an int64 at `at`; where it ends."""
    if value < 0:
        out[at] = 45
        at += 1
        digits: Word = ~U8(value) + _ONE
    else:
        digits = U8(value)
    end = at + _count_digits(digits)
    _put_digits(out, end, digits)
    return end


@jit
def put_number(out: Bytes, at: Any, value: float) -> Any:
    """Write a float64 at `at`; where it ends. `out` has room for LONGEST bytes more."""
    if value - value != 0.0:
        out[at], out[at + 1], out[at + 2], out[at + 3] = 110, 117, 108, 108
        return at + 4
    bits = bits_of(value)
    if bits >> _63:
        out[at] = 45
        at += 1
        bits &= _MOST >> _ONE
    if bits == _ZERO:
        out[at], out[at + 1], out[at + 2] = 48, 46, 48
        return at + 3
    digits, power = shortest(bits)
    if power != 0:
        rest = digits // _TEN
        while rest * _TEN == digits:
            digits = rest
            power += 1
            rest = digits // _TEN
    n = _count_digits(digits)
    point = n + power
    if power >= 0 and point <= 16:
        _put_digits(out, at + n, digits)
        for i in range(at + n, at + point):
            out[i] = 48
        out[at + point], out[at + point + 1] = 46, 48
        return at + point + 2
    if 0 < point <= 16:
        # One place too far to the right; then what is before the point goes back.
        _put_digits(out, at + n + 1, digits)
        for i in range(at, at + point):
            out[i] = out[i + 1]
        out[at + point] = 46
        return at + n + 1
    if -5 < point <= 0:
        out[at], out[at + 1] = 48, 46
        for i in range(at + 2, at + 2 - point):
            out[i] = 48
        _put_digits(out, at + 2 - point + n, digits)
        return at + 2 - point + n
    end = at + 1
    if n == 1:
        out[at] = 48 + digits
    else:
        _put_digits(out, at + n + 1, digits)
        out[at] = out[at + 1]
        out[at + 1] = 46
        end = at + n + 1
    out[end] = 101
    return put_integer(out, end + 1, point - 1)
