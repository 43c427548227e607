"""Much of everything: topics nobody has seen before, and readings without end. Memory stays what it was."""

from __future__ import annotations

import gc
import time
from pathlib import Path

import pytest

from edge_rnn.files.config import load_config
from edge_rnn.service.delivery import Delivery
from edge_rnn.service.health import DaemonCounters
from edge_rnn.service.logs import Log
from edge_rnn.service.pipeline import Pipeline
from edge_rnn.service.pipeline_build import build
from tests.support import torture
from tests.support.daemon import START_NS, STEP_NS, write_config

TURN = 1000


def resident() -> int:
    """Bytes of this process that are in memory."""
    gc.collect()
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


def pipeline(folder: Path, **changes: str) -> Pipeline:
    return build(load_config(write_config(folder, 1, **changes)), START_NS)


def push(made: Pipeline, deliveries: list[Delivery], counters: DaemonCounters) -> int:
    """What the daemon does with a turn, without broker and store; how many scores came of it."""
    readings = made.take_all(deliveries, counters, Log("error"))
    scores = 0
    for judged in made.engine.judge(readings, START_NS * 2):
        scores += len(made.outputs.judged(judged)[0])
    made.engine.take_events()
    made.engine.changed()
    for stream in made.engine.removed():
        made.outputs.forget(stream)
    return scores


def reading(topic: str, index: int) -> Delivery:
    text = b'{"ts":%d,"vib":%.3f,"temp":%.2f}' % (
        START_NS + index * STEP_NS,
        1 + index % 7 / 10,
        20 + index % 5,
    )
    return Delivery(topic, text, 1, retained=False, arrival_ns=START_NS, mid=1, epoch=1)


def flood(folder: Path, topics: int) -> int:
    """Growth in bytes; every tenth topic makes a stream, of which only 500 may be kept."""
    made, counters = pipeline(folder, stream="max_streams = 500"), DaemonCounters()
    number = 0

    def turn() -> None:
        nonlocal number
        block = []
        for _ in range(TURN):
            number += 1
            name = f"plant/{number}/all" if number % 10 == 0 else f"elsewhere/{number}/{number}"
            block.append(reading(name, number))
        push(made, block, counters)

    # Until the caches of topics have been full once.
    while number < 80_000:
        turn()
    before, begun = resident(), number
    while number - begun < topics:
        turn()
    assert len(made.engine) == 500
    assert made.engine.counters.evicted == number // 10 - 500
    assert counters.unrouted == number - number // 10
    return resident() - before


def soak(folder: Path, readings: int) -> int:
    """Growth in bytes over so many readings of 20 streams."""
    made, counters = pipeline(folder), DaemonCounters()
    number = scores = 0

    def turn() -> None:
        nonlocal number, scores
        block = [reading(f"plant/{i % 20}/all", i // 20) for i in range(number, number + TURN)]
        number += TURN
        scores += push(made, block, counters)

    while number < 100_000:
        turn()
    before, begun = resident(), number
    while number - begun < readings:
        turn()
    assert scores == number
    assert counters.errors == counters.refused == 0
    return resident() - before


def test_topics_nobody_has_seen_before_cost_no_memory(tmp_path) -> None:
    assert flood(tmp_path, 40_000) < 10 << 20


def test_readings_without_end_cost_no_memory(tmp_path) -> None:
    assert soak(tmp_path, 100_000) < 4 << 20


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_torture_3_000_000_topics(tmp_path) -> None:
    start = time.monotonic()
    grown = flood(tmp_path, 3_000_000)
    assert grown < 10 << 20
    torture.record(
        "distinct topics", "3,000,000, every tenth a new stream", f"{grown / 2**20:+.1f} MB",
        time.monotonic() - start,
    )  # fmt: skip


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_torture_soak_of_20_000_000_readings(tmp_path) -> None:
    start = time.monotonic()
    grown = soak(tmp_path, 20_000_000)
    assert grown < 1 << 20
    torture.record(
        "soak", "20,000,000 readings of 20 streams, without broker and store", f"{grown / 2**20:+.2f} MB",
        time.monotonic() - start,
    )  # fmt: skip
