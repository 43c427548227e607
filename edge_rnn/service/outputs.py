"""What the daemon publishes: topics and JSON, from verdicts and events.

    <base>/<stream>/score   every verdict, or one in `score_every` (of event time); a change of status always
    <base>/<stream>/event   open, update, close of an alarm or a fault
    <base>/<stream>/state   retained: status, alarm, faults; when one of them changes
    <base>/status           retained: online or offline; offline is the will, too
    <base>/health           retained: see `health.py`

Numbers are written so that reading them gives the same double; what is not finite becomes null, because JSON
has no NaN. Times stand there twice: ISO 8601 for people and most tools, nanoseconds for programs. The JSON of
verdicts is put together by hand from parts that are encoded once a stream: it is what is written most.

This file does no input or output; what was published last (for "on change" and "one in") is all its state.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import msgspec

from edge_rnn.detect.verdict import Verdict
from edge_rnn.stream.types import Event

ONLINE = b"online"
OFFLINE = b"offline"
_SECOND = 1_000_000_000

Publication = tuple[str, bytes]
"""Topic and payload."""


def quoted(text: str) -> str:
    """`text` as a JSON string; lone surrogates, which UTF-8 does not have, as question marks."""
    return msgspec.json.encode(text.encode("utf-8", "replace").decode()).decode()


def number(value: float) -> str:
    """A finite number as the shortest text that gives it back, else null."""
    return repr(float(value)) if math.isfinite(value) else "null"


def iso(time_ns: int) -> str:
    """ISO 8601 in UTC, with as many groups of three digits as are needed."""
    seconds, rest = divmod(time_ns, _SECOND)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    digits = f"{rest:09d}"
    while digits.endswith("000"):
        digits = digits[:-3]
    return f"{text}.{digits}Z" if digits else f"{text}Z"


class _Stream:
    """What is known about one stream's outputs."""

    __slots__ = ("channels", "condition", "event", "latest", "score", "scored_ns", "state", "state_payload")

    def __init__(self, base: str, stream: str, channels: tuple[str, ...]) -> None:
        self.score = f"{base}/{stream}/score"
        self.event = f"{base}/{stream}/event"
        self.state = f"{base}/{stream}/state"
        self.channels = channels
        self.condition: object = None
        self.state_payload = b""
        self.scored_ns: int | None = None
        self.latest: Verdict | None = None


class Outputs:
    """Publications for the verdicts and events of all streams.

    Args:
        base: first level(s) of every topic.
        score_every_ns: least event time between two scores of a stream; 0 publishes all.
        names: input names of each group's model.
    """

    def __init__(self, base: str, score_every_ns: int, names: Mapping[str, Iterable[str]]) -> None:
        self.status = f"{base}/status"
        self.health = f"{base}/health"
        self._base = base
        self._every = score_every_ns
        self._names = {group: tuple(map(quoted, channels)) for group, channels in names.items()}
        self._streams: dict[str, _Stream] = {}

    def _stream(self, stream: str) -> _Stream:
        found = self._streams.get(stream)
        if found is None:
            names = self._names.get(stream.split("/", 1)[0], ())
            found = self._streams[stream] = _Stream(self._base, stream, names)
        return found

    def verdict(self, verdict: Verdict) -> tuple[Publication | None, Publication | None]:
        """The score to publish, if it is its turn, and the new state, if it has changed."""
        out = self._stream(verdict.stream)
        out.latest = verdict
        condition = (verdict.status, verdict.alarm, verdict.faults)
        changed = condition != out.condition
        state = None
        if changed:
            out.condition = condition
            out.state_payload = _state(verdict, out.channels)
            state = (out.state, out.state_payload)
        due = out.scored_ns is None or not 0 <= verdict.time_ns - out.scored_ns < self._every
        if not (due or changed):
            return None, state
        out.scored_ns = verdict.time_ns
        return (out.score, _score(verdict, out.channels)), state

    def event(self, event: Event) -> Publication:
        """The message of an event."""
        return self._stream(event.stream).event, _event(event)

    def states(self) -> list[Publication]:
        """The latest state of every stream: a broker that came back may have lost what it retained."""
        return [(s.state, s.state_payload) for s in self._streams.values() if s.state_payload]

    def latest(self) -> list[Verdict]:
        """The latest verdict of every stream; may be called from another thread."""
        return [s.latest for s in list(self._streams.values()) if s.latest is not None]

    def forget(self, stream: str) -> Publication:
        """No longer remember a stream; the empty payload removes its retained state."""
        self._streams.pop(stream, None)
        return f"{self._base}/{stream}/state", b""


def _map(names: tuple[str, ...], values: Iterable[float]) -> str:
    return ",".join(f"{name}:{number(value)}" for name, value in zip(names, values, strict=False))


def _faults(verdict: Verdict, names: tuple[str, ...]) -> str:
    return ",".join(f'{names[fault.channel]}:"{fault.kind}"' for fault in verdict.faults)


def _head(verdict: Verdict) -> str:
    alarm = "true" if verdict.alarm else "false"
    time = f'"time":"{iso(verdict.time_ns)}","time_ns":{verdict.time_ns}'
    return f'{time},"status":"{verdict.status}","alarm":{alarm}'


def _score(verdict: Verdict, names: tuple[str, ...]) -> bytes:
    text = (
        f'{{{_head(verdict)},"n":{verdict.step},"score":{number(verdict.score)},'
        f'"threshold":{number(verdict.threshold)},"shares":{{{_map(names, verdict.share.tolist())}}},'
        f'"expected":{{{_map(names, verdict.expected.tolist())}}}'
    )
    if verdict.faults:
        text += f',"faults":{{{_faults(verdict, names)}}}'
    return (text + "}").encode()


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
