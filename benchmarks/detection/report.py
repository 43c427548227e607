"""RESULTS.md from the stored results: `python -m benchmarks.detection.report`."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.detection.lines import HERE, RESULTS, Line, table

ORDER = ("skab", "nab", "smap_msl", "merlion")
COMMON = (
    "F1", "FAR %", "MAR %", "in alarm %", "events found %", "false alarms a day", "median delay, rows",
    "VUS-PR", "affiliation F1",
)  # fmt: skip
INTRODUCTION = """\
# Detection, measured

Made by `python -m benchmarks.detection.<set> FOLDER`; do not edit. Every line is strictly streaming through
the detector that the daemon runs. Where seeds are given, a cell is the median over them and, in brackets, the
range. "as set" is the setting as it stands; the lines below it switch parts off and calibrate anew. F1, FAR
and MAR count rows, pooled over files; events, false alarms and delays are pooled; VUS-PR and affiliation F1
are means over files. No measure is point-adjusted. "in alarm" belongs to every recall: an alarm that is
always on finds everything.
"""


def make() -> None:
    """Write RESULTS.md."""
    parts = [INTRODUCTION]
    for name in ORDER:
        path = RESULTS / f"{name}.json"
        if path.is_file():
            parts.append(_section(json.loads(path.read_text())))
    (HERE / "RESULTS.md").write_text("\n".join(parts))


def _section(document: dict[str, Any]) -> str:
    lines = [
        Line(
            line["detector"],
            {k: [float("nan") if v is None else v for v in vs] for k, vs in line["values"].items()},
        )
        for line in document["lines"]
    ]  # fmt: skip
    facts = document["facts"]
    text = [
        f"## {facts.pop('title')}",
        "",
        (
            f"{len(document['files'])} files, {document['rows']:,} rows, {document['events']} judged events; "
            f"{document['date']}, Python {document['python']}, {document['machine']}."
        ),
        "",
        *[f"{key}: {value}." for key, value in facts.items() if not isinstance(value, list)],
        "",
        table(lines, document["board"]),
        "",
        table(lines, COMMON),
        "",
        *[f"{key}:\n\n" + "\n".join(f"* {entry}" for entry in value) + "\n"
          for key, value in facts.items() if isinstance(value, list)],
        "Setting: " + "; ".join(f"{k} = `{v}`" for k, v in document["settings"].items()) + ".",
        "",
        "Compared, to choose it:",
        "",
        *[f"* {entry}" for entry in document["compared"]],
        "",
        "Files: " + ", ".join(document["files"]) + ".",
        "",
    ]  # fmt: skip
    return "\n".join(text)


if __name__ == "__main__":
    make()
