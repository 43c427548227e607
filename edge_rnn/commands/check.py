"""`edge-rnn check`: is this configuration, or this model file, one that can be used?

A model file is read with all its checks and its self-test. A configuration is read as `run` reads it, and
with it every model it names, whose inputs are compared with the stream's channels. All problems are listed at
once, one a line, in the order of the file's lines; the exit code is 78 if there is one. What is allowed and
seldom meant is a warning, which leaves the exit code alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from edge_rnn.commands.model_card import architecture
from edge_rnn.core.model import Model
from edge_rnn.errors import EdgeRnnError, ModelFileError, printable
from edge_rnn.files.load import MAX_BYTES, decode, load, read_file
from edge_rnn.files.safetensors_file import looks_like_safetensors
from edge_rnn.files.torch_file import looks_like_torch


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `edge-rnn check`."""
    parser.epilog = """\
examples:
  edge-rnn check pump.toml
  edge-rnn check pump.safetensors --json"""
    parser.add_argument("file", metavar="FILE", help="a configuration (.toml) or a model file")
    parser.add_argument("--allow-legacy", action="store_true", help="accept the old torch format")
    parser.add_argument(
        "--max-bytes",
        type=int,
        default=MAX_BYTES,
        metavar="N",
        help="refuse larger models (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Check one file; problems go to stderr, or with --json into the JSON."""
    kind = "configuration" if args.file.lower().endswith(".toml") else "model"
    facts: dict[str, Any] = {}
    problems: list[str] = []
    code = 0
    try:
        if kind == "model":
            kind, facts = _check_model(args.file, allow_legacy=args.allow_legacy, max_bytes=args.max_bytes)
        else:
            facts = _check_config(args.file)
    except EdgeRnnError as error:
        problems, code = str(error).splitlines(), error.exit_code
    if args.json:
        result = {
            "file": Path(args.file).name,
            "kind": kind,
            "ok": not problems,
            "problems": problems,
            **facts,
        }
        json.dump(result, sys.stdout, indent=2, ensure_ascii=False)
        sys.stdout.write("\n")
    elif problems:
        sys.stderr.writelines(f"edge-rnn check: {line}\n" for line in problems)
    else:
        warnings = facts.pop("warnings", [])
        sys.stderr.writelines(f"edge-rnn check: warning: {printable(line)}\n" for line in warnings)
        text = ", ".join(f"{value}" for value in facts.values())
        sys.stdout.write(f"{printable(args.file)}: {kind}, {printable(text)}: ok\n")
    return code


def _check_model(path: str, *, allow_legacy: bool, max_bytes: int) -> tuple[str, dict[str, Any]]:
    data = read_file(path, max_bytes)
    where = printable(path)
    if not looks_like_safetensors(data) and not looks_like_torch(data) and b"\0" not in data:
        raise ModelFileError(
            f"{where}: neither a model file nor a configuration; a configuration's name ends in .toml"
        )
    model = decode(data, where, allow_legacy=allow_legacy)
    test = model.self_test
    return "model", {
        "network": architecture(model),
        "self_test": "no self-test" if test is None else f"self-test of {len(test.x)} steps passed",
    }


def _check_config(path: str) -> dict[str, Any]:
    from edge_rnn.files.config import NO_DETECTOR, load_config, unmatched
    from edge_rnn.files.config_hints import mixed_senders

    models: dict[Path, Model | str] = {}

    def examine(file: Path, stream: str, names: tuple[str, ...] | None) -> list[tuple[str, str]]:
        if file not in models:
            try:
                models[file] = load(file)
            except EdgeRnnError as error:
                models[file] = str(error)
        model = models[file]
        if isinstance(model, str):
            return [("model", line) for line in model.splitlines()]
        if model.detector is None:
            # Alone: what its inputs are called is of no use before there is another model.
            return [("model", f"{file.name}: {NO_DETECTOR}")]
        lines = [] if names is None else unmatched(stream, names, [i.name for i in model.inputs])
        return [("channels", line) for line in lines]

    config = load_config(path, examine=examine)
    count = len(config.streams)
    warnings = mixed_senders(config)
    return {
        "streams": f"{count} stream{'s' if count != 1 else ''}",
        "models": f"{len(models)} model{'s' if len(models) != 1 else ''}",
        **({"warnings": warnings} if warnings else {}),
    }
