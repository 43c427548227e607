"""The same files, damaged as transport and sensors damage them: what it costs, and what must not change.

Networks and thresholds are those of the undamaged files; damage is put on judged rows only, in five draws
from fixed random seeds: the median change and its range are told. Costs are differences of F1 by rows on the
rows that both runs have, and of the board's measures with what was said of each row when it came first; a row
that did not come says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.detection import running
from benchmarks.detection.lines import Board
from benchmarks.detection.recipes import Settings
from benchmarks.detection.recordings import Recording, rising
from benchmarks.detection.running import BOTH, Said, Trainer
from edge_rnn.core.model import Model
from edge_rnn.detect.detector import Detector
from edge_rnn.detect.verdict import FAULT_KINDS
from edge_rnn.errors import DataError
from edge_rnn.evaluate import rows
from edge_rnn.files.readings import Table

Generator = np.random.Generator
DRAWS = 5
Damage = Callable[[Recording, Generator], tuple[Table, NDArray[np.intp]]]
"""The damaged table, and for each of its rows the row it was."""


def dropped(recording: Recording, rng: Generator) -> tuple[Table, NDArray[np.intp]]:
    """A tenth of the judged rows is missing."""
    keep = rng.random(len(recording.table)) >= 0.1
    keep[: recording.start] = True
    kept = np.flatnonzero(keep)
    table = recording.table
    return replace(table, times_ns=table.times_ns[kept], values=table.values[kept]), kept


def without_number(recording: Recording, rng: Generator) -> tuple[Table, NDArray[np.intp]]:
    """One channel is NaN for 60 rows."""
    values = recording.table.values.copy()
    start = _place(recording, rng, 60)
    values[start : start + 60, rng.integers(values.shape[1])] = np.nan
    return replace(recording.table, values=values), np.arange(len(values))


def jitter(recording: Recording, rng: Generator) -> tuple[Table, NDArray[np.intp]]:
    """Times of judged rows move by up to a fifth of the usual step."""
    times = recording.table.times_ns.copy()
    step = float(np.median(np.diff(times)))
    moved = (rng.uniform(-0.2, 0.2, len(times)) * step).astype(np.int64)
    moved[: recording.start] = 0
    return replace(recording.table, times_ns=times + moved), np.arange(len(times))


def doubled(recording: Recording, rng: Generator) -> tuple[Table, NDArray[np.intp]]:
    """A tenth of the judged rows comes twice, with the same time."""
    twice = rng.random(len(recording.table)) < 0.1
    twice[: recording.start] = False
    at = np.repeat(np.arange(len(recording.table)), 1 + twice)
    table = recording.table
    return replace(table, times_ns=table.times_ns[at], values=table.values[at]), at


def _place(recording: Recording, rng: Generator, width: int) -> int:
    return int(rng.integers(recording.start, max(recording.start + 1, len(recording.table) - width)))


DAMAGES: dict[str, Damage] = {
    "10 % of the rows dropped": dropped,
    "one channel NaN for 60 rows": without_number,
    "times off by up to 20 % of a step": jitter,
    "10 % of the rows twice": doubled,
}


@dataclass(frozen=True, slots=True)
class Stuck:
    """One file with one channel stuck: its limit, and the rows until the fault was reported (None: never)."""

    limit: int
    after: int | None


def _placed(said: Said, origin: NDArray[np.intp], count: int) -> Said:
    """What was said of the `count` rows of the undamaged file; of a row that came twice, the first time."""
    score, alarm = np.full(count, np.nan), np.zeros(count, np.bool_)
    score[origin[::-1]], alarm[origin[::-1]] = said.score[::-1], said.alarm[::-1]
    return Said(score, alarm)


def stuck(model: Model, recording: Recording, rng: Generator) -> Stuck | None:
    """Hold one channel at its value and look for the fault; None where no channel has a limit."""
    assert model.detector is not None
    limits = model.detector.guard.stuck_after
    able = [c for c, limit in enumerate(limits) if limit]
    if not able:
        return None
    channel = int(rng.choice(able))
    width = 2 * int(limits[channel]) + 20
    start = _place(recording, rng, width)
    table = recording.table
    values = table.values.copy()
    values[start : start + width, channel] = values[start, channel]
    taken = rising(table.times_ns)
    verdicts = Detector(model).run(table.times_ns[taken], values[taken])
    first = int(np.searchsorted(np.flatnonzero(taken), start))
    told = np.flatnonzero(verdicts["fault"][first:, channel] == FAULT_KINDS.index("stuck"))
    return Stuck(int(limits[channel]), int(told[0]) + 1 if told.size else None)


def restarted_equal(model: Model, recording: Recording) -> bool:
    """Whether a snapshot in the middle, restored into another detector, changes no bit of any verdict."""
    taken = rising(recording.table.times_ns)
    times, values = recording.table.times_ns[taken], recording.table.values[taken]
    whole = Detector(model).run(times, values)
    before, after = Detector(model), Detector(model)
    half = len(times) // 2
    first = before.run(times[:half], values[:half])
    after.restore(before.snapshot())
    second = after.run(times[half:], values[half:])
    return first.tobytes() + second.tobytes() == whole.tobytes()


Usable = tuple[Recording, Model, Said]


def _lost(
    usable: Sequence[Usable], settings: Settings, damage: Damage, rng: Generator, board: Board,
    measures: Sequence[str],
) -> dict[str, tuple[float, float]]:  # fmt: skip
    """Of F1 and of the board's measures: the value before and after one draw of a damage."""
    before, after = rows.RowCounts(0, 0, 0, 0), rows.RowCounts(0, 0, 0, 0)
    placed: list[Said] = []
    for recording, model, undamaged in usable:
        table, origin = damage(recording, rng)
        judged = (origin >= recording.start) & rising(np.maximum.accumulate(table.times_ns))
        labels = recording.labels[origin][judged]
        heard = running.stream(model, table, faults=settings.faults)
        placed.append(_placed(heard, origin, len(recording.table)))
        after += rows.count(heard.alarm[judged], labels)
        before += rows.count(undamaged.alarm[origin][judged], labels)
    found = {"F1": (before.f1, after.f1)}
    if measures:
        files = [recording for recording, *_ in usable]
        was, now = board(files, [undamaged for *_, undamaged in usable]), board(files, placed)
        found |= {m: (was[m], now[m]) for m in measures}
    return found


