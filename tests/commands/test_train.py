"""`edge-rnn train` as a user meets it: files in, a model and a card out, one line for everything wrong."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

import edge_rnn
from edge_rnn.cli import main
from tests.support import need


@pytest.fixture(autouse=True)
def _torch():
    need.torch()


@pytest.fixture(scope="module")
def csv(tmp_path_factory):
    """A file as loggers write it: time, two channels, a label column and a text column."""
    rng = np.random.default_rng(0)
    lines = ["ts;vib;temp;anomaly;comment"]
    for i in range(220):
        vib = np.sin(i / 3) + 0.05 * rng.standard_normal()
        lines.append(f"2024-05-01 10:{i // 60:02}:{i % 60:02};{vib:.5f};{20 + rng.normal():.4f};0;ok")
    path = tmp_path_factory.mktemp("data") / "pump.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


SMALL = ["--hidden", "4", "--epochs", "3"]


def run(*words):
    return main(["train", *map(str, words)])


def test_a_model_and_its_card(csv, tmp_path, capsys):
    output = tmp_path / "pump.safetensors"
    assert run(csv, "-o", output, "--rows", 200, *SMALL) == 0
    out, err = capsys.readouterr()
    assert err == "train: training, at most 3 epochs\n"
    for piece in ("pump: gru 4 x 1", "vib, temp", "200 rows", "no RNN", "delimiter ';'", "pump.safetensors"):
        assert piece in out
    model = edge_rnn.load(output)
    assert model.name == "pump"
    assert [i.name for i in model.inputs] == ["vib", "temp"]
    verdict = edge_rnn.Detector(model).step([0.1, 20.0], 10**18)
    assert verdict.status == "warming"


def test_the_card_fits_the_terminal(csv, tmp_path, capsys):
    from edge_rnn.training import card, fit

    assert run(csv, "-o", tmp_path / "m.safetensors", "--rows", 200, *SMALL) == 0
    capsys.readouterr()
    facts = fit.card_of(edge_rnn.load(tmp_path / "m.safetensors"))
    whole, wrapped = card.render(facts), card.render(facts, 60)
    assert max(map(len, whole.splitlines())) > 60 >= max(map(len, wrapped.splitlines()))
    assert wrapped.split() == whole.split()


def test_json_and_every_option(csv, tmp_path, capsys):
    output = tmp_path / "m.safetensors"
    words = [
        "--time",
        "ts",
        "--channels",
        "temp,vib",
        "--labels",
        "anomaly",
        "--delimiter",
        ";",
        "--name",
        "x",
    ]
    words += ["--cell", "lstm", "--layers", "2", "--seed", "3", "--threads", "1", "--json", *SMALL]
    assert run(csv, "-o", output, *words) == 0
    card = json.loads(capsys.readouterr().out)
    assert card["model"] == "m.safetensors"
    assert card["data"]["channels"] == ["temp", "vib"]
    assert (card["network"]["cell"], card["network"]["layers"], card["network"]["seed"]) == ("lstm", 2, 3)
    assert card["data"]["rows_labelled_anomalous"] == 0
    model = edge_rnn.load(output)
    assert len(model.layers) == 2
    assert model.name == "x"


def failing(words, code, match, capsys, tmp_path):
    before = sorted(tmp_path.iterdir())
    assert run(*words) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("edge-rnn train: ")
    assert err.count("\n") == 1, err
    assert match in err
    assert sorted(tmp_path.iterdir()) == before, "nothing may be left behind"


def test_what_cannot_work_is_one_line(csv, tmp_path, capsys):
    output = tmp_path / "m.safetensors"
    bad = [
        (["none.csv", "-o", output], 65, "cannot be read"),
        ([csv, "-o", output, "--channels", "vib,tmp"], 65, "did you mean 'temp'?"),
        ([csv, "-o", output, "--channels", "vib,anomaly"], 65, "label column and never an input"),
        ([csv, "-o", output, "--time", "comment"], 65, "is not a time"),
        ([csv, "-o", output, "--labels", "fault"], 65, "no such label column 'fault'"),
        ([csv, "-o", output, "--rows", "10"], 65, "rows: expected at least"),
        ([csv, "-o", output, "--hidden", "0"], 78, "hidden: expected 1 to 4096, got 0"),
        ([csv, "-o", tmp_path / "no" / "m.safetensors"], 78, "--output"),
        ([csv, "-o", tmp_path], 78, "--output"),
        ([csv, "-o", csv], 78, "would be overwritten"),
    ]
    for words, code, match in bad:
        failing(words, code, match, capsys, tmp_path)


def test_wrong_usage_ends_with_two(csv, tmp_path, capsys):
    output = tmp_path / "m"
    for words in (
        [csv],
        ["-o", output],
        [csv, "-o", output, "--cell", "cnn"],
        [csv, "-o", output, "--channels", ","],
    ):
        with pytest.raises(SystemExit) as ended:
            run(*words)
        assert ended.value.code == 2
        assert "usage: edge-rnn train" in capsys.readouterr().err


def test_an_interrupted_run_leaves_nothing_behind(csv, tmp_path, monkeypatch, capsys):
    from edge_rnn.training import trainer

    def interrupted(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "_held_back_loss", interrupted)
    old = tmp_path / "m.safetensors"
    old.write_bytes(b"the model of yesterday")
    assert run(csv, "-o", old, *SMALL) == 130
    assert old.read_bytes() == b"the model of yesterday"
    assert list(tmp_path.iterdir()) == [old]
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("train: stopped, nothing written\n")


def test_progress_is_drawn_in_a_terminal_only(csv, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert run(csv, "-o", tmp_path / "m.safetensors", *SMALL) == 0
    out, err = capsys.readouterr()
    assert "squared error held back" in err
    assert "squared error held back" not in out


def test_without_torch_one_line_says_what_to_install(csv, tmp_path):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from edge_rnn.cli import main\n"
        f"sys.exit(main(['train', {str(csv)!r}, '-o', {str(tmp_path / 'm.safetensors')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 69
    assert "pip install 'edge-rnn[train]'" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_help_needs_no_torch():
    code = "import sys; sys.modules['torch'] = None\nfrom edge_rnn.cli import main\nmain(['train', '--help'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "--labels" in done.stdout


def test_one_model_for_each_file(csv, tmp_path, capsys):
    second = tmp_path / "fan.csv"
    second.write_bytes(csv.read_bytes())
    folder = tmp_path / "models"
    folder.mkdir()
    assert run(csv, second, "-o", folder, "--each", "--json", *SMALL) == 0
    names = [json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()]
    assert names == ["pump", "fan"]
    assert sorted(path.name for path in folder.iterdir()) == ["fan.safetensors", "pump.safetensors"]
    assert run(csv, csv, "-o", folder, "--each", *SMALL) == 78
    assert "two files would both become pump.safetensors" in capsys.readouterr().err
    assert run(csv, "-o", folder / "none", "--each", *SMALL) == 78
    assert "expected a folder that exists" in capsys.readouterr().err


def test_one_model_for_machines_of_another_scale(csv, tmp_path, capsys):
    """A machine at ten times the level of the one trained on is normal, once its own past is known."""
    output = tmp_path / "shared.safetensors"
    assert run(csv, "-o", output, "--own-scale", *SMALL) == 65  # too few rows to know a machine first
    assert "rows" in capsys.readouterr().err
    longer = tmp_path / "long.csv"
    rng = np.random.default_rng(3)
    with longer.open("w") as file:
        file.write("ts,vib,temp\n")
        for i in range(1200):
            vib, temp = np.sin(i / 3) + 0.05 * rng.standard_normal(), 20 + rng.normal()
            file.write(f"{1_763_700_000 + i},{vib:.5f},{temp:.4f}\n")
    assert run(longer, "-o", output, "--own-scale", "--hidden", 4, "--epochs", 6) == 0
    capsys.readouterr()
    model = edge_rnn.load(output)
    assert model.detector.condition.running == (True, True)
    rng = np.random.default_rng(2)
    t = np.arange(900)
    rows = np.stack(
        [30 + 8 * np.sin(t / 3) + rng.normal(0, 0.4, 900), 200 + 10 * rng.standard_normal(900)], 1
    )
    verdicts = edge_rnn.Detector(model).run(t * 10**9, rows)
    assert verdicts["score"][600:].max() < 20
    assert verdicts["alarm"][600:].mean() < 0.1


def test_the_options_reach_the_model(csv, tmp_path, capsys):
    output = tmp_path / "m.safetensors"
    words = [
        "--horizons",
        "1,5",
        "--scale",
        "laplace",
        "--features",
        "day_sin,day_cos",
        "--alarms-per-day",
        "2",
    ]
    assert run(csv, "-o", output, "--auto", "0.001", *words, "--epochs", "3", "--json") == 0
    card = json.loads(capsys.readouterr().out)
    assert [t["hidden"] for t in card["network"]["trials"]] == [8]
    model = edge_rnn.load(output)
    assert model.detector.horizons == (1, 5)
    assert model.detector.scale_head == "laplace"
    assert model.features == ("day_sin", "day_cos")
    assert model.detector.threshold.kind == "pot"
    for words, message in (
        (["--features", "moon"], "features: expected some of day_sin"),
        (["--horizons", "5,1"], "rising numbers of steps"),
        (["--alarms-per-day", "0"], "expected a number above 0"),
        (["--auto", "-1"], "expected a time budget above 0 s"),
        (["--auto", "1", "--resume"], "give one or the other"),
    ):
        assert run(csv, "-o", output, *words, *SMALL) == 78
        assert message in capsys.readouterr().err


def test_an_interrupted_run_goes_on(csv, tmp_path, capsys, monkeypatch):
    from edge_rnn.training import checkpoint, trainer

    whole, again = tmp_path / "whole.safetensors", tmp_path / "again.safetensors"
    assert run(csv, "-o", whole, "--name", "m", *SMALL) == 0
    monkeypatch.setattr(checkpoint, "EVERY_S", 0.0)
    real, done = trainer._epoch, []

    def second_is_too_much(*args):
        done.append(1)
        if len(done) == 2:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(trainer, "_epoch", second_is_too_much)
    assert run(csv, "-o", again, "--name", "m", "--resume", *SMALL) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert (tmp_path / "again.safetensors.part").exists()
    assert run(csv, "-o", again, "--name", "m", "--resume", *SMALL) == 0
    assert len(done) == 4  # the first, the one that broke off, and the two that were left
    assert again.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "again.safetensors.part").exists()
