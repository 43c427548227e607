"""The library that most tests use: built once, for this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.aot.libraries import built


@pytest.fixture(scope="session")
def library() -> Path:
    """A library for the demo's model and this CPU."""
    return built()[0]
