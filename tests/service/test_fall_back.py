"""A turn that is taken back, and a disk that hangs meanwhile: what is kept, and what is not held up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_rnn.errors import StoreError
from edge_rnn.service import daemon, intake
from tests.service.test_daemon import Bench
from tests.service.test_intake import COMMANDS, Disk, engine_of
from tests.support.daemon import payload
from tests.support.mqtt_peer import wait_for

# ---- events that no message can make again


def fall_back_once(b: Bench, monkeypatch) -> None:
    """The next call of the engine raises, and no other."""
    engine, calls = engine_of(b), [0]
    judge = engine.judge

    def once(*arguments):
        calls[0] += 1
        if calls[0] == 1:
            raise MemoryError("once")
        return judge(*arguments)

    monkeypatch.setattr(engine, "judge", once)


def told(b: Bench, kind: str) -> list[str]:
    """The types of the events of this kind that are on their way to the broker."""
    found = [json.loads(data) for _, data in b.link.sure.values()]
    return [event["type"] for event in found if event["kind"] == kind]


def test_an_opening_told_at_the_end_of_a_mute_outlives_a_fall_back_before_its_commit(
    bench, monkeypatch
) -> None:
    b = bench(commit_every="100ms")
    b.link.bring(*(payload(i) for i in range(20)))
    b.turn(1)
    b.daemon.running.outlets._quiet.mute("*", b.daemon._clock.wall_ns() + 10 * 10**9)
    b.link.bring(*(payload(i, fault=True) for i in range(20, 26)))
    b.turn(1)
    b.turn(1)
    assert len(b.link.acked) == 26
    assert b.link.sure == {}
    with monkeypatch.context() as patch:
        patch.setattr(b.daemon.running.store, "commit", raising(StoreError("full")))
        b.turn(10)
        fall_back_once(b, monkeypatch)
        b.link.bring(payload(26, fault=True))
        b.turn(0.1)
    assert b.daemon.counters.fallbacks == 1
    b.turn(2)
    b.turn(1)
    assert told(b, "anomaly") == ["open"]


def test_the_event_of_a_blind_daemon_outlives_a_fall_back_before_its_commit(bench, monkeypatch) -> None:
    b = bench(commit_every="100ms", health="1s")
    b.link.bring(payload(0))
    b.turn(0)
    b.turn(1)
    with monkeypatch.context() as patch:
        patch.setattr(b.daemon.running.store, "commit", raising(StoreError("full")))
        b.turn(6)
        # A commit that has failed is put back, and what it held is kept as well.
        assert b.daemon.running.commits.error
        fall_back_once(b, monkeypatch)
        b.link.bring(payload(1))
        b.turn(0.1)
    assert b.daemon.counters.fallbacks == 1
    b.turn(2)
    b.turn(1)
    assert told(b, "silent") == ["open", "close"]
    assert [e.type for e in b.daemon.running.store.events()] == ["close"]
    # What was kept is committed once.
    assert len(b.daemon.running.commits._lasting) == 0


def raising(error: Exception):
    """A function that raises it."""

    def call(*_arguments):
        raise error

    return call


# ---- a disk that hangs


def passing(b: Bench, monkeypatch, most: int = 100, also: Callable[[int], None] = lambda _: None) -> None:
    """Each turn of the connection takes half a second of the daemon's clock; too many are a failure."""
    link, turns = b.link, [0]
    turn = link.turn

    def slow(timeout):
        turns[0] += 1
        assert turns[0] <= most, "the daemon waits on and on"
        b.now += 0.5
        also(turns[0])
        return turn(timeout)

    monkeypatch.setattr(link, "turn", slow)


def replies(b: Bench) -> list[dict]:
    return [json.loads(data) for data in b.topics("/command/reply")]


def test_a_commit_that_was_asked_for_is_answered_though_the_disk_hangs(bench, monkeypatch) -> None:
    b = bench(commit_every="1h", stream=COMMANDS)
    disk = Disk(b, monkeypatch)
    b.link.bring(payload(0))
    b.turn(0)
    with monkeypatch.context() as patch:
        passing(b, patch)
        b.link.bring('{"command": "commit", "id": "a"}', topic="er/command")
        begin = b.now
        b.turn(0)
        assert b.now - begin < 5
        # The next one does not wait again for the same disk, and readings are scored.
        begin = b.now
        b.link.bring('{"command": "commit", "id": "b"}', topic="er/command")
        b.turn(0)
        assert b.now - begin == 0.5
        b.link.bring(payload(1))
        b.turn(0)
    assert [(reply["id"], reply["ok"]) for reply in replies(b)] == [("a", False), ("b", False)]
    assert all("not committed yet" in reply["error"] for reply in replies(b))
    assert len(b.topics("/score")) == 2
    assert b.link.acked == []
    release(b, disk)
    b.turn(0)
    assert b.daemon.commit()
    assert len(b.link.acked) == 4


def test_a_daemon_told_to_stop_does_not_wait_for_a_commit_that_was_asked_for(bench, monkeypatch) -> None:
    b = bench(commit_every="1h")
    disk = Disk(b, monkeypatch)
    b.link.bring(payload(0))
    b.turn(0)
    with monkeypatch.context() as patch:
        passing(b, patch, 1, lambda _: b.daemon.stop())
        assert b.daemon.commit() is None
    release(b, disk)


