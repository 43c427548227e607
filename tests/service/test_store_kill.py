"""A writer killed with SIGKILL at random moments loses no acknowledged commit and tears none."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import torture as figures

WRITER = Path(__file__).with_name("store_writer.py")


def torture(path: Path, kills: int) -> dict[str, int]:
    run = subprocess.run(
        [sys.executable, str(WRITER), str(path), str(kills), "1"],
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    counts: dict[str, int] = json.loads(run.stdout)
    return counts


def test_kill_9_loses_and_tears_nothing(tmp_path: Path) -> None:
    counts = torture(tmp_path / "edge.db", 100)
    assert counts["kills"] == 100
    assert counts["commits"] > 200
    assert (counts["lost"], counts["torn"], counts["notes"]) == (0, 0, 0)


@pytest.mark.torture
@pytest.mark.timeout(1800)
def test_two_thousand_kills(tmp_path: Path) -> None:
    start = time.monotonic()
    counts = torture(tmp_path / "edge.db", 2000)
    assert counts["kills"] == 2000
    assert (counts["lost"], counts["torn"], counts["notes"]) == (0, 0, 0)
    figure = f"{counts['commits']:,} commits: 0 lost, 0 torn"
    figures.record("store under kill -9", "2,000 kills", figure, time.monotonic() - start)
