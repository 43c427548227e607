"""The store's files: who may use them, and how one takes the place of another without a moment of risk.

    edge-rnn.db  (-wal, -shm)   the database
    edge-rnn.db.backup          the last copy that was checked; one file
    edge-rnn.db.bad  (.bad.1)   the two newest damaged databases, for a post-mortem
    edge-rnn.db.lock            held by the running daemon; its pid and the last commit's generation
    edge-rnn.db.new             a file on its way to one of the first two names

A new file is written under `.new`, checked, synced and only then renamed, so each name always holds either a
whole database or none. A `-wal` beside a database that it does not belong to would be played into it, so
`set_aside` and `clear_strays` never leave one behind.

The lock file holds the generation because SQLite drops a damaged end of its write-ahead log without a word:
a database that is older than the last commit can be told only from the outside. It is written without a
sync: after a crash of the program it is exact; after a power cut it may be older, and newer only where
`sync = "normal"` really lost commits.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
import zlib
from pathlib import Path
from urllib.parse import quote

from edge_rnn.errors import ConfigError, StoreError
from edge_rnn.service.store_schema import (
    Contents,
    Damage,
    create_schema,
    damage_found,
    read_contents,
    write_meta,
)

_MAGIC = b"SQLite format 3\0"
_TAILS = ("", "-wal", "-shm", "-journal")
_LONGEST = 64 << 20
# Whatever one of these has is, or was, a store: a daemon makes the lock before the database.
_OURS = (".backup", ".bad", ".bad.1", ".lock", *_TAILS[1:])
# How other files begin that a path may name by mistake; text and a model file are told by more than that.
_OTHERS = (
    b"PK\3\4",
    b"\x1f\x8b",
    b"PAR1",
    b"\x7fELF",
    b"\x89PNG",
    b"%PDF-",
    b"\xff\xd8\xff",
    b"\x28\xb5\x2f\xfd",
)
_LOOK = 4096


def beside(path: Path, ending: str) -> Path:
    """The file of that ending beside the database."""
    return path.with_name(path.name + ending)


def make_folder(folder: Path) -> None:
    """Create the folder and what is missing above it, for this user alone (0700)."""
    missing = [folder, *folder.parents]
    for level in reversed([part for part in missing if not part.exists()]):
        level.mkdir(mode=0o700, exist_ok=True)


def refuse_foreign(path: Path) -> None:
    """Raise `ConfigError` if `path` names a file that never was a database; nothing is touched.

    A damaged database is set aside, but a file of someone else's must stay where it is. It is told by what
    it holds, text or what another format begins with, and only where nothing of a store lies beside it.
    """
    try:
        # A named pipe would keep its reader waiting.
        head = b""
        if path.is_file():
            with path.open("rb") as file:
                head = file.read(_LOOK)
    except OSError:
        return  # Whoever opens it says so.
    if _MAGIC.startswith(head[: len(_MAGIC)]) or any(beside(path, ending).exists() for ending in _OURS):
        return
    if head.startswith(_OTHERS) or _is_text(head) or (head[8:9] == b"{" and not any(head[5:8])):
        raise ConfigError(
            f"{path}: expected a database of edge-rnn or no file yet, got another file "
            f"(it begins with {head[:8]!r}); it is left as it is, give store.path another name"
        )


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        # The last character may be cut.
        if error.start < len(head) - 3 or len(head) < _LOOK:
            return False
        text = head[: error.start].decode()
    return not any(c < " " and c not in "\t\n\r\f" for c in text)


def sync_folder(folder: Path) -> None:
    """Make renames in the folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Lock:
    """The right to use a store; held until `close` or the end of the process.

    Attributes:
        generation: that of the last commit of the daemon before, or None if it is not known.

    Raises:
        ConfigError: another daemon holds it.
    """

    _SIZE = 64

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        pid, self.generation = self._read()
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._handle)
            who = f"pid {pid}" if pid else "pid unknown"
            raise ConfigError(
                f"{path}: expected to be the only daemon on this store, got another one running ({who}); "
                "stop it, or give this one its own store.path"
            ) from None
        # Once more: between the first look and the lock the other one may have committed.
        _, self.generation = self._read()
        self.mark(self.generation or 0)

    def _read(self) -> tuple[int | None, int | None]:
        words = os.pread(self._handle, self._SIZE, 0).split()
        if len(words) == 3 and words[2] == self._seal(words[0], words[1]):
            return int(words[0]), int(words[1])
        return None, None

    @staticmethod
    def _seal(pid: bytes, generation: bytes) -> bytes:
        return b"%08x" % zlib.crc32(pid + b" " + generation)

    def mark(self, generation: int) -> None:
        """Note the generation of a commit that is durable."""
        words = b"%d" % os.getpid(), b"%d" % generation
        line = b" ".join((*words, self._seal(*words))).ljust(self._SIZE - 1) + b"\n"
        # A disk that is full must not turn a commit that is done into one that failed.
        with contextlib.suppress(OSError):
            os.pwrite(self._handle, line, 0)

    def close(self) -> None:
        """Give the store free."""
        os.close(self._handle)


