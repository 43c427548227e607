"""The demo as users run it: a process, with and without a terminal, to the end and stopped on the way."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_rnn.commands.demo import closing_lines
from edge_rnn.core.model import Input
from edge_rnn.demo import session
from edge_rnn.demo.ledger import Ledger
from edge_rnn.demo.pumps import CHANNELS, PERIOD_NS, plan_faults, pump_names
from edge_rnn.errors import EdgeRnnError
from edge_rnn.files.config import channel_order, parse_config
from edge_rnn.files.load import load
from tests.support import need

MODEL = need.ROOT / "edge_rnn" / "demo" / session.MODEL


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the demo's temporary folder is made."""
    need.module("amqtt")
    return tmp_path


def start(folder: Path, *options: str, **how: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "edge_rnn", "demo", *options],
        text=True, env={**os.environ, "TMPDIR": str(folder)}, **how,
    )  # fmt: skip


def daemons_of(folder: Path) -> list[int]:
    """Processes that run a configuration inside `folder`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:
            continue
        if "run" in words and any(word.startswith(str(folder)) for word in words):
            found.append(int(entry.parent.name))
    return found


def wait_for_daemon(folder: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not daemons_of(folder):
        assert process.poll() is None, "the demo ended before its daemon was there"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_without_a_terminal_it_finds_every_fault_and_loses_nothing(folder: Path) -> None:
    process = start(
        folder, "--json", "--seconds", "20", "--seed", "3", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = process.communicate(timeout=150)
    assert process.returncode == 0, err
    said = json.loads(out)
    assert said["passed"] is True
    assert said["readings"]["sent"] > 4000
    assert said["readings"]["scored"] == said["readings"]["sent"]
    assert said["readings"]["lost"] == 0
    assert said["injected"] == said["found"] == 4
    assert {fault["kind"]: fault["event"] for fault in said["faults"]}.items() >= {
        ("spike", "anomaly"), ("drift", "anomaly"), ("silent", "silent"),
    }  # fmt: skip
    assert said["false_alarms"] == 0
    assert 0 < said["latency_ms"]["p50"] <= said["latency_ms"]["p99"]
    assert all(line.startswith("demo: ") for line in err.splitlines())
    assert list(folder.iterdir()) == []
    assert daemons_of(folder) == []


def test_the_daemon_is_of_this_package_whatever_lies_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoy = tmp_path / "here" / "edge_rnn"
    decoy.mkdir(parents=True)
    for name in ("__init__.py", "__main__.py"):
        (decoy / name).write_text("raise SystemExit('the decoy ran')\n")
    monkeypatch.chdir(decoy.parent)
    config, log = tmp_path / "wrong.toml", tmp_path / "daemon.log"
    config.write_text("nonsense = 1\n")
    with session.DaemonProcess(config, log) as daemon:
        daemon.wait(60)
    assert "nonsense: unknown" in log.read_text()
    assert sorted(path.name for path in decoy.iterdir()) == ["__init__.py", "__main__.py"]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_stopped_on_the_way_it_leaves_nothing_behind(folder: Path, number: int, code: int) -> None:
    process = start(folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for_daemon(folder, process)
    time.sleep(0.5)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert out == ""
    assert list(folder.iterdir()) == []
    assert daemons_of(folder) == []


@pytest.fixture
def terminal() -> Iterator[tuple[int, list[bytes]]]:
    """The far end of a terminal of 80 columns and 24 rows, and what has been written to it so far."""
    near, far = pty.openpty()
    fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    written: list[bytes] = []

    def listen() -> None:
        while True:
            try:
                got = os.read(near, 65536)
            except OSError:
                return
            written.append(got)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    yield far, written
    os.close(far)
    listener.join(10)
    os.close(near)


def test_in_a_terminal_it_draws_and_puts_the_screen_back(folder: Path, terminal, monkeypatch) -> None:
    far, written = terminal
    monkeypatch.setenv("TERM", "xterm-256color")
    process = start(folder, stdin=far, stdout=far, stderr=far)
    deadline = time.monotonic() + 90
    while b"scored" not in b"".join(written):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    time.sleep(0.2)
    shown = b"".join(written).decode("utf-8", "replace")
    assert "\x1b[?1049h" in shown, "the second screen was not opened"
    assert shown.index("\x1b[?1049h") < shown.index("pump1") < shown.rindex("\x1b[?1049l")
    assert "vibration" in shown
    assert "demo: stopped" in shown[shown.rindex("\x1b[?1049l") :]


def test_a_terminal_that_is_closed_takes_the_daemon_with_it(folder: Path, monkeypatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    near, far = pty.openpty()
    process = start(folder, stdin=far, stdout=far, stderr=far, start_new_session=True)
    os.close(far)
    wait_for_daemon(folder, process)
    time.sleep(0.5)
    os.close(near)  # writing to it fails from now on
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) != 0
    assert list(folder.iterdir()) == []
    assert daemons_of(folder) == []


def test_a_daemon_that_ends_ends_the_demo_with_its_last_words(folder: Path) -> None:
    config, log = folder / "broken.toml", folder / "daemon.log"
    config.write_text("[mqtt]\nport = 'high'\n")
    with session.DaemonProcess(config, log) as daemon:
        daemon.wait(60)
        with pytest.raises(EdgeRnnError, match=r"the demo's daemon ended with exit code 78: .*broken\.toml"):
            daemon.check()


def test_its_configuration_is_valid_and_fits_the_bundled_model() -> None:
    config = parse_config(session.configuration(1234, MODEL), "demo.toml", {})
    assert (config.mqtt.host, config.mqtt.port, config.mqtt.protocol) == ("127.0.0.1", 1234, "3.1.1")
    model = load(MODEL)
    assert model.inputs == CHANNELS
    assert channel_order(config.streams[0], [channel.name for channel in model.inputs]) == (0, 1, 2)
    assert all(isinstance(channel, Input) and channel.unit for channel in model.inputs)


def test_the_closing_lines_name_what_was_not_found() -> None:
    faults = plan_faults(pump_names(4), 30, 0)
    book = Ledger(faults)
    book.begin(0)
    book.add_sent("pump1", PERIOD_NS)
    lines = closing_lines(book.summary(30.0))
    assert lines[0] == "readings      3 sent, 0 scored, 3 lost"
    assert lines[1] == "faults        4 injected, 0 found"
    assert sum("NOT FOUND" in line for line in lines) == 4
    assert lines[-1].startswith("result        FAILED")
