"""The daemon: one loop between a broker and a database.

    turn of the connection -> decode -> engine -> scores and states out -> commit if due -> acknowledge
      -> events out (QoS 1, from the outbox) -> tick, health, watchdog, backup if due

Its parts have files of their own: what readings go through (`intake.py`), what a commit holds and when it is
due (`commits.py`), the daemon's own silence (`blind.py`), reloads (`reload.py`), what it says of itself
(`report.py`); they share a `Running`. Everything runs on the thread that calls `run`, but for the connecting
(see `mqtt.py`), the writing of commits, backups, and the building of a reload. Nothing blocks but
`Connection.turn`, whose timeout ends when the next thing is due; a commit is waited for a moment only.

`stop` ends the loop: what was read is fed, committed and acknowledged, `offline` is published. `reload`
builds a second pipeline beside the running one and swaps between two turns. Both may be called from any
thread or signal handler.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from edge_rnn.errors import ConfigError, StoreError
from edge_rnn.files.config_types import Config
from edge_rnn.service import outputs
from edge_rnn.service.blind import Blind
from edge_rnn.service.clock import Arrival, Clock, Timer
from edge_rnn.service.commits import Commits
from edge_rnn.service.facts import Facts
from edge_rnn.service.health import DaemonCounters
from edge_rnn.service.intake import Intake
from edge_rnn.service.logs import Log
from edge_rnn.service.mqtt import Connection
from edge_rnn.service.outlets import Outlets
from edge_rnn.service.pipeline import Pipeline
from edge_rnn.service.pipeline_build import build
from edge_rnn.service.reload import Reloads
from edge_rnn.service.report import Report
from edge_rnn.service.running import Running
from edge_rnn.service.store import Store
from edge_rnn.service.systemd import Notifier

if TYPE_CHECKING:
    from edge_rnn.service.http import HttpServer

_TICK_S = 1.0
# A signal that arrives in the moment before the wait begins is seen when the wait ends.
_LONGEST_WAIT_S = 1.0
_LAST_TURNS = 10
_LAST_WAIT_S = 0.05
# A commit that was asked for is answered after so long, whatever the disk does.
_ANSWER_S = 2.0
# The end, all in all, a disk that does not answer included: with the goodbyes of `close` (some two seconds)
# it must be over before the unit's TimeoutStopSec.
_FINISH_S = 5.0
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

    Attributes:
        running: what it runs with, from `open` on.
    """

    running: Running

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
        self._wake: Callable[[], None] = lambda: None
        self._http: HttpServer | None = None
        self._obsolete: list[str] = []
        self._epoch = 0

    def stop(self) -> None:
        """End `run` in order, soon."""
        self._stopping = True
        self._wake()

    def reload(self) -> None:
        """Read the configuration again and use it, if it is valid."""
        self._reload_wanted = True
        self._wake()

    def _wake_up(self) -> None:
        """End the wait of the connection there is now; from any thread."""
        self._wake()

    # ---- what commands may do

    def has(self, name: str) -> bool:
        """Whether there is a stream, or a group, of this name."""
        pipeline = self.running.pipeline
        return name in pipeline.models or pipeline.engine.has(name)

    def knows(self, event: str) -> bool:
        """Whether an event of this id is open."""
        return event == self._blind.open_id or self.running.pipeline.engine.is_open(event)

    def reset(self, stream: str) -> bool:
        """Start a stream cold; whether there was one."""
        there = self.running.pipeline.engine.forget(stream)
        self.running.outlets.forget(stream)
        self.running.commits.mark()
        return there

    def commit(self) -> bool | None:
        """Commit what there is now; whether that worked, None if the disk takes longer than a moment."""
        commits = self.running.commits

        def patient() -> bool:
            # By the commit's age: a second command does not wait for the same one again.
            return not self._stopping and commits.age < _ANSWER_S

        self._settle(patient)
        if self.commit_now() is None:
            self._settle(patient)
        return None if commits.flying else not commits.error

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
        store = Store.open(
            settings.path,
            sync=settings.sync,
            keep_events=settings.keep_events,
            max_outbox=settings.max_outbox,
        )
        try:
            positions = store.positions()
            floor = positions.get(ARRIVAL, "")
            arrival = Arrival(self._clock, int(floor) if floor.isdigit() else 0)
            pipeline = build(self._config, arrival.next_ns())
            loaded, cold = pipeline.load_states(store.load_states(), self._log)
            for note in store.take_notes():
                self._log.warning("store", note)
            outlets = self._outlets_of(pipeline, positions)
            outlets.begin()
            outlets.see(pipeline.engine.streams())
            link = self._connect(pipeline, positions.get(FILTERS, "").split("\n"), arrival)
            commits = Commits(store, self._config, self._clock, self._log, self.counters, self._wake_up)
            running = self.running = Running(
                store, commits, pipeline, outlets, link, arrival, self._clock, self._log, self.counters
            )
            self._retire(positions.get(BASE, ""))
            now = self._clock.monotonic()
            self._intake = Intake(running)
            self._blind = Blind(running, self._intake)
            self._report = Report(running, self._intake, self._blind, now, now)
            self._reloads = Reloads(running, self._intake, self, self._reread, self._notifier, self._wake_up)
            self._intake.say_how_built(pipeline)
            self._set_timers()
            try:
                self._listen(self._config)
            except BaseException:
                link.close([])
                raise
        except BaseException:
            store.close()
            raise
        self._wake = link.wake
        self._log.info(
            "start", "models loaded and compiled", groups=len(pipeline.models), streams=loaded,
            cold=len(cold), outbox=store.waiting(),
        )  # fmt: skip
        self._notifier.ready(f"{loaded} streams go on, {len(cold)} start cold")

    def close(self) -> None:
        """Say offline, disconnect, give the store free."""
        running = self.running
        self._wake = lambda: None
        # First of all: what follows may wait for a disk.
        running.link.close([(running.pipeline.outputs.status, outputs.OFFLINE)])
        self._stop_listening()
        running.outlets.close()
        running.commits.close()
        if not running.commits.flying:
            running.store.close()

    def make_outlets(self, pipeline: Pipeline) -> Outlets:
        """What hangs on a pipeline beside its scores, with what the one before it knew; not at work yet."""
        return self._outlets_of(pipeline, self.running.outlets.before_commit())

    def _outlets_of(self, pipeline: Pipeline, positions: Mapping[str, str]) -> Outlets:
        models = {name: (model.name, model.inputs) for name, model in pipeline.models.items()}
        made = Outlets(pipeline.config, models, positions, self, self._log, self._clock.wall_ns)
        pipeline.engine.show(made.tap)
        return made

    def _retire(self, base: str) -> None:
        """Another first level than `base` is used now: what is retained below the old one goes."""
        pipeline = self.running.pipeline
        if base and base != pipeline.config.output.base:
            streams = pipeline.engine.streams()
            self._obsolete = [f"{base}/{stream}/state" for stream in streams]
            self._obsolete += [f"{base}/status", f"{base}/health"]

    def _connect(self, pipeline: Pipeline, subscribed: Iterable[str], arrival: Arrival) -> Connection:
        """A connection for a pipeline; `subscribed`: what the broker's session may still bring."""
        will = (pipeline.outputs.status, outputs.OFFLINE)
        before = {name: False for name in subscribed if name}
        link = self._make_connection(
            pipeline.config.mqtt, before, will, self._log, arrival=arrival, clock=self._clock
        )
        link.set_filters(pipeline.filters)
        link.scan_with(pipeline.sources)
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
        now, config = self._clock.monotonic(), self.running.pipeline.config
        self._tick = Timer(_TICK_S, now)
        self._health = Timer(config.health.every_ns / 1e9, now)
        self._backup = Timer(config.store.backup_every_ns / 1e9, now)
        self._watchdog = Timer((self._notifier.watchdog_s or 0) / 3, now)
        self._watch = Timer(config.reload.watch_ns / 1e9, now)

    # ---- one turn

    def _until_due(self) -> float:
        due = [t.next for t in (self._tick, self._health, self._watchdog) if t.seconds]
        due += [at for at in (self.running.commits.due(), self._intake.due()) if at is not None]
        return min(_LONGEST_WAIT_S, max(0.0, min(due) - self._clock.monotonic()))

    def turn(self, timeout: float) -> None:
        """One turn of the loop, waiting for at most `timeout` seconds."""
        running, intake = self.running, self._intake
        deliveries = running.link.turn(timeout)
        self._report.turned = self._clock.monotonic()
        try:
            running.commits.land(running.link)
            if running.link.epoch != self._epoch:
                self._epoch = running.link.epoch
                intake.reconnected()
                self._blind.connected()
                self._announce()
            intake.take(deliveries)
            running.commits.acknowledge_scored(running.link)
            now = self._clock.monotonic()
            if self._tick.due(now):
                self._log.sum_up()
                self._blind.look(now)
                # Arrival times do not follow a clock that was set back; a sender's times are held against it.
                now_ns, clock_ns = running.arrival.next_ns(), self._clock.wall_ns()
                intake.emit(running.pipeline.engine.tick(now_ns, clock_ns))
                self._tell()
            commit = running.commits.due()
            if commit is not None and now >= commit:
                self.commit_now()
            running.commits.send_outbox(running.link)
            running.outlets.reply(running.link.publish)
            self._housekeeping(now)
        except Exception as error:  # noqa: BLE001 - one bad turn must not end a daemon; it is counted and said
            self.counters.errors += 1
            self._log.limited("error", "loop", type(error).__name__, f"a turn failed: {error!r}")

    def _tell(self) -> None:
        """Once a second: events whose mutes have ended, announcements, what decoders ask senders for."""
        running = self.running
        for event in running.outlets.due():
            self._intake.tell(event, due=True)
        requests = running.pipeline.take_requests()
        if running.link.connected:
            for topic, payload in requests:
                running.link.publish(topic, payload)
            running.outlets.announce(running.link.publish)
        if running.outlets.dirty:
            running.commits.mark()

    def commit_now(self) -> bool | None:
        """Commit; whether that worked, None if one is on its way when this returns: the loop goes on."""
        running = self.running
        if running.commits.flying or running.commits.undone:
            return None
        self._intake.collect()
        positions = {
            ARRIVAL: str(running.arrival.last_ns),
            FILTERS: "\n".join(running.pipeline.filters),
            BASE: running.pipeline.config.output.base,
            **running.outlets.before_commit(),
        }
        running.commits.begin(running.pipeline.engine, positions)
        return running.commits.land(running.link)

    def _settle(self, patient: Callable[[], bool]) -> None:
        """Wait until no commit is on its way, while `patient`; what comes is taken with the next turn."""
        running = self.running
        running.commits.wait(running.link, self._intake.later, patient)
        running.commits.land(running.link)

    def _housekeeping(self, now: float) -> None:
        if self._health.due(now):
            self._publish_health()
        if self._backup.due(now):
            threading.Thread(target=self._make_backup, name="store-backup", daemon=True).start()
        if self._watchdog.due(now) and self._intake.has_moved():
            self._notifier.watchdog()
        if self._watch.due(now) and self._reloads.look():
            self._reload_wanted = True
        if self._reloads.step(wanted=self._reload_wanted):
            self._reload_wanted = False
        for note in self.running.store.take_notes():
            self._log.warning("store", note)

    def _make_backup(self) -> None:
        try:
            self.running.store.backup()
        except StoreError as error:
            self._log.limited("error", "store", "backup", str(error))

    def _finish(self) -> None:
        """What was read is fed already: commit and acknowledge it, and give events a moment to arrive."""
        self._notifier.stopping()
        commits, link = self.running.commits, self.running.link
        end = self._clock.monotonic() + _FINISH_S
        self._finish_commit(end)
        for _ in range(_LAST_TURNS):
            commits.send_outbox(link)
            if not (commits.in_flight and link.connected):
                break
            # What still comes in is not fed and not acknowledged: the broker keeps it.
            link.turn(_LAST_WAIT_S)
        self._finish_commit(end)
        if commits.flying:
            self._log.error("stop", "the database does not answer; what it has not taken will come again")
            return
        self._log.info("stop", "stopped in order", generation=self.running.store.generation)

    def _finish_commit(self, end: float) -> None:
        def patient() -> bool:
            return self._clock.monotonic() < end

        self._settle(patient)
        if self.running.commits.due() is not None:
            self.commit_now()
            self._settle(patient)

    # ---- what is said

    def _announce(self) -> None:
        """After every connect: the broker may have lost everything it retained."""
        link, out = self.running.link, self.running.pipeline.outputs
        link.publish(out.status, outputs.ONLINE, retain=True)
        for topic, payload in out.states():
            link.publish(topic, payload, retain=True)
        self.running.outlets.connected()
        obsolete, self._obsolete = self._obsolete, []
        for topic in obsolete:
            link.publish(topic, b"", retain=True)
        self._publish_health()

    def _publish_health(self) -> None:
        running = self.running
        if running.link.connected:
            running.link.publish(running.pipeline.outputs.health, self.health(), retain=True)

    def health(self) -> bytes:
        """The health message, as JSON; see `health.py`."""
        return self._report.health()

    def facts(self) -> Facts:
        """The daemon's present moment, for metrics and readiness; called from the HTTP server's threads."""
        return self._report.facts()

    # ---- reload

    def replaced(self, old: Pipeline) -> None:
        """A reload has put another pipeline and other outlets in their places: what follows from it."""
        running, fresh = self.running, self.running.pipeline
        self._retire(old.config.output.base)
        if old.outputs.status == fresh.outputs.status and old.config.mqtt == fresh.config.mqtt:
            running.link.set_filters(fresh.filters)
            running.link.scan_with(fresh.sources)
        else:
            running.link.close([(old.outputs.status, outputs.OFFLINE)])
            running.link = self._connect(fresh, old.filters, running.arrival)
            self._wake = running.link.wake
            self._epoch = 0
            running.commits.new_link()
            self._intake.reconnected()
        if fresh.config.http != old.config.http:
            self._stop_listening()
            try:
                self._listen(fresh.config)
            except ConfigError as error:
                self._log.error("http", str(error))
        running.commits.configure(fresh.config)
        running.commits.mark()
        self._set_timers()
