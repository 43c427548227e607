"""Compiling: at construction and never later, with a cache that cannot give wrong numbers."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import llvmlite.binding
import numba
import numpy as np
import pytest
from numba.core.registry import cpu_target

from edge_rnn import Stepper
from edge_rnn.core import jit
from tests.core.zoo import bits, model, readings

# Steps a model in a new process; says the outputs' bits, what was compiled, and the target.
SCRIPT = """
import json, sys
import numpy as np
from numba.core import event
from edge_rnn import Stepper
from edge_rnn.core import jit
from tests.core.zoo import bits, model, readings

assert jit.__file__.startswith(sys.argv[3]), "not the copy"
numeric, lanes = sys.argv[1], int(sys.argv[2]) or None
compiling = event.RecordingListener()
with event.install_listener("numba:compile", compiling):
    stepper = Stepper(model("lstm", 3, 20, 2), numeric, lanes)
    at_construction = len(compiling.buffer)
    ys = [bits(stepper.step(x)) for x in readings(5, 3)]
    later = len(compiling.buffer) - at_construction
t = jit.target()
print(json.dumps({"ys": ys, "compiled": at_construction, "later": later, "numeric": stepper.numeric,
                  "lanes": stepper.lanes, "fused": t.fused, "cpu": t.cpu,
                  "prepared": "numba.np.linalg" in sys.modules}))
"""


# The same for the least there is to compile, where only the cache matters.
LITTLE = """
import json, sys
from numba.core import event
from edge_rnn.core import jit

assert jit.__file__.startswith(sys.argv[1]), "not the copy"

def triple(number):
    return 3 * number

compiling = event.RecordingListener()
with event.install_listener("numba:compile", compiling):
    function = jit.compiled(triple, "int64(int64)", "a key")
    at_construction = len(compiling.buffer)
    answer = function(7)
    later = len(compiling.buffer) - at_construction
print(json.dumps({"answer": answer, "compiled": at_construction, "later": later}))
"""


@pytest.fixture
def package(tmp_path):
    """A copy of the package without any cache, which tests may change or lock."""
    source, folder = Path(jit.__file__).parents[1], tmp_path / "package"
    for file in source.rglob("*.py"):
        target = folder / "edge_rnn" / file.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    return folder


def new_process(package, script, *arguments, **environment):
    """Run a script with the package of this folder, with no cache but the ones given; its output."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_", "XDG_"))}
    variables["PYTHONPATH"] = os.pathsep.join([str(package), str(Path(__file__).parents[2])])
    variables["HOME"] = str(package / "home")
    variables.update(environment)
    result = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", script, *arguments],
        env=variables, capture_output=True, text=True, timeout=300, check=False, cwd=package,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert not result.stderr
    return result.stdout


def step_in_new_process(package, numeric="auto", lanes=0, **environment):
    return json.loads(new_process(package, SCRIPT, numeric, str(lanes), str(package), **environment))


def little_in_new_process(package, **environment):
    found = json.loads(new_process(package, LITTLE, str(package), **environment))
    assert (found["answer"], found["later"]) == (21, 0)
    return found["compiled"]


def expected(numeric):
    stepper = Stepper(model("lstm", 3, 20, 2), numeric)
    return [bits(stepper.step(x)) for x in readings(5, 3)]


def files(folder):
    return sorted(p.name for p in Path(folder).rglob("*.code"))


MANY = """
import numpy as np
from edge_rnn import Stepper
from tests.core.zoo import ODD_MODELS, bits, readings

for name, make in ODD_MODELS.items():
    network = make()
    xs = readings(20, network.input_size)
    variants = (("F", 16), ("F", 4), ("U", 4))
    wide, narrow, unfused = (Stepper(network, numeric, lanes).run(xs) for numeric, lanes in variants)
    assert bits(wide) == bits(narrow), name
    assert np.abs(wide - unfused).max() <= 5e-7 * max(1, np.abs(wide).max()), name
"""


