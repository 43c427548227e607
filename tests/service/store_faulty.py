"""A program that commits on a disk that fails at random; run by `test_store_faults.py`.

    LD_PRELOAD=disk_faults.so python store_faulty.py PATH COMMITS SEED

Each commit, backup and now and then a whole start meets full disks, I/O errors, writes cut short and syncs
that fail (`disk_faults.c`). After each the store is read on a disk that is sound again, every few commits
also by a new `Store`. Prints one JSON line of counts.
"""

import ctypes
import json
import random
import sys
from pathlib import Path

from edge_rnn.errors import StoreError
from edge_rnn.service.store import Commit, Message, Store

KINDS = {"full": 1, "error": 2, "short": 4, "sync": 8, "file": 16, "all": 31}


class Disk:
    """The switch of the faults."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        self._set = library.disk_faults
        self._set.argtypes = (ctypes.c_double, ctypes.c_ulonglong, ctypes.c_int)
        self._done = library.disk_faults_done
        self._done.restype = ctypes.c_long

    def fail(self, chance: float, seed: int, kinds: int) -> None:
        """From now on each call fails with this chance; 0 is a sound disk."""
        self._set(chance, seed, kinds)

    @property
    def failed(self) -> int:
        """Calls that have failed so far."""
        return int(self._done())


class Run:
    """One store on a bad disk, and what must be in it."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path = path
        self.rng = random.Random(seed)
        self.disk = Disk()
        self.counts = dict.fromkeys(
            ("commits", "failures", "backups", "backup_failures", "starts", "failed_starts", "late"), 0
        )
        self.states: dict[str, bytes] = {}
        self.waiting: list[bytes] = []
        self.pending = Commit()
        self.late: list[bytes] = []
        self.store = Store.open(path)

    def bad(self) -> None:
        """A disk that fails often or seldom, in one way or in all."""
        kind = KINDS[self.rng.choice(list(KINDS))]
        self.disk.fail(self.rng.choice((0.02, 0.1, 0.5, 1.0)), self.rng.getrandbits(60), kind)

    def commit(self, number: int) -> None:
        """One more commit of some states, or the one that failed with more in it, as the daemon does."""
        rng = self.rng
        states = dict(self.pending.states)
        for _ in range(rng.randint(1, 5)):
            states[f"s/{rng.randrange(30)}"] = rng.randbytes(rng.choice((50, 500, 9000)))
        if rng.random() < 0.2 and self.pending.states and len(states) > 1:
            # A stream that was forgotten between the two attempts.
            states.pop(rng.choice(list(states)))
        outbox = [*self.pending.outbox, Message("t", b"%d" % number)]
        self.pending = Commit(states=list(states.items()), outbox=outbox, positions={"n": str(number)})
        sent = self.store.outbox(rng.randint(0, 2))
        self.store.done(queued.id for queued in sent)
        self.waiting = self.waiting[len(sent) :]
        self.bad()
        try:
            self.store.commit(self.pending)
        except StoreError:
            self.counts["failures"] += 1
        else:
            self.counts["commits"] += 1
            self.states |= states
            self.waiting += [message.payload for message in outbox]
            self.pending, self.late = Commit(), []
        self.disk.fail(0, 0, 0)

    def back_up(self) -> None:
        """A backup on the bad disk; whatever happens, the last one stays sound."""
        self.bad()
        try:
            self.counts["backups"] += self.store.backup()
        except StoreError:
            self.counts["backup_failures"] += 1
        self.disk.fail(0, 0, 0)

    def start(self) -> None:
        """End and start on the bad disk, then on a sound one."""
        self.bad()
        self.store.close()
        try:
            Store.open(self.path).close()
        except StoreError:
            self.counts["failed_starts"] += 1
        self.disk.fail(0, 0, 0)
        self.store = Store.open(self.path)
        self.counts["starts"] += 1

    def check(self, *, started: bool) -> None:
        """The store holds what was committed, and perhaps the whole of the one commit that failed last."""
        assert self.store.notes == [], self.store.notes
        found = dict(self.store.load_states())
        sent = [queued.message.payload for queued in self.store.outbox(100_000)]
        if found != self.states:
            # It was in the log when the disk failed, and nobody could take it back.
            self.counts["late"] += 1
            self.states |= dict(self.pending.states)
            self.late = [message.payload for message in self.pending.outbox]
        assert found == self.states
        if started:
            # What was sent, but not committed as sent, is sent again; what was never committed is gone.
            whole = self.waiting + self.late
            assert sent[len(sent) - len(whole) :] == whole, (sent, whole)
            self.waiting, self.late, self.pending = sent, [], Commit()
        assert sent == self.waiting


def main(path: Path, commits: int, seed: int) -> int:
    """Commit, back up, start, count."""
    run = Run(path, seed)
    for number in range(commits):
        run.commit(number)
        run.check(started=False)
        if number % 7 == 3:
            run.back_up()
            run.check(started=False)
        if number % 11 == 5:
            run.start()
            run.check(started=True)
    run.store.close()
    if run.path.with_name(run.path.name + ".backup").exists():
        # Without the database, the backup is one that starts.
        run.path.unlink()
        with Store.open(run.path) as store:
            assert any("taken from the backup" in note for note in store.notes), store.notes
    sys.stdout.write(json.dumps(run.counts | {"calls": run.disk.failed}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
