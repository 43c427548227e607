"""The exported code on emulated cores: every word of its answers is the Python runtime's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from firmware_export import TARGETS, toolchain
from firmware_export.budget import LEVEL
from firmware_export.targets import MICROBIT, Target
from tests.firmware_export.running import needed, same_outputs, same_verdicts, write
from tests.firmware_export.zoo import NETWORKS, detectors, network

CORES = {**{name: t for name, t in TARGETS.items() if t.machine}, "cortex-m0": MICROBIT}
DETECTORS = detectors()


@pytest.mark.parametrize("core", CORES)
def test_the_core_gives_the_same_bits(core: str, tmp_path: Path) -> None:
    target = CORES[core]
    same_outputs(
        tmp_path / "n", network(1, *NETWORKS["lstm with projection"]), target, fused=target.fused, steps=40
    )
    seen = same_verdicts(tmp_path / "d", DETECTORS["full"], target, fused=target.fused, steps=300)
    assert {"warming", "normal", "anomaly", "fault"} <= seen


@pytest.mark.torture
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("level", ["-Os", "-O2", "-O3"])
@pytest.mark.parametrize("core", CORES)
def test_long_streams(core: str, level: str, tmp_path: Path) -> None:
    target = CORES[core]
    for name, parts in NETWORKS.items():
        model = network(len(name), *parts)
        same_outputs(tmp_path / "n", model, target, fused=target.fused, steps=10_000, level=level)
    for model in DETECTORS.values():
        same_verdicts(tmp_path / "d", model, target, fused=target.fused, steps=10_000, level=level)


def _instructions(folder: Path, target: Target, hidden: int, cell: str = "lstm", level: str = LEVEL) -> float:
    """Instructions of a step of a model of 4 inputs and outputs, per multiply-add."""
    needed(target)
    model = network(0, [(cell, hidden, 0)], [(4, "none")], inputs=4)  # type: ignore[list-item]
    write(folder, model, fused=target.fused)
    toolchain.build(folder, "pump", model, target, folder / "program", detect=False, level=level)
    xs = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
    ran = toolchain.run(
        folder / "program", model, target, toolchain.step_samples(xs), detect=False, count=True
    )
    assert ran.instructions is not None
    return ran.instructions / model.macs


def test_counted_instructions_repeat(tmp_path: Path) -> None:
    first = _instructions(tmp_path / "a", TARGETS["m4f"], 8)
    assert _instructions(tmp_path / "b", TARGETS["m4f"], 8) == first


@pytest.mark.parametrize(
    ("core", "cell", "hidden", "most"),
    [("m4f", "lstm", 32, 4.0), ("m4f", "lstm", 128, 3.0), ("m4f", "gru", 32, 4.0), ("m4f", "gru", 128, 3.0)],
)
def test_instructions_per_multiply_add(
    core: str, cell: str, hidden: int, most: float, tmp_path: Path
) -> None:
    assert _instructions(tmp_path, TARGETS[core], hidden, cell) <= most


def test_class_u_stays_close_to_class_f(tmp_path: Path) -> None:
    """The bound of the numeric contract, on the emulated core itself."""
    model = network(2, *NETWORKS["gru"])
    xs = np.random.default_rng(1).normal(size=(200, 3)).astype(np.float32)
    answers = []
    for core in ("m3", "m4f"):
        target = CORES[core]
        needed(target)
        write(tmp_path / core, model, fused=target.fused)
        program = tmp_path / core / "program"
        toolchain.build(tmp_path / core, "pump", model, target, program, detect=False)
        answers.append(
            toolchain.run(program, model, target, toolchain.step_samples(xs), detect=False).answers
        )
    assert np.abs(answers[0].astype(float) - answers[1].astype(float)).max() <= 5e-7


def test_a_class_f_export_does_not_compile_for_a_core_without(tmp_path: Path) -> None:
    target = replace(CORES["m3"], fused=True)
    needed(target)
    write(tmp_path, network(2, *NETWORKS["gru"]), fused=True)
    with pytest.raises(toolchain.ExportError, match="fused multiply-add"):
        toolchain.compile_only(tmp_path, "pump", target, tmp_path / "o")
