"""What `inspect`, `check` and `convert` say about a model: facts as plain JSON, and the same for people."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edge_rnn.core.digest import weights_digest
from edge_rnn.core.layout import StateLayout
from edge_rnn.core.model import Model
from edge_rnn.errors import printable
from edge_rnn.files.model_file import check_self_test

if TYPE_CHECKING:
    from rich.table import Table

Card = dict[str, Any]


def architecture(model: Model) -> str:
    """The network in one line: `lstm 5 -> 64 -> 64, linear 64 -> 1`."""
    return model.architecture


def card(model: Model) -> Card:
    """The facts that need no compiled code, as plain JSON."""
    facts: Card = {
        "name": model.name,
        "architecture": model.architecture,
        "inputs": [{"name": i.name, "unit": i.unit} for i in model.inputs],
        "outputs": model.output_size,
        "layers": [
            {
                "cell": r.cell,
                "inputs": r.input_size,
                "hidden": r.hidden_size,
                "projection": None if r.w_hr is None else r.output_size,
                "bias": r.b_ih is not None,
            }
            for r in model.layers
        ],
        "head": [
            {"inputs": h.input_size, "outputs": h.output_size, "bias": h.bias is not None,
             "activation": h.activation}
            for h in model.head
        ],
        "size": {
            "parameters": model.parameters,
            "macs_per_step": model.macs,
            "weights_bytes": 4 * model.parameters,
            "state_bytes": 4 * StateLayout(model).core_size,
            "stream_bytes": _stream_bytes(model),
        },
        "scaler": None,
        "detector": _detector(model),
        "rest_state": model.rest_state is not None,
        "activation_ranges": None if model.activation_ranges is None else list(model.activation_ranges),
        "digests": {"weights": weights_digest(model), "state": StateLayout(model).digest},
        "self_test": None,
        "provenance": dict(model.provenance),
    }  # fmt: skip
    if model.scaler is not None:
        facts["scaler"] = {"mean": model.scaler.mean.tolist(), "std": model.scaler.std.tolist()}
    if model.self_test is not None:
        facts["self_test"] = {"steps": len(model.self_test.x), "tolerance": model.self_test.tolerance}
    return facts


def on_this_machine(model: Model, where: str) -> Card:
    """What compiled code says here: numeric class, lanes, CPU, and the self-test's deviation.

    Raises:
        ModelFileError: the compiled step does not reproduce the recorded outputs.
    """
    from edge_rnn.core.jit import target
    from edge_rnn.core.stepper import Stepper

    stepper = Stepper(model)
    return {
        "numeric": stepper.numeric,
        "lanes": stepper.lanes,
        "cpu": target().cpu,
        "self_test_deviation": check_self_test(model, stepper.run, where),
    }


def _stream_bytes(model: Model) -> int | None:
    """Bytes of one stream's whole record, detector included; None without a detector."""
    if model.detector is None:
        return None
    from edge_rnn.detect.plan import record_dtype

    return record_dtype(model).itemsize


def _detector(model: Model) -> Card | None:
    spec = model.detector
    if spec is None:
        return None
    return {
        "kind": spec.kind,
        "horizons": list(spec.horizons),
        "period_ns": spec.period_ns,
        "warmup": spec.warmup,
        "scorers": [{"kind": s.kind, "source": s.source, "rate": s.rate} for s in spec.scorers],
        "combine": spec.combine,
        "threshold": {"kind": spec.threshold.kind, "value": spec.threshold.value},
        "alarm": {
            "needed": spec.alarm.needed,
            "window": spec.alarm.window,
            "clear_ratio": spec.alarm.clear_ratio,
            "clear_hold": spec.alarm.clear_hold,
            "refractory": spec.alarm.refractory,
        },
        "guard": {
            "stuck_after": list(spec.guard.stuck_after),
            "silent_after_ns": spec.guard.silent_after_ns,
            "gap_ns": spec.guard.gap_ns,
            "on_gap": spec.guard.on_gap,
            "on_missing": spec.guard.on_missing,
        },
    }


# --- for people ------------------------------------------------------------------------------------------


def _size(count: int) -> str:
    """Bytes as people say them."""
    if count < 10_000:
        return f"{count:,} bytes"
    return f"{count / 1024:,.1f} KiB" if count < 10 << 20 else f"{count / (1 << 20):,.1f} MiB"


def _duration(ns: int) -> str:
    for unit, size in (("h", 3600 * 10**9), ("min", 60 * 10**9), ("s", 10**9), ("ms", 10**6)):
        if ns >= size:
            return f"{ns / size:g} {unit}"
    return f"{ns} ns"


def _inputs(facts: Card) -> str:
    texts = [i["name"] + (f" [{i['unit']}]" if i["unit"] else "") for i in facts["inputs"]]
    return f"{len(texts)}: " + ", ".join(texts)


