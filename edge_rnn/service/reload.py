"""A reload: read, validate, load and compile beside the running configuration, on a helper thread.

The result (`Reload`) is a whole `Pipeline` or the reason why there is none. `Reloads` picks it up between two
turns, commits what the old one has done, and lets the new one take its place; a configuration that cannot be
used changes nothing. `Watch` tells when the files it was made of have changed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from edge_rnn.errors import ConfigError, EdgeRnnError
from edge_rnn.files.config_types import Config
from edge_rnn.service.intake import Intake
from edge_rnn.service.outlets import Outlets
from edge_rnn.service.pipeline import Pipeline
from edge_rnn.service.pipeline_build import build
from edge_rnn.service.running import Running
from edge_rnn.service.systemd import Notifier


class Watch:
    """Whether the configuration's file or a model has changed since it was read.

    A change counts when two looks in a row see the same: a file that is being copied is not read half. A file
    that is gone is waited for.
    """

    def __init__(self, config: Config) -> None:
        self.follow(config)

    def follow(self, config: Config) -> None:
        """Watch the files of this configuration, as they are now."""
        self._paths = [Path(config.source), *(stream.model for stream in config.streams)]
        self._used = self._seen = self._look()

    def changed(self) -> bool:
        """Take a look; True once for each change."""
        before, self._seen = self._seen, self._look()
        if self._seen != before or self._seen == self._used or None in self._seen:
            return False
        self._used = self._seen
        return True

    def _look(self) -> list[tuple[int, int, int] | None]:
        found: list[tuple[int, int, int] | None] = []
        for path in self._paths:
            try:
                about = path.stat()
                found.append((about.st_mtime_ns, about.st_size, about.st_ino))
            except OSError:
                found.append(None)
        return found


class Reload:
    """One attempt; `pipeline` or `error` is set when `done`.

    Args:
        running: the configuration in use.
        reread: gives the new one, or raises `ConfigError`.
        now_ns: see `build`.
        wake: called at the end, from the helper thread.
    """

    def __init__(
        self, running: Config, reread: Callable[[], Config], now_ns: int, wake: Callable[[], None]
    ) -> None:
        self.pipeline: Pipeline | None = None
        self.error = ""
        self._thread = threading.Thread(
            target=self._work, args=(running, reread, now_ns, wake), name="reload", daemon=True
        )
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether the attempt has come to its end."""
        return not self._thread.is_alive()

    def _work(
        self, running: Config, reread: Callable[[], Config], now_ns: int, wake: Callable[[], None]
    ) -> None:
        try:
            config = reread()
            _check(running, config)
            self.pipeline = build(config, now_ns)
        except EdgeRnnError as error:
            self.error = str(error)
        except Exception as error:  # noqa: BLE001 - the running configuration must survive anything
            self.error = repr(error)
        wake()


def _check(old: Config, new: Config) -> None:
    """`ConfigError` for what only a restart can change."""
    for key in ("path", "sync", "keep_events", "max_outbox"):
        before, after = getattr(old.store, key), getattr(new.store, key)
        if before != after:
            raise ConfigError(f"store.{key}: expected {before} as before, got {after}; this needs a restart")


class Host(Protocol):
    """What a reload needs of the daemon."""

    def commit_now(self) -> bool | None:
        """Commit; whether that worked, None if the disk takes longer and the loop goes on meanwhile."""

    def make_outlets(self, pipeline: Pipeline) -> Outlets:
        """What hangs on a pipeline, not at work yet; `ConfigError` if it cannot be."""

    def replaced(self, old: Pipeline) -> None:
        """The pipeline and its outlets have taken their places: connection, timers and the rest follow."""


class Reloads:
    """Carries reloads out, one at a time.

    Args:
        reread: gives the new configuration or raises `ConfigError`; None: there is nothing to read.
        wake: ends the loop's wait; called from a helper thread.
    """

    def __init__(
        self,
        running: Running,
        intake: Intake,
        host: Host,
        reread: Callable[[], Config] | None,
        notifier: Notifier,
        wake: Callable[[], None],
    ) -> None:
        self._running = running
        self._intake = intake
        self._host = host
        self._reread = reread
        self._notifier = notifier
        self._wake = wake
        self._files = Watch(running.pipeline.config)
        self._attempt: Reload | None = None
        self._stored: bool | None = None
        self._asked = False

    def look(self) -> bool:
        """Whether a file has changed; not asked while a reload is under way."""
        if self._attempt is not None or not self._files.changed():
            return False
        self._running.journal.info("reload", "a file has changed")
        return True

    def step(self, *, wanted: bool) -> bool:
        """Once a turn: begin a reload that is wanted, end one that is done; whether it has been begun."""
        begun = wanted and self._attempt is None
        if begun:
            self._begin()
        if self._attempt is not None and self._attempt.done and self._is_stored(self._attempt):
            attempt, self._attempt = self._attempt, None
            self._end(attempt)
        return begun

    def _begin(self) -> None:
        running = self._running
        if self._reread is None:
            running.journal.warning("reload", "there is no file to read the configuration from again")
            return
        self._notifier.reloading()
        self._stored, self._asked = None, False
        self._attempt = Reload(running.pipeline.config, self._reread, running.arrival.next_ns(), self._wake)

    def _is_stored(self, attempt: Reload) -> bool:
        """Whether it is known if the old pipeline's work is on the disk; asks for a commit, once."""
        if attempt.pipeline is None:
            return True
        commits = self._running.commits
        if not commits.flying and self._asked:
            self._stored = not commits.error
        elif not commits.flying:
            self._asked = True
            self._stored = self._host.commit_now()
        return self._stored is not None and not commits.flying

    def _end(self, attempt: Reload) -> None:
        """Between two turns: go on with the new pipeline, or say why not."""
        hung: Outlets | None = None
        fresh, error = attempt.pipeline, attempt.error
        if fresh is not None and not self._stored:
            fresh, error = None, "the states cannot be committed"
        if fresh is not None:
            try:
                hung = self._host.make_outlets(fresh)
            except ConfigError as refusal:
                error = str(refusal)
        if fresh is not None and hung is not None:
            self._swap(fresh, hung)
        else:
            self._running.counters.reload_failures += 1
            why = "; ".join(error.splitlines())
            self._running.journal.error("reload", f"refused, the running configuration stays: {why}")
        self._notifier.ready("running")

    def _swap(self, fresh: Pipeline, hung: Outlets) -> None:
        running = self._running
        old = running.pipeline
        self._intake.say_how_built(fresh)
        loaded, cold = fresh.load_states(old.engine.states(), running.journal)
        for stream in cold:
            old.engine.hand_over(stream, fresh.engine)
        self._intake.collect()
        # What has come since the commit is not lost with the engine that knows it.
        running.commits.gather(old.engine)
        hung.inherit(running.outlets)
        hung.see(fresh.engine.streams())
        fresh.engine.counters.add(old.engine.counters)
        running.outlets, running.pipeline = hung, fresh
        self._files.follow(fresh.config)
        running.journal.configure(fresh.config.log.level, fresh.config.log.format)
        self._host.replaced(old)
        running.counters.reloads += 1
        running.journal.info("reload", "the new configuration is in use", kept=loaded, cold=len(cold))
