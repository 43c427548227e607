"""Real data, end to end: train, run the daemon on a real broker, publish the recording, judge the alarms.

    python benchmarks/real_input.py skab FOLDER [--port 1883]     files of FOLDER/other, FOLDER/valve*
    python benchmarks/real_input.py nab FOLDER [--port 1883]      ambient_temperature_system_failure.csv

The broker must be running (`mosquitto -p 1883`). For every file the command `edge-rnn train` makes a model
from the first rows alone (SKAB: 400, its board's protocol; NAB: the first 30 %), a process `edge-rnn run`
loads them all, and ordinary MQTT clients publish every row, at QoS 1, as fast as the scores come back.
The daemon's own score messages are compared with the labels, on the rows behind the training part only.

Beside it, on the same rows: an alarm that is always on, and the same detectors without their network (second
set of streams in the same daemon). No label is seen by training or calibration. SKAB is GPL-3.0 data, NAB is
MIT: bring your own copy, nothing of it is part of this project.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as paho
from numpy.typing import NDArray
from paho.mqtt.enums import CallbackAPIVersion

from edge_rnn import cli
from edge_rnn.calibrate import without_network
from edge_rnn.commands.replay_run import judge
from edge_rnn.demo.session import same_package
from edge_rnn.files.load import load
from edge_rnn.files.model_file import save
from edge_rnn.files.readings import Table, read_table

NAB_FILE = Path("realKnownCause") / "ambient_temperature_system_failure.csv"
WINDOW = 400  # readings on their way at one time; far below what a broker queues for a client
CLIENTS = 4
PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Recording:
    """One file: its rows, its labels (T,) bool, and how many of its first rows training may see."""

    name: str
    path: Path
    table: Table
    labels: NDArray[np.bool_]
    training_rows: int
    train_options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the report, pooled over all recordings; far and mar are fractions of rows."""

    detector: str
    f1: float
    far: float
    mar: float
    events: int
    found: int
    false_alarms: int


@dataclass(frozen=True, slots=True)
class Report:
    """What came out, and how much went through the broker."""

    readings: int
    scored: int
    training_seconds: float
    streaming_seconds: float
    lines: tuple[Line, ...]


def skab(folder: Path) -> list[Recording]:
    """SKAB's experiments with faults: first 400 rows for training, labels in the column `anomaly`."""
    found = []
    for path in sorted([*folder.glob("other/*.csv"), *folder.glob("valve*/*.csv")]):
        table = read_table(path, labels="anomaly", delimiter=";")
        assert table.labels is not None
        name = f"{path.parent.name}-{path.stem}"
        options = ("--labels", "anomaly,changepoint", "--delimiter", ";")
        found.append(Recording(name, path, table, table.labels, 400, options))
    return found