def _detector_lines(detector: Card | None) -> list[tuple[str, str]]:
    if detector is None:
        return [("detector", "none: this model steps and forecasts, but gives no verdicts")]
    scorers = ", ".join(f"{s['kind']} of the {s['source']} (rate {s['rate']:g})" for s in detector["scorers"])
    alarm, guard, threshold = detector["alarm"], detector["guard"], detector["threshold"]
    kind = f"{detector['kind']}, warm-up {detector['warmup']} steps"
    if detector["period_ns"]:
        kind += f", one reading every {_duration(detector['period_ns'])}"
    how = scorers or "the output of the alarm class"
    if len(detector["scorers"]) > 1:
        how += f"; combined by {detector['combine']}"
    when = (
        f"{alarm['needed']} of {alarm['window']} above; clears after {alarm['clear_hold']} steps below "
        f"{alarm['clear_ratio']:g} of the threshold; refractory {alarm['refractory']} steps"
    )
    lines = [
        ("detector", kind),
        ("scorers", how),
        ("threshold", f"{threshold['kind']} {threshold['value']:.6g}"),
        ("alarm", when),
    ]
    rules = []
    if any(guard["stuck_after"]):
        limits = guard["stuck_after"] if len(set(guard["stuck_after"])) > 1 else guard["stuck_after"][:1]
        rules.append("stuck after " + ", ".join(map(str, limits)) + " equal readings")
    if guard["silent_after_ns"]:
        rules.append(f"silent after {_duration(guard['silent_after_ns'])}")
    if guard["gap_ns"]:
        rules.append(f"a gap over {_duration(guard['gap_ns'])}: {guard['on_gap']}")
    rules.append(f"a missing channel: {guard['on_missing']}")
    return [*lines, ("guard", "; ".join(rules))]


def _self_test_line(facts: Card) -> str:
    test, machine = facts["self_test"], facts.get("machine")
    if test is None:
        return "none recorded; nothing shows that the weights are what was trained"
    text = f"{test['steps']} steps"
    if machine is not None:
        text += f", largest deviation here {machine['self_test_deviation']:.2g}"
    return f"{text}, allowed {test['tolerance']:.2g}: ok"


def _facts(value: object, indent: int = 0) -> list[str]:
    """Any JSON as indented lines; a long list or text is cut."""
    pad = "  " * indent
    if isinstance(value, Mapping):
        lines = []
        for key, item in value.items():
            if isinstance(item, Mapping | list | tuple | str) and not item:
                continue
            nested = isinstance(item, Mapping)
            lines.append(f"{pad}{key}:" + ("" if nested else " " + _short(item)))
            if nested:
                lines += _facts(item, indent + 1)
        return lines
    return [pad + _short(value)]


def _short(value: object) -> str:
    if isinstance(value, list | tuple):
        text = ", ".join(_short(item) for item in value[:12]) + (", ..." if len(value) > 12 else "")
    elif isinstance(value, float):
        text = f"{value:.6g}"
    elif value is None or isinstance(value, bool):
        text = {None: "-", True: "yes", False: "no"}[value]
    else:
        text = str(value)
    return text if len(text) <= 200 else text[:197] + "..."


def render(facts: Card) -> Table:
    """The card as a table for people; every text from the file is made printable first."""
    from rich.table import Table
    from rich.text import Text

    size, machine = facts["size"], facts.get("machine")
    weights = f"{size['parameters']:,} parameters, {_size(size['weights_bytes'])}"
    state = f"{_size(size['state_bytes'])} a stream"
    if size["stream_bytes"]:
        state += f", {_size(size['stream_bytes'])} with the detector"
    if facts["rest_state"]:
        state += ", starts from a stored resting state"
    scaling = "by mean and spread of each input" if facts["scaler"] else "none: readings are in model space"
    rows = [
        ("model", facts["name"]),
        ("network", facts["architecture"]),
        ("inputs", _inputs(facts)),
        ("outputs", str(facts["outputs"])),
        ("scaling", scaling),
        ("size", f"{weights}; {size['macs_per_step']:,} multiply-adds a step"),
        ("state", state),
        *_detector_lines(facts["detector"]),
    ]
    if machine is not None:
        fused = "with" if machine["numeric"] == "F" else "without"
        lanes = f"{machine['lanes']} lanes, {machine['cpu']}"
        rows.append(("numerics", f"class {machine['numeric']} ({fused} fused multiply-add), {lanes}"))
    rows += [
        ("self-test", _self_test_line(facts)),
        ("weights", facts["digests"]["weights"]),
        ("state layout", facts["digests"]["state"]),
    ]
    if facts["provenance"]:
        rows.append(("provenance", "\n".join(printable(line) for line in _facts(facts["provenance"]))))
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in rows:
        table.add_row(label, Text("\n".join(printable(line) for line in text.split("\n"))))
    return table


def show(facts: Card) -> None:
    """Print the card to stdout."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=False)
    with console.capture() as captured:
        console.print(render(facts))
    # A table fills its last column with blanks.
    sys.stdout.writelines(f"{line.rstrip()}\n" for line in captured.get().splitlines())
