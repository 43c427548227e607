"""What readings go through when something is wrong: an engine that raises, a disk that hangs, commands."""

from __future__ import annotations

import json
import socket
import threading

import pytest

from edge_rnn.errors import StoreError
from tests.service.test_daemon import Bench, wait_reload
from tests.support.daemon import payload
from tests.support.mqtt_peer import wait_for

COMMANDS = "[commands]\n"


def engine_of(b: Bench):
    return b.daemon.running.pipeline.engine


def scores(b: Bench, stream: str) -> list[bytes]:
    return [data for topic, data, _ in b.link.sent if topic == f"er/press/{stream}/score"]


# ---- nothing is acknowledged that was not judged or refused


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_call_that_fails_once_leaves_no_trace_in_states_and_acknowledgements(
    bench, tmp_path, monkeypatch, where
) -> None:
    """Before anything was stepped, and after all of it was: then everything would be stepped twice."""
    b = bench(commit_every="3s")
    (tmp_path / "other").mkdir()
    undisturbed = bench(folder=tmp_path / "other", commit_every="3s")
    engine, fails = engine_of(b), [7]
    judge = engine.judge

    def failing(messages, now_ns):
        found = None if where == "before" else judge(messages, now_ns)
        fails[0] -= 1
        if fails[0] == 0:
            raise MemoryError("once")
        return judge(messages, now_ns) if found is None else found

    monkeypatch.setattr(engine, "judge", failing)
    for i in range(0, 60, 5):
        for one in (b, undisturbed):
            one.link.bring(*(payload(k, fault=k in (31, 32)) for k in range(i, i + 5)))
            one.turn(1)
    for one in (b, undisturbed):
        one.turn(5)
        one.turn(5)
    assert b.daemon.counters.fallbacks == 1
    assert len(b.link.acked) == len(undisturbed.link.acked) == 60
    # What had been published since the last commit comes twice, with the same bits; nothing else differs.
    assert sorted(set(scores(b, "7"))) == sorted(scores(undisturbed, "7"))
    ids = [{json.loads(d)["id"] for _, d in one.link.sure.values()} for one in (b, undisturbed)]
    assert ids[0] == ids[1] != set()
    rows = [one.daemon.running.pipeline.engine._slots["press/7"] for one in (b, undisturbed)]
    bits = [table.detector.snapshot(row) for table, row, _ in rows]
    assert bits[0] == bits[1]


def test_a_message_that_cannot_be_judged_is_refused_and_the_others_are_judged(bench, monkeypatch) -> None:
    b = bench(commit_every="100ms")
    engine = engine_of(b)
    judge = engine.judge

    def failing(messages, now_ns):
        found = judge(messages, now_ns)
        if any(stream == "press/9" and values[0] > 20 for stream, _, _, values in messages):
            raise ValueError("poison")
        return found

    monkeypatch.setattr(engine, "judge", failing)
    for i in range(6):
        b.link.bring(payload(i), topic="plant/7/all")
        b.link.bring(payload(i, fault=i == 3), topic="plant/9/all")
        b.turn(0.2)
        b.turn(0.2)
    b.turn(1)
    b.turn(1)
    b.turn(1)
    assert b.daemon.counters.refused == 1
    assert len(b.link.acked) == 12
    assert [json.loads(s)["n"] for s in dict.fromkeys(scores(b, "7"))] == [1, 2, 3, 4, 5, 6]
    # The stream goes on as if the message had never been.
    assert json.loads(scores(b, "9")[-1])["n"] == 5
    (line,) = (text for text in b.log.getvalue().splitlines() if "cannot be judged" in text)
    assert "topic=plant/9/all stream=press/9" in line
    assert b.daemon.counters.fallbacks == 1


def test_where_no_message_passes_none_is_refused(bench, monkeypatch) -> None:
    b = bench(commit_every="100ms")
    engine = engine_of(b)
    judge = engine.judge
    monkeypatch.setattr(engine, "judge", lambda *_: 1 / 0)
    for i in range(10):
        b.link.bring(payload(i))
        b.turn(0.5)
    assert b.link.acked == []
    assert b.daemon.counters.refused == 0
    monkeypatch.setattr(engine, "judge", judge)
    for _ in range(4):
        b.turn(1)
    assert len(b.link.acked) == 10
    assert [json.loads(s)["n"] for s in scores(b, "7")] == list(range(1, 11))


def test_what_is_kept_of_a_lost_connection_is_left_to_the_broker(bench, monkeypatch) -> None:
    b = bench(commit_every="100ms")
    engine = engine_of(b)
    judge = engine.judge
    monkeypatch.setattr(engine, "judge", lambda *_: 1 / 0)
    b.link.bring(payload(0), payload(1))
    b.turn(0.1)
    b.link.epoch += 1
    b.link.bring(payload(0), payload(1))
    monkeypatch.setattr(engine, "judge", judge)
    b.turn(2)
    b.turn(2)
    assert [json.loads(s)["n"] for s in scores(b, "7")] == [1, 2]
    assert len(b.link.acked) == 2


# ---- the order of arrival


