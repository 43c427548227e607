"""Cycles a step on small boards' processors, counted by a tool from the machine code; estimates, not times.

    python -m benchmarks.estimate            writes results/estimated-*.json; then python -m benchmarks.readme

How, for one network and processor: the ahead-of-time build makes the code of the step for that processor. It
takes three steps, then four, in one call under QEMU's user emulation, whose log says how often each straight
piece of code ran; the difference is what a step more costs, so loops weigh what they really weigh (one step
alone is not stepped by the loop that many are). `llvm-mca`
simulates each piece in the processor's pipeline, twice: 100 times in a row, where only dependencies and units
limit it (throughput, the low end), and once alone, from an empty pipeline to the last result (serial, the
high end). Both are summed over the pieces with their counts.

What is not in it: caches (every load hits the nearest one), wrong guesses of branches, the C library's memory
functions; a call or return counts as a jump. What that means is measured on this machine, where time can
be: the same method, code for x86-64-v3, LLVM's model of this very processor, then the code's true time in
this processor's cycles. A cycle is a third of a multiplication in a chain of dependent ones, taken in turn
with the steps. The ratios, smallest and largest, stand beside every estimate.

LLVM has no model of Cortex-A76: code for it is simulated as Neoverse N1, the same design for servers.
"""

from __future__ import annotations

import argparse
import collections
import ctypes
import datetime as dt
import json
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.conftest import forecaster
from benchmarks.device import RESULTS, Cycles, Estimate
from edge_rnn.aot.emit import emit
from edge_rnn.aot.entries import symbol
from edge_rnn.aot.link import link
from edge_rnn.aot.targets import Target, target_named
from edge_rnn.core.entries import DRIVE
from edge_rnn.core.layout import address
from edge_rnn.core.loop import StepLoop
from edge_rnn.core.model import Model
from edge_rnn.errors import EdgeRnnError
from tests.aot.transplant import Call, arrays_of, blocks_of

DRIVER = Path(__file__).parents[1] / "tests" / "aot" / "driver.c"
SHAPES = [(1, 16, 1), (4, 32, 1), (8, 64, 1)]
NETWORKS = {
    f"{cell.upper()} {'/'.join(map(str, shape))}": (cell, *shape)
    for cell in ("lstm", "gru")
    for shape in SHAPES
}
# Debian's name of LLVM 19's programs, which know these processors; then whatever is there.
_SUFFIXES = ("-19", "")
_IN_A_ROW = 100
_ROUNDS = 31


@dataclass(frozen=True)
class Core:
    """A processor: the build's name for it, LLVM's name of the model used, a board, its clocks in MHz."""

    target: str
    model: str
    board: str
    mhz: tuple[float, ...]


CORES = (
    Core("cortex-a53", "cortex-a53", "Pi 3, Zero 2", (1200, 1400)),
    Core("cortex-a72", "cortex-a72", "Pi 4", (1500, 1800)),
    Core("cortex-a76", "neoverse-n1", "Pi 5", (2400,)),
)


@dataclass(frozen=True)
class Tools:
    """What is run: LLVM's two programs, QEMU by machine, C compilers by machine."""

    mca: str
    objdump: str
    version: str

    @classmethod
    def found(cls) -> Tools:
        """The newest there are.

        Raises:
            EdgeRnnError: there are none.
        """
        for suffix in _SUFFIXES:
            mca, objdump = shutil.which(f"llvm-mca{suffix}"), shutil.which(f"llvm-objdump{suffix}")
            if mca and objdump:
                said = re.search(r"LLVM version (\S+)", _output([mca, "--version"]))
                return cls(mca, objdump, said[1] if said else "unknown")
        raise EdgeRnnError("estimate: llvm-mca and llvm-objdump not found; install Debian's llvm-19, or llvm")


def needed(name: str, package: str) -> str:
    """The program's path, or one clear error."""
    found = shutil.which(name)
    if found is None:
        raise EdgeRnnError(f"estimate: {name} not found; install Debian's {package}")
    return found


def _output(command: list[str], given: str | None = None) -> str:
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=600)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EdgeRnnError(f"estimate: {command[0]} cannot be run: {error}") from None
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise EdgeRnnError(f"estimate: {command[0]} failed: {last[:300]}")
    return done.stdout


