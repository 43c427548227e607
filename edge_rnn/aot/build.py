"""`build`: emit, link, describe; a folder that appears whole or not at all."""

from __future__ import annotations

import hashlib
import platform
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

import msgspec

from edge_rnn import __version__
from edge_rnn.aot.emit import emit
from edge_rnn.aot.entries import ENTRIES, symbol
from edge_rnn.aot.link import link, undefined_symbols
from edge_rnn.aot.targets import Target, target_named
from edge_rnn.aot.wrappers import PYTHON
from edge_rnn.core.digest import weights_digest
from edge_rnn.core.layout import StateLayout
from edge_rnn.core.library import DESCRIPTION, LIBRARY, VERSION, Description, Fits, Library, sources_digest
from edge_rnn.core.model import Model
from edge_rnn.detect.plan import plan_of
from edge_rnn.errors import LibraryError

# What a library may expect from the process: the C library's memory functions, and for the threshold dspot
# libm's.
ALLOWED: Final = frozenset({"memcpy", "memmove", "memset", "pow", "log"})


@dataclass(frozen=True, slots=True)
class Built:
    """A library that was built: where, for what, its description, and whether it was tried on this
    machine."""

    folder: Path
    target: Target
    description: Description
    tried: bool


def build(
    model: Model,
    folder: Path,
    target: str = "native",
    progress: Callable[[str], None] = lambda _: None,
    *,
    tried: Callable[[Library], None] | None = None,
) -> Built:
    """Compile the functions that step and judge `model` for `target` into `folder`.

    Args:
        folder: made; a library that an earlier build wrote there is replaced.
        target: one of `targets.NAMES`.
        progress: called with what is done next.
        tried: called with the loaded library before the folder appears, where this machine can run it.

    Raises:
        LibraryError: no such target, no linker, a folder that is in use or cannot be written; or what `tried`
            raises. The folder is then as it was.
    """
    chosen = target_named(target)
    _check_place(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise _unwritable(folder, error) from None
    try:
        progress(f"compiling for {chosen.name} ({chosen.lanes} lanes, class {'F' if chosen.fused else 'U'})")
        emit(chosen, work / "code.o", ENTRIES)
        code = (work / "code.o").read_bytes()
        imports = sorted(set(undefined_symbols(code)) - set(PYTHON))
        if strange := sorted(set(imports) - ALLOWED):
            raise LibraryError(f"build: the code would need {', '.join(strange)} at run time; report this")
        progress("linking")
        linker = link(chosen, work / "code.o", work / LIBRARY)
        (work / "code.o").unlink()
        description = _describe(model, chosen, (work / LIBRARY).read_bytes(), imports, linker)
        text = msgspec.json.format(msgspec.json.encode(description), indent=1)
        (work / DESCRIPTION).write_bytes(text + b"\n")
        work.chmod(0o755)
        if chosen.runs_here:
            progress("trying it")
            library = Library(work)
            library.check(model)
            if tried is not None:
                tried(library)
        _move(work, folder)
    except OSError as error:
        raise _unwritable(folder, error) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Built(folder, chosen, description, chosen.runs_here and tried is not None)


def _unwritable(folder: Path, error: OSError) -> LibraryError:
    return LibraryError(f"-o {folder}: cannot be written: {error.strerror or error}")


def _check_place(folder: Path) -> None:
    """Only nothing, an empty folder, or a library may be replaced."""
    if not folder.exists() and not folder.is_symlink():
        return
    try:
        there = {file.name for file in folder.iterdir()}
    except OSError as error:
        raise _unwritable(folder, error) from None
    if there and not {DESCRIPTION, LIBRARY} >= there:
        raise LibraryError(f"-o {folder}: holds other files; give a new folder, or one that a build wrote")


def _move(work: Path, folder: Path) -> None:
    if not folder.exists():
        work.rename(folder)
        return
    # Only an empty folder can be renamed over: the old library steps aside first.
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        folder.rename(old / "old")
        try:
            work.rename(folder)
        except OSError:
            with suppress(OSError):
                (old / "old").rename(folder)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _describe(model: Model, target: Target, library: bytes, imports: list[str], linker: str) -> Description:
    versions = {"edge-rnn": __version__, "python": platform.python_version(), "linker": linker}
    for package in ("llvmlite", "numba", "numpy"):
        versions[package] = metadata.version(package)
    return Description(
        format="edge-rnn library",
        version=VERSION,
        target=target.name,
        machine=target.machine,
        cpu=target.cpu,
        features=list(target.needs),
        lanes=target.lanes,  # type: ignore[arg-type]
        numeric="F" if target.fused else "U",
        object_header=object.__basicsize__,
        model=Fits(
            name=model.name,
            weights=weights_digest(model),
            layout=StateLayout(model).digest,
            detector=None if model.detector is None else plan_of(model).layout_digest,
        ),
        sources=sources_digest(),
        versions=versions,
        symbols={entry.name: symbol(entry.name) for entry in ENTRIES},
        imports=imports,
        size=len(library),
        sha256=hashlib.sha256(library).hexdigest(),
    )
