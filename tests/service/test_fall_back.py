"""A turn that is taken back, and a disk that hangs meanwhile: what is kept, and what is not held up."""

from __future__ import annotations

import json

from edge_rnn.errors import StoreError
from tests.service.test_daemon import Bench
from tests.service.test_intake import engine_of
from tests.support.daemon import payload

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
