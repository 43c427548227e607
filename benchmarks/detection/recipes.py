"""One setting for each set: everything that was chosen, in one place, and how it was chosen.

`compared` lists every comparison that decided a value; RESULTS.md repeats it. A setting is the same for all
files of its set.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from benchmarks.detection.building import Part, Plans
from edge_rnn.calibrate import Options
from edge_rnn.core.detector_spec import (
    AlarmSpec,
    ConditionSpec,
    GuardSpec,
    ScorerSpec,
    TailSpec,
    ThresholdSpec,
)
from edge_rnn.training.trainer import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to train, calibrate and count one set.

    recipe: of the network; its seed is set by the run. features: what it is given besides the channels.
    options: of calibration. plans: the detector scorer by scorer, in place of what `options` gives.
    others: further detectors for the ablation, by name. columns: SMAP/MSL's inputs.
    dither: standard deviation of noise put on the training rows, so that no channel is judged more finely
    than that (and channels that never change can be trained on); limits of the guard are those without it.
    faults: a channel that the guard reports as stuck counts as an alarm.
    whole: the network learns all training rows, and limits are fitted to all of them (training/whole.py).
    drift_rate_in_alarm: with `whole`, of the drift found in the training rows.
    even: pauses of the training rows are closed up, as a guard that goes on over pauses sees them.
    tail, gap: rows, how events are counted (`edge_rnn.evaluate.events.match`). buffer: rows, of VUS-PR.
    merge: alarms with at most so many rows between them count as one sequence in telemanom's counting.
    compared: what was tried, and what decided.
    """

    recipe: Recipe = field(default_factory=Recipe)
    features: tuple[str, ...] = ()
    options: Options = field(default_factory=Options)
    plans: Plans | None = None
    others: tuple[tuple[str, Plans], ...] = ()
    columns: Literal["telemetry", "commands"] = "telemetry"
    dither: float = 0.0
    faults: bool = False
    whole: bool = False
    drift_rate_in_alarm: float = 0.01
    even: bool = False
    tail: int = 0
    gap: int = 0
    buffer: int = 100
    merge: int = 0
    compared: tuple[str, ...] = ()

    def seeded(self, seed: int) -> Recipe:
        """The recipe with another seed."""
        return replace(self.recipe, seed=seed)

    def key(self) -> tuple[str, ...]:
        """What else decides a network; nothing for those that hold rows back."""
        return (f"whole {self.options.drift_rule} {self.drift_rate_in_alarm}",) if self.whole else ()


_SKAB_ALARM = AlarmSpec(recovery=0.3, rebase=30, clear_ratio=1.0)
SKAB = Settings(
    recipe=Recipe(hidden=16, epochs=40, noise=0.5),
    options=Options(
        input_factor=5.0, residual_factor=20.0, warmup=10, max_freeze=0, drift_rule="smooth",
        alarm=_SKAB_ALARM,
    ),
    whole=True,
    drift_rate_in_alarm=0.05,
    compared=(),
)  # fmt: skip


def _tail(parts: Literal[1, 2, 4, 8]) -> TailSpec:
    return TailSpec(kind="stream", learn="always", parts=parts)


def _size(name: str, horizon: int, rate: float, weight: float, group: int) -> Part:
    """How large a forecast's error is in the scale the network said, smoothed; squared errors, so that a part
    of 1 is half an octave of the error."""
    return Part(
        name,
        ScorerSpec(
            kind="ewma_z", source="self_scaled", horizon=horizon, rate=rate, side="up", tail=_tail(1),
            weight=weight, group=group,
        ),
    )  # fmt: skip


_LEVEL = Part("level", ScorerSpec(kind="level", source="reading", rate=1e-4, learn="always", tail=_tail(8)))
_NOVELTY = Part(
    "novelty", ScorerSpec(kind="novelty", source="reading", rate=1.0, learn="always", weight=0.5)
)  # fmt: skip
_NAB_PLANS = Plans(
    parts=(
        _LEVEL, _NOVELTY,
        _size("72 ahead, smoothed", 3, 0.03, 0.6, group=1), _size("72 ahead", 3, 1.0, 0.5, group=1),
        _size("1 ahead, smoothed", 0, 0.03, 0.8, group=2),
    ),
    combine="sum", guard=GuardSpec(), filled=False, early=True, warmup=10,
    threshold=ThresholdSpec(kind="fixed", value=2.75, peak_hold=375),
)  # fmt: skip
NAB = Settings(
    recipe=Recipe(
        hidden=24, horizons=(1, 6, 24, 72), scale="laplace", noise=0.5, epochs=20, chunk=75
    ),
    features=("difference:value", "day_sin", "day_cos", "half_day_sin", "half_day_cos", "weekend"),
    options=Options(condition=ConditionSpec(soft_clip=3.0, clip=100.0)),
    whole=True,
    even=True,
    plans=_NAB_PLANS,
    compared=(),
)  # fmt: skip
_CHANGES = Part("changes", ScorerSpec(kind="magnitude", source="difference", rate=0.1), factor=1.0)
_AWAY = Part("away", ScorerSpec(kind="magnitude", source="input", rate=0.02, weight=0.8), factor=1.0)
_AHEAD = Part("ahead", ScorerSpec(kind="magnitude", source="residual", rate=0.02, weight=0.7), factor=1.0)
_SMAP_PLANS = Plans(
    parts=(_CHANGES, _AWAY, _AHEAD), threshold=ThresholdSpec(kind="fixed", value=1.1, bar=1.2),
    alarm=AlarmSpec(clear_ratio=1.0, clear_hold=149), warmup=200, quantile=1.0, seen=True,
)  # fmt: skip
SMAP_MSL = Settings(
    recipe=Recipe(horizons=(10,), epochs=30),
    options=Options(condition=ConditionSpec(clip=1e6)),
    dither=0.002,
    faults=True,
    plans=_SMAP_PLANS,
    others=(("network and changes", replace(_SMAP_PLANS, parts=(_CHANGES, _AHEAD))),),
    compared=(),
)
