"""`edge-rnn convert`: PyTorch weights (.pt, .pth, .safetensors) to a model file, without torch.

What the weights' names and shapes leave open is an option, and what was taken for granted is said. PyTorch
is not here to record outputs, so the self-test holds what the float64 equations give: it protects the file
and checks the compiled code of each machine, but cannot show that the original network did the same. For
that, export from PyTorch with `edge_rnn.training.export`.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import cast, get_args

import numpy as np

from edge_rnn import __version__
from edge_rnn.commands.model_card import card, show
from edge_rnn.core.model import CELLS, Activation, Input, Model, SelfTest
from edge_rnn.core.reference import Reference
from edge_rnn.errors import ConfigError, ModelFileError, printable
from edge_rnn.files.load import MAX_BYTES, decode, read_file
from edge_rnn.files.model_file import is_model_file, save
from edge_rnn.files.safetensors_file import looks_like_safetensors
from edge_rnn.files.torch_file import LegacyFormatWarning

_STEPS = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `edge-rnn convert`."""
    parser.epilog = """\
Cell, sizes and layers follow from the tensors' names and shapes. What they leave open is an option:

  edge-rnn convert press.pt -o press.safetensors --inputs vib:mm/s,temp:°C
  edge-rnn convert net.pt -o net.safetensors --head fc1:relu,fc2 --cell rnn_relu
  edge-rnn convert checkpoint.pt -o net.safetensors --key model --ignore decoder

Write SOURCE in Python with: torch.save(model.state_dict(), "press.pt")"""
    add = parser.add_argument
    add("source", metavar="SOURCE", help="a PyTorch state_dict or checkpoint, or plain safetensors")
    add("-o", "--output", required=True, metavar="MODEL", help="the model file to write")
    add("--cell", choices=CELLS, help="rnn_relu where a one-gate cell uses relu (default: rnn_tanh)")
    add("--head", type=_head, metavar="FC1:relu,FC2", help="the linear layers in order, each with the "
        "activation after it, if any: none, relu, tanh, sigmoid or softmax; '' for no head")  # fmt: skip
    add("--recurrent", type=_names, metavar="A,B", help="the recurrent modules, bottom first")
    add("--inputs", type=_inputs, metavar="A:unit,B", help="names, and units if you like, of the inputs")
    add("--ignore", type=_names, default=[], metavar="A,B", help="tensors or modules the outputs do not need")
    add("--key", help="which dict of a checkpoint, with dots for nested ones")
    add("--name", help="the model's name (default: the output's, without its ending)")
    add("--allow-legacy", action="store_true", help="read the old torch format, which has no checksums")
    add(
        "--max-bytes",
        type=int,
        default=MAX_BYTES,
        metavar="N",
        help="refuse larger files (default: %(default)s)",
    )
    add("--json", action="store_true", help="print the model's card as JSON")


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _head(text: str) -> list[tuple[str, Activation]]:
    pairs: list[tuple[str, Activation]] = []
    for part in _names(text):
        name, colon, activation = part.partition(":")
        activation = activation if colon else "none"
        if activation not in get_args(Activation):
            # Not argparse's error, which would print the whole usage before it.
            raise ConfigError(
                f"--head: expected NAME or NAME:ACTIVATION with one of {', '.join(get_args(Activation))}, "
                f"got {printable(part)!r}"
            )
        pairs.append((name, cast(Activation, activation)))
    return pairs


def _inputs(text: str) -> list[Input]:
    pairs = [part.partition(":") for part in _names(text)]
    return [Input(name, unit) for name, _, unit in pairs]


def run(args: argparse.Namespace) -> int:
    """Read, infer, record a self-test, write, and say what was taken for granted."""
    source, output = Path(args.source), Path(args.output)
    data = read_file(source, args.max_bytes)
    if output.exists() and output.samefile(source):
        raise ConfigError(f"-o {printable(args.output)} is SOURCE itself; give another name")
    if looks_like_safetensors(data) and is_model_file(data, printable(args.source)):
        raise ModelFileError(
            f"{printable(args.source)}: a model file already, there is nothing to convert; use it as it is"
        )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", LegacyFormatWarning)
        model = decode(
            data,
            printable(args.source),
            allow_legacy=args.allow_legacy,
            key=args.key,
            cell=args.cell,
            head=args.head,
            recurrent=args.recurrent,
            inputs=args.inputs,
            ignore=args.ignore,
            name=args.name or output.stem or "model",
        )
    notices = [str(w.message) for w in caught] + _taken_for_granted(model, args)
    model = _with_self_test(model, args.ignore)
    save(model, output)
    sys.stderr.writelines(f"notice: {printable(text)}\n" for text in notices)
    facts = {"file": output.name, "file_bytes": output.stat().st_size, "notices": notices, **card(model)}
    if args.json:
        json.dump(facts, sys.stdout, indent=2, ensure_ascii=False)
        sys.stdout.write("\n")
    else:
        show(facts)
        sys.stdout.write(f"written: {printable(args.output)} ({facts['file_bytes']:,} bytes)\n")
    return 0


def _taken_for_granted(model: Model, args: argparse.Namespace) -> list[str]:
    notices = []
    if args.cell is None and any(layer.cell == "rnn_tanh" for layer in model.layers):
        notices.append("the one-gate cell was taken as rnn_tanh; if it uses relu: --cell rnn_relu")
    if args.head is None and model.head:
        notices.append("the linear layer was taken without an activation; otherwise: --head NAME:softmax")
    if args.inputs is None:
        notices.append(f"the inputs are called {model.inputs[0].name} ...; give their names with --inputs")
    return notices


def _with_self_test(model: Model, ignored: list[str]) -> Model:
    """The model with recorded steps of the float64 equations, and where it comes from and without what."""
    x = np.random.default_rng(0).normal(size=(_STEPS, model.input_size)).astype(np.float32)
    with np.errstate(all="ignore"):
        y = Reference(model).run(x)
    scale = float(np.abs(y).max())
    facts: dict[str, object] = {"source": "state_dict", "edge_rnn": __version__}
    if ignored:
        # A name with a slash would be taken for a path, which no model file may hold.
        facts["ignored"] = [name.replace("/", ".").replace("\\", ".") for name in ignored]
    if not scale < float(np.finfo(np.float32).max):
        raise ModelFileError(
            f"{model.name}: its outputs overflow within {_STEPS} steps of ordinary inputs; "
            "check --cell (rnn_relu?) and the weights"
        )
    test = SelfTest(x, y.astype(np.float32), 1e-5 * max(scale, 0.2))
    return replace(model, self_test=test, provenance={**facts, "self_test": "float64 equations, not PyTorch"})
