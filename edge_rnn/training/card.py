"""The model card: what a model was trained on and what can be expected of it, in plain words.

A card is plain JSON: it is stored in the model file (`provenance["training"]`) and printed. Simple rules
stand beside the network in the same units, because a recurrent network that forecasts no better than
"the same as last time" is not worth its cycles. The alarms on the held-back rows are few by construction:
the network has not seen these rows, but the threshold was set from them. What a detector finds and how
often it is wrong shows on other recordings, with `edge-rnn replay`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_rnn.training.data import TrainingData, seconds
from edge_rnn.training.trainer import Rows

Card = dict[str, Any]
NOTICEABLE = 0.05
_BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Skill:
    """Mean squared errors of forecasts on held-back rows, in model space."""

    network: float
    persistence: float
    mean: float

    @property
    def gain(self) -> float:
        """How much smaller the network's error is than the best simple rule's: 0.2 = 20 %; may be < 0."""
        best = min(self.persistence, self.mean)
        return 1.0 - self.network / best if best > 0 else 0.0

    def sentence(self) -> str:
        """The comparison in one plain sentence."""
        rule = "repeating the last reading" if self.persistence <= self.mean else "always saying the mean"
        percent = f"{abs(self.gain):.0%}".replace("%", " %")
        if self.gain >= NOTICEABLE:
            return f"The network forecasts {percent} better (squared error) than {rule}."
        if self.gain > -NOTICEABLE:
            return f"The network forecasts no better than {rule}: a detector without it may serve as well."
        return (
            f"The network forecasts {percent} WORSE than {rule}: train on more rows, or use the detector "
            "without a network."
        )


def skill(
    said: list[NDArray[np.float32]], before: list[Rows], held: list[Rows], ahead: int = 1, place: int = 0
) -> Skill:
    """Compare the network's forecasts of the held-back rows with the two simple rules.

    Args:
        said: per stretch the network's outputs (T, O) at all its rows.
        before, held: per stretch the rows it was trained on, and those that follow.
        ahead: steps from a forecast to the row it speaks of; place: which of the network's horizons that is.
    """
    c = before[0].known.shape[1]
    mean = np.concatenate([rows.x[:, :c] for rows in before]).mean(0, dtype=np.float64)
    sums = np.zeros(3)
    count = 0
    for outputs, lead, rows in zip(said, before, held, strict=True):
        x = np.concatenate([lead.x[:, :c], rows.x[:, :c]])
        first = max(len(lead), ahead)
        if first >= len(x):  # a stretch shorter than the horizon: nothing was said about it
            continue
        target, known = x[first:], rows.known[first - len(lead) :]
        forecast = outputs[first - ahead : len(x) - ahead, place * c : (place + 1) * c]
        for i, rule in enumerate((forecast, x[first - ahead : len(x) - ahead], mean)):
            error = np.where(known, target - rule, 0.0)
            sums[i] += float(np.square(error, dtype=np.float64).sum())
        count += int(known.sum())
    sums /= max(count, 1)
    return Skill(*(float(s) for s in sums))


def gate_sentence(gate: Mapping[str, Any]) -> str:
    """Whether the network paid, in plain words; the rule is calibration's (edge_rnn.calibrate.gate)."""
    if gate["ratio"] is None:
        return "with it the alarm is nearly always on: the detector scores the readings alone"
    left = f"what its forecast leaves is {gate['ratio']:.0%} of the readings' size".replace("%", " %")
    limit = f"{gate['limit']:.0%}".replace("%", " %")
    if gate["network"]:
        return f"{left}, below {limit}: it is used"
    return f"{left}, not below {limit}: it does NOT pay, and the detector scores the readings alone"


def data_section(data: TrainingData, trained: int) -> Card:
    """What there was: rows, times, period, channels."""
    first = min(int(s.times_ns[0]) for s in data.stretches)
    last = max(int(s.times_ns[-1]) for s in data.stretches)
    return {
        "rows": data.rows,
        "rows_trained_on": trained,
        "rows_held_back": data.rows - trained,
        "stretches": len(data.stretches),
        "first": _iso(first),
        "last": _iso(last),
        "period_ns": data.period_ns,
        "channels": list(data.channels),
        "rows_labelled_anomalous": data.labelled,
        "notes": list(data.notes),
    }


def _iso(time_ns: int) -> str:
    return str(np.datetime64(time_ns, "ns").astype("datetime64[s]")) + "Z"


