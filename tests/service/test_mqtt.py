"""The connection: whatever the network or the broker does, the loop goes on and says what happened."""

from __future__ import annotations

import io
import time
from itertools import pairwise

import pytest

from edge_rnn.service.clock import Clock
from edge_rnn.service.logs import Log
from edge_rnn.service.mqtt import pause
from tests.support.link import BOTH, make, run
from tests.support.mosquitto import Mosquitto, free_port
from tests.support.mqtt_peer import Peer, wait_for


@pytest.fixture
def broker(tmp_path):
    with Mosquitto(tmp_path) as running:
        yield running


# ---- pauses


def test_pauses_are_short_for_the_first_minutes_then_grow_to_the_longest() -> None:
    for chance in (0.0, 0.5, 0.999):
        assert all(1 <= pause(down, 1, 30, chance) <= 2 for down in (0, 1, 60, 179))
        late = [pause(down, 1, 30, chance) for down in range(180, 10_000, 60)]
        assert late == sorted(late)
        assert late[-1] == 30 * (1 + chance) / 2
    assert pause(1e12, 1, 30, 0.5) <= 30
    assert pause(0, 5, 4, 0.5) <= 4


# ---- with a real broker


@BOTH
@pytest.mark.parametrize("qos", [0, 1])
def test_messages_arrive_in_order_with_their_arrival_times(broker, protocol, qos) -> None:
    link = make(broker.port, "plant/+/v", protocol=protocol, qos=qos)
    run(link, lambda _: link.subscribed)
    with Peer(broker.port) as peer:
        for i in range(200):
            peer.send(f"plant/{i % 3}/v", str(i), qos=qos)
    got = run(link, lambda m: len(m) == 200)
    assert [int(m.payload) for m in got] == list(range(200))
    assert {m.qos for m in got} == {qos}
    times = [m.arrival_ns for m in got]
    assert all(a < b for a, b in pairwise(times))
    link.close([])


@BOTH
def test_unacknowledged_messages_come_again_and_old_acknowledgements_are_skipped(broker, protocol) -> None:
    """F2, F3: the broker keeps what was not acknowledged, over a new connection of the same client."""
    link = make(broker.port, "a/#", protocol=protocol)
    run(link, lambda _: link.subscribed)
    with Peer(broker.port) as peer:
        for i in range(5):
            peer.send("a/x", str(i))
        got = run(link, lambda m: len(m) == 5, ack=False)
        link.ack(got[:2])
        link._close_socket()  # the network is gone
        again = run(link, lambda m: link.epoch == 2 and len(m) == 3, ack=False)
        assert [m.payload for m in again] == [b"2", b"3", b"4"]
        link.ack(got)  # of the earlier connection: must not acknowledge anything of this one
        link._close_socket()
        third = run(link, lambda m: link.epoch == 3 and len(m) == 3)
        assert [m.payload for m in third] == [b"2", b"3", b"4"]
    link.close([])


def test_receive_maximum_is_the_back_pressure(broker) -> None:
    link = make(broker.port, "a", receive_maximum=7)
    run(link, lambda _: link.subscribed)
    with Peer(broker.port) as peer:
        for i in range(20):
            peer.send("a", str(i))
        held = run(link, lambda m: len(m) == 7, ack=False)
        for _ in range(5):
            assert link.turn(0.02) == []
        link.ack(held)
        assert len(run(link, lambda m: len(m) == 13)) == 13
    link.close([])


@BOTH
def test_broker_killed_and_back_without_its_sessions_data_flows_again(broker, protocol) -> None:
    """F1b, F1d: session present = 0; subscribing at every connect is what saves the day."""
    out = io.StringIO()
    link = make(broker.port, "a", protocol=protocol, out=out)
    run(link, lambda _: link.subscribed)
    broker.kill()
    run(link, lambda _: not link.connected)
    broker.start()
    run(link, lambda _: link.subscribed)
    assert not link.session_present
    with Peer(broker.port) as peer:
        peer.send("a", b"back")
    assert [m.payload for m in run(link, lambda m: m)] == [b"back"]
    assert f"broker 127.0.0.1:{broker.port}: " in out.getvalue()
    assert "trying again in" in out.getvalue()
    assert link.counters.disconnects == 1
    link.close([])


def test_a_broker_that_was_away_and_is_killed_again_at_once_is_tried_as_often_as_at_first(broker) -> None:
    """Else a broker that crashes often would be tried ever more seldom, while it is there."""
    link = make(broker.port, "a")
    run(link, lambda _: link.connected)
    for _ in range(2):
        broker.kill()
        run(link, lambda _: not link.connected)
        before = link.counters.failed_attempts
        run(link, lambda _, n=before: link.counters.failed_attempts > n)
        broker.start()
        run(link, lambda _: link.connected)
    broker.kill()
    run(link, lambda _: not link.connected)
    assert link._down_since > link._up_since
    link.close([])


