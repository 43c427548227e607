"""The whole training: a model that loads, forecasts, raises alarms on faults and says what it is worth."""

from __future__ import annotations

import getpass
import json
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edge_rnn
from edge_rnn.core.reference import Reference
from edge_rnn.errors import DataError
from edge_rnn.files.model_file import encode_model
from edge_rnn.files.readings import Table
from tests.support import need

SECOND = 10**9
CHANNELS = ("vibration", "pressure", "temperature")


def machine(rows, seed=0):
    """Two channels that go round together and a temperature that creeps up."""
    rng = np.random.default_rng(seed)
    t = np.arange(rows)
    phase = 2 * np.pi * t / 16
    return np.stack(
        [
            5 + np.sin(phase) + 0.05 * rng.standard_normal(rows),
            101_325 + 40 * np.cos(phase) + 3 * rng.standard_normal(rows),
            20 + 0.01 * t + 0.1 * rng.standard_normal(rows),
        ],
        axis=1,
    )


def table(rows=600, seed=0, start=0):
    times = start + SECOND * np.arange(rows, dtype=np.int64)
    return Table(times, machine(rows, seed), CHANNELS, None, "t")


@pytest.fixture(scope="module")
def fit():
    need.torch()
    from edge_rnn.training import fit

    return fit


@pytest.fixture(scope="module")
def recipe(fit):
    from edge_rnn.training.trainer import Recipe

    return Recipe(hidden=12, epochs=40)


@pytest.fixture(scope="module")
def model(fit, recipe):
    return fit.train(table(), recipe, name="pump")


def test_the_file_loads_and_proves_itself(fit, model, tmp_path):
    edge_rnn.save(model, tmp_path / "pump.safetensors")
    loaded = edge_rnn.load(tmp_path / "pump.safetensors")
    assert encode_model(loaded) == encode_model(model)
    assert [i.name for i in loaded.inputs] == list(CHANNELS)
    assert len(loaded.self_test.x) >= 16
    assert loaded.rest_state is not None
    assert loaded.layers[0].cell == "gru"
    assert len(loaded.activation_ranges) == 1
    # A resting state that stood for nothing would be zeros.
    assert float(np.abs(loaded.rest_state.h[0]).max()) > 0.01
    assert float(np.abs(loaded.rest_state.h[0]).max()) <= loaded.activation_ranges[0] <= 1.0


def test_no_host_user_or_path_is_written(model):
    raw = encode_model(model)
    for private in (socket.gethostname(), str(Path.cwd()), str(Path.home())):
        assert private.encode() not in raw
    text = json.dumps(model.provenance)
    assert getpass.getuser() not in text


def test_same_data_and_recipe_same_file(fit):
    from edge_rnn.training.trainer import Recipe

    def once(seed):
        return encode_model(fit.train(table(200), Recipe(hidden=5, epochs=3, seed=seed)))

    assert once(1) == once(1)
    assert once(1) != once(2)


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_other_cells_and_layers(fit, cell):
    from edge_rnn.training.trainer import Recipe

    model = fit.train(table(200), Recipe(cell=cell, hidden=4, layers=2, epochs=2))
    assert [layer.cell for layer in model.layers] == [{"rnn": "rnn_tanh"}.get(cell, cell)] * 2
    edge_rnn.Detector(model).step(machine(1)[0], SECOND)


def test_training_sees_what_the_detector_feeds_the_network(fit, model):
    """Scaling, drift removal and limits are written twice (here in NumPy): both must give the same."""
    from edge_rnn.training.conditioning import condition
    from edge_rnn.training.data import Stretch

    assert model.detector.condition.drift == (False, False, True)
    fresh = table(300, seed=5)
    rows = condition(Stretch(fresh.times_ns, fresh.values), model.scaler, model.detector.condition)
    forecast = Reference(model).run(rows.x)
    verdicts = edge_rnn.Detector(model).run(fresh.times_ns, fresh.values)
    assert not (verdicts["alarm"] == 1).any()
    expected = (verdicts["expected"][1:] - model.scaler.mean) / model.scaler.std
    np.testing.assert_allclose(expected[:, :2], forecast[:-1, :2], atol=1e-5)


def test_faults_raise_an_alarm_and_their_channel_is_named(fit, model):
    detector = edge_rnn.Detector(model)
    fresh = table(500, seed=9)
    broken = fresh.values.copy()
    broken[300:] += [0.0, 400.0, 0.0]
    normal = detector.run(fresh.times_ns, fresh.values)
    assert not (normal["alarm"] == 1).any()
    detector.reset()
    verdicts = detector.run(fresh.times_ns, broken)
    assert not (verdicts["alarm"][:300] == 1).any()
    first = int(np.flatnonzero(verdicts["alarm"] == 1)[0])
    assert 300 <= first <= 310
    assert int(verdicts["share"][first].argmax()) == 1


def test_a_broken_rhythm_is_seen_by_the_network_alone(fit, model):
    """Both channels stay in their usual range, but move against each other: only a forecast can tell."""
    from edge_rnn.calibrate import Options, calibrate_detector

    training = table()
    spec = model.detector
    only = calibrate_detector(
        model,
        [(training.times_ns, training.values)],
        [360],
        Options(input_factor=0, condition=spec.condition, guard=spec.guard),
    )
    fresh = table(400, seed=11)
    values = fresh.values.copy()
    values[250:, 0] = values[242:392, 0]
    verdicts = edge_rnn.Detector(only).run(fresh.times_ns, values)
    assert not (verdicts["alarm"][:250] == 1).any()
    assert (verdicts["alarm"][250:290] == 1).any()


