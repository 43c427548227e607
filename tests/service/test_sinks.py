"""Webhooks and commands: told, signed, tried again, bounded, and never in the way."""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import os
import resource
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from edge_rnn.errors import ConfigError
from edge_rnn.files.config import parse_config
from edge_rnn.files.config_types import Secret, SinkConfig
from edge_rnn.service.logs import Log
from edge_rnn.service.sinks import Sink, signature
from tests.support.mqtt_peer import wait_for

SECOND = 10**9


class Hook:
    """An HTTP server that answers with the given statuses, then 204."""

    def __init__(self, *statuses: int, hang: float = 0.0) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.statuses = list(statuses)
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                time.sleep(hang)
                hook.requests.append((dict(self.headers), body))
                status = hook.statuses.pop(0) if hook.statuses else 204
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "http://127.0.0.1:1/")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/alarm"

    def __enter__(self) -> Hook:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def sink(log: io.StringIO | None = None, **settings) -> Sink:
    pauses: list[float] = []
    attempt_s = settings.pop("attempt_s", 0.0)

    def wait(stop: threading.Event, seconds: float) -> bool:
        pauses.append(seconds)
        return stop.wait(0.001)

    def monotonic() -> float:
        return sum(pauses) + attempt_s * made.counters.attempts if pauses else 0.0

    made = Sink(
        SinkConfig(name="hook", timeout_ns=5 * SECOND, **settings), Log(stream=log or io.StringIO()),
        wall=lambda: 1_700_000_000.5, monotonic=monotonic, wait=wait,
    )  # fmt: skip
    made.pauses = pauses  # type: ignore[attr-defined]
    return made


def test_a_webhook_is_posted_and_signed() -> None:
    with Hook() as hook:
        made = sink(webhook=hook.url, secret=Secret("k3y"))
        made.offer(b'{"id":1}')
        made.offer(b'{"id":2}')
        wait_for(lambda: made.counters.delivered == 2, "delivery")
        made.close()
    assert [json.loads(body)["id"] for _, body in hook.requests] == [1, 2]
    headers, body = hook.requests[0]
    assert headers["Content-Type"] == "application/json"
    assert headers["X-Edge-Rnn-Timestamp"] == "1700000000"
    wanted = hmac.new(b"k3y", b"1700000000." + body, hashlib.sha256).hexdigest()
    assert headers["X-Edge-Rnn-Signature"] == f"sha256={wanted}" == signature("k3y", "1700000000", body)


def test_a_failing_webhook_is_tried_again_in_order_with_growing_pauses() -> None:
    with Hook(500, 503, 429) as hook:
        made = sink(webhook=hook.url, retry_for_ns=300 * SECOND)
        made.offer(b"1")
        made.offer(b"2")
        wait_for(lambda: made.counters.delivered == 2, "delivery")
        made.close()
    assert [body for _, body in hook.requests] == [b"1"] * 4 + [b"2"]
    assert made.pauses == [1.0, 2.0, 4.0]  # type: ignore[attr-defined]
    assert "X-Edge-Rnn-Signature" not in hook.requests[0][0]


@pytest.mark.parametrize("status", [400, 401, 404, 302])
def test_a_refusal_is_final_and_a_redirect_is_not_followed(status) -> None:
    log = io.StringIO()
    with Hook(status) as hook:
        made = sink(log, webhook=hook.url, retry_for_ns=300 * SECOND)
        made.offer(b"1")
        made.offer(b"2")
        wait_for(lambda: made.counters.delivered == 1, "delivery")
        made.close()
    assert made.counters.failed == 1
    assert f"answered {status}" in log.getvalue()


def test_an_event_is_given_up_after_its_time() -> None:
    log = io.StringIO()
    made = sink(log, webhook="http://127.0.0.1:1/x", retry_for_ns=10 * SECOND)
    made.offer(b"1")
    wait_for(lambda: made.counters.failed == 1, "the end")
    made.close()
    # The last attempt is made when the time is over.
    assert made.pauses == [1.0, 2.0, 4.0, 3.0]  # type: ignore[attr-defined]
    assert "cannot be reached" in log.getvalue()


def test_the_time_of_attempts_counts_like_that_of_pauses() -> None:
    made = sink(webhook="http://127.0.0.1:1/x", retry_for_ns=60 * SECOND, attempt_s=15.0)
    made.offer(b"1")
    wait_for(lambda: made.counters.failed == 1, "the end")
    made.close()
    # 1 and two attempts of 15 s, 2 and a third, 4 and a fourth: that is a minute, and more.
    assert made.counters.attempts <= 5
    assert sum(made.pauses) < 10  # type: ignore[attr-defined]


def test_a_slow_sink_holds_nothing_up_and_drops_the_oldest() -> None:
    with Hook(hang=0.3) as hook:
        made = sink(webhook=hook.url, queue=5)
        start = time.monotonic()
        for number in range(1000):
            made.offer(str(number).encode())
        assert time.monotonic() - start < 0.25
        assert made.waiting <= 5
        made.close(0.05)
    assert made.counters.dropped >= 990
    assert made.counters.delivered + made.counters.failed + made.counters.dropped >= 999


COMMAND = (sys.executable, "-c")