def nab(folder: Path) -> list[Recording]:
    """NAB's ambient temperature, labels from `combined_windows.json`."""
    path = folder / "data" / NAB_FILE
    table = read_table(path)
    windows = json.loads((folder / "labels" / "combined_windows.json").read_text())[NAB_FILE.as_posix()]
    labels = np.zeros(len(table), np.bool_)
    for start, end in windows:
        labels |= (table.times_ns >= _ns(start)) & (table.times_ns <= _ns(end))
    return [Recording("ambient", path, table, labels, len(table) * 3 // 10, ())]


def _ns(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**9


def train(recordings: Sequence[Recording], folder: Path) -> None:
    """One model per recording with `edge-rnn train` as a user calls it, and its twin without the network."""
    for recording in recordings:
        model = folder / f"{recording.name}.safetensors"
        words = ["train", str(recording.path), "-o", str(model), "--rows", str(recording.training_rows)]
        with contextlib.redirect_stdout(io.StringIO()):
            code = cli.main([*words, *recording.train_options])
        if code != 0:
            raise SystemExit(code)
        save(without_network(load(model)), folder / f"{recording.name}-inputs.safetensors")


def write_config(recordings: Sequence[Recording], folder: Path, host: str, port: int) -> Path:
    """A configuration with two streams per recording: the detector, and the one without network."""
    text = [
        f'[mqtt]\nhost = "{host}"\nport = {port}\nclient_id = "edge-rnn-real-input"\n',
        '[output]\nbase = "verdicts"\n[store]\npath = "state.db"\nsync = "normal"\n[health]\nevery = "5s"\n',
    ]
    for recording in recordings:
        channels = ", ".join(f"{{ name = {json.dumps(c)} }}" for c in recording.table.channels)
        text += [
            f'[[stream]]\nname = "{recording.name}{suffix}"\nmodel = "{recording.name}{suffix}.safetensors"\n'
            f'topic = "recording/{recording.name}"\ntime = {{ path = "ts", unit = "ns" }}\n'
            'clock_limit = "0s"\n'
            f"channels = [{channels}]\n"
            for suffix in ("", "-inputs")
        ]
    path = folder / "config.toml"
    path.write_text("\n".join(text))
    return path


class Collector:
    """Subscribes to the daemon's scores and its status; alarms by stream and event time."""

    def __init__(self, host: str, port: int) -> None:
        self.alarms: dict[str, dict[int, bool]] = {}
        self.scored = 0
        self.online = threading.Event()
        self._client = _client()
        self._client.on_connect = lambda c, *_: c.subscribe([("verdicts/+/score", 0), ("verdicts/status", 1)])
        self._client.on_message = self._take
        self._client.connect(host, port)
        self._client.loop_start()

    def _take(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        if message.topic == "verdicts/status":
            if message.payload == b"online":
                self.online.set()
            return
        score = json.loads(message.payload)
        self.alarms.setdefault(message.topic.split("/")[1], {})[score["time_ns"]] = score["alarm"]
        self.scored += 1

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()


def _client() -> paho.Client:
    return paho.Client(CallbackAPIVersion.VERSION2)


@contextlib.contextmanager
def daemon(config: Path, collector: Collector) -> Iterator[None]:
    """`edge-rnn run` as a process, from when it says that it is online until the end of the block."""
    log = config.with_name("daemon.log")
    with log.open("w") as stream:
        # -P: the installed package, not what lies in the current folder.
        words = [sys.executable, "-P", "-m", "edge_rnn", "run", str(config)]
        process = subprocess.Popen(words, stderr=stream, env=same_package())
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not collector.online.wait(0.1):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("edge-rnn run did not start:\n" + log.read_text())
        yield
    finally:
        process.terminate()
        code = process.wait(30)
    if code != 0:
        raise SystemExit(f"edge-rnn run ended with exit code {code}:\n" + log.read_text())


def publish(recordings: Sequence[Recording], collector: Collector, host: str, port: int) -> int:
    """Publish all rows, clients in turn, never more than `WINDOW` ahead of the scores; how many readings."""
    clients = [_client() for _ in range(min(CLIENTS, len(recordings)))]
    for client in clients:
        client.connect(host, port)
        client.loop_start()
    sent = 0
    for row in range(max(len(r.table) for r in recordings)):
        for at, recording in enumerate(recordings):
            if row >= len(recording.table):
                continue
            values = recording.table.values[row]
            payload = {"ts": int(recording.table.times_ns[row])} | {
                channel: float(value)
                for channel, value in zip(recording.table.channels, values, strict=True)
                if np.isfinite(value)
            }
            clients[at % len(clients)].publish(f"recording/{recording.name}", json.dumps(payload), qos=1)
            sent += 1
        _wait(collector, 2 * sent - WINDOW)
    _wait(collector, 2 * sent)
    for client in clients:
        client.disconnect()
        client.loop_stop()
    return sent


def _wait(collector: Collector, scored: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while collector.scored < scored:
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {PATIENCE_S:.0f} s for score {scored}, got {collector.scored}")
        time.sleep(0.001)


def _line(detector: str, recordings: Sequence[Recording], alarms: Sequence[NDArray[np.bool_]]) -> Line:
    """Pool rows behind the training part; events and false alarms are counted file by file."""
    parts = [
        (alarm[r.training_rows :], r.labels[r.training_rows :])
        for r, alarm in zip(recordings, alarms, strict=True)
    ]
    whole = judge(np.concatenate([a for a, _ in parts]), np.concatenate([b for _, b in parts]))
    each = [judge(a, b) for a, b in parts]
    return Line(
        detector, whole.f1, whole.far, whole.mar,
        sum(j.labelled for j in each), sum(j.found for j in each), sum(j.false_alarms for j in each),
    )  # fmt: skip


def run(recordings: Sequence[Recording], host: str, port: int) -> Report:
    """The whole experiment against a running broker; leaves nothing behind."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begun = time.monotonic()
        train(recordings, folder)
        trained = time.monotonic()
        collector = Collector(host, port)
        try:
            with daemon(write_config(recordings, folder, host, port), collector):
                started = time.monotonic()
                sent = publish(recordings, collector, host, port)
                ended = time.monotonic()
        finally:
            collector.close()

    def heard(suffix: str) -> list[NDArray[np.bool_]]:
        return [
            np.array([collector.alarms[r.name + suffix][t] for t in r.table.times_ns.tolist()])
            for r in recordings
        ]

    lines = (
        _line("edge-rnn", recordings, heard("")),
        _line("without network", recordings, heard("-inputs")),
        _line("always on", recordings, [np.ones(len(r.table), np.bool_) for r in recordings]),
    )
    return Report(sent, collector.scored // 2, trained - begun, ended - started, lines)


def table(report: Report) -> str:
    """The report for people."""
    text = [
        f"{report.readings} readings published, {report.scored} scored",
        f"training {report.training_seconds:.0f} s, streaming {report.streaming_seconds:.0f} s",
        f"{'detector':<16} {'F1':>6} {'FAR %':>6} {'MAR %':>6} {'found':>8} {'false alarms':>13}",
    ]
    text += [
        f"{x.detector:<16} {x.f1:6.3f} {100 * x.far:6.1f} {100 * x.mar:6.1f} {x.found:>4}/{x.events:<3} "
        f"{x.false_alarms:>13}"
        for x in report.lines
    ]
    return "\n".join(text)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", choices=("skab", "nab"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    recordings = (skab if args.data == "skab" else nab)(args.folder)
    if not recordings:
        raise SystemExit(f"no recordings found below {args.folder}")
    report = run(recordings, args.host, args.port)
    print(json.dumps(asdict(report), indent=2) if args.json else table(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
