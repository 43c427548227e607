"""The figures of the long runs, in tests/TORTURE.md: each torture test writes its own row when it has passed.

    record("kill -9", "100 kills during 100,000 readings", "0 lost, 0 stepped twice", seconds=512.0)

A row that is there already is replaced, so the file holds the latest figure of each promise, and each says
the commit that it is of: the one that was checked out when the run began. The default run writes nothing.
"""

from __future__ import annotations

import datetime as dt
import os
import platform
import subprocess
from pathlib import Path

FILE = Path(__file__).resolve().parents[1] / "TORTURE.md"
_HEAD = """\
# Torture

What the long runs (`pytest -m torture`) have shown. Every row was written by the test that it names, when it
had passed, and says the commit whose code ran (older rows say none); a run again replaces it. The default run
has a small version of each and writes nothing.

| promise | test | length | figure | seconds | when, where |
|---|---|---|---|---|---|
"""


def _code() -> str:
    """The commit that is checked out, with a plus where the package has changes on top of it."""
    said = []
    for command in (["rev-parse", "--short=7", "HEAD"], ["status", "--porcelain", "--", "edge_rnn"]):
        run = subprocess.run(
            ["git", *command], cwd=FILE.parents[1], capture_output=True, text=True, check=False
        )
        said.append(run.stdout.strip() if run.returncode == 0 else "")
    return f"{said[0]}{'+' if said[1] else ''}" if said[0] else "unknown"


# Asked when the run begins: what is committed during a run of hours is not what it runs.
CODE = _code()


def record(promise: str, length: str, figure: str, seconds: float) -> None:
    """Write one row; the test's name is taken from pytest's own variable."""
    test = os.environ.get("PYTEST_CURRENT_TEST", "").split(" ", 1)[0].rsplit("/", 1)[-1]
    machine = f"{os.cpu_count()} shared cores {platform.machine()}"
    where = f"{dt.datetime.now(dt.UTC):%Y-%m-%d}, commit {CODE}, {machine}"
    row = f"| {promise} | `{test}` | {length} | {figure} | {seconds:.0f} | {where} |\n"
    rows = []
    if FILE.exists():
        lines = FILE.read_text("utf-8").splitlines(keepends=True)
        rows = [line for line in lines if line.startswith("| ") and not line.startswith("| promise")]
    rows = sorted([one for one in rows if f"`{test}`" not in one] + [row])
    FILE.write_text(_HEAD + "".join(rows), "utf-8")
