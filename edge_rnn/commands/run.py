"""`edge-rnn run CONFIG.toml`: the daemon in the foreground, for a service manager or a terminal.

SIGTERM and SIGINT end it in order (exit code 0), SIGHUP reloads the configuration. A broker that is down is a
log line, not an end. Exit codes: 78 configuration or model, 77 credentials refused, 74 database.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading
from types import FrameType

from edge_rnn.files.config import load_config
from edge_rnn.files.config_hints import mixed_senders
from edge_rnn.service.daemon import Daemon
from edge_rnn.service.logs import Log


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `edge-rnn run`."""
    parser.add_argument("config", metavar="CONFIG.toml", help="the configuration file")
    parser.epilog = (
        "SIGTERM stops in order, SIGHUP reloads the configuration.\n"
        "Exit codes: 0 stopped, 78 configuration or model, 77 credentials refused, 74 database."
    )


def run(args: argparse.Namespace) -> int:
    """Run until a signal says stop; 0."""
    # Before anything takes time: until it is handled, SIGHUP ends a process.
    early = threading.Event()
    signal.signal(signal.SIGHUP, lambda _number, _frame: early.set())
    config = load_config(args.config)
    for line in mixed_senders(config):
        Log(config.log.level, config.log.format).warning("config", line)
    daemon = Daemon(config, reread=lambda: load_config(args.config))
    warm = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        if not warm.is_set():
            # Compiling may take a while, and nothing has been read or promised yet. Not SystemExit: raised in
            # one of the compiler's callbacks it is printed and forgotten.
            os._exit(0)
        daemon.stop()

    def reload(_number: int, _frame: FrameType | None) -> None:
        daemon.reload()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGHUP, reload)
    if early.is_set():
        daemon.reload()
    daemon.run(started=warm.set)
    return 0
