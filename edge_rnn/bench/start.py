"""A start from nothing, in processes of their own: how long until the first score, and how much memory.

The package is copied to an empty folder without any cache, and the caches are pointed into it; so the first
start finds neither bytecode nor machine code of this package, as on a device on its first day, and the second
finds both. (Bytecode of Numba and NumPy is there in both.) This very file is run in the child:

    python -m edge_rnn.bench.start MODEL CALLED_NS [LIBRARY]

It makes what the daemon makes (with one thread of NumPy's matrix library, as it has), but for broker and
database, and takes one message; a model without a detector only steps. It prints one line of JSON:
milliseconds since CALLED_NS on the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import msgspec

from edge_rnn.bench.report import Start, Starts
from edge_rnn.errors import EdgeRnnError

_PACKAGE: Final = Path(__file__).parents[1]
_PATIENCE_S: Final = 600


def starts(model: Path, library: Path | None = None) -> Starts:
    """A cold and a warm start with `model`, and with the code in `library` if one is given.

    Raises:
        EdgeRnnError: the child process fails.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(_PACKAGE, folder / _PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
        return Starts(cold=_start(model, folder, library), warm=_start(model, folder, library))


def _start(model: Path, folder: Path, library: Path | None) -> Start:
    settings = {"NUMBA_CACHE_DIR": "code", "XDG_CACHE_HOME": "xdg", "PYTHONPATH": "."}
    places = {key: str(folder / value) for key, value in settings.items()}
    # Bytecode beside the sources of the copy, whatever the caller's settings are.
    unwanted = {"PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"}
    inherited = {key: value for key, value in os.environ.items() if key not in unwanted}
    command = [sys.executable, "-m", f"{__package__}.start", str(model.resolve())]
    code = [] if library is None else [str(library.resolve())]
    try:
        done = subprocess.run(  # noqa: S603  (this interpreter, this file)
            [*command, str(time.monotonic_ns()), *code], capture_output=True, text=True, check=False,
            cwd=folder, env={"OPENBLAS_NUM_THREADS": "1"} | inherited | places, timeout=_PATIENCE_S,
        )  # fmt: skip
        return msgspec.json.decode(done.stdout, type=Start)
    except subprocess.TimeoutExpired:
        raise EdgeRnnError(f"a start took more than {_PATIENCE_S} s; leave it out with --no-start") from None
    except msgspec.DecodeError:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise EdgeRnnError(f"the process that measures a start failed: {last[:300]}") from None


def _memory(field: str) -> int:
    """KiB from /proc/self/status; 0 where there is none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), 0)


def main(file: str, called_ns: int, library: Path | None = None) -> None:
    """The child: start, take one reading, print what it took."""

    def passed() -> float:
        return (time.monotonic_ns() - called_ns) / 1e6

    from edge_rnn.bench.inputs import fixed_inputs, raw_readings
    from edge_rnn.bench.path import ReadingPath
    from edge_rnn.core.stepper import Stepper
    from edge_rnn.files.load import load

    imported = passed()
    model = load(file)
    first = fixed_inputs(1, model.input_size)
    if model.detector is None:
        stepper = Stepper(model, library=library)
        ready = passed()
        stepper.step(first[0])
    else:
        path = ReadingPath(Path(file), model, library=library)
        delivery = path.delivery(raw_readings(model, first)[0], 0)
        ready = passed()
        path.take(delivery)
    scored = passed()
    answer = {
        "imported_ms": imported, "ready_ms": ready, "first_score_ms": scored,
        "rss_kib": _memory("VmRSS"), "peak_rss_kib": _memory("VmHWM"),
    }  # fmt: skip
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *map(Path, sys.argv[3:]))
