"""The README is true: its commands are the command line's, its configurations are valid, its Python runs.

Every fenced block is read and belongs to one of the kinds checked here. Commands of `edge-rnn` are parsed by
the very parsers, and those that need no more than the bundled model are run.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from edge_rnn import cli
from edge_rnn.core.detector_spec import DetectorSpec, ScorerSpec, ThresholdSpec
from edge_rnn.core.model import Input, Linear, Model, Recurrent
from edge_rnn.detect.detector import Detector
from edge_rnn.files import config_types
from edge_rnn.files.config import channel_order, load_config
from edge_rnn.files.load import load
from edge_rnn.files.model_file import save
from tests.support import need

README = (need.ROOT / "README.md").read_text("utf-8")
MODEL = "edge_rnn/demo/pump.safetensors"


class Block(NamedTuple):
    kind: str
    text: str


BLOCKS = [Block(*found) for found in re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)]


def of_kind(kind: str) -> list[str]:
    return [block.text for block in BLOCKS if block.kind == kind]


def shell_lines() -> list[str]:
    return [line for text in of_kind("sh") for line in text.splitlines() if line.strip()]


def commands() -> list[list[str]]:
    """Every `edge-rnn ...` of the shell blocks as words, without comments and shell operators."""
    found = []
    for line in shell_lines():
        for part in re.split(r"&&|\||&$", line):
            words = shlex.split(part, comments=True)
            if words[:1] == ["edge-rnn"]:
                found.append(words[1:])
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the README's paths are right, as the current one."""
    (tmp_path / MODEL).parent.mkdir(parents=True)
    shutil.copy(need.ROOT / MODEL, tmp_path / MODEL)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def configurations() -> dict[str, str]:
    """The TOML blocks by the file name in their first line."""
    return {text.splitlines()[0].removeprefix("# "): text for text in of_kind("toml")}


def test_every_block_is_of_a_kind_that_is_checked() -> None:
    assert README.count("```") == 2 * len(BLOCKS)
    assert {block.kind for block in BLOCKS} == {"sh", "text", "python", "toml"}
    assert len(of_kind("python")) >= 2
    assert len(configurations()) == len(of_kind("toml")) >= 3


def test_the_two_commands_of_the_first_page_stand_there_to_the_letter() -> None:
    assert "pip install '.[demo]' && edge-rnn demo" in shell_lines()
    assert "pip install '.[dev]' && pytest" in shell_lines()


def test_every_verb_is_in_the_list() -> None:
    assert set(cli.VERBS) <= set(re.findall(r"^\| `edge-rnn (\w+)` \|", README, re.MULTILINE))


def test_nothing_is_published_before_the_daemon_has_a_session() -> None:
    """A block pasted at once: messages to a broker without the daemon's session would be lost."""
    wait = "until mosquitto_sub -C 1 -t edge-rnn/status | grep -qx online; do sleep 1; done"
    starts = [i for i, line in enumerate(shell_lines()) if re.match(r"edge-rnn run .*&$", line)]
    assert len(starts) >= 2
    assert all(shell_lines()[i + 1] == wait for i in starts)


def test_the_readings_of_a_pump_go_from_warming_to_an_alarm(capsys) -> None:
    """The block that publishes: what its Python prints, judged by the model, is what the page says."""
    block = next(text for text in of_kind("sh") if text.startswith("python -u - <<'END'"))
    script = block.split("\n", 1)[1].removesuffix("END\n").replace("time.sleep(0.05)", "pass")
    exec(compile(script, "README.md", "exec"), {})
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    detector = Detector(load(need.ROOT / MODEL))
    told = [detector.step(list(line.values()), i * 50_000_000).status for i, line in enumerate(lines)]
    assert list(lines[0]) == [channel.name for channel in detector.model.inputs]
    assert told[0] == "warming"
    assert set(told[40:160]) == {"normal"}
    assert "anomaly" in told[160:]


def test_every_command_is_one_of_the_command_line() -> None:
    assert len(commands()) >= 10
    told = {words[0] for words in commands()}
    assert {"demo", "run", "check", "replay", "inspect", "convert", "train"} <= told <= set(cli.VERBS)
    for verb, *words in commands():
        command = importlib.import_module(f"edge_rnn.commands.{verb}")
        parser = argparse.ArgumentParser(exit_on_error=False)
        command.add_arguments(parser)
        parser.parse_args(words)


