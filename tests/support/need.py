"""Optional parts a test needs: give the part, or skip with the reason.

    torch = need.torch()
    mosquitto = need.program("mosquitto")

A skipped test is a promise nobody checks, so where everything is expected to be installed (CI sets
EDGE_RNN_REQUIRE_ALL=1) an absent part fails the test instead. Public data alone only ever skips: it is
not ours to ship. Its folder is EDGE_RNN_DATA, else `shared/data` beside the checkout.
"""

from __future__ import annotations

import os
import shutil
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Debian keeps servers where an ordinary user's PATH does not look.
_SERVER_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def _absent(reason: str) -> NoReturn:
    if os.environ.get("EDGE_RNN_REQUIRE_ALL") == "1":
        pytest.fail(f"{reason}; EDGE_RNN_REQUIRE_ALL=1 allows no skip", pytrace=False)
    pytest.skip(reason)


def module(name: str) -> ModuleType:
    """The imported module `name`, whole dotted path; only its absence skips, its own faults do not."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name + ".").startswith(error.name + "."):
            raise
        _absent(f"needs the Python module {name}, which is not installed")


def torch() -> ModuleType:
    """PyTorch on one thread: small networks gain nothing by more, which wait for each other."""
    found = module("torch")
    found.set_num_threads(1)
    return found


def program(name: str) -> str:
    """The full path of an executable, also looked for where Debian puts servers."""
    folders = os.pathsep.join([os.environ.get("PATH", os.defpath), *_SERVER_FOLDERS])
    found = shutil.which(name, path=folders)
    if found is None:
        _absent(f"needs the program {name}, which is not installed")
    return found


def data(name: str) -> Path:
    """The folder of a public data set, such as "skab" or "nab"."""
    given = os.environ.get("EDGE_RNN_DATA")
    base = Path(given) if given else ROOT.parent / "shared" / "data"
    folder = base / name
    if not folder.is_dir():
        pytest.skip(f"needs the public data set {name}: set EDGE_RNN_DATA to the folder that holds it")
    return folder
