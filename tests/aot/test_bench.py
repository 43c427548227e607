"""`edge-rnn bench --library`: the same report of a library's code, without the compiler in the process."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from edge_rnn import cli
from edge_rnn.bench.report import decode
from tests.aot.libraries import PUMP, described_for
from tests.core.zoo import model as network
from tests.support.need import ROOT

SCRIPT = """
import sys
from edge_rnn import cli

code = cli.main(["bench", "--seconds", "0.02", "--rates", "100", "--streams", "2", *sys.argv[1:], "--json"])
heavy = {"numba", "llvmlite"} & sys.modules.keys()
assert not heavy, heavy
raise SystemExit(code)
"""


def test_a_library_is_measured_and_gives_the_golden_bits(library) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, str(PUMP), "--library", str(library)],
        capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = decode(done.stdout.encode(), "stdout")
    assert report.environment.backend == "library"
    assert report.environment.target.startswith("native (")
    assert report.output.sha256 == report.output.golden
    assert report.path is not None
    assert report.rates[0].detector_per_s > 0
    assert report.start is not None
    # The compiler alone would take more.
    assert max(report.start.cold.peak_rss_kib, report.start.warm.peak_rss_kib) < 80 * 1024
    assert str(library) not in done.stdout


def test_a_library_that_does_not_fit_is_refused(library, tmp_path, capsys) -> None:
    assert cli.main(["bench", str(PUMP), "--library", str(tmp_path)]) == 78
    assert "edge_rnn.json: cannot be read" in capsys.readouterr().err
    other = described_for(library, network(), tmp_path / "other")
    assert cli.main(["bench", str(PUMP), "--library", str(other)]) == 78
    assert "was built for other weights" in capsys.readouterr().err
    assert json.loads((other / "edge_rnn.json").read_text())["model"]["name"] == network().name
