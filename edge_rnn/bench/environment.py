"""What the figures depend on: processor, board, clock governor, throttling, versions.

Everything is read from files of the system below `root`, so that tests can show it another machine. Host
name, user, folders, serial numbers and addresses are never read.

A processor is taken to be emulated where the kernel's own name of the architecture is another one than the
process is told (user-mode emulation), where this process is run by a qemu, or where board or processor name
one. That cannot find every emulator; a report is a statement of who made it, not a proof.
"""

from __future__ import annotations

import platform
import re
import struct
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Final

from edge_rnn import __version__
from edge_rnn.bench.report import Conditions, Environment
from edge_rnn.bench.timing import clock_overhead
from edge_rnn.core.jit import target
from edge_rnn.core.library import Library

_PACKAGES: Final = ("numpy", "numba", "llvmlite", "msgspec", "paho-mqtt")
_CPUS: Final = "sys/devices/system/cpu"
# 32-bit processes on a 64-bit kernel run on the processor itself.
_NATIVE: Final = {
    "x86_64": {"x86_64", "i386", "i486", "i586", "i686"},
    "aarch64": {"aarch64", "arm64", "armv8l", "armv7l", "armv6l"},
}
# "CPU part" of Arm's own cores (implementer 0x41), as on the boards of interest.
_ARM_PARTS: Final = {
    "0xb76": "ARM1176", "0xc07": "Cortex-A7", "0xd03": "Cortex-A53", "0xd04": "Cortex-A35",
    "0xd05": "Cortex-A55", "0xd08": "Cortex-A72", "0xd0b": "Cortex-A76", "0xd0c": "Neoverse-N1",
}  # fmt: skip


def environment(
    numeric: str, lanes: int, root: Path = Path("/"), library: Library | None = None
) -> Environment:
    """The machine as `root` describes it; class, lanes and library are those of the code that is measured."""
    cpuinfo = _read(root / "proc/cpuinfo") or ""
    board = _board(root)
    cpu = _cpu(cpuinfo)
    return Environment(
        cpu=cpu[:200],
        cores=len(_cpus(root)),
        machine=platform.machine(),
        bits=8 * struct.calcsize("P"),
        board=board,
        emulation=emulation(root, platform.machine(), board or "", cpuinfo),
        virtual=re.search(r"^flags\s*:.*\bhypervisor\b", cpuinfo, re.MULTILINE) is not None,
        system=platform.system(),
        kernel=_kernel(platform.release()),
        governors=_governors(root),
        clock_overhead_ns=clock_overhead(),
        versions=_versions(),
        backend="numba" if library is None else "library",
        numeric=numeric,
        lanes=lanes,
        target=(target().cpu if library is None else _built_for(library))[:200],
    )


def _built_for(library: Library) -> str:
    d = library.description
    return d.target if d.target == d.cpu else f"{d.target} ({d.cpu})"


def conditions(root: Path = Path("/")) -> Conditions:
    """Clock frequencies, temperature, throttling and load at this moment."""
    load = _read(root / "proc/loadavg")
    return Conditions(
        mhz=_frequencies(root),
        temperature_c=_temperature(root),
        throttled=_throttled(root),
        load=float(load.split()[0]) if load else None,
    )


def emulation(root: Path, machine: str, board: str, cpuinfo: str) -> list[str]:
    """Signs that the processor is emulated, one short text each."""
    signs = []
    kernel = _read(root / "proc/sys/kernel/arch")
    if kernel and machine not in _NATIVE.get(kernel, {kernel}):
        signs.append(f"the kernel runs on {kernel}, the process is told {machine}")
    for name in ("proc/thread-self/exe", "proc/self/exe"):
        try:
            program = (root / name).readlink().name
        except OSError:
            continue
        if "qemu" in program.lower():
            signs.append("the process is run by a qemu")
            break
    for what, text in (("board", board), ("processor", cpuinfo)):
        if re.search(r"qemu|\btcg\b|dummy-virt|gem5|fvp|foundation-v8", text, re.IGNORECASE):
            signs.append(f"the {what} names an emulator")
    return signs


def _read(path: Path) -> str | None:
    try:
        return path.read_text("utf-8", "replace").strip("\0\n ") or None
    except OSError:
        return None


def _board(root: Path) -> str | None:
    text = _read(root / "proc/device-tree/model")
    return None if text is None else "".join(c for c in text if c.isprintable())[:200]


def _cpu(cpuinfo: str) -> str:
    """The processor's name; Arm's kernels give numbers instead."""
    if found := re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE):
        return found[1].strip()
    parts = dict.fromkeys(re.findall(r"^CPU part\s*:\s*(\w+)", cpuinfo, re.MULTILINE))
    return " + ".join(_ARM_PARTS.get(p, f"part {p}") for p in parts) or platform.machine()


def _kernel(release: str) -> str:
    """The version's numbers: what follows them may be a name that somebody gave."""
    found = re.match(r"[0-9]+(\.[0-9]+)*", release)
    return found[0] if found else "unknown"


def _cpus(root: Path) -> list[Path]:
    try:
        return sorted(p for p in (root / _CPUS).iterdir() if re.fullmatch(r"cpu[0-9]+", p.name))
    except OSError:
        return []


def _governors(root: Path) -> list[str]:
    found = (_read(cpu / "cpufreq/scaling_governor") for cpu in _cpus(root))
    return sorted({text for text in found if text})


def _frequencies(root: Path) -> list[float]:
    """MHz of each core; from cpuinfo where there is no cpufreq, as in most virtual machines."""
    texts = [_read(cpu / "cpufreq/scaling_cur_freq") for cpu in _cpus(root)]
    found = [float(text) / 1000 for text in texts if text and text.isdigit()]
    if found:
        return found
    cpuinfo = _read(root / "proc/cpuinfo") or ""
    return [float(m) for m in re.findall(r"^cpu MHz\s*:\s*([0-9.]+)$", cpuinfo, re.MULTILINE)]


def _temperature(root: Path) -> float | None:
    """The hottest thermal zone, degrees Celsius."""
    texts = _texts((root / "sys/class/thermal").glob("thermal_zone*/temp"))
    found = [int(text) / 1000 for text in texts if re.fullmatch(r"-?[0-9]+", text)]
    return max(found, default=None)


def _throttled(root: Path) -> str | None:
    """A Raspberry Pi's flags (0x0: never since the boot), else how often x86 cores were slowed down."""
    for path in sorted((root / "sys/devices/platform").glob("soc/*firmware/get_throttled")):
        if (text := _read(path)) is not None:
            return f"0x{text.removeprefix('0x')}"[:200]
    counts = _texts(cpu / "thermal_throttle/core_throttle_count" for cpu in _cpus(root))
    found = [int(text) for text in counts if text.isdigit()]
    return f"{sum(found)} times" if found else None


def _texts(paths: Iterable[Path]) -> list[str]:
    return [text for text in map(_read, paths) if text]


def _versions() -> dict[str, str]:
    found = {"edge-rnn": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found
