"""`edge-rnn build` as a user calls it: a library, or one clear error and nothing written."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_rnn import cli, load
from edge_rnn.aot import link
from edge_rnn.aot.targets import NAMES, target_named
from edge_rnn.commands.replay_run import replay
from edge_rnn.core.library import Library
from edge_rnn.errors import LibraryError
from edge_rnn.files.config import load_config
from edge_rnn.files.readings import Table, read_table
from edge_rnn.service.pipeline_build import build as pipeline
from tests.aot import libraries
from tests.aot.libraries import PUMP, edited
from tests.support import need


@pytest.fixture(scope="module")
def built() -> tuple[Path, str]:
    """A library that the command built, and what it said."""
    return libraries.built()


def test_the_command_writes_a_library_that_was_tried(built) -> None:
    folder, said = built
    facts = json.loads(said)
    assert (facts["target"], facts["tried"], facts["model"]["name"]) == ("native", True, "pump")
    assert sorted(p.name for p in folder.iterdir()) == ["edge_rnn.json", "edge_rnn.so"]
    assert [p.name for p in folder.parent.iterdir()] == ["pump"]  # nothing half-made stays
    assert json.loads((folder / "edge_rnn.json").read_text()).items() <= facts.items()
    assert Library(folder).description.imports == facts["imports"]
    assert set(facts["imports"]) <= {"memcpy", "memmove", "memset", "pow", "log"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--target", "cortex-m4"], "--target: expected one of native, cortex-a53"),
        (["--target", "native; rm"], "--target: expected one of"),
    ],
)
def test_an_unknown_target_is_refused(words, said, tmp_path, capsys) -> None:
    assert cli.main(["build", str(PUMP), "-o", str(tmp_path / "out"), *words]) == 78
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_written_are_refused_before_anything_is_compiled(tmp_path, capsys) -> None:
    (tmp_path / "file").write_text("x")
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.tex").write_text("x")
    for place, said in ((tmp_path / "file", "cannot be written"), (full, "holds other files"),
                        (tmp_path / "file" / "below", "cannot be written")):  # fmt: skip
        assert cli.main(["build", str(PUMP), "-o", str(place)]) == 78
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert (full / "thesis.tex").read_text() == "x"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "full"]


def test_what_to_type_is_said(capsys, tmp_path) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["build", "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in NAMES)
    with pytest.raises(SystemExit) as ended:
        cli.main(["build", str(PUMP)])
    assert ended.value.code == 2
    assert cli.main(["build", str(tmp_path / "no.safetensors"), "-o", str(tmp_path / "out")]) == 78


def test_a_missing_linker_is_named_with_what_brings_one(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(link.shutil, "which", lambda name: None)
    monkeypatch.setattr(link, "find_spec", lambda name: None)
    for name, package in (("cortex-a72", "binutils-aarch64-linux-gnu"), ("x86-64-v3", "binutils")):
        with pytest.raises(LibraryError, match=rf"no linker for {name}; install Debian's {package}.*build"):
            link.link(target_named(name), tmp_path / "code.o", tmp_path / "out.so")


def test_a_linker_that_fails_is_quoted(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(link, "linkers", lambda target: [["ld"]])
    (tmp_path / "code.o").write_text("no object")
    with pytest.raises(LibraryError, match="the linker ld failed: "):
        link.link(target_named("x86-64-v3"), tmp_path / "code.o", tmp_path / "out.so")
    monkeypatch.setattr(link, "linkers", lambda target: [[str(tmp_path / "gone")]])
    with pytest.raises(LibraryError, match="cannot be run"):
        link.link(target_named("x86-64-v3"), tmp_path / "code.o", tmp_path / "out.so")


def test_without_other_linkers_the_packaged_one_is_called_for_the_target(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(link.shutil, "which", lambda _: None)
    monkeypatch.setattr(link, "find_spec", lambda name: object() if name == "ziglang" else None)
    called = tmp_path / "called"
    stub = tmp_path / "python"
    stub.write_text(f'#!/bin/sh\necho "$@" >> {called}\necho "LLD 21 (compatible with GNU linkers)"\n')
    stub.chmod(0o755)
    monkeypatch.setattr(link.sys, "executable", str(stub))
    for target, emulation in (("cortex-a72", "aarch64linux"), ("x86-64-v3", "elf_x86_64")):
        called.unlink(missing_ok=True)
        said = link.link(target_named(target), tmp_path / "code.o", tmp_path / "out.so")
        assert said == "LLD 21 (compatible with GNU linkers)"
        first, second = called.read_text().splitlines()
        assert first.startswith(f"-m ziglang ld.lld -m {emulation} -shared ")
        assert first.endswith(f" -o {tmp_path / 'out.so'} {tmp_path / 'code.o'}")
        assert second == "-m ziglang ld.lld --version"


@pytest.mark.torture
def test_the_packaged_linker_links_for_every_target(tmp_path) -> None:
    need.module("ziglang")
    from llvmlite import binding as llvm

    for name in NAMES:
        target = target_named(name)
        machine = llvm.Target.from_triple(target.triple).create_target_machine(reloc="pic")
        code = "define i64 @edge_rnn_one(i64 %a) { ret i64 %a }"
        (tmp_path / "code.o").write_bytes(machine.emit_object(llvm.parse_assembly(code)))
        command = [sys.executable, "-m", "ziglang", "ld.lld"]
        done = link._run([*command, "-m", link._EMULATION[target.machine], *link._OPTIONS, "-o",
                          str(tmp_path / "out.so"), str(tmp_path / "code.o")])  # fmt: skip
        assert not done
        assert (tmp_path / "out.so").read_bytes()[:4] == b"\x7fELF"


def recording(folder: Path) -> Table:
    file = folder / "pump.csv"
    names = [i.name for i in load(PUMP).inputs]
    rows = np.random.default_rng(3).normal(size=(500, len(names))).round(3)
    lines = [
        ",".join(["time", *names]),
        *(f"{i},{','.join(map(str, r))}" for i, r in enumerate(rows.tolist())),
    ]
    file.write_text("\n".join(lines) + "\n")
    return read_table(str(file), "time", names, None, None, min_rows=1, strict=False)


def test_replay_with_it_gives_the_same_rows(built, tmp_path, capsys) -> None:
    table = recording(tmp_path)
    model = load(PUMP)
    ours, theirs = replay(model, table, library=built[0]), replay(model, table)
    for field in ("score", "threshold", "expected", "status", "alarm", "judged"):
        assert getattr(ours, field).tobytes() == getattr(theirs, field).tobytes()
    words = ["replay", str(PUMP), str(tmp_path / "pump.csv"), "--json"]
    assert cli.main([*words, "--library", str(built[0])]) == 0
    with_library = json.loads(capsys.readouterr().out)
    assert cli.main(words) == 0
    without = json.loads(capsys.readouterr().out)
    timed = {"seconds", "samples_per_second"}
    assert {k: v for k, v in with_library.items() if k not in timed} == {
        k: v for k, v in without.items() if k not in timed
    }
    assert cli.main([*words, "--library", str(tmp_path)]) == 78
    assert "cannot be read" in capsys.readouterr().err
    assert cli.main([*words, "--library", str(built[0]), "--backend", "w8a16"]) == 65


CONFIG = """
[store]
path = "state.db"
[[stream]]
name = "pumps"
model = "{model}"
topic = "pumps/{{pump}}"
channels = [{{ name = "vibration" }}, {{ name = "temperature" }}, {{ name = "pressure" }}]
{more}
"""


def configured(folder: Path, more: str):
    file = folder / "config.toml"
    file.write_text(CONFIG.format(model=PUMP, more=more))
    return load_config(file)


def test_the_daemons_pipeline_uses_it_falls_back_or_refuses_as_told(built, tmp_path) -> None:
    there = os.path.relpath(built[0], tmp_path)
    config = configured(tmp_path, f'library = "{there}"')
    assert config.streams[0].library == tmp_path / there
    made = pipeline(config, 0)
    assert made.notes == ()
    assert isinstance(made.engine._groups["pumps"].library, Library)
    old = edited(built[0], tmp_path / "old", sources="0" * 64)
    made = pipeline(configured(tmp_path, f'library = "{old}"'), 0)
    assert made.engine._groups["pumps"].library is None
    (note,) = made.notes
    assert note.startswith('stream "pumps": compiling instead: library ')
    assert "was built from other sources" in note
    with pytest.raises(LibraryError, match=r'stream "pumps": library .* was built from other sources'):
        pipeline(configured(tmp_path, f'library = "{old}"\nlibrary_unfit = "refuse"'), 0)
    with pytest.raises(LibraryError, match="cannot be read"):
        pipeline(configured(tmp_path, 'library = "nowhere"\nlibrary_unfit = "refuse"'), 0)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('library_unfit = "refuse"', "library_unfit: expected only beside `library`"),
        ('library = "a"\nlibrary_unfit = "stop"', 'expected one of "compile", "refuse"'),
        ("library = 3", "the directory that edge-rnn build wrote"),
    ],
)
def test_wrong_keys_are_told(more, said, tmp_path) -> None:
    from edge_rnn.errors import ConfigError

    with pytest.raises(ConfigError) as caught:
        configured(tmp_path, more)
    assert said in str(caught.value)
