"""The trainer learns, stops in time, repeats itself exactly and leaves PyTorch as it found it."""

from __future__ import annotations

import numpy as np
import pytest

from edge_rnn.core.detector_spec import ConditionSpec
from edge_rnn.core.model import Scaler
from edge_rnn.errors import ConfigError, DataError
from tests.support import need


@pytest.fixture(scope="module")
def trainer():
    need.torch()
    from edge_rnn.training import trainer

    return trainer


def waves(trainer, rows=400, channels=2, seed=0, noise=0.05):
    """Sines that a mean or the last value forecast badly."""
    t = np.arange(rows)[:, None]
    x = np.sin(2 * np.pi * t / np.array([11, 17])[:channels] + np.arange(channels))
    x = (1.4 * x + noise * np.random.default_rng(seed).standard_normal(x.shape)).astype(np.float32)
    return trainer.Rows(x, np.ones(x.shape, bool))


def halves(trainer, rows, at):
    return trainer.Rows(rows.x[:at], rows.known[:at]), trainer.Rows(rows.x[at:], rows.known[at:])


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_it_learns_what_simple_rules_cannot(trainer, cell):
    rows = waves(trainer, 700)
    train, held = halves(trainer, rows, 500)
    network, history = trainer.train_forecaster([train], [held], trainer.Recipe(cell=cell, epochs=40))
    said = trainer.forecasts(network, rows.x)
    error = np.square(rows.x[501:] - said[500:-1]).mean()
    persistence = np.square(np.diff(rows.x[500:], axis=0)).mean()
    assert error < 0.25 * persistence
    assert history.best == pytest.approx(min(history.held_back))
    assert 1 <= history.best_epoch <= 40


def test_noise_alone_stops_early(trainer):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 4)).astype(np.float32)
    rows = trainer.Rows(x, np.ones(x.shape, bool))
    train, held = halves(trainer, rows, 300)
    network, history = trainer.train_forecaster([train], [held], trainer.Recipe(patience=15))
    assert len(history.train) < 100
    said = trainer.forecasts(network, x)
    # Nothing can be learned here; what was learned by heart has been thrown away again.
    assert np.square(x[301:] - said[300:-1]).mean() < 1.15 * np.square(x[301:]).mean()


def test_same_seed_same_weights_and_torch_untouched(trainer):
    torch = need.torch()
    train, held = halves(trainer, waves(trainer, 200), 150)
    before = torch.random.get_rng_state(), torch.get_num_threads()

    def weights(seed):
        recipe = trainer.Recipe(hidden=6, epochs=4, seed=seed)
        network, _ = trainer.train_forecaster([train], [held], recipe)
        return torch.cat([p.detach().reshape(-1) for p in network.parameters()])

    first, again, other = weights(3), weights(3), weights(4)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert before[1] == torch.get_num_threads()


def test_stretches_of_any_length_and_missing_readings(trainer):
    stretches = [waves(trainer, n, seed=n) for n in (30, 500, 75)]
    stretches[1].known[40:60] = False
    stretches[1].x[40:60] = 50.0  # never a target: a loss that saw it would be huge
    parts = [halves(trainer, s, int(0.8 * len(s))) for s in stretches]
    _, history = trainer.train_forecaster(
        [a for a, _ in parts], [b for _, b in parts], trainer.Recipe(hidden=8, epochs=6)
    )
    assert all(np.isfinite(history.train))
    assert max(history.train) < 50


def test_without_held_back_rows_the_last_epoch_counts(trainer):
    rows = waves(trainer, 150)
    none = trainer.Rows(rows.x[:0], rows.known[:0])
    _, history = trainer.train_forecaster([rows], [none], trainer.Recipe(hidden=4, epochs=7))
    assert history.best_epoch == 7


def test_progress_is_told_every_epoch(trainer):
    train, held = halves(trainer, waves(trainer, 150), 120)
    seen = []
    recipe = trainer.Recipe(hidden=4, epochs=5)
    trainer.train_forecaster([train], [held], recipe, lambda *told: seen.append(told))
    assert [(done, total) for done, total, _ in seen] == [(i, 5) for i in range(1, 6)]


def test_bad_recipes_and_data(trainer):
    for options in ({"hidden": 0}, {"layers": 9}, {"epochs": 0}, {"threads": 0}, {"seed": -1}):
        with pytest.raises(ConfigError, match=f"{next(iter(options))}: expected"):
            trainer.Recipe(**options)
    with pytest.raises(ConfigError, match="cell: expected rnn, gru or lstm, got 'transformer'"):
        trainer.Recipe(cell="transformer")
    few = waves(trainer, 20)
    with pytest.raises(DataError, match="at least 23 rows"):
        trainer.train_forecaster([few], [few], trainer.Recipe())
    wild = waves(trainer, 200)
    wild.x[50] = 3e38
    with pytest.raises(DataError, match="not finite in epoch 1"):
        trainer.train_forecaster([wild], [few], trainer.Recipe(hidden=4))


def test_conditioning_holds_removes_drift_and_limits():
    need.torch()
    from edge_rnn.training.conditioning import condition
    from edge_rnn.training.data import Stretch

    values = np.array([[np.nan, 10.0], [2.0, 12.0], [np.inf, 11.0], [4.0, 500.0]])
    scaler = Scaler(np.array([1.0, 10.0]), np.array([2.0, 1.0]))
    spec = ConditionSpec(drift=(True, False), drift_rate=0.5, clip=5.0)
    rows = condition(Stretch(np.arange(4) * 10**9, values), scaler, spec)
    # Channel 0: scaled nan, 0.5, held 0.5, 1.5; its level starts at 0.5 and learns from good rows only.
    np.testing.assert_allclose(rows.x[:, 0], [0.0, 0.0, 0.0, 1.0])
    np.testing.assert_allclose(rows.x[:, 1], [0.0, 2.0, 1.0, 5.0])
    np.testing.assert_array_equal(rows.known[:, 0], [False, True, False, True])


