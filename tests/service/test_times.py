"""Event times: units found by size, exact where they can be, refused otherwise."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_rnn.errors import DecodeError
from edge_rnn.files.config_types import TimeUnit
from edge_rnn.service.times import TimeReader, iso_to_ns

NS = 1_763_700_000_123_456_789


@pytest.mark.parametrize(
    ("value", "unit", "ns"),
    [
        (1_763_700_000, "s", 1_763_700_000_000_000_000),
        (1_763_700_000.123, "s", 1_763_700_000_123_000_000),
        (1_763_700_000_123, "ms", 1_763_700_000_123_000_000),
        (1_763_700_000_123_456, "us", 1_763_700_000_123_456_000),
        (NS, "ns", NS),
        ("2025-11-21T04:40:00.123456789Z", "iso8601", NS),
    ],
)
def test_the_unit_is_found_by_size(value: object, unit: TimeUnit, ns: int) -> None:
    assert TimeReader().read(value) == ns
    assert TimeReader(unit).read(value) == ns


def test_one_strange_time_does_not_change_what_the_next_one_means() -> None:
    reader = TimeReader()
    assert reader.read(3 * 10**17) == 3 * 10**17  # a sender whose clock is years off, in nanoseconds
    assert reader.read(1_763_700_000) == 1_763_700_000 * 10**9


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31T12:00:00Z",
        "2026-01-31 12:00:00",
        "2026-01-31T14:00+02:00",
        "2026-01-31T06:30:00.000-0530",
        "2026-01-31T12:00:00,0 +00:00",
    ],
)
def test_iso_forms(text: str) -> None:
    assert iso_to_ns(text) == int(datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp()) * 10**9


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2200, 1, 1), timezones=st.just(UTC)))
def test_iso_is_exact(moment: datetime) -> None:
    whole = moment - datetime(1970, 1, 1, tzinfo=UTC)
    exact = (whole.days * 86_400 + whole.seconds) * 10**9 + whole.microseconds * 1000
    assert iso_to_ns(moment.isoformat()) == exact
    if exact >= 10**17:
        assert TimeReader().read(exact) == exact


@pytest.mark.parametrize(
    "value",
    [
        5,
        0,
        -1,
        1e7,
        float("nan"),
        float("inf"),
        2**63,
        10**30,
        1e300,
        True,
        None,
        [],
        "noon",
        "2026-02-30T00:00:00Z",
        "1969-12-31T23:59:59Z",
        "9999-01-01T00:00:00Z",
        "2026-01-01T25:00Z",
        "2026-01-01T00:00+99:99",
        "1763700000",
        "",
    ],
)
def test_what_is_no_moment_is_refused(value: object) -> None:
    with pytest.raises(DecodeError, match="time: "):
        TimeReader().read(value)


def test_a_value_of_another_kind_than_configured_is_refused() -> None:
    with pytest.raises(DecodeError, match="expected a number in ms"):
        TimeReader("ms").read("2026-01-31T12:00:00Z")
    with pytest.raises(DecodeError, match="expected ISO 8601"):
        TimeReader("iso8601").read(1_763_700_000)


def test_a_given_unit_takes_small_values() -> None:
    assert TimeReader("ms").read(5) == 5_000_000
    assert TimeReader("s").read(0.25) == 250_000_000
