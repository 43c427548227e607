"""Damaged databases: never a wrong state without a word, the last backup kept, `.bad` files for later.

The fuzz runs on copies of one small database. A mutant is opened by the store's own reader (`open_checked`);
a part of them goes through a whole `Store.open`. What is allowed:

* the mutant is refused (`Damage` inside, a note outside), or
* every state is the one that was committed, but for rows that are reported as bad.

Where the checksum of a row and the sums of `meta` are sealed again after the change, the state is handed out
as it stands: the snapshot's own header and checksum are the engine's to judge.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_rnn.errors import ConfigError, StoreError
from edge_rnn.service.store import Commit, Message, Store
from edge_rnn.service.store_files import open_checked
from edge_rnn.service.store_schema import SELECT, TABLES, Damage, checked_crc, row_crc, write_meta
from edge_rnn.stream.types import Event
from tests.support import torture

from .test_store import event

STATES = {f"press/{i}": bytes([i]) * (40 + 90 * i) for i in range(12)}


def fill(store: Store) -> None:
    store.commit(
        Commit(
            states=list(STATES.items()),
            events=[event(i, "close") for i in range(6)],
            outbox=[Message(f"edge-rnn/press/{i}/event", b'{"type":"open"}') for i in range(4)],
            positions={"arrival": "1763700000000000000", "seq": "17"},
        )
    )


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed, checkpointed store; copy it before you touch it."""
    path = tmp_path_factory.mktemp("sound") / "edge.db"
    with Store.open(path) as store:
        fill(store)
    assert not path.with_name("edge.db-wal").exists()
    return path


