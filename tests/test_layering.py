"""Imports run one way, and heavy parts stay where they belong.

Read from the syntax trees, so that an import hidden in a function counts too. Imports for the type checker
alone (`if TYPE_CHECKING:`) may name any third-party part, but obey the order of the rooms all the same.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

from tests.support import need

# What each room may import from; a room may always import from itself.
BELOW = {
    "errors": set(),
    "evaluate": {"errors"},
    "core": {"errors"},
    "detect": {"errors", "core"},
    "aot": {"errors", "core", "detect"},
    "calibrate": {"errors", "core", "detect"},
    "stream": {"errors", "core", "detect"},
    "files": {"errors", "core", "detect", "stream"},
    "training": {"errors", "core", "detect", "files", "calibrate"},
    "service": {"errors", "core", "detect", "stream", "files"},
    "bench": {"errors", "core", "detect", "stream", "files", "service"},
    "demo": {"errors", "core", "detect", "stream", "files", "service", "calibrate", "training"},
    "watch": {"errors", "core", "detect", "stream", "files", "service"},
    "commands": {
        "errors", "core", "detect", "stream", "files", "service", "calibrate", "training", "bench", "demo",
        "firmware_export", "evaluate", "watch", "aot",
    },
    "cli": {"errors", "commands"},
    "firmware_export": {"errors", "core", "detect", "files"},
}  # fmt: skip
# The package itself gives these to every room; all other names of it are for users.
OF_THE_PACKAGE = {"__version__"}

# Third-party (or costly) parts: which files may import them, and whether at the file's top level.
# A name that ends in "/" is a folder, one with "*" a pattern.
PLACES: dict[str, tuple[tuple[str, ...], bool]] = {
    "numba": (("edge_rnn/core/", "edge_rnn/detect/", "edge_rnn/aot/"), True),
    "llvmlite": (("edge_rnn/core/", "edge_rnn/aot/"), True),
    "paho": (("edge_rnn/service/mqtt*.py", "edge_rnn/demo/clients.py", "edge_rnn/watch/client.py"), True),
    "torch": (("edge_rnn/training/",), True),
    "sqlite3": (("edge_rnn/service/store*",), True),
    "rich": (("edge_rnn/commands/", "edge_rnn/demo/"), False),
    "matplotlib": (("edge_rnn/commands/", "edge_rnn/demo/"), False),
    "amqtt": (("edge_rnn/demo/broker.py",), False),
    "cbor2": (("edge_rnn/service/codecs/cbor_document.py",), False),
    "google": (("edge_rnn/service/codecs/sparkplug_payload.py",), False),
}


@dataclass(frozen=True)
class Import:
    """One imported module: its dotted name, line, and whether importing the file runs it."""

    name: str
    line: int
    top: bool
    typing_only: bool


def imports_of(source: str, file: str) -> Iterator[Import]:
    """Every import of `source`; `file` is its path from the root, which relative imports start from."""
    package = PurePosixPath(file).with_suffix("").parts[:-1]

    def walk(node: ast.AST, top: bool, typing_only: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, top, typing_only)
            return
        if isinstance(node, ast.ImportFrom):
            start = list(package[: len(package) - node.level + 1]) if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            for alias in node.names:
                yield Import(f"{base}.{alias.name}", node.lineno, top, typing_only)
            return
        if isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            first = node.args[0]
            if called in ("import_module", "__import__") and isinstance(first, ast.Constant):
                yield Import(str(first.value), node.lineno, top, typing_only)
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for child in node.body:
                yield from walk(child, top, True)
            for child in node.orelse:
                yield from walk(child, top, typing_only)
            return
        for child in ast.iter_child_nodes(node):
            yield from walk(child, top and not inside, typing_only)

    yield from walk(ast.parse(source, file), True, False)


def room_of(file: str) -> str:
    """The room a file lives in: "core", "cli", ...; "" for the package's own front files."""
    parts = PurePosixPath(file).with_suffix("").parts
    if parts[0] != "edge_rnn":
        return "" if parts[1] == "__main__" else parts[0]
    return "" if parts[1] in ("__init__", "__main__") else parts[1]


