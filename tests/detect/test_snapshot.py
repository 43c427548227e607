"""Saved states: they fit their model only, and no damaged one gets in or does harm."""

from __future__ import annotations

import copy
import hashlib
import pickle
import random
import struct
import zlib
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from edge_rnn.core.detector_spec import ConditionSpec, GuardSpec, ThresholdSpec
from edge_rnn.core.model import Scaler
from edge_rnn.detect import fields as at
from edge_rnn.detect.detector import Detector, DetectorTable, score
from edge_rnn.errors import SnapshotError
from tests.detect.models import model, readings, replaced, scorer, spec

HEAD = 108


def sealed(content: bytes) -> bytes:
    """With the checksum that fits."""
    return content[:-4] + struct.pack("<I", zlib.crc32(content[:-4]))


def dspot_model():
    return model(
        2,
        spec(
            2, guard=GuardSpec(stuck_after=(3, 3), silent_after_ns=10),
            condition=ConditionSpec(drift=(True, False)),
            threshold=ThresholdSpec(kind="dspot", value=2.0, window=4, level=0.5, max_freeze=9),
            scorers=(scorer(2, "mewma"), scorer(2, "ewma_z", "input")),
        ),
        cell="lstm",
    )  # fmt: skip


def test_fields_of_the_snapshot() -> None:
    detector = Detector(dspot_model(), numeric="U")
    content = detector.snapshot()
    assert content[:8] == b"ERDS\x01\x00U\x00"
    plan = detector.table.plan
    digests = (plan.weights_digest, plan.layout_digest, plan.detector_digest)
    assert content[8:104] == b"".join(bytes.fromhex(d) for d in digests)
    row = detector.table.states[0]
    assert content[HEAD:-4] == row["core"].tobytes() + row["detect"].tobytes() + row["marks"].tobytes()


def test_the_layouts_digest_is_over_the_text_that_format_md_gives() -> None:
    of = dspot_model()
    plan, c, scorers = Detector(of).table.plan, of.input_size, len(of.detector.scorers)
    window = of.detector.threshold.window
    facts = (plan.layout.digest, c, scorers, window, 5 + (3 + 2 * scorers) * c + window, 13 + 4 * c)
    text = " ".join(["detector-row-1", *map(str, facts)])
    assert plan.layout_digest == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("copied", [copy.deepcopy, pickle.dumps])
def test_a_copy_that_would_share_memory_is_refused(copied) -> None:
    with pytest.raises(TypeError, match=r"cannot be copied or pickled.*snapshot\(\) and restore\(\)"):
        copied(Detector(dspot_model()))


def test_the_numeric_class_is_a_note_only() -> None:
    of = dspot_model()
    a, b = Detector(of, numeric="F"), Detector(of, numeric="U")
    times, x = readings(20, of)
    a.run(times, x)
    b.restore(a.snapshot())
    assert b.snapshot()[6:7] == b"U"
    assert b.snapshot()[HEAD:-4] == a.snapshot()[HEAD:-4]


def test_another_model_is_refused_by_what_differs() -> None:
    of = dspot_model()
    content = Detector(of).snapshot()
    other_weights = replace(of, layers=model(2, cell="lstm", seed=9).layers)
    other_size = model(2, of.detector, cell="lstm", hidden=6)
    other_detector = replace(of, detector=replaced(of.detector, warmup=4))
    other_scaler = replace(of, scaler=Scaler(of.scaler.mean + 1, of.scaler.std))
    for other, word in (
        (other_weights, "weights"), (other_size, "weights"), (other_detector, "detector section"),
        (other_scaler, "detector section"),
    ):  # fmt: skip
        detector = Detector(other)
        before = detector.snapshot()
        with pytest.raises(SnapshotError, match=word):
            detector.restore(content)
        assert detector.snapshot() == before
    more_scorers = replaced(of.detector, scorers=of.detector.scorers + of.detector.scorers[:1])
    with pytest.raises(SnapshotError, match="state layout"):
        Detector(replace(of, detector=more_scorers)).restore(content)


