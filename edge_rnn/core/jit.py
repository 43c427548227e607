"""Compiling with Numba: typed decorators, one safe compile cache, the target's numeric class.

Numba compiles a decorated function when it is first called with new types. This package wants
compilation at construction and never later, so there are two kinds of functions:

* `@jit` (and `@inlined`) marks a helper. It is compiled into whatever jitted code calls it.
* `compiled(function, signature, key)` compiles an entry point at once, or loads it from the cache.
  An `EntryPoint` is what such a call needs, so that the same function can be compiled ahead of time instead.

Numba and LLVM are imported when something is compiled, and not before: a helper is a `Helper` until jitted
code or a call asks for its dispatcher. So a process whose code comes from a library (`backend.py`) imports
the modules that hold helpers, but never Numba.

No fast-math flag is ever set, so a compiled `a * b + c` in float64 stays a multiplication and an
addition with two roundings on every machine; a division by zero gives inf or NaN as in C
(`error_model="numpy"`).

**The cache.** Numba's own on-disk cache keys a function by its bytecode and the file it is in. It does
not see a changed constant, nor a changed file of a function called: it would load code made for
8 lanes into a process that packed weights for 16, and the numbers would be wrong without an error.
So the caller states the key: everything that decides the code (lanes, class, a digest of all sources),
and signature, target CPU and the versions of Python, Numba and LLVM are added here. Every file carries
a checksum, because loading half-written machine code would end the process, and all symbols have
random names, because Numba's are equal for equal places in different processes. Reading tries all
directories in order; writing takes the first that lets it:

1. `$NUMBA_CACHE_DIR`, if set
2. `__pycache__` beside this file
3. `$XDG_CACHE_HOME/edge-rnn`, else `~/.cache/edge-rnn`

If none can be written the code is compiled at each start, without an error.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pickle
import platform
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

Numeric = Literal["auto", "F", "U"]
F = TypeVar("F", bound=Callable[..., object])
Entry = TypeVar("Entry", bound=Callable[..., float])

_CHECKSUM = hashlib.sha256().digest_size


class Helper:
    """A function for use in jitted code; its dispatcher is made when Numba, or a caller, asks for it.

    Numba finds the dispatcher by `_numba_type_`, which it asks any object it does not know.
    """

    def __init__(self, function: Callable[..., object], options: dict[str, bool]) -> None:
        functools.update_wrapper(self, function)
        self._options = options

    @functools.cached_property
    def dispatcher(self) -> Any:
        """Numba's object for jitted code. A way in from Python as well would be a tenth more to compile."""
        return self._made(no_cpython_wrapper=True, no_cfunc_wrapper=True)

    @functools.cached_property
    def _from_python(self) -> Any:
        return self._made()

    def _made(self, **more: bool) -> Any:
        import numba

        function = cast(Any, self).__wrapped__
        _name_symbols(function)
        return numba.njit(error_model="numpy", **self._options, **more)(function)

    @property
    def _numba_type_(self) -> object:
        return self.dispatcher._numba_type_

    def __call__(self, *arguments: object) -> object:
        """Run it, compiled for these types."""
        return self._from_python(*arguments)

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._from_python, name)


def jit(function: F) -> F:
    """Mark a helper of jitted code: compiled into its callers, never cached on its own."""
    return cast(F, Helper(function, {}))


def inlined(function: F) -> F:
    """Like `jit`, and LLVM inlines it wherever it is called: for small helpers in hot loops."""
    return cast(F, Helper(function, {"forceinline": True}))


def compiled(function: F, signature: object, key: str) -> F:
    """Compile an entry point now, or load it from the cache; nothing is compiled when it is called.

    Args:
        function: a plain Python function; it may call `@jit` functions.
        signature: Numba signature, as text (`"int64(int64)"`) or types.
        key: everything that decides the code besides signature and target, see `source_digest`.

    Returns:
        The function, with a dispatcher that accepts this signature only.
    """
    import numba

    _name_symbols(function)
    dispatcher = numba.njit(error_model="numpy")(function)
    dispatcher._cache = _CodeCache(f"{function.__module__}.{function.__name__}", key)
    dispatcher.compile(signature)
    dispatcher.disable_compile()
    return cast(F, dispatcher)


