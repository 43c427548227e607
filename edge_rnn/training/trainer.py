"""Train a forecaster: stateful truncated back-propagation through time.

The rows are cut into a few long segments that are walked side by side in chunks of `chunk` steps. The
state is carried from chunk to chunk and only the gradient is cut, so that the network learns to live with
its own state, as it must on a device where it is never reset. Where each segment starts changes from epoch
to epoch, so that no row is always the first one. The first `burn_in` steps of a segment, where the state is
still that of a cold start, do not count in the loss.

The network may look ahead several steps at once (`horizons`), and may say how sure it is of each forecast
(`scale`): then its outputs are doubled, the second half are logarithms of a spread s, limited to
-4..3, and the loss is the negative log-likelihood of a Laplace or Gauss distribution, |e| exp(-s) + s or
e^2 exp(-2s) / 2 + s.

Small data needs restraint: noise on the inputs, weight decay, and an early stop: after every few epochs the
loss on a held-back tail is taken (with the state carried into it from the rows before), and the weights of
the best epoch are the result.

The same data, recipe and thread count give the same weights: every random number comes from a generator
of this call, and PyTorch's own random state is left as it was.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge_rnn.errors import ConfigError, DataError
from edge_rnn.training.checkpoint import Checkpoint, fingerprint
from edge_rnn.training.extra import nn, torch

MOST_HORIZONS = 8
LONGEST_HORIZON = 1024
Progress = Callable[[int, int, float], None]
"""Called after every epoch with (epochs done, epochs at most, best held-back loss so far)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to train; the defaults suit a few hundred to some ten thousand rows.

    epochs: at most so many; None: about 1,500 optimiser steps, but between 30 and 150 epochs.
    threads: of PyTorch; one is fastest at these sizes. Results are the same for the same count only.
    chunk, burn_in: steps. rate, final_rate: learning rate of the first and the last epoch (cosine).
    noise: standard deviation of the noise on the inputs, in model space (where a channel has spread 1).
    horizons: steps ahead of the forecasts, rising. scale: what the outputs say of their own spread.
    patience: early stop after so many epochs without a better held-back loss.
    """

    cell: Literal["rnn", "gru", "lstm"] = "gru"
    hidden: int = 32
    layers: int = 1
    epochs: int | None = None
    seed: int = 0
    threads: int = 1
    chunk: int = 80
    burn_in: int = 10
    segments: int = 32
    rate: float = 5e-3
    final_rate: float = 5e-4
    weight_decay: float = 1e-4
    noise: float = 0.1
    gradient_norm: float = 1.0
    patience: int = 40
    horizons: tuple[int, ...] = (1,)
    scale: Literal["none", "laplace", "gaussian"] = "none"

    def __post_init__(self) -> None:
        limits: dict[str, tuple[int, int, int]] = {
            "hidden": (self.hidden, 1, 4096),
            "layers": (self.layers, 1, 8),
            "epochs": (1 if self.epochs is None else self.epochs, 1, 100_000),
            "threads": (self.threads, 1, 1024),
            "seed": (self.seed, 0, 2**32 - 1),
        }
        for name, (value, low, high) in limits.items():
            if not low <= value <= high:
                raise ConfigError(f"{name}: expected {low} to {high}, got {value}")
        if self.cell not in ("rnn", "gru", "lstm"):
            raise ConfigError(f"cell: expected rnn, gru or lstm, got {self.cell!r}")
        ahead = self.horizons
        if not 0 < len(ahead) <= MOST_HORIZONS or sorted(set(ahead)) != list(ahead) or ahead[0] < 1:
            raise ConfigError(
                f"horizons: expected 1 to {MOST_HORIZONS} rising numbers of steps from 1 on, got {ahead}"
            )
        if ahead[-1] > LONGEST_HORIZON:
            raise ConfigError(f"horizons: expected at most {LONGEST_HORIZON} steps, got {ahead[-1]}")
        if self.scale not in ("none", "laplace", "gaussian"):
            raise ConfigError(f"scale: expected none, laplace or gaussian, got {self.scale!r}")


@dataclass(slots=True)
class History:
    """Losses in model space, squared errors unless the network says its own scale: per epoch on the
    training rows, and held back where taken."""

    train: list[float] = field(default_factory=list)
    held_back: list[float] = field(default_factory=list)
    best_epoch: int = 0

    @property
    def best(self) -> float:
        """The smallest held-back loss."""
        return min(self.held_back, default=math.nan)


class Forecaster(nn.Module):  # type: ignore[misc]  # torch is typed as Any here
    """A recurrent body and one Linear: inputs (B, T, I) in model space to forecasts (B, T, O).

    The first C inputs are the channels, the others are features of the time. Forecasts stand horizon by
    horizon, C channels each; with a scale the logarithms of all spreads follow in the same order.
    """

    def __init__(self, inputs: int, channels: int, recipe: Recipe) -> None:
        super().__init__()
        self.channels, self.scale, self.horizons = channels, recipe.scale, recipe.horizons
        kind = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[recipe.cell]
        self.body = kind(inputs, recipe.hidden, num_layers=recipe.layers, batch_first=True)
        outputs = channels * len(recipe.horizons) * (1 if recipe.scale == "none" else 2)
        self.head = nn.Linear(recipe.hidden, outputs)

    def forward(self, x: Any, state: Any = None) -> tuple[Any, Any]:
        """Forecasts for every step, and the state after the last."""
        h, state = self.body(x, state)
        return self.head(h), state


@dataclass(frozen=True, slots=True)
class Rows:
    """Contiguous rows in model space.

    x: (T, I) float32 without NaN: the C channels, then features of the time, if there are any.
    known: (T, C) bool: the channel was measured.
    """

    x: NDArray[np.float32]
    known: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.x)


def train_forecaster(
    train: Sequence[Rows],
    held_back: Sequence[Rows],
    recipe: Recipe,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> tuple[Forecaster, History]:
    """Train a forecaster.

    Args:
        train: contiguous stretches of training rows; the state is never carried from one to the next.
        held_back: for each stretch the rows that follow it directly, for the early stop; may be empty.
        recipe: how.
        progress: called after every epoch.
        checkpoint: keeps the training over an interruption, and takes up one that was interrupted.

    Raises:
        DataError: too few rows, a loss that is not finite, or a checkpoint of another training.
    """
    total = sum(len(rows) for rows in train)
    if total <= 2 * recipe.burn_in + 2:
        raise DataError(f"expected at least {2 * recipe.burn_in + 3} rows to train on, got {total}")
    threads = torch.get_num_threads()
    torch.set_num_threads(recipe.threads)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            network = Forecaster(train[0].x.shape[1], train[0].known.shape[1], recipe)
        if checkpoint is not None:
            parts = [*train, *held_back]
            checkpoint.begin(fingerprint(recipe, [p.x for p in parts], [p.known for p in parts]))
        history = _train(network, train, held_back, recipe, progress, checkpoint)
    finally:
        torch.set_num_threads(threads)
    return network, history


def _train(
    network: Forecaster,
    train: Sequence[Rows],
    held_back: Sequence[Rows],
    recipe: Recipe,
    progress: Progress | None,
    checkpoint: Checkpoint | None,
) -> History:
    generator = torch.Generator().manual_seed(recipe.seed)
    batches = _Segments(train, recipe)
    epochs = recipe.epochs or int(np.clip(1500 // batches.chunks, 30, 150))
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay)
    history = History()
    best = copy.deepcopy(network.state_dict())
    every = 1 if batches.chunks > 4 else 3
    begin = 0
    if checkpoint is not None and (kept := checkpoint.read(network, optimizer, generator)) is not None:
        best, facts = kept
        history = History(**facts)
        begin = len(history.train)
    for epoch in range(begin, epochs):
        share = 0.5 + 0.5 * math.cos(math.pi * epoch / max(1, epochs - 1))
        for group in optimizer.param_groups:
            group["lr"] = recipe.final_rate + (recipe.rate - recipe.final_rate) * share
        history.train.append(_epoch(network, optimizer, batches, recipe, generator))
        if not math.isfinite(history.train[-1]):
            raise DataError(
                f"the loss is not finite in epoch {epoch + 1}; are there values many times larger than the "
                "rest in the training rows? Remove them or train on other rows (--rows)"
            )
        if epoch % every == every - 1 or epoch == epochs - 1:
            loss = _held_back_loss(network, train, held_back)
            # Without held-back rows every epoch counts as the best so far.
            if not loss >= history.best:
                best = copy.deepcopy(network.state_dict())
                history.best_epoch = epoch + 1
            history.held_back.append(loss)
            if epoch + 1 - history.best_epoch >= recipe.patience:
                break
        if checkpoint is not None and checkpoint.due():
            checkpoint.write(network, optimizer, generator, best, asdict(history))
        if progress is not None:
            progress(epoch + 1, epochs, history.best)
    if checkpoint is not None:
        checkpoint.done()
    network.load_state_dict(best)
    return history


class _Segments:
    """Cuts the stretches into equally long segments, anew for every epoch, padded where one is short."""

    def __init__(self, train: Sequence[Rows], recipe: Recipe) -> None:
        self.train = train
        self.recipe = recipe
        total = sum(len(rows) for rows in train)
        longest = max(len(rows) for rows in train)
        length = min(max(2 * recipe.chunk, math.ceil(total / recipe.segments)), longest - 1)
        self.chunks = math.ceil(length / recipe.chunk)
        self.length = length
        counts = [math.ceil((len(rows) - 1) / length) for rows in train]
        # A few rows only: several overlapping segments, so that an optimiser step sees more than one.
        repeat = max(1, math.ceil(8 / max(1, sum(counts))))
        self.counts = [count * repeat for count in counts]

    def draw(self, generator: Any) -> tuple[Any, Any, Any]:
        """Inputs, targets (B, T, C) and their weights: 1 where the target counts in the loss."""
        xs, ys, weights = [], [], []
        for rows, count in zip(self.train, self.counts, strict=True):
            last = max(0, len(rows) - 1 - self.length)
            jitter = (torch.rand(max(count, 1), generator=generator).numpy() - 0.5) * self.recipe.chunk
            starts = np.clip(np.linspace(0, last, max(count, 1)) + jitter, 0, last).astype(int)
            for start in starts[:count]:
                stop = min(start + self.length, len(rows) - 1)
                x = np.zeros((self.length, rows.x.shape[1]), dtype=np.float32)
                x[: stop - start] = rows.x[start:stop]
                y, weight = _ahead(rows, start, stop, self.length, self.recipe.horizons)
                weight[: self.recipe.burn_in] = 0
                xs.append(x)
                ys.append(y)
                weights.append(weight)
        return tuple(torch.from_numpy(np.stack(part)) for part in (xs, ys, weights))


def _ahead(
    rows: Rows, start: int, stop: int, length: int, horizons: Sequence[int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Targets of the rows start..stop and their weights, each (length, C K): 0 where nothing was measured."""
    channels = rows.known.shape[1]
    y = np.zeros((length, channels * len(horizons)), dtype=np.float32)
    weight = np.zeros_like(y)
    for k, ahead in enumerate(horizons):
        size = min(stop + ahead, len(rows)) - (start + ahead)
        if size > 0:
            columns = slice(k * channels, (k + 1) * channels)
            later = slice(start + ahead, start + ahead + size)
            y[:size, columns] = rows.x[later, :channels]
            weight[:size, columns] = rows.known[later]
    return y, weight


