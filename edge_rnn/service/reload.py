"""A reload: read, validate, load and compile beside the running configuration, on a helper thread.

The result is a whole `Pipeline` or the reason why there is none; the daemon picks it up between two turns.
`Watch` tells when the files it was made of have changed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from edge_rnn.errors import ConfigError, EdgeRnnError
from edge_rnn.files.config_types import Config
from edge_rnn.service.pipeline import Pipeline, build


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
