"""What holds for every verb: bad files and disks are one line and an exit code, `--json` is one document."""

from __future__ import annotations

import argparse
import errno
import json
import sys
import types
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from edge_rnn import cli
from edge_rnn.commands.working import working
from edge_rnn.files.model_file import save
from edge_rnn.files.safetensors_file import write_tensors
from tests.support import need
from tests.support.daemon import START_NS, gru_model, reading

BAD = {
    "missing": None,
    "folder": None,
    "empty": b"",
    "junk": bytes(range(256)) * 40,
    "not-utf-8.toml": '[mqtt]\nhost = "b\xfcro"\n'.encode("latin-1"),
    "not-utf-8.csv": "time,vib,temp\xb0\n1,2,3\n2,3,4\n".encode("latin-1"),
    "file/below": None,
    "n" * 300: None,
}
MODEL, DATA = "good.safetensors", "good.csv"
READS = {
    "run": ["{}"],
    "check": ["{}"],
    "doctor": ["{}"],
    "events": ["{}"],
    "tail": ["{}"],
    "replay": ["{}", DATA],
    "replay data": [MODEL, "{}"],
    "evaluate": ["{}", DATA, "--labels", "anomaly"],
    "evaluate data": [MODEL, "{}", "--labels", "anomaly"],
    "calibrate": ["{}", DATA, "-o", "out"],
    "calibrate data": [MODEL, "{}", "-o", "out"],
    "inspect": ["{}"],
    "inspect data": [MODEL, "--gates", "{}", "-o", "gates.png"],
    "convert": ["{}", "-o", "out"],
    "export": ["{}", "-o", "out"],
    "export data": [MODEL, "-o", "out", "--rest", "{}", "--no-measure"],
    "export state": [MODEL, "-o", "out", "--initial", "{}", "--no-measure"],
    "build": ["{}", "-o", "out"],
    "bench": ["{}"],
}
ANSWERS = {
    "check": [MODEL],
    "replay": [MODEL, DATA],
    "evaluate": [MODEL, DATA, "--labels", "labels.csv"],
    "calibrate": [MODEL, DATA, "-o", "out.safetensors"],
    "inspect": [MODEL],
    "convert": ["weights.safetensors", "-o", "out.safetensors"],
    "export": [MODEL, "-o", "firmware", "--no-measure"],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a good model, good readings, and everything that may be in their place."""
    folder = tmp_path_factory.mktemp("verbs")
    for name, content in BAD.items():
        if content is not None:
            (folder / name).write_bytes(content)
    (folder / "folder").mkdir()
    (folder / "file").write_text("not a folder")
    model = gru_model()
    save(model, folder / MODEL)
    rows = ["time,vib,temp"]
    for i in range(400):
        at = reading(i)
        rows.append(f"{START_NS // 10**9 + i},{at['vib']:.5f},{at['temp']:.5f}")
    (folder / DATA).write_text("\n".join(rows) + "\n")
    (folder / "labels.csv").write_text("start,end\n2025-11-21T04:42:00Z,2025-11-21T04:43:00Z\n")
    layer = model.layers[0]
    names = {"w_ih": "weight_ih_l0", "w_hh": "weight_hh_l0", "b_ih": "bias_ih_l0", "b_hh": "bias_hh_l0"}
    weights = {f"gru.{theirs}": np.asarray(getattr(layer, ours)) for ours, theirs in names.items()}
    (folder / "weights.safetensors").write_bytes(write_tensors(weights, {}))
    return folder


@pytest.mark.parametrize("case", READS)
def test_a_file_that_is_none_is_told_in_one_line(
    case: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verb = case.split(maxsplit=1)[0]
    monkeypatch.chdir(place)
    for bad in BAD:
        code = cli.main([verb, *(word.format(bad) for word in READS[case])])
        said = capsys.readouterr()
        assert code > 2, (bad, said)
        assert said.out == "", bad
        assert said.err.startswith(f"edge-rnn {verb}: "), (bad, said.err)
        assert Path(bad).name in said.err, (bad, said.err)
        assert "Traceback" not in said.err


@pytest.mark.parametrize("verb", ANSWERS)
def test_json_is_one_document_and_nothing_else(
    verb: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    assert cli.main([verb, *ANSWERS[verb], "--json"]) == 0
    said = capsys.readouterr()
    assert isinstance(json.loads(said.out), dict)
    assert all(line.startswith("notice: ") for line in said.err.splitlines())


def test_every_verb_but_the_daemon_speaks_json() -> None:
    for verb in cli.VERBS.keys() - {"run"}:
        parser = argparse.ArgumentParser()
        import_module(f"edge_rnn.commands.{verb}").add_arguments(parser)
        assert any("--json" in action.option_strings for action in parser._actions), verb


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_disk_that_fails_is_one_line(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_: argparse.Namespace) -> int:
        raise OSError(number, "what it is", "out\n.safetensors")

    module = types.SimpleNamespace(add_arguments=lambda _: None, run=run)
    monkeypatch.setattr(cli, "import_module", lambda _: module)
    assert cli.main(["convert"]) == 74
    assert capsys.readouterr().err == "edge-rnn convert: out\\n.safetensors: what it is\n"


def test_ctrl_c_while_a_verb_is_still_being_imported_ends_quietly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def slow(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "import_module", slow)
    assert cli.main(["replay", "a", "b"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_reader_that_has_gone_is_no_error(
    place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As in `edge-rnn events ... | head -1`: the pipe breaks while there is more to say."""

    def run(_: argparse.Namespace) -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    module = types.SimpleNamespace(add_arguments=lambda _: None, run=run)
    monkeypatch.setattr(cli, "import_module", lambda _: module)
    with (tmp_path / "out").open("w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert cli.main(["events"]) == 0


def test_what_takes_seconds_is_said_once_and_only_to_people(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with working("compiling for a while") as progress:
        assert capsys.readouterr().err == ""
        for step in ("one", "two"):
            progress(step)
    assert capsys.readouterr() == ("", "compiling for a while\n")
    with working("compiling for a while", quiet=True) as progress:
        progress("one")
    assert capsys.readouterr() == ("", "")
    # A terminal shows the steps, in a line that is gone afterwards.
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with working("compiling for a while") as progress:
        progress("one [step]")
        progress("two")
    assert "compiling for a while" not in capsys.readouterr().err


def test_an_export_that_compiles_says_so_and_one_that_fails_at_once_says_only_why(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    need.program("cc")
    monkeypatch.chdir(place)
    assert cli.main(["export", MODEL, "-o", "measured", "--target", "host"]) == 0
    assert capsys.readouterr().err == "compiling the C code, to measure it; --no-measure leaves that out\n"
    assert cli.main(["export", MODEL, "-o", "measured", "--target", "z80"]) == 78
    assert capsys.readouterr().err.count("\n") == 1