def test_half_open_connection_is_noticed(broker) -> None:
    """F9: the broker hangs; the keepalive finds out."""
    link = make(broker.port, "a", keepalive_s=1)
    run(link, lambda _: link.subscribed)
    broker.pause()
    run(link, lambda _: not link.connected, seconds=20)
    assert link.counters.disconnects == 1
    link.close([])


def test_same_client_id_twice_is_named(broker) -> None:
    """F7."""
    out = io.StringIO()
    link = make(broker.port, "a", out=out)
    run(link, lambda _: link.subscribed)
    other = make(broker.port, "a")
    run(other, lambda _: other.connected)
    run(link, lambda _: not link.connected)
    text = out.getvalue()
    assert "another client with the id 'er-test'" in text or "connection lost" in text
    # A connection that held for a moment only does not reset the pauses.
    assert link._down_since <= link._up_since
    for one in (link, other):
        one.close([])


@BOTH
def test_quick_losses_are_told_and_the_third_says_what_it_may_be_then_once_a_minute(broker, protocol) -> None:
    """A broker need not say why it hangs up on a client whose id another one uses."""
    out = io.StringIO()
    now = [1000.0]
    log = Log(stream=out, clock=Clock(lambda: now[0], lambda: 10**18))
    link = make(broker.port, "a", log=log, protocol=protocol, reconnect_min_ns=100_000_000)
    for number in range(1, 6):
        run(link, lambda _, n=number: link.subscribed and link.counters.connects == n)
        other = make(broker.port, "a", protocol=protocol)
        run(other, lambda _, other=other: other.connected)
        run(link, lambda _: not link.connected)
        other.close([])
    now[0] += 61
    log.sum_up()
    lost = [line for line in out.getvalue().splitlines() if " warning mqtt: " in line]
    assert len(lost) == 4
    assert "(repeats are summed up once a minute)" in lost[2]
    assert "(2 more since)" in lost[3]
    assert all("trying again in" in line for line in lost)
    hint = "another client with the id 'er-test'"
    assert all(hint in line for line in lost[2:])
    assert all("give each daemon its own mqtt.client_id" in line for line in lost[2:])
    if protocol == "3.1.1":  # no reason can be given there
        assert not any(hint in line for line in lost[:2])
        assert "5 times within 30 s of connecting" in lost[3]
    link.close([])


def test_a_connection_that_held_is_no_quick_loss(broker) -> None:
    out = io.StringIO()
    link = make(broker.port, "a", out=out)
    link._quick_losses = 2
    run(link, lambda _: link.subscribed)
    link._up_since -= 31
    broker.kill()
    run(link, lambda _: not link.connected)
    assert "another client" not in out.getvalue()
    assert link._quick_losses == 0
    link.close([])


def test_a_broker_that_is_down_is_told_again_every_minute_and_no_more_when_it_is_back(tmp_path) -> None:
    out = io.StringIO()
    now = [1000.0]
    clock = Clock(lambda: now[0], lambda: 10**18)
    log = Log(stream=out, clock=clock)
    with Mosquitto(tmp_path) as broker:
        link = make(broker.port, "a", log=log, clock=clock)
        broker.kill()
        for attempt in range(1, 31):
            run(link, lambda _, n=attempt: link.counters.failed_attempts >= n)
            now[0] += 2.5
            log.sum_up()
        first, second = out.getvalue().splitlines()
        assert first.endswith("(and so on until it succeeds; repeats are summed up once a minute)")
        assert "cannot connect (Connection refused); trying again in" in second
        assert second.endswith(" more since)")
        broker.start()
        now[0] += 30
        run(link, lambda _: link.connected)
        said = out.getvalue()
        now[0] += 120
        log.sum_up()
        assert out.getvalue() == said
        link.close([])


def test_broker_absent_is_a_clear_line_and_no_exit() -> None:
    """F12a."""
    out = io.StringIO()
    port = free_port()
    link = make(port, "a", out=out)
    run(link, lambda _: link.counters.failed_attempts >= 1)
    assert (
        f"broker 127.0.0.1:{port}: cannot connect (Connection refused); trying again in 1.0 s"
        in out.getvalue()
    )
    assert link.publish("x", b"y") is False
    assert link.counters.dropped == 1
    assert link.window() == 0
    link.close([("s", b"offline")])


def test_unknown_host_is_a_clear_line() -> None:
    out = io.StringIO()
    link = make(1883, "a", out=out, host="no-such-host.invalid")
    run(link, lambda _: link.counters.failed_attempts >= 1)
    assert "unknown host" in out.getvalue()
    link.close([])


