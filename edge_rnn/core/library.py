"""Compiled functions from a shared library that `edge-rnn build` made: no Numba, no LLVM in the process.

A library is a folder with two files: `edge_rnn.so`, and beside it `edge_rnn.json`, which says what it is
(`Description`; FORMAT.md has it field by field). Machine code that does not belong to the packed constants
gives wrong numbers without an error, and an instruction the processor does not have ends the process. So
everything the code depends on is compared before it is loaded: the bytes of the file, the sources of this
package, the processor, the interpreter's object header (compiled code reads arrays by it), and the model.

What is mapped is what was compared: the file that was read, through its open descriptor. By its path, the
system's loader would take a library that was built anew at the same place for the one it has, and a daemon
that reloads would go on with the old code. The descriptor stays open, because its number is the name by which
the loader knows the file.

Functions are called as built-in functions of the interpreter (`PyCFunction`, made through `ctypes`), with its
lock held, as those of the compiler are: a call through `ctypes` itself costs more than a small step.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, NoReturn, cast

import msgspec

from edge_rnn.core.digest import weights_digest
from edge_rnn.core.entries import Code, Entry
from edge_rnn.core.layout import StateLayout
from edge_rnn.core.model import Model
from edge_rnn.errors import LibraryError

DESCRIPTION: Final = "edge_rnn.json"
LIBRARY: Final = "edge_rnn.so"
VERSION: Final = 1
_LARGEST_DESCRIPTION: Final = 1 << 20
_LARGEST_LIBRARY: Final = 64 << 20
_PACKAGE: Final = Path(__file__).parents[1]


# The symbol of a function as Python calls it; `aot.wrappers` makes it.
PYTHON_SUFFIX: Final = "_py"
_FASTCALL: Final = 0x80


class _Method(ctypes.Structure):
    """CPython's `PyMethodDef`."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


class Fits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The model a library is for: its name; digests of its weights, its state row, a detector's record."""

    name: str
    weights: str
    layout: str
    detector: str | None


