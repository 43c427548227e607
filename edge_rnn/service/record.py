"""`[record]`: readings as they were scored, with their verdicts, into files that replay, calibrate and train
read.

    <folder>/<stream id, a folder a level>/<time of the first row>.ndjson, or .csv; full ones .gz

One file is one stream, one row is one judged vector, times rise strictly: so each file is a table as it
stands. A row has `time_ns`, the channels' values by their names (null, or an empty cell, where a value was
absent) and the verdict: `verdict.status`, `.alarm`, `.score`, `.threshold`, `.n` (steps) and `.held` (names
of the channels whose value was not new, joined by blanks). Readers of tables leave `verdict.*` out unless
they are asked for it.

**When.** Rows wait in memory for the store's next commit (at most `MAX_WAITING` bytes of them) and are
written just before it, so that no reading is acknowledged that is not on its way to the disk. After a crash
the broker sends again what had not been committed; rows not later than the last one of the stream's newest
file are there already, with the same bits, and are left out. So no row is lost and none comes twice, over
`kill -9` too. Files are not synced: a power cut may take the last seconds. A torn last line is cut off when
the next row comes.

**Rotation.** A file that has reached `max_file` is closed, compressed beside (`.gz.tmp`, then renamed, then
the plain one goes) and a new one begun with the next row; nothing is between them. When all files together
exceed `max_total`, the oldest go.

**Disk full**, or any other error: the rows of that stream's write are dropped, counted and said, a
half-written line is cut off, and the next commit tries again. Scoring never waits for a record.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import math
import os
import re
import shutil
import threading
import time
import zlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_rnn.detect.guard import ABSENT, HELD
from edge_rnn.detect.verdict import STATUSES
from edge_rnn.errors import ConfigError
from edge_rnn.files.config_types import RecordConfig
from edge_rnn.service.logs import Log

MAX_WAITING: Final = 4 << 20
COLUMNS: Final = ("status", "alarm", "score", "threshold", "n", "held")
_TAIL: Final = 1 << 16
_MOST_RESET: Final = 10_000
_UNSAFE = re.compile(rb"[^A-Za-z0-9_.-]|^\.")
_RECORD = re.compile(r"[0-9]{8}T[0-9]{15}\.(?:ndjson|csv)(?:\.gz)?")


@dataclass(slots=True)
class RecordCounters:
    """What was written since the start."""

    rows: int = 0
    repeated: int = 0
    dropped: int = 0
    files: int = 0
    removed: int = 0
    errors: int = 0


class _Stream:
    """The rows of one stream on their way: bytes that wait, the open file, the last time written."""

    __slots__ = ("count", "first_ns", "folder", "last_ns", "path", "queued_ns", "size", "waiting")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.waiting = bytearray()
        self.count = 0
        self.first_ns = 0
        self.queued_ns: int | None = None
        self.last_ns: int | None = None
        self.path: Path | None = None
        self.size = 0


class Recorder:
    """See the module; belongs to the daemon's thread.

    Args:
        config: `[record]`.
        names: input names of each group's model.

    Raises:
        ConfigError: the folder cannot be made or written to, or a channel is called like a column of ours.
    """

    def __init__(self, config: RecordConfig, names: dict[str, tuple[str, ...]], log: Log) -> None:
        self.counters = RecordCounters()
        self._config = config
        self._log = log
        self._csv = config.format == "csv"
        self._suffix = ".csv" if self._csv else ".ndjson"
        self._streams: dict[str, _Stream] = {}
        self._waiting = 0
        self._reset: set[str] = set()
        self._packed: deque[tuple[Path, Path, str]] = deque()
        self._packers: list[threading.Thread] = []
        self._heads: dict[str, bytes] = {}
        self._quoted: dict[str, list[str]] = {}
        self._names = names
        for group, channels in names.items():
            for name in channels:
                if name == "time_ns" or name.startswith("verdict."):
                    raise ConfigError(
                        f'stream "{group}": a channel called {name!r} cannot be recorded: [record]'
                    )
            self._quoted[group] = [json.dumps(name) for name in channels]
            head = ["time_ns", *map(_cell, channels), *(f"verdict.{name}" for name in COLUMNS)]
            self._heads[group] = (",".join(head) + "\n").encode() if self._csv else b""
        try:
            config.path.mkdir(parents=True, exist_ok=True)
            probe = config.path / ".probe"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise ConfigError(
                f"record.path: {config.path}: expected a folder that can be written to ({error.strerror})"
            ) from None
        self._sizes: dict[Path, int] = {}
        self._total = 0

    def begin(self, after: Recorder | None = None) -> None:
        """Take stock of the files that are there; nothing is taken before.

        Args:
            after: the one that has been at work until now, closed; a file it still compresses is taken over.
        """
        if after is not None and after._config.path == self._config.path:
            self._packers, self._packed = [p for p in after._packers if p.is_alive()], after._packed
        self._sizes = dict(_found(self._config.path, keep_half=bool(self._packers)))
        self._total = sum(self._sizes.values())

    def take(
        self,
        group: str,
        streams: Sequence[str],
        out: NDArray[np.void],
        x: NDArray[np.float64],
        present: NDArray[np.uint8],
    ) -> None:
        """Rows of one group that have just been judged.

        Args:
            streams: the id of each; out: verdict records (n,); x: values f8 (n, C); present: u1 (n, C), see
                `detect/guard.py`.
        """
        names = self._names[group]
        quoted = self._quoted[group]
        rows = zip(
            streams, out["time_ns"].tolist(), out["status"].tolist(), out["alarm"].tolist(),
            out["score"].tolist(),
            out["threshold"].tolist(), out["step"].tolist(), x.tolist(), present.tolist(), strict=True,
        )  # fmt: skip
        for stream, time_ns, status, alarm, score, threshold, step, values, flags in rows:
            found = self._streams.get(stream)
            if found is None:
                found = self._streams[stream] = self._open(stream)
            last = found.last_ns if found.queued_ns is None else found.queued_ns
            if last is not None and time_ns <= last:
                self.counters.repeated += 1
                continue
            held = " ".join(names[c] for c, flag in enumerate(flags) if flag == HELD)
            cells = [None if flag == ABSENT else value for value, flag in zip(values, flags, strict=True)]
            verdict = (STATUSES[status], alarm == 1, score, threshold, step, held)
            line = (
                _csv_line(time_ns, cells, verdict)
                if self._csv
                else _json_line(time_ns, quoted, cells, verdict)
            )
            if not found.count:
                found.first_ns = time_ns
            found.waiting += line
            found.count += 1
            found.queued_ns = time_ns
            self._waiting += len(line)
        if self._waiting > MAX_WAITING:
            self.flush()

    def flush(self) -> None:
        """Write what waits; never raises."""
        if not self._waiting:
            return
        for name, stream in self._streams.items():
            if stream.count:
                self._write(name, stream)
        self._waiting = 0
        self._settle()
        self._thin()

    def close(self, timeout: float = 0.5) -> None:
        """Write what waits; a file that is being compressed gets a moment, else it stays as it is."""
        self.flush()
        end = time.monotonic() + timeout
        for packer in self._packers:
            packer.join(max(0.0, end - time.monotonic()))
        self._settle()

    def forget(self, name: str) -> None:
        """A stream that has no state any more: write what waits, close its file; its times may begin anew."""
        stream = self._streams.pop(name, None)
        if stream is not None and stream.count:
            self._waiting -= len(stream.waiting)
            self._write(name, stream)
        if len(self._reset) < _MOST_RESET:
            self._reset.add(name)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return self._total

    def _open(self, name: str) -> _Stream:
        """A stream that has not been recorded by this process: look at what is there."""
        stream = _Stream(self._config.path.joinpath(*map(_level, name.split("/"))))
        if name in self._reset:
            self._reset.discard(name)
            return stream
        with contextlib.suppress(OSError, ValueError, EOFError, LookupError, TypeError, zlib.error):
            files = sorted(p for p in stream.folder.iterdir() if _RECORD.fullmatch(p.name))
            if files:
                stream.last_ns = _last_time(files[-1], csv=files[-1].name.partition(".")[2].startswith("csv"))
        return stream

    def _write(self, name: str, stream: _Stream) -> None:
        data, rows, last = bytes(stream.waiting), stream.count, stream.queued_ns
        stream.waiting.clear()
        stream.count, stream.queued_ns = 0, None
        try:
            if stream.path is None:
                stream.folder.mkdir(parents=True, exist_ok=True)
                stream.path = _free(stream.folder, stream.first_ns, self._suffix)
                stream.size = 0
                data = self._heads[name.split("/", 1)[0]] + data
                self.counters.files += 1
            self._append(stream.path, stream.size, data)
        except OSError as error:
            self.counters.errors += 1
            self.counters.dropped += rows
            if stream.size == 0 and stream.path is not None:
                with contextlib.suppress(OSError):
                    stream.path.unlink()
                stream.path = None
            why = error.strerror or str(error)
            self._log.limited(
                "error", "record", why, f"{rows} rows were not recorded: {why}; scoring goes on"
            )
            return
        self._log.settled("record", "written")
        stream.size += len(data)
        stream.last_ns = last
        self._account(stream.path, stream.size)
        self.counters.rows += rows
        if stream.size >= self._config.max_file_bytes:
            self._rotate(stream)

    @staticmethod
    def _append(path: Path, size: int, data: bytes) -> None:
        """All of `data` at the end of a file of `size` bytes, or none of it."""
        with path.open("r+b" if size else "wb", buffering=0) as file:
            try:
                file.seek(size)
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(size)
                raise

    def _rotate(self, stream: _Stream) -> None:
        path, stream.path, stream.size = stream.path, None, 0
        if path is None or not self._config.gzip:
            return
        self._packers = [one for one in self._packers if one.is_alive()]
        packer = threading.Thread(target=self._pack, args=(path,), name="record-gzip", daemon=True)
        self._packers.append(packer)
        packer.start()

    def _pack(self, path: Path) -> None:
        """On a thread: compress a full file; the daemon's thread hears of it in `_settle`."""
        packed = path.with_name(path.name + ".gz")
        half = path.with_name(path.name + ".gz.tmp")
        why = ""
        try:
            with path.open("rb") as plain, gzip.open(half, "wb", compresslevel=6) as file:
                shutil.copyfileobj(plain, file, 1 << 20)
            half.rename(packed)
            path.unlink()
        except OSError as error:
            # The plain file stays and is as good.
            why = error.strerror or str(error)
            with contextlib.suppress(OSError):
                half.unlink()
        self._packed.append((path, packed, why))

    def _settle(self) -> None:
        while self._packed:
            path, packed, why = self._packed.popleft()
            if why:
                self.counters.errors += 1
                self._log.limited(
                    "warning", "record", f"gzip {why}", f"{path.name} was not compressed: {why}"
                )
                continue
            self._account(path, 0)
            with contextlib.suppress(OSError):
                self._account(packed, packed.stat().st_size)

    def _account(self, path: Path, size: int) -> None:
        before = self._sizes.pop(path, 0)
        if size:
            # Newest last.
            self._sizes[path] = size
        self._total += size - before

    def _thin(self) -> None:
        """Remove the oldest files while there is too much."""
        current = {stream.path for stream in self._streams.values()}
        for path in list(self._sizes):
            if self._total <= self._config.max_total_bytes:
                return
            if path in current:
                continue
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            self._account(path, 0)
            self.counters.removed += 1


