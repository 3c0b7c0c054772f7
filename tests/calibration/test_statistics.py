"""The sums: equal to one product of all observations, however these are cut into batches."""

import math

import pytest
import torch
from helpers.calibration import add_ones, random_observations

from clockwork.calibration import statistics
from clockwork.calibration.statistics import Moments

HALVES = pytest.mark.parametrize("num_branches", [1, 2])


def moments_of(x: list[torch.Tensor], y: list[torch.Tensor], r_out: list[torch.Tensor]) -> Moments:
    return Moments.zeros(len(x), x[0].shape[1] + 1, y[0].shape[1]).add(x, y, r_out)


@HALVES
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_sums_are_the_product_of_all_observations_in_float64(
    num_branches: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half-precision features are summed in float64: in their precision the sums would be off in the third digit."""
    monkeypatch.setattr(statistics, "BLOCK", 100)  # the last block is not full
    x, y, r_out = (
        [part.to(dtype) for part in parts] for parts in random_observations(num_branches, 450, inputs=6, outputs=4)
    )
    sums = moments_of(x, y, r_out)
    columns = torch.cat([*(add_ones(part.double()) for part in x), *(part.double() for part in y)], 1)
    assert sums.products.dtype == sums.r_out.dtype == torch.float64 and sums.count == 450
    assert torch.allclose(sums.products, columns.T @ columns, rtol=1e-12, atol=1e-12)
    expected = [[(a.double() * b.double()).sum() for b in r_out] for a in r_out]
    assert torch.allclose(sums.r_out, torch.tensor(expected, dtype=torch.float64), rtol=1e-12)


@HALVES
def test_blocks_are_the_products_of_each_pair_of_halves(num_branches: int) -> None:
    x, y, r_out = random_observations(num_branches, 50, inputs=6, outputs=4)
    xx, xy, yy = moments_of(x, y, r_out).blocks()
    for i in range(num_branches):
        for j in range(num_branches):
            assert torch.allclose(xx[i, j], add_ones(x[i]).T @ add_ones(x[j]))
            assert torch.allclose(xy[i, j], add_ones(x[i]).T @ y[j])
            assert torch.allclose(yy[i, j], (y[i] * y[j]).sum())


def test_batches_and_their_order_do_not_matter() -> None:
    parts = random_observations(2, 300, inputs=6, outputs=4)
    at_once = moments_of(*parts)
    order = torch.randperm(300)
    for sizes in ([300], [1, 99, 200], [50] * 6):
        sums = Moments.zeros(2, 7, 4)
        for index in order.split(sizes):
            sums = sums.add(*([part[index] for part in kind] for kind in parts))
        assert sums.count == 300
        assert torch.allclose(sums.products, at_once.products, rtol=1e-12, atol=1e-11)
        assert torch.allclose(sums.r_out, at_once.r_out, rtol=1e-12)
    first, rest = (moments_of(*([part[rows] for part in kind] for kind in parts)) for rows in (order[:90], order[90:]))
    both = first + rest
    assert both.count == 300 and torch.allclose(both.products, at_once.products, rtol=1e-12, atol=1e-11)


def test_sums_are_not_changed_by_what_is_added() -> None:
    """An interruption between two sums leaves both as they were."""
    x, y, r_out = random_observations(2, 30, inputs=6, outputs=4)
    sums = moments_of(x, y, r_out)
    before = sums.products.clone(), sums.r_out.clone()
    assert sums.add(x, y, r_out).count == 60
    assert torch.equal(sums.products, before[0]) and torch.equal(sums.r_out, before[1]) and sums.count == 30
    assert sums.add(*([part[:0] for part in kind] for kind in (x, y, r_out))) is sums


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("kind", [0, 1, 2])
def test_values_that_are_not_finite_show_in_the_sums(value: float, kind: int) -> None:
    parts = random_observations(2, 30, inputs=6, outputs=4)
    assert moments_of(*parts).is_finite()
    parts[kind][1][17, 2] = value
    assert not moments_of(*parts).is_finite()


def test_sums_survive_a_file() -> None:
    sums = moments_of(*random_observations(2, 30, inputs=6, outputs=4))
    loaded = Moments.from_tensors(sums.to_tensors("some"), "some")
    assert torch.equal(loaded.products, sums.products) and torch.equal(loaded.r_out, sums.r_out)
    assert (loaded.num_branches, loaded.num_inputs, loaded.count) == (2, 7, 30)
