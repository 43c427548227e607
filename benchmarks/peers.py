"""This runtime beside what users would pick instead: one reading with carried state, batch 1, one thread.

    pip install 'edge-rnn[peers]'
    taskset -c 1 python -m benchmarks.peers [--rounds 7] [--shapes 1/16/1,8/64/1] [--json FILE]
    python -m benchmarks.peers --from FILE [--plot OUT.png]      table and picture of a stored run

Every peer first has to give the outputs of the float64 reference within PARITY over 200 carried steps; one
that does not, or is not installed, is left out, and the reason is printed and stored. Then rounds: in each,
every contender of a network has its turn, so that a change of the machine's mood meets them all. Figures are
medians of the rounds with quartiles; "times ours" is the median of the rounds' ratios, as is the ratio to
LIMIT (see `speed.py`; none is given where LIMIT does not reach the machine). The JSON holds all that the
table and the picture show, and the conditions; no name of a person, host or folder.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.conftest import SHAPES, forecaster
from benchmarks.peer_steps import RUNS, STEPS, AbsentError
from benchmarks.speed import REACHED, NoLimitError, compile_limit, measure_limit, ns_per_call, weights_size
from edge_rnn import Model, Stepper
from edge_rnn.bench.environment import conditions, environment
from edge_rnn.core.model import GATES
from edge_rnn.core.reference import Reference

PARITY = 2e-6
OURS = "edge-rnn step"
RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "onnx", "onnxruntime", "ai-edge-litert", "openvino")
_TURN_NS = 4e6


@dataclass(frozen=True, slots=True)
class Row:
    """One contender and network: ns a reading, quartiles; ratios are medians of the rounds' ratios."""

    network: str
    peer: str
    ns: float
    quartiles: tuple[float, float]
    times_ours: float
    times_limit: float | None
    error: float


@dataclass(frozen=True, slots=True)
class Contender:
    """`call` on `argument` does `readings` readings; `calls` of them make a turn."""

    peer: str
    call: Any
    argument: np.ndarray
    readings: int
    calls: int
    error: float


def contenders(model: Model) -> tuple[list[Contender], dict[str, str]]:
    """All that can take part, with parity checked, and the reasons of those that cannot."""
    rng = np.random.default_rng(1)
    xs = rng.standard_normal((200, model.input_size)).astype(np.float32)
    want = Reference(model).run(xs)
    found, absent = [], {}
    for peer, make in STEPS.items():
        try:
            step = make(model)
        except AbsentError as error:
            absent[peer] = str(error)
            continue
        error = float(np.abs(np.array([np.array(step(x)) for x in xs]) - want).max())
        start = time.perf_counter_ns()
        for x in xs:
            step(x)
        cost = (time.perf_counter_ns() - start) / len(xs)
        found.append(Contender(peer, step, xs[0].copy(), 1, max(20, int(_TURN_NS / cost)), error))
    for peer, make_run in RUNS.items():
        try:
            run = make_run(model)
        except AbsentError as error:
            absent[peer] = str(error)
            continue
        error = float(np.abs(run(xs) - want).max())
        found.append(Contender(peer, run, np.tile(xs, (10, 1)), 10 * len(xs), 1, error))
    for one in list(found):
        # Written so that a NaN is left out, too.
        if not one.error <= PARITY:
            absent[one.peer] = f"outputs differ from the float64 reference by {one.error:.2g}"
            found.remove(one)
    return found, absent


def measure(
    cell: str, shape: tuple[int, int, int], rounds: int, program: Path | None
) -> tuple[list[Row], dict[str, str]]:
    """All contenders for one network, taking turns."""
    model = forecaster(cell, *shape)
    found, absent = contenders(model)
    times: dict[str, list[float]] = {one.peer: [] for one in found}
    limits, shares = [], []
    for _ in range(rounds):
        if program is not None:
            spec = ",".join(map(str, (GATES[cell], *shape)))
            limit = measure_limit(program, spec, weights_size(model))
            limits.append(limit.product)
            shares.append(limit.share)
        for one in found:
            one.call(one.argument)
            times[one.peer].append(ns_per_call(one.call, one.argument, one.calls) / one.readings)
    counts = bool(shares) and statistics.median(shares) >= REACHED
    network = f"{cell.upper()} {'/'.join(map(str, shape))}"
    rows = []
    for one in found:
        own = times[one.peer]
        low, _, high = statistics.quantiles(own, n=4)
        to_limit = [t / limit for t, limit in zip(own, limits, strict=True)] if counts else []
        rows.append(
            Row(
                network=network,
                peer=one.peer,
                ns=statistics.median(own),
                quartiles=(low, high),
                times_ours=statistics.median(t / o for t, o in zip(own, times[OURS], strict=True)),
                times_limit=statistics.median(to_limit) if to_limit else None,
                error=one.error,
            )
        )
    return rows, absent


def versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def report(cells: list[str], shapes: list[tuple[int, int, int]], rounds: int) -> dict[str, Any]:
    """The whole run as plain JSON."""
    stepper = Stepper(forecaster("gru", 1, 16, 1))
    where, before = environment(stepper.numeric, stepper.lanes), conditions()
    rows: list[Row] = []
    left_out: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            program = compile_limit(Path(folder))
        except NoLimitError as error:
            left_out["LIMIT"], program = str(error), None
        for cell in cells:
            for shape in shapes:
                own, absent = measure(cell, shape, rounds, program)
                rows += own
                left_out |= absent
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "kind": "measured",
        "rounds": rounds,
        "cpu": where.cpu,
        "machine": where.machine,
        "virtual": where.virtual,
        "governors": where.governors,
        "load": [before.load, conditions().load],
        "code": {"class": where.numeric, "lanes": where.lanes, "target": where.target},
        "versions": where.versions | versions(),
        "left_out": left_out,
        "rows": [asdict(row) for row in rows],
    }


