"""A network alone, trained on every row."""

from __future__ import annotations

import numpy as np
import pytest

from edge_rnn.errors import DataError
from edge_rnn.files.readings import Table
from tests.support import need

SECOND = 10**9


def table(rows: int = 300) -> Table:
    t = np.arange(rows, dtype=np.int64)
    rng = np.random.default_rng(0)
    x = np.stack([np.sin(t / 5), np.cos(t / 7)], axis=1) * 3 + 0.1 * rng.standard_normal((rows, 2))
    return Table(t * SECOND, x, ("a", "b"), None, "t")


def test_it_learns_every_row_and_carries_no_detector() -> None:
    need.torch()
    from edge_rnn.core.detector_spec import ConditionSpec
    from edge_rnn.training.trainer import Recipe
    from edge_rnn.training.whole import train_network

    recipe = Recipe(hidden=6, epochs=3, horizons=(1, 4), scale="laplace")
    soft = ConditionSpec(soft_clip=1.0)
    once, again = (train_network(table(), recipe, soft, ("difference:a",)) for _ in range(2))
    assert once.detector is None
    assert (once.channels, once.input_size, once.output_size) == (2, 3, 8)
    assert once.scaler is not None
    np.testing.assert_allclose(once.scaler.mean, table().values.mean(axis=0))
    np.testing.assert_array_equal(once.layers[0].w_ih, again.layers[0].w_ih)
    # The last rows count: in another order, which no scaler sees, they make another network.
    other = table()
    other.values[-60:] = other.values[-60:][::-1].copy()
    changed = train_network(other, recipe, soft, ("difference:a",))
    assert not np.array_equal(once.layers[0].w_ih, changed.layers[0].w_ih)
    with pytest.raises(DataError, match="at least 100 rows to train on, got 50"):
        train_network(table(50), recipe, soft)