def connect(path: Path, sync: str, *, wal: bool) -> sqlite3.Connection:
    """A connection with this project's settings to a database that exists."""
    connection = sqlite3.connect(
        f"file:{quote(os.fsencode(path))}?mode=rw",
        uri=True,
        isolation_level=None,
        timeout=1.0,
        check_same_thread=False,
    )
    try:
        # Text that is not UTF-8 is damage of one row, found by its checksum, not an error of the reader.
        connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute(f"PRAGMA journal_mode = {'WAL' if wal else 'DELETE'}")
        connection.execute(f"PRAGMA synchronous = {'FULL' if sync == 'full' else 'NORMAL'}")
        connection.execute("PRAGMA journal_size_limit = 4194304")
    except BaseException:
        connection.close()
        raise
    return connection


def open_checked(path: Path, sync: str, *, wal: bool = True) -> tuple[sqlite3.Connection, Contents]:
    """Open an existing database and check all of it.

    Raises:
        Damage: it is not what was written.
        StoreError: it cannot be read now, or is not this program's.
    """
    try:
        with path.open("rb") as file:
            head = file.read(len(_MAGIC))
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}") from None
    if head != _MAGIC:
        raise Damage("it does not begin like a database")
    connection = None
    try:
        with damage_found():
            connection = connect(path, sync, wal=wal)
            return connection, read_contents(connection, str(path))
    except sqlite3.Error as error:
        if connection is not None:
            connection.close()
        raise StoreError(f"{path}: cannot be read: {error}") from None
    except BaseException:
        if connection is not None:
            connection.close()
        raise


def remove(path: Path) -> None:
    """Remove a database with all that belongs to it."""
    for tail in _TAILS:
        beside(path, tail).unlink(missing_ok=True)


def empty_file(path: Path) -> None:
    """A new file that only this user can read; what had the name goes first."""
    remove(path)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def sync_file(path: Path) -> None:
    """Make a closed file's content durable."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def settle(new: Path, path: Path) -> None:
    """Sync a closed, checked file and give it the name `path`."""
    sync_file(new)
    new.replace(path)
    sync_folder(path.parent)


def create(path: Path, generation: int) -> None:
    """An empty store under the name `path`."""
    new = beside(path, ".new")
    empty_file(new)
    connection = connect(new, "full", wal=False)
    try:
        create_schema(connection, generation)
    finally:
        connection.close()
    settle(new, path)


def restore(backup: Path, path: Path, generation: int) -> int:
    """Copy a backup to the name `path` if it is sound; the backup stays.

    Args:
        backup: the copy to take.
        path: the database's name.
        generation: of the last commit that is known; the new database goes on from there.

    Returns:
        The generation of the backup.

    Raises:
        Damage: the backup is not what was written.
    """
    new = beside(path, ".new")
    empty_file(new)
    shutil.copyfile(backup, new)
    connection, contents = open_checked(new, "full", wal=False)
    with contextlib.closing(connection):
        if contents.bad:
            raise Damage(f"{len(contents.bad)} rows have a wrong checksum")
        if generation > contents.generation:
            ledgers = contents.ledgers.items()
            sums = {table: (len(ledger.rows), ledger.total) for table, ledger in ledgers}
            write_meta(connection, generation, sums)
    settle(new, path)
    return contents.generation


def _rotate(path: Path) -> Path:
    bad, older = beside(path, ".bad"), beside(path, ".bad.1")
    if any(beside(bad, tail).exists() for tail in _TAILS):
        remove(older)
        for tail in _TAILS:
            if beside(bad, tail).exists():
                beside(bad, tail).replace(beside(older, tail))
    return bad


def set_aside(path: Path) -> Path:
    """Rename a damaged database and all that belongs to it to `.bad`; the two newest are kept."""
    bad = _rotate(path)
    for tail in _TAILS:
        if beside(path, tail).exists():
            beside(path, tail).replace(beside(bad, tail))
    sync_folder(path.parent)
    return bad


def clear_strays(path: Path) -> None:
    """Where there is no database, put away what is left of one (a log that nothing may be played from)."""
    strays = [tail for tail in _TAILS[1:] if beside(path, tail).exists()]
    if not strays:
        return
    bad = beside(path, ".bad")
    # A crash in the midst of `set_aside` leaves the log behind: it belongs to the newest `.bad`.
    if any(beside(bad, tail).exists() for tail in strays):
        _rotate(path)
    for tail in strays:
        beside(path, tail).replace(beside(bad, tail))
    sync_folder(path.parent)
