"""`edge-rnn init`: listen to a broker for a while and propose a configuration.

What is heard is grouped into streams (see `watch/survey.py`) and written as a configuration, to stdout or
to a new file. Nothing is published and nothing is left at the broker.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from edge_rnn.commands.broker_options import add_broker_options, broker_of
from edge_rnn.errors import ConfigError, printable
from edge_rnn.files.config_walk import parse_duration
from edge_rnn.watch.client import Visitor
from edge_rnn.watch.propose import propose
from edge_rnn.watch.survey import Survey

Moved = Callable[[Survey], None]

_IGNORED = ("edge-rnn", "homeassistant")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `edge-rnn init`."""
    parser.epilog = """\
examples:
  edge-rnn init --for 1m > pump.toml
  edge-rnn init --broker plant.example --topic 'pumps/#' --model pump.safetensors -o pump.toml"""
    add_broker_options(parser)
    parser.add_argument(
        "--topic", action="append", metavar="FILTER", help="what to listen to (default: #); may be repeated"
    )
    parser.add_argument("--for", dest="length", default="20s", metavar="TIME", help="how long (default: 20s)")
    parser.add_argument("--model", metavar="MODEL", help="propose the channels this model needs")
    parser.add_argument(
        "--ignore",
        action="append",
        metavar="TOPIC",
        help=f"first levels of topics that are no readings (default: {', '.join(_IGNORED)})",
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="a new file for the configuration")
    parser.add_argument("--force", action="store_true", help="replace the file if there is one")
    parser.add_argument("--json", action="store_true", help="print what was seen as JSON, no configuration")


def run(args: argparse.Namespace) -> int:
    """Listen and propose; 0, or 1 if nothing that holds a number was heard."""
    nanoseconds = parse_duration(args.length)
    if nanoseconds is None or nanoseconds <= 0:
        raise ConfigError(f'--for: expected a duration such as "30s", got {printable(args.length)!r}')
    output = None if args.output is None else Path(args.output)
    if output is not None:
        _check_output(output, replace=args.force)
    names = None if args.model is None else _inputs(args.model)
    broker = broker_of(args)
    survey = Survey(args.ignore if args.ignore is not None else _IGNORED)
    topics = args.topic or ["#"]
    seconds = nanoseconds / 1e9
    with Visitor(broker, [(topic, 0) for topic in topics]) as visitor, _bar(seconds) as moved:
        try:
            for heard in visitor.messages(seconds):
                survey.take(heard.topic, heard.payload, retained=heard.retained, at=heard.at)
                moved(survey)
        except KeyboardInterrupt:
            sys.stderr.write("\nedge-rnn init: stopped early; this is what was heard so far\n")
        survey.untold += visitor.dropped
    groups = survey.groups()
    if args.json:
        facts = {
            "messages": survey.messages,
            "topics": survey.topics,
            "groups": [asdict(group) for group in groups],
            "not_understood": dict(survey.other),
            "untold": survey.untold,
        }
        sys.stdout.write(json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    else:
        model = "model.safetensors" if args.model is None else _as_written(args.model, output)
        text = propose(survey, broker, model, names)
        if output is None:
            sys.stdout.write(text)
        elif groups:
            output.write_text(text, "utf-8")
    sys.stderr.write(
        _summary(survey, len(groups), output if groups else None, trained=args.model is not None)
    )
    return 0 if groups else 1


def _check_output(path: Path, *, replace: bool) -> None:
    if path.exists() and not replace:
        raise ConfigError(f"{path}: exists already; --force replaces it")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise ConfigError(f"{path}: expected a folder that can be written to, got {path.parent}")


def _inputs(path: str) -> list[str]:
    from edge_rnn.files.load import load

    return [i.name for i in load(path).inputs]


def _as_written(model: str, output: Path | None) -> str:
    """A configuration's paths are relative to its folder."""
    if output is None or Path(model).is_absolute():
        return model
    return os.path.relpath(model, output.parent)


def _summary(survey: Survey, groups: int, output: Path | None, *, trained: bool) -> str:
    text = f"edge-rnn init: {survey.messages:,} message(s) on {survey.topics:,} topic(s), {groups} group(s)"
    if survey.untold:
        text += f"; {survey.untold:,} more message(s) were too many to look at, narrow --topic"
    if not groups:
        text += "; nothing held a number: listen longer (--for), or to other topics (--topic)"
    if output is not None:
        text += f"; written to {output}"
        # `check` refuses a configuration whose model is not there yet.
        if not trained:
            text += "; next, make its model from recorded readings: edge-rnn train --help; then: "
            text += _check(output)
        else:
            text += f", next: {_check(output)}"
    return text + "\n"


def _check(output: Path) -> str:
    """The command as a shell takes it."""
    return f"edge-rnn check {shlex.quote(str(output))}"


@contextmanager
def _bar(seconds: float) -> Iterator[Moved]:
    """A progress bar on stderr, in a terminal only."""
    if not sys.stderr.isatty():
        yield lambda _survey: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("listening"), BarColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=seconds)
        start = time.monotonic()

        def moved(survey: Survey) -> None:
            text = f"{survey.messages:,} messages, {survey.topics:,} topics"
            progress.update(task, completed=time.monotonic() - start, description=text)

        yield moved
