"""Where golden.json comes from: the authors' own code on small cases, `pip install vus==0.0.6 scikit-learn`.

    python tests/evaluate/make_golden.py > tests/evaluate/golden.json

The package vus (https://pypi.org/project/vus) holds VUS, range-based recall, and the affiliation metrics of
Huet et al. It is needed to make the numbers, not to compare with them.
"""

import contextlib
import io
import json

import numpy as np

CASES = ((1, 200, 2, 10), (2, 500, 4, 40), (3, 800, 6, 100), (4, 300, 1, 20), (5, 400, 9, 30), (6, 120, 3, 3))


def case(seed: int, rows: int, events: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, score and alarm (rows,) from integers alone, so that every NumPy gives the same."""
    state = seed

    def draw() -> int:
        nonlocal state
        state = (1103515245 * state + 12345) % 2**31
        return state

    labels, alarm = [0] * rows, [0] * rows
    for _ in range(events):
        start, width = draw() % (rows - 30), 1 + draw() % 25
        labels[start : start + width] = [1] * width
    score = [(draw() % 1000) / 100 + (3 if labels[i] and draw() % 3 else 0) for i in range(rows)]
    for _ in range(events + 1):
        start, width = draw() % (rows - 12), 1 + draw() % 10
        alarm[start : start + width] = [1] * width
    return np.array(labels), np.array(score), np.array(alarm)


def main() -> None:
    from vus.affiliation.generics import convert_vector_to_events
    from vus.affiliation.metrics import pr_from_events
    from vus.utils.metrics import metricor

    made = []
    for seed, rows, events, buffer in CASES:
        labels, score, alarm = case(seed, rows, events)
        theirs = metricor()
        with contextlib.redirect_stdout(io.StringIO()):  # their code prints
            volume = theirs.RangeAUC_volume_opt(labels, score, buffer, 250)[-1]
            recall = theirs.range_recall_new(labels, alarm, 0)[0]
            precision = theirs.range_recall_new(alarm, labels, 0)[0]
        near = pr_from_events(convert_vector_to_events(alarm), convert_vector_to_events(labels), (0, rows))
        found = {k.lower(): float(v) for k, v in near.items() if not k.startswith("individual")}
        made.append(
            {"seed": seed, "rows": rows, "events": events, "buffer": buffer, "vus_pr": float(volume),
             "range_recall": float(recall), "range_precision": float(precision)} | found
        )  # fmt: skip
    print(json.dumps(made, indent=1))  # noqa: T201


if __name__ == "__main__":
    main()
