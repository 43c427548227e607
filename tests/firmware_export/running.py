"""An export built and run, its words compared with the Python runtime's."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge_rnn.core.integer_step import IntegerStepper
from edge_rnn.core.integers import Quantized
from edge_rnn.core.layout import StateLayout
from edge_rnn.core.model import Model
from edge_rnn.core.stepper import Stepper
from edge_rnn.detect.verdict import STATUSES
from firmware_export import from_device, toolchain
from firmware_export.checking import different
from firmware_export.golden import detector, runtime
from firmware_export.integer_source import Packing
from firmware_export.recorded import exported
from firmware_export.source import generate
from firmware_export.state import state_dtype
from firmware_export.targets import Target
from tests.firmware_export.zoo import stream
from tests.support import need


def write(
    folder: Path, model: Model, *, fused: bool, name: str = "pump", quantized: Quantized | None = None,
    packing: Packing = "plain", initial: bytes | None = None,
) -> None:  # fmt: skip
    source = generate(model, name, fused, initial, quantized=quantized, packing=packing)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.h").write_text(source.header, "utf-8")
    (folder / f"{name}.c").write_text(source.code, "utf-8")


def needed(target: Target) -> None:
    need.program(target.compiler)
    if target.machine:
        need.program(target.machine[0])


def same_outputs(
    folder: Path, model: Model, target: Target, *, fused: bool, steps: int, level: str = "-O2",
    compiler: str | None = None, extra: tuple[str, ...] = (), quantized: Quantized | None = None,
    lively: bool = True,
) -> None:  # fmt: skip
    """All words of `steps` outputs, and the state at the end, are the runtime's."""
    needed(target)
    write(folder, model, fused=fused, quantized=quantized, packing=target.packing)
    program = folder / "program"
    toolchain.build(
        folder, "pump", model, target, program, level=level, detect=False, compiler=compiler, extra=extra
    )
    xs = (np.random.default_rng(1).standard_normal((steps, model.input_size)) * 2).astype(np.float32)
    ours = runtime(model, quantized, fused=fused)
    y = ours.run(xs)
    assert np.ptp(y) > 0.01 or not lively
    samples = toolchain.step_samples(xs)
    ran = toolchain.run(program, model, target, samples, detect=False, quantized=quantized)
    assert ran.arithmetic
    assert not ran.results.any()
    assert int((ran.answers.view(np.uint32) != y.view(np.uint32)).sum()) == 0
    if isinstance(ours, IntegerStepper):
        there = np.frombuffer(ran.state, state_dtype(model, quantized))
        words = ours.state
        for i, place in enumerate(StateLayout(model).layers):
            assert there[f"h{i}"][0].tolist() == words[place.h_offset :][: place.h_size].tolist()
            if place.c_size:
                assert there[f"c{i}"][0].tolist() == words[place.c_offset :][: place.c_size].tolist()
    elif model.detector is None:
        again = Stepper(model, numeric="F" if fused else "U")
        again.restore(from_device(model, ran.state, fused=fused))
        assert again.step(xs[0]).tolist() == ours.step(xs[0]).tolist()


def same_verdicts(
    folder: Path, model: Model, target: Target, *, fused: bool, steps: int, level: str = "-O2",
    compiler: str | None = None, extra: tuple[str, ...] = (), quantized: Quantized | None = None,
) -> set[str]:  # fmt: skip
    """All words of `steps` verdicts are the runtime's; the statuses that were seen."""
    needed(target)
    write(folder, model, fused=fused, quantized=quantized, packing=target.packing)
    program = folder / "program"
    toolchain.build(
        folder, "pump", model, target, program, level=level, detect=True, compiler=compiler, extra=extra
    )
    times, xs, present = stream(model, steps)
    expected = detector(model, quantized, fused=fused).run(times, xs, present)
    samples = toolchain.detect_samples(times, xs, present)
    ran = toolchain.run(program, model, target, samples, detect=True, quantized=quantized)
    assert ran.arithmetic
    assert not ran.results.any()
    wrong, words = different(ran.answers, exported(expected, model.input_size))
    assert words >= steps * (6 + 4 * model.input_size)
    assert wrong == 0
    return {STATUSES[k] for k in np.unique(expected["status"])} | (
        {"accepted"} if expected["accepted"].any() else set()
    )
