"""One run of the demo from start to end: broker, daemon, sensors, watcher, account.

Nothing is faked on the way of a reading. The daemon is the one users run (`edge-rnn run`, a process of its
own, stopped with SIGTERM), its configuration is a file as users write it, and sensors and watcher talk to it
through the broker alone. Configuration, database and log live in a temporary folder that is gone afterwards.

Threads: the broker's, one of each MQTT client, the sensors'. They only put what happens into one queue; this
thread empties it, keeps the account and draws.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_rnn.demo.broker import EmbeddedBroker
from edge_rnn.demo.clients import DemoClient
from edge_rnn.demo.ledger import Ledger, Summary
from edge_rnn.demo.messages import read_event, read_score
from edge_rnn.demo.pumps import CHANNELS, RATE_HZ, Plant, plan_faults, pump_names
from edge_rnn.demo.sensors import TOPIC, Sensors
from edge_rnn.demo.view import Board, View
from edge_rnn.errors import EdgeRnnError

BASE: Final = "edge-rnn"
GROUP: Final = "pumps"
MODEL: Final = "pump.safetensors"
_START_S: Final = 900.0  # a small machine may have to compile first, for minutes
_STOP_S: Final = 10.0
_LATE_S: Final = 3.0
_FRAME_S: Final = 0.1
_SWITCH_S: Final = 0.0005


@dataclass(frozen=True, slots=True)
class Options:
    """What to run: number of pumps, seconds of readings, seed of the simulation."""

    pumps: int = 4
    seconds: float = 24.0
    seed: int = 1


class _Sent(NamedTuple):
    pump: str
    time_ns: int
    values: NDArray[np.float64]


class _Message(NamedTuple):
    topic: str
    payload: bytes
    received_ns: int


def configuration(port: int, model: Path) -> str:
    """The demo's configuration file; `model` is an absolute path."""
    channels = ", ".join(f'{{name = "{channel.name}"}}' for channel in CHANNELS)
    return f"""\
[mqtt]
host = "127.0.0.1"
port = {port}
protocol = "3.1.1"      # all that the embedded broker speaks
client_id = "edge-rnn-demo"
reader = "batch"        # for so few messages nothing more is compiled

[output]
base = "{BASE}"

[[stream]]
name = "{GROUP}"
model = {json.dumps(str(model))}
topic = "{TOPIC}"
format = "json"
time = {{path = "time", unit = "ns"}}
channels = [{channels}]
on = "all"
silent_after = "1s"
"""


def same_package() -> dict[str, str]:
    """The environment in which a Python started with -P imports just what this one imports.

    Without -P it would import whatever `edge_rnn` lies in the current folder; without the path it would not
    find the package of a checkout that is not installed.
    """
    path = [str(Path(entry).absolute()) for entry in sys.path if entry]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


