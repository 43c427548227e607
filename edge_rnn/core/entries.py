"""Where the compiled functions that Python calls are made, without importing what makes them.

One line per function: adding one here (or to the table of a room above) is all it takes for it to be compiled
by the just-in-time compiler, emitted by an ahead-of-time build and found in a library.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Code = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """A function of int64 that returns a number.

    Attributes:
        name: of its own among all entries; the symbol in a library is `edge_rnn_<name>`.
        module, factory: factory(lanes, fused) there gives its `jit.EntryPoint`; imported when compiled.
        arguments: how many int64 it takes.
        result: the type of what it returns.
    """

    name: str
    module: str
    factory: str
    arguments: int
    result: Literal["int64", "float64"] = "int64"


class Backend(Protocol):
    """Where compiled functions come from: all for one vector width and one numeric class."""

    @property
    def lanes(self) -> int:
        """Units per block: pack a model with the same number."""

    @property
    def fused(self) -> bool:
        """Class F, else U."""

    def code(self, entry: Entry) -> Code:
        """The function, ready to be called; nothing is compiled later."""


DRIVE = Entry("drive", "edge_rnn.core.kernels", "drive", 2)
MANY = Entry("many", "edge_rnn.core.many", "many", 4)
ENTRIES = (DRIVE, MANY)
# Of float16 weights; compiled where it is used and in no library, whose weights are float32.
DRIVE_HALF = Entry("drive_half", "edge_rnn.core.kernels", "drive_half", 2)

# What the functions answer besides counts and indices: done; or the input is not what the table says; or
# (less t) no row has the number given at t.
DONE, UNFIT, NO_ROW = -1, -2, -3
