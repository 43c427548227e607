"""Against a real broker: a disk that hangs for longer than the keepalive, and a broker that forgets us."""

from __future__ import annotations

import json
import threading
import time

from tests.support.daemon import DaemonThread, payload, write_config
from tests.support.mosquitto import Mosquitto
from tests.support.mqtt_peer import Peer, wait_for

TOPIC = "plant/7/all"
SCORE = "er/press/7/score"


def test_a_commit_slower_than_the_keepalive_does_not_lose_the_connection(tmp_path) -> None:
    """Keepalive 1 s, so a broker gives up after 1.5 s; one commit hangs 3.5 s, and until all is scored."""
    with Mosquitto(tmp_path) as broker, Peer(broker.port, "er/#") as peer:
        config = write_config(tmp_path, broker.port, health="60s")
        config.write_text(config.read_text().replace('keepalive = "5s"', 'keepalive = "1s"'))
        with DaemonThread(config) as running:
            running.subscribed()
            peer.send(TOPIC, payload(0))
            wait_for(lambda: peer.on(SCORE), "the first score")
            daemon = running.daemon
            commits = daemon.running.commits
            wait_for(lambda: daemon.counters.commits and not commits.waiting, "its acknowledgement")
            wait_for(lambda: not commits.flying, "a disk at rest")
            before = daemon.counters.commits
            store = daemon.running.store
            commit, scored = store.commit, threading.Event()

            def slow(content):
                time.sleep(3.5)
                assert scored.wait(60)
                return commit(content)

            store.commit = slow  # type: ignore[method-assign]
            for i in range(1, 30):
                peer.send(TOPIC, payload(i))
                time.sleep(0.05)
            # The disk hangs until it is told: all is scored, nothing is acknowledged.
            wait_for(lambda: len(peer.on(SCORE)) == 30, "the scores", 30)
            assert commits.flying
            assert daemon.counters.commits == before
            assert commits.waiting == 29
            store.commit = commit  # type: ignore[method-assign]
            scored.set()
            wait_for(lambda: commits.waiting == 0, "the acknowledgements")
            assert daemon.running.link.counters.disconnects == 0
            assert daemon.running.link.counters.connects == 1
            assert daemon.counters.errors == 0
        assert [json.loads(s)["n"] for s in peer.on(SCORE)] == list(range(1, 31))
        assert "exceeded timeout" not in broker.log


def test_subscribing_again_heals_a_broker_that_has_forgotten_us(tmp_path) -> None:
    with Mosquitto(tmp_path) as broker, Peer(broker.port, "er/#") as peer:
        config = write_config(tmp_path, broker.port, health="1s")
        with DaemonThread(config) as running:
            running.subscribed()
            link = running.daemon.running.link
            peer.send(TOPIC, payload(0))
            wait_for(lambda: peer.on(SCORE), "the first score")
            # The broker forgets: it takes the subscription away, and the daemon is not told.
            link._client.unsubscribe("plant/+/all")
            wait_for(lambda: "plant/+/all" in broker.log.partition("UNSUBSCRIBE")[2], "the end of it")
            peer.send(TOPIC, payload(1))
            time.sleep(0.3)
            assert len(peer.on(SCORE)) == 1
            assert link.connected
            wait_for(lambda: "nothing has arrived for 5 s" in running.log_text.getvalue(), "notice", 20)

            def heard() -> bool:
                peer.send(TOPIC, payload(2))
                time.sleep(0.05)
                return len(peer.on(SCORE)) > 1

            wait_for(heard, "scores again", 10)
            assert link.counters.connects == 1
            wait_for(lambda: "messages arrive again" in running.log_text.getvalue(), "the end of it")
            kinds = [json.loads(data)["type"] for data in peer.on("er/event")]
            assert kinds[0] == "open"
