"""`edge-rnn inspect`: a model's card, or a picture of its gates over recorded data."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from edge_rnn.commands.model_card import card, on_this_machine, show
from edge_rnn.errors import ConfigError
from edge_rnn.files.load import MAX_BYTES, load, read_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `edge-rnn inspect`."""
    parser.epilog = """\
The card: inputs, layers, sizes, detector, digests, origin, and the recorded self-test replayed by the code
compiled for this machine. With --gates, a heat map of every gate over time: what the network forgets, what it
keeps.

examples:
  edge-rnn inspect pump.safetensors
  edge-rnn inspect pump.safetensors --gates monday.csv -o gates.png --rows 300"""
    add = parser.add_argument
    add("model", metavar="MODEL", help="a model file, or weights that convert would take")
    add("--json", action="store_true", help="print the card as JSON")
    add("--gates", metavar="DATA", help="CSV or NDJSON to drive the model with")
    add("-o", "--output", metavar="PNG", help="the picture to write (.png, .svg or .pdf)")
    add("--time", metavar="COLUMN", help="DATA's time column (default: found)")
    add("--channels", type=_names, metavar="A,B", help="DATA's columns in the order of the model's inputs "
        "(default: columns called like the inputs)")  # fmt: skip
    add("--start", type=int, default=0, metavar="N", help="first row drawn; rows before it warm the model up")
    add("--rows", type=int, default=300, metavar="N", help="rows drawn (default: %(default)s)")
    add("--allow-legacy", action="store_true", help="read the old torch format, which has no checksums")
    add(
        "--max-bytes",
        type=int,
        default=MAX_BYTES,
        metavar="N",
        help="refuse larger files (default: %(default)s)",
    )


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def run(args: argparse.Namespace) -> int:
    """Print the card or draw the gates."""
    if (args.gates is None) != (args.output is None):
        raise ConfigError("--gates DATA and -o PICTURE belong together; give both or neither")
    model = load(args.model, allow_legacy=args.allow_legacy, max_bytes=args.max_bytes)
    if args.gates is not None:
        from edge_rnn.commands.gate_plot import draw_gates

        if args.start < 0 or args.rows < 2:
            raise ConfigError(f"expected --start >= 0 and --rows >= 2, got {args.start} and {args.rows}")
        drawn = draw_gates(
            model,
            args.gates,
            args.output,
            time=args.time,
            channels=args.channels,
            start=args.start,
            rows=args.rows,
        )
        sys.stdout.write(f"{args.output}: {drawn}\n")
        return 0
    facts = {
        "file": Path(args.model).name,
        "file_bytes": len(read_file(args.model, args.max_bytes)),
        **card(model),
    }
    facts["machine"] = on_this_machine(model, args.model)
    if args.json:
        json.dump(facts, sys.stdout, indent=2, ensure_ascii=False)
        sys.stdout.write("\n")
    else:
        show(facts)
    return 0
