"""Train (cached), calibrate each variant, and stream: the part that all sets share.

The network is trained once for each file and seed by the product's own `train`; a variant calibrates another
detector around it. Variants differ in the scorers that count; thresholds are fitted anew for each.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

import edge_rnn
from benchmarks.detection.building import Plans, build
from benchmarks.detection.recipes import Settings
from benchmarks.detection.recordings import Recording, digest_of, rising
from edge_rnn.calibrate import Options, calibrate_detector, drifting
from edge_rnn.calibrate.fit import limits
from edge_rnn.core.detector_spec import ConditionSpec, DetectorSpec, ThresholdSpec
from edge_rnn.core.model import Model
from edge_rnn.detect.detector import Detector
from edge_rnn.detect.verdict import FAULT_KINDS
from edge_rnn.errors import DataError
from edge_rnn.files.load import load
from edge_rnn.files.model_file import save
from edge_rnn.files.readings import Table
from edge_rnn.training import fit
from edge_rnn.training.data import GAP_PERIODS, TrainingData, held_back_from, prepare
from edge_rnn.training.whole import train_network

_SOURCES = ("training/trainer.py", "training/fit.py", "training/conditioning.py", "training/data.py")


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """What a detector said about all rows of a recording: score (T,), NaN where not judged; alarm (T,)."""

    score: NDArray[np.float64]
    alarm: NDArray[np.bool_]

    @property
    def opened(self) -> NDArray[np.bool_]:
        """(T,) bool: the rows in which an alarm begins."""
        return self.alarm & ~np.concatenate([[False], self.alarm[:-1]])


@dataclass(frozen=True, slots=True)
class Variant:
    """A detector around the same network: its name, and how options or plans differ from the setting."""

    name: str
    options: Callable[[Options], Options]
    plans: Callable[[Plans], Plans | None]


BOTH = Variant("as set", lambda options: options, lambda plans: plans)
WITHOUT = Variant(
    "readings alone (network off)",
    lambda options: replace(options, residual_factor=0.0),
    lambda plans: plans.only(network=False),
)
ALONE = Variant(
    "network alone",
    lambda options: replace(options, input_factor=0.0),
    lambda plans: plans.only(network=True),
)
# The rule that needs no network: always the defaults, whatever a set's setting is.
BASELINE = Variant("no-RNN MEWMA (defaults)", lambda _: Options(residual_factor=0.0), lambda _: None)


def one_scorer(name: str) -> Variant:
    """One scorer of the setting's plans alone."""
    return Variant(f"{name} alone", lambda options: options, lambda plans: plans.alone(name))


@dataclass(slots=True)
class Trainer:
    """Networks by file and seed, kept in `cache`; counts what it had to train and how long that took."""

    cache: Path
    trained: int = 0
    reused: int = 0
    seconds: float = 0.0

    def model(self, recording: Recording, settings: Settings, seed: int) -> Model:
        """The network of one recording with the detector that `train` gave it."""
        table = _prepared(recording.train, settings)
        recipe = settings.seeded(seed)
        key = hashlib.sha256(
            "\n".join([
                digest_of(table), repr(recipe), repr(settings.options.condition), settings.options.kind,
                repr(settings.features), _sources(), *settings.key(),
            ]).encode()
        ).hexdigest()[:24]  # fmt: skip
        path = self.cache / f"{key}.safetensors"
        if path.is_file():
            self.reused += 1
            return load(path)
        begun = time.perf_counter()
        options = replace(settings.options, horizons=recipe.horizons, scale_head=recipe.scale)
        if settings.dither and options.guard is None:  # noise would hide how long a channel stands still
            options = replace(options, guard=limits([(recording.train.times_ns, recording.train.values)]))
        if settings.whole:
            conditioning = conditioning_of(settings, prepare([table]))
            model = train_network(table, recipe, conditioning, settings.features)
        else:
            model = fit.train(table, recipe, name="model", options=options, features=settings.features)
        self.seconds += time.perf_counter() - begun
        self.trained += 1
        self.cache.mkdir(parents=True, exist_ok=True)
        save(model, path)
        return model


def _sources() -> str:
    """A digest of the code that decides what a network becomes: another one, another cache entry."""
    room = Path(edge_rnn.__file__).parent
    return hashlib.sha256(b"".join((room / name).read_bytes() for name in _SOURCES)).hexdigest()


