"""The notify protocol, and the sample unit."""

from __future__ import annotations

import os
import socket
import subprocess
from importlib import resources
from pathlib import Path

import pytest

from edge_rnn.service.systemd import Notifier
from tests.support import need


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    address = str(tmp_path / "notify") if request.param == "path" else f"@edge-rnn-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + address[1:] if address.startswith("@") else address)
        receiver.settimeout(5)
        yield address, receiver


def test_every_word_reaches_the_manager(manager) -> None:
    address, receiver = manager
    notifier = Notifier({"NOTIFY_SOCKET": address})
    notifier.ready("2 streams\nREADY=0")
    assert receiver.recv(4096) == b"READY=1\nSTATUS=2 streams READY=0"
    notifier.watchdog()
    assert receiver.recv(4096) == b"WATCHDOG=1"
    notifier.reloading()
    first, second = receiver.recv(4096).split(b"\n")
    assert first == b"RELOADING=1"
    assert int(second.removeprefix(b"MONOTONIC_USEC=")) > 0
    notifier.stopping()
    assert receiver.recv(4096) == b"STOPPING=1"


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_interval_is_the_managers(environment, seconds) -> None:
    assert Notifier(environment).watchdog_s == seconds


def test_without_a_manager_or_with_a_dead_one_nothing_happens(tmp_path: Path) -> None:
    for environment in ({}, {"NOTIFY_SOCKET": str(tmp_path / "gone")}, {"NOTIFY_SOCKET": "@edge-rnn-gone"}):
        notifier = Notifier(environment)
        notifier.ready()
        notifier.watchdog()


def test_the_sample_unit_is_shipped_and_hardened(tmp_path: Path) -> None:
    unit = resources.files("edge_rnn.service").joinpath("edge-rnn.service").read_text()
    for line in (
        "Type=notify",
        "WatchdogSec=",
        "RestartPreventExitStatus=77 78",
        "Environment=NUMBA_CACHE_DIR=",
    ):
        assert line in unit
    analyze = need.program("systemd-analyze")
    file = tmp_path / "edge-rnn.service"
    # The program's path differs from machine to machine, and systemd-analyze wants one that exists.
    file.write_text(unit.replace("/usr/local/bin/edge-rnn", "/bin/true"))
    done = subprocess.run(
        [analyze, "security", "--offline=true", "--threshold=15", "--no-pager", str(file)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert "Overall exposure level" in done.stdout + done.stderr, done.stderr
    assert done.returncode == 0, done.stdout[-400:]
