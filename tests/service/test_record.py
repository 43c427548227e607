"""Recorded readings: what stands in the files, rotation, crashes, full disks; and that replay reads them."""

from __future__ import annotations

import errno
import gzip
import io
import json
import threading
from pathlib import Path

import numpy as np
import pytest

from edge_rnn.detect.guard import ABSENT, FRESH, HELD
from edge_rnn.detect.verdict import STATUSES
from edge_rnn.errors import ConfigError
from edge_rnn.files.config_types import RecordConfig
from edge_rnn.files.readings import read_table
from edge_rnn.service import record
from edge_rnn.service.logs import Log
from edge_rnn.service.record import Recorder

S = 10**9
T0 = 1_763_700_000 * S
NAMES = {"press": ("vib", "temp, C")}
VERDICT = np.dtype(
    [
        ("time_ns", "i8"),
        ("status", "u1"),
        ("alarm", "u1"),
        ("score", "f8"),
        ("threshold", "f8"),
        ("step", "i8"),
    ]
)


def recorder(folder: Path, log: io.StringIO | None = None, **settings) -> Recorder:
    settings = {"max_file_bytes": 1 << 20, "max_total_bytes": 1 << 30, **settings}
    made = Recorder(RecordConfig(path=folder / "r", **settings), NAMES, Log(stream=log or io.StringIO()))
    made.begin()
    return made


def take(made: Recorder, *numbers: int, stream: str = "press/7") -> None:
    n = len(numbers)
    out = np.zeros(n, VERDICT)
    out["time_ns"] = [T0 + i * S for i in numbers]
    out["status"] = STATUSES.index("normal")
    out["score"] = [i / 7 for i in numbers]
    out["threshold"] = 4.5
    out["step"] = numbers
    x = np.array([[i / 3, 20 + i] for i in numbers])
    made.take("press", [stream] * n, out, x, np.full((n, 2), FRESH, np.uint8))


def files(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "r").rglob("*") if path.is_file())


def rows(path: Path) -> list[dict]:
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in text.splitlines()]


def test_a_row_says_what_was_scored_and_how(tmp_path) -> None:
    made = recorder(tmp_path)
    out = np.zeros(3, VERDICT)
    out["time_ns"] = [T0, T0 + 1, T0 + 2]
    out["status"] = [STATUSES.index(s) for s in ("warming", "anomaly", "fault")]
    out["alarm"] = [0, 1, 1]
    out["score"] = [np.nan, 7.25, np.nan]
    out["threshold"] = [np.nan, 4.5, 4.5]
    out["step"] = [1, 2, 3]
    x = np.array([[0.1, 20.0], [1e300, 21.5], [np.inf, 0.0]])
    present = np.array([[FRESH, FRESH], [FRESH, HELD], [FRESH, ABSENT]], np.uint8)
    made.take("press", ["press/7"] * 3, out, x, present)
    assert files(tmp_path) == []
    made.flush()
    (path,) = files(tmp_path)
    assert path.parent == tmp_path / "r" / "press" / "7"
    assert path.name == "20251121T044000000000000.ndjson"
    first, second, third = rows(path)
    assert first == {
        "time_ns": T0, "vib": 0.1, "temp, C": 20.0,
        "verdict": {
            "status": "warming", "alarm": False, "score": None, "threshold": None, "n": 1, "held": "",
        },
    }  # fmt: skip
    assert second["verdict"]["held"] == "temp, C"
    assert (second["vib"], second["verdict"]["alarm"], second["verdict"]["score"]) == (1e300, True, 7.25)
    assert (third["vib"], third["temp, C"]) == (None, None)


@pytest.mark.parametrize("format_", ["ndjson", "csv"])
@pytest.mark.parametrize("packed", [False, True])
def test_readers_of_tables_read_the_files_and_see_only_the_channels(tmp_path, format_, packed) -> None:
    made = recorder(tmp_path, format=format_, gzip=packed, max_file_bytes=1)
    take(made, *range(50))
    made.close()
    (path,) = files(tmp_path)
    assert (path.suffix == ".gz") == packed
    table = read_table(path)
    assert table.channels == NAMES["press"]
    assert table.times_ns.tolist() == [T0 + i * S for i in range(50)]
    assert table.values.tolist() == [[i / 3, 20.0 + i] for i in range(50)]
    judged = read_table(path, channels=["verdict.score", "vib"])
    assert judged.values[:, 0].tolist() == [i / 7 for i in range(50)]


def test_nothing_is_lost_at_rotation(tmp_path) -> None:
    made = recorder(tmp_path, max_file_bytes=2000)
    for start in range(0, 600, 7):
        take(made, *range(start, min(start + 7, 600)))
        made.flush()
    made.close()
    paths = files(tmp_path)
    assert len(paths) > 10
    assert sum(path.suffix == ".gz" for path in paths) >= len(paths) - 1
    assert [row["verdict"]["n"] for path in paths for row in rows(path)] == list(range(600))
    assert made.counters.rows == 600
    assert made.size == sum(path.stat().st_size for path in paths)


def test_the_oldest_files_go_when_there_is_too_much(tmp_path) -> None:
    made = recorder(tmp_path, max_file_bytes=2000, max_total_bytes=10_000, gzip=False)
    for start in range(0, 700, 7):
        take(made, *range(start, start + 7))
        made.flush()
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 10_000 + 2000
    assert made.counters.removed > 5
    assert rows(files(tmp_path)[-1])[-1]["verdict"]["n"] == 699
    made.close()
    again = recorder(tmp_path, max_file_bytes=2000, max_total_bytes=5000, gzip=False)
    take(again, 700)
    again.flush()
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 5000 + 2000


