"""The whole detector once more, in plain Python floats, written from the documents: slow and obvious.

Only the network's step is borrowed (a Stepper); everything around it is repeated here, to be compared with
the compiled detector bit for bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from edge_rnn.core.model import Model
from edge_rnn.core.stepper import Stepper

NAN = math.nan


def clip(value: float, limit: float) -> float:
    return limit if value > limit else -limit if value < -limit else value


@dataclass
class Twin:
    model: Model
    numeric: str = "auto"
    steps: int = 0
    time: int = 0
    seen: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.spec = self.model.detector
        self.c = self.model.channels
        self.stepper = Stepper(self.model, numeric=self.numeric)
        scaler = self.model.scaler
        self.mean = [0.0] * self.c if scaler is None else scaler.mean.tolist()
        self.std = [1.0] * self.c if scaler is None else scaler.std.tolist()
        self.last = [None] * self.c
        self.run = [0] * self.c
        self.heard = [0] * self.c
        self.center = [list(s.center) for s in self.spec.scorers]
        t = self.spec.threshold
        self.tail = [t.value, t.count, t.excess_count, t.excess_sum, t.excess_squares]
        self.rest()

    def rest(self) -> None:
        self.stepper.reset()
        self.said = None
        self.bridged = [0] * self.c
        self.held = [0.0] * self.c
        self.level = [None] * self.c
        self.z = [list(c) for c in self.center]
        self.warm = self.spec.warmup
        self.phase, self.history, self.clearing, self.pause, self.frozen = "normal", [], 0, 0, 0
        self.local = self.spec.threshold.initial
        self.window: list[float] = []  # in ring order
        self.place, self.window_sum = 0, 0.0

    # guard
    def judge(self, c: int, x: float, presence: int, now: int) -> str:
        g = self.spec.guard
        scaled = (x - self.mean[c]) / self.std[c]
        finite = math.isfinite(scaled)
        if presence == 1:
            self.heard[c] = now
            if finite:
                self.run[c] = self.run[c] + 1 if self.run[c] and x == self.last[c] else 1
                self.last[c] = x
        else:
            if g.silent_after_ns and now - self.heard[c] > g.silent_after_ns:
                return "silent"
            if presence == 0:
                return "missing"
        if not finite:
            return "non-finite"
        low = g.low[c] if g.low else None
        high = g.high[c] if g.high else None
        if (low is not None and x < low) or (high is not None and x > high):
            return "range"
        after = g.stuck_after[c] if g.stuck_after else 0
        return "stuck" if after and self.run[c] > after else "none"

    def network(self, z: list[float]) -> list[float]:
        return [float(v) for v in self.stepper.step(np.array(z, np.float64).astype(np.float32))]

    def threshold(self) -> float:
        t = self.spec.threshold
        if t.kind == "dspot_ewma":
            return t.value + self.local
        if t.kind == "dspot":
            return self.window_mean() + self.tail[0]
        return t.value

    def window_mean(self) -> float:
        return self.window_sum / len(self.window) if self.window else self.spec.threshold.initial

    def learn(self, score: float) -> None:
        t = self.spec.threshold
        if t.kind == "dspot_ewma":
            self.local += t.rate * (score - self.local)
        if t.kind != "dspot":
            return
        excess = score - self.window_mean() - t.level
        self.tail[1] += 1
        if excess > 0:
            self.tail[2] += 1
            self.tail[3] += excess
            self.tail[4] += excess * excess
            if self.tail[2] >= 4:
                self.tail[0] = self.refit()
        if len(self.window) == t.window:
            self.window_sum -= self.window[self.place]
            self.window[self.place] = score
        else:
            self.window.append(score)
        self.window_sum += score
        self.place = (self.place + 1) % t.window
        if self.place == 0:
            self.window_sum = 0.0
            for value in self.window:
                self.window_sum += value

    def refit(self) -> float:
        t = self.spec.threshold
        _, n, k, total, squares = self.tail
        mean = total / k
        variance = max(squares / k - mean * mean, 1e-12 * mean * mean + 1e-300)
        ratio = mean * mean / variance
        xi = min(max(0.5 * (1 - ratio), -0.5), 0.5)
        sigma = mean * (1 - xi)
        rarity = t.risk * n / k
        if abs(xi) < 1e-6:
            value = t.level - sigma * math.log(rarity)
        else:
            value = t.level + sigma / xi * (math.pow(rarity, -xi) - 1)
        return max(value, t.level)

    def alarm(self, score: float, limit: float) -> None:
        a = self.spec.alarm
        self.history = [*self.history, score > limit][-a.window :]
        if self.phase in ("anomaly", "clearing"):
            if not score < a.clear_ratio * limit:
                self.phase = "anomaly"
                return
            self.clearing = self.clearing + 1 if self.phase == "clearing" else 1
            self.phase = "clearing"
            if self.clearing > a.clear_hold:
                self.phase, self.history, self.pause = "normal", [], a.refractory
            return
        hits = sum(self.history)
        if self.pause:
            self.pause -= 1
        elif hits >= a.needed:
            self.phase = "anomaly"
            return
        self.phase = "pending" if hits else "normal"

    def scores(self, deviation: list[float] | None, seen: list[float], fault: list[str]):
        results = []
        for s, center, z in zip(self.spec.scorers, self.center, self.z, strict=True):
            source = seen if s.source == "input" else deviation
            d = []
            for c in range(self.c):
                target = center[c] if fault[c] != "none" else source[c]
                z[c] += s.rate * (target - z[c])
                d.append(0.0 if fault[c] != "none" else z[c] - center[c])
            if s.kind == "mewma":
                parts = []
                for i in range(self.c):
                    inner = 0.0
                    for j in range(self.c):
                        inner += s.precision[i * self.c + j] * d[j]
                    parts.append(d[i] * inner)
                value = 0.0
                for p in parts:
                    value += p
            else:
                parts = [d[c] * d[c] * s.precision[c] for c in range(self.c)]
                value = max(parts)
            results.append((value / s.unit, parts))
        total = 0.0
        for value, _ in results:
            total += value
        best = max(results, key=lambda r: r[0])  # the first of equals
        return (total if self.spec.combine == "sum" else best[0]), best[1]

    def step(self, x, time: int, present=None) -> dict:
        spec, c = self.spec, self.c
        present = [1] * c if present is None else [int(p) for p in present]
        x = [float(v) for v in x]
        if self.steps == 0:
            self.heard = [time] * c
        elif spec.guard.on_gap == "reset" and spec.guard.gap_ns and time - self.time > spec.guard.gap_ns:
            self.rest()
        self.steps, self.time = self.steps + 1, time

        fault = [self.judge(i, x[i], present[i], time) for i in range(c)]
        back = [fault[i] == "none" and 0 < spec.guard.max_missing < self.bridged[i] for i in range(c)]
        for i in range(c):
            self.bridged[i] = 0 if fault[i] == "none" else self.bridged[i] + 1
        healthy = fault.count("none")
        if any(back):
            self.rest()

        on = self.phase in ("anomaly", "clearing")
        seen, level = [], []
        for i in range(c):
            drifts = bool(spec.condition.drift) and spec.condition.drift[i]
            if fault[i] == "none":
                scaled = (x[i] - self.mean[i]) / self.std[i]
                if drifts and self.level[i] is None:
                    self.level[i] = scaled
                z = self.held[i] = clip(scaled - (self.level[i] or 0.0), spec.condition.clip)
            elif spec.guard.on_missing == "predict" and self.said is not None:
                z = clip(self.said[i], spec.condition.clip)
            else:
                z = self.held[i]
            seen.append(z)
            level.append(self.level[i] or 0.0)
            if drifts and fault[i] == "none":
                self.level[i] += (spec.condition.drift_rate_in_alarm if on else spec.condition.drift_rate) * z
        if spec.kind != "forecast":
            self.said = self.network(seen)
        sound = self.said is not None and all(map(math.isfinite, self.said))
        out = {
            "time_ns": time, "step": self.steps, "score": NAN, "threshold": NAN, "share": [NAN] * c,
            "residual": [NAN] * c, "expected": [NAN] * c, "fault": fault, "accepted": False,
        }  # fmt: skip
        deviation = None
        if sound and spec.kind != "classify":
            scale = spec.residual_scale or (1.0,) * c
            deviation = [clip((seen[i] - self.said[i]) / scale[i], 1e6) for i in range(c)]
            out["expected"] = [(self.said[i] + level[i]) * self.std[i] + self.mean[i] for i in range(c)]
            for i in range(c):
                if present[i] and math.isfinite(x[i]):
                    out["residual"][i] = x[i] - out["expected"][i]

        warm = self.warm
        if warm and healthy:
            self.warm -= 1
        if sound and healthy:
            if spec.kind == "classify":
                score, parts = self.said[spec.alarm_class], None
            else:
                score, parts = self.scores(deviation, seen, fault)
            if warm == 0:
                limit = self.threshold()
                out["score"], out["threshold"] = score, limit
                self.alarm(score, limit)
                if self.phase in ("anomaly", "clearing"):
                    self.frozen += 1
                else:
                    self.frozen = 0
                    if score <= limit:
                        self.learn(score)
                if parts is not None:
                    total = 0.0
                    for p in parts:
                        total += p
                    out["share"] = [
                        p / total if total > 1e-200 else (0.0 if f != "none" else 1.0 / healthy)
                        for p, f in zip(parts, fault, strict=True)
                    ]
        out["status"] = self.phase if sound and warm == 0 else "warming"
        if healthy < c:
            out["status"] = "fault"
        out["alarm"] = self.phase in ("anomaly", "clearing")
        if 0 < spec.threshold.max_freeze < self.frozen:
            out["accepted"] = True
            for center, z in zip(self.center, self.z, strict=True):
                for i in range(c):
                    if not (spec.condition.drift and spec.condition.drift[i]):
                        center[i] = z[i]
            self.rest()
        elif spec.kind == "forecast":
            self.said = self.network(seen)
        if self.said is not None and not all(map(math.isfinite, self.said)):
            self.rest()
        return out
