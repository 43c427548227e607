"""`edge-rnn run`: what its signals do before the daemon is warm; the rest is in `tests/service/`."""

from __future__ import annotations

import argparse
import subprocess
import sys
import types
from pathlib import Path

import pytest

from edge_rnn.commands import run
from tests.support.daemon import write_config

SIGNAL_IN_A_CALLBACK = """
import argparse, ctypes, os, signal, sys
from edge_rnn.commands import run

class StillCompiling:
    def __init__(self, *arguments, **more): pass
    def run(self, started):
        ctypes.CFUNCTYPE(None)(lambda: os.kill(os.getpid(), signal.SIGTERM))()
        print("the signal was lost")

run.Daemon = StillCompiling
run.run(argparse.Namespace(config=sys.argv[1]))
"""


def test_a_stop_inside_one_of_the_compilers_callbacks_is_not_lost(tmp_path) -> None:
    """An exception out of a C callback is printed and forgotten: the daemon would go on as if never told."""
    config = write_config(tmp_path, 1)
    ended = subprocess.run(
        [sys.executable, "-c", SIGNAL_IN_A_CALLBACK, str(config)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.parametrize(("topic", "warned"), [("plant/{machine}/all", 0), ("plant/+/all", 1)])
def test_a_stream_that_mixes_senders_is_said_once(
    topic: str,
    warned: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ended = types.SimpleNamespace(run=lambda started: None)
    monkeypatch.setattr(run, "Daemon", lambda *_arguments, **_more: ended)
    monkeypatch.setattr(run.signal, "signal", lambda *_arguments: None)
    config = write_config(tmp_path, 1, topic=topic)
    assert run.run(argparse.Namespace(config=str(config))) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == warned
    assert all("all senders of 'plant/+/all' are one stream" in line for line in lines)
