"""The store: stream states, outgoing events, event history and positions in one SQLite database.

`commit` is the daemon's single commit point: one transaction writes the states that changed, removes what is
gone, adds messages to the outbox and events to the history, and moves positions. Only when it has returned
are the readings behind it acknowledged. If it raises, nothing is taken from the caller, and the same commit
can be tried again. Nothing of it is written then, but for one case that no program can rule out: a disk that
fails in the last sync may have kept it, and then it is there whole.

What a crash leaves is the state of the last commit (`sync = "full"`: also after a power cut). What a medium
may do besides is found when the store opens, in every backup, and wherever SQLite stumbles while running:

* a row with a wrong checksum is dropped: that stream starts cold, the others go on;
* a database that is damaged beyond rows is renamed to `.bad`, and the last backup takes its place, else an
  empty one. While running, the outbox is carried over from memory and `incomplete` asks for all states;
* commits that were lost without damage (a torn end of the write-ahead log) are told from the generation
  in the lock file.

Each of these is a line in `notes`; the daemon logs them. A store is safe to use from several threads:
`backup` copies through its own connection and does not keep commits waiting.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from edge_rnn.errors import StoreError
from edge_rnn.service import store_files as files
from edge_rnn.service.store_rows import Commit, Message, Queued, event_fields, event_of
from edge_rnn.service.store_schema import (
    DROP,
    EMPTY,
    PUT,
    SELECT,
    TABLES,
    BadRow,
    Contents,
    Damage,
    Stage,
    checked_crc,
    damage_found,
    row_crc,
    write_meta,
)
from edge_rnn.stream.types import Event

__all__ = ["Commit", "Message", "Queued", "Store", "StoreCounters"]

_R = TypeVar("_R")


@dataclass(slots=True)
class StoreCounters:
    """What has happened since the store was opened."""

    commits: int = 0
    failures: int = 0
    rows: int = 0
    outbox_dropped: int = 0
    bad_rows: int = 0
    recoveries: int = 0
    lost_commits: int = 0
    backups: int = 0
    backup_failures: int = 0


class Store:
    """See the module's text. Make one with `Store.open`.

    Attributes:
        path: the database.
        notes: what was found and done about it, one line each; `take_notes` empties it.
        counters: see `StoreCounters`.
        generation: count of commits over the store's whole life.
        incomplete: after damage while running: states of streams that do not change any more are missing
            or old here, so the next commit should hold all of them (`Commit.complete`).
    """

    def __init__(
        self, path: Path, sync: Literal["full", "normal"], keep_events: int, max_outbox: int, lock: files.Lock
    ) -> None:
        self.path = path
        self.notes: list[str] = []
        self.counters = StoreCounters()
        self.incomplete = False
        self._sync = sync
        self._keep_events = keep_events
        self._max_outbox = max_outbox
        self._lock = lock
        self._mutex = threading.RLock()
        self._copying = threading.Lock()
        self._contents = Contents()
        self._purge: list[BadRow] = []
        self._waiting: dict[int, Message] = {}
        self._done: set[int] = set()
        self._resend = False
        self._closed = False
        self._saved_generation = -1
        self._connection: sqlite3.Connection | None = self._bring_up()
        self._identity = self._look()
        self._waiting = {i: Message(*row) for i, row in self._contents.outbox.items()}
        self._contents.outbox = {}
        self._next_message = self._contents.ledgers["outbox"].next_id

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        sync: Literal["full", "normal"] = "full",
        keep_events: int = 10_000,
        max_outbox: int = 10_000,
    ) -> Self:
        """Open the store, create it if there is none, mend it if it is damaged (see `notes`).

        Args:
            path: the database; missing folders are created with mode 0700, files with 0600.
            sync: `full`: a commit survives a power cut; `normal`: a crash of the program.
            keep_events: newest events kept in the history.
            max_outbox: most messages kept for the broker; beyond it the oldest go, counted.

        Raises:
            ConfigError: another daemon uses it, or it is a file that never was a database.
            StoreError: it cannot be opened, or is not a store this version can read.
        """
        path = Path(path).absolute()
        lock = None
        try:
            files.make_folder(path.parent)
            files.refuse_foreign(path)
            lock = files.Lock(files.beside(path, ".lock"))
            return cls(path, sync, keep_events, max_outbox, lock)
        except (OSError, sqlite3.Error) as error:
            if lock is not None:
                lock.close()
            raise _failed(path, "cannot be opened", error) from error
        except BaseException:
            if lock is not None:
                lock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def generation(self) -> int:
        """Count of commits over the store's whole life."""
        return self._contents.generation

    def take_notes(self) -> list[str]:
        """The notes so far; each is given out once, also while another thread adds some."""
        taken = self.notes[:]
        del self.notes[: len(taken)]
        return taken

    # --- opening and mending -------------------------------------------------------------------------

    def _bring_up(self) -> sqlite3.Connection:
        """Bring a sound database under the store's name and open it."""
        files.remove(files.beside(self.path, ".new"))
        damaged = False
        if self.path.exists():
            try:
                connection, contents = files.open_checked(self.path, self._sync)
            except Damage as damage:
                bad = files.set_aside(self.path)
                self.notes.append(f"{self.path}: damaged ({damage}); set aside as {bad.name}")
                damaged = True
            else:
                return self._take(connection, contents)
        files.clear_strays(self.path)
        known = self._lock.generation or 0
        backup = files.beside(self.path, ".backup")
        if backup.exists():
            try:
                restored = files.restore(backup, self.path, known)
            except Damage as damage:
                bad = files.set_aside(backup)
                self.notes.append(f"{backup}: damaged ({damage}); set aside as {bad.name}")
                damaged = True
            else:
                self.notes.append(
                    f"{self.path}: taken from the backup of commit {restored}; "
                    f"{max(known - restored, 0)} later commits are missing"
                )
                return self._take(*files.open_checked(self.path, self._sync))
        files.create(self.path, known)
        if damaged or known:
            self.notes.append(f"{self.path}: no database and no backup to go on from; all streams start cold")
        return self._take(*files.open_checked(self.path, self._sync))

    def _take(self, connection: sqlite3.Connection, contents: Contents) -> sqlite3.Connection:
        lost = (self._lock.generation or 0) - contents.generation
        if lost > 0:
            self.counters.lost_commits += lost
            self.notes.append(
                f"{self.path}: the last {lost} commits are missing; the end of its write-ahead log was lost"
            )
        contents.generation = max(contents.generation, self._lock.generation or 0)
        for bad in contents.bad:
            self._report(bad)
        self._purge = contents.bad
        self._contents = contents
        return connection

    def _report(self, bad: BadRow) -> None:
        self.counters.bad_rows += 1
        effect = f"stream {bad.name!a} starts cold" if bad.table == "states" else "it is dropped"
        self.notes.append(f"{self.path}: row {bad.row} of {bad.table} has a wrong checksum; {effect}")

    def _look(self) -> tuple[int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _live(self) -> sqlite3.Connection:
        """The connection, opened anew after an I/O error; `Damage` if the file under it has gone."""
        if self._closed:
            raise StoreError(f"{self.path}: expected an open store, got a closed one")
        if self._identity is None:
            raise Damage("there is none since the last one broke")
        if self._look() != self._identity:
            # SQLite would go on writing into a file that no longer has a name.
            raise Damage("the file was removed or replaced while in use")
        if self._connection is None:
            connection = files.connect(self.path, self._sync, wal=True)
            try:
                (written,) = connection.execute("SELECT generation FROM meta").fetchone()
            except BaseException:
                connection.close()
                raise
            self._connection = connection
            if written > self.generation:
                self._disconnect()
                self._connection = self._adopt()
        return self._connection

    def _adopt(self) -> sqlite3.Connection:
        """A commit that failed is in the database after all: go on from there.

        Where the disk failed in the last sync, all of it stood in the log already, and opening plays it in.
        Its states and events are those that the next attempt writes again; its messages are still with the
        caller, so the outbox is written anew from what is known to be committed.
        """
        connection, contents = files.open_checked(self.path, self._sync)
        contents.outbox = {}
        self._purge = contents.bad
        self._contents = contents
        self._next_message = max(self._next_message, contents.ledgers["outbox"].next_id)
        self._resend = True
        self._lock.mark(contents.generation)
        return connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None

    def _recover(self, damage: Damage) -> None:
        """Put a database that broke while running aside and go on with the backup or an empty one."""
        self._disconnect()
        self._lock.generation = self.generation
        if self._identity is not None:
            self.counters.recoveries += 1
            self.notes.append(f"{self.path}: damaged while running ({damage})")
            self._identity = None
        if self.path.exists():
            bad = files.set_aside(self.path)
            self.notes.append(f"{self.path}: set aside as {bad.name}")
        self._connection = self._bring_up()
        self._identity = self._look()
        self._contents.outbox = {}
        self._next_message = max(self._next_message, self._contents.ledgers["outbox"].next_id)
        self._resend = True
        self.incomplete = True
        self._saved_generation = -1

    def _guarded(self, doing: str, work: Callable[[], _R]) -> _R:
        """Do the work; on damage mend and do it once more; other failures become a `StoreError`."""
        with self._mutex:
            for attempt in (1, 2):
                try:
                    with damage_found():
                        return work()
                except Damage as damage:
                    if attempt == 2:
                        raise StoreError(f"{self.path}: {doing}: damaged again ({damage})") from None
                    try:
                        self._recover(damage)
                    except (OSError, sqlite3.Error, Damage) as error:
                        raise _failed(self.path, f"{doing}: cannot be mended", error) from error
                except (OSError, sqlite3.Error) as error:
                    raise _failed(self.path, doing, error) from error
            raise AssertionError("unreachable")

    # --- reading -------------------------------------------------------------------------------------

    def load_states(self) -> Iterator[tuple[str, bytes]]:
        """All (stream id, snapshot); a row that turns out damaged is left out and noted."""
        seen: set[str] = set()
        last, recoveries = 0, self.counters.recoveries

        def chunk() -> list[tuple[int, Any, Any, Any]]:
            rows = self._live().execute(f"{SELECT['states']} WHERE id > ? ORDER BY id LIMIT 64", (last,))
            return rows.fetchall()

        while True:
            rows = self._guarded("states cannot be read", chunk)
            if self.counters.recoveries != recoveries:
                # Another database now: from its start, without what was given out already.
                last, recoveries = 0, self.counters.recoveries
                continue
            if not rows:
                return
            last = rows[-1][0]
            for row, stream, state, crc in rows:
                if checked_crc("states", [stream, state]) != crc:
                    self._discard(BadRow("states", row, str(stream)[:80]))
                elif stream not in seen:
                    seen.add(stream)
                    yield stream, state

    def _discard(self, bad: BadRow) -> None:
        """Note a row that has turned out damaged; the next commit removes it."""
        with self._mutex:
            if all((known.table, known.row) != (bad.table, bad.row) for known in self._purge):
                self._report(bad)
                self._purge.append(bad)
                self._contents.ledgers[bad.table].forget(bad.row)

    def outbox(self, limit: int = 100, after: int = 0) -> list[Queued]:
        """The oldest messages that are not `done`, with an id above `after`, oldest first."""
        with self._mutex:
            found: list[Queued] = []
            for i, message in self._waiting.items():
                if len(found) >= limit:
                    break
                if i > after:
                    found.append(Queued(i, message))
            return found

    def waiting(self) -> int:
        """Messages in the outbox that are not `done`."""
        return len(self._waiting)

    def done(self, ids: Iterable[int]) -> None:
        """These messages have been sent; the next commit removes them."""
        with self._mutex:
            for i in ids:
                if self._waiting.pop(i, None) is not None:
                    self._done.add(i)

    def events(self, stream: str | None = None, since_ns: int | None = None, limit: int = 100) -> list[Event]:
        """Events of the history, newest first; `since_ns` is compared with their start."""

        def read() -> list[Event]:
            found: list[Event] = []
            for _, *fields, crc in self._live().execute(
                f"{SELECT['events']} WHERE (?1 IS NULL OR stream = ?1) AND (?2 IS NULL OR start_ns >= ?2) "
                "ORDER BY start_ns DESC, id DESC LIMIT ?3",
                (stream, since_ns, limit),
            ):
                event = event_of(fields) if checked_crc("events", fields) == crc else None
                if event is not None:
                    found.append(event)
            return found

        return self._guarded("events cannot be read", read)

    def positions(self) -> dict[str, str]:
        """All positions as of the last commit."""
        return dict(self._contents.positions)

    # --- writing -------------------------------------------------------------------------------------

    def commit(self, commit: Commit) -> int:
        """Write all of it in one transaction, durably as `sync` says; the new generation.

        A commit without content writes nothing. If the database turns out damaged, it is replaced first
        (see `notes`, `incomplete`).

        Raises:
            StoreError: disk full, I/O error, locked: nothing was written, try again.
        """
        return self._guarded("nothing was committed", lambda: self._commit(commit))

    def _commit(self, commit: Commit) -> int:
        connection = self._live()
        stages = {
            table: Stage(
                self._contents.ledgers[table],
                emptied=(table == "states" and commit.complete) or (table == "outbox" and self._resend),
            )
            for table in TABLES
        }
        generation = self.generation + 1
        waiting = self._waiting
        dropped = 0
        try:
            connection.execute("BEGIN IMMEDIATE")
            before = connection.total_changes
            for bad in self._purge:
                connection.execute(DROP[bad.table], (bad.row,))
            _write_states(connection, stages["states"], commit)
            waiting, dropped = self._write_outbox(connection, stages["outbox"], commit.outbox)
            self._write_events(connection, stages["events"], commit.events)
            for source, value in commit.positions.items():
                crc = row_crc("positions", source, value)
                row = stages["positions"].put(source, crc)
                connection.execute(PUT["positions"], (row, source, value, crc))
            changed = connection.total_changes - before
            if changed:
                write_meta(connection, generation, {t: (stages[t].rows, stages[t].total) for t in TABLES})
            connection.execute("COMMIT")
        except BaseException as error:
            self.counters.failures += 1
            self._undo(error)
            if isinstance(error, (OverflowError, UnicodeEncodeError, sqlite3.DataError)):
                raise StoreError(
                    f"{self.path}: nothing was committed: a value does not fit: {error}"
                ) from error
            raise
        self.incomplete = self.incomplete and not commit.complete
        if not changed:
            return self.generation
        for stage in stages.values():
            stage.settle()
        self._contents.positions.update(commit.positions)
        self._contents.generation = generation
        self._waiting = waiting
        self._next_message += len(commit.outbox)
        self._done.clear()
        self._purge = []
        self._resend = False
        self.counters.commits += 1
        self.counters.rows += changed
        self.counters.outbox_dropped += dropped
        self._lock.mark(generation)
        return generation

    def _undo(self, error: BaseException) -> None:
        """Roll back; after an I/O error begin anew, because what its connection believes is uncertain."""
        if self._connection is None:
            return
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._disconnect()
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_IOERR:
            self._disconnect()

    def _write_outbox(
        self, connection: sqlite3.Connection, stage: Stage, new: Sequence[Message]
    ) -> tuple[dict[int, Message], int]:
        """Remove what is done, add what is new, drop the oldest beyond the bound; the queue afterwards."""
        waiting = dict(self._waiting) if new or self._resend else self._waiting
        if self._resend:
            connection.execute(EMPTY["outbox"])
            for i, message in waiting.items():
                _put_message(connection, stage, i, message)
        for i in self._done:
            row = stage.drop(i)
            if row is not None:
                connection.execute(DROP["outbox"], (row,))
        for i, message in enumerate(new, self._next_message):
            _put_message(connection, stage, i, message)
            waiting[i] = message
        excess = max(len(waiting) - self._max_outbox, 0)
        for i in list(waiting)[:excess]:
            row = stage.drop(i)
            connection.execute(DROP["outbox"], (row,))
            del waiting[i]
        return waiting, excess

    def _write_events(self, connection: sqlite3.Connection, stage: Stage, events: Sequence[Event]) -> None:
        for event in events:
            fields = event_fields(event)
            crc = row_crc("events", *fields)
            row = stage.put(event.id, crc)
            connection.execute(PUT["events"], (row, *fields, crc))
        excess = stage.rows - self._keep_events
        for key in stage.oldest(excess) if excess > 0 else ():
            connection.execute(DROP["events"], (stage.drop(key),))

    # --- backup and end ------------------------------------------------------------------------------

    def backup(self) -> bool:
        """Copy the database, check the copy, and only then let it take the place of the last one.

        Returns:
            False if there was nothing new, if the store was closed meanwhile, or if the database itself
            turned out damaged: then it has been replaced or `incomplete` is set, see `notes`.

        Raises:
            StoreError: the copy could not be written; the last backup is as it was.
        """
        with self._copying:
            return self._backup()

    def _backup(self) -> bool:
        if self._purge:
            # Rows that are known to be bad go first: a backup holds none.
            self.commit(Commit())
        generation = self.generation
        if generation == self._saved_generation:
            return False
        target, new = files.beside(self.path, ".backup"), files.beside(self.path, ".backup.new")
        try:
            damage = self._copy(new)
            if damage is None:
                files.sync_file(new)
                with self._mutex:
                    if self._closed:
                        # The lock is given up, so another daemon may be at these files already.
                        return False
                    files.settle(new, target)
        except (OSError, sqlite3.Error, StoreError) as error:
            self.counters.backup_failures += 1
            with contextlib.suppress(OSError):
                files.remove(new)
            raise _failed(target, "no new backup", error) from error
        if damage is not None:
            self.counters.backup_failures += 1
            files.remove(new)
            self._examine(damage)
            return False
        self._saved_generation = generation
        self.counters.backups += 1
        return True

    def _copy(self, new: Path) -> Damage | None:
        """Copy to `new` and check the copy; what is wrong with it, or None."""
        files.empty_file(new)
        try:
            with (
                damage_found(),
                contextlib.closing(files.connect(self.path, self._sync, wal=True)) as source,
                contextlib.closing(sqlite3.connect(new, isolation_level=None)) as target,
            ):
                source.backup(target)
                target.execute("PRAGMA journal_mode = DELETE")
            connection, contents = files.open_checked(new, "full", wal=False)
            connection.close()
        except Damage as damage:
            return damage
        return Damage(f"{len(contents.bad)} rows have a wrong checksum") if contents.bad else None

    def _examine(self, found: Damage) -> None:
        """After a copy that was not sound: is it the database itself?"""
        self.notes.append(
            f"{self.path}: no new backup, the copy was not sound ({found}); the last one is kept"
        )

        def check() -> None:
            self._live()
            connection, contents = files.open_checked(self.path, self._sync)
            connection.close()
            for bad in contents.bad:
                self._discard(bad)
                self.incomplete = True

        self._guarded("cannot be checked", check)

    def close(self) -> None:
        """Give the store free; everything committed is in it."""
        with self._mutex:
            if not self._closed:
                self._closed = True
                self._disconnect()
                self._lock.close()


def _failed(path: Path, doing: str, error: Exception) -> StoreError:
    reason = getattr(error, "strerror", None) or str(error)
    return StoreError(f"{path}: {doing}: {reason}")


def _write_states(connection: sqlite3.Connection, stage: Stage, commit: Commit) -> None:
    if commit.complete:
        connection.execute(EMPTY["states"])
    for stream in commit.removed:
        row = stage.drop(stream)
        if row is not None:
            connection.execute(DROP["states"], (row,))
    rows: list[tuple[int, str, bytes, int]] = []
    for stream, state in commit.states:
        crc = row_crc("states", stream, state)
        rows.append((stage.put(stream, crc), stream, state, crc))
    connection.executemany(PUT["states"], rows)


def _put_message(connection: sqlite3.Connection, stage: Stage, i: int, message: Message) -> None:
    fields = (message.topic, message.payload, message.qos, int(message.retain))
    crc = row_crc("outbox", *fields)
    connection.execute(PUT["outbox"], (stage.put(i, crc), *fields, crc))