@pytest.fixture
def place(memory: Path, sound: Path) -> Path:
    """A copy of the sound store in a folder of its own."""
    return Path(shutil.copy(sound, memory / "edge.db"))


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: thousands of databases are written and synced there."""
    shared = Path("/dev/shm")
    if shared.is_dir() and os.access(shared, os.W_OK):
        with tempfile.TemporaryDirectory(prefix="edge-rnn-test-", dir=shared) as folder:
            yield Path(folder)
    else:
        yield tmp_path


def seal(connection: sqlite3.Connection) -> None:
    """Make the sums of `meta` right again."""
    generation = connection.execute("SELECT generation FROM meta").fetchone()[0]
    sums = {}
    for table in TABLES:
        crcs = [row[0] for row in connection.execute(f"SELECT crc FROM {table}")]
        sums[table] = (len(crcs), sum(crcs) & 0xFFFFFFFF)
    write_meta(connection, generation, sums)


def change(path: Path, statement: str, *values: object, sealed: bool = False) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement, values)
    if sealed:
        seal(connection)
    connection.close()


# --- single rows -------------------------------------------------------------------------------------


def test_a_damaged_state_costs_one_stream_its_state_and_is_said(place: Path) -> None:
    change(place, "UPDATE states SET state = ? WHERE stream = 'press/3'", b"other")
    with Store.open(place) as store:
        assert store.notes == [f"{place}: row 4 of states has a wrong checksum; stream 'press/3' starts cold"]
        assert store.counters.bad_rows == 1
        assert dict(store.load_states()) == {k: v for k, v in STATES.items() if k != "press/3"}
        store.commit(Commit(states=[("press/3", b"new")]))
        assert dict(store.load_states()) == STATES | {"press/3": b"new"}
    with Store.open(place) as store:
        assert store.notes == []
        assert dict(store.load_states()) == STATES | {"press/3": b"new"}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE states SET crc = crc + 1 WHERE id = 2",
        "UPDATE states SET crc = 'text' WHERE id = 2",
        "UPDATE states SET stream = 'press/2' WHERE id = 2",
        "UPDATE states SET stream = x'ff00' WHERE id = 2",
        "UPDATE states SET stream = CAST(x'ff00' AS TEXT) WHERE id = 2",
        "UPDATE states SET state = 'text' WHERE id = 2",
        "UPDATE states SET state = 1.5 WHERE id = 2",
    ],
)
def test_whatever_happens_to_a_row_the_others_survive(place: Path, statement: str) -> None:
    change(place, statement)
    with Store.open(place) as store:
        assert len(store.notes) == 1
        assert "has a wrong checksum" in store.notes[0]
        assert dict(store.load_states()) == {k: v for k, v in STATES.items() if k != "press/1"}
        store.commit(Commit(positions={"p": "1"}))
    with Store.open(place) as store:
        assert store.notes == []


@pytest.mark.parametrize(
    ("statement", "left"),
    [
        ("UPDATE outbox SET payload = x'00' WHERE id = 2", (12, 3, 6, 2)),
        ("UPDATE events SET kind = 'stuck' WHERE id = 2", (12, 4, 5, 2)),
        ("UPDATE positions SET value = '9' WHERE id = 2", (12, 4, 6, 1)),
    ],
)
def test_damaged_rows_of_other_tables_are_dropped_and_said(
    place: Path, statement: str, left: tuple[int, int, int, int]
) -> None:
    change(place, statement)
    with Store.open(place) as store:
        (note,) = store.notes
        assert note.endswith("has a wrong checksum; it is dropped")
        found = (len(dict(store.load_states())), store.waiting(), len(store.events()), len(store.positions()))
        assert found == left
        store.commit(Commit(states=[("a", b"")]))
    with Store.open(place) as store:
        assert store.notes == []


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM states WHERE id = 5",
        "DELETE FROM outbox",
        "DELETE FROM events WHERE id = 1",
        "DELETE FROM positions WHERE id = 1",
        "DELETE FROM meta",
        "UPDATE meta SET generation = generation + 1",
        "UPDATE meta SET crc = NULL",
        "INSERT INTO states SELECT 99, stream, state, crc FROM states WHERE id = 1",
        "CREATE TRIGGER t AFTER INSERT ON states BEGIN DELETE FROM outbox; END",
        "CREATE INDEX i ON states (stream)",
        "DROP TABLE positions",
        "PRAGMA user_version = 0",
        "PRAGMA user_version = 2",
        "PRAGMA application_id = 0",
    ],
)
def test_rows_that_vanish_or_come_and_foreign_tables_are_damage(place: Path, statement: str) -> None:
    connection = sqlite3.connect(place, isolation_level=None)
    if statement.startswith("UPDATE meta SET crc"):
        connection.execute("PRAGMA ignore_check_constraints = ON")
        statement = "UPDATE meta SET crc = 'x'"
    connection.execute(statement)
    connection.close()
    with Store.open(place) as store:
        assert "damaged" in store.notes[0]
        assert "all streams start cold" in store.notes[-1]
        assert list(store.load_states()) == []
        assert place.with_name("edge.db.bad").exists()


def test_an_older_version_of_a_row_is_damage(place: Path) -> None:
    """A page that was never written holds rows whose own checksums are right."""
    with Store.open(place) as store:
        store.commit(Commit(states=[("press/4", b"newer")]))
    state = STATES["press/4"]
    change(
        place,
        "UPDATE states SET state = ?, crc = ? WHERE stream = 'press/4'",
        state,
        row_crc("states", "press/4", state),
    )
    with Store.open(place) as store:
        assert "do not add up" in store.notes[0]


def test_a_resealed_state_is_handed_out_as_it_stands(place: Path) -> None:
    rng = random.Random(5)
    for _ in range(50):
        blob = rng.randbytes(rng.randrange(200))
        change(
            place,
            "UPDATE states SET state = ?, crc = ? WHERE stream = 'press/4'",
            blob,
            row_crc("states", "press/4", blob),
            sealed=True,
        )
        with Store.open(place) as store:
            assert store.notes == []
            assert dict(store.load_states()) == STATES | {"press/4": blob}


@pytest.mark.parametrize("body", ["", "{", "[]", "null", "1", '{"type":"shut"}', "[" * 5000, "\udcff"])
def test_a_resealed_event_that_is_none_is_left_out(place: Path, body: str) -> None:
    connection = sqlite3.connect(place, isolation_level=None)
    _, *fields, _ = connection.execute(f"{SELECT['events']} WHERE id = 3").fetchone()
    raw = body.encode("utf-8", "surrogateescape")
    fields[-1] = body
    connection.execute(
        "UPDATE events SET body = CAST(? AS TEXT), crc = ? WHERE id = 3", (raw, row_crc("events", *fields))
    )
    seal(connection)
    connection.close()
    with Store.open(place) as store:
        assert store.notes == []
        assert len(store.events()) == 5


def test_a_thousand_resealed_mutants_of_events_give_events_or_nothing(place: Path) -> None:
    rng = random.Random(11)
    connection = sqlite3.connect(place, isolation_level=None)
    _, *sound, _ = connection.execute(f"{SELECT['events']} WHERE id = 3").fetchone()
    connection.execute("BEGIN")
    for i in range(1000):
        body = mutate_bytes(sound[-1].encode(), rng, list(range(len(sound[-1]))))
        fields = [f"mutant/{i}", *sound[1:-1], body.decode("utf-8", "surrogateescape")]
        connection.execute(
            "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, CAST(? AS TEXT), ?)",
            (100 + i, *fields[:-1], body, row_crc("events", *fields)),
        )
    connection.execute("COMMIT")
    seal(connection)
    connection.close()
    with Store.open(place) as store:
        assert store.notes == []
        found = store.events(limit=5000)
        assert all(isinstance(event, Event) for event in found)
        assert 6 < len(found) < 1000


# --- whole files -------------------------------------------------------------------------------------


def truncate(raw: bytes, rng: random.Random) -> bytes:
    return raw[: rng.randrange(len(raw))]


def zero_sector(raw: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(raw) // 512) * 512
    return raw[:start] + bytes(512) + raw[start + 512 :]


def append_garbage(raw: bytes, rng: random.Random) -> bytes:
    return raw + rng.randbytes(rng.randint(1, 9000))


def flip_bit(raw: bytes, rng: random.Random) -> bytes:
    mutant = bytearray(raw)
    mutant[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    return bytes(mutant)


def old_page(raw: bytes, rng: random.Random) -> bytes:
    """A page that holds another page's content, as after a misdirected write."""
    pages = len(raw) // 4096
    a, b = rng.randrange(pages) * 4096, rng.randrange(pages) * 4096
    return raw[:a] + raw[b : b + 4096] + raw[a + 4096 :]


