"""Means and spreads over noise seeds and fits, and how they are shown."""

from pathlib import Path
from typing import Any

import numpy as np
from helpers.figures import saved_figures

from clockwork.metrics.registry import metric_info
from clockwork.reports.curves import front
from clockwork.reports.pareto import pareto_figure, save_pareto
from clockwork.reports.spreads import members, with_spreads
from clockwork.reports.tables import table


def row(seed: int, fid: float, adaptor_hash: str = "a", **more: Any) -> dict[str, Any]:
    point = {"teacher": "small", "adaptor": "resnet", "schedule": "clock2", "steps": 8, "tflops_full": 2.0}
    return {**point, "seed": seed, "adaptor_hash": adaptor_hash, "metrics": {"fid": fid}, **more}


FITS = [row(seed, fid, f"hash {seed}", fit=seed) for seed, fid in enumerate((4.0, 5.0, 6.0))]


def test_seeds_and_fits_of_a_point_are_one_mean_with_its_spread() -> None:
    other = row(0, 9.0, steps=4)
    mean, alone = with_spreads([FITS[0], other, *FITS[1:]])
    assert (mean["metrics"], mean["spreads"], mean["seeds"], mean["rows"]) == ({"fid": 5.0}, {"fid": 1.0}, [0, 1, 2], 3)
    assert (alone["metrics"], alone["spreads"], alone["rows"]) == ({"fid": 9.0}, {}, 1)
    assert with_spreads([mean, alone]) == [mean, alone] and list(members(mean)) == FITS
    assert "rows" not in table(with_spreads([other])), "a column of ones says nothing"


def test_trainings_that_are_no_fits_of_one_recipe_are_not_averaged() -> None:
    """Another training of an adaptor of that name, without a fit's seed; and rows that differ in what no field says."""
    assert len(with_spreads([row(0, 4.0, "first"), row(1, 5.0, "second")])) == 2
    assert len(with_spreads([row(0, 4.0), row(0, 5.0)])) == 2
    assert len(with_spreads([row(0, 4.0), row(1, 5.0)])) == 1


def test_tables_and_plots_show_the_spread(tmp_path: Path) -> None:
    rows = [*FITS, row(0, 9.0, steps=4, tflops_full=1.0)]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table(with_spreads(rows)).splitlines()]
    assert [lines[0][4], lines[2][4], lines[3][4]] == ["fid", "5.00 ± 1.00", "9.00"]
    (curve,) = pareto_figure(rows, "fid", "tflops_full").data
    assert list(curve.y) == [9.0, 5.0] and list(curve.error_y.array) == [0.0, 1.0]
    with saved_figures() as figures:
        save_pareto(rows, tmp_path / "pareto.png")
    drawn = figures["pareto.png"][metric_info("fid").axis]["resnet clock2"]
    assert np.allclose(drawn, [(1, 9), (2, 5)])


def test_the_front_holds_what_no_other_point_is_better_than() -> None:
    points = [(3.0, 5.0), (1.0, 9.0), (2.0, 9.5), (2.0, 7.0), (4.0, 6.0)]
    assert front(points, "lower") == [(1.0, 9.0), (2.0, 7.0), (3.0, 5.0)]
    assert front(points, "higher") == [(1.0, 9.0), (2.0, 9.5)]
