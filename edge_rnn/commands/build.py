"""`edge-rnn build`: the compiled functions ahead of time, as a library for this or another processor."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import msgspec

from edge_rnn.commands.working import working
from edge_rnn.core.library import LIBRARY, Library
from edge_rnn.core.model import Model
from edge_rnn.core.stepper import Stepper
from edge_rnn.errors import printable
from edge_rnn.files.load import load
from edge_rnn.files.model_file import check_self_test


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `edge-rnn build`."""
    parser.epilog = """\
targets: native (this machine), cortex-a53 (Raspberry Pi 3, Zero 2), cortex-a72 (Pi 4), cortex-a76 (Pi 5),
         x86-64-v3 (PCs with AVX2)

  edge-rnn build pump.safetensors -o pump-library
  edge-rnn build pump.safetensors --target cortex-a72 -o pump-pi4

With library = "pump-library" in its [[stream]], the daemon starts without the compiler: in a fraction of the
time and memory, with the same bits. A library is for one model and one version of edge-rnn. An ELF linker is
needed here (Debian's binutils, lld, or the extra 'build'), none on the device."""
    parser.add_argument("model", metavar="MODEL", help="the model file")
    parser.add_argument(
        "--target", default="native", metavar="CPU", help="the processor, see below (default: %(default)s)"
    )
    parser.add_argument(
        "-o", "--output", required=True, metavar="DIR", help="the directory to write, whole or not at all"
    )
    parser.add_argument("--json", action="store_true", help="print the library's description as JSON")


def run(args: argparse.Namespace) -> int:
    """Build, try it where this machine can, say what was made."""
    from edge_rnn.aot.build import build

    model = load(args.model)

    doing = f"compiling {printable(args.model)} for {args.target}; this takes up to a minute"
    with working(doing, quiet=args.json) as progress:
        made = build(
            model,
            Path(args.output),
            args.target,
            progress,
            tried=lambda library: _try(model, library, args.model),
        )
    about = made.description
    if args.json:
        facts = msgspec.to_builtins(about) | {"folder": str(made.folder), "tried": made.tried}
        json.dump(facts, sys.stdout, indent=2, ensure_ascii=False)
        sys.stdout.write("\n")
        return 0
    wanted = ", ".join(about.imports) or "nothing"
    features = "CPU features " + ", ".join(about.features)
    if about.target == "native":
        features = f"{about.cpu}, or a CPU with all {len(about.features)} features the description lists"
    lines = [
        f"target     {about.target} ({about.machine}): class {about.numeric}, {about.lanes} lanes",
        f"needs      {features}; of the C library: {wanted}",
        f"tried      {_tried(model) if made.tried else 'not here: this machine cannot run it'}",
        f"written    {printable(str(args.output))}: {LIBRARY}, {about.size} bytes, and its description",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _tried(model: Model) -> str:
    return "the model's self-test" if model.self_test is not None else "a step (the model has no self-test)"


def _try(model: Model, library: Library, file: str) -> None:
    stepper = Stepper(model, library=library)
    if model.self_test is None:
        stepper.step([0.0] * model.input_size)
    check_self_test(model, stepper.run, f"{printable(file)}: in the library that was built")
