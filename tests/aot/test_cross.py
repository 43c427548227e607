"""Built on x86-64 for AArch64 and run under qemu-aarch64: 0 differing bits of step and detector.

QEMU's user mode emulates the processor's arithmetic in software; it says nothing about speed.
"""

from __future__ import annotations

import dataclasses
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_rnn.aot.emit import emit
from edge_rnn.aot.link import link
from edge_rnn.aot.targets import target_named
from edge_rnn.core.entries import DONE, DRIVE, Entry
from edge_rnn.core.layout import address
from edge_rnn.core.loop import StepLoop
from edge_rnn.core.model import Float32, Model
from edge_rnn.detect import detector
from edge_rnn.detect.detector import DetectorTable
from edge_rnn.detect.entries import STEP_ROWS
from tests.aot.libraries import built
from tests.aot.test_bits import SPECS, hostile
from tests.aot.transplant import Call, arrays_of
from tests.core.zoo import ODD_MODELS, VARIANTS, readings
from tests.detect import models
from tests.support import need

DRIVER = Path(__file__).with_name("driver.c")


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


@pytest.fixture(scope="module")
def a53() -> Path:
    """A library for Cortex-A53, which also runs on all later cores, with the functions used most."""
    need.program("aarch64-linux-gnu-ld")
    return built("cortex-a53", DRIVE, STEP_ROWS)[0] / "edge_rnn.so"


def steps_there(model: Model, xs: Float32, lanes: int, numeric: Any, *where: Any) -> tuple[bytes, bytes]:
    """Outputs and state after steps through xs, computed by the library `where` says."""
    one = StepLoop(model, numeric, lanes)
    states, ys = one.at_rest(1), np.zeros((len(xs), model.output_size), np.float32)
    taken = np.zeros(1, np.uint64)
    table = one.table(states, xs, ys, len(xs), steps=taken)
    call = Call(DRIVE, (address(table), 0), arrays_of(one, states, xs, ys, taken, table))
    result, blocks = call.there(*where)
    assert result == DONE
    assert call.content(blocks, taken) == np.uint64(len(xs)).tobytes()
    return call.content(blocks, ys), call.content(blocks, states)


def steps_here(model: Model, xs: Float32, numeric: Any) -> tuple[bytes, bytes]:
    """The same by this process, at its own width."""
    one = StepLoop(model, numeric)
    states, ys = one.at_rest(1), np.zeros((len(xs), model.output_size), np.float32)
    one(states, xs, ys)
    return ys.tobytes(), states.tobytes()


def verdicts_there(
    model: Model, samples: Any, lanes: int, fused: bool, monkeypatch: Any, *where: Any
) -> tuple[bytes, bytes]:
    """Verdicts and state after judging samples, computed by the library `where` says."""
    times, x, present = samples
    monkeypatch.setattr(detector, "backend", lambda *_, **__: Fixed(lanes, fused))
    table = DetectorTable(model, 1)
    rows, out = np.zeros(len(x), np.int64), np.zeros(len(x), table.verdict_dtype)
    made: list[Call] = []

    def caught(*arguments: int) -> int:
        made.append(Call(entry, arguments, arrays_of(table, rows, times, x, present, out)))
        return len(x)

    entry, table._run = table._run, caught
    assert isinstance(entry, Entry)
    table.step_rows(rows, times, x, present, out)
    (call,) = made
    result, blocks = call.there(*where)
    assert result == len(x)
    return call.content(blocks, out), call.content(blocks, table.states)


@dataclass
class Fixed:
    """A backend without functions, for what is packed here and run elsewhere."""

    lanes: int
    fused: bool

    def code(self, entry: Any) -> Any:
        return entry


def verdicts_here(model: Model, samples: Any, numeric: Any) -> tuple[bytes, bytes]:
    """The same by this process, at its own width."""
    times, x, present = samples
    table = DetectorTable(model, 1, numeric)
    out = np.zeros(len(x), table.verdict_dtype)
    table.step_rows(np.zeros(len(x), np.int64), times, x, present, out)
    return out.tobytes(), table.states.tobytes()


@pytest.mark.parametrize("name", ["mixed", "projection-17", "lstm-5-20-3-16", "gru-4-33-2-17", "heads"])
def test_steps_have_no_differing_bit(name, a53, machine, tmp_path) -> None:
    model = ODD_MODELS[name]()
    xs = readings(500, model.input_size)
    emulated = steps_there(model, xs, 8, "F", machine, a53, tmp_path)
    assert emulated == steps_here(model, xs, "F")
    assert len(set(np.frombuffer(emulated[0], np.float32).tolist())) > 100


@pytest.mark.parametrize("name", SPECS.keys() - {"dspot"})
def test_verdicts_have_no_differing_bit(name, a53, machine, tmp_path, monkeypatch) -> None:
    model = models.model(3, models.spec(3, **SPECS[name]), "gru")
    samples = hostile(model, 1000)
    here = verdicts_here(model, samples, "F")
    assert verdicts_there(model, samples, 8, True, monkeypatch, machine, a53, tmp_path) == here


@pytest.mark.torture
@pytest.mark.parametrize("name", ["cortex-a53", "cortex-a72", "cortex-a76"])
@pytest.mark.parametrize(("lanes", "numeric"), VARIANTS)
def test_every_core_width_and_class(name, lanes, numeric, machine, tmp_path, monkeypatch) -> None:
    target = dataclasses.replace(target_named(name), lanes=lanes, fused=numeric == "F")
    emit(target, tmp_path / "code.o")
    library = tmp_path / "library.so"
    link(target, tmp_path / "code.o", library)
    for make in ODD_MODELS.values():
        model = make()
        xs = readings(2000, model.input_size)
        there = steps_there(model, xs, lanes, numeric, machine, library, tmp_path)
        assert there == steps_here(model, xs, numeric)
    for spec in (SPECS[name] for name in SPECS if name != "dspot"):
        for cell in ("gru", "lstm", "rnn_tanh"):
            model = models.model(3, models.spec(3, **spec), cell)
            samples = hostile(model, 3000)
            here = verdicts_here(model, samples, numeric)
            with monkeypatch.context() as patch:
                there = verdicts_there(
                    model, samples, lanes, numeric == "F", patch, machine, library, tmp_path
                )
            assert there == here
