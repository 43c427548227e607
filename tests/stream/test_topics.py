"""Topic templates: what is matched, what the stream is called, what is refused."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import topic_matches_sub

from edge_rnn.errors import ConfigError
from edge_rnn.stream.topics import (
    MAX_ID,
    Route,
    Routes,
    Template,
    escape,
    split_id,
    stream_id,
    unescape,
)

# Any text a broker may deliver, and lone surrogates on top.
TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
LEVEL = st.sampled_from(["", "a", "b", "plant", "$SYS", "ä"])
PATTERN = st.sampled_from(["a", "b", "plant", "+", "{x}", "{y}", "{z}", ""])


def test_the_example() -> None:
    template = Template("plant/{site}/{machine}/vibration")
    assert template.subscription == "plant/+/+/vibration"
    assert template.fields == ("site", "machine")
    assert template.match("plant/rome/7/vibration") == {"site": "rome", "machine": "7"}
    assert stream_id("press", ["rome", "7"]) == "press/rome/7"


@pytest.mark.parametrize(
    ("text", "topic", "expected"),
    [
        ("a/b", "a/b", {}),
        ("a/b", "a/c", None),
        ("a/b", "a", None),
        ("a/b", "a/b/c", None),
        ("a/{x}", "a/", None),
        ("a/+", "a/", {}),
        ("a/+/{x}", "a/q/r", {"x": "r"}),
        ("a/#", "a", {}),
        ("a/#", "a/b/c", {}),
        ("{x}/#", "a", {"x": "a"}),
        ("{x}/#", "a/b/c", {"x": "a"}),
        ("#", "a/b", {}),
        ("#", "$SYS/x", None),
        ("+/x", "$SYS/x", None),
        ("{a}/x", "$SYS/x", None),
        ("$SYS/{a}", "$SYS/x", {"a": "x"}),
        ("/a/{x}", "/a/b", {"x": "b"}),
        ("a//{x}", "a//b", {"x": "b"}),
    ],
)
def test_matches(text: str, topic: str, expected: dict[str, str] | None) -> None:
    assert Template(text).match(topic) == expected


@given(st.lists(PATTERN, min_size=1, max_size=5), st.booleans(), st.lists(LEVEL, min_size=1, max_size=6))
def test_matching_agrees_with_an_independent_matcher(
    pattern: list[str], rest: bool, levels: list[str]
) -> None:
    fields = [p for p in pattern if p.startswith("{")]
    if len(set(fields)) != len(fields) or pattern == [""]:
        return
    template = Template("/".join([*pattern, *["#"] * rest]))
    topic = "/".join(levels)
    values = template.match(topic)
    if values is not None:
        assert topic_matches_sub(template.subscription, topic)
        assert all(values.values())
    elif topic_matches_sub(template.subscription, topic):
        # The one difference: a field is never empty.
        assert any(p.startswith("{") and not level for p, level in zip(pattern, levels, strict=False))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "expected 1 to 65535 bytes"),
        ("a\0b", "NUL"),
        ("a" * 70_000, "65535"),
        ("a/{}/b", "neither text nor a field"),
        ("a/{x y}", "neither text nor a field"),
        ("a/{1}", "neither text nor a field"),
        ("a/sensor-{id}", "a field is a whole level"),
        ("a/{x", "neither text nor a field"),
        ("{x}/{x}", "stands there twice"),
        ("a/#/b", "'#' only the last one"),
        ("a/b+", "a wildcard is a whole level"),
        ("a/b#", "a wildcard is a whole level"),
        ("$share/g/a", "$share"),
        ("a/\ud800", "UTF-8"),
    ],
)
def test_bad_templates(text: str, word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Template(text)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@given(TEXT)
def test_any_text_becomes_one_safe_level_and_comes_back(value: str) -> None:
    level = escape(value)
    assert unescape(level) == value
    level.encode()
    assert not set("/+#\0") & set(level)
    assert all(ord(c) >= 0x20 and not 0x7F <= ord(c) < 0xA0 for c in level)


@given(st.lists(TEXT, max_size=4), st.lists(TEXT, max_size=4))
def test_ids_are_equal_only_for_equal_keys(a: list[str], b: list[str]) -> None:
    assert (stream_id("g", a) == stream_id("g", b)) == (a == b)
    assert split_id(stream_id("g", a)) == ("g", tuple(a))


def test_what_is_readable_stays_readable() -> None:
    assert escape("Förderband 7.b") == "Förderband 7.b"
    assert escape("a/b+c#d%e\0") == "a%2Fb%2Bc%23d%25e%00"
    assert unescape("%zz%4%FF") == "%zz%4%FF"


def test_routes_of_overlapping_groups_and_of_several_topics() -> None:
    routes = Routes(
        {
            "press": [Template("plant/{s}/{m}/vib"), Template("temp/{m}/{s}")],
            "all": [Template("plant/#")],
        }
    )
    assert routes.subscriptions == ("plant/+/+/vib", "temp/+/+", "plant/#")
    assert routes.match("plant/rome/7/vib") == (
        Route("press", "press/rome/7", 0),
        Route("all", "all", 0),
    )
    assert routes.match("temp/7/rome") == (Route("press", "press/rome/7", 1),)
    assert routes.match("other") == ()
    # From the cache.
    assert routes.match("temp/7/rome") == (Route("press", "press/rome/7", 1),)


def test_templates_of_one_group_need_the_same_fields() -> None:
    with pytest.raises(ConfigError, match="different fields"):
        Routes({"g": [Template("a/{x}"), Template("b/{y}")]})
    with pytest.raises(ConfigError, match="at least one topic"):
        Routes({"g": []})


def test_a_flood_of_topics_cannot_grow_memory() -> None:
    routes = Routes({"g": [Template("a/{x}")]}, cache=100)
    for i in range(1000):
        assert routes.match(f"a/{i}") == (Route("g", f"g/{i}", 0),)
        assert len(routes._cache) <= 100
    before = len(routes._cache)
    assert routes.match("a/" + "y" * 600)
    assert len(routes._cache) == before


def test_an_id_too_long_has_no_route() -> None:
    routes = Routes({"g": [Template("a/{x}")]})
    assert routes.match("a/" + "x" * (MAX_ID - 2))
    assert routes.match("a/" + "x" * (MAX_ID - 1)) == ()
    assert routes.match("a/" + "\x01" * (MAX_ID // 2)) == ()
    assert all(c in string.printable for c in routes.match("a/\x01")[0].stream)
