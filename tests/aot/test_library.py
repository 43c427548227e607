"""A library that does not fit is refused by name, before any of its code runs."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_rnn import Detector, Stepper, load
from edge_rnn.core.library import (
    DESCRIPTION,
    LIBRARY,
    Library,
    cpu_features,
    decode_description,
    read_description,
)
from edge_rnn.errors import LibraryError
from tests.aot.libraries import PUMP, described_for, edited
from tests.core.zoo import model as network
from tests.detect import models
from tests.support.need import ROOT


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"machine": "riscv64"}, "is for native (riscv64), this process is"),
        ({"features": ["avx2", "time-travel"]}, "this CPU has no time-travel; build it for another target"),
        ({"object_header": 32}, "was built for another build of Python"),
        ({"sources": "0" * 64}, "was built from other sources (edge-rnn 0.1.0); build it again"),
        ({"size": 5}, "is damaged"),
        ({"sha256": "0" * 64}, "is damaged: the checksum"),
    ],
)
def test_what_does_not_fit_this_process_is_named(changes, said, library, tmp_path) -> None:
    if "features" in changes and "avx2" not in cpu_features():
        changes = {"features": ["time-travel"]}
    with pytest.raises(LibraryError) as caught:
        Library(edited(library, tmp_path / "library", **changes))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_model_is_refused(library, tmp_path) -> None:
    with pytest.raises(LibraryError, match="was built for other weights"):
        Stepper(network(), library=library)
    bare = network()
    opened = described_for(library, bare, tmp_path / "bare")
    assert Stepper(bare, library=opened).step([0.0] * 3).shape == (2,)
    wide, narrow = models.model(3, cell="lstm"), models.model(3, cell="lstm", hidden=6)
    with pytest.raises(LibraryError, match="was built for other weights"):
        Detector(narrow, library=described_for(library, wide, tmp_path / "wide"))
    two = models.model(3, models.spec(3, scorers=(models.scorer(3), models.scorer(3, seed=1))))
    with pytest.raises(LibraryError, match="was built for another layout of the detector"):
        Detector(models.model(3), library=described_for(library, two, tmp_path / "two"))
    described = read_description(library)
    fits = json.loads((library / DESCRIPTION).read_text())["model"]
    assert fits["weights"] == described.model.weights
    without = edited(
        library, tmp_path / "without", model=type(described.model)(**(fits | {"detector": None}))
    )
    with pytest.raises(LibraryError, match="for a model without detector"):
        Detector(load(PUMP), library=without)


def test_class_and_width_are_the_librarys(library) -> None:
    model = load(PUMP)
    opened = Library(library)
    other = "U" if opened.numeric == "F" else "F"
    with pytest.raises(ValueError, match="numeric: the library is class"):
        Stepper(model, other, library=opened)
    with pytest.raises(ValueError, match="lanes: the library has"):
        Stepper(model, lanes=4, library=opened)
    with pytest.raises(ValueError, match='expected "auto", "F" or "U"'):
        Stepper(model, "X", library=opened)
    assert Stepper(model, opened.numeric, opened.lanes, library=opened).lanes == opened.lanes
    assert repr(opened).startswith("<Library for 'pump': native, class ")


def test_what_is_no_library_is_refused(library, tmp_path) -> None:
    with pytest.raises(LibraryError, match="cannot be read: No such file"):
        Library(tmp_path / "nowhere")
    (tmp_path / DESCRIPTION).write_text("{}")
    with pytest.raises(LibraryError, match="not the description of a library"):
        Library(tmp_path)
    newer = json.loads((library / DESCRIPTION).read_text()) | {"version": 2}
    (tmp_path / DESCRIPTION).write_text(json.dumps(newer))
    with pytest.raises(LibraryError, match="version 2, expected 1; build it again"):
        Library(tmp_path)
    os.truncate(tmp_path / DESCRIPTION, 0)
    with pytest.raises(LibraryError, match="not the description"):
        Library(tmp_path)
    with (tmp_path / DESCRIPTION).open("wb") as file:
        file.truncate(2 << 20)
    with pytest.raises(LibraryError, match="more than 1048576 bytes"):
        Library(tmp_path)
    folder = edited(library, tmp_path / "no-file")
    (folder / LIBRARY).unlink()
    with pytest.raises(LibraryError, match="cannot be read"):
        Library(folder)


def test_a_library_that_is_built_again_at_the_same_place_is_the_new_one(library, tmp_path) -> None:
    def code(of: Library) -> int | None:
        return ctypes.cast(of._handle["edge_rnn_drive"], ctypes.c_void_p).value

    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    place, files = tmp_path / "library", descriptors()
    first = Library(edited(library, place))
    longer = (library / LIBRARY).read_bytes() + b"\0"
    changed = {"size": len(longer), "sha256": hashlib.sha256(longer).hexdigest()}
    shutil.rmtree(place)
    (edited(library, place, **changed) / LIBRARY).write_bytes(longer)
    second = Library(place)
    assert code(first) != code(second)
    assert Stepper(load(PUMP), library=first).run(np.ones((3, 3))).tobytes() == (
        Stepper(load(PUMP), library=second).run(np.ones((3, 3))).tobytes()
    )
    # Loaded once more it is the same; nothing is opened again.
    assert code(Library(place)) == code(second)
    assert descriptors() == files + 2
    # Written over in place it is still that file to the loader. (The last byte is of no use; to write over
    # more, or to cut the file short, ends processes that have it, as with any library.)
    with (place / LIBRARY).open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\1")
    changed["sha256"] = hashlib.sha256((place / LIBRARY).read_bytes()).hexdigest()
    (place / DESCRIPTION).write_bytes(
        (edited(place, tmp_path / "copy", **changed) / DESCRIPTION).read_bytes()
    )
    with pytest.raises(LibraryError, match="was overwritten while in use; build it again"):
        Library(place)
    assert descriptors() == files + 2


@pytest.mark.parametrize("when", ["before it is opened", "after it was read"])
def test_a_file_that_is_replaced_meanwhile_is_not_the_one_that_runs(
    when, library, tmp_path, monkeypatch
) -> None:
    place, usual = edited(library, tmp_path / "library") / LIBRARY, os.fstat
    (tmp_path / "other").write_bytes(b"no library")

    def replace(*given: int) -> os.stat_result:
        (tmp_path / "other").replace(place)
        return usual(*given)

    if when == "before it is opened":
        replace(0)
        with pytest.raises(LibraryError, match=r"is damaged: .* has 10 bytes"):
            Library(place.parent)
        return
    monkeypatch.setattr(os, "fstat", replace)
    opened = Library(place.parent)
    monkeypatch.undo()
    assert place.read_bytes() == b"no library"
    assert Stepper(load(PUMP), library=opened).step(np.zeros(3)).shape == (3,)


def test_what_is_no_code_of_this_machine_is_refused_by_the_loader(library, tmp_path) -> None:
    """A description can be wrong; then the system's loader has the last word."""
    content = bytearray((library / LIBRARY).read_bytes())
    content[18:20] = (0xB7 if content[18] != 0xB7 else 0x3E).to_bytes(2, "little")  # ELF's e_machine
    for name, wrong in (("machine", bytes(content)), ("text", b"hello")):
        changed = {"size": len(wrong), "sha256": hashlib.sha256(wrong).hexdigest()}
        folder = edited(library, tmp_path / name, **changed)
        (folder / LIBRARY).unlink()
        (folder / LIBRARY).write_bytes(wrong)
        with pytest.raises(LibraryError, match="cannot be loaded: ") as caught:
            Library(folder)
        assert "\n" not in str(caught.value)