@pytest.mark.parametrize("scale", ["none", "laplace", "gaussian"])
def test_it_looks_several_steps_ahead_and_says_how_sure_it_is(trainer, scale):
    rows = waves(trainer, 700, noise=0.1)
    train, held = halves(trainer, rows, 500)
    recipe = trainer.Recipe(hidden=24, epochs=40, horizons=(1, 6), scale=scale)
    network, history = trainer.train_forecaster([train], [held], recipe)
    said = trainer.forecasts(network, rows.x)
    assert said.shape == (700, 4 if scale == "none" else 8)
    for place, ahead in enumerate((1, 6)):
        error = rows.x[500 + ahead :] - said[500:-ahead, 2 * place : 2 * place + 2]
        last = rows.x[500 + ahead :] - rows.x[500:-ahead]
        assert np.square(error).mean() < 0.25 * np.square(last).mean()
        if scale != "none":
            spread = np.exp(said[500:-ahead, 4 + 2 * place : 6 + 2 * place])
            told = np.abs(error).mean() if scale == "laplace" else np.sqrt(np.square(error).mean())
            assert 0.5 < spread.mean() / told < 2.0, spread.mean() / told
    assert history.best == pytest.approx(min(history.held_back))


def test_a_target_beyond_the_end_or_unmeasured_does_not_count(trainer):
    rows = waves(trainer, 30)
    rows.known[12, 0] = False
    y, weight = trainer._ahead(rows, 5, 29, 26, (1, 8))
    np.testing.assert_array_equal(y[:24, :2], rows.x[6:30])
    np.testing.assert_array_equal(y[:17, 2:], rows.x[13:30])
    assert weight[:, :2].sum() == 2 * 24 - 1
    assert weight[:, 2:].sum() == 2 * 17
    assert weight[6, 0] == 0


def test_bad_horizons(trainer):
    for horizons in ((), (0,), (2, 1), (1, 1), tuple(range(1, 20))):
        with pytest.raises(ConfigError, match="horizons: expected 1 to 8 rising numbers"):
            trainer.Recipe(horizons=horizons)
    with pytest.raises(ConfigError, match="at most 1024 steps"):
        trainer.Recipe(horizons=(2000,))
    with pytest.raises(ConfigError, match="scale: expected none, laplace or gaussian"):
        trainer.Recipe(scale="cauchy")


class InterruptedByTestError(Exception):
    pass


def weights_of(network):
    torch = need.torch()
    return torch.cat([p.detach().reshape(-1) for p in network.parameters()])


@pytest.mark.parametrize("at", [1, 7, 12])
def test_an_interrupted_training_ends_with_the_same_weights(trainer, tmp_path, at):
    from edge_rnn.training.checkpoint import Checkpoint

    torch = need.torch()
    train, held = halves(trainer, waves(trainer, 300), 240)
    recipe = trainer.Recipe(hidden=6, epochs=14, cell="lstm")
    whole, history = trainer.train_forecaster([train], [held], recipe)
    ticks = iter(range(0, 10**6, 60))
    file = tmp_path / "part"

    def interrupt(done, _total, _loss):
        if done == at:
            raise InterruptedByTestError

    with pytest.raises(InterruptedByTestError):
        trainer.train_forecaster(
            [train], [held], recipe, interrupt, Checkpoint(file, lambda: float(next(ticks)))
        )
    assert file.is_file()
    told = []
    again, continued = trainer.train_forecaster(
        [train], [held], recipe, lambda done, *_: told.append(done), Checkpoint(file)
    )
    assert told[0] == at + 1
    assert torch.equal(weights_of(whole), weights_of(again))
    assert history == continued
    assert not file.exists()


def test_a_checkpoint_of_another_training_or_a_damaged_one_is_refused(trainer, tmp_path):
    from edge_rnn.training.checkpoint import Checkpoint

    train, held = halves(trainer, waves(trainer, 200), 150)
    file = tmp_path / "part"
    ticks = iter(range(0, 10**6, 60))

    def interrupt(*_told):
        raise InterruptedByTestError

    with pytest.raises(InterruptedByTestError):
        trainer.train_forecaster(
            [train], [held], trainer.Recipe(hidden=4, epochs=3), interrupt,
            Checkpoint(file, lambda: float(next(ticks))),
        )  # fmt: skip
    whole = file.read_bytes()
    for recipe, rows in (
        (trainer.Recipe(hidden=5, epochs=3), train),
        (trainer.Recipe(hidden=4, epochs=3), held),
    ):
        with pytest.raises(DataError, match="of another training"):
            trainer.train_forecaster([rows], [held], recipe, None, Checkpoint(file))
    rng = np.random.default_rng(1)
    for _ in range(200):
        changed = bytearray(whole)
        for place in rng.integers(0, len(whole), rng.integers(1, 4)):
            changed[place] ^= int(rng.integers(1, 256))
        cut = int(rng.integers(0, len(whole))) if rng.random() < 0.2 else len(whole)
        file.write_bytes(changed[:cut])
        with pytest.raises(DataError, match="remove it to begin anew"):
            trainer.train_forecaster(
                [train], [held], trainer.Recipe(hidden=4, epochs=3), None, Checkpoint(file)
            )
