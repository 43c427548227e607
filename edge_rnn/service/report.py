"""What the daemon says of itself: the health message, and a moment of it for metrics and readiness."""

from __future__ import annotations

from dataclasses import dataclass

from edge_rnn.service import health, outputs
from edge_rnn.service.blind import Blind
from edge_rnn.service.facts import Facts, Latest
from edge_rnn.service.intake import Intake
from edge_rnn.service.running import Running


@dataclass(slots=True)
class Report:
    """See the module; `turned` is the monotonic moment at which the data path last went round."""

    running: Running
    intake: Intake
    blind: Blind
    started: float
    turned: float

    def health(self) -> bytes:
        """The health message, as JSON; see `health.py`."""
        running = self.running
        link, pipeline, store = running.link, running.pipeline, running.store
        tls = pipeline.config.mqtt.tls
        now, wall = running.clock.monotonic(), running.clock.wall_ns()
        status = "store" if running.commits.error else "blind" if self.blind.is_now(now) else "running"
        return health.encode(
            {
                "time": outputs.iso(wall),
                "time_ns": wall,
                "status": status if link.connected else "offline",
                "uptime_s": now - self.started,
                "lag_s": self.intake.lag_ns / 1e9,
                "quiet_s": now - self.intake.heard,
                "clock_ahead_s": running.arrival.ahead_ns / 1e9,
                "streams": len(pipeline.engine),
                "daemon": running.counters,
                "engine": pipeline.engine.counters,
                "broker": {
                    "connected": link.connected,
                    "session_present": link.session_present,
                    "verified": None if tls is None else not tls.insecure,
                    **link.counters.as_dict(),
                },
                "store": {
                    "generation": store.generation,
                    "outbox": store.waiting(),
                    "unacknowledged": running.commits.waiting,
                    "error": running.commits.error,
                },
                "store_counters": store.counters,
                "models": {
                    name: {"name": m.name, "weights": m.digest} for name, m in pipeline.models.items()
                },
                "versions": health.versions(),
                **running.outlets.health(),
            }
        )

    def facts(self) -> Facts:
        """The daemon's present moment; called from the HTTP server's threads."""
        running = self.running
        link, pipeline, now = running.link, running.pipeline, running.clock.monotonic()
        problems = []
        if not link.connected:
            problems.append("not connected to the broker")
        elif not link.subscribed:
            problems.append("not subscribed yet")
        if running.commits.error:
            problems.append(f"the store cannot commit: {running.commits.error}")
        return Facts(
            counters={
                "daemon": running.counters,
                "engine": pipeline.engine.counters,
                "broker": link.counters.as_dict(),
                "store": running.store.counters,
            },
            gauges={
                "up": float(link.connected),
                "blind": float(self.blind.is_now(now)),
                "lag_seconds": self.intake.lag_ns / 1e9,
                "quiet_seconds": now - self.intake.heard,
                "uptime_seconds": now - self.started,
                "streams": len(pipeline.engine),
                "outbox": running.store.waiting(),
                "unacknowledged": running.commits.waiting,
            },
            latest=[
                Latest(v.stream, v.status, v.score, v.threshold, v.time_ns, v.faults)
                for v in pipeline.outputs.latest()
            ],
            problems=problems,
            stalled_s=now - self.turned,
        )
