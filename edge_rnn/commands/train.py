"""`edge-rnn train`: recorded data in; one model file with its detector out, and a card of what it is worth.

The card goes to stdout (as JSON with --json), progress to stderr: a bar in a terminal, elsewhere one
line. The model file is written once, at the end and in one piece: an interrupted run leaves nothing behind.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from edge_rnn.errors import ConfigError

_OWN_SCALE_WARMUP = 200
Progress = Callable[[int, int, float], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `edge-rnn train`."""
    parser.epilog = """\
Reads CSV, NDJSON or Parquet with one time column; every other column with numbers is a channel, except label
columns (anomaly, changepoint, label, ...; --labels names others), which are never inputs. Trains a network
to forecast the next reading on the first part of each file, calibrates scorers and thresholds with the
rest, writes one model file and prints its card. Train on a stretch in which nothing was wrong.

examples:
  edge-rnn train pump.csv -o pump.safetensors --auto 120 --alarms-per-day 0.1
  edge-rnn train pump.csv -o pump.safetensors --time ts --channels vib,temp,flow --rows 5000"""
    add = parser.add_argument
    add("data", nargs="+", metavar="DATA", help="CSV or NDJSON files, all with the same channels")
    add("-o", "--output", required=True, metavar="MODEL", help="the model file to write")
    add("--time", metavar="COLUMN", help="the time column (default: found by name and content)")
    add("--channels", type=_names, metavar="A,B", help="the input columns (default: all with numbers)")
    add("--labels", type=_names, default=[], metavar="A,B", help="label columns: never inputs")
    add("--delimiter", metavar="CHAR", help="of the CSV: one character or 'tab' (default: found)")
    add("--rows", type=int, metavar="N", help="use only the first N rows of each file")
    add("--name", help="the model's name (default: the output's, without its ending)")
    add("--cell", choices=("rnn", "gru", "lstm"), default="gru", help="(default: %(default)s)")
    add("--hidden", type=int, default=32, metavar="N", help="hidden units of a layer (default: %(default)s)")
    add("--layers", type=int, default=1, metavar="N", help="recurrent layers (default: %(default)s)")
    add("--epochs", type=int, metavar="N", help="at most so many (default: by the number of rows)")
    add("--seed", type=int, default=0, metavar="N", help="another seed, another model (default: %(default)s)")
    add(
        "--horizons",
        type=_steps,
        default=(1,),
        metavar="1,6,24",
        help="forecast so many steps ahead, at once (default: 1)",
    )
    add(
        "--scale",
        choices=("none", "laplace", "gaussian"),
        default="none",
        help="the network says how sure it is, too (default: none)",
    )
    add(
        "--features",
        type=_names,
        default=[],
        metavar="A,B",
        help="inputs made of the time (day_sin, day_cos, week_sin, weekend, ...) or difference:CHANNEL",
    )
    add(
        "--auto",
        type=float,
        metavar="SECONDS",
        help="try several sizes for so long, keep the smallest that is no worse (instead of --hidden)",
    )
    add("--alarms-per-day", type=float, metavar="A", help="set the threshold for so many false alarms a day")
    add(
        "--resume",
        action="store_true",
        help="keep the training in OUTPUT.part while it runs, and go on from it if it is there",
    )
    add("--each", action="store_true", help="one model for each file; OUTPUT is a folder")
    add(
        "--own-scale",
        action="store_true",
        help="one model for many machines: each stream is brought to the mean and spread of its own past",
    )
    add("--threads", type=int, default=1, metavar="N", help="of PyTorch (default: %(default)s)")
    add("--json", action="store_true", help="print the card as JSON")