def table(found: dict[str, Any]) -> str:
    """Markdown: ns a reading, in brackets how many times ours, for each network and contender."""
    rows = found["rows"]
    networks = list(dict.fromkeys(row["network"] for row in rows))
    by = {(row["peer"], row["network"]): row for row in rows}
    peers = sorted(
        dict.fromkeys(row["peer"] for row in rows),
        key=lambda peer: (peer in RUNS, next(by[peer, n]["ns"] for n in networks if (peer, n) in by)),
    )
    lines = [f"| ns a reading | {' | '.join(networks)} |", "|---" * (len(networks) + 1) + "|"]
    for peer in peers:
        cells = []
        for network in networks:
            row = by.get((peer, network))
            cells.append("-" if row is None else f"{row['ns']:,.0f} ({row['times_ours']:.3g}x)")
        lines.append(f"| {peer} | {' | '.join(cells)} |")
    for peer, of in ((OURS, "step"), ("edge-rnn run, in one call", "run")):
        ratios = [by[peer, n]["times_limit"] if (peer, n) in by else None for n in networks]
        cells = ["-" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
        lines.append(f"| {of} / LIMIT | {' | '.join(cells)} |")
    spread = statistics.median((r["quartiles"][1] - r["quartiles"][0]) / r["ns"] for r in rows)
    known = ", ".join(f"{k} {v}" for k, v in found["versions"].items() if v != "not installed")
    load = " to ".join("unknown" if x is None else f"{x:g}" for x in found["load"])
    lines += [
        "",
        f"Measured {found['date']} on {found['cpu']}" + " (virtual machine)" * found["virtual"]
        + f", one thread, load {load}, {found['rounds']} rounds in turn, medians; quartile range / median "
        f"{spread:.0%} in the median. In brackets: times `step`. {known}.",
    ]  # fmt: skip
    lines += [f"Left out: {peer}: {reason}." for peer, reason in found["left_out"].items()]
    return "\n".join(lines)


def draw(found: dict[str, Any], path: Path) -> None:
    """One panel a network: medians as bars on a logarithmic axis, quartiles as whiskers."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    networks = list(dict.fromkeys(row["network"] for row in found["rows"]))
    columns = min(len(networks), 2)
    lines = -(-len(networks) // columns)
    figure = Figure(figsize=(6.5 * columns, 0.8 + 3.2 * lines), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(lines, columns, squeeze=False, sharex=True).ravel()
    for axis in axes[len(networks) :]:
        axis.set_visible(False)
    for axis, network in zip(axes, networks, strict=False):
        rows = sorted((r for r in found["rows"] if r["network"] == network), key=lambda r: -r["ns"])
        ns = np.array([row["ns"] for row in rows])
        low, high = np.array([row["quartiles"] for row in rows]).T
        colors = ["#e07b00" if row["peer"].startswith("edge-rnn") else "#1f4e79" for row in rows]
        whiskers = np.maximum(np.stack([ns - low, high - ns]), 0) / 1000
        axis.barh([row["peer"] for row in rows], ns / 1000, color=colors, xerr=whiskers, ecolor="#888888")
        for place, (row, end) in enumerate(zip(rows, high, strict=True)):
            axis.text(end / 1000 * 1.15, place, f"{row['ns'] / 1000:.3g} µs", va="center", fontsize=7)
        axis.set_xscale("log")
        axis.set_xlim(None, 3 * max(row["ns"] for row in found["rows"]) / 1000)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_title(network, loc="left", fontsize=10)
        axis.set_xlabel("µs a reading (logarithmic)", fontsize=8)
    figure.suptitle(f"One reading, {found['cpu']}, {found['date']}", x=0.01, ha="left", fontweight="bold")
    figure.savefig(path, metadata={"Software": None})


def shape(text: str) -> tuple[int, int, int]:
    """I/H/L."""
    found = re.fullmatch(r"([1-9][0-9]{0,3})/([1-9][0-9]{0,3})/([1-9])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected I/H/L such as 8/64/1, got {text!r}")
    return int(found[1]), int(found[2]), int(found[3])


def shapes(text: str) -> list[tuple[int, int, int]]:
    """Several, with commas."""
    return [shape(part) for part in text.split(",")]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="peers", description="one reading, beside other runtimes")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--shapes", type=shapes, default=SHAPES)
    parser.add_argument("--cells", choices=["lstm", "gru", "both"], default="both")
    parser.add_argument("--json", type=Path, help="default: results/peers-<cpu>.json beside this file")
    parser.add_argument("--from", dest="stored", type=Path, metavar="FILE", help="a stored run")
    parser.add_argument("--plot", type=Path, metavar="OUT.png")
    options = parser.parse_args(arguments)
    if options.rounds < 5:
        parser.error(f"--rounds: expected at least 5, got {options.rounds}")
    if options.stored is not None:
        try:
            found = json.loads(options.stored.read_text())
            text = table(found)
        except (OSError, ValueError, KeyError, TypeError) as error:
            print(f"peers: {options.stored}: not a stored run: {error!r:.100}", file=sys.stderr)
            return 1
    else:
        cells = ["lstm", "gru"] if options.cells == "both" else [options.cells]
        found = report(cells, options.shapes, options.rounds)
        slug = re.sub(r"[^a-z0-9]+", "-", found["cpu"].lower()).strip("-")
        target = options.json or RESULTS / f"peers-{slug}.json"
        target.write_text(json.dumps(found, indent=1) + "\n")
        text = table(found)
    print(text)
    if options.plot:
        draw(found, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