WHOLE = (truncate, zero_sector, append_garbage, flip_bit, old_page)


def survive(
    sound: Path, memory: Path, damage: Callable[[bytes, random.Random], bytes], count: int
) -> tuple[int, int]:
    """Starts on `count` damaged databases: how many were mended from the backup, and said what was lost."""
    rng, raw = random.Random(damage.__name__), sound.read_bytes()
    mended = said = 0
    for i in range(count):
        folder = memory / str(i)
        folder.mkdir()
        path = folder / "edge.db"
        shutil.copy(sound, folder / "edge.db.backup")
        mutant = damage(raw, rng)
        path.write_bytes(mutant)
        with Store.open(path) as store:
            states = dict(store.load_states())
            bad = path.with_name("edge.db.bad")
            if bad.exists():
                mended += 1
                assert states == STATES
                assert bad.read_bytes()[4096:] == mutant[4096:]
                assert "set aside as edge.db.bad" in store.notes[0]
                assert "taken from the backup of commit 1" in store.notes[1]
            else:
                check_harmless(states, store.notes)
                said += bool(store.notes)
            store.commit(Commit(states=[("press/0", b"goes on")]))
            # Damage where nothing has looked is found by the backup, which says so and keeps the last one.
            assert store.backup() or store.notes, mutant
        shutil.rmtree(folder)
    return mended, said


@pytest.mark.parametrize("damage", WHOLE)
def test_any_damage_is_survived_from_the_backup_or_is_harmless(
    sound: Path, memory: Path, damage: Callable[[bytes, random.Random], bytes]
) -> None:
    mended, said = survive(sound, memory, damage, 150)
    assert mended + said > 20 or damage is append_garbage


@pytest.mark.torture
@pytest.mark.timeout(7200)
def test_torture_20_000_damaged_databases(sound: Path, memory: Path) -> None:
    start = time.monotonic()
    counts = [survive(sound, memory, damage, 4000) for damage in WHOLE]
    mended, said = (sum(column) for column in zip(*counts, strict=True))
    torture.record(
        "damaged databases", f"20,000 of {len(WHOLE)} kinds",
        f"{mended:,} mended from the backup, {said:,} with lost rows said, the rest without harm; "
        "0 silently accepted",
        time.monotonic() - start,
    )  # fmt: skip


