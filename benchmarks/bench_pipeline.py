"""The daemon's way of a reading without a network: payload in, publications out.

    pytest benchmarks/bench_pipeline.py --benchmark-enable --benchmark-only

`reading` takes one message; `turn` one message of each of `streams` streams, as a daemon does that finds them
waiting together, so its time is divided by their number. Messages are made outside the measured part.
"""

from __future__ import annotations

from itertools import count

import pytest

from edge_rnn import Model
from edge_rnn.bench.inputs import BUNDLED, fixed_inputs, raw_readings
from edge_rnn.bench.path import ReadingPath
from edge_rnn.files.load import load
from edge_rnn.service.mqtt import Delivery

ROUNDS = 300


@pytest.fixture(scope="module")
def model() -> Model:
    return load(BUNDLED)


def measured(benchmark, model: Model, streams: int) -> None:
    path, numbers = ReadingPath(BUNDLED, model, streams), count()
    readings = raw_readings(model, fixed_inputs(ROUNDS, model.input_size))

    def messages() -> tuple[list[Delivery], dict[str, object]]:
        i = next(numbers)
        return [path.delivery(readings[i % ROUNDS], i, s) for s in range(streams)], {}

    benchmark.extra_info["per"] = streams
    published = benchmark.pedantic(path.take, setup=messages, rounds=ROUNDS, warmup_rounds=20)
    topics = {topic for topic, _ in published}
    assert {f"edge-rnn/bench/s{s}/score" for s in range(streams)} <= topics


def test_reading(benchmark, model) -> None:
    measured(benchmark, model, 1)


@pytest.mark.parametrize("streams", [16, 256])
def test_turn(benchmark, model, streams) -> None:
    measured(benchmark, model, streams)
