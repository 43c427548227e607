"""Packets that compiled code writes are those of the way in Python, byte for byte."""

from __future__ import annotations

import numpy as np
import pytest

from edge_rnn.detect.verdict import FAULT_KINDS, STATUSES, Verdict, explained_dtype
from edge_rnn.service.outputs import Outputs
from edge_rnn.service.wire.packets import PacketWriter
from edge_rnn.service.wire.scores import writer
from tests.service.test_mqtt_batch import length

NAMES = ("vib", 'a"b\\c\n', "Größe")
SCORERS = ("residual ewma_z", 'a "name"')
START = 1_763_700_000_000_000_000


class Burst:
    """What `Outputs` looks at in a `Judged`."""

    group, scorers, addresses = "press", SCORERS, (0, 0)

    def __init__(self, records: np.ndarray, rows: np.ndarray, generation: int = 0) -> None:
        self.records, self.rows, self.generation = records, rows, generation
        self.streams = [f"press/{generation}-{row}" for row in rows.tolist()]

    def __len__(self) -> int:
        return len(self.rows)

    def verdict(self, index: int) -> Verdict:
        return Verdict.from_record(self.records[index], self.streams[index], SCORERS)


def records(source: np.random.Generator, count: int) -> np.ndarray:
    """Verdicts with numbers of all sizes, times of all kinds, and most of them with the same status."""
    made = np.zeros(count, explained_dtype(len(NAMES)))
    for name in ("score", "threshold", "share", "expected", "probability", "band"):
        shape = made[name].shape
        whole = source.integers(-(10**6), 10**6, shape).astype(float)
        bits = np.frombuffer(source.bytes(8 * made[name].size), np.float64).reshape(shape)
        usual = source.normal(size=shape) * 10.0 ** source.integers(-12, 20, shape)
        short = np.round(source.normal(size=shape), 2)
        with np.errstate(invalid="ignore"):
            made[name] = np.choose(source.integers(0, 4, shape), [whole, bits, usual, short])
    made["status"] = np.where(source.random(count) < 0.03, source.integers(0, len(STATUSES), count), 1)
    made["alarm"] = source.random(count) < 0.01
    faulty = made["status"] == STATUSES.index("fault")
    made["fault"][faulty] = source.integers(0, len(FAULT_KINDS), (int(faulty.sum()), len(NAMES)))
    made["scorer"] = source.choice([0, 1, 255], count)
    made["severity"] = source.integers(0, 200, count)
    made["step"] = source.integers(0, 2**40, count)
    digits = 10 ** source.integers(0, 12, count)
    made["time_ns"] = source.integers(-(2**62), 2**62, count) // digits * digits
    made["time_ns"][::2] = START + np.arange(count)[::2] * 10**7
    return made


def packets(publications: list[tuple[str, bytes]], five: bool) -> bytes:
    made = []
    for topic, payload in publications:
        raw = topic.encode()
        body = len(raw).to_bytes(2, "big") + raw + (b"\0" if five else b"") + payload
        made.append(b"\x30" + length(len(body)) + body)
    return b"".join(made)


@pytest.mark.parametrize("five", [False, True])
@pytest.mark.parametrize("every_ns", [0, 10**9])
def test_packets_equal_the_messages_one_by_one(five, every_ns) -> None:
    source = np.random.default_rng(every_ns + five)
    plain = Outputs("er", every_ns, {"press": NAMES})
    quick = Outputs("er", every_ns, {"press": NAMES}, PacketWriter(writer().machine_code, five=five))
    total = 0
    for number in range(16):
        made, rows = records(source, 300), source.integers(0, 40, 300)
        # Rows are given to other streams now and then.
        generation = number // 6
        sent: list[bytes] = []

        def send(data: memoryview, count: int, to=sent) -> int:
            to.append(bytes(data))
            return count

        scores, states, changed = plain.judged(Burst(made, rows, generation))
        found = quick.packets(Burst(made, rows, generation), send)
        assert b"".join(sent) == packets(scores, five)
        assert found == (len(scores), states, changed)
        assert repr(quick.latest()) == repr(plain.latest())
        total += len(scores)
        if number % 5 == 4:
            gone = f"press/{generation}-{number}"
            assert quick.forget(gone) == plain.forget(gone)
    assert total > 1000


def test_more_than_there_is_room_for_leaves_in_parts() -> None:
    quick = Outputs("er", 0, {"press": NAMES}, PacketWriter(writer().machine_code, five=False))
    made = records(np.random.default_rng(4), 2000)
    made["status"], made["alarm"] = 1, 0
    sizes: list[int] = []

    def send(data: memoryview, count: int) -> int:
        sizes.append(len(data))
        return count

    assert quick.packets(Burst(made, np.arange(2000) % 7), send)[0] == 2000
    assert len(sizes) > 3


def test_long_names_and_topics_fit() -> None:
    names = tuple(f"channel {i} " + "x" * 400 for i in range(40))
    quick = Outputs("b" * 5000, 0, {"press": names}, PacketWriter(writer().machine_code, five=True))
    plain = Outputs("b" * 5000, 0, {"press": names})
    made = np.zeros(9, explained_dtype(40))
    made["status"], made["time_ns"] = 1, START + np.arange(9)
    sent: list[bytes] = []

    def send(data: memoryview, count: int) -> int:
        sent.append(bytes(data))
        return count

    burst = Burst(made, np.zeros(9, np.int64))
    assert quick.packets(burst, send)[0] == 9
    assert b"".join(sent) == packets(plain.judged(burst)[0], five=True)
