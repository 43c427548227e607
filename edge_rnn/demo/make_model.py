"""Makes the demo's bundled model from the simulator: `python -m edge_rnn.demo.make_model OUTPUT`.

Needs the extra `train`. Twelve healthy pumps of three minutes each are trained on just as a user would train
on recorded data; nothing about the faults enters. With the same version of PyTorch the same file comes out
byte by byte.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import numpy as np

from edge_rnn.core.model import Model
from edge_rnn.demo.pumps import CHANNELS, PERIOD_NS, RATE_HZ, clean_readings
from edge_rnn.files.model_file import save
from edge_rnn.files.readings import Table

PUMPS: Final = 12
SECONDS: Final = 180
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
    """Train the model; about a minute on one core."""
    from edge_rnn.training import fit
    from edge_rnn.training.trainer import Recipe

    return fit.train(tables(), Recipe(cell="gru", hidden=16, seed=1), name="pump")


def main() -> None:
    """Write the model to the file named on the command line."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m edge_rnn.demo.make_model OUTPUT")
    save(make(), Path(sys.argv[1]))


if __name__ == "__main__":
    main()