def _name_symbols(function: Callable[..., object]) -> None:
    """Give the symbols of this function's machine code a name that occurs nowhere else.

    Numba makes a symbol of the qualified name and a number counted from 1 in every process. So the
    same factory's functions for 4 and for 16 lanes, compiled in two processes, have equal symbols; a
    third process that loads both from the cache would run the first one's code for both.
    """
    function.__qualname__ = f"{function.__name__}_{uuid.uuid4().hex[:16]}"


def entry_point(function: Entry, probe: int, answer: int, *more: int) -> Entry:
    """The machine code behind a `compiled` function of int64, without the dispatcher's ~65 ns.

    It checks no types, so only callers that pass int64 they made themselves may use it. It is no
    public part of Numba: it is called once with `probe` (and `more`) here, and unless it gives `answer`,
    the dispatcher itself is returned.
    """
    with suppress(AttributeError, TypeError, StopIteration):
        direct = cast(Entry, next(iter(cast(Any, function).overloads.values())).entry_point)
        if direct(probe, *more) == answer:
            return direct
    return function


@dataclass(eq=False)
class EntryPoint:
    """A function of int64 (see `entries.py`) that Python calls by address, not compiled yet.

    Attributes:
        function: plain Python; it may call helpers.
        signature: as Numba writes it.
        key: everything that decides the code, see `source_digest`.
        probe: a table whose address `function` may be tried with.
        answer: what it then returns.
        more: the arguments beside the table's address in such a trial.
    """

    function: Callable[..., float]
    signature: str
    key: str
    probe: NDArray[np.int64]
    answer: int
    more: tuple[int, ...] = ()

    @functools.cached_property
    def machine_code(self) -> Callable[..., Any]:
        """The compiled function; compiled, or loaded from the cache, at the first time asked."""
        code = compiled(self.function, self.signature, self.key)
        return entry_point(code, self.probe.ctypes.data, self.answer, *self.more)


def source_digest(*files: str | Path) -> str:
    """A hex digest of the bytes of source files and of this one, for the key of `compiled`."""
    digest = hashlib.sha256()
    for file in (__file__, *files):
        content = Path(file).read_bytes()
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Target:
    """What LLVM compiles for: has it a fused multiply-add, how many float32 lanes suit it, its name."""

    fused: bool
    lanes: int
    cpu: str


_PROBE = """
define <16 x float> @probe(<16 x float> %a, <16 x float> %b, <16 x float> %c) {
  %r = call <16 x float> @llvm.fma.v16f32(<16 x float> %a, <16 x float> %b, <16 x float> %c)
  ret <16 x float> %r
}
declare <16 x float> @llvm.fma.v16f32(<16 x float>, <16 x float>, <16 x float>)
"""


@functools.cache
def target() -> Target:
    """The target of this process, `NUMBA_CPU_NAME` and `NUMBA_CPU_FEATURES` included."""
    from numba.core.registry import cpu_target

    return probe(*cpu_target.target_context.codegen().magic_tuple())


def probe(triple: str, cpu: str, features: str) -> Target:
    """What code for a processor should look like, in LLVM's names of it.

    LLVM is asked, not the machine: a fused multiply-add of 16 floats is compiled for the target.
    Where the instruction is missing, the result calls the library's `fmaf`; where it uses 512-bit
    registers, 16 lanes are the natural width, elsewhere 8 (16 floats spill on NEON and SSE2).
    """
    from llvmlite import binding as llvm

    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features, opt=2)
    assembly = machine.emit_assembly(llvm.parse_assembly(_PROBE))
    return Target(fused="fmaf" not in assembly, lanes=16 if "zmm" in assembly else 8, cpu=cpu)


_WIDEN = """
define <16 x float> @probe(<16 x half> %a) {
  %r = fpext <16 x half> %a to <16 x float>
  ret <16 x float> %r
}
"""


@functools.cache
def widens_halves() -> bool:
    """Whether this process's target has an instruction for float16 to float32; else LLVM calls a library."""
    from llvmlite import binding as llvm
    from numba.core.registry import cpu_target

    triple, cpu, features = cpu_target.target_context.codegen().magic_tuple()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features, opt=2)
    assembly = machine.emit_assembly(llvm.parse_assembly(_WIDEN))
    return "extendhfsf2" not in assembly and "h2f" not in assembly


