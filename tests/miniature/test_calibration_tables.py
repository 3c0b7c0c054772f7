"""The tables of docs/calibration.md, on few captions: shapes."""

import pytest

from clockwork.miniature import calibration_tables
from clockwork.miniature.calibration_tables import OTHER, Tables
from clockwork.teachers import load_teacher

pytestmark = pytest.mark.slow


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


@pytest.fixture(scope="module")
def tables() -> Tables:
    return Tables(load_teacher("miniature", guidance=3.0, device="cpu"), captions=2, counts=(4, 16))


def test_maps_are_nearer_than_the_identity_at_their_own_scale(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration_tables, "SCALES", (3.0,))
    [[scale, identity, *fitted]] = [list(map(float, row)) for row in cells(tables.scales())]
    assert scale == 3
    assert len(fitted) == 2 and min(fitted) > identity


def test_another_negative_prompt_gives_other_maps(tables: Tables) -> None:
    rows = cells(tables.negatives())
    assert [row[0] for row in rows] == ["the empty prompt", f"`{OTHER}`"] and {len(row) for row in rows} == {6}
    assert rows[0][2] != rows[0][3]
