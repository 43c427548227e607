"""What waits for the next commit, when that is due, and what may happen only after it.

**One commit point.** A message is acknowledged only after the transaction that holds the states it led to,
the events it made, and those events as messages in the outbox. So after a crash at any moment the broker
sends again what the states have not seen; what it sends twice is dropped by event time (for readings that
carry their own), and no event is lost. An event may be published twice, with the same id.

A commit is due when `every` has passed since the first change, when an event opened or closed, or when so
many messages wait for their acknowledgement that the broker would soon stop sending. One that fails is tried
again every second with the same content and what has come since; nothing is acknowledged meanwhile, so the
broker holds the rest back.
"""

from __future__ import annotations

from collections.abc import Mapping

from edge_rnn.errors import StoreError
from edge_rnn.files.config_types import Config
from edge_rnn.service.clock import Clock
from edge_rnn.service.health import DaemonCounters
from edge_rnn.service.logs import Log
from edge_rnn.service.mqtt import Connection, Delivery
from edge_rnn.service.store import Commit, Message, Store
from edge_rnn.stream.engine import Engine
from edge_rnn.stream.types import Event

_RETRY_S = 1.0
# Brokers commonly allow a client 20 unacknowledged messages; with MQTT 3.1.1 it cannot ask for another limit.
_MOST_UNACKED_311 = 10


class Commits:
    """Collects for the next commit; `error` is why the last one failed, or empty."""

    def __init__(
        self, store: Store, config: Config, clock: Clock, log: Log, counters: DaemonCounters
    ) -> None:
        self.error = ""
        self.unacked: list[Delivery] = []
        self._store = store
        self._clock = clock
        self._log = log
        self._counters = counters
        self._states: dict[str, bytes] = {}
        self._removed: dict[str, None] = {}
        self._events: list[Event] = []
        self._outbox: list[Message] = []
        self._urgent = False
        self._since: float | None = None
        self._in_flight = 0
        self._retry_at = 0.0
        self._sent_up_to = 0
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

    def hold(self, deliveries: list[Delivery]) -> None:
        """Messages that have been fed; QoS 1 ones are acknowledged with the commit."""
        self.unacked += [delivery for delivery in deliveries if delivery.qos]
        self.mark()

    def add_event(self, event: Event, topic: str, payload: bytes) -> None:
        """An event for the history and, once committed, for the broker; its start and end do not wait.

        Without a topic it is for the history alone.
        """
        self._events.append(event)
        if topic:
            self._outbox.append(Message(topic, payload))
        self._urgent = self._urgent or event.type != "update"
        self.mark()

    def due(self) -> float | None:
        """The monotonic moment of the next commit, or None if there is nothing to commit."""
        if self._since is None:
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

    def write(self, engine: Engine, positions: Mapping[str, str]) -> bool:
        """Commit now; False if that failed and will be tried again. `take_removed` comes before."""
        for stream, blob in engine.changed():
            self._states[stream] = blob
            self._removed.pop(stream, None)
        complete = self._store.incomplete
        if complete:
            self._states = dict(engine.states())
        try:
            self._store.commit(
                Commit(
                    states=list(self._states.items()),
                    removed=list(self._removed),
                    events=self._events,
                    outbox=self._outbox,
                    positions=positions,
                    complete=complete,
                )
            )
        except StoreError as error:
            self.error = str(error)
            self._counters.commit_failures += 1
            self._retry_at = self._clock.monotonic() + _RETRY_S
            self._log.limited("error", "store", "commit", f"{error}; trying again, nothing is acknowledged")
            return False
        if self.error:
            self._log.info("store", "commits succeed again")
        self.error = ""
        self._counters.commits += 1
        self._counters.events += len(self._events)
        self._states, self._removed, self._events, self._outbox = {}, {}, [], []
        self._urgent, self._since = False, None
        return True

    def acknowledge_scored(self, link: Connection) -> None:
        """After a turn: where readings need not outlive a crash, they are done when they are scored.

        Those that opened or closed an event wait for the commit that holds it.
        """
        if self.unacked and not self._after_commit and not self._urgent:
            self.acknowledge(link)

    def acknowledge(self, link: Connection) -> None:
        """After a commit: tell the broker, in the order of arrival."""
        link.ack(self.unacked)
        self.unacked = []

    def send_outbox(self, link: Connection) -> None:
        """Publish committed events as the broker takes them; forget those it has acknowledged."""
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
    def in_flight(self) -> int:
        """Events the broker has not acknowledged yet."""
        return self._in_flight

    def new_link(self) -> None:
        """Another connection: nothing of the outbox is on its way, old messages cannot be acknowledged."""
        self._sent_up_to = self._in_flight = 0
        self.unacked = []