def render(card: Mapping[str, Any], width: int | None = None) -> str:
    """The card for people, a few lines; wrapped to `width` columns if that is given."""
    data, net, loss = card["data"], card["network"], card["forecast"]
    lines: list[str] = []

    def say(label: str, *parts: str) -> None:
        lines.append(f"{label:<9} " + "; ".join(parts))

    size = f"{net['cell']} {net['hidden']} x {net['layers']}"
    say("model", f"{card['name']}: {size}", f"{net['parameters']} parameters", f"{net['macs']} MACs a step")
    say("channels", ", ".join(data["channels"]))
    say(
        "data",
        f"{data['rows']} rows, one every {seconds(data['period_ns'])}",
        f"{data['first']} to {data['last']}",
    )
    say("rows", f"{data['rows_trained_on']} trained on", f"{data['rows_held_back']} held back")
    say("training", f"{net['epochs']} epochs, best at {net['best_epoch']}")
    say(
        "forecast",
        f"squared error {loss['training']:.4g} on training rows",
        f"held back {loss['network']:.4g}, last reading {loss['persistence']:.4g}, mean {loss['mean']:.4g}",
    )
    for later in loss.get("horizons", [])[1:]:
        say(
            "",
            f"{later['steps']} steps ahead: held back {later['network']:.4g}, "
            f"last reading {later['persistence']:.4g}, mean {later['mean']:.4g}",
        )
    say("", loss["sentence"])
    if card["drift_removed"]:
        say("drift", f"slow level removed from {', '.join(card['drift_removed'])}")
    if card.get("trend_removed"):
        say("trend", f"level and slope removed from {', '.join(card['trend_removed'])}")
    if card.get("network_gate"):
        say("network", gate_sentence(card["network_gate"]))
    say("spread", ", ".join(f"{name} ±{value:.3g}" for name, value in card["residual_spread"].items()))
    for key, label in (("detector", "detector"), ("baseline", "no RNN")):
        part = card[key]
        if part is not None:
            say(
                label,
                f"threshold {part['threshold']:.4g} ({part['rule']})",
                f"on the held-back rows, which set it: {part['alarms']} alarm(s), "
                f"{part['alarms_per_day']:.3g} a day, "
                f"{part['rows_in_alarm']} of {part['rows']} rows in alarm",
            )
    for key, label in (("test", "test"), ("baseline_test", "no RNN")):
        part = card.get(key)
        if part is not None:
            say(
                label,
                f"on {part['rows']} rows that set nothing: {part['alarms']} alarm(s), "
                f"{part['alarms_per_day']:.3g} a day expected",
            )
    _say_more(card, say)
    for note in data["notes"]:
        say("note", note)
    if width is not None:
        indent = " " * 10
        wrapped = (textwrap.wrap(line, max(width, 40), subsequent_indent=indent) for line in lines)
        lines = [piece for pieces in wrapped for piece in pieces]
    return "\n".join(lines)


def _say_more(card: Mapping[str, Any], say: Callable[..., None]) -> None:
    """Curves as small pictures in text, and what the model costs; a card of an older version has neither."""
    losses = card["network"].get("losses")
    if losses is not None:
        curves = _picture(losses["training"]), _picture(losses["held_back"])
        say("losses", f"training {curves[0]}", f"held back {curves[1]}")
    trials = card["network"].get("trials")
    if trials:
        tried = ", ".join(f"{t['hidden']}: {t['loss']:.4g}" for t in trials)
        say("tried", f"hidden units and held-back loss: {tried}")
    residuals = card.get("residuals")
    if residuals is not None:
        widest = residuals["widest"]
        bars = ", ".join(f"{name} {_picture(counts, 20)}" for name, counts in residuals["counts"].items())
        say("residuals", f"{bars} (from -{widest:g} to {widest:g} spreads)")
    device = card.get("device")
    if device is not None:
        here = [f"a step {device['step_ns']:.0f} ns on this processor"] if "step_ns" in device else []
        say(
            "costs",
            *here,
            f"on a microcontroller {device['weights_bytes'] / 1024:.1f} KiB of flash for weights (int8: a "
            f"quarter) and {device['state_bytes']} B of RAM for a stream's network; edge-rnn export counts",
        )


def _picture(values: Sequence[float], columns: int = 24) -> str:
    """Values as a line of blocks, from their smallest to their largest."""
    finite = np.array([v for v in values if np.isfinite(v)], dtype=np.float64)
    if finite.size == 0:
        return "-"
    pieces = np.array_split(finite, min(columns, finite.size))
    means = np.array([piece.mean() for piece in pieces])
    span = float(np.ptp(means))
    levels = np.round((means - means.min()) / span * 7) if span > 0 else np.zeros(len(means))
    return "".join(_BLOCKS[int(level)] for level in levels)
