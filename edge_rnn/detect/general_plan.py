"""Constants and state that only the general detector has; what they are called is in fields.py.

vectors   per horizon: steps ahead, place of its ring | residual scales K * C | running C | trend C |
          features | severity | points of the probability: scores, parts | half-widths of bands C |
          per scorer MORE numbers | then of each scorer: weights, its tail's table: scores, parts
detect    PEAK | before C | running mean C, variance C, count C | per scorer: count, A C, B C, tail's
          counts | per horizon h a ring of h forecasts: C values, C log scales with a scale head |
          with recovery: mean deviation since the alarm opened C | with a trend: slope C, readings C
marks     AGE .. SEVERITY | with recovery: OPENER .. REBASE_LEFT | with relevel: its steps to come
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_rnn.core.detector_spec import DetectorSpec, ScorerSpec, TailSpec
from edge_rnn.core.model import DIFFERENCE, TIME_FEATURES, Model
from edge_rnn.detect import fields as at

Vector = NDArray[np.float64]


def is_general(model: Model, spec: DetectorSpec) -> bool:
    """Whether the detector uses a word that the default's tuned flow (loop.py) does not know."""
    plain = ScorerSpec(kind="mewma", source="input", rate=1.0)

    def known(s: ScorerSpec) -> bool:
        return (
            s.kind in ("mewma", "ewma_z")
            and s.source in ("residual", "input")
            and (s.side, s.weight, s.tail, s.group) == (plain.side, plain.weight, plain.tail, plain.group)
        )

    c, a, t = spec.condition, spec.alarm, spec.threshold
    return bool(
        model.features
        or spec.horizons != (1,)
        or spec.scale_head != "none"
        or c.soft_clip
        or any(c.running)
        or not all(known(s) for s in spec.scorers)
        or t.kind == "spot"
        or t.peak_hold
        or t.bar
        or a.pending_ns
        or a.clear_ns
        or a.refractory_ns
        or a.severity
        or a.recovery
        or any(c.trend)
        or c.innovation_limit
        or a.relevel
    )


def tree_of(tail: TailSpec) -> Vector:
    """The state (1 + bins,) of a histogram that starts with `tail.counts`; see tails.py."""
    bins = tail.parts * tail.octaves
    tree = np.zeros(1 + bins)
    for place, count in enumerate(tail.counts):
        tree[0] += count
        k = bins - place
        while k <= bins:
            tree[k] += count
            k += k & -k
    return tree