class Code:
    """The step's machine code for one target: built, listed, and run under emulation."""

    def __init__(self, target: Target, tools: Tools, folder: Path) -> None:
        self.target, self._tools = target, tools
        self._folder = folder / target.name
        self._folder.mkdir()
        self.library = self._folder / "edge_rnn.so"
        emit(target, self._folder / "code.o", (DRIVE,))
        link(target, self._folder / "code.o", self.library)
        listing = _output([tools.objdump, "-d", "--no-show-raw-insn", str(self.library)])
        self.text = {int(m[1], 16): m[2] for m in re.finditer(r"^ *([0-9a-f]+): *\t(.*)$", listing, re.M)}
        entry = re.search(rf"^0*([0-9a-f]+) <{symbol(DRIVE.name)}>:$", listing, re.M)
        if entry is None:
            raise EdgeRnnError("estimate: the library's listing does not show the step's function")
        self._entry = int(entry[1], 16)
        arm = target.machine == "aarch64"
        gcc = needed("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu") if arm else needed("gcc", "gcc")
        self._driver = self._folder / "driver"
        _output([gcc, "-O1", "-o", str(self._driver), str(DRIVER), "-lm", "-ldl"])
        self._emulator = [needed(f"qemu-{target.machine}", "qemu-user"), "-cpu", "max"]
        self._emulator += ["-L", "/usr/aarch64-linux-gnu"] if arm else []

    def counts(self, model: Model) -> dict[tuple[int, ...], int]:
        """How often each straight piece of code, as the addresses of its instructions, runs in one step."""
        three, four = self._pieces(model, 3), self._pieces(model, 4)
        more = {piece: count - three[piece] for piece, count in four.items() if count > three[piece]}
        if not more or any(piece not in four for piece in three):
            raise EdgeRnnError("estimate: a fourth step runs other code than the third; report this")
        return more

    def _pieces(self, model: Model, steps: int) -> collections.Counter[tuple[int, ...]]:
        call = call_of(model, steps, self.target)
        (self._folder / "input").write_bytes(call.input())
        log = self._folder / "log"
        said = _output(
            [*self._emulator, "-d", "in_asm,exec,nochain", "-D", str(log), str(self._driver),
             str(self.library), symbol(DRIVE.name), "2", str(self._folder / "input"),
             str(self._folder / "output")]
        )  # fmt: skip
        base = int(said, 16) - self._entry
        content = log.read_text("utf-8", "replace")
        pieces = {}
        for block in re.findall(r"^IN:.*\n((?:0x[0-9a-f]+:.*\n)+)", content, re.M):
            places = tuple(int(a, 16) - base for a in re.findall(r"^0x([0-9a-f]+):", block, re.M))
            if places[0] in self.text:
                # A long instruction's bytes go on in a line of their own, which is no instruction.
                pieces[places[0]] = tuple(place for place in places if place in self.text)
        ran = re.findall(r"^Trace \d+: \S+ \[[0-9a-f]+/([0-9a-f]+)/", content, re.M)
        return collections.Counter(
            pieces[place] for place in (int(pc, 16) - base for pc in ran) if place in pieces
        )

    def cycles(self, model: Model, processor: str) -> Cycles:
        """The interval for a step, on LLVM's model of `processor`, without a network's name."""
        counts = self.counts(model)
        pieces = list(counts)
        many, once = (self._simulated(pieces, processor, n) for n in (_IN_A_ROW, 1))
        return Cycles(
            what="",
            instructions=sum(len(piece) * count for piece, count in counts.items()),
            low=round(sum(counts[piece] * many[i] for i, piece in enumerate(pieces)), 1),
            high=round(sum(counts[piece] * once[i] for i, piece in enumerate(pieces)), 1),
        )

    def _simulated(self, pieces: list[tuple[int, ...]], processor: str, times: int) -> list[float]:
        """Cycles for each piece once, of `times` in a row."""
        lines: list[str] = []
        for i, piece in enumerate(pieces):
            begin, end = (f"# LLVM-MCA-{word} p{i}" for word in ("BEGIN", "END"))
            lines += [begin, *(self._plain(self.text[place]) for place in piece), end]
        said = _output(
            [self._tools.mca, f"-mtriple={self.target.triple}", f"-mcpu={processor}", "-json",
             f"-iterations={times}"], "\n".join(lines) + "\n"
        )  # fmt: skip
        found = {}
        for region in json.loads(said)["CodeRegions"]:
            found[region["Name"]] = region["SummaryView"]["TotalCycles"] / times
        return [found[f"p{i}"] for i in range(len(pieces))]

    def _plain(self, text: str) -> str:
        """One instruction as an assembler takes it; calls and returns as jumps."""
        arm = self.target.machine == "aarch64"
        text = text.split("//" if arm else "#", maxsplit=1)[0].rstrip()
        text = re.sub(r"0x[0-9a-f]+ <[^>]*>", "elsewhere", text)
        jump = "b" if arm else "jmp"
        text = re.sub(r"^(?:bl|callq?)\t", f"{jump}\t", text)
        return re.sub(r"^retq?$", f"{jump}\telsewhere", text)


