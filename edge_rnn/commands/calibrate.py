"""`edge-rnn calibrate`: scaling, guard limits and thresholds from recorded readings; the weights stay.

The network sees scaled readings, so a sensor with another offset or gain than the one it was trained on needs
another scaling, not another network. Everything is fitted by `edge_rnn.calibrate`, which runs the detector
itself and needs no torch. The result is written beside its place, loaded again (which replays the model's
self-test), and only then renamed: a model file is the old one or a good new one.
"""

from __future__ import annotations

import argparse
import json
import math
import secrets
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_rnn.calibrate import (
    Options,
    Recording,
    fit_detector,
    period,
    scaling,
    silent_limit,
    stuck_limits,
)
from edge_rnn.commands.evaluate import stamp
from edge_rnn.core.detector_spec import DetectorSpec, GuardSpec
from edge_rnn.core.model import Model
from edge_rnn.detect.detector import Detector
from edge_rnn.detect.thresholds import FEWEST_EXCESSES
from edge_rnn.detect.verdict import STATUSES
from edge_rnn.errors import ConfigError, DataError, ModelFileError
from edge_rnn.files.load import load
from edge_rnn.files.model_file import save
from edge_rnn.files.readings import Table, read_table
from edge_rnn.files.text import length_text
from edge_rnn.training.data import GAP_PERIODS, prepare, seconds

_DAY_NS = 86_400e9
_RECORDED = "verdict.alarm"


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
    add(
        "--keep-alarms", action="store_true", help="take rows that were in alarm when they were recorded, too"
    )
    add("--json", action="store_true", help="print what changed as JSON")


@dataclass(frozen=True, slots=True)
class _Alarms:
    """What a detector says on the readings: alarms, days, share of judged rows in alarm, rows at fault."""

    alarms: int
    days: float
    share: float
    faulty: int

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
    tables, warnings = _tables(args, [i.name for i in old.inputs])
    data = prepare(tables, args.rows)
    recordings: list[Recording] = [(s.times_ns, s.values) for s in data.stretches]
    new = old if args.keep_scaling else replace(old, scaler=scaling(recordings, spec.condition.trend))
    guard = spec.guard if args.keep_guard else _guard(spec.guard, recordings, data.period_ns)
    quantile = Options().quantile if args.quantile is None else args.quantile
    new = _fitted(new, recordings, guard, quantile, args.alarms_per_day)
    before, after = (_alarms(model, recordings, data.period_ns) for model in (old, new))
    first = min(int(s.times_ns[0]) for s in data.stretches)
    last = max(int(s.times_ns[-1]) for s in data.stretches)
    fitted_to = {"rows": data.rows, "first": stamp(first - first % 10**9), "last": stamp(last - last % 10**9)}
    new = replace(new, provenance={**old.provenance, "calibrated": fitted_to})
    output = Path(args.output)
    _write(new, output)
    if before.faulty and not args.keep_scaling:
        warnings.append(
            f"the detector as it is finds a faulty channel (stuck, out of range, missing) in {before.faulty} "
            "of these rows; where it is right, cut them out: what is normal is fitted to them, too"
        )
    warnings += _too_short(data.rows, data.period_ns, quantile, args.alarms_per_day)
    summary = _summary(old, new, before, after)
    summary |= {"data": fitted_to, "notes": list(data.notes), "warnings": warnings}
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


def _tables(args: argparse.Namespace, names: list[str]) -> tuple[list[Table], list[str]]:
    """The readings, without those that were in alarm when they were recorded; and what to say about that."""
    columns = names if args.channels is None else [c.strip() for c in args.channels.split(",")]
    if len(columns) != len(names):
        raise DataError(
            f"--channels: expected {len(names)} column(s) for {', '.join(names)}, got {len(columns)}"
        )
    tables, alarmed = [], 0
    for path in args.data:
        read = partial(read_table, path, args.time, columns, delimiter=args.delimiter)
        try:
            table = read(labels=_RECORDED)
        except DataError as error:
            if _RECORDED not in str(error):
                raise
            # Not one of the daemon's own records: nothing says what was thought of these readings.
            table = read()
        was = table.labels
        if was is not None and was.any():
            alarmed += int(was[: args.rows].sum())
            if not args.keep_alarms:
                table = replace(table, times_ns=table.times_ns[~was], values=table.values[~was])
        tables.append(replace(table, labels=None))
    _check_channels(columns, tables, args.rows)
    if not alarmed:
        return tables, []
    if args.keep_alarms:
        return tables, [f"{alarmed} row(s) were in alarm when they were recorded and are taken as normal"]
    return tables, [
        f"{alarmed} row(s) were in alarm when they were recorded and are left out (--keep-alarms)"
    ]