def check_harmless(states: dict[str, bytes], notes: list[str]) -> None:
    """Each state is the committed one, or its loss is said."""
    assert all(STATES.get(stream) == state for stream, state in states.items())
    for stream in STATES.keys() - states.keys():
        assert notes, stream
    if not notes:
        assert states == STATES


def test_the_two_newest_bad_databases_are_kept_with_their_logs(place: Path) -> None:
    for content in (b"first", b"second", b"third"):
        place.write_bytes(content)
        place.with_name("edge.db-wal").write_bytes(b"log of " + content)
        with Store.open(place) as store:
            assert "does not begin like a database" in store.notes[0]
    assert place.with_name("edge.db.bad").read_bytes() == b"third"
    assert place.with_name("edge.db.bad-wal").read_bytes() == b"log of third"
    assert place.with_name("edge.db.bad.1").read_bytes() == b"second"
    assert place.with_name("edge.db.bad.1-wal").read_bytes() == b"log of second"
    assert sorted(p.name for p in place.parent.iterdir() if ".bad" in p.name) == [
        "edge.db.bad", "edge.db.bad-wal", "edge.db.bad.1", "edge.db.bad.1-wal",
    ]  # fmt: skip


def test_a_crash_while_setting_aside_leaves_no_log_to_be_played_in(place: Path, sound: Path) -> None:
    """The database has its new name already, its log not yet: it must not get into the backup's copy."""
    with Store.open(place) as store:
        store.commit(Commit(states=[("press/0", b"in the log")]))
        log = place.with_name("edge.db-wal").read_bytes()
        assert log
    shutil.copy(sound, place.with_name("edge.db.backup"))
    place.rename(place.with_name("edge.db.bad"))
    place.with_name("edge.db-wal").write_bytes(log)
    with Store.open(place) as store:
        assert dict(store.load_states()) == STATES
        assert place.with_name("edge.db.bad-wal").read_bytes() == log


def test_a_damaged_backup_is_set_aside_too_and_the_start_is_cold(place: Path) -> None:
    place.write_bytes(b"nothing")
    place.with_name("edge.db.backup").write_bytes(b"nothing either")
    with Store.open(place) as store:
        assert list(store.load_states()) == []
        assert [("set aside" in note, "cold" in note) for note in store.notes] == [
            (True, False), (True, False), (False, True),
        ]  # fmt: skip
    assert place.with_name("edge.db.bad").read_bytes() == b"nothing"
    assert place.with_name("edge.db.backup.bad").read_bytes() == b"nothing either"


@pytest.mark.parametrize(
    "content",
    [
        b"# Title\n",
        b"time,a\n" * 900 + "\u00b0".encode() * 3000,
        b"H\x10\0\0\0\0\0\0{" + bytes(99),
        b"PK\3\4\xff\0",
    ],
)
def test_a_file_that_never_was_a_database_stays_where_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "README.md"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"README\.md: expected a database of edge-rnn .* another name"):
        Store.open(path)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", [".lock", ".backup", ".bad", "-wal"])
