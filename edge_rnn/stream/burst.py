"""Many messages at once: vectors put together with a few array operations, verdicts left as arrays.

The usual message carries all channels of its stream and is later than everything before it. A burst of such
messages needs no look at each one: `assemble` writes what `Assembler.add` would have written, message by
message, and gives the same samples. A burst with anything else in it (a part of the channels, a time that is
not later, an interval mode, values that wait) is left to `Assembler.add`; so nothing depends on the cut.

`Judged` is the answer to a burst: the detector's records and whose they are. Most verdicts are published and
forgotten; only those that somebody looks at become `Verdict` objects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_rnn.detect.guard import FRESH, HELD
from edge_rnn.detect.verdict import Verdict
from edge_rnn.stream import assemble as at
from edge_rnn.stream.assemble import NEVER, Assembler, Batch

if TYPE_CHECKING:
    from edge_rnn.stream.states import StreamTable

__all__ = ["FEW", "Burst", "Judged", "assemble"]

FEW = 8
"""Below this many messages one after the other is quicker."""


class Burst:
    """Messages of one group in order of arrival, with their streams' rows.

    whole: all of them carry all channels, in the order of the model's inputs.
    """

    __slots__ = ("channels", "rows", "times_ns", "values", "whole")

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.times_ns: list[int] = []
        self.values: list[Sequence[float]] = []
        self.channels: list[tuple[int, ...]] = []
        self.whole = True


class Judged:
    """Samples of one group that were judged in one call, in order.

    Attributes:
        group: its name.
        rows: i8 (n,), the row of each sample's stream in the group's table.
        generation: how often a stream of the group had been forgotten: rows of one generation mean the same
            streams.
        records: (n,) of the detector's verdict dtype.
        scorers: the scorers' names, in the order of the records' numbers.
        addresses: of rows and records, where these are known; else 0.
    """

    __slots__ = (
        "_explain",
        "_ids",
        "_streams",
        "addresses",
        "generation",
        "group",
        "records",
        "rows",
        "scorers",
    )

    def __init__(
        self,
        table: StreamTable,
        group: str,
        rows: NDArray[np.int64],
        records: NDArray[np.void],
        explain: Callable[[list[str], NDArray[np.void]], list[Verdict]],
        addresses: Sequence[int] = (0, 0),
    ) -> None:
        self.group = group
        self.rows = rows
        self.records = records
        self.generation = table.drops
        self.scorers: tuple[str, ...] = table.detector.plan.scorer_names
        self._ids = table.ids
        self._streams: list[str] | None = None
        self._explain = explain
        self.addresses = addresses

    @property
    def streams(self) -> list[str]:
        """The id of each sample's stream; asked for the first time before any of them is forgotten."""
        if self._streams is None:
            ids = self._ids
            self._streams = [str(ids[row]) for row in self.rows.tolist()]
        return self._streams

    def __len__(self) -> int:
        return len(self.rows)

    def verdict(self, index: int) -> Verdict:
        """One of them for people and programs; its arrays are views of the records."""
        return self._explain(self.streams[index : index + 1], self.records[index : index + 1])[0]

    def verdicts(self) -> list[Verdict]:
        """All of them."""
        return self._explain(self.streams, self.records)


def assemble(assembler: Assembler, burst: Burst, now_ns: int, first_use: int, out: Batch) -> bool:
    """Take a whole burst; False, and nothing has changed, if it must go message by message."""
    n, c = len(burst.rows), assembler.channels
    if not burst.whole or not assembler.is_immediate():
        return False
    rows = np.array(burst.rows, np.int64)
    times = np.array(burst.times_ns, np.int64)
    marks = assembler.marks
    before = marks[rows]
    if (times <= np.maximum(before[:, at.NEWEST], before[:, at.EMITTED])).any():
        return False
    if (before[:, at.OPENED] != NEVER).any():
        return False
    # The last sample of each row, and the first: what they leave behind.
    order = np.argsort(rows, kind="stable")
    sorted_rows, sorted_times = rows[order], times[order]
    same = sorted_rows[1:] == sorted_rows[:-1]
    if (sorted_times[1:][same] <= sorted_times[:-1][same]).any():
        return False
    last = order[np.append(~same, True)]
    first = order[np.append(True, ~same)]
    values = np.fromiter(chain.from_iterable(burst.values), np.float64, n * c).reshape(n, c)

    to = rows[last]
    starts = to[marks[to, at.FIRST] == NEVER]
    if starts.size:
        new = np.isin(rows[first], starts)
        marks[rows[first][new], at.FIRST] = times[first][new]
    assembler.learn_all(rows, times)
    marks[to, at.NEWEST] = marks[to, at.EMITTED] = times[last]
    marks[to, at.OPENED_AT] = marks[to, at.ACTIVE_AT] = now_ns
    marks[to, at.SEEN] = c
    if assembler.has_start():
        marks[to, at.STARTED] = 1
    marks[to, at.QUIET] = marks[to, at.NEW] = 0
    marks[to, at.USED] = first_use + last
    assembler.values[to] = values[last]
    assembler.times[to] = times[last, None]
    assembler.flags[to] = HELD
    out.extend(rows, times, values, FRESH)
    return True