def test_a_command_acts_after_the_readings_before_it_and_before_those_behind_it(bench) -> None:
    b = bench(stream=COMMANDS)
    b.link.bring(payload(0), payload(1), payload(2))
    b.link.bring('{"command": "reset", "stream": "press/7"}', topic="er/command")
    b.link.bring(payload(3), payload(4))
    together = [delivery for part in b.link.inbox for delivery in part]
    b.link.inbox.clear()
    b.link.inbox.append(together)
    b.turn(0)
    assert [json.loads(s)["n"] for s in scores(b, "7")] == [1, 2, 3, 1, 2]
    assert json.loads(b.topics("/command/reply")[-1])["ok"]


def test_only_an_event_that_is_open_can_be_acknowledged(bench) -> None:
    b = bench(stream=COMMANDS)
    b.link.bring(*(payload(i) for i in range(20)), payload(20, fault=True))
    b.turn(0)
    ((_, opened),) = b.link.sure.values()
    for name, known in ((json.loads(opened)["id"], True), ("1763700000-anomaly-00ff", False)):
        b.link.bring(json.dumps({"command": "acknowledge", "event": name}), topic="er/command")
        b.turn(0)
        reply = json.loads(b.topics("/command/reply")[-1])
        assert reply["ok"] is known
        assert known or name in reply["error"]


# ---- mutes and the daemon's own silence


def test_what_a_mute_has_held_back_is_told_after_a_restart(bench) -> None:
    b = bench(stream=COMMANDS)
    b.link.bring('{"command": "mute", "stream": "press", "for": "1h"}', topic="er/command")
    b.link.bring(*(payload(i) for i in range(20)), payload(20, fault=True))
    b.turn(0)
    b.turn(1)
    b.turn(1)
    assert b.link.sure == {}
    b.close()
    second = bench(stream=COMMANDS)
    second.turn(1)
    assert second.link.sure == {}
    second.turn(3601)
    second.turn(1)
    # Meanwhile the daemon has noticed that it hears nothing; that is an event of its own.
    ((topic, data),) = [told for told in second.link.sure.values() if told[0] != "er/event"]
    assert (topic, json.loads(data)["type"]) == ("er/press/7/event", "open")


class Ear:
    """A sink that listens."""

    def __init__(self) -> None:
        self.heard: list[dict] = []

    def wants(self, _kind: str, _stream: str) -> bool:
        return True

    def offer(self, body: bytes) -> None:
        self.heard.append(json.loads(body))

    def close(self, _timeout: float) -> None: ...


@pytest.mark.parametrize("muted", [False, True])
def test_the_daemons_own_silence_reaches_sinks_and_respects_a_mute_of_all(bench, muted) -> None:
    b = bench(health="1s", commit_every="100ms", stream=COMMANDS)
    ear = Ear()
    b.daemon.running.outlets._sinks.append(ear)
    if muted:
        b.link.bring('{"command": "mute", "stream": "*", "for": "1h"}', topic="er/command")
    for _ in range(12):
        b.turn(1)
    told = [data for topic, data in b.link.sure.values() if topic == "er/event"]
    assert (len(told), len(ear.heard)) == ((0, 0) if muted else (1, 1))
    assert muted or (ear.heard[0]["kind"], ear.heard[0]["stream"]) == ("silent", "")
    (line,) = (text for text in b.log.getvalue().splitlines() if "nothing has arrived" in text)
    # The topics that should have brought readings, and no other.
    assert "topics=plant/+/all" in line
    assert "command" not in line.partition("topics=")[2]
    b.daemon.running.outlets._sinks.clear()


# ---- the disk


class Disk:
    """A store whose commits wait until they are let go."""

    def __init__(self, b: Bench, monkeypatch) -> None:
        self.open = threading.Event()
        self.begun = 0
        self.error: Exception | None = None
        store = b.daemon.running.store
        commit = store.commit
        b.daemon.running.commits.patience_s = 0.01

        def slow(content):
            self.begun += 1
            assert self.open.wait(60)
            if self.error is not None:
                raise self.error
            return commit(content)

        monkeypatch.setattr(store, "commit", slow)


def test_a_disk_that_hangs_holds_up_acknowledgements_and_nothing_else(bench, monkeypatch) -> None:
    b = bench(commit_every="1s")
    disk = Disk(b, monkeypatch)
    b.link.bring(*(payload(i) for i in range(20)), payload(20, fault=True))
    b.turn(0)
    for i in range(21, 31):
        b.link.bring(payload(i))
        b.turn(1.5)
    assert len(scores(b, "7")) == 31
    assert b.link.acked == []
    assert b.link.sure == {}
    assert disk.begun == 1
    assert json.loads(b.daemon.health())["store"]["unacknowledged"] == 31
    disk.open.set()
    wait_for(b.daemon.running.commits._flight.done.is_set, "the commit")
    b.turn(0)
    # What was in it is acknowledged and told; what came later waits for its own.
    assert len(b.link.acked) >= 21
    b.daemon.running.commits.patience_s = 60
    b.turn(2)
    b.turn(2)
    assert len(b.link.acked) == 31
    assert [json.loads(d)["type"] for _, d in b.link.sure.values()][:1] == ["open"]


