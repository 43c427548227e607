"""All that a configuration turns into: models, routes, decoders, engine. A reload builds a second one beside.

`build` does everything that takes time or can fail: it reads the model files (each replays its self-test in
float64), replays the self-test again on the kernels of this machine, and compiles the engine, so that nothing
is compiled while the broker is connected.
`Pipeline.take` is one message's way through it: topic -> routes -> decoder -> engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from edge_rnn.core.digest import weights_digest
from edge_rnn.core.library import Library
from edge_rnn.core.model import Model
from edge_rnn.core.stepper import Stepper
from edge_rnn.detect.plan import plan_of
from edge_rnn.detect.snapshot import OtherModelError
from edge_rnn.errors import ConfigError, LibraryError, ModelFileError, SnapshotError
from edge_rnn.files.config import NO_DETECTOR, channel_order
from edge_rnn.files.config_types import Config, StreamConfig
from edge_rnn.files.load import load
from edge_rnn.files.model_file import check_self_test
from edge_rnn.service import outlets
from edge_rnn.service.codec import Decoder, Field, PayloadError, TimeField, decoder
from edge_rnn.service.health import DaemonCounters
from edge_rnn.service.logs import Log
from edge_rnn.service.mqtt import Delivery
from edge_rnn.service.outputs import Outputs
from edge_rnn.service.wire.packets import PacketWriter
from edge_rnn.service.wire.sources import Sources
from edge_rnn.stream.assemble import Assembly
from edge_rnn.stream.engine import Engine, Group
from edge_rnn.stream.topics import Routes, Template
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


def build(config: Config, now_ns: int) -> Pipeline:
    """Everything for `config`, warm.

    Args:
        now_ns: silence is counted from here at the earliest.

    Raises:
        ConfigError: the configuration does not fit its models.
        ModelFileError: a model cannot be used.
        LibraryError: a library does not fit, and the configuration says to refuse it.
    """
    notes: list[str] = []
    problems: list[str] = []
    groups: list[Group] = []
    templates: dict[str, list[Template]] = {}
    decoders: dict[str, list[Decoder]] = {}
    models: dict[str, ModelInfo] = {}
    for stream in config.streams:
        model = _model(stream)
        library = _library(stream, model, notes)
        _replay_self_test(stream, model, library)
        inputs = tuple(i.name for i in model.inputs)
        try:
            order = channel_order(stream, inputs)
            groups.append(_group(stream, model, order, library))
            templates[stream.name], decoders[stream.name] = _sources(stream, order, config.mqtt.max_payload)
        except ConfigError as error:
            problems.append(str(error))
            continue
        models[stream.name] = ModelInfo(model.name, weights_digest(model), inputs)
    if problems:
        raise ConfigError("\n".join(problems))
    retained = {stream.name: stream.retained for stream in config.streams}
    filters: dict[str, bool] = {}
    for name, own in templates.items():
        for template in own:
            wanted = filters.get(template.subscription, False) or retained[name]
            filters[template.subscription] = wanted
    filters |= outlets.filters(config)
    engine = Engine(groups, alive_since_ns=now_ns)
    writer, sources = _compiled(config, groups, engine)
    return Pipeline(
        config=config,
        engine=engine,
        routes=Routes(templates),
        decoders=decoders,
        retained=retained,
        filters=filters,
        models=models,
        outputs=Outputs(
            config.output.base,
            config.output.score_every_ns,
            {n: m.inputs for n, m in models.items()},
            writer,
        ),
        sources=sources,
        notes=tuple(notes),
    )


def _compiled(
    config: Config, groups: Sequence[Group], engine: Engine
) -> tuple[PacketWriter | None, Sources | None]:
    """The quick ways in and out; none where nothing is compiled, because Numba may be missing."""
    if config.mqtt.reader != "auto" or all(group.library is not None for group in groups):
        return None, None
    from edge_rnn.service.wire.scan import scanner
    from edge_rnn.service.wire.scores import writer

    engine.prepare_columns()
    five = config.mqtt.protocol == "5"
    channels = [(group.name, group.model.channels) for group in groups]
    return PacketWriter(writer().machine_code, five=five), Sources(
        scanner().machine_code, channels, five=five
    )


def _model(stream: StreamConfig) -> Model:
    model = load(stream.model)
    if model.detector is None:
        raise ModelFileError(f"{stream.model}: stream {stream.name!r}: {NO_DETECTOR}")
    return model


def _library(stream: StreamConfig, model: Model, notes: list[str]) -> Library | None:
    """The stream's library if there is one that fits; a note where another way is gone."""
    if stream.library is None:
        return None
    try:
        library = Library(stream.library)
        library.check(model)
        library.check_detector(plan_of(model).layout_digest)
    except LibraryError as error:
        if stream.library_unfit == "refuse":
            raise LibraryError(f'stream "{stream.name}": {error}') from None
        notes.append(f'stream "{stream.name}": compiling instead: {error}')
        return None
    return library


def _replay_self_test(stream: StreamConfig, model: Model, library: Library | None) -> None:
    where = "on this machine's kernels" if library is None else f"in library {stream.library}"
    check_self_test(model, Stepper(model, library=library).run, f"{stream.model}: {where}")


def _group(stream: StreamConfig, model: Model, order: tuple[int, ...], library: Library | None) -> Group:
    ages, flapping = [0] * len(order), [0] * len(order)
    for channel, index in zip(stream.channels, order, strict=True):
        ages[index] = channel.max_age_ns or 0
        flapping[index] = channel.flapping
    assembly = Assembly(
        on=stream.on,
        every_ns=stream.every_ns or 0,
        timeout_ns=stream.timeout_ns or 0,
        max_age_ns=tuple(ages),
    )
    return Group(
        name=stream.name,
        model=model,
        assembly=assembly,
        max_streams=stream.max_streams,
        silent_after_ns=stream.silent_after_ns,
        silent_intervals=stream.silent_intervals,
        gap_ns=stream.gap_ns,
        clock_limit_ns=stream.clock_limit_ns,
        flapping=stream.flapping,
        flapping_channels=tuple(flapping),
        numbered=stream.sequence is not None,
        library=library,
    )


def _sources(
    stream: StreamConfig, order: tuple[int, ...], max_bytes: int
) -> tuple[list[Template], list[Decoder]]:
    """One template and one decoder per distinct topic of a stream's channels."""
    fields: dict[str, list[Field]] = {}
    for channel, index in zip(stream.channels, order, strict=True):
        fields.setdefault(channel.topic, []).append(Field(index, channel.path or "", channel.column or 0))
    time = None
    if stream.time is not None:
        time = TimeField(stream.time.path or "", stream.time.column or 0, stream.time.unit)
    sequence = None
    if stream.sequence is not None:
        sequence = Field(-1, stream.sequence.path or "", stream.sequence.column or 0)
    decoders = []
    for topic, own in fields.items():
        try:
            decoders.append(
                decoder(
                    stream.format, tuple(own), time, max_bytes, each=stream.each, key=stream.key,
                    partial=stream.partial, layout=stream.layout, rebirth=stream.rebirth,
                    tail=topic.endswith("/#"), sequence=sequence,
                )
            )  # fmt: skip
        except ConfigError as error:
            raise ConfigError(f'stream "{stream.name}", topic {topic!r}: {error}') from None
    return [Template(topic) for topic in fields], decoders
