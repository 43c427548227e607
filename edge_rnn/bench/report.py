"""The report of one run of `edge-rnn bench`: plain values, written as JSON and read back strictly.

Times are nanoseconds where the name ends in `_ns`, else the unit in the name. A quantile that the number of
calls cannot support is null: p99 needs 100 calls, p99.9 needs 1,000. `decode` is for reports made elsewhere:
it accepts no unknown field, no wrong type, no negative or unordered time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from edge_rnn.errors import DataError

VERSION: Final = 1
MAX_BYTES: Final = 1 << 20

Text = Annotated[str, Meta(max_length=200)]
Count = Annotated[int, Meta(ge=0)]
Amount = Annotated[float, Meta(ge=0)]
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all parts of a report."""


class Latency(Record, frozen=True):
    """Time of one call, over `calls` of them."""

    calls: Annotated[int, Meta(ge=1)]
    p50_ns: Amount
    p90_ns: Amount
    p99_ns: Amount | None
    p999_ns: Amount | None
    max_ns: Amount


class Histogram(Record, frozen=True):
    """How many calls took edges_ns[i] <= t < edges_ns[i + 1]; edges grow by a constant factor."""

    edges_ns: list[Amount]
    counts: list[Count]


class Timed(Record, frozen=True):
    """One thing called again and again without a pause."""

    latency: Latency
    histogram: Histogram


class Paced(Record, frozen=True):
    """One reading every 1/hz seconds: how late the process woke, and how long the reading then took."""

    hz: Amount
    late: Latency
    latency: Latency


class Rate(Record, frozen=True):
    """Readings a second when each of `streams` streams sends one at the same moment."""

    streams: Annotated[int, Meta(ge=1)]
    path_per_s: Amount
    detector_per_s: Amount


class Start(Record, frozen=True):
    """One start of a fresh interpreter; ms since the parent called for it. RSS in KiB."""

    imported_ms: Amount
    ready_ms: Amount
    first_score_ms: Amount
    rss_kib: Count
    peak_rss_kib: Count


class Starts(Record, frozen=True):
    """`cold`: nothing compiled yet, neither bytecode nor machine code; `warm`: the start after it."""

    cold: Start
    warm: Start


class Network(Record, frozen=True):
    """Which model was measured; its file and name stay private unless it is the bundled one."""

    bundled: bool
    weights: Digest
    inputs: Count
    layers: list[Text]
    parameters: Count
    macs: Count
    detector: bool


class Output(Record, frozen=True):
    """The hash over the outputs for the fixed input stream, and the golden one where there is one."""

    sha256: Digest
    golden: Digest | None
    steps: Count


class Conditions(Record, frozen=True):
    """What changes while a machine works; read before and after. Null: the system does not say."""

    mhz: list[Amount]
    temperature_c: float | None
    throttled: Text | None
    load: Amount | None


class Environment(Record, frozen=True):
    """What the figures depend on.

    board: the device tree's model, null where there is none; emulation: signs that the processor is
    emulated, empty where none was found; virtual: the processor says it belongs to a virtual machine.
    """

    cpu: Text
    cores: Count
    machine: Text
    bits: Count
    board: Text | None
    emulation: list[Text]
    virtual: bool
    system: Text
    kernel: Text
    governors: list[Text]
    clock_overhead_ns: Amount
    versions: dict[Text, Text]
    backend: Text
    numeric: Annotated[str, Meta(pattern="^[FU]$")]
    lanes: Count
    target: Text


class Report(Record, frozen=True):
    """Everything one run found; parts that were not asked for, or that the model does not have, are null."""

    version: Annotated[int, Meta(ge=1, le=VERSION)]
    date: Annotated[str, Meta(pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]
    seconds: Amount
    environment: Environment
    before: Conditions
    after: Conditions
    network: Network
    output: Output
    step: Timed
    path: Timed | None
    paced: list[Paced]
    rates: list[Rate]
    start: Starts | None
    energy_per_step_j: Amount | None = None


def encode(report: Report) -> bytes:
    """The report as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n"


def decode(data: bytes, where: str) -> Report:
    """Read a report back.

    Args:
        where: the file's name, for messages.

    Raises:
        DataError: not a report, or its figures contradict one another.
    """
    if len(data) > MAX_BYTES:
        raise DataError(f"{where}: expected at most {MAX_BYTES} bytes, got {len(data)}")
    try:
        report = msgspec.json.decode(data, type=Report)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        what = " ".join(str(error).split())[:200]
        raise DataError(
            f"{where}: not a report of `edge-rnn bench --json`: {what}; make it again with this version"
        ) from None
    for name, latency in _latencies(report):
        times = [latency.p50_ns, latency.p90_ns, latency.p99_ns, latency.p999_ns, latency.max_ns]
        known = [t for t in times if t is not None]
        if not all(map(math.isfinite, known)) or sorted(known) != known:
            raise DataError(f"{where}: {name}: expected finite times in rising order, got {known}")
    for name, timed in (("step", report.step), ("path", report.path)):
        if timed is None:
            continue
        edges, counts = timed.histogram.edges_ns, timed.histogram.counts
        if len(edges) != len(counts) + 1 or sorted(set(edges)) != edges:
            raise DataError(
                f"{where}: {name}.histogram: expected rising edges, one more than counts, "
                f"got {len(edges)} and {len(counts)}"
            )
    return report


def _latencies(report: Report) -> Iterator[tuple[str, Latency]]:
    yield "step", report.step.latency
    if report.path is not None:
        yield "path", report.path.latency
    for paced in report.paced:
        yield f"paced at {paced.hz:g} Hz, late", paced.late
        yield f"paced at {paced.hz:g} Hz, latency", paced.latency
