"""`benchmarks/service.py` runs: once, small, as a test that its processes and its broker still work together.

pytest benchmarks/bench_service.py --benchmark-enable --benchmark-only
"""

from __future__ import annotations

from benchmarks import service
from tests.support import need


def test_every_kind_of_daemon_answers(benchmark) -> None:
    need.program("mosquitto")
    found = benchmark.pedantic(service.main, args=(400, 1, 0.1), rounds=1, warmup_rounds=0)
    assert len(found["us_per_message"]) == 6
    assert all(cost > 0 for cost in found["us_per_message"].values())
    assert set(found["latency_us"]) == {"echo", "daemon"}