def test_what_comes_while_a_commit_is_waited_for_is_bounded(bench, monkeypatch) -> None:
    monkeypatch.setattr(intake, "_MOST_KEPT", 20)
    b = bench(commit_every="1h")
    disk = Disk(b, monkeypatch)
    b.link.bring(payload(0))
    b.turn(0)
    b.link.bring(payload(1), payload(2))
    for i in range(3, 78, 25):
        b.link.bring(*(payload(i + k) for k in range(25)), qos=0)
    with monkeypatch.context() as patch:
        passing(b, patch, 4)
        assert b.daemon.commit() is None
    # The oldest of QoS 0 have gone; what the broker waits for is kept.
    kept = b.daemon._intake._again
    assert len(kept) == 20
    assert sum(one.qos for one in kept) == 2
    assert (b.daemon.counters.skipped, b.daemon.counters.messages) == (57, 78)
    release(b, disk)
    b.turn(1)
    assert len(b.topics("/score")) == 21


@pytest.mark.parametrize("works", [True, False])
def test_a_fall_back_while_the_disk_hangs_holds_up_nothing_and_loses_nothing(
    bench, tmp_path, monkeypatch, works
) -> None:
    """The commit on its way ends well, or not: states and scores are those of a run without all that."""
    b = bench(commit_every="1s")
    (tmp_path / "other").mkdir()
    undisturbed = bench(folder=tmp_path / "other", commit_every="1s")
    disk = Disk(b, monkeypatch)
    for one in (b, undisturbed):
        one.link.bring(*(payload(i) for i in range(10)))
        one.turn(2)
        one.link.bring(*(payload(i) for i in range(10, 20)))
        one.turn(2)
        one.link.bring(*(payload(i) for i in range(20, 30)))
        one.turn(2)
    assert disk.begun == 1
    with monkeypatch.context() as patch:
        passing(b, patch)
        fall_back_once(b, monkeypatch)
        for one in (b, undisturbed):
            one.link.bring(*(payload(i, fault=True) for i in range(30, 35)))
            one.turn(2)
        # Nobody knows yet what the last commit is: what comes waits, and nothing spins meanwhile.
        assert b.daemon.counters.fallbacks == 1
        assert b.daemon._intake.due() is None
        for one in (b, undisturbed):
            one.link.bring(*(payload(i) for i in range(35, 40)))
            one.turn(2)
    assert b.link.acked == []
    assert disk.begun == 1
    disk.error = None if works else StoreError("full")
    release(b, disk)
    b.turn(0)
    disk.error = None
    for one in (b, undisturbed):
        one.turn(3)
        one.link.bring(payload(40))
        one.turn(3)
        one.turn(3)
    assert len(b.link.acked) == len(undisturbed.link.acked) == 41
    assert sorted(set(b.topics("/score"))) == sorted(undisturbed.topics("/score"))
    assert told(b, "anomaly") == told(undisturbed, "anomaly")
    assert b.daemon.counters.refused == 0


def test_the_end_after_a_fall_back_commits_and_acknowledges_nothing_of_what_was_taken_back(
    bench, monkeypatch
) -> None:
    b = bench(commit_every="1s")
    disk = Disk(b, monkeypatch)
    b.link.bring(*(payload(i) for i in range(10)))
    b.turn(2)
    b.turn(2)
    b.link.bring(*(payload(i) for i in range(10, 20)))
    b.turn(2)
    fall_back_once(b, monkeypatch)
    with monkeypatch.context() as patch:
        passing(b, patch)
        b.link.bring(payload(20))
        b.turn(2)
        disk.open.set()
        b.daemon.stop()
        b.daemon._finish()
    assert disk.begun == 1
    assert len(b.link.acked) == 10
    b.daemon.close()


def test_the_end_is_over_before_the_unit_kills_it_though_the_disk_hangs(bench, monkeypatch) -> None:
    b = bench(commit_every="1h")
    disk = Disk(b, monkeypatch)
    b.link.bring(payload(0))
    b.turn(0)
    unit = Path(daemon.__file__).with_name("edge-rnn.service").read_text()
    allowed = float(unit.partition("TimeoutStopSec=")[2].split()[0])
    with monkeypatch.context() as patch:
        passing(b, patch)
        begin = b.now
        b.daemon.stop()
        b.daemon._finish()
        b.daemon.close()
        # Goodbye to the broker, the sinks and the records takes some two seconds more at the most.
        assert b.now - begin < allowed - 3
    assert b.topics("er/status")[-1] == b"offline"
    assert b.link.acked == []
    assert "the database does not answer" in b.log.getvalue()
    release(b, disk)
    b.daemon.running.store.close()


def release(b: Bench, disk: Disk) -> None:
    """The disk works again: until the commit has come back."""
    flight = b.daemon.running.commits._flight
    disk.open.set()
    wait_for(flight.done.is_set, "the commit")
    b.daemon.running.commits.patience_s = 60
