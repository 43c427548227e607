"""The histograms of `edge-rnn bench` as a picture: step and reading on one logarithmic time axis."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge_rnn.bench.report import Report, Timed
from edge_rnn.commands.bench import duration
from edge_rnn.errors import DataError, MissingExtraError

STEP, PATH = "#1f4e79", "#e07b00"


def draw(path: Path, report: Report) -> None:
    """Draw `report` to a .png.

    Raises:
        MissingExtraError: without matplotlib.
        DataError: the file cannot be written.
    """
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:
        raise MissingExtraError("bench --plot needs matplotlib: pip install 'edge-rnn[plot]'") from None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    shown: list[tuple[str, Timed, str]] = [("step", report.step, STEP)]
    if report.path is not None:
        shown.append(("reading: decode, judge, encode", report.path, PATH))
    style = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6}
    with mpl.rc_context(style):
        figure = Figure(figsize=(10, 1.2 + 2.2 * len(shown)), dpi=110)
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
        for axis, (name, timed, color) in zip(axes, shown, strict=True):
            edges, counts = np.array(timed.histogram.edges_ns), np.array(timed.histogram.counts)
            axis.bar(edges[:-1], counts, np.diff(edges), align="edge", color=color, lw=0)
            axis.set_xscale("log")
            # A single slow call among a million must show.
            axis.set_yscale("log")
            axis.set_ylim(0.6, 12 * max(int(counts.max()), 1))
            axis.set_ylabel("calls")
            latency = timed.latency
            marks = (
                ("p50", latency.p50_ns), ("p90", latency.p90_ns), ("p99", latency.p99_ns),
                ("p99.9", latency.p999_ns), ("max", latency.max_ns),
            )  # fmt: skip
            for time_ns in (t for _, t in marks if t is not None):
                axis.axvline(time_ns, color="#555555", lw=0.7, ls=":")
            said = "   ".join(f"{mark} {duration(t)}" for mark, t in marks if t is not None)
            axis.set_title(f"{name}:  {said}", loc="left", fontsize=9)
        axes[-1].xaxis.set_major_formatter(FuncFormatter(lambda t, _: duration(t)))
        axes[-1].xaxis.set_minor_formatter(NullFormatter())
        axes[-1].set_xlabel("time of one call; dotted: p50, p90, p99, p99.9, max")
        e = report.environment
        title = f"{e.board or e.cpu} · {', '.join(report.network.layers)} · {report.date}"
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        figure.tight_layout()
        try:
            figure.savefig(path, metadata={"Software": None})
        except OSError as error:
            raise DataError(f"{path}: cannot be written: {error.strerror or error}") from None