def test_a_database_that_became_text_is_set_aside(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "edge.db"
    path.write_bytes(b"text\n")
    path.with_name(f"edge.db{ending}").touch()
    with Store.open(path) as store:
        assert "does not begin like a database" in store.notes[0]
    assert [p.read_bytes() for p in tmp_path.glob("edge.db.bad*") if p.stat().st_size].count(b"text\n") == 1


def test_noise_or_zeros_in_place_of_the_header_are_damage(place: Path) -> None:
    raw = place.read_bytes()
    for head in (bytes(4096), random.Random(3).randbytes(4096), b"text" + raw[4:4096]):
        place.write_bytes(head + raw[4096:])
        place.with_name("edge.db.lock").unlink(missing_ok=True)
        place.with_name("edge.db.bad").unlink(missing_ok=True)
        place.with_name("edge.db.bad.1").unlink(missing_ok=True)
        with Store.open(place) as store:
            assert "does not begin like a database" in store.notes[0]


def test_a_backup_with_a_damaged_row_is_not_used(place: Path, sound: Path) -> None:
    place.write_bytes(b"nothing")
    backup = Path(shutil.copy(sound, place.with_name("edge.db.backup")))
    change(backup, "UPDATE states SET state = x'00' WHERE id = 1")
    with Store.open(place) as store:
        assert list(store.load_states()) == []
    assert place.with_name("edge.db.backup.bad").exists()


# --- the write-ahead log -----------------------------------------------------------------------------


def test_a_damaged_log_never_takes_commits_away_without_a_word(memory: Path) -> None:
    source = memory / "source"
    with Store.open(source / "edge.db") as store:
        for i in range(12):
            store.commit(Commit(states=[("s", b"%d" % i)], positions={"i": str(i)}))
        files = {name: (source / name).read_bytes() for name in ("edge.db", "edge.db-wal", "edge.db.lock")}
    rng = random.Random(3)
    said = intact = 0
    for i in range(400):
        folder = memory / f"m{i}"
        folder.mkdir()
        log = files["edge.db-wal"]
        mutate = rng.choice((truncate, zero_sector, append_garbage, flip_bit, lambda raw, rng: b""))
        for name, raw in (files | {"edge.db-wal": mutate(log, rng)}).items():
            (folder / name).write_bytes(raw)
        with Store.open(folder / "edge.db") as store:
            states, positions = dict(store.load_states()), store.positions()
            if store.notes:
                said += 1
                if states:
                    # Older, but of one moment.
                    assert positions["i"].encode() == states["s"]
            else:
                intact += 1
                assert states == {"s": b"11"}
            assert store.commit(Commit(positions={"i": "99"})) == 13
        shutil.rmtree(folder)
    assert said > 100
    assert intact > 20


def test_lost_commits_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "edge.db"
    with Store.open(path) as store:
        for i in range(5):
            store.commit(Commit(states=[("s", b"%d" % i)]))
        database = path.read_bytes()
    path.write_bytes(database)
    with Store.open(path) as store:
        assert store.counters.lost_commits == 5
        assert store.notes == [
            f"{path}: the last 5 commits are missing; the end of its write-ahead log was lost"
        ]
        assert store.commit(Commit(states=[("s", b"x")])) == 6


@pytest.mark.parametrize("content", [b"", b"12", b"1 2 3", b"\xff" * 64, b"1 99 00000000".ljust(64)])
def test_a_damaged_lock_file_says_nothing_and_does_no_harm(place: Path, content: bytes) -> None:
    place.with_name("edge.db.lock").write_bytes(content)
    with Store.open(place) as store:
        assert store.notes == []
        assert dict(store.load_states()) == STATES


# --- while running -----------------------------------------------------------------------------------


def ruin(path: Path) -> None:
    """Overwrite all pages but the first in place, also those in the log."""
    for name in (path, path.with_name(path.name + "-wal")):
        size = name.stat().st_size
        with name.open("r+b") as file:
            file.seek(4096 if name == path else 0)
            file.write(os.urandom(max(size - file.tell(), 0)))


def test_damage_while_running_is_mended_and_no_message_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "edge.db"
    with Store.open(path) as store:
        states = {f"s/{i}": os.urandom(3000) for i in range(200)}
        store.commit(
            Commit(states=list(states.items()), outbox=[Message("t", b"sent"), Message("t", b"kept")])
        )
        assert store.backup()
        store.done([store.outbox()[0].id])
        store.commit(Commit(states=[("s/1", b"one")], outbox=[Message("t", b"after the backup")]))
        connection = store._connection
        assert connection is not None
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA shrink_memory")
        connection.execute("PRAGMA cache_size = 0")
        ruin(path)
        generation = store.commit(
            Commit(states=[(f"s/{i}", b"two") for i in range(2, 150)], outbox=[Message("t", b"new")])
        )
        assert generation == 3
        assert store.counters.recoveries == 1
        assert store.incomplete
        assert "damaged while running" in store.notes[0]
        assert "set aside as edge.db.bad" in store.notes[1]
        assert "taken from the backup of commit 1; 1 later commits are missing" in store.notes[2]
        assert [q.message.payload for q in store.outbox()] == [b"kept", b"after the backup", b"new"]
        store.commit(Commit(states=[("s/1", b"one"), ("s/2", b"two")], complete=True))
        assert not store.incomplete
        assert path.with_name("edge.db.bad").exists()
    with Store.open(path) as store:
        assert store.notes == []
        assert dict(store.load_states()) == {"s/1": b"one", "s/2": b"two"}
        assert [q.message.payload for q in store.outbox()] == [b"kept", b"after the backup", b"new"]


def test_a_database_removed_while_running_does_not_swallow_commits(tmp_path: Path) -> None:
    path = tmp_path / "edge.db"
    with Store.open(path) as store:
        store.commit(Commit(states=[("a", b"1")]))
        path.unlink()
        store.commit(Commit(states=[("b", b"2")]))
        assert store.incomplete
        assert "the file was removed or replaced while in use" in store.notes[0]
    with Store.open(path) as store:
        assert dict(store.load_states()) == {"b": b"2"}


def test_damage_while_loading_gives_each_stream_once(tmp_path: Path) -> None:
    path = tmp_path / "edge.db"
    states = {f"s/{i:03}": os.urandom(3000) for i in range(200)}
    with Store.open(path) as store:
        store.commit(Commit(states=list(states.items())))
        assert store.backup()
    with Store.open(path) as store:
        loading = store.load_states()
        first = dict(next(loading) for _ in range(64))
        connection = store._connection
        assert connection is not None
        connection.execute("PRAGMA cache_size = 0")
        connection.execute("PRAGMA shrink_memory")
        ruin_main = path.read_bytes()
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(bytes(len(ruin_main) - 4096))
        rest = list(loading)
        assert len(dict(rest)) == len(rest) == 136
        assert first | dict(rest) == states
        assert store.counters.recoveries == 1


def test_a_backup_finds_damage_keeps_the_last_one_and_asks_for_all_states(tmp_path: Path) -> None:
    path = tmp_path / "edge.db"
    with Store.open(path) as store:
        store.commit(Commit(states=[("a", b"1"), ("b", b"2")]))
        assert store.backup()
        before = path.with_name("edge.db.backup").read_bytes()
        store.commit(Commit(states=[("a", b"3")]))
        change(path, "UPDATE states SET state = x'00' WHERE stream = 'b'")
        assert not store.backup()
        assert path.with_name("edge.db.backup").read_bytes() == before
        assert store.incomplete
        assert "the copy was not sound" in store.notes[0]
        assert "stream 'b' starts cold" in store.notes[1]
        store.commit(Commit(states=[("a", b"3"), ("b", b"2")], complete=True))
        assert store.backup()
        assert path.with_name("edge.db.backup").read_bytes() != before
    with Store.open(path) as store:
        assert store.notes == []
        assert dict(store.load_states()) == {"a": b"3", "b": b"2"}


def test_a_backup_of_a_ruined_database_mends_it_from_the_last_one(tmp_path: Path) -> None:
    path = tmp_path / "edge.db"
    with Store.open(path) as store:
        store.commit(Commit(states=[("a", b"1"), ("b", b"2")], outbox=[Message("t", b"m")]))
        assert store.backup()
        store.commit(Commit(states=[("a", b"3")]))
        change(path, "DELETE FROM states WHERE stream = 'b'")
        assert not store.backup()
        assert store.incomplete
        assert store.counters.recoveries == 1
        assert dict(store.load_states()) == {"a": b"1", "b": b"2"}
        store.commit(Commit(states=[("a", b"3"), ("b", b"2")], complete=True))
        assert [q.message.payload for q in store.outbox()] == [b"m"]
        assert store.backup()


# --- fuzz --------------------------------------------------------------------------------------------


def mutate_bytes(raw: bytes, rng: random.Random, used: list[int]) -> bytes:
    mutant = bytearray(raw)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        # Mostly where something stands: headers, cell pointers, cells.
        at = rng.choice(used) if rng.random() < 0.9 else rng.randrange(len(mutant))
        kind = rng.randrange(4)
        if kind == 0:
            mutant[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            mutant[at] = rng.choice((0, 1, 2, 5, 10, 13, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind == 2:
            source = rng.choice(used)
            size = min(rng.randint(2, 40), len(mutant) - max(at, source))
            mutant[at : at + size] = mutant[source : source + size]
        else:
            end = min(at + rng.randint(2, 12), len(mutant))
            mutant[at:end] = rng.randbytes(end - at)
    return bytes(mutant)


def read_mutant(path: Path) -> tuple[dict[str, bytes], list[str]] | None:
    """The states as the store would hand them out and the streams said to be lost; None if refused."""
    try:
        connection, contents = open_checked(path, "normal", wal=False)
    except (Damage, StoreError):
        return None
    try:
        states = {
            stream: state
            for _, stream, state, crc in connection.execute(SELECT["states"])
            if checked_crc("states", [stream, state]) == crc
        }
        return states, [bad.name for bad in contents.bad if bad.table == "states"]
    finally:
        connection.close()


@pytest.mark.parametrize("seed", range(2))
def test_mutants_are_refused_or_true(sound: Path, memory: Path, seed: int) -> None:
    raw, rng = sound.read_bytes(), random.Random(seed)
    used = [i for i, byte in enumerate(raw) if byte]
    path = memory / "edge.db"
    refused = rows_lost = untouched = 0
    for _ in range(3_000):
        path.write_bytes(mutate_bytes(raw, rng, used))
        found = read_mutant(path)
        if found is None:
            refused += 1
            continue
        states, lost = found
        for stream, state in states.items():
            assert STATES.get(stream) == state
        assert len(STATES) - len(states) == len(lost)
        rows_lost += bool(lost)
        untouched += not lost
    assert refused > 500
    assert rows_lost > 500
    assert untouched > 50


@pytest.mark.parametrize("seed", range(4))
def test_resealed_mutants_are_handed_out_as_they_stand(sound: Path, memory: Path, seed: int) -> None:
    """Rows changed through SQL with all checksums made right get past every check, unchanged."""
    rng = random.Random(seed)
    path = memory / "edge.db"
    accepted = 0
    for _ in range(5_000):
        shutil.copyfile(sound, path)
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA journal_mode = OFF")
        expected = dict(STATES)
        for _ in range(rng.randint(1, 4)):
            stream, state = rng.choice(list(expected.items()))
            blob = mutate_bytes(state, rng, list(range(len(state))))
            expected[stream] = blob
            connection.execute(
                "UPDATE states SET state = ?, crc = ? WHERE stream = ?",
                (blob, row_crc("states", stream, blob), stream),
            )
        seal(connection)
        connection.close()
        found = read_mutant(path)
        assert found == (expected, [])
        accepted += 1
    assert accepted == 5_000


@pytest.mark.parametrize("seed", range(2))
def test_a_whole_start_on_a_mutant_is_a_store_or_a_typed_error(sound: Path, memory: Path, seed: int) -> None:
    raw, rng = sound.read_bytes(), random.Random(100 + seed)
    used = [i for i, byte in enumerate(raw) if byte]
    kinds = {"refused": 0, "cold": 0, "backup": 0, "rows": 0, "fine": 0}
    for i in range(500):
        folder = memory / str(i)
        folder.mkdir()
        path = folder / "edge.db"
        path.write_bytes(mutate_bytes(raw, rng, used))
        if i % 2:
            backup = raw if i % 4 == 1 else mutate_bytes(raw, rng, used)
            path.with_name("edge.db.backup").write_bytes(backup)
        try:
            with Store.open(path, sync="normal") as store:
                states = dict(store.load_states())
                notes = " ".join(store.notes)
                check_harmless(states, store.notes)
                store.events()
                store.outbox()
                store.commit(Commit(states=[("new", b"1")], outbox=[Message("t", b"m")], events=[event(1)]))
        except StoreError:
            kinds["refused"] += 1
            continue
        kind = (
            "cold" if "start cold" in notes and "stream '" not in notes
            else "backup" if "taken from the backup" in notes
            else "rows" if notes else "fine"
        )  # fmt: skip
        kinds[kind] += 1
        with Store.open(path, sync="normal") as store:
            assert dict(store.load_states())["new"] == b"1"
        shutil.rmtree(folder)
    assert kinds["cold"] > 20, kinds
    assert kinds["backup"] > 20, kinds
    assert kinds["rows"] > 20, kinds
