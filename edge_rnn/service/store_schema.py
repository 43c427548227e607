"""The store's tables, their checksums, and the one pass that decides whether a database is sound.

Every row carries a CRC-32 over its table's name and fields. That finds a changed row, but not a row that has
vanished, came twice, or is an older version of itself (a page that was never written). So the one row of
`meta` holds, for each table, the number of rows and the sum (mod 2^32) of their CRCs, brought up to date in
every transaction together with the generation, the count of commits. A sound database is one whose structure
SQLite accepts (`quick_check`), whose tables are exactly ours, and whose rows add up to what `meta` says.

Tables have no index but their integer key: the store keeps the map from names to keys in memory (`Ledger`),
which it needs for the sums anyway, and so a commit writes one B-tree page per changed row and no more.

`read_contents` returns the ledgers of a sound database. A row whose own CRC is wrong while everything else
adds up is listed as a bad row: only it is lost. Anything else raises `Damage`.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Final, NamedTuple

from edge_rnn.errors import StoreError

APPLICATION_ID: Final = 0x45524E4E
"""`ERNN`, in the file's header: `file` and `sqlite3` can tell whose database it is."""
SCHEMA: Final = 1

TABLES: Final = ("states", "outbox", "events", "positions")
DDL: Final = {
    "meta": (
        "CREATE TABLE meta (id INTEGER PRIMARY KEY, schema INTEGER NOT NULL, generation INTEGER NOT NULL, "
        "states_rows INTEGER NOT NULL, states_sum INTEGER NOT NULL, "
        "outbox_rows INTEGER NOT NULL, outbox_sum INTEGER NOT NULL, "
        "events_rows INTEGER NOT NULL, events_sum INTEGER NOT NULL, "
        "positions_rows INTEGER NOT NULL, positions_sum INTEGER NOT NULL, crc INTEGER NOT NULL)"
    ),
    "states": (
        "CREATE TABLE states (id INTEGER PRIMARY KEY, stream TEXT NOT NULL, state BLOB NOT NULL, "
        "crc INTEGER NOT NULL)"
    ),
    "outbox": (
        "CREATE TABLE outbox (id INTEGER PRIMARY KEY, topic TEXT NOT NULL, payload BLOB NOT NULL, "
        "qos INTEGER NOT NULL, retain INTEGER NOT NULL, crc INTEGER NOT NULL)"
    ),
    "events": (
        "CREATE TABLE events (id INTEGER PRIMARY KEY, event TEXT NOT NULL, stream TEXT NOT NULL, "
        "kind TEXT NOT NULL, start_ns INTEGER NOT NULL, peak_ns INTEGER NOT NULL, end_ns INTEGER, "
        "body TEXT NOT NULL, crc INTEGER NOT NULL)"
    ),
    "positions": (
        "CREATE TABLE positions (id INTEGER PRIMARY KEY, source TEXT NOT NULL, value TEXT NOT NULL, "
        "crc INTEGER NOT NULL)"
    ),
}
SELECT: Final = {
    "states": "SELECT id, stream, state, crc FROM states",
    "outbox": "SELECT id, topic, payload, qos, retain, crc FROM outbox",
    "events": "SELECT id, event, stream, kind, start_ns, peak_ns, end_ns, body, crc FROM events",
    "positions": "SELECT id, source, value, crc FROM positions",
}
PUT: Final = {
    "meta": "INSERT OR REPLACE INTO meta VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    "states": "INSERT OR REPLACE INTO states VALUES (?, ?, ?, ?)",
    "outbox": "INSERT OR REPLACE INTO outbox VALUES (?, ?, ?, ?, ?, ?)",
    "events": "INSERT OR REPLACE INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    "positions": "INSERT OR REPLACE INTO positions VALUES (?, ?, ?, ?)",
}
DROP: Final = {
    "states": "DELETE FROM states WHERE id = ?",
    "outbox": "DELETE FROM outbox WHERE id = ?",
    "events": "DELETE FROM events WHERE id = ?",
    "positions": "DELETE FROM positions WHERE id = ?",
}
EMPTY: Final = {"states": "DELETE FROM states", "outbox": "DELETE FROM outbox"}

Value = str | bytes | int | None
Key = str | int
_MASK = 0xFFFFFFFF
# Codes of SQLite that speak of the surroundings, not of the file's content. The rest is damage.
_SURROUNDINGS = {
    sqlite3.SQLITE_PERM, sqlite3.SQLITE_ABORT, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_MISUSE,
    sqlite3.SQLITE_NOLFS, sqlite3.SQLITE_AUTH,
}  # fmt: skip
# Reading fails: the file is shorter than its header says, or the medium under it cannot be read.
_UNREADABLE = {
    sqlite3.SQLITE_IOERR_READ,
    sqlite3.SQLITE_IOERR_SHORT_READ,
    getattr(sqlite3, "SQLITE_IOERR_CORRUPTFS", 8458),
}


