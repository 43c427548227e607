"""From an object file to a shared library: any ELF linker will do, because the code needs no library.

In this order: the distribution's linker for the target (`ld` of the same machine, `aarch64-linux-gnu-ld` for
a cross build), LLVM's `ld.lld`, and the `ld.lld` that the PyPI package `ziglang` brings for all targets.
"""

from __future__ import annotations

import platform
import shutil
import struct
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from edge_rnn.aot.targets import Target
from edge_rnn.errors import LibraryError

_PATIENCE_S: Final = 300
_EMULATION: Final = {"x86_64": "elf_x86_64", "aarch64": "aarch64linux"}
_PACKAGE: Final = {"x86_64": "binutils-x86-64-linux-gnu", "aarch64": "binutils-aarch64-linux-gnu"}
# -z: no stack that is executed, no symbol looked up late, tables read-only. -s: no local symbols.
_OPTIONS: Final = (
    "-shared", "-s", "-z", "noexecstack", "-z", "now", "-z", "relro", "--build-id=none",
    "-soname", "edge_rnn.so",
)  # fmt: skip


def linkers(target: Target) -> list[list[str]]:
    """The linkers there are for the target, the preferred one first, each as the start of a command."""
    names = [f"{target.machine}-linux-gnu-ld", "ld.lld"]
    if platform.machine() == target.machine:
        names.insert(0, "ld")
    found = [[path] for path in map(shutil.which, names) if path is not None]
    if find_spec("ziglang") is not None:
        found.append([sys.executable, "-m", "ziglang", "ld.lld"])
    return found


def link(target: Target, code: Path, library: Path) -> str:
    """Link `code` to `library`; what linked it, in the linker's own words.

    Raises:
        LibraryError: there is no linker, or it fails.
    """
    found = linkers(target)
    if not found:
        ours = "binutils" if platform.machine() == target.machine else _PACKAGE[target.machine]
        raise LibraryError(
            f"build: no linker for {target.name}; install Debian's {ours}, or lld, or pip install "
            "'edge-rnn[build]'"
        )
    command = [*found[0], "-m", _EMULATION[target.machine], *_OPTIONS, "-o", str(library), str(code)]
    _run(command)
    return _run([*found[0], "--version"]).splitlines()[0][:200]


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(  # noqa: S603  (a linker found on the search path, or a package's)
            command, capture_output=True, text=True, check=False, timeout=_PATIENCE_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LibraryError(f"build: the linker {command[0]} cannot be run: {error}") from None
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise LibraryError(f"build: the linker {command[0]} failed: {last[:300]}")
    return done.stdout


def undefined_symbols(code: bytes) -> list[str]:
    """The names an ELF object (64 bits, little-endian) expects from elsewhere, sorted."""
    (start,) = struct.unpack_from("<Q", code, 0x28)
    size, count = struct.unpack_from("<HH", code, 0x3A)
    sections = [struct.unpack_from("<IIQQQQIIQQ", code, start + i * size) for i in range(count)]
    names = set()
    for _, kind, _, _, offset, length, linked, *_ in sections:
        if kind != 2:  # the symbol table
            continue
        text = sections[linked][4]
        for place in range(offset, offset + length, 24):
            name, _, _, section = struct.unpack_from("<IBBH", code, place)
            if section == 0 and name:
                names.add(code[text + name : code.index(b"\0", text + name)].decode())
    return sorted(names)