def _losses(said: Any, y: Any, scale: str) -> Any:
    """The loss of every forecast (..., C K), from outputs (..., O) and targets."""
    count = y.shape[-1]
    error = said[..., :count] - y
    if scale == "none":
        return error.square()
    s = said[..., count:].clamp(-4, 3)
    if scale == "laplace":
        return error.abs() * torch.exp(-s) + s
    return 0.5 * error.square() * torch.exp(-2 * s) + s


def _epoch(network: Forecaster, optimizer: Any, batches: _Segments, recipe: Recipe, generator: Any) -> float:
    """One walk over all segments; the mean loss of its training rows (with noise)."""
    network.train()
    xs, ys, weights = batches.draw(generator)
    # Readings are noisy, the clock is not.
    noise = recipe.noise * torch.randn(xs.shape, generator=generator)
    noise[..., network.channels :] = 0
    xs = xs + noise
    state = None
    squares = counted = 0.0
    for start in range(0, batches.length, recipe.chunk):
        piece = slice(start, start + recipe.chunk)
        weight = weights[:, piece]
        count = float(weight.sum())
        forecast, state = network(xs[:, piece], state)
        state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
        if count == 0:
            continue
        loss = (weight * _losses(forecast, ys[:, piece], recipe.scale)).sum() / count
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), recipe.gradient_norm)
        optimizer.step()
        squares += float(loss.detach()) * count
        counted += count
    return squares / max(counted, 1.0)


def _held_back_loss(network: Forecaster, train: Sequence[Rows], held_back: Sequence[Rows]) -> float:
    """Mean loss of the forecasts of held-back rows, each stretch run in from the rows before it."""
    summed = counted = 0.0
    for before, rows in zip(train, held_back, strict=True):
        if not len(rows):
            continue
        both = Rows(
            np.concatenate([before.x[-200:], rows.x]), np.concatenate([before.known[-200:], rows.known])
        )
        said = forecasts(network, both.x)
        y, weight = _ahead(both, 0, len(both) - 1, len(both), network.horizons)
        lead = len(both) - len(rows)
        for k, ahead in enumerate(network.horizons):
            # A forecast counts for the row it speaks of.
            weight[: max(0, lead - ahead), k * network.channels : (k + 1) * network.channels] = 0
        losses = _losses(torch.from_numpy(said), torch.from_numpy(y), network.scale).numpy()
        summed += float((losses.astype(np.float64) * weight).sum())
        counted += float(weight.sum())
    return summed / counted if counted else math.nan


def forecasts(network: Forecaster, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the network says (T, O) at every step of x (T, I), from a zero state."""
    network.eval()
    with torch.no_grad():
        out, _ = network(torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))[None])
    return np.asarray(out[0].numpy())