def lives_in(file: str, places: tuple[str, ...]) -> bool:
    return any(
        file.startswith(place) if place.endswith("/") else PurePosixPath(file).match(place)
        for place in places
    )


def violations(source: str, file: str) -> list[str]:
    """One line for each import of `source` that breaks a rule."""
    room, found = room_of(file), []
    for one in imports_of(source, file):
        where = f"{file}:{one.line}"
        parts = one.name.split(".")
        if parts[0] in PLACES and not one.typing_only:
            places, at_top = PLACES[parts[0]]
            if not lives_in(file, places):
                found.append(f"{where}: {parts[0]} only in {', '.join(places)}")
            elif one.top and not at_top:
                found.append(f"{where}: {parts[0]} only inside functions")
        if parts[0] not in ("edge_rnn", "firmware_export") or room == "":
            continue
        target = parts[0] if parts[0] == "firmware_export" else ".".join(parts[1:2])
        if target in OF_THE_PACKAGE or target == room:
            continue
        if target not in BELOW[room]:
            found.append(f"{where}: {room} may not import {one.name}")
    return found


def sources() -> list[Path]:
    return sorted(p for top in ("edge_rnn", "firmware_export") for p in (need.ROOT / top).rglob("*.py"))


def test_every_import_obeys_the_order_of_the_rooms() -> None:
    files = [path.relative_to(need.ROOT).as_posix() for path in sources()]
    assert "edge_rnn/core/model.py" in files
    rooms = {room_of(file) for file in files} - {""}
    assert rooms <= BELOW.keys(), f"rooms without a rule: {sorted(rooms - BELOW.keys())}"
    found = [line for file in files for line in violations((need.ROOT / file).read_text("utf-8"), file)]
    assert not found, "\n".join(found)


COMPILED = {
    "edge_rnn.stream.columns_loop", "edge_rnn.service.wire.decimals", "edge_rnn.service.wire.scan",
    "edge_rnn.service.wire.scores",
}  # fmt: skip
"""What is compiled although it is in neither `core` nor `detect`."""


def module_of(file: str) -> str:
    return ".".join(PurePosixPath(file).with_suffix("").parts)


def test_compiled_code_lies_in_core_detect_and_few_files_that_are_imported_where_used() -> None:
    users = 0
    for path in sources():
        file = path.relative_to(need.ROOT).as_posix()
        module, room = module_of(file), room_of(file)
        for one in imports_of(path.read_text("utf-8"), file):
            if one.name.startswith(("edge_rnn.core.jit.inlined", "edge_rnn.core.jit.jit")):
                assert room in ("core", "detect", "aot") or module in COMPILED, f"{file}:{one.line}"
            if one.name.rsplit(".", 1)[0] in COMPILED and module not in COMPILED:
                users += 1
                assert not one.top, f"{file}:{one.line}: a daemon on a library imports no Numba"
    assert users >= 3


def test_the_order_has_no_circle() -> None:
    seen: set[str] = set()
    left = dict(BELOW)
    while left:
        free = [room for room, below in left.items() if below <= seen]
        assert free, f"rooms that import one another in a circle: {sorted(left)}"
        seen.update(free)
        for room in free:
            del left[room]


