"""Scripts of readings for an engine: what a plant sends, with everything that goes wrong on the way."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from edge_rnn.core.detector_spec import AlarmSpec, GuardSpec, ThresholdSpec
from edge_rnn.stream.assemble import Assembly
from edge_rnn.stream.engine import Engine, Group
from edge_rnn.stream.types import Event, Message, Reading, Verdict
from tests.detect.models import SECOND, model, spec

CHANNELS = 3
MODEL = model(
    CHANNELS,
    spec(
        CHANNELS,
        warmup=2,
        # Low and sensitive, so that random readings open and close alarms and faults all the time.
        threshold=ThresholdSpec(kind="quantile", value=1.5),
        alarm=AlarmSpec(needed=1, window=2, clear_ratio=0.9, clear_hold=1),
        guard=GuardSpec(
            silent_after_ns=20 * SECOND, gap_ns=60 * SECOND, on_gap="reset", stuck_after=(3, 3, 3)
        ),
    ),
)
OTHER = model(2, spec(2, warmup=0, threshold=ThresholdSpec(kind="fixed", value=0.5)), hidden=4, seed=5)

ASSEMBLIES = {
    "any": Assembly(max_age_ns=(0, 5 * SECOND, 0)),
    "leader": Assembly(on="x1", timeout_ns=8 * SECOND),
    "all": Assembly(on="all", timeout_ns=3 * SECOND),
    "every": Assembly(on="every", every_ns=2 * SECOND, max_age_ns=(0, 0, 4 * SECOND)),
}


@dataclass(slots=True)
class Block:
    """What arrives at one moment: readings, then perhaps a tick."""

    now_ns: int
    readings: list[Reading | Message]
    tick: bool


@dataclass(slots=True)
class Outcome:
    """What an engine gave: verdicts and events in order."""

    verdicts: list[Verdict] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def of(self, stream: str) -> Outcome:
        return Outcome(
            [v for v in self.verdicts if v.stream == stream], [e for e in self.events if e.stream == stream]
        )

    def bits(self) -> tuple[list[object], list[str]]:
        return [verdict_bits(v) for v in self.verdicts], [repr(e) for e in self.events]


def verdict_bits(v: Verdict) -> object:
    """A verdict as something that is equal only if every bit is."""
    numbers = (
        repr(v.score),
        repr(v.threshold),
        v.share.tobytes(),
        v.residual.tobytes(),
        v.expected.tobytes(),
    )
    return (v.stream, v.time_ns, v.step, v.status, v.alarm, v.faults, v.accepted, numbers)


def groups(assembly: Assembly, max_streams: int = 100) -> list[Group]:
    return [
        Group("press", MODEL, assembly, max_streams, rise=1.1, update_ns=SECOND),
        Group("other", OTHER, max_streams=max_streams, silent_after_ns=15 * SECOND, gap_ns=30 * SECOND),
    ]


def _value(rng: random.Random, channels: int, channel: int) -> float:
    scaler = (MODEL if channels == CHANNELS else OTHER).scaler
    assert scaler is not None
    calm = rng.gauss(0, 0.3)
    z = rng.choice((0.0, 0.0, calm, calm, calm, rng.gauss(0, 4)))
    return float(scaler.mean[channel] + z * scaler.std[channel])


def script(
    seed: int, blocks: int = 30, streams: Sequence[str] = ("press/a", "press/b", "other")
) -> list[Block]:
    """Random blocks: single channels and messages, repeats, late ones, NaN, pauses, silent streams."""
    rng = random.Random(seed)
    clock = 1_700_000_000 * SECOND
    times = dict.fromkeys(streams, clock)
    out: list[Block] = []
    for _ in range(blocks):
        clock += rng.choice((0, 1, 1, 1, 2, 5, 40)) * SECOND
        readings: list[Reading | Message] = []
        quiet = rng.choice([*streams, None, None])
        for _ in range(rng.randrange(8)):
            stream = rng.choice(streams)
            if stream == quiet:
                continue
            times[stream] = max(times[stream], clock - 3 * SECOND) + rng.choice((0, 1, SECOND // 2, SECOND))
            time_ns = times[stream] - rng.choice((0, 0, 0, 0, 1, SECOND, 5 * SECOND))
            channels = CHANNELS if stream.startswith("press") else 2
            values = [_value(rng, channels, c) for c in range(channels)]
            if rng.random() < 0.05:
                values[0] = math.nan
            kind = rng.randrange(3)
            if kind == 0:
                readings.append(Reading(stream, rng.randrange(channels), time_ns, values[0]))
            elif kind == 1:
                readings.append(Message(stream, tuple(range(channels)), time_ns, values))
            else:
                some = tuple(rng.sample(range(channels), rng.randint(1, channels)))
                readings.append(Message(stream, some, time_ns, values[: len(some)]))
            if rng.random() < 0.05:
                readings.append(readings[-1])
        out.append(Block(clock, readings, rng.random() < 0.6))
    return out


def play(engine: Engine, blocks: Iterable[Block], pieces: random.Random | None = None) -> Outcome:
    """Feed all blocks, each at once or cut at random places."""
    outcome = Outcome()
    for block in blocks:
        todo = list(block.readings)
        while todo:
            size = len(todo) if pieces is None else pieces.randint(1, len(todo))
            outcome.verdicts += engine.feed(todo[:size], block.now_ns)
            del todo[:size]
        if block.tick:
            outcome.verdicts += engine.tick(block.now_ns)
        outcome.events += engine.take_events()
    return outcome
