"""The daemon: one loop between a broker and a database.

    turn of the connection -> decode -> engine -> scores and states out -> commit if due -> acknowledge
      -> events out (QoS 1, from the outbox) -> tick, health, watchdog, backup if due

`commits.py` says what a commit holds and when it is due. Everything runs on the thread that calls `run`, but
for the connecting (see `mqtt.py`), backups and the building of a reload. Nothing blocks but
`Connection.turn`, whose timeout ends when the next thing is due, and the commit itself.

`stop` ends the loop: what was read is fed, committed and acknowledged, `offline` is published. `reload`
builds a second pipeline beside the running one and swaps between two turns; an invalid configuration changes
nothing. Both may be called from any thread or signal handler.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from edge_rnn.detect.verdict import Verdict
from edge_rnn.errors import ConfigError, StoreError
from edge_rnn.files.config_types import Config
from edge_rnn.service import health, outputs
from edge_rnn.service.clock import Arrival, Clock, Timer
from edge_rnn.service.commits import Commits
from edge_rnn.service.facts import Facts, Latest
from edge_rnn.service.health import DaemonCounters
from edge_rnn.service.logs import Log
from edge_rnn.service.mqtt import Connection, Delivery
from edge_rnn.service.outlets import Outlets
from edge_rnn.service.pipeline import Pipeline, build
from edge_rnn.service.reload import Reload, Watch
from edge_rnn.service.store import Store
from edge_rnn.service.systemd import Notifier
from edge_rnn.stream.events import event_id
from edge_rnn.stream.types import Event

if TYPE_CHECKING:
    from edge_rnn.service.http import HttpServer

_TICK_S = 1.0
# A signal that arrives in the moment before the wait begins is seen when the wait ends.
_LONGEST_WAIT_S = 1.0
_BLIND_AFTER = 5
_LAST_TURNS = 10
# Turns with messages that failed, one after the other: from here on the watchdog is not fed.
_FAILURES = 3
# In real time, more messages than this in one turn mean that the daemon is behind.
_BEHIND = 1000
_LAST_WAIT_S = 0.05
# Positions in the store: the latest arrival time given out; the subscriptions, one a line; the first level(s)
# of our topics.
ARRIVAL = "arrival_ns"
FILTERS = "filters"
BASE = "base"


class Daemon:
    """See the module.

    Args:
        config: a whole configuration.
        reread: gives the configuration of a reload, or raises `ConfigError`.
        log, clock, notifier, connect: parts that tests replace.
    """

    def __init__(
        self,
        config: Config,
        *,
        reread: Callable[[], Config] | None = None,
        log: Log | None = None,
        clock: Clock | None = None,
        notifier: Notifier | None = None,
        connect: Callable[..., Connection] = Connection,
    ) -> None:
        self.counters = DaemonCounters()
        self._config = config
        self._reread = reread
        self._clock = clock or Clock()
        self._log = log or Log(config.log.level, config.log.format, clock=self._clock)
        self._notifier = notifier or Notifier()
        self._make_connection = connect
        self._stopping = False
        self._reload_wanted = False
        self._reload: Reload | None = None
        self._wake: Callable[[], None] = lambda: None
        self._http: HttpServer | None = None
        self._files = Watch(config)
        self._obsolete: list[str] = []

    def stop(self) -> None:
        """End `run` in order, soon."""
        self._stopping = True
        self._wake()

    def reload(self) -> None:
        """Read the configuration again and use it, if it is valid."""
        self._reload_wanted = True
        self._wake()

    # ---- what commands may do

    def has(self, name: str) -> bool:
        """Whether there is a stream, or a group, of this name."""
        return name in self._pipeline.models or self._pipeline.engine.has(name)

    def reset(self, stream: str) -> bool:
        """Start a stream cold; whether there was one."""
        there = self._pipeline.engine.forget(stream)
        self._outlets.forget(stream)
        self._commits.mark()
        return there

    def commit(self) -> bool:
        """Commit what there is now; whether that worked."""
        return self._commit()

    # ---- life

    def run(self, started: Callable[[], None] = lambda: None) -> None:
        """Run until `stop`; `started` is called when everything is warm, before the first turn.

        Raises:
            ConfigError, ModelFileError: the configuration or a model cannot be used.
            StoreError: the database cannot be opened.
            CredentialsError: the broker refuses the credentials at the first connect.
        """
        self.open()
        try:
            started()
            while not self._stopping:
                self.turn(self._until_due())
            self._finish()
        finally:
            self.close()

    def open(self) -> None:
        """Open the store, load models and states, compile, prepare the connection (it is not made yet)."""
        self._log.info("start", "loading models and compiling; the first start takes some seconds")
        settings = self._config.store
        self._store = Store.open(
            settings.path,
            sync=settings.sync,
            keep_events=settings.keep_events,
            max_outbox=settings.max_outbox,
        )
        try:
            floor = self._store.positions().get(ARRIVAL, "")
            self._arrival = Arrival(self._clock, int(floor) if floor.isdigit() else 0)
            subscribed = self._store.positions().get(FILTERS, "").split("\n")
            self._pipeline = build(self._config, self._arrival.next_ns())
            loaded, cold = self._pipeline.load_states(self._store.load_states(), self._log)
            self._say_notes()
            self._say_how_built(self._pipeline)
            self._outlets = self._make_outlets(self._pipeline, self._store.positions())
            self._replace(self._store.positions().get(BASE, ""), self._pipeline)
            self._link = self._connect(self._pipeline, subscribed)
            self._commits = Commits(self._store, self._config, self._clock, self._log, self.counters)
            self._started = self._heard = self._online = self._turned = self._clock.monotonic()
            self._blind = False
            self._blind_since = 0
            self._renew_at = 0.0
            self._failures = 0
            self._lag_ns = 0
            self._epoch = 0
            self._set_timers()
            try:
                self._listen(self._config)
            except BaseException:
                self._link.close([])
                raise
        except BaseException:
            self._store.close()
            raise
        self._wake = self._link.wake
        self._log.info(
            "start", "models loaded and compiled", groups=len(self._pipeline.models), streams=loaded,
            cold=len(cold), outbox=self._store.waiting(),
        )  # fmt: skip
        self._notifier.ready(f"{loaded} streams go on, {len(cold)} start cold")

    def close(self) -> None:
        """Say offline, disconnect, give the store free."""
        self._wake = lambda: None
        self._stop_listening()
        self._outlets.close()
        self._link.close([(self._pipeline.outputs.status, outputs.OFFLINE)])
        self._store.close()

    def _make_outlets(self, pipeline: Pipeline, positions: Mapping[str, str]) -> Outlets:
        """What hangs on a pipeline beside its scores, with the streams it has."""
        models = {name: (model.name, model.inputs) for name, model in pipeline.models.items()}
        made = Outlets(pipeline.config, models, positions, self, self._log, self._clock.wall_ns)
        pipeline.engine.show(made.tap)
        made.see(pipeline.engine.streams())
        return made

    def _replace(self, base: str, pipeline: Pipeline) -> None:
        """Another first level than `base` is used now: what is retained below the old one goes."""
        if base and base != pipeline.config.output.base:
            streams = pipeline.engine.streams()
            self._obsolete = [f"{base}/{stream}/state" for stream in streams]
            self._obsolete += [f"{base}/status", f"{base}/health"]

    def _connect(self, pipeline: Pipeline, subscribed: Iterable[str]) -> Connection:
        """A connection for a pipeline; `subscribed`: what the broker's session may still bring."""
        will = (pipeline.outputs.status, outputs.OFFLINE)
        before = {name: False for name in subscribed if name}
        link = self._make_connection(
            pipeline.config.mqtt, before, will, self._log, arrival=self._arrival, clock=self._clock
        )
        link.set_filters(pipeline.filters)
        return link

    def _listen(self, config: Config) -> None:
        """Metrics and health over HTTP, where the configuration asks for them."""
        address = config.http.address()
        if address is not None:
            # It brings a web server and a library for metrics: only where they are wanted.
            from edge_rnn.service.http import HttpServer

            self._http = HttpServer(*address, self.facts)
            self._log.info("http", "/metrics, /healthz and /readyz are served", port=self._http.port)

    def _stop_listening(self) -> None:
        if self._http is not None:
            self._http.close()
            self._http = None

    def _set_timers(self) -> None:
        now, config = self._clock.monotonic(), self._pipeline.config
        self._tick = Timer(_TICK_S, now)
        self._health = Timer(config.health.every_ns / 1e9, now)
        self._backup = Timer(config.store.backup_every_ns / 1e9, now)
        self._watchdog = Timer((self._notifier.watchdog_s or 0) / 3, now)
        self._watch = Timer(config.reload.watch_ns / 1e9, now)

    # ---- one turn

    def _until_due(self) -> float:
        due = [t.next for t in (self._tick, self._health, self._watchdog) if t.seconds]
        commit = self._commits.due()
        if commit is not None:
            due.append(commit)
        return min(_LONGEST_WAIT_S, max(0.0, min(due) - self._clock.monotonic()))

    def turn(self, timeout: float) -> None:
        """One turn of the loop, waiting for at most `timeout` seconds."""
        deliveries = self._link.turn(timeout)
        self._turned = self._clock.monotonic()
        try:
            if self._link.epoch != self._epoch:
                self._epoch = self._link.epoch
                self._online = self._clock.monotonic()
                self._announce()
            if deliveries:
                self._take(deliveries)
                self._failures = 0
                self._commits.acknowledge_scored(self._link)
            now = self._clock.monotonic()
            if self._tick.due(now):
                self._log.sum_up()
                self._say_blind(now)
                self._emit(self._pipeline.engine.tick(self._arrival.next_ns()))
                self._tell()
            commit = self._commits.due()
            if commit is not None and now >= commit:
                self._commit()
            self._commits.send_outbox(self._link)
            self._outlets.reply(self._link.publish)
            self._housekeeping(now)
        except Exception as error:  # noqa: BLE001 - one bad turn must not end a daemon; it is counted and said
            self.counters.errors += 1
            self._failures += bool(deliveries)
            self._log.limited("error", "loop", type(error).__name__, f"a turn failed: {error!r}")

    def _take(self, deliveries: list[Delivery]) -> None:
        """Feed messages; they are acknowledged with the commit that holds what they did."""
        pipeline, counters = self._pipeline, self.counters
        counters.messages += len(deliveries)
        everything = deliveries
        if len(deliveries) > _BEHIND and pipeline.config.mqtt.delivery == "realtime":
            # Behind: what is newest of each topic, in the order of arrival; but every command.
            own = self._outlets.topics
            newest = {delivery.topic: index for index, delivery in enumerate(deliveries)}
            deliveries = [
                delivery
                for index, delivery in enumerate(deliveries)
                if newest[delivery.topic] == index or delivery.topic in own
            ]
            counters.skipped += len(everything) - len(deliveries)
        self._heard = self._clock.monotonic()
        readings = pipeline.take_all(deliveries, counters, self._log, self._outlets)
        # Not earlier: a command among them may commit, and would acknowledge what is not scored yet.
        self._commits.hold(everything)
        if readings:
            self._lag_ns = deliveries[-1].arrival_ns - readings[-1][2]
            for judged in pipeline.engine.judge(readings, self._arrival.next_ns()):
                counters.verdicts += len(judged)
                scores, states, changed = pipeline.outputs.judged(judged)
                counters.scores += self._link.publish_batch(scores)
                for state in states:
                    counters.states += self._link.publish(*state, retain=True)
                self._outlets.see(changed)
            self._collect(pipeline)

    def _emit(self, verdicts: Iterable[Verdict]) -> None:
        """Publish scores and states, and put events on their way through the store."""
        link, out, counters = self._link, self._pipeline.outputs, self.counters
        for verdict in verdicts:
            counters.verdicts += 1
            score, state = out.verdict(verdict)
            if score is not None:
                counters.scores += link.publish(*score)
            if state is not None:
                counters.states += link.publish(*state, retain=True)
                self._outlets.see((verdict.stream,))
            self._commits.mark()
        self._collect(self._pipeline)

    def _collect(self, pipeline: Pipeline) -> None:
        """Take events and forgotten streams from the engine."""
        for event in pipeline.engine.take_events():
            if self._outlets.tells(event):
                self._tell_event(pipeline, event)
            else:
                self._commits.add_event(event, "", b"")
        for stream in self._commits.take_removed(pipeline.engine):
            self._outlets.forget(stream)
            self._link.publish(*pipeline.outputs.forget(stream), retain=True)

    def _tell_event(self, pipeline: Pipeline, event: Event) -> None:
        topic, plain = pipeline.outputs.event(event)
        self._commits.add_event(event, topic, self._outlets.payload(event, plain))

    def _tell(self) -> None:
        """Once a second: events whose mutes have ended, announcements, what decoders ask senders for."""
        for event in self._outlets.due():
            self._tell_event(self._pipeline, event)
        requests = self._pipeline.take_requests()
        if self._link.connected:
            for topic, payload in requests:
                self._link.publish(topic, payload)
            self._outlets.announce(self._link.publish)
        if self._outlets.dirty:
            self._commits.mark()

    def _commit(self) -> bool:
        self._collect(self._pipeline)
        positions = {
            ARRIVAL: str(self._arrival.last_ns),
            FILTERS: "\n".join(self._pipeline.filters),
            BASE: self._pipeline.config.output.base,
            **self._outlets.before_commit(),
        }
        written = self._commits.write(self._pipeline.engine, positions)
        if written:
            self._commits.acknowledge(self._link)
        return written

    def _housekeeping(self, now: float) -> None:
        if self._health.due(now):
            self._publish_health()
        if self._backup.due(now):
            threading.Thread(target=self._make_backup, name="store-backup", daemon=True).start()
        if self._watchdog.due(now) and self._failures < _FAILURES:
            self._notifier.watchdog()
        if self._watch.due(now) and self._reload is None and self._files.changed():
            self._log.info("reload", "a file has changed")
            self._reload_wanted = True
        if self._reload_wanted and self._reload is None:
            self._reload_wanted = False
            self._begin_reload()
        if self._reload is not None and self._reload.done:
            reload, self._reload = self._reload, None
            self._end_reload(reload)
        self._say_notes()

    def _make_backup(self) -> None:
        try:
            self._store.backup()
        except StoreError as error:
            self._log.limited("error", "store", "backup", str(error))

    def _say_notes(self) -> None:
        for note in self._store.take_notes():
            self._log.warning("store", note)

    def _say_how_built(self, pipeline: Pipeline) -> None:
        for note in pipeline.notes:
            self._log.warning("library", note)

    def _finish(self) -> None:
        """What was read is fed already: commit and acknowledge it, and give events a moment to arrive."""
        self._notifier.stopping()
        if self._commits.due() is not None:
            self._commit()
        self._commits.send_outbox(self._link)
        for _ in range(_LAST_TURNS):
            if not (self._commits.in_flight and self._link.connected):
                break
            # What still comes in is not fed and not acknowledged: the broker keeps it.
            self._link.turn(_LAST_WAIT_S)
            self._commits.send_outbox(self._link)
        if self._commits.due() is not None:
            self._commit()
        self._log.info("stop", "stopped in order", generation=self._store.generation)

    # ---- what is said

    def _is_blind(self, now: float) -> bool:
        limit = _BLIND_AFTER * self._health.seconds
        return self._link.connected and now - max(self._heard, self._online) > limit > 0

    def _say_blind(self, now: float) -> None:
        """Act on it; say once that it begins and once that it ends; the end of a connection says itself."""
        blind, was = self._is_blind(now), self._blind
        if blind and now >= self._renew_at:
            # A broker may have forgotten the subscription, or the connection may be dead on its way to us.
            self._renew_at = now + _BLIND_AFTER * self._health.seconds
            self._link.renew("connected, but nothing arrives")
        if blind == was:
            return
        self._blind = blind
        self._tell_blind(blind=blind)
        if blind:
            self._log.warning(
                "blind", f"connected, but nothing has arrived for {_BLIND_AFTER * self._health.seconds:g} s; "
                "check the senders, the topics of the configuration and the broker's access rules",
                topics=", ".join(self._pipeline.filters),
            )  # fmt: skip
        elif self._link.connected:
            self._log.info("blind", "messages arrive again")

    def _tell_blind(self, *, blind: bool) -> None:
        """The daemon's own event, for the history and `<base>/event`."""
        now = self._arrival.next_ns()
        if blind:
            self._blind_since = now
        event = Event(
            type="open" if blind else "close", id=event_id("", "silent", self._blind_since), stream="",
            kind="silent", start_ns=self._blind_since, time_ns=now, end_ns=None if blind else now,
            score=math.nan, threshold=math.nan, peak=math.nan, peak_ns=self._blind_since, shares=(),
        )  # fmt: skip
        base = self._pipeline.config.output.base
        self._commits.add_event(event, f"{base}/event", self._pipeline.outputs.event(event)[1])

    def _announce(self) -> None:
        """After every connect: the broker may have lost everything it retained."""
        out = self._pipeline.outputs
        self._link.publish(out.status, outputs.ONLINE, retain=True)
        for topic, payload in out.states():
            self._link.publish(topic, payload, retain=True)
        self._outlets.connected()
        obsolete, self._obsolete = self._obsolete, []
        for topic in obsolete:
            self._link.publish(topic, b"", retain=True)
        self._publish_health()

    def _publish_health(self) -> None:
        if self._link.connected:
            self._link.publish(self._pipeline.outputs.health, self.health(), retain=True)

    def health(self) -> bytes:
        """The health message, as JSON; see `health.py`."""
        link, pipeline, store, tls = self._link, self._pipeline, self._store, self._pipeline.config.mqtt.tls
        now, wall = self._clock.monotonic(), self._clock.wall_ns()
        quiet = now - self._heard
        status = "store" if self._commits.error else "blind" if self._is_blind(now) else "running"
        return health.encode(
            {
                "time": outputs.iso(wall),
                "time_ns": wall,
                "status": status if link.connected else "offline",
                "uptime_s": now - self._started,
                "lag_s": self._lag_ns / 1e9,
                "quiet_s": quiet,
                "clock_ahead_s": self._arrival.ahead_ns / 1e9,
                "streams": len(pipeline.engine),
                "daemon": self.counters,
                "engine": pipeline.engine.counters,
                "broker": {
                    "connected": link.connected,
                    "session_present": link.session_present,
                    "verified": None if tls is None else not tls.insecure,
                    **link.counters.as_dict(),
                },
                "store": {
                    "generation": store.generation,
                    "outbox": store.waiting(),
                    "unacknowledged": len(self._commits.unacked),
                    "error": self._commits.error,
                },
                "store_counters": store.counters,
                "models": {
                    name: {"name": m.name, "weights": m.digest} for name, m in pipeline.models.items()
                },
                "versions": health.versions(),
                **self._outlets.health(),
            }
        )

    def facts(self) -> Facts:
        """The daemon's present moment, for metrics and readiness; called from the HTTP server's threads."""
        link, pipeline, now = self._link, self._pipeline, self._clock.monotonic()
        blind = self._is_blind(now)
        problems = []
        if not link.connected:
            problems.append("not connected to the broker")
        elif not link.subscribed:
            problems.append("not subscribed yet")
        if self._commits.error:
            problems.append(f"the store cannot commit: {self._commits.error}")
        return Facts(
            counters={
                "daemon": self.counters,
                "engine": pipeline.engine.counters,
                "broker": link.counters.as_dict(),
                "store": self._store.counters,
            },
            gauges={
                "up": float(link.connected),
                "blind": float(blind),
                "lag_seconds": self._lag_ns / 1e9,
                "quiet_seconds": now - self._heard,
                "uptime_seconds": now - self._started,
                "streams": len(pipeline.engine),
                "outbox": self._store.waiting(),
                "unacknowledged": len(self._commits.unacked),
            },
            latest=[
                Latest(v.stream, v.status, v.score, v.threshold, v.time_ns) for v in pipeline.outputs.latest()
            ],
            problems=problems,
            stalled_s=now - self._turned,
        )

    # ---- reload

    def _begin_reload(self) -> None:
        if self._reread is None:
            self._log.warning("reload", "there is no file to read the configuration from again")
            return
        self._notifier.reloading()
        self._reload = Reload(self._pipeline.config, self._reread, self._arrival.next_ns(), self._wake)

    def _end_reload(self, reload: Reload) -> None:
        """Between two turns: commit with the old pipeline, go on with the new one."""
        hung: Outlets | None = None
        if reload.pipeline is not None:
            try:
                hung = self._make_outlets(reload.pipeline, self._outlets.before_commit())
            except ConfigError as error:
                reload.pipeline, reload.error = None, str(error)
        if reload.pipeline is not None and not self._commit():
            reload.pipeline, reload.error = None, "the states cannot be committed"
        if reload.pipeline is not None and hung is not None:
            self._swap(reload.pipeline, hung)
        else:
            self.counters.reload_failures += 1
            why = "; ".join(reload.error.splitlines())
            self._log.error("reload", f"refused, the running configuration stays: {why}")
            if hung is not None:
                hung.close()
        self._notifier.ready("running")

    def _swap(self, fresh: Pipeline, hung: Outlets) -> None:
        old = self._pipeline
        self._say_how_built(fresh)
        loaded, cold = fresh.load_states(old.engine.states(), self._log)
        for stream in cold:
            old.engine.forget(stream)
        self._collect(old)
        hung.inherit(self._outlets)
        hung.see(fresh.engine.streams())
        self._outlets = hung
        self._files.follow(fresh.config)
        self._replace(old.config.output.base, fresh)
        self._log.configure(fresh.config.log.level, fresh.config.log.format)
        if old.outputs.status == fresh.outputs.status and old.config.mqtt == fresh.config.mqtt:
            self._link.set_filters(fresh.filters)
        else:
            self._link.close([(old.outputs.status, outputs.OFFLINE)])
            self._link = self._connect(fresh, old.filters)
            self._wake = self._link.wake
            self._epoch = 0
            self._commits.new_link()
        self._pipeline = fresh
        if fresh.config.http != old.config.http:
            self._stop_listening()
            try:
                self._listen(fresh.config)
            except ConfigError as error:
                self._log.error("http", str(error))
        self._commits.configure(fresh.config)
        self._commits.mark()
        self._set_timers()
        self.counters.reloads += 1
        self._log.info("reload", "the new configuration is in use", streams=loaded, cold=len(cold))
