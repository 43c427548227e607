"""From a model to its integers: ranges, rounding, and the proof that nothing overflows.

1. The float64 reference runs over calibration data with some noise behind it, or over noise alone, from
   rest again and again so that a cold start has its weight, and what each matrix is multiplied with is noted.
2. Weights are rounded with the covariance of that (`rounding.py`), biases corrected by what the rounding adds
   on average.
3. The integer network runs over the same data. Its trajectory differs a little from the reference's, in a way
   that is mostly a linear function of its own state, so the weights are fitted again: those that, from the
   integer network's own inputs and h, come closest to what the reference computed; they are rounded again. Of
   all rounds the one whose outputs are nearest to the reference's is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from edge_rnn.core.integer_kernel import trajectory
from edge_rnn.core.integers import LARGEST, UNIT, Int8, IntegerLayer, IntegerLinear, Quantized
from edge_rnn.core.model import Activation, Float32, Float64, Model, Recurrent
from edge_rnn.core.reference import Reference, activate
from edge_rnn.core.rounding import round_rows
from edge_rnn.errors import DataError, ExportError

HEAD_ACTIVATIONS: tuple[Activation, ...] = ("none", "relu", "tanh", "sigmoid")

_INPUT_LIMIT = 10.0
_UNBOUNDED = 1e6
_MARGIN = 3.0
_ROWS, _STRETCH, _NOISE_ROWS = 4096, 512, 1024
_RESTART = 256
_ROUNDS = 4
_RIDGE = 0.003
_FRACTION, _FINEST, _COARSEST, _SPARE = 16, 18, 8, 1.3


def quantize(model: Model, xs: ArrayLike | None = None) -> Quantized:
    """The constants of `model`.

    Args:
        xs: calibration data in model space, (T, I), as the network will see them; None: the ranges in the
            model file, and noise of unit variance for the rounding.

    Raises:
        ExportError: a part that has no integer form, or numbers that could overflow.
        DataError: `xs` has another shape, no rows, or numbers that are not finite.
    """
    _check_head(model)
    data = None if xs is None else _checked(xs, model.input_size)
    limit = _input_limits(model, data)
    drive = _noise(model.input_size) if data is None else _mixed(data)
    drive = np.clip(drive, -limit, limit)
    drive = drive.astype(np.float32).astype(np.float64)
    with np.errstate(all="ignore"):
        seen = _observe(model, drive)
    for i, layer in enumerate(seen):
        if not layer.largest < _UNBOUNDED:
            raise ExportError(
                f"layers[{i}]: its h grows without bound on the calibration data, so it has no range; use f32"
            )
    scales = [_h_scale(model, i, s.largest if data is not None else None) for i, s in enumerate(seen)]
    said = np.array([_head(model, h) for h in seen[-1].top])
    spread = np.maximum(said.std(axis=0), 1e-9)
    given = [s.given for s in seen]
    best, least = None, np.inf
    for _ in range(_ROUNDS):
        layers = _layers(model, limit, scales, seen, given)
        bare = Quantized(
            replace(model, head=(), self_test=None, detector=None),
            (LARGEST / limit).astype(np.float32),
            layers,
            None,
        )
        hs = trajectory(bare, drive.astype(np.float32), _RESTART)
        top = hs[-1][1]
        candidate = replace(bare, model=model, head=_integer_head(model, scales[-1], seen[-1].top, top))
        error = _said(candidate, top) - said
        loss = float((np.sqrt((error**2).mean(axis=0)) / spread).max())
        if best is None or loss < least:
            best, least = candidate, loss
        below = drive
        given = []
        for before, after in hs:
            given.append(np.hstack([below, before]))
            below = after
    assert best is not None
    return best


def _said(quantized: Quantized, top: Float64) -> Float64:
    """What a quantised head makes of h (T, P), but for the rounding of float32."""
    head = quantized.head
    if head is None:
        return top
    weight = head.weight * head.scale[:, None].astype(np.float64) / quantized.layers[-1].h_scale
    z = top @ weight.T + head.bias
    return activate(z, head.activation)


def _head(model: Model, h: Float64) -> Float64:
    """The float64 reference's output for the top layer's h."""
    if not model.head:
        return h
    linear = model.head[0]
    z = linear.weight.astype(np.float64) @ h
    return activate(z if linear.bias is None else z + linear.bias, linear.activation)


def _layers(
    model: Model, limit: Float64, scales: list[float], seen: list[_Seen], given: list[Float64]
) -> tuple[IntegerLayer, ...]:
    """One round: `given` is what the layers will be given, `seen` what it should be."""
    below = limit / LARGEST
    layers = []
    for i, layer in enumerate(model.layers):
        layers.append(_layer(layer, f"layers[{i}]", below, scales[i], seen[i], given[i]))
        below = np.full(layer.output_size, scales[i])
    return tuple(layers)


def _integer_head(model: Model, h_scale: float, wanted: Float64, given: Float64) -> IntegerLinear | None:
    if not model.head:
        return None
    linear = model.head[0]
    weight, bias = _fitted(linear.weight.astype(np.float64), linear.bias, wanted, given)
    moments = _Moments.of(given)
    steps, scale, error = round_rows(weight, moments.covariance, 0)
    _check_sum("head[0]", steps)
    bias = bias + error @ moments.mean
    return IntegerLinear(
        steps, (scale[:, 1] * h_scale).astype(np.float32), bias.astype(np.float32), linear.activation
    )


def _fitted(
    weights: Float64, bias: Float32 | None, wanted: Float64, given: Float64
) -> tuple[Float64, Float64]:
    """Weights (R, K) and bias (R,) that give from `given` (T, K) what the originals give from `wanted`."""
    base = np.zeros(len(weights)) if bias is None else bias.astype(np.float64)
    if given is wanted:
        return weights, base
    missing = (wanted - given) @ weights.T
    moments = _Moments.of(given)
    size = given.shape[1]
    ridge = _RIDGE * max(float(np.trace(moments.covariance)) / size, 1e-12)
    shared = (given - moments.mean).T @ (missing - missing.mean(axis=0)) / len(given)
    change = np.linalg.solve(moments.covariance + ridge * np.eye(size), shared).T
    return weights + change, base + missing.mean(axis=0) - change @ moments.mean


def _check_head(model: Model) -> None:
    if len(model.head) > 1:
        raise ExportError(f"head: w8a16 has at most one Linear, got {len(model.head)}; use f32")
    if model.head and model.head[0].activation not in HEAD_ACTIVATIONS:
        raise ExportError(
            f"head[0].activation: w8a16 has {', '.join(HEAD_ACTIVATIONS)}, got {model.head[0].activation}; "
            "use f32"
        )


def _checked(xs: ArrayLike, inputs: int) -> Float64:
    data = np.asarray(xs, np.float64)
    if data.ndim != 2 or data.shape[1] != inputs or not len(data) or not np.isfinite(data).all():
        raise DataError(
            f"calibration data: expected finite numbers of shape (T, {inputs}), T > 0, got {data.shape}"
        )
    return data


def _input_limits(model: Model, data: Float64 | None) -> Float64:
    """The largest |x| of each input that int16 has to hold, (I,)."""
    if model.detector is not None:
        return np.full(model.input_size, model.detector.condition.clip)
    if data is not None:
        largest = 2 * np.abs(data).max(axis=0)
        return np.where(largest > 0, largest, 1.0)
    limit = np.full(model.input_size, _INPUT_LIMIT)
    if model.self_test is not None:
        recorded = model.self_test.x.astype(np.float64)
        limit = np.maximum(limit, 2 * np.abs(recorded).max(axis=0))
    return limit


def _noise(inputs: int) -> Float64:
    """(4096, I): white noise, slow noise and steps, of about unit variance."""
    rng = np.random.default_rng(0)
    white = rng.standard_normal((_ROWS, inputs))
    slow = np.zeros((_ROWS, inputs))
    for t in range(1, _ROWS):
        slow[t] = 0.95 * slow[t - 1] + 0.3122 * white[t]
    share = rng.uniform(size=(_ROWS // _STRETCH, inputs)).repeat(_STRETCH, axis=0)
    return share * rng.standard_normal((_ROWS, inputs)) + (1 - share) * slow


def _stretches(data: Float64) -> Float64:
    """At most 4096 rows: all, or eight stretches spread evenly."""
    if len(data) <= _ROWS:
        return data
    starts = np.linspace(0, len(data) - _STRETCH, _ROWS // _STRETCH).astype(int)
    return np.concatenate([data[s : s + _STRETCH] for s in starts])


def _mixed(data: Float64) -> Float64:
    """The data, and noise of their spread behind them: normal data alone says little of an anomaly."""
    rows = _stretches(data)
    noise = _noise(data.shape[1])[:_NOISE_ROWS]
    return np.concatenate([rows, rows.mean(axis=0) + noise * rows.std(axis=0)])


@dataclass(frozen=True, slots=True, eq=False)
class _Moments:
    """Mean (K,) and covariance (K, K)."""

    mean: Float64
    covariance: Float64

    @classmethod
    def of(cls, rows: Float64) -> _Moments:
        mean = rows.mean(axis=0)
        centred = rows - mean
        return cls(mean, centred.T @ centred / len(rows))


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """What the reference's layer was given: below and old h (T, I + P); o tanh(c) (T, H) before a projection;
    its h (T, P), and the largest |h|."""

    given: Float64
    inner: Float64 | None
    top: Float64
    largest: float


def _observe(model: Model, xs: Float64) -> list[_Seen]:
    reference = Reference(model)
    rows: list[list[Float64]] = [[] for _ in model.layers]
    inner: list[list[Float64]] = [[] for _ in model.layers]
    tops: list[list[Float64]] = [[] for _ in model.layers]
    before = reference.h
    for t, x in enumerate(xs):
        if t % _RESTART == 0:
            reference = Reference(model)
            before = reference.h
        gates = reference.gates(x)
        after, cells, below = reference.h, reference.c, x
        for i, layer in enumerate(model.layers):
            rows[i].append(np.concatenate([below, before[i]]))
            cell = cells[i]
            if layer.w_hr is not None and cell is not None:
                inner[i].append(gates[i]["o"] * np.tanh(cell))
            tops[i].append(after[i])
            below = after[i]
        before = after
    return [
        _Seen(np.array(z), np.array(u) if u else None, np.array(h), float(np.abs(h).max()))
        for z, u, h in zip(rows, inner, tops, strict=True)
    ]


def _h_scale(model: Model, index: int, largest: float | None) -> float:
    layer = model.layers[index]
    if layer.cell != "rnn_relu" and layer.w_hr is None:
        return 1 / UNIT
    if largest is None:
        if model.activation_ranges is None:
            raise ExportError(
                f"layers[{index}]: the range of its h is not known, because the model file has no "
                "activation_ranges; give calibration data"
            )
        largest = model.activation_ranges[index]
    return max(largest, 1e-6) * _MARGIN / LARGEST


def _layer(
    layer: Recurrent, where: str, below: Float64, h_scale: float, seen: _Seen, given: Float64
) -> IntegerLayer:
    inputs, gru = layer.input_size, layer.cell == "gru"
    n = 2 * layer.hidden_size if gru else layer.w_ih.shape[0]
    rows = len(layer.w_ih)
    b_ih = np.zeros(rows, np.float32) if layer.b_ih is None else layer.b_ih
    b_hh = np.zeros(rows, np.float32) if layer.b_hh is None else layer.b_hh
    weights = np.hstack([layer.w_ih, layer.w_hh]).astype(np.float64)
    # float64 sums of two float32 are exact enough: the result is rounded to 2^-15.
    whole, bias = _fitted(weights[:n], None, seen.given, given)
    bias = bias + b_ih[:n].astype(np.float64) + b_hh[:n]
    # The columns are weighed by what a step of their input is worth, so that one scale per row serves them
    # all.
    weigh = np.concatenate([below, np.full(layer.output_size, h_scale)])
    moments = _Moments.of(given / weigh)
    bits = _bits(weights * weigh, inputs, np.abs(b_ih) + np.abs(b_hh))
    unit = h_scale if layer.cell == "rnn_relu" else 2.0**-bits
    quantum = unit / 2**_FRACTION
    steps, scales, error = round_rows(whole * weigh, moments.covariance, inputs, quantum)
    bias = bias + error @ moments.mean
    if gru:
        # The n gate's parts are used apart, so no error of one may lean on the other.
        x, h = slice(None, inputs), slice(inputs, None)
        same = given is seen.given
        parts = []
        for part, base in ((x, b_ih), (h, b_hh)):
            wanted = seen.given[:, part]
            fitted, offset = _fitted(weights[n:, part], base[n:], wanted, wanted if same else given[:, part])
            parts.append((fitted, offset))
        apart = moments.covariance.copy()
        apart[x, h] = 0
        apart[h, x] = 0
        n_steps, n_scales, error = round_rows(
            np.hstack([p[0] for p in parts]) * weigh, apart, inputs, quantum
        )
        steps, scales = np.concatenate([steps, n_steps]), np.concatenate([scales, n_scales])
        offsets = [parts[0][1] + error[:, x] @ moments.mean[x], parts[1][1] + error[:, h] @ moments.mean[h]]
        bias = np.concatenate([bias, *offsets])
    multipliers = np.rint(scales / quantum)
    if multipliers.max() > LARGEST:
        raise ExportError(f"{where}: weights too large for w8a16; scale the model's inputs, or use f32")
    w_x, w_h = steps[:, :inputs], steps[:, inputs:]
    _check_sum(f"{where}.w_ih", w_x)
    _check_sum(f"{where}.w_hh", w_h)
    # Each of two products is rounded down: by half a step on average.
    rounded_bias = np.rint(bias / unit + (0.5 if gru else 1.0))
    reach = (
        np.abs(w_x).sum(axis=1, dtype=np.float64) * UNIT * multipliers[:, 0]
        + np.abs(w_h).sum(axis=1, dtype=np.float64) * UNIT * multipliers[:, 1]
    )
    tops = np.abs(rounded_bias[:rows])
    if gru:
        tops[n:] += np.abs(rounded_bias[rows:])
    value = reach / 2.0**_FRACTION + tops
    worst = int(np.argmax(value))
    if value[worst] >= 2.0**30:
        raise ExportError(
            f"{where}: row {worst} could reach {value[worst] * unit:.4g}, more than w8a16 holds "
            f"({2.0**30 * unit:.4g}); scale the model's inputs, or use f32"
        )
    w_r = m_r = None
    shift_r = 1
    if layer.w_hr is not None and seen.inner is not None:
        covariance = _Moments.of(seen.inner).covariance
        w_r, scale_r, _ = round_rows(layer.w_hr.astype(np.float64), covariance, 0)
        _check_sum(f"{where}.w_hr", w_r)
        factors, shift_r = _multipliers(scale_r[:, 1:] / UNIT / h_scale, f"{where}.w_hr")
        m_r = factors[:, 0].astype(np.int32)
    return IntegerLayer(
        layer.cell, np.ascontiguousarray(w_x), np.ascontiguousarray(w_h), multipliers[:, 0].astype(np.int32),
        multipliers[:, 1].astype(np.int32), rounded_bias.astype(np.int32), bits, h_scale, w_r, m_r, shift_r,
    )  # fmt: skip


def _bits(weighed: Float64, inputs: int, bias: Float64) -> int:
    """The finest format of v for weights (R, K), each times what a step of its input is worth."""
    parts = [np.abs(weighed[:, :inputs]), np.abs(weighed[:, inputs:])]
    reach = sum(part.sum(axis=1) for part in parts) * LARGEST + bias
    step = max(float(part.max(initial=0.0)) for part in parts) / 127 * 2**_FRACTION
    for bits in range(_FINEST, _COARSEST, -1):
        # A fit may make weights somewhat larger than they were.
        if _SPARE * step * 2.0**bits <= LARGEST and _SPARE * float(reach.max()) * 2.0**bits < 2.0**30:
            return bits
    return _COARSEST


def _multipliers(factors: Float64, where: str) -> tuple[Float64, int]:
    """Integers of 16 bits and a shift of at most 16 with factor = integer / 2^shift."""
    largest = float(factors.max())
    shift = 16
    while shift > 1 and largest * 2.0**shift > LARGEST:
        shift -= 1
    if largest * 2.0**shift > LARGEST:
        raise ExportError(f"{where}: weights too large for w8a16; scale the model's inputs, or use f32")
    return np.rint(factors * 2.0**shift), shift


def _check_sum(where: str, steps: Int8) -> None:
    most = int(np.abs(steps.astype(np.int64)).sum(axis=1).max()) * UNIT
    if most >= 2**31:
        raise ExportError(
            f"{where}: a row of {steps.shape[1]} columns could reach {most}, more than 32 bits hold; use f32"
        )
