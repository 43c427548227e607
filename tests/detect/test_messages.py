"""What a caller reads who passed something else than a reading: names, shape, the way of a reading."""

from __future__ import annotations

import pytest

import edge_rnn
from tests.support import need

MODEL = edge_rnn.load(need.ROOT / "edge_rnn" / "demo" / "pump.safetensors")
THREE = r"3 readings \(vibration, temperature, pressure\)"


@pytest.mark.parametrize(
    ("x", "present", "expected"),
    [
        ([1.0, 2.0], None, f"x: expected {THREE}, got shape \\(2,\\)"),
        ([[1.0, 2.0, 3.0]], None, f"x: expected {THREE}, got shape \\(1, 3\\)"),
        ({"vibration": 1.0}, None, f"x: expected {THREE}, got dict"),
        (["a", "b", "c"], None, f"x: expected {THREE}, got list"),
        ([1.0, 2.0, 3.0], [True], f"present: expected one flag for each of {THREE}, got shape \\(1,\\)"),
    ],
)
def test_a_detector_names_the_channels_it_expects(x, present, expected: str) -> None:
    detector = edge_rnn.Detector(MODEL)
    with pytest.raises(ValueError, match=expected):
        detector.step(x, 1, present)


@pytest.mark.parametrize("readings", [[[2.4, 51.2, 6.9]], [(1,)], [7], [([2.4, 51.2, 6.9], 1)]])
def test_score_says_what_a_reading_is(readings) -> None:
    with pytest.raises(ValueError, match=r"readings\[0\]: .*; a reading is \(time_ns, values\[, present\]\)"):
        edge_rnn.score(MODEL, b"", readings)


def test_score_says_what_a_new_stream_starts_from() -> None:
    with pytest.raises(ValueError, match='state: expected bytes, b"" for a new stream, got NoneType'):
        edge_rnn.score(MODEL, None, [(1, [2.4, 51.2, 6.9])])


def test_a_bad_reading_is_named_by_its_place() -> None:
    with pytest.raises(ValueError, match=r"readings\[1\]: time_ns: expected later"):
        edge_rnn.score(MODEL, b"", [(5, [2.4, 51.2, 6.9]), (5, [2.4, 51.2, 6.9])])