class Damage(Exception):  # noqa: N818  (a finding that the store acts upon, it never leaves the store)
    """A database that is not what was written."""


@contextmanager
def damage_found() -> Iterator[None]:
    """Turn errors of SQLite that speak of the file's content into `Damage`; others pass."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code is not None and (code in _UNREADABLE or code & 0xFF not in _SURROUNDINGS):
            raise Damage(f"SQLite finds: {error}") from error
        raise
    except UnicodeDecodeError as error:
        # The message of an error repeats a damaged part of the schema, and that was no text.
        raise Damage("SQLite finds: malformed database schema") from error


def row_crc(table: str, *fields: Value) -> int:
    """CRC-32 of a row: the table's name, then each field with its kind and length."""
    crc = zlib.crc32(table.encode())
    for value in fields:
        if isinstance(value, bytes):
            kind, data = b"b", value
        elif isinstance(value, str):
            kind, data = b"s", value.encode("utf-8", "surrogateescape")
        else:
            kind, data = b"i", b"" if value is None else b"%d" % value
        crc = zlib.crc32(data, zlib.crc32(b"%s%d:" % (kind, len(data)), crc))
    return crc


@dataclass(slots=True)
class Ledger:
    """What one table holds: key -> (row id, CRC), in the order of the row ids; the sum of the CRCs."""

    rows: dict[Key, tuple[int, int]] = field(default_factory=dict)
    total: int = 0
    next_id: int = 1

    def forget(self, row: int) -> None:
        """Take a row out that has turned out damaged."""
        for key, (found, crc) in self.rows.items():
            if found == row:
                self.total = (self.total - crc) & _MASK
                del self.rows[key]
                return


class Stage:
    """Changes of one table inside a transaction; `settle` brings the ledger up to date after its commit."""

    def __init__(self, ledger: Ledger, *, emptied: bool = False) -> None:
        self._ledger = ledger
        self._changed: dict[Key, tuple[int, int] | None] = {}
        self._emptied = emptied
        self.rows = 0 if emptied else len(ledger.rows)
        self.total = 0 if emptied else ledger.total
        self._next_id = ledger.next_id

    def _current(self, key: Key) -> tuple[int, int] | None:
        if key in self._changed:
            return self._changed[key]
        return None if self._emptied else self._ledger.rows.get(key)

    def put(self, key: Key, crc: int) -> int:
        """Note a new or changed row; the row id to write it to."""
        current = self._current(key)
        if current is None:
            row = key if isinstance(key, int) else self._next_id
            self._next_id = max(self._next_id, row + 1)
            self.rows += 1
            self.total = (self.total + crc) & _MASK
        else:
            row = current[0]
            self.total = (self.total + crc - current[1]) & _MASK
        self._changed[key] = (row, crc)
        return row

    def drop(self, key: Key) -> int | None:
        """Note a removed row; its row id, or None if there is no such key."""
        current = self._current(key)
        if current is None:
            return None
        self._changed[key] = None
        self.rows -= 1
        self.total = (self.total - current[1]) & _MASK
        return current[0]

    def oldest(self, count: int) -> list[Key]:
        """The first keys in the order of their row ids."""
        known: Iterable[Key] = () if self._emptied else self._ledger.rows
        keys = (key for key in known if self._changed.get(key, True) is not None)
        new = (key for key, row in self._changed.items() if row is not None and key not in known)
        return list(islice(chain(keys, new), count))

    def settle(self) -> None:
        """Take the changes over; call it once, after the commit."""
        ledger = self._ledger
        if self._emptied:
            ledger.rows.clear()
        for key, row in self._changed.items():
            if row is None:
                ledger.rows.pop(key, None)
            else:
                ledger.rows[key] = row
        ledger.total = self.total
        ledger.next_id = self._next_id


class BadRow(NamedTuple):
    """A row whose own checksum is wrong."""

    table: str
    row: int
    name: str


@dataclass(slots=True)
class Contents:
    """What a sound database holds, without the blobs of its states."""

    generation: int = 0
    ledgers: dict[str, Ledger] = field(default_factory=lambda: {table: Ledger() for table in TABLES})
    bad: list[BadRow] = field(default_factory=list)
    outbox: dict[int, tuple[str, bytes, int, bool]] = field(default_factory=dict)
    positions: dict[str, str] = field(default_factory=dict)


def write_meta(connection: sqlite3.Connection, generation: int, tables: dict[str, tuple[int, int]]) -> None:
    """Write the seal: generation, and rows and sum of every table."""
    fields = [SCHEMA, generation, *(number for table in TABLES for number in tables[table])]
    connection.execute(PUT["meta"], (1, *fields, row_crc("meta", *fields)))


