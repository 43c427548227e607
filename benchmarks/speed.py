"""How far a step is from what the machine can do: `run` and `step` beside LIMIT, batches beside OpenBLAS, the
detector beside the step.

    taskset -c 1 python -m benchmarks.speed [--json FILE] [--rounds 11] [--only TABLE]

LIMIT (`limit/limit.c`, compiled here with $CC, gcc, clang or cc for this machine) reads as many bytes as
the network has weights, multiplies them, and does nothing else. It counts only where it reaches 90 % of the
machine's rate of multiply-adds, or of reading the same bytes without any arithmetic; elsewhere no ratio
is printed. Contenders take turns: each round runs LIMIT, `Stepper.run` and `Stepper.step` of one
network within about a tenth of a second, and a ratio is the median of the rounds' ratios. On a machine that
does other work, too, look at the spread. TABLE: `limit`; `large`, the same for 256 and
512 units; `f16` (`half.py`); `batch` and `detector` (`many.py`).
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when NumPy is imported

import argparse
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numba
import numpy as np

from benchmarks import half, many
from benchmarks.conftest import SHAPES, forecaster
from edge_rnn import Stepper
from edge_rnn.core.model import GATES, Model

LARGE = [(16, 256, 1), (16, 256, 2), (16, 512, 1), (16, 512, 2)]
BATCHES = [(4, 32, 1), (8, 64, 1), (8, 64, 2), (16, 128, 2)]
STREAMS = (2, 16, 64, 256, 1024, 4096)
SOURCE = Path(__file__).parent / "limit" / "limit.c"
REACHED = 0.9


class NoLimitError(Exception):
    """LIMIT cannot be measured here; the message says what to do."""


def compile_limit(folder: Path) -> Path:
    """The program, built for this machine.

    Raises:
        NoLimitError: no compiler, or it fails.
    """
    chosen = os.environ.get("CC")
    compiler = next((c for c in ([chosen] if chosen else ["gcc", "clang", "cc"]) if shutil.which(c)), None)
    if compiler is None:
        raise NoLimitError(
            f"no C compiler: expected {chosen or 'gcc, clang or cc'} on the path; install gcc, or set CC"
        )
    target = folder / "limit"
    native = "-mcpu=native" if platform.machine() in {"aarch64", "arm64"} else "-march=native"
    command = [compiler, "-O3", native, "-ffp-contract=fast", "-o", str(target), str(SOURCE)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode:
        raise NoLimitError(f"{' '.join(command[:-2])}: {built.stderr.strip().splitlines()[-1]}")
    return target


@dataclass(frozen=True, slots=True)
class Limit:
    """One run of the program for one network: ns of the product and of only reading, bytes, MAC a ns."""

    product: float
    reading: float
    size: int
    fma: float

    @property
    def share(self) -> float:
        """The part of the machine's bandwidth or arithmetic that the product reached, the larger."""
        return max(self.reading / self.product, self.size / 4 / self.product / self.fma)


def measure_limit(program: Path, shape: str, size: int, seconds: float = 0.02) -> Limit:
    """LIMIT for `shape` (GATES,I,H,L), scaled from the bytes it read to `size`."""
    text = subprocess.run(
        [str(program), str(seconds), shape], capture_output=True, text=True, check=True
    ).stdout.split()
    fma, read, product, reading = float(text[1]), int(text[5]), float(text[6]), float(text[7])
    return Limit(product * size / read, reading * size / read, size, fma)


def weights_size(model: Model) -> int:
    """Bytes of all matrices that a step reads."""
    layers = sum(layer.w_ih.size + layer.w_hh.size for layer in model.layers)
    return 4 * (layers + sum(linear.weight.size for linear in model.head))


def ns_per_call(call: Callable[[np.ndarray], np.ndarray], x: np.ndarray, count: int) -> float:
    """Mean of `count` calls, as a program would make them: the answer is kept until the next.

    On the thread's CPU clock: a slice given to another process would be counted in whole, where LIMIT's
    many short rounds leave it out.
    """
    start = time.thread_time_ns()
    for _ in range(count):
        y = call(x)  # noqa: F841
    return (time.thread_time_ns() - start) / count


@dataclass(frozen=True, slots=True)
class Row:
    """One network: ns (medians), ratios to LIMIT (medians of rounds; None where LIMIT does not count)."""

    network: str
    limit: float
    share: float
    run: float
    run_ratio: float | None
    run_quartiles: tuple[float, float] | None
    step: float
    over_run: float


