"""The README's figures, from the files in `results/`: nothing in them is typed by hand.

    python -m benchmarks.readme            say whether the README shows what the files hold
    python -m benchmarks.readme --write    bring it up to date, and draw the picture anew

Two places of the README are written here, between the comments `<!-- figures: NAME -->` and `<!-- end -->`:
`peers`, the newest stored run of `benchmarks.peers` in few rows, and `devices`, the four kinds of figures of
`benchmarks.device`. A test compares them, so a new run that is stored without this step is found.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from benchmarks import device, peers
from edge_rnn.errors import EdgeRnnError

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PICTURE = peers.RESULTS / "peers.png"
SHOWN = ("LSTM 1/16/1", "LSTM 8/64/1", "GRU 1/16/1", "GRU 8/64/1")
_PLACE = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def newest_peers(results: Path = peers.RESULTS) -> dict[str, Any]:
    """The stored run of `benchmarks.peers` with the latest date."""
    runs = [json.loads(path.read_text()) for path in sorted(results.glob("peers-*.json"))]
    if not runs:
        raise EdgeRnnError(
            f"{results}: expected a stored run, got none; python -m benchmarks.peers makes one"
        )
    found: dict[str, Any] = max(runs, key=lambda run: run["date"])
    return found


def blocks(results: Path = peers.RESULTS) -> dict[str, str]:
    """What belongs between the comments, by name."""
    run = newest_peers(results)
    shown = dict(run, rows=[row for row in run["rows"] if row["network"] in SHOWN])
    picture = "![One reading beside other runtimes](benchmarks/results/peers.png)"
    return {
        "peers": f"{peers.table(shown)}\n\n{picture}\n",
        "devices": device.collect(results).strip() + "\n",
    }


def filled(text: str, found: dict[str, str]) -> str:
    """The README with every place written anew.

    Raises:
        EdgeRnnError: a place is missing, or one has no content here.
    """
    names = [match[2] for match in _PLACE.finditer(text)]
    if sorted(names) != sorted(found):
        raise EdgeRnnError(
            f"README.md: expected the places {', '.join(sorted(found))}, got {', '.join(names)}"
        )
    return _PLACE.sub(lambda match: f"{match[1]}\n{found[match[2]]}\n{match[3]}", text)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="readme", description="the README's figures, from stored results")
    parser.add_argument("--write", action="store_true", help="write them; default: only compare")
    options = parser.parse_args(arguments)
    text = README.read_text("utf-8")
    wanted = filled(text, blocks())
    if options.write:
        README.write_text(wanted, "utf-8")
        peers.draw(newest_peers(), PICTURE)
        return 0
    if text != wanted:
        print(
            "README.md does not show the stored results; python -m benchmarks.readme --write", file=sys.stderr
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