def test_names_and_provenance_do_not_matter() -> None:
    of = dspot_model()
    other = replace(of, name="other", provenance={"data": "new"})
    Detector(other).restore(Detector(of).snapshot())


def test_numpy_numbers_in_a_spec_make_the_same_digest() -> None:
    of = dspot_model()
    value = np.float64(of.detector.threshold.value)
    threshold = msgspec.structs.replace(of.detector.threshold, value=value)
    Detector(replace(of, detector=replaced(of.detector, threshold=threshold))).restore(
        Detector(of).snapshot()
    )


@pytest.mark.parametrize("content", [b"", b"ERDS", b"x" * 200, b"EDGERNNS" + b"\0" * 300])
def test_other_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(SnapshotError):
        Detector(dspot_model()).restore(content)
    if content:
        with pytest.raises(SnapshotError):
            score(dspot_model(), content, [])


def test_a_flipped_bit_is_noticed() -> None:
    detector = Detector(dspot_model())
    content = bytearray(detector.snapshot())
    content[HEAD + 3] ^= 16
    with pytest.raises(SnapshotError, match="checksum"):
        detector.restore(bytes(content))


def test_numbers_out_of_their_range_are_refused() -> None:
    of = dspot_model()
    table = DetectorTable(of, 1)
    good = table.snapshot(0)
    for field, where, value in (
        ("detect", 0, np.nan), ("core", 0, np.inf), ("core", -1, 1.0), ("marks", at.RING_AT, 4),
        ("marks", at.RING_AT, -1), ("marks", at.RING_FILL, 5), ("marks", at.PHASE, 4), ("marks", at.WARM, 99),
        ("marks", at.STEPS, -1), ("marks", at.HISTORY, 2), ("marks", at.MARKS_HEAD + at.RUN_AT, -1),
        ("marks", -1, 2),
    ):  # fmt: skip
        table.reset(0)
        table.states[field][0, where] = value
        with pytest.raises(SnapshotError, match=r"not finite|out of its range"):
            table.restore(0, table.snapshot(0))
    table.restore(0, good)


def test_mutated_snapshots_are_refused_or_harmless() -> None:
    """20,000 mutants with a fitting checksum: SnapshotError, or a state that can be stepped."""
    of = dspot_model()
    detector = Detector(of)
    times, x = readings(60, of)
    detector.run(times, x)
    good = detector.snapshot()
    random_ = random.Random(1)
    refused = accepted = 0
    for _ in range(20_000):
        mutant = bytearray(good)
        # Half of the mutations go past the digests, which would refuse all of them.
        first = 0 if random_.random() < 0.3 else HEAD
        for _ in range(random_.choice((1, 1, 2, 8))):
            where = random_.randrange(first, len(mutant) - 4)
            kind = random_.randrange(6)
            if kind < 3:
                mutant[where] ^= 1 << random_.randrange(8)
            elif kind == 3:
                mutant[where] = random_.choice((0, 1, 127, 128, 255))
            elif kind == 4:
                eight = where - (where - HEAD) % 8
                mutant[eight : eight + 8] = struct.pack("<q", random_.choice((-1, 2**63 - 1, -(2**63), 7)))[
                    : len(mutant) - 4 - eight
                ]
            elif random_.random() < 0.5:
                del mutant[where : where + random_.randrange(1, 9)]
            else:
                mutant[where:where] = random_.randbytes(random_.randrange(1, 9))
        try:
            detector.restore(sealed(bytes(mutant)))
        except SnapshotError:
            refused += 1
            continue
        accepted += 1
        start = int(detector.table.states["marks"][0, 1])
        if start < 2**62:
            detector.run([start + 1, start + 2, start + 3], x[:3])
    assert refused > 5_000
    assert accepted > 500
    detector.restore(good)
    assert detector.snapshot() == good
