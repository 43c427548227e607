"""`/metrics`, `/healthz` and `/readyz` over HTTP, on a thread beside the daemon's loop.

    /metrics   Prometheus' text format, see `metrics.py`
    /healthz   200 while the data path goes round, 503 with the seconds it has not: restart it
    /readyz    200 while readings can arrive and be kept, 503 with what is missing, one problem a line

Off unless `[http] listen` says where. It answers GET and HEAD, reads no body, and serves at most
`MOST_AT_ONCE` requests at a time, each for at most `PATIENCE_S`, so that a slow or hostile client costs
threads, not the daemon. There is no encryption and no password here: listen on the loopback, or behind
what has them.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from edge_rnn.errors import ConfigError
from edge_rnn.service.facts import Facts
from edge_rnn.service.metrics import exposition

MOST_AT_ONCE = 8
PATIENCE_S = 5.0
STALLED_S = 30.0
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PLAIN_TYPE = "text/plain; charset=utf-8"

Answer = tuple[int, str, bytes]


def answers(facts: Callable[[], Facts]) -> dict[str, Callable[[], Answer]]:
    """What each path answers: status, content type, body."""
    metrics = exposition(facts)

    def healthy() -> Answer:
        stalled = facts().stalled_s
        if stalled > STALLED_S:
            return 503, _PLAIN_TYPE, f"the data path has not gone round for {stalled:.0f} s\n".encode()
        return 200, _PLAIN_TYPE, b"ok\n"

    def ready() -> Answer:
        problems = facts().problems
        if problems:
            return 503, _PLAIN_TYPE, "".join(f"{problem}\n" for problem in problems).encode()
        return 200, _PLAIN_TYPE, b"ok\n"

    return {
        "/metrics": lambda: (200, _METRICS_TYPE, metrics()),
        "/healthz": healthy,
        "/readyz": ready,
    }


class HttpServer:
    """The server, from the constructor until `close`.

    Args:
        host, port: where to listen; port 0 takes a free one (see `port`).
        facts: gives the daemon's present moment; called on the server's threads.

    Raises:
        ConfigError: the address cannot be used.
    """

    def __init__(self, host: str, port: int, facts: Callable[[], Facts]) -> None:
        try:
            self._server = _Server((host, port), answers(facts))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(
                f'http.listen: "{host}:{port}" cannot be listened on: {reason}; choose a free port'
            ) from None
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, name="http", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop listening; requests under way are dropped with the process."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(2)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Waiting for slow clients would hold up the daemon's end.
    block_on_close = False

    def __init__(self, address: tuple[str, int], paths: dict[str, Callable[[], Answer]]) -> None:
        self.paths = paths
        self.places = threading.BoundedSemaphore(MOST_AT_ONCE)
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve on a thread if there is a place, else hang up at once."""
        if not self.places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """One connection, then its place is free again."""
        # A socket's timeout begins anew with each byte; this one does not.
        end = threading.Timer(PATIENCE_S, _hang_up, (request,))
        end.daemon = True
        try:
            end.start()
            super().process_request_thread(request, client_address)
        finally:
            end.cancel()
            self.places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news; nothing here may write to the daemon's log."""


def _hang_up(request: socket.socket) -> None:
    with contextlib.suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server_version = "edge-rnn"
    sys_version = ""
    timeout = PATIENCE_S
    server: _Server

    def do_GET(self) -> None:
        """Answer with a body."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Answer without."""
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        give = self.server.paths.get(self.path.partition("?")[0])
        if give is None:
            code, kind, content = 404, _PLAIN_TYPE, b"not here; /metrics, /healthz and /readyz are\n"
        else:
            code, kind, content = give()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Requests are not logged: a scrape every few seconds would bury what matters."""