def test_damaged_descriptions_raise_only_what_is_promised(library, tmp_path) -> None:
    good = (library / DESCRIPTION).read_bytes()
    source = random.Random(7)
    refused, lines = 0, set()
    words = [b"null", b"-1", b"[]", b"{}", b'""', b"1e999", b"\xff", b'"\\ud800"', b"[" * 2000]
    for _ in range(20_000):
        data = bytearray(good)
        for _ in range(source.randint(1, 4)):
            at = source.randrange(len(data))
            if source.random() < 0.3:
                data[at : at + source.randrange(8)] = source.choice(words)
            elif source.random() < 0.5:
                data[at] = source.randrange(256)
            else:
                del data[at : at + source.randrange(1, 40)]
        try:
            decode_description(bytes(data), tmp_path)
        except LibraryError as error:
            refused += 1
            lines.add(str(error).count("\n"))
    assert refused > 5000
    assert lines == {0}


def test_features_come_from_cpuinfo_or_from_the_kernels_numbers(tmp_path) -> None:
    assert cpu_features(tmp_path) == frozenset()
    folder = tmp_path / "sys" / "devices" / "system" / "cpu"
    folder.mkdir(parents=True)
    (folder / "modalias").write_text("cpu:type:x86,ven0002fam0019mod0011:feature:,0000,008C,0125,0131\n")
    assert cpu_features(tmp_path) == {"fma", "avx2", "avx512dq"}
    (folder / "modalias").write_text("cpu:type:aarch64:feature:,0000,0001,0008\n")
    assert cpu_features(tmp_path) == {"fp", "asimd", "atomics"}
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text("flags\t\t: fma avx2\n\nflags\t\t: fma\n")
    assert cpu_features(tmp_path) == {"fma"}
    real = Path("/sys/devices/system/cpu/modalias")
    if real.exists() and cpu_features():
        (tmp_path / "proc" / "cpuinfo").unlink()
        (folder / "modalias").write_text(real.read_text())
        numbers = cpu_features(tmp_path)
        assert numbers
        assert numbers <= cpu_features()


SCORE = """
import sys
import numpy as np
from edge_rnn import Detector, Stepper, load
from edge_rnn.service import daemon
model = load(sys.argv[1])
detector = Detector(model, library=sys.argv[2])
xs = np.linspace(-1, 1, 300).reshape(-1, model.input_size)
verdicts = detector.run(np.arange(len(xs)) * 10**8, xs)
Stepper(model, library=sys.argv[2]).step(xs[0])
print(verdicts.tobytes().hex())
heavy = {"numba", "llvmlite", "torch", "rich", "matplotlib", "safetensors", "unittest", "multiprocessing"}
heavy &= {name.split(".")[0] for name in sys.modules}
assert not heavy, heavy
"""


def run(script: str, library: Path, **more: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(PUMP), str(library)],
        capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ | more, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_neither_numba_nor_llvm_is_imported(library) -> None:
    assert len(run(SCORE, library)) > 1000


# No page that was ever writable can be made executable after this, as under systemd's MemoryDenyWriteExecute.
DENY = """
import ctypes, mmap
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
PR_SET_MDWE, REFUSE_EXEC_GAIN = 65, 1
if libc.prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0) != 0:
    print("no MDWE")
    raise SystemExit(0)
page = libc.mmap(None, 4096, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
assert libc.mprotect(ctypes.c_void_p(page), 4096, mmap.PROT_READ | mmap.PROT_EXEC) != 0
"""


def test_it_works_where_no_memory_may_become_executable(library) -> None:
    guarded = run(DENY + SCORE, library)
    if guarded.strip() == "no MDWE":
        pytest.skip("this kernel has no PR_SET_MDWE (Linux 6.3)")
    assert guarded == run(SCORE, library)
