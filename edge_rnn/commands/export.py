"""`edge-rnn export`: a model as C99 for a microcontroller, with the bits of this runtime."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from edge_rnn.commands.working import working
from edge_rnn.errors import ConfigError, SnapshotError, printable
from edge_rnn.files.load import load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `edge-rnn export`."""
    parser.epilog = """\
targets: cortex-m0plus, m3, m4f, m7, m33, m55, rv32imc, rv32imafc, aarch64, host

  edge-rnn export pump.safetensors -o fw --target m4f
  edge-rnn export pump.safetensors -o fw --target cortex-m0plus --flash 64k --ram 8k
  edge-rnn export pump.safetensors -o fw --layout arduino --rest normal.csv
  edge-rnn export pump.safetensors -o fw --type w8a16 --target cortex-m0plus --calibrate normal.csv"""
    add = parser.add_argument
    add("model", metavar="MODEL", help="the model file")
    add("-o", "--output", required=True, metavar="DIR", help="the directory to write, whole or not at all")
    add("--name", help="prefix of all C names and files (default: the model's name)")
    add("--type", default="f32", metavar="TYPE", help="number format: f32 (default), or w8a16 (integers)")
    add("--target", default="m4f", metavar="CORE", help="the core, see below (default: %(default)s)")
    add("--layout", default="c", metavar="LAYOUT", help="c (Makefile), cmake, arduino or zephyr (default: c)")
    add("--calibrate", metavar="DATA.csv", help="for w8a16: normal data to take ranges from")
    add("--rest", metavar="DATA.csv", help="start from where the model settles on this data's median")
    add("--initial", metavar="FILE", help="start from this snapshot of a Detector or Stepper")
    add("--flash", type=_bytes, metavar="SIZE", help="flash there is, like 64k: refuse what does not fit")
    add("--ram", type=_bytes, metavar="SIZE", help="RAM there is for one stream and the stack")
    add("--clock", type=_hertz, metavar="FREQUENCY", help="like 64MHz: estimate the time of a call")
    add(
        "--check",
        metavar="DATA.csv",
        help="then run this data on the core (under QEMU) and compare all verdicts",
    )
    add("--no-measure", action="store_true", help="do not compile to measure code, stack and instructions")
    add("--json", action="store_true", help="print budget and files as JSON")


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d{1,12})\s*(k|kb|kib|m|mb|mib|b)?", text.strip().lower())
    if match is None or int(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"expected a size like 65536, 64k or 1M, got {text!r}")
    return int(match[1]) * {"k": 1 << 10, "m": 1 << 20}.get((match[2] or "b")[0], 1)


def _hertz(text: str) -> float:
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)\s*([kMG]?)(?:Hz)?", text.strip())
    if match is None or float(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"expected a frequency like 64MHz, got {text!r}")
    return float(match[1]) * {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}[match[2]]


def run(args: argparse.Namespace) -> int:
    """Export, and print the budget."""
    from firmware_export import export

    model = load(args.model)
    initial = None
    if args.initial is not None:
        try:
            initial = Path(args.initial).read_bytes()
        except OSError as error:
            raise ConfigError(
                f"--initial {printable(args.initial)}: cannot be read: {error.strerror or error}"
            ) from None
    doing = "compiling the C code, to measure it; --no-measure leaves that out"
    with working(doing, quiet=args.json) as progress:
        try:
            made = export(
                model, args.output, name=args.name, type=args.type, target=args.target, layout=args.layout,
                rest=args.rest, initial=initial, flash=args.flash, ram=args.ram, clock_hz=args.clock,
                measure=not args.no_measure, calibrate=args.calibrate, progress=progress,
            )  # fmt: skip
        except SnapshotError as error:
            raise SnapshotError(f"--initial {printable(args.initial)}: {error}") from None
    checked = None
    if args.check is not None:
        from firmware_export.checking import check

        settled = model if args.rest is None else load(made.folder / f"{made.name}.safetensors")
        doing = f"running {printable(args.check)} on the core"
        with working(doing, quiet=args.json) as progress:
            progress(doing)
            checked = check(settled, made, args.check)
    if args.json:
        facts = {
            "name": made.name, "target": made.target.name, "layout": made.layout, "files": made.files,
            "budget": made.budget.as_json(),
        }  # fmt: skip
        if made.quantized is not None and made.errors is not None:
            facts |= {"integers": made.quantized.digest, "errors": made.errors.as_json()}
        if checked is not None:
            facts["check"] = checked.as_json()
        json.dump(facts, sys.stdout, indent=2, ensure_ascii=False)
        sys.stdout.write("\n")
    else:
        lines = [f"{made.name} for {made.target.title}", *made.budget.lines()]
        if made.quantized is not None and made.errors is not None:
            lines += [*made.errors.lines(), f"w8a16   constants {made.quantized.digest[:16]}"]
        sys.stdout.write("\n".join(lines) + "\n")
        if checked is not None:
            sys.stdout.write(f"check   {checked.line()}\n")
        sys.stdout.write(f"written: {printable(str(args.output))} ({len(made.files)} files)\n")
    return 0 if checked is None or checked.mismatches == 0 else 1
