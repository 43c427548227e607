"""An MQTT broker inside this process, for the demo: amqtt in a thread of its own, on loopback alone.

amqtt speaks MQTT 3.1.1 and keeps nothing on disk; it is here so that the first try needs no installed
broker, and for nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from types import TracebackType
from typing import Self

from edge_rnn.errors import EdgeRnnError, MissingExtraError

HOST = "127.0.0.1"
_START_S = 20.0
_ATTEMPTS = 5


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


class EmbeddedBroker:
    """A running broker while the `with` block lasts; `port` is where it listens.

    Raises:
        MissingExtraError: amqtt is not installed.
        EdgeRnnError: it does not start.
    """

    host = HOST

    def __init__(self) -> None:
        try:
            import amqtt.broker  # noqa: F401  only whether it is there; the thread below uses it
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                "the demo needs a broker inside the process, which is not installed: "
                "pip install 'edge-rnn[demo]'"
            ) from error
        self.port = 0
        self._ready = threading.Event()
        self._fault: Exception | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="demo-broker", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(_START_S) or self._fault is not None:
            raise EdgeRnnError(f"the demo's broker on {HOST} does not start: {self._fault or 'no answer'}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended already
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_START_S)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:  # noqa: BLE001  told to the thread that waits in __enter__
            self._fault = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        from amqtt.broker import Broker
        from amqtt.errors import BrokerError

        self._loop = asyncio.get_running_loop()
        # Its log is about its own inner life; what matters here shows up as messages that do not come.
        for name in ("amqtt", "transitions"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        for attempt in range(_ATTEMPTS):
            self.port = _free_port()  # another program may take it before the broker does: then try again
            broker = Broker(
                {
                    "listeners": {"default": {"type": "tcp", "bind": f"{HOST}:{self.port}"}},
                    "plugins": {
                        "amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}
                    },
                }
            )
            try:
                await broker.start()
                break
            except BrokerError:
                if attempt == _ATTEMPTS - 1:
                    raise
        self._ready.set()
        await self._stop.wait()
        await broker.shutdown()
