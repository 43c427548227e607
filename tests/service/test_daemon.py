"""The loop without a network and with a held clock: what is committed, acknowledged, published, and when."""

from __future__ import annotations

import io
import json
import socket
from collections import deque

import pytest

from edge_rnn.errors import StoreError
from edge_rnn.files.config import load_config
from edge_rnn.service.clock import Clock
from edge_rnn.service.daemon import Daemon
from edge_rnn.service.logs import Log
from edge_rnn.service.mqtt import Delivery, LinkCounters
from edge_rnn.service.systemd import Notifier
from tests.support.daemon import START_NS, gru_model, payload, write_config
from tests.support.mqtt_peer import wait_for

TOPIC = "plant/7/all"


class FakeLink:
    """A broker in memory: `inbox` holds what the next turns bring, `sent` what was published."""

    reader = "paho"

    def __init__(self, config, filters, will, log, *, arrival, clock) -> None:
        self.before, self.filters, self.will, self._arrival = filters, {}, will, arrival
        self.connected, self.session_present, self.epoch = True, False, 1
        self.counters = LinkCounters()
        self.inbox: deque[list[Delivery]] = deque()
        self.sent: list[tuple[str, bytes, bool]] = []
        self.sure: dict[int, tuple[str, bytes]] = {}
        self.delivered: list[int] = []
        self.acked: list[int] = []
        self.renewed: list[str] = []
        self.room = 20

    def bring(self, *payloads: str, topic: str = TOPIC, qos: int = 1, retained: bool = False) -> None:
        count = sum(len(batch) for batch in self.inbox) + len(self.acked)
        self.inbox.append(
            [Delivery(topic, p.encode(), qos, retained, self._arrival.next_ns(), count + i, self.epoch)
             for i, p in enumerate(payloads)]
        )  # fmt: skip

    def turn(self, timeout: float) -> list[Delivery]:
        return self.inbox.popleft() if self.inbox else []

    def publish(self, topic: str, data: bytes, *, retain: bool = False) -> bool:
        self.sent.append((topic, data, retain))
        return True

    def publish_batch(self, messages, *, retain: bool = False) -> int:
        return sum(self.publish(topic, data, retain=retain) for topic, data in messages)

    def window(self) -> int:
        return self.room - len(self.sure)

    def publish_sure(self, key: int, topic: str, data: bytes, *, retain: bool = False) -> None:
        self.sure[key] = (topic, data)

    def take_delivered(self) -> list[int]:
        delivered, self.delivered = self.delivered, []
        return delivered

    def ack(self, messages: list[Delivery]) -> None:
        self.acked += [m.mid for m in messages]

    def renew(self, why: str) -> None:
        self.renewed.append(why)

    def set_filters(self, filters) -> None:
        self.filters = filters

    def scan_with(self, sources) -> None: ...

    def wake(self) -> None: ...

    def close(self, last) -> None:
        self.sent += [(topic, data, True) for topic, data in last]


class Bench:
    """A daemon on a bench: `now` is its clock, `jump` how far (ns) its wall clock was set."""

    def __init__(self, folder, environment=None, **changes) -> None:
        self.now = 100.0
        self.jump = 0
        self.log = io.StringIO()
        clock = Clock(lambda: self.now, lambda: START_NS * 2 + int(self.now * 1e9) + self.jump)
        self.config = write_config(folder, 1, **changes)
        self.daemon = Daemon(
            load_config(self.config),
            reread=lambda: load_config(self.config),
            log=Log(stream=self.log, clock=clock),
            clock=clock,
            notifier=Notifier(environment or {}),
            connect=FakeLink,
        )
        self.daemon.open()
        # The disk of a busy machine is not what is tested here.
        self.daemon.running.commits.patience_s = 60
        self.link: FakeLink = self.daemon.running.link
        self.turn(0)

    def turn(self, seconds: float) -> None:
        self.now += seconds
        self.daemon.turn(0)

    def topics(self, ending: str) -> list[bytes]:
        return [data for topic, data, _ in self.link.sent if topic.endswith(ending)]

    def close(self) -> None:
        self.daemon._finish()
        self.daemon.close()