def test_every_variant_cached_by_a_process_of_its_own_gives_right_numbers_alone_and_together(
    package, tmp_path
) -> None:
    """Numba's own cache would take the first one's code for all: its key has no width and no class in
    it, and its symbols are counted from 1 in every process, so they are equal too."""
    cache = {"NUMBA_CACHE_DIR": str(tmp_path)}
    for numeric, lanes in (("F", 16), ("F", 4), ("U", 4)):
        first, second = (step_in_new_process(package, numeric, lanes, **cache) for _ in range(2))
        assert first["compiled"] > 0 == second["compiled"]
        assert first["later"] == second["later"] == 0
        # Code from the cache does not wait for what only a compilation needs.
        assert (first["prepared"], second["prepared"]) == (True, False)
        assert (first["numeric"], first["lanes"]) == (numeric, lanes)
        assert first["ys"] == second["ys"] == expected(numeric)
    new_process(package, MANY, **cache)
    assert len(files(tmp_path)) == 3


def test_a_changed_source_is_compiled_again(package, tmp_path) -> None:
    cache = tmp_path / "cache"
    before = step_in_new_process(package, "F", 4, NUMBA_CACHE_DIR=str(cache))
    assert before["ys"] == expected("F")
    file = package / "edge_rnn" / "core" / "activations.py"
    stamp = file.stat()
    text = file.read_text()
    assert text.count("TANH_LIMIT = 8.0") == 1
    file.write_text(text.replace("TANH_LIMIT = 8.0", "TANH_LIMIT = 0.1"))
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    after = step_in_new_process(package, "F", 4, NUMBA_CACHE_DIR=str(cache))
    assert after["compiled"] > 0
    assert after["ys"] != before["ys"]


@pytest.mark.parametrize("home", ["XDG_CACHE_HOME", "HOME"])
def test_a_read_only_install_uses_the_users_cache(package, tmp_path, home) -> None:
    """A file in the place of `__pycache__` stops even root from writing there."""
    (package / "edge_rnn" / "core" / "__pycache__").write_text("")
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    user = tmp_path / "user"
    variables = {"NUMBA_CACHE_DIR": str(blocked), "PYTHONDONTWRITEBYTECODE": "1", home: str(user)}
    assert little_in_new_process(package, **variables) > 0
    assert little_in_new_process(package, **variables) == 0
    cache = user / "edge-rnn" if home == "XDG_CACHE_HOME" else user / ".cache" / "edge-rnn"
    assert len(files(cache)) == len(files(tmp_path)) == 1


def test_an_install_caches_beside_itself(package, tmp_path) -> None:
    assert little_in_new_process(package) > 0
    assert little_in_new_process(package) == 0
    assert len(files(package / "edge_rnn" / "core" / "__pycache__")) == len(files(tmp_path)) == 1


def test_nothing_can_be_written_and_all_works(package, tmp_path) -> None:
    (package / "edge_rnn" / "core" / "__pycache__").write_text("")
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    blocking = {"NUMBA_CACHE_DIR": str(blocked), "XDG_CACHE_HOME": str(blocked)}
    assert little_in_new_process(package, **blocking, PYTHONDONTWRITEBYTECODE="1") > 0
    assert not files(tmp_path)


def test_a_cpu_named_by_the_user_decides_class_and_width(package, tmp_path) -> None:
    if "x86_64" not in cpu_target.target_context.codegen().magic_tuple()[0]:
        pytest.skip("names of x86-64 CPUs")
    for cpu, fused, lanes in (("nehalem", False, 8), ("haswell", True, 8)):
        result = step_in_new_process(
            package, NUMBA_CPU_NAME=cpu, NUMBA_CPU_FEATURES="", NUMBA_CACHE_DIR=str(tmp_path)
        )
        assert (result["cpu"], result["fused"], result["lanes"]) == (cpu, fused, lanes)
        assert result["numeric"] == ("F" if fused else "U")
        assert result["ys"] == expected(result["numeric"])


