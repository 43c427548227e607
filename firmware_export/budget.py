"""What an export costs: flash, RAM, stack, instructions, and an estimate of time.

Constants, state and multiply-adds follow from the model and are exact for every compiler. Code, stack and
instructions are measured with the target's own compiler and QEMU where these are installed, else they are
absent and the reason is given; they are of GCC at the stated level and change with the compiler. The
compiler's support library (soft float, 64-bit division) is not in code and stack, but its instructions are
counted. Instructions are no time: the interval at a clock multiplies them by assumed cycles per
instruction.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from edge_rnn.core.integers import Quantized
from edge_rnn.core.model import Model
from edge_rnn.errors import ExportError
from firmware_export import toolchain
from firmware_export.golden import Golden
from firmware_export.source import Source, generate
from firmware_export.targets import Target

LEVEL = "-O2"


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one call: bytes of code and stack, instructions; None where not measured."""

    code_bytes: int | None = None
    stack_bytes: int | None = None
    instructions: float | None = None
    microseconds: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """Bytes and instructions of one export.

    weight_bytes, table_bytes: constants; code_bytes: all code, None where not measured; flash_bytes: all of
    these, without code where that was not measured; ram_bytes: state (and verdict) of one stream. compiler:
    what code was measured with; not_measured: why something was not; step, detect: of a call."""

    target: str
    type: str
    macs: int
    weight_bytes: int
    table_bytes: int
    code_bytes: int | None
    flash_bytes: int
    state_bytes: int
    verdict_bytes: int
    ram_bytes: int
    step: Cost
    detect: Cost | None
    compiler: str = ""
    clock_hz: float | None = None
    not_measured: str = ""

    def as_json(self) -> dict[str, object]:
        """Plain numbers for a JSON file."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For people, one fact a line."""
        code = "not measured" if self.code_bytes is None else f"{self.code_bytes:,} B"
        constants = f"weights {self.weight_bytes:,} B, tables {self.table_bytes:,} B"
        verdict = f", verdict {self.verdict_bytes:,} B" if self.verdict_bytes else ""
        found = [
            f"flash   {self.flash_bytes:,} B: {constants}, code {code}",
            f"RAM     {self.ram_bytes:,} B a stream: state {self.state_bytes:,} B{verdict}",
            f"step    {self.macs:,} multiply-adds{_said(self.step)}",
        ]
        if self.detect is not None:
            found.append(f"detect  a step and the detector{_said(self.detect)}")
        if self.compiler:
            found.append(f"with    {self.compiler} {LEVEL}, support library not in code and stack")
        if self.not_measured:
            found.append(f"note    {self.not_measured}")
        return found


def _said(cost: Cost) -> str:
    text = "" if cost.instructions is None else f", {cost.instructions:,.0f} instructions"
    text += "" if cost.code_bytes is None else f", code {cost.code_bytes:,} B"
    text += "" if cost.stack_bytes is None else f", stack {cost.stack_bytes:,} B"
    if cost.microseconds is not None:
        low, high = cost.microseconds
        text += f", {low:,.0f} to {high:,.0f} µs (estimate, not measured)"
    return text


