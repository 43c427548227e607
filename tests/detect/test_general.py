"""The general detector: bit for bit its twin's, the default flow's where both can, and all invariants."""

from __future__ import annotations

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_rnn.core.detector_spec import (
    SCORER_KINDS,
    ScorerSpec,
    TableSpec,
    TailSpec,
)
from edge_rnn.core.model import TIME_FEATURES, Model
from edge_rnn.detect.detector import Detector
from edge_rnn.detect.verdict import FAULT_KINDS, STATUSES, TIMINGS
from tests.detect.general_twin import GeneralTwin
from tests.detect.models import SECOND, model, scorer
from tests.detect.test_twin import series, specs

TABLE = TableSpec(scores=(0.3, 1.0, 4.0), exceed=(0.5, 0.1, 0.01))


@st.composite
def scorers(draw: st.DrawFn, c: int, horizons: int, scale_head: str, seed: int) -> ScorerSpec:
    kind = draw(st.sampled_from(SCORER_KINDS))
    sources = ["residual", "residual", "input", "difference"] + ([] if scale_head == "none" else ["nll"])
    source = draw(st.sampled_from(sources))
    tail = draw(
        st.sampled_from(
            [
                None, None, TailSpec(kind="table", table=TABLE), TailSpec(),
                TailSpec(low=-4, octaves=5, counts=tuple(range(20)), learn="always"),
            ]
        )
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    more: dict = {
        "horizon": draw(st.integers(0, horizons - 1)) if source in ("residual", "nll") else 0,
        "side": draw(st.sampled_from(["both", "up", "down"])), "tail": tail,
        "weight": draw(st.sampled_from([1.0, 0.5])), "learn": draw(st.sampled_from(["calm", "always"])),
        "memory": draw(st.sampled_from([2, 10])), "slack": 0.25, "cap": 6.0,
    }  # fmt: skip
    if kind in ("mewma", "ewma_z"):
        return scorer(c, kind, source, seed, **more)
    lists: dict = {}
    if kind != "novelty":
        lists = {
            "center": tuple(rng.normal(size=c) * 0.1), "precision": tuple(rng.uniform(0.5, 3.0, c)),
        }  # fmt: skip
    if kind in ("running_z", "likelihood"):
        lists |= {"mean": tuple(rng.uniform(0.1, 1.0, c)), "count": draw(st.sampled_from([0, 7]))}
    if kind == "novelty" and draw(st.booleans()):
        lists = {"low": (-0.5,) * c, "high": (0.5,) * c}
    return ScorerSpec(kind=kind, source=source, rate=0.2, unit=1.5, **lists, **more)


@st.composite
def models(draw: st.DrawFn, c: int) -> Model:
    base = draw(specs(c))
    ahead = (1,)
    if base.kind == "forecast":
        ahead = draw(st.sampled_from([(1,), (1,), (1, 3), (2,), (1, 2, 5)]))
    head = draw(st.sampled_from(["none", "laplace", "gaussian"]))
    drift = base.condition.drift
    condition = msgspec.structs.replace(
        base.condition,
        soft_clip=draw(st.sampled_from([0.0, 1.5])),
        running=draw(st.sampled_from([(), tuple(not (drift and drift[i]) for i in range(c))])),
        running_memory=draw(st.sampled_from([5, 4000])), running_start=draw(st.sampled_from([1, 20])),
        utc_offset_ns=draw(st.sampled_from([0, -5 * 3600 * SECOND])),
    )  # fmt: skip
    guard = base.guard
    if ahead[0] != 1:
        guard = msgspec.structs.replace(guard, on_missing="hold")
    guard = msgspec.structs.replace(guard, on_late=draw(st.sampled_from(["fault", "refuse"])))
    threshold = base.threshold
    if draw(st.booleans()):
        threshold = msgspec.structs.replace(
            threshold, kind=draw(st.sampled_from(["spot", "pot", "conformal"])), count=40
        )
    threshold = msgspec.structs.replace(threshold, peak_hold=draw(st.sampled_from([0, 0, 2])), peak_decay=0.5)
    alarm = msgspec.structs.replace(
        base.alarm, pending_ns=draw(st.sampled_from([0, 2 * SECOND])),
        clear_ns=draw(st.sampled_from([0, 3 * SECOND])), refractory_ns=draw(st.sampled_from([0, 5 * SECOND])),
        severity=draw(st.sampled_from([(), (1.0, 1.5), (2.0,)])),
    )  # fmt: skip
    detector = msgspec.structs.replace(
        base, horizons=ahead, scale_head=head, condition=condition, guard=guard, threshold=threshold,
        alarm=alarm, probability=draw(st.sampled_from([TableSpec(), TABLE])),
        residual_scale=draw(st.sampled_from([(), tuple(0.5 + i for i in range(c * len(ahead)))])),
        scorers=tuple(draw(scorers(c, len(ahead), head, i)) for i in range(draw(st.integers(1, 3)))),
    )  # fmt: skip
    features = tuple(draw(st.permutations([*TIME_FEATURES, "difference:x0"])))[: draw(st.integers(0, 8))]
    outputs = c * len(ahead) * (1 if head == "none" else 2)
    return model(c, detector, outputs=outputs, features=features)


def assert_equal_bits(record: np.void, expected: dict) -> None:
    for name in ("score", "threshold", "share", "residual", "expected", "probability", "band"):
        np.testing.assert_array_equal(
            np.asarray(record[name]), np.asarray(expected[name]), err_msg=f"{name} at {expected['step']}"
        )
    for name in ("step", "alarm", "accepted", "scorer", "severity"):
        assert int(record[name]) == int(expected[name]), name
    assert STATUSES[record["status"]] == expected["status"]
    assert TIMINGS[record["timing"]] == expected["timing"]
    assert [FAULT_KINDS[k] for k in record["fault"]] == expected["fault"]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_equals_the_naive_twin(data: st.DataObject) -> None:
    channels = data.draw(st.sampled_from([1, 3]))
    of = data.draw(models(channels))
    times, x, present = data.draw(series(channels))
    if of.detector.guard.on_late == "fault":
        times = times + data.draw(st.sampled_from([0, 4 * 86_400 * SECOND]))
        times[5], times[9] = times[4], times[4]
    detector, twin = Detector(of), GeneralTwin(of)
    with np.errstate(all="ignore"):
        for i in range(len(times)):
            expected = twin.step(x[i], int(times[i]), present[i])
            record = np.zeros(1, detector.table.verdict_dtype)
            detector.table.step_rows(
                np.zeros(1, np.int64), times[i : i + 1], x[i : i + 1], present[i : i + 1], record
            )
            assert_equal_bits(record[0], expected)
