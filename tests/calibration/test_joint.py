"""Maps that read both halves: against `torch.linalg.lstsq`, and against the equations of halves with equal inputs."""

import pytest
import torch
from helpers.calibration import add_ones, random_observations, weighted_rows, weights_of
from torch import Tensor

from clockwork.calibration.joint import JointEquations
from clockwork.calibration.least_squares import NormalEquations, error_weights, fit_step
from clockwork.calibration.options import FitOptions
from clockwork.calibration.progress import StepMaps
from clockwork.calibration.statistics import Moments

CASES = pytest.mark.parametrize(("guidance", "guided_weight"), [(3.0, 1.0), (7.5, 0.3), (1.0, 2.0), (3.0, 0.0)])


def sums_of(x: list[Tensor], y: list[Tensor]) -> Moments:
    return Moments.zeros(2, x[0].shape[1] + 1, y[0].shape[1]).add(x, y, y)


@CASES
def test_each_half_is_regressed_on_both_whatever_the_guidance(guidance: float, guided_weight: float) -> None:
    """The error is the weighted residual; its gradient is zero at the solution."""
    x, y, _ = random_observations(2, 200, inputs=6, outputs=4)
    equations = JointEquations.of(sums_of(x, y), error_weights(weights_of(2, guidance), guided_weight))
    maps = equations.solve(1e-13)
    z = torch.cat(x, 1)
    for half, target in zip(equations.of_branches(maps), y, strict=True):
        assert torch.allclose(half, torch.linalg.lstsq(add_ones(z), target).solution, atol=1e-8)
    rows, targets = weighted_rows([z, z], y, guidance, guided_weight)
    for tried in (maps, torch.zeros_like(maps), torch.randn_like(maps)):
        residual = targets - rows @ equations.of_branches(tried).flatten(0, 1)
        assert equations.error(tried) == pytest.approx(float(residual.square().sum()), rel=1e-9)
    assert not equations.is_singular(), "the halves share one constant"


@CASES
@pytest.mark.parametrize("ridge", [1e-9, 0.3])
def test_ranks_are_those_of_branches_with_equal_inputs(guidance: float, guided_weight: float, ridge: float) -> None:
    """Of the same problem written out, whose ranks `test_least_squares.py` checks by singular values."""
    x, y, _ = random_observations(2, 200, inputs=3, outputs=4, noise=3.0)
    weights, z = error_weights(weights_of(2, guidance), guided_weight), torch.cat(x, 1)
    joint, written_out = JointEquations.of(sums_of(x, y), weights), NormalEquations.of(sums_of([z, z], y), weights)
    # The ridge of the joint equations is `K ⊗ ridge diag A`.
    ridged = written_out.a + ridge * torch.kron(weights, torch.cat([z.square().sum(0), z.new_tensor([200])]).diag())
    expected = written_out.of_branches(torch.linalg.solve(ridged, written_out.b))
    maps = joint.of_branches(joint.solve(ridge))
    assert torch.allclose(maps, expected, atol=1e-7) and torch.allclose(joint.targets(), written_out.targets())
    for rank in (1, 2, 3):
        products = [torch.matmul(*equations.reduce_rank(maps, rank)) for equations in (joint, written_out)]
        assert torch.allclose(*products, atol=1e-9)
        assert torch.linalg.matrix_rank(products[0].flatten(0, 1)) == rank


def test_they_predict_what_a_half_alone_does_not_tell() -> None:
    """The target of each half depends on the other; the figures are those of the guided error."""
    x, y, r_out = random_observations(2, 400, inputs=6, outputs=4, noise=0.1)
    y = [y[0] + 5 * x[1][:, :4], y[1] - 5 * x[0][:, :4]]
    sums = Moments.zeros(2, 7, 4).add(x, y, r_out)
    nothing = Moments.zeros(2, 7, 4)
    separate, joint = (
        fit_step(2, sums, nothing, (-2.0, 3.0), ridges=(1e-9,), kind=FitOptions(joint=joint).equations(2))
        for joint in (False, True)
    )
    assert separate[0].shape == (2, 7, 4) and joint[0].shape == (2, 13, 4)
    assert joint[2].error < 0.5 * separate[2].error
    assert joint[2].identity_error == pytest.approx(separate[2].identity_error)
    errors = [target - add_ones(torch.cat(x, 1)) @ maps for target, maps in zip(y, joint[0], strict=True)]
    guided = -2 * errors[0] + 3 * errors[1]
    assert joint[2].error == pytest.approx(float(guided.norm() / (-2 * r_out[0] + 3 * r_out[1]).norm()))
    assert StepMaps.of(joint[0], joint[1], None).weight.shape == (2, 4, 12)


def test_without_guidance_there_is_one_half_to_read() -> None:
    options = FitOptions(joint=True)
    assert options.equations(1) is NormalEquations and options.equations(2) is JointEquations
    assert [options.num_unknowns(168, halves) for halves in (1, 2)] == [169, 337]
    assert FitOptions().num_unknowns(168, 2) == 169 and FitOptions().equations(2) is NormalEquations
