"""A start from nothing and a warm one, each in a process of its own: `edge_rnn.bench.start`.

    pytest benchmarks/bench_start.py --benchmark-enable --benchmark-only

The figure that counts is in `extra_info`: milliseconds until the first score, and memory. The measured time
is that of both starts and of the copy they run in.
"""

from __future__ import annotations

import msgspec

from edge_rnn.bench.inputs import BUNDLED
from edge_rnn.bench.start import starts


def test_cold_and_warm_start(benchmark) -> None:
    found = benchmark.pedantic(starts, args=(BUNDLED,), rounds=1)
    benchmark.extra_info.update(msgspec.to_builtins(found))
    for one in (found.cold, found.warm):
        assert 0 < one.imported_ms <= one.ready_ms <= one.first_score_ms
        assert one.rss_kib <= one.peak_rss_kib