def test_scores_leave_at_once_acknowledgements_after_the_commit(bench) -> None:
    b = bench(commit_every="1s")
    b.link.bring(payload(0), payload(1))
    b.turn(0)
    assert len(b.topics("/score")) == 2
    assert b.link.acked == []
    b.turn(0.99)
    assert b.link.acked == []
    b.turn(0.02)
    assert len(b.link.acked) == 2
    assert b.daemon.counters.commits == 1
    b.turn(3)
    assert b.daemon.counters.commits == 1  # nothing new, nothing written


def test_a_commit_comes_early_before_the_broker_stops_sending(bench) -> None:
    most = 500
    b = bench(commit_every="1h")
    b.link.bring(*(payload(i) for i in range(most - 1)))
    b.turn(0)
    assert b.link.acked == []
    b.link.bring(payload(most))
    b.turn(0)
    assert len(b.link.acked) == most


def test_qos_0_asks_for_no_acknowledgement_and_is_committed_by_time(bench) -> None:
    b = bench(commit_every="1s")
    b.link.bring(*(payload(i) for i in range(2000)), qos=0)
    b.turn(0)
    assert b.daemon.counters.commits == 0 or b.daemon.counters.events  # an event may commit at once
    b.turn(1.1)
    assert b.daemon.counters.commits >= 1
    assert b.link.acked == []


def test_an_alarm_is_committed_at_once_then_published_and_removed_after_its_acknowledgement(bench) -> None:
    b = bench(commit_every="1h")
    b.link.bring(*(payload(i) for i in range(20)))
    b.turn(0)
    assert b.daemon.counters.commits == 0
    b.link.bring(payload(20, fault=True))
    b.turn(0)
    assert b.daemon.counters.commits == 1
    [(key, (topic, data))] = b.link.sure.items()
    assert topic == "er/press/7/event"
    assert json.loads(data)["type"] == "open"
    assert b.daemon.running.store.waiting() == 1
    b.turn(0.1)
    assert len(b.link.sure) == 1  # not sent a second time
    b.link.delivered.append(key)
    b.turn(0.1)
    assert b.daemon.running.store.waiting() == 0


def test_the_outbox_is_sent_as_the_broker_takes_it_in_order(bench) -> None:
    b = bench()
    b.link.room = 1
    b.link.bring(
        *(payload(i) for i in range(20)), payload(20, fault=True), *(payload(i) for i in range(21, 30))
    )
    b.turn(0)
    assert [json.loads(d)["type"] for _, d in b.link.sure.values()] == ["open"]
    b.link.delivered.append(next(iter(b.link.sure)))
    b.link.sure.clear()
    b.turn(0)
    assert [json.loads(d)["type"] for _, d in b.link.sure.values()] == ["close"]


def test_a_commit_that_fails_acknowledges_nothing_and_is_tried_again(bench, monkeypatch) -> None:
    b = bench(commit_every="100ms")
    real = b.daemon.running.store.commit

    def full(_commit):
        raise StoreError("disk full")

    monkeypatch.setattr(b.daemon.running.store, "commit", full)
    b.link.bring(payload(0), payload(1))
    b.turn(0)
    for _ in range(30):
        b.turn(0.1)
    assert b.link.acked == []
    assert 3 <= b.daemon.counters.commit_failures <= 5  # once a second
    assert json.loads(b.daemon.health())["status"] == "store"
    assert b.log.getvalue().count("disk full") == 1
    monkeypatch.setattr(b.daemon.running.store, "commit", real)
    b.link.bring(payload(2))
    b.turn(1.1)
    assert b.link.acked == [0, 1, 2] or len(b.link.acked) == 3
    assert [s for s, _ in b.daemon.running.store.load_states()] == ["press/7"]
    assert "commits succeed again" in b.log.getvalue()
    assert json.loads(b.daemon.health())["status"] == "running"