def test_a_command_gets_the_event_on_its_standard_input_and_no_shell(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MQTT_PASSWORD", "canary")
    out = tmp_path / "out"
    said = "sys.stdin.read() + sys.argv[1] + repr(sorted(os.environ))"
    code = f"import os, sys; open({str(out)!r}, 'w').write({said})"
    made = sink(command=(*COMMAND, code, "$(id); `id`"))
    made.offer(b'{"id":1}')
    wait_for(lambda: made.counters.delivered == 1, "delivery")
    made.close()
    assert out.read_text().startswith('{"id":1}$(id); `id`[')
    assert "MQTT_PASSWORD" not in out.read_text()


def test_a_command_that_fails_says_why() -> None:
    log = io.StringIO()
    made = sink(log, command=(*COMMAND, "import sys; sys.exit('no \\x1b[31m paper')"))
    made.offer(b"1")
    wait_for(lambda: made.counters.failed == 1, "the end")
    made.close()
    assert "ended with code 1: no \\x1b[31m paper" in log.getvalue() or "no" in log.getvalue()
    assert "\x1b" not in log.getvalue()


def test_a_command_that_hangs_is_ended_with_all_it_has_started(tmp_path) -> None:
    mark = tmp_path / "mark"
    inner = f"import time; time.sleep(1.5); open({str(mark)!r}, 'w')"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    log = io.StringIO()
    made = Sink(SinkConfig(name="hook", command=(*COMMAND, code), timeout_ns=SECOND // 2), Log(stream=log))
    made.offer(b"1")
    wait_for(lambda: made.counters.failed == 1, "the end")
    made.close()
    assert "was ended after 0.5 s" in log.getvalue()
    time.sleep(1.3)
    assert not mark.exists()


def test_a_command_that_says_too_much_costs_no_memory() -> None:
    log = io.StringIO()
    code = "import sys\nwhile True: sys.stderr.write('x' * 65536)"
    made = Sink(SinkConfig(name="hook", command=(*COMMAND, code), timeout_ns=SECOND // 2), Log(stream=log))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    made.offer(b"1")
    wait_for(lambda: made.counters.failed == 1, "the end")
    made.close()
    assert "was ended after 0.5 s" in log.getvalue()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024  # KiB


@pytest.mark.parametrize("hangs", [False, True])
def test_a_child_that_keeps_the_output_open_holds_nothing_up(hangs: bool, tmp_path) -> None:
    """The program ends, or has to be ended; what it left behind in a session of its own is not waited for."""
    mark = tmp_path / "pid"
    child = "subprocess.Popen(['sleep', '60'], start_new_session=True)"
    tell = f"open({str(mark)!r}, 'w').write(str(child.pid))"
    code = f"import subprocess, time; child = {child}; {tell}; time.sleep({60 if hangs else 0})"
    config = SinkConfig(name="hook", command=(*COMMAND, code), timeout_ns=2 * SECOND)
    made = Sink(config, Log(stream=io.StringIO()))
    made.offer(b"1")
    wait_for(lambda: made.counters.failed + made.counters.delivered == 1, "the end")
    assert made.counters.delivered == (not hangs)
    os.kill(int(mark.read_text()), signal.SIGKILL)  # it was still there
    made.close()


def test_only_what_is_wanted() -> None:
    made = sink(command=("true",), events=("open",), streams=("pumps/*", "press"))
    assert made.wants("open", "pumps/1")
    assert made.wants("open", "press")
    assert not made.wants("close", "pumps/1")
    assert not made.wants("open", "other/1")
    made.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('name = "a"', "expected either webhook or command, got neither"),
        ('name = "a"\nwebhook = "http://x/"\ncommand = ["true"]', "got both"),
        ('webhook = "http://x/"', "name: missing"),
        ('name = "a"\nwebhook = "ftp://x/"', "expected a URL"),
        ('name = "a"\nwebhook = "http://user:pa55@x/"', "without an account"),
        ('name = "a"\ncommand = ["no-such-program-here"]', "expected a program that can be run"),
        ('name = "a"\ncommand = "true"', "expected a list of texts"),
        ('name = "a"\ncommand = ["true"]\nsecret_env = "X"', "expected only with a webhook"),
        ('name = "a"\nwebhook = "http://x/"\nsecret = "pa55"', "does not belong into this file"),
        ('name = "a"\nwebhook = "http://x/"\nsecret_env = "NOT_SET"', "one that is not set"),
        ('name = "a"\nwebhook = "http://x/"\nsecret_file = "nowhere"', "no such file"),
        ('name = "a"\nwebhook = "http://x/"\nevents = ["opened"]', "events: expected a list of"),
        ('name = "a"\nwebhook = "http://x/"\n[[sink]]\nname = "a"\nwebhook = "http://x/"', "another name"),
    ],
)
def test_sinks_are_checked_before_anything_starts(tmp_path, text, expected) -> None:
    (tmp_path / "m").write_bytes(b"")
    stream = '[[stream]]\nname = "s"\nmodel = "m"\ntopic = "a"\nchannels = [{ name = "x" }]\n'
    with pytest.raises(ConfigError) as caught:
        parse_config(f"{stream}[[sink]]\n{text}\n", tmp_path / "c.toml", {})
    assert expected in str(caught.value)
    assert "pa55" not in str(caught.value)
