"""One configuration at work: what a message goes through on its way to the engine.

`Pipeline.take` is one message's way: topic -> routes -> decoder -> engine; `take_all` is the same for many,
shorter where topic and payload are as usual. `pipeline_build.py` makes a pipeline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from edge_rnn.detect.snapshot import OtherModelError
from edge_rnn.errors import SnapshotError
from edge_rnn.files.config_types import Config
from edge_rnn.service.codec import Decoder, PayloadError
from edge_rnn.service.health import DaemonCounters
from edge_rnn.service.logs import Log
from edge_rnn.service.mqtt import Delivery
from edge_rnn.service.outputs import Outputs
from edge_rnn.service.wire.sources import Sources
from edge_rnn.stream.engine import Engine
from edge_rnn.stream.topics import Routes
from edge_rnn.stream.types import Message

_REFUSED_AGAIN = "repeats are counted in health as daemon.refused and summed up here once a minute"
_ADVICE = "start this stream cold"
_LANES = 65_536
_CACHED_TOPIC = 512
# From here on a whole number without a unit is in nanoseconds; see `times.py`.
_NANOSECONDS = 10**17
_END = 2**63


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What the health message says about a group's model."""

    name: str
    digest: str
    inputs: tuple[str, ...]


class Aside(Protocol):
    """Who takes messages that are no readings: commands, for one."""

    @property
    def topics(self) -> frozenset[str]:
        """The topics to be asked about."""

    def take(self, topic: str, payload: bytes, *, retained: bool) -> bool:
        """Whether this message is taken."""


class Lane(NamedTuple):
    """What is known about a topic with one route, prepared; see `Pipeline.take_all`.

    quick: the numbers of a payload that is as usual, the time last, see `JsonDecoder`; None: there is no
    short way. most: bytes of a payload. nanoseconds: a large whole number is a time in ns.
    form: that of its payloads among the sources; -1: none.
    """

    stream: str
    channels: tuple[int, ...]
    quick: Callable[[bytes], list[Any]] | None
    most: int
    time: str | None
    nanoseconds: bool
    form: int = -1


_NO_LANE = Lane("", (), None, 0, None, nanoseconds=False)


