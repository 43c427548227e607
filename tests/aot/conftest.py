"""The library that most tests use: built once, for this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.aot.libraries import built


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library for the demo's model and this CPU."""
    return built(tmp_path_factory.mktemp("library") / "native")
