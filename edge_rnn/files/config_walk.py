"""A walk over a parsed TOML document that collects every problem instead of stopping at the first.

A `Table` hands out the values of one TOML table by key, each checked for its type and bounds. What does
not fit is noted in the shared `Problems` with its key path, what was expected and what was found, and the
default is handed back so that the walk goes on. A table remembers the keys that were asked for; `close()`
notes every other key as unknown, with the nearest known one. So the list of known keys is never written
down twice.

Line numbers: `tomllib` gives them for syntax errors only, so `key_lines` finds the line of each table and
key by a simple scan of the text. A key inside an inline table gets the line of the key that holds it.

No message repeats a value that could be a secret: unknown keys are named without their values, and texts
are cut to a few letters with control characters escaped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NoReturn, TypeVar, overload

from edge_rnn.errors import ConfigError

_L = TypeVar("_L", bound=str)

UNITS_NS: Final = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
}
LONGEST_NS: Final = 3660 * UNITS_NS["d"]

_DURATION = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,9}))?(ns|us|ms|s|m|h|d)", re.ASCII)
_HEADER = re.compile(r"\s*(\[\[?)\s*([A-Za-z0-9_.\-\" ]+?)\s*\]\]?\s*(?:#.*)?$", re.ASCII)
_ASSIGNMENT = re.compile(r"\s*([A-Za-z0-9_\-]+(?:\s*\.\s*[A-Za-z0-9_\-]+)*)\s*=", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def parse_duration(text: str) -> int | None:
    """Nanoseconds of `"500ms"`, `"1.5s"`, `"5m"`, `"1h"`, ...; None if it is not a duration."""
    match = _DURATION.fullmatch(text)
    if match is None:
        return None
    whole, fraction, unit = match.groups()
    scale = UNITS_NS[unit]
    value = int(whole) * scale
    if fraction:
        part, rest = divmod(int(fraction) * scale, 10 ** len(fraction))
        if rest:
            return None
        value += part
    return value


def duration_text(ns: int) -> str:
    """The shortest exact text of a duration that `parse_duration` reads back."""
    for unit, scale in reversed(UNITS_NS.items()):
        if ns % scale == 0 and (ns or unit == "s"):
            return f"{ns // scale}{unit}"
    return f"{ns}ns"


def describe(value: object) -> str:
    """A found value as TOML would write it, in few letters and without control characters."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(
            value if len(value) <= 48 else value[:47] + "…", ensure_ascii=not value.isprintable()
        )
    if isinstance(value, int):
        # A TOML integer has no limit here, and Python refuses to print a huge one.
        return str(value) if abs(value) < 10**18 else "a number of more than 18 digits"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an array"
    return f"the date or time {value}"


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean "..."?` for the nearest known word, or an empty text."""
    import difflib

    near = difflib.get_close_matches(word[:64], list(known), n=1, cutoff=0.6)
    return f'; did you mean "{near[0]}"?' if near else ""


def key_lines(text: str) -> dict[str, int]:
    """Line numbers (from 1) of key paths like `stream[0].model`, found by a scan of the text."""
    lines: dict[str, int] = {}
    counts: dict[str, int] = {}
    prefix, quote, depth = "", "", 0
    for number, line in enumerate(text.split("\n"), 1):
        if quote or depth > 0:
            # Inside a multi-line string or array nothing is a header or a key of this table.
            quote, depth = _scan(line, quote, depth)
            continue
        if header := _HEADER.match(line):
            name = re.sub(r"[\s\"]", "", header[2])
            if header[1] == "[[":
                counts[name] = counts.get(name, -1) + 1
                prefix = f"{name}[{counts[name]}]"
            else:
                head, dot, tail = name.partition(".")
                prefix = f"{head}[{counts[head]}]{dot}{tail}" if head in counts else name
            lines.setdefault(prefix, number)
            continue
        if assignment := _ASSIGNMENT.match(line):
            path = f"{prefix}." if prefix else ""
            for part in assignment[1].split("."):
                path += part.strip()
                lines.setdefault(path, number)
                path += "."
            quote, depth = _scan(line[assignment.end() :], "", 0)
    return lines


def _scan(line: str, quote: str, depth: int) -> tuple[str, int]:
    """The open multi-line quote ("" for none) and the bracket depth after `line`."""
    i, size = 0, len(line)
    while i < size:
        if quote:
            end = line.find(quote, i)
            if end < 0:
                return quote, depth
            i, quote = end + 3, ""
            continue
        char = line[i]
        if char == "#":
            break
        if line.startswith(('"""', "'''"), i):
            quote = line[i : i + 3]
            i += 3
            continue
        if char in "\"'":
            i += 1
            while i < size and line[i] != char:
                i += 2 if char == '"' and line[i] == "\\" else 1
        depth += (char in "[{") - (char in "]}")
        i += 1
    return quote, max(depth, 0)


class Problems:
    """Every problem of one document, each with its key path; they are told in the order of their lines."""

    def __init__(self, where: str, lines: dict[str, int] | None = None) -> None:
        self.where = where
        self._lines = {} if lines is None else lines
        self._found: list[tuple[str, str]] = []

    def note(self, path: str, text: str) -> None:
        """Note one problem of the key at `path`."""
        self._found.append((path, "".join(c if c.isprintable() else "?" for c in text)))

    def clean(self, *paths: str) -> bool:
        """Whether nothing was noted at these paths or below them."""
        return not any(
            found == path or found.startswith((f"{path}.", f"{path}["))
            for found, _ in self._found
            for path in paths
        )

    def _line(self, path: str) -> int:
        """The line of the key, or of what holds it; 0 if it is nowhere in the text."""
        while path:
            if path in self._lines:
                return self._lines[path]
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return 0

    def __iter__(self) -> Iterator[str]:
        for path, text in sorted(self._found, key=lambda found: self._line(found[0])):
            line = self._line(path)
            yield f"{self.where}{f':{line}' if line else ''}: {path}: {text}"

    def __bool__(self) -> bool:
        return bool(self._found)

    def fail(self) -> NoReturn:
        """Raise the `ConfigError` that lists all problems, one a line."""
        raise ConfigError("\n".join(self))


class Table:
    """One TOML table: typed getters that note what does not fit and then hand back the default."""

    def __init__(self, problems: Problems, path: str, values: object, like: str = "") -> None:
        self.problems = problems
        self.path = path
        self._known: set[str] = set()
        if isinstance(values, dict):
            self._values: dict[str, Any] = values
        else:
            self._values = {}
            self._open = False
            such = f" such as {like}" if like else ""
            problems.note(path, f"expected a table{such}, got {describe(values)}")
            return
        self._open = True

    def at(self, key: str) -> str:
        """The full path of one of this table's keys."""
        return f"{self.path}.{key}" if self.path else key

    def note(self, key: str, text: str) -> None:
        """Note a problem of one of this table's keys."""
        self.problems.note(self.at(key), text)

    def has(self, key: str) -> bool:
        """Whether the key is in the table; a key that was asked for is known from then on."""
        self._known.add(key)
        return key in self._values

    def required(self, key: str, what: str) -> bool:
        """Whether the key is there; if not, and the table is one at all, that is noted."""
        if self.has(key):
            return True
        if self._open:
            self.note(key, f"missing; expected {what}")
        return False

    def _wrong(self, key: str, expected: str) -> None:
        self.note(key, f"expected {expected}, got {describe(self._values[key])}")

    @overload
    def text(self, key: str, default: str, *, what: str = ..., pattern: str | None = ...) -> str: ...
    @overload
    def text(self, key: str, default: None, *, what: str = ..., pattern: str | None = ...) -> str | None: ...
    def text(
        self, key: str, default: str | None, *, what: str = "a text", pattern: str | None = None
    ) -> str | None:
        """A text of 1 to 1024 characters without control characters, that fits `pattern` as a whole."""
        if not self.has(key):
            return default
        value = self._values[key]
        if (
            not isinstance(value, str)
            or not 0 < len(value) <= 1024
            or _CONTROL.search(value)
            or (pattern is not None and not re.fullmatch(pattern, value, re.ASCII))
        ):
            self._wrong(key, what)
            return default
        return value

    def texts(
        self, key: str, default: tuple[str, ...], *, what: str, pattern: str | None = None
    ) -> tuple[str, ...]:
        """A list of 1 to 64 texts, each as for `text`."""
        if not self.has(key):
            return default
        value = self._values[key]
        if not isinstance(value, list) or not 0 < len(value) <= 64:
            self._wrong(key, f"a list of {what}")
            return default
        for entry in value:
            if (
                not isinstance(entry, str)
                or not 0 < len(entry) <= 1024
                or _CONTROL.search(entry)
                or (pattern is not None and not re.fullmatch(pattern, entry, re.ASCII))
            ):
                self.note(key, f"expected a list of {what}, got {describe(entry)} in it")
                return default
        return tuple(value)

    def choice(self, key: str, default: _L, options: Sequence[_L]) -> _L:
        """One of some words."""
        if not self.has(key):
            return default
        value = self._values[key]
        for option in options:
            if option == value:
                return option
        listed = ", ".join(f'"{option}"' for option in options)
        guess = nearest(value, options) if isinstance(value, str) else ""
        self._wrong(key, f"one of {listed}") if not guess else self.note(
            key, f"expected one of {listed}, got {describe(value)}{guess}"
        )
        return default

    def boolean(self, key: str, default: bool) -> bool:
        """True or false."""
        if not self.has(key):
            return default
        value = self._values[key]
        if isinstance(value, bool):
            return value
        self._wrong(key, "true or false")
        return default

    @overload
    def integer(self, key: str, default: int, low: int, high: int) -> int: ...
    @overload
    def integer(self, key: str, default: None, low: int, high: int) -> int | None: ...
    def integer(self, key: str, default: int | None, low: int, high: int) -> int | None:
        """A whole number from `low` to `high`, both included."""
        if not self.has(key):
            return default
        value = self._values[key]
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        self._wrong(key, f"a whole number from {low} to {high}")
        return default

    @overload
    def duration(self, key: str, default: int, low: int = ..., high: int = ...) -> int: ...
    @overload
    def duration(self, key: str, default: None, low: int = ..., high: int = ...) -> int | None: ...
    def duration(self, key: str, default: int | None, low: int = 1, high: int = LONGEST_NS) -> int | None:
        """A duration such as `"30s"`, in nanoseconds, from `low` to `high`, both included."""
        if not self.has(key):
            return default
        value = self._values[key]
        ns = parse_duration(value) if isinstance(value, str) else None
        if ns is None:
            hint = ""
            if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e9:
                hint = f' (a number needs its unit: "{describe(value)}s"?)'
            self.note(
                key,
                f'expected a duration such as "500ms", "30s", "5m" or "1h", got {describe(value)}{hint}',
            )
            return default
        if not low <= ns <= high:
            bounds = f'"{duration_text(low)}" to "{duration_text(high)}"'
            self._wrong(key, f"a duration from {bounds}")
            return default
        return ns

    def table(self, key: str, like: str = "") -> Table | None:
        """A table inside this one, or None if there is none; `like`: how one looks, for the message."""
        return Table(self.problems, self.at(key), self._values[key], like) if self.has(key) else None

    def tables(self, key: str) -> list[Table]:
        """An array of tables inside this one; empty if there is none."""
        if not self.has(key):
            return []
        value = self._values[key]
        if not isinstance(value, list):
            self._wrong(key, "an array of tables")
            return []
        return [Table(self.problems, f"{self.at(key)}[{i}]", entry) for i, entry in enumerate(value)]

    def forbid(self, key: str, why: str) -> None:
        """Note a key that must not be here, without its value."""
        if self.has(key):
            self.note(key, why)

    def close(self) -> None:
        """Note every key that nobody asked for as unknown."""
        for key in self._values:
            if key not in self._known:
                name = key if re.fullmatch(r"[A-Za-z0-9_\-]{1,64}", key) else describe(key)
                self.problems.note(self.at(name), f"unknown key{nearest(key, sorted(self._known))}")