@pytest.mark.parametrize(
    ("file", "source", "said"),
    [
        ("edge_rnn/core/x.py", "from edge_rnn.detect.verdict import Verdict", "core may not import"),
        ("edge_rnn/core/x.py", "def f():\n    import edge_rnn.service.mqtt", "core may not import"),
        ("edge_rnn/core/x.py", "from edge_rnn import stream", "core may not import"),
        ("edge_rnn/core/x.py", "from ..files import load", "core may not import"),
        ("edge_rnn/core/x.py", "from edge_rnn import load", "core may not import"),
        ("edge_rnn/detect/x.py", "import_module('edge_rnn.files.load')", "detect may not import"),
        ("edge_rnn/calibrate/x.py", "from edge_rnn.training import fit", "calibrate may not import"),
        ("edge_rnn/demo/x.py", "from edge_rnn.commands import run", "demo may not import"),
        (
            "edge_rnn/stream/x.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from edge_rnn.files import load",
            "stream may not import",
        ),
        ("edge_rnn/stream/x.py", "import numba", "numba only in"),
        ("edge_rnn/service/daemon.py", "import paho.mqtt.client", "paho only in"),
        ("edge_rnn/service/daemon.py", "import sqlite3", "sqlite3 only in"),
        ("edge_rnn/commands/train.py", "import torch", "torch only in"),
        ("edge_rnn/calibrate/x.py", "def f():\n    import torch", "torch only in"),
        ("edge_rnn/commands/x.py", "import rich.table", "rich only inside functions"),
        ("edge_rnn/commands/x.py", "class A:\n    import matplotlib", "matplotlib only inside functions"),
    ],
)
def test_the_reader_of_imports_sees_a_breach(file: str, source: str, said: str) -> None:
    assert said in "\n".join(violations(source, file))


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("edge_rnn/detect/x.py", "import numba\nfrom edge_rnn.core.jit import jit"),
        ("edge_rnn/service/mqtt.py", "from paho.mqtt.client import Client\nfrom edge_rnn import __version__"),
        ("edge_rnn/service/store_schema.py", "import sqlite3"),
        ("edge_rnn/commands/x.py", "def f():\n    from rich.table import Table"),
        ("edge_rnn/training/fit.py", "import torch\nfrom edge_rnn.calibrate import calibrate"),
        ("edge_rnn/__init__.py", "from edge_rnn.files.load import load"),
        ("edge_rnn/demo/x.py", "if TYPE_CHECKING:\n    from rich.table import Table"),
    ],
)
def test_the_reader_of_imports_lets_the_rest_pass(file: str, source: str) -> None:
    assert violations(source, file) == []


def loaded_after(statement: str) -> set[str]:
    """The top-level modules a fresh interpreter holds after `statement`."""
    code = f"{statement}\nimport sys\nprint('\\n'.join(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=need.ROOT
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


# What a daemon on a small board has no use for, whose code comes from a library; and the parts of the daemon
# itself that only some configurations have.
NOT_TO_RUN = {
    "numba", "llvmlite", "torch", "rich", "matplotlib", "amqtt", "safetensors", "cbor2", "google.protobuf",
    "asyncio", "unittest", "http.server", "multiprocessing", "numpy.ma", "numpy.random", "numpy.testing",
    "numpy.polynomial", "edge_rnn.aot", "edge_rnn.bench", "edge_rnn.calibrate", "edge_rnn.demo",
    "edge_rnn.evaluate", "edge_rnn.training", "edge_rnn.watch", "edge_rnn.core.kernels", "edge_rnn.core.many",
    "edge_rnn.core.quantize", "edge_rnn.core.simd", "edge_rnn.detect.general", "edge_rnn.detect.loop",
    "edge_rnn.service.homeassistant", "edge_rnn.service.http", "edge_rnn.service.metrics",
    "edge_rnn.service.record", "edge_rnn.service.sinks", "edge_rnn.service.codecs.cbor_document",
    "edge_rnn.service.codecs.json_document", "edge_rnn.service.codecs.senml",
    "edge_rnn.service.codecs.sparkplug", "edge_rnn.service.wire.decimals", "edge_rnn.service.wire.scan",
    "edge_rnn.service.wire.scores", "edge_rnn.stream.columns_loop",
}  # fmt: skip


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import edge_rnn", {"numba", "paho", "torch", "numpy", "rich", "sqlite3"}),
        ("import edge_rnn.cli", {"numba", "paho", "torch", "numpy", "rich", "sqlite3"}),
        ("import edge_rnn.core.model", {"numba", "paho", "torch", "rich"}),
        ("from edge_rnn import load", {"numba", "paho", "torch", "rich", "sqlite3"}),
        ("from edge_rnn import Detector", {"paho", "torch", "rich", "matplotlib", "sqlite3"}),
        ("import edge_rnn.calibrate", {"paho", "torch", "rich", "matplotlib", "sqlite3"}),
        ("import edge_rnn.service.daemon", {"torch", "rich", "matplotlib", "amqtt"}),
        ("import edge_rnn.commands.run", NOT_TO_RUN),
    ],
)
def test_an_import_loads_no_part_it_does_not_need(statement: str, absent: set[str]) -> None:
    there = loaded_after(statement)
    assert "edge_rnn" in there
    assert not there & absent
