"""`edge-rnn calibrate`: scaling, guard limits and thresholds from recorded readings; the weights stay.

The network sees scaled readings, so a sensor with another offset or gain than the one it was trained on needs
another scaling, not another network. Everything is fitted by `edge_rnn.calibrate`, which runs the detector
itself and needs no torch. The result is written beside its place, loaded again (which replays the model's
self-test), and only then renamed: a model file is the old one or a good new one.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_rnn.calibrate import Options, Recording, calibrate_detector, scaling, silent_limit, stuck_limits
from edge_rnn.commands.evaluate import stamp
from edge_rnn.core.detector_spec import DetectorSpec, GuardSpec, ThresholdSpec
from edge_rnn.core.model import Model
from edge_rnn.detect.detector import Detector
from edge_rnn.detect.thresholds import FEWEST_EXCESSES, tail_value
from edge_rnn.detect.verdict import STATUSES
from edge_rnn.errors import ConfigError, DataError, ModelFileError
from edge_rnn.files.load import load
from edge_rnn.files.model_file import save
from edge_rnn.files.readings import Table, read_table
from edge_rnn.training.data import GAP_PERIODS, prepare, seconds

_DAY_NS = 86_400e9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `edge-rnn calibrate`."""
    parser.epilog = """\
DATA holds readings in which nothing was wrong, and which the network was not trained on: on rows it has
learned, thresholds come out too low. Needs no torch; runs on the device.

example:
  edge-rnn calibrate pump.safetensors last-week.csv -o pump.safetensors --alarms-per-day 0.1"""
    add = parser.add_argument
    add("model", metavar="MODEL", help="model file with a detector")
    add("data", nargs="+", metavar="DATA", help="CSV or NDJSON files with the model's inputs")
    add("-o", "--output", required=True, metavar="OUT", help="the model file to write; may be MODEL itself")
    add("--alarms-per-day", type=float, metavar="A", help="set the threshold for so many false alarms a day")
    add(
        "--quantile", type=float, metavar="Q", help="of the scores that the threshold is a multiple of (0.99)"
    )
    add("--keep-scaling", action="store_true", help="leave mean and spread of the channels as they are")
    add("--keep-guard", action="store_true", help="leave the limits for stuck, silent and pauses as they are")
    add("--time", metavar="COLUMN", help="the time column; default: found by name or content")
    add("--channels", metavar="A,B,...", help="columns for the model's inputs; default: their names")
    add("--delimiter", metavar="C", help="one character, or tab; default: found")
    add("--rows", type=int, metavar="N", help="use only the first N rows of each file")
    add("--json", action="store_true", help="print what changed as JSON")


@dataclass(frozen=True, slots=True)
class _Alarms:
    """What a detector says on the readings: alarms, days of readings, share of judged rows in alarm."""

    alarms: int
    days: float
    share: float

    @property
    def per_day(self) -> float:
        return self.alarms / self.days if self.days else float("nan")


def run(args: argparse.Namespace) -> int:
    """Calibrate, verify, write, and say what changed."""
    _check(args)
    old = load(args.model)
    spec = old.detector
    if spec is None:
        raise ModelFileError(
            f"{args.model}: no detector section to calibrate; train a detector with edge-rnn train"
        )
    if spec.kind == "classify":
        raise ModelFileError(f"{args.model}: a detector of kind classify has nothing to fit to readings")
    tables = _tables(args, [i.name for i in old.inputs])
    data = prepare(tables, args.rows)
    recordings: list[Recording] = [(s.times_ns, s.values) for s in data.stretches]
    new = old if args.keep_scaling else replace(old, scaler=scaling(recordings))
    guard = spec.guard if args.keep_guard else _guard(spec.guard, recordings, data.period_ns)
    new = calibrate_detector(new, recordings, None, _options(spec, guard, args.quantile))
    if args.alarms_per_day is not None:
        new = _at_rate(new, recordings, args.alarms_per_day, data.period_ns)
    before, after = (_alarms(model, recordings, data.period_ns) for model in (old, new))
    first = min(int(s.times_ns[0]) for s in data.stretches)
    last = max(int(s.times_ns[-1]) for s in data.stretches)
    fitted_to = {"rows": data.rows, "first": stamp(first), "last": stamp(last)}
    new = replace(new, provenance={**old.provenance, "calibrated": fitted_to})
    output = Path(args.output)
    _write(new, output)
    summary = _summary(old, new, before, after) | {"data": fitted_to, "notes": list(data.notes)}
    if args.json:
        sys.stdout.write(json.dumps({"model": output.name, **summary}, allow_nan=False) + "\n")
    else:
        sys.stdout.write("\n".join(_lines(summary, data.period_ns)) + f"\nwritten   {output}\n")
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.quantile is not None and not 0.5 <= args.quantile < 1:
        raise ConfigError(f"--quantile: expected 0.5 to below 1, got {args.quantile}")
    if args.alarms_per_day is not None and not 0 < args.alarms_per_day < 1e6:
        raise ConfigError(f"--alarms-per-day: expected a number above 0, got {args.alarms_per_day}")
    output = Path(args.output)
    if output.is_dir() or not output.parent.is_dir():
        raise ConfigError(f"--output: expected a file in a folder that exists, got {output}")
    if any(output.resolve() == Path(path).resolve() for path in args.data):
        raise ConfigError(f"--output: {output} is one of the data files and would be overwritten")


