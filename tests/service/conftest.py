"""What the tests of the daemon share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.service.test_daemon import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """Makes daemons on a bench, in the test's folder or another; those that are left open are closed."""
    made: list[Bench] = []

    def make(folder: Path = tmp_path, **changes: object) -> Bench:
        made.append(Bench(folder, **changes))
        return made[-1]

    yield make
    for one in made:
        if one.daemon.running.store._connection is not None:
            one.close()
