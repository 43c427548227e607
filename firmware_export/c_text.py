"""Writing C: templates, literals, arrays.

**Templates** are the C files in `runtime/`. Every name in them starts with `ern_` or `ERN_`, which becomes
the prefix of the model, so that several models live in one program. Blocks between `#if ERN_HAS_...` and
`#endif` are decided here and not by the compiler: what a model does not need is not in its file, and what
is there can be read from top to bottom.

**Numbers** are hexadecimal (C99 `0x1.8p+1`), so that no decimal conversion of any compiler can change a bit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib import resources

import numpy as np
from numpy.typing import ArrayLike

_CONDITION = re.compile(r"#(if|elif)\s+(.*ERN_HAS_.*)")
_WORD = re.compile(r"ERN_HAS_([A-Z_0-9]+)")


def template(name: str) -> str:
    """The text of a file in `runtime/`."""
    return (resources.files("firmware_export") / "runtime" / name).read_text("utf-8")


def rename(text: str, name: str) -> str:
    """`text` with the prefix of model `name` in place of `ern_` and `ERN_`."""
    return re.sub(r"\bERN_", f"{name.upper()}_", re.sub(r"\bern_", f"{name}_", text))


def select(text: str, features: Mapping[str, bool]) -> str:
    """`text` without the `#if ERN_HAS_...` lines and the blocks whose condition does not hold.

    Raises:
        KeyError: a condition names a feature that is not in `features`.
    """
    kept: list[str] = []
    # One entry per open block: is it kept, has a branch been taken, is it one of ours.
    blocks: list[tuple[bool, bool, bool]] = []
    for line in text.splitlines():
        active = all(on for on, _, _ in blocks)
        if match := _CONDITION.match(line):
            holds = _holds(match[2], features)
            if match[1] == "if":
                blocks.append((holds, holds, True))
            else:
                _, taken, _ = blocks.pop()
                blocks.append((holds and not taken, taken or holds, True))
        elif line.startswith("#if"):
            blocks.append((True, True, False))
            kept += [line] if active else []
        elif line.startswith(("#else", "#endif")) and blocks[-1][2]:
            _, taken, _ = blocks.pop()
            if line.startswith("#else"):
                blocks.append((not taken, True, True))
        else:
            if line.startswith("#endif"):
                blocks.pop()
            kept += [line] if active else []
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip("\n") + "\n"


def _holds(expression: str, features: Mapping[str, bool]) -> bool:
    """The value of a condition of `!`, `&&` and `||` (which binds weakest), without parentheses."""

    def one(term: str) -> bool:
        word = _WORD.fullmatch(term.strip().lstrip("!"))
        if word is None:
            raise KeyError(term)
        return features[word[1]] is not term.strip().startswith("!")

    return any(all(one(t) for t in part.split("&&")) for part in expression.split("||"))


def float32(value: float) -> str:
    """A float32 literal with exactly these bits."""
    return f"{_hex(float(np.float32(value)))}f"


def float64(value: float) -> str:
    """A float64 literal with exactly these bits."""
    return _hex(float(value))


def _hex(value: float) -> str:
    if value == 0.0:
        return "-0.0" if np.signbit(value) else "0.0"
    mantissa, exponent = value.hex().split("p")
    mantissa = mantissa.rstrip("0") if "." in mantissa else mantissa
    return f"{mantissa.rstrip('.')}p{exponent}"


def array(kind: str, name: str, literals: Iterable[str], size: str = "") -> str:
    """A constant array, wrapped."""
    return f"static const {kind} {name}[{size}] = {{\n{wrapped(literals)}}};\n"


def wrapped(literals: Iterable[str], indent: str = "    ", width: int = 108) -> str:
    """Literals with commas in lines of at most `width` characters."""
    lines: list[str] = []
    line = indent
    for literal in literals:
        if len(line) + len(literal) + 2 > width and line.strip():
            lines.append(line.rstrip())
            line = indent
        line += f"{literal}, "
    lines.append(line.rstrip())
    return "\n".join(lines) + "\n"


def floats32(values: ArrayLike) -> list[str]:
    """float32 literals of an array."""
    return [float32(v) for v in np.ravel(np.asarray(values))]


def floats64(values: ArrayLike) -> list[str]:
    """float64 literals of an array."""
    return [float64(v) for v in np.ravel(np.asarray(values, np.float64))]


def integer(kind: str, value: int) -> str:
    """The literal of a whole number for a variable of type `kind`, such as `uint32_t`."""
    if kind in ("int16_t", "int32_t"):
        return str(value)
    if kind == "int64_t":
        return "INT64_MIN" if value == -(2**63) else f"INT64_C({value})"
    if kind == "uint64_t":
        return f"UINT64_C({value})"
    return f"{value}u"
