"""What stands around a function of Numba's in a library, in LLVM's language: one for C, one for Python.

Numba's function returns a status and writes its result through a pointer. `edge_rnn_<name>` takes int64 and
returns the result, for C. `edge_rnn_<name>_py` is what CPython's `METH_FASTCALL` asks for: called so, a step
costs 60 ns instead of the 400 that `ctypes` takes to convert its arguments. It uses five functions of
Python's stable interface, as weak symbols: a program without Python loads the library all the same.
"""

from __future__ import annotations

from typing import Final

from edge_rnn.aot.entries import symbol
from edge_rnn.core.entries import Entry
from edge_rnn.core.library import PYTHON_SUFFIX

# What a function answers that raised; none of them can.
_RAISED: Final = -9
PYTHON: Final = (
    "PyLong_AsLongLong", "PyLong_FromLongLong", "PyFloat_FromDouble", "PyErr_Occurred", "PyErr_BadArgument",
)  # fmt: skip
DECLARATIONS: Final = """\
declare extern_weak i64 @PyLong_AsLongLong(ptr)
declare extern_weak ptr @PyLong_FromLongLong(i64)
declare extern_weak ptr @PyFloat_FromDouble(double)
declare extern_weak ptr @PyErr_Occurred()
declare extern_weak i32 @PyErr_BadArgument()
"""


def for_c(entry: Entry, name: str) -> str:
    """`edge_rnn_<entry>`; `name` is Numba's function."""
    kinds = ", i64" * entry.arguments
    result = "double" if entry.result == "float64" else "i64"
    given = ", ".join(f"i64 %a{i}" for i in range(entry.arguments))
    return f"""\
declare i32 @"{name}"(ptr, ptr{kinds})
define {result} @{symbol(entry.name)}({given}) {{
  %result = alloca i64
  %exception = alloca ptr
  store i64 {_RAISED}, ptr %result
  %status = call i32 @"{name}"(ptr %result, ptr %exception, {given})
  %value = load {result}, ptr %result
  ret {result} %value
}}
"""


def for_python(entry: Entry) -> str:
    """`edge_rnn_<entry>_py(self, arguments, count)`: TypeError for another count, or what is no int64."""
    n = entry.arguments
    result, box = (
        ("double", "PyFloat_FromDouble") if entry.result == "float64" else ("i64", "PyLong_FromLongLong")
    )
    loads = "".join(
        f"""\
  %p{i} = getelementptr ptr, ptr %arguments, i64 {i}
  %o{i} = load ptr, ptr %p{i}
  %a{i} = call i64 @PyLong_AsLongLong(ptr %o{i})
  %e{i} = icmp eq i64 %a{i}, -1
"""
        for i in range(n)
    )
    doubts = "".join(f"  %d{i + 1} = or i1 %d{i}, %e{i}\n" for i in range(n))
    given = ", ".join(f"i64 %a{i}" for i in range(n))
    return f"""\
define ptr @{symbol(entry.name)}{PYTHON_SUFFIX}(ptr %self, ptr %arguments, i64 %count) {{
  %fits = icmp eq i64 %count, {n}
  br i1 %fits, label %convert, label %refuse
convert:
{loads}  %d0 = icmp eq i1 true, false
{doubts}  br i1 %d{n}, label %doubt, label %run
doubt:
  %error = call ptr @PyErr_Occurred()
  %sound = icmp eq ptr %error, null
  br i1 %sound, label %run, label %fail
run:
  %value = call {result} @{symbol(entry.name)}({given})
  %object = call ptr @{box}({result} %value)
  ret ptr %object
refuse:
  %ignored = call i32 @PyErr_BadArgument()
  br label %fail
fail:
  ret ptr null
}}
"""
