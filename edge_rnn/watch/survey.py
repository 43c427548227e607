"""What a broker's topics say, and which of them could be streams of one kind.

`Survey.take` notes a message; `Survey.groups` puts topics together:

* JSON objects: topics with as many levels and the same numeric fields are one group; the levels in which
  they differ become placeholders. `plant/p1/all`, `plant/p2/all` -> `plant/{level2}/all`.
* plain numbers: the last level names the channel, the levels before it the machine; machines with the same
  set of channels are one group. `plant/p1/temp`, `plant/p1/vib`, `plant/p2/temp`, ... -> `plant/{level2}/...`
* lines of CSV: as JSON, with columns in place of fields.

What is none of these is listed as not understood. Memory is bounded: `MOST_TOPICS` topics, a few
numbers each.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from statistics import median
from typing import Literal, TypeVar

MOST_TOPICS = 20_000
_MOST_FIELDS = 64
_DEEPEST = 6
_INTERVALS = 64
_TIME_NAMES = re.compile(
    r"(?:^|[._])(?:time|timestamp|ts|t|datetime|date|_time|time_ns|epoch)$", re.IGNORECASE
)
_ISO = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d")
_PLAIN_KEY = re.compile(r"[^.\[\]\"]+")
_NUMBER = re.compile(rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_SEPARATORS = re.compile(rb"[,;\t]")
# Digits in nanoseconds of an epoch number, by its size; no sensible reading is that large.
_EPOCHS: tuple[tuple[float, float, Literal["s", "ms", "us", "ns"]], ...] = (
    (1e9, 1e11, "s"), (1e12, 1e14, "ms"), (1e15, 1e17, "us"), (1e18, 1e19, "ns"),
)  # fmt: skip

T = TypeVar("T")
Format = Literal["json", "number", "csv"]


@dataclass(slots=True)
class TopicSeen:
    """One topic: how often and in which shape, with the last value of each numeric field."""

    topic: str
    count: int = 0
    retained: int = 0
    format: Format | None = None
    values: dict[str, float] = field(default_factory=dict)
    time_path: str | None = None
    time_unit: str = "auto"
    last: float = math.nan
    intervals: list[float] = field(default_factory=list)

    @property
    def interval(self) -> float | None:
        """Median seconds between two messages, None before the second."""
        return median(self.intervals) if self.intervals else None


@dataclass(frozen=True, slots=True)
class GroupSeen:
    """Topics that could be one `[[stream]]`.

    name: a word for it; format; template: the topic with placeholders (for numbers without its last level);
    fields: field paths, column numbers as text, or last levels, with the last value seen; streams: how many
    machines; interval: median seconds between messages of one topic; time_path, time_unit: the event time,
    where the payload has one.
    """

    name: str
    format: Format
    template: str
    fields: tuple[tuple[str, float], ...]
    streams: int
    messages: int
    interval: float | None
    time_path: str | None
    time_unit: str


class Survey:
    """What has been heard.

    Args:
        ignore: first level(s) of topics that are nobody's readings, such as the daemon's own.

    Attributes:
        messages, retained: how many came; other: topics that are not understood, with their counts;
        untold: messages of topics beyond `MOST_TOPICS`.
    """

    def __init__(self, ignore: Iterable[str] = ()) -> None:
        self.messages = self.retained = self.untold = 0
        self.other: Counter[str] = Counter()
        self._ignore = tuple(f"{base}/" for base in ignore)
        self._topics: dict[str, TopicSeen] = {}

    @property
    def topics(self) -> int:
        """Topics heard, understood or not."""
        return len(self._topics) + len(self.other)

    def take(self, topic: str, payload: bytes, *, retained: bool, at: float) -> None:
        """Note one message; `at` is the monotonic time of its arrival in seconds."""
        if topic.startswith(("$", *self._ignore)):
            return
        self.messages += 1
        seen = self._topics.get(topic)
        if seen is None:
            if len(self._topics) + len(self.other) >= MOST_TOPICS and topic not in self.other:
                self.untold += 1
                return
            seen = TopicSeen(topic)
        # A brace in a topic could not be written into a template.
        found = None if "{" in topic or "}" in topic else _shape(payload)
        if found is None:
            if topic not in self._topics:
                self.other[topic] += 1
            return
        self._topics[topic] = seen
        seen.format, values, times = found
        if retained:
            # A stored message says what there is, but not how often it comes.
            self.retained += 1
            seen.retained += 1
        else:
            if not math.isnan(seen.last) and len(seen.intervals) < _INTERVALS:
                seen.intervals.append(at - seen.last)
            seen.last = at
            seen.count += 1
        seen.values.update(islice(values.items(), _MOST_FIELDS))
        if times and seen.time_path is None:
            seen.time_path, seen.time_unit = times[0]
            seen.values.pop(seen.time_path, None)
        elif seen.time_path is not None:
            seen.values.pop(seen.time_path, None)

    def groups(self) -> list[GroupSeen]:
        """Groups of topics, those with the most messages first."""
        live = [seen for seen in self._topics.values() if seen.values]
        found = [*self._of_objects(s for s in live if s.format != "number")]
        found += self._of_numbers([s for s in live if s.format == "number"])
        names: Counter[str] = Counter()
        told = []
        for group in sorted(found, key=lambda g: (-g.messages, g.template)):
            names[group.name] += 1
            again = names[group.name]
            told.append(group if again == 1 else _renamed(group, f"{group.name}{again}"))
        return told

    def _of_objects(self, topics: Iterable[TopicSeen]) -> Iterator[GroupSeen]:
        shapes: dict[tuple[object, ...], list[TopicSeen]] = {}
        for seen in topics:
            key = (seen.format, seen.topic.count("/"), frozenset(seen.values), seen.time_path)
            shapes.setdefault(key, []).append(seen)
        for members in shapes.values():
            for own in _alike([m.topic.split("/") for m in members], members):
                first = own[0]
                template = _template([m.topic.split("/") for m in own])
                assert first.format is not None
                yield GroupSeen(
                    _name(template), first.format, "/".join(template), tuple(first.values.items()), len(own),
                    sum(m.count for m in own), _middle(own), first.time_path, first.time_unit,
                )  # fmt: skip

    def _of_numbers(self, topics: list[TopicSeen]) -> Iterator[GroupSeen]:
        machines: dict[str, dict[str, TopicSeen]] = {}
        for seen in topics:
            machine, _, channel = seen.topic.rpartition("/")
            machines.setdefault(machine, {})[channel] = seen
        shapes: dict[tuple[object, ...], list[str]] = {}
        for machine, channels in machines.items():
            shapes.setdefault((machine.count("/"), frozenset(channels)), []).append(machine)
        for paths in shapes.values():
            for own in _alike([p.split("/") for p in paths], paths):
                template = _template([p.split("/") for p in own])
                members = [seen for machine in own for seen in machines[machine].values()]
                fields = tuple((c, s.values[""]) for c, s in machines[own[0]].items())
                yield GroupSeen(
                    _name(template), "number", "/".join(template), fields, len(own),
                    sum(m.count for m in members), _middle(members), None, "auto",
                )  # fmt: skip


def _renamed(group: GroupSeen, name: str) -> GroupSeen:
    return GroupSeen(
        name, group.format, group.template, group.fields, group.streams, group.messages, group.interval,
        group.time_path, group.time_unit,
    )  # fmt: skip


def _middle(members: list[TopicSeen]) -> float | None:
    intervals = [m.interval for m in members if m.interval is not None]
    return median(intervals) if intervals else None


def _alike(levels: list[list[str]], members: list[T]) -> Iterator[list[T]]:
    """Members whose paths begin with the same level: different roots are different systems."""
    roots: dict[str, list[T]] = {}
    for path, member in zip(levels, members, strict=True):
        roots.setdefault(path[0] if len(path) > 1 else "", []).append(member)
    yield from roots.values()


def _template(paths: list[list[str]]) -> list[str]:
    """The common path, with `{level2}` where the paths differ; levels count from 1."""
    return [
        level[0] if len(set(level)) == 1 else f"{{level{number}}}"
        for number, level in enumerate(zip(*paths, strict=True), 1)
    ]


def _name(template: list[str]) -> str:
    """A word for a group: its last level that is no placeholder, as a stream's name may be written."""
    fixed = [level for level in template if not level.startswith("{") and level]
    word = re.sub(r"[^A-Za-z0-9_-]+", "-", fixed[0] if fixed else "").strip("-")
    return word or "stream"


