"""What waits for the next commit, when that is due, and what may happen only after it.

**One commit point.** A message is acknowledged only after the transaction that holds the states it led to,
the events it made, and those events as messages in the outbox. So after a crash at any moment the broker
sends again what the states have not seen; what it sends twice is dropped by event time or sequence (for
readings that carry one), and no event is lost. An event may be published twice, with the same id.

A commit is due when `every` has passed since the first change, when an event opened or closed, or when so
many messages wait for their acknowledgement that the broker would soon stop sending. One that fails is tried
again every second with the same content and what has come since; nothing is acknowledged meanwhile, so the
broker holds the rest back.

**A slow disk holds nothing up.** What is to be written is collected between two turns (`begin`) and written
on a thread of its own, as one `_Flight`. The loop waits for it for `PATIENCE_S`, which is enough for a disk
that is well; beyond that it goes on reading, scoring and pinging, while the flight's messages stay
unacknowledged and what is new waits for the next one. Only one is on its way. `land` takes the result: it
acknowledges the flight's messages, or puts all of its content back before what has come since.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from edge_rnn.errors import StoreError
from edge_rnn.files.config_types import Config
from edge_rnn.service.clock import Clock
from edge_rnn.service.health import DaemonCounters
from edge_rnn.service.logs import Log
from edge_rnn.service.mqtt import Connection
from edge_rnn.service.store import Commit, Message, Store
from edge_rnn.service.wire.swath import Arrived
from edge_rnn.stream.engine import Engine
from edge_rnn.stream.types import Event

PATIENCE_S = 0.002
_RETRY_S = 1.0
# A commit that has not come back, or has failed for so long, with messages waiting for it: nothing moves.
_OVERDUE_S = 10.0
# How often a wait for the disk looks at the network.
_LOOK_S = 0.05
# Brokers commonly allow a client 20 unacknowledged messages; with MQTT 3.1.1 it cannot ask for another limit.
_MOST_UNACKED_311 = 10


@dataclass(slots=True)
class _Flight:
    """One commit on its way; `done` is set last."""

    content: Commit
    states: dict[str, bytes]
    removed: dict[str, None]
    events: list[Event]
    outbox: list[Message]
    lasting: list[tuple[Event, Message | None]]
    unacked: list[Arrived]
    begun: float
    urgent: bool
    error: Exception | None = None
    done: threading.Event = field(default_factory=threading.Event)


class Commits:
    """Collects for the next commit.

    Args:
        wake: called when a commit has come to its end, from another thread.

    Attributes:
        error: why the last one failed, or empty.
        undone: what has been collected is to be dropped; until then nothing is committed or acknowledged.
    """

    def __init__(
        self,
        store: Store,
        config: Config,
        clock: Clock,
        log: Log,
        counters: DaemonCounters,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self.error = ""
        self.undone = False
        self.unacked: list[Arrived] = []
        self.patience_s = PATIENCE_S
        self._store = store
        self._clock = clock
        self._log = log
        self._counters = counters
        self._wake = wake
        self._states: dict[str, bytes] = {}
        self._removed: dict[str, None] = {}
        self._events: list[Event] = []
        self._outbox: list[Message] = []
        # Those among them that no message taken again could make again.
        self._lasting: list[tuple[Event, Message | None]] = []
        self._urgent = False
        self._since: float | None = None
        self._failing_since = 0.0
        self._in_flight = 0
        self._retry_at = 0.0
        self._sent_up_to = 0
        self._flight: _Flight | None = None
        self._work: queue.SimpleQueue[_Flight | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Intervals and limits of a configuration."""
        self._every = config.store.commit_every_ns / 1e9
        five = config.mqtt.protocol == "5"
        # What is promised beyond the next commit: without that promise nothing needs to wait for it.
        self._after_commit = config.mqtt.delivery == "exactly-once-state"
        self._most_unacked = max(1, config.mqtt.receive_maximum // 2) if five else _MOST_UNACKED_311

    def mark(self) -> None:
        """Something has changed."""
        if self._since is None:
            self._since = self._clock.monotonic()

    def hold(self, deliveries: Sequence[Arrived]) -> None:
        """Messages that have been judged or refused; QoS 1 ones are acknowledged with the commit."""
        self.unacked += [delivery for delivery in deliveries if delivery.qos]
        self.mark()

    def add_event(self, event: Event, topic: str, payload: bytes, *, lasting: bool = False) -> None:
        """An event for the history and, once committed, for the broker; its start and end do not wait.

        Without a topic it is for the history alone. A lasting one came from no message: `drop` keeps it.
        """
        message = Message(topic, payload) if topic else None
        self._events.append(event)
        if message is not None:
            self._outbox.append(message)
        if lasting:
            self._lasting.append((event, message))
        self._urgent = self._urgent or event.type != "update"
        self.mark()

    def due(self) -> float | None:
        """The monotonic moment of the next commit; None if there is nothing to commit, or one on its way."""
        if self._since is None or self._flight is not None or self.undone:
            return None
        now = self._urgent or len(self.unacked) >= self._most_unacked
        return max(self._since if now else self._since + self._every, self._retry_at)

    def take_removed(self, engine: Engine) -> list[str]:
        """Streams the engine has forgotten; their states go with the next commit."""
        removed = engine.removed()
        for stream in removed:
            self._states.pop(stream, None)
            self._removed[stream] = None
        return removed

    # ---- the commit itself

    def gather(self, engine: Engine) -> None:
        """Take the states that have changed; `take_removed` comes before."""
        for stream, blob in engine.changed():
            self._states[stream] = blob
            self._removed.pop(stream, None)

    def begin(self, engine: Engine, positions: Mapping[str, str]) -> None:
        """Send everything there is on its way to the disk, and wait a moment for it.

        None may be on its way already; `take_removed` comes before.
        """
        assert self._flight is None
        self.gather(engine)
        complete = self._store.incomplete
        if complete:
            self._states = dict(engine.states())
        known = self._store.positions()
        content = Commit(
            states=list(self._states.items()),
            removed=list(self._removed),
            events=self._events,
            outbox=self._outbox,
            positions={name: text for name, text in positions.items() if known.get(name) != text},
            complete=complete,
        )
        flight = self._flight = _Flight(
            content, self._states, self._removed, self._events, self._outbox, self._lasting, self.unacked,
            self._clock.monotonic(), self._urgent,
        )  # fmt: skip
        self._states, self._removed, self._events, self._outbox, self.unacked = {}, {}, [], [], []
        self._lasting, self._urgent, self._since = [], False, None
        if self._writer is None:
            self._writer = threading.Thread(target=self._write, name="store-commit", daemon=True)
            self._writer.start()
        self._work.put(flight)
        flight.done.wait(self.patience_s)

    def _write(self) -> None:
        while (flight := self._work.get()) is not None:
            try:
                self._store.commit(flight.content)
            except Exception as error:  # noqa: BLE001 - whatever it is, nothing was written, and the loop must know
                flight.error = error
            flight.done.set()
            self._wake()

    @property
    def flying(self) -> bool:
        """Whether a commit is on its way, or has come back and waits for `land`."""
        return self._flight is not None

    @property
    def age(self) -> float:
        """For how many seconds a commit has been on its way; 0 if none is."""
        return 0.0 if self._flight is None else self._clock.monotonic() - self._flight.begun

    def wait(
        self, link: Connection, take: Callable[[Sequence[Arrived]], None], patient: Callable[[], bool]
    ) -> None:
        """Until the commit on its way has come back; the connection lives on.

        Args:
            take: gets what the connection brings meanwhile.
            patient: asked again and again; False ends the wait.
        """
        flight = self._flight
        while flight is not None and not flight.done.is_set() and patient():
            if not flight.done.wait(_LOOK_S):
                take(link.turn(0))

    def land(self, link: Connection) -> bool | None:
        """What has become of the commit on its way: whether it worked, or None as long as nobody knows."""
        flight = self._flight
        if flight is None or not flight.done.is_set():
            return None
        self._flight = None
        if flight.error is not None:
            self._put_back(flight)
            text = str(flight.error) if isinstance(flight.error, StoreError) else repr(flight.error)
            if not self.error:
                self._failing_since = flight.begun
            self.error = text
            self._counters.commit_failures += 1
            self._retry_at = self._clock.monotonic() + _RETRY_S
            self._log.limited("error", "store", "commit", f"{text}; trying again, nothing is acknowledged")
            return False
        if self.error:
            self._log.info("store", "commits succeed again")
        self.error = ""
        self._counters.commits += 1
        self._counters.events += len(flight.events)
        link.ack(flight.unacked)
        return True

    def _put_back(self, flight: _Flight) -> None:
        """Its content goes before what has come since, which knows better."""
        for stream, blob in flight.states.items():
            if stream not in self._removed:
                self._states.setdefault(stream, blob)
        for stream in flight.removed:
            if stream not in self._states:
                self._removed.setdefault(stream)
        self._events = flight.events + self._events
        self._outbox = flight.outbox + self._outbox
        self._lasting = flight.lasting + self._lasting
        self.unacked = flight.unacked + self.unacked
        self._urgent = self._urgent or flight.urgent
        self._since = flight.begun

    def drop(self) -> list[Arrived]:
        """Forget what has not been committed; the messages behind it, in order. None may be on its way.

        Events that did not come from messages stay: nothing would make them again.
        """
        assert self._flight is None
        self.undone = False
        unacked, self.unacked = self.unacked, []
        self._states, self._removed = {}, {}
        self._events = [event for event, _ in self._lasting]
        self._outbox = [message for _, message in self._lasting if message is not None]
        self._urgent = any(event.type != "update" for event in self._events)
        self._since = self._clock.monotonic() if self._events else None
        return unacked

    def is_overdue(self) -> bool:
        """Whether messages have waited long for a commit that does not come about."""
        now = self._clock.monotonic()
        if self._flight is not None:
            return bool(self._flight.unacked) and now - self._flight.begun > _OVERDUE_S
        return bool(self.error and self.unacked) and now - self._failing_since > _OVERDUE_S

    def close(self) -> None:
        """End the thread, after the commit that is on its way."""
        self._work.put(None)

    # ---- what may follow

    def acknowledge_scored(self, link: Connection) -> None:
        """After a turn: where readings need not outlive a crash, they are done when they are scored.

        Those that opened or closed an event wait for the commit that holds it, and so do all behind them:
        acknowledgements leave in the order of arrival.
        """
        waiting = self._flight is not None and self._flight.unacked
        held = self._after_commit or self._urgent or self.undone
        if self.unacked and not held and not waiting:
            unacked, self.unacked = self.unacked, []
            link.ack(unacked)

    def send_outbox(self, link: Connection) -> None:
        """Publish committed events as the broker takes them; forget those it has acknowledged."""
        if self._flight is not None:
            # The store is busy; to ask it would be to wait for it.
            return
        delivered = link.take_delivered()
        if delivered:
            self._in_flight -= len(delivered)
            self._store.done(delivered)
            self.mark()
        window = link.window()
        if window > 0 and self._store.waiting():
            for row in self._store.outbox(limit=window, after=self._sent_up_to):
                link.publish_sure(row.id, row.message.topic, row.message.payload)
                self._in_flight += 1
                self._sent_up_to = row.id

    @property
    def waiting(self) -> int:
        """Messages that are not acknowledged yet."""
        flight = self._flight
        waiting = [*self.unacked, *(flight.unacked if flight is not None else ())]
        return sum(one.qos for one in waiting)

    @property
    def in_flight(self) -> int:
        """Events the broker has not acknowledged yet."""
        return self._in_flight

    def new_link(self) -> None:
        """Another connection: nothing of the outbox is on its way, old messages cannot be acknowledged."""
        self._sent_up_to = self._in_flight = 0
        self.unacked = []
        if self._flight is not None:
            self._flight.unacked = []