def numeric_class(numeric: Numeric) -> bool:
    """True for class F (fused multiply-add), False for U; "auto" is F where the target has it.

    Raises:
        ValueError: another word than "auto", "F" or "U".
    """
    if numeric not in ("auto", "F", "U"):
        raise ValueError(f'numeric: expected "auto", "F" or "U", got {numeric!r}')
    return target().fused if numeric == "auto" else numeric == "F"


def _cache_directories() -> Iterator[Path]:
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(chosen)
    yield Path(__file__).parent / "__pycache__"
    if cache := os.environ.get("XDG_CACHE_HOME"):
        yield Path(cache) / "edge-rnn"
    else:
        with suppress(RuntimeError):  # no home directory known
            yield Path.home() / ".cache" / "edge-rnn"


def _code_alone(state: tuple[Any, ...]) -> tuple[Any, ...]:
    """What is stored of a compiled function, without its code in LLVM's language.

    That is four times as large, and would be read at each start, only for other functions to take it in.
    None may, of an entry point; so of each symbol a function is left which ends the process. Where Numba
    stores something else than what is known here, it is stored as it is.
    """
    match state:
        case ((str(name), "object", (bytes(code), bytes(bitcode))), *rest):
            from llvmlite import binding as llvm

            module = llvm.parse_bitcode(bitcode)
            values = (*module.functions, *module.global_variables)
            names = [value.name for value in values if not value.is_declaration]
            if not any(set(name) & set('"\\\n') for name in names):
                stubs = [
                    f'define void @"{name}"() {{\n  call void @llvm.trap()\n  ret void\n}}' for name in names
                ]
                stub = llvm.parse_assembly("\n".join([*stubs, "declare void @llvm.trap()"]))
                return ((name, "object", (code, stub.as_bitcode())), *rest)
    return state


class _CodeCache:
    """The interface Numba's dispatcher expects of a cache, with the key stated by the caller."""

    cache_path = ""

    def __init__(self, name: str, key: str) -> None:
        self._name = "".join(c if c.isalnum() or c in "._" else "_" for c in name)
        self._key = (name, key)

    def _file(self, context: Any, signature: object) -> str:
        import llvmlite
        import numba

        versions = (numba.__version__, llvmlite.__version__, sys.version, platform.machine())
        facts = repr((self._key, versions, str(signature), context.codegen().magic_tuple()))
        return f"{self._name}-{hashlib.sha256(facts.encode()).hexdigest()[:32]}.code"

    def load_overload(self, signature: object, target_context: Any) -> object:
        """The compiled code, or None where no directory holds a whole file of it."""
        from numba.core.compiler import CompileResult
        from numba.core.runtime import rtsys

        # Of what Numba prepares before it compiles, machine code needs the symbols of its runtime. The rest
        # (`target_context.refresh()`: how to lower each function that Numba knows) would be a quarter of a
        # start and 12 MB; the compiler does it itself when something is compiled after all.
        rtsys.initialize(target_context)
        name = self._file(target_context, signature)
        for directory in _cache_directories():
            with suppress(OSError):
                content = (directory / name).read_bytes()
                checksum, payload = content[:_CHECKSUM], content[_CHECKSUM:]
                if hashlib.sha256(payload).digest() == checksum:
                    return cast(object, CompileResult._rebuild(target_context, *pickle.loads(payload)))  # noqa: S301
        return None

    def save_overload(self, signature: object, result: Any) -> None:
        """Write the code to the first directory that can be written; none is no error."""
        from numba.core.serialize import dumps

        payload = dumps(_code_alone(result._reduce()))
        content = hashlib.sha256(payload).digest() + payload
        name = self._file(result.target_context, signature)
        for directory in _cache_directories():
            temporary = directory / f"{name}.{os.getpid()}"
            try:
                directory.mkdir(parents=True, exist_ok=True)
                temporary.write_bytes(content)
                temporary.replace(directory / name)
            except OSError:  # not writable, or full: try the next one
                with suppress(OSError):
                    temporary.unlink()
                continue
            return

    def enable(self) -> None:
        """Part of the interface; this cache is always on."""

    disable = flush = enable
