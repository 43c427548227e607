"""A size of network, chosen: the smallest that forecasts no worse than the best one tried.

Sizes are tried from the smallest on, each with the whole recipe, as long as time is left; the next one is
begun only if it can be expected to end in time (a network of twice the units takes about two to three times
as long). Of those that were tried the smallest wins whose held-back loss is within `NO_WORSE` of the smallest
loss. What is tried depends on the machine's speed, so two runs may choose differently; the trials stand in
the model's card.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from edge_rnn.errors import ConfigError
from edge_rnn.training.checkpoint import Checkpoint
from edge_rnn.training.trainer import Forecaster, History, Progress, Recipe, Rows, train_forecaster

SIZES = (8, 16, 32, 64)
NO_WORSE = 0.02
_GROWTH = 2.5


@dataclass(frozen=True, slots=True)
class Trial:
    """One size: held-back loss and seconds."""

    hidden: int
    loss: float
    seconds: float


def choose(
    train: Sequence[Rows],
    held_back: Sequence[Rows],
    recipe: Recipe,
    budget_s: float,
    progress: Progress | None = None,
    *,
    sizes: Sequence[int] = SIZES,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Forecaster, History, Recipe, list[Trial]]:
    """Train several sizes; the network chosen, its history and recipe, and all trials.

    Args:
        train, held_back, recipe, progress: as in `train_forecaster`; `hidden` of the recipe is not looked at.
        budget_s: seconds for all of it; the first size is trained in any case.

    Raises:
        ConfigError: the budget is not positive.
        DataError: as in `train_forecaster`.
    """
    if not budget_s > 0:
        raise ConfigError(f"auto: expected a time budget above 0 s, got {budget_s:g} s")
    begin = clock()
    tried: list[tuple[Forecaster, History, Recipe]] = []
    trials: list[Trial] = []
    for hidden in sizes:
        started = clock()
        if trials and started - begin + _GROWTH * trials[-1].seconds > budget_s:
            break
        own = replace(recipe, hidden=hidden)
        network, history = train_forecaster(train, held_back, own, progress)
        tried.append((network, history, own))
        trials.append(Trial(hidden, history.best, clock() - started))
    best = min(trial.loss for trial in trials)
    # A likelihood's logarithm may be negative, so what is no worse is measured from its size.
    limit = best + NO_WORSE * abs(best)
    chosen = next((i for i, trial in enumerate(trials) if trial.loss <= limit), len(trials) - 1)
    return *tried[chosen], trials


def train_or_choose(
    train: Sequence[Rows],
    held_back: Sequence[Rows],
    recipe: Recipe,
    budget_s: float | None,
    progress: Progress | None,
    checkpoint: Checkpoint | None,
) -> tuple[Forecaster, History, Recipe, list[Trial]]:
    """One training as the recipe says or, with a budget, `choose`."""
    if budget_s is not None:
        return choose(train, held_back, recipe, budget_s, progress)
    network, history = train_forecaster(train, held_back, recipe, progress, checkpoint)
    return network, history, recipe, []
