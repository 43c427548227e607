"""The daemon's own counters, and the retained message that says how it is.

Counters are plain slot attributes: adding to one costs 0.04 µs, and only the daemon's thread writes them. The
message is a JSON object; its groups are flat, so that any dashboard can pick a number by a path:

    status        running, or what is wrong in a word: offline, blind, store
    lag_s         arrival time minus event time of the newest reading
    quiet_s       seconds since the last message from the broker

`blind` means: connected for five health intervals, and nothing has arrived in that time.
"""

from __future__ import annotations

import math
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import msgspec

from edge_rnn import __version__


@dataclass(slots=True)
class DaemonCounters:
    """What the daemon has done since its start.

    messages: from the broker; skipped: of those, older than another one of their topic when the daemon was
    behind (delivery "realtime"); refused: payloads that are no readings; unrouted: messages no stream wants;
    retained_ignored: stored messages of streams that do not want them; verdicts: made; scores, states:
    handed to the connection; events: written with a commit; errors: exceptions caught in a turn of the loop;
    fallbacks: of those, how often the streams went back to the last commit, see `intake.py`.
    """

    messages: int = 0
    skipped: int = 0
    refused: int = 0
    unrouted: int = 0
    retained_ignored: int = 0
    verdicts: int = 0
    scores: int = 0
    states: int = 0
    events: int = 0
    commits: int = 0
    commit_failures: int = 0
    reloads: int = 0
    reload_failures: int = 0
    errors: int = 0
    fallbacks: int = 0


def versions() -> dict[str, str]:
    """The versions that a report of a fault must name, of what is loaded: with libraries Numba is not."""
    found = {"edge_rnn": __version__, "python": platform.python_version()}
    for name, module in (("numba", "numba"), ("numpy", "numpy"), ("paho-mqtt", "paho.mqtt")):
        found[name] = str(getattr(sys.modules.get(module), "__version__", "not loaded"))
    return found


def encode(parts: Mapping[str, object]) -> bytes:
    """A health message as JSON; numbers that are not finite become null."""
    return msgspec.json.encode({key: _plain(value) for key, value in parts.items()})


def _plain(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if hasattr(value, "__dataclass_fields__"):
        return asdict(value)  # type: ignore[call-overload]
    return value
