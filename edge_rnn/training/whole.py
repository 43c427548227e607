"""A network alone, trained on every row: for detectors whose limits do not come from its own residuals.

`fit.train` holds rows back, for the early stop and because a limit from residuals of learned rows is too
low. A detector that ranks its scores among those of the stream itself, or takes its limits from the readings,
needs no such rows, and a short recording has none to spare. There is no early stop, so `epochs` and `noise`
of the recipe decide how closely the rows are learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edge_rnn import __version__
from edge_rnn.calibrate import scaling
from edge_rnn.core.detector_spec import ConditionSpec
from edge_rnn.core.model import Input, Model
from edge_rnn.files.readings import Table
from edge_rnn.training import network as net
from edge_rnn.training.conditioning import condition, cut
from edge_rnn.training.data import prepare
from edge_rnn.training.trainer import Progress, Recipe, train_forecaster


def train_network(
    tables: Table | Sequence[Table],
    recipe: Recipe,
    conditioning: ConditionSpec,
    features: Sequence[str] = (),
    *,
    name: str = "model",
    progress: Progress | None = None,
) -> Model:
    """Train a network on all rows; it has a scaler, resting state and self-test, but no detector.

    Args:
        tables: one table or several with the same channels.
        recipe: network and training; its patience is not used.
        conditioning: what is done to readings before the network sees them, as the detector will.
        features: what the network is given besides the channels, see `Model.features`.
        name: of the model.
        progress: as in `train_forecaster`.

    Raises:
        DataError: as in `fit.train`.
    """
    data = prepare([tables] if isinstance(tables, Table) else tables)
    scaler = scaling([(stretch.times_ns, stretch.values) for stretch in data.stretches])
    rows = [condition(s, scaler, conditioning, features, data.channels) for s in data.stretches]
    network, _ = train_forecaster(rows, [cut(r, len(r))[1] for r in rows], recipe, progress)
    model = net.bare_model(network)
    rest, ranges = net.rest_and_ranges(network, model.layers, rows[0], recipe.burn_in)
    return replace(
        model,
        name=name,
        inputs=tuple(Input(channel) for channel in data.channels),
        features=tuple(features),
        scaler=scaler,
        rest_state=rest,
        activation_ranges=ranges,
        self_test=net.self_test(network, model, rest, rows[0]),
        provenance={"source": "edge-rnn train_network", "edge_rnn": __version__},
    )
