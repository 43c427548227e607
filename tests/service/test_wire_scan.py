"""The quick way in takes nothing that the way in Python would have read otherwise."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

import pytest

from edge_rnn.files.config import load_config
from edge_rnn.service.clock import Arrival, Clock
from edge_rnn.service.delivery import Delivery
from edge_rnn.service.health import DaemonCounters
from edge_rnn.service.logs import Log
from edge_rnn.service.mqtt_batch import BatchClient
from edge_rnn.service.pipeline import Pipeline
from edge_rnn.service.pipeline_build import build
from edge_rnn.service.wire import scan_words, sources
from edge_rnn.service.wire.sources import Sources
from edge_rnn.service.wire.swath import Swath, count, expanded, runs
from tests.service.test_mqtt_batch import Side, length
from tests.support.daemon import START_NS, write_config

NAMES = ("ts", "vib", "temp")


def packet(
    topic: str, payload: bytes, *, qos: int = 0, flags: int = 0, mid: int = 7, five: bool = False
) -> bytes:
    raw = topic.encode()
    body = len(raw).to_bytes(2, "big") + raw + (mid.to_bytes(2, "big") if qos else b"")
    body += (b"\0" if five else b"") + payload
    return bytes([0x30 | qos << 1 | flags]) + length(len(body)) + body


def pipeline(folder: Path, **changes) -> Pipeline:
    return build(load_config(write_config(folder, 1, **changes)), START_NS)


def as_readings(made: Pipeline, arrived: list) -> list[tuple]:
    """(stream, time, bits of the values in the model's order), from swaths and from single messages."""
    found: list[tuple] = []
    counters, log = DaemonCounters(), Log("error")
    for run in runs(arrived, lambda: made.generation):
        if isinstance(run, Swath):
            assert made.sources is not None
            for columns in made.sources.columns(run):
                for index in range(len(columns.block)):
                    lane, time_ns, values = columns.message(index, 2)
                    found.append((columns.streams[lane], time_ns, struct.pack("2d", *values)))
            continue
        for stream, channels, time_ns, values in made.take_all(run, counters, log):
            order = sorted(zip(channels, values, strict=True))
            numbers = [value for _, value in order]
            found.append((stream, time_ns, struct.pack(f"{len(numbers)}d", *numbers)))
    return found


class Reader:
    """A batch reader with and without columns, over the same bytes."""

    def __init__(self, made: Pipeline, five: bool) -> None:
        self.made = made
        self.side = Side(BatchClient, five)
        self.arrived: list = []
        self.side.client.batched = self.arrived.extend
        # What comes in pieces comes through paho.
        self.side.client.on_message = lambda _c, _d, m: self.arrived.append(
            Delivery(m.topic, bytes(m.payload), m.qos, bool(m.retain), 0, m.mid, 0, bool(m.dup))
        )

    def read(self, pieces: list[bytes], quick: bool) -> tuple[list, object, bytes]:
        self.side.client.sources = self.made.sources if quick else None
        self.arrived.clear()
        _, end, sent = self.side.run(pieces)
        return list(self.arrived), end, sent


def teach(made: Pipeline, topics: list[str]) -> None:
    """Let every topic come the slow way often enough to be known."""
    good = json.dumps({"ts": START_NS, "vib": 1.0, "temp": 2.0}).encode()
    for topic in topics:
        for _ in range(2):
            made.take_all([Delivery(topic, good, 0, False, START_NS, 0, 1)], DaemonCounters(), Log("error"))
        assert made.sources is not None
        assert made.sources.knows(topic.encode())


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Pipeline:
    found = pipeline(tmp_path_factory.mktemp("scan"), protocol="3.1.1")
    teach(found, [f"plant/{i}/all" for i in range(40)])
    return found


USUAL = [
    b'{"ts":%d,"vib":1.5,"temp":20}',
    b' { "temp" : 1e-3 , "ts" : %d , "vib" : 0.30000000000000004 } \n',
    b'{"ts":%d,"unit":"\xc2\xb0C","vib":123456789012345678,"temp":4.9406564584124654e-270,"on":true}',
    b'{"ts":%d,"more":{"a":[1,{"b":null},[]],"c":{}},"vib":-7,"temp":-1.25E+2,"x":[false,"a b"]}',
    b'{"ts":%d,"vib":9007199254740993,"temp":1.7976931348623157e270}',
]
ODD = [
    b'{"ts":%d,"vib":"1.5","temp":20}', b'{"ts":%d,"vib":null,"temp":20}', b'{"ts":%d,"temp":20}',
    b'{"ts":%d,"vib":1.5,"vib":2.5,"temp":20}', b'{"ts":%d,"v\\u0069b":1.5,"temp":20}',
    b'{"ts":%d,"vib":NaN,"temp":20}', b'{"ts":%d,"vib":-0,"temp":20}', b'{"ts":%d,"vib":-0.0,"temp":20}',
    b'{"ts":%d,"vib":1e400,"temp":20}', b'{"ts":%d,"vib":5e-324,"temp":20}', b'{"ts":%d,"vib":01,"temp":2}',
    b'{"ts":%d,"vib":1.,"temp":2}', b'{"ts":%d,"vib":.5,"temp":2}', b'{"ts":%d,"vib":1e,"temp":2}',
    b'{"ts":%d,"vib":12345678901234567890123,"temp":2}', b'{"ts":%d,"vib":1.5,"temp":20}x', b'{"ts":%d',
    b'{"ts":%d,"vib":1.5,"temp":20,}', b'[{"ts":%d,"vib":1.5,"temp":20}]', b'{"ts":%d.0,"vib":1.5,"temp":20}',
    b'{"ts":%d,"vib":1.5,"temp":20,"s":"\\q"}', b'{"ts":%d,"vib":1.5,"temp":20,"s":"a\nb"}',
    b'{"ts":%d,"vib":1.5,"temp":20,"s":[1,2}', b'{"ts":%d,"vib":1.5,"temp":20,"s":tru}', b"", b"{}", b"{",
    b'{"ts":%d,"vib":1.5 "temp":20}', b'{"ts":%d,"vib":+1.5,"temp":20}', b'{"ts":%d,"vib":0x10,"temp":20}',
    b'{"ts":%d,"vib":1.5,"temp":20,"deep":' + b"[" * 70 + b"]" * 70 + b"}",
]  # fmt: skip


def fill(form: bytes, time_ns: int) -> bytes:
    return form.replace(b"%d", str(time_ns).encode())


def stream_of(rng: random.Random, five: bool, amount: int) -> tuple[bytes, int]:
    """Packets of all kinds, most of them usual; and how many are surely taken as columns."""
    found, usual = [], 0
    for index in range(amount):
        topic = f"plant/{rng.randrange(40)}/all"
        time_ns, qos = START_NS + index * 10**6, rng.randrange(2)
        kind = rng.randrange(20)
        if kind < 14:
            form, flags = rng.choice(USUAL), 0
            usual += 1
        elif kind < 16:
            form, flags = rng.choice(ODD), 0
        elif kind == 16:
            form, flags = USUAL[0], 1  # retained
        elif kind == 17:
            form, flags, topic = USUAL[0], 0, rng.choice(["plant/new/all", "other", f"plant/{index}/more"])
        elif kind == 18:
            found.append(b"\x40\2\0\7")  # an acknowledgement of something
            continue
        else:
            form, flags, time_ns = USUAL[0], 8 * qos, rng.choice([0, 10**9, 10**12, 10**15, 10**18, 2**64])
        found.append(packet(topic, fill(form, time_ns), qos=qos, flags=flags, mid=index + 1, five=five))
    return b"".join(found), usual


@pytest.mark.parametrize("five", [False, True])
def test_columns_and_messages_say_the_same(made, tmp_path, five) -> None:
    rng = random.Random(five)
    own = pipeline(tmp_path, protocol="5" if five else "3.1.1")
    teach(own, [f"plant/{i}/all" for i in range(40)])
    reader = Reader(own, five)
    columns = 0
    for _ in range(60):
        data, usual = stream_of(rng, five, 60)
        cut = rng.choice([len(data), 1000, 137, 20])
        pieces = [data[at : at + cut] for at in range(0, len(data), cut)]
        quick, end, sent = reader.read(pieces, quick=True)
        plain, expected_end, expected_sent = reader.read(pieces, quick=False)
        assert (end, sent) == (expected_end, expected_sent)
        columns += sum(one.count for one in quick if isinstance(one, Swath))
        assert count(quick) == len(plain)
        assert [m._replace(arrival_ns=0) for m in expanded(quick)] == [
            m._replace(arrival_ns=0) for m in plain
        ]
        acks = b"".join(
            o.acks if isinstance(o, Swath) else b"\x40\2" + o.mid.to_bytes(2, "big") for o in quick if o.qos
        )
        assert acks == b"".join(b"\x40\2" + m.mid.to_bytes(2, "big") for m in plain if m.qos)
        assert as_readings(own, quick) == as_readings(own, plain)
        if cut == len(data):
            assert columns >= usual * 0.9
    assert columns > 1000


def test_every_cut_of_a_stream_gives_the_same_messages(made) -> None:
    data, _ = stream_of(random.Random(9), False, 12)
    reader = Reader(made, False)
    plain, _, _ = reader.read([data], quick=False)
    expected = as_readings(made, plain)
    assert len(expected) > 6
    for cut in range(1, len(data)):
        quick, end, _ = reader.read([data[:cut], data[cut:]], quick=True)
        assert end == 0
        assert as_readings(made, quick) == expected, cut


def test_arrival_times_rise_by_one_nanosecond_whatever_way_a_message_goes(made) -> None:
    forms = [USUAL[0], ODD[0], USUAL[1], USUAL[2], ODD[2]]
    data = b"".join(packet("plant/1/all", fill(form, START_NS + i)) for i, form in enumerate(forms))
    reader = Reader(made, False)
    quick, _, _ = reader.read([data], quick=True)
    assert [type(one).__name__ for one in quick] == ["Swath", "Delivery", "Swath", "Delivery"]
    times = [m.arrival_ns for m in expanded(quick)]
    assert times == list(range(times[0], times[0] + 5))


MUTANTS = 20_000


def test_mutants_are_read_as_the_slow_way_reads_them(made) -> None:
    rng = random.Random(11)
    reader = Reader(made, False)
    taken = 0
    for _ in range(MUTANTS // 10):
        data = bytearray()
        for _ in range(10):
            payload = bytearray(
                fill(rng.choice(USUAL if rng.random() < 0.8 else ODD), START_NS + rng.randrange(10**9))
            )
            for _ in range(rng.randrange(3)):
                place = rng.randrange(len(payload) or 1)
                match rng.randrange(3):
                    case 0 if payload:
                        payload[place] = rng.choice(b'{}[]",:.-+eE0123456789 \\tfn\x00\xff')
                    case 1:
                        payload.insert(place, rng.choice(b'{}[]",:.-+eE0123456789 \\tfn\x00\xff'))
                    case _:
                        del payload[place : place + rng.randrange(3)]
            data += packet("plant/3/all", bytes(payload))
        if rng.random() < 0.1:
            data[rng.randrange(len(data))] = rng.randrange(256)
        quick, end, sent = reader.read([bytes(data)], quick=True)
        plain, expected_end, expected_sent = reader.read([bytes(data)], quick=False)
        assert (end, sent, count(quick)) == (expected_end, expected_sent, len(plain))
        taken += sum(one.count for one in quick if isinstance(one, Swath))
        assert as_readings(made, quick) == as_readings(made, plain), bytes(data)
    assert taken > MUTANTS / 4


def test_numbers_are_read_as_python_reads_them(made) -> None:
    rng = random.Random(5)
    reader = Reader(made, False)
    for _ in range(40):
        texts, data = [], b""
        for index in range(100):
            digits = str(rng.randrange(10 ** rng.randrange(1, 20)))
            point = rng.randrange(len(digits) + 1)
            text = f"{digits[:point] or '0'}.{digits[point:]}" if point < len(digits) else digits
            text = text if text[0] != "0" or text[:2] == "0." or text == "0" else f"1{text}"
            text += rng.choice(["", "", f"e{rng.randrange(-60, 60)}", f"E+{rng.randrange(200)}"])
            texts.append(text)
            payload = f'{{"ts":{START_NS + index},"vib":{text},"temp":-{text}}}'.encode()
            data += packet("plant/5/all", payload)
        quick, _, _ = reader.read([data], quick=True)
        assert sum(one.count for one in quick if isinstance(one, Swath)) > 60
        expected = [(float(text), -float(text)) for text in texts]
        assert [struct.unpack("2d", values) for _, _, values in as_readings(made, quick)] == expected


def test_lanes_of_another_generation_are_taken_message_by_message(tmp_path) -> None:
    own = pipeline(tmp_path, protocol="3.1.1")
    teach(own, ["plant/1/all"])
    data = packet("plant/1/all", fill(USUAL[0], START_NS))
    quick, _, _ = Reader(own, False).read([data], quick=True)
    assert isinstance(quick[0], Swath)
    assert own.sources is not None
    own.sources._clear()
    assert own.generation != quick[0].generation
    (run,) = runs(quick, lambda: own.generation)
    assert isinstance(run, list)
    assert as_readings(own, quick)[0][0] == "press/1"


def test_lanes_that_begin_anew_between_two_swaths_do_not_mislead_the_second(tmp_path, monkeypatch) -> None:
    own = pipeline(tmp_path, protocol="3.1.1")
    monkeypatch.setattr(sources, "_MOST_LANES", 4)
    teach(own, [f"plant/{i}/all" for i in (1, 2, 3, 4)])
    new = Delivery("plant/5/all", fill(USUAL[0], START_NS), 0, False, START_NS, 0, 1)
    own.take_all([new], DaemonCounters(), Log("error"))
    # The second message of topic 5 makes it a source: the others are none any more, and it has their number.
    topics = ["plant/1/all", "plant/5/all", "plant/1/all", "plant/2/all"]
    data = b"".join(packet(topic, fill(USUAL[0], START_NS + i)) for i, topic in enumerate(topics))
    quick, _, _ = Reader(own, False).read([data], quick=True)
    assert [type(one) for one in quick] == [Swath, Delivery, Swath]
    before = own.generation
    assert [found[0] for found in as_readings(own, quick)] == ["press/1", "press/5", "press/1", "press/2"]
    assert own.generation != before


def test_two_tables_have_no_generation_in_common(tmp_path) -> None:
    one, other = pipeline(tmp_path), pipeline(tmp_path)
    assert one.generation != other.generation


def test_the_compiled_pass_knows_every_table_that_takes_the_place_of_another() -> None:
    known = Sources(lambda _table, _begin: 0, [("press", 2)], five=False)
    form = known.form("press", [b"vib", b"temp"], [0, 1], None, 1000)
    assert form is not None
    # Topics for which there is no place in the hash table, and one so long that it needs another text table.
    topics = [b"plant/%d/all" % i for i in range(70)] + [b"long/" + b"x" * 5000]
    for number, topic in enumerate(topics):
        if number >= 64:
            known._place = lambda _topic, _lane: False  # type: ignore[method-assign]
        known.add(topic, "press/1", form)
        seen = known._t[[scan_words.LANE_TABLE, scan_words.TOPICS, scan_words.SLOTS]].tolist()
        assert seen == [t.ctypes.data for t in (known._lane_table, known._texts, known._slots)], topic[:20]
    assert len(known.streams) == 64
    assert len(known._lane_table) == 128
    assert len(known._texts) > 5000


@pytest.mark.parametrize("order", ["odd usual usual", "usual odd odd usual", "usual odd usual odd odd usual"])
def test_messages_behind_one_that_paho_reads_are_later_than_it(tmp_path, order) -> None:
    file = write_config(tmp_path, 1, protocol="5")
    left = [line for line in file.read_text().split("\n") if not line.startswith(("time", "clock_limit"))]
    file.write_text("\n".join(left))
    own = build(load_config(file), START_NS)
    payload = b'{"vib":1.5,"temp":20}'
    for _ in range(2):
        own.take_all([Delivery("plant/1/all", payload, 0, False, 5, 0, 1)], DaemonCounters(), Log("error"))
    walls = iter(range(START_NS, START_NS + 10**9, 1000))
    arrival, arrived = Arrival(Clock(lambda: 0.0, lambda: next(walls))), []
    client = Side(BatchClient, True)
    client.client.sources, client.client.arrival = own.sources, arrival
    client.client.batched = arrived.extend
    client.client.on_message = lambda _c, _d, m: arrived.append(
        Delivery(m.topic, bytes(m.payload), m.qos, bool(m.retain), arrival.next_ns(), m.mid, 0, bool(m.dup))
    )
    note = b"\x26\0\1k" + (146).to_bytes(2, "big") + b"v" * 146
    body = b"\0\x0bplant/1/all" + length(len(note)) + note + payload
    packets = {"usual": packet("plant/1/all", payload, five=True), "odd": b"\x30" + length(len(body)) + body}
    client.run([b"".join(packets[kind] for kind in order.split())])
    assert any(isinstance(one, Swath) for one in arrived)
    times = [message.arrival_ns for message in expanded(arrived)]
    assert len(times) == len(order.split())
    assert times == sorted(set(times))
    found = own.take_all(expanded(arrived), DaemonCounters(), Log("error"))
    own.engine.judge(found, arrival.next_ns())
    assert own.engine.counters.late == own.engine.counters.duplicate == 0
    assert own.engine.counters.samples == len(times)


@pytest.mark.parametrize(
    ("time", "given", "expected"),
    [
        ("", None, None),
        ('time = { path = "ts", unit = "s" }', 1_763_700_000, 1_763_700_000 * 10**9),
        ('time = { path = "ts", unit = "ms" }', 1_763_700_000_123, 1_763_700_000_123 * 10**6),
        ('time = { path = "ts", unit = "auto" }', 1_763_700_000, 1_763_700_000 * 10**9),
        ('time = { path = "ts", unit = "auto" }', 1_763_700_000_123_456, 1_763_700_000_123_456 * 1000),
        ('time = { path = "ts", unit = "auto" }', 99, "refused"),
        ('time = { path = "ts", unit = "s" }', 2**62, "refused"),
    ],
)
def test_times_in_any_unit_and_of_arrival(tmp_path, time, given, expected) -> None:
    file = write_config(tmp_path, 1, protocol="3.1.1")
    text = file.read_text().replace('time = { path = "ts", unit = "ns" }', time)
    # Without times of their own there is no clock to watch.
    file.write_text("\n".join(line for line in text.split("\n") if time or "clock_limit" not in line))
    own = build(load_config(file), START_NS)
    known = json.dumps({"ts": 1_763_700_000, "vib": 1.0, "temp": 2.0}).encode()
    for _ in range(2):
        own.take_all([Delivery("plant/1/all", known, 0, False, 5, 0, 1)], DaemonCounters(), Log("error"))
    data = b"".join(
        packet("plant/1/all", json.dumps({"ts": given, "vib": i, "temp": 2.5}).encode()) for i in range(3)
    )
    reader = Reader(own, False)
    quick, _, _ = reader.read([data], quick=True)
    found = as_readings(own, quick)
    if expected == "refused":
        assert found == []
        return
    assert [type(one) for one in quick] == [Swath]
    times = [time_ns for _, time_ns, _ in found]
    if expected is None:
        assert times == [m.arrival_ns for m in expanded(quick)]
    else:
        assert times == [expected] * 3


@pytest.mark.parametrize("reader", ["auto", "batch", "paho"])
def test_passes_are_compiled_only_where_they_are_wanted(tmp_path: Path, reader: str) -> None:
    made = pipeline(tmp_path, mqtt=f'reader = "{reader}"')
    assert (made.sources is not None) == (reader == "auto")
    assert made.outputs.makes_packets == (reader == "auto")
