"""The detector's records as `Verdict` objects, and verdicts on streams that nothing was heard of."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edge_rnn.detect import fields
from edge_rnn.detect.verdict import FAULT_KINDS, STATUSES, TIMINGS, Fault, Status, Verdict
from edge_rnn.stream.events import LAST, OPEN, STEP
from edge_rnn.stream.states import StreamTable

__all__ = ["explained", "silence", "standing", "step"]


def step(table: StreamTable) -> list[tuple[int, Verdict]]:
    """Step the table's batch; its rows and verdicts."""
    rows: list[int] = table.batch.rows[: table.batch.size].tolist()
    ids = table.ids
    streams = [str(ids[row]) for row in rows]
    return list(zip(rows, explained(table, streams, table.step()), strict=True))


def explained(table: StreamTable, streams: list[str], out: NDArray[np.void]) -> list[Verdict]:
    """Records (n,) of verdicts of these streams as objects."""
    faulty = out["status"] == STATUSES.index("fault")
    columns = (
        streams, out["time_ns"].tolist(), out["step"].tolist(), out["status"].tolist(), out["alarm"].tolist(),
        out["score"].tolist(), out["threshold"].tolist(), out["share"], out["residual"], out["expected"],
        faulty.tolist(), out["fault"], out["accepted"].tolist(), out["probability"].tolist(), out["band"],
        out["scorer"].tolist(), out["severity"].tolist(), out["timing"].tolist(),
    )  # fmt: skip
    scorers = (*table.detector.plan.scorer_names, *("",) * 256)  # 255: none
    # The arrays of a verdict are views of this batch's records, which nothing writes to again.
    return [
        Verdict(
            stream=stream,
            time_ns=time_ns,
            step=step,
            status=STATUSES[status],
            alarm=alarm == 1,
            score=score,
            threshold=threshold,
            share=share,
            residual=residual,
            expected=expected,
            faults=_faults(fault) if is_faulty else (),
            accepted=accepted == 1,
            probability=probability,
            band=band,
            scorer=scorers[scorer],
            severity=severity,
            timing=TIMINGS[timing],
        )
        for (
            stream, time_ns, step, status, alarm, score, threshold, share, residual, expected, is_faulty,
            fault, accepted, probability, band, scorer, severity, timing,
        ) in zip(*columns, strict=True)
    ]  # fmt: skip


def _faults(kinds: NDArray[np.uint8]) -> tuple[Fault, ...]:
    return tuple(Fault(channel, FAULT_KINDS[kind]) for channel, kind in enumerate(kinds.tolist()) if kind)


def silence(table: StreamTable, row: int, time_ns: int, quiet: NDArray[np.intp]) -> Verdict:
    """The verdict on a stream from which nothing comes: `quiet` channels are silent, nothing is judged."""
    return _unjudged(table, row, time_ns, "fault", tuple(Fault(int(c), "silent") for c in quiet))


def standing(table: StreamTable, row: int) -> Verdict:
    """How a stream stands between two samples: what is open, at the time of the last one."""
    record, faults = table.tracker.records[row], dict(table.watch.marks(row))
    for kind in np.flatnonzero(record["open"]).tolist():
        faults |= dict.fromkeys(np.flatnonzero(record["faulty"][kind]).tolist(), kind)
    warm = bool(table.detector.states["marks"][row][fields.WARM])
    calm: Status = "anomaly" if record["marks"][OPEN] else "warming" if warm else "normal"
    found = tuple(Fault(channel, FAULT_KINDS[kind]) for channel, kind in sorted(faults.items()))
    return _unjudged(table, row, int(record["marks"][LAST]), "fault" if found else calm, found)


def _unjudged(
    table: StreamTable, row: int, time_ns: int, status: Status, faults: tuple[Fault, ...]
) -> Verdict:
    marks = table.tracker.marks[row]
    nothing = np.full(len(table.names), math.nan)
    return Verdict(
        stream=str(table.ids[row]),
        time_ns=time_ns,
        step=int(marks[STEP]),
        status=status,
        alarm=bool(marks[OPEN]),
        score=math.nan,
        threshold=math.nan,
        share=nothing,
        residual=nothing,
        expected=nothing,
        band=nothing,
        faults=faults,
    )
