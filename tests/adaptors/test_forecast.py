"""Forecasters against their published formulas, polynomials, and the identity."""

from collections.abc import Callable
from math import comb, factorial
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.adaptors import POINT, SMALL
from numpy.polynomial import hermite, hermite_e
from torch import Tensor

from clockwork.adaptors import Adaptor, FullStep, Hermite, Identity, Taylor, adaptor_hash, load_adaptor, save_adaptor
from clockwork.adaptors.forecast import physicists_hermite
from clockwork.errors import UserError
from clockwork.flops.cost import PartFlops, on_meta
from clockwork.flops.counter import Flops

FORECASTERS = {
    "taylor1": Taylor(order=1),
    "taylor2": Taylor(order=2),
    "hermite1": Hermite(order=1),
    "hermite2": Hermite(order=2),
}


def full_steps_of(values: Callable[[int], Tensor], *steps: int) -> tuple[FullStep, ...]:
    """Full steps, the latest first, as adaptors get them."""
    return tuple(FullStep(step, None, values(step)) for step in steps)


def random_features(step: int) -> Tensor:
    return torch.randn(2, 12, 3, 4, generator=torch.Generator().manual_seed(step), dtype=torch.double)


def paper_forecast(by_timestep: dict[int, Tensor], t: int, k: int, interval: int, weights: list[float]) -> Tensor:
    """TaylorSeer's prediction of F(x_{t−k}) from F(x_t), F(x_{t+N}), …, by its sums over i and j.

    F(x_t) + Σᵢ ΔⁱF(x_t) / (i! Nⁱ) · wᵢ(−k), ΔⁱF(x_t) = Σⱼ (−1)ⁱ⁻ʲ C(i, j) F(x_{t+jN}). The timestep t decreases.
    """
    result = by_timestep[t].clone()
    for i, weight in enumerate(weights, 1):
        terms = [(-1) ** (i - j) * comb(i, j) * by_timestep[t + j * interval] for j in range(i + 1)]
        result += torch.stack(terms).sum(0) * weight / (factorial(i) * interval**i)
    return result


@pytest.mark.parametrize("interval", [2, 3])
@pytest.mark.parametrize("order", [1, 2])
def test_at_equal_distances_the_formulas_are_the_papers(order: int, interval: int) -> None:
    """Steps count up where timesteps count down, so t = 100 − step."""
    latest, sigma = 3 * interval + 1, 0.6
    full_steps = full_steps_of(random_features, *(latest - i * interval for i in range(3)))
    by_timestep = {100 - full.step: full.r_out for full in full_steps}
    for k in range(1, interval):
        powers = [float((-k) ** i) for i in range(1, order + 1)]
        expected = paper_forecast(by_timestep, 100 - latest, k, interval, powers)
        assert torch.allclose(Taylor(order=order)(full_steps=full_steps, step=latest + k), expected)
        polynomials = [sigma**i * hermite.hermval(-sigma * k, [0] * i + [1]) for i in range(1, order + 1)]
        expected = paper_forecast(by_timestep, 100 - latest, k, interval, polynomials)
        assert torch.allclose(Hermite(order=order, sigma=sigma)(full_steps=full_steps, step=latest + k), expected)


def test_at_uneven_distances_the_formula_is_that_of_the_authors_code() -> None:
    """Every full step updates stored differences, each divided by the distance to the full step before it."""
    steps, stored = [1, 2, 5, 9], list[Tensor]()
    for i, step in enumerate(steps):
        updated = [random_features(step)]
        for previous in stored[:2]:
            updated.append((updated[-1] - previous) / (step - steps[i - 1]))
        stored = updated
    expected = stored[0] + 3 * stored[1] + 9 / 2 * stored[2]
    full_steps = full_steps_of(random_features, 9, 5, 2)
    assert torch.allclose(Taylor(order=2)(full_steps=full_steps, step=12), expected)


@pytest.mark.parametrize("steps", [(7, 5, 3), (9, 5, 4), (4, 3, 1)])
@pytest.mark.parametrize("order", [1, 2])
def test_taylor_continues_a_line_at_any_distances(order: int, steps: tuple[int, int, int]) -> None:
    start, slope = random_features(0), random_features(1)
    full_steps = full_steps_of(lambda step: start + step * slope, *steps)
    for step in (steps[0] + 1, steps[0] + 4):
        assert torch.allclose(Taylor(order=order)(full_steps=full_steps, step=step), start + step * slope)


