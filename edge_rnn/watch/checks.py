"""What `edge-rnn doctor` measures: one function a subject, each gives its findings.

Nothing of a running daemon is touched: the broker is visited with clients of their own, which publish below
`<base>/doctor/<random>/` only and leave no session and no retained message behind; on the disk a small file
is written beside the store and removed.

What the limits are taken from: a small message over loopback or a LAN takes single milliseconds. A TCP stack
that waits to fill packets (Nagle's algorithm against delayed acknowledgement) lets the first message pass and
holds back those right behind it for 40 ms, so three are sent in a row and the last one is timed: more than
`DELAYED_S` beyond the time to connect is that, or a slow network. A medium that syncs in more than
`SLOW_SYNC_S` makes every commit wait for it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from edge_rnn.files.config_types import Config
from edge_rnn.service.health import DaemonCounters
from edge_rnn.service.logs import Level, Log
from edge_rnn.service.mqtt import Delivery
from edge_rnn.service.pipeline import Pipeline
from edge_rnn.watch.client import Visitor
from edge_rnn.watch.fields import Fields
from edge_rnn.watch.finding import Finding

DELAYED_S = 0.03
SLOW_SYNC_S = 0.05
SKEWED_S = 5.0
LEAST_FREE = 50 << 20
QUEUED = 2000
_ROUNDS = 12
_SYNCS = 15
_BLOCK = 4096


def check_disk(config: Config) -> Iterator[Finding]:
    """Time of a sync and free space where the store is."""
    folder = config.store.path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        spent = _sync_seconds(folder)
    except OSError as error:
        yield Finding(
            "disk", "fail", f"{folder} cannot be written to: {error.strerror}",
            "give the daemon's user this folder, or set store.path to one it owns",
        )  # fmt: skip
        return
    middle, worst = median(spent), max(spent)
    commits = round(86400e9 / config.store.commit_every_ns)
    figures: dict[str, float | int | str | None] = {
        "sync_median_s": middle, "sync_worst_s": worst, "commits_a_day_at_most": commits,
    }  # fmt: skip
    text = (
        f"a sync takes {_ms(middle)} (worst {_ms(worst)}); at most {commits:,} commits a day "
        f"with commit_every = {config.store.commit_every_ns / 1e9:g} s"
    )
    if middle > SLOW_SYNC_S:
        yield Finding(
            "disk", "warn", text,
            'a longer store.commit_every ("5s") spares a slow medium; sync = "normal" gives up the power cut',
            figures,
        )  # fmt: skip
    else:
        yield Finding("disk", "ok", text, figures=figures)
    free = shutil.disk_usage(folder).free
    text = f"{free >> 20:,} MiB free"
    if free < LEAST_FREE:
        yield Finding(
            "space", "fail", text, "a full disk stops commits, and with them acknowledgements", {"free": free}
        )
    else:
        yield Finding("space", "ok", text, figures={"free": free})


def _sync_seconds(folder: Path) -> list[float]:
    handle, name = tempfile.mkstemp(prefix=".edge-rnn-doctor-", dir=folder)
    spent = []
    try:
        for _ in range(_SYNCS):
            begin = time.perf_counter()
            os.write(handle, bytes(_BLOCK))
            os.fsync(handle)
            spent.append(time.perf_counter() - begin)
    finally:
        os.close(handle)
        Path(name).unlink(missing_ok=True)
    return spent


def check_round_trip(config: Config, here: str) -> Iterator[Finding]:
    """Connecting, the way of messages to the broker and back at both QoS, what the broker says of itself.

    Args:
        config: the daemon's.
        here: a topic of the doctor's own.

    Raises:
        CredentialsError, EdgeRnnError: the broker cannot be visited at all.
    """
    mqtt = config.mqtt
    begin = time.perf_counter()
    connecting = None
    try:
        with socket.create_connection((mqtt.host, mqtt.port), 5):
            connecting = time.perf_counter() - begin
    except OSError:
        pass  # the visit below says why
    begin = time.perf_counter()
    with Visitor(mqtt, [(f"{here}/#", 1)]) as visitor:
        whole = time.perf_counter() - begin
        kind = "unencrypted" if mqtt.tls is None else "TLS, not verified" if mqtt.tls.insecure else "TLS"
        yield Finding(
            "broker", "ok", f"{visitor.where} answers MQTT {mqtt.protocol} ({kind}) after {_ms(whole)}",
            figures={"tcp_connect_s": connecting, "connected_s": whole},
        )  # fmt: skip
        trips = {qos: _trips(visitor, f"{here}/{qos}", qos) for qos in (0, 1)}
        if not any(trips.values()):
            yield Finding(
                "round trip", "skip", f"nothing published below {here} came back",
                "the account may not write or read there; allow it to measure, or ignore this",
            )  # fmt: skip
        else:
            yield _judge_trips(trips, connecting or 0.0)
        yield _own_delay(visitor)
        yield from _limits(config, visitor.limits)


def _trips(visitor: Visitor, topic: str, qos: int) -> list[float]:
    spent = []
    for number in range(_ROUNDS):
        text = b"%d" % number
        begin = time.monotonic()
        visitor.publish(topic, b"first", qos, wait=False)
        visitor.publish(topic, b"second", qos, wait=False)
        visitor.publish(topic, text, qos, wait=False)
        for heard in visitor.messages(2.0):
            if heard.topic == topic and heard.payload == text:
                spent.append(heard.at - begin)
                break
        else:
            break
    return spent


def _judge_trips(trips: dict[int, list[float]], connecting: float) -> Finding:
    middle = {qos: median(spent) for qos, spent in trips.items() if spent}
    text = ", ".join(f"QoS {qos} {_ms(m)} (worst {_ms(max(trips[qos]))})" for qos, m in middle.items())
    figures: dict[str, float | int | str | None] = {f"qos{qos}_median_s": m for qos, m in middle.items()}
    if max(middle.values()) > DELAYED_S + connecting:
        return Finding(
            "round trip", "warn", text,
            "a broker that waits to fill packets adds 40 ms: set_tcp_nodelay true in mosquitto.conf",
            figures,
        )  # fmt: skip
    return Finding("round trip", "ok", text, figures=figures)


def _own_delay(visitor: Visitor) -> Finding:
    stream = visitor.socket
    if stream is None:
        return Finding("tcp", "skip", "the connection's socket cannot be asked for its options")
    if stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY):
        return Finding("tcp", "ok", "TCP_NODELAY is set on this side")
    return Finding("tcp", "warn", "TCP_NODELAY cannot be set on this side", "small messages wait up to 40 ms")


def _limits(config: Config, limits: dict[str, int]) -> Iterator[Finding]:
    mqtt = config.mqtt
    if mqtt.protocol != "5":
        yield Finding("limits", "skip", "an MQTT 3.1.1 broker does not say its limits")
        return
    largest, quality = limits.get("MaximumPacketSize"), limits.get("MaximumQoS", 2)
    if largest is not None and largest < mqtt.max_payload:
        yield Finding(
            "limits", "warn", f"the broker takes packets of at most {largest:,} bytes",
            f"mqtt.max_payload is {mqtt.max_payload:,}; larger readings cannot arrive", dict(limits),
        )  # fmt: skip
    elif quality < mqtt.qos:
        yield Finding(
            "limits",
            "fail",
            f"the broker allows QoS {quality} at most",
            f"mqtt.qos is {mqtt.qos}",
            dict(limits),
        )
    else:
        told = ", ".join(f"{name} {value:,}" for name, value in limits.items()) or "none below MQTT's own"
        yield Finding("limits", "ok", told, figures=dict(limits))


def check_queue(config: Config, here: str) -> Iterator[Finding]:
    """How many messages the broker keeps for a client that is away: counted, not asked.

    Args:
        config: the daemon's.
        here: a topic of the doctor's own.
    """
    if config.mqtt.qos == 0:
        yield Finding("queue", "skip", "with mqtt.qos = 0 nothing is kept while the daemon is away")
        return
    topic = f"{here}/queue"
    away = f"edge-rnn-look-{secrets.token_hex(4)}"
    try:
        with Visitor(config.mqtt, [(topic, 1)], session=away):
            pass
        with Visitor(config.mqtt) as sender:
            for number in range(QUEUED):
                sender.publish(topic, b"%d" % number, 1, wait=number % 100 == 99 or number == QUEUED - 1)
        with Visitor(config.mqtt, session=away) as back:
            kept = _count(back, QUEUED, pause=1.0)
    finally:
        # A clean start under the same name removes the session and what is left in its queue.
        with Visitor(config.mqtt, name=away):
            pass
    figures: dict[str, float | int | str | None] = {"sent": QUEUED, "kept": kept}
    if kept < QUEUED:
        yield Finding(
            "queue", "warn", f"of {QUEUED:,} messages for an absent client the broker kept {kept:,}",
            "readings sent while the daemon restarts are lost beyond that: raise max_queued_messages in "
            "mosquitto.conf (0: no limit)",
            figures,
        )  # fmt: skip
    else:
        yield Finding(
            "queue", "ok", f"{QUEUED:,} messages for an absent client were all kept", figures=figures
        )


def _count(visitor: Visitor, wanted: int, pause: float) -> int:
    """How many messages come until `wanted` are there or none has come for `pause` seconds."""
    count = 0
    while count < wanted and next(visitor.messages(pause), None) is not None:
        count += 1
    return count


def check_traffic(config: Config, pipeline: Pipeline, seconds: float) -> Iterator[Finding]:
    """What the configured topics carry: retained flood, readings, refusals, and the senders' clocks.

    Args:
        config: the daemon's.
        pipeline: the same, built.
        seconds: how long to listen.
    """
    counters = DaemonCounters()
    log = _Quiet()
    late: dict[str, list[float]] = {name: [] for name in pipeline.models}
    readings = dict.fromkeys(pipeline.models, 0)
    fields = Fields(pipeline)
    retained = messages = 0
    timed = {s.name for s in config.streams if s.time is not None}
    with Visitor(config.mqtt, [(name, 0) for name in pipeline.filters]) as visitor:
        for heard in visitor.messages(seconds):
            if heard.retained:
                retained += 1
                continue
            messages += 1
            delivery = Delivery(heard.topic, heard.payload, heard.qos, heard.retained, heard.time_ns, 0, 0)
            found = pipeline.take(delivery, counters, log)
            fields.take(delivery, found)
            for message in found:
                group = message.stream.split("/", 1)[0]
                readings[group] += 1
                if group in timed:
                    late[group].append((heard.time_ns - message.time_ns) / 1e9)
    yield _judge_retained(retained, pipeline)
    for name, count in readings.items():
        if count:
            yield Finding(
                "readings", "ok", f"{name}: {count:,} in {seconds:g} s", figures={"readings": count}
            )
        else:
            yield Finding(
                "readings", "warn", f"{name}: none in {seconds:g} s",
                "check the senders, the topic and the broker's access rules; edge-rnn init shows what is "
                "there; --for listens longer",
            )  # fmt: skip
    if counters.refused:
        yield Finding(
            "payloads", "warn", f"{counters.refused:,} of {messages:,} refused: {log.last}",
            "correct path, column or format of the stream", {"refused": counters.refused},
        )  # fmt: skip
    yield from fields.judge(seconds)
    for name, ages in late.items():
        if ages:
            yield _judge_clock(name, median(ages))


def _judge_retained(retained: int, pipeline: Pipeline) -> Finding:
    text = f"{retained:,} stored message(s) come with every connect"
    figures: dict[str, float | int | str | None] = {"retained": retained}
    if retained and any(pipeline.retained.values()):
        return Finding("retained", "warn", text, "with retained = true old values count as readings", figures)
    return Finding("retained", "ok", f"{text}; they are ignored" if retained else text, figures=figures)


def _judge_clock(name: str, age: float) -> Finding:
    figures: dict[str, float | int | str | None] = {"median_age_s": age}
    if age < -SKEWED_S:
        return Finding(
            "clock", "warn", f"{name}: readings are {-age:,.1f} s in the future",
            "the sender's clock is ahead, or this one behind: let both follow NTP; check time.unit", figures,
        )  # fmt: skip
    if age > SKEWED_S:
        return Finding(
            "clock", "warn", f"{name}: readings arrive {age:,.1f} s after their time",
            "a queue on the way, a clock that is wrong, or time.unit: let both follow NTP", figures,
        )  # fmt: skip
    return Finding("clock", "ok", f"{name}: readings arrive {age:.3f} s after their time", figures=figures)


class _Quiet(Log):
    """A log that keeps its last line instead of writing it."""

    def __init__(self) -> None:
        super().__init__("error")
        self.last = ""

    def limited(
        self, level: Level, event: str, kind: str, text: str, *, repeats: str = "", **fields: object
    ) -> None:
        """Keep the text."""
        del level, event, kind, repeats, fields
        self.last = text


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def own_topic(config: Config) -> str:
    """A topic below the daemon's base that nobody else uses."""
    return f"{config.output.base}/doctor/{secrets.token_hex(4)}"


def plain(findings: Sequence[Finding]) -> list[dict[str, object]]:
    """Findings as values for JSON."""
    return [
        {"subject": f.subject, "level": f.level, "text": f.text, "remedy": f.remedy, "figures": f.figures}
        for f in findings
    ]
