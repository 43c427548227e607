"""What was published last, one row a stream: numbers that both plain Python and compiled code read and write.

The rows' words are in `words.py`. Python looks at them through memoryviews, which costs a third of indexing
an array: a row begins at `row * STREAM_WORDS` in both views.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_rnn.service.wire import words

_FIRST_ROWS: Final = 16


class ToldTable:
    """Rows that are taken and given back; `i8` and `f8` are views of the same memory."""

    def __init__(self) -> None:
        self.words: NDArray[np.int64] = np.empty((0, words.STREAM_WORDS), np.int64)
        self._free: list[int] = []
        self._grow(_FIRST_ROWS)

    def take(self) -> int:
        """A row of a stream of which nothing was told yet."""
        if not self._free:
            self._grow(2 * len(self.words))
        row = self._free.pop()
        fresh = self.words[row]
        fresh[:] = 0
        fresh[words.CODE] = fresh[words.STATUS] = -1
        fresh[words.SCORED] = words.NEVER
        return row

    def give_back(self, row: int) -> None:
        """The stream of this row is forgotten."""
        self._free.append(row)

    def _grow(self, rows: int) -> None:
        before = len(self.words)
        wider = np.zeros((rows, words.STREAM_WORDS), np.int64)
        wider[:before] = self.words
        self.words = wider
        self.address = wider.ctypes.data
        self.i8 = memoryview(wider.reshape(-1).data)
        self.f8 = memoryview(wider.view(np.uint8).reshape(-1).data).cast("d")
        self._free += range(rows - 1, before - 1, -1)
