"""What the daemon publishes: topics and JSON, from verdicts and events.

    <base>/<stream>/score   every verdict, or one in `score_every` (of event time); a change of status always
    <base>/<stream>/event   open, update, close of an alarm or a fault
    <base>/<stream>/state   retained: status, alarm, faults; when one of them changes
    <base>/status           retained: online or offline; offline is the will, too
    <base>/health           retained: see `health.py`

Numbers are written so that reading them gives the same double; what is not finite becomes null, because JSON
has no NaN. Times stand there twice: ISO 8601 for people and most tools, nanoseconds for programs. The JSON of
scores, of which there are most, is made by msgspec from a type that is prepared once a group.

Where code is compiled, `packets` writes the scores of a burst as whole packets in one call (see `wire/`);
else, and for whatever is not usual, `judged` makes the same bytes one by one.

This file does no input or output; what was published last (for "on change" and "one in") is all its state.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_rnn.detect.verdict import STATUSES, Status, Verdict
from edge_rnn.service.wire import words
from edge_rnn.service.wire.packets import PacketForm, PacketWriter
from edge_rnn.service.wire.told import ToldTable
from edge_rnn.stream.burst import Judged
from edge_rnn.stream.types import Event

ONLINE = b"online"
OFFLINE = b"offline"
_SECOND = 1_000_000_000
_FAULT: Final = STATUSES.index("fault")
# What a name of a msgspec field cannot hold.
_UNFIT: Final = re.compile(r'[\\"\x00-\x1f]')
_ENCODER: Final = msgspec.json.Encoder()

Publication = tuple[str, bytes]
"""Topic and payload."""
Send = Callable[[memoryview, int], int]
"""Publishes so many packets and gives how many were; the bytes are used again afterwards."""


def quoted(text: str) -> str:
    """`text` as a JSON string; lone surrogates, which UTF-8 does not have, as question marks."""
    return msgspec.json.encode(text.encode("utf-8", "replace").decode()).decode()


def number(value: float) -> str:
    """A finite number as the shortest text that gives it back, else null."""
    return repr(float(value)) if math.isfinite(value) else "null"


def iso(time_ns: int) -> str:
    """ISO 8601 in UTC, with as many groups of three digits as are needed."""
    return isos((time_ns,))[0]


def isos(times_ns: Iterable[int]) -> list[str]:
    """`iso` for all of them; the second, which a burst has mostly in common, is made once in a row."""
    found: list[str] = []
    before, text = -1, ""
    for time_ns in times_ns:
        seconds, rest = divmod(time_ns, _SECOND)
        if seconds != before or not text:
            before, text = seconds, _to_the_second(seconds)
        if not rest:
            found.append(f"{text}Z")
        elif rest % 1000:
            found.append(f"{text}.{rest:09d}Z")
        elif rest % 1_000_000:
            found.append(f"{text}.{rest // 1000:06d}Z")
        else:
            found.append(f"{text}.{rest // 1_000_000:03d}Z")
    return found


@functools.lru_cache(maxsize=1024)
def _to_the_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


class Told(NamedTuple):
    """The latest verdict of a stream, in short."""

    stream: str
    status: Status
    score: float
    threshold: float
    time_ns: int
    faults: tuple[str, ...] = ()


class _Group:
    """How the scores of one group become JSON: types whose fields are the model's inputs."""

    __slots__ = ("channels", "names", "score")

    def __init__(self, names: tuple[str, ...]) -> None:
        names = tuple(name.encode("utf-8", "replace").decode() for name in names)
        self.names = names
        self.channels: Callable[..., Any] = lambda *values: dict(zip(names, values, strict=True))
        kind: Any = dict[str, float]
        if not any(_UNFIT.search(name) for name in names):
            fields = [(f"c{i}", float) for i in range(len(names))]
            rename = {f"c{i}": name for i, name in enumerate(names)}
            self.channels = kind = msgspec.defstruct("Channels", fields, rename=rename, gc=False)
        self.score: Callable[..., Any] = msgspec.defstruct(
            "Score",
            [
                ("time", str), ("time_ns", int), ("status", str), ("alarm", bool), ("n", int),
                ("score", float), ("threshold", float), ("shares", kind), ("expected", kind),
                ("probability", float), ("bands", kind), ("scorer", str), ("severity", int),
                ("faults", dict[str, str] | msgspec.UnsetType, msgspec.UNSET),
            ],
            gc=False,
        )  # fmt: skip


