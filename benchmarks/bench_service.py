"""`benchmarks/service.py` runs: once, small, as a test that its processes and its broker still work together.

pytest benchmarks/bench_service.py --benchmark-enable --benchmark-only

The daemon itself is started by many tests; here are the way without a model and the echo beside it.
"""

from __future__ import annotations

from benchmarks import service
from tests.support.mosquitto import Mosquitto


def test_messages_come_back_and_are_counted(benchmark, tmp_path) -> None:
    with Mosquitto(tmp_path, extra=["max_queued_messages 0"], log=False) as broker:
        port = broker.port

        def once() -> tuple[float, list[float]]:
            (seen, used), _ = service.run(service.path, port, 1, 400, lambda: service.burst(port, 1, 400))
            assert seen == 400
            _, took = service.run(service.echo, port, 0, 20, lambda: service.paced(port, 20, 0.001))
            return used, took

        used, took = benchmark.pedantic(once, rounds=1, warmup_rounds=0)
    assert used > 0
    assert len(took) == 20
    assert min(took) > 0
