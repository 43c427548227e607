"""The counting behind the estimates: code weighs what the emulator saw, and what is missing is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import estimate
from benchmarks.conftest import forecaster
from benchmarks.estimate import Code, Tools
from edge_rnn.aot.targets import target_named
from tests.support import need


@pytest.fixture(scope="module")
def a53(tmp_path_factory: pytest.TempPathFactory) -> Code:
    """The step's code for Cortex-A53."""
    for program in ("llvm-mca", "llvm-objdump", "aarch64-linux-gnu-gcc", "qemu-aarch64"):
        need.program(program)
    return Code(target_named("cortex-a53"), Tools.found(), tmp_path_factory.mktemp("code"))


def test_a_step_takes_the_multiplications_its_network_has(a53) -> None:
    small, large = (a53.counts(forecaster("gru", 4, hidden, 1)) for hidden in (16, 32))

    def products(counts: dict[tuple[int, ...], int]) -> int:
        return sum(n for p, n in counts.items() for at in p if a53.text[at].startswith("fmla"))

    # 3 gates; 4 units a vector; input and hidden rows.
    assert 3 * 32 * (4 + 32) / 4 <= products(large) <= 3 * 32 * (4 + 32) / 4 * 1.5
    more = products(large) - products(small)
    rows = 3 * (32 * 36 - 16 * 20) / 4
    assert rows <= more <= rows * 1.5


def test_an_interval_has_its_throughput_below_its_serial_end(a53) -> None:
    made = a53.cycles(forecaster("lstm", 1, 16, 1), "cortex-a53")
    assert made.instructions / 2 < made.low < made.high < made.instructions * 10  # it issues two at best


def test_missing_programs_are_named_with_what_brings_them(monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setattr(estimate.shutil, "which", lambda _: None)
    assert estimate.main(["--results", str(tmp_path)]) != 0
    error = capsys.readouterr().err
    assert "llvm-mca and llvm-objdump not found; install Debian's llvm-19, or llvm" in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
    with pytest.raises(estimate.EdgeRnnError, match="qemu-aarch64 not found; install Debian's qemu-user"):
        estimate.needed("qemu-aarch64", "qemu-user")


def test_a_program_that_fails_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(estimate.EdgeRnnError, match="failed: "):
        estimate._output(["ls", str(tmp_path / "no such folder")])
    with pytest.raises(estimate.EdgeRnnError, match="cannot be run"):
        estimate._output([str(tmp_path / "no such program")])