class DaemonProcess:
    """`edge-rnn run` as a process of its own, while the `with` block lasts.

    Args:
        config: the configuration file.
        log: where its log lines go.
    """

    def __init__(self, config: Path, log: Path) -> None:
        self._config, self._log = config, log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> DaemonProcess:
        with self._log.open("wb") as log:
            # A session of its own: Ctrl-C is meant for the demo, which then stops the daemon in order.
            self._process = subprocess.Popen(  # noqa: S603  our own interpreter and our own arguments
                [sys.executable, "-P", "-m", "edge_rnn", "run", str(self._config)],
                cwd=self._config.parent,
                env=same_package(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is None:
            return
        self._process.terminate()
        self.wait(_STOP_S)
        self._process.kill()  # of no effect on one that has ended
        self._process.wait()

    def wait(self, seconds: float) -> None:
        """Wait until it has ended, at most so long."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)

    def check(self) -> None:
        """Raise an `EdgeRnnError` with the daemon's last words if it has ended."""
        if self._process is None or self._process.poll() is None:
            return
        lines = self._log.read_text("utf-8", "replace").strip().splitlines()
        raise EdgeRnnError(
            f"the demo's daemon ended with exit code {self._process.returncode}: "
            f"{lines[-1] if lines else 'it wrote no log'}"
        )


class _Run:
    """The state of one run; see the module."""

    def __init__(self, options: Options, make_view: Callable[[Board], View]) -> None:
        pumps = pump_names(options.pumps)
        self.options = options
        self.faults = plan_faults(pumps, options.seconds, options.seed)
        self.plant = Plant(pumps, options.seed, self.faults)
        self.ledger = Ledger(self.faults)
        about = f"{len(pumps)} pumps × {len(CHANNELS)} channels × {RATE_HZ} readings/s over MQTT"
        self.board = Board(pumps, options.seconds, self.ledger, about)
        self.view = make_view(self.board)
        self.queue: SimpleQueue[_Sent | _Message] = SimpleQueue()
        self.online = False

    def play(self) -> Summary:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edge-rnn-demo-")))
            model = stack.enter_context(as_file(files("edge_rnn.demo") / MODEL)).resolve()
            broker = stack.enter_context(EmbeddedBroker())
            config = folder / "demo.toml"
            config.write_text(configuration(broker.port, model), encoding="utf-8")
            watcher = DemoClient(
                broker.host, broker.port, "demo-watcher", [f"{BASE}/#"],
                lambda topic, payload, now: self.queue.put(_Message(topic, payload, now)),
            )  # fmt: skip
            stack.enter_context(watcher)
            publisher = stack.enter_context(DemoClient(broker.host, broker.port, "demo-sensors"))
            # The view is entered before the daemon, so that it is also there while the daemon stops.
            stack.enter_context(self.view)
            daemon = stack.enter_context(DaemonProcess(config, folder / "daemon.log"))
            self._wait_for(daemon)
            beats = round(self.options.seconds * RATE_HZ)
            sensors = Sensors(
                self.plant, beats, publisher.publish,
                lambda pump, time_ns, values: self.queue.put(_Sent(pump, time_ns, values)),
            )  # fmt: skip
            stack.callback(sensors.stop)
            return self._watch(sensors, daemon)

    def _wait_for(self, daemon: DaemonProcess) -> None:
        self.board.note = "the daemon compiles: the first time only, on a PC some 20 s"
        begin = time.monotonic()
        while not self.online:
            self.board.waited = time.monotonic() - begin
            self._frame(daemon)
            if self.board.waited > _START_S:
                raise EdgeRnnError(
                    f"the daemon is not online after {_START_S:.0f} s; what it compiled is kept: try again"
                )
        self.board.note = ""

    def _watch(self, sensors: Sensors, daemon: DaemonProcess) -> Summary:
        begin = time.monotonic()
        self.ledger.begin(time.time_ns())
        sensors.start()
        while sensors.running:
            self.board.elapsed = time.monotonic() - begin
            self._frame(daemon)
        seconds = time.monotonic() - begin
        self.board.elapsed = seconds
        deadline = time.monotonic() + _LATE_S
        self._drain()
        while not self.ledger.complete and time.monotonic() < deadline:
            self._frame(daemon)
        self.view.show()
        return self.ledger.summary(seconds)

    def _frame(self, daemon: DaemonProcess) -> None:
        daemon.check()
        self._drain()
        self.view.show()
        time.sleep(_FRAME_S)

    def _drain(self) -> None:
        with contextlib.suppress(Empty):
            while True:
                item = self.queue.get_nowait()
                if isinstance(item, _Sent):
                    self.ledger.add_sent(item.pump, item.time_ns)
                    self.board.add_reading(item.pump, item.values.tolist())
                else:
                    self._hear(item)

    def _hear(self, message: _Message) -> None:
        if message.topic == f"{BASE}/status":
            self.online = b"online" in message.payload
            return
        parts = message.topic.split("/")
        if len(parts) != 4 or parts[1] != GROUP:
            return
        pump, what = parts[2:]
        if what == "score":
            score = read_score(pump, message.payload, message.received_ns)
            self.ledger.add_score(score)
            self.board.add_score(score)
        elif what == "event":
            event = read_event(pump, message.payload, message.received_ns)
            self.ledger.add_event(event)
            self.board.add_event(event)


@contextlib.contextmanager
def _brisk_threads() -> Iterator[None]:
    # Broker, clients and view share this process: hand the interpreter over every half millisecond instead of
    # every five, or drawing shows up as latency.
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def play(options: Options, make_view: Callable[[Board], View]) -> Summary:
    """Run the demo and give its account.

    Args:
        options: what to run.
        make_view: makes the view of the run's board.

    Raises:
        MissingExtraError: the embedded broker is not installed.
        EdgeRnnError: the daemon does not start, or ends on the way.
    """
    with _brisk_threads():
        return _Run(options, make_view).play()
