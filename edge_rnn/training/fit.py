"""From recorded tables to one model: the whole training, in order.

    tables -> contiguous stretches (data.py) -> scaler and drifting channels (edge_rnn.calibrate)
    -> conditioned rows (conditioning.py) -> network (trainer.py)
    -> `Model` with resting state, activation ranges and self-test (network.py)
    -> detector calibrated with the held-back rows (edge_rnn.calibrate) -> card (card.py)

Nothing here decides about detection: what a score or a threshold is made of belongs to
`edge_rnn.calibrate`, which works without torch and can be run again on a device.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edge_rnn import __version__
from edge_rnn.calibrate import (
    Options,
    calibrate_detector,
    conditioning,
    scaling,
    silent_limit,
    stuck_limits,
    without_network,
)
from edge_rnn.core.detector_spec import GuardSpec
from edge_rnn.core.layout import StateLayout
from edge_rnn.core.model import Input, Model
from edge_rnn.core.stepper import Stepper
from edge_rnn.detect.detector import Detector
from edge_rnn.errors import ConfigError, DataError
from edge_rnn.files.readings import Table
from edge_rnn.training import card as cards
from edge_rnn.training import network as net
from edge_rnn.training.checkpoint import Checkpoint
from edge_rnn.training.choosing import train_or_choose
from edge_rnn.training.conditioning import condition, cut
from edge_rnn.training.data import GAP_PERIODS, TrainingData, held_back_from, prepare, without_test
from edge_rnn.training.extra import torch
from edge_rnn.training.trainer import Forecaster, Progress, Recipe, Rows, forecasts

__all__ = ["card_of", "step_ns", "train"]

_WIDEST, _BINS = 5.0, 20
_TIMED_STEPS, _TIMED_RUNS = 200, 9


def train(
    tables: Table | Sequence[Table],
    recipe: Recipe = Recipe(),  # noqa: B008  (frozen)
    *,
    name: str = "model",
    rows: int | None = None,
    features: Sequence[str] = (),
    keep_test: bool = True,
    auto_s: float | None = None,
    checkpoint: Checkpoint | None = None,
    options: Options | None = None,
    progress: Progress | None = None,
) -> Model:
    """Train a detector on recorded readings in which nothing was wrong.

    Args:
        tables: one table or several with the same channels, from `read_table` or `read_tables`.
        recipe: network and training.
        name: of the model, letters for people.
        rows: use only the first so many rows of each table.
        features: what the network is given besides the channels, see `Model.features`.
        keep_test: from many rows on keep some out of everything for the card's test, see `without_test`.
        auto_s: try several sizes for so many seconds and keep the smallest that is no worse (`choosing.py`).
        checkpoint: keeps a training over an interruption; not with auto_s.
        options: how to calibrate; its `condition` and `guard`, where None, are found in the readings.
        progress: called after every epoch with (done, at most, best held-back loss).

    Returns:
        A model ready for `edge_rnn.save` and `edge_rnn.Detector`: forecasts the next reading, with scaler,
        detector, self-test, resting state, activation ranges, and its card (`card_of`).

    Raises:
        DataError: too few rows, a channel that never changes or has no readings, a loss that diverges.

    The same tables, recipe and options give the same model.
    """
    if auto_s is not None and checkpoint is not None:
        raise ConfigError("auto_s: several trainings have no one checkpoint; give one or the other")
    whole_data = prepare([tables] if isinstance(tables, Table) else tables, rows)
    data, tails = without_test(whole_data) if keep_test else (whole_data, [None] * len(whole_data.stretches))
    recordings = [(stretch.times_ns, stretch.values) for stretch in data.stretches]
    unseen = held_back_from(data)
    options = options or Options()
    found = conditioning(recordings, options)
    scaler = scaling(recordings, found.trend)
    options = replace(
        options,
        horizons=recipe.horizons,
        scale_head=recipe.scale,
        condition=found,
        guard=options.guard or GuardSpec(
            stuck_after=stuck_limits(recordings), silent_after_ns=silent_limit(recordings),
            gap_ns=GAP_PERIODS * data.period_ns, on_gap="reset",
        ),
    )  # fmt: skip
    whole = [condition(stretch, scaler, found, features, data.channels) for stretch in data.stretches]
    parts = [cut(stretch, at) for stretch, at in zip(whole, unseen, strict=True)]
    early_stop = [cut(held, (len(held) + 1) // 2)[0] for _, held in parts]
    network, history, recipe, trials = train_or_choose(
        [before for before, _ in parts], early_stop, recipe, auto_s, progress, checkpoint
    )
    model = replace(
        _proven(network, parts[0][0], recipe),
        name=name,
        inputs=tuple(Input(channel) for channel in data.channels),
        scaler=scaler,
        features=tuple(features),
    )
    model = calibrate_detector(model, recordings, unseen, options)
    card = _card(model, data, unseen, network, parts)
    card["test"] = _on_test(model, whole_data, tails)
    card["baseline_test"] = _on_test(without_network(model), whole_data, tails) if card["baseline"] else None
    card["network"] |= {
        "cell": recipe.cell,
        "hidden": recipe.hidden,
        "layers": recipe.layers,
        "horizons": list(recipe.horizons),
        "scale": recipe.scale,
        "features": list(features),
        "seed": recipe.seed,
        "epochs": len(history.train),
        "best_epoch": history.best_epoch,
        "trials": [{"hidden": trial.hidden, "loss": trial.loss} for trial in trials],
        "losses": {"training": history.train, "held_back": history.held_back},
    }
    card["forecast"]["training"] = history.train[history.best_epoch - 1]
    return replace(
        model,
        provenance={
            "source": "edge-rnn train",
            "edge_rnn": __version__,
            "torch": str(torch.__version__),
            "training": card,
        },
    )


def card_of(model: Model) -> Mapping[str, Any]:
    """The card of a trained model; `DataError` for a model that `train` did not make."""
    card = model.provenance.get("training")
    if not isinstance(card, dict):
        raise DataError(f"model {model.name}: it carries no training card; it was not made by edge-rnn train")
    return card


def _proven(network: Forecaster, rows: Rows, recipe: Recipe) -> Model:
    """The network as a model with resting state, ranges and self-test, from rows it was trained on."""
    model = net.bare_model(network)
    rest, ranges = net.rest_and_ranges(network, model.layers, rows, recipe.burn_in)
    return replace(
        model,
        rest_state=rest,
        activation_ranges=ranges,
        self_test=net.self_test(network, model, rest, rows),
    )


def _card(
    model: Model,
    data: TrainingData,
    unseen: Sequence[int],
    network: Forecaster,
    parts: Sequence[tuple[Rows, Rows]],
) -> cards.Card:
    """Everything of the card but what the training loop knows."""
    spec, scaler = model.detector, model.scaler
    assert spec is not None
    assert scaler is not None
    said = [forecasts(network, np.concatenate([before.x, held.x])) for before, held in parts]
    befores, helds = [before for before, _ in parts], [held for _, held in parts]
    by_horizon = [
        cards.skill(said, befores, helds, ahead, place) for place, ahead in enumerate(network.horizons)
    ]
    compared = by_horizon[0]
    spread = np.array(spec.residual_scale[: len(data.channels)]) * scaler.std
    drift, trend = (
        [channel for channel, on in zip(data.channels, flags, strict=False) if on]
        for flags in (spec.condition.drift, spec.condition.trend)
    )
    return {
        "name": model.name,
        "data": cards.data_section(data, sum(unseen)),
        "network": {"parameters": model.parameters, "macs": model.macs},
        "forecast": {
            "network": compared.network,
            "persistence": compared.persistence,
            "mean": compared.mean,
            "sentence": compared.sentence(),
            "horizons": [
                {"steps": ahead, "network": s.network, "persistence": s.persistence, "mean": s.mean}
                for ahead, s in zip(network.horizons, by_horizon, strict=True)
            ],
        },
        "drift_removed": drift,
        "trend_removed": trend,
        "network_gate": model.provenance.get("network_gate"),
        "residual_spread": {c: float(s) for c, s in zip(data.channels, spread, strict=True)},
        "residuals": _histogram(model, data, unseen),
        "device": {
            "weights_bytes": 4 * model.parameters,
            "state_bytes": 4 * StateLayout(model).core_size,
        },
        "detector": _alarms(model, data, unseen),
        "baseline": _alarms(without_network(model), data, unseen) if _has_baseline(model) else None,
    }


def _histogram(model: Model, data: TrainingData, unseen: Sequence[int]) -> dict[str, Any]:
    """How often each size of the residual came on the held-back rows, in units of its spread."""
    detector = Detector(model)
    spec, scaler = model.detector, model.scaler
    assert spec is not None
    assert scaler is not None
    spread = np.array(spec.residual_scale[: len(data.channels)]) * scaler.std
    seen = []
    for stretch, start in zip(data.stretches, unseen, strict=True):
        detector.reset()
        seen.append(detector.run(stretch.times_ns, stretch.values)["residual"][start:] / spread)
    edges = np.linspace(-_WIDEST, _WIDEST, _BINS + 1)
    clipped = np.clip(np.concatenate(seen), -_WIDEST, _WIDEST)
    counts = {
        name: np.histogram(column[np.isfinite(column)], edges)[0].tolist()
        for name, column in zip(data.channels, clipped.T, strict=True)
    }
    return {"widest": _WIDEST, "counts": counts}


def step_ns(model: Model) -> float:
    """Nanoseconds of a step inside one call, on this processor: the median of a few runs.

    It is not part of the card, which is the same wherever a model is trained.
    """
    stepper = Stepper(model)
    xs = np.zeros((_TIMED_STEPS, model.input_size), np.float32)
    times = []
    for _ in range(_TIMED_RUNS):
        begin = time.perf_counter_ns()
        stepper.run(xs)
        times.append((time.perf_counter_ns() - begin) / _TIMED_STEPS)
    return float(np.median(times))


def _has_baseline(model: Model) -> bool:
    return model.detector is not None and any(s.source == "input" for s in model.detector.scorers)


def _on_test(model: Model, data: TrainingData, starts: Sequence[int | None]) -> dict[str, Any] | None:
    """What the detector says on rows that set neither weights nor threshold; None without any."""
    if all(start is None for start in starts):
        return None
    ends = [len(s) if start is None else start for s, start in zip(data.stretches, starts, strict=True)]
    return _alarms(model, data, ends)


def _alarms(model: Model, data: TrainingData, unseen: Sequence[int]) -> dict[str, Any]:
    """What the detector says on the held-back rows, each stretch from a cold start at its first row."""
    detector = Detector(model)
    assert model.detector is not None
    alarms = in_alarm = rows = 0
    for stretch, start in zip(data.stretches, unseen, strict=True):
        detector.reset()
        on = detector.run(stretch.times_ns, stretch.values)["alarm"] == 1
        alarms += int((on[start:] & ~np.r_[False, on[:-1]][start:]).sum())
        in_alarm += int(on[start:].sum())
        rows += len(stretch) - start
    days = rows * data.period_ns / 86_400e9
    return {
        "threshold": model.detector.threshold.value,
        "rule": model.detector.threshold.kind,
        "rows": rows,
        "alarms": alarms,
        "rows_in_alarm": in_alarm,
        "alarms_per_day": alarms / days,
    }
