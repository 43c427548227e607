"""Where events go beside MQTT: webhooks and commands, each on a thread of its own.

`offer` never waits: it puts the event's JSON into a bounded queue, and the oldest goes, counted, when that
is full. So nothing here can hold up a reading, whatever a server or program does. An event that could not
be told is tried again, with pauses of 1 s growing to 60 s, until `retry_for` has passed; the ones behind it
wait, so their order is kept. Queues live in memory: what waits when the daemon is killed is lost here. The
sure way is the event topic, which goes through the store.

Webhook: POST, `Content-Type: application/json`; success is a status of 200 to 299. 408, 425, 429 and 500
upwards, and failures of the network, are tried again; any other status is final, and so is a redirect (a
body that is signed for one address is not sent to another). With a secret two headers sign it:

    X-Edge-RNN-Timestamp: <seconds since 1970>
    X-Edge-RNN-Signature: sha256=<hex of HMAC-SHA256(secret, timestamp + "." + body)>

Command: the program with its arguments, no shell; the JSON is its standard input, its output is dropped but
for the last line of an error; exit code 0 is success. It gets the environment's PATH and LANG, and no more.
"""

from __future__ import annotations

import fnmatch
import hashlib
import hmac
import http.client
import os
import selectors
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from edge_rnn import __version__
from edge_rnn.files.config_types import SinkConfig
from edge_rnn.service.logs import Log

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
_TRANSIENT: Final = (408, 425, 429)
_LAST_S: Final = 0.5
# Of what a command says on stderr the end is kept; and how often it is looked whether it has ended.
_SAID_BYTES: Final = 4096
_LOOK_S: Final = 0.05


class SinkError(Exception):
    """One attempt that failed; `final` if another would, too."""

    def __init__(self, why: str, *, final: bool) -> None:
        super().__init__(why)
        self.final = final


@dataclass(slots=True)
class SinkCounters:
    """What has become of the events of one sink."""

    delivered: int = 0
    attempts: int = 0
    failed: int = 0
    dropped: int = 0


