"""The daemon's messages as the demo's watcher reads them."""

from __future__ import annotations

import msgspec

from edge_rnn.demo.ledger import SeenEvent, SeenScore


class _Score(msgspec.Struct):
    time_ns: int
    status: str
    score: float | None = None
    threshold: float | None = None
    alarm: bool = False
    shares: dict[str, float | None] = {}
    expected: dict[str, float | None] = {}
    faults: dict[str, str] = {}


class _Event(msgspec.Struct):
    type: str
    id: str
    kind: str
    shares: dict[str, float | None] = {}


def read_score(pump: str, payload: bytes, received_ns: int) -> SeenScore:
    """A score message of `pump` that came at `received_ns`."""
    said = msgspec.json.decode(payload, type=_Score)
    blamed = set(said.faults)
    if said.alarm:
        blamed |= {name for name, share in said.shares.items() if share is not None and share >= 0.5}
    return SeenScore(
        pump=pump,
        time_ns=said.time_ns,
        received_ns=received_ns,
        status=said.status,
        score=said.score,
        threshold=said.threshold,
        expected=said.expected,
        blamed=frozenset(blamed),
    )


def read_event(pump: str, payload: bytes, received_ns: int) -> SeenEvent:
    """An event message of `pump` that came at `received_ns`."""
    said = msgspec.json.decode(payload, type=_Event)
    return SeenEvent(pump, said.id, said.type, said.kind, received_ns, tuple(said.shares.items()))