@pytest.mark.parametrize("distance", [1, 2, 3])
def test_taylor_2_misses_a_parabola_by_a_line(distance: int) -> None:
    """Of s² by −distance · k: its first difference is the slope halfway between two full steps."""
    full_steps = full_steps_of(lambda step: torch.full((1,), step**2), *(10 - i * distance for i in range(3)))
    for k in (1, 2, 3):
        assert float(Taylor(order=2)(full_steps=full_steps, step=10 + k)) == (10 + k) ** 2 - distance * k


@pytest.mark.parametrize("name", FORECASTERS)
def test_with_one_full_step_a_forecast_is_the_identity(name: str) -> None:
    features = torch.randn(2, 12, 3, 4)
    for step in (2, 3, 9):
        forecast = FORECASTERS[name](full_steps=(FullStep(1, None, features),), step=step)
        assert torch.equal(forecast, Identity()(None, features, None, None))


@pytest.mark.parametrize("adaptor", [Taylor, Hermite])
def test_with_two_full_steps_order_2_is_order_1(adaptor: type[Taylor] | type[Hermite]) -> None:
    full_steps = full_steps_of(random_features, 5, 2)
    forecasts = [adaptor(order=order)(full_steps=full_steps, step=7) for order in (1, 2)]
    assert torch.equal(*forecasts)


def test_hermite_polynomials() -> None:
    """By numpy's series; and at σ = √½ the scaled ones are the probabilists', whose first is Taylor's power."""
    for n in range(6):
        coefficients = [0.0] * n + [1.0]
        for x in np.linspace(-3, 3, 7):
            assert physicists_hermite(n, x) == pytest.approx(hermite.hermval(x, coefficients))
            scaled = 0.5 ** (n / 2) * physicists_hermite(n, 0.5**0.5 * x)
            assert scaled == pytest.approx(hermite_e.hermeval(x, coefficients))
    full_steps = full_steps_of(random_features, 5, 2)
    taylor, last = Taylor()(full_steps=full_steps, step=7), full_steps[0].r_out
    assert torch.allclose(Hermite(order=1, sigma=0.5**0.5)(full_steps=full_steps, step=7), taylor)
    assert torch.allclose(Hermite(order=1)(full_steps=full_steps, step=7), (taylor + last) / 2)


@pytest.mark.parametrize("name", FORECASTERS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    full_steps = full_steps_of(random_features, 5, 3, 1)
    halved = tuple(FullStep(full.step, None, full.r_out.to(dtype)) for full in full_steps)
    forecast, expected = (FORECASTERS[name](full_steps=past, step=6) for past in (halved, full_steps))
    assert forecast.dtype == dtype
    assert (forecast - expected).abs().max() < 8 * torch.finfo(dtype).eps * expected.abs().max()


@pytest.mark.parametrize("name", FORECASTERS)
def test_a_forecaster_is_an_adaptor_without_weights_and_flops(name: str, tmp_path: Path) -> None:
    adaptor: Adaptor = FORECASTERS[name]
    assert not adaptor.has_weights and not list(adaptor.parameters()) and adaptor.inputs == ("full_steps", "step")
    parts = PartFlops(Flops(), Flops(), Flops(), *map(torch.Size, ((1, 4, 8, 8), (1, 8, 4, 4), (1, 12, 4, 4), (1, 16))))
    assert parts.adaptor_pass(on_meta(adaptor)) == Flops()
    save_adaptor(tmp_path, adaptor, POINT)
    loaded, _ = load_adaptor(tmp_path)
    assert type(loaded) is type(adaptor) and adaptor_hash(loaded) == adaptor_hash(adaptor)
    assert len({adaptor_hash(other) for other in FORECASTERS.values()}) == len(FORECASTERS)


def test_wrong_arguments() -> None:
    for adaptor in (Taylor, Hermite):
        with pytest.raises(UserError, match="order=3 is not possible"):
            adaptor(SMALL, order=3)
        with pytest.raises(UserError, match="start with a full step"):
            adaptor(SMALL)(full_steps=(), step=1)
    for sigma in (0.0, 1.0):
        with pytest.raises(UserError, match="use one above 0 and below 1"):
            Hermite(SMALL, sigma=sigma)
