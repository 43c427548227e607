"""The cores an export can be made for: numeric class, compiler, emulator.

A core with a float32 fused multiply-add computes in class F, one without in class U (edge_rnn/DESIGN.md,
"Numeric contract"). `machine` is the emulated board on which this project's tests run the code; an emulator
counts instructions exactly and knows nothing of time, so `cycles` is an interval of cycles per instruction
that a reader may argue with, and no measurement.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_rnn.errors import ExportError
from firmware_export.integer_source import Packing

_Memory = tuple[tuple[str, int], ...]


def _memory(flash_at: int, flash_size: int, ram_at: int, ram_size: int, tick_ps: int) -> _Memory:
    pairs = {"FLASH_AT": flash_at, "FLASH_SIZE": flash_size, "RAM_AT": ram_at, "RAM_SIZE": ram_size}
    return (*pairs.items(), ("TICK_PS", tick_ps))


@dataclass(frozen=True, slots=True)
class Target:
    """One core.

    fused: class F. compiler: name of its GCC; flags: for that. machine: how QEMU runs it (empty: directly).
    start: the file of `harness/` it starts and talks with; script: its linker script; memory: of that
    machine. cycles: assumed least and most cycles per instruction, flash without wait states. packing: the
    order of int8 weights that it reads fastest."""

    name: str
    title: str
    fused: bool
    compiler: str
    flags: tuple[str, ...]
    machine: tuple[str, ...] = ()
    start: str = "posix.c"
    script: str = ""
    memory: _Memory = ()
    cycles: tuple[float, float] = (1.0, 2.5)
    packing: Packing = "plain"


# Where flash and RAM are, and the picoseconds of a clock.
_MPS2 = _memory(0, 4 << 20, 0x20000000, 4 << 20, 40_000)
_AN505 = _memory(0x10000000, 4 << 20, 0x38000000, 2 << 20, 50_000)
_AN547 = _memory(0, 512 << 10, 0x20000000, 512 << 10, 31_250)
_MICROBIT = _memory(0, 256 << 10, 0x20000000, 16 << 10, 62_500)


def _arm(
    name: str,
    title: str,
    flags: str,
    machine: str,
    memory: _Memory,
    cycles: tuple[float, float] = (1.0, 2.5),
    packing: Packing = "plain",
) -> Target:
    core = name if name.startswith("cortex-") else f"cortex-{'m4' if name == 'm4f' else name}"
    words = (f"-mcpu={core}", "-mthumb", *flags.split())
    emulated = ("qemu-system-arm", "-M", machine)
    return Target(
        name, title, "hard" in flags, "arm-none-eabi-gcc", words, emulated, "arm.c", "arm.ld", memory, cycles,
        packing,
    )  # fmt: skip


def _riscv(name: str, title: str, abi: str, *, fused: bool) -> Target:
    flags = ("--specs=picolibc.specs", f"-march={name}", f"-mabi={abi}")
    machine = ("qemu-system-riscv32", "-M", "virt", "-bios", "none")
    compiler = "riscv64-unknown-elf-gcc"
    return Target(name, title, fused, compiler, flags, machine, "riscv.c", "riscv.ld", ())


_ALL = (
    _arm("cortex-m0plus", "Arm Cortex-M0+", "-mfloat-abi=soft", "mps2-an385", _MPS2, packing="narrow"),
    _arm("m3", "Arm Cortex-M3", "-mfloat-abi=soft", "mps2-an385", _MPS2),
    _arm("m4f", "Arm Cortex-M4F", "-mfloat-abi=hard -mfpu=fpv4-sp-d16", "mps2-an386", _MPS2, packing="dsp"),
    _arm("m7", "Arm Cortex-M7", "-mfloat-abi=hard -mfpu=fpv5-d16", "mps2-an500", _MPS2, (0.5, 2.0), "dsp"),
    _arm("m33", "Arm Cortex-M33", "-mfloat-abi=hard -mfpu=fpv5-sp-d16", "mps2-an505", _AN505, packing="dsp"),
    _arm("m55", "Arm Cortex-M55", "-mfloat-abi=hard", "mps3-an547", _AN547, (0.7, 2.5), "mve"),
    _riscv("rv32imc", "RISC-V RV32IMC", "ilp32", fused=False),
    _riscv("rv32imafc", "RISC-V RV32IMAFC", "ilp32f", fused=True),
    Target(
        "aarch64", "64-bit Arm, Linux", fused=True, compiler="aarch64-linux-gnu-gcc",
        flags=("-mcpu=cortex-a53", "-static"), machine=("qemu-aarch64",), cycles=(0.4, 2.0),
    ),
    Target("host", "this computer", fused=True, compiler="gcc", flags=(), cycles=(0.3, 1.5)),
)  # fmt: skip
TARGETS = {t.name: t for t in _ALL}
# A second machine for a core: its own instruction set is checked there, with little memory.
MICROBIT = _arm("cortex-m0", "Arm Cortex-M0", "-mfloat-abi=soft", "microbit", _MICROBIT, packing="narrow")
_ALIASES = {
    "m0plus": "cortex-m0plus", "m0+": "cortex-m0plus", "cortex-m3": "m3", "cortex-m4f": "m4f",
    "cortex-m7": "m7",
    "cortex-m33": "m33", "cortex-m55": "m55",
}  # fmt: skip


def target_named(name: str) -> Target:
    """The target called `name`; `ExportError` if there is none."""
    found = TARGETS.get(_ALIASES.get(name, name))
    if found is None:
        raise ExportError(f"target: expected one of {', '.join(TARGETS)}, got {name!r}")
    return found
