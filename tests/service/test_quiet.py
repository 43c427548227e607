"""Mutes, acknowledgements and commands."""

from __future__ import annotations

import json
import random

import pytest

from edge_rnn.service.control import Control
from edge_rnn.service.event_shape import BeforeAfter
from edge_rnn.service.quiet import Quiet
from edge_rnn.stream.types import Event
from tests.support.payloads import mutate


def event(kind="open", name: str = "e1", stream: str = "pumps/1", score: float = 5.0) -> Event:
    return Event(
        type=kind, id=name, stream=stream, kind="anomaly", start_ns=10**18, time_ns=10**18 + 5,
        end_ns=10**18 + 5 if kind == "close" else None, score=score, threshold=4.0, peak=score,
        peak_ns=10**18,
        shares=(("vib", 0.8), ("temp", float("nan"))),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["pumps/1", "pumps", "*"])
def test_a_mute_holds_back_and_tells_what_is_still_open_at_its_end(name) -> None:
    quiet = Quiet()
    quiet.mute(name, 100)
    assert not quiet.allows(event(), 50)
    assert not quiet.allows(event("update", score=7.0), 60)
    assert not quiet.allows(event(name="e2"), 60)
    assert not quiet.allows(event("close", name="e2"), 70)
    assert quiet.due(99) == []
    (told,) = quiet.due(100)
    assert (told.type, told.id, told.score) == ("open", "e1", 7.0)
    assert quiet.allows(event("close"), 101)
    assert quiet.due(102) == []
    assert quiet.mutes == {}


def test_the_end_of_an_event_that_was_told_is_told_after_the_mute() -> None:
    quiet = Quiet()
    assert quiet.allows(event(), 10)
    assert quiet.allows(event(name="e2"), 10)
    quiet.mute("pumps", 100)
    assert not quiet.allows(event("update", name="e2"), 50)
    assert not quiet.allows(event("close"), 50)
    assert [(e.type, e.id) for e in quiet.due(100)] == [("update", "e2"), ("close", "e1")]
    assert quiet.allows(event("close", name="e2"), 110)


def test_other_streams_are_told_and_a_mute_can_be_ended() -> None:
    quiet = Quiet()
    quiet.mute("pumps/1", 100)
    assert quiet.allows(event(stream="pumps/2"), 50)
    assert not quiet.allows(event(), 50)
    assert quiet.unmute("pumps/1")
    assert not quiet.unmute("pumps/1")
    assert [e.id for e in quiet.due(51)] == ["e1"]


def test_acknowledged_events_wake_nobody_until_they_close() -> None:
    quiet = Quiet()
    quiet.acknowledge("e1")
    assert not quiet.wakes(event("update"))
    assert quiet.wakes(event("update", name="e2"))
    assert quiet.allows(event("close"), 5)
    assert quiet.wakes(event())


def test_mutes_and_acknowledgements_survive_a_restart_and_bad_texts_do_not_matter() -> None:
    quiet = Quiet()
    quiet.mute("pumps", 100)
    quiet.acknowledge("e1")
    other = Quiet()
    other.load(quiet.text())
    assert other.mutes == {"pumps": 100}
    assert not other.wakes(event())
    for text in ("", "{}", "[1]", '{"mutes": 3, "acknowledged": []}', "\x00"):
        other.load(text)
    assert other.mutes == {"pumps": 100}


def test_what_a_mute_holds_back_survives_a_restart() -> None:
    quiet = Quiet()
    assert quiet.allows(event(name="told"), 10)
    quiet.mute("pumps", 100)
    quiet.text()
    quiet.changed = False
    assert not quiet.allows(event(name="new", score=6.0), 50)
    assert not quiet.allows(event("close", name="told"), 60)
    assert quiet.changed
    other = Quiet()
    other.load(quiet.text())
    # A repeat, as after a crash, changes nothing about that.
    assert not other.allows(event("update", name="new", score=8.0), 70)
    found = sorted(repr(e) for e in other.due(100))
    assert found == sorted([repr(event("close", name="told")), repr(event("open", name="new", score=8.0))])
    last = Quiet()
    last.load(other.text())
    assert last.due(200) == []


def test_an_event_that_closes_in_a_mute_after_a_restart_is_told_to_nobody() -> None:
    quiet = Quiet()
    quiet.mute("*", 100)
    assert not quiet.allows(event(), 50)
    other = Quiet()
    other.load(quiet.text())
    assert not other.allows(event("close"), 60)
    assert other.due(100) == []


def test_memory_is_bounded() -> None:
    quiet = Quiet()
    for number in range(5000):
        quiet.acknowledge(f"e{number}")
    assert len(quiet.acknowledged) == 1000
    for number in range(1000):
        quiet.mute(f"s/{number}", 100)
    with pytest.raises(ValueError, match="at most 1000 mutes"):
        quiet.mute("s/x", 100)
    for number in range(5000):
        quiet.allows(event(name=f"e{number}", stream="s/1"), 50)
    assert len(quiet.due(100)) == 1000


# ---- commands


class Actions:
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.writable: bool | None = True

    def has(self, name: str) -> bool:
        return name in ("pumps", "pumps/1")

    def knows(self, event: str) -> bool:
        return event in ("e1", "1700000000-anomaly-00ff")

    def reset(self, stream: str) -> bool:
        self.calls.append(f"reset {stream}")
        return stream == "pumps/1"

    def commit(self) -> bool | None:
        self.calls.append("commit")
        return self.writable

    def reload(self) -> None:
        self.calls.append("reload")