@pytest.mark.parametrize("format_", ["ndjson", "csv"])
@pytest.mark.parametrize("packed", [False, True])
def test_what_comes_again_after_a_crash_is_not_written_twice(tmp_path, format_, packed) -> None:
    made = recorder(tmp_path, format=format_, max_file_bytes=1 if packed else 1 << 20)
    take(made, *range(10))
    made.close()
    again = recorder(tmp_path, format=format_)
    take(again, *range(5, 15))
    again.close()
    assert again.counters.repeated == 5
    first, second = files(tmp_path)
    assert [len(read_table(path)) for path in (first, second)] == [10, 5]


def test_a_torn_last_line_is_cut_off_and_its_row_written_again(tmp_path) -> None:
    made = recorder(tmp_path)
    take(made, *range(10))
    made.close()
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for cut in range(len(whole) - len(lines[-1]) + 1, len(whole)):
        path.write_bytes(whole[:cut])
        again = recorder(tmp_path)
        take(again, 8, 9, 10)
        again.close()
        first, second = files(tmp_path)
        assert [row["verdict"]["n"] for row in rows(first) + rows(second)] == list(range(11))
        second.unlink()


@pytest.mark.parametrize("suffix", [".ndjson", ".csv", ".ndjson.gz", ".csv.gz"])
@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"{}\n", b"[1]\n", b'{"time_ns": "x"}\n', b"\xff\xfe\n", b"\x1f\x8b\x08junk", b"time_ns\n"],
)
def test_whatever_stands_in_the_newest_file_recording_goes_on(tmp_path, suffix, content) -> None:
    folder = tmp_path / "r" / "press" / "7"
    folder.mkdir(parents=True)
    bad = folder / f"20251121T043000000000000{suffix}"
    bad.write_bytes(content)
    made = recorder(tmp_path)
    take(made, 1, 2)
    made.close()
    assert [row["verdict"]["n"] for path in files(tmp_path) if path != bad for row in rows(path)] == [1, 2]


def test_half_made_archives_are_removed(tmp_path) -> None:
    made = recorder(tmp_path)
    take(made, 1)
    made.close()
    (path,) = files(tmp_path)
    half = path.with_name(path.name + ".gz.tmp")
    half.write_bytes(b"half")
    recorder(tmp_path)
    assert not half.exists()


def test_a_full_disk_costs_rows_and_nothing_else(tmp_path, monkeypatch) -> None:
    log = io.StringIO()
    made = recorder(tmp_path, log)
    take(made, 0, 1)
    made.flush()
    (path,) = files(tmp_path)
    good = path.read_bytes()
    real = Recorder._append

    def full(path: Path, size: int, data: bytes) -> None:
        real(path, size, data[: len(data) // 2])
        with path.open("r+b") as file:
            file.truncate(size)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Recorder, "_append", staticmethod(full))
    take(made, 2, 3)
    made.flush()
    assert path.read_bytes() == good
    take(made, 4, stream="press/8")
    made.flush()
    assert files(tmp_path) == [path]
    assert made.counters.dropped == 3
    assert "No space left on device; scoring goes on" in log.getvalue()
    monkeypatch.undo()
    take(made, 5)
    made.close()
    assert [row["verdict"]["n"] for row in rows(path)] == [0, 1, 5]


def test_a_reset_stream_begins_a_file_of_its_own_whatever_its_times(tmp_path) -> None:
    made = recorder(tmp_path, gzip=False)
    take(made, 5, 6)
    made.flush()
    made.forget("press/7")
    take(made, 5, 6)
    made.close()
    assert [[row["verdict"]["n"] for row in rows(path)] for path in files(tmp_path)] == [[5, 6], [5, 6]]


@pytest.mark.parametrize(
    "stream", ["press/..", "press/../../x", "press/.", "press/a%2Fb", "press/" + "é" * 300, "press/-"]
)
def test_streams_cannot_leave_the_folder(tmp_path, stream) -> None:
    made = recorder(tmp_path)
    take(made, 1, stream=stream)
    made.close()
    (path,) = files(tmp_path)
    assert (tmp_path / "r" / "press") in path.parents
    assert ".." not in path.parts
    again = recorder(tmp_path)
    take(again, 1, 2, stream=stream)
    again.close()
    assert again.counters.repeated == 1


def test_rows_wait_for_the_commit_but_not_without_bound(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(record, "MAX_WAITING", 10_000)
    made = recorder(tmp_path)
    take(made, *range(1000))
    assert made._waiting == 0
    assert made.counters.rows == 1000


def test_bad_folders_and_names_are_named(tmp_path) -> None:
    (tmp_path / "r").write_text("a file")
    with pytest.raises(ConfigError, match=r"record\.path: .*expected a folder that can be written to"):
        recorder(tmp_path)
    with pytest.raises(ConfigError, match="cannot be recorded"):
        Recorder(RecordConfig(path=tmp_path / "x"), {"a": ("time_ns",)}, Log())


def test_a_reload_takes_stock_when_the_recorder_before_has_closed_its_files(tmp_path) -> None:
    first = recorder(tmp_path)
    take(first, 1, 2)
    config = RecordConfig(path=tmp_path / "r", max_file_bytes=1 << 20, max_total_bytes=1 << 30)
    second = Recorder(config, NAMES, Log(stream=io.StringIO()))
    first.close()
    half = files(tmp_path)[0].with_name("20251121T044001000000000.ndjson.gz.tmp")
    half.write_bytes(b"half")
    # A file that the first one still compresses is its own affair until that is done.
    done = threading.Event()
    packer = threading.Thread(target=done.wait, args=(30,))
    packer.start()
    first._packers.append(packer)
    try:
        second.begin(first)
        assert half.exists()
        whole = [path for path in files(tmp_path) if path != half]
        assert second.size == sum(path.stat().st_size for path in whole) > 0
    finally:
        done.set()
        packer.join()
