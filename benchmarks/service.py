"""What a message costs the daemon, and what it adds to its way: with a real mosquitto on the loopback.

    python -m benchmarks.service [--messages 200000] [--runs 5] [--seconds 4] [--core 0]

Processes of their own, one after the other in turns, so that what disturbs the machine disturbs all:

    plain    a usual program: paho as it comes, json.loads, json.dumps, one publish a message
    path     the daemon's own way without a model: connection, routes, decoder, score messages, connection
    daemon   the whole daemon with a GRU of 16 units: detector, events, state, commits
    echo     a bare socket that sends each payload back: the least a daemon can do

A message is a JSON object of five keys: a time and four channels. CPU is user and system time of the process
from its first message to its last (getrusage); the broker and the sender are not in it. Latency is from the
sender's write to its read of the answer, at 1,000 messages a second. With `--core` broker, sender and daemon
share one core: what the broker sends while the daemon works then waits for its next turn, so bursts are those
of a machine that is busy.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import os
import resource
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.mosquitto import Mosquitto

CHANNELS = ("vib", "temp", "press", "flow")
STREAMS = 20
BEGIN_NS = 1_763_700_000_000_000_000


# ---- packets by hand


def packet(kind: int, body: bytes) -> bytes:
    size, found = len(body), bytearray()
    while size > 127:
        found.append(size & 127 | 128)
        size >>= 7
    found.append(size)
    return bytes([kind]) + bytes(found) + body


def text(value: str) -> bytes:
    raw = value.encode()
    return len(raw).to_bytes(2, "big") + raw


def publish(topic: str, payload: bytes, mid: int = 0) -> bytes:
    return packet(0x32 if mid else 0x30, text(topic) + (mid.to_bytes(2, "big") if mid else b"") + payload)


class Bare:
    """An MQTT 3.1.1 client of a few lines; `packets` gives (first byte, body)."""

    def __init__(self, port: int, name: str, *filters: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.rest = b""
        self.socket.sendall(packet(0x10, text("MQTT") + b"\4\2\0\0" + text(name)))
        for number, one in enumerate(filters, 1):
            self.socket.sendall(packet(0x82, number.to_bytes(2, "big") + text(one) + b"\0"))
        wanted = 1 + len(filters)
        while wanted:
            wanted -= len(list(self.packets()))

    def __enter__(self) -> Bare:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def packets(self) -> Iterator[tuple[int, bytes]]:
        """What one receive call brings."""
        data = self.rest + self.socket.recv(1 << 17)
        at = 0
        while len(data) - at >= 2:
            begin, size, shift = at + 1, 0, 0
            while begin < len(data):
                size |= (data[begin] & 127) << shift
                shift += 7
                begin += 1
                if data[begin - 1] < 128:
                    break
            if begin + size > len(data):
                break
            yield data[at], data[begin : begin + size]
            at = begin + size
        self.rest = data[at:]


def payload(index: int) -> bytes:
    values = (1 + index % 7 / 10, 20 + index % 11 / 3, 4.25, 0.125 * (index % 5))
    return json.dumps(
        {"ts": BEGIN_NS + index * 1_000_000} | dict(zip(CHANNELS, values, strict=True))
    ).encode()


# ---- the daemons: each counts `messages`, then says what they cost


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def plain(port: int, _folder: str, qos: int, messages: int, say: Any) -> None:
    import paho.mqtt.client as paho
    from paho.mqtt.enums import CallbackAPIVersion

    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="plain")
    seen = [0, 0.0]

    def on_message(_client: object, _data: object, message: Any) -> None:
        if not seen[0]:
            seen[1] = cpu()
        seen[0] += 1
        reading = json.loads(message.payload)
        score = sum(reading[name] for name in CHANNELS) ** 0.5
        out = {"ts": reading["ts"], "score": score, "threshold": 4.0, "anomaly": score > 4, "n": seen[0]}
        client.publish(f"out/{message.topic}", json.dumps(out))
        if seen[0] == messages:
            say.send((messages, cpu() - seen[1]))
            client.disconnect()

    client.on_message = on_message
    client.on_connect = lambda c, *_: c.subscribe("bench/+/all", qos)
    client.on_subscribe = lambda *_: say.send("ready")
    client.connect("127.0.0.1", port)
    client.loop_forever()


def config_of(port: int, folder: str, qos: int) -> Any:
    from edge_rnn.core.detector_spec import AlarmSpec, DetectorSpec, ScorerSpec, ThresholdSpec
    from edge_rnn.core.model import Input, Linear, Model, Recurrent, Scaler
    from edge_rnn.files.config import load_config
    from edge_rnn.files.model_file import save

    source, c, units = np.random.default_rng(1), len(CHANNELS), 16

    def draw(*shape: int) -> Any:
        return source.uniform(-0.25, 0.25, shape).astype(np.float32)

    model = Model(
        layers=(Recurrent("gru", draw(3 * units, c), draw(3 * units, units), draw(48), draw(48)),),
        head=(Linear(draw(c, units), draw(c)),),
        name="bench",
        inputs=tuple(Input(name) for name in CHANNELS),
        scaler=Scaler(np.array([1.0, 20.0, 4.0, 0.0]), np.array([0.5, 4.0, 1.0, 1.0])),
        detector=DetectorSpec(
            warmup=5,
            scorers=(
                ScorerSpec(
                    kind="ewma_z", source="residual", rate=0.5, center=(0.0,) * c, precision=(1.0,) * c
                ),
            ),
            threshold=ThresholdSpec(kind="fixed", value=1e6),
            alarm=AlarmSpec(needed=1, window=1),
        ),
    )  # fmt: skip
    file = Path(folder, "bench.safetensors")
    if not file.exists():
        save(model, file)
    names = ", ".join(f'{{ name = "{name}" }}' for name in CHANNELS)
    text_of = f"""\
