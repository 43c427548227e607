"""Every error this package raises on purpose.

    EdgeRnnError            exit 70
    ├── ConfigError         exit 78   a configuration file, or options that contradict each other
    ├── ModelFileError      exit 78   a model file or weights file that cannot be used
    ├── SnapshotError       exit 78   a saved state that does not belong to this model
    ├── StoreError          exit 74   the daemon's database cannot be read or written
    ├── DataError           exit 65   recorded data (CSV, NDJSON, ...) that cannot be used
    ├── DecodeError         exit 65   one payload that is not a reading; never ends a daemon
    ├── CredentialsError    exit 77   the broker refused user name or password at the first connect
    ├── ExportError         exit 78   a model that cannot be exported as asked
    ├── LibraryError        exit 78   a library built ahead of time that does not fit, or cannot be built
    └── MissingExtraError   exit 69   a command that needs an optional part that is not installed

A message is one line and says: where (file, topic, key, tensor), what was expected, what was got,
and what to do. `edge_rnn.cli` prints it as it is, without a traceback, and exits with `exit_code`
(the numbers are those of sysexits.h).
"""

from typing import ClassVar


class EdgeRnnError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what a command ends with."""

    exit_code: ClassVar[int] = 70


class ConfigError(EdgeRnnError):
    """A configuration that cannot be used; the message lists every problem found, one a line."""

    exit_code = 78


class ModelFileError(EdgeRnnError):
    """A model or weights file that cannot be used."""

    exit_code = 78


class SnapshotError(EdgeRnnError):
    """A saved state that is damaged or belongs to another model."""

    exit_code = 78


class StoreError(EdgeRnnError):
    """The daemon's database cannot be opened, read or written."""

    exit_code = 74


class DataError(EdgeRnnError):
    """Recorded data that cannot be used: no such column, unsorted times, too few rows."""

    exit_code = 65


class DecodeError(EdgeRnnError):
    """One payload that is not a reading: it is counted and set aside, nothing ends."""

    exit_code = 65


class CredentialsError(EdgeRnnError):
    """The broker refused user name or password before it ever accepted them."""

    exit_code = 77


class ExportError(EdgeRnnError):
    """A model that cannot be exported as asked."""

    exit_code = 78


class LibraryError(EdgeRnnError):
    """A library built ahead of time that cannot be used here, or cannot be built."""

    exit_code = 78


class MissingExtraError(EdgeRnnError):
    """An optional part is not installed; the message names the extra that brings it."""

    exit_code = 69


def printable(text: str) -> str:
    """Text of a file or a sender for a message: it neither breaks the line nor gives a terminal commands.

    `text` as it is where every character can be printed, else with escapes like `\\n` and `\\x1b`.
    """
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