def run(args: argparse.Namespace) -> int:
    """Train, write the model file, print its card."""
    # First of all: without torch this is one line that says what to install.
    from edge_rnn.calibrate import Options
    from edge_rnn.core.detector_spec import ConditionSpec
    from edge_rnn.files.model_file import save
    from edge_rnn.training import fit
    from edge_rnn.training.card import render
    from edge_rnn.training.checkpoint import Checkpoint
    from edge_rnn.training.data import read_tables
    from edge_rnn.training.trainer import Recipe

    started = time.monotonic()
    paths = [Path(p) for p in args.data]
    outputs = _outputs(Path(args.output), paths) if args.each else [Path(args.output)]
    for output in outputs:
        _check_output(output, paths)
    _check_options(args)
    recipe = Recipe(
        cell=args.cell,
        hidden=args.hidden,
        layers=args.layers,
        epochs=args.epochs,
        seed=args.seed,
        threads=args.threads,
        horizons=args.horizons,
        scale=args.scale,
    )
    tables = read_tables(
        args.data, time=args.time, channels=args.channels, labels=args.labels, delimiter=args.delimiter
    )
    options = Options()
    if args.alarms_per_day is not None:
        options = replace(options, threshold="pot", alarms_per_day=args.alarms_per_day)
    if args.own_scale:
        # A machine is judged once its own mean and spread are known; an alarm before would stop the learning.
        running = ConditionSpec(running=(True,) * len(tables[0].channels), running_start=1)
        options = replace(options, condition=running, warmup=_OWN_SCALE_WARMUP)
    for output, own in zip(outputs, [[t] for t in tables] if args.each else [tables], strict=True):
        part = output.with_name(f"{output.name}.part")
        name = args.name or output.name.removesuffix(".safetensors")
        try:
            with _progress() as progress:
                model = fit.train(
                    own, recipe, rows=args.rows, name=name, features=args.features, auto_s=args.auto,
                    checkpoint=Checkpoint(part) if args.resume else None, options=options, progress=progress,
                )  # fmt: skip
        except KeyboardInterrupt:
            if args.resume and part.exists():
                sys.stderr.write(f"train: stopped; the same command goes on from {part}\n")
            else:
                sys.stderr.write("train: stopped, nothing written\n")
            raise
        save(model, output)
        card = dict(fit.card_of(model))
        card["device"] = {**card["device"], "step_ns": fit.step_ns(model)}
        if args.json:
            # One model: a document for people's eyes; several: one a line.
            print(json.dumps({"model": output.name, **card}, indent=None if args.each else 2))
        else:
            width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
            print(render(card, width))
            print(f"written   {output}, {time.monotonic() - started:.1f} s in all")
    return 0


def _outputs(folder: Path, data: list[Path]) -> list[Path]:
    """With --each: a model beside every other, named like its data file."""
    if not folder.is_dir():
        raise ConfigError(f"--output: with --each expected a folder that exists, got {folder}")
    names = [path.name.split(".")[0] for path in data]
    doubles = sorted({name for name in names if names.count(name) > 1})
    if doubles:
        raise ConfigError(f"--each: two files would both become {doubles[0]}.safetensors; rename one")
    return [folder / f"{name}.safetensors" for name in names]


def _check_options(args: argparse.Namespace) -> None:
    if args.resume and args.auto is not None:
        raise ConfigError("--resume: the trainings of --auto have no one checkpoint; give one or the other")
    if args.alarms_per_day is not None and not 0 < args.alarms_per_day < 1e6:
        raise ConfigError(f"--alarms-per-day: expected a number above 0, got {args.alarms_per_day}")


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(f"expected column names with commas between, got {text!r}")
    return names


def _steps(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected steps such as 1,6,24, got {text!r}") from None


def _check_output(output: Path, data: list[Path]) -> None:
    """Say before the training, not after it, that the model could not be written."""
    if output.is_dir() or not output.parent.is_dir() or not os.access(output.parent, os.W_OK):
        raise ConfigError(
            f"--output: expected a file in a folder that exists and can be written to, got {output}"
        )
    if any(output.resolve() == path.resolve() for path in data):
        raise ConfigError(f"--output: {output} is one of the data files and would be overwritten")


@contextmanager
def _progress() -> Iterator[Progress | None]:
    """A bar on stderr in a terminal; elsewhere one line at the start."""
    if not sys.stderr.isatty():

        def begun(done: int, total: int, _loss: float) -> None:
            if done == 1:
                sys.stderr.write(f"train: training, at most {total} epochs\n")
                sys.stderr.flush()

        yield begun
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("epochs, squared error held back {task.fields[loss]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("training", total=None, loss="-")

        def told(done: int, total: int, loss: float) -> None:
            bar.update(task, completed=done, total=total, loss=f"{loss:.4g}")

        yield told