[mqtt]
host = "127.0.0.1"
port = {port}
protocol = "3.1.1"
client_id = "bench-{os.getpid()}"
qos = {qos}
[store]
path = "bench.db"
sync = "normal"
[log]
level = "warning"
[[stream]]
name = "b"
model = "bench.safetensors"
topic = "bench/{{machine}}/all"
time = {{ path = "ts", unit = "ns" }}
clock_limit = "0s"
channels = [{names}]
"""
    toml = Path(folder, "bench.toml")
    toml.write_text(text_of)
    return load_config(toml)


def path(port: int, folder: str, qos: int, messages: int, say: Any) -> None:
    from edge_rnn.detect.verdict import explained_dtype
    from edge_rnn.service.clock import Arrival, Clock
    from edge_rnn.service.health import DaemonCounters
    from edge_rnn.service.logs import Log
    from edge_rnn.service.mqtt import Connection
    from edge_rnn.service.pipeline_build import build
    from edge_rnn.service.wire.swath import Swath, count, runs

    config = config_of(port, folder, qos)
    log, counters = Log("error"), DaemonCounters()
    pipeline = build(config, BEGIN_NS)
    link = Connection(config.mqtt, pipeline.filters, ("will", b""), log, arrival=Arrival(Clock()))
    link.scan_with(pipeline.sources)
    room = np.zeros(1 << 17, explained_dtype(len(CHANNELS)))
    for name in ("score", "threshold", "share", "expected", "probability", "band"):
        room[name] = 0.2718281828459045
    room["status"] = 1

    class Streams:
        """The streams of lanes; looked up where one is asked for."""

        def __init__(self, streams: Any, lanes: Any) -> None:
            self._streams, self._lanes = streams, lanes

        def __getitem__(self, index: int) -> str:
            return str(self._streams[self._lanes[index]])

    class Same:
        """A verdict for each reading, made by nobody."""

        group = "b"
        scorers = ("residual ewma_z",)
        generation = 0
        addresses = (0, 0)

        def __init__(self, streams: Any, rows: Any, times: Any) -> None:
            self.streams = streams
            self.rows = rows
            self.records = room[: len(rows)]
            self.records["time_ns"] = times

        def __len__(self) -> int:
            return len(self.rows)

        def verdict(self, index: int) -> Any:
            from edge_rnn.detect.verdict import Verdict

            return Verdict.from_record(self.records[index], self.streams[index])

    while not link.subscribed:
        link.turn(0.1)
    say.send("ready")
    seen, start = 0, 0.0
    while seen < messages:
        arrived = link.turn(1.0)
        if arrived and not seen:
            start = cpu()
        seen += count(arrived)
        for run in runs(arrived, lambda: pipeline.generation):
            if isinstance(run, Swath):
                assert pipeline.sources is not None
                for columns in pipeline.sources.columns(run):
                    lanes, times = columns.block[:, 0], columns.block[:, 1]
                    same: Any = Same(Streams(columns.streams, lanes), lanes.copy(), times)
                    pipeline.outputs.packets(same, link.publish_packets)
            else:
                readings = pipeline.take_all(run, counters, log)
                streams = [reading[0] for reading in readings]
                # Rows that are no lanes: of these streams it is not known yet which lane they are.
                rows = np.arange(1000, 1000 + len(readings))
                same = Same(streams, rows, [reading[2] for reading in readings])
                scores, _, _ = pipeline.outputs.judged(same)
                link.publish_batch(scores)
        link.ack(arrived)
    say.send((seen, cpu() - start))
    link.close([])


def daemon(port: int, folder: str, qos: int, messages: int, say: Any) -> None:
    from edge_rnn.service.daemon import Daemon
    from edge_rnn.service.logs import Log

    running = Daemon(config_of(port, folder, qos), log=Log("warning"))
    running.open()
    while not running.running.link.subscribed:
        running.turn(0.1)
    say.send("ready")
    start, begun = 0.0, False
    while running.counters.messages < messages:
        before = cpu()
        running.turn(running._until_due())
        if running.counters.messages and not begun:
            start, begun = before, True
    say.send((running.counters.messages, cpu() - start))
    running._finish()
    running.close()


def echo(port: int, _folder: str, _qos: int, messages: int, say: Any) -> None:
    with Bare(port, "echo", "bench/+/all") as bare:
        say.send("ready")
        seen, start = 0, 0.0
        while seen < messages:
            out = []
            for kind, body in bare.packets():
                if kind & 0xF0 == 0x30:
                    size = int.from_bytes(body[:2], "big")
                    out.append(publish("out/echo/score", body[2 + size :]))
            if out and not seen:
                start = cpu()
            seen += len(out)
            bare.socket.sendall(b"".join(out))
        say.send((seen, cpu() - start))


# ---- runs


def run(kind: Callable[..., None], port: int, qos: int, messages: int, drive: Callable[[], Any]) -> Any:
    """(messages, seconds of CPU) of one process while `drive` sends; and what `drive` gave."""
    with tempfile.TemporaryDirectory() as folder:
        here, there = mp.get_context("spawn").Pipe()
        process: Any = mp.get_context("spawn").Process(
            target=kind, args=(port, folder, qos, messages, there), daemon=True
        )
        process.start()
        try:
            assert here.poll(120), "not ready"
            here.recv()
            given, limit = drive(), time.monotonic() + 60
            while not here.poll(1):
                assert process.is_alive(), "the process has ended"
                assert time.monotonic() < limit, "messages are missing"
            return here.recv(), given
        finally:
            process.kill()
            process.join()
            process.close()
            here.close()
            there.close()


def burst(port: int, qos: int, messages: int) -> None:
    """All as fast as the broker takes them; a window of 400 unacknowledged ones keeps QoS 1 from drops."""
    with Bare(port, "sender") as bare:
        step, index, waiting = 200, 0, 0
        while index < messages:
            block = [
                publish(f"bench/m{i % STREAMS}/all", payload(i), i % 60000 + 1 if qos else 0)
                for i in range(index, min(index + step, messages))
            ]
            bare.socket.sendall(b"".join(block))
            index += len(block)
            waiting += len(block) if qos else 0
            # To the last one: a close with something unread would throw away what the broker has not read.
            while waiting > (step if index < messages else 0):
                waiting -= len(list(bare.packets()))
            if not qos:
                # A broker drops messages of QoS 0 that its receiver does not take in time.
                time.sleep(0.004)


def paced(port: int, messages: int, period: float) -> list[float]:
    """Seconds from the write of a message to the read of its answer, one every `period`."""
    with Bare(port, "pace") as sender, Bare(port, "back", "out/#", "edge-rnn/+/+/score") as receiver:
        receiver.socket.settimeout(5)
        took: list[float] = []
        due = time.perf_counter()
        for index in range(messages):
            due += period
            while (left := due - time.perf_counter()) > 0:
                time.sleep(left)
            data = publish(f"bench/m{index % STREAMS}/all", payload(index))
            start = time.perf_counter()
            sender.socket.sendall(data)
            while not [kind for kind, _ in receiver.packets() if kind & 0xF0 == 0x30]:
                pass
            took.append(time.perf_counter() - start)
        return took


def main(messages: int, runs: int, seconds: float) -> dict[str, Any]:
    """All figures, as medians over the runs."""
    kind: Callable[..., None]
    costs: dict[str, list[float]] = {}
    delays: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        extra = ["max_queued_messages 0", "max_inflight_messages 1000"]
        with Mosquitto(Path(folder), extra=extra, log=False) as broker:
            for _ in range(runs):
                for qos in (0, 1):
                    for kind, share in ((plain, 10), (path, 1), (daemon, 1)):
                        count = max(200, messages // share)
                        # A broker may drop some messages of QoS 0 if the machine is busy: most are enough.
                        (seen, used), _ = run(
                            kind, broker.port, qos, count * 4 // 5, partial(burst, broker.port, qos, count)
                        )
                        costs.setdefault(f"{kind.__name__} qos {qos}", []).append(used / seen * 1e6)
                for kind in (echo, daemon):
                    count = max(50, int(seconds * 1000))
                    _, took = run(kind, broker.port, 0, count, partial(paced, broker.port, count, 0.001))
                    p50, p99 = np.percentile(np.array(took) * 1e6, [50, 99]).tolist()
                    delays.setdefault(kind.__name__, []).append((p50, p99))
    return {
        "us_per_message": {name: statistics.median(all_) for name, all_ in costs.items()},
        "latency_us": {
            name: [statistics.median(column) for column in zip(*all_, strict=True)]
            for name, all_ in delays.items()
        },
        "latency_ratio": [
            statistics.median(a[i] / b[i] for a, b in zip(delays["daemon"], delays["echo"], strict=True))
            for i in range(2)
        ],
        "readings_per_second_and_core": 1e6 / statistics.median(costs["daemon qos 0"]),
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--core", type=int)
    given = parser.parse_args()
    if given.core is not None:
        os.sched_setaffinity(0, {given.core})
    print(json.dumps(main(given.messages, given.runs, given.seconds), indent=2))
