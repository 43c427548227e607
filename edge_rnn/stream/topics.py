"""Topic templates: which messages belong to a stream group, and to which of its streams.

A template such as `plant/{site}/{machine}/vibration` is a topic in which whole levels are fields. It gives
a subscription filter (`plant/+/+/vibration`), and the fields' values are the stream's key: `press/rome/7`
is the stream of group `press` for site `rome`, machine `7`. MQTT's own wildcards `+` (one level) and `#`
(the rest, or nothing) may stand in a template too; they are not part of the key.

Stream ids become levels of output topics and keys of the store, so values are escaped: `/`, `+`, `#`, `%`,
control characters and what UTF-8 texts must not carry become `%XX`, one for each byte. `unescape` undoes it.

A template is compiled once. `Routes` then answers a topic with a dictionary look-up; only a topic seen for
the first time is matched against the templates. The dictionary is cleared when it is full, so that a flood
of topics costs time, never memory. Overlapping templates are legal: a topic has as many routes as it
matches, and each message is delivered by route, not by the subscription that brought it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from edge_rnn.errors import ConfigError

__all__ = ["MAX_ID", "Route", "Routes", "Template", "escape", "split_id", "stream_id", "unescape"]

MAX_TOPIC_BYTES = 65535
MAX_ID = 1024
_CACHED_TOPIC = 512
_FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
# Control characters, characters with a meaning, lone surrogates, non-characters of the first plane.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f/+#%\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_ESCAPED = re.compile(r"((?:%[0-9A-F]{2})+)")


def escape(value: str) -> str:
    """`value` as one level of a topic: unsafe characters as `%XX` for each byte of their UTF-8 form."""
    return _UNSAFE.sub(
        lambda m: "".join(f"%{byte:02X}" for byte in m[0].encode("utf-8", "surrogatepass")), value
    )


def unescape(level: str) -> str:
    """The text that `escape` made `level` of; what `escape` cannot have made stays as it is."""

    def text(match: re.Match[str]) -> str:
        try:
            return bytes.fromhex(match[0].replace("%", "")).decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return match[0]

    return _ESCAPED.sub(text, level)


def stream_id(group: str, values: Sequence[str] = ()) -> str:
    """The id of a stream: `group`, or `group/value/...` with escaped values."""
    return "/".join([group, *map(escape, values)]) if values else group


def split_id(stream: str) -> tuple[str, tuple[str, ...]]:
    """Group and unescaped values of a stream id."""
    group, *levels = stream.split("/")
    return group, tuple(map(unescape, levels))


class Template:
    """One topic template.

    Args:
        text: levels joined by `/`; a level is text, a field `{name}`, `+`, or (as the last one) `#`.

    Attributes:
        text: as given.
        fields: names of the fields, in order.
        subscription: the MQTT filter that brings all messages which `match`.

    Raises:
        ConfigError: the text is not a template; the message says which level and why.
    """

    __slots__ = ("_levels", "_open", "_rest", "fields", "subscription", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        where = f"topic template {text[:80]!r}"
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            raise ConfigError(f"{where}: expected text that UTF-8 can hold") from None
        if not text or "\0" in text or size > MAX_TOPIC_BYTES:
            raise ConfigError(f"{where}: expected 1 to {MAX_TOPIC_BYTES} bytes without NUL")
        if text.startswith("$share/"):
            raise ConfigError(f"{where}: shared subscriptions would tear a stream apart; leave $share out")
        fields: list[str] = []
        # One entry a level: the text it must equal, or None for any one level; the fields' places aside.
        levels: list[str | None] = []
        self._open: list[tuple[int, str]] = []
        parts = text.split("/")
        self._rest = parts[-1] == "#"
        if self._rest:
            parts.pop()
        for index, level in enumerate(parts):
            field = _FIELD.fullmatch(level)
            if field is not None:
                if field[1] in fields:
                    raise ConfigError(f"{where}: field {{{field[1]}}} stands there twice; give each its name")
                fields.append(field[1])
                self._open.append((index, field[1]))
                levels.append(None)
            elif level == "+":
                levels.append(None)
            elif "{" in level or "}" in level:
                raise ConfigError(
                    f"{where}: level {level[:40]!r} is neither text nor a field; a field is a whole level: "
                    "{name}, of letters, digits and _"
                )
            elif "+" in level or "#" in level:
                raise ConfigError(
                    f"{where}: level {level[:40]!r}: a wildcard is a whole level, and '#' only the last one"
                )
            else:
                levels.append(level)
        self._levels = tuple(levels)
        self.fields = tuple(fields)
        self.subscription = "/".join(
            ["+" if level is None else level for level in levels] + ["#"] * self._rest
        )

    def __repr__(self) -> str:
        return f"Template({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Template) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def match(self, topic: str) -> dict[str, str] | None:
        """The fields' values in `topic`, or None if it does not match; a field is never empty."""
        parts = topic.split("/")
        levels = self._levels
        # MQTT 5, 4.7.1.2: `a/#` includes `a` itself.
        if len(parts) != len(levels) and not (self._rest and len(parts) >= len(levels)):
            return None
        # MQTT 5, 4.7.2: a wildcard in the first level does not match the server's own topics.
        if topic.startswith("$") and (not levels or levels[0] is None):
            return None
        for level, part in zip(levels, parts, strict=False):
            if level is not None and level != part:
                return None
        values = {name: parts[index] for index, name in self._open}
        return values if all(values.values()) else None


class Route(NamedTuple):
    """Where a message goes: the group, the stream of that group, the group's extractor."""

    group: str
    stream: str
    extractor: int


class Routes:
    """All templates of all groups; `match` gives the routes of a topic.

    Args:
        templates: per group its templates; a template's place is its extractor index. All templates of a
            group must have the same fields; the first one's order makes the key.
        cache: topics remembered.

    Raises:
        ConfigError: templates of one group with different fields, or a group without any.
    """

    __slots__ = ("_cache", "_limit", "_routes", "subscriptions")

    def __init__(self, templates: Mapping[str, Sequence[Template]], cache: int = 65_536) -> None:
        self._routes: list[tuple[str, int, Template, tuple[str, ...]]] = []
        for group, own in templates.items():
            if not own:
                raise ConfigError(f"stream {group!r}: expected at least one topic, got none")
            order = own[0].fields
            for index, template in enumerate(own):
                if set(template.fields) != set(order):
                    raise ConfigError(
                        f"stream {group!r}: topics {own[0].text!r} and {template.text!r} have different "
                        "fields; the fields are the key of the stream, so all its topics need the same ones"
                    )
                self._routes.append((group, index, template, order))
        self.subscriptions = tuple(dict.fromkeys(t.subscription for _, _, t, _ in self._routes))
        self._cache: dict[str, tuple[Route, ...]] = {}
        self._limit = cache

    def match(self, topic: str) -> tuple[Route, ...]:
        """The routes of `topic`; empty if it belongs to no stream or its id would exceed `MAX_ID` bytes."""
        found = self._cache.get(topic)
        return self._resolve(topic) if found is None else found

    def _resolve(self, topic: str) -> tuple[Route, ...]:
        routes: list[Route] = []
        for group, index, template, order in self._routes:
            values = template.match(topic)
            if values is not None:
                stream = stream_id(group, [values[name] for name in order])
                if len(stream.encode()) <= MAX_ID:
                    routes.append(Route(group, stream, index))
        found = tuple(routes)
        if len(topic) <= _CACHED_TOPIC:
            if len(self._cache) >= self._limit:
                self._cache.clear()
            self._cache[topic] = found
        return found
