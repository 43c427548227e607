"""The daemon's way of a reading without a network: payload -> decoder -> engine -> publications.

It is the daemon's own pipeline, made by `service.pipeline_build` from a configuration with one stream group,
JSON payloads, event times and a topic key per stream. Only what the daemon does around it is left out: the
broker's socket and the commit to the database.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.model import Model
from edge_rnn.files.config_types import (
    ChannelConfig,
    Config,
    HealthConfig,
    LogConfig,
    MqttConfig,
    OutputConfig,
    StoreConfig,
    StreamConfig,
    TimeConfig,
)
from edge_rnn.service.health import DaemonCounters
from edge_rnn.service.logs import Log
from edge_rnn.service.mqtt import Delivery
from edge_rnn.service.outputs import Publication
from edge_rnn.service.pipeline_build import build
from edge_rnn.stream.types import Message

BEGIN_NS: Final = 1_700_000_000_000_000_000
_NAME: Final = "bench"


class ReadingPath:
    """See the module. Messages of a stream must be taken in the order they were made.

    Args:
        file: the model file.
        model: with a detector section; the same as in `file`, which is what the pipeline loads.
        streams: how many streams there may be.
        library: a library's folder; None compiles the functions.

    Raises:
        ModelFileError: the model cannot be used by a daemon.
        LibraryError: the library cannot be used here, or is not this model's.
    """

    def __init__(self, file: Path, model: Model, streams: int = 1, library: Path | None = None) -> None:
        names = [i.name for i in model.inputs]
        channels = tuple(
            ChannelConfig(name=name, topic="bench/{key}", path=f"c{i}") for i, name in enumerate(names)
        )
        stream = StreamConfig(
            name=_NAME,
            model=file,
            channels=channels,
            time=TimeConfig(path="time_ns", unit="ns"),
            max_streams=streams,
            library=library,
            library_unfit="refuse",
            # Made-up readings raise and end alarms all the time, which would be a fault of its own.
            flapping=0,
        )
        config = Config(
            source="bench",
            mqtt=MqttConfig(),
            output=OutputConfig(),
            store=StoreConfig(path=Path("unused.db")),
            log=LogConfig(),
            health=HealthConfig(),
            streams=(stream,),
        )
        self._period = model.detector.period_ns if model.detector is not None else 10**9
        self._pipeline = build(config, BEGIN_NS)
        self._counters, self._log = DaemonCounters(), Log("error")

    def delivery(self, values: NDArray[np.float64], index: int, stream: int = 0) -> Delivery:
        """The message with which `stream` sends its reading number `index`: raw `values` (C,)."""
        time_ns = BEGIN_NS + (index + 1) * self._period
        reading = {"time_ns": time_ns} | {f"c{i}": v for i, v in enumerate(values.tolist())}
        return Delivery(
            topic=f"bench/s{stream}",
            payload=json.dumps(reading).encode(),
            qos=1,
            retained=False,
            arrival_ns=time_ns,
            mid=0,
            epoch=0,
        )

    def take(self, *deliveries: Delivery) -> list[Publication]:
        """What the daemon would publish for messages that it read together."""
        pipeline = self._pipeline
        messages: list[Message] = []
        for delivery in deliveries:
            messages += pipeline.take(delivery, self._counters, self._log)
        found: list[Publication] = []
        for verdict in pipeline.engine.feed(messages, deliveries[-1].arrival_ns):
            found += [p for p in pipeline.outputs.verdict(verdict) if p is not None]
        found += [pipeline.outputs.event(event) for event in pipeline.engine.take_events()]
        return found