def _found(folder: Path, *, keep_half: bool = False) -> list[tuple[Path, int]]:
    """Our files below `folder` with their sizes, oldest first; half-made ones are removed, or left alone."""
    found: list[tuple[float, Path, int]] = []
    for at, _, names in os.walk(folder):
        for name in names:
            path = Path(at, name)
            with contextlib.suppress(OSError):
                if name.endswith(".gz.tmp") and _RECORD.fullmatch(name.removesuffix(".tmp")):
                    if not keep_half:
                        path.unlink()
                elif _RECORD.fullmatch(name):
                    about = path.stat()
                    found.append((about.st_mtime, path, about.st_size))
    return [(path, size) for _, path, size in sorted(found)]


def _last_time(path: Path, *, csv: bool) -> int | None:
    """The time of a file's last whole row; a torn last line of a plain file is cut off."""
    if path.suffix == ".gz":
        with gzip.open(path, "rb") as packed:
            tail = b""
            while block := packed.read(1 << 20):
                tail = (tail + block)[-_TAIL:]
    else:
        with path.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL))
            tail = file.read()
            if tail and not tail.endswith(b"\n"):
                file.truncate(size - len(tail) + tail.rfind(b"\n") + 1)
                tail = tail[: tail.rfind(b"\n") + 1]
    lines = tail.splitlines()
    if not lines or (csv and not lines[-1][:1].lstrip(b"-").isdigit()):
        return None
    if csv:
        return int(lines[-1].split(b",", 1)[0])
    found: Any = json.loads(lines[-1])["time_ns"]
    return int(found)


