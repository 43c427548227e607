"""What a compiled pass is kept under names every file whose functions or numbers are in it."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from types import ModuleType

import pytest

from edge_rnn.service.wire import decimals, scan, scores
from edge_rnn.stream import columns_loop
from tests.support import need

# In every key by itself: see `jit.source_digest`.
ALWAYS = {"edge_rnn/core/jit.py"}


def imported(file: Path) -> set[str]:
    """The package's files that a file imports at its top."""
    found = set()
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("edge_rnn"):
            for name in node.names:
                inner = need.ROOT / f"{node.module}.{name.name}".replace(".", "/")
                whole = need.ROOT / node.module.replace(".", "/")
                taken = inner if inner.with_suffix(".py").exists() else whole
                found.add(taken.with_suffix(".py").relative_to(need.ROOT).as_posix())
    return found - ALWAYS


@pytest.mark.parametrize("module", [scan, scores, columns_loop], ids=lambda m: m.__name__)
def test_every_file_of_a_pass_is_in_its_key(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> None:
    named: set[str] = set()

    def digest(*files: str) -> str:
        named.update(Path(file).relative_to(need.ROOT).as_posix() for file in files)
        return ""

    monkeypatch.setattr(module, "source_digest", digest)
    for name in ("scanner", "writer", "take"):
        if hasattr(module, name):
            inspect.unwrap(getattr(module, name))()
    wanted = imported(Path(str(module.__file__)))
    if "edge_rnn/service/wire/decimals.py" in wanted:
        wanted |= imported(Path(str(decimals.__file__)))
    assert len(wanted) >= 4
    assert wanted <= named
