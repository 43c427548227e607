"""The compiled detector: one call, any number of samples of any streams, one after the other.

For each sample, in this order: guard, condition, deviation from what the model said, scorers, threshold,
alarm, explanation, and the model's step (first for reconstruct and classify, which speak about this very
sample; last for forecast, which speaks about the next). Arithmetic is float64 with + - * / and comparisons,
never fused and always in the same order, so how samples are grouped into calls cannot change a bit, and C can
repeat it.

The call takes the address of a table of int64 (`fields.PLAN_WORD` ...), mostly addresses again: the constants
of the plan, of the kernels, scratch, the states, and the samples.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.integer_kernel import integer_step, source_key
from edge_rnn.core.jit import EntryPoint, inlined, source_digest
from edge_rnn.core.kernels import StepFunction, kernels
from edge_rnn.detect import (
    alarm,
    arithmetic,
    bar,
    charts,
    condition,
    explain,
    general,
    general_alarm,
    general_forecasts,
    general_inputs,
    general_rest,
    general_scores,
    guard,
    memory,
    scorers,
    stages,
    tails,
    thresholds,
    trend,
    verdict,
)
from edge_rnn.detect import fields as at
from edge_rnn.detect import fields as fields_module
from edge_rnn.detect import plan as plan_module
from edge_rnn.detect.entries import REFUSED
from edge_rnn.detect.memory import f4_at, f8_at, i8_at, pointer_to, u1_at
from edge_rnn.detect.plan import PLAN
from edge_rnn.detect.verdict import STATUSES

WARMING, FAULT = STATUSES.index("warming"), STATUSES.index("fault")
NORMAL = STATUSES.index("normal")

_record = pointer_to(numba.from_dtype(PLAN))

Vector = NDArray[np.float64]


@inlined
def _plan_at(address: int) -> Any:
    return numba.carray(_record(address), 1)[0]


@functools.cache
def step_rows(lanes: int, fused: bool) -> EntryPoint:
    """The loop for one vector width and numeric class; built once per process.

    `run(table, time_ns)` processes the table's samples in order and returns how many were taken. It is less
    than all where the next sample's row is outside the table or its time is not after the one before; that
    sample and all behind it changed nothing. A table without times has one sample, at `time_ns`; then the
    score is returned (NaN where there is none), or REFUSED where the sample was not taken.
    """
    base = kernels(lanes, fused)
    return _entry(_build(_default(base.step)), f"{base.key} detect={_sources()}")


@functools.cache
def step_rows_of_any(lanes: int, fused: bool) -> EntryPoint:
    """`step_rows` with the general detector; on its own, because most models need only one of the two."""
    base = kernels(lanes, fused)
    return _entry(_build(general.build(base.step)), f"{base.key} detect={_sources()} any")


@functools.cache
def integer_rows(*, of_any: bool) -> Callable[[int, int], float]:
    """`step_rows`, or `step_rows_of_any`, over a network in integers, compiled; built once per process."""
    one = general.build(integer_step) if of_any else _default(integer_step)
    return _entry(_build(one), f"{source_key()} detect={_sources()} {of_any}").machine_code


def _entry(run: Callable[[int, int], float], key: str) -> EntryPoint:
    probe = np.zeros(at.WORDS + PLAN.itemsize // 8, np.int64)
    probe[at.PLAN_WORD] = probe[at.WORDS :].ctypes.data
    return EntryPoint(run, "float64(int64, int64)", key, probe, 0, (0,))


def _sources() -> str:
    modules = (
        alarm, arithmetic, bar, charts, condition, explain, fields_module, general, general_alarm,
        general_forecasts, general_inputs, general_rest, general_scores, guard, memory, plan_module,
        scorers, stages, tails, thresholds, trend, verdict,
    )  # fmt: skip
    return source_digest(__file__, *(m.__file__ or "" for m in modules))


def _default(network_step: StepFunction) -> Callable[..., None]:
    """One sample through the default flow."""

    @inlined
    def one(
        p: Any, table: NDArray[np.int64], v: Vector, row: int, time_ns: int, xs: Vector,
        present: NDArray[np.uint8], work: Vector, out: int,
    ) -> None:  # fmt: skip
        c = p.channels
        fresh = table[at.FRESH_WORD]
        detect, marks = f8_at(row + p.detect_at, p.detect_size), i8_at(row + p.marks_at, p.marks_size)
        y = f4_at(row + p.y_at, p.outputs)
        x = f4_at(table[at.X_WORD], c)
        counts, numbers = i8_at(out, 2), f8_at(out + 16, 2)
        share, residual, expected = (
            f8_at(out + 32, c),
            f8_at(out + 32 + 8 * c, c),
            f8_at(out + 32 + 16 * c, c),
        )
        fault, flags = u1_at(out + 32 + 24 * c, c), u1_at(out + 32 + 25 * c, 3)
        for i in range(c):
            share[i] = residual[i] = expected[i] = np.nan
        numbers[0] = numbers[1] = np.nan
        flags[2] = 0
        work[p.fired_at] = explain.NONE

        if marks[at.STEPS] == 0:
            for i in range(c):
                marks[at.MARKS_HEAD + at.HEARD_AT * c + i] = time_ns
        elif p.gap_resets and 0 < p.gap < time_ns - marks[at.TIME]:
            stages.rest(p, fresh, row, detect, marks)
        marks[at.STEPS] += 1
        marks[at.TIME] = time_ns
        counts[0], counts[1] = time_ns, marks[at.STEPS]

        healthy = stages.judge(p, v, time_ns, xs, present, work, fault, detect, marks)
        if healthy < 0:
            healthy = -healthy
            stages.rest(p, fresh, row, detect, marks)
        rate = p.drift_rate_in_alarm if alarm.is_on(marks[at.PHASE]) else p.drift_rate
        stages.prepare(p, v, y, work, fault, x, detect, marks, rate)
        if p.kind != at.FORECAST:
            network_step(
                table[at.NETWORK_WORD], table[at.WEIGHTS_WORD], row, table[at.SCRATCH_WORD], table[at.X_WORD]
            )
            marks[at.SPOKEN] = 1
        sound = marks[at.SPOKEN] != 0
        for k in range(p.outputs):
            sound = sound and y[k] - y[k] == 0.0
        if sound and p.kind != at.CLASSIFY:
            stages.compare(p, v, y, work, xs, present, residual, expected)
        explain.bands(p, v, out, sound and p.kind != at.CLASSIFY)

        warm = marks[at.WARM]
        if warm > 0 and healthy > 0:
            marks[at.WARM] = warm - 1
        if sound and healthy > 0:
            score = float(y[p.alarm_class])
            if p.kind != at.CLASSIFY:
                score = stages.score(p, v, work, fault, detect)
            if warm == 0:
                limit = stages.limit(p, detect, marks)
                numbers[0], numbers[1] = score, limit
                alarm.advance(
                    marks, score > limit, score < p.clear_ratio * limit, p.needed, p.alarm_window,
                    p.clear_hold, p.refractory, may_open=True, may_close=True,
                )  # fmt: skip
                if alarm.is_on(marks[at.PHASE]):
                    marks[at.FROZEN] += 1
                else:
                    marks[at.FROZEN] = 0
                    if score <= limit:
                        stages.learn(p, score, detect, marks)
                if p.kind != at.CLASSIFY:
                    explain.shares(work[at.BEST * c : (at.BEST + 1) * c], fault, share)

        judged = sound and warm == 0
        flags[0] = NORMAL + marks[at.PHASE] if judged else WARMING
        flags[1] = 1 if alarm.is_on(marks[at.PHASE]) else 0
        if healthy < c:
            flags[0] = FAULT
        explain.more(p, v, out, numbers[0], int(work[p.fired_at]), int(flags[1]))
        if 0 < p.max_freeze < marks[at.FROZEN]:
            flags[2] = 1
            stages.accept(p, v, detect)
            stages.rest(p, fresh, row, detect, marks)
        elif p.kind == at.FORECAST:
            network_step(
                table[at.NETWORK_WORD], table[at.WEIGHTS_WORD], row, table[at.SCRATCH_WORD], table[at.X_WORD]
            )
            marks[at.SPOKEN] = 1
        # A network without bounded units can leave the numbers; it must not stay there for ever.
        for k in range(p.outputs):
            if y[k] - y[k] != 0.0:
                stages.rest(p, fresh, row, detect, marks)
                break

    return one


def _build(one: Callable[..., None]) -> Callable[[int, int], float]:
    def run(address: int, time_ns: int) -> float:
        table = i8_at(address, at.WORDS)
        p = _plan_at(table[at.PLAN_WORD])
        c = p.channels
        count = table[at.COUNT_WORD]
        if count == 0:
            return 0.0
        v = f8_at(table[at.VECTORS_WORD], p.vectors_size)
        work = f8_at(table[at.WORK_WORD], p.work_size)
        alone = table[at.TIMES_WORD] == 0
        for t in range(count):
            index = 0
            if table[at.ROWS_WORD]:
                index = i8_at(table[at.ROWS_WORD], count)[t]
            if index < 0 or index >= table[at.CAPACITY_WORD]:
                return float(t)
            if not alone:
                time_ns = i8_at(table[at.TIMES_WORD], count)[t]
            row = table[at.STATES_WORD] + index * p.row_size
            marks = i8_at(row + p.marks_at, at.MARKS_HEAD + at.CHANNEL_MARKS * c)
            if marks[at.STEPS] > 0 and time_ns <= marks[at.TIME]:
                if not p.late_is_fault:
                    return REFUSED if alone else float(t)
                explain.refused(p, table[at.OUT_WORD] + t * table[at.OUT_SIZE_WORD], time_ns, marks)
                continue
            xs, present = f8_at(table[at.XS_WORD] + 8 * c * t, c), u1_at(table[at.PRESENT_WORD] + c * t, c)
            out = table[at.OUT_WORD] + t * table[at.OUT_SIZE_WORD]
            gap = marks[at.STEPS] > 0 and 0 < p.gap < time_ns - marks[at.TIME]
            one(p, table, v, row, time_ns, xs, present, work, out)
            if gap:
                explain.set_timing(out, c, explain.GAP)
        if alone:
            return f8_at(table[at.OUT_WORD] + 16, 1)[0]  # type: ignore[no-any-return]
        return float(count)

    return run