@dataclass(slots=True)
class Pipeline:
    """One configuration at work; `filters` are the subscriptions and whether retained messages count.

    `notes`: what a person should know about how it was built, one line each. `sources`: the topics whose
    messages may come as columns; None where nothing is compiled.
    """

    config: Config
    engine: Engine
    routes: Routes
    decoders: dict[str, list[Decoder]]
    retained: dict[str, bool]
    filters: dict[str, bool]
    models: dict[str, ModelInfo]
    outputs: Outputs
    notes: tuple[str, ...] = ()
    sources: Sources | None = None
    lanes: dict[str, Lane] = field(default_factory=dict)

    def take(self, delivery: Delivery, counters: DaemonCounters, log: Log) -> list[Message]:
        """The values in one message, for the engine; what is not acceptable is counted and said."""
        found: list[Message] = []
        routes = self.routes.match(delivery.topic)
        if not routes:
            counters.unrouted += 1
        for route in routes:
            if delivery.retained and not self.retained[route.group]:
                counters.retained_ignored += 1
                continue
            decoding = self.decoders[route.group][route.extractor]
            try:
                found += decoding.decode(delivery.topic, delivery.payload, route.stream, delivery.arrival_ns)
            except PayloadError as error:
                counters.refused += 1
                log.limited(
                    "warning", "decode", f"{route.group} {error.kind}", f"payload refused: {error}",
                    repeats=_REFUSED_AGAIN, stream=route.stream,
                )  # fmt: skip
        return found

    def take_requests(self) -> list[tuple[str, bytes]]:
        """What decoders want published (topic, payload)."""
        found = []
        for decoders in self.decoders.values():
            for one in decoders:
                found += one.requests
                one.requests.clear()
        return found

    def take_all(
        self,
        deliveries: Sequence[Delivery],
        counters: DaemonCounters,
        log: Log,
        aside: Aside | None = None,
    ) -> list[tuple[str, tuple[int, ...], int, Sequence[float]]]:
        """`take` for all of them; the usual topic and payload go a shorter way with the same result.

        What `aside` takes is no reading. It is asked about messages on its own topics alone.
        """
        own = frozenset[str]() if aside is None else aside.topics
        found: list[tuple[str, tuple[int, ...], int, Sequence[float]]] = []
        lanes = self.lanes
        for delivery in deliveries:
            lane = lanes.get(delivery[0])
            if lane is None:
                lane = self._lane(delivery.topic, own)
            quick = lane.quick
            if quick is not None and not delivery[3] and len(delivery[1]) <= lane.most:
                try:
                    values = quick(delivery[1])
                except (ValueError, RecursionError):
                    pass
                else:
                    if lane.form >= 0:
                        self._promote(delivery.topic, lane)
                    if lane.time is None:
                        found.append((lane.stream, lane.channels, delivery[4], values))
                        continue
                    moment = values.pop()
                    if type(moment) is int and _NANOSECONDS < moment < _END and lane.nanoseconds:
                        found.append((lane.stream, lane.channels, moment, values))
                        continue
            try:
                if aside is not None and delivery.topic in own:
                    taken = aside.take(delivery.topic, delivery.payload, retained=delivery.retained)
                    if taken:
                        continue
                found += self.take(delivery, counters, log)
            except Exception as error:  # noqa: BLE001 - the messages beside it have been accepted, too
                counters.errors += 1
                kind = type(error).__name__
                log.limited("error", "take", kind, f"a message was not understood: {error!r}")
        return found

    def _lane(self, topic: str, own: frozenset[str]) -> Lane:
        routes = self.routes.match(topic)
        lane = known = _NO_LANE
        if len(routes) == 1 and topic not in own:
            (route,) = routes
            decoding = self.decoders[route.group][route.extractor]
            quick = getattr(decoding, "quick", None)
            if quick is not None:
                unit = None if decoding.time is None else decoding.time.unit
                lane = Lane(
                    route.stream, decoding.channels, quick, decoding.max_bytes, unit, unit in ("auto", "ns")
                )
                known = lane._replace(form=self._form(route.group, decoding))
        if len(topic) <= _CACHED_TOPIC:
            if len(self.lanes) >= _LANES:
                self.lanes.clear()
            self.lanes[topic] = known
        # A topic that never comes again takes no place among the sources.
        return lane

    def _form(self, group: str, decoding: Decoder) -> int:
        """The form of payloads that may come as columns; -1 if these may not."""
        names = getattr(decoding, "names", None)
        if self.sources is None or names is None or not self.engine.takes_columns(group):
            return -1
        unit = None if decoding.time is None else decoding.time.unit
        form = self.sources.form(
            group, [name.encode() for name in names], decoding.channels, unit, decoding.max_bytes
        )
        return -1 if form is None else form

    def _promote(self, topic: str, lane: Lane) -> None:
        """From now on messages of this topic may come as columns."""
        assert self.sources is not None
        generation, raw = self.sources.generation, topic.encode()
        if not self.sources.knows(raw):
            self.sources.add(raw, lane.stream, lane.form)
        if self.sources.generation != generation:
            self.lanes.clear()
        self.lanes[topic] = lane._replace(form=-1)

    @property
    def generation(self) -> int:
        """Of the sources: swaths of another one are taken message by message."""
        return -1 if self.sources is None else self.sources.generation

    def load_states(self, states: Iterable[tuple[str, bytes]], log: Log) -> tuple[int, list[str]]:
        """Bring streams to saved states; how many went on, and the ids of those that start cold instead."""
        loaded = 0
        refused: list[str] = []
        for stream, blob in states:
            try:
                self.engine.load(stream, blob)
                loaded += 1
            except SnapshotError as error:
                refused.append(stream)
                # What a state's error advises is done here already, and a new model is no mistake.
                changed = isinstance(error, OtherModelError)
                text = "the model has changed" if changed else str(error)
                why = text.replace(f"{_ADVICE}, or ", "").removesuffix(f"; {_ADVICE}")
                log.limited("warning", "state", stream.split("/", 1)[0], f"starts cold: {why}", stream=stream)
        return loaded, refused