def test_after_damage_the_next_commit_holds_all_states(bench) -> None:
    b = bench(commit_every="100ms")
    for key in range(3):
        b.link.bring(payload(0), topic=f"plant/{key}/all")
        b.turn(0)
    b.turn(1)
    b.daemon.running.store.incomplete = True
    b.link.bring(payload(1), topic="plant/0/all")
    b.turn(0)
    b.turn(1)
    assert sorted(s for s, _ in b.daemon.running.store.load_states()) == ["press/0", "press/1", "press/2"]
    assert b.daemon.running.store.incomplete is False


def test_every_connect_announces_the_daemon_its_health_and_all_states(bench) -> None:
    b = bench()
    assert b.link.will == ("er/status", b"offline")
    assert ("er/status", b"online", True) in b.link.sent
    b.link.bring(payload(0))
    b.turn(0)
    before = len(b.link.sent)
    b.link.epoch += 1
    b.turn(0)
    again = b.link.sent[before:]
    assert [(topic, retained) for topic, _, retained in again] == [
        ("er/status", True), ("er/press/7/state", True), ("er/health", True),
    ]  # fmt: skip


def test_health_says_blind_when_nothing_arrives_and_offline_without_a_broker(bench) -> None:
    b = bench(health="1s")
    assert json.loads(b.daemon.health())["status"] == "running"
    b.turn(5.5)
    assert json.loads(b.topics("/health")[-1])["status"] == "blind"
    b.link.bring(payload(0))
    b.turn(0.1)
    assert json.loads(b.daemon.health())["status"] == "running"
    b.link.connected = False
    assert json.loads(b.daemon.health())["status"] == "offline"


def test_blindness_is_told_once_when_it_begins_and_once_when_it_ends(bench) -> None:
    b = bench(health="1s")
    assert "blind" not in b.log.getvalue()
    for _ in range(8):
        b.turn(1)
    (line,) = (text for text in b.log.getvalue().splitlines() if " blind: " in text)
    assert "connected, but nothing has arrived for 5 s; check the senders" in line
    assert "topics=plant/+/all" in line
    b.link.bring(payload(0))
    b.turn(1)
    b.turn(1)
    assert b.log.getvalue().count("blind: ") == 2
    assert "info blind: messages arrive again" in b.log.getvalue()


def test_blindness_is_acted_on_and_is_an_event_of_the_daemon_itself(bench) -> None:
    b = bench(health="1s", commit_every="100ms")
    for _ in range(12):
        b.turn(1)
    assert len(b.link.renewed) == 2
    (told,) = [json.loads(data) for topic, data in b.link.sure.values() if topic == "er/event"]
    assert (told["type"], told["kind"], told["stream"]) == ("open", "silent", "")
    b.link.bring(payload(0))
    b.turn(1)
    b.turn(1)
    closed = [json.loads(data) for topic, data in b.link.sure.values() if topic == "er/event"][-1]
    assert (closed["type"], closed["id"]) == ("close", told["id"])
    assert len(b.link.renewed) == 2


def test_a_connection_that_has_just_come_is_not_blind(bench) -> None:
    b = bench(health="1s")
    b.link.connected = False
    b.turn(60)
    b.link.connected, b.link.epoch = True, 2
    b.turn(1)
    assert json.loads(b.daemon.health())["status"] == "running"
    assert "blind" not in b.log.getvalue()


def test_the_start_is_announced_before_its_work(bench) -> None:
    first, second, *_ = bench().log.getvalue().splitlines()
    assert "start: loading models and compiling; the first start takes some seconds" in first
    assert "start: models loaded and compiled" in second