def test_several_tables_and_only_the_first_rows(fit):
    from edge_rnn.training.trainer import Recipe

    tables = [table(300, seed=1), table(250, seed=2, start=10**6 * SECOND)]
    model = fit.train(tables, Recipe(hidden=4, epochs=2), rows=200)
    card = fit.card_of(model)
    assert card["data"]["rows"] == 400
    assert card["data"]["rows_trained_on"] == 240
    assert card["data"]["stretches"] == 2


def test_the_card_says_what_it_is_worth(fit, model):
    from edge_rnn.training.card import render

    card = fit.card_of(model)
    assert json.loads(json.dumps(card)) == card
    assert card["data"]["rows"] == 600
    assert card["data"]["rows_trained_on"] + card["data"]["rows_held_back"] == 600
    assert card["data"]["period_ns"] == SECOND
    assert card["network"]["macs"] == model.macs
    assert card["forecast"]["network"] < 0.5 * card["forecast"]["persistence"]
    assert "better" in card["forecast"]["sentence"]
    assert card["drift_removed"] == ["temperature"]
    assert set(card["residual_spread"]) == set(CHANNELS)
    # About the noise that is in the data.
    assert 0.04 < card["residual_spread"]["vibration"] < 0.2
    assert card["detector"]["alarms"] == 0
    assert card["baseline"]["rows"] == card["data"]["rows_held_back"]
    text = render(card)
    for piece in ("gru 12 x 1", f"{model.macs} MACs a step", "no RNN", "last reading", "temperature", "1 s"):
        assert piece in text


def test_a_model_without_a_card_says_so(fit, model):
    with pytest.raises(DataError, match="no training card"):
        fit.card_of(replace(model, provenance={}))


def test_the_comparison_in_plain_words():
    need.torch()
    from edge_rnn.training.card import Skill

    assert "30 % better" in Skill(0.7, 1.0, 2.0).sentence()
    assert "repeating the last reading" in Skill(0.7, 1.0, 2.0).sentence()
    assert "no better than always saying the mean" in Skill(0.98, 3.0, 1.0).sentence()
    assert "50 % WORSE" in Skill(1.5, 3.0, 1.0).sentence()
    assert Skill(1.0, 0.0, 0.0).gain == 0.0


def test_the_smallest_size_that_is_no_worse_is_kept(fit):
    from edge_rnn.training.choosing import choose
    from edge_rnn.training.trainer import Recipe, Rows

    x = machine(400)[:, :2].astype(np.float32)
    x = (x - x.mean(0)) / x.std(0)
    train, held = Rows(x[:300], np.ones((300, 2), bool)), Rows(x[300:], np.ones((100, 2), bool))
    recipe = Recipe(epochs=12)
    _, history, chosen, trials = choose([train], [held], recipe, 1000.0, sizes=(2, 12, 16))
    assert [t.hidden for t in trials] == [2, 12, 16]
    best = min(t.loss for t in trials)
    assert chosen.hidden == next(t.hidden for t in trials if t.loss <= best * 1.02)
    assert history.best == next(t.loss for t in trials if t.hidden == chosen.hidden)
    ticks = iter(range(0, 10**6, 10))
    _, _, first, only = choose([train], [held], recipe, 12.0, sizes=(2, 12, 16), clock=lambda: next(ticks))
    assert [t.hidden for t in only] == [2]
    assert first.hidden == 2


def test_from_many_rows_some_are_kept_for_a_test_that_set_nothing(fit):
    from edge_rnn.training.data import TEST_FROM, prepare, without_test
    from edge_rnn.training.trainer import Recipe

    data, starts = without_test(prepare([table(600)]))
    assert starts == [None]
    assert data.rows == 600
    long = table(TEST_FROM)
    data, starts = without_test(prepare([long]))
    assert (data.rows, starts) == (4500, [4500])
    model = fit.train(long, Recipe(hidden=4, epochs=2))
    card = fit.card_of(model)
    assert card["test"]["rows"] == 500
    assert card["data"]["rows"] == 4500
    assert fit.card_of(fit.train(table(300), Recipe(hidden=4, epochs=2)))["test"] is None


def test_a_model_of_several_horizons_with_a_scale_and_the_time_of_day_is_a_detector(fit, tmp_path):
    from edge_rnn.training.trainer import Recipe

    recipe = Recipe(hidden=8, epochs=6, horizons=(1, 4), scale="laplace")
    model = fit.train(table(500), recipe, features=("day_sin", "day_cos"))
    edge_rnn.save(model, tmp_path / "m.safetensors")
    loaded = edge_rnn.load(tmp_path / "m.safetensors")
    assert loaded.features == ("day_sin", "day_cos")
    assert (loaded.input_size, loaded.output_size) == (5, 12)
    assert loaded.detector.horizons == (1, 4)
    assert [s.horizon for s in loaded.detector.scorers if s.source == "residual"] == [0, 1]
    detector = edge_rnn.Detector(loaded)
    verdicts = detector.run(table(500).times_ns, machine(500))
    assert np.isfinite(verdicts["score"][-100:]).all()
    assert [h["steps"] for h in fit.card_of(loaded)["forecast"]["horizons"]] == [1, 4]


def test_the_card_draws_its_curves(fit, model):
    from edge_rnn.training.card import render

    text = render({**fit.card_of(model), "device": {**fit.card_of(model)["device"], "step_ns": 61.0}})
    assert "a step 61 ns on this processor" in text
    assert "▁" in text
    counts = fit.card_of(model)["residuals"]["counts"]
    assert set(counts) == set(CHANNELS)
    assert all(sum(c) > 100 for c in counts.values())