class Sink:
    """One sink at work; `offer` and `close` belong to the daemon's thread.

    Args:
        config: `[[sink]]`.
        wall: seconds since 1970, for signatures.
        monotonic: seconds from an arbitrary start, for `retry_for`.
        wait: waits so long or until the event is set; tests replace it.
    """

    def __init__(
        self,
        config: SinkConfig,
        log: Log,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        wait: Callable[[threading.Event, float], bool] = threading.Event.wait,
    ) -> None:
        self.name = config.name
        self.config = config
        self.counters = SinkCounters()
        self._log = log
        self._wall = wall
        self._monotonic = monotonic
        self._wait = wait
        self._queue: deque[bytes] = deque()
        self._lock = threading.Lock()
        self._some = threading.Event()
        self._stop = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._send = self._post if config.webhook is not None else self._run
        self._thread = threading.Thread(target=self._work, name=f"sink-{config.name}", daemon=True)
        self._thread.start()

    def wants(self, kind: str, stream: str) -> bool:
        """Whether an event of this type and stream is for this sink."""
        patterns = self.config.streams
        return kind in self.config.events and (
            not patterns or any(fnmatch.fnmatchcase(stream, pattern) for pattern in patterns)
        )

    def offer(self, body: bytes) -> None:
        """Take an event's JSON; returns at once."""
        with self._lock:
            self._queue.append(body)
            if len(self._queue) > self.config.queue:
                self._queue.popleft()
                self.counters.dropped += 1
            self._idle.clear()
            self._some.set()

    @property
    def waiting(self) -> int:
        """Events that have not been told yet."""
        return len(self._queue)

    def close(self, timeout: float = _LAST_S) -> None:
        """Give what waits a moment, then stop; what is not told by then is dropped, counted."""
        self._idle.wait(timeout)
        self._stop.set()
        self._some.set()
        self._thread.join(timeout)
        with self._lock:
            self.counters.dropped += len(self._queue)
            self._queue.clear()

    def _work(self) -> None:
        while not self._stop.is_set():
            self._some.wait()
            with self._lock:
                body = self._queue.popleft() if self._queue else None
                if body is None:
                    self._some.clear()
                    self._idle.set()
            if body is not None and not self._stop.is_set():
                self._deliver(body)

    def _deliver(self, body: bytes) -> None:
        end, pause = self._monotonic() + self.config.retry_for_ns / 1e9, FIRST_PAUSE_S
        while True:
            self.counters.attempts += 1
            try:
                self._send(body)
            except SinkError as error:
                failure = error
            except Exception as error:  # noqa: BLE001 - one event's trouble must not end the thread
                failure = SinkError(f"{type(error).__name__}: {error}", final=True)
            else:
                self.counters.delivered += 1
                self._log.settled("sink", self.name)
                return
            # Time that attempts have taken counts as well: a server that hangs is no reason to try longer.
            left = end - self._monotonic()
            if failure.final or left <= 0:
                self.counters.failed += 1
                self._log.limited(
                    "error", "sink", self.name, f"{self.name}: an event was not told: {failure}"
                )
                return
            self._log.limited("warning", "sink", self.name, f"{self.name}: {failure}; trying again")
            # The last attempt is made when the time is over.
            if self._wait(self._stop, min(pause, left)):
                self.counters.failed += 1
                return
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _post(self, body: bytes) -> None:
        headers = {"Content-Type": "application/json", "User-Agent": f"edge-rnn/{__version__}"}
        if self.config.secret is not None:
            stamp = str(int(self._wall()))
            headers["X-Edge-RNN-Timestamp"] = stamp
            headers["X-Edge-RNN-Signature"] = signature(self.config.secret.reveal(), stamp, body)
        assert self.config.webhook is not None
        request = urllib.request.Request(self.config.webhook, body, headers, method="POST")  # noqa: S310
        try:
            with _OPENER.open(request, timeout=self.config.timeout_ns / 1e9) as answer:
                answer.read(1024)
        except urllib.error.HTTPError as error:
            error.close()
            final = error.code < 500 and error.code not in _TRANSIENT
            raise SinkError(f"the webhook answered {error.code}", final=final) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise SinkError(f"the webhook cannot be reached ({reason})", final=False) from None

    def _run(self, body: bytes) -> None:
        environment = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
        try:
            process = subprocess.Popen(  # noqa: S603 - the program is the configuration's, without a shell
                self.config.command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                cwd="/", env=environment, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise SinkError(
                f"{self.config.command[0]} cannot be run ({error.strerror})", final=False
            ) from None
        code, said = _ended(process, body, self.config.timeout_ns / 1e9)
        if code is None:
            raise SinkError(
                f"{self.config.command[0]} was ended after {self.config.timeout_ns / 1e9:g} s", final=False
            )
        if code:
            last = said.decode("ascii", "backslashreplace").strip().splitlines()[-1:]
            why = f": {last[0][:200]}" if last else ""
            raise SinkError(f"{self.config.command[0]} ended with code {code}{why}", final=False)


def _ended(process: subprocess.Popen[bytes], body: bytes, timeout_s: float) -> tuple[int | None, bytes]:
    """Exit code, or None if the program had to be ended, and the end of what it said on stderr.

    Nothing here waits for what the program may have left behind, a child that holds its stderr among it, and
    no more of its output is kept than is shown.
    """
    assert process.stdin is not None
    assert process.stderr is not None
    deadline = time.monotonic() + timeout_s
    said, pipe = b"", process.stderr.fileno()
    with process.stdin, process.stderr, selectors.DefaultSelector() as ready:
        os.set_blocking(pipe, False)
        ready.register(pipe, selectors.EVENT_READ)
        # An event is far smaller than a pipe, so this never waits for a program that does not read.
        with suppress(BrokenPipeError):
            process.stdin.write(body)
            process.stdin.close()
        while True:
            code = process.poll()
            chunk = _available(pipe)
            said = (said + (chunk or b""))[-_SAID_BYTES:]
            if code is not None:
                return code, said
            left = deadline - time.monotonic()
            if left <= 0:
                # The whole group: what the program has started must not outlive it.
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return None, said
            if chunk == b"" and ready.get_map():
                ready.unregister(pipe)
            ready.select(min(left, _LOOK_S))


def _available(pipe: int) -> bytes | None:
    """What can be read now; None if that is nothing yet, empty at the end."""
    try:
        return os.read(pipe, 65536)
    except BlockingIOError:
        return None


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """The value of the header X-Edge-RNN-Signature."""
    digest = hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256)
    return f"sha256={digest.hexdigest()}"


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """None: the redirect's status is the answer."""


_OPENER: Final = urllib.request.build_opener(_NoRedirects)
