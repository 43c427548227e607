"""One message from the broker, as the connection hands it to the daemon."""

from __future__ import annotations

from typing import NamedTuple


class Delivery(NamedTuple):
    """`mid` and `epoch` are for `Connection.ack` (QoS 1 only); `dup`: the broker says it sent it before."""

    topic: str
    payload: bytes
    qos: int
    retained: bool
    arrival_ns: int
    mid: int
    epoch: int
    dup: bool = False
