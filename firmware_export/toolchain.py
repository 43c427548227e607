"""Compiling an export and running it on recorded samples: on this computer, or under QEMU.

`harness/` has what a bare machine needs around a model: start-up code, linker scripts, and a loop that
reads samples and writes down every word of the answers. With an emulated core the samples come and go as
the host's files `in.bin` and `out.bin` (semihosting). `-icount shift=0` makes QEMU count instructions:
exact, repeatable, and no measure of time.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.integers import Quantized
from edge_rnn.core.model import Model
from edge_rnn.detect.verdict import verdict_dtype
from edge_rnn.errors import ExportError
from firmware_export.state import state_dtype
from firmware_export.targets import Target

# What the emitted code must stand without a word; every layout's build files have it too.
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror", "-ffp-contract=off")
_TIMEOUT = 600


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What a program answered; T samples.

    results: (T,) what each call returned. y: (T, O) float32, or verdicts: (T,) records. state: the bytes at
    the end. instructions: mean per call with the loop around it, None where nothing counts. arithmetic: the
    build computes as the model needs it."""

    results: NDArray[np.int64]
    answers: NDArray[np.generic]
    state: bytes
    instructions: float | None
    arithmetic: bool


def host_flags(*, fused: bool) -> tuple[str, ...]:
    """What this computer's compiler needs for the class."""
    return ("-mfma",) if fused and platform.machine() in ("x86_64", "AMD64") else ()


def missing(target: Target, *, run: bool = True) -> str | None:
    """The first program that is needed and not installed."""
    needed = [target.compiler, *(target.machine[:1] if run else ())]
    return next((name for name in needed if shutil.which(name) is None), None)


def harness() -> Path:
    """The folder of start-up code and linker scripts."""
    return Path(str(resources.files("firmware_export") / "harness"))


def build(
    folder: Path,
    name: str,
    model: Model,
    target: Target,
    program: Path,
    *,
    level: str = "-O2",
    detect: bool,
    compiler: str | None = None,
    extra: Sequence[str] = (),
) -> None:
    """Compile `folder`/name.c, strictly, and link it with the harness into `program`.

    Raises:
        ExportError: a compiler is missing or does not accept the code.
    """
    base = harness()
    where = compiler or target.compiler
    flags = [*target.flags, *(host_flags(fused=target.fused) if target.name == "host" else ()), level]
    defines = [
        f"-DHARNESS_MODEL={name}", f'-DHARNESS_HEADER="{name}.h"', f"-DHARNESS_DETECT={int(detect)}",
        f"-DN_INPUTS={model.input_size}", f"-DN_OUTPUTS={model.output_size}",
    ]  # fmt: skip
    code = program.with_suffix(".o")
    compile_only(folder, name, target, code, level=level, compiler=compiler, extra=extra)
    link: list[str] = []
    defines += [f"-D{key}={value}u" for key, value in target.memory if key == "TICK_PS"]
    if target.script:
        memory = [f"-Wl,--defsym={key}={value}" for key, value in target.memory]
        link = ["-nostdlib", "-nostartfiles", "-T", str(base / target.script), *memory]
    library = ["-lgcc"] if target.script else []
    bare = ["-ffreestanding", "-std=gnu99"] if target.script else ["-std=c99"]
    _call(
        [
            where, *flags, *bare, *extra, *defines, f"-I{folder}", f"-I{base}", *link, "-o", str(program),
            str(base / "stream.c"), str(base / target.start), str(code), *library,
        ]
    )  # fmt: skip


def compile_only(
    folder: Path,
    name: str,
    target: Target,
    code: Path,
    *,
    level: str = "-O2",
    compiler: str | None = None,
    extra: Sequence[str] = (),
) -> None:
    """Compile `folder`/name.c, strictly, into the object file `code`; errors as `build`."""
    flags = [*target.flags, *(host_flags(fused=target.fused) if target.name == "host" else ()), level]
    words = [compiler or target.compiler, *flags, *STRICT, *extra, "-c", "-o", str(code)]
    _call([*words, str(folder / f"{name}.c")])


def run(
    program: Path,
    model: Model,
    target: Target,
    samples: NDArray[Any],
    *,
    detect: bool,
    count: bool = False,
    quantized: Quantized | None = None,
) -> Run:
    """Run a program that `build` made on samples (`step_samples`, `detect_samples`).

    Raises:
        ExportError: the program or the emulator failed.
    """
    folder = program.parent
    instructions = False
    if target.script:
        (folder / "in.bin").write_bytes(samples.tobytes())
        (folder / "out.bin").unlink(missing_ok=True)
        words = [*target.machine, "-nographic", "-semihosting-config", "enable=on,target=native"]
        words += ["-icount", "shift=0,sleep=off"] if count else []
        _call([*words, "-kernel", str(program)], folder)
        data = (folder / "out.bin").read_bytes()
        instructions = count
    else:
        done = _call([*target.machine, str(program)], folder, samples.tobytes())
        data = done
    kind: np.dtype[np.void]
    if detect:
        kind = np.dtype([("result", "<i8"), ("answer", verdict_dtype(model.input_size))])
    else:
        kind = np.dtype([("result", "<i4"), ("answer", "<f4", (model.output_size,))])
    tail = 24 + state_dtype(model, quantized).itemsize
    if len(data) != len(samples) * kind.itemsize + tail:
        raise ExportError(f"{program.name}: expected {len(samples)} answers, got {len(data)} bytes")
    records = np.frombuffer(data[:-tail], kind)
    total, counted, arithmetic = np.frombuffer(data[-tail:], "<u8", 3).tolist()
    return Run(
        records["result"].astype(np.int64), records["answer"], data[-tail + 24 :],
        total / counted if instructions and counted else None, arithmetic == 1,
    )  # fmt: skip


def step_samples(xs: NDArray[np.float32]) -> NDArray[np.generic]:
    """Readings in model space (T, I) as the harness reads them."""
    return np.ascontiguousarray(xs, "<f4")


def detect_samples(
    times_ns: NDArray[np.int64], xs: NDArray[np.float64], present: NDArray[np.uint8]
) -> NDArray[np.void]:
    """Raw readings (T, C) with 0 absent, 1 new, 2 held, as the harness reads them."""
    kind = np.dtype([("time", "<i8"), ("present", "<u8"), ("held", "<u8"), ("x", "<f8", (xs.shape[1],))])
    samples = np.zeros(len(times_ns), kind)
    bits = np.left_shift(np.uint64(1), np.arange(xs.shape[1], dtype=np.uint64))
    samples["time"], samples["x"] = times_ns, xs
    samples["present"] = ((present == 1) * bits).sum(1, dtype=np.uint64)
    samples["held"] = ((present == 2) * bits).sum(1, dtype=np.uint64)
    return samples


def _call(words: Sequence[str], folder: Path | None = None, data: bytes | None = None) -> bytes:
    try:
        done = subprocess.run(  # noqa: S603  (programs and flags of targets.py)
            list(words), cwd=folder, input=data, stdin=subprocess.DEVNULL if data is None else None,
            capture_output=True, timeout=_TIMEOUT, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise ExportError(f"{words[0]}: not installed; install it, or do without this step") from None
    except subprocess.TimeoutExpired:
        raise ExportError(f"{words[0]}: no end after {_TIMEOUT} s") from None
    if done.returncode:
        said = re.sub(r"\s+", " ", done.stderr.decode("utf-8", "replace")).strip()
        raise ExportError(f"{words[0]}: failed with {done.returncode}: {said[:2000]}")
    return done.stdout