def _check_channels(columns: list[str], tables: list[Table], rows: int | None) -> None:
    values = np.concatenate([table.values[:rows] for table in tables])
    for name, column in zip(columns, values.T, strict=True):
        seen = column[np.isfinite(column)]
        if seen.size and seen.min() == seen.max():
            raise DataError(
                f"channel {name!r} is always {seen[0]:g} in these rows, so what is normal for it cannot be "
                "fitted; record for longer, until it has moved"
            )


def _too_short(rows: int, period_ns: int, quantile: float, per_day: float | None) -> list[str]:
    """What to say where too few rows lie beyond the threshold that is asked for."""
    risk = 1 - quantile if per_day is None else per_day * period_ns / _DAY_NS
    if risk * rows >= FEWEST_EXCESSES:
        return []
    needed = math.ceil(FEWEST_EXCESSES / risk)
    asked = f"quantile {quantile:g}" if per_day is None else f"{per_day:g} alarm(s) a day"
    how = "is not sure" if per_day is None else "is an estimate from the tail of the scores"
    here, there = (length_text(n * period_ns / 1e9) for n in (rows, needed))
    text = f"{rows:,} rows ({here}) are too few to see {asked}, so the threshold {how}; "
    return [text + f"{needed:,} rows ({there}) would show it"]


def _guard(old: GuardSpec, recordings: list[Recording], period_ns: int) -> GuardSpec:
    """The old guard with limits found in the readings; ranges and policies are the user's."""
    return msgspec.structs.replace(
        old,
        stuck_after=stuck_limits(recordings),
        silent_after_ns=silent_limit(recordings),
        gap_ns=GAP_PERIODS * period_ns if old.gap_ns else 0,
    )


def _fitted(
    model: Model, recordings: list[Recording], guard: GuardSpec, quantile: float, per_day: float | None
) -> Model:
    """`model` with the detector it has, all that is measured on readings taken from these."""
    spec = model.detector
    assert spec is not None
    plain = Options()
    # A scorer with a tail is a probability already; the others are 1 at a multiple of their quantile.
    factors = [
        0.0 if s.tail is not None else plain.input_factor if s.source == "input" else plain.residual_factor
        for s in spec.scorers
    ]
    bare = tuple(
        msgspec.structs.replace(s, unit=1.0) if factor else s
        for s, factor in zip(spec.scorers, factors, strict=True)
    )
    threshold = spec.threshold
    if threshold.kind in ("fixed", "quantile") and all(factors):
        # The units say where a score is too high: at 1.
        threshold = msgspec.structs.replace(threshold, value=1.0)
    template = msgspec.structs.replace(spec, guard=guard, period_ns=0, threshold=threshold, scorers=bare)
    fit = partial(fit_detector, model, recordings, factors=factors, quantile=quantile)
    if per_day is None:
        return fit(template)
    usual = period(recordings)
    risk = per_day * usual / _DAY_NS
    if risk >= 0.5:
        raise ConfigError(
            f"--alarms-per-day: {per_day:g} a day is more than every second reading; expected fewer than "
            f"{0.5 * _DAY_NS / usual:.3g}"
        )
    # Readings enough for a quantile of their own scores; else the tail of the scores is estimated.
    enough = risk * sum(len(np.asarray(times)) for times, _ in recordings) >= FEWEST_EXCESSES
    threshold = msgspec.structs.replace(threshold, kind="conformal" if enough else "pot", risk=risk)
    return fit(msgspec.structs.replace(template, threshold=threshold))


def _verdicts(model: Model, recordings: list[Recording]) -> list[NDArray[np.void]]:
    detector = Detector(model)
    found = []
    for times, values in recordings:
        detector.reset()
        found.append(detector.run(times, values))
    return found


def _alarms(model: Model, recordings: list[Recording], period_ns: int) -> _Alarms:
    alarms = rows = on = faulty = 0
    for verdicts in _verdicts(model, recordings):
        alarm = verdicts["alarm"] == 1
        judged = verdicts["status"] != STATUSES.index("warming")
        alarms += int((alarm & ~np.concatenate([[False], alarm[:-1]])).sum())
        rows += int(judged.sum())
        on += int(alarm.sum())
        faulty += int(verdicts["fault"].any(axis=1).sum())
    return _Alarms(alarms, rows * period_ns / _DAY_NS, on / max(rows, 1), faulty)


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
    lines += [f"warning   {warning}" for warning in summary["warnings"]]
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
