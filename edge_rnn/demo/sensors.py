"""The demo's sensors: a thread that publishes what the simulated pumps measure, on the beat.

Each pump sends its three channels as one JSON document per beat, with its event time:

    pumps/pump1/readings   {"time": 1763700000123456789, "vibration": 2.41, "temperature": 51.2, ...}

The beat is kept by absolute times, so a late one does not shift those after it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_rnn.demo.pumps import CHANNELS, PERIOD_NS, Plant

TOPIC: Final = "pumps/{pump}/readings"

Publish = Callable[[str, bytes], None]
OnSent = Callable[[str, int, NDArray[np.float64]], None]


def payload(time_ns: int, values: NDArray[np.float64]) -> bytes:
    """The JSON document of one pump at one time."""
    named = {channel.name: float(value) for channel, value in zip(CHANNELS, values, strict=True)}
    return msgspec.json.encode({"time": time_ns, **named})


class Sensors:
    """Publishes `steps` beats of `plant` in a thread of its own.

    Args:
        plant: the pumps.
        steps: how many beats to send.
        publish: sends one message.
        on_sent: told (pump, event time, values) just before each message leaves.
        period_ns: length of a beat.
    """

    def __init__(
        self, plant: Plant, steps: int, publish: Publish, on_sent: OnSent, period_ns: int = PERIOD_NS
    ) -> None:
        self._plant, self._steps = plant, steps
        self._publish, self._on_sent = publish, on_sent
        self._period_ns = period_ns
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="demo-sensors", daemon=True)

    def start(self) -> None:
        """Begin with the first beat now."""
        self._thread.start()

    def stop(self) -> None:
        """End after the beat under way; safe to call at any time."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def running(self) -> bool:
        """Whether beats are still to come."""
        return self._thread.is_alive()

    def _run(self) -> None:
        begin = time.monotonic_ns()
        for beat in range(self._steps):
            wait_ns = begin + beat * self._period_ns - time.monotonic_ns()
            if self._stop.wait(max(0, wait_ns) / 1e9):
                return
            for pump, values in self._plant.step():
                time_ns = time.time_ns()
                self._on_sent(pump, time_ns, values)
                self._publish(TOPIC.format(pump=pump), payload(time_ns, values))