class Description(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `edge_rnn.json` says, see FORMAT.md."""

    format: Literal["edge-rnn library"]
    version: int
    target: str
    machine: str
    cpu: str
    features: list[str]
    lanes: Literal[4, 8, 16]
    numeric: Literal["F", "U"]
    object_header: int
    model: Fits
    sources: str
    versions: dict[str, str]
    symbols: dict[str, str]
    imports: list[str]
    size: int
    sha256: str


@functools.cache
def _loaded(_device: int, _file: int) -> dict[str, ctypes.PyDLL]:
    """What this process has mapped from this file, by checksum; it stays mapped, so the number stays its."""
    return {}


@functools.cache
def sources_digest() -> str:
    """Digest of all sources that decide the compiled code and the tables it reads: rooms aot, core, detect.

    Raises:
        LibraryError: the package was installed without its sources.
    """
    digest = hashlib.sha256()
    for room in ("aot", "core", "detect"):
        files = sorted(_PACKAGE.joinpath(room).glob("*.py"))
        if not files:
            raise LibraryError(f"library: {room} has no source files here, so nothing shows that it fits")
        for file in files:
            content = file.read_bytes()
            digest.update(f"{room}/{file.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


# Numbers of features in the kernel's word for a processor: x86 counts the bits of CPUID's leaves, Arm its
# HWCAP.
_NUMBERS: Final = {
    "x86": {
        "pni": 128, "ssse3": 137, "fma": 140, "sse4_1": 147, "sse4_2": 148, "movbe": 150, "popcnt": 151,
        "avx": 156, "f16c": 157, "abm": 197, "bmi1": 291, "avx2": 293, "bmi2": 296, "avx512f": 304,
        "avx512dq": 305, "avx512ifma": 309, "avx512cd": 316, "avx512bw": 318, "avx512vl": 319,
        "avx512vbmi": 513, "avx512_vbmi2": 518, "gfni": 520, "avx512_vnni": 523, "avx512_bitalg": 524,
        "avx512_vpopcntdq": 526,
    },
    "aarch64": {"fp": 0, "asimd": 1, "atomics": 8, "fphp": 9, "asimdhp": 10, "asimddp": 20},
}  # fmt: skip


def cpu_features(root: Path = Path("/")) -> frozenset[str]:
    """What every processor of this machine can do, in Linux's words; empty where it does not say.

    A hardened service does not see /proc/cpuinfo; then /sys has the features as numbers, of those known here.
    """
    with suppress(OSError):
        text = (root / "proc/cpuinfo").read_text("ascii", "replace")
        lines = re.findall(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
        if lines:
            return frozenset.intersection(*(frozenset(line.split()) for line in lines))
    with suppress(OSError):
        text = (root / "sys/devices/system/cpu/modalias").read_text("ascii", "replace")
        if found := re.match(r"cpu:type:(\w+)[^\n]*:feature:([,0-9A-F]*)", text):
            numbers = {int(n, 16) for n in found[2].split(",") if n}
            known = _NUMBERS.get(found[1], {})
            return frozenset(name for name, number in known.items() if number in numbers)
    return frozenset()


class Library:
    """A library, checked against this process and loaded.

    Args:
        folder: what `edge-rnn build` wrote.

    Attributes:
        folder; description; lanes; fused: class F, else U; numeric: "F" or "U".

    Raises:
        LibraryError: it cannot be read, is damaged, or is not for this processor or this version; the message
            names which.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.description = read_description(self.folder)
        self._check_process()
        self._handle = self._load()

    def __repr__(self) -> str:
        d = self.description
        return f"<Library for {d.model.name!r}: {d.target}, class {d.numeric}, {d.lanes} lanes>"

    @property
    def lanes(self) -> int:
        """Units per block: pack a model with the same number."""
        return self.description.lanes

    @property
    def fused(self) -> bool:
        """Class F, else U."""
        return self.description.numeric == "F"

    @property
    def numeric(self) -> Literal["F", "U"]:
        """The numeric class."""
        return self.description.numeric

    def code(self, entry: Entry) -> Code:
        """The function of this entry.

        Raises:
            LibraryError: the library has no such function.
        """
        symbol = self.description.symbols.get(entry.name, entry.name)
        try:
            function = self._handle[symbol + PYTHON_SUFFIX]
        except AttributeError:
            self._refuse(f"has no function {entry.name}; build it again")
        method = _Method(entry.name.encode(), ctypes.cast(function, ctypes.c_void_p), _FASTCALL, None)
        make = ctypes.pythonapi.PyCFunction_NewEx
        make.restype = ctypes.py_object
        make.argtypes = (ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)
        # The function keeps its `self`, here what it is made of; the library stays loaded for good.
        return cast(Code, make(ctypes.addressof(method), method, None))

    def check(self, model: Model) -> None:
        """Raise `LibraryError` unless it was built for the network of `model`."""
        built = self.description.model
        if weights_digest(model) != built.weights:
            self._refuse(f"was built for other weights (model {built.name!r}); build it for this model")
        if StateLayout(model).digest != built.layout:
            self._refuse("was built for another layout of the state; build it again")

    def check_detector(self, layout_digest: str) -> None:
        """Raise `LibraryError` unless the detector's record was laid out so when it was built."""
        built = self.description.model.detector
        if built is None:
            self._refuse("was built for a model without detector; build it for this model")
        if built != layout_digest:
            self._refuse("was built for another layout of the detector; build it for this model")

    def _check_process(self) -> None:
        d = self.description
        if platform.machine() != d.machine or ctypes.sizeof(ctypes.c_void_p) != 8:
            self._refuse(f"is for {d.target} ({d.machine}), this process is {platform.machine()}")
        there = cpu_features()
        missing = sorted(set(d.features) - there)
        if missing and there:
            self._refuse(
                f"is for {d.target}: this CPU has no {', '.join(missing)}; build it for another target"
            )
        if missing:
            self._refuse("cannot be used: neither /proc/cpuinfo nor /sys says what this CPU can do")
        if d.object_header != object.__basicsize__:
            self._refuse("was built for another build of Python; build it with this one")
        if d.sources != sources_digest():
            built = d.versions.get("edge-rnn", "unknown")
            self._refuse(f"was built from other sources (edge-rnn {built}); build it again with this version")

    def _load(self) -> ctypes.PyDLL:
        file, said = self.folder / LIBRARY, self.description
        try:
            opened = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise _unreadable(file, error) from error
        keep = False
        try:
            with os.fdopen(opened, "rb", closefd=False) as stream:
                content = _read(stream, file, _LARGEST_LIBRARY)
            if len(content) != said.size:
                self._refuse(f"is damaged: {file} has {len(content)} bytes, expected {said.size}")
            if hashlib.sha256(content).hexdigest() != said.sha256:
                self._refuse(f"is damaged: the checksum of {file} is not the one in {DESCRIPTION}")
            status = os.fstat(opened)
            loaded = _loaded(status.st_dev, status.st_ino)
            if said.sha256 not in loaded:
                if loaded:
                    self._refuse(f"cannot be loaded: {file} was overwritten while in use; build it again")
                loaded[said.sha256] = self._map(opened)
                keep = True
            return loaded[said.sha256]
        finally:
            if not keep:
                os.close(opened)

    def _map(self, opened: int) -> ctypes.PyDLL:
        # pow and log, where a detector takes them, are found in the process: Python mostly brings libm along.
        for name in ("libm.so.6",) if {"pow", "log"} & set(self.description.imports) else ():
            with suppress(OSError):
                ctypes.CDLL(name, ctypes.RTLD_GLOBAL)
        try:
            return ctypes.PyDLL(f"/proc/self/fd/{opened}")
        except OSError as error:
            self._refuse(f"cannot be loaded: {error}")

    def _refuse(self, reason: str) -> NoReturn:
        raise LibraryError(f"library {self.folder}: {reason}")


def read_description(folder: Path) -> Description:
    """What `edge_rnn.json` in `folder` says, nothing compared yet.

    Raises:
        LibraryError: it cannot be read or is none.
    """
    file = folder / DESCRIPTION
    try:
        with file.open("rb") as stream:
            content = _read(stream, file, _LARGEST_DESCRIPTION)
    except OSError as error:
        raise _unreadable(file, error) from error
    return decode_description(content, file)


def decode_description(content: bytes, file: Path) -> Description:
    """The description in `content`; `file` is for messages.

    Raises:
        LibraryError: it is none, or of another version.
    """
    try:
        head: Any = msgspec.json.decode(content)
        if not isinstance(head, dict) or head.get("format") != "edge-rnn library":
            raise LibraryError(f"{file}: not the description of a library; see edge-rnn build")
        if head.get("version") != VERSION:
            raise LibraryError(
                f"{file}: version {head.get('version')!r}, expected {VERSION}; build it again with this one"
            )
        return msgspec.convert(head, Description)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise LibraryError(f"{file}: not the description of a library: {error}") from error


def _read(stream: BinaryIO, file: Path, most: int) -> bytes:
    try:
        content = stream.read(most + 1)
    except OSError as error:
        raise _unreadable(file, error) from error
    if len(content) > most:
        raise LibraryError(f"{file}: more than {most} bytes; that is no library of edge-rnn build")
    return content


def _unreadable(file: Path, error: OSError) -> LibraryError:
    return LibraryError(f"{file}: cannot be read: {error.strerror or error}; see edge-rnn build")