@BOTH
def test_will_fires_on_a_crash_and_a_clean_end_says_offline_itself(broker, protocol) -> None:
    """F11."""
    with Peer(broker.port, "out/status") as peer:
        link = make(broker.port, "a", protocol=protocol)
        run(link, lambda _: link.subscribed)
        link._close_socket()
        wait_for(lambda: peer.on("out/status") == [b"offline"], "the will")
        run(link, lambda _: link.epoch == 2 and link.subscribed)
        link.close([("out/status", b"gone")])
        assert not link.connected
        wait_for(lambda: peer.on("out/status") == [b"offline", b"gone"], "the last word")
        time.sleep(0.2)
        assert peer.on("out/status") == [b"offline", b"gone"]


@BOTH
def test_retained_messages_only_where_they_are_wanted(broker, protocol) -> None:
    """F5: with MQTT 5 they are not even sent."""
    with Peer(broker.port) as peer:
        peer.send("a/old", b"1", retain=True)
        peer.send("b/old", b"2", retain=True)
        link = make(broker.port, "a/+", protocol=protocol)
        run(link, lambda _: link.subscribed)
        peer.send("a/new", b"3")
        got = run(link, lambda m: any(x.payload == b"3" for x in m))
        assert [m.payload for m in got if not m.retained] == [b"3"]
        if protocol == "5":
            assert not [m for m in got if m.retained]
        link.close([])
        wanting = make(broker.port, "b/+", retained=True, protocol=protocol, client_id="er-other")
        assert run(wanting, lambda m: m)[0].retained
        wanting.close([])


@BOTH
def test_a_kept_session_is_freed_of_subscriptions_of_an_earlier_configuration(broker, protocol) -> None:
    first = make(broker.port, "old", "both", protocol=protocol)
    run(first, lambda _: first.subscribed)
    first.close([])
    second = make(broker.port, "old", "both", protocol=protocol)
    second.set_filters({"both": False, "new": False})
    run(second, lambda _: second.subscribed)
    assert second.session_present
    second.turn(0.2)
    with Peer(broker.port) as peer:
        for topic in ("old", "both", "new"):
            peer.send(topic, topic)
        assert [m.topic for m in run(second, lambda m: len(m) == 2)] == ["both", "new"]
    second.close([])


def test_filters_can_be_changed_while_connected(broker) -> None:
    link = make(broker.port, "a")
    run(link, lambda _: link.subscribed)
    link.set_filters({"b": False})
    with Peer(broker.port) as peer:
        link.turn(0.2)
        peer.send("a", b"old")
        peer.send("b", b"new")
        assert [m.payload for m in run(link, lambda m: m)] == [b"new"]
    link.close([])


@BOTH
def test_sure_publishing_survives_a_broker_that_is_killed(broker, protocol) -> None:
    """F10: what was not acknowledged is sent again after the reconnect, by its key."""
    link = make(broker.port, "a", protocol=protocol)
    run(link, lambda _: link.subscribed)
    link.publish_sure(1, "out/event", b"first")
    delivered: list[int] = []
    run(link, lambda _: delivered.extend(link.take_delivered()) or delivered)
    assert delivered == [1]
    broker.kill()
    window = link.window()
    for key in range(2, 2 + min(3, window)):
        link.publish_sure(key, "out/event", str(key).encode())
    run(link, lambda _: not link.connected)
    assert link.window() == 0
    broker.start()
    with Peer(broker.port, "out/event") as peer:
        run(link, lambda _: delivered.extend(link.take_delivered()) or len(delivered) == 4)
        wait_for(lambda: {b"2", b"3", b"4"} <= set(peer.on("out/event")), "the events")
    assert sorted(delivered) == [1, 2, 3, 4]
    link.close([])


def test_a_packet_beyond_the_maximum_is_not_even_sent_and_the_stream_goes_on(broker) -> None:
    """F4a: with MQTT 5 the broker drops it; the memory of a device is not at the mercy of a publisher."""
    link = make(broker.port, "a", max_payload=1000)
    run(link, lambda _: link.subscribed)
    with Peer(broker.port) as peer:
        peer.send("a", bytes(5_000_000))
        peer.send("a", b"small")
        assert [m.payload for m in run(link, lambda m: m)] == [b"small"]
    link.close([])


def test_a_broker_that_hangs_does_not_hold_up_the_end_and_its_will_speaks_later(broker) -> None:
    link = make(broker.port, "a", keepalive_s=1)
    run(link, lambda _: link.subscribed)
    broker.pause()
    link.close([("out/status", b"gone")], timeout=0.2)
    broker.resume()
    with Peer(broker.port, "out/status") as peer:
        wait_for(lambda: peer.on("out/status"), "the will or the last word")
