"""`init`, `tail` and `events` with a real broker and a real database."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_rnn import cli
from edge_rnn.commands.tail import draw
from edge_rnn.errors import StoreError
from edge_rnn.files.config import load_config
from edge_rnn.files.model_file import save
from edge_rnn.service.store import Commit, Store
from edge_rnn.service.store_history import EventFilter, read_history
from edge_rnn.stream.types import Event
from edge_rnn.watch.board import Board
from tests.support import need
from tests.support.daemon import DaemonThread, gru_model, payload, write_config
from tests.support.mosquitto import Mosquitto, free_port
from tests.support.mqtt_peer import Peer

_S = 1_000_000_000
_START = 1_763_700_000 * _S


def event(number: int, kind: str = "anomaly", stream: str = "press/a", *, ended: bool = True) -> Event:
    start = _START + number * 100 * _S
    return Event(
        type="close" if ended else "open", id=f"e{number}", stream=stream, kind=kind, start_ns=start,
        time_ns=start + 5 * _S, end_ns=start + 5 * _S if ended else None, score=9.5, threshold=4.0, peak=12.0,
        peak_ns=start + _S, shares=(("vib", 0.75), ("temp", 0.25)),
    )  # fmt: skip


@pytest.fixture
def history(tmp_path: Path) -> Iterator[Path]:
    """A store with four events, still open: the daemon runs while its history is read."""
    path = tmp_path / "state.db"
    store = Store.open(path)
    events = [
        event(0), event(1, "stuck"), event(2, stream="press/b/x"), event(3, "silent", ended=False),
    ]  # fmt: skip
    store.commit(Commit(events=events))
    yield path
    store.close()


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def ids(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert cli.main(["events", *words, "--json"]) == 0
    return [json.loads(line)["id"] for line in lines(capsys)]


def test_events_are_filtered_and_newest_first(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(history)
    assert ids(capsys, file) == ["e3", "e2", "e1", "e0"]
    assert ids(capsys, file, "--kind", "fault") == ["e3", "e1"]
    assert ids(capsys, file, "--kind", "anomaly", "--stream", "press/b*") == ["e2"]
    assert ids(capsys, file, "--open") == ["e3"]
    assert ids(capsys, file, "--limit", "2") == ["e3", "e2"]
    assert ids(capsys, file, "--limit", "0") == ["e3", "e2", "e1", "e0"]
    second = "2025-11-21 04:41:45"  # e1 has ended five seconds before
    assert ids(capsys, file, "--since", second) == ["e3", "e2", "e1"]
    assert ids(capsys, file, "--until", second) == ["e1", "e0"]


def test_faults_of_a_whole_stream_are_told_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = dataclasses.replace(
        event(1, "clock"), score=-7200.0, peak=-7200.0, threshold=600.0, shares=(("vib", math.nan),)
    )
    flaps = dataclasses.replace(event(2, "flapping"), peak=150.0, threshold=20.0, shares=())
    own = dataclasses.replace(event(3, "silent", ""), shares=())
    with Store.open(tmp_path / "state.db") as store:
        store.commit(Commit(events=[clock, flaps, own]))
    assert cli.main(["events", str(tmp_path / "state.db")]) == 0
    shown = capsys.readouterr().out
    assert "2 h behind the clock: vib" in shown
    assert "  -2 h  10 min  " in shown
    assert "the alarm, 150 changes a minute" in shown
    assert "(the daemon)" in shown
    assert cli.main(["events", str(tmp_path / "state.db"), "--kind", "clok"]) == 78
    assert "did you mean" in capsys.readouterr().err


def test_an_event_as_json_csv_and_table_says_the_same(
    history: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["events", str(history), "--kind", "stuck", "--json"]) == 0
    (found,) = map(json.loads, lines(capsys))
    assert found["start"] == "2025-11-21T04:41:40.000Z"
    assert (found["duration_s"], found["peak"], found["shares"]["vib"]) == (5.0, 12.0, 0.75)
    assert cli.main(["events", str(history), "--kind", "stuck", "--csv"]) == 0
    header, row = lines(capsys)
    assert dict(zip(header.split(","), row.split(","), strict=True))["shares"] == "vib=0.750 temp=0.250"
    assert cli.main(["events", str(history)]) == 0
    text = capsys.readouterr().out
    assert "press/b/x" in text
    assert "vib 75%, temp 25%" in text
    assert "4 event(s), 1 still open" in text


def test_reading_the_history_needs_no_secret(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    account = 'username = "pump"\npassword_env = "ER_NOT_SET"'
    config = write_config(history.parent, 1, store=history.name, mqtt=account)
    assert cli.main(["events", str(config)]) == 0
    assert "4 event(s)" in capsys.readouterr().out
    config.write_text(config.read_text().replace(f'path = "{history.name}"', "path = 3"))
    assert cli.main(["events", str(config)]) == 78
    assert "store.path: expected" in capsys.readouterr().err


def test_reading_the_history_changes_no_file_and_takes_no_lock(history: Path) -> None:
    before = history.read_bytes()
    events, damaged = read_history(history)
    assert (len(events), damaged) == (4, 0)
    assert history.read_bytes() == before


def test_a_damaged_row_is_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "state.db"
    with Store.open(path) as store:
        store.commit(Commit(events=[event(0), event(1)]))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE events SET peak_ns = peak_ns + 1 WHERE event = 'e0'")
    connection.close()
    assert cli.main(["events", str(path), "--json"]) == 0
    told = capsys.readouterr()
    assert [json.loads(line)["id"] for line in told.out.splitlines()] == ["e1"]
    assert "1 row(s) have a wrong checksum" in told.err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nowhere.db"], 74, "got no such file"),
        (["{model}"], 74, "cannot be read"),
        (["{other}"], 74, "another program's"),
        (["{db}", "--since", "soon"], 78, "expected a duration back from now"),
        (["{db}", "--since", "1234"], 78, "expected a duration back from now"),
        (["{db}", "--limit", "-1"], 78, "--limit: expected 0 or more"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(
    words: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    history: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "model").write_bytes(b"this is no database at all, but it is long enough" * 9)
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()
    places = {"model": tmp_path / "model", "other": tmp_path / "other.db", "db": history}
    assert cli.main(["events", *(word.format(**places) for word in words)]) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert message in told.err
    assert len(told.err.splitlines()) == 1


def test_the_filter_knows_only_events() -> None:
    assert "e0" not in EventFilter()
    with pytest.raises(StoreError):
        read_history("/nowhere/at/all.db")


# ---- with a broker


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    folder = tmp_path / "broker"
    folder.mkdir()
    with Mosquitto(folder) as running:
        yield running


def test_tail_writes_every_score_of_a_real_daemon(
    broker: Mosquitto, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, broker.port)
    with DaemonThread(config) as running, Peer(broker.port) as peer:
        running.subscribed()

        def publish() -> None:
            time.sleep(0.7)
            for index in range(30):
                peer.post("plant/m1/all", payload(index))
                time.sleep(0.01)

        sender = threading.Thread(target=publish)
        sender.start()
        assert cli.main(["tail", str(config), "--json", "--for", "3s"]) == 0
        sender.join()
    told = [json.loads(line) for line in lines(capsys)]
    assert [line["n"] for line in told] == list(range(1, 31))
    assert {line["stream"] for line in told} == {"press/m1"}


def test_init_proposes_what_a_broker_carries_and_check_accepts_it(
    broker: Mosquitto, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(gru_model(), tmp_path / "press.safetensors")
    proposed = tmp_path / "proposed.toml"
    stop = threading.Event()

    def publish() -> None:
        with Peer(broker.port) as peer:
            index = 0
            while not stop.wait(0.05):
                for machine in ("m1", "m2"):
                    peer.post(f"plant/{machine}/all", payload(index))
                index += 1

    sender = threading.Thread(target=publish)
    sender.start()
    words = [
        "init", "--broker", f"localhost:{broker.port}", "--for", "2s",
        "--model", str(tmp_path / "press.safetensors"), "-o", str(proposed),
    ]  # fmt: skip
    try:
        assert cli.main(words) == 0
    finally:
        stop.set()
        sender.join()
    told = capsys.readouterr().err
    assert "1 group(s)" in told
    # What it says comes next can be typed as it stands.
    program, *following = shlex.split(told.rpartition("next: ")[2])
    assert program == "edge-rnn"
    assert cli.main(following) == 0
    assert cli.main(["check", str(proposed)]) == 0
    config = load_config(proposed)
    assert config.streams[0].channels[0].topic == "plant/{level2}/all"
    assert config.streams[0].time is not None
    capsys.readouterr()
    assert cli.main(words) == 78
    assert "exists already; --force replaces it" in capsys.readouterr().err


def test_init_says_when_nothing_was_heard(broker: Mosquitto, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["init", "--broker", f"localhost:{broker.port}", "--for", "300ms"]) == 1
    assert "nothing held a number" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["init", "--broker", "localhost:{free}", "--for", "1s"], 70, "no connection to the broker"),
        (["tail", "--broker", "localhost:{free}", "--for", "1s"], 70, "no connection to the broker"),
        (["init", "--broker", "mqtt://localhost"], 78, "without a scheme"),
        (["init", "--broker", "localhost:99999"], 78, "expected a port"),
        (["init", "--password-file", "x"], 78, "expected together with --username"),
        (["init", "--username", "me", "--password-file", "nowhere"], 78, "expected a readable file"),
        (["init", "--ca", "nowhere"], 78, "no such file"),
        (["init", "--for", "soon"], 78, 'expected a duration such as "30s"'),
        (["tail", "--for", "soon"], 78, 'expected a duration such as "30s"'),
        (["tail", "nowhere.toml"], 78, "expected a configuration file"),
        (["tail", "nowhere.toml", "--broker", "b"], 78, "got both"),
        (["init", "-o", "/nowhere/at/all.toml"], 78, "expected a folder that can be written to"),
    ],
)
def test_a_wrong_word_is_one_line(
    words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([word.format(free=free_port()) for word in words]) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert message in told.err
    assert len(told.err.splitlines()) == 1


def test_a_refused_password_is_clear_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Mosquitto(tmp_path, anonymous=False) as strict:
        assert cli.main(["tail", "--broker", f"localhost:{strict.port}", "--for", "1s"]) == 77
    assert "refuses the connection" in capsys.readouterr().err


# ---- the table


def score(value: float | None, status: str = "normal", *, alarm: bool = False) -> bytes:
    return json.dumps(
        {"status": status, "alarm": alarm, "score": value, "threshold": 4.0,
         "shares": {"vib": 0.9, "temp": 0.1},
         "faults": {"temp": "stuck"} if status == "fault" else {}}
    ).encode()  # fmt: skip


def test_the_board_puts_first_what_needs_a_person() -> None:
    board = Board("er")
    for stream, data in (
        ("calm", score(1.0)), ("high", score(3.9)), ("sick", score(None, "fault")),
        ("new", score(None, "warming")),
        ("loud", score(8.0, "anomaly", alarm=True)),
    ):  # fmt: skip
        assert board.take(f"er/g/{stream}/score", data, 1.0) is not None
    assert [line.stream for line in board.sorted()] == ["g/loud", "g/sick", "g/high", "g/calm", "g/new"]
    assert board.lines["g/loud"].reasons == "vib 90%, temp 10%"
    assert board.lines["g/sick"].reasons == "temp stuck"
    assert board.lines["g/high"].reasons == ""


def test_the_board_takes_only_what_is_the_daemons() -> None:
    board = Board("er")
    for topic, data in (
        ("er/g/score", b"not json"), ("er/g/score", b"[]"), ("else/g/score", score(1.0)),
        ("er/score", score(1.0)),
        ("er/g/other", score(1.0)),
    ):  # fmt: skip
        assert board.take(topic, data, 1.0) is None
    assert board.lines == {}
    assert board.unread == 2
    board.take("er/status", b"online", 1.0)
    assert board.online is True
    board.take("er/g/state", score(1.0), 1.0)
    assert board.lines["g"].scores == 0
    board.take("er/g/state", b"", 1.0)
    assert board.lines == {}


def test_the_table_fits_its_terminal() -> None:
    console_module = need.module("rich.console")
    board = Board("er")
    for i in range(60):
        board.take(f"er/hall/machine-with-a-long-name-{i}/score", score(i / 10, alarm=i > 50), 1.0)
    for width, height in ((80, 24), (120, 10), (60, 8)):
        console = console_module.Console(width=width, height=height)
        with console.capture() as capture:
            console.print(draw(board, "broker:1883", width, height, 5.0))
        drawn = capture.get().splitlines()
        assert len(drawn) <= height
        assert all(len(line) <= width for line in drawn)
        assert "edge-rnn tail" in drawn[0]
    assert "more" in drawn[-1]


def test_help_needs_no_heavy_import() -> None:
    """`tail` on a workstation: neither the compiler nor torch."""
    code = (
        "import sys; from edge_rnn import cli\n"
        "try: cli.main(['events', '--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'matplotlib', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# ---- doctor


def findings(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, list[dict]]:
    assert cli.main(["doctor", *words, "--json"]) == code
    report = json.loads(capsys.readouterr().out)
    found: dict[str, list[dict]] = {}
    for one in report["findings"]:
        found.setdefault(one["subject"], []).append(one)
    return found


def test_doctor_measures_a_real_broker_and_names_what_to_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "broker"
    folder.mkdir()
    with Mosquitto(folder, extra=["max_queued_messages 100"]) as broker, Peer(broker.port) as peer:
        config = write_config(tmp_path, broker.port)
        peer.send("plant/old/all", payload(0), retain=True)
        stop = threading.Event()

        def publish() -> None:
            index = 0
            while not stop.wait(0.05):
                peer.post("plant/m1/all", payload(index))  # its clock stands in November 2025
                peer.post("plant/m2/all", b"[1, 2]")
                index += 1

        sender = threading.Thread(target=publish)
        sender.start()
        try:
            found = findings(capsys, str(config), "--for", "1s")
        finally:
            stop.set()
            sender.join()
        with Peer(broker.port, "er/doctor/#") as after:
            time.sleep(0.2)
            assert after.messages == []
    levels = {subject: [one["level"] for one in ones] for subject, ones in found.items()}
    assert levels["models"] == levels["broker"] == levels["disk"] == levels["readings"] == ["ok"]
    assert levels["queue"] == ["warn"]
    # mosquitto counts those in flight apart
    assert 100 <= found["queue"][0]["figures"]["kept"] <= 200
    assert found["retained"][0]["figures"]["retained"] == 1
    assert levels["payloads"] == ["warn"]
    assert levels["clock"] == ["warn"]
    assert "after their time" in found["clock"][0]["text"]
    assert found["round trip"][0]["figures"]["qos1_median_s"] > 0


def test_doctor_names_a_field_that_no_message_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "broker"
    folder.mkdir()
    sent = json.dumps({"ts": time.time_ns(), "vibration": 1.0, "temp": 2.0, "rpm": 3.0})
    with Mosquitto(folder) as broker, Peer(broker.port) as peer:
        config = str(write_config(tmp_path, broker.port))
        stop = threading.Event()

        def publish() -> None:
            while not stop.wait(0.02):
                peer.post("plant/m1/all", sent.encode())

        sender = threading.Thread(target=publish)
        sender.start()
        try:
            found = findings(capsys, config, "--passive", "--for", "300ms", code=1)
        finally:
            stop.set()
            sender.join()
    (one,) = found["channel"]
    assert one["level"] == "fail"
    assert one["remedy"] == 'did you mean path = "vibration"?'
    count = one["figures"]["messages"]
    assert one["text"] == (
        f"press: the field 'vib' of channel 'vib' is in 0 of {count} messages, "
        "which have rpm, temp, ts, vibration"
    )
    assert count > 0


def test_doctor_finds_the_broker_that_waits_to_fill_packets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "broker"
    folder.mkdir()
    with Mosquitto(folder, extra=["set_tcp_nodelay false"]) as broker:
        config = str(write_config(tmp_path, broker.port, qos=0))
        # On a machine with much else to do the connection takes as long as the wait that is looked for.
        for _ in range(10):
            found = findings(capsys, config, "--for", "200ms")
            if found["round trip"][0]["level"] == "warn":
                break
    assert "set_tcp_nodelay true" in found["round trip"][0]["remedy"]
    assert found["queue"][0]["level"] == "skip"


def test_doctor_without_a_broker_still_looks_at_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = findings(capsys, str(write_config(tmp_path, free_port())), code=1)
    assert found["models"][0]["level"] == "ok"
    assert found["broker"][0]["level"] == "fail"
    assert "no connection" in found["broker"][0]["text"]


def test_doctor_says_like_the_rest_that_the_account_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "broker"
    folder.mkdir()
    with Mosquitto(folder, anonymous=False) as strict:
        config = str(write_config(tmp_path, strict.port, mqtt='username = "pump"'))
        assert cli.main(["doctor", config, "--for", "1s"]) == 77
    told = capsys.readouterr()
    assert told.err == ""
    *_, row, remedy, summary = told.out.splitlines()
    assert row.startswith("fail broker     the broker at 127.0.0.1:")
    assert "refuses the connection" in row
    assert remedy.strip() == "-> set mqtt.password_file or mqtt.password_env"
    assert summary == "1 problem(s), 0 warning(s)"


def test_doctor_passive_publishes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "broker"
    folder.mkdir()
    with Mosquitto(folder) as broker, Peer(broker.port, "#") as ear:
        assert (
            cli.main(["doctor", str(write_config(tmp_path, broker.port)), "--passive", "--for", "300ms"]) == 0
        )
        assert ear.messages == []
    text = capsys.readouterr().out
    assert "none in 0.3 s" in text
    assert text.splitlines()[-1] == "0 problem(s), 1 warning(s)"


def test_doctor_names_a_folder_it_cannot_write_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path, free_port(), store="/proc/edge-rnn/state.db")
    found = findings(capsys, str(config), code=1)
    assert found["disk"][0]["level"] == "fail"
    assert "store.path" in found["disk"][0]["remedy"]
