"""The store: one transaction for everything, nothing lost, nobody else in, and what it says."""

from __future__ import annotations

import math
import os
import resource
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest

from edge_rnn.errors import ConfigError, StoreError
from edge_rnn.service.store import Commit, Message, Store
from edge_rnn.stream.types import Event


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "edge.db"


def event(
    i: int, type_: Literal["open", "update", "close"] = "open", stream: str = "press/7", kind: str = "anomaly"
) -> Event:
    return Event(
        type=type_,
        id=f"{stream}-{i}",
        stream=stream,
        kind=kind,
        start_ns=i * 1000,
        time_ns=i * 1000 + 5,
        end_ns=i * 1000 + 9 if type_ == "close" else None,
        score=1.5 * i,
        threshold=4.0,
        peak=7.25,
        peak_ns=i * 1000 + 3,
        shares=(("vib", 0.75), ("temp", 0.25)),
    )


def messages(store: Store, limit: int = 100) -> list[bytes]:
    return [queued.message.payload for queued in store.outbox(limit)]


def test_everything_of_a_commit_comes_back_after_a_restart(path: Path) -> None:
    with Store.open(path) as store:
        assert list(store.load_states()) == []
        assert store.generation == 0
        done = store.commit(
            Commit(
                states=[("press/7", b"seven"), ("press/8", b"\0eight")],
                events=[event(1)],
                outbox=[Message("a/event", b"one"), Message("a/state", b"two", 0, retain=True)],
                positions={"arrival": "17", "kafka/0": "99"},
            )
        )
        assert done == store.generation == 1
    with Store.open(path) as store:
        assert dict(store.load_states()) == {"press/7": b"seven", "press/8": b"\0eight"}
        assert store.positions() == {"arrival": "17", "kafka/0": "99"}
        assert [queued.message for queued in store.outbox()] == [
            Message("a/event", b"one", 1, retain=False),
            Message("a/state", b"two", 0, retain=True),
        ]
        assert store.events() == [event(1)]
        assert store.generation == 1
        assert store.notes == []


def test_only_changed_rows_are_written(path: Path) -> None:
    with Store.open(path) as store:
        store.commit(Commit(states=[(f"s/{i}", b"x" * 100) for i in range(50)]))
        rows = store.counters.rows
        store.commit(Commit(states=[("s/3", b"new")]))
        # One row of the states; an empty commit writes nothing at all.
        assert store.counters.rows - rows == 1
        generation = store.generation
        assert store.commit(Commit()) == generation
        assert store.counters.commits == 2


def test_removed_streams_are_gone_and_may_come_back(path: Path) -> None:
    with Store.open(path) as store:
        store.commit(Commit(states=[("a", b"1"), ("b", b"2"), ("c", b"3")]))
        store.commit(Commit(removed=["b", "never"]))
        assert dict(store.load_states()) == {"a": b"1", "c": b"3"}
        store.commit(Commit(removed=["a"], states=[("a", b"4")]))
    with Store.open(path) as store:
        assert dict(store.load_states()) == {"a": b"4", "c": b"3"}
        assert store.notes == []


def test_a_complete_commit_is_all_there_is(path: Path) -> None:
    with Store.open(path) as store:
        store.commit(Commit(states=[("a", b"1"), ("b", b"2")]))
        store.commit(Commit(states=[("b", b"3"), ("c", b"4")], complete=True))
        assert dict(store.load_states()) == {"b": b"3", "c": b"4"}
    with Store.open(path) as store:
        assert dict(store.load_states()) == {"b": b"3", "c": b"4"}
        assert store.notes == []


def test_many_states_load_in_chunks(path: Path) -> None:
    states = {f"s/{i}": os.urandom(i % 700) for i in range(1000)}
    with Store.open(path) as store:
        store.commit(Commit(states=list(states.items())))
        assert dict(store.load_states()) == states


# --- outbox ------------------------------------------------------------------------------------------


