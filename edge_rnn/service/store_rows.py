"""The values that go into the store and out of it, and the row an event becomes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import msgspec

from edge_rnn.stream.types import Event


@dataclass(frozen=True, slots=True)
class Message:
    """A message for the broker that must not be lost."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False


class Queued(NamedTuple):
    """A message of the outbox; `id` is what `done` takes."""

    id: int
    message: Message


@dataclass(frozen=True, slots=True)
class Commit:
    """What one transaction writes.

    states: (stream id, snapshot) of the streams that changed.
    removed: ids of streams that are gone.
    events: changes of events; the newest state of each id is kept in the history.
    outbox: messages to send once the commit is done.
    positions: source -> value, for whatever must move together with the states.
    complete: `states` are all there are; rows of other streams are removed.
    """

    states: Sequence[tuple[str, bytes]] = ()
    removed: Sequence[str] = ()
    events: Sequence[Event] = ()
    outbox: Sequence[Message] = ()
    positions: Mapping[str, str] = field(default_factory=dict)
    complete: bool = False


class _EventBody(msgspec.Struct, frozen=True):
    """What of an event is kept as JSON; NaN, which JSON has not, becomes null."""

    type: Literal["open", "update", "close"]
    time_ns: int
    score: float | None
    threshold: float | None
    peak: float | None
    shares: tuple[tuple[str, float | None], ...]


def event_fields(event: Event) -> tuple[str, str, str, int, int, int | None, str]:
    """The columns of an event."""

    def plain(value: float) -> float | None:
        return value if math.isfinite(value) else None

    shares = tuple((name, plain(share)) for name, share in event.shares)
    parts = plain(event.score), plain(event.threshold), plain(event.peak)
    body = msgspec.json.encode(_EventBody(event.type, event.time_ns, *parts, shares)).decode()
    return event.id, event.stream, event.kind, event.start_ns, event.peak_ns, event.end_ns, body


def event_of(fields: Sequence[Any]) -> Event | None:
    """The event of a row whose checksum was right; None if its body is not one all the same."""

    def number(value: float | None) -> float:
        return math.nan if value is None else value

    name, stream, kind, start_ns, peak_ns, end_ns, text = fields
    try:
        body = msgspec.json.decode(text, type=_EventBody)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return None
    return Event(
        type=body.type,
        id=name,
        stream=stream,
        kind=kind,
        start_ns=start_ns,
        time_ns=body.time_ns,
        end_ns=end_ns,
        score=number(body.score),
        threshold=number(body.threshold),
        peak=number(body.peak),
        peak_ns=peak_ns,
        shares=tuple((name, number(share)) for name, share in body.shares),
    )
