"""Rows of timings: ratios by round, bars, and what has become slower."""

from dataclasses import replace
from pathlib import Path

import pytest

from clockwork.errors import UserError
from clockwork.reports.timings import Timing, Timings


def timings(**ratios: float) -> Timings:
    rows = [Timing("full", 10.0, 0.5), *(Timing(name, 5.0, 0.1, "full", r, 0.02) for name, r in ratios.items())]
    return Timings("a machine", {"batch": 1}, tuple(rows))


def test_a_busy_spell_does_not_change_a_ratio() -> None:
    row = Timing.of("half", [1.0, 10.0, 2.0], "full", [2.0, 20.0, 4.0], flops_ratio=0.45, bar=0.46)
    assert (row.ms, row.ms_spread, row.ratio, row.ratio_spread) == (2.0, 4.5, 0.5, 0.0)
    assert row.misses_bar and not replace(row, ratio_spread=0.05).misses_bar and not replace(row, bar=0.5).misses_bar
    assert "0.460, missed" in str(Timings("a machine", {}, (row,)))


def test_a_duration_without_anything_to_compare_with_has_a_bar_of_its_own() -> None:
    row = Timing.of("the hook", [0.05, 0.06, 0.07], bar=0.05)
    assert row.ratio is None and not row.misses_bar and replace(row, ms=0.07).misses_bar


def test_what_is_slower_by_more_than_its_spread(tmp_path: Path) -> None:
    older, newer = timings(a=0.50, b=0.50), timings(a=0.51, b=0.53)
    older.write(tmp_path / "folder" / "older.json")
    assert Timings.read(tmp_path / "folder" / "older.json") == older
    assert newer.slower_than(older) == ["b: 0.530 of full, before 0.500"] and older.slower_than(newer) == []
    slow = replace(newer, rows=(Timing("full", 10.6, 0.5), *newer.rows[1:]))
    assert slow.slower_than(older)[0] == "full: 10.600 ms, before 10.000 ms"
    assert len(replace(slow, machine="another").slower_than(older)) == 1, "durations of other machines say nothing"
    assert timings(c=9.0).slower_than(older) == []


def test_other_settings_and_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="batch=1, not 2"):
        timings().require_settings({"batch": 2})
    timings().require_settings({"batch": 1})
    with pytest.raises(UserError, match="no timings"):
        Timings.read(tmp_path / "none.json")
    for content in ("", "[]", "{}", '{"machine": "", "settings": {}, "rows": [{"a": 1}]}'):
        (tmp_path / "other.json").write_text(content)
        with pytest.raises(UserError, match="does not hold timings"):
            Timings.read(tmp_path / "other.json")