def test_a_slow_commit_that_fails_comes_again_with_what_has_come_since(bench, monkeypatch) -> None:
    b = bench(commit_every="1s")
    disk = Disk(b, monkeypatch)
    b.link.bring(*(payload(i) for i in range(20)), payload(20, fault=True))
    b.turn(0)
    b.link.bring(*(payload(i) for i in range(21, 30)))
    b.turn(2)
    disk.error = StoreError("full")
    disk.open.set()
    wait_for(b.daemon.running.commits._flight.done.is_set, "the commit")
    b.turn(0)
    assert b.link.acked == []
    assert "full; trying again" in b.log.getvalue()
    disk.error = None
    b.daemon.running.commits.patience_s = 60
    b.turn(1.1)
    b.turn(1.1)
    assert len(b.link.acked) == 30
    assert [json.loads(d)["type"] for _, d in b.link.sure.values()] == ["open", "close"]
    events = b.daemon.running.store.events()
    assert [e.type for e in events] == ["close"]


def test_a_reload_waits_for_a_slow_disk_and_loses_nothing_that_comes_meanwhile(bench, monkeypatch) -> None:
    b = bench(commit_every="1h")
    disk = Disk(b, monkeypatch)
    b.link.bring(payload(0))
    b.turn(0)
    b.daemon.reload()

    def under_way() -> bool:
        b.turn(0)
        return b.daemon.running.commits.flying

    wait_for(under_way, "the reload's commit", 120)
    b.link.bring(payload(1))
    b.turn(0)
    assert b.daemon.counters.reloads == 0
    disk.open.set()

    def ended() -> bool:
        b.turn(0)
        return b.daemon.counters.reloads > 0

    wait_for(ended, "the reload")
    b.daemon.running.commits.patience_s = 60
    b.link.bring(payload(2))
    b.turn(0)
    assert [json.loads(s)["n"] for s in scores(b, "7")] == [1, 2, 3]
    assert b.daemon.commit()
    assert len(b.link.acked) == 3


def test_a_reload_is_refused_while_nothing_can_be_committed(bench, monkeypatch) -> None:
    b = bench(commit_every="1h")

    def full(_content):
        raise StoreError("full")

    b.link.bring(payload(0))
    b.turn(0)
    with monkeypatch.context() as patch:
        patch.setattr(b.daemon.running.store, "commit", full)
        wait_reload(b)
    assert b.daemon.counters.reload_failures == 1
    assert "the states cannot be committed" in b.log.getvalue()


# ---- the watchdog


@pytest.fixture
def manager(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.bind(str(tmp_path / "notify"))
        one.settimeout(0.2)
        yield one


def fed(manager: socket.socket) -> bool:
    """Whether the watchdog has been fed since the last call."""
    found = False
    while True:
        try:
            found = manager.recv(1000) == b"WATCHDOG=1" or found
        except TimeoutError:
            return found


def watched(bench, tmp_path, **changes) -> Bench:
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000000"}
    return bench(environment=environment, **changes)


@pytest.mark.parametrize("how", ["hangs", "fails"])
def test_the_watchdog_is_not_fed_while_readings_wait_for_a_store_that_does_nothing(
    bench, tmp_path, manager, monkeypatch, how
) -> None:
    b = watched(bench, tmp_path, commit_every="100ms", health="60s")
    disk = Disk(b, monkeypatch)
    if how == "fails":
        disk.error = StoreError("full")
        disk.open.set()
        b.daemon.running.commits.patience_s = 60
    b.link.bring(payload(0))
    b.turn(0.2)
    b.turn(10.1)
    assert fed(manager)  # one reading was judged
    for _ in range(3):
        b.turn(10.1)
    fed(manager)
    b.turn(10.1)
    assert not fed(manager)
    # Judged readings are progress, whatever the disk does.
    b.link.bring(payload(1))
    b.turn(10.1)
    assert fed(manager)
    b.daemon.running.commits.patience_s = 60
    disk.error = None
    disk.open.set()

    def acknowledged() -> bool:
        b.turn(0.5)
        return len(b.link.acked) == 2

    wait_for(acknowledged, "the acknowledgements")
    fed(manager)
    b.turn(10.1)
    assert fed(manager)


def test_the_watchdog_is_fed_where_there_is_nothing_to_read(bench, tmp_path, manager) -> None:
    b = watched(bench, tmp_path, health="60s")
    b.link.connected = False
    for _ in range(3):
        b.turn(10.1)
        assert fed(manager)


def test_the_watchdog_is_not_fed_by_an_engine_that_judges_nothing(
    bench, tmp_path, manager, monkeypatch
) -> None:
    b = watched(bench, tmp_path, health="60s")
    fed(manager)
    monkeypatch.setattr(engine_of(b), "judge", lambda *_: 1 / 0)
    for i in range(4):
        # Messages keep coming, turns keep turning; and then they stop, but those are still there.
        if i < 2:
            b.link.bring(payload(i))
        b.turn(10.1)
        assert not fed(manager)
