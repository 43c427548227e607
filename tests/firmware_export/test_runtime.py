"""The third side of the parity triangle: exported C gives the Numba kernels' bits, class F and U."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_rnn.core.model import RestState
from firmware_export import TARGETS, toolchain
from tests.firmware_export.running import same_outputs, same_verdicts, write
from tests.firmware_export.zoo import NETWORKS, any_detector, detectors, network
from tests.support import need

HOST = TARGETS["host"]
PLAIN = replace(HOST, fused=False)
SANITIZERS = ("-fsanitize=undefined,address", "-fno-sanitize-recover=all", "-g")
DETECTORS = detectors()


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_c_and_numba_give_the_same_bits(name: str, fused: bool, tmp_path: Path) -> None:
    model = network(len(name), *NETWORKS[name])
    same_outputs(tmp_path, model, HOST if fused else PLAIN, fused=fused, steps=300)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", DETECTORS)
def test_verdicts_have_the_same_bits(name: str, fused: bool, tmp_path: Path) -> None:
    target = HOST if fused else PLAIN
    seen = same_verdicts(tmp_path, DETECTORS[name], target, fused=fused, steps=3000)
    assert {"warming", "fault"} <= seen
    if name != "diverging":
        assert {"normal", "anomaly"} <= seen
    if name == "full":
        assert {"pending", "clearing", "accepted"} <= seen


def _any_detectors(seeds: range, folder: Path) -> None:
    for seed in seeds:
        for compiler in ("gcc", "clang"):
            fused = seed % 2 == 0
            target = HOST if fused else PLAIN
            need.program(compiler)
            same_verdicts(
                folder, any_detector(seed), target, fused=fused, steps=1000, level="-O1", compiler=compiler
            )


def test_any_choice_of_rules_has_the_same_bits(tmp_path: Path) -> None:
    _any_detectors(range(12), tmp_path)


@pytest.mark.torture
def test_many_choices_of_rules_have_the_same_bits(tmp_path: Path) -> None:
    _any_detectors(range(12, 300), tmp_path)


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_sanitizers_find_nothing(compiler: str, tmp_path: Path) -> None:
    need.program(compiler)
    for name in ("mixed, softmax", "lstm with projection"):
        model = network(len(name), *NETWORKS[name])
        same_outputs(
            tmp_path / name[:4], model, HOST, fused=True, steps=200, compiler=compiler, extra=SANITIZERS
        )
    same_verdicts(
        tmp_path / "d", DETECTORS["full"], HOST, fused=True, steps=1000, compiler=compiler, extra=SANITIZERS
    )


@pytest.mark.parametrize("level", ["-Os", "-O3"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_optimisation_changes_no_bit(compiler: str, level: str, tmp_path: Path) -> None:
    need.program(compiler)
    for fused in (True, False):
        folder = tmp_path / str(fused)
        same_verdicts(
            folder, DETECTORS["full"], HOST if fused else PLAIN, fused=fused, steps=500, level=level,
            compiler=compiler,
        )  # fmt: skip


@pytest.mark.torture
@pytest.mark.parametrize("extra", [(), SANITIZERS], ids=["plain", "sanitized"])
@pytest.mark.parametrize("level", ["-Os", "-O2", "-O3"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_long_streams(compiler: str, level: str, extra: tuple[str, ...], tmp_path: Path) -> None:
    need.program(compiler)
    for fused in (True, False):
        target = HOST if fused else PLAIN
        options = {"fused": fused, "steps": 10_000, "level": level, "compiler": compiler, "extra": extra}
        for name, parts in NETWORKS.items():
            model = network(len(name), *parts)
            same_outputs(tmp_path / "n", model, target, **options)  # type: ignore[arg-type]
        for model in DETECTORS.values():
            same_verdicts(tmp_path / "d", model, target, **options)  # type: ignore[arg-type]


def test_the_resting_state_is_the_beginning(tmp_path: Path) -> None:
    model = network(1, [("lstm", 5, 3), ("gru", 4, 0)], [(2, "none")])
    rng = np.random.default_rng(0)
    h = tuple(rng.normal(size=n).astype(np.float32) for n in (3, 4))
    rest = RestState(h=h, c=(rng.normal(size=5).astype(np.float32), None))
    same_outputs(tmp_path, replace(model, rest_state=rest), HOST, fused=True, steps=50)


def test_an_input_that_is_not_finite_changes_nothing(tmp_path: Path) -> None:
    need.program("gcc")
    model = network(1, [("gru", 4, 0)], [(2, "none")])
    write(tmp_path, model, fused=True)
    toolchain.build(tmp_path, "pump", model, HOST, tmp_path / "program", detect=False)
    xs = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    bad = np.insert(xs, 20, [0, np.nan, 0], axis=0)
    bad = np.insert(bad, 5, [np.inf, 0, 0], axis=0)

    def ran(samples: np.ndarray) -> toolchain.Run:
        return toolchain.run(tmp_path / "program", model, HOST, toolchain.step_samples(samples), detect=False)

    good, odd = ran(xs), ran(bad)
    assert np.flatnonzero(odd.results).tolist() == [5, 21]
    assert odd.answers[odd.results == 0].tobytes() == good.answers.tobytes()
    assert odd.state == good.state


def test_a_time_that_does_not_rise_changes_nothing(tmp_path: Path) -> None:
    need.program("gcc")
    model = DETECTORS["plain"]
    write(tmp_path, model, fused=True)
    toolchain.build(tmp_path, "pump", model, HOST, tmp_path / "program", detect=True)
    times = np.array([10, 11, 11, 5, 12], np.int64)
    xs, present = np.ones((5, 3)), np.ones((5, 3), np.uint8)

    def ran(rows: list[int]) -> toolchain.Run:
        samples = toolchain.detect_samples(times[rows], xs[rows], present[rows])
        return toolchain.run(tmp_path / "program", model, HOST, samples, detect=True)

    odd, good = ran([0, 1, 2, 3, 4]), ran([0, 1, 4])
    assert odd.results.tolist() == [0, 0, -2, -2, 0]
    assert odd.state == good.state


def test_a_compiler_that_fuses_by_itself_is_caught(tmp_path: Path) -> None:
    need.program("gcc")
    if not toolchain.host_flags(fused=True):
        pytest.skip("needs a processor whose compiler flags can switch fusing on")
    model = network(1, [("gru", 4, 0)], [(2, "none")])
    write(tmp_path, model, fused=True)
    code = tmp_path / "pump.c"
    text = code.read_text("utf-8")
    xs = toolchain.step_samples(np.zeros((1, 3), np.float32))
    flag = ("-ffp-contract=fast",)
    for guarded in (True, False):
        if not guarded:
            code.write_text(text.replace('#pragma GCC optimize("fp-contract=off")', ""), "utf-8")
        toolchain.build(tmp_path, "pump", model, HOST, tmp_path / "p", detect=False, extra=flag)
        assert toolchain.run(tmp_path / "p", model, HOST, xs, detect=False).arithmetic is guarded


@pytest.mark.parametrize("flags", [("-ffast-math",), ("-mno-fma",)])
def test_flags_that_would_change_bits_do_not_compile(flags: tuple[str, ...], tmp_path: Path) -> None:
    need.program("gcc")
    if not toolchain.host_flags(fused=True):
        pytest.skip("the flags are those of another processor")
    write(tmp_path, network(1, [("gru", 4, 0)], []), fused=True)
    with pytest.raises(toolchain.ExportError, match="#error"):
        toolchain.compile_only(tmp_path, "pump", HOST, tmp_path / "o", extra=flags)
