"""A `Connection` for tests, and a loop that turns it."""

from __future__ import annotations

import io
import time

import pytest

from edge_rnn.files.config_types import MqttConfig
from edge_rnn.service.clock import Arrival, Clock
from edge_rnn.service.logs import Log
from edge_rnn.service.mqtt import Connection, Delivery

WILL = ("out/status", b"offline")
BOTH = pytest.mark.parametrize("protocol", ["5", "3.1.1"])


def make(
    port: int, *filters: str, retained: bool = False, out: io.StringIO | None = None, **changes
) -> Connection:
    settings = {"host": "127.0.0.1", "port": port, "client_id": "er-test", "keepalive_s": 5, **changes}
    keywords = {k: settings.pop(k) for k in ("make_client", "spawn", "chance", "clock") if k in settings}
    log = settings.pop("log", None) or Log(stream=out or io.StringIO())
    return Connection(
        MqttConfig(**settings), dict.fromkeys(filters, retained), WILL, log,
        arrival=Arrival(Clock()), **{"chance": lambda: 0.0, **keywords},
    )  # fmt: skip


def run(link: Connection, until, seconds: float = 30.0, ack: bool = True) -> list[Delivery]:
    """Turn the loop until `until(messages)`."""
    got: list[Delivery] = []
    deadline = time.monotonic() + seconds
    while not until(got):
        assert time.monotonic() < deadline, f"gave up after {len(got)} messages, {link.counters}"
        new = link.turn(0.05)
        got += new
        if ack:
            link.ack(new)
    return got
