"""The topics whose messages go the quick way, as tables for `scan.py`; and the pass over a receive buffer.

A topic gets a *lane* when a message of it has come the way in Python and would have been read the same by
`scan.py`. Lanes of one route share a *form*: which names its payload has and which values they are. Tables
are bounded; when they are full they begin anew, with another `generation`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_rnn.service.wire import scan_words as words
from edge_rnn.service.wire.swath import Swath
from edge_rnn.stream.columns import Columns
from edge_rnn.stream.columns_words import LANE, VALUES

_UNITS: Final = {
    None: words.NO_TIME, "auto": words.AUTO, "s": words.SECONDS, "ms": words.MILLISECONDS,
    "us": words.MICROSECONDS, "ns": words.NANOSECONDS,
}  # fmt: skip
_MOST_LANES: Final = 65_536
_MOST_KEYS: Final = 62
_NUMBERS: Final = 1 << 17
_LEAST: Final = 256
# What a name in a payload can only hold escaped.
_ODD: Final = re.compile(rb'[\x00-\x1f"\\]')
# After a reload there are other tables, and swaths of the ones before may still be on their way.
_GENERATIONS = itertools.count(1)
_BASIS, _PRIME, _MASK = 0xCBF29CE484222325, 0x100000001B3, 2**64 - 1


class Sources:
    """See the module.

    Args:
        scan: see `scan.scanner`.
        groups: the streams' groups and how many channels each has.
        five: MQTT 5.

    Attributes:
        streams: the stream of each lane.
        generation: lane numbers of one generation mean the same topics; no other tables have the same one.
    """

    def __init__(
        self, scan: Callable[[int, int], int], groups: Sequence[tuple[str, int]], *, five: bool
    ) -> None:
        self.streams: list[str] = []
        self.generation = 0
        self._scan = scan
        self._five = five
        self._groups = [name for name, _ in groups]
        self._channels = [channels for _, channels in groups]
        self._width = width = VALUES + max(self._channels)
        self._room = room = max(_LEAST, min(4096, _NUMBERS // width))
        self._row_bytes = 8 * width
        self._used = 0
        self._new_block()
        self._acks: NDArray[np.uint8] = np.zeros(4 * room, np.uint8)
        self._ack_view = memoryview(self._acks.data)
        self._t = np.zeros(words.WORDS, np.int64)
        self._words = t = memoryview(self._t.data)
        self._table_at = self._t.ctypes.data
        t[words.FIVE], t[words.WIDTH], t[words.OUT_ACKS] = five, width, self._acks.ctypes.data
        self._forms: dict[tuple[object, ...], int] = {}
        self._form_list: list[int] = []
        self._keys: list[int] = []
        self._names = b""
        self._known: set[bytes] = set()
        self._lane_table: NDArray[np.int64] = np.zeros((0, words.LANE_WORDS), np.int64)
        self._slots: NDArray[np.int64] = np.zeros(0, np.int64)
        self._texts: NDArray[np.uint8] = np.zeros(0, np.uint8)
        self._text_size = 0
        self._clear()

    # ---- what is known

    def form(
        self, group: str, names: Sequence[bytes], channels: Sequence[int], unit: str | None, most: int
    ) -> int | None:
        """The number of a form; None if payloads of this kind cannot go the quick way.

        Args:
            group: its group.
            names: the payload's names, of the channels in their order and then of the time, if it has one.
            channels: which values these are.
            unit: of the time; None: there is none.
            most: bytes of a payload.
        """
        wanted = (group, tuple(names), tuple(channels), unit, most)
        found = self._forms.get(wanted)
        if found is not None:
            return found
        place = self._groups.index(group)
        whole = sorted(channels) == list(range(self._channels[place]))
        plain = all(name and not _ODD.search(name) for name in names) and len(set(names)) == len(names)
        if not (whole and plain) or unit not in _UNITS or len(names) > _MOST_KEYS:
            return None
        number = len(self._forms)
        self._forms[wanted] = number
        self._form_list += (len(self._keys) // 3, len(names), _UNITS[unit], most, place)
        targets = [*channels, -1] if unit is not None else list(channels)
        for name, target in zip(names, targets, strict=True):
            self._keys += (len(self._names), len(name), target)
            self._names += name
        self._kept_forms = np.array(self._form_list, np.int64)
        self._kept_keys = np.array(self._keys, np.int64)
        self._kept_names = np.frombuffer(self._names, np.uint8)
        t = self._words
        t[words.FORMS], t[words.FORM_COUNT] = self._kept_forms.ctypes.data, number + 1
        t[words.KEY_TABLE], t[words.KEY_COUNT] = self._kept_keys.ctypes.data, len(self._keys)
        t[words.NAMES], t[words.NAMES_SIZE] = self._kept_names.ctypes.data, len(self._names)
        return number

    def knows(self, topic: bytes) -> bool:
        """Whether the topic has a lane."""
        return topic in self._known

    def add(self, topic: bytes, stream: str, form: int) -> None:
        """Give a topic a lane."""
        if len(self.streams) >= _MOST_LANES:
            self._clear()
        lane = len(self.streams)
        try:
            if lane >= len(self._lane_table):
                self._grow()
            if self._text_size + len(topic) > len(self._texts):
                wider = np.zeros(2 * (len(self._texts) + len(topic)), np.uint8)
                wider[: len(self._texts)] = self._texts
                self._texts = wider
        finally:
            # Whatever comes of it: the tables from before are no more, and `_scan` must not read there.
            self._look()
        # Known from here on, even if its place is too far away: it would be so at every message.
        self._known.add(topic)
        if not self._place(topic, lane):
            return
        self._texts[self._text_size : self._text_size + len(topic)] = np.frombuffer(topic, np.uint8)
        self._lane_table[lane] = (self._text_size, len(topic), form)
        self._text_size += len(topic)
        self.streams.append(stream)

    def _clear(self) -> None:
        self.generation = next(_GENERATIONS)
        self.streams = []
        self._known.clear()
        self._lane_table = np.zeros((64, words.LANE_WORDS), np.int64)
        self._slots = np.full(256, -1, np.int64)
        self._texts = np.zeros(4096, np.uint8)
        self._text_size = 0
        self._look()

    def _place(self, topic: bytes, lane: int) -> bool:
        code = _BASIS
        for byte in topic:
            code = (code ^ byte) * _PRIME & _MASK
        mask = len(self._slots) - 1
        slot = (code ^ code >> 32) & mask
        for _ in range(words.MOST_PROBES):
            if self._slots[slot] < 0:
                self._slots[slot] = lane
                return True
            slot = slot + 1 & mask
        return False

    def _grow(self) -> None:
        wider = np.zeros((2 * len(self._lane_table), words.LANE_WORDS), np.int64)
        wider[: len(self._lane_table)] = self._lane_table
        self._lane_table = wider
        self._slots = np.full(4 * len(wider), -1, np.int64)
        for lane in range(len(self.streams)):
            at, size, _ = self._lane_table[lane].tolist()
            self._place(self._texts[at : at + size].tobytes(), lane)

    def _look(self) -> None:
        t = self._words
        t[words.SLOTS], t[words.SLOT_COUNT] = self._slots.ctypes.data, len(self._slots)
        t[words.LANE_TABLE], t[words.LANE_COUNT] = self._lane_table.ctypes.data, len(self._lane_table)
        t[words.TOPICS], t[words.TOPICS_SIZE] = self._texts.ctypes.data, len(self._texts)

    # ---- what comes

    def take(
        self, data: memoryview, address: int, end: int, at: int, most: int, first_ns: int, epoch: int
    ) -> Swath | None:
        """The messages from `data[at:end]` on that are usual, up to the first one that is not.

        Args:
            data: received bytes; address: where they are.
            at: the beginning of a packet.
            most: a packet with more bytes is not taken.
            first_ns: the first message's time of arrival.
            epoch: of the connection.
        """
        if self._used > self._room - _LEAST:
            # Rows that were given away are never written again: they are read later, or never.
            self._new_block()
        t, used = self._words, self._used
        rows_at = self._block_at + used * self._row_bytes
        t[words.BUFFER], t[words.END], t[words.MOST], t[words.ARRIVAL] = address, end, most, first_ns
        t[words.OUT], t[words.ROOM] = rows_at, self._room - used
        stop = self._scan(self._table_at, at)
        n = t[words.COUNT]
        if not n:
            return None
        self._used = used + n
        acked = t[words.ACK_SIZE]
        return Swath(
            bytes(data[at:stop]), self._five, self._block, used, rows_at, n, stop, t[words.ONE_GROUP],
            bytes(self._ack_view[:acked]) if acked else b"", t[words.PAYLOADS], first_ns + n - 1, epoch,
            self.generation,
        )  # fmt: skip

    def _new_block(self) -> None:
        self._block: NDArray[np.int64] = np.empty((self._room, self._width), np.int64)
        self._block_at = self._block.ctypes.data
        self._used = 0

    def columns(self, swath: Swath) -> list[Columns]:
        """The messages by groups, in order of arrival within each; lanes of this generation."""
        block = swath.block
        if swath.group >= 0:
            return [Columns(self._groups[swath.group], self.streams, self.generation, block, swath.address)]
        of = self._kept_forms.reshape(-1, words.FORM_WORDS)[:, words.GROUP]
        groups = of[self._lane_table[block[:, LANE], words.FORM]]
        return [
            Columns(self._groups[group], self.streams, self.generation, block[groups == group])
            for group in np.unique(groups).tolist()
        ]
