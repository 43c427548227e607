"""What the daemon runs with at this moment, shared by the parts of its loop.

A reload replaces `pipeline` and `outlets`, and `link` where the broker has changed; all of it belongs to the
daemon's thread.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_rnn.service.clock import Arrival, Clock
from edge_rnn.service.commits import Commits
from edge_rnn.service.health import DaemonCounters
from edge_rnn.service.logs import Log
from edge_rnn.service.mqtt import Connection
from edge_rnn.service.outlets import Outlets
from edge_rnn.service.pipeline import Pipeline
from edge_rnn.service.store import Store


@dataclass(slots=True)
class Running:
    """See the module."""

    store: Store
    commits: Commits
    pipeline: Pipeline
    outlets: Outlets
    link: Connection
    arrival: Arrival
    clock: Clock
    journal: Log
    counters: DaemonCounters