class _Stream:
    """What is known about one stream's outputs; `row` of the table holds what was told last."""

    __slots__ = (
        "channels", "condition", "event", "faults", "group", "head", "row", "score", "state", "state_payload",
    )  # fmt: skip

    def __init__(self, base: str, stream: str, channels: tuple[str, ...], group: _Group, row: int) -> None:
        self.group = group
        self.row = row
        self.score = f"{base}/{stream}/score"
        self.event = f"{base}/{stream}/event"
        self.state = f"{base}/{stream}/state"
        self.channels = channels
        self.condition: object = None
        self.state_payload = b""
        self.head: NDArray[np.uint8] | None = None
        # The kinds of its faults, as the latest change of state told them.
        self.faults: tuple[str, ...] = ()


class Outputs:
    """Publications for the verdicts and events of all streams.

    Args:
        base: first level(s) of every topic.
        score_every_ns: least event time between two scores of a stream; 0 publishes all.
        names: input names of each group's model.
        writer: makes packets, where `packets` is to be used.
    """

    def __init__(
        self,
        base: str,
        score_every_ns: int,
        names: Mapping[str, Iterable[str]],
        writer: PacketWriter | None = None,
    ) -> None:
        self.status = f"{base}/status"
        self.health = f"{base}/health"
        self._base = base
        self._every = score_every_ns
        plain = {group: tuple(channels) for group, channels in names.items()}
        self._names = {group: tuple(map(quoted, channels)) for group, channels in plain.items()}
        self._groups = {group: _Group(channels) for group, channels in plain.items()}
        self._none = _Group(())
        self._streams: dict[str, _Stream] = {}
        self._told = ToldTable()
        self._writer = writer
        self._forms: dict[str, tuple[tuple[str, ...], PacketForm]] = {}

    @property
    def makes_packets(self) -> bool:
        """Whether `packets` can be used."""
        return self._writer is not None

    def _stream(self, stream: str) -> _Stream:
        found = self._streams.get(stream)
        if found is None:
            group = stream.split("/", 1)[0]
            names, form = self._names.get(group, ()), self._groups.get(group, self._none)
            found = self._streams[stream] = _Stream(self._base, stream, names, form, self._told.take())
        return found

    def verdict(self, verdict: Verdict) -> tuple[Publication | None, Publication | None]:
        """The score to publish, if it is its turn, and the new state, if it has changed."""
        out = self._stream(verdict.stream)
        told, i8, f8 = out.row * words.STREAM_WORDS, self._told.i8, self._told.f8
        i8[told + words.STATUS], i8[told + words.TIME] = STATUSES.index(verdict.status), verdict.time_ns
        f8[told + words.SCORE], f8[told + words.THRESHOLD] = verdict.score, verdict.threshold
        condition = (verdict.status, verdict.alarm, verdict.faults)
        changed = condition != out.condition
        state = None
        if changed:
            out.condition = condition
            out.faults = tuple(sorted({fault.kind for fault in verdict.faults}))
            code = 2 * STATUSES.index(verdict.status) + verdict.alarm
            i8[told + words.CODE] = -1 if verdict.faults else code
            out.state_payload = _state(verdict, out.channels)
            state = (out.state, out.state_payload)
        before = i8[told + words.SCORED]
        due = before == words.NEVER or not 0 <= verdict.time_ns - before < self._every
        if not (due or changed):
            return None, state
        i8[told + words.SCORED] = verdict.time_ns
        return (out.score, _score(verdict, out.group)), state

    def judged(self, judged: Judged) -> tuple[list[Publication], list[Publication], list[str]]:
        """`verdict` for all of them: scores to publish, states that have changed, and whose they are."""
        records, every, streams = judged.records, self._every, self._streams
        form = self._groups.get(judged.group, self._none)
        channels, score_of, encode = form.channels, form.score, _ENCODER.encode
        told = self._told
        codes = 2 * records["status"].astype(np.int64) + records["alarm"]
        codes[records["status"] == _FAULT] = -2
        times = records["time_ns"].tolist()
        columns = (
            judged.streams, codes.tolist(), times, isos(times), records["step"].tolist(),
            records["score"].tolist(), records["threshold"].tolist(), records["share"].tolist(),
            records["expected"].tolist(), records["probability"].tolist(), records["band"].tolist(),
            records["scorer"].tolist(), records["severity"].tolist(),
        )  # fmt: skip
        scorers = (*judged.scorers, *("",) * 256)  # 255: none
        scores: list[Publication] = []
        states: list[Publication] = []
        changed: list[str] = []
        for index, (
            stream, code, time_ns, time, step, score, threshold, share, expected, probability, band, scorer,
            severity,
        ) in enumerate(zip(*columns, strict=True)):  # fmt: skip
            out = streams.get(stream)
            i8, f8 = told.i8, told.f8
            at = 0 if out is None else out.row * words.STREAM_WORDS
            if out is None or i8[at + words.CODE] != code:
                first, state = self.verdict(judged.verdict(index))
                if first is not None:
                    scores.append(first)
                if state is not None:
                    states.append(state)
                    changed.append(stream)
                continue
            i8[at + words.TIME], f8[at + words.SCORE], f8[at + words.THRESHOLD] = time_ns, score, threshold
            before = i8[at + words.SCORED]
            if before != words.NEVER and 0 <= time_ns - before < every:
                continue
            i8[at + words.SCORED] = time_ns
            text = score_of(
                time, time_ns, STATUSES[code >> 1], code & 1 == 1, step, score, threshold, channels(*share),
                channels(*expected), probability, channels(*band), scorers[scorer], severity,
            )  # fmt: skip
            scores.append((out.score, encode(text)))
        return scores, states, changed

    def packets(self, judged: Judged, send: Send) -> tuple[int, list[Publication], list[str]]:
        """`judged`, with the scores as packets: how many `send` took, states that have changed, and whose."""
        form, told = self._form(judged), self._told
        states: list[Publication] = []
        changed: list[str] = []
        form.begin(judged.records, judged.rows, judged.addresses, judged.generation, told)
        index, end, sent = 0, len(judged), 0
        while (index := form.write(index)) < end:
            if form.full:
                sent += send(*form.take())
                continue
            row = int(judged.rows[index])
            out = self._stream(judged.streams[index])
            if out.head is None:
                assert self._writer is not None
                out.head = self._writer.head(out.score)
                place = out.row * words.STREAM_WORDS
                told.i8[place + words.HEAD] = out.head.ctypes.data
                told.i8[place + words.HEAD_SIZE] = len(out.head)
            if not form.knows(row):
                form.learn(row, out.row, told)
                continue
            first, state = self.verdict(judged.verdict(index))
            if first is not None and not form.add(out.head, first[1]):
                sent += send(*form.take())
                form.add(out.head, first[1])
            if state is not None:
                states.append(state)
                changed.append(judged.streams[index])
            index += 1
        packets, count = form.take()
        if count:
            sent += send(packets, count)
        return sent, states, changed

    def _form(self, judged: Judged) -> PacketForm:
        scorers, form = self._forms.get(judged.group, ((), None))
        if form is None or scorers != judged.scorers:
            assert self._writer is not None
            names = self._groups.get(judged.group, self._none).names
            texts = [quoted(name) for name in judged.scorers]
            form = PacketForm(self._writer, [quoted(name) for name in names], texts, self._every)
            self._forms[judged.group] = judged.scorers, form
        return form

    def event(self, event: Event) -> Publication:
        """The message of an event; the daemon's own, of stream "", has a topic of its own."""
        topic = self._stream(event.stream).event if event.stream else f"{self._base}/event"
        return topic, _event(event)

    def states(self) -> list[Publication]:
        """The latest state of every stream: a broker that came back may have lost what it retained."""
        return [(s.state, s.state_payload) for s in self._streams.values() if s.state_payload]

    def latest(self) -> list[Told]:
        """The latest verdict of every stream; may be called from another thread."""
        rows = self._told.words
        scores = rows.view(np.float64)[:, words.SCORE].tolist()
        thresholds = rows.view(np.float64)[:, words.THRESHOLD].tolist()
        counts = rows[:, : words.SCORE].tolist()
        return [
            Told(
                stream,
                STATUSES[counts[s.row][words.STATUS]],
                scores[s.row],
                thresholds[s.row],
                counts[s.row][words.TIME],
                s.faults,
            )
            for stream, s in list(self._streams.items())
            if s.row < len(counts) and counts[s.row][words.STATUS] >= 0
        ]

    def forget(self, stream: str) -> Publication:
        """No longer remember a stream; the empty payload removes its retained state."""
        gone = self._streams.pop(stream, None)
        if gone is not None:
            self._told.give_back(gone.row)
            for _, form in self._forms.values():
                form.forget()
        return f"{self._base}/{stream}/state", b""