def test_messages_leave_the_outbox_with_the_commit_after_done(path: Path) -> None:
    with Store.open(path) as store:
        store.commit(Commit(outbox=[Message("t", b"%d" % i) for i in range(5)]))
        first, second, *_ = store.outbox(3)
        assert [q.message.payload for q in store.outbox(2, after=second.id)] == [b"2", b"3"]
        store.done([first.id, second.id, 12345])
        assert messages(store) == [b"2", b"3", b"4"]
        assert store.waiting() == 3
    with Store.open(path) as store:
        # Not committed: they are sent again, their ids make that harmless.
        assert messages(store) == [b"0", b"1", b"2", b"3", b"4"]
        store.done(queued.id for queued in store.outbox(2))
        store.commit(Commit())
    with Store.open(path) as store:
        assert messages(store) == [b"2", b"3", b"4"]
        assert store.notes == []


def test_ids_of_messages_never_come_twice_in_one_run(path: Path) -> None:
    with Store.open(path) as store:
        seen: list[int] = []
        for round_ in range(6):
            store.commit(Commit(outbox=[Message("t", b"%d" % round_)] * 3))
            ids = [queued.id for queued in store.outbox()]
            assert ids == sorted(ids)
            seen += ids
            store.done(ids)
        assert len(seen) == len(set(seen)) == 18


def test_the_outbox_drops_its_oldest_only_at_the_bound_and_counts_them(path: Path) -> None:
    with Store.open(path, max_outbox=10) as store:
        store.commit(Commit(outbox=[Message("t", b"%d" % i) for i in range(10)]))
        assert store.counters.outbox_dropped == 0
        store.commit(Commit(outbox=[Message("t", b"%d" % i) for i in range(10, 14)]))
        assert store.counters.outbox_dropped == 4
        assert messages(store) == [b"%d" % i for i in range(4, 14)]
        store.commit(Commit(outbox=[Message("t", b"%d" % i) for i in range(100, 125)]))
        assert messages(store) == [b"%d" % i for i in range(115, 125)]
    with Store.open(path, max_outbox=10) as store:
        assert messages(store) == [b"%d" % i for i in range(115, 125)]
        assert store.notes == []


# --- events ------------------------------------------------------------------------------------------


def test_the_history_keeps_the_newest_state_of_each_event(path: Path) -> None:
    with Store.open(path) as store:
        store.commit(Commit(events=[event(1), event(2)]))
        store.commit(Commit(events=[event(1, "update"), event(1, "close")]))
        assert store.events() == [event(2), event(1, "close")]


def test_events_are_found_by_stream_time_and_number(path: Path) -> None:
    with Store.open(path) as store:
        store.commit(Commit(events=[event(i, stream="a" if i % 2 else "b") for i in range(10)]))
        assert [e.start_ns for e in store.events("a")] == [9000, 7000, 5000, 3000, 1000]
        assert [e.start_ns for e in store.events("b", since_ns=4000)] == [8000, 6000, 4000]
        assert [e.start_ns for e in store.events(limit=3)] == [9000, 8000, 7000]
        assert store.events("c") == []


