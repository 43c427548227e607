"""What the four commands have in common: options, the ablation over seeds, the table at the end."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.detection import lines as results
from benchmarks.detection import robust, running
from benchmarks.detection.building import Plans
from benchmarks.detection.lines import Board, Line
from benchmarks.detection.recipes import Settings
from benchmarks.detection.recordings import Recording
from benchmarks.detection.running import ALONE, BASELINE, BOTH, WITHOUT, Said, Trainer, Variant, one_scorer


@dataclass(frozen=True, slots=True)
class Arguments:
    """The options of every command."""

    folder: Path
    seeds: int
    cache: Path
    only: int | None
    quick: bool
    write: bool


def arguments(description: str | None, argv: Sequence[str] | None) -> Arguments:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="the data set, as its repository has it")
    parser.add_argument("--seeds", type=int, default=3, help="networks to train for each file (default: 3)")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser.add_argument(
        "--cache", type=Path, default=home / "edge-rnn" / "detection", help="trained networks (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--only", type=int, metavar="N", help="the first N files alone; nothing is stored")
    parser.add_argument("--quick", action="store_true", help="the setting alone: no ablation, no robustness")
    args = parser.parse_args(argv)
    if args.seeds < 1:
        parser.error(f"--seeds: expected at least 1, got {args.seeds}")
    return Arguments(
        args.folder, args.seeds, args.cache, args.only, args.quick, args.only is None and not args.quick
    )


def run(
    name: str, title: str, recordings: Sequence[Recording], settings: Settings, board: Board,
    measures: Sequence[str], args: Arguments, extra: Sequence[tuple[str, list[Said]]] = (),
    damaged: Sequence[str] = (),
) -> list[Line]:  # fmt: skip
    """Every line of a set's table; prints it and stores it. damaged: the board's measures of damage."""
    chosen = list(recordings[: args.only])
    trainer = Trainer(args.cache)
    begun = time.perf_counter()
    made: list[Line] = []

    def judge(line: Line, said: Sequence[Said]) -> None:
        line.add(board(chosen, said) | results.common(chosen, said, settings))
        shown = "  ".join(f"{m} {line.values[m][-1]:.3f}" for m in measures if m in line.values)
        print(f"{line.detector:<34} {shown}", flush=True)

    first: list[Said] = []
    for variant, seeded in [(BOTH, True)] if args.quick else variants(settings):
        line = Line(variant.name)
        for seed in range(args.seeds if seeded else 1):
            said = running.said_by(chosen, settings, variant, seed, trainer)
            judge(line, said)
            if variant is BOTH and seed == 0:
                first = said
        made.append(line)
    for detector, said in [
        ("seasonal naive, persistence where no season", running.naive_of(chosen)),
        ("always on", running.always_on(chosen)),
        *extra,
    ]:
        line = Line(detector)
        judge(line, said[: len(chosen)])
        made.append(line)
    facts: dict[str, Any] = {
        "title": title,
        "Seeds": str(args.seeds),
        "Time": f"{time.perf_counter() - begun:.0f} s with {trainer.trained} networks trained in "
        f"{trainer.seconds:.0f} s and {trainer.reused} taken from the cache (machine shared with other work)",
    }
    if not args.quick:
        facts["Robustness, seed 0"] = robust.report(chosen, settings, trainer, first, board, damaged)
    print()
    print(results.table(made, [*measures]))
    print(
        results.table(
            made, ["events found %", "false alarms a day", "median delay, rows", "VUS-PR", "affiliation F1"]
        )
    )
    for key, value in facts.items():
        print(f"{key}: {value}")
    if args.write:
        results.write(name, chosen, settings, made, measures, facts)
    return made


def variants(settings: Settings) -> list[tuple[Variant, bool]]:
    """The lines of an ablation, and whether the network has a part in them, so that seeds differ."""
    plans = settings.plans
    if plans is None:
        return [(BOTH, True), (WITHOUT, False), (ALONE, True), (BASELINE, False)]
    found = [(BOTH, any(s.of_network for s in plans.parts))]
    for variant, network in ((WITHOUT, False), (ALONE, True)):
        if len({s.of_network for s in plans.parts}) > 1 and any(s.of_network == network for s in plans.parts):
            found.append((variant, network))
    found += [(one_scorer(s.name), s.of_network) for s in plans.parts] if len(plans.parts) > 2 else []
    for name, other in settings.others:
        seeded = any(part.of_network for part in other.parts)
        found.append((Variant(name, lambda options: options, partial(_other, other)), seeded))
    return [*found, (BASELINE, False)]


def _other(plans: Plans, _setting: Plans) -> Plans:
    return plans
