"""Libraries for tests: built once, and described anew for other models, as the code is the same for all."""

from __future__ import annotations

import contextlib
import functools
import io
import tempfile
from pathlib import Path
from unittest import mock

import msgspec

from edge_rnn import cli
from edge_rnn.aot import build
from edge_rnn.core.digest import weights_digest
from edge_rnn.core.entries import Entry
from edge_rnn.core.layout import StateLayout
from edge_rnn.core.library import DESCRIPTION, LIBRARY, Description, Fits
from edge_rnn.core.model import Model
from edge_rnn.detect.plan import plan_of
from tests.support.need import ROOT

PUMP = ROOT / "edge_rnn" / "demo" / "pump.safetensors"


_FOLDER = tempfile.TemporaryDirectory(prefix="edge-rnn-library-")


@functools.cache
def built(target: str = "native", *entries: Entry) -> tuple[Path, str]:
    """The folder of a library for the demo's model, built by the command once for all tests; what it said.

    Args:
        entries: all that is compiled, for a test that needs no more; default: everything.
    """
    folder, said = Path(_FOLDER.name) / "-".join([target, *(e.name for e in entries)]) / "pump", io.StringIO()
    some = mock.patch.object(build, "ENTRIES", entries or build.ENTRIES)
    with contextlib.redirect_stdout(said), some:
        assert cli.main(["build", str(PUMP), "--target", target, "-o", str(folder), "--json"]) == 0
    return folder, said.getvalue()


def edited(library: Path, folder: Path, **changes: object) -> Path:
    """A copy of a library whose description says something else."""
    folder.mkdir(parents=True, exist_ok=True)
    description = msgspec.json.decode((library / DESCRIPTION).read_bytes(), type=Description)
    (folder / DESCRIPTION).write_bytes(msgspec.json.encode(msgspec.structs.replace(description, **changes)))
    (folder / LIBRARY).write_bytes((library / LIBRARY).read_bytes())
    return folder


def described_for(library: Path, model: Model, folder: Path) -> Path:
    """The library as a build for `model` would have described it."""
    detector = None if model.detector is None else plan_of(model).layout_digest
    fits = Fits(model.name, weights_digest(model), StateLayout(model).digest, detector)
    return edited(library, folder, model=fits)
