"""What a compiled detector is kept under must name every file it was made of."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edge_rnn import detect
from edge_rnn.detect import loop

ROOM = Path(detect.__file__).parent
JITTED = sorted(
    p for p in ROOM.glob("*.py") if re.search(r"^\s*@(jit|inlined)\b|= jit\(", p.read_text(), re.M)
)


def test_every_jitted_file_is_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file left out would leave old machine code in use after a change to it."""
    named: list[str] = []

    def digest(*paths: str) -> str:
        named.extend(paths)
        return ""

    monkeypatch.setattr(loop, "source_digest", digest)
    loop._sources()
    assert len(JITTED) > 10
    assert {p.name for p in JITTED} <= {Path(path).name for path in named}
