"""Simulated pumps: what the demo's sensors measure, and the faults put into it.

All three channels of a pump follow one hidden quantity, its load, which swings through a duty cycle of
about four seconds whose length and height change from cycle to cycle:

    vibration    mm/s   follows the square of the load, and its changes
    temperature  °C     follows the load with a lag
    pressure     bar    follows the load at once

A fixed limit on a channel must let the whole cycle pass, so it sees only gross faults. A recurrent model
knows where in the cycle the pump is and what each channel should say there, which is the demo's point.

Everything here is arithmetic on a seeded generator: no clock, no thread. The same seed gives the same
readings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.model import Input

RATE_HZ: Final = 20
PERIOD_NS: Final = 1_000_000_000 // RATE_HZ
CHANNELS: Final = (
    Input("vibration", "mm/s"),
    Input("temperature", "°C"),
    Input("pressure", "bar"),
)
VIBRATION, TEMPERATURE, PRESSURE = range(3)

# Standard deviation of each sensor's own noise, and the steps its readings are rounded to.
NOISE: Final = (0.12, 0.30, 0.06)
DECIMALS: Final = (3, 2, 3)

_LAG_S = 1.2  # time constant of the temperature
_CYCLE_S = 4.0

FaultName = Literal["spike", "drift", "stuck", "silent"]


@dataclass(frozen=True, slots=True)
class InjectedFault:
    """One fault put into the readings of one pump.

    kind: spike (a pressure surge), drift (a temperature sensor that walks away), stuck (a pressure sensor
        that repeats its last value), silent (the pump sends nothing).
    pump: name; channel: index, or None where the whole pump is concerned.
    start, steps: first step and length, in steps of `RATE_HZ`.
    """

    kind: FaultName
    pump: str
    channel: int | None
    start: int
    steps: int

    @property
    def end(self) -> int:
        """First step after the fault."""
        return self.start + self.steps

    def changes(self, step: int) -> bool:
        """Whether the fault is there at `step`."""
        return self.start <= step < self.end


# Of each kind: the channel, the length in seconds, and where in the run it starts (0 = when the first fault
# may come, 1 = the end of the run less the time to see the last one out).
_PLANS: Final[dict[FaultName, tuple[int | None, float, float]]] = {
    "spike": (PRESSURE, 0.2, 0.05),
    "drift": (TEMPERATURE, 4.0, 0.25),
    "stuck": (PRESSURE, 3.0, 0.65),
    "silent": (None, 3.0, 1.0),
}
SETTLE_S: Final = 4.0  # before the first fault: warm-up, and a look at normal life
AFTER_S: Final = 5.0  # from the start of the last fault to the end of the run

SURGE_BAR: Final = 1.2
DRIFT_C_PER_S: Final = 1.0


def pump_names(count: int) -> tuple[str, ...]:
    """`pump1` ... `pump<count>`."""
    return tuple(f"pump{i}" for i in range(1, count + 1))


def shortest_run(pumps: int) -> float:
    """Seconds a run must last so that faults on the same pump, where there are few, come well apart."""
    return 20.0 if pumps >= len(_PLANS) else 30.0


def plan_faults(pumps: Sequence[str], seconds: float, seed: int) -> tuple[InjectedFault, ...]:
    """One fault of each kind, spread over the run and, where there are enough, over the pumps."""
    order = np.random.default_rng([seed, 1]).permutation(len(pumps))
    room = seconds - SETTLE_S - AFTER_S
    return tuple(
        InjectedFault(
            kind=kind,
            pump=pumps[order[i % len(pumps)]],
            channel=channel,
            start=round((SETTLE_S + room * place) * RATE_HZ),
            steps=round(length * RATE_HZ),
        )
        for i, (kind, (channel, length, place)) in enumerate(_PLANS.items())
    )


class Pump:
    """One pump without faults: `step()` gives its next readings, (3,) float64, rounded as sensors do."""

    def __init__(self, seed: Sequence[int]) -> None:
        self._random = np.random.default_rng(seed)
        self._phase = self._random.uniform(0, 2 * math.pi)
        self._speed = 1.0
        self._height = self._random.uniform(0.75, 1.0)
        self._load = 0.5
        self._heat = 0.5

    def step(self) -> NDArray[np.float64]:
        """The readings of the next step."""
        dt = 1 / RATE_HZ
        random = self._random
        self._speed += 0.3 * (1.0 - self._speed) * dt + 0.05 * math.sqrt(dt) * random.standard_normal()
        self._phase += 2 * math.pi / _CYCLE_S * self._speed * dt
        if self._phase > 2 * math.pi:
            self._phase -= 2 * math.pi
            self._height = random.uniform(0.75, 1.0)
        before = self._load
        self._load = self._height * (0.5 + 0.5 * math.tanh(2.0 * math.sin(self._phase)))
        self._heat += (self._load - self._heat) * dt / _LAG_S
        change = (self._load - before) / dt
        clean = (
            1.2 + 3.5 * self._load**2 + 0.25 * abs(change),
            48.0 + 9.0 * self._heat,
            6.0 + 2.2 * self._load,
        )
        noise = random.standard_normal(3)
        return np.array(
            [round(c + s * n, d) for c, s, n, d in zip(clean, NOISE, noise, DECIMALS, strict=True)]
        )


class Plant:
    """All pumps of one run with their faults; `step()` gives what arrives from each of them.

    Args:
        pumps: names.
        seed: the same seed gives the same readings.
        faults: those to put in.
    """

    def __init__(self, pumps: Sequence[str], seed: int, faults: Sequence[InjectedFault] = ()) -> None:
        self.pumps = tuple(pumps)
        self.faults = tuple(faults)
        self.steps = 0
        self._machines = [Pump([seed, 2, i]) for i in range(len(self.pumps))]
        self._last = [machine.step() for machine in self._machines]

    def step(self) -> list[tuple[str, NDArray[np.float64]]]:
        """(pump, readings (3,)) of the next step; a silent pump is not in the list."""
        step = self.steps
        self.steps += 1
        out = []
        for i, (pump, machine) in enumerate(zip(self.pumps, self._machines, strict=True)):
            values = machine.step()
            silent = False
            for fault in self.faults:
                if fault.pump != pump or not fault.changes(step):
                    continue
                if fault.channel is None:
                    silent = True
                elif fault.kind == "spike":
                    values[fault.channel] = round(values[fault.channel] + SURGE_BAR, DECIMALS[fault.channel])
                elif fault.kind == "drift":
                    walked = DRIFT_C_PER_S * (step - fault.start + 1) / RATE_HZ
                    values[fault.channel] = round(values[fault.channel] + walked, DECIMALS[fault.channel])
                else:
                    values[fault.channel] = self._last[i][fault.channel]
            self._last[i] = values
            if not silent:
                out.append((pump, values))
        return out


def clean_readings(steps: int, seed: int) -> NDArray[np.float64]:
    """(steps, 3) readings of one healthy pump: what the bundled model was trained on."""
    pump = Pump([seed, 3])
    return np.array([pump.step() for _ in range(steps)])