def test_the_history_is_bounded(path: Path) -> None:
    with Store.open(path, keep_events=5) as store:
        for i in range(12):
            store.commit(Commit(events=[event(i)]))
        store.commit(Commit(events=[event(i) for i in range(20, 28)]))
        assert [e.start_ns // 1000 for e in store.events()] == [27, 26, 25, 24, 23]
    with Store.open(path, keep_events=0) as store:
        store.commit(Commit(events=[event(30)]))
        assert store.events() == []
    with Store.open(path) as store:
        assert store.notes == []


def test_the_numbers_of_a_fault_come_back_as_nan(path: Path) -> None:
    fault = Event(
        "open", "f", "s", "stuck", 1, 1, None, math.nan, math.nan, math.nan, 1, (("vib", math.nan),)
    )  # fmt: skip
    with Store.open(path) as store:
        store.commit(Commit(events=[fault]))
        (found,) = store.events()
    assert math.isnan(found.score)
    assert math.isnan(found.peak)
    assert found.shares[0][0] == "vib"
    assert math.isnan(found.shares[0][1])


# --- failures ----------------------------------------------------------------------------------------


def test_a_full_disk_loses_nothing_and_the_next_commit_goes_through(path: Path) -> None:
    big = Commit(
        states=[(f"s/{i}", os.urandom(2000)) for i in range(100)],
        outbox=[Message("t", b"late")],
        events=[event(2)],
        positions={"p": "2"},
    )
    with Store.open(path) as store:
        store.commit(Commit(states=[("s/0", b"old")], outbox=[Message("t", b"early")], positions={"p": "1"}))
        connection = store._connection
        assert connection is not None
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 1}")
        early = store.outbox()[0].id
        store.done([early])
        for _ in range(3):
            with pytest.raises(StoreError, match="nothing was committed: database or disk is full"):
                store.commit(big)
        assert store.counters.failures == 3
        assert dict(store.load_states()) == {"s/0": b"old"}
        assert store.positions() == {"p": "1"}
        assert messages(store) == []
        assert store.events() == []
        connection.execute("PRAGMA max_page_count = 100000")
        store.commit(big)
        assert dict(store.load_states()) == dict(big.states)
        assert messages(store) == [b"late"]
    with Store.open(path) as store:
        assert dict(store.load_states()) == dict(big.states)
        assert messages(store) == [b"late"]
        assert store.events() == [event(2)]
        assert store.notes == []


