"""The command line as a whole: help, exit codes, one line for an error and never a traceback."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import subprocess
import sys
import types

import pytest

import edge_rnn
from edge_rnn import cli, errors
from tests.support import need


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """`edge-rnn words...` as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "edge_rnn", *words], capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([verb, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"usage: edge-rnn {verb}")
    assert "--help" in said.out
    assert said.err == ""


@pytest.mark.parametrize("verb", cli.VERBS)
def test_an_unknown_option_is_wrong_usage(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([verb, "--no-such-option"])
    assert ended.value.code == 2
    assert f"edge-rnn {verb}: error: " in capsys.readouterr().err


@pytest.mark.parametrize("verb", cli.VERBS)
def test_a_verb_loads_no_heavy_part_to_explain_itself(verb: str) -> None:
    code = (
        "import sys\nfrom edge_rnn import cli\n"
        f"try:\n    cli.main(['{verb}', '--help'])\nexcept SystemExit:\n    pass\n"
        "print('loaded:', *sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.rsplit("loaded:", 1)[1].split())
    assert "edge_rnn" in loaded
    assert not loaded & {"torch", "rich", "matplotlib", "amqtt"}


def test_help_and_version_of_the_whole(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("--help", "-h", "help"):
        assert cli.main([word]) == 0
        said = capsys.readouterr().out
        assert all(f"  {verb} " in said for verb in cli.VERBS)
    for word in ("--version", "-V"):
        assert cli.main([word]) == 0
        assert capsys.readouterr().out == f"edge-rnn {edge_rnn.__version__}\n"


@pytest.mark.parametrize("words", [[], ["fly"], ["--fly"], [""]])
def test_an_unknown_verb_is_wrong_usage_and_lists_the_verbs(words: list[str], capsys) -> None:
    assert cli.main(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert ("no verb given" if not words else f"unknown verb {words[0]!r}") in said.err
    assert all(f"  {verb} " in said.err for verb in cli.VERBS)


def test_a_misspelt_verb_is_recognised(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["chekc", "pump.toml"]) == 2
    assert capsys.readouterr().err.startswith("edge-rnn: unknown verb 'chekc'; did you mean check?\n")


def fake_verb(monkeypatch: pytest.MonkeyPatch, run) -> None:
    """The verb `demo`, replaced by one that takes nothing and calls `run`."""
    module = types.SimpleNamespace(add_arguments=lambda parser: None, run=run)
    monkeypatch.setattr(cli, "import_module", lambda name: module)


def test_an_error_on_purpose_is_one_line_with_its_own_exit_code(monkeypatch, capsys) -> None:
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.EdgeRnnError)
    ]
    assert len(kinds) >= 9
    for kind in kinds:

        def run(args: argparse.Namespace, kind: type[errors.EdgeRnnError] = kind) -> int:
            raise kind("model.pt: expected a model, got a photograph")

        fake_verb(monkeypatch, run)
        assert cli.main(["demo"]) == kind.exit_code
        said = capsys.readouterr()
        assert said.err == "edge-rnn demo: model.pt: expected a model, got a photograph\n"
        assert said.out == ""


def test_ctrl_c_ends_quietly(monkeypatch, capsys) -> None:
    def run(args: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    fake_verb(monkeypatch, run)
    assert cli.main(["demo"]) == 130
    assert capsys.readouterr().err == ""


def test_a_reader_that_has_gone_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "edge_rnn", "--help"], stdout=pipe, stderr=subprocess.PIPE, check=False
        )
    assert b"Traceback" not in done.stderr


def test_both_ways_to_start_the_command_are_the_same() -> None:
    done = command("--version")
    assert (done.returncode, done.stdout) == (0, f"edge-rnn {edge_rnn.__version__}\n")
    entry = importlib.metadata.entry_points(group="console_scripts", name="edge-rnn")
    assert [point.value for point in entry] == ["edge_rnn.cli:main"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["check", "{}/nothing.toml"], "nothing.toml"),
        (["check", "{}/broken.toml"], "broken.toml"),
        (["check", "{}/broken.safetensors"], "broken.safetensors"),
        (["run", "{}/nothing.toml"], "nothing.toml"),
        (["run", "{}/broken.toml"], "broken.toml"),
        (["inspect", "{}/nothing.safetensors"], "nothing.safetensors"),
        (["inspect", "{}/broken.safetensors"], "broken.safetensors"),
        (["replay", "{}/broken.safetensors", "{}/nothing.csv"], "broken.safetensors"),
        (["convert", "{}/broken.safetensors", "-o", "{}/out.safetensors"], "broken.safetensors"),
        (["train", "{}/nothing.csv", "-o", "{}/out.safetensors"], "nothing.csv"),
        (["demo", "--pumps", "1", "--seconds", "20"], "--seconds"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_gives_its_name_and_no_traceback(words: list[str], said: str, tmp_path) -> None:
    if words[0] == "train":
        need.torch()
    (tmp_path / "broken.toml").write_text("[mqtt\nhost = ")
    (tmp_path / "broken.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0not json")
    done = command(*(word.format(tmp_path) for word in words))
    assert done.returncode not in (0, 1, 2)
    assert "Traceback" not in done.stderr
    assert said in done.stderr
    assert done.stderr.startswith(f"edge-rnn {words[0]}: ")
    if words[0] != "check" and "broken.toml" not in said:
        assert done.stderr.count("\n") == 1
