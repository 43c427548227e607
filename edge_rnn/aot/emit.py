"""Machine code of all entry points for one target, as an object file.

Numba types the functions and writes LLVM's language; LLVM does the rest for the target. What Numba's own
pipeline would make is optimised for the machine it runs on (gather instructions of AVX-512, say), so it runs
with its optimiser off. That is read from the environment when Numba is imported, hence a process of its own:

    python -m edge_rnn.aot.emit TARGET LANES F|U OBJECT [ENTRY ...]

Then, per module: attributes that name a CPU go, triple and data layout become the target's; the counting of
references becomes nothing, because all arrays are views at addresses and belong to nobody (code that
allocated one would need a function of Numba's runtime, which `build` refuses). All modules are linked into
one; each entry gets functions with plain names around it (`wrappers.py`); all else becomes internal, so that
global dead-code elimination drops what nobody calls; the standard pipeline at -O3 runs for the target; the
object is written.

The loop vectoriser is off: the network's loops are written in vectors already, and the detector's loops run
over a handful of channels: with it the code was a sixth larger, and not measurably faster.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from edge_rnn.aot import wrappers
from edge_rnn.aot.entries import ENTRIES, symbol
from edge_rnn.aot.targets import Target, target_named
from edge_rnn.core.backend import entry_point_of
from edge_rnn.core.entries import Entry
from edge_rnn.core.library import PYTHON_SUFFIX
from edge_rnn.errors import LibraryError

_PATIENCE_S: Final = 1800
_COUNTING: Final = re.compile(
    r"^(define [^\n]*@NRT_(?:incref|decref)\(ptr [^)]*\))[^\n]*\{\n.*?^\}", re.M | re.S
)
_PLAIN: Final = {
    "NUMBA_OPT": "0",
    "NUMBA_LOOP_VECTORIZE": "0",
    "NUMBA_SLP_VECTORIZE": "0",
    "NUMBA_CPU_NAME": "generic",
    "NUMBA_CPU_FEATURES": "",
    "NUMBA_DISABLE_JIT": "0",
    "NUMBA_BOUNDSCHECK": "0",
}


def emit(target: Target, file: Path, entries: Sequence[Entry] = ENTRIES) -> None:
    """Write the object of the entry points, by default all, to `file`, in a process of its own.

    Raises:
        LibraryError: that process fails; the message has its last line.
    """
    package = str(Path(__file__).parents[2])
    inherited = os.environ.get("PYTHONPATH")
    path = package if not inherited else os.pathsep.join([package, inherited])
    command = [sys.executable, "-m", __spec__.name if __spec__ else __name__, target.name, str(target.lanes)]
    command += ["F" if target.fused else "U", str(file), *(entry.name for entry in entries)]
    try:
        done = subprocess.run(  # noqa: S603  (this interpreter, this module)
            command, capture_output=True, text=True, check=False, timeout=_PATIENCE_S,
            env=os.environ | _PLAIN | {"PYTHONPATH": path},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise LibraryError(f"build: the compiler took more than {_PATIENCE_S} s") from None
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise LibraryError(f"build: the compiler failed: {last[:300]}")


def object_code(target: Target, entries: Sequence[Entry] = ENTRIES) -> bytes:
    """The object, made in this process, whose Numba must not optimise (see the module)."""
    from llvmlite import binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=3, reloc="pic", codemodel="default"
    )
    head = f'target triple = "{target.triple}"\ntarget datalayout = "{machine.target_data}"\n'
    whole, around = None, [head, wrappers.DECLARATIONS]
    for entry in entries:
        module = llvm.parse_assembly(_for_target(_assembly(entry, target), head))
        name = next(
            f.name
            for f in module.functions
            if not f.is_declaration and f.linkage.name == "external" and f.name.startswith("_ZN")
        )
        around += [wrappers.for_c(entry, name), wrappers.for_python(entry)]
        if whole is None:
            whole = module
        else:
            whole.link_in(module)
    assert whole is not None
    whole.link_in(llvm.parse_assembly("".join(around)))
    kept = {symbol(entry.name) + suffix for entry in entries for suffix in ("", PYTHON_SUFFIX)}
    for function in whole.functions:
        if not function.is_declaration:
            function.linkage = "external" if function.name in kept else "internal"
        elif function.name in wrappers.PYTHON:  # Numba's own modules declare them, too
            function.linkage = "external_weak"
    for variable in whole.global_variables:
        if not variable.is_declaration:
            variable.linkage = "internal"
    _optimise(llvm, machine, whole)
    code: bytes = machine.emit_object(whole)
    return code


def _assembly(entry: Entry, target: Target) -> str:
    import numba

    point = entry_point_of(entry, target.lanes, target.fused)
    dispatcher = numba.njit(error_model="numpy")(point.function)
    dispatcher.compile(point.signature)
    (text,) = dispatcher.inspect_llvm().values()
    return str(text)


def _for_target(assembly: str, head: str) -> str:
    text = re.sub(r'"target-(?:cpu|features)"="[^"]*"', "", assembly)
    text = _COUNTING.sub(r"\1 {\n  ret void\n}", text)
    return head + re.sub(r"^target (?:triple|datalayout) = .*$", "", text, flags=re.MULTILINE)


def _optimise(llvm: Any, machine: Any, module: Any) -> None:
    tuning = llvm.create_pipeline_tuning_options(speed_level=3)
    tuning.loop_vectorization = False
    tuning.slp_vectorization = False
    passes = llvm.create_pass_builder(machine, tuning)
    first = llvm.create_new_module_pass_manager()
    first.add_global_dead_code_eliminate_pass()
    first.run(module, passes)
    passes.getModulePassManager().run(module, passes)


if __name__ == "__main__":
    chosen = target_named(sys.argv[1])
    if (chosen.lanes, chosen.fused) != (int(sys.argv[2]), sys.argv[3] == "F"):
        import dataclasses

        chosen = dataclasses.replace(chosen, lanes=int(sys.argv[2]), fused=sys.argv[3] == "F")
    wanted = [entry for entry in ENTRIES if entry.name in sys.argv[5:]]
    Path(sys.argv[4]).write_bytes(object_code(chosen, wanted))
