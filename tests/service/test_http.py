"""Metrics and health over HTTP: what a scrape sees of a real daemon, and what hostile clients cannot do."""

from __future__ import annotations

import contextlib
import http.client
import math
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge_rnn.errors import ConfigError
from edge_rnn.service import http as http_server
from edge_rnn.service.health import DaemonCounters
from edge_rnn.service.http import MOST_AT_ONCE, STALLED_S, HttpServer, answers
from edge_rnn.service.metrics import Facts, Latest, exposition
from tests.support.daemon import DaemonThread, payload, write_config
from tests.support.mosquitto import Mosquitto, free_port
from tests.support.mqtt_peer import Peer, wait_for


def facts(streams: int = 2, *, problems: tuple[str, ...] = (), stalled_s: float = 0.0) -> Facts:
    latest = [Latest(f'g/"{i}"\\', "normal", 0.5 * i, 4.0, 1_763_700_000_500_000_000) for i in range(streams)]
    latest.append(Latest("g/new", "warming", math.nan, math.nan, 5))
    counters = {"daemon": DaemonCounters(messages=7), "broker": {"connects": 2}}
    return Facts(counters, {"up": 1.0, "lag_seconds": 0.25}, latest, list(problems), stalled_s)


def samples(text: bytes) -> dict[tuple[str, tuple[str, ...]], float]:
    """Every sample by name and label values, read by Prometheus' own parser."""
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_metrics_are_what_the_parser_of_prometheus_reads() -> None:
    found = samples(exposition(facts)())
    assert found["edge_rnn_daemon_messages_total", ()] == 7
    assert found["edge_rnn_broker_connects_total", ()] == 2
    assert found["edge_rnn_lag_seconds", ()] == 0.25
    assert found["edge_rnn_score", ('g/"1"\\',)] == 0.5
    assert found["edge_rnn_score_threshold", ('g/"1"\\',)] == 4.0
    assert found["edge_rnn_status", ("warming", "g/new")] == 1
    assert ("edge_rnn_score", ("g/new",)) not in found
    assert found["edge_rnn_reading_time_seconds", ('g/"0"\\',)] == 1_763_700_000.5


def test_health_and_readiness_say_what_is_wrong() -> None:
    assert answers(facts)["/healthz"]()[0] == answers(facts)["/readyz"]()[0] == 200
    ill = answers(lambda: facts(problems=("not connected", "disk full"), stalled_s=STALLED_S + 1))
    assert ill["/healthz"]()[0] == 503
    assert b"31 s" in ill["/healthz"]()[2]
    assert ill["/readyz"]()[2] == b"not connected\ndisk full\n"


def get(port: int, path: str, method: str = "GET") -> tuple[int, bytes]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request(method, path)
        with connection.getresponse() as answer:
            return answer.status, answer.read()


def test_a_daemon_serves_its_metrics_and_is_ready_when_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "broker"
    folder.mkdir()
    port = free_port()
    with Mosquitto(folder) as broker:
        config = write_config(tmp_path, broker.port, mqtt=f'[http]\nlisten = "127.0.0.1:{port}"')
        with DaemonThread(config) as running, Peer(broker.port) as peer:
            running.subscribed()
            assert get(port, "/readyz") == (200, b"ok\n")
            for index in range(20):
                peer.send("plant/m1/all", payload(index))
            wait_for(lambda: running.daemon.counters.verdicts == 20, "20 verdicts")
            code, text = get(port, "/metrics")
            found = samples(text)
            assert code == 200
            assert found["edge_rnn_daemon_verdicts_total", ()] == 20
            assert found["edge_rnn_engine_samples_total", ()] == 20
            assert found["edge_rnn_status", ("normal", "press/m1")] == 1
            assert 0 <= found["edge_rnn_score", ("press/m1",)] < 15
            broker.kill()
            wait_for(lambda: get(port, "/readyz")[0] == 503, "not ready without a broker")
            assert b"not connected" in get(port, "/readyz")[1]
            assert get(port, "/healthz")[0] == 200
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", port), 1)


def test_a_port_in_use_is_named_before_anything_is_subscribed(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = write_config(tmp_path, free_port(), mqtt=f'[http]\nlisten = "127.0.0.1:{port}"')
        with DaemonThread(config) as running:
            pass
    assert isinstance(running.error, ConfigError)
    assert f'http.listen: "127.0.0.1:{port}" cannot be listened on' in str(running.error)


@pytest.fixture
def server() -> Iterator[HttpServer]:
    running = HttpServer("127.0.0.1", 0, facts)
    yield running
    running.close()


def test_other_paths_and_methods_are_refused(server: HttpServer) -> None:
    assert get(server.port, "/")[0] == 404
    assert get(server.port, "/metrics/../../etc/passwd")[0] == 404
    assert get(server.port, "/metrics", "POST")[0] == 501
    assert get(server.port, "/healthz", "HEAD") == (200, b"")
    assert get(server.port, "/metrics?x=1")[0] == 200


def test_hostile_bytes_and_slow_clients_take_nothing_from_others(server: HttpServer) -> None:
    with contextlib.ExitStack() as stack:
        for data in (b"\0\xff" * 100, b"GET " + b"a" * 70000, b"GET /metrics HTTP/9.9\r\n\r\n"):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 5))
            with contextlib.suppress(OSError):
                one.sendall(data)
        assert get(server.port, "/healthz")[0] == 200
        for _ in range(2 * MOST_AT_ONCE):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 5))

    def served() -> bool:
        with contextlib.suppress(http.client.HTTPException, OSError):
            return get(server.port, "/healthz")[0] == 200
        return False

    wait_for(served, "an answer after the crowd has gone")


def test_clients_that_send_a_byte_now_and_then_lose_their_places(server: HttpServer, monkeypatch) -> None:
    monkeypatch.setattr(http_server, "PATIENCE_S", 0.5)
    with contextlib.ExitStack() as stack:
        drips = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 5))
            for _ in range(MOST_AT_ONCE)
        ]

        def served() -> bool:
            for drip in drips:
                with contextlib.suppress(OSError):
                    drip.send(b"G")
            with contextlib.suppress(http.client.HTTPException, OSError):
                return get(server.port, "/healthz")[0] == 200
            return False

        wait_for(served, "an answer in spite of clients that never end")


def test_a_thousand_streams_are_one_text() -> None:
    found = samples(exposition(lambda: facts(1000))())
    assert sum(name == "edge_rnn_score" for name, _ in found) == 1000
