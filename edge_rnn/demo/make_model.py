"""Makes the demo's bundled model from the simulator: `python -m edge_rnn.demo.make_model OUTPUT`.

Needs the extra `train`. Eight healthy pumps of two and a half minutes each are trained on, just as a user
would train on recorded data; nothing about the faults enters. With the same version of PyTorch, on the same
kind of processor, the same file comes out byte by byte; elsewhere a model that says the same within a
fraction of the sensors' noise.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from edge_rnn.core.model import Model
from edge_rnn.demo.pumps import CHANNELS, PERIOD_NS, RATE_HZ, clean_readings
from edge_rnn.files.model_file import save
from edge_rnn.files.readings import Table

PUMPS: Final = 8
SECONDS: Final = 150
BEGIN_NS: Final = 1_700_000_000_000_000_000


def tables() -> list[Table]:
    """The recordings the model is trained on, one for each pump."""
    steps = SECONDS * RATE_HZ
    times = BEGIN_NS + PERIOD_NS * np.arange(steps, dtype=np.int64)
    return [
        Table(
            times_ns=times,
            values=clean_readings(steps, seed),
            channels=tuple(channel.name for channel in CHANNELS),
            labels=None,
            time_column="time",
        )
        for seed in range(PUMPS)
    ]


def make() -> Model:
    """Train the model; half a minute on one core."""
    from edge_rnn.training import fit
    from edge_rnn.training.trainer import Recipe

    recipe = Recipe(cell="gru", hidden=16, epochs=60, seed=1)
    # Simulated readings without end: new ones are the test.
    model = fit.train(tables(), recipe, name="pump", keep_test=False)
    return replace(model, inputs=CHANNELS)  # tables know names, the simulator knows units too


def main() -> None:
    """Write the model to the file named on the command line."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m edge_rnn.demo.make_model OUTPUT")
    save(make(), Path(sys.argv[1]))


if __name__ == "__main__":
    main()