def _tables(args: argparse.Namespace, names: list[str]) -> list[Table]:
    columns = names if args.channels is None else [c.strip() for c in args.channels.split(",")]
    if len(columns) != len(names):
        raise DataError(
            f"--channels: expected {len(names)} column(s) for {', '.join(names)}, got {len(columns)}"
        )
    tables = [read_table(path, args.time, columns, None, args.delimiter) for path in args.data]
    values = np.concatenate([table.values[: args.rows] for table in tables])
    for name, column in zip(columns, values.T, strict=True):
        seen = column[np.isfinite(column)]
        if seen.size and seen.min() == seen.max():
            raise DataError(
                f"channel {name!r} is always {seen[0]:g} in these rows, so what is normal for it cannot be "
                "fitted; record for longer, until it has moved"
            )
    return tables


def _guard(old: GuardSpec, recordings: list[Recording], period_ns: int) -> GuardSpec:
    """The old guard with limits found in the readings; ranges and policies are the user's."""
    return msgspec.structs.replace(
        old,
        stuck_after=stuck_limits(recordings),
        silent_after_ns=silent_limit(recordings),
        gap_ns=GAP_PERIODS * period_ns if old.gap_ns else 0,
    )


def _options(spec: DetectorSpec, guard: GuardSpec, quantile: float | None) -> Options:
    """Options that give the detector the scorers, threshold kind and alarm that it has."""
    plain = Options()
    sources = {scorer.source for scorer in spec.scorers}
    kinds: dict[str, Any] = {"ewma_z": "ewma_z"}
    threshold: dict[str, Any] = {"dspot": "dspot", "dspot_ewma": "dspot_ewma"}
    return replace(
        plain,
        kind="reconstruct" if spec.kind == "reconstruct" else "forecast",
        scorer=kinds.get(spec.scorers[0].kind, plain.scorer),
        rate=spec.scorers[0].rate,
        residual_factor=plain.residual_factor if "residual" in sources else 0.0,
        input_factor=plain.input_factor if "input" in sources else 0.0,
        threshold=threshold.get(spec.threshold.kind, plain.threshold),
        risk=spec.threshold.risk,
        quantile=plain.quantile if quantile is None else quantile,
        warmup=spec.warmup,
        max_freeze=spec.threshold.max_freeze,
        alarm=spec.alarm,
        guard=guard,
        condition=spec.condition,
    )


def _verdicts(model: Model, recordings: list[Recording]) -> list[NDArray[np.void]]:
    detector = Detector(model)
    found = []
    for times, values in recordings:
        detector.reset()
        found.append(detector.run(times, values))
    return found


def _at_rate(model: Model, recordings: list[Recording], per_day: float, period_ns: int) -> Model:
    """The threshold that scores exceed `per_day` times a day: a quantile, or beyond it the tail estimate."""
    assert model.detector is not None
    verdicts = np.concatenate(_verdicts(model, recordings))
    scores = verdicts["score"][np.isfinite(verdicts["score"])]
    risk = per_day * period_ns / _DAY_NS
    if risk >= 0.5:
        raise ConfigError(
            f"--alarms-per-day: {per_day:g} a day is more than every second reading; expected fewer than "
            f"{0.5 * _DAY_NS / period_ns:.3g}"
        )
    # Scores during an alarm that follows the level no longer count against a moving mean: fixed it is.
    if risk * len(scores) >= FEWEST_EXCESSES:
        value = float(np.quantile(scores, 1.0 - risk))
    else:
        level = float(np.quantile(scores, 0.98))
        excess = scores[scores > level] - level
        if len(excess) < FEWEST_EXCESSES:
            raise DataError(
                f"--alarms-per-day: {len(scores)} scores are too few for an estimate; expected at least "
                f"{50 * FEWEST_EXCESSES}: record for longer"
            )
        squares = float((excess * excess).sum())
        value = tail_value(level, len(scores), len(excess), float(excess.sum()), squares, risk)
    freeze = model.detector.threshold.max_freeze
    threshold = ThresholdSpec(kind="quantile", value=max(value, 1e-9), max_freeze=freeze)
    return replace(model, detector=msgspec.structs.replace(model.detector, threshold=threshold))


