"""One sample through the general detector, which knows every word of a `DetectorSpec`.

loop.py has the same order for what a default detector uses, with all stages inlined. A model that asks for
more comes here; where it asks for nothing more, both give the same bits (a test holds them together).
The stages are inlined here too: as calls they took twice the time, and compile no faster.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.jit import jit
from edge_rnn.core.kernels import StepFunction
from edge_rnn.detect import (
    alarm,
    bar,
    explain,
    general_alarm,
    general_forecasts,
    general_inputs,
    general_rest,
    general_scores,
    stages,
)
from edge_rnn.detect import fields as at
from edge_rnn.detect.memory import f4_at, f8_at, i8_at, u1_at
from edge_rnn.detect.verdict import STATUSES

Vector = NDArray[np.float64]

WARMING, FAULT = STATUSES.index("warming"), STATUSES.index("fault")
NORMAL = STATUSES.index("normal")


def build(network_step: StepFunction) -> Callable[..., None]:
    """The function `one` around a network's step; its arguments are those of `one` in loop.py."""

    @jit
    def one(
        p: Any, table: NDArray[np.int64], v: Vector, row: int, time_ns: int, xs: Vector,
        present: NDArray[np.uint8], work: Vector, out: int,
    ) -> None:  # fmt: skip
        c = p.channels
        fresh = table[at.FRESH_WORD]
        detect, marks = f8_at(row + p.detect_at, p.detect_size), i8_at(row + p.marks_at, p.marks_size)
        y = f4_at(row + p.y_at, p.outputs)
        x = f4_at(table[at.X_WORD], c + p.features)
        counts, numbers = i8_at(out, 2), f8_at(out + 16, 2)
        share, residual, expected = (
            f8_at(out + 32, c),
            f8_at(out + 32 + 8 * c, c),
            f8_at(out + 32 + 16 * c, c),
        )
        fault, flags = u1_at(out + 32 + 24 * c, c), u1_at(out + 32 + 25 * c, 3)
        band = f8_at(explain.place(out, c) + 8, c)
        for i in range(c):
            share[i] = residual[i] = expected[i] = band[i] = np.nan
        numbers[0] = numbers[1] = np.nan
        flags[2] = 0
        work[p.fired_at] = explain.NONE

        if marks[at.STEPS] == 0:
            for i in range(c):
                marks[at.MARKS_HEAD + at.HEARD_AT * c + i] = time_ns
        elif p.gap_resets and 0 < p.gap < time_ns - marks[at.TIME]:
            general_rest.rest(p, v, fresh, row, detect, marks)
        marks[at.STEPS] += 1
        marks[at.TIME] = time_ns
        counts[0], counts[1] = time_ns, marks[at.STEPS]

        healthy = stages.judge(p, v, time_ns, xs, present, work, fault, detect, marks)
        if healthy < 0:
            healthy = -healthy
            general_rest.rest(p, v, fresh, row, detect, marks)
        general_inputs.prepare(p, v, y, work, fault, x, detect, marks, time_ns)
        if p.kind != at.FORECAST:
            network_step(
                table[at.NETWORK_WORD], table[at.WEIGHTS_WORD], row, table[at.SCRATCH_WORD], table[at.X_WORD]
            )
            marks[at.SPOKEN] = 1
        sound = marks[at.SPOKEN] != 0 and marks[p.marks_more_at + at.AGE] >= p.longest
        for k in range(p.outputs):
            sound = sound and y[k] - y[k] == 0.0
        if sound and p.kind != at.CLASSIFY:
            general_forecasts.compare(p, v, y, work, xs, present, residual, expected, band, detect, marks)

        warm = marks[at.WARM]
        if warm > 0 and healthy > 0:
            marks[at.WARM] = warm - 1
        if sound and healthy > 0:
            score = float(y[p.alarm_class])
            if p.kind != at.CLASSIFY:
                score = general_scores.score(p, v, work, fault, detect)
            calm = True
            if warm > 0:
                general_alarm.rebase(p, detect, marks)
                bar.take(p, score, detect)
            else:
                score = general_scores.peak(p, score, detect, marks)
                limit = general_scores.limit(p, detect, marks)
                raised = bar.above(p, limit, detect)
                numbers[0], numbers[1] = score, raised
                flags[2] = general_alarm.advance(p, v, work, fault, detect, marks, time_ns, score, raised)
                if alarm.is_on(marks[at.PHASE]):
                    bar.take(p, score, detect)
                    marks[at.FROZEN] += 1
                    calm = False
                else:
                    bar.sink(p, detect)
                    marks[at.FROZEN] = 0
                    calm = score <= limit
                    if calm:
                        general_scores.learn_limit(p, score, detect, marks)
                if p.kind != at.CLASSIFY:
                    explain.shares(work[at.BEST * c : (at.BEST + 1) * c], fault, share)
            if p.kind != at.CLASSIFY:
                general_scores.learn(p, v, work, fault, detect, calm)

        judged = sound and warm == 0
        flags[0] = NORMAL + marks[at.PHASE] if judged else WARMING
        flags[1] = 1 if alarm.is_on(marks[at.PHASE]) else 0
        if healthy < c:
            flags[0] = FAULT
        explain.more(p, v, out, numbers[0], int(work[p.fired_at]), marks[p.marks_more_at + at.SEVERITY])
        if 0 < p.max_freeze < marks[at.FROZEN]:
            flags[2] = 1
            general_rest.accept(p, v, work, fault, detect)
            general_rest.rest(p, v, fresh, row, detect, marks)
        elif p.kind == at.FORECAST:
            network_step(
                table[at.NETWORK_WORD], table[at.WEIGHTS_WORD], row, table[at.SCRATCH_WORD], table[at.X_WORD]
            )
            marks[at.SPOKEN] = 1
            if p.rings:
                general_forecasts.remember(p, v, y, detect, marks)
        for k in range(p.outputs):
            if y[k] - y[k] != 0.0:
                general_rest.rest(p, v, fresh, row, detect, marks)
                break

    return one
