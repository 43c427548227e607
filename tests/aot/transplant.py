"""Compiled functions on another machine: a call's memory goes there as a file, and comes back.

`Elsewhere` is a backend as `Jit` and `Library` are, so steppers, batches and detectors run on it as they are.
A table of a call is int64 words, mostly addresses. The arrays that a call can reach are those of the objects
in the calling functions' local variables. Every word in them that lies inside one of them is taken for an
address; nothing is known here of what the words mean, so a new entry point needs nothing new. (A word may
only look like one, in memory that nobody has written yet; see driver.c.) Of an object that is given by its
`id`, the first fields go along.
"""

from __future__ import annotations

import ctypes
import itertools
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core import header
from edge_rnn.core.entries import Code, Entry

Array = NDArray[Any]
_FRAMES = 8


def arrays_of(*things: object) -> dict[int, Array]:
    """All arrays reachable through the attributes and containers of these objects, by `id`."""
    found: dict[int, Array] = {}
    seen: set[int] = set()
    left: list[object] = list(things)
    while left:
        thing = left.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, np.ndarray):
            found[id(thing)] = thing
            left.append(thing.base)
        elif isinstance(thing, dict):
            left += thing.values()
        elif isinstance(thing, list | tuple | set):
            left += thing
        elif getattr(type(thing), "__module__", "").startswith("edge_rnn"):
            left += vars(thing).values() if hasattr(thing, "__dict__") else ()
            for kind in type(thing).__mro__:
                left += [getattr(thing, s) for s in getattr(kind, "__slots__", ()) if hasattr(thing, s)]
    return found


def blocks_of(arrays: dict[int, Array]) -> list[Array]:
    """The arrays that hold the memory of all, each byte once: what lies in a larger one is left out."""
    plain = [a for a in arrays.values() if a.size and a.flags.c_contiguous and a.dtype.kind != "O"]
    kept: list[Array] = []
    end = 0
    for array in sorted(plain, key=lambda a: (a.ctypes.data, -a.nbytes)):
        at = array.ctypes.data
        if at + array.nbytes > end:
            assert at >= end, "arrays that overlap in part"
            kept.append(array)
            end = at + array.nbytes
    return kept


@dataclass
class Call:
    """An entry point and its arguments, and the memory it works on, as it is now."""

    entry: Entry
    arguments: tuple[int, ...]
    arrays: list[Array]

    def __post_init__(self) -> None:
        self._starts = np.array([a.ctypes.data for a in self.arrays])
        self._ends = self._starts + np.array([a.nbytes for a in self.arrays])
        self._memory = [np.frombuffer(a, np.uint8) for a in self.arrays]
        self.links: list[tuple[int, int, int, int]] = []
        for i, data in enumerate(self._memory):
            words = data[: data.size // 8 * 8].view(np.int64)
            for k in np.flatnonzero((words >= self._starts[0]) & (words < self._ends[-1])):
                if (place := self._place(int(words[k]))) is not None:
                    self.links.append((i, 8 * int(k), *place))
        assert self.links  # a call without one address would do nothing

    def _place(self, address: int) -> tuple[int, int] | None:
        i = int(np.searchsorted(self._starts, address, "right")) - 1
        return (i, address - int(self._starts[i])) if i >= 0 and address < self._ends[i] else None

    def input(self) -> bytes:
        """The driver's input file."""
        parts = [struct.pack("<2q", len(self.arrays), len(self.links))]
        for content in self._memory:
            parts += [struct.pack("<q", content.size), content.tobytes()]
        parts += [struct.pack("<4q", *link) for link in self.links]
        for argument in self.arguments:
            place = self._place(argument)
            parts.append(struct.pack("<2q", *(place if place is not None else (-1, argument))))
        return b"".join(parts)

    def take_over(self, output: bytes) -> int | float:
        """Take over the memory as the driver left it: the result."""
        ends = np.cumsum([8, *(m.size for m in self._memory)])
        assert len(output) == ends[-1]
        for memory, (begin, end) in zip(self._memory, itertools.pairwise(ends), strict=True):
            if memory.flags.writeable:
                memory[:] = np.frombuffer(output[begin:end], np.uint8)
            else:
                assert memory.tobytes() == output[begin:end]
        result: int | float = struct.unpack("<d" if self.entry.result == "float64" else "<q", output[:8])[0]
        return result


class Elsewhere:
    """A backend whose functions run in a library on another machine; to be closed.

    Args:
        command: runs the driver there.
        library: the shared library.
        folder: for the files of a call.

    Attributes:
        lanes, fused: of the library.
        calls: how often which entry was called.
    """

    def __init__(self, lanes: int, fused: bool, command: list[str], library: Path, folder: Path) -> None:
        self.lanes, self.fused = lanes, fused
        self.calls: dict[str, int] = {}
        self._input, self._output = folder / "input", folder / "output"
        self._driver = subprocess.Popen(
            [*command, str(library)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def close(self) -> None:
        """End the driver."""
        self._driver.communicate(timeout=60)
        assert self._driver.returncode == 0

    def code(self, entry: Entry) -> Code:
        """The function, to be called by code of the package."""

        def function(*arguments: int) -> int | float:
            self.calls[entry.name] = self.calls.get(entry.name, 0) + 1
            held = _locals(sys._getframe(1))
            objects, arrays = {id(thing): thing for thing in held}, arrays_of(*held)
            given, more = [], []
            for argument in arguments:
                made = [_header(objects[argument])] if argument in objects else []
                if argument in arrays:
                    made.append(np.array(arrays[argument].shape, np.int64))
                    made[0][header.SHAPE // 8] = made[1].ctypes.data
                more += made
                given.append(made[0].ctypes.data if made else argument)
            call = Call(entry, tuple(given), blocks_of(arrays | {id(a): a for a in more}))
            return call.take_over(self._run(entry, len(given), call.input()))

        return function

    def _run(self, entry: Entry, count: int, content: bytes) -> bytes:
        assert self._driver.stdin is not None
        assert self._driver.stdout is not None
        self._input.write_bytes(content)
        kind = f"{count}{'d' if entry.result == 'float64' else 'q'}"
        self._driver.stdin.write(f"edge_rnn_{entry.name} {kind} {self._input} {self._output}\n")
        self._driver.stdin.flush()
        assert self._driver.stdout.readline().startswith("0x"), f"ended with {self._driver.wait(60)}"
        return self._output.read_bytes()


def _locals(frame: Any) -> list[object]:
    """What the package's functions that led here hold."""
    found: list[object] = []
    for _ in range(_FRAMES):
        if frame is None or not frame.f_globals["__name__"].startswith("edge_rnn"):
            break
        found += frame.f_locals.values()
        frame = frame.f_back
    return found


def _header(thing: object) -> Array:
    """The fields of an object that compiled code reads when it looks whether that is an array."""
    size = header.FLAGS + 8
    fields = ctypes.string_at(id(thing), min(sys.getsizeof(thing), size)).ljust(size, b"\0")
    return np.frombuffer(bytearray(fields[: size // 8 * 8]), np.int64)