@pytest.fixture
def file_limit() -> Iterator[Callable[[int | None], None]]:
    """Sets the largest size of a file this process may write: beyond it, writes fail as on a bad disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int | None) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft if size is None else size, hard))

    yield limit
    limit(None)


def test_write_errors_lose_nothing_and_scoring_can_go_on(
    path: Path, file_limit: Callable[[int | None], None]
) -> None:
    rounds = 60
    with Store.open(path) as store:
        committed: dict[str, bytes] = {}
        failures = 0
        pending: dict[str, bytes] = {}
        for i in range(rounds):
            pending[f"s/{i % 7}"] = os.urandom(3000)
            file_limit(40_000 if i % 3 else None)
            try:
                store.commit(Commit(states=list(pending.items()), positions={"i": str(i)}))
            except StoreError:
                failures += 1
            else:
                committed |= pending
                pending = {}
            file_limit(None)
            assert dict(store.load_states()) == committed
        assert failures > 5
        assert failures == store.counters.failures
    with Store.open(path) as store:
        assert dict(store.load_states()) == committed
        assert store.notes == []


def test_mending_waits_for_a_disk_that_takes_files_and_is_said_once(
    path: Path, file_limit: Callable[[int | None], None]
) -> None:
    last = Commit(states=[("a", b"2")], outbox=[Message("t", b"new")])
    with Store.open(path) as store:
        store.commit(Commit(states=[("a", b"1"), ("b", b"1")], outbox=[Message("t", b"old")]))
        path.unlink()
        file_limit(100)
        for _ in range(3):
            with pytest.raises(StoreError, match="cannot be mended"):
                store.commit(last)
        file_limit(None)
        assert len(store.notes) == store.counters.recoveries == 1
        assert messages(store) == [b"old"]
        store.commit(last)
        assert store.incomplete
        assert "all streams start cold" in store.notes[1]
        assert messages(store) == [b"old", b"new"]
    with Store.open(path) as store:
        assert dict(store.load_states()) == {"a": b"2"}
        assert messages(store) == [b"old", b"new"]
        assert store.notes == []


def test_a_lock_by_another_program_is_an_error_that_passes(path: Path) -> None:
    with Store.open(path) as store:
        store.commit(Commit(states=[("a", b"1")]))
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="database is locked"):
            store.commit(Commit(states=[("a", b"2")]))
        other.execute("ROLLBACK")
        other.close()
        store.commit(Commit(states=[("a", b"2")]))
        assert dict(store.load_states()) == {"a": b"2"}


@pytest.mark.parametrize(
    "bad",
    [
        Commit(states=[("ok", b"1"), ("\ud800", b"x")]),
        Commit(states=[("ok", b"1")], outbox=[Message("t", b"", qos=2**70)]),
        Commit(states=[("ok", b"1")], positions={"\udc80": "x"}),
    ],
)
def test_a_value_that_does_not_fit_commits_nothing(path: Path, bad: Commit) -> None:
    with Store.open(path) as store:
        store.commit(Commit(states=[("a", b"1")]))
        with pytest.raises(StoreError, match="a value does not fit"):
            store.commit(bad)
        store.commit(Commit(states=[("b", b"2")]))
        assert dict(store.load_states()) == {"a": b"1", "b": b"2"}


# --- who may use it ----------------------------------------------------------------------------------


def test_a_second_daemon_on_the_same_store_ends_with_78_and_is_told_the_pid(path: Path) -> None:
    with Store.open(path) as store:
        store.commit(Commit(states=[("a", b"1")]))
        with pytest.raises(ConfigError, match=rf"another one running \(pid {os.getpid()}\)") as caught:
            Store.open(path)
        assert caught.value.exit_code == 78
        store.commit(Commit(states=[("a", b"2")]))
    with Store.open(path) as store:
        assert dict(store.load_states()) == {"a": b"2"}
        assert store.notes == []


def test_the_lock_of_another_process_counts_and_ends_with_it(path: Path) -> None:
    code = (
        "import sys; from edge_rnn.service.store import Store; s = Store.open(sys.argv[1]); "
        "print('ready', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"ready\n"
        with pytest.raises(ConfigError, match=f"pid {other.pid}"):
            Store.open(path)
        other.kill()
    Store.open(path).close()


def test_files_are_for_this_user_alone(path: Path) -> None:
    old = os.umask(0)
    try:
        with Store.open(path) as store:
            store.commit(Commit(states=[("a", b"1")]))
            assert store.backup()
            files = sorted(path.parent.iterdir())
            assert {file.name for file in files} >= {
                "edge.db",
                "edge.db-wal",
                "edge.db.backup",
                "edge.db.lock",
            }
            assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    finally:
        os.umask(old)


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "photos.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE photos (a)")
    other.execute("PRAGMA application_id = 7")
    other.commit()
    other.close()
    before = path.read_bytes()
    with pytest.raises(
        StoreError, match=r"another program's \(application id 0x7\); give another store.path"
    ):
        Store.open(path)
    assert path.exists()
    assert not (tmp_path / "photos.db.bad").exists()
    assert len(before) == path.stat().st_size


@pytest.mark.parametrize("with_tables", [True, False])
def test_a_newer_schema_is_refused_and_left_alone(path: Path, with_tables: bool) -> None:
    with Store.open(path) as store:
        store.commit(Commit(states=[("a", b"1")]))
    other = sqlite3.connect(path)
    other.execute("PRAGMA user_version = 2")
    if with_tables:
        other.execute("ALTER TABLE states ADD COLUMN more")
    else:
        from edge_rnn.service.store_schema import row_crc

        _, _, *rest, _ = other.execute("SELECT * FROM meta").fetchone()
        other.execute("UPDATE meta SET schema = 2, crc = ?", (row_crc("meta", 2, *rest),))
    other.commit()
    other.close()
    with pytest.raises(StoreError, match=r"expected a database of version 1, got version 2.*update this one"):
        Store.open(path)
    assert path.exists()
    assert not path.with_name("edge.db.bad").exists()


def test_a_folder_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="cannot be opened: Not a directory"):
        Store.open(tmp_path / "file" / "edge.db")
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(StoreError, match="Is a directory"):
        Store.open(tmp_path / "folder.db")


def test_odd_names_of_files_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "a b?#%20&mode=ro\udcff.db"
    with Store.open(path) as store:
        store.commit(Commit(states=[("a", b"1")]))
        assert store.backup()
    assert path.exists()
    with Store.open(path) as store:
        assert dict(store.load_states()) == {"a": b"1"}


# --- backups -----------------------------------------------------------------------------------------


def test_a_backup_takes_the_place_of_a_lost_database(path: Path) -> None:
    with Store.open(path) as store:
        store.commit(Commit(states=[("a", b"1")], positions={"p": "1"}, events=[event(1)]))
        assert store.backup()
        assert not store.backup()  # nothing new
        store.commit(Commit(states=[("a", b"2")]))
        store.commit(Commit(states=[("a", b"3")]))
    path.unlink()
    with Store.open(path) as store:
        assert dict(store.load_states()) == {"a": b"1"}
        assert store.positions() == {"p": "1"}
        assert store.events() == [event(1)]
        (note,) = store.notes
        assert note == f"{path}: taken from the backup of commit 1; 2 later commits are missing"
        assert store.commit(Commit(states=[("a", b"4")])) == 4
    with Store.open(path) as store:
        assert dict(store.load_states()) == {"a": b"4"}
        assert store.notes == []


def test_without_database_and_backup_it_is_a_cold_start_that_is_said(path: Path) -> None:
    with Store.open(path) as store:
        store.commit(Commit(states=[("a", b"1")]))
    path.unlink()
    with Store.open(path) as store:
        assert list(store.load_states()) == []
        assert store.notes == [f"{path}: no database and no backup to go on from; all streams start cold"]


def test_a_backup_that_cannot_be_written_leaves_the_last_one(
    path: Path, file_limit: Callable[[int | None], None]
) -> None:
    backup = path.with_name("edge.db.backup")
    with Store.open(path) as store:
        store.commit(Commit(states=[("a", b"1")]))
        store.backup()
        before = backup.read_bytes()
        store.commit(Commit(states=[("a", os.urandom(100_000))]))
        file_limit(50_000)
        with pytest.raises(StoreError, match="no new backup"):
            store.backup()
        file_limit(None)
        assert backup.read_bytes() == before
        assert not path.with_name("edge.db.backup.new").exists()
        assert store.counters.backup_failures == 1
        assert store.backup()
        assert backup.read_bytes() != before


def test_commits_go_on_while_a_backup_is_taken(path: Path) -> None:
    with Store.open(path, sync="normal") as store:
        store.commit(Commit(states=[(f"s/{i}", os.urandom(1000)) for i in range(300)]))
        results: list[object] = []

        def back_up() -> None:
            try:
                results.extend(store.backup() for _ in range(5))
            except StoreError as error:
                results.append(error)

        thread = threading.Thread(target=back_up)
        thread.start()
        rounds = 0
        while thread.is_alive() or rounds < 5:
            store.commit(Commit(states=[(f"s/{rounds % 300}", b"%d" % rounds)], positions={"r": str(rounds)}))
            rounds += 1
        thread.join()
        assert True in results
        assert all(isinstance(result, bool) for result in results)
        assert store.notes == []
    shutil.copy(path.with_name("edge.db.backup"), path)
    with Store.open(path) as store:
        # One moment, not a mixture: the newest state is the one the position speaks of.
        states, positions = dict(store.load_states()), store.positions()
        if positions:
            assert states[f"s/{int(positions['r']) % 300}"] == positions["r"].encode()


def test_closing_twice_is_harmless_and_a_closed_store_says_so(path: Path) -> None:
    store = Store.open(path)
    store.commit(Commit(states=[("a", b"1")]))
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.commit(Commit(states=[("a", b"2")]))
    with Store.open(path) as again:
        assert dict(again.load_states()) == {"a": b"1"}


def test_notes_are_given_out_once(path: Path) -> None:
    with Store.open(path) as store:
        store.notes += ["one", "two"]
        assert store.take_notes() == ["one", "two"]
        assert store.take_notes() == []
