"""What one pass over a receive buffer has found: many messages as columns, in place of an object each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from edge_rnn.service.delivery import Delivery


class Swath:
    """Messages that came one after the other, each with all channels of a stream.

    Args:
        raw: their packets; five: these have properties.
        block: i8, rows of columns as in `stream.columns.Columns`; these messages' begin at `first`, and are
            at `address`.
        stop: where the first byte behind them is.

    Attributes:
        count: how many.
        group: number of their group; -1: they are of several.
        acks: PUBACK packets for those of QoS 1.
        payload_bytes: sum of their payloads.
        arrival_ns: time of arrival of the last one; each is 1 ns after the one before.
        epoch: of the connection they came over.
        generation: of the lanes' numbers, see `sources.py`.
    """

    __slots__ = (
        "_block", "_first", "_five", "_raw", "acks", "address", "arrival_ns", "count", "epoch", "generation",
        "group", "payload_bytes", "stop",
    )  # fmt: skip

    def __init__(
        self,
        raw: bytes,
        five: bool,
        block: NDArray[np.int64],
        first: int,
        address: int,
        count: int,
        stop: int,
        group: int,
        acks: bytes,
        payload_bytes: int,
        arrival_ns: int,
        epoch: int,
        generation: int,
    ) -> None:
        self._raw, self._five = raw, five
        self._block, self._first, self.address = block, first, address
        self.count, self.stop, self.group, self.acks = count, stop, group, acks
        self.payload_bytes, self.arrival_ns, self.epoch = payload_bytes, arrival_ns, epoch
        self.generation = generation

    @property
    def block(self) -> NDArray[np.int64]:
        """A row a message."""
        return self._block[self._first : self._first + self.count]

    @property
    def qos(self) -> int:
        """How many of them wait for an acknowledgement."""
        return len(self.acks) // 4

    def deliveries(self) -> list[Delivery]:
        """The messages themselves, each as if it had come alone."""
        raw, at, now = self._raw, 0, self.arrival_ns - self.count
        found = []
        while at < len(raw):
            header, begin, size, shift = raw[at], at + 1, 0, 0
            while True:
                size |= (raw[begin] & 127) << shift
                shift += 7
                begin += 1
                if raw[begin - 1] < 128:
                    break
            at = begin + size
            body = begin + 2 + int.from_bytes(raw[begin : begin + 2], "big")
            topic, mid = raw[begin + 2 : body].decode(), 0
            if header & 2:
                mid = int.from_bytes(raw[body : body + 2], "big")
                body += 2
            now += 1
            payload = raw[body + self._five : at]
            found.append(
                Delivery(
                    topic,
                    payload,
                    qos=header >> 1 & 1,
                    retained=False,
                    arrival_ns=now,
                    mid=mid,
                    epoch=self.epoch,
                    dup=header & 8 == 8,
                )
            )
        return found


_MOST_RUNS = 8
_FEW = 8

Arrived = Delivery | Swath
"""What a turn of the connection brings, in order."""


def expanded(arrived: Iterable[Arrived]) -> list[Delivery]:
    """All messages one by one."""
    found: list[Delivery] = []
    for one in arrived:
        if type(one) is Swath:
            found += one.deliveries()
        else:
            found.append(one)  # type: ignore[arg-type]
    return found


def runs(arrived: Sequence[Arrived], generation: Callable[[], int]) -> Iterator[Swath | list[Delivery]]:
    """Runs of messages that go one way: swaths of the lanes there are, and what is between them.

    The generation is asked for at each swath, when all before it has been judged: messages between two swaths
    may have begun the lanes anew, and a lane's number then means another stream.

    Where they alternate often, a way of its own for each few would cost more than it saves: all go one by
    one.
    """
    if len(arrived) > _MOST_RUNS and 2 * sum(type(one) is Swath for one in arrived) > count(arrived) // _FEW:
        yield expanded(arrived)
        return
    between: list[Delivery] = []
    for one in arrived:
        if type(one) is not Swath:
            between.append(one)  # type: ignore[arg-type]
            continue
        if between and one.generation == generation():
            yield between
            between = []
        if one.generation == generation():
            yield one
        else:
            between += one.deliveries()
    if between:
        yield between


def count(arrived: Sequence[Arrived]) -> int:
    """How many messages these are."""
    return len(arrived) + sum(one.count - 1 for one in arrived if type(one) is Swath)