def _alarms(model: Model, recordings: list[Recording], period_ns: int) -> _Alarms:
    alarms = rows = on = 0
    for verdicts in _verdicts(model, recordings):
        alarm = verdicts["alarm"] == 1
        judged = verdicts["status"] != STATUSES.index("warming")
        alarms += int((alarm & ~np.concatenate([[False], alarm[:-1]])).sum())
        rows += int(judged.sum())
        on += int(alarm.sum())
    return _Alarms(alarms, rows * period_ns / _DAY_NS, on / max(rows, 1))


def _write(model: Model, output: Path) -> None:
    """Write, load again with its self-test, and only then take the place of what was there."""
    temporary = output.with_name(f".{output.name}.{secrets.token_hex(4)}.safetensors")
    try:
        save(model, temporary)
        load(temporary)
        temporary.replace(output)
    except OSError as error:
        raise ModelFileError(f"{output}: cannot be written: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _summary(old: Model, new: Model, before: _Alarms, after: _Alarms) -> dict[str, Any]:
    assert old.detector is not None
    assert new.detector is not None
    count = old.detector.guard.stuck_after, new.detector.guard.stuck_after
    channels = []
    for c, channel in enumerate(new.inputs):
        entry: dict[str, Any] = {"name": channel.name}
        for word, model, stuck in (("before", old, count[0]), ("after", new, count[1])):
            mean = 0.0 if model.scaler is None else float(model.scaler.mean[c])
            std = 1.0 if model.scaler is None else float(model.scaler.std[c])
            entry[word] = {"mean": mean, "std": std, "stuck_after": int(stuck[c]) if stuck else 0}
        channels.append(entry)

    def detector(spec: DetectorSpec, alarms: _Alarms) -> dict[str, Any]:
        return {
            "threshold": spec.threshold.value, "rule": spec.threshold.kind,
            "units": [{"kind": s.kind, "source": s.source, "unit": s.unit} for s in spec.scorers],
            "silent_after_ns": spec.guard.silent_after_ns, "gap_ns": spec.guard.gap_ns,
            "alarms": alarms.alarms, "alarms_per_day": alarms.per_day, "share_in_alarm": alarms.share,
        }  # fmt: skip

    return {
        "channels": channels,
        "before": detector(old.detector, before),
        "after": detector(new.detector, after),
    }


def _lines(summary: dict[str, Any], period_ns: int) -> list[str]:
    data = summary["data"]
    lines = [f"note      {note}" for note in summary["notes"]]
    span = f"{data['first']} to {data['last']}"
    lines.append(f"data      {data['rows']} rows, one every {seconds(period_ns)}, {span}")
    for channel in summary["channels"]:
        a, b = channel["before"], channel["after"]
        lines.append(
            f"channel   {channel['name']}: mean {a['mean']:.6g} -> {b['mean']:.6g}, spread {a['std']:.4g} -> "
            f"{b['std']:.4g}, stuck after {a['stuck_after'] or 'never'} -> {b['stuck_after'] or 'never'}"
        )
    before, after = summary["before"], summary["after"]
    for a, b in zip(before["units"], after["units"], strict=False):
        lines.append(f"scorer    {b['kind']} of {b['source']}: unit {a['unit']:.4g} -> {b['unit']:.4g}")
    lines.append(
        f"threshold {before['threshold']:.4g} ({before['rule']}) -> "
        f"{after['threshold']:.4g} ({after['rule']})"
    )
    for word, part in (("before", before), ("after", after)):
        lines.append(
            f"{word:<9} {part['alarms']} alarm(s) on these readings, {part['alarms_per_day']:.3g} a day, "
            f"in alarm {100 * part['share_in_alarm']:.2f} % of the time"
        )
    return lines
