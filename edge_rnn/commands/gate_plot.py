"""The gates of every layer over time as heat maps: what the network forgets, what it keeps.

One panel per layer and gate, units from bottom to top, readings from left to right, above them the inputs in
model space. Gates that open and close (sigmoid: LSTM i f o, GRU r z) run from 0, dark, to 1, bright; what
they let through (tanh: LSTM g, GRU n, an RNN's h) from -1, blue, over 0, white, to 1, red. The numbers come
from the float64 reference, the specification of the compiled step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edge_rnn.core.model import Float64, Model
from edge_rnn.core.reference import Reference
from edge_rnn.errors import ConfigError, DataError, MissingExtraError, printable
from edge_rnn.files.readings import Table, read_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_ROWS = 20_000
MAX_PANELS = 48
_MEANING = {
    ("lstm", "i"): "input gate i: 1 writes the cell, 0 does not",
    ("lstm", "f"): "forget gate f: 1 keeps the cell, 0 forgets it",
    ("lstm", "g"): "candidate g: what would be written",
    ("lstm", "o"): "output gate o: 1 shows the cell, 0 hides it",
    ("gru", "r"): "reset gate r: 1 uses the past for the candidate, 0 does not",
    ("gru", "z"): "update gate z: 1 keeps the state, 0 takes the candidate",
    ("gru", "n"): "candidate n: what would be taken",
    ("rnn_tanh", "h"): "hidden state h",
    ("rnn_relu", "h"): "hidden state h",
}
_SIGMOID = {"i", "f", "o", "r", "z"}


def draw_gates(
    model: Model,
    data: str,
    output: str,
    *,
    time: str | None = None,
    channels: Sequence[str] | None = None,
    start: int = 0,
    rows: int = 300,
) -> str:
    """Run recorded data through the model, draw rows `start` to `start + rows`, and say what was drawn.

    Raises:
        DataError: the data cannot be read or is too short.
        MissingExtraError: matplotlib is not installed.
        ConfigError: the picture's name or the number of rows.
    """
    if rows > MAX_ROWS:
        raise ConfigError(f"--rows: expected at most {MAX_ROWS}, got {rows}")
    names = list(channels) if channels else [i.name for i in model.inputs]
    if len(names) != model.input_size:
        raise ConfigError(
            f"--channels: the model has {model.input_size} inputs "
            f"({', '.join(printable(i.name) for i in model.inputs)}), got {len(names)}"
        )
    table = read_table(data, time=time, channels=names)
    if len(table) < start + 2:
        raise DataError(
            f"{printable(data)}: expected more than {start + 1} rows for --start {start}, got {len(table)}"
        )
    x = model_space(model, table)[: start + rows]
    gates = gate_history(model, x)
    figure = _figure(model, x, gates, table, start)
    try:
        figure.savefig(output)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{printable(output)}: the picture cannot be written: {reason}") from None
    panels = sum(len(layer) for layer in gates)
    return f"{len(x) - start} readings, {panels} gates of {len(gates)} layer{'s' if len(gates) != 1 else ''}"


def model_space(model: Model, table: Table) -> Float64:
    """The readings as the model sees them: scaled, a missing one held (0 before the first)."""
    x = table.values.astype(np.float64)
    if model.scaler is not None:
        x = (x - model.scaler.mean) / model.scaler.std
    known = np.isfinite(x)
    last = np.maximum.accumulate(np.where(known, np.arange(len(x))[:, None], -1), axis=0)
    held = np.take_along_axis(x, np.maximum(last, 0), axis=0)
    return np.where(last >= 0, held, 0.0)


def gate_history(model: Model, x: Float64) -> list[dict[str, Float64]]:
    """Per layer and gate the activations (T, H) over readings x (T, I) in model space, from rest."""
    reference = Reference(model)
    steps = [reference.gates(row) for row in x.astype(np.float32)]
    return [
        {gate: np.array([step[layer][gate] for step in steps]) for gate in steps[0][layer]}
        for layer in range(len(model.layers))
    ]


def _figure(model: Model, x: Float64, gates: list[dict[str, Float64]], table: Table, start: int) -> Figure:
    try:
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError(
            "inspect --gates draws with matplotlib, which is not installed: pip install 'edge-rnn[plot]'"
        ) from None
    panels = [(i, gate, values[start:]) for i, layer in enumerate(gates) for gate, values in layer.items()]
    if len(panels) > MAX_PANELS:
        raise ConfigError(f"{len(panels)} gates are more than one picture holds ({MAX_PANELS})")
    heights = [1.2] + [min(max(1.3, 0.035 * values.shape[1]), 3.0) for _, _, values in panels]
    figure = Figure(figsize=(11, sum(heights) + 0.45 * len(heights) + 0.8), dpi=120, layout="constrained")
    axes = figure.subplots(len(panels) + 1, 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    when = table.times_ns[start : len(x)].astype("datetime64[ns]")
    # Each cell of a heat map spans from its reading to the next; readings are drawn as evenly spaced.
    span = date2num([when[0], when[-1]])
    half = (span[1] - span[0]) / max(len(when) - 1, 1) / 2
    centres = np.linspace(span[0], span[1], len(when))
    extent = (span[0] - half, span[1] + half)

    top: Axes = axes[0]
    for channel, name in enumerate(i.name for i in model.inputs):
        top.plot(centres, x[start:, channel], linewidth=0.9, label=_label(name))
    top.set_title("inputs" + (", scaled" if model.scaler is not None else ""), loc="left", fontsize=9)
    top.axhline(0, color="0.8", linewidth=0.6, zorder=0)
    if model.input_size <= 8:
        top.legend(
            loc="lower right",
            bbox_to_anchor=(1.0, 1.0),
            ncols=model.input_size,
            fontsize=7,
            frameon=False,
            borderaxespad=0.1,
            handlelength=1.2,
        )
    for axis, (i, gate, values) in zip(axes[1:], panels, strict=True):
        _heat_map(figure, axis, values.T, extent, sigmoid=gate in _SIGMOID)
        cell = model.layers[i].cell
        axis.set_title(f"layer {i} · {_MEANING[cell, gate]}", loc="left", fontsize=9)
    bottom: Axes = axes[-1]
    bottom.set_xlim(*extent)
    locator = AutoDateLocator()
    bottom.xaxis.set_major_locator(locator)
    bottom.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    bottom.set_xlabel("time (UTC)", fontsize=8)
    for axis in axes:
        axis.tick_params(labelsize=7)
    bottom.xaxis.get_offset_text().set_fontsize(7)
    figure.suptitle(f"{_label(model.name)}: gate activations over {len(when)} readings", fontsize=11)
    return figure


def _label(text: str) -> str:
    """A text as matplotlib shows it as it is: `$` would start a formula, a leading `_` hide it."""
    shown = printable(text).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def _heat_map(
    figure: Figure, axis: Axes, values: Float64, extent: tuple[float, float], *, sigmoid: bool
) -> None:
    from matplotlib.ticker import MaxNLocator

    units = values.shape[0]
    bound = max(1.0, float(np.abs(values[np.isfinite(values)]).max(initial=0.0)))
    image = axis.imshow(
        values,
        aspect="auto",
        origin="lower",
        interpolation="nearest",
        cmap="viridis" if sigmoid else "RdBu_r",
        vmin=0.0 if sigmoid else -bound,
        vmax=bound,
        extent=(*extent, -0.5, units - 0.5),
    )
    axis.set_ylabel("unit", fontsize=7)
    axis.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    bar = figure.colorbar(image, ax=axis, pad=0.005, fraction=0.025, aspect=12)
    bar.ax.tick_params(labelsize=6)
    bar.set_ticks([0, 0.5, 1] if sigmoid else [-bound, 0, bound])