def test_each_kind_of_bad_payload_has_its_first_line_and_its_sum(bench) -> None:
    b = bench()

    def refused() -> list[str]:
        return [line for line in b.log.getvalue().splitlines() if "payload refused" in line]

    for bad in ("{", '{"ts": 1, "vib": true}', '{"vib": 1}'):
        b.link.bring(*(bad for _ in range(20)))
        b.turn(0)
    assert len(refused()) == 3
    assert all(
        "(repeats are counted in health as daemon.refused and summed up here once a minute)" in line
        for line in refused()
    )
    b.turn(61)
    assert len(refused()) == 6
    assert all("(19 more since)" in line for line in refused()[3:])
    b.turn(61)
    assert len(refused()) == 6


def test_what_a_sender_writes_makes_no_kinds_of_its_own(bench) -> None:
    b = bench()
    b.link.bring(*(json.dumps({f"key{i}'\"": i, "x" * i: "('"}) for i in range(50)))
    b.link.bring(*(json.dumps({"ts": f"no '{i}\" time", "vib": i}) for i in range(50)))
    b.turn(0)
    b.turn(0)
    assert b.log.getvalue().count("payload refused") == 2


def test_a_state_that_does_not_fit_is_told_without_repeating_itself(bench, tmp_path) -> None:
    b = bench()
    b.link.bring(payload(0))
    b.turn(1)
    b.close()
    (tmp_path / "press.safetensors").unlink()
    text = bench(model=gru_model(seed=2)).log.getvalue()
    (line,) = (one for one in text.splitlines() if "starts cold: " in one)
    assert "start this stream cold" not in line
    assert line.count("cold") == 1
    assert "; (" not in line


def test_silence_is_told_by_the_tick_and_ends_with_the_next_reading(bench) -> None:
    b = bench(stream='silent_after = "10s"')
    b.link.bring(payload(0))
    b.turn(0)
    for _ in range(15):
        b.turn(1)
    assert json.loads(b.topics("/state")[-1])["faults"] == {"vib": "silent", "temp": "silent"}
    b.link.bring(payload(60))
    b.turn(0)
    assert json.loads(b.topics("/state")[-1])["faults"] == {}
    told = [json.loads(data)["type"] for topic, data in b.link.sure.values() if "press" in topic]
    assert told == ["open", "close"]


def test_a_turn_that_fails_is_counted_and_said_and_the_next_one_works(bench, monkeypatch) -> None:
    b = bench(commit_every="100ms")
    pipeline = b.daemon.running.pipeline
    feed = pipeline.engine.judge
    monkeypatch.setattr(pipeline.engine, "judge", lambda *_: 1 / 0)
    b.link.bring(payload(0))
    b.turn(0)
    assert b.daemon.counters.errors == b.daemon.counters.fallbacks == 1
    assert "ZeroDivisionError" in b.log.getvalue()
    for _ in range(5):
        b.turn(1)
    # Nothing is acknowledged that was not judged.
    assert b.link.acked == []
    monkeypatch.setattr(pipeline.engine, "judge", feed)
    b.link.bring(payload(1))
    b.turn(1)
    b.turn(1)
    assert [json.loads(data)["n"] for data in b.topics("/score")] == [1, 2]
    assert len(b.link.acked) == 2


def test_a_message_that_breaks_its_decoder_takes_no_other_with_it(bench, monkeypatch) -> None:
    b = bench(commit_every="100ms")
    pipeline = type(b.daemon.running.pipeline)
    # One that goes the long way; the others take the short one.
    take, broken = pipeline.take, b'{"odd": 1}'

    def fragile(self, delivery, *rest):
        return 1 / 0 if delivery.payload == broken else take(self, delivery, *rest)

    monkeypatch.setattr(pipeline, "take", fragile)
    b.link.bring(payload(0), broken.decode(), payload(2))
    b.turn(0)
    assert b.daemon.counters.errors == 1
    assert len(b.topics("/score")) == 2
    assert "a message was not understood: ZeroDivisionError" in b.log.getvalue()


