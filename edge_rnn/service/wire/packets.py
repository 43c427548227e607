"""Score messages of a burst as packets, ready to be sent: the Python side of `scores.py`.

A `PacketWriter` belongs to one configuration; a `PacketForm` to one group of streams in it. `begin` takes a
burst, `write` goes through it as far as all is usual, `add` puts in a packet that was made another way, and
`take` gives what there is so far.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_rnn.service.wire import words
from edge_rnn.service.wire.pieces import Pieces
from edge_rnn.service.wire.told import ToldTable

_ROOM: Final = 1 << 17
_PUBLISH: Final = 0x30

Write = Callable[[int, int], int]


class PacketWriter:
    """Room for packets, and the compiled function.

    Args:
        write: see `scores.writer`.
        five: MQTT 5: a topic is followed by properties, of which there are none.
    """

    def __init__(self, write: Write, *, five: bool) -> None:
        self.write = write
        self.make_room(_ROOM)
        self._tail = b"\0" if five else b""

    def make_room(self, size: int) -> None:
        """Have room for so many bytes of packets."""
        self.out: NDArray[np.uint8] = np.zeros(size, np.uint8)
        self.view = memoryview(self.out.data)
        self.address = self.out.ctypes.data

    def head(self, topic: str) -> NDArray[np.uint8]:
        """A packet's bytes between its length and its payload."""
        raw = topic.encode()
        return np.frombuffer(len(raw).to_bytes(2, "big") + raw + self._tail, np.uint8)


class PacketForm:
    """See the module.

    Args:
        names, scorers: see `Pieces`.
        every_ns: least event time between two scores of a stream.

    Attributes:
        ways: per row of the engine the stream's row in the table of what was told; -1: not known.
    """

    def __init__(
        self, writer: PacketWriter, names: Sequence[str], scorers: Sequence[str], every_ns: int
    ) -> None:
        self._writer = writer
        self._pieces = pieces = Pieces(names, scorers)
        if pieces.most > _ROOM // 4:
            writer.make_room(4 * pieces.most)
        self.ways: NDArray[np.int64] = np.full(16, -1, np.int64)
        self._generation = -1
        self._second, self._seconds = np.zeros(19, np.uint8), np.full(1, words.NEVER, np.int64)
        self._kept: tuple[object, ...] = ()
        self._t = table = np.zeros(words.WORDS, np.int64)
        self._words = memoryview(table.data)
        self._table_at = table.ctypes.data
        for word, value in {
            words.CHANNELS: len(names), words.EVERY: every_ns, words.TEXTS: pieces.texts.ctypes.data,
            words.ENDS: pieces.ends.ctypes.data, words.PIECES: pieces.count, words.MOST: pieces.most,
            words.SCORERS: pieces.scorers, words.FIRST: _PUBLISH, words.SECOND: self._second.ctypes.data,
            words.SECONDS: self._seconds.ctypes.data, words.WAYS: self.ways.ctypes.data,
            words.WAY_COUNT: len(self.ways),
        }.items():  # fmt: skip
            table[word] = value

    def begin(
        self,
        records: NDArray[np.void],
        rows: NDArray[np.int64],
        addresses: Sequence[int],
        generation: int,
        told: ToldTable,
    ) -> None:
        """Take a burst; rows of another generation may have been given to other streams meanwhile.

        addresses: of rows and records, or 0 where they are not known.
        """
        if generation != self._generation:
            self._generation = generation
            self.ways[:] = -1
        t = self._words
        self._kept = (records, rows, told.words)
        t[words.COUNT] = len(rows)
        rows_at, records_at = addresses
        t[words.RECORDS] = records_at or records.ctypes.data
        t[words.ITEM] = records.itemsize
        t[words.ROWS] = rows_at or rows.ctypes.data
        t[words.STREAMS] = told.address
        t[words.OUT], t[words.OUT_SIZE] = self._writer.address, len(self._writer.out)
        t[words.OUT_AT] = t[words.WRITTEN] = 0

    def write(self, index: int) -> int:
        """Go on from record `index`; the first one that was not dealt with."""
        return self._writer.write(self._table_at, index)

    @property
    def full(self) -> bool:
        """Whether `write` ended for want of room: what there is must be taken."""
        return not self._words[words.ROOM]

    def knows(self, row: int) -> bool:
        """Whether the engine's row has a way."""
        return row < len(self.ways) and bool(self.ways[row] >= 0)

    def learn(self, row: int, place: int, told: ToldTable) -> None:
        """The engine's row is told in `place`."""
        if row >= len(self.ways):
            wider = np.full(max(row + 1, 2 * len(self.ways)), -1, np.int64)
            wider[: len(self.ways)] = self.ways
            self.ways = wider
            self._words[words.WAYS], self._words[words.WAY_COUNT] = wider.ctypes.data, len(wider)
        self.ways[row] = place
        self._kept = (*self._kept[:2], told.words)
        self._words[words.STREAMS] = told.address

    def add(self, head: NDArray[np.uint8], payload: bytes) -> bool:
        """Put in one more packet; False if there is no room for it now."""
        size, t = len(head) + len(payload), self._words
        length = bytearray()
        rest = size
        while rest > 127:
            length.append(rest & 127 | 128)
            rest >>= 7
        packet = b"".join((bytes((_PUBLISH, *length, rest)), head.data, payload))
        at = t[words.OUT_AT]
        if at + len(packet) > len(self._writer.out):
            return False
        self._writer.view[at : at + len(packet)] = packet
        t[words.OUT_AT] = at + len(packet)
        t[words.WRITTEN] += 1
        return True

    def take(self) -> tuple[memoryview, int]:
        """The packets so far and how many they are; to be used before the next `write`."""
        t = self._words
        found = self._writer.view[: t[words.OUT_AT]], t[words.WRITTEN]
        t[words.OUT_AT] = t[words.WRITTEN] = 0
        return found

    def forget(self) -> None:
        """Rows of what was told have been given back: all ways are looked for again."""
        self.ways[:] = -1
