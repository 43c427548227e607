"""The command `edge-rnn`: find the verb, import its room, run it, turn errors into one line.

A verb is a module of `edge_rnn.commands` with

    add_arguments(parser)   its options
    run(args) -> int        the work; the returned number is the exit code

and is imported only when it is called, so that `edge-rnn run` never loads what `edge-rnn train` needs.
Exit codes: 0 done, 2 wrong usage, 74 a file or disk that fails, 78 configuration or model, 130 Ctrl-C, others
as in `edge_rnn.errors`.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module

from edge_rnn import __version__
from edge_rnn.errors import EdgeRnnError, printable

_BLAS_THREADS = "OPENBLAS_NUM_THREADS"
_IO_ERROR = 74

VERBS = {
    "demo": "the whole daemon on an embedded broker with simulated pumps, in under a minute",
    "run": "run the daemon: MQTT readings in, scores and alarms out",
    "init": "listen to a broker for a while and propose a configuration",
    "doctor": "measure broker, clocks and disk for a configuration, and say what to change",
    "check": "validate a configuration or a model file and list every problem",
    "replay": "run recorded data through the same engine, faster than real time",
    "evaluate": "judge a detector against labels, beside rules that need none",
    "calibrate": "fit thresholds and scaling to recorded readings, without torch",
    "inspect": "print a model's card, or draw its gates over time",
    "convert": "turn a PyTorch state_dict (.pt, .safetensors) into a model file, without torch",
    "export": "write a model as C99 for a microcontroller, with the same bits",
    "build": "compile a model's functions ahead of time, into a library for this or another CPU",
    "tail": "all streams of a running daemon, live, sorted by what needs a person first",
    "events": "the history of alarms and faults, from the daemon's database",
    "bench": "measure latency, jitter, throughput and start on this machine, and check its bits",
    "train": "train a detector from CSV files (needs the extra 'train')",
}


def _overview() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {text}" for verb, text in VERBS.items()]
    return "\n".join(
        [
            "usage: edge-rnn VERB [options]",
            "",
            "Recurrent anomaly detection on live sensor data, on the device itself.",
            "",
            "verbs:",
            *lines,
            "",
            "edge-rnn VERB --help explains one verb; edge-rnn --version prints the version.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; never lets a traceback reach a user for bad input."""
    try:
        try:
            return _run(list(sys.argv[1:] if argv is None else argv))
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader of a pipe (head, less) has gone; the interpreter would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        # Also while a verb's room is being imported, which takes longest.
        return 130


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """NumPy's matrix library starts a thread for each further core when it is loaded, each of which first
    spins: half the cost of the import. A daemon multiplies no matrices; the programs it starts may.
    """
    chosen = os.environ.get(_BLAS_THREADS)
    os.environ.setdefault(_BLAS_THREADS, "1")
    try:
        yield
    finally:
        if chosen is None:
            os.environ.pop(_BLAS_THREADS, None)


def _meant(word: str) -> str:
    import difflib

    near = difflib.get_close_matches(word[:64], VERBS, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _run(words: list[str]) -> int:
    if words[:1] in (["--version"], ["-V"]):
        sys.stdout.write(f"edge-rnn {__version__}\n")
        return 0
    if words[:1] in (["--help"], ["-h"], ["help"]):
        sys.stdout.write(_overview() + "\n")
        return 0
    if not words or words[0] not in VERBS:
        got = f"unknown verb {words[0]!r}{_meant(words[0])}" if words else "no verb given"
        sys.stderr.write(f"edge-rnn: {got}\n\n{_overview()}\n")
        return 2
    verb = words[0]
    if verb == "run":
        # The request to read the configuration again, which has not been read yet; unhandled, it is an end.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with _one_blas_thread():
            command = import_module("edge_rnn.commands.run")
    else:
        command = import_module(f"edge_rnn.commands.{verb}")
    parser = argparse.ArgumentParser(
        prog=f"edge-rnn {verb}",
        description=VERBS[verb][0].upper() + VERBS[verb][1:] + ".",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    try:
        code: int = command.run(parser.parse_args(words[1:]))
    except EdgeRnnError as error:
        sys.stderr.write(f"edge-rnn {verb}: {error}\n")
        return error.exit_code
    except BrokenPipeError:
        raise
    except OSError as error:
        # A full disk, a name that is too long: nobody's bug, wherever it is met.
        where = f"{printable(str(error.filename))}: " if error.filename is not None else ""
        sys.stderr.write(f"edge-rnn {verb}: {where}{error.strerror or error}\n")
        return _IO_ERROR
    return code