def test_streams_beyond_the_limit_lose_their_state_and_their_retained_topic(bench) -> None:
    b = bench(stream="max_streams = 2", commit_every="100ms")
    for key in range(3):
        b.link.bring(payload(0), topic=f"plant/{key}/all")
        b.turn(1)
    b.turn(1)
    assert ("er/press/0/state", b"", True) in b.link.sent
    assert sorted(s for s, _ in b.daemon.running.store.load_states()) == ["press/1", "press/2"]


def test_arrival_times_do_not_go_back_over_a_restart(bench) -> None:
    b = bench()
    b.link.bring(payload(0))
    b.turn(0)
    b.turn(2)
    last = b.daemon.running.arrival.last_ns
    b.close()
    second = bench()
    assert second.daemon.running.arrival.last_ns >= last


def test_a_restart_knows_the_subscriptions_of_the_session_before(bench) -> None:
    b = bench()
    assert (b.link.before, b.link.filters) == ({}, {"plant/+/all": False})
    b.link.bring(payload(0))
    b.turn(0)
    b.close()
    second = bench(topic="hall/{machine}/all")
    assert list(second.link.before) == ["plant/+/all"]
    assert second.link.filters == {"hall/+/all": False}


def test_the_watchdog_is_not_fed_while_messages_fail_one_after_the_other(
    bench, tmp_path, monkeypatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(0.2)
        b = bench(environment={"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000000"})
        assert manager.recv(1000).startswith(b"READY=1")
        pipeline = b.daemon.running.pipeline
        judge = pipeline.engine.judge
        monkeypatch.setattr(pipeline.engine, "judge", lambda *_: 1 / 0)
        for i in range(3):
            b.link.bring(payload(i))
            b.turn(0)
        b.turn(11)
        with pytest.raises(TimeoutError):
            manager.recv(1000)
        monkeypatch.setattr(pipeline.engine, "judge", judge)
        b.link.bring(payload(5))
        b.turn(11)
        assert manager.recv(1000) == b"WATCHDOG=1"


def test_watchdog_is_fed_by_turns(bench, tmp_path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000000"}
        b = bench(environment=environment)
        assert manager.recv(1000).startswith(b"READY=1")
        b.turn(10.1)
        assert manager.recv(1000) == b"WATCHDOG=1"
        b.close()
        assert manager.recv(1000) == b"STOPPING=1"


def wait_reload(b: Bench) -> None:
    counters = b.daemon.counters
    before = counters.reloads + counters.reload_failures
    b.daemon.reload()

    def ended() -> bool:
        b.turn(0)
        return counters.reloads + counters.reload_failures > before

    wait_for(ended, "the end of the reload", 120)


def test_a_reload_with_another_model_closes_events_and_starts_cold(bench, tmp_path) -> None:
    b = bench()
    b.link.bring(*(payload(i) for i in range(20)), payload(20, fault=True))
    b.turn(0)
    (tmp_path / "press.safetensors").unlink()
    write_config(tmp_path, 1, model=gru_model(seed=5))
    wait_reload(b)
    assert b.daemon.counters.reloads == 1
    assert b.daemon.running.link is b.link  # the same broker, the same connection
    b.turn(1)
    assert [json.loads(d)["type"] for _, d in b.link.sure.values()] == ["open", "close"]
    b.link.bring(payload(21))
    b.turn(0)
    assert json.loads(b.topics("/score")[-1])["n"] == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[store]", "[stoer]"),
        ('path = "state.db"', 'path = "other.db"'),
        ("press.safetensors", "absent.safetensors"),
    ],
)
def test_a_reload_of_what_cannot_be_used_changes_nothing(bench, old, new) -> None:
    b = bench()
    text = b.config.read_text()
    assert old in text
    pipeline = b.daemon.running.pipeline
    b.config.write_text(text.replace(old, new))
    wait_reload(b)
    assert b.daemon.running.pipeline is pipeline
    assert b.daemon.counters.reload_failures == 1
    lines = [
        line for line in b.log.getvalue().splitlines() if "refused, the running configuration stays" in line
    ]
    assert len(lines) == 1
