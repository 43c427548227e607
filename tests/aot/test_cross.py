"""Built on x86-64 for AArch64 and run under qemu-aarch64: 0 differing bits of everything that is called.

Steppers, batches, windows and detectors run here with their functions on the emulated machine
(`transplant.py`) and beside them with the just-in-time compiler's. QEMU's user mode emulates the processor's
arithmetic in software; it says nothing about speed.
"""

from __future__ import annotations

import dataclasses
import platform
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_rnn import Detector, Stepper, StepperBatch, WindowStepper
from edge_rnn.aot.emit import emit
from edge_rnn.aot.link import link
from edge_rnn.aot.targets import target_named
from edge_rnn.core import loop
from edge_rnn.core.entries import DRIVE, MANY
from edge_rnn.core.model import Model
from edge_rnn.core.tiling import fewest_ready
from edge_rnn.detect import detector
from edge_rnn.detect.detector import DetectorTable
from edge_rnn.detect.entries import STEP_ROWS
from edge_rnn.detect.plan import plan_of
from tests.aot.libraries import built
from tests.aot.test_bits import SPECS, hostile
from tests.aot.transplant import Elsewhere
from tests.core.zoo import CELLS, ODD_MODELS, VARIANTS, bits, readings
from tests.core.zoo import model as network
from tests.detect import models
from tests.support import need, torture

DRIVER = Path(__file__).with_name("driver.c")
SOME_MODELS = ("mixed", "projection-17", "heads", "lstm-5-20-3-16", "gru-4-33-2-17")
USUAL: dict[Any, Any] = {module: vars(module)["backend"] for module in (loop, detector)}
# Detectors whose words only the general functions know.
GENERAL = ("mewma", "mewma_diagonal", "ewma_z", "running_z", "likelihood", "cusum", "page_hinkley", "level")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that runs the driver for AArch64."""
    program = tmp_path_factory.mktemp("driver") / "driver"
    compiler = need.program("aarch64-linux-gnu-gcc")
    flags = ["-O1", "-Wall", "-Werror", "-Wl,--no-as-needed", "-o", str(program), str(DRIVER), "-lm", "-ldl"]
    done = subprocess.run([compiler, *flags], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if platform.machine() == "aarch64":
        return [str(program)]
    return [need.program("qemu-aarch64"), "-L", "/usr/aarch64-linux-gnu", str(program)]


@pytest.fixture
def there(machine: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """there(library, lanes, fused): from now on `library="there"` means that library, emulated."""
    made: list[Elsewhere] = []

    def use(library: Path, lanes: int, fused: bool) -> Elsewhere:
        backend = Elsewhere(lanes, fused, machine, library, tmp_path)
        made.append(backend)
        for module in (loop, detector):
            usual = USUAL[module]

            def choose(model: Model, numeric: Any, *given: Any, usual: Any = usual, **named: Any) -> Any:
                if "there" in (*given, *named.values()):
                    return backend
                return usual(model, numeric, *given, **named)

            monkeypatch.setattr(module, "backend", choose)
        return backend

    yield use
    for backend in made:
        backend.close()


def same_steps(model: Model, count: int, numeric: Any) -> None:
    """run, step and step with other readings, with the state in between."""
    ours, theirs = Stepper(model, library="there"), Stepper(model, numeric)
    xs = readings(count, model.input_size)
    assert bits(ours.run(xs)) == bits(theirs.run(xs))
    assert ours.snapshot() == theirs.snapshot()
    held = [[s.step(x).copy() for x in xs[:2]] for s in (ours, theirs)]
    assert bits(held[0]) == bits(held[1])
    assert bits(ours.step(xs[2].astype(np.float64))) == bits(theirs.step(xs[2].astype(np.float64)))
    assert bits(ours.step(xs[3].tolist())) == bits(theirs.step(xs[3].tolist()))
    assert ours.snapshot() == theirs.snapshot()
    assert ours.steps == count + 4
    for stepper in (ours, theirs):
        with pytest.raises(ValueError, match=r"x\[0\]: expected a finite float32"):
            stepper.step(np.full(model.input_size, np.nan, np.float32))


def same_batches(model: Model, count: int, numeric: Any) -> None:
    """All streams, some of them, and some twice, each as floats of 32 and 64 bits."""
    ours, theirs = StepperBatch(model, count, library="there"), StepperBatch(model, count, numeric)
    xs = readings(count, model.input_size, seed=3)
    some = np.random.default_rng(4).permutation(np.resize(np.arange(count), count + 3))[: max(count - 1, 1)]
    for given in (xs, xs[::-1].astype(np.float64)):
        assert bits(ours.step(given)) == bits(theirs.step(given))
        wanted = theirs.step_some(some, given[: len(some)])
        assert bits(ours.step_some(some, given[: len(some)])) == bits(wanted)
    assert bits(ours.step(xs.tolist())) == bits(theirs.step(xs.tolist()))
    for row in range(count):
        assert ours.snapshot(row) == theirs.snapshot(row)
    assert len(set(np.ravel(bits(wanted)))) > 1 or model.output_size == count == 1


def same_windows(model: Model, numeric: Any) -> None:
    """Windows over the last readings."""
    xs = readings(6, model.input_size)
    ours, theirs = WindowStepper(model, 4, library="there"), WindowStepper(model, 4, numeric)
    assert bits(ours.run(xs)) == bits(theirs.run(xs))


def same_verdicts(model: Model, count: int, numeric: Any) -> None:
    """Rows of a table in turns, then one stream's step, advance and run."""
    times, x, present = hostile(model, count)
    tables = DetectorTable(model, 3, library="there"), DetectorTable(model, 3, numeric)
    made = []
    for table in tables:
        out = np.zeros(count, table.verdict_dtype)
        table.step_rows(np.arange(count) % 3, times, x, present, out)
        made.append((out.tobytes(), table.states.tobytes()))
    assert made[0] == made[1]
    ours, theirs = Detector(model, library="there"), Detector(model, numeric)
    assert ours.run(times, x, present).tobytes() == theirs.run(times, x, present).tobytes()
    assert ours.snapshot() == theirs.snapshot()
    at = int(times[-1]) + 10**9
    assert repr(ours.step(x[5], at)) == repr(theirs.step(x[5], at))
    for one in (ours, theirs):
        one.input[:] = x[6]
    assert np.float64(ours.advance(at + 10**9)).tobytes() == np.float64(theirs.advance(at + 10**9)).tobytes()
    assert ours.snapshot() == theirs.snapshot()


