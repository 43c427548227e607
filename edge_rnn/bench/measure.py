"""All measurements of `edge-rnn bench`, one after the other, as one report."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_rnn.bench import timing
from edge_rnn.bench.environment import conditions, environment
from edge_rnn.bench.inputs import BUNDLED, STEPS, fixed_inputs, golden_hash, output_hash, raw_readings
from edge_rnn.bench.path import ReadingPath
from edge_rnn.bench.report import VERSION, Network, Output, Paced, Rate, Report, Timed
from edge_rnn.bench.start import starts
from edge_rnn.core.digest import weights_digest
from edge_rnn.core.library import Library
from edge_rnn.core.model import Model
from edge_rnn.core.stepper import Stepper
from edge_rnn.detect.detector import DetectorTable
from edge_rnn.files.load import load

_ROUND: Final = 2048
_ROUNDS: Final = 5


@dataclass(frozen=True, slots=True)
class Options:
    """seconds: for each measurement; rates: Hz; streams: numbers of streams; start: measure starts, too;
    library: the folder of a library whose code is measured, None for code compiled here."""

    seconds: float = 2.0
    rates: tuple[float, ...] = (1.0, 10.0, 100.0)
    streams: tuple[int, ...] = (1, 8, 64, 512)
    start: bool = True
    library: Path | None = None


def measure(
    file: Path = BUNDLED, options: Options | None = None, progress: Callable[[str], None] = lambda _: None
) -> Report:
    """Measure the model in `file` on this machine.

    Args:
        progress: called with what is measured next.

    Raises:
        ModelFileError: the model cannot be used.
        LibraryError: the library cannot be used here, or is not this model's.
        EdgeRnnError: the process that measures a start fails.
    """
    chosen = options or Options()
    model = load(file)
    library = None if chosen.library is None else Library(chosen.library)
    stepper = Stepper(model, library=library)
    weights = weights_digest(model)
    progress("outputs")
    output = Output(
        sha256=output_hash(model, library=library), golden=golden_hash(weights, stepper.numeric), steps=STEPS
    )
    where = environment(stepper.numeric, stepper.lanes, library=library)
    before = conditions()
    progress("steps")
    step = _step(model, stepper, chosen.seconds)
    path, rates = None, []
    if model.detector is not None:
        progress("the whole path of a reading")
        path = _path(file, model, chosen)
        for streams in chosen.streams:
            progress(f"{streams} streams")
            rates.append(_rate(file, model, streams, chosen))
    paced = []
    for hz in chosen.rates:
        progress(f"readings at {hz:g} Hz")
        paced.append(_paced(file, model, hz, chosen))
    start = None
    if chosen.start:
        progress("starts")
        start = starts(file, chosen.library)
    return Report(
        version=VERSION,
        date=time.strftime("%Y-%m-%d", time.gmtime()),
        seconds=chosen.seconds,
        environment=where,
        before=before,
        after=conditions(),
        network=_network(model, weights, bundled=golden_hash(weights, stepper.numeric) is not None),
        output=output,
        step=step,
        path=path,
        paced=paced,
        rates=rates,
        start=start,
    )


def _network(model: Model, weights: str, *, bundled: bool) -> Network:
    return Network(
        bundled=bundled,
        weights=weights,
        inputs=model.input_size,
        layers=[f"{r.cell} {r.input_size}-{r.output_size}" for r in model.layers]
        + [f"linear {h.input_size}-{h.output_size}" for h in model.head],
        parameters=model.parameters,
        macs=model.macs,
        detector=model.detector is not None,
    )


def _timed(times: timing.Times) -> Timed:
    return Timed(latency=timing.latency(times), histogram=timing.histogram(times))


def _step(model: Model, stepper: Stepper, seconds: float) -> Timed:
    xs = list(fixed_inputs(STEPS, model.input_size))
    return _timed(timing.each(lambda i: xs[i % STEPS], stepper.step, seconds))


def _path(file: Path, model: Model, options: Options) -> Timed:
    path = ReadingPath(file, model, library=options.library)
    readings = raw_readings(model, fixed_inputs(STEPS, model.input_size))
    return _timed(timing.each(lambda i: path.delivery(readings[i % STEPS], i), path.take, options.seconds))


def _paced(file: Path, model: Model, hz: float, options: Options) -> Paced:
    """At least three readings, however slow they come; a model without detector only steps."""
    xs = fixed_inputs(STEPS, model.input_size)
    count = max(3, round(hz * options.seconds))
    if model.detector is None:
        late, took = timing.paced(
            lambda i: xs[i % STEPS], Stepper(model, library=options.library).step, hz, count
        )
    else:
        path, readings = ReadingPath(file, model, library=options.library), raw_readings(model, xs)
        late, took = timing.paced(lambda i: path.delivery(readings[i % STEPS], i), path.take, hz, count)
    return Paced(hz=hz, late=timing.latency(late), latency=timing.latency(took))


def _rate(file: Path, model: Model, streams: int, options: Options) -> Rate:
    readings = raw_readings(model, fixed_inputs(STEPS, model.input_size))
    table = DetectorTable(model, streams, library=options.library)
    rows, times = np.arange(streams), np.zeros(streams, np.int64)
    x = np.resize(readings, (streams, model.channels))
    present, out = np.ones(x.shape, np.bool_), np.zeros(streams, table.verdict_dtype)

    def judge() -> None:
        times[:] += 10**6
        table.step_rows(rows, times, x, present, out)

    return Rate(
        streams=streams,
        path_per_s=_path_rate(ReadingPath(file, model, streams, options.library), readings, streams),
        detector_per_s=timing.per_second(judge, streams, options.seconds / 4),
    )


def _path_rate(path: ReadingPath, readings: NDArray[np.float64], streams: int) -> float:
    """Readings a second, the median of rounds; the messages of a round are made before its clock starts."""
    turns = max(1, _ROUND // streams)
    rates = []
    for round_ in range(_ROUNDS + 1):
        batches = [
            [path.delivery(readings[(i + s) % STEPS], i, s) for s in range(streams)]
            for i in range(round_ * turns, (round_ + 1) * turns)
        ]
        start = time.perf_counter_ns()
        for batch in batches:
            path.take(*batch)
        rates.append(turns * streams * 1e9 / (time.perf_counter_ns() - start))
    return float(np.median(rates[1:]))
