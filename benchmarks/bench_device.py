"""Which reports may stand beside real boards, and that the four kinds of figures stay apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks import device
from edge_rnn.bench.inputs import BUNDLED
from edge_rnn.bench.measure import Options, measure
from edge_rnn.bench.report import Start, Starts, encode

Change = Callable[[dict[str, Any]], None]
EMULATED = {
    "kind": "emulated", "date": "2026-11-21", "target": "cortex-a72", "emulator": "qemu-aarch64",
    "what": "step", "equal": True,
}  # fmt: skip
ESTIMATED = {
    "kind": "estimated", "date": "2026-11-21", "core": "cortex-a72", "board": "Pi 4", "mhz": [1500, 1800],
    "rows": [{"what": "LSTM 4/32/1", "instructions": 9000, "low": 18_000, "high": 36_000}],
    "tool": "llvm-mca 19", "host": "znver4", "host_error": [0.65, 1.18],
}  # fmt: skip


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    """A whole report of this machine, made to look like a board's; starts are made up, they take long."""
    report = measure(BUNDLED, Options(seconds=0.02, rates=(1.0, 10.0, 100.0), streams=(2,), start=False))
    document = json.loads(encode(report))
    start = Start(imported_ms=500, ready_ms=900, first_score_ms=901, rss_kib=150_000, peak_rss_kib=160_000)
    document["start"] = msgspec.to_builtins(Starts(cold=start, warm=start))
    document["environment"] |= {"board": "Raspberry Pi 4 Model B Rev 1.4", "virtual": False, "emulation": []}
    return document


def changed(content: dict[str, Any], change: Change) -> str:
    document = json.loads(json.dumps(content))
    change(document)
    return json.dumps(document)


def test_a_boards_report_is_stored_under_its_name_and_shown(content, tmp_path, capsys) -> None:
    (tmp_path / "x.json").write_text(json.dumps(content))
    assert device.main(["--results", str(tmp_path), "add", str(tmp_path / "x.json")]) == 0
    assert capsys.readouterr().out == "board-raspberry-pi-4-model-b-rev-1-4.json\n"
    assert device.main(["--results", str(tmp_path), "table"]) == 0
    shown = capsys.readouterr().out
    assert "| Raspberry Pi 4 Model B Rev 1.4, " in shown
    assert shown.index("**Measured, on the host named (no small board)**: none yet.") < shown.index(
        "**Contrib"
    )


def put(document: dict[str, Any], path: str, value: object) -> None:
    *way, last = path.split(".")
    for key in way:
        document = document[key]
    document[last] = value


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: put(d, "environment.board", None), "no board: /proc/device-tree/model was missing"),
        (lambda d: put(d, "environment.board", " "), "no board"),
        (lambda d: put(d, "environment.board", "???"), "expected a name with letters"),
        (lambda d: put(d, "environment.emulation", ["run by a qemu"]), "emulation detected (run by a qemu)"),
        (lambda d: d["environment"].update(virtual=True), "made in a virtual machine"),
        (lambda d: put(d, "output.sha256", "0" * 64), "outputs: expected the hash"),
        (lambda d: d["output"].update(sha256="0" * 64, golden="0" * 64), "outputs: expected the hash"),
        (lambda d: put(d, "output.steps", 1), "outputs: expected the hash"),
        (
            lambda d: put(d, "environment.numeric", "U" if d["environment"]["numeric"] == "F" else "F"),
            "outputs",
        ),
        (lambda d: put(d, "network.weights", "1" * 64), "expected the bundled model"),
        (lambda d: put(d, "start", None), "incomplete, without start"),
        (lambda d: put(d, "path", None), "incomplete, without path"),
        (lambda d: put(d, "rates", []), "incomplete, without streams"),
        (lambda d: d["paced"].pop(), "incomplete, without 100 Hz"),
        (lambda d: put(d, "environment.hostname", "x"), "unknown field"),
    ],
)
def test_a_report_that_is_no_boards_is_refused(content, change, said, tmp_path, capsys) -> None:
    (tmp_path / "x.json").write_text(changed(content, change))
    assert device.main(["--results", str(tmp_path), "add", str(tmp_path / "x.json")]) == 65
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff\xfe", b"{" * 100_000])
def test_what_is_no_report_is_refused(text, tmp_path, capsys) -> None:
    (tmp_path / "x.json").write_bytes(text)
    assert device.main(["--results", str(tmp_path), "add", str(tmp_path / "x.json")]) == 65
    assert capsys.readouterr().err.startswith("device: ")
    assert device.main(["--results", str(tmp_path), "add", str(tmp_path / "missing.json")]) == 65


def test_a_stored_file_is_checked_again_when_it_is_shown(content, tmp_path, capsys) -> None:
    file = tmp_path / "board-x.json"
    file.write_text(changed(content, lambda d: put(d, "environment.board", None)))
    assert device.main(["--results", str(tmp_path), "table"]) == 65
    file.rename(tmp_path / "host-x.json")
    assert device.main(["--results", str(tmp_path), "table"]) == 0
    assert "**Contributed, from real boards**: none yet." in capsys.readouterr().out


def table(folder: Path, name: str, document: dict[str, Any]) -> int:
    (folder / f"{name}.json").write_text(json.dumps(document))
    return device.main(["--results", str(folder), "table"])


def test_estimates_are_intervals_with_their_error_and_emulation_has_no_time(tmp_path, capsys) -> None:
    assert table(tmp_path, "emulated-a72", EMULATED) == 0
    assert table(tmp_path, "estimated-a72", ESTIMATED) == 0
    shown = capsys.readouterr().out
    assert "| cortex-a72 | qemu-aarch64 | step | equal |" in shown
    assert "18,000 .. 36,000 | 12.0 µs .. 24.0 µs at 1.5 GHz; 10.0 µs .. 20.0 µs at 1.8 GHz |" in shown
    assert "llvm-mca 19; on znver4 the truth was 0.65 to 1.18 times the low figure." in shown
    assert "**Estimate, not measured**" in shown


@pytest.mark.parametrize(
    ("name", "document", "said"),
    [
        ("emulated-x", EMULATED | {"p50_ns": 100}, "unknown field"),
        ("emulated-x", ESTIMATED, "emulated-x.json"),
        ("estimated-x", ESTIMATED | {"host_error": [2, 1]}, "expected an interval"),
        ("estimated-x", {k: v for k, v in ESTIMATED.items() if k != "host_error"}, "host_error"),
    ],
)
def test_kinds_of_figures_are_not_mixed(name, document, said, tmp_path, capsys) -> None:
    assert table(tmp_path, name, document) == 65
    assert said in capsys.readouterr().err


def test_the_stored_results_can_be_shown(capsys) -> None:
    assert device.main(["table"]) == 0
    assert "AMD EPYC" in capsys.readouterr().out