def create_schema(connection: sqlite3.Connection, generation: int) -> None:
    """Make an empty store of an empty database, in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    for statement in DDL.values():
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA}")
    write_meta(connection, generation, dict.fromkeys(TABLES, (0, 0)))
    connection.execute("COMMIT")


def read_contents(connection: sqlite3.Connection, where: str) -> Contents:
    """Check the whole database and return its ledgers.

    Raises:
        Damage: it is not what was written.
        StoreError: another program's database, or one of a newer version of this one.
        sqlite3.Error, UnicodeDecodeError: call it inside `damage_found`.
    """
    meta = _check_format(connection, where)
    contents = Contents(generation=meta["generation"])
    for table in TABLES:
        _read_table(connection, table, contents, (meta[f"{table}_rows"], meta[f"{table}_sum"]))
    return contents


def _check_format(connection: sqlite3.Connection, where: str) -> dict[str, int]:
    """The fields of `meta`, once structure, tables and versions are right."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    found = dict(connection.execute("SELECT name, sql FROM sqlite_master"))
    newer = StoreError(
        f"{where}: expected a database of version {SCHEMA}, got version {version}, written by a newer "
        "edge-rnn; update this one, or give it another store.path"
    )
    if found != DDL:
        if application == APPLICATION_ID and version > SCHEMA:
            raise newer
        if application != APPLICATION_ID and found and not DDL.keys() & found.keys():
            raise StoreError(
                f"{where}: expected a database of edge-rnn, got another program's "
                f"(application id {application:#x}); give another store.path"
            )
        raise Damage("its tables are not those of this version")
    report = connection.execute("PRAGMA quick_check(1)").fetchone()
    if report != ("ok",):
        raise Damage(f"SQLite finds: {str(report[0])[:120]}")
    rows = connection.execute("SELECT * FROM meta").fetchall()
    if len(rows) != 1 or not all(type(value) is int for value in rows[0]):
        raise Damage("its meta row is missing")
    fields = rows[0][1:-1]
    if row_crc("meta", *fields) != rows[0][-1]:
        raise Damage("its meta row has a wrong checksum")
    names = ("schema", "generation", *(f"{t}_{what}" for t in TABLES for what in ("rows", "sum")))
    meta: dict[str, int] = dict(zip(names, fields, strict=True))
    if meta["schema"] == version > SCHEMA:
        raise newer
    if (meta["schema"], version, application) != (SCHEMA, SCHEMA, APPLICATION_ID):
        raise Damage("its header and its meta row disagree")
    return meta


def _read_table(
    connection: sqlite3.Connection, table: str, contents: Contents, expected: tuple[int, int]
) -> None:
    """Check every row of one table and fill its ledger."""
    ledger = contents.ledgers[table]
    count = stored_sum = true_sum = 0
    for row, *fields, stored in connection.execute(f"{SELECT[table]} ORDER BY id"):
        count += 1
        ledger.next_id = row + 1
        crc = checked_crc(table, fields)
        stored_sum += stored if type(stored) is int else 0
        true_sum += crc or 0
        if crc is None or crc != stored:
            contents.bad.append(BadRow(table, row, str(fields[0])[:80]))
            continue
        key: Key = row if table == "outbox" else fields[0]
        if key in ledger.rows:
            raise Damage(f"{table}: {str(key)[:80]!a} stands there twice")
        ledger.rows[key] = (row, crc)
        ledger.total = (ledger.total + crc) & _MASK
        if table == "outbox":
            topic, payload, qos, retain = fields
            contents.outbox[row] = (topic, payload, qos, bool(retain))
        elif table == "positions":
            contents.positions[fields[0]] = fields[1]
    # A bad row has lost either its fields or its stored CRC: one of the two sums is still right.
    if count != expected[0] or expected[1] not in (stored_sum & _MASK, true_sum & _MASK):
        raise Damage(f"{table}: {count} rows do not add up to the {expected[0]} that were written")


_TYPES: Final[dict[str, tuple[tuple[type, ...], ...]]] = {
    "states": ((str,), (bytes,)),
    "outbox": ((str,), (bytes,), (int,), (int,)),
    "events": ((str,), (str,), (str,), (int,), (int,), (int, type(None)), (str,)),
    "positions": ((str,), (str,)),
}


def checked_crc(table: str, fields: list[Value]) -> int | None:
    """The CRC of a row that was read, or None if a field has not the table's type."""
    if not all(type(value) in types for value, types in zip(fields, _TYPES[table], strict=True)):
        return None
    return row_crc(table, *fields)