def _free(folder: Path, time_ns: int, suffix: str) -> Path:
    """A file's name that is not taken; a stream that was reset may begin at a time that is there already."""
    while True:
        path = folder / f"{_stamp(time_ns)}{suffix}"
        if not path.exists() and not path.with_name(path.name + ".gz").exists():
            return path
        time_ns += 1


def _stamp(time_ns: int) -> str:
    """UTC, digits of nanoseconds included; sorts by time."""
    seconds, rest = divmod(time_ns, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y%m%dT%H%M%S}{rest:09d}"


def _level(text: str) -> str:
    """A level of a stream's id as the name of a folder: nothing that a file system gives a meaning."""
    name = _UNSAFE.sub(
        lambda match: b"%%%02X" % match[0][0], text.encode("utf-8", "surrogateescape")
    ).decode()
    if len(name) <= 128:
        return name
    return (
        f"{name[:100]}-{hashlib.blake2s(text.encode('utf-8', 'surrogateescape'), digest_size=8).hexdigest()}"
    )


def _cell(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\n\r;|\t ') else text


def _number(value: float | None, nothing: str) -> str:
    return nothing if value is None or not math.isfinite(value) else repr(value)


def _json_line(time_ns: int, names: list[str], cells: list[float | None], verdict: tuple[Any, ...]) -> bytes:
    status, alarm, score, threshold, step, held = verdict
    values = ",".join(f"{name}:{_number(cell, 'null')}" for name, cell in zip(names, cells, strict=True))
    on = "true" if alarm else "false"
    judged = f'"score":{_number(score, "null")},"threshold":{_number(threshold, "null")},"n":{step}'
    last = f'{{"status":"{status}","alarm":{on},{judged},"held":{json.dumps(held)}}}'
    return f'{{"time_ns":{time_ns},{values},"verdict":{last}}}\n'.encode()


def _csv_line(time_ns: int, cells: list[float | None], verdict: tuple[Any, ...]) -> bytes:
    status, alarm, score, threshold, step, held = verdict
    values = ",".join(_number(cell, "") for cell in cells)
    last = f"{status},{int(alarm)},{_number(score, '')},{_number(threshold, '')},{step},{_cell(held)}"
    return f"{time_ns},{values},{last}\n".encode()
