"""A disk that fails at random under the store: full, erroneous, cut short, unable to sync. Nothing is lost.

`disk_faults.c` stands in front of the C library, so SQLite meets the failures where a bad disk makes them.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from edge_rnn.errors import StoreError
from edge_rnn.service.store import Commit, Message, Store
from tests.support import need, torture

WRITER = Path(__file__).with_name("store_faulty.py")
SHIM = Path(__file__).parents[1] / "support" / "disk_faults.c"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that makes the disk fail."""
    if sys.platform != "linux":
        pytest.skip("needs LD_PRELOAD")
    library = tmp_path_factory.mktemp("shim") / "disk_faults.so"
    command = [need.program("cc"), "-shared", "-fPIC", "-O1", "-Wall", "-Werror"]
    subprocess.run([*command, "-o", library, SHIM, "-ldl"], check=True, timeout=120)
    return library


def survive(shim: Path, folder: Path, commits: int, seed: int) -> dict[str, int]:
    """What happened in so many commits; the writer itself fails where something is lost, torn or said."""
    run = subprocess.run(
        [sys.executable, str(WRITER), str(folder / "edge.db"), str(commits), str(seed)],
        env=os.environ | {"LD_PRELOAD": str(shim), "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=3000, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    counts: dict[str, int] = json.loads(run.stdout)
    return counts


def test_a_disk_that_fails_at_random_loses_nothing(shim: Path, tmp_path: Path) -> None:
    counts = survive(shim, tmp_path, 300, seed=4)
    assert counts["commits"] > 50
    assert counts["failures"] > 50
    assert counts["backup_failures"] > 5
    assert counts["failed_starts"] > 2
    assert counts["late"] > 2


class LateFailure:
    """A connection whose next COMMIT is done, but says that the disk failed."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        cursor = self._connection.execute(statement, *values)
        if statement == "COMMIT":
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            raise error
        return cursor


def test_a_commit_that_failed_in_its_last_sync_may_be_there_and_harms_nothing(tmp_path: Path) -> None:
    path = tmp_path / "edge.db"
    with Store.open(path) as store:
        store.commit(Commit(states=[("a", b"1")], outbox=[Message("t", b"early")]))
        store._connection = LateFailure(store._connection)  # type: ignore[assignment, arg-type]
        with pytest.raises(StoreError, match="nothing was committed: disk I/O error"):
            store.commit(Commit(states=[("a", b"2"), ("gone", b"2")], outbox=[Message("t", b"late")]))
        # The caller still has that message; it must not be sent twice.
        assert [q.message.payload for q in store.outbox()] == [b"early"]
        assert dict(store.load_states()) == {"a": b"2", "gone": b"2"}
        store.commit(Commit(states=[("a", b"3")], outbox=[Message("t", b"late")]))
        assert store.backup()
    with Store.open(path) as store:
        assert store.notes == []
        assert [q.message.payload for q in store.outbox()] == [b"early", b"late"]
        assert dict(store.load_states()) == {"a": b"3", "gone": b"2"}
        assert store.generation == 3


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_torture_20_000_commits_on_a_bad_disk(shim: Path, tmp_path: Path) -> None:
    start = time.monotonic()
    counts = survive(shim, tmp_path, 20_000, seed=44)
    assert counts["commits"] + counts["failures"] == 20_000
    torture.record(
        "full disk, I/O errors, short writes, failed syncs", "20,000 commits of the store",
        f"{counts['calls']:,} calls failed, {counts['failures']:,} commits, {counts['backup_failures']:,} "
        f"backups and {counts['failed_starts']:,} starts with them: 0 lost, 0 torn, 0 called damage",
        time.monotonic() - start,
    )  # fmt: skip
