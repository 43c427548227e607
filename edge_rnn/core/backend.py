"""Which compiled functions a stepper or detector runs: compiled in this process, or from a library.

`Jit` compiles with Numba (or loads from the compile cache). A `Library` (see `library.py`) was compiled ahead
of time; then neither Numba nor LLVM is imported. Bits are the same.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import import_module

from edge_rnn.core.entries import Backend, Code, Entry
from edge_rnn.core.jit import EntryPoint, Numeric, numeric_class, target
from edge_rnn.core.library import Library
from edge_rnn.core.model import Model

LibraryLike = Library | str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Jit:
    """Functions compiled in this process."""

    lanes: int
    fused: bool

    def code(self, entry: Entry) -> Code:
        """The function, compiled or loaded from the cache now."""
        return entry_point_of(entry, self.lanes, self.fused).machine_code


def entry_point_of(entry: Entry, lanes: int, fused: bool) -> EntryPoint:
    """What the entry's factory makes for this vector width and class; imports Numba."""
    made = getattr(import_module(entry.module), entry.factory)(lanes, fused)
    if not isinstance(made, EntryPoint):
        raise TypeError(f"{entry.module}.{entry.factory}: expected an EntryPoint, got {type(made).__name__}")
    return made


def backend(
    model: Model, numeric: Numeric = "auto", lanes: int | None = None, library: LibraryLike | None = None
) -> Backend:
    """Where the functions for `model` come from.

    Args:
        model: the network.
        numeric: "F", "U" or "auto": what suits the target, or what the library was built for.
        lanes: 4, 8 or 16; None takes what suits the target, or what the library was built for.
        library: a library made by `edge-rnn build`, or its folder.

    Raises:
        ValueError: `numeric` or `lanes` unknown, or not the library's.
        LibraryError: the library cannot be used here, or is not this model's.
    """
    if library is None:
        return Jit(target().lanes if lanes is None else lanes, numeric_class(numeric))
    if numeric not in ("auto", "F", "U"):
        raise ValueError(f'numeric: expected "auto", "F" or "U", got {numeric!r}')
    opened = library if isinstance(library, Library) else Library(library)
    opened.check(model)
    if numeric != "auto" and (numeric == "F") != opened.fused:
        raise ValueError(f"numeric: the library is class {opened.numeric}, got {numeric!r}")
    if lanes is not None and lanes != opened.lanes:
        raise ValueError(f"lanes: the library has {opened.lanes}, got {lanes}")
    return opened