def call_of(model: Model, steps: int, target: Target) -> Call:
    """A call of the step's function, packed for the target."""
    loop = StepLoop(model, "F" if target.fused else "U", target.lanes)
    xs = np.random.default_rng(1).normal(size=(steps, model.input_size)).astype(np.float32)
    states, ys = loop.at_rest(1), np.zeros((steps, model.output_size), np.float32)
    table = loop.table(states, xs, ys, steps)
    return Call(DRIVE, (address(table), 0), blocks_of(arrays_of(loop, states, xs, ys, table)))


def _chain(count: int) -> Any:
    """A function of this machine that makes count * 100 multiplications, each waiting for the one before."""
    from llvmlite import binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    links = "imul $0, $0\\0A" * 100
    code = f"""
define void @chain() {{
entry:
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%j, %loop]
  %r = call i64 asm sideeffect "{links}", "=r,0"(i64 %i)
  %j = add i64 %i, 1
  %more = icmp ult i64 %j, {count}
  br i1 %more, label %loop, label %done
done:
  ret void
}}"""
    engine = llvm.create_mcjit_compiler(
        llvm.parse_assembly(code), llvm.Target.from_default_triple().create_target_machine()
    )
    engine.finalize_object()
    return engine, ctypes.CFUNCTYPE(None)(engine.get_function_address("chain"))


def true_cycles(code: Code, model: Model, steps: int = 2000) -> float:
    """Cycles a step really takes on this machine: the median of rounds that each time the clock, too."""
    links = 1000
    _engine, chain = _chain(links)
    function = ctypes.CDLL(str(code.library))[symbol(DRIVE.name)]
    function.argtypes, function.restype = (ctypes.c_int64, ctypes.c_int64), ctypes.c_int64
    call = call_of(model, steps, code.target)
    rounds = []
    for _ in range(_ROUNDS):
        begin = time.perf_counter_ns()
        chain()
        middle = time.perf_counter_ns()
        if function(*call.arguments) != -1:
            raise EdgeRnnError("estimate: the step refuses its input here; report this")
        cycle = (middle - begin) / (links * 100 * 3)
        rounds.append((time.perf_counter_ns() - middle) / steps / cycle)
    return statistics.median(rounds)


def host_error(tools: Tools, folder: Path) -> tuple[str, tuple[float, float]]:
    """This machine's processor in LLVM's words, and true cycles over the low estimate: smallest, largest.

    Raises:
        EdgeRnnError: this machine is none with AVX2, or LLVM has no model of it.
    """
    from llvmlite import binding as llvm

    target, processor = target_named("x86-64-v3"), str(llvm.get_host_cpu_name())
    if not target.runs_here:
        raise EdgeRnnError(
            "estimate: the tool's error is measured on x86-64 with AVX2, "
            f"this machine is {platform.machine()} ({processor})"
        )
    code = Code(target, tools, folder)
    ratios = []
    for name, shape in NETWORKS.items():
        model = forecaster(*shape)
        estimated, true = code.cycles(model, processor), true_cycles(code, model)
        ratios.append(true / estimated.low)
        print(f"host {processor} {name}: {estimated.low:,.0f} .. {estimated.high:,.0f}, truth {true:,.0f}")
    return processor, (round(min(ratios), 2), round(max(ratios), 2))


def estimates(tools: Tools, folder: Path) -> Iterator[Estimate]:
    """One for each of `CORES`."""
    host, error = host_error(tools, folder)
    for core in CORES:
        code = Code(target_named(core.target), tools, folder)
        rows = [
            msgspec.structs.replace(code.cycles(forecaster(*shape), core.model), what=name)
            for name, shape in NETWORKS.items()
        ]
        yield Estimate(
            kind="estimated", date=dt.datetime.now(dt.UTC).date().isoformat(),
            core=core.target if core.target == core.model else f"{core.target}, as {core.model}",
            board=core.board, mhz=core.mhz, rows=rows, tool=f"llvm-mca {tools.version}", host=host,
            host_error=error,
        )  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="estimate", description="cycles a step, counted by llvm-mca")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as name:
            # All are made before the first is written: a set of files of two runs would be none.
            made = list(estimates(Tools.found(), Path(name)))
        for estimate in made:
            file = options.results / f"estimated-{estimate.core.split(',')[0]}.json"
            file.write_bytes(msgspec.json.format(msgspec.json.encode(estimate), indent=1) + b"\n")
            print(file.name)
    except EdgeRnnError as error:
        print(f"estimate: {str(error).removeprefix('estimate: ')}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
