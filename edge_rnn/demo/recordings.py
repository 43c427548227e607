"""The demo's pumps as files, to try `train`, `replay`, `evaluate` and `calibrate` without data of one's own.

`pump.csv` and `normal.csv` are stretches of a healthy pump. `other.csv` is ten minutes later, with a pressure
surge, a temperature sensor that drifts and a pressure sensor that is stuck, marked in a column `fault`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_rnn.demo.pumps import CHANNELS, DECIMALS, PERIOD_NS, RATE_HZ, Plant, clean_readings, plan_faults
from edge_rnn.errors import ConfigError

ROWS: Final = 2_400
_BEGIN_MS: Final = 1_764_000_000_000
_APART_MS: Final = 600_000
_SEED: Final = 7
_PUMP: Final = "pump1"
# Seconds between the first fault and the last, on one pump.
_FAULTY_S: Final = 90.0


def save(folder: Path) -> list[Path]:
    """Write the three files into `folder`, which is made if need be.

    Raises:
        ConfigError: a file of that name is there already, or it cannot be written; nothing is overwritten.
    """
    rows, marks = faulty()
    tables = {
        "pump.csv": (clean_readings(ROWS, seed=_SEED), None),
        "normal.csv": (clean_readings(ROWS, seed=_SEED + 1), None),
        "other.csv": (rows, marks),
    }
    paths = [folder / name for name in tables]
    for path in paths:
        if path.exists():
            raise ConfigError(f"{path}: is there already and is not overwritten; name another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, (path, (values, labels)) in enumerate(zip(paths, tables.values(), strict=True)):
            with path.open("x", encoding="utf-8") as file:
                file.write(_csv(values, labels, _BEGIN_MS + number * _APART_MS))
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written: {error.strerror or error}") from None
    return paths


def faulty() -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(T, 3) readings of a pump, and (T,) whether a fault is in them. A pump that is silent has no rows."""
    faults = [f for f in plan_faults([_PUMP], _FAULTY_S, _SEED) if f.channel is not None]
    plant = Plant([_PUMP], _SEED, faults)
    steps = round(_FAULTY_S * RATE_HZ)
    values = np.array([plant.step()[0][1] for _ in range(steps)])
    marks = np.array([any(fault.changes(step) for fault in faults) for step in range(steps)])
    return values, marks


def _csv(values: NDArray[np.float64], labels: NDArray[np.bool_] | None, begin_ms: int) -> str:
    head = ["time", *(channel.name for channel in CHANNELS)]
    lines = [",".join(head if labels is None else [*head, "fault"])]
    for row, numbers in enumerate(values):
        cells = [str(begin_ms + row * PERIOD_NS // 1_000_000)]
        cells += [f"{number:.{decimals}f}" for number, decimals in zip(numbers, DECIMALS, strict=True)]
        cells += [] if labels is None else [str(int(labels[row]))]
        lines.append(",".join(cells))
    return "\n".join(lines) + "\n"
