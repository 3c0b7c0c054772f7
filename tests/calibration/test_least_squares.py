"""The normal equations against explicit rows and `torch.linalg.lstsq`; ranks, ridges, and inputs that are singular."""

from dataclasses import replace

import pytest
import torch
from helpers.calibration import add_ones, random_observations, weighted_rows, weights_of
from torch import Tensor

from clockwork.calibration.least_squares import (
    DEFAULT_RIDGE,
    RIDGES,
    NormalEquations,
    error_weights,
    fit_step,
)
from clockwork.calibration.statistics import Moments

Parts = tuple[list[Tensor], list[Tensor], list[Tensor]]
CASES = pytest.mark.parametrize(
    ("num_branches", "guidance", "guided_weight"),
    [(1, 7.5, 1.0), (2, 3.0, 1.0), (2, 7.5, 0.3), (2, 1.0, 2.0), (3, 5.0, 0.7)],
)


def moments_of(parts: Parts) -> Moments:
    x, y, _ = parts
    return Moments.zeros(len(x), x[0].shape[1] + 1, y[0].shape[1]).add(*parts)


def equations_of(parts: Parts, guidance: float, guided_weight: float) -> NormalEquations:
    return NormalEquations.of(moments_of(parts), error_weights(weights_of(len(parts[0]), guidance), guided_weight))


@CASES
def test_the_equations_are_those_of_the_weighted_rows(num_branches: int, guidance: float, guided_weight: float) -> None:
    """Without guidance there are the rows of the only half."""
    parts = random_observations(num_branches, 200, inputs=6, outputs=4)
    rows, targets = weighted_rows(*parts[:2], guidance, guided_weight)
    equations = equations_of(parts, guidance, guided_weight)
    assert torch.allclose(equations.a, rows.T @ rows) and torch.allclose(equations.b, rows.T @ targets)
    assert torch.allclose(equations.solve(1e-12), torch.linalg.lstsq(rows, targets).solution, atol=1e-8)


@CASES
def test_the_ridge_is_relative_to_each_inputs_scale(num_branches: int, guidance: float, guided_weight: float) -> None:
    """It is further rows, one per input; so inputs in other units give the same predictions."""
    x, y, r_out = random_observations(num_branches, 200, inputs=6, outputs=4)
    units = torch.logspace(-3, 3, 6, dtype=torch.float64)
    maps = equations_of((x, y, r_out), guidance, guided_weight).solve(0.1)
    rows, targets = weighted_rows(x, y, guidance, guided_weight)
    ridge_rows = (0.1**0.5 * rows.square().sum(0).sqrt()).diag()
    padded = torch.cat([targets, targets.new_zeros(len(ridge_rows), 4)])
    assert torch.allclose(maps, torch.linalg.lstsq(torch.cat([rows, ridge_rows]), padded).solution, atol=1e-10)
    in_units = equations_of(([part * units for part in x], y, r_out), guidance, guided_weight).solve(0.1)
    rescaled = in_units.unflatten(0, (num_branches, -1)) * torch.cat([units, units.new_ones(1)])[:, None]
    assert torch.allclose(maps, rescaled.flatten(0, 1), atol=1e-10)


@CASES
def test_the_error_is_the_residual_and_its_gradient_is_zero_at_the_solution(
    num_branches: int, guidance: float, guided_weight: float
) -> None:
    parts = random_observations(num_branches, 200, inputs=6, outputs=4)
    rows, targets = weighted_rows(*parts[:2], guidance, guided_weight)
    equations = equations_of(parts, guidance, guided_weight)
    solution = equations.solve(1e-13)
    for maps in (solution, torch.zeros_like(solution), torch.randn_like(solution)):
        assert equations.error(maps) == pytest.approx(float((targets - rows @ maps).square().sum()), rel=1e-9)
    assert equations.constant == pytest.approx(equations.error(torch.zeros_like(solution)))
    maps = solution.clone().requires_grad_()
    (targets - rows @ maps).square().sum().backward()
    assert maps.grad is not None and maps.grad.norm() < 1e-8 * equations.b.norm()


def test_without_weight_on_the_guided_error_each_half_is_fitted_by_itself() -> None:
    parts = random_observations(2, 200, inputs=6, outputs=4)
    maps = equations_of(parts, 3.0, 0.0).solve(1e-3)
    each = [equations_of(([x], [y], [r]), 3.0, 0.0).solve(1e-3) for x, y, r in zip(*parts, strict=True)]
    assert torch.allclose(maps, torch.cat(each))
    coupled = equations_of(parts, 3.0, 1.0).solve(1e-3)
    assert not torch.allclose(maps, coupled, rtol=1e-3)


@CASES
@pytest.mark.parametrize("ridge", [1e-12, 0.3])
def test_reduced_rank_is_the_best_of_its_rank(
    num_branches: int, guidance: float, guided_weight: float, ridge: float
) -> None:
    """Whitening the inputs turns it into the truncated singular value decomposition (Eckart and Young 1936)."""
    equations = equations_of(random_observations(num_branches, 200, 6, 4, noise=3.0), guidance, guided_weight)
    maps = equations.solve(ridge)
    ridged = equations.a + ridge * equations.a.diagonal().diag()
    root = torch.linalg.cholesky(ridged).T  # rootᵀ root = A + ridge diag A
    u, s, vh = torch.linalg.svd(root @ maps, full_matrices=False)
    errors = []
    for rank in range(1, 5):
        down, up = equations.reduce_rank(equations.of_branches(maps), rank)
        down = down.flatten(0, 1)
        assert down.shape == (len(maps), rank) and up.shape == (rank, 4)
        best = torch.linalg.solve(root, (u[:, :rank] * s[:rank]) @ vh[:rank])
        assert torch.allclose(down @ up, best, atol=1e-8)
        errors.append(replace(equations, a=ridged).error(down @ up))
        assert errors[-1] == pytest.approx(errors[0] - float(s[1:rank].square().sum()))
    assert errors == sorted(errors, reverse=True)
    assert torch.allclose(down @ up, maps), "the full rank is the maps themselves"


