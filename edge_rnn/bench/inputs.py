"""A fixed input stream, and the hash of what a model makes of it.

The numbers come from a linear congruential generator in 64-bit integers and are multiples of 2^-22 in
[-2, 2), which float32 holds exactly. So the stream has the same bits everywhere, and within a numeric class
the outputs must have, too: the hash of the bundled model's outputs is compared with the golden one, stored
beside this file. `python -m edge_rnn.bench.inputs` writes it anew, after the bundled model has changed.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.backend import LibraryLike
from edge_rnn.core.digest import weights_digest
from edge_rnn.core.jit import Numeric
from edge_rnn.core.model import Float32, Model
from edge_rnn.core.stepper import Stepper
from edge_rnn.files.load import load

STEPS: Final = 2000
BUNDLED: Final = Path(__file__).parents[1] / "demo" / "pump.safetensors"
_GOLDEN: Final = Path(__file__).with_name("golden.json")
# Knuth's MMIX generator; the upper bits are the random ones.
_MULTIPLIER: Final = 6364136223846793005
_INCREMENT: Final = 1442695040888963407


def fixed_inputs(steps: int, channels: int) -> Float32:
    """The first `steps` vectors of the stream, float32 (steps, channels), in model space."""
    word, numbers = 1, np.empty(steps * channels, np.float32)
    for i in range(numbers.size):
        word = (word * _MULTIPLIER + _INCREMENT) % 2**64
        numbers[i] = ((word >> 40) - 2**23) / 2**22
    return numbers.reshape(steps, channels)


def raw_readings(model: Model, xs: Float32) -> NDArray[np.float64]:
    """What sensors would have to say for the network to get `xs` (T, I): (T, C) float64.

    Features that a detector makes itself are no sensor's, so their columns are left out.
    """
    values = xs[:, : model.channels].astype(np.float64)
    if model.scaler is None:
        return values
    return values * model.scaler.std + model.scaler.mean


def output_hash(
    model: Model, numeric: Numeric = "auto", lanes: int | None = None, library: LibraryLike | None = None
) -> str:
    """Hex sha-256 over the outputs, little-endian float32, for STEPS vectors from a fresh state."""
    ys = Stepper(model, numeric, lanes, library).run(fixed_inputs(STEPS, model.input_size))
    return hashlib.sha256(ys.astype("<f4").tobytes()).hexdigest()


def golden_hash(weights: str, numeric: str) -> str | None:
    """The hash that a model of this weights digest must give in this class; None where none is stored."""
    golden = json.loads(_GOLDEN.read_text())
    return cast("str", golden[numeric]) if golden["weights"] == weights else None


def main() -> None:
    """Write golden.json for the bundled model as it is now."""
    model = load(BUNDLED)
    golden = {"weights": weights_digest(model), "F": output_hash(model, "F"), "U": output_hash(model, "U")}
    _GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
