"""A machine that commits, crashes, damages, restores and backs up in any order, and a model beside it.

The model knows every commit as the whole content after it. The store may only ever be at one of them, and:

* without damage, at the newest;
* with a damaged row, at the newest but for streams whose loss is said;
* with a damaged database, at the newest backup that is sound, or empty if there is none; and that is said.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from edge_rnn.service.store import Commit, Message, Store
from tests.support import torture

from .test_store_damage import change

STREAMS = st.sampled_from([f"press/{i}" for i in range(6)])
STATES = st.dictionaries(STREAMS, st.binary(max_size=400), max_size=4)

Snapshot = tuple[dict[str, bytes], list[bytes], dict[str, str]]


class StoreMachine(RuleBasedStateMachine):
    """One store's life; `self.store` is None while it is down."""

    @initialize()
    def begin(self) -> None:
        base = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self.folder = Path(tempfile.mkdtemp(prefix="edge-rnn-machine-", dir=base))
        self.path = self.folder / "edge.db"
        self.now: Snapshot = ({}, [], {})
        self.backup: Snapshot | None = None
        self.count = 0
        self.up()

    def up(self) -> None:
        self.store: Store | None = Store.open(self.path, sync="normal")
        self.notes_at_start = list(self.store.notes)
        self.store.notes.clear()

    def down(self) -> None:
        if self.store is not None:
            self.store.close()
        self.store = None

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.down()
            shutil.rmtree(self.folder)

    def read(self) -> Snapshot:
        assert self.store is not None
        messages = [queued.message.payload for queued in self.store.outbox(1000)]
        return dict(self.store.load_states()), messages, self.store.positions()

    @rule(
        states=STATES, removed=st.lists(STREAMS, max_size=2), send=st.integers(0, 2), complete=st.booleans()
    )
    def commit(self, states: dict[str, bytes], removed: list[str], send: int, complete: bool) -> None:
        assert self.store is not None
        self.count += 1
        new = [b"%d.%d" % (self.count, i) for i in range(send)]
        self.store.commit(
            Commit(
                states=list(states.items()),
                removed=removed,
                outbox=[Message("t", payload) for payload in new],
                positions={"count": str(self.count)},
                complete=complete,
            )
        )
        kept = {} if complete else {k: v for k, v in self.now[0].items() if k not in removed}
        self.now = (kept | states, self.now[1] + new, {"count": str(self.count)})

    @rule(number=st.integers(1, 3))
    def sent(self, number: int) -> None:
        assert self.store is not None
        self.count += 1
        self.store.done(queued.id for queued in self.store.outbox(number))
        self.store.commit(Commit(positions={"count": str(self.count)}))
        self.now = (self.now[0], self.now[1][number:], {"count": str(self.count)})

    @rule()
    def back_up(self) -> None:
        assert self.store is not None
        if self.store.backup():
            self.backup = self.now

    @rule()
    def restart(self) -> None:
        self.down()
        self.up()
        assert self.notes_at_start == []

    @rule()
    def crash(self) -> None:
        """The files as a kill leaves them: the log is not played in, and another folder takes over."""
        copy = self.folder.with_name(self.folder.name + "-next")
        shutil.copytree(self.folder, copy)
        self.down()
        shutil.rmtree(self.folder)
        copy.rename(self.folder)
        self.up()
        assert self.notes_at_start == []

    @rule(seed=st.integers(0, 2**32), kind=st.sampled_from(["cut", "zero", "noise", "gone"]))
    def damage_database(self, seed: int, kind: str) -> None:
        assert self.store is not None
        anything = self.store.generation > 0 or self.path.with_name("edge.db.backup").exists()
        self.down()
        rng, raw = random.Random(seed), self.path.read_bytes()
        if kind == "cut":
            self.path.write_bytes(raw[: rng.randrange(len(raw) - 4096)])
        elif kind == "zero":
            self.path.write_bytes(bytes(4096) + raw[4096:])
        elif kind == "noise":
            self.path.write_bytes(raw[:2048] + rng.randbytes(len(raw) - 2048))
        else:
            self.path.unlink()
        self.up()
        # A store that never held anything has nothing to say when it is gone.
        assert bool(self.notes_at_start) == (kind != "gone" or anything)
        self.now = self.backup or ({}, [], {})
        assert (self.backup is not None) == any("taken from the backup" in n for n in self.notes_at_start)

    @precondition(lambda self: self.now[0])
    @rule(pick=st.randoms(use_true_random=False))
    def damage_row(self, pick: random.Random) -> None:
        self.down()
        stream = pick.choice(sorted(self.now[0]))
        change(self.path, "UPDATE states SET state = state || x'00' WHERE stream = ?", stream)
        self.up()
        (note,) = self.notes_at_start
        assert f"stream {stream!a} starts cold" in note
        self.now = ({k: v for k, v in self.now[0].items() if k != stream}, *self.now[1:])
        assert self.read() == self.now
        # What is known to be bad goes with the next commit.
        self.commit({}, [], 0, complete=False)

    @precondition(lambda self: self.backup is not None)
    @rule()
    def damage_backup(self) -> None:
        self.down()
        file = self.path.with_name("edge.db.backup")
        file.write_bytes(file.read_bytes()[:-4096])
        self.backup = None
        self.up()
        assert self.notes_at_start == []

    @precondition(lambda self: self.backup is not None)
    @rule()
    def vanish_while_running(self) -> None:
        assert self.store is not None
        assert self.backup is not None
        self.path.unlink()
        # The outbox goes on from memory, states and positions from the backup.
        self.now = (self.backup[0], self.now[1], self.backup[2])
        self.commit({"press/0": b"x"}, [], 1, complete=False)
        assert self.store.incomplete
        assert self.store.notes
        self.store.notes.clear()

    @invariant()
    def is_what_was_committed(self) -> None:
        if hasattr(self, "path") and self.store is not None:
            assert self.read() == self.now
            assert self.store.notes == []


TestStore = StoreMachine.TestCase
TestStore.settings = settings(
    max_examples=200,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_torture_2_000_lives_of_a_store() -> None:
    start = time.monotonic()
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        StoreMachine, settings=settings(TestStore.settings, max_examples=2000, stateful_step_count=40)
    )
    torture.record(
        "store, model-based", "2,000 machines of up to 40 steps",
        "always at a commit, or what is lost is said", time.monotonic() - start,
    )  # fmt: skip