def _shape(payload: bytes) -> tuple[Format, dict[str, float], list[tuple[str, str]]] | None:
    """Format, numbers by path, and (path, unit) of what looks like times; None if it is no reading."""
    text = payload.strip()
    if not text or len(text) > 65536:
        return None
    if _NUMBER.fullmatch(text[:64]):
        return ("number", {"": float(text)}, []) if math.isfinite(float(text)) else None
    if text[:1] in b"{[":
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            return None
        numbers: dict[str, float] = {}
        times: list[tuple[str, str]] = []
        for path, value in leaves(document):
            unit = _time_unit(path, value)
            if unit is not None:
                times.append((path, unit))
            elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                numbers[path] = float(value)
        return ("json", numbers, times) if numbers else None
    cells = _SEPARATORS.split(text)
    if len(cells) < 2 or b"\n" in text:
        return None
    columns = {
        str(i): float(cell)
        for i, cell in enumerate(cells)
        if _NUMBER.fullmatch(cell.strip()[:64]) and cell.strip()
    }
    if not columns:
        return None
    times = []
    for i, cell in enumerate(cells):
        content = cell.strip().decode("ascii", "replace")
        unit = "iso8601" if _ISO.match(content) else _epoch(columns.get(str(i)))
        if unit is not None:
            times.append((str(i), unit))
    return "csv", columns, times


def leaves(node: object, path: str = "", depth: int = 0) -> Iterator[tuple[str, object]]:
    """What is in a document, with the path of each as a configuration spells it; bounded."""
    if isinstance(node, dict) and depth < _DEEPEST:
        for key, value in islice(node.items(), _MOST_FIELDS):
            text = key if _PLAIN_KEY.fullmatch(key) else f'["{key}"]'
            if '"' in key:
                continue
            dot = "." if path and not text.startswith("[") else ""
            yield from leaves(value, f"{path}{dot}{text}", depth + 1)
    elif isinstance(node, list) and depth < _DEEPEST:
        for index, value in enumerate(node[:_MOST_FIELDS]):
            yield from leaves(value, f"{path}[{index}]", depth + 1)
    elif path:
        yield path, node


def _time_unit(path: str, value: object) -> str | None:
    named = _TIME_NAMES.search(path) is not None
    if isinstance(value, str):
        return "iso8601" if named and _ISO.match(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return _epoch(float(value)) if named else None


def _epoch(value: float | None) -> str | None:
    if value is None:
        return None
    for low, high, unit in _EPOCHS:
        if low <= value < high:
            return unit
    return None
