"""The table and the figure of a calibration's errors."""

from pathlib import Path

from PIL import Image

from clockwork.reports.calibration import save_step_errors, step_table

FITS = [
    {"step": 2, "error": 0.371, "identity_error": 1.097, "ridge": 1e-5, "singular": True, "observations": 64},
    {"step": 10, "error": 0.0754, "identity_error": 0.207, "ridge": 0.1, "singular": False, "observations": 64},
]


def test_the_table_has_a_line_per_step_and_notes_where_the_ridge_decides() -> None:
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in step_table(FITS).splitlines()]
    assert lines[0] == ["step", "error", "identity's error", "ridge", "note"]
    assert lines[2:] == [
        ["2", "0.371", "1.097", "1e-05", "singular: the ridge decides"],
        ["10", "0.075", "0.207", "0.1", ""],
    ]
    assert "note" not in step_table(FITS[1:])


def test_the_figure_shows_both_errors(tmp_path: Path) -> None:
    """In two colours besides black, white and the grid's grey."""
    save_step_errors(FITS, tmp_path / "errors.png")
    with Image.open(tmp_path / "errors.png") as image:
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 20)}
    assert {(31, 119, 180), (127, 127, 127)} <= colours  # matplotlib's C0 and C7
