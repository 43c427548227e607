"""What a configuration turns into: models, routes, decoders, engine, ready before the broker is connected.

`build` does everything that takes time or can fail: it reads the model files (each replays its self-test in
float64), replays the self-test again on the kernels of this machine, and compiles the engine, so that nothing
is compiled while the broker is connected. A reload builds a second pipeline beside the running one.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge_rnn.core.digest import weights_digest
from edge_rnn.core.library import Library
from edge_rnn.core.model import Model
from edge_rnn.core.stepper import Stepper
from edge_rnn.detect.plan import plan_of
from edge_rnn.errors import ConfigError, LibraryError, ModelFileError
from edge_rnn.files.config import NO_DETECTOR, channel_order
from edge_rnn.files.config_types import Config, StreamConfig
from edge_rnn.files.load import load
from edge_rnn.files.model_file import check_self_test
from edge_rnn.service import outlets
from edge_rnn.service.codec import Decoder, Field, TimeField, decoder
from edge_rnn.service.outputs import Outputs
from edge_rnn.service.pipeline import ModelInfo, Pipeline
from edge_rnn.service.wire.packets import PacketWriter
from edge_rnn.service.wire.sources import Sources
from edge_rnn.stream.assemble import Assembly
from edge_rnn.stream.engine import Engine, Group
from edge_rnn.stream.topics import Routes, Template


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
