"""A real mosquitto on a free loopback port, one per test; it can be stopped, killed and started again.

    with Mosquitto(tmp_path) as broker:
        broker.port

The start is confirmed by a connection, never by a pause. Skips (or fails, see `need`) where there is none.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from tests.support import need

# Debian's mosquitto gives up root for an account that cannot read a test's folder.
_USER = "user root\n" if os.geteuid() == 0 else ""


def free_port() -> int:
    """A TCP port on 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Mosquitto:
    """The broker; `extra` are further lines of its configuration, `listener` lines of its listener."""

    def __init__(
        self,
        folder: Path,
        *,
        extra: Iterable[str] = (),
        listener: Iterable[str] = (),
        anonymous: bool = True,
        log: bool = True,
    ) -> None:
        self._program = need.program("mosquitto")
        self._folder = folder
        self._extra = list(extra)
        self._listener = list(listener)
        self._anonymous = anonymous
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def __enter__(self) -> Mosquitto:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def log(self) -> str:
        """What the broker has said so far."""
        return (self._folder / "mosquitto.log").read_text(errors="replace")

    def start(self) -> None:
        """Start, on the same port as before if there was one."""
        assert self._process is None
        for _ in range(5):
            port = self.port or free_port()
            config = self._folder / "mosquitto.conf"
            lines = [
                f"listener {port} 127.0.0.1", *self._listener,
                f"allow_anonymous {str(self._anonymous).lower()}", "set_tcp_nodelay true",
                f"log_type {'all' if self._log else 'error'}", *self._extra,
            ]  # fmt: skip
            config.write_text(_USER + "\n".join(lines) + "\n")
            with (self._folder / "mosquitto.log").open("ab") as log:
                self._process = subprocess.Popen([self._program, "-c", str(config)], stdout=log, stderr=log)
            if self._accepts(port):
                self.port = port
                return
            self.kill()
        raise RuntimeError(f"mosquitto did not start:\n{self.log}")

    def _accepts(self, port: int) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return True
            time.sleep(0.02)
        return False

    def stop(self) -> None:
        """End it in order (SIGTERM)."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it like a crash (SIGKILL)."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Make it hang: connections stay, nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """End a `pause`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(20)
            self._process = None
