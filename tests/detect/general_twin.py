"""The general detector once more in plain Python, on top of the twin: what `DetectorSpec`'s documents say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise, zip_longest
from types import FunctionType
from typing import Any

import numpy as np

from edge_rnn.core.model import TIME_FEATURES
from edge_rnn.detect import arithmetic
from tests.detect.twin import NAN, Twin, clip

NAMES = ("ln", "log10", "exp", "root", "sine", "cosine")


def plain_arithmetic() -> list[Any]:
    """The same functions, run by Python; test_arithmetic.py compares them with the mathematical ones."""
    space = dict(vars(arithmetic))
    for name in NAMES:
        space[name] = FunctionType(getattr(arithmetic, name).__wrapped__.__code__, space, name)
    return [space[name] for name in NAMES]


ln, log10, exp, root, sine, cosine = plain_arithmetic()
DAY = 86_400 * 10**9


class Tail:
    """-log10 p of a scorer, with lists in place of trees."""

    def __init__(self, spec: Any) -> None:
        self.spec = spec
        if spec.kind == "stream":
            self.counts = list(spec.counts) or [0] * (spec.parts * spec.octaves)

    def bin(self, value: float) -> int:
        if value <= 0:
            return 0
        mantissa, exponent = math.frexp(value)  # 1/2 <= mantissa < 1
        parts = self.spec.parts
        place = (exponent - 1 - self.spec.low) * parts + int((2 * mantissa - 1) * parts)
        return min(max(place, 0), len(self.counts) - 1)

    def surprise(self, value: float) -> float:
        if self.spec.kind == "table":
            return -log10(exceeded(value, self.spec.table))
        total = sum(self.counts)
        if total < 10:
            return 0.0
        return -log10((sum(self.counts[self.bin(value) :]) + 0.5) / (total + 1.0))


def exceeded(score: float, table: Any) -> float:
    points = [(0.0, 1.0), *zip(table.scores, table.exceed, strict=True)]
    if score <= 0:
        return 1.0
    if score >= points[-1][0]:
        return points[-1][1] * (points[-1][0] / score)
    for (a, p), (b, q) in pairwise(points):
        if a <= score < b:
            return p + (score - a) / (b - a) * (q - p)
    raise AssertionError


class Chart:
    """State and rules of one scorer."""

    def __init__(self, spec: Any, c: int) -> None:
        self.spec, self.c = spec, c
        self.center = list(spec.center) or [0.0] * c
        self.count = float(spec.count)
        self.a, self.b = [0.0] * c, [0.0] * c
        if spec.kind in ("running_z", "likelihood"):
            self.a, self.b = list(spec.mean), [1.0 / w for w in spec.precision]
        elif spec.kind == "magnitude":
            self.a = list(spec.mean)
        elif spec.kind == "level":
            self.a = list(spec.center)
        elif spec.kind == "novelty":
            self.a, self.b = list(spec.low) or [1.0] * c, list(spec.high) or [-1.0] * c
        self.tail = None if spec.tail is None else Tail(spec.tail)
        self.rest()

    def rest(self) -> None:
        starts = self.spec.kind in ("likelihood", "magnitude")
        self.z = list(self.a) if starts else list(self.center)
        if self.spec.kind == "magnitude":
            self.b = list(self.center)
        if self.spec.kind in ("cusum", "page_hinkley"):
            self.a, self.b = [0.0] * self.c, [0.0] * self.c

    def sided(self, d: float) -> float:
        if self.spec.side == "up":
            return max(d, 0.0)
        return max(-d, 0.0) if self.spec.side == "down" else abs(d)

    def judge(self, e: list[float], faulty: list[bool]) -> tuple[float, list[float]]:
        s, w = self.spec, self.spec.precision
        if s.kind in ("mewma", "ewma_z", "mewma_diagonal"):
            d = []
            for i in range(self.c):
                target = self.center[i] if faulty[i] else e[i]
                self.z[i] += s.rate * (target - self.z[i])
                one = 0.0 if faulty[i] else self.z[i] - self.center[i]
                if (s.side == "up" and one < 0) or (s.side == "down" and one > 0):
                    one = 0.0
                d.append(one)
            if s.kind == "mewma":
                parts = []
                for i in range(self.c):
                    inner = 0.0
                    for j in range(self.c):
                        inner += w[i * self.c + j] * d[j]
                    parts.append(d[i] * inner)
            else:
                parts = [d[i] * d[i] * w[i] for i in range(self.c)]
            total = 0.0
            for part in parts:
                total += part
            return (max(0.0, *parts) if s.kind == "ewma_z" else total), parts
        parts = [0.0 if faulty[i] else self.channel(i, e[i]) for i in range(self.c)]
        return max(0.0, *parts), parts

    def channel(self, i: int, e: float) -> float:
        s = self.spec
        w = s.precision[i] if s.precision else 0.0
        if s.kind == "running_z":
            a = self.sided(e - self.center[i])
            self.z[i] += s.rate * (e - self.z[i])
            return (a - self.a[i]) * (a - self.a[i]) / self.b[i] if a > self.a[i] else 0.0
        if s.kind == "likelihood":
            self.z[i] += s.rate * (self.sided(e - self.center[i]) - self.z[i])
            if self.z[i] <= self.a[i]:
                return 0.0
            t = (self.z[i] - self.a[i]) / root(self.b[i])
            square = t * t
            tail = 0.661 * t + 0.339 * root(square + 5.51)
            value = 0.5 * square * arithmetic.LOG10_E + 0.3990899341790575 + log10(tail)
            return max(min(value, 50.0), 0.0)
        if s.kind == "magnitude":
            self.z[i] += s.rate * (self.sided(e - self.center[i]) - self.z[i])
            self.b[i] += s.rate * (e - self.b[i])
            return self.z[i] * w
        if s.kind in ("cusum", "page_hinkley"):
            x = clip((e - (self.center[i] if s.kind == "cusum" else self.z[i])) * w, s.bound)
            self.z[i] += s.rate * (e - self.z[i])
            self.a[i] = min(max(self.a[i] + x - s.slack, 0.0), s.cap)
            self.b[i] = min(max(self.b[i] - x - s.slack, 0.0), s.cap)
            return {"up": self.a[i], "down": self.b[i], "both": max(self.a[i], self.b[i])}[s.side]
        self.z[i] = e
        if s.kind == "level":
            return self.sided((e - self.a[i]) * w)
        width = self.b[i] - self.a[i]
        if not width > 0:
            return 0.0
        beyond = {
            "up": e - self.b[i],
            "down": max(0.0, self.a[i] - e),
            "both": max(e - self.b[i], self.a[i] - e),
        }
        far = beyond[s.side] / width
        return min(far, 1e6) if far > s.margin else 0.0

    def learn(self, e: list[float], faulty: list[bool]) -> None:
        s = self.spec
        if s.kind in ("running_z", "likelihood"):
            k = 1.0 / min(self.count + 1.0, float(s.memory))
            self.count += 1.0
        for i in range(self.c):
            if faulty[i]:
                continue
            if s.kind in ("running_z", "likelihood"):
                value = self.z[i] if s.kind == "likelihood" else self.sided(e[i] - self.center[i])
                d = value - self.a[i]
                self.a[i] += k * d
                self.b[i] = max((1.0 - k) * (self.b[i] + k * d * d), 1e-12)
            elif s.kind == "novelty":
                if self.a[i] > self.b[i]:
                    self.a[i] = self.b[i] = e[i]
                self.a[i], self.b[i] = min(self.a[i], e[i]), max(self.b[i], e[i])
            elif s.kind == "level":
                w = s.precision[i]
                self.a[i] += s.rate * clip((e[i] - self.a[i]) * w, 1.0) / w

    def accept(self, drifts: Sequence[bool | None]) -> None:
        for i in range(self.c):
            if not (drifts and drifts[i]):
                self.center[i] = self.b[i] if self.spec.kind == "magnitude" else self.z[i]
            if self.spec.kind in ("likelihood", "level"):
                self.a[i] = self.z[i]
            elif self.spec.kind == "novelty" and self.a[i] <= self.b[i]:
                self.a[i], self.b[i] = min(self.a[i], self.z[i]), max(self.b[i], self.z[i])


class GeneralTwin(Twin):
    """A detector with any spec."""

    def __post_init__(self) -> None:
        spec, c = self.model.detector, self.model.channels
        self.charts = [Chart(s, c) for s in spec.scorers]
        self.mean_of, self.variance_of = [0.0] * c, [1.0] * c
        self.count_of = [float(spec.condition.running_start)] * c
        super().__post_init__()

    def rest(self) -> None:
        super().rest()
        for chart in self.charts:
            chart.rest()
        self.said_then: list[list[float]] = []
        self.before: list[float] | None = None
        self.peak_score, self.peak_age = 0.0, 0
        self.reported = 0.0
        self.high_since = self.below_since = self.closed_at = None
        self.severity = 0
        self.rebase_left = 0
        self.slope, self.seen_of, self.relevel_left = (
            [0.0] * self.model.channels,
            [0] * self.model.channels,
            0,
        )
        self.opener: Chart | None = None

    def network(self, z: list[float]) -> list[float]:
        return super().network(z + self.features)

    def forecasts(self) -> list[list[float] | None] | None:
        """Per horizon what was said of this moment: C values, C log scales; None: too few have spoken."""
        spec, c = self.spec, self.c
        heads = 1 if spec.scale_head == "none" else 2
        k_all = len(spec.horizons)
        if spec.horizons == (1,):
            y = self.said
            return [y[:c] + ([min(max(s, -4.0), 3.0) for s in y[c:]] if heads == 2 else [])]
        if len(self.said_then) < spec.horizons[0 if spec.early else -1]:
            return None
        found: list[list[float] | None] = []
        for k, ahead in enumerate(spec.horizons):
            if len(self.said_then) < ahead:
                found.append(None)
                continue
            y = self.said_then[-ahead]
            part = y[k * c : (k + 1) * c]
            if heads == 2:
                part = part + [min(max(s, -4.0), 3.0) for s in y[(k_all + k) * c : (k_all + k + 1) * c]]
            found.append(part)
        return found

    def time_features(self, time: int) -> list[float]:
        local = time + self.spec.condition.utc_offset_ns
        day, week = local % DAY, (local + 3 * DAY) % (7 * DAY)
        names = [i.name for i in self.model.inputs]
        values = dict(
            zip(
                TIME_FEATURES,
                (
                    sine(day / DAY), cosine(day / DAY), sine(day % (DAY // 2) / (DAY // 2)),
                    cosine(day % (DAY // 2) / (DAY // 2)), sine(week / (7 * DAY)), cosine(week / (7 * DAY)),
                    1.0 if week >= 5 * DAY else 0.0,
                ), strict=True,
            )
        )  # fmt: skip
        return [
            values[f] if f in values else self.change[names.index(f.split(":", 1)[1])]
            for f in self.model.features
        ]

    def tail_value(self, k: float) -> float:
        t = self.spec.threshold
        _, n, _, total, squares = self.tail
        mean = total / k
        variance = max(squares / k - mean * mean, 1e-12 * mean * mean + 1e-300)
        xi = min(max(0.5 * (1.0 - mean * mean / variance), -0.5), 0.5)
        sigma = mean * (1.0 - xi)
        rarity = ln(t.risk * n / k)
        if abs(xi) < 1e-6:
            return max(t.level - sigma * rarity, t.level)
        return max(t.level + sigma / xi * (exp(-xi * rarity) - 1.0), t.level)

    def threshold(self) -> float:
        return self.tail[0] if self.spec.threshold.kind == "spot" else super().threshold()

    def learn(self, score: float) -> None:
        if self.spec.threshold.kind != "spot":
            super().learn(score)
            return
        self.tail[1] += 1
        excess = score - self.spec.threshold.level
        if excess > 0:
            self.tail[2] += 1
            self.tail[3] += excess
            self.tail[4] += excess * excess
            if self.tail[2] >= 4:
                self.tail[0] = self.tail_value(self.tail[2])

    def left(self, faulty: list[bool]) -> bool:
        """Whether enough of the event is left in its own direction."""
        chart = self.opener
        s, w = chart.spec, chart.spec.precision
        d = []
        for i in range(self.c):
            one = 0.0 if faulty[i] else chart.z[i] - chart.center[i]
            d.append(0.0 if (s.side == "up" and one < 0) or (s.side == "down" and one > 0) else one)
        self.open_steps += 1
        self.event = [m + (one - m) / self.open_steps for m, one in zip(self.event, d, strict=True)]
        left = whole = 0.0
        for i in range(self.c):
            inner = 0.0
            if s.kind == "mewma":
                for j in range(self.c):
                    inner += w[i * self.c + j] * self.event[j]
            else:
                inner = w[i] * self.event[i]
            left += d[i] * inner
            whole += self.event[i] * inner
        return not left < self.spec.alarm.recovery * whole

    def alarm_at(self, time: int, score: float, limit: float, faulty: list[bool], best: int) -> bool:
        """Returns whether what is left of an alarm that ends here is to become normal."""
        a = self.spec.alarm
        able = ("mewma", "mewma_diagonal") if a.recovery else ()
        if not score > limit:
            self.high_since = None
        elif self.high_since is None:
            self.high_since = time
        waited = a.pending_ns == 0 or (self.high_since is not None and time - self.high_since >= a.pending_ns)
        paused = self.closed_at is not None and time - self.closed_at < a.refractory_ns
        was = self.phase
        self.history = [*self.history, score > limit][-a.window :]
        if was in ("anomaly", "clearing"):
            recovers = self.opener is not None and self.opener.spec.kind in able
            high = self.left(faulty) if recovers else not score < a.clear_ratio * limit
            if high or self.relevel_left:
                self.phase = "anomaly"
            else:
                if was != "clearing":
                    self.below_since = time
                self.clearing = self.clearing + 1 if was == "clearing" else 1
                self.phase = "clearing"
                if self.clearing > a.clear_hold and time - self.below_since >= a.clear_ns:
                    self.phase, self.history, self.pause = "normal", [], a.refractory
                    self.closed_at = time
                    if recovers and a.rebase and score > limit:
                        self.severity = 0
                        self.rebase_left = self.warm = a.rebase
                        return True
        else:
            hits = sum(self.history)
            if self.pause:
                self.pause -= 1
                opens = False
            else:
                opens = hits >= a.needed and waited and not paused
            self.phase = "anomaly" if opens else "pending" if hits else "normal"
            if opens and best != 255:
                self.opener, self.event, self.open_steps = self.charts[best], [0.0] * self.c, 0
                if self.opener.spec.kind in able:
                    self.left(faulty)
        if self.phase not in ("anomaly", "clearing"):
            self.severity = 0
            return False
        reached = 1 + max((k + 1 for k, m in enumerate(a.severity) if score >= m * limit), default=0)
        self.severity = max(self.severity, reached)
        if was in ("anomaly", "clearing") and self.relevel_left:
            self.relevel_left -= 1
            if self.relevel_left == 0:
                for chart in self.charts:
                    chart.rest()
                return True
        elif score > limit:
            self.relevel_left = a.relevel
        return False

    def follow(self, i: int, scaled: float, said: float, z: float) -> None:
        """Level and slope of a channel with a trend, or the level of one with drift, one good reading on."""
        condition, a = self.spec.condition, self.spec.alarm
        slopes = bool(condition.trend) and condition.trend[i]
        base = self.level_of[i]
        if self.relevel_left:
            looks = any(s.source in ("residual", "nll", "self_scaled") for s in self.spec.scorers)
            left = clip(scaled - base, 1e6) - (said if looks else 0.0)
            self.level[i] = base + left / (a.relevel - self.relevel_left + 1)
            if slopes:
                self.slope[i] += a.relevel_slope_rate * clip(left, condition.clip)
        elif slopes:
            self.seen_of[i] += 1
            n = float(self.seen_of[i])
            g = max(2.0 * (2.0 * n - 1.0) / (n * (n + 1.0)), condition.trend_level_rate)
            self.level[i] = base + g * z
            self.slope[i] += max(6.0 / (n * (n + 1.0)), condition.trend_slope_rate) * z
        else:
            on = self.phase in ("anomaly", "clearing")
            self.level[i] += (condition.drift_rate_in_alarm if on else condition.drift_rate) * z

    def fed(self, i: int, z: float, said: float | None) -> float:
        """What the network is given of a channel."""
        condition = self.spec.condition
        if said is None:
            return z
        if self.relevel_left:
            return clip(said, condition.clip)
        if condition.innovation_limit:
            return clip(said + clip(z - said, condition.innovation_limit), condition.clip)
        return z

    def conditioned(self, i: int, scaled: float) -> tuple[float, float]:
        """The value of a good reading, soft and hard limits applied, and with the hard one alone."""
        condition = self.spec.condition
        z = (scaled - self.level_of[i]) / self.spread[i]
        hard = clip(z, condition.clip)
        if condition.soft_clip and abs(z) > condition.soft_clip:
            size = condition.soft_clip + ln(1.0 + (abs(z) - condition.soft_clip))
            z = size if z > 0 else -size
        return clip(z, condition.clip), hard

    def step(self, x: Any, time: int, present: Any = None) -> dict:
        spec, c = self.spec, self.c
        present = [1] * c if present is None else [int(p) for p in present]
        x = [float(v) for v in x]
        timing = "regular"
        if self.steps and time <= self.time:
            return {
                "time_ns": time, "step": self.steps, "score": NAN, "threshold": NAN, "share": [NAN] * c,
                "residual": [NAN] * c, "expected": [NAN] * c, "fault": ["none"] * c, "accepted": False,
                "status": "fault", "alarm": self.phase in ("anomaly", "clearing"), "probability": NAN,
                "band": [NAN] * c, "scorer": 255, "severity": 0,
                "timing": "duplicate" if time == self.time else "late",
            }  # fmt: skip
        if self.steps == 0:
            self.heard = [time] * c
        elif spec.guard.gap_ns and time - self.time > spec.guard.gap_ns:
            timing = "gap"
            if spec.guard.on_gap == "reset":
                self.rest()
        self.steps, self.time = self.steps + 1, time

        fault = [self.judge(i, x[i], present[i], time) for i in range(c)]
        faulty = [f != "none" for f in fault]
        back = [not faulty[i] and 0 < spec.guard.max_missing < self.bridged[i] for i in range(c)]
        for i in range(c):
            self.bridged[i] = self.bridged[i] + 1 if faulty[i] else 0
        healthy = fault.count("none")
        if any(back):
            self.rest()

        on = self.phase in ("anomaly", "clearing")
        condition = spec.condition
        seen, raw, fed = [], [0.0] * c, []
        ahead = self.said if spec.kind == "forecast" and spec.horizons[0] == 1 else None
        self.level_of, self.spread = [0.0] * c, [1.0] * c
        for i in range(c):
            trends = bool(condition.trend) and condition.trend[i]
            drifts = trends or (bool(condition.drift) and condition.drift[i])
            runs = bool(condition.running) and condition.running[i]
            raw[i] = (x[i] - self.mean[i]) / self.std[i]
            if drifts and not faulty[i] and self.level[i] is None:
                self.level[i] = raw[i]
            if drifts:
                self.level_of[i] = (self.level[i] or 0.0) + (self.slope[i] if trends else 0.0)
            if runs:
                self.level_of[i], self.spread[i] = self.mean_of[i], root(self.variance_of[i])
            if not faulty[i]:
                z, hard = self.conditioned(i, raw[i])
                self.held[i] = z
            elif spec.guard.on_missing == "predict" and self.said is not None:
                z = clip(self.said[i], condition.clip)
            else:
                z = self.held[i]
            seen.append(z)
            fed.append(self.fed(i, z, None if ahead is None else ahead[i]))
            if drifts and not faulty[i]:
                self.follow(i, raw[i], 0.0 if ahead is None else ahead[i], z)
            if runs and not faulty[i] and not on:
                k = 1.0 / min(self.count_of[i] + 1.0, float(condition.running_memory))
                d = hard * self.spread[i]
                self.mean_of[i] += k * d
                self.variance_of[i] = max((1.0 - k) * (self.variance_of[i] + k * d * d), 1e-12)
                self.count_of[i] += 1.0
        self.change = [
            0.0 if self.before is None else z - b for z, b in zip(seen, self.before or seen, strict=True)
        ]
        self.before = list(seen)
        self.features = self.time_features(time)
        if spec.kind != "forecast":
            self.said = self.network(seen)
        sound = self.said is not None and all(map(math.isfinite, self.said))
        said = self.forecasts() if sound and spec.kind != "classify" else None
        sound = sound and (said is not None or spec.kind == "classify")
        out: dict[str, Any] = {
            "time_ns": time, "step": self.steps, "score": NAN, "threshold": NAN, "share": [NAN] * c,
            "residual": [NAN] * c, "expected": [NAN] * c, "fault": fault, "accepted": False,
            "probability": NAN, "band": [NAN] * c, "scorer": 255, "timing": timing,
        }  # fmt: skip
        sources: dict[Any, list[float]] = {
            "input": seen, "difference": self.change,
            "reading": [clip(r, 1e6) for r in raw],
        }  # fmt: skip
        if said is not None:
            self.compare(said, seen, sources, out, x, present)

        warm = self.warm
        if warm and healthy:
            self.warm -= 1
        if sound and healthy:
            calm, parts, best = True, None, 255
            if spec.kind == "classify":
                score = self.said[spec.alarm_class]
            else:
                score, parts, best, ones = self.scored(sources, faulty)
            if warm and self.rebase_left:
                chart, n = self.opener, spec.alarm.rebase - self.rebase_left + 1
                chart.center = [m + (z - m) / n for m, z in zip(chart.center, chart.z, strict=True)]
                self.rebase_left -= 1
            if warm:
                self.reported = max(self.reported, score)
            if warm == 0:
                if spec.threshold.peak_hold:
                    score = self.peak(score)
                limit = self.threshold()
                raised = max(limit, spec.threshold.bar * self.reported)
                out["score"], out["threshold"], out["scorer"] = score, raised, best
                if spec.probability.scores:
                    out["probability"] = 1.0 - exceeded(score, spec.probability)
                out["accepted"] = self.alarm_at(time, score, raised, faulty, best)
                if self.phase in ("anomaly", "clearing"):
                    self.reported = max(self.reported, score)
                    self.frozen += 1
                    calm = False
                else:
                    self.reported *= spec.threshold.bar_decay
                    self.frozen = 0
                    calm = score <= limit
                    if calm:
                        self.learn(score)
                if parts is not None:
                    total = 0.0
                    for p in parts:
                        total += p
                    out["share"] = [
                        p / total if total > 1e-200 else (0.0 if f else 1.0 / healthy)
                        for p, f in zip(parts, faulty, strict=True)
                    ]
            if spec.kind != "classify":
                for chart, one in zip(self.charts, ones, strict=True):
                    if calm or chart.spec.learn == "always":
                        chart.learn(self.source(chart.spec, sources), faulty)
                    learns = calm or (chart.tail and chart.spec.tail.learn == "always")
                    if learns and chart.tail and chart.spec.tail.kind == "stream":
                        chart.tail.counts[chart.tail.bin(one)] += 1
        out["status"] = self.phase if sound and warm == 0 else "warming"
        if healthy < c:
            out["status"] = "fault"
        out["alarm"] = self.phase in ("anomaly", "clearing")
        out["severity"] = self.severity
        if 0 < spec.threshold.max_freeze < self.frozen:
            out["accepted"] = True
            for chart in self.charts:
                chart.accept([a or b for a, b in zip_longest(condition.drift, condition.trend)])
            for i in range(c):
                if condition.running and condition.running[i] and not faulty[i]:
                    self.mean_of[i], self.count_of[i] = clip(raw[i], 1e6), float(condition.running_start)
            self.rest()
        elif spec.kind == "forecast":
            self.said = self.network(fed)
            if all(map(math.isfinite, self.said)):
                self.said_then.append(self.said)
        if self.said is not None and not all(map(math.isfinite, self.said)):
            self.rest()
        return out

    def peak(self, score: float) -> float:
        if score > self.peak_score:
            self.peak_score, self.peak_age = score, 0
            return score
        self.peak_age += 1
        if self.peak_age > self.spec.threshold.peak_hold:
            self.peak_score *= self.spec.threshold.peak_decay
        return 0.0

    def source(self, scorer: Any, sources: dict[Any, list[float]]) -> list[float]:
        ahead = scorer.source in ("residual", "nll", "self_scaled")
        key = (scorer.source, scorer.horizon) if ahead else scorer.source
        return sources[key]

    def compare(
        self,
        said: list[list[float] | None],
        seen: list[float],
        sources: dict,
        out: dict,
        x: Any,
        present: Any,
    ) -> None:
        spec, c = self.spec, self.c
        scales = spec.residual_scale or (1.0,) * (c * len(spec.horizons))
        for k, part in enumerate(said):
            if part is None:
                for name in ("residual", "nll", "self_scaled"):
                    sources[name, k] = [0.0] * c
                continue
            residuals, nlls, sizes = [], [], []
            for i in range(c):
                z, log_scale, scale = seen[i] - part[i], 0.0, 1.0
                if spec.scale_head != "none":
                    log_scale = part[c + i]
                    scale = exp(log_scale)
                    z = z / scale
                z = clip(z, 1e6)
                sizes.append(abs(z))
                likely = 0.5 * (z * z) if spec.scale_head == "gaussian" else abs(z)
                nlls.append(clip(likely + log_scale, 1e6))
                residuals.append(clip(z / scales[k * c + i], 1e6))
                if k == 0:
                    value = (part[i] * self.spread[i] + self.level_of[i]) * self.std[i] + self.mean[i]
                    out["expected"][i] = value
                    out["band"][i] = spec.band * scales[i] * scale * self.spread[i] * self.std[i]
                    if present[i] and math.isfinite(x[i]):
                        out["residual"][i] = x[i] - value
            sources["residual", k], sources["nll", k] = residuals, nlls
            sources["self_scaled", k] = sizes

    def scored(self, sources: dict, faulty: list[bool]) -> tuple[float, list[float], int, list[float]]:
        found, ones = [], []
        for n, chart in enumerate(self.charts):
            value, parts = chart.judge(self.source(chart.spec, sources), faulty)
            value = value / chart.spec.unit
            ones.append(max(value, 0.0))
            if chart.tail:
                value = chart.tail.surprise(ones[-1] if chart.spec.tail.kind == "stream" else value)
            found.append((value * chart.spec.weight, parts, n))
        totals: dict[int, float] = {}
        for value, _, n in found:
            group = self.charts[n].spec.group
            totals[group] = totals.get(group, 0.0) + value
        total = max(totals.values())
        best = max(found, key=lambda f: f[0])
        return (total if self.spec.combine == "sum" else best[0]), best[1], best[2], ones


def plain_numbers(record: np.void) -> dict[str, Any]:
    """A record's fields as a dict."""
    return {name: record[name] for name in record.dtype.names or ()}
