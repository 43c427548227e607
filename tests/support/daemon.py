"""`edge-rnn run` as users have it: a process, a configuration file, a model file, a real broker."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from edge_rnn.core.detector_spec import AlarmSpec, DetectorSpec, GuardSpec, ScorerSpec, ThresholdSpec
from edge_rnn.core.model import Input, Linear, Model, Recurrent, Scaler
from edge_rnn.errors import EdgeRnnError
from edge_rnn.files.config import load_config
from edge_rnn.files.model_file import save
from edge_rnn.service.daemon import Daemon
from edge_rnn.service.health import DaemonCounters
from edge_rnn.service.logs import Log
from edge_rnn.service.mqtt import Delivery
from edge_rnn.service.pipeline_build import build
from tests.support.mqtt_peer import wait_for

CHANNELS = ("vib", "temp")
START_NS = 1_763_700_000_000_000_000
STEP_NS = 1_000_000_000


def gru_model(seed: int = 1, warmup: int = 5, silent_after_ns: int = 0) -> Model:
    """A small untrained GRU detector of two channels: deterministic, and it alarms on a jump."""
    source = np.random.default_rng(seed)

    def tensor(*shape: int) -> Any:
        return source.uniform(-0.4, 0.4, shape).astype(np.float32)

    hidden, channels = 6, len(CHANNELS)
    rows = 3 * hidden
    return Model(
        layers=(Recurrent("gru", tensor(rows, channels), tensor(rows, hidden), tensor(rows), tensor(rows)),),
        head=(Linear(tensor(channels, hidden), tensor(channels)),),
        name="press",
        inputs=tuple(Input(name) for name in CHANNELS),
        scaler=Scaler([1.0, 20.0], [0.5, 4.0]),
        detector=DetectorSpec(
            warmup=warmup,
            guard=GuardSpec(silent_after_ns=silent_after_ns),
            scorers=(
                ScorerSpec(
                    kind="ewma_z", source="residual", rate=0.5, center=(0.0, 0.0), precision=(1.0, 1.0)
                ),
            ),
            threshold=ThresholdSpec(kind="fixed", value=15.0),
            alarm=AlarmSpec(needed=1, window=1, clear_hold=2),
        ),
    )  # fmt: skip


def reading(index: int, fault: bool = False) -> dict[str, float]:
    """Values of the two channels at step `index`."""
    return {
        "vib": 1.0 + 0.2 * np.sin(index / 7) + (25.0 if fault else 0.0),
        "temp": 20.0 + 1.5 * np.cos(index / 11),
    }


def payload(index: int, fault: bool = False) -> str:
    """The same as JSON with its event time in nanoseconds."""
    return json.dumps({"ts": START_NS + index * STEP_NS, **reading(index, fault)})


def write_config(folder: Path, port: int, **changes: Any) -> Path:
    """A configuration of one stream group `press` fed by `plant/{machine}/all`; `changes` are text to add."""
    model = folder / "press.safetensors"
    if not model.exists():
        save(changes.get("model") or gru_model(), model)
    file = folder / "config.toml"
    file.write_text(f"""\
[mqtt]
host = "{changes.get("host", "127.0.0.1")}"
port = {port}
protocol = "{changes.get("protocol", "5")}"
client_id = "er-daemon"
qos = {changes.get("qos", 1)}
keepalive = "5s"
{changes.get("mqtt", "")}
[store]
path = "{changes.get("store", "state.db")}"
commit_every = "{changes.get("commit_every", "100ms")}"
[output]
base = "{changes.get("base", "er")}"
score_every = "{changes.get("score_every", "0s")}"
[health]
every = "{changes.get("health", "1s")}"
[[stream]]
name = "press"
model = "press.safetensors"
topic = "{changes.get("topic", "plant/{machine}/all")}"
time = {{ path = "ts", unit = "ns" }}
clock_limit = "{changes.get("clock_limit", "0s")}"
channels = [{{ name = "vib" }}, {{ name = "temp" }}]
{changes.get("stream", "")}
""")
    return file


class DaemonProcess:
    """The process; its log is a file."""

    def __init__(self, config: Path, **environment: str) -> None:
        self._log = config.with_name("daemon.log")
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edge_rnn", "run", str(config)],
                stderr=log, stdout=log, env={**os.environ, **environment},
            )  # fmt: skip

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text()

    def wait_log(self, text: str, count: int = 1) -> None:
        """Until the log holds `text` so many times."""

        def there() -> bool:
            assert self.process.poll() is None or self.log.count(text) >= count, self.log
            return self.log.count(text) >= count

        wait_for(there, f"{text!r} in the log", 120)

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
        """Signal, wait: exit code and seconds it took."""
        start = time.monotonic()
        self.process.send_signal(number)
        return self.process.wait(30), time.monotonic() - start

    def __enter__(self) -> DaemonProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class DaemonThread:
    """The same daemon on a thread of the test's process: warm at once."""

    def __init__(self, config: Path, **parts: Any) -> None:
        self.log_text = io.StringIO()
        self.daemon = Daemon(
            load_config(config), reread=lambda: load_config(config), log=Log(stream=self.log_text), **parts
        )
        self.error: BaseException | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.daemon.run(self._started.set)
        except EdgeRnnError as error:
            self.error = error
        finally:
            self._started.set()

    def __enter__(self) -> DaemonThread:
        self._thread.start()
        assert self._started.wait(120)
        return self

    def subscribed(self) -> DaemonThread:
        """Wait until the broker has confirmed the subscriptions."""
        wait_for(lambda: self.daemon.running.link.subscribed, "the subscription")
        return self

    def __exit__(self, *_: object) -> None:
        self.daemon.stop()
        self._thread.join(60)
        assert not self._thread.is_alive()


def uninterrupted(config: Path, topic: str, payloads: list[str]) -> list[bytes]:
    """The scores of a run that nothing disturbs, made without broker, store or loop."""
    pipeline = build(load_config(config), START_NS)
    scores = []
    for text in payloads:
        delivery = Delivery(topic, text.encode(), 1, False, START_NS * 2, 1, 1)
        messages = pipeline.take(delivery, DaemonCounters(), Log("error"))
        for verdict in pipeline.engine.feed(messages, START_NS * 2):
            score, _ = pipeline.outputs.verdict(verdict)
            if score is not None:
                scores.append(score[1])
    return scores
