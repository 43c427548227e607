"""The processors that a library can be built for.

A target says three things: what LLVM compiles for, what the processor must therefore have in Linux's words
(the loader compares, see `core.library`), and, by asking LLVM, the vector width and numeric class that suit
it. LLVM may use any instruction of the processor it is told, so everything float and integer code can make
use of is listed as needed, used or not.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass

from edge_rnn.core.jit import probe
from edge_rnn.core.library import cpu_features
from edge_rnn.errors import LibraryError

NAMES = ("native", "cortex-a53", "cortex-a72", "cortex-a76", "x86-64-v3")

# LLVM's names of x86 extensions that code like ours can use, where Linux has another one.
_LINUX = {
    "sse3": "pni", "sse4.1": "sse4_1", "sse4.2": "sse4_2", "bmi": "bmi1", "lzcnt": "abm",
    "avx512vbmi2": "avx512_vbmi2", "avx512vnni": "avx512_vnni", "avx512bitalg": "avx512_bitalg",
    "avx512vpopcntdq": "avx512_vpopcntdq",
}  # fmt: skip
_SAME = (
    "ssse3", "movbe", "popcnt", "avx", "avx2", "fma", "f16c", "bmi2", "avx512f", "avx512dq", "avx512ifma",
    "avx512cd", "avx512bw", "avx512vl", "avx512vbmi", "gfni",
)  # fmt: skip
_V3 = (
    "abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "pni", "popcnt", "sse4_1", "sse4_2",
    "ssse3",
)  # fmt: skip
_ARMV8 = ("asimd", "fp")
_ARMV82 = ("asimd", "asimddp", "asimdhp", "atomics", "fp", "fphp")


@dataclass(frozen=True, slots=True)
class Target:
    """A processor, and the code that suits it.

    Attributes:
        name: as the user says it.
        triple, cpu, features: LLVM's.
        machine: what `platform.machine()` says there.
        needs: what its /proc/cpuinfo must list, sorted.
        lanes, fused: of the kernels.
    """

    name: str
    triple: str
    cpu: str
    features: str
    machine: str
    needs: tuple[str, ...]
    lanes: int
    fused: bool

    @property
    def runs_here(self) -> bool:
        """Whether this machine can execute the code."""
        return platform.machine() == self.machine and set(self.needs) <= cpu_features()


def target_named(name: str) -> Target:
    """The target of this name.

    Raises:
        LibraryError: there is none, or this machine is none that "native" can mean.
    """
    from llvmlite import binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    if name == "native":
        return _native(llvm.get_host_cpu_name(), llvm.get_host_cpu_features())
    if name == "x86-64-v3":
        return _target(name, "x86_64", name, "", _V3)
    if name in ("cortex-a53", "cortex-a72", "cortex-a76"):
        return _target(name, "aarch64", name, "", _ARMV82 if name == "cortex-a76" else _ARMV8)
    raise LibraryError(f"--target: expected one of {', '.join(NAMES)}, got {name!r}")


def _native(cpu: str, features: dict[str, bool]) -> Target:
    machine = platform.machine()
    on = {name for name, there in features.items() if there}
    if machine == "x86_64":
        needs = {_LINUX[name] for name in on & _LINUX.keys()} | on & set(_SAME)
    elif machine == "aarch64":
        # LLVM is told this very processor; what Linux lists of it is what another one must have, too.
        needs = set(_ARMV82) & cpu_features() | set(_ARMV8)
    else:
        raise LibraryError(f"--target native: x86_64 and aarch64 are supported, this machine is {machine}")
    flags = ",".join(("+" if there else "-") + name for name, there in sorted(features.items()))
    return _target("native", machine, cpu, flags, tuple(sorted(needs)))


def _target(name: str, machine: str, cpu: str, features: str, needs: tuple[str, ...]) -> Target:
    triple = f"{machine}-unknown-linux-gnu"
    suits = probe(triple, cpu, features)
    return Target(name, triple, cpu, features, machine, needs, suits.lanes, suits.fused)