class General:
    """The parts of a plan that only the general detector reads.

    Args:
        model, spec: the model and its detector.
        vectors_at: where `vectors` will begin in the plan's arena. detect_at: where `fresh` will in `detect`.

    Attributes:
        vectors, fresh: the arenas. values: entries of the plan's record. layout: what decides the state's
        layout.
    """

    def __init__(self, model: Model, spec: DetectorSpec, vectors_at: int, detect_at: int) -> None:
        c, ahead = model.channels, spec.horizons
        self._c = c
        heads = 1 if spec.scale_head == "none" else 2
        rings = ahead != (1,)
        states = [self._state(s) for s in spec.scorers]
        start = detect_at + at.DETECT_MORE + at.DETECT_MORE_VECTORS * c
        states_at = start + np.cumsum([0, *(len(s) for s in states)])
        sizes = [h * c * heads if rings else 0 for h in ahead]
        rings_at = states_at[-1] + np.cumsum([0, *sizes])
        running = np.zeros((at.DETECT_MORE_VECTORS, c))
        running[at.RUNNING_VARIANCE_AT] = 1.0
        running[at.RUNNING_COUNT_AT] = spec.condition.running_start
        self.fresh = np.concatenate(
            [np.zeros(at.DETECT_MORE), running.ravel(), *states, np.zeros(int(sum(sizes)))]
        )
        self.marks_size = at.MARKS_MORE
        recovers = spec.alarm.recovery > 0
        if recovers:
            self.fresh = np.concatenate([self.fresh, np.zeros(c)])
            self.marks_size += at.RECOVERY_MARKS
        condition, relevels = spec.condition, spec.alarm.relevel > 0
        trends = any(condition.trend)
        trend_at, relevel_at = detect_at + len(self.fresh), self.marks_size
        if trends:
            self.fresh = np.concatenate([self.fresh, np.zeros(at.TREND_VECTORS * c)])
        self.marks_size += relevels
        self.detect_size = len(self.fresh)
        self.layout = f"{ahead} {heads} {[len(s) for s in states]}"
        if trends or relevels:
            self.layout += f" trend {trends} {relevels}"
        names = [i.name for i in model.inputs]
        features: list[float] = []
        for feature in model.features:
            if feature in TIME_FEATURES:
                features += [TIME_FEATURES.index(feature) + 1, 0]
            else:
                features += [0, names.index(feature.removeprefix(DIFFERENCE))]
        points, ones = spec.probability, (1.0,) * c
        std = ones if model.scaler is None else model.scaler.std.tolist()
        blocks: dict[str, list[float]] = {
            "horizons_at": [n for h, ring in zip(ahead, rings_at, strict=False) for n in (h, float(ring))],
            "scales_at": list(spec.residual_scale or (1.0,) * (c * len(ahead))),
            "running_at": [float(r) for r in condition.running or (False,) * c],
            "trends_at": [float(t) for t in condition.trend or (False,) * c],
            "features_at": features,
            "severity_at": list(spec.alarm.severity),
            "points_at": [*points.scores, *points.exceed],
            "bands_at": [
                spec.band * a * b for a, b in zip(spec.residual_scale[:c] or ones, std, strict=True)
            ],
        }
        self.values: dict[str, float] = {}
        place = vectors_at
        for name, block in blocks.items():
            self.values[name] = place
            place += len(block)
        self.values["scorers_at"] = place
        place += at.MORE * len(spec.scorers)
        heads_of, lists = [], []
        for scorer, state_at in zip(spec.scorers, states_at, strict=False):
            head, more = self._constants(scorer, int(state_at), place)
            heads_of.append(head)
            lists += more
            place += len(more)
        self.vectors = np.array(
            [n for block in (*blocks.values(), *heads_of, lists) for n in block], np.float64
        )
        self.values |= {
            "horizons": len(ahead), "heads": heads, "gaussian": spec.scale_head == "gaussian", "rings": rings,
            "longest": (ahead[0] if spec.early else ahead[-1]) if rings else 0, "points": len(points.scores),
            "recovers": recovers, "recovery": spec.alarm.recovery, "rebase": spec.alarm.rebase,
            "recovery_at": rings_at[-1],
            "trends": trends, "trend_at": trend_at, "trend_level_rate": condition.trend_level_rate,
            "trend_slope_rate": condition.trend_slope_rate, "innovation_limit": condition.innovation_limit,
            "relevel": spec.alarm.relevel, "relevel_at": relevel_at,
            "relevel_slope_rate": spec.alarm.relevel_slope_rate,
            "said_next": spec.kind == "forecast" and ahead[0] == 1,
            "levels_said": any(s.source not in ("input", "difference", "reading") for s in spec.scorers),
        }  # fmt: skip

    def _state(self, scorer: ScorerSpec) -> Vector:
        """Count, A, B and the tail's counts of a stream that has seen nothing."""
        a = b = np.zeros(self._c)
        if scorer.kind in ("running_z", "likelihood"):
            a, b = np.array(scorer.mean), 1.0 / np.array(scorer.precision)
        elif scorer.kind == "level":
            a = np.array(scorer.center)
        elif scorer.kind == "magnitude":
            a, b = np.array(scorer.mean), np.array(scorer.center)
        elif scorer.kind == "novelty":
            # A range that is empty: its low end above its high end.
            a, b = np.array(scorer.low or (1.0,) * self._c), np.array(scorer.high or (-1.0,) * self._c)
        tail = tree_of(scorer.tail) if scorer.tail and scorer.tail.kind == "stream" else np.zeros(0)
        return np.concatenate([[float(scorer.count)], a, b, tail])

    def _constants(self, scorer: ScorerSpec, state_at: int, place: int) -> tuple[list[float], list[float]]:
        """The MORE numbers of a scorer, and its lists, which begin at `place`."""
        tail = scorer.tail
        table = [*tail.table.scores, *tail.table.exceed] if tail and tail.kind == "table" else []
        head = dict.fromkeys(range(at.MORE), 0.0)
        head |= {
            at.MORE_KIND: at.SCORER_KINDS.index(scorer.kind),
            at.MORE_SOURCE: at.SOURCES.index(scorer.source),
            at.MORE_HORIZON: scorer.horizon, at.MORE_SIDE: at.SIDE_WORDS.index(scorer.side),
            at.MORE_RATE: scorer.rate, at.MORE_UNIT: scorer.unit, at.MORE_WEIGHT: scorer.weight,
            at.MORE_MEMORY: scorer.memory, at.MORE_SLACK: scorer.slack, at.MORE_BOUND: scorer.bound,
            at.MORE_CAP: scorer.cap, at.MORE_MARGIN: scorer.margin,
            at.MORE_ALWAYS: scorer.learn == "always", at.MORE_STATE_AT: state_at,
            at.MORE_WEIGHTS_AT: place, at.MORE_WEIGHTS: len(scorer.precision),
            at.MORE_TABLE_AT: place + len(scorer.precision), at.MORE_POINTS: len(table) // 2,
            at.MORE_GROUP: scorer.group,
        }  # fmt: skip
        if tail is not None:
            head |= {
                at.MORE_TAIL: at.STREAM if tail.kind == "stream" else at.TABLE,
                at.MORE_TAIL_ALWAYS: tail.learn == "always", at.MORE_LOW: tail.low,
                at.MORE_BINS: tail.parts * tail.octaves, at.MORE_BITS: tail.parts.bit_length() - 1,
            }  # fmt: skip
        return list(head.values()), [*scorer.precision, *table]
