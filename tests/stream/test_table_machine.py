"""A machine that feeds, ticks, forgets, saves and restarts a small table in any order, and a model beside it.

The model keeps the order in which streams were used, and beside the table one engine for each stream that has
never seen another: it is thrown away when its stream is forgotten, and after a restart it is made anew from
the messages up to the last save. The table may differ from the model in nothing: who is there, who goes next,
every bit of every verdict, every event, and every byte that is saved.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from edge_rnn.errors import SnapshotError
from edge_rnn.stream.engine import Engine
from edge_rnn.stream.types import Event, Message, Verdict
from tests.detect.models import SECOND
from tests.stream.scripts import ASSEMBLIES, CHANNELS, groups, verdict_bits
from tests.support import torture

STREAMS = st.sampled_from([f"press/{i}" for i in range(6)])
VALUES = st.sampled_from([-3.0, -0.5, 0.0, 0.0, 0.1, 0.4, 8.0, float("nan")])
ROOM = 3


@dataclass
class Alone:
    """A stream that is alone in the world: its engine, and all that has happened to it."""

    engine: Engine
    past: list[tuple[int, Message | None]] = field(default_factory=list)

    def live(self, now_ns: int, message: Message | None) -> list[Verdict]:
        """A message, or a tick where there is none."""
        self.past.append((now_ns, message))
        return self.engine.tick(now_ns) if message is None else self.engine.feed([message], now_ns)


class TableMachine(RuleBasedStateMachine):
    """One group with room for three streams, and six that want in."""

    @initialize(mode=st.sampled_from(sorted(ASSEMBLIES)))
    def begin(self, mode: str) -> None:
        self.assembly = ASSEMBLIES[mode]
        self.engine = self.made(ROOM)
        self.now = 1_700_000_000 * SECOND
        # The least recently used first.
        self.streams: dict[str, Alone] = {}
        self.store: dict[str, bytes] = {}
        self.saved: dict[str, list[tuple[int, Message | None]]] = {}

    def made(self, room: int) -> Engine:
        return Engine(groups(self.assembly, max_streams=room)[:1])

    def same(self, stream: str, got: list[Verdict], expected: list[Verdict]) -> None:
        assert [verdict_bits(v) for v in got if v.stream == stream] == [verdict_bits(v) for v in expected]

    def events(self, stream: str) -> list[str]:
        return [repr(event) for event in self.streams[stream].engine.take_events()]

    @rule(
        stream=STREAMS,
        pause=st.integers(1, 30),
        values=st.lists(VALUES, min_size=CHANNELS, max_size=CHANNELS),
        only=st.none() | st.integers(0, CHANNELS - 1),
    )
    def feed(self, stream: str, pause: int, values: list[float], only: int | None) -> None:
        self.now += pause * SECOND // 2
        channels = tuple(range(CHANNELS)) if only is None else (only,)
        message = Message(stream, channels, self.now, tuple(values[c] for c in channels))
        expected_events = []
        if stream not in self.streams and len(self.streams) == ROOM:
            # The least recently used one goes, and what it had open ends.
            oldest = next(iter(self.streams))
            assert self.streams[oldest].engine.forget(oldest)
            expected_events += self.events(oldest)
            del self.streams[oldest]
        alone = self.streams.pop(stream, None) or Alone(self.made(1))
        self.streams[stream] = alone
        got = self.engine.feed([message], self.now)
        assert all(v.stream == stream for v in got)
        self.same(stream, got, alone.live(self.now, message))
        expected_events += self.events(stream)
        assert self.taken() == expected_events

    def taken(self) -> list[str]:
        return [repr(event) for event in self.engine.take_events()]

    @rule(pause=st.integers(0, 60))
    def tick(self, pause: int) -> None:
        self.now += pause * SECOND
        got = self.engine.tick(self.now)
        events: list[Event] = self.engine.take_events()
        for stream, alone in self.streams.items():
            self.same(stream, got, alone.live(self.now, None))
            assert [repr(e) for e in events if e.stream == stream] == self.events(stream)
        assert {v.stream for v in got} | {e.stream for e in events} <= self.streams.keys()

    @rule(stream=STREAMS)
    def forget(self, stream: str) -> None:
        assert self.engine.forget(stream) == (stream in self.streams)
        if stream in self.streams:
            self.streams[stream].engine.forget(stream)
            assert self.taken() == self.events(stream)
            del self.streams[stream]

    @rule()
    def save(self) -> None:
        """As the daemon does: only what has changed, and what is gone."""
        self.store |= self.engine.changed()
        for stream in self.engine.removed():
            self.store.pop(stream, None)
        self.saved = {stream: list(alone.past) for stream, alone in self.streams.items()}
        assert self.store.keys() == self.streams.keys()
        assert self.store == dict(self.engine.states())

    @precondition(lambda self: self.saved)
    @rule(order=st.randoms(use_true_random=False), damage=st.booleans())
    def restart(self, order: random.Random, damage: bool) -> None:
        """All since the last save is lost, and perhaps one state is damaged, too."""
        self.engine = self.made(ROOM)
        streams = order.sample(sorted(self.store), len(self.store))
        if damage:
            bad = streams.pop()
            blob = bytearray(self.store.pop(bad))
            blob[order.randrange(len(blob))] ^= 1 << order.randrange(8)
            with pytest.raises(SnapshotError):
                self.engine.load(bad, bytes(blob))
            del self.saved[bad]
        for stream in streams:
            self.engine.load(stream, self.store[stream])
        self.streams = {}
        for stream, past in self.saved.items():
            self.streams[stream] = alone = Alone(self.made(1))
            for now_ns, message in past:
                alone.live(now_ns, message)
            alone.engine.take_events()

    @invariant()
    def holds_the_streams_of_the_model(self) -> None:
        if hasattr(self, "engine"):
            assert sorted(self.engine.streams()) == sorted(self.streams)
            assert len(self.engine) == len(self.streams) <= ROOM


TestTable = TableMachine.TestCase
TestTable.settings = settings(
    max_examples=20, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_torture_500_lives_of_a_table() -> None:
    start = time.monotonic()
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        TableMachine, settings=settings(TestTable.settings, max_examples=500, stateful_step_count=40)
    )
    torture.record(
        "stream table, model-based", "500 machines of up to 40 steps",
        "who is there, who goes, every verdict, event and saved byte as in the model",
        time.monotonic() - start,
    )  # fmt: skip
