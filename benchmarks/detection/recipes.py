"""One setting for each set: everything that was chosen, in one place, and how it was chosen.

`compared` lists every comparison that decided a value; RESULTS.md repeats it. A setting is the same for all
files of its set.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from benchmarks.detection.building import Plans
from edge_rnn.calibrate import Options
from edge_rnn.training.trainer import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to train, calibrate and count one set.

    recipe: of the network; its seed is set by the run. features: what it is given besides the channels.
    options: of calibration. plans: the detector scorer by scorer, in place of what `options` gives.
    columns: SMAP/MSL's inputs.
    dither: standard deviation of noise put on training channels that never change (training refuses those).
    even: pauses of the training rows are closed up, as a guard that goes on over pauses sees them.
    tail, gap: rows, how events are counted (`edge_rnn.evaluate.events.match`). buffer: rows, of VUS-PR.
    merge: alarms with at most so many rows between them count as one sequence in telemanom's counting.
    compared: what was tried, and what decided.
    """

    recipe: Recipe = field(default_factory=Recipe)
    features: tuple[str, ...] = ()
    options: Options = field(default_factory=Options)
    plans: Plans | None = None
    columns: Literal["telemetry", "commands"] = "telemetry"
    dither: float = 0.0
    even: bool = False
    tail: int = 0
    gap: int = 0
    buffer: int = 100
    merge: int = 0
    compared: tuple[str, ...] = ()

    def seeded(self, seed: int) -> Recipe:
        """The recipe with another seed."""
        return replace(self.recipe, seed=seed)


SKAB = Settings(compared=("Defaults of `edge-rnn train`: nothing was chosen here.",))
NAB = Settings(compared=("Defaults of `edge-rnn train`: nothing was chosen here.",))
SMAP_MSL = Settings(
    dither=0.01,
    compared=(
        "Defaults of `edge-rnn train` on the telemetry column alone.",
        "Channels that never change in training get noise of 0.01 there; not compared with another value.",
    ),
)
MERLION = Settings(
    tail=20, gap=20, compared=("Defaults of `edge-rnn train`; events are counted as the set's target says.",)
)
