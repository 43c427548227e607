"""`edge-rnn doctor CONFIG.toml`: measure what this daemon would meet, and say what to change.

Broker round trips, what the broker keeps for a client that is away, stored messages, the senders' clocks and
payloads, the time of a disk sync, and the models on this machine. A running daemon is not disturbed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from edge_rnn.errors import ConfigError, CredentialsError, EdgeRnnError, printable
from edge_rnn.files.config import load_config
from edge_rnn.files.config_types import Config
from edge_rnn.files.config_walk import parse_duration
from edge_rnn.service.mqtt import account_advice
from edge_rnn.watch.checks import (
    check_disk,
    check_queue,
    check_round_trip,
    check_traffic,
    own_topic,
    plain,
)
from edge_rnn.watch.finding import Finding

if TYPE_CHECKING:
    from edge_rnn.service.pipeline import Pipeline

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red", "skip": "dim"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `edge-rnn doctor`."""
    parser.epilog = """\
examples:
  edge-rnn doctor pump.toml
  edge-rnn doctor pump.toml --for 1m --json

Exit codes: 0 nothing that stops a daemon was found (warnings may have been), 1 something was,
77 credentials refused, 78 configuration or model."""
    parser.add_argument("config", metavar="CONFIG.toml", help="the daemon's configuration")
    parser.add_argument(
        "--for", dest="length", default="5s", metavar="TIME", help="listen for readings so long (default: 5s)"
    )
    parser.add_argument(
        "--passive", action="store_true", help="publish nothing: no round trips, no test of the queue"
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(args: argparse.Namespace) -> int:
    """Examine; 0, or 1 if something stops a daemon, 77 if it is the account."""
    nanoseconds = parse_duration(args.length)
    if nanoseconds is None or nanoseconds <= 0:
        raise ConfigError(f'--for: expected a duration such as "30s", got {printable(args.length)!r}')
    config = load_config(args.config)
    told = None if args.json else _printer()
    findings = []
    code = 1
    examination = _examine(config, nanoseconds / 1e9, passive=args.passive)
    while True:
        try:
            finding = next(examination)
        except StopIteration:
            break
        except CredentialsError as error:
            finding, code = (
                Finding("broker", "fail", str(error), account_advice(config.mqtt)),
                error.exit_code,
            )
        findings.append(finding)
        if told is not None:
            told(finding)
    failed = sum(f.level == "fail" for f in findings)
    if args.json:
        report = {"ok": failed == 0, "findings": plain(findings)}
        sys.stdout.write(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    else:
        warned = sum(f.level == "warn" for f in findings)
        sys.stdout.write(f"{failed} problem(s), {warned} warning(s)\n")
    return code if failed else 0


def _examine(config: Config, seconds: float, *, passive: bool) -> Iterator[Finding]:
    yield from check_disk(config)
    pipeline, finding = _build(config)
    yield finding
    here = own_topic(config)
    try:
        if not passive:
            yield from check_round_trip(config, here)
            yield from check_queue(config, here)
        yield from check_traffic(config, pipeline, seconds)
    except CredentialsError:
        raise
    except EdgeRnnError as error:
        yield Finding("broker", "fail", str(error))


def _build(config: Config) -> tuple[Pipeline, Finding]:
    """The daemon's own parts, warm: models that fit their channels, and the time it takes."""
    begin = time.perf_counter()
    from edge_rnn.service.pipeline_build import build

    pipeline = build(config, time.time_ns())
    spent = time.perf_counter() - begin
    models = len({m.digest for m in pipeline.models.values()})
    text = f"{models} model(s) load, pass their self-test and are compiled after {spent:.1f} s"
    return pipeline, Finding("models", "ok", text, figures={"ready_s": spent})


def _printer() -> Callable[[Finding], None]:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)

    def told(finding: Finding) -> None:
        line = Text()
        line.append(f"{finding.level:<5}", _STYLES[finding.level])
        line.append(f"{finding.subject:<11}", "bold")
        line.append(printable(finding.text))
        console.print(line, soft_wrap=True)
        if finding.remedy:
            console.print(Text(f"{'':16}-> {printable(finding.remedy)}", "cyan"), soft_wrap=True)

    return told
