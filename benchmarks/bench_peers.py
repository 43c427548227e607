"""The comparison works with whatever is installed; how it turns out is nobody's business here."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import peer_steps, peers
from benchmarks.conftest import forecaster
from tests.support import need


def test_a_run_is_stored_and_its_table_and_picture_come_from_the_file(tmp_path, capsys) -> None:
    stored, picture = tmp_path / "peers.json", tmp_path / "peers.png"
    words = ["--rounds", "5", "--shapes", "1/16/1", "--cells", "gru", "--json", str(stored)]
    assert peers.main(words) == 0
    shown = capsys.readouterr().out
    found = json.loads(stored.read_text())
    assert {row["peer"] for row in found["rows"]} >= {"edge-rnn step", "NumPy by hand", "Numba, plain loops"}
    assert set(peer_steps.STEPS) <= {row["peer"] for row in found["rows"]} | found["left_out"].keys()
    assert all(row["error"] <= peers.PARITY for row in found["rows"])
    assert all(row["quartiles"][0] <= row["ns"] <= row["quartiles"][1] for row in found["rows"])
    need.module("matplotlib")
    assert peers.main(["--from", str(stored), "--plot", str(picture)]) == 0
    assert capsys.readouterr().out == shown
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_peer_with_other_outputs_or_none_is_left_out_with_a_reason(monkeypatch) -> None:
    def missing(_: object) -> peer_steps.Step:
        peer_steps.part("no_such_runtime.session")
        raise AssertionError

    monkeypatch.setitem(peer_steps.STEPS, "wrong", lambda _: lambda x: np.zeros(x.shape))
    monkeypatch.setitem(peer_steps.STEPS, "not a number", lambda _: lambda x: np.full(x.shape, np.nan))
    monkeypatch.setitem(peer_steps.STEPS, "missing", missing)
    found, absent = peers.contenders(forecaster("lstm", 1, 16, 1))
    assert not {"wrong", "not a number", "missing"} & {one.peer for one in found}
    assert "differ from the float64 reference" in absent["wrong"]
    assert "differ from the float64 reference by nan" in absent["not a number"]
    assert absent["missing"].startswith("no_such_runtime cannot be imported")


@pytest.mark.parametrize("name", ["peers.json", "empty.json"])
def test_a_file_that_is_no_run_is_said_clearly(name, tmp_path, capsys) -> None:
    (tmp_path / "empty.json").write_text("{}")
    assert peers.main(["--from", str(tmp_path / name)]) == 1
    assert "not a stored run" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--rounds", "4"], ["--shapes", "1/16"], ["--shapes", "0/16/1"]])
def test_wrong_options_are_refused(words) -> None:
    with pytest.raises(SystemExit):
        peers.main(words)
