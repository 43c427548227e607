"""States from the store are input like any other: 20,000 mutants with right checksums, only typed errors."""

from __future__ import annotations

import random
import struct
import zlib

import numpy as np

from edge_rnn.errors import SnapshotError
from edge_rnn.stream.engine import Engine
from edge_rnn.stream.states import _HEAD
from tests.stream.scripts import ASSEMBLIES, groups, play, script

NUMBERS = [
    struct.pack("<q", n)
    for n in (0, 1, 2, -1, 2**31, 2**62, 2**62 - 1, -(2**62), 2**63 - 1, -(2**63), -(2**63) + 1)
] + [struct.pack("<d", x) for x in (np.nan, np.inf, -np.inf, 1e308, -0.0, 5e-324)]


def seal(stream: str, body: bytes) -> bytes:
    return body + struct.pack("<I", zlib.crc32(body, zlib.crc32(stream.encode())))


def mutate(rng: random.Random, stream: str, blob: bytes) -> bytes:
    """Damage behind the header; the detector's own checksum and then the whole one are made to fit."""
    body = bytearray(blob[:-4])
    inner = _HEAD.unpack_from(blob)[4]
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        kind = rng.randrange(8)
        if kind == 0:
            body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
        elif kind == 1 and rng.random() < 0.2:
            del body[rng.randrange(len(body)) :]
            break
        else:
            # Most damage goes to the records of assembler and events, at the numbers' own places.
            low = _HEAD.size + (inner if rng.random() < 0.85 else 0)
            at = low + 8 * rng.randrange((len(body) - low) // 8)
            body[at : at + 8] = rng.choice(NUMBERS)
    if len(body) > _HEAD.size + inner:
        end = _HEAD.size + inner
        body[end - 4 : end] = struct.pack("<I", zlib.crc32(body[_HEAD.size : end - 4]))
    return seal(stream, bytes(body))


def test_mutated_states_are_refused_or_can_be_lived_with() -> None:
    rng = random.Random(11)
    accepted = refused = 0
    for mode, assembly in ASSEMBLIES.items():
        donor = Engine(groups(assembly))
        blocks = script(5, blocks=60)
        play(donor, blocks[:40])
        states = donor.states()
        engine = Engine(groups(assembly))
        for i in range(5_000):
            stream, blob = states[i % len(states)]
            try:
                engine.load(stream, mutate(rng, stream, blob))
            except SnapshotError as error:
                refused += 1
                message = str(error)
                assert message.count("\n") == 0
                continue
            accepted += 1
            # Whatever was let in must not stop the engine, nor harm the stream that starts after it.
            if i % 10 == 0:
                play(engine, blocks[40:])
                assert engine.states()
            for other in engine.streams():
                engine.forget(other)
            engine.take_events()
        fresh = play(Engine(groups(assembly)), blocks)
        assert play(engine, blocks).bits()[0] == fresh.bits()[0], mode
    assert accepted > 2_000
    assert refused > 8_000