def budget(
    model: Model,
    name: str,
    target: Target,
    source: Source,
    golden: Golden,
    *,
    measure: bool,
    clock_hz: float | None,
    quantized: Quantized | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Budget:
    """The budget of an export; with `measure` its code is compiled and, on an emulated core, run.

    `progress` is called with what is done next, where that takes long.
    """
    ram = source.state_bytes + source.verdict_bytes
    constants = source.weight_bytes + source.table_bytes
    empty = Cost()
    result = Budget(
        target.name, "f32" if quantized is None else "w8a16", model.macs, source.weight_bytes,
        source.table_bytes, None, constants,
        source.state_bytes, source.verdict_bytes, ram, empty, None if model.detector is None else empty,
        clock_hz=clock_hz,
    )  # fmt: skip
    if not measure:
        return replace(result, not_measured="code, stack and instructions were not measured, as asked")
    absent = toolchain.missing(target, run=False)
    if absent is not None:
        return replace(result, not_measured=f"{absent} is not installed: no code, stack, instructions")
    with tempfile.TemporaryDirectory(prefix="firmware-export-") as place:
        folder = Path(place)
        bare = replace(model, detector=None)
        only = None if quantized is None else replace(quantized, model=bare)
        progress(f"compiling and measuring the step for {target.title}")
        step = _measured(folder / "step", bare, name, target, golden, only, detect=False)
        detect, code = None, step[1]
        if model.detector is not None:
            progress(f"compiling and measuring the detector for {target.title}")
            detect, code = _measured(folder / "detect", model, name, target, golden, quantized, detect=True)
    timed = [_timed(c, target, clock_hz) if c else None for c in (step[0], detect)]
    counted = target.script and toolchain.missing(target) is None
    note = "" if counted else f"instructions are not counted on {target.name}"
    if target.script and not counted:
        note = f"{toolchain.missing(target)} is not installed: no instructions"
    return replace(
        result, code_bytes=code, flash_bytes=constants + code, step=timed[0] or empty, detect=timed[1],
        compiler=_version(target.compiler), not_measured=note,
    )  # fmt: skip


def check(found: Budget, flash: int | None, ram: int | None) -> None:
    """`ExportError` where the export does not fit what there is."""
    stack = max(c.stack_bytes or 0 for c in (found.step, found.detect or found.step))
    problems = []
    if flash is not None and found.flash_bytes > flash:
        code = "" if found.code_bytes is not None else " without code"
        problems.append(f"flash: {found.flash_bytes:,} bytes{code}, but only {flash:,} given")
    if ram is not None and found.ram_bytes + stack > ram:
        problems.append(
            f"RAM: {found.ram_bytes:,} bytes of state{' and verdict' if found.verdict_bytes else ''} and "
            f"{stack:,} of stack, but only {ram:,} given"
        )
    if problems:
        raise ExportError(f"{'; '.join(problems)}; take a smaller network or a larger device")


def _timed(cost: Cost, target: Target, clock_hz: float | None) -> Cost:
    if clock_hz is None or cost.instructions is None:
        return cost
    low, high = (cost.instructions * c / clock_hz * 1e6 for c in target.cycles)
    return replace(cost, microseconds=(low, high))


def _measured(
    folder: Path,
    model: Model,
    name: str,
    target: Target,
    golden: Golden,
    quantized: Quantized | None,
    *,
    detect: bool,
) -> tuple[Cost, int]:
    """The cost of a call, and the bytes of all code of the file."""
    folder.mkdir()
    source = generate(model, name, target.fused, quantized=quantized, packing=target.packing)
    (folder / f"{name}.h").write_text(source.header, "utf-8")
    (folder / f"{name}.c").write_text(source.code, "utf-8")
    extra = ("-ffunction-sections", "-fcallgraph-info=su")
    program = folder / "program"
    instructions = None
    if target.script and toolchain.missing(target) is None:
        toolchain.build(folder, name, model, target, program, level=LEVEL, detect=detect, extra=extra)
        samples = golden.detect_samples() if detect else toolchain.step_samples(golden.xs)
        ran = toolchain.run(program, model, target, samples, detect=detect, count=True, quantized=quantized)
        instructions = ran.instructions
    else:
        toolchain.compile_only(folder, name, target, program.with_suffix(".o"), level=LEVEL, extra=extra)
    sizes = _sections(target, program.with_suffix(".o"))
    others = {f"{name}_{part}" for part in ("init", "reset", "arithmetic", "silent")}
    code = sum(size for section, size in sizes.items() if section.removeprefix(".text.") not in others)
    roots = (f"{name}_detect", f"{name}_detect_held") if detect else (f"{name}_step",)
    graph = next(folder.glob("*.ci")).read_text("utf-8")
    return Cost(code, max(deepest(graph, root) for root in roots), instructions), sum(sizes.values())


def _sections(target: Target, code: Path) -> dict[str, int]:
    """Bytes of each section of code."""
    tool = re.sub(r"gcc$", "size", target.compiler)
    done = subprocess.run([tool, "-A", str(code)], capture_output=True, text=True, check=False)  # noqa: S603
    return {m[1]: int(m[2]) for m in re.finditer(r"^(\.text\S*)\s+(\d+)", done.stdout, re.MULTILINE)}


def deepest(graph: str, root: str) -> int:
    """Bytes of stack of the deepest chain of calls from `root` in GCC's `-fcallgraph-info=su`."""
    frames: dict[str, int] = {}
    for title, label in re.findall(r'node: { title: "([^"]*)" label: "([^"]*)"', graph):
        size = re.search(r"(\d+) bytes", label)
        frames[title] = int(size[1]) if size else 0
    calls: dict[str, list[str]] = {}
    for source, called in re.findall(r'edge: { sourcename: "([^"]*)" targetname: "([^"]*)"', graph):
        calls.setdefault(source, []).append(called)

    def down(function: str) -> int:
        return frames.get(function, 0) + max((down(called) for called in calls.get(function, ())), default=0)

    start = next((title for title in frames if title.split(":")[-1] == root), root)
    return down(start)


def _version(compiler: str) -> str:
    done = subprocess.run([compiler, "-dumpfullversion"], capture_output=True, text=True, check=False)  # noqa: S603
    return f"{compiler} {done.stdout.strip()}"