def _prepared(table: Table, settings: Settings) -> Table:
    """`table` with the setting's noise, without which training refuses channels that never change, and
    evenly timed."""
    if settings.even and len(table) > 1:
        step = int(np.median(np.diff(table.times_ns)))
        table = replace(table, times_ns=table.times_ns[0] + step * np.arange(len(table)))
    if settings.dither == 0:
        return table
    noise = np.random.default_rng(0).normal(0.0, settings.dither, table.values.shape)
    return replace(table, values=table.values + noise)


def calibrated(model: Model, recording: Recording, settings: Settings, variant: Variant) -> Model:
    """`model` with another detector, fitted to the same rows as the first; guard and conditioning stay."""
    data = prepare([_prepared(recording.train, settings)])
    rows = [(stretch.times_ns, stretch.values) for stretch in data.stretches]
    spec = model.detector or _base(settings, data)
    unseen = [0] * len(rows) if settings.whole else held_back_from(data)
    plans = None if settings.plans is None else variant.plans(settings.plans)
    if plans is not None:
        return build(model, spec, rows, unseen, plans)
    options = variant.options(settings.options)
    options = replace(
        options, condition=spec.condition, guard=spec.guard, horizons=spec.horizons,
        scale_head=spec.scale_head,
    )  # fmt: skip
    return calibrate_detector(model, rows, unseen, options)


def conditioning_of(settings: Settings, data: TrainingData) -> ConditionSpec:
    """What the setting says, or with the drift found in the training rows."""
    rows = [(stretch.times_ns, stretch.values) for stretch in data.stretches]
    drift = drifting(rows, settings.options.drift_rule)
    return settings.options.condition or ConditionSpec(
        drift=drift, drift_rate_in_alarm=settings.drift_rate_in_alarm
    )


def _base(settings: Settings, data: TrainingData) -> DetectorSpec:
    """Of a network without a detector: guard and conditioning as training finds them."""
    rows = [(stretch.times_ns, stretch.values) for stretch in data.stretches]
    guard = msgspec.structs.replace(limits(rows), gap_ns=GAP_PERIODS * data.period_ns, on_gap="reset")
    return DetectorSpec(
        kind="forecast", horizons=settings.recipe.horizons, scale_head=settings.recipe.scale,
        guard=settings.options.guard or guard, condition=conditioning_of(settings, data),
        threshold=ThresholdSpec(kind="fixed", value=1.0),
    )  # fmt: skip


def stream(model: Model, table: Table, *, faults: bool = False) -> Said:
    """Every row through a `Detector` from a cold start; rows that the engine would drop say nothing.

    faults: a channel that is reported as stuck counts as an alarm.
    """
    taken = rising(table.times_ns)
    verdicts = Detector(model).run(table.times_ns[taken], table.values[taken])
    score = np.full(len(table), np.nan)
    alarm = np.zeros(len(table), np.bool_)
    score[taken] = verdicts["score"]
    alarm[taken] = verdicts["alarm"] == 1
    if faults:
        alarm[taken] |= (verdicts["fault"] == FAULT_KINDS.index("stuck")).any(axis=1)
    return Said(score, alarm)


def said_by(
    recordings: Sequence[Recording], settings: Settings, variant: Variant, seed: int, trainer: Trainer
) -> list[Said]:
    """One variant over all recordings. A file that cannot be trained on says nothing, and that is counted."""
    result = []
    for recording in recordings:
        try:
            model = trainer.model(recording, settings, seed)
            model = calibrated(model, recording, settings, variant)
            result.append(stream(model, recording.table, faults=settings.faults))
        except DataError as error:
            print(f"note: {recording.name}: {error}; it says nothing")
            rows = len(recording.table)
            result.append(Said(np.full(rows, np.nan), np.zeros(rows, np.bool_)))
    return result


def always_on(recordings: Sequence[Recording]) -> list[Said]:
    """All-ones."""
    return [Said(np.ones(len(r.table)), np.ones(len(r.table), np.bool_)) for r in recordings]


def naive_of(recordings: Sequence[Recording]) -> list[Said]:
    """Seasonal naive where the training rows hold two days, else persistence; limits from training rows."""
    from edge_rnn.evaluate.naive import naive, season_rows

    result = []
    for recording in recordings:
        table, fit_rows = recording.table, len(recording.train)
        # A training table of its own stands before the rows; it is left out of the answer.
        own = recording.start == 0
        values = np.concatenate([recording.train.values, table.values]) if own else table.values
        said = naive(values, fit_rows, season_rows(recording.train.times_ns, fit_rows))
        cut = fit_rows if own else 0
        result.append(Said(said.score[cut:], said.alarm[cut:]))
    return result
