"""Which of the configured fields the payloads have, and what else is in them.

A payload without one of its fields is no mistake by itself (a channel that is not there keeps its last
value), so a misspelt path refuses nothing: the stream waits for that channel for ever. What tells is that it
was in none of the payloads. Where a field that nobody asked for has a name much like it, that is a failure.
"""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict
from collections.abc import Iterator

from edge_rnn.errors import printable
from edge_rnn.service.codec import Decoder
from edge_rnn.service.mqtt import Delivery
from edge_rnn.service.pipeline import Pipeline
from edge_rnn.stream.types import Message
from edge_rnn.watch.finding import Finding
from edge_rnn.watch.survey import leaves

_SHOWN = 12
_MOST_NAMES = 256
_LEAST_PART = 3


class Fields:
    """What the messages of each route had in them.

    Args:
        pipeline: whose routes and decoders.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._heard: Counter[tuple[str, int]] = Counter()
        self._found: Counter[tuple[str, int]] = Counter()
        self._names: defaultdict[tuple[str, int], Counter[str]] = defaultdict(Counter)

    def take(self, delivery: Delivery, messages: list[Message]) -> None:
        """Note one delivery and the values that were found in it."""
        found = {(m.stream.split("/", 1)[0], channel) for m in messages for channel in m.channels}
        self._found.update(found)
        for route in self._pipeline.routes.match(delivery.topic):
            way = (route.group, route.extractor)
            decoding = self._pipeline.decoders[route.group][route.extractor]
            names = {name for name, _ in leaves(decoding.look(delivery.payload))}
            if names or any((route.group, channel) in found for channel in decoding.channels):
                self._heard[way] += 1
            known = self._names[way]
            known.update(name for name in names if name in known or len(known) < _MOST_NAMES)

    def judge(self, seconds: float) -> Iterator[Finding]:
        """One finding for each channel that was in no message, where there were any of its stream."""
        for group, decoders in self._pipeline.decoders.items():
            if not any(self._heard[group, place] for place in range(len(decoders))):
                continue
            for place, decoding in enumerate(decoders):
                for index, channel in enumerate(decoding.channels):
                    if self._found[group, channel]:
                        continue
                    # A field that is there in payloads that are all refused is not what is wrong with them.
                    taken = any(self._found[group, other] for other in decoding.channels)
                    if taken or not self._names[group, place][decoding.fields[index].path]:
                        yield self._missing(group, place, decoding, index, seconds)

    def _missing(self, group: str, place: int, decoding: Decoder, index: int, seconds: float) -> Finding:
        field = decoding.fields[index]
        name = self._pipeline.models[group].inputs[field.channel]
        heard, names = self._heard[group, place], self._names[group, place]
        if not heard:
            return Finding(
                "channel", "warn", f"{group}: nothing for {name!r} in {seconds:g} s, unlike the other topics",
                "check this channel's topic; --for listens longer", {"found": 0, "messages": 0},
            )  # fmt: skip
        what = f"the field {field.path!r}" if field.path else f"column {field.column}"
        text = f"{group}: {what} of channel {name!r} is in 0 of {heard:,} messages"
        if names[field.path]:
            text = f"{group}: {what} of channel {name!r} has no value in any of {heard:,} messages"
        elif names:
            there = sorted(names, key=lambda n: (-names[n], n))
            rest = f" and {len(there) - _SHOWN} more" if len(there) > _SHOWN else ""
            text += f", which have {', '.join(there[:_SHOWN])}{rest}"
        taken = {f.path for f in decoding.fields}
        near = "" if names[field.path] else _near(field.path, [n for n in names if n not in taken])
        remedy = f'did you mean path = "{near}"?' if near else "correct the channel's path, column or topic"
        return Finding(
            "channel", "fail" if near else "warn", printable(text), printable(remedy),
            {"found": 0, "messages": heard},
        )  # fmt: skip


def _near(field: str, names: list[str]) -> str:
    """The name that was perhaps meant, or an empty text."""
    lower = {name.lower(): name for name in names}
    wanted = field.lower()
    close = difflib.get_close_matches(wanted[:64], list(lower), n=1, cutoff=0.6)
    last = wanted.rsplit(".", 1)[-1]
    for name in sorted(lower, key=len):
        part = name.rsplit(".", 1)[-1]
        if min(len(part), len(last)) >= _LEAST_PART and (part.startswith(last) or last.startswith(part)):
            close.append(name)
    return lower[close[0]] if close else ""
