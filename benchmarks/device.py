"""Figures of small hardware in one table, from files: what is measured, what is not, and who says so.

    edge-rnn bench --json > board.json                   on the board
    python -m benchmarks.device add board.json           checked, then stored as results/<board>.json
    python -m benchmarks.device table                    Markdown of everything in results/

Four kinds of figures stand in four tables and are never mixed:

    measured      `host-*.json`: reports of `edge-rnn bench --json` on the machine named, which is no board
    emulated      `emulated-*.json`: outputs under an emulator, equal or not; such a file may hold no time
    estimated     `estimated-*.json`: cycles counted by a tool, as an interval, with the tool's error where
                  the truth is known; never one number
    contributed   `board-*.json`: reports from real boards

A contributed report is refused unless it names its board (/proc/device-tree/model), shows no sign of
emulation, is of the bundled model with the golden output hash of its numeric class, and holds every
measurement. It is the contributor's word all the same: nothing here can prove where a file was made.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from edge_rnn.bench.inputs import BUNDLED, STEPS, golden_hash
from edge_rnn.bench.report import Report, decode, encode
from edge_rnn.commands.bench import duration
from edge_rnn.core.digest import weights_digest
from edge_rnn.errors import DataError, EdgeRnnError
from edge_rnn.files.load import load, read_file

RESULTS = Path(__file__).parent / "results"
T = TypeVar("T")
_RATES = {1.0, 10.0, 100.0}


class Emulated(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Correctness under an emulator: no field of this record can hold a time."""

    kind: Literal["emulated"]
    date: str
    target: str
    emulator: str
    what: str
    equal: bool


