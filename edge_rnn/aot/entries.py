"""All compiled functions that Python calls, of all rooms: what a library holds."""

from __future__ import annotations

from edge_rnn.core.entries import ENTRIES as CORE
from edge_rnn.detect.entries import ENTRIES as DETECT

ENTRIES = (*CORE, *DETECT)


def symbol(name: str) -> str:
    """The name of an entry's function in a library."""
    return f"edge_rnn_{name}"