def _faults(verdict: Verdict, names: tuple[str, ...]) -> str:
    return ",".join(f'{names[fault.channel]}:"{fault.kind}"' for fault in verdict.faults)


def _head(verdict: Verdict) -> str:
    alarm = "true" if verdict.alarm else "false"
    time = f'"time":"{iso(verdict.time_ns)}","time_ns":{verdict.time_ns}'
    return f'{time},"status":"{verdict.status}","alarm":{alarm}'


def _score(verdict: Verdict, form: _Group) -> bytes:
    # A verdict of a group that is not known has no names for its channels.
    names = form.names
    count = len(names)
    bands = verdict.band.tolist()[:count] or [math.nan] * count
    faults: Any = msgspec.UNSET
    if verdict.faults:
        faults = {names[fault.channel]: fault.kind for fault in verdict.faults if fault.channel < count}
    return _ENCODER.encode(
        form.score(
            iso(verdict.time_ns), verdict.time_ns, verdict.status, verdict.alarm, verdict.step, verdict.score,
            verdict.threshold, form.channels(*verdict.share.tolist()[:count]),
            form.channels(*verdict.expected.tolist()[:count]), verdict.probability,
            form.channels(*bands), verdict.scorer, verdict.severity, faults,
        )
    )  # fmt: skip


def _state(verdict: Verdict, names: tuple[str, ...]) -> bytes:
    return f'{{{_head(verdict)},"faults":{{{_faults(verdict, names)}}}}}'.encode()


def _event(event: Event) -> bytes:
    shares = ",".join(f"{quoted(name)}:{number(share)}" for name, share in event.shares)
    end = (
        f'"{iso(event.end_ns)}","end_ns":{event.end_ns}' if event.end_ns is not None else 'null,"end_ns":null'
    )
    return (
        f'{{"type":"{event.type}","id":{quoted(event.id)},"stream":{quoted(event.stream)},'
        f'"kind":"{event.kind}","time":"{iso(event.time_ns)}","time_ns":{event.time_ns},'
        f'"start":"{iso(event.start_ns)}","start_ns":{event.start_ns},'
        f'"peak":"{iso(event.peak_ns)}","peak_ns":{event.peak_ns},"end":{end},'
        f'"score":{number(event.score)},"threshold":{number(event.threshold)},'
        f'"peak_score":{number(event.peak)},"shares":{{{shares}}}}}'
    ).encode()