class Cycles(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A step of one network: instructions run, cycles by static counting: throughput (low) and serial."""

    what: str
    instructions: Annotated[int, Meta(gt=0)]
    low: Annotated[float, Meta(gt=0)]
    high: Annotated[float, Meta(gt=0)]


class Estimate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Cycles a step on one core, see `benchmarks.estimate`, at its boards' clocks.

    host_error: true cycles over the tool's low figure on the processor `host`, where both are known; smallest
    and largest.
    """

    kind: Literal["estimated"]
    date: str
    core: str
    board: str
    mhz: Annotated[tuple[Annotated[float, Meta(gt=0)], ...], Meta(min_length=1)]
    rows: Annotated[list[Cycles], Meta(min_length=1)]
    tool: str
    host: str
    host_error: tuple[Annotated[float, Meta(gt=0)], Annotated[float, Meta(gt=0)]]


def check_host(report: Report, where: str) -> None:
    """Raise `DataError` unless the bits of a measured report are right and its processor is real."""
    e, output = report.environment, report.output
    if e.emulation:
        raise DataError(f"{where}: emulation detected ({'; '.join(e.emulation)}): times would mean nothing")
    weights = weights_digest(load(BUNDLED))
    if report.network.weights != weights:
        raise DataError(
            f"{where}: expected the bundled model {weights[:16]}..., got {report.network.weights[:16]}...; "
            "run edge-rnn bench without a model, with this version"
        )
    golden = golden_hash(weights, e.numeric)
    if output.sha256 != golden or output.golden != golden or output.steps != STEPS:
        raise DataError(
            f"{where}: outputs: expected the hash {golden} of class {e.numeric} over {STEPS} steps, "
            f"got {output.sha256} over {output.steps}; other bits were computed, or the file was changed"
        )


def check_board(report: Report, where: str) -> str:
    """The board's name, if the report may stand among contributed ones.

    Raises:
        DataError: it may not; the message says why.
    """
    board = report.environment.board
    if not board or not board.strip():
        raise DataError(
            f"{where}: no board: /proc/device-tree/model was missing where this was made; "
            "only reports of a real board are collected"
        )
    check_host(report, where)
    if report.environment.virtual:
        raise DataError(f"{where}: made in a virtual machine; only reports of a real board are collected")
    missing = [name for name in ("path", "start") if getattr(report, name) is None]
    missing += [f"{hz:g} Hz" for hz in sorted(_RATES - {paced.hz for paced in report.paced})]
    missing += [] if report.rates else ["streams"]
    if missing:
        what = ", ".join(missing)
        raise DataError(
            f"{where}: incomplete, without {what}; run edge-rnn bench --json without other options"
        )
    return board


def read_report(path: Path) -> Report:
    """A report from a file, or `DataError`."""
    try:
        return decode(read_file(path), path.name)
    except EdgeRnnError as error:
        raise DataError(str(error)) from None


def add(path: Path, results: Path) -> Path:
    """Check a contributed report and store it under its board's name."""
    report = read_report(path)
    board = check_board(report, path.name)
    slug = re.sub(r"[^a-z0-9]+", "-", board.lower()).strip("-")
    if not slug:
        raise DataError(f"{path.name}: board: expected a name with letters or digits, got {board!r}")
    target = results / f"board-{slug}.json"
    target.write_bytes(encode(report))
    return target


def collect(results: Path) -> str:
    """Markdown of all files in `results`, each checked again."""
    parts = [
        _reports("Measured, on the host named (no small board)", results, "host"),
        _reports("Contributed, from real boards", results, "board"),
        _emulated(results),
        _estimated(results),
    ]
    return "\n\n".join(part for part in parts if part)


def _reports(title: str, results: Path, kind: str) -> str:
    files = sorted(results.glob(f"{kind}-*.json"))
    if not files:
        return f"**{title}**: none yet."
    heads = [
        "machine", "step", "decode to encode", "late at 100 Hz (p50 / max)", "readings/s (streams)", "start",
        "RSS", "joule a step", "conditions",
    ]  # fmt: skip
    lines = [
        f"**{title}** (p50 / p99 / p99.9; start: cold / warm until the first score)", "",
        f"| {' | '.join(heads)} |", "|---" * len(heads) + "|",
    ]  # fmt: skip
    check = check_board if kind == "board" else check_host
    for path in files:
        report = read_report(path)
        check(report, path.name)
        lines.append(_row(report))
    return "\n".join(lines)


def _row(report: Report) -> str:
    e = report.environment

    def quantiles(timed: object) -> str:
        latency = getattr(timed, "latency", None)
        if latency is None:
            return "-"
        return " / ".join(duration(t) for t in (latency.p50_ns, latency.p99_ns, latency.p999_ns))

    paced = next((p for p in report.paced if p.hz == 100.0), None)
    late = "-" if paced is None else f"{duration(paced.late.p50_ns)} / {duration(paced.late.max_ns)}"
    most = max(report.rates, key=lambda r: r.streams, default=None)
    rate = "-" if most is None else f"{most.path_per_s:,.0f} ({most.streams})"
    start, rss = "-", "-"
    if report.start is not None:
        both = (report.start.cold, report.start.warm)
        start = " / ".join(duration(s.first_score_ms * 1e6) for s in both)
        rss = f"{report.start.warm.rss_kib / 1024:.0f} MiB"
    energy = "" if report.energy_per_step_j is None else f"{report.energy_per_step_j:.3g}"
    known = [
        ", ".join(e.governors),
        f"{max(report.after.mhz):,.0f} MHz" if report.after.mhz else "",
        f"{report.after.temperature_c:.0f} °C" if report.after.temperature_c is not None else "",
        f"throttled {report.after.throttled}" if report.after.throttled else "",
        f"load {report.before.load:g}" if report.before.load is not None else "",
        "virtual machine" if e.virtual else "",
        f"class {e.numeric}, {e.lanes} lanes",
        report.date,
    ]
    cells = [
        f"{e.board or e.cpu}, {e.cores} cores", quantiles(report.step), quantiles(report.path), late, rate,
        start, rss, energy, ", ".join(part for part in known if part),
    ]  # fmt: skip
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"


def _emulated(results: Path) -> str:
    lines = ["**Emulated: correctness only, never a time**", ""]
    lines += ["| target | emulator | what | bits |", "|---|---|---|---|"]
    files = sorted(results.glob("emulated-*.json"))
    for path in files:
        one = _decode(path, Emulated)
        lines.append(f"| {one.target} | {one.emulator} | {one.what} | {'equal' if one.equal else 'DIFFER'} |")
    return "\n".join(lines) if files else ""


def _estimated(results: Path) -> str:
    files = sorted(results.glob("estimated-*.json"))
    if not files:
        return ""
    lines = [
        "**Estimate, not measured** (throughput .. serial; no caches, no branch misses)", "",
        "| core | network | cycles a step | time a step |", "|---|---|---|---|",
    ]  # fmt: skip
    tools = []
    for path in files:
        one = _decode(path, Estimate)
        if one.host_error[0] > one.host_error[1] or not all(row.low < row.high for row in one.rows):
            raise DataError(f"{path.name}: expected an interval of cycles and of the error, low before high")
        for row in one.rows:
            times = [
                f"{duration(row.low / mhz * 1000)} .. {duration(row.high / mhz * 1000)} at {mhz / 1000:g} GHz"
                for mhz in one.mhz
            ]
            lines.append(
                f"| {one.core} ({one.board}) | {row.what} | {row.low:,.0f} .. {row.high:,.0f} | "
                f"{'; '.join(times)} |"
            )
        low, high = one.host_error
        tools.append(f"{one.tool}; on {one.host} the truth was {low:g} to {high:g} times the low figure.")
    return "\n".join([*lines, "", *dict.fromkeys(tools)])


def _decode(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OSError) as error:
        raise DataError(f"{path.name}: {' '.join(str(error).split())[:200]}") from None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="device", description="figures of small hardware, from files")
    parser.add_argument("--results", type=Path, default=RESULTS)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("add").add_argument("file", type=Path)
    verbs.add_parser("table")
    options = parser.parse_args(arguments)
    try:
        print(add(options.file, options.results).name if options.verb == "add" else collect(options.results))
    except DataError as error:
        print(f"device: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