def general(kind: str, cell: Any = "gru") -> Model:
    """A model whose detector the general functions judge."""
    mean = (0.0,) * 3 if kind in ("running_z", "likelihood") else ()
    scorers = (models.scorer(3, kind, side="up", tail=None, mean=mean),)
    model = models.model(3, models.spec(3, scorers=scorers), cell)
    assert plan_of(model).general
    return model


@pytest.fixture(scope="module")
def a53() -> Path:
    """A library for Cortex-A53, which also runs on all later cores, with the functions used most."""
    need.program("aarch64-linux-gnu-ld")
    return built("cortex-a53", DRIVE, MANY, STEP_ROWS)[0] / "edge_rnn.so"


@pytest.mark.parametrize("name", ["mixed", "projection-17", "lstm-5-20-3-16"])
def test_steps_have_no_differing_bit(name, a53, there) -> None:
    backend = there(a53, 8, True)
    same_steps(ODD_MODELS[name](), 300, "F")
    assert backend.calls == {"drive": 8}  # a list and a NaN are tried twice


@pytest.mark.parametrize(("name", "count"), [("gru-4-33-2-17", 21), ("heads", 16), ("lstm-1-1-1-1", 3)])
def test_batches_have_no_differing_bit(name, count, a53, there) -> None:
    backend = there(a53, 8, True)
    model = ODD_MODELS[name]()
    assert (fewest_ready(model, 8) <= count) == (count > 3)  # in tiles, or one by one
    same_batches(model, count, "F")
    assert backend.calls["many"] >= 5


@pytest.mark.parametrize("name", ["fixed", "guard"])
def test_verdicts_have_no_differing_bit(name, a53, there) -> None:
    there(a53, 8, True)
    same_verdicts(models.model(3, models.spec(3, **SPECS[name]), "gru"), 600, "F")


def test_memory_that_nobody_has_written_does_no_harm(a53, there, monkeypatch) -> None:
    """What was freed may hold addresses: outputs written there once looked like links and were put back."""
    there(a53, 8, True)
    model = ODD_MODELS["heads"]()
    ours, theirs = StepperBatch(model, 16, library="there"), StepperBatch(model, 16, "F")
    xs, empty = readings(16, model.input_size), np.empty
    wanted = theirs.step(xs)

    def stale(shape: Any, dtype: Any = float) -> Any:
        array = empty(shape, dtype)
        if array.nbytes % 8 == 0 and array.flags.c_contiguous:
            array.reshape(-1).view(np.int64)[:] = ours._table
        return array

    monkeypatch.setattr(np, "empty", stale)
    ys = ours.step(xs)
    monkeypatch.undo()
    assert bits(ys) == bits(wanted)


@pytest.mark.torture
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    ("name", "variants"),
    [("cortex-a53", VARIANTS), ("cortex-a72", [(8, "F")]), ("cortex-a76", [(8, "F")])],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)}",
)
def test_every_core_and_network(name, variants, there, tmp_path) -> None:
    begin, done = time.monotonic(), 0
    for lanes, numeric in variants:
        target = dataclasses.replace(target_named(name), lanes=lanes, fused=numeric == "F")
        emit(target, tmp_path / "code.o")
        library = tmp_path / f"{lanes}{numeric}.so"
        link(target, tmp_path / "code.o", library)
        backend = there(library, lanes, numeric == "F")
        usual = (lanes, numeric) == (8, "F")  # what a build for these cores has: everything
        for word in ODD_MODELS if usual else SOME_MODELS:
            model = ODD_MODELS[word]()
            same_steps(model, 500, numeric)
            same_windows(model, numeric)
            for count in (1, 3, 70) if usual else (70,):
                same_batches(model, count, numeric)
        for cell in CELLS:
            for hidden in (16, 64, 100) if usual else (40,):
                same_batches(network(cell, 5, hidden, 2, 3, seed=hidden), 70, numeric)
        for word in SPECS.keys() - {"dspot"}:
            for cell in ("gru", "lstm", "rnn_tanh") if usual else ("gru",):
                same_verdicts(models.model(3, models.spec(3, **SPECS[word]), cell), 2000, numeric)
        for kind in GENERAL if usual else GENERAL[:1]:
            same_verdicts(general(kind), 2000, numeric)
        assert backend.calls.keys() == {"drive", "many", "step_rows", "step_rows_of_any"}
        done += sum(backend.calls.values())
    torture.record(
        f"built on x86-64 for {name}, emulated",
        f"{len(variants)} width(s) and class(es), {len(ODD_MODELS) + 3 * len(CELLS)} networks, "
        f"{3 * (len(SPECS) - 1) + len(GENERAL)} detectors",
        f"{done:,} calls of steps, runs, windows, batches, detectors: 0 differing bits",
        time.monotonic() - begin,
    )
