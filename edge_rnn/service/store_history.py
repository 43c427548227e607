"""The history of events, read from beside a running daemon.

`read_history` opens the store's database read-only and without its lock, so it disturbs no commit and changes
no file. It reads the `events` table only; each row is believed if its checksum is right, what is not is
counted. The whole database is not checked here: that is the daemon's work when it opens the store.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from fnmatch import fnmatchcase
from os import fsencode
from pathlib import Path
from urllib.parse import quote

from edge_rnn.errors import StoreError
from edge_rnn.service.store_rows import event_of
from edge_rnn.service.store_schema import APPLICATION_ID, SCHEMA, SELECT, checked_crc
from edge_rnn.stream.types import Event

_BUSY_S = 2.0
# SQLite may give a text that is not UTF-8; its row's checksum then decides, as everywhere in the store.
_ENCODING = ("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events; None or False asks for nothing.

    stream: a stream's id, or a pattern with `*` and `?`; kind: `anomaly` or a fault's kind, or `fault` for
    any fault; since_ns, until_ns: event times; an event that overlaps the span is in it; running: only
    events that have not ended; limit: the newest so many.
    """

    stream: str | None = None
    kind: str | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    running: bool = False
    limit: int | None = None

    def __contains__(self, event: object) -> bool:
        if not isinstance(event, Event):
            return False
        if self.stream is not None and not fnmatchcase(event.stream, self.stream):
            return False
        if self.kind == "fault":
            if event.kind == "anomaly":
                return False
        elif self.kind is not None and event.kind != self.kind:
            return False
        if self.running and event.end_ns is not None:
            return False
        if self.until_ns is not None and event.start_ns > self.until_ns:
            return False
        return self.since_ns is None or event.end_ns is None or event.end_ns >= self.since_ns


def read_history(path: str | Path, wanted: EventFilter | None = None) -> tuple[list[Event], int]:
    """Events of the store at `path`, newest start first, and how many rows were damaged.

    Raises:
        StoreError: there is no such database, it is not a store's, or it cannot be read now.
    """
    path, chosen = Path(path), wanted or EventFilter()
    if not path.is_file():
        raise StoreError(
            f"{path}: expected the daemon's database, got no such file; give its configuration or the file"
        )
    found: list[Event] = []
    damaged = 0
    try:
        with closing(_connect(path)) as connection:
            _check_ours(connection, path)
            for _, *fields, crc in connection.execute(f"{SELECT['events']} ORDER BY start_ns DESC, id DESC"):
                event = event_of(fields) if checked_crc("events", fields) == crc else None
                if event is None:
                    damaged += 1
                elif event in chosen:
                    found.append(event)
                    if len(found) == chosen.limit:
                        break
    except sqlite3.Error as error:
        raise StoreError(
            f"{path}: its events cannot be read ({error}); a damaged one is mended when the daemon starts"
        ) from None
    return found, damaged


def _connect(path: Path) -> sqlite3.Connection:
    name = quote(fsencode(path.absolute()))
    connection = _open(f"file:{name}?mode=ro")
    try:
        connection.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.OperationalError:
        connection.close()
        # A database in WAL mode wants to make its shared memory file, which a reader of a medium or folder
        # it may not write to cannot; nobody else writes there either.
        return _open(f"file:{name}?immutable=1")
    return connection


def _open(name: str) -> sqlite3.Connection:
    connection = sqlite3.connect(name, uri=True, isolation_level=None, timeout=_BUSY_S)
    connection.text_factory = lambda data: data.decode(*_ENCODING)
    return connection


def _check_ours(connection: sqlite3.Connection, path: Path) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION_ID:
        raise StoreError(f"{path}: expected the daemon's database, got another program's")
    (schema,) = connection.execute("SELECT schema FROM meta").fetchone()
    if schema != SCHEMA:
        raise StoreError(f"{path}: expected a store of version {SCHEMA}, got version {schema}")
