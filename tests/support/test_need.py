"""The skipping helpers themselves: a test must not be able to skip unseen."""

from __future__ import annotations

import pytest

from tests.support import need


def outcome(call, argument):
    with pytest.raises((pytest.skip.Exception, pytest.fail.Exception)) as caught:
        call(argument)
    return caught.value


@pytest.mark.parametrize("call", [need.module, need.program])
def test_an_absent_part_skips_with_its_name_and_fails_where_all_is_required(call, monkeypatch) -> None:
    monkeypatch.delenv("EDGE_RNN_REQUIRE_ALL", raising=False)
    skipped = outcome(call, "no_such_part")
    assert isinstance(skipped, pytest.skip.Exception)
    assert "no_such_part" in str(skipped)
    monkeypatch.setenv("EDGE_RNN_REQUIRE_ALL", "1")
    failed = outcome(call, "no_such_part")
    assert isinstance(failed, pytest.fail.Exception)
    assert "no_such_part" in str(failed)


def test_present_parts_are_given(tmp_path, monkeypatch) -> None:
    assert need.module("json").dumps([]) == "[]"
    assert need.program("sh").endswith("/sh")
    (tmp_path / "skab").mkdir()
    monkeypatch.setenv("EDGE_RNN_DATA", str(tmp_path))
    assert need.data("skab") == tmp_path / "skab"


def test_public_data_only_ever_skips(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("EDGE_RNN_DATA", str(tmp_path))
    monkeypatch.setenv("EDGE_RNN_REQUIRE_ALL", "1")
    assert isinstance(outcome(need.data, "skab"), pytest.skip.Exception)


def test_a_module_that_is_there_but_broken_is_not_a_skip(tmp_path, monkeypatch) -> None:
    (tmp_path / "half_there.py").write_text("import a_module_nobody_has\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_module_nobody_has"):
        need.module("half_there")
