"""A program that commits as fast as it can until it is killed; run by `test_store_kill.py`.

    python store_writer.py PATH KILLS SEED

For each kill it forks a writer, reads the generations that the writer says are committed, kills it with
SIGKILL at a random moment, opens the store and checks it. Prints one JSON line of counts. It is a program of
its own because a process with one thread forks safely.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from edge_rnn.service.store import Commit, Message, Store

STREAMS = 40


def content(generation: int, stream: int) -> bytes:
    """The state of a stream as of the commit that made this generation."""
    return random.Random(generation * 1000 + stream).randbytes(200 + 37 * stream) + b"%d" % generation


def write(path: Path, answers: int) -> None:
    """Commit for ever; after each commit its generation goes to `answers`."""
    with Store.open(path) as store:
        while True:
            generation = store.generation + 1
            done = [queued.id for queued in store.outbox(10)]
            store.done(done)
            store.commit(
                Commit(
                    states=[(f"s/{i}", content(generation, i)) for i in range(STREAMS)],
                    outbox=[Message("t", b"%d" % generation)],
                    positions={"generation": str(generation)},
                )
            )
            os.write(answers, b"%d\n" % generation)
            if generation % 7 == 0:
                store.backup()


def check(path: Path, acknowledged: int) -> dict[str, int]:
    """Open what the kill left: 1 under each thing that went wrong."""
    with Store.open(path) as store:
        states = dict(store.load_states())
        generation = store.generation
        position = int(store.positions().get("generation", 0))
        last = [int(queued.message.payload) for queued in store.outbox(1000)]
        torn = generation != position or (generation > 0 and last[-1:] != [generation])
        torn |= states != {f"s/{i}": content(generation, i) for i in range(STREAMS) if generation}
        return {"lost": int(generation < acknowledged), "torn": int(torn), "notes": len(store.notes)}


def kill_once(path: Path, rng: random.Random) -> tuple[int, int]:
    """Start a writer and kill it; the last generation it acknowledged and how many it did."""
    readable, answers = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(readable)
        write(path, answers)
    os.close(answers)
    # Some commits, however slow this machine is, then a random instant of the following one.
    raw, wanted = b"", rng.randint(1, 8)
    while raw.count(b"\n") < wanted and (piece := os.read(readable, 65536)):
        raw += piece
    time.sleep(rng.uniform(0, 0.004))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while piece := os.read(readable, 65536):
        raw += piece
    os.close(readable)
    lines = raw.split(b"\n")[:-1]
    return (int(lines[-1]) if lines else 0), len(lines)


def main(path: Path, kills: int, seed: int) -> int:
    """Kill, check, count."""
    rng = random.Random(seed)
    totals = {"kills": 0, "commits": 0, "lost": 0, "torn": 0, "notes": 0}
    acknowledged = 0
    for _ in range(kills):
        last, count = kill_once(path, rng)
        acknowledged = max(acknowledged, last)
        for name, number in check(path, acknowledged).items():
            totals[name] += number
        totals["kills"] += 1
        totals["commits"] += count
    sys.stdout.write(json.dumps(totals) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