@pytest.fixture
def control():
    actions = Actions()
    quiet = Quiet()
    made = Control(quiet, actions, lambda: 1_700_000_000 * 10**9)
    made.actions, made.quiet = actions, quiet  # type: ignore[attr-defined]
    return made


def ask(control: Control, **command) -> dict:
    return json.loads(control.take(json.dumps(command).encode())[0])


def test_commands_are_carried_out_and_answered(control) -> None:
    assert ask(control, command="commit", id="x7") == {
        "id": "x7", "command": "commit", "ok": True, "error": None, "time": "2023-11-14T22:13:20Z",
    }  # fmt: skip
    assert ask(control, command="reload")["ok"]
    assert ask(control, command="reset", stream="pumps/1")["ok"]
    assert ask(control, command="mute", stream="pumps", **{"for": "1h"})["ok"]
    assert ask(control, command="mute", stream="*", **{"for": "5m"})["ok"]
    assert ask(control, command="unmute", stream="*")["ok"]
    assert ask(control, command="acknowledge", event="e1")["ok"]
    assert control.actions.calls == ["commit", "reload", "reset pumps/1"]
    assert control.quiet.mutes == {"pumps": (1_700_000_000 + 3600) * 10**9}
    assert list(control.quiet.acknowledged) == ["e1"]
    assert (control.done, control.refused) == (7, 0)


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"", "expected a command such as"),
        (b"[]", "expected a command such as"),
        (b'{"command": "comit"}', "got 'comit'; did you mean \"commit\"?"),
        (b'{"command": "commit", "x": 1}', "unknown field"),
        (b'{"command": "commit", "stream": "a"}', "commit: expected no 'stream'"),
        (b'{"command": "mute", "stream": "pumps"}', "mute: expected 'for', got nothing"),
        (b'{"command": "mute", "stream": "pumps", "for": "1 hour"}', "for: expected a duration"),
        (b'{"command": "mute", "stream": "pumps", "for": "400d"}', "for: expected a duration"),
        (b'{"command": "mute", "stream": "x", "for": "1h"}', "stream: expected one that there is, got 'x'"),
        (b'{"command": "unmute", "stream": "pumps"}', "expected one that is muted"),
        (b'{"command": "reset", "stream": "pumps"}', "expected a stream, got the group"),
        (b'{"command": "reset", "stream": "*"}', "expected one that there is"),
        (b'{"command": "acknowledge"}', "expected 'event', got nothing"),
        (
            b'{"command": "acknowledge", "event": "e9"}',
            "event: expected the id of one that is open, got 'e9'",
        ),
        (b'{"command": "commit"}' + b" " * 5000, "at most 4096 bytes"),
        (b'{"command": "\\u001b[31m"}', "command: expected one of"),
        (b"[" * 3000, "expected a command such as"),
    ],
)
def test_what_is_no_command_is_answered_with_what_was_expected(control, payload, expected) -> None:
    reply, kind, line = control.take(payload)
    found = json.loads(reply)
    assert not found["ok"]
    assert kind == "refused"
    assert expected in found["error"]
    assert line.isprintable()
    assert control.actions.calls in ([], ["reset pumps"])


def test_a_commit_that_fails_is_said(control) -> None:
    control.actions.writable = False
    assert "cannot be written" in ask(control, command="commit")["error"]


def test_a_commit_that_nobody_knows_of_yet_is_said(control) -> None:
    control.actions.writable = None
    reply = ask(control, command="commit")
    assert not reply["ok"]
    assert "not committed yet" in reply["error"]


def test_fuzz_commands_are_answered_whatever_they_are(control) -> None:
    seeds = [
        b'{"command": "mute", "stream": "pumps/1", "for": "1h", "id": "a"}',
        b'{"command": "acknowledge", "event": "1700000000-anomaly-00ff"}',
        b'{"command": "reset", "stream": "pumps/1"}',
        b'{"command": "commit"}',
    ]
    source = random.Random(4)
    accepted = 0
    control.actions.knows = lambda _event: True
    kinds: set[str] = set()
    for number in range(20_000):
        reply, kind, line = control.take(mutate(seeds[number % 4], source))
        kinds.add(kind)
        assert line.isprintable()
        assert len(line) < 1000
        accepted += json.loads(reply)["ok"]
    assert accepted > 250
    assert control.refused > 10_000
    assert len(control.quiet.mutes) <= 2
    # What the log sums up by: a handful, whatever is sent.
    assert kinds <= {"refused", "acknowledge", "mute", "unmute", "reset", "commit", "reload"}


# ---- before and after


def test_events_as_before_and_after() -> None:
    shape = BeforeAfter()
    first = json.loads(shape.payload(event()))
    assert (first["type"], first["before"]) == ("new", None)
    after = first["after"]
    assert (after["id"], after["start_time"], after["end_time"]) == ("e1", 1e9, None)
    assert after["shares"] == {"vib": 0.8, "temp": None}
    second = json.loads(shape.payload(event("update", score=9.0)))
    assert (second["type"], second["before"]) == ("update", after)
    last = json.loads(shape.payload(event("close")))
    assert (last["type"], last["before"]) == ("end", second["after"])
    assert last["after"]["end_time"] == (10**18 + 5) / 1e9
    assert json.loads(shape.payload(event("update")))["before"] is None
