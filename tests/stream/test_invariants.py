"""The engine's three promises, on random plants: independence, any cutting, restart bit for bit."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_rnn.stream.engine import Engine
from tests.stream.scripts import ASSEMBLIES, Block, groups, play, script

SEEDS = st.integers(0, 2**32)
MODES = pytest.mark.parametrize("mode", ASSEMBLIES)


@MODES
def test_the_scripts_reach_what_they_are_for(mode: str) -> None:
    engine = Engine(groups(ASSEMBLIES[mode]))
    outcome = play(engine, script(1, blocks=600))
    counters = engine.counters
    assert counters.samples + counters.silent == len(outcome.verdicts)
    assert counters.samples > 200
    assert counters.late > 20
    assert counters.duplicate > 5
    assert counters.silent > 5
    assert counters.events == len(outcome.events)
    if mode in ("all", "every"):
        assert counters.timeouts > 0
    kinds = Counter((e.type, e.kind) for e in outcome.events)
    for kind in ("anomaly", "stuck", "non-finite", "silent"):
        assert kinds["open", kind] > 0, kinds
        assert 0 <= kinds["open", kind] - kinds["close", kind] <= 3, kinds
    assert kinds["update", "anomaly"] > 0
    assert {v.status for v in outcome.verdicts} >= {"warming", "normal", "anomaly", "clearing", "fault"}


@MODES
@settings(max_examples=80)
@given(seed=SEEDS)
def test_streams_do_not_influence_each_other(mode: str, seed: int) -> None:
    blocks = script(seed)
    together = play(Engine(groups(ASSEMBLIES[mode])), blocks)
    for stream in ("press/a", "press/b", "other"):
        own = [Block(b.now_ns, [r for r in b.readings if r.stream == stream], b.tick) for b in blocks]
        alone = play(Engine(groups(ASSEMBLIES[mode])), own)
        assert together.of(stream).bits() == alone.bits()


@MODES
@settings(max_examples=4)
@given(seed=SEEDS)
def test_a_growing_table_changes_nothing(mode: str, seed: int) -> None:
    streams = [f"press/{i}" for i in range(45)]
    blocks = script(seed, blocks=250, streams=streams)
    engine = Engine(groups(ASSEMBLIES[mode]))
    together = play(engine, blocks)
    assert len(engine) == 45
    for stream in streams:
        own = [Block(b.now_ns, [r for r in b.readings if r.stream == stream], b.tick) for b in blocks]
        assert together.of(stream).bits() == play(Engine(groups(ASSEMBLIES[mode])), own).bits()


@MODES
@settings(max_examples=80)
@given(seed=SEEDS)
def test_cutting_does_not_matter(mode: str, seed: int) -> None:
    blocks = script(seed)
    whole, cut = Engine(groups(ASSEMBLIES[mode])), Engine(groups(ASSEMBLIES[mode]))
    assert play(whole, blocks).bits() == play(cut, blocks, random.Random(seed)).bits()
    assert sorted(whole.states()) == sorted(cut.states())
    assert whole.counters == cut.counters


@MODES
@settings(max_examples=80)
@given(seed=SEEDS, stops=st.sets(st.integers(0, 29), max_size=5))
def test_saved_and_loaded_equals_never_stopped(mode: str, seed: int, stops: set[int]) -> None:
    blocks = script(seed)
    straight = Engine(groups(ASSEMBLIES[mode]))
    expected = play(straight, blocks)
    engine, store = Engine(groups(ASSEMBLIES[mode])), dict[str, bytes]()
    outcome = play(engine, [])
    for at, block in enumerate(blocks):
        if at in stops:
            # Only changed rows are saved, as the daemon does; the rest must be right from before.
            store.update(engine.changed())
            engine = Engine(groups(ASSEMBLIES[mode]))
            for stream in random.Random(at).sample(sorted(store), len(store)):
                engine.load(stream, store[stream])
        part = play(engine, [block])
        outcome.verdicts += part.verdicts
        outcome.events += part.events
    assert outcome.bits() == expected.bits()
    assert sorted(engine.states()) == sorted(straight.states())


@settings(max_examples=40)
@given(seed=SEEDS, stop=st.integers(0, 29))
def test_a_restart_does_not_change_who_is_forgotten(seed: int, stop: int) -> None:
    blocks = script(seed, streams=[f"press/{i}" for i in range(7)])
    straight = Engine(groups(ASSEMBLIES["any"], max_streams=3))
    expected = play(straight, blocks)
    first = Engine(groups(ASSEMBLIES["any"], max_streams=3))
    outcome = play(first, blocks[:stop])
    second = Engine(groups(ASSEMBLIES["any"], max_streams=3))
    for stream, blob in first.states():
        second.load(stream, blob)
    rest = play(second, blocks[stop:])
    outcome.verdicts += rest.verdicts
    outcome.events += rest.events
    assert outcome.bits() == expected.bits()
    assert sorted(second.states()) == sorted(straight.states())