def test_class_f_without_the_instruction_is_slow_but_gives_the_same_bits(package) -> None:
    if "x86_64" not in cpu_target.target_context.codegen().magic_tuple()[0]:
        pytest.skip("names of x86-64 CPUs")
    result = step_in_new_process(package, "F", NUMBA_CPU_NAME="nehalem", NUMBA_CPU_FEATURES="")
    assert not result["fused"]
    assert result["numeric"] == "F"
    assert result["ys"] == expected("F")


def triple(address):
    return 3 * address


def test_a_damaged_file_is_compiled_again_and_replaced(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert jit.compiled(triple, "int64(int64)", "a")(7) == 21
    (file,) = tmp_path.iterdir()
    good = file.read_bytes()
    for damage in (b"", good[:-1], good[:100] + bytes([good[100] ^ 1]) + good[101:], bytes(len(good))):
        file.write_bytes(damage)
        assert jit.compiled(triple, "int64(int64)", "a")(7) == 21
        assert len(file.read_bytes()) == len(good)
    assert jit.compiled(triple, "int64(int64)", "b")(7) == 21
    assert len(list(tmp_path.iterdir())) == 2


def test_machine_code_alone_is_stored_and_what_is_unknown_as_it_is(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    jit.compiled(triple, "int64(int64)", "g")
    (file,) = tmp_path.iterdir()
    name, kind, (code, stub) = pickle.loads(file.read_bytes()[32:])[0]
    assert "triple" in name
    assert kind == "object"
    assert code.startswith(b"\x7fELF")
    made = [f for f in llvmlite.binding.parse_bitcode(stub).functions if not f.is_declaration]
    assert any("triple" in function.name for function in made)
    assert all("call void @llvm.trap()" in str(function) for function in made)
    for other in ((), (1, 2), (("n", "bitcode", b""),), (("n", "object", (code, stub, 1)), 3)):
        assert jit._code_alone(other) is other


def test_a_full_disk_is_no_error(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(jit, "_cache_directories", lambda: iter([tmp_path]))

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert jit.compiled(triple, "int64(int64)", "c")(7) == 21
    assert not list(tmp_path.iterdir())


def test_an_entry_point_is_compiled_for_its_signature_only() -> None:
    function = jit.compiled(triple, "int64(int64)", "d")
    with pytest.raises(TypeError, match="No matching definition"):
        function("text")


def test_entry_point_skips_the_dispatcher_or_falls_back_to_it() -> None:
    function = jit.compiled(triple, "int64(int64)", "e")
    direct = jit.entry_point(function, 7, 21)
    assert direct is not function
    assert direct(9) == 27
    assert jit.entry_point(function, 7, 22) is function

    class Other:
        def __call__(self, address):
            return 3 * address

    other = Other()
    assert jit.entry_point(other, 7, 21) is other


def test_a_step_works_through_the_dispatcher_too(monkeypatch) -> None:
    stepper = Stepper(model("gru", 3, 20))
    other = Stepper(stepper.model)
    slow = jit.compiled(triple, "int64(int64)", "f")
    assert isinstance(slow, numba.core.dispatcher.Dispatcher)
    monkeypatch.setattr(jit, "entry_point", lambda function, probe, answer, *more: function)
    from edge_rnn.core import kernels

    kernels.kernels.cache_clear()
    try:
        dispatched = Stepper(stepper.model)
        assert isinstance(dispatched._drive, numba.core.dispatcher.Dispatcher)
        for x in readings(5, 3):
            assert bits(dispatched.step(x)) == bits(other.step(x))
    finally:
        kernels.kernels.cache_clear()


def test_source_digest_tells_files_apart(tmp_path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"12")
    b.write_bytes(b"3")
    first = jit.source_digest(a, b)
    a.write_bytes(b"1")
    b.write_bytes(b"23")
    assert jit.source_digest(a, b) != first != jit.source_digest(b, a)


def test_auto_is_the_targets_class() -> None:
    assert jit.numeric_class("auto") == jit.target().fused
    assert jit.numeric_class("F")
    assert not jit.numeric_class("U")
    assert Stepper(model()).numeric == ("F" if jit.target().fused else "U")
    assert Stepper(model()).lanes == jit.target().lanes
    assert np.isin(jit.target().lanes, (8, 16))
