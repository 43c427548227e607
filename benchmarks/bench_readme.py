"""The README shows what the stored results hold, to the letter."""

from __future__ import annotations

import pytest

from benchmarks import readme
from edge_rnn.errors import EdgeRnnError


def test_the_readme_shows_the_stored_results() -> None:
    text = readme.README.read_text("utf-8")
    assert readme.filled(text, readme.blocks()) == text, "python -m benchmarks.readme --write"
    assert readme.PICTURE.read_bytes().startswith(b"\x89PNG")


def test_a_place_that_is_missing_is_named(tmp_path) -> None:
    with pytest.raises(EdgeRnnError, match="expected the places devices, peers"):
        readme.filled("no places", readme.blocks())
    with pytest.raises(EdgeRnnError, match="expected a stored run"):
        readme.newest_peers(tmp_path)