def test_extras_and_files_that_are_named_exist() -> None:
    project = (need.ROOT / "pyproject.toml").read_text("utf-8")
    extras = set(re.findall(r"pip install '\.\[([\w,]+)\]'", README))
    extras = {extra for group in extras for extra in group.split(",")}
    assert {"demo", "dev", "train", "plot"} <= extras
    assert all(re.search(rf"^{extra} = ", project, re.MULTILINE) for extra in extras)
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    guide = (need.ROOT / "CONTRIBUTING.md").read_text("utf-8")
    paths = re.findall(r"(?:edge_rnn|firmware_export|tests|benchmarks)/[\w./-]+\w", README + guide)
    assert len(links) >= 4
    assert len(set(paths)) >= 20
    assert [path for path in {*links, *paths} if not (need.ROOT / path).exists()] == []


def test_the_list_of_keys_is_complete() -> None:
    table = README[README.index("### All keys") : README.index("## From PyTorch")]
    told = set(re.findall(r"[a-z_]+", " ".join(re.findall(r"`([a-z_.]+)`", table))))
    sections = [
        config_types.MqttConfig, config_types.TlsConfig, config_types.OutputConfig, config_types.StoreConfig,
        config_types.LogConfig, config_types.HealthConfig, config_types.HttpConfig,
        config_types.StreamConfig,
        config_types.ChannelConfig, config_types.TimeConfig,
        config_types.HomeAssistantConfig, config_types.CommandsConfig, config_types.SinkConfig,
        config_types.RecordConfig, config_types.ReloadConfig,
    ]  # fmt: skip
    keys = {name.removesuffix("_ns").removesuffix("_s") for s in sections for name in s.__struct_fields__}
    # A password is never a key of the file; its two sources are. Sizes stand there in MB.
    assert keys - {"password", "secret", "max_file_bytes", "max_total_bytes"} <= told


def test_links_inside_the_page_lead_somewhere() -> None:
    titles = re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    places = {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}
    links = re.findall(r"\]\(#([^)]+)\)", README)
    assert links
    assert set(links) <= places


def valve_model() -> Model:
    """An untrained model with the inputs of the walk-through's recording."""
    names = re.findall(r'name = "([^"]+)", column', configurations()["valve.toml"])
    n = len(names)
    assert n == 8
    scorer = ScorerSpec(kind="ewma_z", source="residual", rate=0.2, center=(0.0,) * n, precision=(1.0,) * n)
    return Model(
        layers=(Recurrent("gru", np.full((12, n), 0.1), np.full((12, 4), 0.1)),),
        head=(Linear(np.full((n, 4), 0.1)),),
        inputs=tuple(Input(name) for name in names),
        detector=DetectorSpec(scorers=(scorer,), threshold=ThresholdSpec(kind="fixed", value=1.0)),
    )


