"""From the broker's messages to verdicts, scores and events: the part of a turn that readings go through.

**Nothing is acknowledged that was not judged or refused.** The messages of a turn are held for the commit
when all of them have gone through. If one of them raises, nobody knows how far it came: the streams go back
to the last commit, and every message since then that is not acknowledged, with those of this turn, is taken
again, one by one, each stream's state kept at hand. What raises then is undone and *refused*: counted, said,
and acknowledged with the others, so that it does not come back for ever. But only if others pass: where none
does, it is not the messages that are at fault. Then all are kept, and tried again every second.
Events that came from no message (a mute has ended, the daemon hears nothing) are kept. Where a commit is on
its way, the last commit is known when it has come back: until then messages wait, and the loop goes on.

What was acknowledged before that (delivery `at-least-once` and `realtime`, QoS 0) and was not in the last
commit is lost to the states, as after a crash.

**Arrival order.** Commands come among readings; what came before a command is judged before it acts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from edge_rnn.detect.verdict import Verdict
from edge_rnn.errors import StoreError
from edge_rnn.files.text import offset_text
from edge_rnn.service.mqtt import Delivery
from edge_rnn.service.pipeline import Pipeline
from edge_rnn.service.running import Running
from edge_rnn.service.wire.swath import Arrived, Swath, count, expanded, runs
from edge_rnn.stream.burst import Judged
from edge_rnn.stream.columns_words import TIME
from edge_rnn.stream.types import Event

# In real time, more messages than this in one turn mean that the daemon is behind.
BEHIND = 1000
_RETRY_S = 1.0
# Where a message had to be refused, so many that follow are taken one by one: another may come.
_CAREFUL = 100_000
# Messages of QoS 0 kept while nothing can be judged; the broker holds back those of QoS 1 by itself.
_MOST_KEPT = 50_000

# Faults that somebody has to mend elsewhere: what they say, in words.
_EXPLAINED: Final[dict[str, Callable[[Event], str]]] = {
    "clock": lambda event: (
        f"its times are {offset_text(event.peak)} this machine's clock; set the sender's (times that go back "
        "are dropped until they are past the last one; the command reset ends that)"
    ),
    "flapping": lambda event: (
        f"{', '.join(name for name, _ in event.shares) or 'the alarm'} changes {event.peak:.3g} times a "
        f"minute; more than {event.threshold:g} are a fault"
    ),
}

Readings = list[tuple[str, tuple[int, ...], int, Sequence[float]]]


class Intake:
    """See the module.

    Attributes:
        taken, passed: messages that came, and messages that were judged or refused.
        heard: monotonic moment of the last message.
        lag_ns: arrival time minus event time of the newest reading.
    """

    def __init__(self, running: Running) -> None:
        self.taken = 0
        self.passed = 0
        self.heard = running.clock.monotonic()
        self.lag_ns = 0
        self._running = running
        self._again: list[Delivery] = []
        self._retry_at = 0.0
        self._careful = 0
        self._torn = False
        self._told = (0, 0)

    def take(self, fresh: Sequence[Arrived]) -> None:
        """The messages of one turn; what raises is dealt with here."""
        now = self._running.clock.monotonic()
        if fresh:
            number = count(fresh)
            self._running.counters.messages += number
            self.taken += number
            self.heard = now
        if self._again or self._torn:
            self._again = self._kept(expanded(fresh))
            if now < self._retry_at or not self._restored():
                return
            fresh, self._again = self._again, []
        if not fresh:
            return
        if self._careful > 0:
            self._take_singly(expanded(fresh))
            return
        try:
            self._pass(self._newest(fresh))
        except Exception as error:  # noqa: BLE001 - one bad message must not end a daemon; see the module
            self._fall_back(expanded(fresh), error)
            return
        self._hold(fresh)

    def later(self, came: Sequence[Arrived]) -> None:
        """Messages that came while the loop waited for something; they are taken with the next turn.

        As many are kept as when nothing can be judged.
        """
        messages = expanded(came)
        self._running.counters.messages += len(messages)
        self.taken += len(messages)
        self._again = self._kept(messages)

    def due(self) -> float | None:
        """The monotonic moment at which messages that are kept are to be taken, or None if there are none."""
        commits = self._running.commits
        if commits.undone and commits.flying:
            # Its end wakes the loop.
            return None
        return self._retry_at if self._again or self._torn else None

    def reconnected(self) -> None:
        """Another connection: what was not acknowledged on the one before will come again."""
        epoch = self._running.link.epoch
        self._again = [d for d in self._again if not d.qos or d.epoch == epoch]

    def has_moved(self) -> bool:
        """Whether the data path is well: since the last call something went through it, or nothing came.

        Nothing can have come only if nothing is kept back, here or at a broker that waits for commits.
        """
        before, self._told = self._told, (self.taken, self.passed)
        if self.passed != before[1]:
            return True
        return self.taken == before[0] and not self._again and not self._running.commits.is_overdue()

    def emit(self, verdicts: Iterable[Verdict]) -> None:
        """Publish scores and states, and put events on their way through the store."""
        running = self._running
        link, out, counters = running.link, running.pipeline.outputs, running.counters
        for verdict in verdicts:
            counters.verdicts += 1
            score, state = out.verdict(verdict)
            if score is not None:
                counters.scores += link.publish(*score)
            if state is not None:
                counters.states += link.publish(*state, retain=True)
                running.outlets.see((verdict.stream,))
            running.commits.mark()
        self.collect()

    def collect(self) -> None:
        """Take events and forgotten streams from the engine."""
        running = self._running
        pipeline = running.pipeline
        for event in pipeline.engine.take_events():
            self.tell(event)
        for stream in running.commits.take_removed(pipeline.engine):
            running.outlets.forget(stream)
            running.link.publish(*pipeline.outputs.forget(stream), retain=True)

    def tell(self, event: Event, *, due: bool = False, own: bool = False) -> None:
        """An event for the history and, unless it is muted, for everybody.

        Args:
            due: its mute has ended.
            own: the daemon's, not a stream's.
        """
        running = self._running
        if event.type == "open" and event.kind in _EXPLAINED:
            running.journal.limited(
                "warning", "fault", f"{event.kind} {event.stream.partition('/')[0]}",
                _EXPLAINED[event.kind](event), stream=event.stream,
            )  # fmt: skip
        if not (due or running.outlets.tells(event)):
            running.commits.add_event(event, "", b"", lasting=own)
            return
        topic, plain = running.pipeline.outputs.event(event)
        running.commits.add_event(event, topic, running.outlets.payload(event, plain), lasting=due or own)

    def say_how_built(self, pipeline: Pipeline) -> None:
        """What a person should know about it."""
        for note in pipeline.notes:
            self._running.journal.warning("library", note)

    # ---- the usual way

    def _newest(self, arrived: Sequence[Arrived]) -> Sequence[Arrived]:
        """In real time, when behind: what is newest of each topic, in the order of arrival."""
        running = self._running
        if running.pipeline.config.mqtt.delivery != "realtime" or count(arrived) <= BEHIND:
            return arrived
        deliveries = expanded(arrived)
        own = running.outlets.topics
        newest = {delivery.topic: index for index, delivery in enumerate(deliveries)}
        kept = [
            delivery
            for index, delivery in enumerate(deliveries)
            # Every command counts.
            if newest[delivery.topic] == index or delivery.topic in own
        ]
        running.counters.skipped += len(deliveries) - len(kept)
        return kept

    def _pass(self, arrived: Sequence[Arrived]) -> None:
        running = self._running
        own = running.outlets.topics
        for run in runs(arrived, lambda: running.pipeline.generation):
            if isinstance(run, Swath):
                self._judge_swath(run)
                continue
            for part in _parts(run, own) if own else (run,):
                self._judge(self._readings(part), part[-1].arrival_ns)

    def _readings(self, deliveries: list[Delivery]) -> Readings:
        running = self._running
        return running.pipeline.take_all(deliveries, running.counters, running.journal, running.outlets)

    def _judge(self, readings: Readings, arrival_ns: int) -> None:
        if not readings:
            return
        running = self._running
        self.lag_ns = arrival_ns - readings[-1][2]
        self._publish(running.pipeline.engine.judge(readings, running.arrival.next_ns()))

    def _judge_swath(self, swath: Swath) -> None:
        running = self._running
        assert running.pipeline.sources is not None
        self.lag_ns = swath.arrival_ns - int(swath.block[-1, TIME])
        for columns in running.pipeline.sources.columns(swath):
            self._publish(running.pipeline.engine.judge_columns(columns, running.arrival.next_ns()))

    def _publish(self, bursts: Iterable[Judged]) -> None:
        """Scores and states of what was judged, and its events on their way."""
        running, counters = self._running, self._running.counters
        out, link = running.pipeline.outputs, running.link
        for judged in bursts:
            counters.verdicts += len(judged)
            if out.makes_packets and link.reader == "batch":
                sent, states, changed = out.packets(judged, link.publish_packets)
            else:
                scores, states, changed = out.judged(judged)
                sent = link.publish_batch(scores)
            counters.scores += sent
            for state in states:
                counters.states += link.publish(*state, retain=True)
            if changed:
                running.outlets.see(changed)
        self.collect()

    def _hold(self, arrived: Sequence[Arrived]) -> None:
        self.passed += count(arrived)
        running = self._running
        if running.pipeline.config.mqtt.delivery == "exactly-once-state":
            # They wait for the commit, which is due when there are so many.
            arrived = expanded(arrived)
        running.commits.hold(arrived)

    # ---- when something raises

    def _kept(self, fresh: list[Delivery]) -> list[Delivery]:
        waiting = self._again + fresh
        excess = len(waiting) - _MOST_KEPT
        if excess > 0:
            # The oldest of QoS 0 go; a broker does not send so many others.
            gone = [index for index, delivery in enumerate(waiting) if not delivery.qos][:excess]
            self._running.counters.skipped += len(gone)
            drop = set(gone)
            waiting = [delivery for index, delivery in enumerate(waiting) if index not in drop]
        return waiting

    def _fall_back(self, deliveries: list[Delivery], error: Exception) -> None:
        running = self._running
        running.counters.errors += 1
        running.counters.fallbacks += 1
        running.journal.limited(
            "error", "loop", type(error).__name__,
            f"a turn failed: {error!r}; its messages are taken again, one by one",
        )  # fmt: skip
        running.commits.land(running.link)
        running.commits.undone = True
        running.pipeline.engine.clear()
        self._again = deliveries + self._again
        self._careful = max(self._careful, len(self._again))
        self._torn = True
        self._retry_at = running.clock.monotonic()
        self._restored()

    def _restored(self) -> bool:
        """Bring a torn engine back to the last commit; False if that is not known, or cannot be read, now."""
        running = self._running
        if not self._torn:
            return True
        if running.commits.undone:
            if running.commits.flying:
                return False
            self._again = expanded(running.commits.drop()) + self._again
            self.reconnected()
            self._careful = max(self._careful, len(self._again))
        engine = running.pipeline.engine
        engine.clear()
        try:
            running.pipeline.load_states(running.store.load_states(), running.journal)
        except StoreError as error:
            running.journal.limited(
                "error", "store", "read", f"{error}; trying again, nothing is acknowledged"
            )
            self._retry_at = running.clock.monotonic() + _RETRY_S
            return False
        self._torn = False
        return True

    def _take_singly(self, deliveries: list[Delivery]) -> None:
        failed = 0
        for delivery in deliveries:
            failed += not self._take_one(delivery)
        self._careful -= len(deliveries)
        if failed == len(deliveries):
            # Perhaps the fault is not theirs.
            self._again = deliveries + self._again
            self._careful = max(self._careful, len(deliveries))
            self._retry_at = self._running.clock.monotonic() + _RETRY_S
            return
        if failed:
            self._running.counters.refused += failed
            self._careful = _CAREFUL
        self._hold(deliveries)

    def _take_one(self, delivery: Delivery) -> bool:
        """Whether it went through; if not, no stream has changed."""
        running = self._running
        engine = running.pipeline.engine
        before: dict[str, bytes | None] = {}
        stream = ""
        try:
            readings = self._readings([delivery])
            before = engine.remember({reading[0] for reading in readings})
            stream = readings[0][0] if readings else ""
            self._judge(readings, delivery.arrival_ns)
        except Exception as error:  # noqa: BLE001 - see the module
            engine.put_back(before)
            running.counters.errors += 1
            running.journal.limited(
                "error", "take", type(error).__name__, f"a message cannot be judged: {error!r}",
                topic=delivery.topic, stream=stream,
            )  # fmt: skip
            return False
        return True


def _parts(deliveries: list[Delivery], own: frozenset[str]) -> Iterator[list[Delivery]]:
    """Runs of messages that may be judged together: a command is one for itself."""
    begin = 0
    for index, delivery in enumerate(deliveries):
        if delivery.topic in own:
            if begin < index:
                yield deliveries[begin:index]
            yield deliveries[index : index + 1]
            begin = index + 1
    if begin < len(deliveries):
        yield deliveries[begin:] if begin else deliveries
