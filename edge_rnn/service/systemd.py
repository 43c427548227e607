"""The service manager's notify protocol: one datagram of KEY=VALUE lines to `$NOTIFY_SOCKET`.

Without that variable every call does nothing. The protocol is sd_notify(3)'s; an address that starts with `@`
is in the abstract namespace. A datagram that cannot be sent is let go: it must never hold up the data path.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping


class Notifier:
    """Says ready, watchdog, reloading and stopping to the service manager, if there is one."""

    __slots__ = ("_address", "watchdog_s")

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        environment = os.environ if environment is None else environment
        path = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        microseconds = environment.get("WATCHDOG_USEC", "")
        mine = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_s: float | None = None
        """The manager kills the process after this many seconds without `watchdog()`; None: it never does."""
        if microseconds.isascii() and microseconds.isdigit() and int(microseconds) and mine:
            self.watchdog_s = int(microseconds) / 1e6

    def ready(self, status: str = "") -> None:
        """Start-up or reload is complete."""
        self._send("READY=1", f"STATUS={status}")

    def watchdog(self) -> None:
        """The data path is alive."""
        self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """A reload begins; `ready` ends it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """The shutdown begins."""
        self._send("STOPPING=1")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        text = "\n".join(line.replace("\n", " ") for line in lines)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.settimeout(0)
                channel.sendto(text.encode(), self._address)
        except OSError:
            return