def _change(draws: Sequence[tuple[float, float]]) -> str:
    """Medians before and after, and of the change its median and range."""
    was, now = np.median([a for a, _ in draws]), np.median([b for _, b in draws])
    changes = [b - a for a, b in draws]
    digits = 3 if was < 2 else 1
    low, middle, high = (f"{v:+.{digits}f}" for v in (min(changes), float(np.median(changes)), max(changes)))
    return f"{was:.{digits}f} -> {now:.{digits}f} ({middle}, draws {low} to {high})"


def report(
    recordings: Sequence[Recording], settings: Settings, trainer: Trainer, plain: Sequence[Said],
    board: Board, measures: Sequence[str] = (),
) -> list[str]:  # fmt: skip
    """One line for each kind of damage, all files pooled; `measures` of the board besides F1."""
    models: list[Model | None] = []
    for recording in recordings:
        try:
            model = trainer.model(recording, settings, 0)
            models.append(running.calibrated(model, recording, settings, BOTH))
        except DataError:
            models.append(None)
    usable = [(r, m, s) for r, m, s in zip(recordings, models, plain, strict=True) if m is not None]
    said = []
    for name, damage in DAMAGES.items():
        lost = [
            _lost(usable, settings, damage, np.random.default_rng(7 + k), board, measures)
            for k in range(DRAWS)
        ]
        said.append(f"{name}: " + "; ".join(f"{m} {_change([one[m] for one in lost])}" for m in lost[0]))
    rng = np.random.default_rng(7)
    held = [one for r, m, _ in usable if (one := stuck(m, r, rng)) is not None]
    late = [one for one in held if one.after is None or one.after > one.limit + 1]
    said.append(
        f"one channel stuck: reported as a fault in {sum(one.after is not None for one in held)} of "
        f"{len(held)} files, in {len(held) - len(late)} within twice the longest run of the training rows"
    )
    equal = sum(restarted_equal(m, r) for r, m, _ in usable)
    said.append(f"restart in the middle: every verdict bit-identical in {equal} of {len(usable)} files")
    return said
