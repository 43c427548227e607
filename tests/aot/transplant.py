"""A call of a compiled function, taken out of this process: its memory as a file, its result compared.

A table of a call is int64 words, mostly addresses. Every word in the arrays that belong to a stepper or
detector is looked at: where it lies inside one of these arrays, it is an address. Nothing is known here of
what the words mean, so a new entry point needs nothing new.
"""

from __future__ import annotations

import itertools
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.entries import Entry

Array = NDArray[np.generic]


def arrays_of(*things: object) -> list[Array]:
    """All arrays reachable through the attributes and containers of these objects, each memory once."""
    found: dict[int, Array] = {}
    seen: set[int] = set()
    left: list[object] = list(things)
    while left:
        thing = left.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, np.ndarray):
            if thing.size and thing.flags.c_contiguous and thing.dtype.kind != "O":
                at = thing.ctypes.data
                if at not in found or found[at].nbytes < thing.nbytes:
                    found[at] = thing
            if isinstance(thing.base, np.ndarray):
                left.append(thing.base)
            continue
        if isinstance(thing, dict):
            left += thing.values()
        elif isinstance(thing, list | tuple | set):
            left += thing
        elif getattr(type(thing), "__module__", "").startswith("edge_rnn"):
            left += vars(thing).values() if hasattr(thing, "__dict__") else ()
            for kind in type(thing).__mro__:
                left += [getattr(thing, s) for s in getattr(kind, "__slots__", ()) if hasattr(thing, s)]
    # Views into a larger array are part of it.
    spans = sorted(found.items())
    kept: list[Array] = []
    end = 0
    for at, array in spans:
        if at + array.nbytes > end:
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
        self.links: list[tuple[int, int, int, int]] = []
        for i, array in enumerate(self.arrays):
            data = array.view(np.uint8).reshape(-1) if array.dtype.names is None else _bytes(array)
            words = data[: data.size // 8 * 8].view(np.int64)
            for k in np.flatnonzero((words >= self._starts[0]) & (words < self._ends[-1])):
                if (place := self._place(int(words[k]))) is not None:
                    self.links.append((i, 8 * int(k), *place))
        assert self.links  # a call without one address would do nothing
        self.before = [_bytes(a).tobytes() for a in self.arrays]

    def _place(self, address: int) -> tuple[int, int] | None:
        i = int(np.searchsorted(self._starts, address, "right")) - 1
        return (i, address - int(self._starts[i])) if i >= 0 and address < self._ends[i] else None

    def input(self) -> bytes:
        """The driver's input file."""
        parts = [struct.pack("<2q", len(self.arrays), len(self.links))]
        for content in self.before:
            parts += [struct.pack("<q", len(content)), content]
        parts += [struct.pack("<4q", *link) for link in self.links]
        for argument in self.arguments:
            place = self._place(argument)
            parts.append(struct.pack("<2q", *(place if place is not None else (-1, argument))))
        return b"".join(parts)

    def there(self, command: list[str], library: Path, folder: Path) -> tuple[int, list[bytes]]:
        """Let the driver call it: the result, and the memory afterwards, addresses as 0."""
        (folder / "input").write_bytes(self.input())
        kind = f"{len(self.arguments)}{'d' * (self.entry.result == 'float64')}"
        words = [f"edge_rnn_{self.entry.name}", kind, str(folder / "input"), str(folder / "output")]
        done = subprocess.run(
            [*command, str(library), *words], capture_output=True, text=True, check=False, timeout=600
        )
        assert done.returncode == 0, done.stderr
        data = (folder / "output").read_bytes()
        ends = np.cumsum([8, *map(len, self.before)])
        assert len(data) == ends[-1]
        blocks = [data[a:b] for a, b in itertools.pairwise(ends)]
        return struct.unpack("<q", data[:8])[0], blocks

    def content(self, blocks: list[bytes], array: Array) -> bytes:
        """The bytes of one of the arrays afterwards."""
        place = self._place(array.ctypes.data)
        assert place is not None
        return blocks[place[0]][place[1] : place[1] + array.nbytes]


def _bytes(array: Any) -> NDArray[np.uint8]:
    return np.frombuffer(array, np.uint8) if array.flags.c_contiguous else np.zeros(0, np.uint8)