def measure(program: Path, cell: str, shape: tuple[int, int, int], rounds: int) -> Row:
    """All contenders for one network, taking turns."""
    model = forecaster(cell, *shape)
    size, spec = weights_size(model), ",".join(map(str, (GATES[cell], *shape)))
    runner, stepper = Stepper(model), Stepper(model)
    estimate = size / 100 + 50
    readings = max(100, int(10e6 / estimate))
    xs = np.random.default_rng(1).standard_normal((readings, shape[0])).astype(np.float32)
    one, calls = xs[0].copy(), max(50, int(10e6 / (estimate + 300)))
    limits, runs, steps = [], [], []
    for _ in range(rounds):
        limits.append(measure_limit(program, spec, size))
        runs.append(ns_per_call(runner.run, xs, 1) / readings)
        steps.append(ns_per_call(stepper.step, one, calls))
    ratios = [run / limit.product for run, limit in zip(runs, limits, strict=True)]
    share = statistics.median(limit.share for limit in limits)
    counts = share >= REACHED
    quartiles = statistics.quantiles(ratios, n=4)
    return Row(
        network=f"{cell.upper()} {'/'.join(map(str, shape))}",
        limit=statistics.median(limit.product for limit in limits),
        share=share,
        run=statistics.median(runs),
        run_ratio=statistics.median(ratios) if counts else None,
        run_quartiles=(quartiles[0], quartiles[2]) if counts else None,
        step=statistics.median(steps),
        over_run=statistics.median(step - run for step, run in zip(steps, runs, strict=True)),
    )


def cpu() -> str:
    """The CPU's name, as the system gives it."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def environment() -> dict[str, str]:
    """What the figures depend on; nothing that names a person or a machine."""
    stepper = Stepper(forecaster("gru", 1, 16, 1))
    return {
        "cpu": cpu(), "python": platform.python_version(), "numpy": np.__version__,
        "numba": numba.__version__, "class": stepper.numeric, "lanes": str(stepper.lanes),
        "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| network | LIMIT ns | reaches | run ns | run / LIMIT (quartiles) | step ns | step - run |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ratio = "-"
        if row.run_ratio is not None and row.run_quartiles is not None:
            ratio = f"{row.run_ratio:.2f} ({row.run_quartiles[0]:.2f}-{row.run_quartiles[1]:.2f})"
        lines.append(
            f"| {row.network} | {row.limit:,.0f} | {row.share:.0%} | {row.run:,.0f} | {ratio} "
            f"| {row.step:,.0f} | {row.over_run:+,.0f} |"
        )
    return "\n".join(lines)


def tables(only: str | None, rounds: int) -> dict[str, object]:
    """Print the tables asked for, `large` and `f16` only if by name. Their rows, as JSON has them."""
    report: dict[str, object] = {}
    for name, shapes in (("limit", SHAPES), ("large", LARGE)):
        if only == name or (only is None and name == "limit"):
            with tempfile.TemporaryDirectory() as folder:
                program = compile_limit(Path(folder))
                rows = [measure(program, c, s, rounds) for c in ("lstm", "gru") for s in shapes]
            print(table(rows), end="\n\n")
            report["rows" if name == "limit" else name] = [asdict(row) for row in rows]
    if only == "f16":
        halves = [half.measure_half(c, s, rounds) for c in ("lstm", "gru") for s in [(8, 64, 1), *LARGE]]
        print(half.half_table(halves))
        report["f16"] = [asdict(row) for row in halves]
    if only in (None, "batch"):
        cells = ("lstm", "gru", "rnn_tanh")
        batches = [many.measure_batch(c, s, n, rounds) for c in cells for s in BATCHES for n in STREAMS]
        print(many.batch_table(batches), end="\n\n")
        report["batch"] = [asdict(row) for row in batches]
    if only in (None, "detector"):
        networks = (("gru", (8, 16, 1)), ("gru", (8, 64, 1)), ("lstm", (8, 64, 1)))
        detectors = [many.measure_detector(c, s, rounds) for c, s in networks]
        print(many.detector_table(detectors))
        report["detector"] = [asdict(row) for row in detectors]
    return report


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="run and step beside the machine's limit")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument(
        "--only", choices=("limit", "large", "f16", "batch", "detector"), help="one table alone"
    )
    options = parser.parse_args(arguments)
    if options.rounds < 3:
        parser.error(f"--rounds: expected at least 3, got {options.rounds}")
    try:
        report = tables(options.only, options.rounds)
    except NoLimitError as error:
        print(f"speed: {error}", file=sys.stderr)
        return 1
    if options.json:
        report["environment"] = environment()
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