def split(parts: Parts, first: int) -> tuple[Moments, Moments]:
    one, other = ([[part[rows] for part in kind] for kind in parts] for rows in (slice(first), slice(first, None)))
    return moments_of((one[0], one[1], one[2])), moments_of((other[0], other[1], other[2]))


@pytest.mark.parametrize(("noise", "expected"), [(0.0, {min(RIDGES)}), (60.0, {1e-1, 1.0})])
def test_the_ridge_has_the_least_error_on_held_out_captions(noise: float, expected: set[float]) -> None:
    """Without noise that is the weakest; where there is little but noise, a strong one."""
    parts = random_observations(2, 200, 20, 4, noise)
    fitted, held_out = split(parts, 60)
    maps, equations, fit = fit_step(4, fitted, held_out, (-2.0, 3.0))
    weights = error_weights((-2.0, 3.0), 1.0)
    tried, chooser = (NormalEquations.of(sums, weights) for sums in (fitted, held_out))
    errors = {ridge: chooser.error(tried.solve(ridge)) for ridge in RIDGES}
    assert fit.ridge == min(errors, key=errors.__getitem__) and fit.ridge in expected
    assert torch.allclose(maps.flatten(0, 1), equations_of(parts, 3.0, 1.0).solve(fit.ridge)), "from all captions"
    assert (fit.step, fit.observations, fit.singular) == (4, 200, False)
    assert torch.allclose(equations.a, equations_of(parts, 3.0, 1.0).a)


def test_errors_are_relative_to_guided_r_out_on_held_out_captions() -> None:
    parts = random_observations(2, 200, 6, 4, noise=2.0)
    fitted, held_out = split(parts, 150)
    _, _, fit = fit_step(2, fitted, held_out, (-2.0, 3.0))
    maps = NormalEquations.of(fitted, error_weights((-2.0, 3.0), 1.0)).solve(fit.ridge).unflatten(0, (2, -1))
    x, y, r_out = ([part[150:] for part in kind] for kind in parts)
    errors = [y[i] - add_ones(x[i]) @ maps[i] for i in range(2)]
    error, identity, size = (float((-2 * a + 3 * b).norm()) for a, b in (errors, y, r_out))
    assert fit.error == pytest.approx(error / size) and fit.identity_error == pytest.approx(identity / size)


def test_without_held_out_captions_there_is_no_choice_of_ridge() -> None:
    parts = random_observations(2, 100, 6, 4)
    nothing = Moments.zeros(2, 7, 4)
    assert fit_step(2, moments_of(parts), nothing, (-2.0, 3.0))[2].ridge == DEFAULT_RIDGE
    maps, _, fit = fit_step(2, moments_of(parts), nothing, (-2.0, 3.0), ridges=(1e-7,))
    assert fit.ridge == 1e-7 and torch.allclose(maps.flatten(0, 1), equations_of(parts, 3.0, 1.0).solve(1e-7))


@pytest.mark.parametrize("inputs", [4, 100, 400])
def test_inputs_that_repeat_others_are_solved_and_marked(inputs: int) -> None:
    """A copy, or a sum of others; the maps predict as well as without it."""
    x, y, r_out = random_observations(2, 1000, inputs, 4)
    copied = [torch.cat([part, part[:, :1], part[:, :2].sum(1, keepdim=True)], 1) for part in x]
    assert not equations_of((x, y, r_out), 3.0, 1.0).is_singular()
    equations = equations_of((copied, y, r_out), 3.0, 1.0)
    assert equations.is_singular()
    error = equations_of((x, y, r_out), 3.0, 1.0).error(equations_of((x, y, r_out), 3.0, 1.0).solve(1e-5))
    assert equations.error(equations.solve(1e-5)) == pytest.approx(error, rel=1e-3)


def test_inputs_that_are_always_zero_get_zero_maps_and_are_not_singular() -> None:
    x, y, r_out = random_observations(2, 100, 6, 4)
    padded = [torch.cat([torch.zeros_like(part[:, :2]), part], 1) for part in x]
    equations = equations_of((padded, y, r_out), 3.0, 1.0)
    maps = equations.solve(1e-3).unflatten(0, (2, -1))
    assert not equations.is_singular() and torch.equal(maps[:, :2], torch.zeros(2, 2, 4, dtype=torch.float64))
    expected = equations_of((x, y, r_out), 3.0, 1.0).solve(1e-3).unflatten(0, (2, -1))
    assert torch.allclose(maps[:, 2:], expected)


def test_equal_halves_have_equal_maps() -> None:
    """As with a prompt that is its own negative prompt. Each half's own rows make the solution unique."""
    x, y, r_out = random_observations(1, 100, 6, 4)
    equations = equations_of((x * 2, y * 2, r_out * 2), 7.5, 1.0)
    first, second = equations.solve(1e-9).unflatten(0, (2, -1))
    assert not equations.is_singular() and torch.allclose(first, second, atol=1e-7)
    assert torch.allclose(first, torch.linalg.lstsq(add_ones(x[0]), y[0]).solution, atol=1e-6)
