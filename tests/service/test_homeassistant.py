"""What Home Assistant is told, in the form its MQTT integration documents (device discovery payload).

https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload: `dev` and `o` are mandatory, each
entry of `cmps` needs `p` and `unique_id`; a component is removed by sending it with `p` alone, a device by
an empty retained payload.
"""

from __future__ import annotations

import json
import re

from edge_rnn.files.config_types import HomeAssistantConfig
from edge_rnn.service.homeassistant import Discovery, object_id

TOPIC = "homeassistant/device/er_pumps/config"


def discovery(announced=(), most: int = 100, **groups: str) -> Discovery:
    config = HomeAssistantConfig(max_streams=most)
    return Discovery(config, "er", groups or {"pumps": "gru"}, "0.1.0", announced)


def test_one_message_for_a_group_with_three_entities_a_stream() -> None:
    made = discovery()
    assert made.due() == []
    made.see("pumps/pump1")
    made.see("pumps/pump2")
    made.see("pumps/pump1")
    made.see("others/x")
    ((topic, payload),) = made.due()
    assert topic == TOPIC
    assert made.due() == []
    found = json.loads(payload)
    assert found["dev"]["ids"] == "er_pumps"
    assert {"name", "sw"} <= set(found["o"])
    assert found["availability"] == [{"topic": "er/status"}]
    assert len(found["cmps"]) == 6
    assert all({"p", "unique_id"} <= set(entity) for entity in found["cmps"].values())
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", name) for name in found["cmps"])
    by_state = {
        e["unique_id"].rpartition("_")[2]: e for e in found["cmps"].values() if "pump2" in e["unique_id"]
    }
    assert by_state["anomaly"]["p"] == "binary_sensor"
    assert by_state["anomaly"]["device_class"] == "problem"
    assert by_state["anomaly"]["state_topic"] == "er/pumps/pump2/state"
    assert by_state["score"]["p"] == "sensor"
    assert by_state["score"]["state_topic"] == "er/pumps/pump2/score"


def test_announced_again_on_birth_and_only_the_one_that_failed() -> None:
    made = discovery(a="m", b="m")
    made.see("a")
    made.see("b/1")
    assert len(made.due()) == 2
    made.again()
    assert len(made.due()) == 2
    made.again("homeassistant/device/er_b/config")
    ((topic, _),) = made.due()
    assert topic == "homeassistant/device/er_b/config"
    assert made.birth == "homeassistant/status"


def test_a_stream_that_is_gone_is_taken_away_in_two_steps_and_the_last_one_with_the_device() -> None:
    made = discovery()
    made.see("pumps/1")
    made.see("pumps/2")
    made.due()
    made.forget("pumps/1")
    ((_, payload),) = made.due()
    components = json.loads(payload)["cmps"]
    gone = [entity for entity in components.values() if set(entity) == {"p"}]
    assert sorted(entity["p"] for entity in gone) == ["binary_sensor", "binary_sensor", "sensor"]
    ((_, payload),) = made.due()
    assert len(json.loads(payload)["cmps"]) == 3
    assert made.due() == []
    made.forget("pumps/2")
    assert made.due() == [(TOPIC, b"")]
    assert made.topics() == []


def test_what_could_not_be_sent_is_taken_away_the_next_time() -> None:
    made = discovery()
    made.see("pumps/1")
    made.see("pumps/2")
    made.due()
    made.forget("pumps/1")
    ((topic, lost),) = made.due()
    made.again(topic)
    assert made.due() == [(topic, lost)]
    ((_, payload),) = made.due()
    assert len(json.loads(payload)["cmps"]) == 3
    assert made.due() == []


def test_a_group_taken_out_of_the_configuration_is_removed() -> None:
    made = discovery(announced=[TOPIC, "homeassistant/device/er_old/config"])
    assert made.due() == [("homeassistant/device/er_old/config", b"")]
    made.see("pumps")
    made.due()
    assert made.topics() == [TOPIC]


def test_too_many_streams_are_left_out_and_counted() -> None:
    made = discovery(most=3)
    for number in range(10):
        made.see(f"pumps/{number}")
    ((_, payload),) = made.due()
    assert len(json.loads(payload)["cmps"]) == 9
    assert made.left_out == 7


def test_ids_have_only_the_characters_allowed_and_stay_distinct() -> None:
    names = ["a/b", "a_b", "a.b", "Ä", "Ö", "x" * 100, "x" * 101, "a%2Fb"]
    ids = [object_id(name) for name in names]
    assert len(set(ids)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", one) for one in ids)