@pytest.mark.parametrize("name", configurations())
def test_a_configuration_is_valid_and_fits_its_model(name: str, folder: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("MQTT_PASSWORD", "secret")
    save(valve_model(), folder / "valve.safetensors")
    (folder / name).write_text(configurations()[name])
    config = load_config(folder / name)
    for stream in config.streams:
        names = [channel.name for channel in load(stream.model).inputs]
        assert sorted(channel_order(stream, names)) == list(range(len(names)))
    assert cli.main(["check", name]) == 0, capsys.readouterr().err


def test_the_python_runs_from_top_to_bottom(folder: Path, capsys) -> None:
    names: dict[str, object] = {"__name__": "readme"}
    for text in of_kind("python"):
        if "import torch" in text:
            need.torch()
        exec(compile(text, "README.md", "exec"), names)
    assert capsys.readouterr().out.startswith("warming ")
    assert {"price.pt", "price.safetensors"} <= {path.name for path in folder.iterdir()}
    # What the page says about these two files.
    for words in commands():
        if words[0] in ("convert", "inspect"):
            assert cli.main(words) == 0, capsys.readouterr().err
    assert "open, high, low, close, volume" in capsys.readouterr().out


def test_training_and_replay_work_as_written(folder: Path, capsys) -> None:
    need.torch()
    ran = []
    judging = ("train", "replay", "evaluate", "calibrate")
    for words in commands():
        # A library is built by a test of its own: that takes as long as a first start.
        own = words[0] in judging or "--save" in words
        if own and "--library" not in words and not any("$" in word for word in words):
            quick = ["--epochs", "2"] if words[0] == "train" else []
            assert cli.main([*words, *quick]) == 0, capsys.readouterr().err
            ran.append(words[0])
    assert ran == ["demo", "train", "replay", "evaluate", "calibrate"]
    assert "every event" in (folder / "other.html").read_text().lower()


def wrong_inputs(folder: Path) -> dict[str, str]:
    """What the troubleshooting table quotes: the command's words (or a configuration) that bring it about."""
    torch = need.torch()
    (folder / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(64))
    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 2)), "whole.pt")
    torch.save(torch.nn.LSTM(3, 4, bidirectional=True).state_dict(), "both.pt")
    (folder / "d.csv").write_text("time,vib,temp\n0,1,2\n1,1,2\n")
    good = configurations()["pump.toml"]
    (folder / "key.toml").write_text(good + 'silent_aftr = "5s"\n')
    (folder / "channel.toml").write_text(good.replace('"temperature"', '"temperatur"'))
    photo, channel = "inspect photo.jpg", "check channel.toml"
    return {
        "not a model file (starts with": photo,
        "expected a .safetensors or a .pt written by torch.save(model.state_dict(), ...)": photo,
        "(a whole model was pickled)": "inspect whole.pt",
        "the file asks to call 'torch.nn.modules.container.Sequential'": "inspect whole.pt",
        "a bidirectional layer reads the future, which a live stream does not have": "inspect both.pt",
        'stream[0].silent_aftr: unknown key; did you mean "silent_after"?': "check key.toml",
        'stream "pumps": the model has no input "temperatur"; did you mean "temperature"?': channel,
        "d.csv: no such column 'vibration'; columns: time, vib, temp": f"replay {MODEL} d.csv",
    }


def test_the_messages_quoted_are_the_messages_given(folder: Path, capsys) -> None:
    for quoted, words in wrong_inputs(folder).items():
        assert quoted in README, quoted
        assert cli.main(words.split()) != 0
        assert quoted in capsys.readouterr().err, words


@pytest.mark.parametrize(
    ("quoted", "file"),
    [
        ("cannot connect (", "edge_rnn/service/mqtt.py"),
        ("payload refused: ", "edge_rnn/service/pipeline.py"),
        ("blind", "edge_rnn/service/health.py"),
        ("unrouted", "edge_rnn/service/health.py"),
        ("does it speak MQTT 5?", "edge_rnn/service/mqtt.py"),
        ("its certificate is not trusted", "edge_rnn/service/mqtt.py"),
        ("another client with the id ", "edge_rnn/service/mqtt.py"),
        ("the broker hung up on TLS (", "edge_rnn/service/mqtt.py"),
        ("connected, but nothing has arrived for ", "edge_rnn/service/blind.py"),
        ("this is a model file; expected a configuration (.toml) that names it", "edge_rnn/files/config.py"),
        ("this model has no detector section", "edge_rnn/files/config.py"),
        ("is bidirectional: its second direction reads the sequence from its", "edge_rnn/training/parts.py"),
        ("the samples cannot tell ", "edge_rnn/training/export.py"),
        ("starts cold", "edge_rnn/service/pipeline.py"),
        ("non-finite", "edge_rnn/detect/verdict.py"),
    ],
)
def test_the_log_lines_quoted_are_written_somewhere(quoted: str, file: str) -> None:
    assert quoted in README
    assert quoted in (need.ROOT / file).read_text("utf-8")


def test_the_example_of_the_demo_names_what_the_demo_prints() -> None:
    from edge_rnn.commands.demo import closing_lines
    from edge_rnn.demo.ledger import Ledger
    from edge_rnn.demo.pumps import plan_faults, pump_names

    book = Ledger(plan_faults(pump_names(4), 30, 1))
    shown = next(text for text in of_kind("text") if "injected" in text)
    for line in closing_lines(book.summary(30)):
        assert re.split(r"  +", line.strip())[0] in shown


def test_the_commands_run_from_a_shell(folder: Path) -> None:
    """One of them as a process, by the entry point's own name."""
    program = Path(sys.executable).with_name("edge-rnn")
    if not program.exists():
        pytest.skip("edge-rnn is not installed beside this interpreter")
    done = subprocess.run(
        [program, "inspect", MODEL, "--json"], capture_output=True, text=True, check=False, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    assert '"vibration"' in done.stdout
